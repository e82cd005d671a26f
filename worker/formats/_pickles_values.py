"""What a pickle holds, as plain data: numbers, texts, lists, tables, arrays, and inert notes of everything else.

Long texts and bytes are not read: a ``Span`` says where they stand in the file and how they are written there.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO, Any

from worker.errors import CorruptFile

BLOCK = 256 * 1024
LATIN = {"latin1", "latin-1", "iso-8859-1", "latin_1", "iso8859-1"}
CUT_ESCAPE = re.compile(rb"\\(?:x[0-9a-fA-F]?|[0-7]{0,2})\Z")
RAW, UTF8, UNICODE_LINE, QUOTED = "raw", "utf-8", "raw-unicode-escape", "quoted"


class Unknown:
    """A value that is not known, or not kept; there is one of it."""


UNKNOWN = Unknown()


@dataclass(frozen=True, eq=False, slots=True)
class Span:
    """Bytes of a file. ``coding`` is how they are written; ``encoded``: a text that is turned into Latin-1."""

    path: Path
    offset: int
    length: int
    coding: str = RAW
    encoded: bool = False

    @property
    def is_text(self) -> bool:
        return self.coding in (UTF8, UNICODE_LINE) and not self.encoded

    def as_bytes(self) -> Span:
        """The same text as the bytes that encoding it as Latin-1 gives."""
        return replace(self, encoded=True)

    def chunks(self) -> Iterator[bytes]:
        """The content, piece by piece; texts come as UTF-8. CorruptFile where it is not what it should be."""
        with self.path.open("rb") as file:
            file.seek(self.offset)
            try:
                yield from self._decoded(_blocks(file, self.length))
            except ValueError as error:
                problem = f"a text at byte {self.offset:,} cannot be read ({error})"
                raise CorruptFile(name=self.path.name, problem=problem) from error

    def _decoded(self, blocks: Iterable[bytes]) -> Iterator[bytes]:
        if self.coding == RAW:
            yield from blocks
        elif self.coding == QUOTED:
            yield from _unquoted(blocks)
        else:
            decoder = codecs.getincrementaldecoder(self.coding)("surrogatepass" if self.coding == UTF8 else "strict")
            wanted = "latin-1" if self.encoded else "utf-8"
            for block in blocks:
                yield decoder.decode(block).encode(wanted)
            yield decoder.decode(b"", True).encode(wanted)

    def head(self, size: int = 512) -> bytes:
        """The first bytes of the content."""
        found = b""
        for block in replace(self, length=min(self.length, 8 * size + 8)).chunks_as_far_as_they_go():
            found += block
            if len(found) >= size:
                break
        return found[:size]

    def chunks_as_far_as_they_go(self) -> Iterator[bytes]:
        """Like ``chunks`` for a span that was cut, perhaps inside of a character."""
        try:
            yield from self.chunks()
        except CorruptFile:
            return


def _blocks(file: IO[bytes], length: int) -> Iterator[bytes]:
    while length > 0 and (block := file.read(min(BLOCK, length))):
        length -= len(block)
        yield block


def _unquoted(blocks: Iterable[bytes]) -> Iterator[bytes]:
    """A string of Python 2 with its escapes; none of them is longer than four characters."""
    rest = b""
    for block in blocks:
        rest += block
        held = CUT_ESCAPE.search(rest)
        cut = held.start() if held and not _is_escaped(rest, held.start()) else len(rest)
        yield codecs.escape_decode(rest[:cut])[0]
        rest = rest[cut:]
    yield codecs.escape_decode(rest)[0]


def _is_escaped(text: bytes, position: int) -> bool:
    """Is the backslash at this position itself behind a backslash that counts?"""
    before = text[:position]
    return (len(before) - len(before.rstrip(b"\\"))) % 2 == 1


# Nodes ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Name:
    """Something the pickle would import."""

    module: str
    name: str

    @property
    def dotted(self) -> str:
        """The name as NumPy 2 calls it, whichever NumPy wrote it."""
        return f"{self.module}.{self.name}".replace("numpy.core.", "numpy._core.", 1)


@dataclass(eq=False, slots=True)
class Table:
    """A dictionary as its pairs, in order: keys can be anything here, and nothing is ever hashed."""

    pairs: list[tuple[Any, Any]] = field(default_factory=list)

    def get(self, key: str) -> Any:
        """The last value under a text; None where there is none."""
        return next((value for name, value in reversed(self.pairs) if text_of(name) == key), None)

    def named(self) -> dict[str, Any] | None:
        """The pairs where every key is a short text or a number, else None."""
        names = [text_of(key) if not isinstance(key, int) else str(key) for key, _ in self.pairs]
        if any(name is None for name in names):
            return None
        return {str(name): value for name, (_, value) in zip(names, self.pairs, strict=True)}


@dataclass(eq=False, slots=True)
class DType:
    """A NumPy dtype as its letter code and byte order; "" for one that has no letter code (records, texts)."""

    code: str
    order: str = "="

    @property
    def text(self) -> str:
        return self.code if self.order in "|=" else self.order + self.code


@dataclass(eq=False, slots=True)
class Array:
    """A NumPy array: where its bytes are, or the list of its values where they are objects."""

    dtype: DType | None = None
    shape: tuple[int, ...] = ()
    fortran: bool = False
    data: Any = None
    axes: tuple[int, ...] = ()  # how the axes are to be swapped, where they are

    @property
    def holds_objects(self) -> bool:
        return isinstance(self.data, list)


@dataclass(eq=False, slots=True)
class Opaque:
    """What a call would make, with everything that is given to it; the call is never made."""

    callee: Any
    arguments: Any = ()
    state: Any = None
    items: list[Any] = field(default_factory=list)
    pairs: list[tuple[Any, Any]] = field(default_factory=list)

    @property
    def name(self) -> str:
        return self.callee.dotted if isinstance(self.callee, Name) else "?"


def text_of(value: Any) -> str | None:
    """A short text, also where it is bytes of ASCII."""
    if isinstance(value, str):
        return value
    return value.decode("ascii", "replace") if isinstance(value, bytes) else None


def head_of(value: Any, size: int = 512) -> bytes:
    """The first bytes of a text or bytes; b"" for anything else."""
    if isinstance(value, Array) and is_bytes_like(value):
        return head_of(value.data, size)
    if isinstance(value, Span):
        return value.head(size)
    return (
        value[:size]
        if isinstance(value, bytes)
        else value[:size].encode("utf-8", "replace")
        if isinstance(value, str)
        else b""
    )


def chunks_of(value: Any) -> Iterator[bytes]:
    """The content of a text or bytes, piece by piece; a short text as Latin-1, as bytes stand in old pickles."""
    if isinstance(value, Array):
        yield from chunks_of(value.data)
    elif isinstance(value, Span):
        yield from value.chunks()
    else:
        yield value if isinstance(value, bytes) else str(value).encode("latin-1")


def size_of(value: Any) -> int:
    """About how many bytes it takes."""
    if isinstance(value, Array):
        return size_of(value.data)
    return value.length if isinstance(value, Span) else len(value)


def is_bytes_like(value: Any) -> bool:
    """Bytes, or an array of single bytes, which is how some releases keep them."""
    if isinstance(value, Array):
        return value.dtype is not None and value.dtype.code in ("u1", "i1") and len(value.shape) == 1
    return isinstance(value, bytes) or (isinstance(value, Span) and not value.is_text)


NODES = frozenset({list, tuple, Table, Opaque, Array, Span, bytes})
HOLDERS = NODES - {Span, bytes}


def children(value: Any) -> Iterable[Any]:
    """What a node holds."""
    if isinstance(value, (list, tuple)):
        return value
    if isinstance(value, Table):
        return [item for pair in value.pairs for item in pair]
    if isinstance(value, Opaque):
        pairs = [item for pair in value.pairs for item in pair]
        return [value.callee, value.arguments, value.state, *value.items, *pairs]
    return value.data if isinstance(value, Array) and value.holds_objects else ()


def walk(root: Any) -> Iterator[Any]:
    """Everything below that holds something, and all bytes: each once, in the order of the file, cycles included."""
    pending: list[Any] = [root]
    seen: set[int] = set()
    while pending:
        node = pending.pop()
        if id(node) not in seen:
            seen.add(id(node))
            yield node
            pending.extend(item for item in reversed(list(children(node))) if type(item) in NODES)
