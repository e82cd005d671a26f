"""A Keras architecture as plain data: parsed, walked and judged before any library is asked to build it.

Nothing here imports TensorFlow or Keras.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

from worker.errors import CorruptFile, LambdaRefused, ModelError
from worker.formats import _agreed, _lambdas, _strict_json
from worker.formats._format import TensorSpec

Node = dict[str, Any]  # {"class_name": …, "config": …, perhaps "inbound_nodes", "name", "module"}

FUNCTIONAL = frozenset({"Functional", "Model", "Network", "Container", "Graph"})
CONSTANT = "_CONSTANT_VALUE"  # ``1.0 - x`` is a call on this name
_KERAS_1_WORDS = frozenset({"border_mode", "nb_filter", "inner_activation", "inner_init", "init", "W_regularizer"})
YAML_SUFFIXES = (".yaml", ".yml")
MOST_VALUES = 1_000_000  # in a YAML text: a model of a thousand layers has fifty thousand
NETWORKS = FUNCTIONAL | {"Sequential"}


@dataclass(frozen=True)
class Architecture:
    """The root node of a model, the Keras version that wrote it and its backend ("" where the file does not say)."""

    root: Node
    version: str = ""
    backend: str = ""
    of_tf: bool = False  # Keras of TensorFlow itself: its version ends in "-tf"

    @property
    def legacy(self) -> bool:
        """Was this written before Keras 3?"""
        if self.version:
            return self.version.split(".")[0] in {"1", "2"}
        module = str(self.root.get("module") or "")
        return not module or ".engine" in module

    @property
    def may_be_of_tf_1(self) -> bool:
        """May TensorFlow 1 have written this? Keras 2.3 ran on both, that of TensorFlow itself came with 2.2."""
        numbers = [int(number) for number in self.version.split(".")[:2] if number.isdigit()]
        return self.legacy and numbers < ([2, 3] if self.of_tf else [2, 4])

    @property
    def of_keras_1(self) -> bool:
        """Is it described in the words of Keras 1? Not every file of that time says its version."""
        configs = (node["config"] for node in objects(self.root) if isinstance(node.get("config"), dict))
        return any(not _KERAS_1_WORDS.isdisjoint(config) for config in configs)


def parse(text: str | bytes, name: str, version: str = "", backend: str = "") -> Architecture:
    """The architecture in a JSON or YAML text; what it says itself of version and backend wins."""
    root = _from_yaml(text, name) if name.endswith(YAML_SUFFIXES) else _from_json(text, name)
    if not isinstance(root, dict) or "class_name" not in root or "config" not in root:
        raise ModelError(problem=f"{name} holds data, but not the architecture of a Keras model")
    said = str(root.get("keras_version") or version)
    known = (said.removesuffix("-tf"), str(root.get("backend") or backend), said.endswith("-tf"))
    architecture = Architecture(root, *known)
    return dataclasses.replace(architecture, root=without_markers(root)) if architecture.legacy else architecture


def _from_json(text: str | bytes, name: str) -> Any:
    try:
        return _strict_json.parsed(text)
    except _strict_json.Bad as bad:
        raise CorruptFile(name=name, problem=f"its architecture {bad}") from bad


def _from_yaml(text: str | bytes, name: str) -> Any:
    """What ``to_yaml`` of Keras 1 and 2 wrote. Any tag that asks for more than plain data is refused."""
    import yaml

    try:
        value = _plain_yaml_loader()(text).get_single_data()
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        problem = " ".join(str(error).split())[:200]
        raise CorruptFile(name=name, problem=f"its architecture is not plain YAML ({problem})") from error
    _refuse_growth(value, name)
    return value


@cache
def _plain_yaml_loader() -> Any:
    """PyYAML's safe loader, which also knows the tags of tuples and texts that Keras' own dumper wrote."""
    import yaml

    class PlainLoader(yaml.SafeLoader):
        """Bounds the depth itself: how deep Python goes before it gives up is not the same in every process."""

        level = 0

        def compose_node(self, parent: Any, index: Any) -> Any:
            self.level += 1
            if self.level > _strict_json.DEEPEST:
                raise ValueError(f"it is nested more than {_strict_json.DEEPEST} levels deep")
            node = super().compose_node(parent, index)
            self.level -= 1
            return node

    loader: Any = PlainLoader
    loader.add_constructor(f"{_PYTHON}tuple", _sequence)
    for kind in ("str", "unicode"):
        loader.add_constructor(f"{_PYTHON}{kind}", yaml.SafeLoader.construct_scalar)
    loader.add_constructor(f"{_PYTHON}long", yaml.SafeLoader.construct_yaml_int)
    for wrapper in _WRAPPERS:
        loader.add_constructor(f"{_PYTHON}object/apply:{wrapper}", _unwrapped)
    loader.add_constructor("tag:yaml.org,2002:map", _once)
    loader.add_constructor("tag:yaml.org,2002:float", _finite)
    return loader


def _once(loader: Any, node: Any) -> Iterator[Any]:
    """A mapping in which no key stands twice: two readers would see two models. Made in two steps, for PyYAML."""
    keys = [key.value for key, _ in node.value if isinstance(key.value, str)]
    if len(set(keys)) < len(keys):
        raise ValueError(f"it has a key twice, {node.start_mark}")
    made: dict[Any, Any] = {}
    yield made
    made.update(loader.construct_mapping(node))


def _finite(loader: Any, node: Any) -> float:
    number = float(loader.construct_yaml_float(node))
    if not math.isfinite(number):
        raise ValueError(f"it has {node.value} where a number should be")
    return number


def _sequence(loader: Any, node: Any) -> Any:
    return loader.construct_sequence(node, deep=True)


def _unwrapped(loader: Any, node: Any) -> Any:
    """What TensorFlow wrapped around a list or a dictionary to keep track of it: the plain value inside."""
    arguments = loader.construct_sequence(node, deep=True)
    return arguments[0] if arguments else {}


_PYTHON = "tag:yaml.org,2002:python/"
_TRACKING = ("tensorflow.python.training.tracking.data_structures", "tensorflow.python.trackable.data_structures")
_WRAPPERS = (
    "builtins.dict",
    *(f"{module}.{kind}" for module in _TRACKING for kind in ("ListWrapper", "_DictWrapper", "List")),
)


def _refuse_growth(value: Any, name: str) -> None:
    """A few aliases of aliases stand for more than any memory holds."""
    pending, count = [value], 0
    while pending:
        item = pending.pop()
        count += 1
        if count > MOST_VALUES:
            raise CorruptFile(name=name, problem="its aliases stand for more values than any model has")
        if isinstance(item, (dict, list)):
            pending.extend(item.values() if isinstance(item, dict) else item)


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
    """Raise where the config carries byte code that is not understood, or names files of the machine it opens on."""
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


def lambdas(architecture: Architecture) -> list[Node]:
    """The Lambda layers, at any depth. They are for ``_rebuild`` alone: every other reader would run their code."""
    return [node for node in objects(architecture.root) if is_lambda(node)]


def is_lambda(node: Node) -> bool:
    return str(node["class_name"]).split(">")[-1] == "Lambda"


def _refuse_lambdas(architecture: Architecture) -> None:
    """Raise for a Lambda layer that is not understood, unless somebody agreed to run those, and for byte code anywhere
    else."""
    refused = unread_lambdas(architecture)
    if refused and not _agreed.allowed():
        raise refused[0]
    configs = [node["config"] for node in lambdas(architecture)]
    read = {id(config.get(key)) for config in configs for key in ("function", "output_shape")}
    if any(node["class_name"] == "__lambda__" and id(node) not in read for node in objects(architecture.root)):
        raise LambdaRefused(names="a function without a name", problem="where it stands")


def unread_lambdas(architecture: Architecture) -> list[LambdaRefused]:
    """Each Lambda layer that is not understood, as the error that says why."""
    refused = []
    for node in lambdas(architecture):
        try:
            _lambdas.reading(name_of(node), node.get("config"))
        except LambdaRefused as error:
            refused.append(error)
    return refused


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
