"""Graphs that compute in float16 or bfloat16, for targets that compute in float32."""

from __future__ import annotations

from typing import Any

from worker.formats._format import Hop
from worker.formats._graphs import Graph, with_own_functions
from worker.report import Severity, declare

COMPUTED_IN_SINGLE = declare(
    "computed-in-single",
    Severity.WARNING,
    "The model computes in {dtype}; the result computes in float32, so its values differ by the rounding of {dtype}.",
)


def in_single(graph: Graph, hop: Hop) -> Graph:
    """The graph with float32 wherever it has float16 or bfloat16. The ports keep the types that the model declares:
    whoever builds the graph casts at its edges."""
    from tensorflow.core.framework import types_pb2

    halves = {types_pb2.DT_HALF: "float16", types_pb2.DT_BFLOAT16: "bfloat16"}
    definition = with_own_functions(graph.definition, "_in_float32")
    found = {dtype for message in _messages(definition) for dtype in _widen(message, halves)}
    if not found:
        return graph
    hop.add(COMPUTED_IN_SINGLE(dtype=" and ".join(sorted(found))))
    return Graph(definition, graph.inputs, graph.outputs)


def _messages(definition: Any) -> Any:
    """Every place where a type can stand: attributes, and the arguments of functions."""
    for node in definition.node:
        yield from node.attr.values()
    for function in definition.library.function:
        yield from (*function.signature.input_arg, *function.signature.output_arg)
        for node in function.node_def:
            yield from node.attr.values()


def _widen(message: Any, halves: dict[int, str]) -> set[str]:
    """Put float32 in place of the half types of one attribute or argument; which of them there were."""
    from tensorflow.core.framework import types_pb2

    found = {halves[message.type]} if message.type in halves else set()
    if found:
        message.type = types_pb2.DT_FLOAT
    if not hasattr(message, "list"):
        return found
    for place, dtype in enumerate(message.list.type):
        if dtype in halves:
            found.add(halves[dtype])
            message.list.type[place] = types_pb2.DT_FLOAT
    if message.WhichOneof("value") == "tensor" and message.tensor.dtype in halves:
        found.add(halves[message.tensor.dtype])
        _widen_tensor(message.tensor)
    return found


def _widen_tensor(tensor: Any) -> None:
    import tensorflow as tf

    array = tf.make_ndarray(tensor).astype("float32")
    tensor.CopyFrom(tf.make_tensor_proto(array, shape=array.shape))
