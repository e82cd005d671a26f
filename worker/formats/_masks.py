"""Masks: those of Keras 2 where Keras 3 has others, and those that layers would find by themselves.

A layer that merges several tensors gives its result a mask. In Keras 2 that is what all masks of its inputs have in
common; in Keras 3 what any of them has, and nothing where one input has none.

Keras 3 records in a functional model how a mask was computed (``NotEqual`` on the tokens of an embedding) and hands it
to the layers by name. Its own reader of .h5 files knows no such operations, while on loading every layer finds its
mask again. Only masks that are the ones a layer would find are left out; a mask of somebody's own stays.
"""

from __future__ import annotations

from typing import Any

from worker.formats._architecture import Node, layers_of

_MERGING = frozenset({"Add", "Subtract", "Multiply", "Average", "Maximum", "Minimum"})


def as_keras_2(layer: Any, inputs: Any, result: Any) -> Any:
    """The result of a layer that merges tensors, with the mask that it had in Keras 2."""
    if not isinstance(inputs, (list, tuple)) or not _merges(layer, result):
        return result
    masks = [mask for mask in (getattr(item, "_keras_mask", None) for item in inputs) if mask is not None]
    same_as_keras_3 = len(masks) in (0, len(inputs)) and len({id(mask) for mask in masks}) <= 1
    if not masks or (same_as_keras_3 and type(layer).__name__ in _MERGING):
        return result
    return _carried(result, _common(masks), f"{layer.name}_mask")


def _merges(layer: Any, result: Any) -> bool:
    kind = type(layer).__name__
    last = kind == "Concatenate" and len(result.shape) > 2 and layer.axis in (-1, len(result.shape) - 1)
    return kind in _MERGING or last


def _carried(result: Any, mask: Any, name: str) -> Any:
    """The tensor as it is with another mask, which has to be there when the model runs: attention looks for it only
    then. A model inside is handed its mask, and a layer in it hands it on."""
    import warnings

    import keras

    given = keras.Input(batch_shape=result.shape, dtype=result.dtype)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that a model keeps no mask; its last layer does
        carried = keras.Model(given, keras.layers.Identity()(given), name=name)(result, mask=mask)
    carried._keras_mask = mask
    return carried


def _common(masks: list[Any]) -> Any:
    """A tensor of its own, also of one mask, so that it is told from the one that Keras 3 would find."""
    from keras import ops

    found = masks[0]
    for mask in masks[1:] or masks:
        found = ops.logical_and(found, mask)
    found.is_of_keras_2 = True
    return found


def _is_of_keras_2(tensor: Any) -> bool:
    """Was this mask, or one that it was computed from, put there by ``as_keras_2``?"""
    pending, seen = [tensor], set()
    while pending:
        item = pending.pop()
        if getattr(item, "is_of_keras_2", False):
            return True
        maker = getattr(getattr(item, "_keras_history", None), "operation", None)
        if id(item) not in seen and maker is not None and _is_bare(maker):
            seen.add(id(item))
            pending += [part for part in arguments(item) if hasattr(part, "_keras_history")]
    return False


def leave_out(model: Any, node: Node) -> None:
    """Change the description of ``model`` in place: in it, and in every functional model inside."""
    import keras

    names = {layer.name: layer for layer in model.layers}
    for inner in layers_of(node):
        layer = names.get(str(inner["config"].get("name")))
        if isinstance(layer, keras.Model):
            leave_out(layer, inner)
    if "output_layers" in node["config"]:
        _leave_out_here(model, node["config"])


def _leave_out_here(model: Any, config: dict[str, Any]) -> None:
    found_again = {layer.name for layer in model.layers if _finds_its_masks(layer)}
    for node in config["layers"]:
        if node.get("name") in found_again:
            for call in node["inbound_nodes"]:
                call.get("kwargs", {}).pop("mask", None)
    _drop_unused(config, {layer.name for layer in model.layers})


def _drop_unused(config: dict[str, Any], layers: set[str]) -> None:
    """Operations that nothing refers to any more, and then what only those used."""
    while True:
        used = _names([config["output_layers"], [node["inbound_nodes"] for node in config["layers"]]])
        kept = [node for node in config["layers"] if node.get("name") in used | layers]
        if len(kept) == len(config["layers"]):
            return
        config["layers"] = kept


def _names(value: Any) -> set[str]:
    """Every text in a structure: references name the layer they come from."""
    if isinstance(value, str):
        return {value}
    items = value.values() if isinstance(value, dict) else value if isinstance(value, (list, tuple)) else []
    return {name for item in items for name in _names(item)}


def _finds_its_masks(layer: Any) -> bool:
    """Is every mask that this layer is handed the one that comes along with its first input?"""
    calls = [node.arguments for node in layer._inbound_nodes if node.arguments.kwargs.get("mask") is not None]
    if any(_is_of_keras_2(mask) for call in calls for mask in _listed(call.kwargs["mask"])):
        return False
    return bool(calls) and all(
        call.args and _same(call.kwargs["mask"], getattr(call.args[0], "_keras_mask", None)) for call in calls
    )


def _listed(value: Any) -> list[Any]:
    return list(value) if isinstance(value, (list, tuple)) else [value]


def _same(first: Any, second: Any) -> bool:
    """Are the two symbolic tensors one, or made by equal operations from the same?"""
    if first is second:
        return True
    makers = [getattr(getattr(item, "_keras_history", None), "operation", None) for item in (first, second)]
    if None in makers or type(makers[0]) is not type(makers[1]) or not _is_bare(makers[0]):
        return False
    inputs = [arguments(item) for item in (first, second)]
    return len(inputs[0]) == len(inputs[1]) and all(
        _same(one, two) or _equal(one, two) for one, two in zip(*inputs, strict=True)
    )


def _is_bare(operation: Any) -> bool:
    import keras

    return not isinstance(operation, keras.layers.Layer)


def _equal(first: Any, second: Any) -> bool:
    return isinstance(first, (int, float, str, bool)) and first == second


def arguments(tensor: Any) -> list[Any]:
    """What the operation behind a tensor was called with."""
    import keras

    history = tensor._keras_history
    call = history.operation._inbound_nodes[history.node_index].arguments
    return [*keras.tree.flatten(call.args), *keras.tree.flatten(call.kwargs)]
