"""A pickle read as the program that it is, opcode by opcode, and never run.

The table of opcodes is the standard library's (``pickletools``). Its own ``genops`` reads every argument into memory;
here arguments longer than ``KEPT`` are only pointed at, so that a pickle of any size is read in constant memory.
"""

from __future__ import annotations

import pickletools
from collections.abc import Iterator
from typing import IO, NamedTuple

KEPT = 1024  # bytes of an argument that are looked at
LINE = 64 * 1024  # bytes of a line that are read at once
LONGEST = 2**40  # bytes of an argument; file systems refuse to go much further than that
MAX_OPCODES = 20_000_000
TABLE = {item.code.encode("latin-1"): item for item in pickletools.opcodes}
SIZES = {
    pickletools.TAKEN_FROM_ARGUMENT1: (1, False),
    pickletools.TAKEN_FROM_ARGUMENT4: (4, True),
    pickletools.TAKEN_FROM_ARGUMENT4U: (4, False),
    pickletools.TAKEN_FROM_ARGUMENT8U: (8, False),
}


class Unreadable(Exception):
    """From here on the bytes are no pickle."""


class Op(NamedTuple):
    """One opcode: its name, its argument as raw bytes (cut to ``KEPT``), its length, and where it starts.

    ``offset`` is only known for arguments longer than ``KEPT``; it is 0 for all others.
    """

    name: str
    argument: bytes
    length: int
    offset: int = 0


def read_ops(file: IO[bytes]) -> Iterator[Op]:
    """Every opcode up to and with STOP; raises Unreadable at a byte that is none, and where the file ends early.

    The reader of the opcodes may move the file on between two of them: some libraries write arrays there.
    """
    for _ in range(MAX_OPCODES):
        code = file.read(1)
        kind = TABLE.get(code)
        if kind is None:
            raise Unreadable(f"the byte {code.hex()} is no opcode" if code else "it ends without a STOP")
        yield _op(file, kind)
        if kind.name == "STOP":
            return
    raise Unreadable(f"it has more than {MAX_OPCODES:,} opcodes")


def _op(file: IO[bytes], kind: pickletools.OpcodeInfo) -> Op:
    if kind.arg is None:
        return Op(kind.name, b"", 0)
    if kind.arg.n == pickletools.UP_TO_NEWLINE:
        return _names(file, kind.name) if kind.name in ("GLOBAL", "INST") else _line(file, kind.name)
    if kind.arg.n >= 0:
        return Op(kind.name, _exactly(file, kind.arg.n), kind.arg.n)
    width, signed = SIZES[kind.arg.n]
    length = int.from_bytes(_exactly(file, width), "little", signed=signed)
    if length < 0:
        raise Unreadable("an argument has a negative length")
    offset = file.tell() if length > KEPT else 0
    kept = _exactly(file, min(length, KEPT))
    skip(file, length - len(kept))
    return Op(kind.name, kept, length, offset)


def _names(file: IO[bytes], name: str) -> Op:
    """Two lines: a module and a name in it."""
    lines = [file.readline(LINE) for _ in range(2)]
    if not all(line.endswith(b"\n") for line in lines):
        raise Unreadable("a line of text does not end")
    joined = b"".join(lines)[:-1]
    return Op(name, joined, len(joined))


def _line(file: IO[bytes], name: str) -> Op:
    """One line, which may be as long as a whole model: protocol 0 writes bytes that way."""
    line = file.readline(LINE)
    offset = file.tell() - len(line) if len(line) > KEPT else 0
    length, last = len(line), line[-1:]
    while last not in (b"", b"\n"):
        more = file.readline(LINE)
        length, last = length + len(more), more[-1:]
    if not last:
        raise Unreadable("a line of text does not end")
    return Op(name, line[: min(KEPT, length - 1)], length - 1, offset)


def _exactly(file: IO[bytes], size: int) -> bytes:
    data = file.read(size)
    if len(data) != size:
        raise Unreadable("it ends in the middle of an argument")
    return data


def skip(file: IO[bytes], size: int) -> None:
    """Go over ``size`` bytes; the last one is read, because seeking past the end succeeds."""
    if size > LONGEST:
        raise Unreadable("it ends in the middle of an argument")
    if size:
        file.seek(size - 1, 1)
        _exactly(file, 1)
