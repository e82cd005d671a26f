"""TensorFlow Lite flatbuffers, verified: every place that one part names in another is there.

https://github.com/tensorflow/tensorflow/blob/master/tensorflow/compiler/mlir/lite/schema/schema.fbs. Offsets that
lead out of the file raise where they are read; what is checked here are the numbers that readers take as places.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from worker.errors import CorruptFile
from worker.formats import _graph_dangers, _tflite_file
from worker.formats._screen import _said
from worker.report import Finding

VERSION = 3
MOST_PARTS = 1_000_000
BITS = {"float32": 32, "float16": 16, "float64": 64, "int8": 8, "uint8": 8, "int16": 16, "uint16": 16, "int32": 32}
BITS |= {"uint32": 32, "int64": 64, "uint64": 64, "bool": 8, "bfloat16": 16, "complex64": 64, "complex128": 128}
GRAPHS_OF = {"WhileOptions": ("CondSubgraphIndex", "BodySubgraphIndex"), "CallOnceOptions": ("InitSubgraphIndex",)}
GRAPHS_OF |= {"IfOptions": ("ThenSubgraphIndex", "ElseSubgraphIndex"), "CallOptions": ("Subgraph",)}
EXPECTED = "a flatbuffer whose parts name parts that are there"
OPERATIONS = "operations that compute from the inputs and the weights"


class _Wrong(ValueError):
    """What is wrong with it, as the end of a sentence that begins with its name."""


def screen(content: bytes, place: str) -> Iterator[Finding]:
    """What is wrong with a flatbuffer."""
    from tensorflow.lite.python import schema_py_generated as schema

    try:
        model = schema.Model.GetRootAsModel(content, 0)
        _check(model, len(content))
        names = [_custom(model.OperatorCodes(number)) for number in range(model.OperatorCodesLength())]
    except _Wrong as wrong:
        yield _said.refuse(place, str(wrong), EXPECTED)
        return
    except Exception as error:  # struct.error, IndexError, …: whatever a wrong offset brings about
        raise CorruptFile(name=place, problem="its flatbuffer cannot be read") from error
    for name in filter(None, names):
        if what := _graph_dangers.what(name):
            yield _said.refuse(place, f"has the operation {_said.short(name)}, which {what}", OPERATIONS)


def _custom(code: Any) -> str:
    return (code.CustomCode() or b"").decode("utf-8", "replace")


def _check(model: Any, size: int) -> None:
    if model.Version() != VERSION:
        raise _Wrong(f"has the version {model.Version()} of the schema, not {VERSION}")
    lengths = (model.SubgraphsLength(), model.OperatorCodesLength(), model.BuffersLength(), model.SignatureDefsLength())
    if max(lengths) > min(size, MOST_PARTS):
        raise _Wrong(f"declares {max(lengths):,} parts in {size:,} bytes")
    if not lengths[0]:
        raise _Wrong("holds no graph")
    _check_codes(model)
    buffers = [_buffer(model.Buffers(number), size) for number in range(lengths[2])]
    graphs = [model.Subgraphs(number) for number in range(lengths[0])]
    called = {number: _check_graph(graph, buffers, model, size) for number, graph in enumerate(graphs)}
    _check_calls(called)
    for number in range(lengths[3]):
        _check_signature(model.SignatureDefs(number), graphs)


def _check_codes(model: Any) -> None:
    known = _tflite_file.operation_names()
    for number in range(model.OperatorCodesLength()):
        code = _tflite_file._code(model.OperatorCodes(number))
        if code not in known:
            raise _Wrong(f"has an operation of the number {code}, which the schema does not know")


def _buffer(buffer: Any, size: int) -> int:
    """How many bytes it has, in the flatbuffer or behind it."""
    length = int(buffer.DataLength())
    if length > size or buffer.Offset() + buffer.Size() > size:
        raise _Wrong("has a buffer that reaches beyond the file")
    return max(length, int(buffer.Size()))


def _check_graph(graph: Any, buffers: list[int], model: Any, size: int) -> set[int]:
    """Check one graph; the numbers of the graphs that it runs."""
    count = graph.TensorsLength()
    if max(count, graph.OperatorsLength()) > min(size, MOST_PARTS):
        raise _Wrong(f"declares a graph of {max(count, graph.OperatorsLength()):,} parts in {size:,} bytes")
    for number in range(count):
        _check_tensor(graph.Tensors(number), buffers)
    _check_places("input or output", [*_sizes(graph.InputsAsNumpy()), *_sizes(graph.OutputsAsNumpy())], count)
    called: set[int] = set()
    for number in range(graph.OperatorsLength()):
        called |= _check_operator(graph.Operators(number), count, model)
    return called


def _sizes(found: Any) -> list[int]:
    return [int(item) for item in found] if hasattr(found, "tolist") else []


def _check_places(what: str, places: list[int], count: int, least: int = 0) -> None:
    wrong = [place for place in places if not least <= place < count]
    if wrong:
        raise _Wrong(f"names the tensor {wrong[0]} as {what}, and has {count}")


def _check_tensor(tensor: Any, buffers: list[int]) -> None:
    name = _said.short((tensor.Name() or b"").decode("utf-8", "replace"))
    kind = _tflite_file.type_names().get(tensor.Type())
    if kind is None:
        raise _Wrong(f"gives the tensor {name} the type {tensor.Type()}, which the schema does not know")
    if tensor.Buffer() >= len(buffers):
        raise _Wrong(f"keeps the tensor {name} in the buffer {tensor.Buffer()}, and has {len(buffers)}")
    shape = _sizes(tensor.ShapeAsNumpy())
    if min(shape, default=0) < 0:
        raise _Wrong(f"declares a negative size of the tensor {name}")
    held, bits = buffers[tensor.Buffer()], BITS.get(kind)
    if held and bits and tensor.Sparsity() is None and math.prod(shape) * bits // 8 > held:
        raise _Wrong(f"declares {math.prod(shape) * bits // 8:,} bytes for the tensor {name}, and holds {held:,}")


def _check_operator(operator: Any, count: int, model: Any) -> set[int]:
    if operator.OpcodeIndex() >= model.OperatorCodesLength():
        raise _Wrong(f"names the operation {operator.OpcodeIndex()}, and has {model.OperatorCodesLength()}")
    _check_places("what an operation takes", _sizes(operator.InputsAsNumpy()), count, least=-1)
    _check_places("what an operation gives", _sizes(operator.OutputsAsNumpy()), count, least=-1)
    called = set(_graphs_of(operator))
    if wrong := [number for number in called if not 0 <= number < model.SubgraphsLength()]:
        raise _Wrong(f"runs the graph {wrong[0]} in a loop or branch, and has {model.SubgraphsLength()}")
    return called


def _graphs_of(operator: Any) -> Iterator[int]:
    """The graphs that a loop, a branch or a call runs."""
    from tensorflow.lite.python import schema_py_generated as schema

    kinds = {value: name for name, value in vars(schema.BuiltinOptions).items() if isinstance(value, int)}
    name = kinds.get(operator.BuiltinOptionsType(), "")
    if name in GRAPHS_OF and operator.BuiltinOptions() is not None:
        options = getattr(schema, name)()
        table = operator.BuiltinOptions()
        options.Init(table.Bytes, table.Pos)
        yield from (int(getattr(options, field)()) for field in GRAPHS_OF[name])


def _check_calls(called: dict[int, set[int]]) -> None:
    """No graph runs itself, by whatever way."""
    left = dict(called)
    while left:
        free = [number for number, others in left.items() if not others & left.keys()]
        if not free:
            raise _Wrong(f"has a loop or branch that runs the graph {min(left)} inside of itself")
        for number in free:
            del left[number]


def _check_signature(signature: Any, graphs: list[Any]) -> None:
    if signature.SubgraphIndex() >= len(graphs):
        raise _Wrong(f"has a signature for the graph {signature.SubgraphIndex()}, and has {len(graphs)}")
    count = graphs[signature.SubgraphIndex()].TensorsLength()
    inputs = [signature.Inputs(number).TensorIndex() for number in range(signature.InputsLength())]
    outputs = [signature.Outputs(number).TensorIndex() for number in range(signature.OutputsLength())]
    _check_places("part of a signature", inputs + outputs, count)
