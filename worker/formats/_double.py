"""A model of float32, computing in float64: how much of a difference between two models is only rounding.

TensorFlow's kernels for the processor know float64 for nearly all operations; where one does not, the whole is not to
be had, and the caller does without.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from worker.formats import _live
from worker.formats._graphs import Graph, constant_node, function_of, with_own_functions
from worker.formats._widening import widen

if TYPE_CHECKING:
    from worker.formats._format import Arrays

NORMALISATIONS = frozenset({"FusedBatchNorm", "FusedBatchNormV2", "FusedBatchNormV3"})  # have no kernel for float64
RESIZING = frozenset({"ResizeBilinear", "ResizeBicubic", "ResizeArea"})  # give float32 whatever they are given


def run(graph: Graph, arrays: Arrays) -> Arrays:
    """The graph's answers in float64; whatever TensorFlow raises where one of its operations cannot compute so."""
    import numpy as np

    wide = in_double(graph)
    function = function_of(
        wide.definition, [port.tensor for port in wide.inputs], [port.tensor for port in wide.outputs]
    )
    kinds = {port.spec.name: _wide_type(port.spec.dtype) for port in wide.inputs}
    fed = [_live.feed(np.asarray(arrays[name]), kind) for name, kind in kinds.items()]
    return {port.spec.name: _live.fetch(result) for port, result in zip(wide.outputs, function.call(fed), strict=True)}


def _wide_type(dtype: str) -> str:
    return "float64" if dtype in ("float32", "float16", "bfloat16") else dtype


def of_function(function: Any, names: list[str], arrays: Arrays) -> Arrays:
    """The same of a concrete function whose inputs, in order, are called so, with a dictionary of outputs."""
    from worker.formats._format import TensorSpec
    from worker.formats._frozen import folded
    from worker.formats._graphs import Port

    definition, inputs = folded(function, loops=True)
    outputs = zip(sorted(function.structured_outputs), function.outputs, strict=True)
    ports = (
        tuple(
            Port(tensor.name, TensorSpec(name, None, tensor.dtype.name))
            for name, tensor in zip(names, inputs, strict=True)
        ),
        tuple(Port(tensor.name, TensorSpec(name, None, tensor.dtype.name)) for name, tensor in outputs),
    )
    return run(Graph(definition, *ports), arrays)


def in_double(graph: Graph) -> Graph:
    """A copy of the graph with float64 wherever it has a narrower floating type."""
    from tensorflow.core.framework import types_pb2

    definition = with_own_functions(graph.definition, "_in_float64")
    for nodes in (definition.node, *(function.node_def for function in definition.library.function)):
        if any(node.op in NORMALISATIONS for node in nodes) and nodes is not definition.node:
            raise NotImplementedError("a normalisation inside of a loop")
    for node in [node for node in definition.node if node.op in NORMALISATIONS]:
        _spell(definition, node)
    kinds = {types_pb2.DT_HALF: "float16", types_pb2.DT_BFLOAT16: "bfloat16", types_pb2.DT_FLOAT: "float32"}
    widen(definition, kinds, types_pb2.DT_DOUBLE)
    for node in [node for node in definition.node if node.op in RESIZING]:
        _cast_result(definition, node)
    return Graph(definition, graph.inputs, graph.outputs)


def _spell(definition: Any, node: Any) -> None:
    """``(x - mean) * (scale / sqrt(variance + epsilon)) + offset``, under the node's own name."""
    from tensorflow.core.framework import types_pb2

    if node.attr["is_training"].b or node.attr["data_format"].s not in (b"", b"NHWC", b"NDHWC"):
        raise NotImplementedError("a normalisation that trains, or of channels that come first")
    source, scale, offset, mean, variance = node.input[:5]
    epsilon = constant_node(f"{node.name}/epsilon", node.attr["epsilon"].f, types_pb2.DT_FLOAT)
    definition.node.append(epsilon)
    steps = (
        ("spread", "AddV2", (variance, epsilon.name)),
        ("factor", "Rsqrt", ("spread",)),
        ("scaled", "Mul", ("factor", scale)),
        ("centred", "Sub", (source, mean)),
        ("product", "Mul", ("centred", "scaled")),
    )
    own = {name: f"{node.name}/{name}" for name, _, _ in steps}
    for name, kind, operands in steps:
        _add(definition, own[name], kind, [own.get(operand, operand) for operand in operands])
    node.op = "AddV2"
    node.input[:] = [own["product"], offset]
    for key in [key for key in node.attr if key != "T"]:
        del node.attr[key]


def _add(definition: Any, name: str, kind: str, operands: list[str]) -> None:
    from tensorflow.core.framework import types_pb2

    node = definition.node.add(name=name, op=kind, input=operands)
    node.attr["T"].type = types_pb2.DT_FLOAT


def _cast_result(definition: Any, node: Any) -> None:
    from tensorflow.core.framework import types_pb2

    name = node.name
    node.name = f"{name}/single"
    cast = definition.node.add(name=name, op="Cast", input=[node.name])
    cast.attr["SrcT"].type, cast.attr["DstT"].type = types_pb2.DT_FLOAT, types_pb2.DT_DOUBLE
