"""The outputs of the layers of a living Keras model, of either library: listened to while the model runs once.

A model of all outputs would not show layers inside of layers and inside of people's own classes, and a call that is
listened to computes exactly what it computes otherwise.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

from worker.formats import _live
from worker.formats._inner import few, is_shown, numbered

if TYPE_CHECKING:
    import numpy as np

    from worker.formats._format import Arrays

Place = tuple[str, Any]  # the path of a layer in the model, and the layer


def of_model(model: Any, run: Callable[[Arrays], Arrays]) -> Callable[[Arrays], Iterator[tuple[str, np.ndarray]]]:
    """``Loaded.inner`` of a model that ``run`` calls."""

    def inner(arrays: Arrays) -> Iterator[tuple[str, np.ndarray]]:
        found: list[tuple[str, np.ndarray]] = []
        places = list(_places(model, ""))
        with ExitStack() as listening:
            for name, layer in few(places, [name for name, _ in places]):
                listening.enter_context(_listened(name, layer, found))
            run(arrays)
        yield from numbered(found)

    return inner


def _places(model: Any, prefix: str) -> Iterator[Place]:
    """Every layer and operation that computes, those inside of others too; a model inside of another stands for nothing
    but its layers. The cells of recurrent layers run once for every step, and are left out."""
    for layer in _parts(model):
        kind, name = type(layer).__name__, f"{prefix}{layer.name}"
        if kind == "InputLayer" or kind.endswith(("Cell", "Cells")):
            continue
        yield from _places(layer, f"{name}/")
        if not hasattr(layer, "layers"):
            yield name, layer


def _parts(layer: Any) -> Sequence[Any]:
    """What is directly inside: of a functional model of Keras 3 also the operations that are no layers."""
    if operations := getattr(layer, "operations", None):
        return list(operations)
    inside = getattr(layer, "_flatten_layers", None)
    return list(inside(include_self=False, recursive=False)) if inside else []


@contextmanager
def _listened(name: str, layer: Any, found: list[tuple[str, np.ndarray]]) -> Iterator[None]:
    """Take note of what the layer answers. Both libraries call ``layer.call``; it is set and taken away around their
    own tracking of attributes, which would take it for a part of the model."""
    own = layer.__dict__.get("call")
    original = layer.call

    def call(*args: Any, **kwargs: Any) -> Any:
        results = original(*args, **kwargs)
        found.extend((name, array) for array in _arrays(results))
        return results

    object.__setattr__(layer, "call", call)
    try:
        yield
    finally:
        if own is None:
            object.__delattr__(layer, "call")
        else:
            object.__setattr__(layer, "call", own)


def _arrays(results: Any) -> Iterator[np.ndarray]:
    """The tensors that have values: inside of a function that TensorFlow traces they have none."""
    import tensorflow as tf

    for tensor in _live.flatten(results):
        if tf.is_tensor(tensor) and not tf.is_symbolic_tensor(tensor) and tensor.dtype.is_floating:
            array = _live.fetch(tensor)
            if is_shown(array):
                yield array
