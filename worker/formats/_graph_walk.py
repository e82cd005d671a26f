"""Walking a TensorFlow graph as data: what a node uses, what it calls, and what some nodes need in all."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from worker.formats._reach import reached


def producer(operand: str) -> str:
    """The node that an operand (``x``, ``x:1``, ``^x``) comes from."""
    return operand.lstrip("^").partition(":")[0]


def operands(node: Any, control: bool = True) -> list[str]:
    """The names of the nodes whose results a node uses."""
    return [producer(item) for item in node.input if control or not item.startswith("^")]


def upstream(graph: Any, names: Iterable[str], fed: Iterable[str] = ()) -> set[str]:
    """These nodes, and all that they need, also as control inputs; what leads to ``fed`` nodes is not needed."""
    used = {node.name: operands(node) for node in graph.node} | {name: [] for name in fed}
    return reached(names, lambda name: used.get(name, []))


def functions_of(library: Any) -> dict[str, Any]:
    """The functions of a library by their names."""
    return {function.signature.name: function for function in library.function}


def calls(nodes: Iterable[Any], functions: Mapping[str, Any]) -> Iterator[str]:
    """The functions that nodes name: in their kind, or in their attributes."""
    for node in nodes:
        if node.op in functions:
            yield node.op
        for value in node.attr.values():
            named = [value.func.name, *(item.name for item in value.list.func)]
            yield from (name for name in named if name in functions)


def called(nodes: Iterable[Any], functions: Mapping[str, Any], also: Iterable[str] = ()) -> set[str]:
    """The functions that nodes call, those too, and what all of them call in turn."""
    start = {*calls(nodes, functions), *(name for name in also if name in functions)}
    return reached(start, lambda name: calls(functions[name].node_def, functions))
