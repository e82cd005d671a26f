"""A graph that ends early, after some of its operations: whether a converter survives that tells which one it fails
at."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Any

from worker.formats import _graphs
from worker.formats._changeable import layer_of
from worker.formats._graphs import Graph, Port
from worker.formats._inner_graphs import outputs_within
from worker.formats._reach import reached

SAID = re.compile(r"ending the graph after (\d{1,6}) of (\d{1,6}) operations, with (\S{1,100} of \S{1,300}|none)")


def cut(graph: Graph, first: int) -> tuple[Graph, str]:
    """The graph without what comes after so many of the operations that compute, in their order; and what is said of
    it, which ``heard`` understands. The same graph and "" where nothing can be taken away."""
    names = [port.tensor for port in graph.inputs]
    function = _graphs.function_of(graph.definition, names, [port.tensor for port in graph.outputs])
    tensors = outputs_within(function.owner.graph, names)
    if not tensors:
        return graph, ""
    kept = tensors[:first]
    ends = [Port(tensor.name, _graphs.spec_of(f"end_{place}", tensor)) for place, tensor in enumerate(_ends(kept))]
    last = f"{kept[-1].op.type} of {layer_of(kept[-1].name)}" if kept else "none"
    said = f"ending the graph after {len(kept)} of {len(tensors)} operations, with {last}"
    ports = tuple(ends or map(partial(_handed_on, graph.definition), graph.inputs))
    return _graphs.pruned(Graph(graph.definition, graph.inputs, ports)), said


def heard(text: str) -> tuple[int, str] | None:
    """How many operations there are to cut after, and which one of which layer this cut ends with."""
    found = SAID.fullmatch(text)
    return (int(found[2]), found[3]) if found else None


def _handed_on(definition: Any, port: Port) -> Port:
    """An output that is the input itself. The GraphDef is changed."""
    spec = replace(port.spec, name=f"{port.spec.name}_end")
    return Port(f"{_graphs.output_node(definition, port.tensor, spec)}:0", spec)


def _ends(tensors: list[Any]) -> list[Any]:
    """Those that none of the others is computed from."""
    used = reached([operand for tensor in tensors for operand in _operands(tensor.op)], _operands)
    return [tensor for tensor in tensors if tensor.op not in used]


def _operands(operation: Any) -> Iterator[Any]:
    yield from (tensor.op for tensor in operation.inputs)
