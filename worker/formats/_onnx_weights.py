"""Putting the weights back into an ONNX graph that was converted without them, and writing it tensor by tensor.

Whatever only rearranges a weight (the kernel of a convolution, transposed) is done here, once, instead of by every
program that runs the file. The file is written as a stream: one tensor at a time is in memory.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from io import BufferedWriter
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

LARGEST = 2**31 - 64 * 2**20  # protocol buffers end at 2 GiB; the graph itself needs room too
ALIGNMENT = 4096  # so that runtimes can map the data file
# Field numbers of https://github.com/onnx/onnx/blob/main/onnx/onnx.proto, all of them length-delimited
GRAPH_OF_MODEL, INITIALIZER_OF_GRAPH, RAW_DATA_OF_TENSOR = 7, 5, 9


@dataclass(frozen=True)
class Weight:
    """A tensor that is read when it is needed. ``dtype`` is ONNX' number."""

    name: str
    shape: tuple[int, ...]
    dtype: int
    read: Callable[[], np.ndarray]

    @property
    def size(self) -> int:
        """Bytes."""
        return math.prod(self.shape) * _numpy_dtype(self.dtype).itemsize


def _numpy_dtype(dtype: int) -> np.dtype[Any]:
    import numpy as np
    import onnx

    return np.dtype(onnx.helper.tensor_dtype_to_np_dtype(dtype))


# Folding ----------------------------------------------------------------------------------------------------------


def fold(graph: Any, weights: dict[str, Weight]) -> dict[str, Weight]:
    """Do what the graph does to weights alone; returns the weights that the remaining graph uses, by name."""
    values = {item.name: item for item in graph.initializer}
    outputs = {item.name for item in graph.output}
    kept, found = [], dict(weights)
    uses = Counter(_used_names(graph))
    for node in graph.node:
        weight = found.get(node.input[0]) if node.input and node.output[0] not in outputs else None
        folded = _folded(node, weight, values) if weight and uses[weight.name] == 1 else None
        if folded is None:
            kept.append(node)
        else:
            found[node.output[0]] = folded
    del graph.node[:]
    graph.node.extend(kept)
    used = set(_used_names(graph))
    return {name: weight for name, weight in found.items() if name in used}


def _used_names(graph: Any) -> Iterator[str]:
    """The name of every tensor that is used, as often as it is, in the bodies of loops too."""
    for node in graph.node:
        yield from node.input
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from _used_names(attribute.g)
    yield from (item.name for item in graph.output)


def _folded(node: Any, weight: Weight, values: dict[str, Any]) -> Weight | None:
    """The weight behind the node; None where the node does more than rearranging."""
    if node.op_type not in _FOLDS or any(name not in values for name in node.input[1:]):
        return None
    dtype, change = _FOLDS[node.op_type](node, weight, [_array(values[name]) for name in node.input[1:]])
    import numpy as np

    shape = change(np.broadcast_to(np.zeros((), _numpy_dtype(weight.dtype)), weight.shape)).shape
    return Weight(node.output[0], shape, dtype, lambda: change(weight.read()))


def _array(tensor: Any) -> np.ndarray:
    import onnx

    return onnx.numpy_helper.to_array(tensor)


Change = tuple[int, Callable[["np.ndarray"], "np.ndarray"]]


def _attributes(node: Any) -> dict[str, Any]:
    import onnx

    return {item.name: onnx.helper.get_attribute_value(item) for item in node.attribute}


def _transpose(node: Any, weight: Weight, _: list[np.ndarray]) -> Change:
    order = _attributes(node).get("perm", tuple(reversed(range(len(weight.shape)))))
    return weight.dtype, lambda array: array.transpose(order)


def _reshape(node: Any, weight: Weight, given: list[np.ndarray]) -> Change:
    wanted = given[0].tolist()
    keep = not _attributes(node).get("allowzero", 0)
    shape = [weight.shape[place] if size == 0 and keep else size for place, size in enumerate(wanted)]
    return weight.dtype, lambda array: array.reshape(shape)


def _squeeze(node: Any, weight: Weight, given: list[np.ndarray]) -> Change:
    axes = given[0].tolist() if given else _attributes(node).get("axes")
    import numpy as np

    return weight.dtype, lambda array: np.squeeze(array, None if axes is None else tuple(axes))


def _unsqueeze(node: Any, weight: Weight, given: list[np.ndarray]) -> Change:
    import numpy as np

    axes = tuple(given[0].tolist() if given else _attributes(node)["axes"])
    return weight.dtype, lambda array: np.expand_dims(array, axes)


def _cast(node: Any, weight: Weight, _: list[np.ndarray]) -> Change:
    to = int(_attributes(node)["to"])
    return to, lambda array: array.astype(_numpy_dtype(to))


_FOLDS: dict[str, Callable[[Any, Weight, list[np.ndarray]], Change]] = {
    "Identity": lambda node, weight, _: (weight.dtype, lambda array: array),
    "Transpose": _transpose,
    "Reshape": _reshape,
    "Squeeze": _squeeze,
    "Unsqueeze": _unsqueeze,
    "Cast": _cast,
}


# Writing ----------------------------------------------------------------------------------------------------------


def write_whole(model: Any, weights: list[Weight], target: Path) -> None:
    """One file: the weights are initializers of the graph, in the protocol buffer's own encoding."""
    outer, graph = _without_graph(model), model.graph.SerializeToString()
    heads = [_head(weight) for weight in weights]
    bodies = [len(head) + weight.size for head, weight in zip(heads, weights, strict=True)]
    total = len(graph) + sum(len(_field(INITIALIZER_OF_GRAPH, size)) + size for size in bodies)
    with target.open("wb") as file:
        file.write(outer + _field(GRAPH_OF_MODEL, total) + graph)
        for weight, head, size in zip(weights, heads, bodies, strict=True):
            file.write(_field(INITIALIZER_OF_GRAPH, size) + head)
            _write_values(weight, file)


def _without_graph(model: Any) -> bytes:
    outer = type(model)()
    outer.MergeFrom(model)
    outer.ClearField("graph")
    return bytes(outer.SerializeToString())


def _head(weight: Weight) -> bytes:
    """The tensor up to its values."""
    return bytes(_description(weight).SerializeToString()) + _field(RAW_DATA_OF_TENSOR, weight.size)


def _description(weight: Weight) -> Any:
    import onnx

    return onnx.TensorProto(name=weight.name, dims=weight.shape, data_type=weight.dtype)


def _field(number: int, size: int) -> bytes:
    """The tag of a length-delimited field, and its length (protobuf.dev/programming-guides/encoding)."""
    return _varint(number << 3 | 2) + _varint(size)


def _varint(value: int) -> bytes:
    groups = bytearray()
    while value > 0x7F:
        groups.append(value & 0x7F | 0x80)
        value >>= 7
    groups.append(value)
    return bytes(groups)


def _write_values(weight: Weight, file: BufferedWriter) -> None:
    import numpy as np

    array = np.ascontiguousarray(weight.read(), _numpy_dtype(weight.dtype))
    if array.nbytes != weight.size:
        raise ValueError(f"{weight.name} has {array.nbytes} bytes instead of {weight.size}")
    array.reshape(-1).view(np.uint8).tofile(file)


def write_apart(model: Any, weights: list[Weight], target: Path) -> None:
    """Two files: the graph, and beside it ``<name>.data`` with the weights, each at a page of its own."""
    data = target.with_name(f"{target.name}.data")
    with data.open("wb") as file:
        for weight in weights:
            file.write(bytes(-file.tell() % ALIGNMENT))
            model.graph.initializer.append(_reference(weight, data.name, file.tell()))
            _write_values(weight, file)
    target.write_bytes(model.SerializeToString())


def _reference(weight: Weight, location: str, offset: int) -> Any:
    import onnx

    tensor = _description(weight)
    tensor.data_location = onnx.TensorProto.EXTERNAL
    for key, value in (("location", location), ("offset", offset), ("length", weight.size)):
        tensor.external_data.add(key=key, value=str(value))
    return tensor
