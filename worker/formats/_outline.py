"""The Summary of an architecture: shapes and layers, told without making a single weight."""

from __future__ import annotations

from typing import Any

from worker import formats
from worker.errors import LarderError
from worker.formats import _live, _plan, _rebuild, _registry, _weights
from worker.formats._architecture import Architecture, Node, input_specs, layers_of, name_of, objects, unread_lambdas
from worker.formats._format import Format, LayerRow, Summary
from worker.formats._repairs import RENAMED_CLASSES


def summarise(architecture: Architecture, traits: frozenset[str] = frozenset()) -> Summary:
    """From a symbolic build where the model can be built, else from what the JSON says by itself."""
    base: dict[str, Any] = {
        "custom_objects": tuple(_registry.unknown_classes(architecture, _rebuild.LEGACY_NAMES)),
        "lambdas": tuple(str(each.details["names"]) for each in unread_lambdas(architecture)),
        "producer": {"keras": architecture.version} if architecture.version else {},
        "traits": frozenset({"keras-config", "weights"}) | traits | facts(architecture.root),
    }
    try:
        model = _symbolic(architecture)
    except LarderError:
        return _declared(architecture.root, base | {"refusals": refusals(architecture.root, None)})
    return Summary(
        inputs=_live.input_specs(model),
        outputs=_live.output_specs(model),
        layers=_live.layer_rows(model),
        parameters=_live.parameter_count(model),
        dtypes=tuple(sorted({str(variable.dtype) for variable in model.weights})),
        refusals=refusals(architecture.root, model),
        **base,
    )


def refusals(root: Node, model: Any) -> dict[str, str]:
    """What each format says against these layers (``Format.refusal``), by its slug."""
    asked = {slug: _refusal(item, root, model) for slug, item in formats.formats().items()}
    return {slug: said for slug, said in asked.items() if said}


def _refusal(item: Format, root: Node, model: Any) -> str:
    try:
        return item.refusal(root, model) if item.refusal else ""
    except Exception:  # whatever a strange description meets: what cannot be told now, the conversion tells
        return ""


_CONV_LSTM = ("ConvLSTM1D", "ConvLSTM2D", "ConvLSTM3D")
# Kinds of layers with a fact about them (``FACTS``).
_KINDS = {
    "strings": frozenset({"TextVectorization", "StringLookup", "Hashing", "HashedCrossing"}),
    "tables": _weights.LOOKUPS,
    "recurrent": frozenset({"RNN", "SimpleRNN", "LSTM", "GRU", *_CONV_LSTM}),
    "preprocessing": frozenset({"Normalization", "Rescaling", "Resizing", "CenterCrop", "Discretization"})
    | frozenset({"CategoryEncoding", "Hashing", "HashedCrossing"})
    | _weights.LOOKUPS,
}


def facts(root: Node) -> frozenset[str]:
    """What the kinds of the layers, the types they compute in and a free batch size say of a model."""
    nodes = [node for node in objects(root) if isinstance(node.get("config"), dict)]
    kinds = {str(node["class_name"]).split(">")[-1] for node in nodes}
    kinds = {RENAMED_CLASSES.get(kind, kind) for kind in kinds}
    found = {fact for fact, members in _KINDS.items() if kinds & members}
    if any(node["config"].get("dtype") == "string" for node in nodes):
        found.add("strings")
    if any("float16" in str(_policy(node["config"].get("dtype"))) for node in nodes):
        found.add("half")
    if "recurrent" in found and not _has_free_batch(root):
        found.discard("recurrent")
    return frozenset(found)


def _policy(dtype: Any) -> Any:
    """A layer's type or policy, which may be an object."""
    inner = dtype.get("config") if isinstance(dtype, dict) else None
    return inner.get("name") if isinstance(inner, dict) else dtype


def _has_free_batch(root: Node) -> bool:
    """Nobody says a size for the batch: every input's first dimension is open, or not in the file."""
    return not any(spec.shape and spec.shape[0] is not None for spec in input_specs(root))


def _symbolic(architecture: Architecture) -> Any:
    """The model with shapes but no values."""
    with _plan.hollow():
        model = _rebuild.rebuild(architecture).model
    _live.require_interface(model)
    return model


def _declared(root: Node, base: dict[str, Any]) -> Summary:
    rows = tuple(LayerRow(name_of(node), node["class_name"], "", "", 0) for node in layers_of(root))
    return Summary(inputs=input_specs(root), layers=rows, **base)
