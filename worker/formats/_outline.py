"""The Summary of an architecture: shapes and layers, told without making a single weight."""

from __future__ import annotations

from typing import Any

from worker.errors import LarderError
from worker.formats import _live, _rebuild, _registry
from worker.formats._architecture import Architecture, Node, input_specs, layers_of, name_of
from worker.formats._format import LayerRow, Summary


def summarise(architecture: Architecture) -> Summary:
    """From a symbolic build where the model can be built, else from what the JSON says by itself."""
    base: dict[str, Any] = {
        "custom_objects": tuple(_registry.unknown_classes(architecture, _rebuild.LEGACY_NAMES)),
        "producer": {"keras": architecture.version} if architecture.version else {},
        "traits": frozenset({"keras-config", "weights"}),
    }
    try:
        model = _symbolic(architecture)
    except LarderError:
        return _declared(architecture.root, base)
    return Summary(
        inputs=_live.input_specs(model),
        outputs=_live.output_specs(model),
        layers=_live.layer_rows(model),
        parameters=_live.parameter_count(model),
        dtypes=tuple(sorted({str(variable.dtype) for variable in model.weights})),
        **base,
    )


def _symbolic(architecture: Architecture) -> Any:
    """The model with shapes but no values: inside this scope Keras makes no arrays."""
    import keras

    with keras.StatelessScope(initialize_variables=False):
        model = _rebuild.rebuild(architecture).model
    _live.require_interface(model)
    return model


def _declared(root: Node, base: dict[str, Any]) -> Summary:
    rows = tuple(LayerRow(name_of(node), node["class_name"], "", "", 0) for node in layers_of(root))
    return Summary(inputs=input_specs(root), layers=rows, **base)
