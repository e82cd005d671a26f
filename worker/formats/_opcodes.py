"""A pickle read as the program that it is, opcode by opcode, and never run.

The table of opcodes is the standard library's (``pickletools``). Its own ``genops`` reads every argument into memory;
here arguments longer than ``KEPT`` are skipped, so that a pickle of any size is read in constant memory.
"""

from __future__ import annotations

import pickletools
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import IO, Any

KEPT = 64 * 1024  # bytes of an argument that are looked at
MAX_OPCODES = 20_000_000
MAX_MEMO = 1_000_000
TABLE = {item.code.encode("latin-1"): item for item in pickletools.opcodes}
SIZES = {
    pickletools.TAKEN_FROM_ARGUMENT1: (1, False),
    pickletools.TAKEN_FROM_ARGUMENT4: (4, True),
    pickletools.TAKEN_FROM_ARGUMENT4U: (4, False),
    pickletools.TAKEN_FROM_ARGUMENT8U: (8, False),
}


class Unreadable(Exception):
    """From here on the bytes are no pickle."""


@dataclass(frozen=True)
class Op:
    """One opcode: its name, its argument as raw bytes (cut to ``KEPT``), and how long that argument is."""

    name: str
    argument: bytes
    length: int
    kind: pickletools.OpcodeInfo


def read_ops(file: IO[bytes]) -> Iterator[Op]:
    """Every opcode up to and with STOP; raises Unreadable at a byte that is none, and where the file ends early."""
    for _ in range(MAX_OPCODES):
        code = file.read(1)
        kind = TABLE.get(code)
        if kind is None:
            raise Unreadable(f"the byte {code.hex()} is no opcode" if code else "it ends without a STOP")
        argument, length = _argument(file, kind)
        yield Op(kind.name, argument, length, kind)
        if kind.name == "STOP":
            return
    raise Unreadable(f"it has more than {MAX_OPCODES:,} opcodes")


def _argument(file: IO[bytes], kind: pickletools.OpcodeInfo) -> tuple[bytes, int]:
    if kind.arg is None:
        return b"", 0
    if kind.arg.n == pickletools.UP_TO_NEWLINE:
        return _lines(file, 2 if kind.name in ("GLOBAL", "INST") else 1)
    if kind.arg.n >= 0:
        return _exactly(file, kind.arg.n), kind.arg.n
    width, signed = SIZES[kind.arg.n]
    length = int.from_bytes(_exactly(file, width), "little", signed=signed)
    if length < 0:
        raise Unreadable("an argument has a negative length")
    kept = _exactly(file, min(length, KEPT))
    _skip(file, length - len(kept))
    return kept, length


def _lines(file: IO[bytes], count: int) -> tuple[bytes, int]:
    lines = [file.readline(KEPT) for _ in range(count)]
    if not all(line.endswith(b"\n") for line in lines):
        raise Unreadable("a line of text does not end")
    joined = b"".join(lines)[:-1]
    return joined, len(joined)


def _exactly(file: IO[bytes], size: int) -> bytes:
    data = file.read(size)
    if len(data) != size:
        raise Unreadable("it ends in the middle of an argument")
    return data


def _skip(file: IO[bytes], size: int) -> None:
    """Go over ``size`` bytes; the last one is read, because seeking past the end succeeds."""
    if size:
        file.seek(size - 1, 1)
        _exactly(file, 1)


@dataclass
class Machine:
    """As much of the unpickler's stack and memo as it takes to know the names that STACK_GLOBAL would import.

    Everything that is not a short text is None on the stack. ``imports`` keeps the order of first appearance.
    """

    stack: list[Any] = field(default_factory=list)
    memo: dict[int, Any] = field(default_factory=dict)
    imports: dict[str, None] = field(default_factory=dict)

    def follow(self, op: Op) -> None:
        """Take one opcode into account."""
        if op.name in ("GLOBAL", "INST"):
            self.note(op.argument.decode("utf-8", "replace").replace("\n", "."))
        elif op.name == "STACK_GLOBAL":
            self.note(".".join(part if isinstance(part, str) else "?" for part in self._top(2)))
        elif op.name in ("EXT1", "EXT2", "EXT4"):
            self.note(f"copyreg.extension.{int.from_bytes(op.argument, 'little')}")
        self._move(op)

    def note(self, name: str) -> None:
        """Remember a name that would be imported."""
        if len(self.imports) < 10_000:
            self.imports[name[:300]] = None

    def _top(self, count: int) -> list[Any]:
        top = self.stack[-count:]
        return [None] * (count - len(top)) + top

    def _move(self, op: Op) -> None:
        """Change stack and memo as the opcode would."""
        if op.name in ("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"):
            self._remember(op)
        elif op.name in ("GET", "BINGET", "LONG_BINGET"):
            self.stack.append(self.memo.get(_index(op)))
        elif op.name == "DUP":
            self.stack.extend(self._top(1))
        else:
            self._pop(op)
            self.stack.extend(_pushed(op, item) for item in op.kind.stack_after)

    def _remember(self, op: Op) -> None:
        index = len(self.memo) if op.name == "MEMOIZE" else _index(op)
        if len(self.memo) < MAX_MEMO:
            self.memo[index] = self._top(1)[0]

    def _pop(self, op: Op) -> None:
        """Take off what the opcode takes: all down to the mark where it takes a mark, and what lies below it."""
        before = list(op.kind.stack_before)
        if pickletools.markobject in before:
            before = before[: before.index(pickletools.markobject)]
            while self.stack and self.stack.pop() is not pickletools.markobject:
                pass
        del self.stack[max(0, len(self.stack) - len(before)) :]


def _index(op: Op) -> int:
    if op.name in ("PUT", "GET"):
        return int(op.argument) if op.argument.strip().isdigit() else -1
    return int.from_bytes(op.argument, "little")


def _pushed(op: Op, item: pickletools.StackObject) -> Any:
    if item is pickletools.markobject:
        return item
    if op.length > 1000 or op.kind.arg is None or not op.kind.arg.name.startswith(("unicode", "string")):
        return None
    text = op.argument.decode("utf-8", "replace")
    return text.strip("'\"") if op.name == "STRING" else text
