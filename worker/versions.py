"""The libraries that take part in a conversion, as installed here. Asked outside of jobs: people paste them."""

from __future__ import annotations

import importlib.metadata
import platform

from worker.formats._format import Format

LIBRARIES = ("tensorflow", "keras", "numpy")  # of every job; the others are those that its formats need


def versions(*items: Format) -> dict[str, str]:
    """The libraries behind these formats, by name, and Python."""
    names = dict.fromkeys([*LIBRARIES, *(name for item in items for name in item.needs)])
    found = {name.replace("_", "-"): importlib.metadata.version(name) for name in names}
    return {"python": platform.python_version()} | found
