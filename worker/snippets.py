"""The code that loads a file, with the versions that it was seen to work with here. Plain data and text."""

from __future__ import annotations

from collections.abc import Iterable

from worker.formats._format import Format
from worker.report import Check

COMMENT = {"python": "#", "javascript": "//"}
INSTALL = {"python": "pip install", "javascript": "npm install"}


def pinned(item: Format, checks: Iterable[Check]) -> str:
    """The snippet of a format, under a line that says with what it ran; as it is where no load-back was made.

    Empty where the runtime that it is written for was tried and did not compute the same.
    """
    cells = next((check.data.get("cells") or [] for check in checks if check.name == "load-back"), [])
    if not item.snippet or not cells:
        return item.snippet
    home, mark, install = cells[0], COMMENT[item.snippet_language], INSTALL[item.snippet_language]
    if home["verdict"] == "same":
        pins = f"{mark} Ran here with {home['label']} {home['version']}. To have the same: {install} {home['install']}"
        own = [line for line in item.snippet.splitlines(keepends=True) if not line.startswith(f"{mark} {install} ")]
        return f"{pins}\n{''.join(own)}"
    return f"{mark} {home['label']}: {home['said']}.\n{item.snippet}" if home["verdict"] == "absent" else ""
