"""ONNX: every tensor as long as its bytes, in the model or in a file beside it, and functions that end.

https://github.com/onnx/onnx/blob/main/docs/ExternalData.md
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from worker.errors import UnsafeContent
from worker.formats import _onnx_file
from worker.formats._screen import _said
from worker.report import Finding

EXPECTED = "tensors whose numbers are in the file, or in a file beside it as long as they are"
FREE = 1024**3  # numbers of a tensor that is mostly zeros
TOGETHER = "Pack the graph and the files with its weights into one archive, as they were written."


def screen(file: Path, place: str) -> Iterator[Finding]:
    """What is wrong with a model and the files beside it."""
    try:
        model = _onnx_file.read(file)
    except UnsafeContent as error:
        yield _said.refuse(place, f"is unsafe: {error.details['reason']}", EXPECTED, TOGETHER)
        return
    for tensor in _onnx_file.tensors(model):
        if problem := _problem(tensor, file):
            yield _said.refuse(place, f"{problem} for the tensor {_said.short(tensor.name)}", EXPECTED, TOGETHER)
    for sparse in model.graph.sparse_initializer:
        if math.prod(sparse.dims) > FREE:
            yield _said.refuse(place, f"declares a sparse tensor of {math.prod(sparse.dims):,} numbers", EXPECTED)
    if name := _endless(model):
        yield _said.refuse(place, f"has a function ({_said.short(name)}) that calls itself", "functions that end")


def _problem(tensor: Any, file: Path) -> str:
    if min(tensor.dims, default=0) < 0:
        return "declares a negative size"
    count, item = math.prod(tensor.dims), _bits(tensor.data_type)
    if tensor.data_location == 1:
        return _external_problem(tensor, file, count * item // 8)
    held = len(tensor.raw_data)
    if held and count * item // 8 > held:
        return f"declares {count * item // 8:,} bytes, and holds {held:,},"
    rows = sum(len(field) for field in _fields(tensor))
    return f"declares {count:,} numbers, and holds {rows:,}," if not held and count > 8 * max(rows, 1) else ""


def _fields(tensor: Any) -> Iterator[Any]:
    yield from (tensor.float_data, tensor.int32_data, tensor.string_data, tensor.int64_data, tensor.double_data)
    yield tensor.uint64_data


def _bits(kind: int) -> int:
    """Of one number; 0 for texts and types that are not known."""
    name = _onnx_file.dtype_name(kind) if kind else "string"
    digits = "".join(char for char in name.partition("e")[0] if char.isdigit())
    return {"bool": 8, "string": 0}.get(name, int(digits or 0)) * (
        2 if name.startswith("complex") and not digits else 1
    )


def _external_problem(tensor: Any, file: Path, wanted: int) -> str:
    told = {entry.key: entry.value for entry in tensor.external_data}
    size = (file.parent / told.get("location", "")).stat().st_size
    numbers = [told.get(key) or "0" for key in ("offset", "length")]
    if not all(number.isdigit() and len(number) < 20 for number in numbers):
        return f"gives {_said.short(numbers)} as the place of the numbers"
    start, length = map(int, numbers)
    length = length or size - start
    if start + length > size or length < wanted:
        return f"places {max(wanted, length):,} bytes at {start:,} of a file of {size:,}"
    return ""


def _endless(model: Any) -> str:
    """A function that runs itself, by whatever way; "" where all end."""
    bodies = {(item.domain, item.name): {(n.domain, n.op_type) for n in _nodes(item.node)} for item in model.functions}
    left = dict(bodies)
    while left:
        free = [name for name, used in left.items() if not used & left.keys()]
        if not free:
            return str(min(left)[1])
        for name in free:
            del left[name]
    return ""


def _nodes(nodes: Any) -> Iterator[Any]:
    """These nodes, and those in their bodies."""
    pending = [nodes]
    while pending:
        for node in pending.pop():
            yield node
            pending.extend(item.g.node for item in node.attribute if item.HasField("g"))
            pending.extend(graph.node for item in node.attribute for graph in item.graphs)
