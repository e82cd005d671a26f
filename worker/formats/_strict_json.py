"""JSON as strangers write it: parsed within bounds, and refused where two readers could see different things."""

from __future__ import annotations

import json
import math
from typing import Any

LONGEST = 48 * 1024 * 1024  # bytes, which take a gigabyte as values; the largest description seen has four million
DEEPEST = 256  # of lists and tables in each other; a model in a model in a model has about twenty
EXPECTED = "JSON in which every key stands once, every number is finite, and nothing lies deeper than 256 levels"


class Bad(ValueError):
    """What is wrong with a text, as the end of a sentence that begins with its name."""


def parsed(text: str | bytes) -> Any:
    """The value; also of a JSON text inside of a JSON text, as ``json.dump(model.to_json())`` wrote it."""
    if len(text) > LONGEST:
        raise Bad(f"holds a text of {len(text):,} bytes")
    try:
        decoded = text.decode("utf-8-sig") if isinstance(text, bytes) else text
        value = _loads(decoded)
        value = _loads(value) if isinstance(value, str) and value.lstrip().startswith("{") else value
    except Bad:
        raise
    except RecursionError as error:
        raise Bad("is nested too deeply to be read") from error
    except ValueError as error:  # of JSON, of its encoding, of numbers with thousands of digits
        raise Bad(f"is not valid JSON ({' '.join(str(error).split())[:120]})") from error
    checked(value)
    return value


def _loads(text: str) -> Any:
    return json.loads(text, object_pairs_hook=_once, parse_constant=_no_number)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for place, name in enumerate(names) if name in names[:place])
        raise Bad(f"has the key {twice[:60]!r} twice in one object")
    return found


def _no_number(word: str) -> Any:
    raise Bad(f"has {word} where a number should be")


def checked(value: Any) -> None:
    """Bad where a value is nested too deeply, is no finite number, or a text is none of Unicode."""
    level = [value]
    for _ in range(DEEPEST):
        level = [inner for item in level for inner in _inside(item)]
        if not level:
            return
    raise Bad(f"is nested more than {DEEPEST} levels deep")


def _inside(item: Any) -> Any:
    if isinstance(item, dict):
        return (*item, *item.values())
    if isinstance(item, list):
        return item
    if isinstance(item, float) and not math.isfinite(item):
        raise Bad("has a number that is not finite")
    if isinstance(item, str) and not item.isascii():
        _is_unicode(item)
    return ()


def _is_unicode(text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise Bad("has half of a character (a lone surrogate) in a text") from error
