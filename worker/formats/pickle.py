"""Pickle: recognised and read as the program that it is, and never unpickled."""

from __future__ import annotations

import bz2
import lzma
import re
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import IO, Any, Protocol

from worker.errors import ArchiveBomb, CorruptFile
from worker.formats._dangers import WHY, severity_of
from worker.formats._format import Format, Sample, Summary
from worker.formats._opcodes import Machine, Op, Unreadable, read_ops
from worker.report import Finding, FindingKind, Severity, declare

MIB = 1024 * 1024
MAX_UNPACKED = 4096 * MIB
MAX_RATIO = 200
LZMA_MEMORY = 256 * MIB  # `xz -9` needs 65 MiB; a header may ask for 4 GiB
FIRST_OPS = 50
MAX_LISTED = 50  # findings; the Summary lists every name
NPY_MAGIC = b"\x93NUMPY"
DOTTED = re.compile(rb"^[A-Za-z_][\w.]*$")
# What a pickle of protocol 0 or 1 can start with: a container, a name to import, or a mark for one of them
STARTS = ("MARK", "EMPTY_LIST", "EMPTY_DICT", "EMPTY_TUPLE", "GLOBAL")
NAMING = ("GLOBAL", "INST")
CALLS = ("REDUCE", "INST", "OBJ")  # by then something has run, whether or not the rest is pickle
# GLOBAL, INST and STACK_GLOBAL as they stand in the bytes
NAMED = (
    re.compile(rb"[ci]([A-Za-z_][\w.]*)\n([A-Za-z_][\w.]*)\n"),
    re.compile(rb"\x8c.([A-Za-z_][\w.]*)\x94?\x8c.([A-Za-z_][\w.]*)\x94?\x93", re.DOTALL),
)
OVERLAP = 1024
SUFFIXES = (".pkl", ".pickle", ".joblib", ".cloudpickle", ".dill", ".p")

SENTENCE = "Opening this pickle would import {import_name}: {why}."
IMPORTS: dict[Severity, FindingKind] = {
    Severity.DANGER: declare("pickle-import-dangerous", Severity.DANGER, SENTENCE),
    Severity.WARNING: declare("pickle-import-unknown", Severity.WARNING, SENTENCE),
    Severity.NOTE: declare("pickle-import", Severity.NOTE, SENTENCE),
}
more_imports = declare(
    "pickle-imports-more",
    Severity.WARNING,
    "Opening this pickle would import {count} further names; the summary has all.",
)
holds_keras = declare(
    "pickle-holds-keras",
    Severity.NOTE,
    "A whole .keras file is stored inside this pickle, so the model is not lost. Where the pickle can be trusted, open "
    'it in the environment that wrote it, save it with model.save("model.keras"), and upload that file.',
)
breaks_off = declare(
    "pickle-breaks-off",
    Severity.WARNING,
    "From byte {position} on this is not plain pickle ({problem}): names after that were searched for, and some may "
    "be missing from the list.",
)
several = declare(
    "pickle-several",
    Severity.WARNING,
    "{count} pickles stand one after the other in this file; all of them are listed.",
)


# Recognising ----------------------------------------------------------------------------------------------------


def sniff(sample: Sample) -> bool:
    """Pickle opcodes at the start, plain or compressed, or a NumPy array of objects, which is a pickle inside."""
    if sample.container != "file":
        return False
    head = sample.head
    return _is_object_array(head) or _opens_like_pickle(head) or _opens_like_pickle(_expand_head(head))


def _is_object_array(head: bytes) -> bool:
    """The .npy header says that the elements are Python objects: ``'descr': '|O'``."""
    return head.startswith(NPY_MAGIC) and re.search(rb"'descr':\s*'\|?O'", head[:512]) is not None


def _opens_like_pickle(head: bytes) -> bool:
    if len(head) < 2:
        return False
    ops, whole = _first_ops(head)
    if head[0] == 0x80:
        return 2 <= head[1] <= 5 and len(ops) >= 2
    has_run = any(op.name in NAMING for op in ops) and any(op.name in CALLS for op in ops)
    enough = whole or has_run or len(ops) >= FIRST_OPS
    return enough and ops[0].name in STARTS and _names_are_names(ops)


def _first_ops(head: bytes) -> tuple[list[Op], bool]:
    """The first opcodes, and whether they came to a STOP."""
    ops: list[Op] = []
    try:
        for op in read_ops(BytesIO(head)):
            ops.append(op)
            if len(ops) >= FIRST_OPS:
                break
    except Unreadable:
        return ops, False
    return ops, bool(ops) and ops[-1].name == "STOP"


def _names_are_names(ops: list[Op]) -> bool:
    """Plain text can look like opcodes; what it would import then is no name."""
    named = [op.argument for op in ops if op.name in NAMING]
    return all(DOTTED.match(part) for argument in named for part in argument.split(b"\n"))


# Compressed pickles ---------------------------------------------------------------------------------------------


class _Expander(Protocol):
    """What the decompressors of zlib, bz2 and lzma have in common."""

    @property
    def eof(self) -> bool: ...

    def decompress(self, data: bytes, max_length: int = ..., /) -> bytes: ...


EXPANDERS: dict[bytes, Callable[[], Any]] = {
    b"\x1f\x8b": lambda: zlib.decompressobj(47),  # 47: zlib and gzip, by their headers
    b"\x78\x01": lambda: zlib.decompressobj(47),
    b"\x78\x5e": lambda: zlib.decompressobj(47),
    b"\x78\x9c": lambda: zlib.decompressobj(47),
    b"\x78\xda": lambda: zlib.decompressobj(47),
    b"BZh": bz2.BZ2Decompressor,
    b"\xfd7zXZ\x00": lambda: lzma.LZMADecompressor(memlimit=LZMA_MEMORY),
    b"\x5d\x00\x00": lambda: lzma.LZMADecompressor(memlimit=LZMA_MEMORY),
}
BROKEN = (zlib.error, lzma.LZMAError, OSError, EOFError)


def _expander(head: bytes) -> _Expander | None:
    make = next((make for magic, make in EXPANDERS.items() if head.startswith(magic)), None)
    return make() if make else None


def _expand_head(head: bytes) -> bytes:
    expander = _expander(head)
    try:
        return expander.decompress(head, 4096) if expander else b""
    except BROKEN:
        return b""


def _expand(path: Path, expander: _Expander, target: Path) -> None:
    """Write what the file holds to ``target``, within bounds."""
    bound = min(MAX_UNPACKED, max(64 * MIB, MAX_RATIO * path.stat().st_size))
    total = 0
    with path.open("rb") as source, target.open("xb") as file:
        while not expander.eof and (block := source.read(MIB // 4)):
            for part in _parts(expander, block):
                total += len(part)
                if total > bound:
                    raise ArchiveBomb(name=path.name, limit=f"{bound // MIB:,} MiB")
                file.write(part)


def _parts(expander: _Expander, block: bytes) -> Iterator[bytes]:
    """What one block gives, never more than a MiB at a time."""
    while not expander.eof and (part := expander.decompress(block, MIB)):
        yield part
        block = getattr(expander, "unconsumed_tail", b"")  # bz2 and lzma keep the rest themselves


# Reading --------------------------------------------------------------------------------------------------------


@dataclass
class _Reading:
    """What one walk over the opcodes found."""

    machine: Machine = field(default_factory=Machine)
    keras: bool = False
    pickles: int = 0
    problem: str = ""
    position: int = 0

    def walk(self, file: IO[bytes]) -> None:
        """Read every pickle of the file, one after the other, as far as it is pickle."""
        try:
            while self.pickles == 0 or file.peek(1):  # type: ignore[attr-defined]
                for op in read_ops(file):
                    self._follow(op)
                self.pickles += 1
                self.machine = Machine(imports=self.machine.imports)
        except Unreadable as error:
            self.problem, self.position = str(error), file.tell()
            self._search(file)

    def _search(self, file: IO[bytes]) -> None:
        """Look for names in what is no plain pickle: joblib puts the bytes of arrays between the opcodes."""
        file.seek(max(0, self.position - OVERLAP))
        tail = b""
        while block := file.read(MIB):
            window = tail + block
            for module, name in (match.groups() for pattern in NAMED for match in pattern.finditer(window)):
                self.machine.note(f"{module.decode()}.{name.decode()}")
            tail = window[-OVERLAP:]

    def _follow(self, op: Op) -> None:
        self.machine.follow(op)
        holds_archive = op.argument.startswith(b"PK\x03\x04") and op.length > 100
        if holds_archive and any(inside in op.argument for inside in (b"config.json", b"metadata.json")):
            self.keras = True


def _read(path: Path, scratch: Path) -> _Reading:
    reading = _Reading()
    with _plain(path, scratch).open("rb") as file:
        file.seek(_header_length(file.read(16)))
        reading.walk(file)
    return reading


def _plain(path: Path, scratch: Path) -> Path:
    """The file itself, or what it holds compressed."""
    with path.open("rb") as file:
        expander = _expander(file.read(16))
    if expander is None:
        return path
    target = scratch / "expanded.pkl"
    target.unlink(missing_ok=True)
    try:
        _expand(path, expander, target)
    except BROKEN as error:
        raise CorruptFile(name=path.name, problem=f"what it holds cannot be decompressed ({error})") from error
    return target


def _header_length(head: bytes) -> int:
    """How long the .npy header before the pickle is (0 for a plain pickle); NEP 1."""
    if not head.startswith(NPY_MAGIC):
        return 0
    wide = head[6:7] > b"\x01"
    return 12 + int.from_bytes(head[8:12], "little") if wide else 10 + int.from_bytes(head[8:10], "little")


def inspect(path: Path, scratch: Path) -> Summary:
    """The names that opening it would import, in order; nothing is imported or run."""
    return Summary(imports=tuple(_read(path, scratch).machine.imports))


def findings(path: Path, scratch: Path) -> tuple[Finding, ...]:
    """One finding for each import, the dangerous ones first, and what else is to be known."""
    reading = _read(path, scratch)
    rest = []
    if reading.keras:
        rest.append(holds_keras())
    if reading.pickles > 1:
        rest.append(several(count=reading.pickles))
    if reading.problem:
        rest.append(breaks_off(position=reading.position, problem=reading.problem))
    return (*_import_findings(list(reading.machine.imports)), *rest)


def _import_findings(names: list[str]) -> Iterator[Finding]:
    order = list(IMPORTS)
    ranked = sorted(names, key=lambda name: order.index(severity_of(name)))
    for name in ranked[:MAX_LISTED]:
        severity = severity_of(name)
        yield IMPORTS[severity](import_name=name, why=WHY[severity])
    if len(ranked) > MAX_LISTED:
        yield more_imports(count=len(ranked) - MAX_LISTED)


FORMAT = Format(
    label="Pickle",
    suffixes=SUFFIXES,
    sniff=sniff,
    inspect=inspect,
    findings=findings,
    no_way_in="a pickle is a program that runs when it is opened, so Larder makes none. "
    "Every other format keeps the model without that.",
    no_way_out="Larder never opens a pickle, because opening one runs what it says. "
    'Save the model with model.save("model.keras") where it was made, and upload that file.',
)
