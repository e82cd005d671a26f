"""What ONNX graphs and TensorFlow Lite flatbuffers imply of their inputs, for the walk of ``_implied_graphs``."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from worker.formats import _implied_graphs as graphs
from worker.formats import _tflite_file
from worker.formats._format import MOST_BOUNDS, TensorSpec
from worker.formats._implied_graphs import Body, Known, Operation, constant, implied_by_graph

_ARITHMETIC = {
    "Mul": graphs.MULTIPLY,
    "Div": graphs.DIVIDE,
    "Add": graphs.ADD,
    "Sub": graphs.SUBTRACT,
    "Sqrt": graphs.SQRT,
    "Reciprocal": graphs.RECIPROCAL,
    "Max": graphs.MAXIMUM,
}
_ONNX_MOVING = ("Transpose", "Expand", "Tile", "Slice", "Pad", "Resize")
_ONNX = {
    **dict.fromkeys(("Identity", "Cast", "Reshape", "Unsqueeze", "Squeeze", "Flatten", "Dropout"), graphs.PASS),
    **dict.fromkeys(_ONNX_MOVING, graphs.MOVE),
    "Concat": graphs.CONCAT,
    "Where": graphs.CHOOSE,
    "Gather": graphs.GATHER,
    "OneHot": graphs.ONE_HOT,
    **_ARITHMETIC,
}
_TFLITE_MOVING = ("TRANSPOSE", "TILE", "SLICE", "STRIDED_SLICE", "PAD", "RESIZE_BILINEAR")
_TFLITE = {
    **dict.fromkeys(("CAST", "RESHAPE", "EXPAND_DIMS", "SQUEEZE"), graphs.PASS),
    **dict.fromkeys(_TFLITE_MOVING, graphs.MOVE),
    **dict.fromkeys(("CONCATENATION", "PACK"), graphs.CONCAT),
    **dict.fromkeys(("SELECT", "SELECT_V2"), graphs.CHOOSE),
    "GATHER": graphs.GATHER,
    "EMBEDDING_LOOKUP": graphs.GATHER,
    "ONE_HOT": graphs.ONE_HOT,
    "NOT_EQUAL": graphs.NOT_EQUAL,
    "RSQRT": graphs.RSQRT,
    **{name.upper(): kind for name, kind in _ARITHMETIC.items() if name not in ("Max", "Reciprocal")},
}


# ONNX -----------------------------------------------------------------------------------------------------------------


def implied_by_onnx(model: Any, inputs: Sequence[TensorSpec]) -> tuple[TensorSpec, ...]:
    """The inputs of an ONNX model, by what its main graph implies."""
    stored: dict[str, Any] = {item.name: item for item in model.graph.initializer}
    for node in model.graph.node:
        values = [item.t for item in node.attribute if node.op_type == "Constant" and item.name == "value"]
        stored.update(zip(node.output, values, strict=False))
    operations = [_onnx_operation(node) for node in model.graph.node if node.op_type != "Constant"]
    body = Body(operations, known=lambda name: _onnx_constant(stored.get(name)))
    found = implied_by_graph({spec.name: spec for spec in inputs}, body)
    return tuple(found[spec.name] for spec in inputs)


def _onnx_operation(node: Any) -> Operation:
    kind = _ONNX.get(node.op_type, "")
    # a Cast or Reshape of something else's shape is no way of the values
    operands = list(node.input)[:1] if kind in (graphs.PASS, graphs.MOVE) else list(node.input)
    axis = next((int(item.i) for item in node.attribute if item.name == "axis"), 0) if kind == graphs.GATHER else 0
    return Operation(kind, operands, list(node.output), axis=max(axis, 0))


def _onnx_constant(tensor: Any) -> Known | None:
    import onnx

    if tensor is None:
        return None
    shape = tuple(map(int, tensor.dims))
    if math.prod(shape) > MOST_BOUNDS or tensor.data_location == onnx.TensorProto.EXTERNAL:
        return Known(shape)
    try:
        return constant(onnx.numpy_helper.to_array(tensor))
    except (TypeError, ValueError):
        return Known(shape)


# TensorFlow Lite ------------------------------------------------------------------------------------------------------


def implied_by_tflite(path: Path, inputs: Sequence[TensorSpec]) -> tuple[TensorSpec, ...]:
    """The inputs of a TensorFlow Lite file, by what the graph of its signature implies. Constants that stand for other
    numbers, by a scale, say nothing but their shape."""
    from tensorflow.lite.python import schema_py_generated as schema

    model = schema.Model.GetRootAsModel(path.read_bytes(), 0)
    graph, named = _tflite_interface(model)
    names = {spec.name: named[spec.name] for spec in inputs if spec.name in named}
    body = Body(list(_tflite_operations(model, graph)), known=lambda name: _tflite_constant(model, graph, int(name)))
    found = implied_by_graph({names[spec.name]: spec for spec in inputs if spec.name in names}, body)
    return tuple(found.get(names.get(spec.name, ""), spec) for spec in inputs)


def _tflite_interface(model: Any) -> tuple[Any, dict[str, str]]:
    """The graph that is run, and the numbers of its input tensors by what they are called, as text."""
    signatures = {model.SignatureDefs(at).SignatureKey().decode(): at for at in range(model.SignatureDefsLength())}
    if not signatures:
        graph = model.Subgraphs(0)
        return graph, {graph.Tensors(int(at)).Name().decode(): str(at) for at in graph.InputsAsNumpy()}
    chosen = model.SignatureDefs(signatures[_tflite_file.choose(signatures)])
    inputs = [chosen.Inputs(at) for at in range(chosen.InputsLength())]
    return model.Subgraphs(chosen.SubgraphIndex()), {item.Name().decode(): str(item.TensorIndex()) for item in inputs}


def _tflite_operations(model: Any, graph: Any) -> Iterator[Operation]:
    names = _tflite_file.operation_names()
    for at in range(graph.OperatorsLength()):
        operator = graph.Operators(at)
        code = model.OperatorCodes(operator.OpcodeIndex())
        name = names.get(max(int(code.BuiltinCode()), int(code.DeprecatedBuiltinCode())), "")
        operands = [str(number) for number in _numbers(operator.InputsAsNumpy())]
        if name == "EMBEDDING_LOOKUP":
            operands.reverse()  # the indices stand first
        kind = _TFLITE.get(name, "")
        outputs = [str(number) for number in _numbers(operator.OutputsAsNumpy())]
        yield Operation(kind, operands[:1] if kind in (graphs.PASS, graphs.MOVE) else operands, outputs)


def _numbers(found: Any) -> list[int]:
    return [int(number) for number in found] if hasattr(found, "tolist") else []


def _tflite_constant(model: Any, graph: Any, number: int) -> Known | None:
    """The tensor's value, where it is a small one of floats or whole numbers as they are."""
    import numpy as np

    if number < 0:
        return None
    tensor = graph.Tensors(number)
    buffer, shape = model.Buffers(tensor.Buffer()), tuple(_numbers(tensor.ShapeAsNumpy()))
    if not buffer.DataLength() and not buffer.Size():
        return None
    dtype = _tflite_file.type_names().get(tensor.Type(), "")
    scaled = tensor.Quantization() is not None and tensor.Quantization().ScaleLength()
    if (
        scaled
        or dtype not in ("float32", "int32", "int64")
        or math.prod(shape) > MOST_BOUNDS
        or not buffer.DataLength()
    ):
        return Known(shape)
    array = np.frombuffer(buffer.DataAsNumpy().tobytes(), dtype)
    return constant(array.reshape(shape)) if array.size == math.prod(shape) else Known(shape)
