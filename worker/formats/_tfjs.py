"""What both TensorFlow.js formats are packed as: a ``model.json`` and the binary shards its weights manifest names.

Specification: the weights manifest of ``tfjs-core/src/io/types.ts`` and ``tfjs-converter/python/tensorflowjs``.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from worker import archive
from worker.errors import CorruptFile, IncompleteModel, UnsafeContent, UnsupportedOperation
from worker.formats._files import files_below, the_only, unpacked
from worker.formats._format import Sample, TensorSpec
from worker.report import Finding, Severity, declare

if TYPE_CHECKING:
    import numpy as np

    Named = tuple[str, np.ndarray]

MODEL = "model.json"
SHARD = 4 * 1024 * 1024  # bytes: the largest file that the caches of all large browsers keep
WRITER = "Larder"
# The dtypes of the format, and what is made of those that it does not have
NARROWED = {
    "float16": "float32",
    "float64": "float32",
    "int64": "int32",
    "complex128": "complex64",
    "bfloat16": "float32",
}
WRITTEN = frozenset({"float32", "int32", "bool", "string", "complex64", "uint8"})
READ = WRITTEN | {"uint16", "float16"}
WEIGHTS_ROUNDED = declare(
    "tfjs-weights-rounded",
    Severity.WARNING,
    "TensorFlow.js has no {dtypes}: {count} weights or constants were rounded to {written}.",
)
INT32 = declare(
    "tfjs-int32",
    Severity.NOTE,
    "TensorFlow.js has whole numbers of 32 bits: it takes and gives {names} as int32.",
)


# Recognising ------------------------------------------------------------------------------------------------------


def is_graph(sample: Sample) -> bool | None:
    """True for a graph model, False for a layers model, None where the sample is no TensorFlow.js model."""
    models = [keys for keys in sample.json_keys.values() if {"modelTopology", "weightsManifest"} <= keys]
    if sample.container == "file" or len(models) != 1:
        return None
    if models[0] & {"graph-model", "layers-model"}:
        return "graph-model" in models[0]
    return "class_name" not in models[0]  # old converters did not say which


# Reading ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Entry:
    """One tensor of the manifest, in the group of shards where its bytes are."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    group: int
    quantization: Mapping[str, Any] | None = None
    of_optimizer: bool = False

    @property
    def stored(self) -> str:
        """The dtype of the bytes."""
        return str(self.quantization["dtype"]) if self.quantization else self.dtype

    @property
    def step(self) -> float:
        """The distance between two numbers that can be stored, where they are stored as whole ones."""
        return abs(float((self.quantization or {}).get("scale", 0.0)))

    @property
    def size(self) -> int:
        return math.prod(self.shape)


@dataclass(frozen=True)
class Package:
    """An unpacked TensorFlow.js model."""

    root: dict[str, Any]
    file: Path  # model.json, beside its shards
    entries: tuple[Entry, ...]

    @property
    def folder(self) -> Path:
        return self.file.parent

    def arrays(self) -> Iterator[tuple[Entry, np.ndarray]]:
        """Every tensor in the order of the manifest, quantised ones as the numbers they stand for."""
        for number, group in enumerate(self.root["weightsManifest"]):
            data = b"".join(_shard(self.folder, path) for path in group["paths"])
            offset = 0
            for entry in (item for item in self.entries if item.group == number):
                array, offset = _decode(data, offset, entry)
                yield entry, array


def read(path: Path, scratch: Path) -> Package:
    """The model in an archive; CorruptFile and IncompleteModel say what is wrong with it."""
    folder = unpacked(path, scratch)
    found = files_below(folder, lambda name: name.endswith(".json"))
    models = [item for item in found if b'"modelTopology"' in item.read_bytes()]
    model = the_only(models, folder, path.name, "a model.json with the topology")
    try:
        root = json.loads(model.read_bytes())
        entries = tuple(_entries(root["weightsManifest"]))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise CorruptFile(name=model.name, problem=f"it is not a TensorFlow.js model ({error})") from error
    if not isinstance(root.get("modelTopology"), dict):
        raise CorruptFile(name=model.name, problem="its modelTopology is no object")
    return Package(root, model, entries)


def _entries(manifest: list[dict[str, Any]]) -> Iterator[Entry]:
    for number, group in enumerate(manifest):
        list(map(str, group["paths"]))
        for item in group["weights"]:
            shape = tuple(int(size) for size in item["shape"])
            of_optimizer = item.get("group") == "optimizer"
            entry = Entry(str(item["name"]), shape, str(item["dtype"]), number, item.get("quantization"), of_optimizer)
            if entry.stored not in READ or min(shape, default=0) < 0:
                raise ValueError(f"weight {entry.name} is {entry.stored} {shape}")
            yield entry


def check(model: Path) -> None:
    """UnsafeContent where a manifest names other files than its shards, one of them again, or more than they hold."""
    entries, manifest = _read_manifest(model)
    for number, group in enumerate(manifest):
        paths = [model.parent / name for name in dict.fromkeys(map(str, group["paths"]))]
        outside = [path for path in paths if not path.resolve().is_relative_to(model.parent.resolve())]
        if outside or len(paths) < len(group["paths"]):
            said = "a file outside of the model" if outside else "a shard several times"
            raise UnsafeContent(name=MODEL, reason=f"names {said} ({str(group['paths'][0])[:80]}) in its manifest")
        held = sum(path.stat().st_size for path in paths if path.is_file())
        wanted = sum(entry.size for entry in entries if entry.group == number)
        if wanted > 4 * held:  # texts have four bytes before each
            raise UnsafeContent(name=MODEL, reason=f"declares {wanted:,} numbers in shards of {held:,} bytes")


def _read_manifest(model: Path) -> tuple[list[Entry], list[dict[str, Any]]]:
    try:
        root = json.loads(model.read_bytes())
        return list(_entries(root["weightsManifest"])), root["weightsManifest"]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise CorruptFile(name=model.name, problem=f"it is not a TensorFlow.js model ({error})") from error


def _shard(folder: Path, name: str) -> bytes:
    """A shard beside model.json; the manifest may not name anything else."""
    file = folder / name
    if not file.resolve().is_relative_to(folder.resolve()):
        raise CorruptFile(name=MODEL, problem=f"its manifest names a file outside of the model ({name[:80]})")
    if not file.is_file():
        raise IncompleteModel(
            name=MODEL, found=MODEL, missing=name[:80], advice="Pack model.json and all its shards into one archive."
        )
    return file.read_bytes()


def _decode(data: bytes, offset: int, entry: Entry) -> tuple[np.ndarray, int]:
    import numpy as np

    if entry.dtype == "string":
        return _decode_text(data, offset, entry)
    dtype = np.dtype(entry.stored).newbyteorder("<")
    end = offset + dtype.itemsize * entry.size
    if end > len(data):
        raise _truncated(entry)
    array = np.frombuffer(data, dtype, entry.size, offset).reshape(entry.shape)
    return _dequantised(array, entry), end


def _dequantised(array: np.ndarray, entry: Entry) -> np.ndarray:
    """``value = stored * scale + min`` for whole numbers; a float16 is only a shorter float32."""
    import numpy as np

    found = entry.quantization
    if not found:
        return array.astype(entry.dtype)
    if "scale" in found:
        values = array * float(found["scale"]) + float(found["min"])
        return (np.round(values) if entry.dtype == "int32" else values).astype(entry.dtype)
    return array.astype(entry.dtype)


def _decode_text(data: bytes, offset: int, entry: Entry) -> tuple[np.ndarray, int]:
    """Each text is preceded by its length in bytes, as four bytes."""
    import numpy as np

    words = []
    for _ in range(entry.size):
        start = offset + 4
        offset = start + int.from_bytes(data[offset:start], "little")
        if offset > len(data) or start > len(data):
            raise _truncated(entry)
        words.append(data[start:offset])
    array = np.empty(len(words), object)
    array[:] = words
    return array.reshape(entry.shape), offset


def _truncated(entry: Entry) -> CorruptFile:
    return CorruptFile(name=MODEL, problem=f"its shards end inside of the weight {entry.name}")


# Writing ----------------------------------------------------------------------------------------------------------


def write(root: dict[str, Any], weights: Iterable[Named], target: Path, scratch: Path) -> None:
    """The archive of a model: ``root`` becomes model.json, with the manifest of the weights added."""
    folder = scratch / "result-tfjs"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    root["weightsManifest"] = [_write_group(weights, folder)]
    (folder / MODEL).write_text(json.dumps(root), encoding="utf-8")
    archive.pack(folder, target)
    shutil.rmtree(folder)


def _write_group(weights: Iterable[Named], folder: Path) -> dict[str, Any]:
    shards, rows = _Shards(folder), []
    for name, array in weights:
        rows.append({"name": name, "shape": list(array.shape), "dtype": _dtype_of(array, name)})
        shards.add(_bytes_of(array))
    return {"paths": shards.finish(), "weights": rows}


def narrowed(array: np.ndarray, name: str) -> np.ndarray:
    """The array in a dtype that the format has; UnsupportedOperation for a whole number that would not fit."""
    import numpy as np

    written = NARROWED.get(str(array.dtype))
    if written is None:
        return array
    if written == "int32" and array.size and (array.max() >= 2**31 or array.min() < -(2**31)):
        problem = "TensorFlow.js has whole numbers of 32 bits, and it holds larger ones"
        raise UnsupportedOperation(target="TensorFlow.js", operation=f"the constant {name}", problem=problem)
    return np.asarray(array).astype(written)


def note_rounded(dtypes: Iterable[str]) -> list[Finding]:
    """The finding for weights that lose digits; none where none does: a whole number that fits stays what it is."""
    found = [dtype for dtype in dtypes if dtype in {"float64", "complex128"}]
    if not found:
        return []
    written = sorted({NARROWED[dtype] for dtype in found})
    return [WEIGHTS_ROUNDED(dtypes=", ".join(sorted(set(found))), count=len(found), written=", ".join(written))]


def note_int32(specs: Iterable[TensorSpec]) -> list[Finding]:
    """The finding for inputs and outputs of 64-bit whole numbers."""
    names = [spec.name for spec in specs if spec.dtype in {"int64", "uint64", "uint32"}]
    return [INT32(names=", ".join(names))] if names else []


def _dtype_of(array: np.ndarray, name: str) -> str:
    dtype = "string" if array.dtype.kind in "OSU" else array.dtype.name
    if dtype not in WRITTEN:
        raise UnsupportedOperation(
            target="TensorFlow.js", operation=f"the weight {name}", problem=f"it has no dtype {dtype}"
        )
    return dtype


def _bytes_of(array: np.ndarray) -> memoryview | bytes:
    import numpy as np

    if array.dtype.kind not in "OSU":
        return np.ascontiguousarray(array, array.dtype.newbyteorder("<")).reshape(-1).view("uint8").data
    words = [word if isinstance(word, bytes) else str(word).encode() for word in array.reshape(-1).tolist()]
    return b"".join(len(word).to_bytes(4, "little") + word for word in words)


class _Shards:
    """A stream of bytes cut into files of ``SHARD`` bytes; their names tell how many there are, so they come last."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.count = 0
        self.room = 0

    def add(self, data: memoryview | bytes) -> None:
        view = memoryview(data)
        while view:
            if not self.room:
                self.count, self.room = self.count + 1, SHARD
            part, view = view[: self.room], view[self.room :]
            with (self.folder / f"part-{self.count}").open("ab") as file:
                file.write(part)
            self.room -= len(part)

    def finish(self) -> list[str]:
        names = [f"group1-shard{number}of{self.count}.bin" for number in range(1, self.count + 1)]
        for number, name in enumerate(names, 1):
            (self.folder / f"part-{number}").rename(self.folder / name)
        return names
