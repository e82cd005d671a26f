"""A Keras description, judged before any library reads it: every class that it names, every file, every size.

What may be named is generated from what Keras and tf-keras export and know how to make from a description; nothing else
passes. https://keras.io/api/models/model_saving_apis/serialization_utils/
"""

from __future__ import annotations

import builtins
import inspect
import json
import math
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

from worker.errors import LambdaRefused
from worker.formats import _dangers, _graph_dangers, _lambdas, _rebuild, _registry
from worker.formats._architecture import NETWORKS, Node, name_of
from worker.formats._screen import _said
from worker.report import Finding, Severity

CLASSES = "layers and other classes that Keras itself has, or classes of your own package with custom_objects.py"
PLACES = "words and numbers that are in the file itself"
SIZES = "sizes that fit the weights in the file"
EMBED = "Load the vocabulary before saving, so that it is stored with the layer, and upload that file."
# Classes of Keras that open more than their description
OPENING = {
    "TFSMLayer": "runs whatever SavedModel lies at a path of the machine",
    "TorchModuleWrapper": "opens a pickle of PyTorch",
}
FILES = ("vocabulary", "idf_weights", "vocabulary_file", "filepath", "file_path", "filename")
# Each of so many has at least one number among the weights
WEIGHED = frozenset({"units", "filters", "input_dim", "output_dim", "num_heads", "key_dim", "value_dim"})
COUNTED = frozenset({"n", "max_tokens", "num_bins", "depth_multiplier", "output_sequence_length", "num_tokens"})
SHAPED = re.compile(r"(shape|_size|strides|padding|cropping|dilation_rate|size)$")
SMALLEST_LIMIT = 10_000_000
LARGEST = 2**40  # numbers in one tensor: a tebibyte of bytes
CHOSEN = re.compile(r"(^|_)(activation|initializer|regularizer|constraint)$")
# Where Keras keeps what it saves in a file; a class elsewhere in it is not meant to be in one
KERAS_ROOTS = re.compile(
    r"^(keras|tf_keras|tensorflow\.keras|tensorflow\.python\.keras|tensorflow_core\.(python\.)?keras)(\.|$)"
)
KERAS_PARTS = re.compile(
    r"(^|\.)(layers|models|engine|initializers|initializers_v[12]|regularizers|constraints|losses|metrics|optimizers"
    r"|optimizer_v[12]|optimizer_experimental|dtype_policies|mixed_precision|quantizers|activations|ops|random|backend"
    r"|saving|feature_column|premade_models|premade|experimental|legacy|applications|api)(\.|$)"
)
KERAS_FUNCTIONS = re.compile(r"\.(activations|losses|metrics|initializers|regularizers|constraints|ops)(\.|$)")
# A function of TensorFlow as an activation: those that compute and nothing else
TF_MATH = re.compile(r"^tensorflow(_core)?\.(python\.(ops\.)?)?((gen_)?(nn|math|array|linalg|image)\w*|keras\b.*)?$")
CLASS = re.compile(r"^[A-Z_]\w*$")
# What an exported function of TensorFlow may be called that does more than compute
REACHING = re.compile(
    r"^(raw_ops|io|data|saved_model|train|summary|py_function|numpy_function|load_\w+|autograph|compat|config|debugging"
    r"|distribute|experimental|feature_column|mlir|profiler|queue|sysconfig|tpu|types|version|xla|function|print"
    r"|audio|lookup|nest|test|tools|__internal__|lite|graph_util|init_scope|Module)(\.|$)"
)
# Folders that packages install beside their own, and that people have, too
ANYBODYS = frozenset({"dummy", "examples", "test", "tests", "tools", "utils", "scripts", "docs", "benchmarks"})
DOTTED = re.compile(r"^[A-Za-z_][\w.]*$")
OPERATION = re.compile(r'\bop:\s*"([^"]+)"')


@dataclass(frozen=True)
class Described:
    """One description: what messages call the file, and how many bytes of weights there are beside it."""

    place: str
    stored: int


def screen(root: Any, described: Described) -> Iterator[Finding]:
    """Everything that a description names."""
    if not isinstance(root, dict):
        return
    body = {key: value for key, value in root.items() if key not in _TRAINING}
    yield from _Judged(described).of(body)
    yield from training({key: root[key] for key in _TRAINING if key in root}, described)


def training(settings: Any, described: Described) -> Iterator[Finding]:
    """The settings of compile(): nothing of them has to be run, so code in them is left where it is."""
    found = list(_Judged(described).of(settings))
    yield from (item for item in found if item.severity is Severity.REFUSE)
    if names := [item.data["names"] for item in found if item.severity is Severity.CONSENT]:
        yield _said.UNUSED_CODE(names=_said.listed(names))


_TRAINING = ("compile_config", "training_config")


def of_graph(root: Any, described: Described) -> Iterator[Finding]:
    """A description beside a TensorFlow graph, which is what runs: only what would reach beyond it counts."""
    yield from (item for item in screen(root, described) if item.severity is Severity.REFUSE)


class _Judged:
    """One walk over a description."""

    def __init__(self, described: Described) -> None:
        self.described = described
        self.limit = max(SMALLEST_LIMIT, 8 * described.stored)
        self.code: list[str] = []
        self.custom: list[str] = []
        self.read: set[int] = set()  # parts of Lambda layers that were read
        self.seen: set[int] = set()  # arguments of objects
        self.notes: list[Finding] = []

    def of(self, root: Any) -> Iterator[Finding]:
        pending = [root]
        while pending:
            item = pending.pop()
            if isinstance(item, dict):
                yield from self._table(item)
                pending.extend(item.values())
            elif isinstance(item, list):
                pending.extend(item)
        yield from self.notes
        place = self.described.place
        if self.code:
            yield _said.CODE(place=place, names=_said.listed(self.code))
        if self.custom:
            yield _said.CUSTOM(place=place, names=_said.listed(self.custom))

    def _table(self, node: Node) -> Iterator[Finding]:
        if "class_name" in node and ("config" in node or "module" in node):
            yield from self._object(node)
        config = node.get("config") if "class_name" in node else node
        if isinstance(config, dict) and id(config) not in self.seen:  # met again on its own
            self.seen.add(id(config))
            yield from self._arguments(node, config)

    # Classes -------------------------------------------------------------------------------------------------------

    def _object(self, node: Node) -> Iterator[Finding]:
        kind, module = node["class_name"], node.get("module")
        if not isinstance(kind, str) or not (module is None or isinstance(module, str)):
            yield self._refuse(f"names a class by {_said.short(json.dumps([module, kind]))}, which is no name", CLASSES)
            return
        name = kind.split(">")[-1]
        if name in ("__lambda__", "Lambda") and (not module or KERAS_ROOTS.match(module) or module == "builtins"):
            self._lambda(node, name)
        elif name in OPENING:
            yield self._refuse(f"has a {name} ({_said.short(name_of(node))}), which {OPENING[name]}", CLASSES)
        elif name == "TFOpLambda" or name == "TensorFlowOpLayer":
            yield from self._operation(node, name)
        elif problem := self._problem(node, name, module or ""):
            yield self._refuse(problem, CLASSES)

    def _problem(self, node: Node, name: str, module: str) -> str:
        """Why nothing of this name belongs into a file; a name that may be somebody's own is noted."""
        wanted = node.get("config") if name == "function" and isinstance(node.get("config"), str) else name
        full = _said.short(f"{module}.{wanted}" if module else wanted)
        if not DOTTED.match(module or "x") or (name == "function" and not DOTTED.match(str(wanted))):
            return f"names {full}, which is no name of Python"
        if KERAS_ROOTS.match(module):
            return "" if self._of_keras(str(wanted), module, name) else f"names {full}, which Keras saves in no file"
        if name in _registry._MARKERS and name != "function":
            return ""
        if name == "function" and (module in ("", "builtins") or TF_MATH.match(module)):
            if wanted not in functions() and hasattr(builtins, str(wanted)):
                return f"names {full}, a function of Python itself"
            self._own(str(wanted), known=functions() | names())
            return ""
        if _is_of_the_machine(module):
            return f"names {full}, which is no part of a model: {_dangers.WHY[Severity.DANGER]}"
        self._own(str(wanted), known=names() if not module else frozenset(), network=_network(node))
        return ""

    def _of_keras(self, wanted: str, module: str, name: str) -> bool:
        """Is it known, or could a newer Keras have such a class or function at such a place?"""
        if wanted in names() or wanted in functions():
            return True
        if name == "function":
            return KERAS_FUNCTIONS.search(module) is not None
        within = module.rstrip(".") in ("keras", "tf_keras", "tensorflow.keras") or KERAS_PARTS.search(module)
        return bool(within and CLASS.match(wanted))

    def _own(self, name: str, known: frozenset[str], network: bool = False) -> None:
        if name not in known and not network:
            self.custom.append(name)

    def _lambda(self, node: Node, name: str) -> None:
        config = node.get("config")
        if name == "__lambda__":
            if id(node) not in self.read:
                self.code.append("a function without a name")
            return
        if isinstance(config, dict):
            self.read |= {id(config.get(key)) for key in ("function", "output_shape", "mask")}
        try:
            formula = _lambdas.reading(name_of(node), config).text
            self.notes.append(_said.FORMULA(layer=_said.short(name_of(node)), formula=_said.short(formula)))
        except LambdaRefused:
            self.code.append(f"Lambda {name_of(node)}")

    def _operation(self, node: Node, name: str) -> Iterator[Finding]:
        """An operation of TensorFlow between two layers of Keras 2."""
        config = node["config"] if isinstance(node.get("config"), dict) else {}
        if name == "TFOpLambda":
            function = str(config.get("function", ""))
            if REACHING.match(function) or not DOTTED.match(function or "x"):
                yield self._refuse(f"calls tf.{_said.short(function)}, which does more than compute", CLASSES)
            return
        described = config.get("node_def")
        for kind in _operation_kinds(described):
            if what := _graph_dangers.what(kind):
                yield self._refuse(f"has the operation {_said.short(kind)}, which {what}", CLASSES)

    # Arguments -----------------------------------------------------------------------------------------------------

    def _arguments(self, node: Node, config: dict[str, Any]) -> Iterator[Finding]:
        layer = _said.short(name_of(node)) if "class_name" in node else "a layer"
        for key in FILES:
            if names_a_file(config.get(key)) and "class_name" in node:
                path = _said.short(config[key])
                yield self._refuse(f"names a file ({path}) as {key} of {layer}", PLACES, EMBED)
        for key, value in config.items():
            if isinstance(value, str) and CHOSEN.search(str(key)):
                self._chosen(value)
            if problem := self._size(str(key), value):
                yield self._refuse(f"gives {layer} {problem} as {_said.short(key)}", SIZES)

    def _chosen(self, value: str) -> None:
        """A function that is named by a text alone."""
        if value and value not in functions() and value not in names():
            self.custom.append(value)

    def _size(self, key: str, value: Any) -> str:
        if type(value) is int and key in WEIGHED | COUNTED:
            most = self.limit if key in WEIGHED else 2**31
            return f"{value:,}" if not -1 <= value <= most else ""
        if isinstance(value, list) and SHAPED.search(key):
            sizes = [abs(item) for item in _numbers(value) if item]
            return "more numbers than any machine holds" if math.prod(sizes[:64]) > LARGEST else ""
        return ""

    def _refuse(self, found: str, expected: str, advice: str = _said.AGAIN) -> Finding:
        return _said.refuse(self.described.place, found, expected, advice)


def names_a_file(value: Any) -> bool:
    return (isinstance(value, (str, bytes)) and bool(value)) or (isinstance(value, dict) and bool(value))


def _numbers(value: list[Any]) -> Iterator[int]:
    for item in value[:64]:
        if type(item) is int:
            yield item
        elif isinstance(item, list):
            yield from (inner for inner in item[:8] if type(inner) is int)


def _operation_kinds(described: Any) -> list[str]:
    """The kinds of operations in a NodeDef as text or JSON."""
    if isinstance(described, dict):
        return [str(described.get("op", ""))]
    text = str(described or "")
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return OPERATION.findall(text)
    return [str(value.get("op", ""))] if isinstance(value, dict) else []


def _network(node: Node) -> bool:
    return node["class_name"] in NETWORKS


def _is_of_the_machine(module: str) -> bool:
    """Does Python bring this module, or is it one of those that are installed here? Code of people's own is neither."""
    root = module.partition(".")[0]
    return bool(root) and root != "__main__" and (root in sys.stdlib_module_names or root in _installed())


@cache
def _installed() -> frozenset[str]:
    from importlib.metadata import packages_distributions

    return frozenset(packages_distributions()) - ANYBODYS


# What Keras knows -------------------------------------------------------------------------------------------------


@cache
def names() -> frozenset[str]:
    """Every class that Keras or tf-keras exports and makes from a description, and what older ones called theirs."""
    import keras
    import tf_keras

    found = set(_registry.operation_classes()) | set(_rebuild.LEGACY_NAMES) | _OLD | _registry._MARKERS
    for root in (keras, tf_keras):
        found |= {name for name, item in _exported(root) if inspect.isclass(item) and hasattr(item, "from_config")}
    return frozenset(found)


@cache
def functions() -> frozenset[str]:
    """Every function that a layer can be given by its name."""
    import keras
    import tf_keras

    found: set[str] = set(_WORDS)
    for root in (keras, tf_keras):
        for part in (
            root.activations,
            root.losses,
            root.metrics,
            root.initializers,
            root.regularizers,
            root.constraints,
        ):
            found |= {name for name, item in vars(part).items() if callable(item) and not name.startswith("_")}
    return frozenset(found)


def _exported(root: Any) -> Iterator[tuple[str, Any]]:
    """Whatever a package exports, in its modules too."""
    pending, seen = [root], set()
    while pending:
        module = pending.pop()
        if id(module) in seen:
            continue
        seen.add(id(module))
        for name in dir(module):
            item = None if name.startswith("_") else getattr(module, name, None)
            if inspect.ismodule(item) and item.__name__.startswith(root.__name__) and ".src" not in item.__name__:
                pending.append(item)
            elif item is not None:
                yield name, item


# What releases before those wrote, and what they call things in lower case
_OLD = _dangers._names(
    """
    Functional Model Network Container Graph Sequential Policy PolicyV1 TensorShape CuDNNGRU CuDNNLSTM
    Highway MaxoutDense TimeDistributedDense AtrousConvolution1D AtrousConvolution2D Convolution1D Convolution2D
    Convolution3D Deconvolution2D Deconvolution3D SeparableConvolution1D SeparableConvolution2D Merge Recurrent
    ZeroPadding Conv2DTranspose LayerNormalizationV2 RandomFourierFeatures DenseFeatures SequenceFeatures LinearModel
    WideDeepModel LossScaleOptimizer LossScaleOptimizerV3 DynamicLossScale FixedLossScale InputSpec VarianceScaling
    GlorotUniformV2 GlorotNormalV2 RandomNormalV2 RandomUniformV2 TruncatedNormalV2 TFOptimizer SlicingOpLambda
    ClassMethod InstanceMethod InstanceProperty KerasTensor DTypePolicyMap SeedGenerator Variable AddLoss AddMetric
    """
)
_WORDS = _dangers._names(
    """
    linear glorot_uniform glorot_normal he_normal he_uniform lecun_normal lecun_uniform zero one zeros ones normal
    uniform orthogonal identity truncated_normal random_normal random_uniform variance_scaling constant l1 l2 l1_l2
    l1l2 activity_l2 activity_l1 maxnorm max_norm nonneg non_neg unitnorm unit_norm min_max_norm softmax sigmoid
    hard_sigmoid tanh relu gelu swish silu elu selu exponential softplus softsign leaky_relu relu6 mish log_softmax
    leakyrelu prelu thresholdedrelu glorot_uniform_v2 orthogonal_regularizer
    """
)
