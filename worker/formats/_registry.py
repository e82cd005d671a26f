"""Names to Keras classes: only what Keras itself exports, plus what the custom code of this job registered."""

from __future__ import annotations

import inspect
from functools import cache
from typing import Any

from worker.errors import CustomCode, ModelError
from worker.formats._architecture import NETWORKS, Architecture, Node, is_network, objects

# Serialised objects that are not classes of ours to look up.
_MARKERS = frozenset(
    {"__tensor__", "__keras_tensor__", "__numpy__", "__tuple__", "__slice__", "__ellipsis__", "__bytes__"}
    | {
        "__typespec__",
        "__lambda__",
        "function",
        "TensorShape",
        "InputLayer",
        "Policy",
        "PolicyV1",
        "DTypePolicy",
        "Graph",
    }
)


@cache
def layer_classes() -> dict[str, Any]:
    """Every layer class that Keras 3 exports, by name."""
    import keras

    found = vars(keras.layers).items()
    return {name: item for name, item in found if inspect.isclass(item) and issubclass(item, keras.layers.Layer)}


@cache
def helper_classes() -> dict[str, type]:
    """Initializers, regularizers, constraints and dtype policies of Keras 3, by name."""
    import keras

    modules = (keras.initializers, keras.regularizers, keras.constraints, keras.dtype_policies)
    return {name: item for module in modules for name, item in vars(module).items() if inspect.isclass(item)}


@cache
def operation_classes() -> dict[str, Any]:
    """The operations that a Keras 3 functional model can hold as nodes, by name: they are not exported, only stored."""
    from keras.src import ops as package
    from keras.src.ops.operation import Operation

    modules = [package.numpy, package.nn, package.math, package.core, package.linalg, package.image]
    found = {name: item for module in modules for name, item in vars(module).items() if inspect.isclass(item)}
    return {name: item for name, item in found.items() if issubclass(item, Operation) and item is not Operation}


@cache
def tf_keras_classes() -> frozenset[str]:
    """The layer classes that Keras 2 had, some of which Keras 3 has no equal for."""
    import tf_keras

    found = vars(tf_keras.layers).items()
    return frozenset(name for name, item in found if inspect.isclass(item) and issubclass(item, tf_keras.layers.Layer))


def custom_object(node: Node) -> Any:
    """What this job's custom code registered for a serialised object, or None."""
    import keras

    known = keras.saving.get_custom_objects()
    for name in (node.get("registered_name"), node["class_name"], str(node["class_name"]).split(">")[-1]):
        if isinstance(name, str) and name in known:
            return known[name]
    return next((item for key, item in known.items() if key.split(">")[-1] == node["class_name"]), None)


def uses_a_mask(node: Node) -> bool:
    """Does a layer of this class compute something else where its input has a mask?"""
    kind = str(node["class_name"])
    cls = custom_object(node) or layer_classes().get(kind)
    call = getattr(cls, "call", None)
    names = inspect.signature(call).parameters if call is not None else {}
    return kind not in _MASKED_IN_TRAINING and any(name.endswith("mask") for name in names)


_MASKED_IN_TRAINING = {*NETWORKS, "Lambda", "BatchNormalization"}


def accepted_arguments(cls: type) -> frozenset[str]:
    """The constructor arguments of a Keras class, those it passes on to its bases included."""
    names: set[str] = set()
    for base in cls.__mro__:
        if "__init__" not in vars(base):
            continue
        parameters = inspect.signature(base.__init__).parameters  # type: ignore[misc]
        names |= set(parameters)
        if base.__name__ == "Layer" or not any(item.kind is item.VAR_KEYWORD for item in parameters.values()):
            break
    return frozenset(names - {"self", "args", "kwargs"})


def unknown_classes(architecture: Architecture, also_known: frozenset[str]) -> list[str]:
    """Class names that neither Keras nor this job's custom code knows, sorted."""
    known = _MARKERS | also_known | set(layer_classes()) | set(helper_classes()) | set(operation_classes())
    body = {key: value for key, value in architecture.root.items() if key not in {"compile_config", "training_config"}}
    missing = {
        node["class_name"]
        for node in objects(body)
        if node["class_name"] not in known
        and not _is_plain_network(node)
        and not (_is_of_keras(node) and not architecture.legacy)
        and custom_object(node) is None
    }
    return sorted(missing)


def _is_of_keras(node: Node) -> bool:
    """Keras 3 says where a class lives; what it keeps in places of its own is for its own loader to find."""
    return str(node.get("module") or "").startswith("keras.")


def _is_plain_network(node: Node) -> bool:
    return node["class_name"] in NETWORKS and is_network(node)


def refuse_unknown(architecture: Architecture, also_known: frozenset[str] = frozenset()) -> None:
    """Raise CustomCode with the names of classes nobody knows, ModelError for those that only Keras 2 had."""
    missing = unknown_classes(architecture, also_known)
    if foreign := [name for name in missing if name not in tf_keras_classes()]:
        raise CustomCode(names=", ".join(foreign))
    if missing:
        names = ", ".join(missing)
        raise ModelError(problem=f"Keras 3 has no {names} any more; a SavedModel or another graph format can hold it")
