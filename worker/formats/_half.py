"""Graphs that compute in float16 or bfloat16, for targets that compute in float32."""

from __future__ import annotations

from worker.formats._format import Hop
from worker.formats._graphs import Graph, with_own_functions
from worker.formats._widening import widen
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
    found = widen(definition, halves, types_pb2.DT_FLOAT)
    if not found:
        return graph
    hop.add(COMPUTED_IN_SINGLE(dtype=" and ".join(sorted(found))))
    return Graph(definition, graph.inputs, graph.outputs)
