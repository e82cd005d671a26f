"""The names that a Lambda layer may use: of modules, of constants, and of the functions of ``_lambda_functions``.

The table is all that is ever called; a name that is not in it is refused, and nothing is looked up anywhere else.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from typing import Any

from worker.formats import _lambda_functions as of
from worker.formats._lambda_functions import DTYPES
from worker.formats._marshalled import NotUnderstood

# What people call the modules, and the short name under which the table has them.
_MODULES = {
    "tensorflow": "tf",
    "numpy": "np",
    "backend": "K",
    "tf.keras": "keras",
    "tf.math": "tf",
    "tf.nn": "tf",
    "tf.linalg": "tf",
    "tf.dtypes": "tf",
    "K.tf": "tf",
    "keras.backend": "K",
    "keras.ops": "ops",
    "keras.activations": "activations",
    "ops.numpy": "ops",
    "ops.nn": "ops",
}
MODULES = frozenset({*_MODULES.values(), "math", "keras", "tf.image"})
CONSTANTS: dict[str, Any] = {
    **{f"{module}.{name}": name for module in ("tf", "np") for name in DTYPES},
    **{f"{module}.{name}": getattr(math, name) for module in ("np", "math") for name in ("pi", "e", "inf")},
    "tf.newaxis": None,
    "np.newaxis": None,
}
# keyword -> what the functions below call it, where they have no argument of that very name
_KEYWORDS = {
    **dict.fromkeys(("input_tensor", "input", "a", "x1", "features", "logits", "tensor", "value", "t"), "x"),
    **dict.fromkeys(("images", "params", "reference"), "x"),
    **dict.fromkeys(("b", "x2"), "y"),
    **dict.fromkeys(("tensors", "xs", "arrays", "inputs"), "values"),
    "keep_dims": "keepdims",
    **dict.fromkeys(("reduction_indices", "dim", "axes", "squeeze_dims", "concat_dim"), "axis"),
    **dict.fromkeys(("perm", "pattern"), "axes"),
    **dict.fromkeys(("newshape", "target_shape"), "shape"),
    **dict.fromkeys(("clip_value_min", "min_value", "x_min"), "low"),
    **dict.fromkeys(("clip_value_max", "max_value", "x_max"), "high"),
    **dict.fromkeys(("depth", "num_classes"), "count"),
    **dict.fromkeys(("multiples", "n", "rep"), "repeats"),
    "alpha": "slope",
    "num_or_size_splits": "parts",
}


def canonical(name: str) -> str:
    """``tensorflow.keras.backend.mean`` as ``K.mean``: every module in a name by its short name."""
    parts = name.split(".")
    found = parts[0]
    for part in [*parts[1:], ""]:
        found = _MODULES.get(found, found)
        found = f"{found}.{part}" if part else found
    return found


def call(name: str, given: list[Any], keywords: dict[str, Any], *, of_tf_1: bool = False) -> Any:
    """What the function of the table gives for these values; NotUnderstood where it cannot be called so, or where
    TensorFlow 1 may be meant, which computes another thing."""
    function = OF_EITHER.get(name, FUNCTIONS[name]) if of_tf_1 else FUNCTIONS[name]
    signature = inspect.signature(function)
    label = keywords.pop("name", None)
    named = {key if key in signature.parameters else _KEYWORDS.get(key, key): item for key, item in keywords.items()}
    if len(named) != len(keywords) or not isinstance(label, (str, type(None))):
        raise NotUnderstood(f"the arguments of {name}")
    try:
        bound = signature.bind(*given, **named)
    except TypeError as error:
        raise NotUnderstood(f"the arguments of {name} ({error})") from error
    return function(*bound.args, **bound.kwargs)


# The table ------------------------------------------------------------------------------------------------------

_EVERYWHERE = ("tf", "K", "ops")
_UNARY = {
    **{name: name for name in ("square", "exp", "log", "sin", "cos", "tan", "tanh", "sigmoid", "softplus", "softsign")},
    **{name: name for name in ("sign", "floor", "ceil", "round", "zeros_like", "ones_like", "rsqrt", "expm1", "log1p")},
    **{name: name for name in ("sinh", "cosh", "erf", "relu6", "selu", "reciprocal", "logical_not", "stop_gradient")},
    "log_sigmoid": "log_sigmoid",
    "abs": "abs absolute",
    "negative": "negative neg",
    "silu": "silu swish",
    "arctan": "arctan atan",
    "arcsin": "arcsin asin",
    "arccos": "arccos acos",
    "copy": "identity copy",
}
_BINARY = {
    "add": "add",
    "subtract": "subtract",
    "multiply": "multiply",
    "true_divide": "divide truediv true_divide div",
    "floor_divide": "floordiv floor_divide",
    "mod": "mod floormod",
    "power": "pow power",
    **{name: name for name in ("maximum", "minimum", "equal", "not_equal", "greater", "greater_equal", "less")},
    **{name: name for name in ("less_equal", "logical_and", "logical_or")},
}
_REDUCTIONS = ("sum", "mean", "max", "min", "prod", "std", "var", "any", "all", "logsumexp")


def _entries() -> dict[str, Callable[..., Any]]:
    found: dict[str, Callable[..., Any]] = {}
    for operation, names in _UNARY.items():
        found |= {f"{module}.{name}": of.unary_operation(operation) for module in _EVERYWHERE for name in names.split()}
    for operation, names in _BINARY.items():
        found |= {
            f"{module}.{name}": of.binary_operation(operation) for module in _EVERYWHERE for name in names.split()
        }
    for operation in _REDUCTIONS:
        found |= {f"{module}.{operation}": of.reduction(operation) for module in ("K", "ops")}
        found[f"tf.reduce_{operation}"] = of.reduction(operation)
    for module in ("np", "math"):
        found |= {f"{module}.{name}": _numbers_only(name) for name in of.OF_NUMBERS}
    return found


def _numbers_only(operation: str) -> Callable[..., Any]:
    """NumPy on constants alone: on tensors it makes arrays of objects."""
    return lambda x: of.of_number(operation, x)


FUNCTIONS: dict[str, Callable[..., Any]] = {
    **_entries(),
    "abs": of.unary_operation("abs"),
    "pow": of.binary_operation("power"),
    "tf.sqrt": of.unary_operation("sqrt"),
    "ops.sqrt": of.unary_operation("sqrt"),
    "K.sqrt": of.positive_sqrt,
    "tf.reduce_variance": of.reduction("var"),
    "tf.to_float": lambda x: of.cast(x, "float32"),
    "tf.relu": of.unary_operation("relu"),
    "ops.relu": of.unary_operation("relu"),
    "K.relu": of.relu,
    "tf.leaky_relu": of.leaky_relu(0.2),
    "ops.leaky_relu": of.leaky_relu(0.2),
    "tf.elu": of.unary_operation("elu"),
    "K.elu": of.elu,
    "ops.elu": of.elu,
    "tf.gelu": of.gelu,
    "K.hard_sigmoid": of.hard_sigmoid,
    **{f"{module}.softmax": of.softmax("softmax", -1) for module in ("tf", "K")},
    **{f"{module}.softmax": of.softmax("softmax") for module in ("ops", "activations")},
    "tf.log_softmax": of.softmax("log_softmax", -1),
    "ops.log_softmax": of.softmax("log_softmax"),
    **{
        f"activations.{name}": of.unary_operation(name)
        for name in ("tanh", "sigmoid", "softplus", "softsign", "selu", "silu")
    },
    "activations.relu": of.relu,
    "activations.elu": of.elu,
    "activations.swish": of.unary_operation("silu"),
    "tf.concat": of.concatenate(None),
    "K.concatenate": of.concatenate(-1),
    "ops.concatenate": of.concatenate(0),
    **{f"{module}.stack": of.stack for module in _EVERYWHERE},
    "tf.add_n": of.add_n,
    "tf.unstack": of.unstack,
    "tf.split": of.split,
    "tf.argmax": of.arg("argmax", 0),
    "K.argmax": of.arg("argmax", -1),
    "tf.argmin": of.arg("argmin", 0),
    "K.argmin": of.arg("argmin", -1),
    "tf.cumsum": of.cumsum,
    "K.cumsum": of.cumsum,
    **{f"{module}.reshape": of.reshape for module in _EVERYWHERE},
    **{f"{module}.squeeze": of.squeeze for module in _EVERYWHERE},
    "tf.expand_dims": of.expand_dims(None),
    "K.expand_dims": of.expand_dims(-1),
    "ops.expand_dims": of.expand_dims(None),
    **{f"{module}.transpose": of.transpose for module in _EVERYWHERE},
    "K.permute_dimensions": of.transpose,
    "K.batch_flatten": of.batch_flatten,
    "K.flatten": of.flatten,
    **{f"{module}.tile": of.tile for module in _EVERYWHERE},
    "tf.repeat": of.repeat,
    "ops.repeat": of.repeat,
    "K.repeat_elements": of.repeat,
    "K.repeat": of.repeat_vector,
    "tf.reverse": of.reverse,
    "K.reverse": of.reverse,
    "ops.flip": of.reverse,
    "tf.roll": of.roll,
    "ops.roll": of.roll,
    "tf.gather": of.gather,
    "K.gather": of.gather,
    "tf.slice": of.cut,
    "tf.pad": of.pad,
    **{f"{module}.cast": of.cast for module in _EVERYWHERE},
    "tf.constant": of.constant,
    "K.constant": of.constant,
    "np.array": of.constant,
    "tf.convert_to_tensor": of.constant,
    "np.float32": lambda x: float(of.array(x)),
    "float": lambda x: float(of.array(x)),
    "tf.matmul": of.matmul,
    "ops.matmul": lambda x, y: of.matmul(x, y),
    "K.dot": of.dot,
    "K.batch_dot": of.batch_dot,
    "tf.l2_normalize": of.l2_normalize,
    "K.l2_normalize": lambda x, axis=None: of.l2_normalize(x, axis),
    "tf.norm": of.norm,
    "tf.squared_difference": of.squared_difference,
    "tf.clip_by_value": of.clip,
    "K.clip": of.clip,
    "ops.clip": of.clip,
    **{f"{module}.one_hot": of.one_hot for module in ("tf", "K")},
    "tf.where": of.where,
    "ops.where": of.where,
    "tf.image.resize": of.resize,
    "K.epsilon": lambda: 1e-7,
    "K.floatx": lambda: "float32",
    "tf.shape": of.shape_of,
    "K.shape": of.shape_of,
    "ops.shape": of.shape_of,
    "K.int_shape": of.static_shape,
    "K.ndim": of.rank,
    "tf.rank": of.rank,
}
OF_EITHER = {"tf.image.resize": of.resize_by_any}  # where a file may be of TensorFlow 1 as well as of 2
