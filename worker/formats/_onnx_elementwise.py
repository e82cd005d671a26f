"""ONNX operators that work on each element by itself, as TensorFlow operations.

Specification of each: https://github.com/onnx/onnx/blob/main/docs/Operators.md.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce
from typing import Any

from worker.formats._onnx_calls import Call, Operator, rank


def operators() -> dict[str, Operator]:
    """The functions by the operator's name."""
    return {**_unary(), **_binary(), **_activations(), **_others()}


def _unary() -> dict[str, Operator]:
    import tensorflow as tf

    plain: dict[str, Callable[[Any], Any]] = (
        {"Abs": tf.abs, "Neg": tf.negative, "Exp": tf.exp, "Log": tf.math.log, "Sqrt": tf.sqrt, "Sign": tf.sign}
        | {"Sin": tf.sin, "Cos": tf.cos, "Tan": tf.tan, "Asin": tf.asin, "Acos": tf.acos, "Atan": tf.atan}
        | {"Sinh": tf.sinh, "Cosh": tf.cosh, "Tanh": tf.tanh, "Asinh": tf.asinh, "Acosh": tf.acosh, "Atanh": tf.atanh}
        | {"Floor": tf.floor, "Ceil": tf.math.ceil, "Round": tf.round, "Erf": tf.math.erf, "IsNaN": tf.math.is_nan}
        | {"Reciprocal": tf.math.reciprocal, "Sigmoid": tf.sigmoid, "Relu": tf.nn.relu, "Softplus": tf.math.softplus}
        | {"Erfc": tf.math.erfc}  # not of ONNX: see _onnx_import
        | {"Softsign": tf.nn.softsign, "Not": tf.logical_not, "Identity": tf.identity, "BitwiseNot": tf.bitwise.invert}
    )
    return {name: _first(function) for name, function in plain.items()}


def _first(function: Callable[[Any], Any]) -> Operator:
    return lambda call: function(call[0])


def _binary() -> dict[str, Operator]:
    import tensorflow as tf

    plain: dict[str, Callable[[Any, Any], Any]] = (
        {"Add": tf.add, "Sub": tf.subtract, "Mul": tf.multiply, "Div": _divide, "Pow": _power}
        | {"Equal": tf.equal, "Greater": tf.greater, "GreaterOrEqual": tf.greater_equal, "Less": tf.less}
        | {"LessOrEqual": tf.less_equal, "And": tf.logical_and, "Or": tf.logical_or, "Xor": tf.math.logical_xor}
        | {"BitwiseAnd": tf.bitwise.bitwise_and, "BitwiseOr": tf.bitwise.bitwise_or}
        | {"BitwiseXor": tf.bitwise.bitwise_xor, "PRelu": _prelu}
    )
    return {name: _first_two(function) for name, function in plain.items()}


def _first_two(function: Callable[[Any, Any], Any]) -> Operator:
    return lambda call: function(*_aligned(call, call[0], call[1]))


def _aligned(call: Call, x: Any, y: Any) -> tuple[Any, Any]:
    """Before version 7 the second operand was set to an axis of the first one (``broadcast``, ``axis``)."""
    import tensorflow as tf

    axis = call.get("axis")
    if call.opset >= 7 or axis is None:
        return x, y
    behind = rank(x) - int(axis) % rank(x) - rank(y)
    return x, tf.reshape(y, tf.concat([tf.shape(y), [1] * behind], 0)) if behind > 0 else y


def _divide(x: Any, y: Any) -> Any:
    """Integers are divided towards zero."""
    import tensorflow as tf

    return tf.truncatediv(x, y) if tf.as_dtype(x.dtype).is_integer else tf.divide(x, y)


def _power(x: Any, y: Any) -> Any:
    """The result has the type of the base."""
    import tensorflow as tf

    base, exponent = tf.as_dtype(x.dtype), tf.as_dtype(y.dtype)
    if base == exponent:
        return tf.pow(x, y)
    if base.is_floating:
        return tf.pow(x, tf.cast(y, base))
    return tf.cast(tf.pow(tf.cast(x, exponent), y), base)


def _prelu(x: Any, slope: Any) -> Any:
    import tensorflow as tf

    return tf.maximum(x, tf.zeros((), x.dtype)) + slope * tf.minimum(x, tf.zeros((), x.dtype))


def _activations() -> dict[str, Operator]:
    return (
        {"LeakyRelu": _leaky_relu, "Elu": _elu, "Selu": _selu, "Celu": _celu, "Gelu": _gelu, "Mish": _mish}
        | {"HardSigmoid": _hard_sigmoid, "HardSwish": _hard_swish, "ThresholdedRelu": _thresholded_relu}
        | {"Shrink": _shrink, "Swish": _swish, "Softmax": _softmax, "LogSoftmax": _log_softmax, "Hardmax": _hardmax}
    )


def _leaky_relu(call: Call) -> Any:
    import tensorflow as tf

    return tf.nn.leaky_relu(call[0], call.get("alpha", 0.01))


def _elu(call: Call) -> Any:
    import tensorflow as tf

    alpha = call.get("alpha", 1.0)
    return tf.nn.elu(call[0]) if alpha == 1.0 else tf.where(call[0] > 0, call[0], alpha * tf.nn.elu(call[0]))


def _selu(call: Call) -> Any:
    import tensorflow as tf

    alpha, gamma = call.get("alpha", 1.67326319217681884765625), call.get("gamma", 1.05070102214813232421875)
    x = tf.convert_to_tensor(call[0])
    return gamma * (tf.nn.relu(x) + alpha * tf.math.expm1(tf.minimum(x, tf.zeros((), x.dtype))))


def _celu(call: Call) -> Any:
    import tensorflow as tf

    alpha, x = call.get("alpha", 1.0), tf.convert_to_tensor(call[0])
    return tf.nn.relu(x) + alpha * tf.math.expm1(tf.minimum(x, tf.zeros((), x.dtype)) / alpha)


def _gelu(call: Call) -> Any:
    import tensorflow as tf

    return tf.nn.gelu(call[0], approximate=call.get("approximate", "none") == "tanh")


def _mish(call: Call) -> Any:
    import tensorflow as tf

    return call[0] * tf.tanh(tf.math.softplus(call[0]))


def _hard_sigmoid(call: Call) -> Any:
    import tensorflow as tf

    return tf.clip_by_value(call.get("alpha", 0.2) * call[0] + call.get("beta", 0.5), 0.0, 1.0)


def _hard_swish(call: Call) -> Any:
    import tensorflow as tf

    return call[0] * tf.clip_by_value(call[0] / 6 + 0.5, 0.0, 1.0)


def _thresholded_relu(call: Call) -> Any:
    import tensorflow as tf

    return tf.where(call[0] > call.get("alpha", 1.0), call[0], tf.zeros_like(call[0]))


def _shrink(call: Call) -> Any:
    import tensorflow as tf

    x, bias, edge = call[0], call.get("bias", 0.0), call.get("lambd", 0.5)
    return tf.where(x < -edge, x + bias, tf.where(x > edge, x - bias, tf.zeros_like(x)))


def _swish(call: Call) -> Any:
    import tensorflow as tf

    return call[0] * tf.sigmoid(call.get("alpha", 1.0) * call[0])


def _softmax(call: Call) -> Any:
    import tensorflow as tf

    return _over_axis(call, tf.nn.softmax)


def _log_softmax(call: Call) -> Any:
    import tensorflow as tf

    return _over_axis(call, tf.nn.log_softmax)


def _hardmax(call: Call) -> Any:
    import tensorflow as tf

    def hardmax(x: Any, axis: int) -> Any:
        return tf.one_hot(tf.argmax(x, axis), tf.shape(x)[axis], axis=axis, dtype=x.dtype)

    return _over_axis(call, hardmax)


def _over_axis(call: Call, function: Callable[[Any, int], Any]) -> Any:
    """Since version 13 over one axis; before, over all from ``axis`` on, taken together."""
    import tensorflow as tf

    x = tf.convert_to_tensor(call[0])
    if call.opset >= 13:
        return function(x, int(call.get("axis", -1)))
    axis = int(call.get("axis", 1)) % rank(x)
    if axis == rank(x) - 1:
        return function(x, -1)
    flat = tf.reshape(x, tf.concat([tf.shape(x)[:axis], [-1]], 0))
    result = tf.reshape(function(flat, -1), tf.shape(x))
    result.set_shape(x.shape)
    return result


def _others() -> dict[str, Operator]:
    import tensorflow as tf

    return (
        {"Sum": _chained(tf.add), "Max": _chained(tf.maximum), "Min": _chained(tf.minimum), "Mean": _mean}
        | {"Clip": _clip, "Cast": _cast, "CastLike": lambda call: tf.cast(call[0], call[1].dtype), "Mod": _mod}
        | {"Where": lambda call: tf.where(call[0], call[1], call[2]), "IsInf": _is_inf, "BitShift": _bit_shift}
        | {"Dropout": _dropout, "Trilu": _trilu}
    )


def _chained(function: Callable[[Any, Any], Any]) -> Operator:
    return lambda call: reduce(function, call.inputs)


def _mean(call: Call) -> Any:
    import tensorflow as tf

    return reduce(tf.add, call.inputs) / len(call.inputs)


def _clip(call: Call) -> Any:
    """The bounds are attributes up to version 10, inputs since 11; either may be left out."""
    import tensorflow as tf

    x = tf.convert_to_tensor(call[0])
    low, high = (call.get("min"), call.get("max")) if call.opset < 11 else (call[1], call[2])
    x = x if low is None else tf.maximum(x, tf.cast(low, x.dtype))
    return x if high is None else tf.minimum(x, tf.cast(high, x.dtype))


def _cast(call: Call) -> Any:
    import tensorflow as tf

    from worker.formats._onnx_file import dtype_name

    to = dtype_name(int(call.get("to")))
    x = tf.convert_to_tensor(call[0])
    if to == "string":
        return tf.as_string(x)
    return tf.strings.to_number(x, to) if x.dtype == tf.string else tf.cast(x, to)


def _mod(call: Call) -> Any:
    """With ``fmod`` the sign is the dividend's, otherwise the divisor's."""
    import tensorflow as tf

    return tf.truncatemod(call[0], call[1]) if call.get("fmod", 0) else tf.math.floormod(call[0], call[1])


def _is_inf(call: Call) -> Any:
    import tensorflow as tf

    x = call[0]
    found = tf.math.is_inf(x)
    found = found if call.get("detect_negative", 1) else found & (x > 0)
    return found if call.get("detect_positive", 1) else found & (x < 0)


def _bit_shift(call: Call) -> Any:
    import tensorflow as tf

    shift = tf.bitwise.left_shift if call.get("direction") == "LEFT" else tf.bitwise.right_shift
    return shift(call[0], call[1])


def _dropout(call: Call) -> Any:
    """Nothing is dropped where a model is used."""
    import tensorflow as tf

    return (call[0], tf.ones_like(call[0], tf.bool)) if call.wanted > 1 else tf.identity(call[0])


def _trilu(call: Call) -> Any:
    import tensorflow as tf

    x, offset = call[0], call.known(1)[0] if call[1] is not None else 0
    rows, columns = tf.range(tf.shape(x)[-2])[:, None], tf.range(tf.shape(x)[-1])[None, :]
    keep = columns - rows >= offset if call.get("upper", 1) else columns - rows <= offset
    return tf.where(keep, x, tf.zeros_like(x))
