"""A marshalled code object, read as data: nothing here makes a code object, and nothing can be run from what it gives.

The layout is that of CPython's Python/marshal.c (``r_object``), for the releases 3.6 to 3.13. Which of the three
layouts of a code object it is shows only in whether the bytes can be read as it, so each is tried.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any

MOST_BYTES = 16_384
MOST_OBJECTS = 2_000  # with everything that a reference stands for
LETTERS = 64  # of a text, or bytes, that weigh as much as one object
DEEPEST = 8
LONGEST_NAME = 100
WIDEST = 2**63  # of an integer
_REFERABLE = 0x80  # FLAG_REF
_DIGITS = 5  # of 15 bits

# How many numbers stand before the instructions, and what follows them, by the releases that write so.
LAYOUTS = {
    "3.6": ("arguments keywords locals stack flags", "code constants names variables free cells file name first lines"),
    "3.8": (
        "arguments positional keywords locals stack flags",
        "code constants names variables free cells file name first lines",
    ),
    "3.11": (
        "arguments positional keywords stack flags",
        "code constants names variables kinds file name qualified first lines exceptions",
    ),
}
_TUPLES = ("constants", "names", "variables", "free", "cells")
_BYTES = ("code", "kinds", "lines", "exceptions")


class NotUnderstood(Exception):
    """What of a function could not be understood, in words; ``place`` is how far the reading had come."""

    def __init__(self, problem: str, place: int = 0) -> None:
        super().__init__(problem)
        self.place = place


@dataclass(frozen=True)
class Code:
    """A function as its file describes it. ``layout`` is the first release of Python that writes code objects so."""

    layout: str
    fields: dict[str, Any]

    @property
    def instructions(self) -> bytes:
        return bytes(self.fields["code"])

    @property
    def constants(self) -> tuple[Any, ...]:
        return tuple(self.fields["constants"])

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self.fields["names"])

    @property
    def variables(self) -> tuple[str, ...]:
        return tuple(self.fields["variables"])

    @property
    def parameters(self) -> tuple[str, ...]:
        return self.variables[: self.fields["arguments"] + self.fields["keywords"]]

    @property
    def keyword_only(self) -> int:
        return int(self.fields["keywords"])

    @property
    def from_outside(self) -> tuple[str, ...]:
        """Variables that belong to another function, or to this one and another."""
        kinds = self.fields.get("kinds", b"")
        shared = [name for name, kind in zip(self.variables, kinds, strict=False) if kind & 0xC0]
        return (*self.fields.get("free", ()), *self.fields.get("cells", ()), *shared)


def read_code(data: bytes) -> list[Code]:
    """Every way to read the bytes as one code object, each to the last byte; NotUnderstood where there is none."""
    if len(data) > MOST_BYTES:
        raise NotUnderstood("it is longer than any function that is worth reading")
    found, problems = [], []
    for layout in LAYOUTS:
        try:
            found.append(_Reader(data).whole(layout))
        except NotUnderstood as problem:
            problems.append(problem)
    if not found:
        raise max(problems, key=lambda problem: problem.place)
    return found


class _Reader:
    """Reads one object after the other. Every object has a weight, and what is referred to again weighs again."""

    def __init__(self, data: bytes) -> None:
        self.data, self.place, self.weight, self.depth = data, 0, 0, 0
        self.known: list[tuple[Any, int] | None] = []

    def whole(self, layout: str) -> Code:
        if not self.data or self._byte() & ~_REFERABLE != ord("c"):
            raise NotUnderstood("its bytes are no function of Python")
        if self.data[0] & _REFERABLE:
            self.known.append(None)
        numbers, objects = (words.split() for words in LAYOUTS[layout])
        fields: dict[str, Any] = {name: self._number() for name in numbers}
        for name in objects:
            fields[name] = self._number() if name == "first" else self._field(name)
        if self.place != len(self.data):
            raise self._damaged()
        self._check(fields)
        return Code(layout, fields)

    def _field(self, name: str) -> Any:
        value = self.object()
        wanted = tuple if name in _TUPLES else bytes if name in _BYTES else str
        if not isinstance(value, wanted):
            raise self._damaged()
        if name in _TUPLES and name != "constants" and not all(map(_is_name, value)):
            raise self._damaged()
        return value

    def _check(self, fields: dict[str, Any]) -> None:
        count = fields["arguments"] + fields["keywords"]
        if min(fields["arguments"], fields["keywords"], fields["flags"]) < 0 or count > len(fields["variables"]):
            raise self._damaged()
        if len(fields.get("kinds", fields["variables"])) != len(fields["variables"]):
            raise self._damaged()

    def object(self) -> Any:
        self.depth += 1
        before = self.weight
        self._weigh(1)
        if self.depth > DEEPEST:
            raise NotUnderstood("its constants are nested too deeply", self.place)
        kind = self._byte()
        slot = len(self.known)
        if kind & _REFERABLE:
            self.known.append(None)
        value = self._value(chr(kind & ~_REFERABLE))
        if kind & _REFERABLE:
            self.known[slot] = (value, self.weight - before)
        self.depth -= 1
        return value

    def _value(self, kind: str) -> Any:
        if kind in _PLAIN:
            return _PLAIN[kind]
        if kind == "r":
            return self._referred()
        if kind in "il":
            return self._number() if kind == "i" else self._long()
        if kind in "gy":
            return self._floats(1)[0] if kind == "g" else complex(*self._floats(2))
        if kind in "()":
            return tuple(self.object() for _ in range(self._count(short=kind == ")")))
        if kind in "sutaAzZ":
            return self._text(kind)
        problem = "a function inside of it" if kind == "c" else f"a constant of the kind {kind!r}"
        raise NotUnderstood(problem, self.place)

    def _text(self, kind: str) -> Any:
        content = self._take(self._count(short=kind in "zZ"))
        self._weigh(len(content) // LETTERS)
        if kind == "s":
            return content
        try:
            return content.decode("utf-8" if kind in "ut" else "ascii")
        except UnicodeDecodeError as error:
            raise self._damaged() from error

    def _referred(self) -> Any:
        number = self._number()
        found = self.known[number] if 0 <= number < len(self.known) else None
        if found is None:
            raise self._damaged()
        self._weigh(found[1])
        return found[0]

    def _weigh(self, weight: int) -> None:
        self.weight += weight
        if self.weight > MOST_OBJECTS:
            raise NotUnderstood("its constants stand for more values than a function has", self.place)

    def _count(self, *, short: bool) -> int:
        count = self._byte() if short else self._number()
        if not 0 <= count <= len(self.data) - self.place:
            raise self._damaged()
        return count

    def _long(self) -> int:
        count = self._number()
        if abs(count) > _DIGITS:
            raise NotUnderstood("a whole number of more than 64 bits", self.place)
        digits = struct.unpack(f"<{abs(count)}H", self._take(2 * abs(count)))
        value: int = sum(digit << (15 * position) for position, digit in enumerate(digits))
        if value > WIDEST:
            raise NotUnderstood("a whole number of more than 64 bits", self.place)
        return -value if count < 0 else value

    def _floats(self, count: int) -> tuple[float, ...]:
        return struct.unpack(f"<{count}d", self._take(8 * count))

    def _number(self) -> int:
        return int(struct.unpack("<i", self._take(4))[0])

    def _byte(self) -> int:
        return self._take(1)[0]

    def _take(self, count: int) -> bytes:
        content = self.data[self.place : self.place + count]
        if len(content) != count:
            raise self._damaged()
        self.place += count
        return content

    def _damaged(self) -> NotUnderstood:
        return NotUnderstood("its byte code is damaged, or of a Python before 3.6 or after 3.13", self.place)


def _is_name(value: Any) -> bool:
    """``x``, or ``tensorflow.keras`` behind an import: what is shown to people is no text of anybody's."""
    return isinstance(value, str) and len(value) <= LONGEST_NAME and value.replace(".", "_").isidentifier()


_PLAIN = {"N": None, "F": False, "T": True, ".": Ellipsis}
