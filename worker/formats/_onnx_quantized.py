"""ONNX' quantised operators as TensorFlow operations on floating numbers, rounded at the same places."""

from __future__ import annotations

from typing import Any

from worker.formats._onnx_calls import Call, Operator, rank
from worker.formats._onnx_neural import channels_first, channels_last, convolve, matmul


def operators() -> dict[str, Operator]:
    """The functions by the operator's name."""
    return (
        {"QuantizeLinear": _quantize_linear, "DequantizeLinear": _dequantize_linear}
        | {"DynamicQuantizeLinear": _dynamic_quantize_linear, "MatMulInteger": _matmul_integer}
        | {"ConvInteger": _conv_integer, "QLinearMatMul": _qlinear_matmul, "QLinearConv": _qlinear_conv}
    )


def _along(values: Any, x: Any, axis: int) -> Any:
    """One value, or one for each place along an axis of x."""
    import tensorflow as tf

    values = tf.convert_to_tensor(values)
    if rank(values) == 0 or values.shape[0] == 1:
        return tf.reshape(values, ())
    shape = [1] * rank(x)
    shape[axis] = -1
    return tf.reshape(values, shape)


def _quantize_linear(call: Call) -> Any:
    import tensorflow as tf

    x, axis = tf.convert_to_tensor(call[0]), int(call.get("axis", 1))
    if call.get("block_size", 0):
        raise call.refused("it has a scale for each block")
    kind = tf.uint8 if call[2] is None else tf.as_dtype(call[2].dtype)
    scaled = tf.round(x / _along(call[1], x, axis))
    zero = 0.0 if call[2] is None else _along(tf.cast(call[2], scaled.dtype), x, axis)
    return _saturated(scaled + zero, kind)


def _saturated(x: Any, kind: Any) -> Any:
    import tensorflow as tf

    low, high = tf.cast(kind.min, x.dtype), tf.cast(kind.max, x.dtype)
    return tf.cast(tf.clip_by_value(x, low, high), kind)


def _dequantize_linear(call: Call) -> Any:
    if call.get("block_size", 0):
        raise call.refused("it has a scale for each block")
    return _real(call[0], call[1], call[2], int(call.get("axis", 1)))


def _real(x: Any, scale: Any, zero: Any, axis: int = 1) -> Any:
    import tensorflow as tf

    x = tf.convert_to_tensor(x)
    scale = tf.convert_to_tensor(scale)
    wide = tf.cast(x, scale.dtype)
    wide = wide if zero is None else wide - _along(tf.cast(zero, scale.dtype), x, axis)
    return wide * _along(scale, x, axis)


def _dynamic_quantize_linear(call: Call) -> Any:
    """To uint8, with a scale that just holds the values and zero."""
    import tensorflow as tf

    x = call[0]
    low, high = tf.minimum(tf.reduce_min(x), 0.0), tf.maximum(tf.reduce_max(x), 0.0)
    scale = (high - low) / 255
    zero = tf.round(tf.clip_by_value(tf.math.divide_no_nan(-low, scale), 0.0, 255.0))
    quantised = tf.clip_by_value(tf.round(tf.math.divide_no_nan(x, scale)) + zero, 0.0, 255.0)
    return tf.cast(quantised, tf.uint8), scale, tf.cast(zero, tf.uint8)


def _whole(x: Any, zero: Any, axis: int, dtype: Any) -> Any:
    """Integers without their zero point, in a type that the product is exact in."""
    import tensorflow as tf

    x = tf.cast(x, dtype)
    return x if zero is None else x - _along(tf.cast(zero, dtype), x, axis)


def _matmul_integer(call: Call) -> Any:
    import tensorflow as tf

    a, b = _whole(call[0], call[2], -2, tf.int32), _whole(call[1], call[3], -1, tf.int32)
    return matmul(a, b)


def _conv_integer(call: Call) -> Any:
    import tensorflow as tf

    x, kernel = _whole(call[0], call[2], 1, tf.float64), _whole(call[1], call[3], 0, tf.float64)
    return tf.cast(tf.round(channels_first(convolve(call, channels_last(x), kernel))), tf.int32)


def _requantised(x: Any, scale: Any, zero: Any) -> Any:
    import tensorflow as tf

    zero = tf.convert_to_tensor(zero)
    return _saturated(tf.round(x / _along(scale, x, 1)) + tf.cast(zero, x.dtype), zero.dtype)


def _qlinear_matmul(call: Call) -> Any:
    a, b = _real(call[0], call[1], call[2], -2), _real(call[3], call[4], call[5], -1)
    return _requantised(matmul(a, b), call[6], call[7])


def _qlinear_conv(call: Call) -> Any:
    x, kernel = _real(call[0], call[1], call[2]), _real(call[3], call[4], call[5], 0)
    result = channels_first(convolve(call, channels_last(x), kernel))
    if call[8] is not None:
        import tensorflow as tf

        scale = tf.reshape(call[1], ()) * call[4]
        bias = tf.cast(call[8], scale.dtype) * scale
        result = result + tf.reshape(bias, [1, -1, *[1] * (rank(result) - 2)])
    return _requantised(result, call[6], call[7])
