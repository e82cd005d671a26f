"""The weights that an ONNX model stores, as the numbers they stand for."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from worker.formats import _onnx_file
from worker.formats._quantised import Scales

if TYPE_CHECKING:
    import numpy as np

FLOATS = frozenset({"float32", "float64", "float16", "bfloat16"})


def weights(model: Any, folder: Path) -> Iterator[tuple[str, np.ndarray]]:
    """Initialisers and constants that are numbers with a point; whole ones that a DequantizeLinear makes such."""
    scales = _all_scales(model, folder)
    for name, tensor in _named(model):
        if _onnx_file.dtype_name(tensor.data_type) in FLOATS:
            yield name, _onnx_file.array(tensor, folder)
        elif tensor.name in scales:
            yield name, scales[tensor.name].apply(_onnx_file.array(tensor, folder))


def steps(model: Any, folder: Path) -> dict[str, float]:
    scales = _all_scales(model, folder)
    return {name: scales[tensor.name].step for name, tensor in _named(model) if tensor.name in scales}


def _named(model: Any) -> Iterator[tuple[str, Any]]:
    """Each tensor under a name of its own: the bodies of loops may use those of the graph again."""
    for number, tensor in enumerate(_onnx_file.tensors(model)):
        yield f"{number}/{tensor.name}", tensor


def _all_scales(model: Any, folder: Path) -> dict[str, Scales]:
    """By the name of the stored tensor that they belong to, where all of it is stored."""
    stored = {tensor.name: tensor for tensor in model.graph.initializer}
    found = {}
    for node in model.graph.node:
        given = [stored.get(name) for name in node.input]
        if node.op_type == "DequantizeLinear" and len(given) > 1 and all(given):
            scale, zero, *_ = [*(_onnx_file.array(item, folder).reshape(-1).tolist() for item in given[1:]), [0]]
            axis = next((int(item.i) for item in node.attribute if item.name == "axis"), 1)
            found[node.input[0]] = Scales(scale, zero, axis)
    return found
