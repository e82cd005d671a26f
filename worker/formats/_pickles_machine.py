"""The unpickler's stack and memo without the unpickler: opcodes become plain data, calls become notes of calls.

Nothing is imported, called or looked up here. What the machine knows by name (arrays, dictionaries) it builds as data
of its own, in ``_pickles_known``; every other call stays an ``Opaque`` with its arguments. What a broken or hostile
pickle takes from an empty stack is UNKNOWN.
"""

from __future__ import annotations

import codecs
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from worker.formats import _pickles_known
from worker.formats._opcodes import KEPT, Op, Unreadable, read_ops, skip
from worker.formats._pickles_values import (
    QUOTED,
    RAW,
    UNICODE_LINE,
    UNKNOWN,
    UTF8,
    Array,
    DType,
    Name,
    Opaque,
    Span,
    Table,
    text_of,
)

MAX_MEMO = 1_000_000
MAX_IMPORTS = 10_000
ROOM = 512 * 1024 * 1024  # bytes, about, of everything that is kept of one file
NODE = 100  # bytes, about, that one value takes
MAX_DEPTH = 20  # pickles inside of pickles
LONGEST_NUMBER = 64  # bytes
JOBLIB_ARRAY = "joblib.numpy_pickle.NumpyArrayWrapper"
CODINGS = {
    **dict.fromkeys(("BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"), UTF8),
    **dict.fromkeys(("BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"), RAW),
    **dict.fromkeys(("BINSTRING", "SHORT_BINSTRING"), RAW),  # bytes or text: Python 2 did not say
    "UNICODE": UNICODE_LINE,
    "STRING": QUOTED,
}


@dataclass
class Budget:
    """What may still be kept, and what would be imported; shared by all pickles of one file."""

    room: int = field(default_factory=lambda: ROOM)
    imports: dict[str, None] = field(default_factory=dict)  # in the order of first appearance

    def note(self, name: str) -> None:
        """Remember a name that would be imported."""
        if len(self.imports) < MAX_IMPORTS:
            self.imports[name[:300]] = None


@dataclass
class Machine:
    """One pickle. ``run`` reads it; ``root`` is what it leaves, or everything that there was when it broke off."""

    path: Path
    file: IO[bytes]
    budget: Budget = field(default_factory=Budget)
    depth: int = 0
    stack: list[Any] = field(default_factory=list)
    marked: list[list[Any]] = field(default_factory=list)  # the stacks below the marks
    memo: dict[int, Any] = field(default_factory=dict)

    def run(self) -> Any:
        """Read one pickle up to its STOP; raises Unreadable where it is none."""
        for op in read_ops(self.file):
            HANDLERS.get(op.name, _nothing)(self, op)
        return self.pop()

    @property
    def rest(self) -> list[Any]:
        """What stands on the stacks and in the memo of a pickle that broke off."""
        return [*(item for part in (*self.marked, self.stack) for item in part), *self.memo.values()]

    def push(self, value: Any, size: int = 0) -> None:
        """Put a value on the stack, or UNKNOWN once there is no room for more."""
        self.budget.room -= NODE + size
        self.stack.append(value if self.budget.room > 0 else UNKNOWN)

    def pop(self) -> Any:
        return self.stack.pop() if self.stack else UNKNOWN

    def top(self) -> Any:
        return self.stack[-1] if self.stack else UNKNOWN

    def pop_many(self, count: int) -> list[Any]:
        """The topmost values, the lowest first."""
        return [self.pop() for _ in range(count)][::-1]

    def pop_mark(self) -> list[Any]:
        """Everything above the last mark."""
        found, self.stack = self.stack, self.marked.pop() if self.marked else []
        return found

    def call(self, callee: Any, arguments: Any) -> None:
        """What a call would make: data of our own where it is known to be harmless, else a note."""
        made = _pickles_known.made(callee, arguments) if isinstance(callee, Name) and self._pay(arguments) else None
        self.push(Opaque(callee, arguments) if made is None else made)

    def _pay(self, arguments: Any) -> bool:
        """Is there room for what a call may copy? The same list may be given to a million of them."""
        given = arguments if isinstance(arguments, tuple) else ()
        copied = sum(len(item) for item in given if isinstance(item, (list, tuple)))
        copied += sum(len(item.pairs) for item in given if isinstance(item, Table))
        self.budget.room -= NODE * copied
        return self.budget.room > 0


def _nothing(machine: Machine, op: Op) -> None:
    """PROTO, FRAME, STOP and READONLY_BUFFER change no value."""


# Values ---------------------------------------------------------------------------------------------------------


def _constant(value: Any) -> Callable[[Machine, Op], None]:
    return lambda machine, _: machine.push(value)


def _number(machine: Machine, op: Op) -> None:
    machine.push(UNKNOWN if op.length > LONGEST_NUMBER else _as_number(op))


def _as_number(op: Op) -> Any:
    if op.name == "BINFLOAT":
        return struct.unpack(">d", op.argument)[0]
    if op.name in ("INT", "LONG", "FLOAT"):
        return _as_written(op.name, op.argument)
    return int.from_bytes(op.argument, "little", signed=op.name in ("BININT", "LONG1", "LONG4"))


def _as_written(name: str, line: bytes) -> Any:
    if name == "INT" and line in (b"00", b"01"):
        return line == b"01"
    try:
        return float(line) if name == "FLOAT" else int(line.rstrip(b"L\r"))
    except ValueError:
        return UNKNOWN


def _text(machine: Machine, op: Op) -> None:
    coding = CODINGS[op.name]
    if op.length > KEPT:
        quote = 1 if op.name == "STRING" else 0
        machine.push(Span(machine.path, op.offset + quote, op.length - 2 * quote, coding))
    else:
        machine.push(_short(op), op.length)


def _short(op: Op) -> Any:
    if op.name == "UNICODE":
        return _decoded(op.argument, UNICODE_LINE)
    if op.name == "STRING":
        inner = op.argument.strip()[1:-1]
        return _unescaped(inner).decode("latin-1")
    if op.name in ("BINSTRING", "SHORT_BINSTRING"):
        return op.argument.decode("latin-1")
    return op.argument if CODINGS[op.name] == RAW else _decoded(op.argument, UTF8)


def _decoded(raw: bytes, coding: str) -> str:
    try:
        return raw.decode(coding)
    except ValueError:
        return raw.decode("utf-8", "replace")


def _unescaped(raw: bytes) -> bytes:
    try:
        return codecs.escape_decode(raw)[0]
    except ValueError:
        return raw


# The stack and the memo -----------------------------------------------------------------------------------------


def _mark(machine: Machine, op: Op) -> None:
    machine.marked.append(machine.stack)
    machine.stack = []


def _pop(machine: Machine, op: Op) -> None:
    if machine.stack:
        machine.stack.pop()
    else:
        machine.pop_mark()


def _pop_mark(machine: Machine, op: Op) -> None:
    machine.pop_mark()


def _duplicate(machine: Machine, op: Op) -> None:
    machine.push(machine.top())


def _get(machine: Machine, op: Op) -> None:
    machine.push(machine.memo.get(_index(op), UNKNOWN))


def _put(machine: Machine, op: Op) -> None:
    if len(machine.memo) < MAX_MEMO:
        machine.memo[len(machine.memo) if op.name == "MEMOIZE" else _index(op)] = machine.top()


def _index(op: Op) -> int:
    if op.name in ("PUT", "GET"):
        line = op.argument.strip()
        return int(line) if line.isdigit() and len(line) < LONGEST_NUMBER else -1
    return int.from_bytes(op.argument, "little")


# Containers -----------------------------------------------------------------------------------------------------


def _empty(make: Callable[[], Any]) -> Callable[[Machine, Op], None]:
    return lambda machine, _: machine.push(make())


def _list(machine: Machine, op: Op) -> None:
    machine.push(machine.pop_mark())


def _tuple(machine: Machine, op: Op) -> None:
    machine.push(tuple(machine.pop_mark()))


def _short_tuple(count: int) -> Callable[[Machine, Op], None]:
    return lambda machine, _: machine.push(tuple(machine.pop_many(count)))


def _dict(machine: Machine, op: Op) -> None:
    machine.push(Table(_pairs(machine.pop_mark())))


def _pairs(items: list[Any]) -> list[tuple[Any, Any]]:
    return list(zip(items[::2], items[1::2], strict=False))


def _append(machine: Machine, op: Op) -> None:
    _extend(machine, [machine.pop()])


def _appends(machine: Machine, op: Op) -> None:
    _extend(machine, machine.pop_mark())


def _extend(machine: Machine, items: list[Any]) -> None:
    target = machine.top()
    if isinstance(target, list):
        target.extend(items)
    elif isinstance(target, Opaque):
        target.items.extend(items)


def _set_item(machine: Machine, op: Op) -> None:
    _update(machine, [tuple(machine.pop_many(2))])


def _set_items(machine: Machine, op: Op) -> None:
    _update(machine, _pairs(machine.pop_mark()))


def _update(machine: Machine, pairs: list[Any]) -> None:
    if isinstance(target := machine.top(), (Table, Opaque)):
        target.pairs.extend(pairs)


# Names and calls ------------------------------------------------------------------------------------------------


def _global(machine: Machine, op: Op) -> None:
    module, _, name = op.argument.decode("utf-8", "replace").partition("\n")
    _name(machine, module, name)


def _stack_global(machine: Machine, op: Op) -> None:
    module, name = (item if isinstance(item, str) else "?" for item in machine.pop_many(2))
    _name(machine, module, name)


def _name(machine: Machine, module: str, name: str) -> None:
    machine.budget.note(f"{module}.{name}")
    machine.push(Name(module[:300], name[:300]))


def _extension(machine: Machine, op: Op) -> None:
    _name(machine, "copyreg.extension", str(int.from_bytes(op.argument, "little")))


def _instance(machine: Machine, op: Op) -> None:
    """INST: a name in the opcode, the arguments above the mark."""
    arguments = tuple(machine.pop_mark())
    _global(machine, op)
    machine.call(machine.pop(), arguments)


def _object(machine: Machine, op: Op) -> None:
    """OBJ: the class is the first thing above the mark."""
    callee, *arguments = machine.pop_mark() or [UNKNOWN]
    machine.call(callee, tuple(arguments))


def _call(machine: Machine, op: Op) -> None:
    callee, arguments = machine.pop_many(2)
    machine.call(callee, arguments)


def _new_with_keywords(machine: Machine, op: Op) -> None:
    callee, arguments, keywords = machine.pop_many(3)
    machine.push(Opaque(callee, (arguments, keywords)))


def _persistent(machine: Machine, op: Op) -> None:
    """An object that is kept somewhere else, and named by this."""
    name = machine.pop() if op.name == "BINPERSID" else op.argument.decode("utf-8", "replace")
    machine.push(Opaque(Name("persistent", "object"), (name,)))


def _buffer(machine: Machine, op: Op) -> None:
    machine.push(Opaque(Name("out-of-band", "buffer")))


def _build(machine: Machine, op: Op) -> None:
    state = machine.pop()
    target = machine.top()
    if isinstance(target, (Array, DType)):
        _pickles_known.fill(target, state)
    elif isinstance(target, Opaque):
        target.state = state if target.state is None else (target.state, state)
        if target.name.endswith(JOBLIB_ARRAY):
            machine.stack[-1] = _inline_array(machine, state)


def _inline_array(machine: Machine, state: Any) -> Any:
    """The array that joblib writes between the opcodes, right after the note of its shape."""
    described = state if isinstance(state, Table) else Table()
    dtype, shape = described.get("dtype"), described.get("shape")
    if isinstance(dtype, DType) and dtype.code.startswith("O"):
        return _inner_pickle(machine)
    array = _pickles_known.array(dtype, shape, text_of(described.get("order")) == "F")
    length = _pickles_known.byte_length(array) if array else None
    if array is None or length is None:
        raise Unreadable("an array between the opcodes has no known size")
    if isinstance(described.get("numpy_array_alignment_bytes"), int):
        skip(machine.file, int.from_bytes(machine.file.read(1), "little"))
    array.data = Span(machine.path, machine.file.tell(), length)
    skip(machine.file, length)
    return array


def _inner_pickle(machine: Machine) -> Any:
    if machine.depth >= MAX_DEPTH:
        raise Unreadable("too many pickles stand inside of each other")
    return Machine(machine.path, machine.file, machine.budget, machine.depth + 1).run()


def _each(names: str, handler: Callable[[Machine, Op], None]) -> dict[str, Callable[[Machine, Op], None]]:
    return dict.fromkeys(names.split(), handler)


HANDLERS: dict[str, Callable[[Machine, Op], None]] = {
    "NONE": _constant(None),
    "NEWTRUE": _constant(True),
    "NEWFALSE": _constant(False),
    **_each("INT BININT BININT1 BININT2 LONG LONG1 LONG4 FLOAT BINFLOAT", _number),
    **dict.fromkeys(CODINGS, _text),
    "MARK": _mark,
    "POP": _pop,
    "POP_MARK": _pop_mark,
    "DUP": _duplicate,
    **_each("GET BINGET LONG_BINGET", _get),
    **_each("PUT BINPUT LONG_BINPUT MEMOIZE", _put),
    **_each("EMPTY_LIST EMPTY_SET", _empty(list)),
    "EMPTY_DICT": _empty(Table),
    "EMPTY_TUPLE": _empty(tuple),
    **_each("LIST FROZENSET", _list),
    "TUPLE": _tuple,
    **{f"TUPLE{count}": _short_tuple(count) for count in (1, 2, 3)},
    "DICT": _dict,
    "APPEND": _append,
    **_each("APPENDS ADDITEMS", _appends),
    "SETITEM": _set_item,
    "SETITEMS": _set_items,
    "GLOBAL": _global,
    "STACK_GLOBAL": _stack_global,
    **_each("EXT1 EXT2 EXT4", _extension),
    "INST": _instance,
    "OBJ": _object,
    **_each("REDUCE NEWOBJ", _call),
    "NEWOBJ_EX": _new_with_keywords,
    **_each("PERSID BINPERSID", _persistent),
    "NEXT_BUFFER": _buffer,
    "BUILD": _build,
}
