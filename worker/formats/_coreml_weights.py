"""The weights in a Core ML package: constants of its program, in the specification or in a file beside it.

Specification of the file: https://github.com/apple/coremltools/blob/main/mlmodel/src/MILBlob/Blob/StorageFormat.hpp
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from worker.errors import CorruptFile
from worker.formats._quantised import wide

if TYPE_CHECKING:
    import numpy as np

SENTINEL = 0xDEADBEEF
PLACE = "@model_path/"
FLOATS = {"FLOAT16": "<f2", "FLOAT32": "<f4", "FLOAT64": "<f8", "BFLOAT16": "<u2"}


def weights(spec: Any, folder: Path) -> Iterator[tuple[str, np.ndarray]]:
    """Constants of floating types. ``folder`` is where the specification lies."""
    for function_name, function in sorted(spec.mlProgram.functions.items()):
        for block in function.block_specializations.values():
            for operation in _operations(block):
                if operation.type == "const":
                    name = f"{function_name}/{operation.outputs[0].name}"
                    yield from ((name, array) for array in _constant(operation.attributes["val"], folder))


def _operations(block: Any) -> Iterator[Any]:
    for operation in block.operations:
        yield operation
        for inner in operation.blocks:
            yield from _operations(inner)


def _constant(value: Any, folder: Path) -> Iterator[np.ndarray]:
    from coremltools.proto import MIL_pb2

    kind = MIL_pb2.DataType.Name(value.type.tensorType.dataType)
    shape = [int(item.constant.size) for item in value.type.tensorType.dimensions]
    if kind in FLOATS:
        yield _values(value, kind, math.prod(shape), folder).reshape(shape)


def _values(value: Any, kind: str, count: int, folder: Path) -> np.ndarray:
    import numpy as np

    if value.HasField("blobFileValue"):
        found = np.frombuffer(_blob(value.blobFileValue, folder), FLOATS[kind], count)
        return wide(found) if kind == "BFLOAT16" else found
    tensor = value.immediateValue.tensor
    stored = tensor.WhichOneof("value")
    if stored == "bytes":
        found = np.frombuffer(tensor.bytes.values, FLOATS[kind], count)
        return wide(found) if kind == "BFLOAT16" else found
    if stored not in ("floats", "doubles"):
        raise CorruptFile(name=folder.name, problem="a constant of its program has no values")
    numbers = np.array(getattr(tensor, stored).values, "float32" if kind != "FLOAT64" else "float64")
    return numbers[:count]


def _blob(place: Any, folder: Path) -> bytes:
    """What stands behind the record at the offset: sentinel, type, size and offset of the values, little-endian."""
    file = folder / str(place.fileName).removeprefix(PLACE)
    if not file.resolve().is_relative_to(folder.resolve()) or not file.is_file():
        raise CorruptFile(name=folder.name, problem="its program names a file that is not in the package")
    with file.open("rb") as stored:
        stored.seek(int(place.offset))
        record = stored.read(24)
        sentinel, size, offset = (int.from_bytes(record[a:b], "little") for a, b in ((0, 4), (8, 16), (16, 24)))
        if sentinel != SENTINEL or offset + size > file.stat().st_size:
            raise CorruptFile(name=file.name, problem="a record of its weights is damaged")
        stored.seek(offset)
        return stored.read(size)
