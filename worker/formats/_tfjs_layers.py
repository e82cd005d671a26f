"""Keras models in the words of TensorFlow.js Layers, which are those of Keras 2, and back.

Classes, activations and arguments: ``tfjs-layers`` 4.22, ``src/layers`` and ``src/activations.ts``. TensorFlow.js
ignores arguments that it does not know, so everything that it would ignore is refused here.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from worker.errors import CorruptFile, UnsupportedOperation
from worker.formats import _tfjs
from worker.formats._architecture import NETWORKS, Node, flat_references, is_network, layers_of, name_of, objects, parse
from worker.formats._rebuild import LEGACY_NAMES
from worker.formats._regions import Region
from worker.report import Finding, Severity, declare

if TYPE_CHECKING:
    import numpy as np

    from worker.formats._keras_files import Stored
    from worker.formats._optimizer import Training
    from worker.formats._weights import Rows, Tree

    Named = tuple[str, np.ndarray]
    Promised = tuple[str, Callable[[], np.ndarray]]  # its values are read when it is written

LABEL = "TF.js layers model"
SPELLING = "2.15.0"  # the last Keras whose configs TensorFlow.js follows
FLOAT32 = declare(
    "tfjs-float32",
    Severity.WARNING,
    "TensorFlow.js computes in float32; {layers} computed in {dtypes}.",
)
RENAMED_LAYER = declare(
    "tfjs-renamed-layer",
    Severity.NOTE,
    "TensorFlow.js finds weights by the names of their layers: a second {name} is called {new} in the result.",
)
TRAINING_ARGUMENT = declare(
    "tfjs-training-argument",
    Severity.WARNING,
    "TensorFlow.js has no {kind}, which {layer} has as {argument}. It was left out; it matters to training alone.",
)
NORMALIZATION = declare(
    "tfjs-normalization",
    Severity.NOTE,
    "TensorFlow.js has no Normalization: {layer} was written as a frozen BatchNormalization with the same statistics.",
)

ACTIVATIONS = {
    name: name
    for name in ("elu", "selu", "relu", "relu6", "linear", "sigmoid", "softplus", "softsign", "tanh", "softmax")
} | {"log_softmax": "log_softmax", "gelu": "gelu", "mish": "mish", "silu": "swish", "swish": "swish"}
INITIALIZERS = {
    name: name
    for name in (
        *("Zeros", "Ones", "Constant", "RandomUniform", "RandomNormal", "TruncatedNormal", "Identity"),
        *("VarianceScaling", "GlorotUniform", "GlorotNormal", "HeNormal", "HeUniform", "Orthogonal"),
    )
} | {"LecunNormal": "LeCunNormal", "LecunUniform": "LeCunUniform"}
CONSTRAINTS = frozenset({"MaxNorm", "UnitNorm", "NonNeg", "MinMaxNorm"})

ONCE = (1, [1], [1, 1], [1, 1, 1])
_POOL = {"padding": ("valid", "same")}
_GLOBAL = {"keepdims": (False,)}
_CONVOLUTION = {"groups": (1,), "padding": ("valid", "same")}
_TRANSPOSED = _CONVOLUTION | {"dilation_rate": ONCE, "output_padding": (None,)}
_RECURRENT = {"stateful": (False,), "zero_output_for_mask": (False,)}
_ADAPTED = {"lora_rank": (None,), "quantization_config": (None,)}
# For each class the arguments that TensorFlow.js ignores or refuses, with the values that change nothing
CLASSES: dict[str, dict[str, tuple[Any, ...]]] = {
    "Dense": _ADAPTED,
    "Embedding": _ADAPTED,
    "Activation": {},
    "ReLU": {"negative_slope": (0, None), "threshold": (0, None)},
    "LeakyReLU": {},
    "PReLU": {},
    "ELU": {"alpha": (1,)},
    "Softmax": {},
    "Conv1D": _CONVOLUTION,
    "Conv2D": _CONVOLUTION,
    "Conv3D": _CONVOLUTION,
    "Conv2DTranspose": _TRANSPOSED,
    "Conv3DTranspose": _TRANSPOSED,
    "DepthwiseConv2D": {"dilation_rate": ONCE, "padding": ("valid", "same")},
    "SeparableConv2D": {"padding": ("valid", "same")},
    "UpSampling2D": {"interpolation": ("nearest",)},
    "Cropping2D": {},
    "ZeroPadding2D": {},
    "SimpleRNN": _RECURRENT,
    "LSTM": _RECURRENT,
    "GRU": _RECURRENT | {"reset_after": (False,)},
    "Bidirectional": {},
    "TimeDistributed": {},
    "Dropout": {},
    "SpatialDropout1D": {},
    "GaussianNoise": {},
    "GaussianDropout": {},
    "AlphaDropout": {},
    "Flatten": {},
    "Reshape": {},
    "Permute": {},
    "RepeatVector": {},
    "Masking": {},
    "Add": {},
    "Multiply": {},
    "Average": {},
    "Maximum": {},
    "Minimum": {},
    "Concatenate": {},
    "Dot": {},
    "BatchNormalization": {"renorm": (False,)},
    "LayerNormalization": {"rms_scaling": (False,)},
    "Rescaling": {},
    **{f"{kind}Pooling{rank}D": _POOL for kind in ("Max", "Average") for rank in (1, 2, 3)},
    **{f"Global{kind}Pooling{rank}D": _GLOBAL for kind in ("Max", "Average") for rank in (1, 2)},
}
# What can be written; a Normalization as a BatchNormalization
KNOWN = frozenset(CLASSES) | NETWORKS | {"InputLayer", "Normalization"}
# What handles a mask otherwise than Keras 3 does, or fails on one
NOT_MASKABLE = frozenset(
    {"GlobalAveragePooling1D", "Softmax", "Add", "Multiply", "Average", "Maximum", "Minimum", "Dot"}
)
RECURRENT = frozenset({"SimpleRNN", "LSTM", "GRU", "Bidirectional"})  # what uses a mask in TensorFlow.js
LAST_AXIS = frozenset({"BatchNormalization", "Normalization", "Softmax"})  # along another axis it is wrong, or refused
DROPPED_KEYS = frozenset({"module", "registered_name", "build_config", "compile_config", "shared_object_id"})


# To TensorFlow.js -------------------------------------------------------------------------------------------------


@dataclass
class Spelling:
    """A model on its way: what was spelled so far, the weights in that order, and what has to be said.

    Only ``weights`` ask for values, so that a model without any can be spelled to learn what would be refused.
    """

    weights: list[Promised] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    names: set[str] = field(default_factory=set)
    halves: dict[str, str] = field(default_factory=dict)  # layer -> the dtype it computed in
    masked: bool = False  # does a mask reach the layer that is being spelled?
    masks: set[str] = field(default_factory=set)  # the layers that one reaches
    unmasked: set[str] = field(default_factory=set)  # the recurrent layers that none reaches

    def model(self, model: Any) -> Node:
        """The Keras 2 description of a Keras 3 model; its weights by the names that TensorFlow.js gives them."""
        from worker.formats import _masks

        node = json.loads(model.to_json())
        if node["class_name"] not in NETWORKS or not is_network(node):
            raise _refusal(type(model).__name__, "it is a class of its own, not a model made of layers")
        _masks.leave_out(model, node)
        spelled = self.network(model, node, model.name)
        self._refuse_stale_masks()
        if self.halves:
            listed, kinds = ", ".join(sorted(self.halves)[:5]), ", ".join(sorted(set(self.halves.values())))
            self.findings.append(FLOAT32(layers=listed, dtypes=kinds))
        return spelled

    def network(self, model: Any, node: Node, name: str) -> Node:
        config = node["config"]
        living = {layer.name: layer for layer in model._flatten_layers(include_self=False, recursive=False)}
        renamed = {old: self._unique(old, name) for old in map(name_of, layers_of(node))}
        networks = frozenset(name_of(inner) for inner in layers_of(node) if is_network(inner))
        layers = [self._layer(living, inner, renamed, networks) for inner in layers_of(node)]
        spelled: Node = {"name": name, "trainable": config.get("trainable", True), "layers": layers}
        for key in ("input_layers", "output_layers"):
            if key in config:
                spelled[key] = [_renamed(item, renamed, networks) for item in flat_references(config[key])]
        return {"class_name": node["class_name"], "config": spelled}

    def _unique(self, name: str, network: str) -> str:
        new = name
        while new in self.names:
            new = f"{network}_{new}"
        self.names.add(new)
        if new != name:
            self.findings.append(RENAMED_LAYER(name=name, new=new))
        return new

    def _layer(self, living: dict[str, Any], node: Node, renamed: dict[str, str], networks: frozenset[str]) -> Node:
        old, name = name_of(node), renamed[name_of(node)]
        layer: Any = living.get(old)
        if layer is None and node["class_name"] != "InputLayer":
            raise _refusal(node["class_name"], f"{old} is an operation between layers")
        if is_network(node):
            if _is_masked(layer) or any(getattr(tensor, "_keras_mask", None) is not None for tensor in layer.outputs):
                raise _refusal(f"a mask at {node['class_name']}", f"one goes into or comes out of the model {old}")
            spelled = self.network(layer, node, name)
        else:
            spelled = self._leaf(layer, node, name)
        if "inbound_nodes" in node:
            calls = [_call(old, item, renamed, networks) for item in node["inbound_nodes"]]
            spelled |= {"name": name, "inbound_nodes": [call for call in calls if call]}
        return spelled

    def _leaf(self, layer: Any, node: Node, name: str) -> Node:
        kind = node["class_name"]
        if kind == "InputLayer":
            return {"class_name": kind, "config": _input(node["config"], name)}
        self.masked = _is_masked(layer)
        self._note_mask(kind, name)
        if kind in LAST_AXIS:
            _refuse_axis(layer, kind, name)
        if kind == "Normalization":
            return self._normalization(layer, node, name)
        config = self._config(kind, node["config"], name) | {"name": name}
        self.weights += list(_weights(layer, kind, config, name))
        return {"class_name": kind, "config": config}

    def _note_mask(self, kind: str, name: str) -> None:
        if self.masked and kind in NOT_MASKABLE:
            raise _refusal(f"a mask at {kind}", f"layer {name} gets one, and TensorFlow.js does otherwise with it")
        if self.masked:
            self.masks.add(name)
        elif kind in RECURRENT:
            self.unmasked.add(name)

    def _refuse_stale_masks(self) -> None:
        """TensorFlow.js hands the mask of one layer to every later one that has none of its own."""
        if self.masks and self.unmasked:
            problem = f"{min(self.masks)} has a mask, {min(self.unmasked)} has none and would get it in TensorFlow.js"
            raise _refusal("masks of only some recurrent layers", problem)

    def _config(self, kind: str, config: dict[str, Any], name: str) -> dict[str, Any]:
        """The arguments of a layer, each refused, rewritten or taken as it is."""
        if kind not in CLASSES:
            raise _refusal(kind, f"layer {name} has no equal in TensorFlow.js")
        for argument, allowed in (CLASSES[kind] | {"data_format": ("channels_last", None)}).items():
            if argument == "zero_output_for_mask" and not self.masked:
                continue
            if argument in config and config[argument] not in allowed:
                problem = f"layer {name} has {argument}={config[argument]!r}, which TensorFlow.js does not know"
                raise _refusal(kind, problem)
        plain = {key: self._argument(key, value, kind, name) for key, value in config.items()}
        return SPECIAL[kind](self, plain, name) if kind in SPECIAL else plain

    def _argument(self, key: str, value: Any, kind: str, name: str) -> Any:
        if key in {"activation", "recurrent_activation"}:
            return _activation(value, kind, name)
        if key == "dtype":
            return self._dtype(value, name)
        if key.endswith("_initializer"):
            return _initializer(value)
        if key.endswith(("_regularizer", "_constraint")) and value is not None:
            return self._training(key, value, name)
        return value

    def _dtype(self, value: Any, name: str) -> str:
        policy = value["config"]["name"] if isinstance(value, dict) else str(value)
        if policy != "float32":
            self.halves[name] = policy
        return "float32"

    def _training(self, key: str, value: Any, name: str) -> Any:
        kind = value.get("class_name") if isinstance(value, dict) else str(value)
        if kind in {"L1", "L2", "L1L2"}:
            return {"class_name": "L1L2", "config": {"l1": 0.0, "l2": 0.0} | value["config"]}
        if kind in CONSTRAINTS:
            return {"class_name": kind, "config": value["config"]}
        self.findings.append(TRAINING_ARGUMENT(kind=kind, layer=name, argument=key))
        return None

    def _normalization(self, layer: Any, node: Node, name: str) -> Node:
        """``(x - mean) / max(sqrt(variance), 1e-7)``: what a BatchNormalization without epsilon computes."""
        axis = node["config"]["axis"]
        axes = axis if isinstance(axis, list) else [axis]
        if len(axes) != 1 or axes[0] is None or node["config"].get("invert"):
            raise _refusal("Normalization", f"layer {name} does not normalise along exactly one axis")
        self.weights += [
            (f"{name}/moving_mean", partial(_statistic, layer, "mean")),
            (f"{name}/moving_variance", partial(_statistic, layer, "variance", least=1e-14)),
        ]
        self.findings.append(NORMALIZATION(layer=name))
        config = {"name": name, "trainable": False, "dtype": "float32", "axis": axes[0], "epsilon": 0.0}
        return {"class_name": "BatchNormalization", "config": config | {"center": False, "scale": False}}

    def wrapped(self, config: dict[str, Any], name: str) -> dict[str, Any]:
        """The layer inside of a TimeDistributed or a Bidirectional."""
        inner = config["layer"]
        if is_network(inner) or inner["class_name"] in {"Bidirectional", "TimeDistributed"}:
            raise _refusal(inner["class_name"], f"it is inside of the wrapper {name}")
        spelled = self._config(inner["class_name"], inner["config"], f"{name}/{name_of(inner)}")
        return {"class_name": inner["class_name"], "config": spelled}


def _statistic(layer: Any, name: str, least: float | None = None) -> np.ndarray:
    """What a Normalization computes with, in one row; nowhere below ``least``."""
    import numpy as np

    values = np.asarray(getattr(layer, name), "float32").reshape(-1)
    return values if least is None else np.maximum(values, least)


def refuse_strange(root: Node) -> None:
    """Raise UnsupportedOperation for layers that are of no known kind, where the model itself cannot be built."""
    kinds = {str(node["class_name"]) for node in layers_of(root)}
    if strange := sorted(kinds - KNOWN - LEGACY_NAMES):
        raise _refusal(", ".join(strange), "TensorFlow.js has no such layers")


def _is_masked(layer: Any) -> bool:
    """Does a mask come along with an input of the layer?"""
    tensors = [tensor for node in getattr(layer, "_inbound_nodes", ()) for tensor in node.input_tensors]
    return any(getattr(tensor, "_keras_mask", None) is not None for tensor in tensors)


def _refuse_axis(layer: Any, kind: str, name: str) -> None:
    axis = layer.axis[0] if isinstance(layer.axis, (list, tuple)) and len(layer.axis) == 1 else layer.axis
    if axis not in (-1, len(layer._inbound_nodes[0].input_tensors[0].shape) - 1):
        raise _refusal(f"{kind} along axis {axis}", f"layer {name} does not work along the last axis")


def _refusal(operation: str, problem: str) -> UnsupportedOperation:
    advice = "; take the TF.js graph model" if "GRU" not in operation else "; build the GRU with reset_after=False"
    return UnsupportedOperation(target=LABEL, operation=operation, problem=problem + advice)


def _input(config: dict[str, Any], name: str) -> dict[str, Any]:
    dtype = str(config.get("dtype") or "float32")
    if config.get("sparse") or config.get("ragged") or config.get("optional") or dtype == "string":
        raise _refusal("InputLayer", f"input {name} is text, sparse, ragged or optional")
    whole = "int" in dtype
    shape = config.get("batch_shape") or config.get("batch_input_shape")
    dtype = "int32" if whole else "bool" if dtype == "bool" else "float32"
    return {"batch_input_shape": shape, "dtype": dtype, "sparse": False, "name": name}


def _activation(value: Any, kind: str, name: str) -> Any:
    """TensorFlow.js' hard_sigmoid is the one of Keras 2; that of Keras 3 has another slope."""
    if isinstance(value, dict) and value.get("config", {}).get("name") == "hard_sigmoid_of_keras_2":
        return "hard_sigmoid"
    known = ACTIVATIONS.get(value) if isinstance(value, str) else None
    if known is None:
        found = value if isinstance(value, str) else value.get("config") if isinstance(value, dict) else value
        raise _refusal(f"the activation {str(found)[:80]}", f"layer {name} ({kind}) has it")
    return known


def _initializer(value: Any) -> Any:
    """Where TensorFlow.js has no such class its own default stands in: the weights are in the file."""
    kind = INITIALIZERS.get(str(value.get("class_name"))) if isinstance(value, dict) else None
    if kind is None:
        return None
    config = {key: item for key, item in value["config"].items() if not isinstance(item, (dict, list))}
    return {"class_name": kind, "config": {key: item for key, item in config.items() if key not in _AXES}}


_AXES = frozenset({"input_axes", "output_axes"})


def _call(name: str, call: Any, renamed: dict[str, str], networks: frozenset[str]) -> list[Any]:
    """One call of a layer as a list of ``[layer, node, tensor, {}]``."""
    for key, value in call.get("kwargs", {}).items():
        if value is not None and key != "training":
            raise _refusal(f"the argument {key}", f"layer {name} is called with it")
    tensors = [item for item in objects(call.get("args")) if item["class_name"] == "__keras_tensor__"]
    histories = [item["config"]["keras_history"] for item in _in_order(call.get("args"))]
    if len(histories) != len(tensors):
        raise _refusal(f"the call of {name}", "its arguments are nested")
    return [[*_renamed(history, renamed, networks), {}] for history in histories]


def _in_order(value: Any) -> Iterator[Node]:
    if isinstance(value, dict) and value.get("class_name") == "__keras_tensor__":
        yield value
    elif isinstance(value, list):
        for item in value:
            yield from _in_order(item)
    elif value is not None:
        raise _refusal("a call with a constant", f"{str(value)[:80]} is handed to a layer")


def _renamed(reference: list[Any], renamed: dict[str, str], networks: frozenset[str]) -> list[Any]:
    """In Keras 2 and TensorFlow.js node 0 of a nested model is the model itself, in Keras 3 its first use."""
    name, node, tensor = reference[:3]
    return [renamed.get(name, name), node + (name in networks), tensor]


# What some classes call otherwise, or hold inside of themselves


def _leaky(spelling: Spelling, config: dict[str, Any], name: str) -> dict[str, Any]:
    config["alpha"] = config.pop("negative_slope", 0.3)
    return config


def _scaled(spelling: Spelling, config: dict[str, Any], name: str) -> dict[str, Any]:
    if isinstance(config.get("scale"), (list, dict)) or isinstance(config.get("offset"), (list, dict)):
        raise _refusal("Rescaling", f"layer {name} scales each channel by a number of its own")
    return config


def _time_distributed(spelling: Spelling, config: dict[str, Any], name: str) -> dict[str, Any]:
    return config | {"layer": spelling.wrapped(config, name)}


def _bidirectional(spelling: Spelling, config: dict[str, Any], name: str) -> dict[str, Any]:
    """TensorFlow.js makes the backward layer from the forward one."""
    layer, backward = config["layer"], config.pop("backward_layer", None)
    own = layer["config"]
    if layer["class_name"] not in {"LSTM", "GRU", "SimpleRNN"}:
        raise _refusal(layer["class_name"], f"it is inside of the wrapper {name}")
    if backward and _without_direction(backward["config"]) != _without_direction(own):
        raise _refusal("Bidirectional", f"the backward layer of {name} differs from the forward one")
    config["layer"] = spelling.wrapped(config, name)
    config["layer"]["config"]["name"] = own["name"].removeprefix("forward_")
    return config


def _without_direction(config: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in config.items() if key not in {"name", "go_backwards"}}


SPECIAL = {
    "LeakyReLU": _leaky,
    "Rescaling": _scaled,
    "TimeDistributed": _time_distributed,
    "Bidirectional": _bidirectional,
}


def _weights(layer: Any, kind: str, config: dict[str, Any], name: str) -> Iterator[Promised]:
    """The weights of a layer under the names that TensorFlow.js gives them."""
    import numpy as np

    if kind == "Bidirectional":
        inner = config["layer"]["config"]["name"]
        yield from _weights(layer.forward_layer, "", {}, f"{name}/forward_{inner}")
        yield from _weights(layer.backward_layer, "", {}, f"{name}/backward_{inner}")
        return
    inside = config["layer"]["class_name"] if kind == "TimeDistributed" else kind
    for variable in layer.weights:
        own = str(variable.path).split("/")[-1]
        own = "depthwise_kernel" if inside == "DepthwiseConv2D" and own == "kernel" else own
        yield f"{name}/{own}", partial(np.asarray, variable)


def topology(spelled: Node) -> dict[str, Any]:
    """The topology as the official converter writes it."""
    plain = _without_modules(spelled)
    return {"keras_version": SPELLING, "backend": "tensorflow", "model_config": plain}


def _without_modules(value: Any) -> Any:
    if isinstance(value, list):
        return [_without_modules(item) for item in value]
    if not isinstance(value, dict):
        return value
    return {key: _without_modules(item) for key, item in value.items() if key not in DROPPED_KEYS}


# From TensorFlow.js -----------------------------------------------------------------------------------------------


def read(path: Path, scratch: Path) -> Stored:
    """The architecture and weights of a layers model, whoever wrote it: TensorFlow.js itself or a converter."""
    from worker.formats._keras_files import Stored

    package = _tfjs.read(path, scratch)
    found = package.root["modelTopology"]
    version = str(found.get("keras_version") or "2")
    node = found.get("model_config", found)
    if not isinstance(node, dict) or "class_name" not in node or "config" not in node:
        raise CorruptFile(name=_tfjs.MODEL, problem="its topology is no description of layers")
    root = {key: value for key, value in node.items() if key not in {"keras_version", "backend"}}
    architecture = parse(json.dumps(root), _tfjs.MODEL, "2" if version.startswith("tfjs") else version)
    weights = partial(_stored_weights, package, root, scratch)
    return Stored(architecture, weights, training=_training(package, found))


def _training(package: _tfjs.Package, topology: Node) -> Training:
    """The settings of compile(), as far as the file has them; the optimizer's values have names of JavaScript's own."""
    from worker.formats._optimizer import Training

    config = topology.get("training_config") or package.root.get("trainingConfig") or {}
    optimizer = {"optimizer": config["optimizer_config"]} if config.get("optimizer_config") else {}
    doubt = "TensorFlow.js wrote it" if any(entry.of_optimizer for entry in package.entries) else ""
    return Training(dict(config) | optimizer, doubt=doubt)


def _stored_weights(package: _tfjs.Package, root: Node, scratch: Path) -> Rows | Tree:
    from worker.formats._weights import Rows

    arrays = [(entry.name, array) for entry, array in package.arrays() if not entry.of_optimizer]
    if arrays and all("/vars/" in name for name, _ in arrays):
        return _as_tree(arrays, scratch)
    rows: list[tuple[str, list[Any]]] = [
        (name_of(node), [item for name in _leaves(node) for item in _of_layer(name, arrays)]) for node in _tops(root)
    ]
    lost = {name for name, _ in arrays} - {name for _, row in rows for name, _ in row}
    if lost:
        raise CorruptFile(name=_tfjs.MODEL, problem=f"it has no layer for the weight {min(lost)}")
    return Rows(rows)


def _as_tree(arrays: list[Named], scratch: Path) -> Tree:
    """The official converter takes the paths in a .keras archive's HDF5 file for names, so they go back into one."""
    import h5py

    from worker.formats._weights import Tree

    path = scratch / "tfjs-weights.h5"
    scratch.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        for name, array in arrays:
            file[name] = array
    return Tree(Region.whole(path))


def _tops(root: Node) -> list[Node]:
    return layers_of(root) if is_network(root) else [root]


def _leaves(node: Node) -> list[str]:
    """The layers with weights below a node, by name, in the order of the file."""
    if not is_network(node):
        return [name_of(node)]
    return [name for inner in layers_of(node) for name in _leaves(inner)]


def _of_layer(layer: str, arrays: list[Named]) -> Iterator[Named]:
    """``dense/kernel`` is of ``dense``; so is ``inner/dense/kernel``, as some releases of TensorFlow wrote it."""
    exact = [item for item in arrays if item[0].startswith(f"{layer}/")]
    return iter(exact or [item for item in arrays if f"/{layer}/" in item[0]])
