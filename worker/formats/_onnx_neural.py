"""ONNX' layers (convolutions, pooling, normalisation, products, resizing) as TensorFlow operations.

ONNX puts the channels first; TensorFlow computes on a processor with the channels last, so they move there and back.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from worker.formats._onnx_calls import Call, Operator, rank, sizes


def operators() -> dict[str, Operator]:
    """The functions by the operator's name."""
    return (
        {"Conv": _conv, "ConvTranspose": _conv_transpose, "MaxPool": _max_pool, "AveragePool": _average_pool}
        | {"GlobalAveragePool": _global_average_pool, "GlobalMaxPool": _global_max_pool, "LRN": _lrn}
        | {"BatchNormalization": _batch_normalization, "InstanceNormalization": _instance_normalization}
        | {"LayerNormalization": _layer_normalization, "GroupNormalization": _group_normalization}
        | {"RMSNormalization": _rms_normalization, "LpNormalization": _lp_normalization}
        | {"MeanVarianceNormalization": _mean_variance_normalization}
        | {"Gemm": _gemm, "MatMul": lambda call: matmul(call[0], call[1]), "Einsum": _einsum}
    )


def channels_last(x: Any) -> Any:
    """N C … as N … C."""
    import tensorflow as tf

    return tf.transpose(x, [0, *range(2, rank(x)), 1])


def channels_first(x: Any) -> Any:
    """N … C as N C …."""
    import tensorflow as tf

    return tf.transpose(x, [0, rank(x) - 1, *range(1, rank(x) - 1)])


# Windows ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Window:
    """What slides over the spatial dimensions of a convolution or a pool."""

    kernel: list[int]
    strides: list[int]
    dilations: list[int]
    pads: list[int]  # begins, then ends
    auto: str
    ceil: bool

    @property
    def extent(self) -> list[int]:
        """How far the window reaches, with its gaps."""
        return [(size - 1) * gap + 1 for size, gap in zip(self.kernel, self.dilations, strict=True)]


def window_of(call: Call, kernel: list[int]) -> Window:
    count = len(kernel)
    return Window(
        kernel,
        [int(item) for item in call.get("strides", [1] * count)],
        [int(item) for item in call.get("dilations", [1] * count)],
        [int(item) for item in call.get("pads", [0] * 2 * count)],
        call.get("auto_pad", "NOTSET"),
        bool(call.get("ceil_mode", 0)),
    )


def paddings(x: Any, window: Window) -> tuple[list[list[Any]], list[Any]]:
    """[begin, end] of every spatial dimension of a channels-last tensor, and what rounding up adds at each end."""
    found, extra = [], []
    for place, size in enumerate(sizes(x)[1:-1]):
        reach, stride = window.extent[place], window.strides[place]
        if window.auto in ("SAME_UPPER", "SAME_LOWER"):
            total = _at_least_zero((-(-size // stride) - 1) * stride + reach - size)
            half = total // 2
            pair = [half, total - half] if window.auto == "SAME_UPPER" else [total - half, half]
        else:
            given = [window.pads[place], window.pads[place + len(window.kernel)]]
            pair = given if window.auto == "NOTSET" else [0, 0]
        found.append(pair)
        extra.append(_rounding(size, pair, reach, stride) if window.ceil else 0)
    return found, extra


def _rounding(size: Any, pair: list[Any], reach: int, stride: int) -> Any:
    """What the last window lacks where the number of windows is rounded up; it has to begin before the end padding."""
    import tensorflow as tf

    total = size + pair[0] + pair[1]
    windows = -(-(total - reach) // stride) + 1
    starts_outside = (windows - 1) * stride >= size + pair[0]
    if isinstance(starts_outside, bool):
        windows -= int(starts_outside)
    else:
        windows -= tf.cast(starts_outside, tf.int32)
    return _at_least_zero((windows - 1) * stride + reach - total)


def _at_least_zero(value: Any) -> Any:
    import tensorflow as tf

    return max(0, value) if isinstance(value, int) else tf.maximum(value, 0)


def pad_spatial(x: Any, pads: list[list[Any]], value: Any = 0) -> Any:
    """A channels-last tensor with its spatial dimensions padded."""
    import tensorflow as tf

    if all(isinstance(size, int) and size == 0 for pair in pads for size in pair):
        return x
    return tf.pad(x, [[0, 0], *pads, [0, 0]], constant_values=tf.cast(value, x.dtype))


# Convolutions -----------------------------------------------------------------------------------------------------


def _conv(call: Call) -> Any:
    return channels_first(_with_bias(convolve(call, channels_last(call[0]), call[1]), call[2]))


def _with_bias(x: Any, bias: Any) -> Any:
    return x if bias is None else x + bias


def convolve(call: Call, x: Any, kernel: Any) -> Any:
    """The convolution of a channels-last tensor with a kernel as ONNX has it (out, in per group, …)."""
    import tensorflow as tf

    window = window_of(call, [int(size) for size in kernel.shape[2:]])
    groups = int(call.get("group", 1))
    same = window.auto == "SAME_UPPER"
    x = x if same else pad_spatial(x, paddings(x, window)[0])
    kernel = tf.transpose(kernel, [*range(2, rank(kernel)), 1, 0])
    padding = "SAME" if same else "VALID"
    if groups > 1 and kernel.shape[-2] == 1 and len(window.kernel) <= 2:
        return _depthwise(x, kernel, window, padding, groups)
    if groups == 1:
        return tf.nn.convolution(x, kernel, window.strides, padding, dilations=window.dilations)
    parts = zip(tf.split(x, groups, -1), tf.split(kernel, groups, -1), strict=True)
    results = [tf.nn.convolution(a, b, window.strides, padding, dilations=window.dilations) for a, b in parts]
    return tf.concat(results, -1)


def _depthwise(x: Any, kernel: Any, window: Window, padding: str, groups: int) -> Any:
    """One group for each channel. TensorFlow wants two dimensions, equal strides, and none together with gaps."""
    import tensorflow as tf

    flat = len(window.kernel) == 1
    strides, gaps = ([1, *window.strides], [1, *window.dilations]) if flat else (window.strides, window.dilations)
    x, kernel = (x[:, None], kernel[None]) if flat else (x, kernel)
    each = int(kernel.shape[-1]) // groups
    kernel = tf.reshape(kernel, [*kernel.shape[:2], groups, each])
    direct = (strides[0] == strides[1] and (max(gaps) == 1 or max(strides) == 1)) or padding == "SAME"
    taken = [1, strides[0], strides[1], 1] if direct else [1, 1, 1, 1]
    if flat and direct and strides[1] > 1:
        taken = [1, strides[1], strides[1], 1]  # the other dimension has the size 1
    result = tf.nn.depthwise_conv2d(x, kernel, taken, padding, dilations=gaps)
    result = result if direct else result[:, :: strides[0], :: strides[1]]
    return result[:, 0] if flat else result


def _conv_transpose(call: Call) -> Any:
    """The whole result first, then the part of it that padding leaves."""
    import tensorflow as tf

    x, groups = channels_last(call[0]), int(call.get("group", 1))
    window = window_of(call, [int(size) for size in call[1].shape[2:]])
    kernel = _dilated(tf.transpose(call[1], [*range(2, rank(call[1])), 1, 0]), window.dilations)
    parts = zip(tf.split(x, groups, -1), tf.split(kernel, groups, -1), strict=True)
    whole = tf.concat([_spread(a, b, window) for a, b in parts], -1)
    return channels_first(_with_bias(_cut(call, x, whole, window), call[2]))


def _dilated(kernel: Any, gaps: list[int]) -> Any:
    """The kernel with zeros in its gaps, which TensorFlow's transposed convolution does not know on a processor."""
    import tensorflow as tf

    for axis, gap in enumerate(gaps):
        if gap > 1:
            size = int(kernel.shape[axis])
            kernel = tf.expand_dims(kernel, axis + 1)
            pads = [[0, 0]] * rank(kernel)
            pads[axis + 1] = [0, gap - 1]
            shape = [int(length) for length in kernel.shape]
            shape[axis : axis + 2] = [size * gap]
            kernel = tf.reshape(tf.pad(kernel, pads), shape)
            kernel = tf.gather(kernel, list(range((size - 1) * gap + 1)), axis=axis)
    return kernel


def _spread(x: Any, kernel: Any, window: Window) -> Any:
    """The transposed convolution without any padding; x and the kernel are channels-last, the kernel (…, out, in)."""
    import tensorflow as tf

    lengths = sizes(x)
    spatial = [
        (length - 1) * stride + reach
        for length, stride, reach in zip(lengths[1:-1], window.strides, window.extent, strict=True)
    ]
    shape = [lengths[0], *spatial, int(kernel.shape[-2])]
    return tf.nn.conv_transpose(x, kernel, tf.stack(shape), window.strides, "VALID")


def _cut(call: Call, x: Any, whole: Any, window: Window) -> Any:
    """What is left between the begin and end paddings. Zeros are added at the end where the result is to be longer."""
    count = len(window.kernel)
    goals = call.get("output_shape")
    parts: list[Any] = [slice(None)]
    ends = []
    for place in range(count):
        added = int(call.get("output_padding", [0] * count)[place])
        length, stride = sizes(x)[1 + place], window.strides[place]
        size = (length - 1) * stride + window.extent[place]
        first, last = window.pads[place], window.pads[place + count] - added
        if goals is not None or window.auto.startswith("SAME"):
            goal = length * stride if goals is None else int(goals[place - count])
            total = _at_least_zero(size + added - goal)
            first = total // 2 if window.auto == "SAME_UPPER" else total - total // 2
            last = size - first - goal
        ends.append([0, _at_least_zero(-last)])
        parts.append(slice(first, size - last))
    return pad_spatial(whole, ends)[tuple(parts)]


# Pooling ----------------------------------------------------------------------------------------------------------


def _kernel(call: Call) -> list[int]:
    return [int(size) for size in call.get("kernel_shape")]


def _max_pool(call: Call) -> Any:
    import tensorflow as tf

    if call.wanted > 1:
        raise call.refused("it also gives the places of the largest values")
    window, x = window_of(call, _kernel(call)), channels_last(call[0])
    pads, extra = paddings(x, window)
    whole = [[first, last + more] for (first, last), more in zip(pads, extra, strict=True)]
    return channels_first(_pool(pad_spatial(x, whole, tf.as_dtype(x.dtype).min), window, "MAX"))


def _average_pool(call: Call) -> Any:
    """Padding counts only where ``count_include_pad`` says so, and what rounding up adds never does."""
    import tensorflow as tf

    window, x = window_of(call, _kernel(call)), channels_last(call[0])
    pads, extra = paddings(x, window)
    if all(isinstance(size, int) and size == 0 for size in [*extra, *(size for pair in pads for size in pair)]):
        return channels_first(_pool(x, window, "AVG"))
    ends = [[0, more] for more in extra]
    counted = pad_spatial(tf.ones_like(x[:1, ..., :1]), pads, int(call.get("count_include_pad", 0)))
    share = _pool(pad_spatial(counted, ends), window, "AVG")
    return channels_first(_pool(pad_spatial(pad_spatial(x, pads), ends), window, "AVG") / share)


def _pool(x: Any, window: Window, kind: str) -> Any:
    import tensorflow as tf

    if max(window.dilations) == 1:
        return tf.nn.pool(x, window.kernel, kind, window.strides, "VALID")
    dense = tf.nn.pool(x, window.kernel, kind, None, "VALID", dilations=window.dilations)
    return dense[(slice(None), *(slice(None, None, step) for step in window.strides))]


def _spatial(x: Any) -> list[int]:
    return list(range(2, rank(x)))


def _global_average_pool(call: Call) -> Any:
    import tensorflow as tf

    return tf.reduce_mean(call[0], _spatial(call[0]), keepdims=True)


def _global_max_pool(call: Call) -> Any:
    import tensorflow as tf

    return tf.reduce_max(call[0], _spatial(call[0]), keepdims=True)


# Normalisation ----------------------------------------------------------------------------------------------------


def _per_channel(values: Any, x: Any) -> Any:
    """One value for each channel, in the place of the channels of x."""
    import tensorflow as tf

    return tf.reshape(values, [-1, *[1] * (rank(x) - 2)])


def _batch_normalization(call: Call) -> Any:
    import tensorflow as tf

    if call.wanted > 1 or call.get("training_mode", 0):
        raise call.refused("it is in training mode")
    x, epsilon = call[0], call.get("epsilon", 1e-5)
    scale, offset, mean, variance = (tf.cast(_per_channel(item, x), x.dtype) for item in call.inputs[1:5])
    factor = tf.math.rsqrt(variance + tf.cast(epsilon, x.dtype)) * scale
    return x * factor + (offset - mean * factor)


def _standardised(x: Any, axes: list[int], epsilon: float) -> tuple[Any, Any, Any]:
    """The values with mean 0 and variance 1 over the axes; the mean; one over the standard deviation."""
    import tensorflow as tf

    mean = tf.reduce_mean(x, axes, keepdims=True)
    inverse = tf.math.rsqrt(tf.reduce_mean(tf.math.squared_difference(x, mean), axes, keepdims=True) + epsilon)
    return (x - mean) * inverse, mean, inverse


def _instance_normalization(call: Call) -> Any:
    x = call[0]
    normal = _standardised(x, _spatial(x), call.get("epsilon", 1e-5))[0]
    return normal * _per_channel(call[1], x) + _per_channel(call[2], x)


def _layer_normalization(call: Call) -> Any:
    x = call[0]
    axes = list(range(int(call.get("axis", -1)) % rank(x), rank(x)))
    normal, mean, inverse = _standardised(x, axes, call.get("epsilon", 1e-5))
    result = normal * call[1]
    return ((result if call[2] is None else result + call[2]), mean, inverse)[: max(1, call.wanted)]


def _rms_normalization(call: Call) -> Any:
    import tensorflow as tf

    x = call[0]
    axes = list(range(int(call.get("axis", -1)) % rank(x), rank(x)))
    return x * tf.math.rsqrt(tf.reduce_mean(tf.square(x), axes, keepdims=True) + call.get("epsilon", 1e-5)) * call[1]


def _group_normalization(call: Call) -> Any:
    """Scale and bias are one for each group in version 18, one for each channel since 21."""
    import tensorflow as tf

    x, groups = call[0], int(call.get("num_groups"))
    batch, channels, *spatial = sizes(x)
    split = tf.reshape(x, [batch, groups, channels // groups, *spatial])
    normal = _standardised(split, list(range(2, rank(split))), call.get("epsilon", 1e-5))[0]
    scale, bias = call[1], call[2]
    if call.opset < 21:
        scale, bias = (tf.repeat(item, channels // groups) for item in (scale, bias))
    return tf.reshape(normal, tf.shape(x)) * _per_channel(scale, x) + _per_channel(bias, x)


def _lp_normalization(call: Call) -> Any:
    import tensorflow as tf

    x, axis = call[0], int(call.get("axis", -1))
    order = 1 if int(call.get("p", 2)) == 1 else "euclidean"
    return x / tf.norm(x, order, axis, keepdims=True)


def _mean_variance_normalization(call: Call) -> Any:
    return _standardised(call[0], [int(axis) for axis in call.get("axes", [0, 2, 3])], 1e-9)[0]


def _lrn(call: Call) -> Any:
    import tensorflow as tf

    size, alpha = int(call.get("size")), call.get("alpha", 1e-4)
    x = channels_last(call[0])
    settings = {"bias": call.get("bias", 1.0), "alpha": alpha / size, "beta": call.get("beta", 0.75)}
    return channels_first(tf.nn.local_response_normalization(x, (size - 1) // 2, **settings))


# Products ---------------------------------------------------------------------------------------------------------


def matmul(a: Any, b: Any) -> Any:
    """As NumPy multiplies matrices: a vector is a row on the left and a column on the right."""
    import tensorflow as tf

    if rank(a) == 1 and rank(b) == 1:
        return tf.tensordot(a, b, 1)
    if rank(a) == 1:
        return tf.squeeze(tf.matmul(a[None], b), -2)
    if rank(b) == 1:
        return tf.squeeze(tf.matmul(a, b[:, None]), -1)
    return tf.matmul(a, b)


def _gemm(call: Call) -> Any:
    import tensorflow as tf

    alpha, beta = call.get("alpha", 1.0), call.get("beta", 1.0)
    product = tf.matmul(call[0], call[1], bool(call.get("transA", 0)), bool(call.get("transB", 0)))
    product = product if alpha == 1.0 else product * tf.cast(alpha, product.dtype)
    if call[2] is None:
        return product
    return product + (call[2] if beta == 1.0 else call[2] * tf.cast(beta, product.dtype))


def _einsum(call: Call) -> Any:
    import tensorflow as tf

    return tf.einsum(call.get("equation").replace(" ", ""), *call.inputs)
