"""Graphs that compute in a narrow floating type, rewritten to compute in a wider one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any


def widen(definition: Any, kinds: dict[int, str], to: int) -> set[str]:
    """Put the type ``to`` in place of these wherever the GraphDef, which is changed, has them; which there were."""
    return {dtype for message in _messages(definition) for dtype in _widen(message, kinds, to)}


def _messages(definition: Any) -> Iterator[Any]:
    """Every place where a type can stand: attributes, and the arguments of functions."""
    for node in definition.node:
        yield from node.attr.values()
    for function in definition.library.function:
        yield from (*function.signature.input_arg, *function.signature.output_arg)
        for node in function.node_def:
            yield from node.attr.values()


def _widen(message: Any, kinds: dict[int, str], to: int) -> set[str]:
    """In one attribute or argument."""
    found = {kinds[message.type]} if message.type in kinds else set()
    if found:
        message.type = to
    if not hasattr(message, "list"):
        return found
    for place, dtype in enumerate(message.list.type):
        if dtype in kinds:
            found.add(kinds[dtype])
            message.list.type[place] = to
    if message.WhichOneof("value") == "tensor" and message.tensor.dtype in kinds:
        found.add(kinds[message.tensor.dtype])
        _widen_tensor(message.tensor, to)
    return found


def _widen_tensor(tensor: Any, to: int) -> None:
    import tensorflow as tf

    array = tf.make_ndarray(tensor).astype(tf.dtypes.as_dtype(to).as_numpy_dtype)
    tensor.CopyFrom(tf.make_tensor_proto(array, shape=array.shape))
