"""The options of a conversion, as pages say them and as names of files carry them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from worker import formats
from worker.formats._format import Option


def in_words(target: str, options: Mapping[str, Any]) -> str:
    """``precision int8, opset 17``: every choice that was made, and what else is not as usual."""
    known = _known(target)
    telling = [(name, value) for name, value in _ordered(target, options) if _is_telling(known.get(name), value)]
    return ", ".join(_said(name, value) for name, value in telling)


def in_a_name(target: str, options: Mapping[str, Any]) -> str:
    """``-int8``: what is not as usual, so that two results of one format never have the same name."""
    known = _known(target)
    unusual = [(name, value) for name, value in _ordered(target, options) if _is_unusual(known.get(name), value)]
    return "".join(f"-{_plain(value if isinstance(value, str) else _said(name, value))}" for name, value in unusual)


def _said(name: str, value: Any) -> str:
    words = name.replace("_", " ")
    if isinstance(value, bool):
        return words if value else f"no {words}"
    return f"{words} {value}"


def _is_telling(option: Option | None, value: Any) -> bool:
    return _is_unusual(option, value) or bool(option and option.choices)


def _is_unusual(option: Option | None, value: Any) -> bool:
    return option is None or value != option.default


def _plain(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


def _ordered(target: str, options: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """In the format's own order; then those that it has no longer."""
    names = [*(name for name in _known(target) if name in options), *sorted(set(options) - set(_known(target)))]
    return ((name, options[name]) for name in names)


def _known(target: str) -> dict[str, Option]:
    found = formats.formats().get(target)
    return {option.name: option for option in found.options} if found else {}
