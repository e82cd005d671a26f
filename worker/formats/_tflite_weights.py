"""The constants of a TensorFlow Lite file that are weights, as the numbers they stand for."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from worker.errors import CorruptFile
from worker.formats import _tflite_file
from worker.formats._quantised import Scales, halves, wide

if TYPE_CHECKING:
    import numpy as np

PLAIN = {"float32": "<f4", "float16": "<f2", "float64": "<f8", "bfloat16": "<u2"}
WHOLE = {"int8": "i1", "uint8": "u1", "int16": "<i2", "int32": "<i4", "int64": "<i8", "int4": "u1"}


def weights(path: Path) -> Iterator[tuple[str, np.ndarray]]:
    """Every stored tensor of numbers with a point, and of whole numbers that stand for such; one for each buffer."""
    content = path.read_bytes()
    try:
        for name, tensor, kind, buffer in _stored(content):
            yield name, _values(content, tensor, kind, buffer)
    except (ValueError, IndexError) as error:
        raise CorruptFile(name=path.name, problem="a tensor does not fit the bytes that it is stored in") from error


def steps(path: Path) -> dict[str, float]:
    """The rounding of each tensor that is stored as whole numbers."""
    found = ((name, _scales(tensor)) for name, tensor, kind, _ in _stored(path.read_bytes()) if kind in WHOLE)
    return {name: scales.step for name, scales in found if scales and math.isfinite(scales.step)}


def _stored(content: bytes) -> Iterator[tuple[str, Any, str, Any]]:
    """(unique name, tensor, its type, its buffer) of what is a weight."""
    from tensorflow.lite.python import schema_py_generated as schema

    model, types, seen = schema.Model.GetRootAsModel(content, 0), _tflite_file.type_names(), set()
    for graph_number in range(model.SubgraphsLength()):
        graph = model.Subgraphs(graph_number)
        for number in range(graph.TensorsLength()):
            tensor = graph.Tensors(number)
            kind, buffer = types[tensor.Type()], model.Buffers(tensor.Buffer())
            there = buffer.DataLength() or buffer.Size()
            if there and tensor.Buffer() not in seen and (kind in PLAIN or (kind in WHOLE and _scales(tensor))):
                seen.add(tensor.Buffer())
                yield f"{graph_number}/{number}/{(tensor.Name() or b'').decode(errors='replace')}", tensor, kind, buffer


def _scales(tensor: Any) -> Scales | None:
    """None where the whole numbers are what they are."""
    found = tensor.Quantization()
    if found is None or not found.ScaleLength():
        return None
    zeros = found.ZeroPointAsNumpy() if found.ZeroPointLength() else [0]
    return Scales(list(found.ScaleAsNumpy()), list(zeros), int(found.QuantizedDimension()))


def _values(content: bytes, tensor: Any, kind: str, buffer: Any, exact: bool = False) -> np.ndarray:
    import numpy as np

    shape = [int(size) for size in tensor.ShapeAsNumpy()] if tensor.ShapeLength() else []
    count = math.prod(shape)
    raw = _bytes(content, buffer)
    if kind in PLAIN:
        plain = np.frombuffer(raw, PLAIN[kind], count).reshape(shape)
        return wide(plain) if kind == "bfloat16" else plain
    whole = halves(np.frombuffer(raw, "u1"), count) if kind == "int4" else np.frombuffer(raw, WHOLE[kind], count)
    scales = _scales(tensor)
    assert scales
    return scales.apply(whole.reshape(shape), "float64" if exact else "float32")


def _bytes(content: bytes, buffer: Any) -> Any:
    """Where files are large, what a buffer holds stands behind the flatbuffer."""
    if buffer.DataLength():
        return buffer.DataAsNumpy()
    return memoryview(content)[buffer.Offset() : buffer.Offset() + buffer.Size()]
