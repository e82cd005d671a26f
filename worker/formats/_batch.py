"""Graphs traced for any batch size, made fit for one: what the trace wrote down as unknown is the batch."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from worker.formats._graphs import Graph, constant_node, with_own_functions

# The operations of lists of tensors, and which of their inputs is the shape of an element
ELEMENT_SHAPES = {
    "TensorListReserve": 0,
    "EmptyTensorList": 0,
    "TensorListFromTensor": 1,
    "TensorListStack": 1,
    "TensorListGetItem": 2,
    "TensorListConcatV2": 1,
}


def with_fixed_lists(graph: Graph, batch: int) -> Graph:
    """The graph whose lists of tensors hold elements of this batch size: recurrent layers keep their steps in such
    lists, and converters want to know how large a step is."""
    definition = with_own_functions(graph.definition, f"_of_{batch}")
    definition.node.extend(_fix(definition.node, "", batch))
    for function in definition.library.function:
        function.node_def.extend(_fix(function.node_def, ":output:0", batch))
    return Graph(definition, graph.inputs, graph.outputs)


def needs_batch(graph: Graph) -> bool:
    """Do its lists hold elements whose size depends on the batch?"""
    copy = with_own_functions(graph.definition, "")
    return any(_fix(part, "", 1) for part in (copy.node, *(item.node_def for item in copy.library.function)))


def _fix(nodes: Iterable[Any], output: str, batch: int) -> list[Any]:
    """Point every list at a constant of its own; ``output`` is how a function writes the result of a node."""
    constants = {node.name: node for node in nodes if node.op == "Const"}
    made = []
    for node in nodes:
        place = ELEMENT_SHAPES.get(node.op)
        source = constants.get(node.input[place].split(":")[0]) if place is not None else None
        if source is not None and (shape := _fixed_shape(source, batch)) is not None:
            made.append(constant_node(f"{node.name}/element_shape_of_{batch}", shape, "int32"))
            node.input[place] = made[-1].name + output
    return made


def _fixed_shape(source: Any, batch: int) -> list[int] | None:
    """The shape with the batch in place of an unknown first dimension; None where there is nothing to replace."""
    import tensorflow as tf

    shape = tf.make_ndarray(source.attr["value"].tensor)
    sizes = shape.tolist() if shape.ndim == 1 else []
    return [batch, *sizes[1:]] if sizes and sizes[0] == -1 and -1 not in sizes[1:] else None
