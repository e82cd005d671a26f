"""A Keras architecture as plain data: parsed, walked and judged before any library is asked to build it.

Nothing here imports TensorFlow or Keras.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from worker.errors import CorruptFile, LambdaRefused, ModelError
from worker.formats._format import TensorSpec

Node = dict[str, Any]  # {"class_name": …, "config": …, perhaps "inbound_nodes", "name", "module"}

FUNCTIONAL = frozenset({"Functional", "Model", "Network", "Container", "Graph"})
CONSTANT = "_CONSTANT_VALUE"  # ``1.0 - x`` is a call on this name
NETWORKS = FUNCTIONAL | {"Sequential"}


@dataclass(frozen=True)
class Architecture:
    """The root node of a model and the Keras version that wrote it ("" where the file does not say)."""

    root: Node
    version: str = ""

    @property
    def legacy(self) -> bool:
        """Was this written before Keras 3?"""
        if self.version:
            return self.version.split(".")[0] in {"1", "2"}
        module = str(self.root.get("module") or "")
        return not module or ".engine" in module


def parse(text: str | bytes, name: str, version: str = "") -> Architecture:
    """The architecture in a JSON text; the version inside it wins over ``version``."""
    try:
        root = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise CorruptFile(name=name, problem=f"its architecture is not valid JSON ({error})") from error
    if not isinstance(root, dict) or "class_name" not in root or "config" not in root:
        raise ModelError(problem=f"{name} holds JSON, but not the architecture of a Keras model")
    architecture = Architecture(root, str(root.get("keras_version") or version).removesuffix("-tf"))
    return dataclasses.replace(architecture, root=without_markers(root)) if architecture.legacy else architecture


def without_markers(value: Any) -> Any:
    """Keras 2 marked tuples, shapes and NumPy values in some of its files; in all others they are plain JSON."""
    if isinstance(value, list):
        return [without_markers(item) for item in value]
    if not isinstance(value, dict):
        return value
    kind = value.get("class_name")
    if kind in {"__tuple__", "TensorShape"} and "items" in value:
        return without_markers(value["items"])
    if kind in {"__numpy__", "__tensor__"} and isinstance(value.get("config"), dict):
        return value["config"].get("value")
    return {key: without_markers(item) for key, item in value.items()}


def objects(value: Any) -> Iterator[Node]:
    """Every serialised object in a config: anything with a class name, at any depth."""
    pending = [value]
    while pending:
        item = pending.pop()
        if isinstance(item, dict):
            if isinstance(item.get("class_name"), str):
                yield item
            pending.extend(item.values())
        elif isinstance(item, list):
            pending.extend(item)


def refuse_unsafe(architecture: Architecture) -> None:
    """Raise where the config carries byte code, or names files of the machine it is opened on: no reader may see it."""
    _refuse_lambdas(architecture)
    for node in objects(architecture.root):
        config = node.get("config")
        if isinstance(config, dict) and _names_a_file(node["class_name"], config):
            problem = f"layer {name_of(node)} ({node['class_name']}) names a file outside of the upload"
            raise ModelError(problem=problem)


def _names_a_file(kind: str, config: dict[str, Any]) -> bool:
    """A vocabulary can be a path, and a TFSMLayer is one (CWE-73)."""
    words = [config.get(key) for key in ("vocabulary", "idf_weights")]
    return kind == "TFSMLayer" or any(isinstance(item, str) for item in words)


def _refuse_lambdas(architecture: Architecture) -> None:
    layers = {name_of(node) for node in objects(architecture.root) if node["class_name"].split(">")[-1] == "Lambda"}
    if layers or any(node["class_name"] == "__lambda__" for node in objects(architecture.root)):
        raise LambdaRefused(names=", ".join(sorted(layers)) or "a function without a name")


def name_of(node: Node) -> str:
    """The layer's name: beside the config in functional models, inside it elsewhere."""
    config = node.get("config")
    inner = config.get("name") if isinstance(config, dict) else None
    return str(node.get("name") or inner or node.get("class_name"))


def layers_of(node: Node) -> list[Node]:
    """The layers of a network in the order of the file. Before Keras 2.2.3 a Sequential was a bare list."""
    config = node["config"]
    layers = config if isinstance(config, list) else config.get("layers", []) if isinstance(config, dict) else []
    return [layer for layer in layers if isinstance(layer, dict)]


def is_network(node: Node) -> bool:
    """Is this a model of layers whose graph the file describes?"""
    if node["class_name"] == "Sequential":
        return True
    config = node["config"]
    return isinstance(config, dict) and "layers" in config and "output_layers" in config


def flat_references(value: Any) -> list[list[Any]]:
    """The ``[layer, node, tensor]`` references in a possibly nested structure, dictionaries in sorted order."""
    if is_reference(value):
        return [value]
    if isinstance(value, dict):
        return [item for key in sorted(value) for item in flat_references(value[key])]
    return [item for part in value or [] for item in flat_references(part)] if isinstance(value, list) else []


def is_reference(value: Any) -> bool:
    """``["name", node index, tensor index]``, perhaps with keyword arguments behind; or a constant in its place."""
    return (
        isinstance(value, list)
        and len(value) in (3, 4)
        and isinstance(value[0], str)
        and isinstance(value[1], int)
        and (isinstance(value[2], int) or value[0] == CONSTANT)
    )


def input_shape_of(node: Node) -> list[int | None] | None:
    """The shape, batch first, that a layer or network declares for its input; None where it declares none."""
    config = node["config"] if isinstance(node["config"], dict) else {}
    for key in ("batch_input_shape", "batch_shape", "build_input_shape"):
        if isinstance(config.get(key), list):
            return list(config[key])
    if isinstance(config.get("input_dim"), int) and node["class_name"] != "Embedding":
        return [None, config["input_dim"]]
    built = node.get("build_config")
    shape = built.get("input_shape") if isinstance(built, dict) else None
    return (
        list(shape) if isinstance(shape, list) and not any(isinstance(item, (list, dict)) for item in shape) else None
    )


def input_specs(node: Node) -> tuple[TensorSpec, ...]:
    """The inputs as the file declares them, for a summary where the model itself cannot be built."""
    if node["class_name"] == "Sequential":
        first = layers_of(node)[:1]
        shape = input_shape_of(first[0]) if first else None
        return (TensorSpec(name_of(first[0]), tuple(shape), "float32"),) if shape else ()
    named = {name_of(layer): layer for layer in layers_of(node)}
    config = node["config"] if isinstance(node["config"], dict) else {}
    wanted = [reference[0] for reference in flat_references(config.get("input_layers"))]
    return tuple(_input_spec(named[name]) for name in wanted if name in named)


def _input_spec(node: Node) -> TensorSpec:
    shape = input_shape_of(node)
    return TensorSpec(name_of(node), tuple(shape) if shape else None, str(node["config"].get("dtype") or "float32"))
