"""A pickle of plain data around a ``.keras`` file, for pipelines that insist on ``.pkl``: opening it runs nothing.

It holds one dictionary of texts, a number and bytes. Its opcodes are written here one by one, and none of them can
name or call anything; a file with any other opcode is refused.
"""

from __future__ import annotations

import hashlib
import shutil
import struct
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

from worker.errors import CorruptFile, PickledCode
from worker.formats import _pickles_machine, _sources, keras
from worker.formats._architecture import lambdas
from worker.formats._format import Converter, Format, Hop, Sample
from worker.formats._opcodes import Op, Unreadable, read_ops
from worker.formats._pickles_values import Span, Table, chunks_of, size_of, text_of

MARKER = "larder-data-pickle"
VERSION = 1
BLOCK = 1024 * 1024
FIRST_OPS = 20
# The opcodes of plain data. None of them imports, calls or looks up anything.
NEUTRAL = frozenset({"PROTO", "FRAME", "MEMOIZE", "BINPUT", "LONG_BINPUT", "PUT"})
ALLOWED = NEUTRAL | frozenset(
    {
        *("EMPTY_DICT", "MARK", "SETITEM", "SETITEMS", "STOP", "NONE", "NEWTRUE", "NEWFALSE", "BINFLOAT"),
        *("BININT", "BININT1", "BININT2", "LONG1", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8"),
        *("SHORT_BINBYTES", "BINBYTES", "BINBYTES8", "BINGET", "LONG_BINGET"),
    }
)
OPENING = ("EMPTY_DICT", "MARK", "SHORT_BINUNICODE", "SHORT_BINUNICODE")


# Recognising ----------------------------------------------------------------------------------------------------


def sniff(sample: Sample) -> bool:
    """A dictionary whose first entry is our marker, by the first opcodes."""
    if sample.container != "file" or MARKER.encode() not in sample.head[:256]:
        return False
    first = [op for op in _first_ops(sample.head) if op.name not in NEUTRAL][: len(OPENING)]
    texts = [op.argument for op in first[2:]]
    return tuple(op.name for op in first) == OPENING and texts == [b"format", MARKER.encode()]


def _first_ops(head: bytes) -> Iterator[Op]:
    try:
        yield from (op for op, _ in zip(read_ops(BytesIO(head)), range(FIRST_OPS), strict=False))
    except Unreadable:
        return


# Reading --------------------------------------------------------------------------------------------------------


def read(path: Path) -> Table:
    """The dictionary; PickledCode where any opcode is not one of plain data, CorruptFile where it is damaged."""
    try:
        with path.open("rb") as file:
            if any(op.name not in ALLOWED for op in read_ops(file)) or file.read(1):
                raise PickledCode(name=path.name)
            file.seek(0)
            found = _pickles_machine.Machine(path, file).run()
    except Unreadable as error:
        raise CorruptFile(name=path.name, problem=str(error)) from error
    if not isinstance(found, Table) or text_of(found.get("format")) != MARKER:
        raise CorruptFile(name=path.name, problem="its first value is not the dictionary that was announced")
    return found


def take_out(path: Path, folder: Path) -> Path:
    """The .keras file inside; CorruptFile where its SHA-256 is not the one that is written beside it."""
    table = read(path)
    content, digest = table.get("keras_archive"), hashlib.sha256()
    if not isinstance(content, (bytes, Span)):
        raise CorruptFile(name=path.name, problem="it holds no keras_archive")
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / "inside.keras"
    with target.open("wb") as file:
        for block in chunks_of(content):
            digest.update(block)
            file.write(block)
    if digest.hexdigest() != text_of(table.get("sha256")):
        raise CorruptFile(name=path.name, problem=f"the {size_of(content):,} bytes of its model have another SHA-256")
    return target


# Writing --------------------------------------------------------------------------------------------------------


def write(model: Any, target: Path, hop: Hop) -> None:
    """Save the model as .keras, and wrap that."""
    inner = hop.scratch / "wrapped.keras"
    keras.write(model, inner, hop)
    _wrap(inner, target)
    inner.unlink()


def wrap_keras(path: Path, target: Path, hop: Hop) -> None:
    """A .keras file of Keras 3 as it is, with all that it holds; an older one, or one with code, is rebuilt first."""
    stored = _sources.read("keras", path, hop.scratch)
    if stored.architecture.legacy or lambdas(stored.architecture) or stored.own_file is None:
        opened = _sources.open_trained("keras", path, hop.scratch)
        hop.add(*opened.findings)
        write(opened.model, target, hop)
    else:
        _wrap(stored.own_file, target, stored.architecture.version)


def _wrap(inner: Path, target: Path, version: str = "") -> None:
    entries: dict[str, str | int] = {"format": MARKER, "version": VERSION, "keras_version": version or _keras_version()}
    with target.open("wb") as file, inner.open("rb") as source:
        digest = hashlib.file_digest(source, "sha256").hexdigest()
        source.seek(0)
        file.write(b"\x80\x04}(")  # protocol 4, an empty dictionary, a mark
        for key, value in {**entries, "sha256": digest}.items():
            file.write(_text(key) + (_text(value) if isinstance(value, str) else bytes([ord("K"), value])))
        file.write(_text("keras_archive") + b"\x8e" + struct.pack("<Q", inner.stat().st_size))
        shutil.copyfileobj(source, file, BLOCK)
        file.write(b"u.")  # put the pairs into the dictionary, stop


def _keras_version() -> str:
    from importlib import metadata

    return metadata.version("keras")


def _text(value: str) -> bytes:
    raw = value.encode()
    return b"\x8c" + bytes([len(raw)]) + raw


FORMAT = Format(
    label="Data-only pickle",
    suffixes=(".pkl",),
    sniff=sniff,
    inspect=_sources.inspect("data_pickle"),
    load=_sources.load("data_pickle"),
    converts_from={**_sources.converters(write, "data_pickle", _sources.open_trained), "keras": Converter(wrap_keras)},
    keeps=frozenset({"architecture", "weights", "training", "compile", "optimizer"}),
    exact=True,
    snippet="""import pickle
import tempfile

import keras

with open("{file}", "rb") as file, tempfile.NamedTemporaryFile(suffix=".keras") as inner:
    inner.write(pickle.load(file)["keras_archive"])
    inner.flush()
    model = keras.saving.load_model(inner.name)
""",
    needs=("tensorflow", "keras", "tf_keras", "h5py"),
)
