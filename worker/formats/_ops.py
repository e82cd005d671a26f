"""Single operations inside a functional model: ``tf.nn.relu(x * 2 + 1)`` between two layers.

Keras 2 stored them as TFOpLambda, SlicingOpLambda or TensorFlowOpLayer. Each is mapped to an operation of Keras 3 by an
allow-list; nothing is ever looked up by the name a file gives.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache
from typing import Any

from worker.errors import ModelError
from worker.formats._architecture import Node
from worker.report import Severity, declare

OPERATION_LAYERS = frozenset({"TFOpLambda", "SlicingOpLambda", "TensorFlowOpLayer"})

REPLACED = declare("repaired-operation", Severity.NOTE, "The TensorFlow operation {operation} became keras.ops.{new}.")

# TensorFlow's name (exported symbol or graph op) -> keras.ops name, arguments in the same order.
_SAME_ORDER = {
    "add": "add Add AddV2 math.add __operators__.add",
    "subtract": "subtract Sub math.subtract",
    "multiply": "multiply Mul math.multiply",
    "true_divide": "divide math.divide truediv RealDiv math.truediv div",
    "floor_divide": "math.floordiv FloorDiv",
    "mod": "math.floormod math.mod FloorMod",
    "power": "pow Pow math.pow",
    "maximum": "maximum Maximum math.maximum",
    "minimum": "minimum Minimum math.minimum",
    "negative": "negative Neg math.negative",
    "abs": "abs Abs math.abs",
    "square": "square Square math.square",
    "sqrt": "sqrt Sqrt math.sqrt",
    "rsqrt": "math.rsqrt Rsqrt",
    "exp": "exp Exp math.exp",
    "log": "log Log math.log",
    "log1p": "math.log1p Log1p",
    "expm1": "math.expm1 Expm1",
    "sin": "sin Sin math.sin",
    "cos": "cos Cos math.cos",
    "tan": "tan Tan math.tan",
    "tanh": "tanh Tanh math.tanh nn.tanh",
    "sign": "sign Sign math.sign",
    "floor": "floor Floor math.floor",
    "ceil": "math.ceil Ceil",
    "round": "round Round math.round",
    "erf": "math.erf Erf",
    "sigmoid": "sigmoid Sigmoid math.sigmoid nn.sigmoid",
    "relu": "nn.relu Relu",
    "relu6": "nn.relu6 Relu6",
    "elu": "nn.elu Elu",
    "selu": "nn.selu Selu",
    "silu": "nn.silu nn.swish",
    "softplus": "math.softplus nn.softplus Softplus",
    "softsign": "nn.softsign math.softsign Softsign",
    "equal": "equal Equal math.equal",
    "not_equal": "not_equal NotEqual math.not_equal",
    "greater": "greater Greater math.greater",
    "greater_equal": "greater_equal GreaterEqual math.greater_equal",
    "less": "less Less math.less",
    "less_equal": "less_equal LessEqual math.less_equal",
    "logical_and": "logical_and LogicalAnd math.logical_and",
    "logical_or": "logical_or LogicalOr math.logical_or",
    "logical_not": "logical_not LogicalNot math.logical_not",
    "reshape": "reshape Reshape",
    "expand_dims": "expand_dims ExpandDims",
    "identity": "identity Identity",
    "stop_gradient": "stop_gradient StopGradient",
    "zeros_like": "zeros_like",
    "ones_like": "ones_like",
    "tile": "tile Tile",
    "where": "where SelectV2",
    "arctan2": "math.atan2 atan2",
    "arctan": "math.atan atan Atan",
    "arcsin": "math.asin asin Asin",
    "arccos": "math.acos acos Acos",
    "sinh": "math.sinh sinh Sinh",
    "cosh": "math.cosh cosh Cosh",
    "reciprocal": "math.reciprocal Reciprocal Inv",
    "isnan": "math.is_nan IsNan",
    "isfinite": "math.is_finite IsFinite",
    "log_sigmoid": "math.log_sigmoid",
    "broadcast_to": "broadcast_to BroadcastTo",
    "roll": "roll",
}

_SPELLED = {"identity": "copy"}


@cache
def _table() -> dict[str, tuple[str, Callable[..., Any]]]:
    """TensorFlow's name to the name in keras.ops and a function that takes TensorFlow's arguments."""
    from keras import ops

    found = {
        name: (target, _by_position(getattr(ops, _SPELLED.get(target, target))))
        for target, names in _SAME_ORDER.items()
        for name in names.split()
    }
    return found | {name: entry for names, entry in _rearranged(ops).items() for name in names.split()}


def _rearranged(ops: Any) -> dict[str, tuple[str, Callable[..., Any]]]:
    """Operations whose arguments have other names or another order in keras.ops."""
    return {
        "concat": ("concatenate", lambda values, axis=-1: ops.concatenate(values, axis=axis)),
        "ConcatV2": ("concatenate", lambda *values: ops.concatenate(values[:-1], axis=int(values[-1]))),
        "stack": ("stack", lambda values, axis=0: ops.stack(values, axis=axis)),
        "cast Cast": ("cast", lambda x, dtype: ops.cast(x, _dtype_name(dtype))),
        "transpose Transpose": ("transpose", lambda a, perm=None: ops.transpose(a, perm)),
        "squeeze Squeeze": ("squeeze", lambda input, axis=None: ops.squeeze(input, axis)),
        "clip_by_value ClipByValue": ("clip", _by_position(ops.clip)),
        "nn.softmax Softmax": ("softmax", lambda logits, axis=-1: ops.softmax(logits, axis)),
        "nn.log_softmax LogSoftmax": ("log_softmax", lambda logits, axis=-1: ops.log_softmax(logits, axis)),
        "nn.leaky_relu": ("leaky_relu", lambda features, alpha=0.2: ops.leaky_relu(features, alpha)),
        "nn.gelu": ("gelu", lambda features, approximate=False: ops.gelu(features, approximate)),
        "math.reduce_sum Sum": ("sum", _reduction(ops.sum)),
        "math.reduce_mean Mean": ("mean", _reduction(ops.mean)),
        "math.reduce_max Max": ("max", _reduction(ops.max)),
        "math.reduce_min Min": ("min", _reduction(ops.min)),
        "math.reduce_prod Prod": ("prod", _reduction(ops.prod)),
        "math.l2_normalize nn.l2_normalize linalg.l2_normalize": ("rsqrt", _l2_normalize(ops)),
        "math.reduce_std": ("std", _reduction(ops.std)),
        "math.reduce_variance": ("var", _reduction(ops.var)),
        "math.reduce_logsumexp": ("logsumexp", _reduction(ops.logsumexp)),
        "math.reduce_any Any": ("any", _reduction(ops.any)),
        "math.reduce_all All": ("all", _reduction(ops.all)),
        **_picking(ops),
        "linalg.matmul matmul MatMul BatchMatMulV2": ("matmul", _matmul(ops)),
        "math.argmax ArgMax": ("argmax", lambda input, axis=0, output_type="": ops.argmax(input, axis)),
        "math.squared_difference SquaredDifference": ("square", lambda x, y: ops.square(ops.subtract(x, y))),
        "one_hot": ("one_hot", lambda indices, depth: ops.one_hot(indices, depth)),
        "pad Pad": ("pad", _pad(ops)),
        "__operators__.getitem": ("get_item", lambda tensor, slice_spec: ops.get_item(tensor, _slices(slice_spec))),
    }


def _picking(ops: Any) -> dict[str, tuple[str, Callable[..., Any]]]:
    """Operations that take tensors apart, pick from them, or put them in another order."""
    return {
        "split": ("split", lambda value, num_or_size_splits, axis=0: _split(ops, value, num_or_size_splits, axis)),
        "unstack": ("unstack", lambda value, num=None, axis=0: ops.unstack(value, num, axis)),
        "gather": ("take", _gather(ops)),
        "reverse": ("flip", lambda tensor, axis: ops.flip(tensor, axis=tuple(axis))),
        "repeat": ("repeat", lambda input, repeats, axis=None: ops.repeat(input, repeats, axis)),
        "einsum linalg.einsum": ("einsum", lambda equation, *inputs: ops.einsum(equation, *inputs)),
        "math.top_k nn.top_k": ("top_k", lambda input, k=1, sorted=True: ops.top_k(input, k, sorted)),
        "math.argmin ArgMin": ("argmin", lambda input, axis=0, output_type="": ops.argmin(input, axis)),
        "math.add_n AddN": ("sum", lambda inputs: ops.sum(ops.stack(inputs), axis=0)),
        "nn.bias_add BiasAdd": ("add", lambda value, bias: ops.add(value, bias)),
        "math.cumsum": ("cumsum", lambda x, axis=0: ops.cumsum(x, axis)),
        "image.resize": ("image.resize", lambda images, size, method="bilinear": _resize(ops, images, size, method)),
    }


def _split(ops: Any, value: Any, sizes: Any, axis: int) -> Any:
    """TensorFlow takes the sizes of the parts, keras.ops the places where they begin."""
    if isinstance(sizes, int):
        return ops.split(value, sizes, axis)
    return ops.split(value, [sum(sizes[:count]) for count in range(1, len(sizes))], axis)


def _gather(ops: Any) -> Callable[..., Any]:
    def gather(params: Any, indices: Any, axis: int = 0, batch_dims: int = 0, validate_indices: Any = None) -> Any:
        if batch_dims:
            raise ModelError(problem="it gathers with batch_dims, which keras.ops.take does not have")
        return ops.take(params, indices, axis=axis)

    return gather


def _pad(ops: Any) -> Callable[..., Any]:
    def pad(tensor: Any, paddings: Any, mode: str = "CONSTANT", constant_values: Any = 0) -> Any:
        kind = mode.lower()
        return ops.pad(tensor, paddings, kind, constant_values if kind == "constant" else None)

    return pad


def _resize(ops: Any, images: Any, size: Any, method: str) -> Any:
    if method not in ("nearest", "bilinear", "bicubic", "lanczos3", "lanczos5"):
        raise ModelError(problem=f"it resizes images with the method {method}, which keras.ops does not have")
    return ops.image.resize(images, tuple(size), interpolation=method)


def _by_position(operation: Callable[..., Any]) -> Callable[..., Any]:
    """Only the names of the arguments differ: pass them in their order."""
    return lambda *args, **kwargs: operation(*args, *kwargs.values())


def _reduction(operation: Callable[..., Any]) -> Callable[..., Any]:
    """TensorFlow's reductions take ``axis`` and ``keepdims`` as keras.ops does, behind another first name."""

    def reduce(input_tensor: Any, axis: Any = None, keepdims: bool = False) -> Any:
        return operation(input_tensor, axis=tuple(axis) if isinstance(axis, list) else axis, keepdims=bool(keepdims))

    return reduce


def _matmul(ops: Any) -> Callable[..., Any]:
    """TensorFlow transposes the last two axes on the way."""

    def matmul(a: Any, b: Any, transpose_a: bool = False, transpose_b: bool = False) -> Any:
        first = ops.swapaxes(a, -1, -2) if transpose_a else a
        return ops.matmul(first, ops.swapaxes(b, -1, -2) if transpose_b else b)

    return matmul


def _l2_normalize(ops: Any) -> Callable[..., Any]:
    """TensorFlow clamps the squared norm from below, not the norm."""

    def normalize(x: Any, axis: Any = None, epsilon: float = 1e-12) -> Any:
        total = ops.sum(ops.square(x), axis=axis, keepdims=True)
        return ops.multiply(x, ops.rsqrt(ops.maximum(total, epsilon)))

    return normalize


def _dtype_name(dtype: Any) -> str:
    names = {1: "float32", 2: "float64", 3: "int32", 9: "int64", 10: "bool", 19: "float16"}
    return (
        names.get(dtype, str(dtype).removeprefix("tf.")) if isinstance(dtype, int) else str(dtype).removeprefix("tf.")
    )


def _slices(spec: Any) -> Any:
    """``{"start": …, "stop": …, "step": …}`` and friends back into what goes between square brackets."""
    if isinstance(spec, dict):
        return slice(spec.get("start"), spec.get("stop"), spec.get("step"))
    if isinstance(spec, list):
        return tuple(_slices(item) for item in spec)
    return Ellipsis if spec in ("...", "Ellipsis") else spec


def operation(node: Node) -> tuple[str, str, Callable[..., Any]]:
    """The TensorFlow name, the keras.ops name and the function of an operation node; ModelError for any other."""
    name = _function_name(node)
    if name not in _table():
        raise ModelError(problem=f"it contains the TensorFlow operation {name}, which has no equal among keras.ops")
    new, call = _table()[name]
    if node["class_name"] == "TensorFlowOpLayer":
        return name, new, _with_constants(call, node["config"].get("constants") or {}, _definition(node))
    return name, new, _without_defaults(call)


def _without_defaults(call: Callable[..., Any]) -> Callable[..., Any]:
    """Leave out the name of the operation and arguments that were not given."""

    def apply(*args: Any, name: str | None = None, **kwargs: Any) -> Any:
        return call(*args, **{key: value for key, value in kwargs.items() if value is not None and value is not False})

    return apply


def _function_name(node: Node) -> str:
    if node["class_name"] == "TensorFlowOpLayer":
        return str(_definition(node).get("op"))
    if node["class_name"] == "SlicingOpLambda":
        return "__operators__.getitem"
    return str(node["config"].get("function")).removeprefix("compat.v1.")


def _definition(node: Node) -> dict[str, Any]:
    """The NodeDef of a TensorFlowOpLayer, which the config holds as a JSON text or as an object."""
    value = node["config"].get("node_def") or {}
    return dict(json.loads(value) if isinstance(value, str) else value)


def _with_constants(
    call: Callable[..., Any], constants: dict[str, Any], definition: dict[str, Any]
) -> Callable[..., Any]:
    """Put the constants, which are stored by position, back between the tensors."""
    attributes = definition.get("attr") or {}
    keep = attributes.get("keep_dims", {}).get("b", False)
    extra = {"keepdims": keep} if "keep_dims" in attributes else {}

    def apply(*tensors: Any) -> Any:
        flat = list(tensors[0]) if len(tensors) == 1 and isinstance(tensors[0], (list, tuple)) else list(tensors)
        for position in sorted(constants, key=int):
            flat.insert(int(position), constants[position])
        return call(*flat, **extra)

    return apply
