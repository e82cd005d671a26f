"""What the log must not say, and how it says the rest: one event is one line, its traceback is indented."""

from __future__ import annotations

import logging
import re

from worker.visible import one_line, visible

SHARE_PATH = re.compile(r"(/s/)[\w-]{20,}")
INDENT = "    "


def _without_tokens(text: str) -> str:
    return SHARE_PATH.sub(r"\1…", text)


class HideTokens(logging.Filter):
    """A share link's path is its secret: whoever reads the log must not be able to use the link."""

    def filter(self, record: logging.LogRecord) -> bool:
        record.msg, record.args = one_line(_without_tokens(record.getMessage())), ()
        return True


class Lines(logging.Formatter):
    """Nothing that a stranger wrote begins a line of its own, nor commands the terminal that shows it."""

    def formatException(self, ei: object) -> str:  # noqa: N802  (logging's own name)
        return self._inner(super().formatException(ei))  # type: ignore[arg-type]

    def formatStack(self, stack_info: str) -> str:  # noqa: N802
        return self._inner(super().formatStack(stack_info))

    def _inner(self, text: str) -> str:
        lines = re.split(r"\r\n|\r|\n", _without_tokens(text))
        return "\n".join(f"{INDENT}{visible(line)}" for line in lines)
