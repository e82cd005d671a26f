"""Masks that layers would find by themselves, taken out of a model's description.

Keras 3 records in a functional model how a mask was computed (``NotEqual`` on the tokens of an embedding) and hands it
to the layers by name. Its own reader of .h5 files knows no such operations, while on loading every layer finds its
mask again. Only masks that are the ones a layer would find are left out; a mask of somebody's own stays.
"""

from __future__ import annotations

from typing import Any

from worker.formats._architecture import Node, layers_of


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
    return bool(calls) and all(
        call.args and _same(call.kwargs["mask"], getattr(call.args[0], "_keras_mask", None)) for call in calls
    )


def _same(first: Any, second: Any) -> bool:
    """Are the two symbolic tensors one, or made by equal operations from the same?"""
    if first is second:
        return True
    makers = [getattr(getattr(item, "_keras_history", None), "operation", None) for item in (first, second)]
    if None in makers or type(makers[0]) is not type(makers[1]) or not _is_bare(makers[0]):
        return False
    inputs = [_arguments(item) for item in (first, second)]
    return len(inputs[0]) == len(inputs[1]) and all(
        _same(one, two) or _equal(one, two) for one, two in zip(*inputs, strict=True)
    )


def _is_bare(operation: Any) -> bool:
    import keras

    return not isinstance(operation, keras.layers.Layer)


def _equal(first: Any, second: Any) -> bool:
    return isinstance(first, (int, float, str, bool)) and first == second


def _arguments(tensor: Any) -> list[Any]:
    import keras

    history = tensor._keras_history
    call = history.operation._inbound_nodes[history.node_index].arguments
    return [*keras.tree.flatten(call.args), *keras.tree.flatten(call.kwargs)]
