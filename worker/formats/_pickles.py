"""A whole file of pickles, read once: the data in it, what it would import, and its arrays as NumPy arrays."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from worker.errors import CorruptFile, ModelError
from worker.formats import _pickles_known
from worker.formats._opcodes import Unreadable
from worker.formats._pickles_machine import Budget, Machine
from worker.formats._pickles_plain import header_length, plain
from worker.formats._pickles_values import HOLDERS, RAW, Array, Opaque, Span, Table, chunks_of, text_of
from worker.formats._tensors import Tensor

if TYPE_CHECKING:
    import numpy as np

    Named = tuple[str, np.ndarray]

MIB = 1024 * 1024
MAPPED = MIB  # arrays at least this long are mapped, not read
MAX_ARRAYS = 100_000
MAX_DEPTH = 60
MAX_PICKLES = 100_000
# GLOBAL, INST and STACK_GLOBAL as they stand in the bytes
NAMED = (
    re.compile(rb"[ci]([A-Za-z_][\w.]*)\n([A-Za-z_][\w.]*)\n"),
    re.compile(rb"\x8c.([A-Za-z_][\w.]*)\x94?\x8c.([A-Za-z_][\w.]*)\x94?\x93", re.DOTALL),
)
OVERLAP = 1024


@dataclass(frozen=True, eq=False)
class Contents:
    """What a file of pickles holds. ``roots`` are the values of its pickles, one after the other.

    ``problem`` and ``position``: why and where it stops being plain pickle; "" where it does not.
    """

    path: Path  # of the plain pickle
    roots: tuple[Any, ...]
    imports: tuple[str, ...]
    pickles: int = 1
    problem: str = ""
    position: int = 0
    cut: bool = False  # there was more than is kept


def read(path: Path, scratch: Path) -> Contents:
    """Read every pickle of the file; raises CorruptFile and ArchiveBomb where it cannot be decompressed."""
    status = path.stat()
    return _read(path.absolute(), scratch.absolute(), (status.st_mtime_ns, status.st_size, status.st_ino))


@cache
def _read(path: Path, scratch: Path, _: tuple[int, ...]) -> Contents:
    found = plain(path, scratch / "pickle")
    budget = Budget()
    with found.open("rb") as file:
        file.seek(header_length(file.read(16)))
        roots, pickles, problem, position = _walk(found, file, budget)
    return Contents(found, tuple(roots), tuple(budget.imports), pickles, problem, position, budget.room <= 0)


def _walk(path: Path, file: IO[bytes], budget: Budget) -> tuple[list[Any], int, str, int]:
    """Every pickle of the file as far as it is pickle; what comes after that is searched for names."""
    roots: list[Any] = []
    pickles = 0
    machine = Machine(path, file, budget)
    try:
        while pickles == 0 or (pickles < MAX_PICKLES and file.peek(1)):  # type: ignore[attr-defined]
            machine = Machine(path, file, budget)
            roots.append(machine.run())
            pickles += 1
    except Unreadable as error:
        position = file.tell()
        _search(file, position, budget)
        return [*roots, machine.rest], pickles, str(error), position
    return roots, pickles, "", 0


def _search(file: IO[bytes], position: int, budget: Budget) -> None:
    """Look for names in what is no plain pickle."""
    file.seek(max(0, position - OVERLAP))
    tail = b""
    while block := file.read(MIB):
        window = tail + block
        for module, name in (match.groups() for pattern in NAMED for match in pattern.finditer(window)):
            budget.note(f"{module.decode()}.{name.decode()}")
        tail = window[-OVERLAP:]


# Arrays ---------------------------------------------------------------------------------------------------------


def arrays(path: Path, scratch: Path) -> Iterator[Named]:
    """Every array of numbers in the file under its place ("0/1", "layer/kernel"), one at a time; ModelError where the
    values of one are not there, and where there are too many."""
    for name, item in arrays_in(read(path, scratch)):
        yield name, values(item)


def arrays_in(contents: Contents) -> Iterator[tuple[str, Array]]:
    """Every array of numbers, not yet read, each under a place of its own."""
    several = len(contents.roots) > 1
    used: dict[str, int] = {}
    for position, root in enumerate(contents.roots):
        for name, item in placed(root, (str(position),) if several else ()):
            used[name] = used.get(name, 0) + 1
            yield name if used[name] == 1 else f"{name}#{used[name]}", item


def placed(root: Any, place: tuple[str, ...] = ()) -> Iterator[tuple[str, Array]]:
    """The arrays below a value, not yet read, each under its place."""
    pending: list[tuple[tuple[str, ...], Any, tuple[int, ...]]] = [(place, root, ())]
    visited = 0
    while pending:
        where, node, above = pending.pop()
        visited += 1
        if visited > MAX_ARRAYS or len(above) > MAX_DEPTH:
            raise ModelError(problem="this pickle holds too many values, or values too deep inside of each other")
        if isinstance(node, Array) and not node.holds_objects:
            if is_numeric(node):
                yield "/".join(where) or "0", node
        elif id(node) not in above:
            inner = (*above, id(node))
            pending.extend(((*where, *name), item, inner) for name, item in reversed(list(_named_children(node))))


def _named_children(node: Any) -> Iterator[tuple[tuple[str, ...], Any]]:
    """What a node holds that may hold arrays, each under its name there."""
    if isinstance(node, Table):
        pairs = [(_place(key, index), value) for index, (key, value) in enumerate(node.pairs) if type(value) in HOLDERS]
    elif isinstance(node, Opaque):
        pairs = [((), node.arguments), ((), node.state), *(((), value) for _, value in node.pairs), ((), node.items)]
    elif isinstance(node, Array):
        pairs = [((str(index),), value) for index, value in enumerate(node.data or ()) if type(value) in HOLDERS]
    elif isinstance(node, (list, tuple)):
        pairs = [((str(index),), value) for index, value in enumerate(node) if type(value) in HOLDERS]
    else:
        pairs = []
    return ((name, value) for name, value in pairs if type(value) in HOLDERS)


def _place(key: Any, index: int) -> tuple[str, ...]:
    name = text_of(key) if not isinstance(key, int) else str(key)
    return (name if name else str(index),)


def is_numeric(array: Array) -> bool:
    """Are these numbers, of a type that NumPy has, in a shape that is known?"""
    known = array.dtype is not None and array.dtype.code[:1] in tuple("biufc") and array.data is not None
    return known and _pickles_known.byte_length(array) is not None


def values(array: Array) -> np.ndarray:
    """The array itself; a long one is mapped from the file. ModelError where its bytes do not fit its shape."""
    import numpy as np

    length, dtype = _pickles_known.byte_length(array), dtype_of(array)
    span = array.data
    raw = isinstance(span, Span) and span.coding == RAW and span.length == length
    if raw and length is not None and length >= MAPPED:
        flat: np.ndarray = np.memmap(span.path, dtype, "r", offset=span.offset, shape=(length // dtype.itemsize,))
    else:
        flat = np.frombuffer(_whole(array, length), dtype)
    shaped = flat.reshape(array.shape, order="F" if array.fortran else "C")
    return shaped.transpose(array.axes) if array.axes else shaped


def count_of(array: Array) -> int:
    """How many values it has."""
    return math.prod(array.shape)


def dtype_of(array: Array) -> np.dtype[Any]:
    """NumPy's type of it; ModelError where it has none."""
    import ml_dtypes
    import numpy as np

    code = array.dtype.text if array.dtype else ""
    try:
        return np.dtype(getattr(ml_dtypes, code.lstrip("<>=|"), code))
    except TypeError as error:
        raise ModelError(problem=f"it holds an array of an unknown type ({code or 'none'})") from error


def _whole(array: Array, length: int | None) -> bytes:
    try:
        content = b"".join(chunks_of(array.data)) if isinstance(array.data, (bytes, str, Span)) else b""
    except (UnicodeEncodeError, CorruptFile) as error:
        raise ModelError(problem=f"the values of an array of the shape {array.shape} cannot be read") from error
    if len(content) != length:
        raise ModelError(
            problem=f"an array of the shape {array.shape} has {len(content)} bytes of values, not {length}"
        )
    return content


def tensor(array: Array) -> Tensor:
    """The array as one that reads itself when it is wanted."""
    shape = tuple(array.shape[axis] for axis in array.axes) if array.axes else array.shape
    return Tensor(shape, dtype_of(array), partial(values, array))


def text(value: Any, limit: int = 64 * MIB) -> str | None:
    """A text or bytes as text; None where it is neither, or longer than ``limit`` bytes."""
    if isinstance(value, str):
        return value
    if isinstance(value, bytes) or (isinstance(value, Span) and value.length <= limit):
        try:
            return b"".join(chunks_of(value)).decode("utf-8", "replace")
        except CorruptFile:
            return None
    return None
