"""ONNX operators that reduce, sort and accumulate along axes, and resizing, as TensorFlow operations."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from worker.formats._onnx_calls import Call, Operator, rank, sizes


def operators() -> dict[str, Operator]:
    """The functions by the operator's name."""
    return (
        _reductions()
        | {"ArgMax": _arg(True), "ArgMin": _arg(False), "TopK": _top_k, "CumSum": _cum_sum}
        | {"Resize": _resize, "Upsample": _resize}
    )


def _reductions() -> dict[str, Operator]:
    import tensorflow as tf

    plain: dict[str, Callable[..., Any]] = (
        {"ReduceSum": tf.reduce_sum, "ReduceMean": tf.reduce_mean, "ReduceMax": tf.reduce_max}
        | {"ReduceMin": tf.reduce_min, "ReduceProd": tf.reduce_prod, "ReduceLogSumExp": tf.reduce_logsumexp}
        | {
            "ReduceL1": lambda x, axes, keepdims: tf.reduce_sum(tf.abs(x), axes, keepdims),
            "ReduceL2": lambda x, axes, keepdims: tf.sqrt(tf.reduce_sum(tf.square(x), axes, keepdims)),
            "ReduceSumSquare": lambda x, axes, keepdims: tf.reduce_sum(tf.square(x), axes, keepdims),
            "ReduceLogSum": lambda x, axes, keepdims: tf.math.log(tf.reduce_sum(x, axes, keepdims)),
        }
    )
    return {name: _over_axes(function) for name, function in plain.items()}


def _over_axes(function: Callable[..., Any]) -> Operator:
    import tensorflow as tf

    def reduce(call: Call) -> Any:
        axes = call.axes(1)
        if not axes and call.get("noop_with_empty_axes", 0):
            return tf.identity(call[0])
        return function(tf.convert_to_tensor(call[0]), axes or None, bool(call.get("keepdims", 1)))

    return reduce


def _arg(largest: bool) -> Operator:
    """Of equal values the first, or the last with ``select_last_index``."""
    import tensorflow as tf

    def find(call: Call) -> Any:
        axis, function = int(call.get("axis", 0)), tf.argmax if largest else tf.argmin
        x = tf.convert_to_tensor(call[0])
        if call.get("select_last_index", 0):
            result = tf.shape(x, tf.int64)[axis] - 1 - function(tf.reverse(x, [axis]), axis)
        else:
            result = function(x, axis)
        return tf.expand_dims(result, axis % rank(x)) if call.get("keepdims", 1) else result

    return find


def _top_k(call: Call) -> Any:
    import tensorflow as tf

    x, axis = tf.convert_to_tensor(call[0]), int(call.get("axis", -1))
    axis = axis % rank(x)
    count = tf.cast(tf.reshape(call[1], ()), tf.int32) if call[1] is not None else int(call.get("k"))
    order = [place for place in range(rank(x)) if place != axis] + [axis]
    back = [order.index(place) for place in range(rank(x))]
    moved, largest = tf.transpose(x, order), call.get("largest", 1)
    values, places = tf.math.top_k(moved if largest else -moved, count)
    values = values if largest else -values
    return tf.transpose(values, back), tf.cast(tf.transpose(places, back), tf.int64)


def _cum_sum(call: Call) -> Any:
    import tensorflow as tf

    axis = tf.reshape(tf.cast(call[1], tf.int32), ())
    return tf.cumsum(call[0], axis, bool(call.get("exclusive", 0)), bool(call.get("reverse", 0)))


# Resizing ---------------------------------------------------------------------------------------------------------


def _resize(call: Call) -> Any:
    """Each axis by itself: the places in the source that the new places fall on, then their neighbours."""
    import tensorflow as tf

    if call.get("antialias", 0) or call.get("keep_aspect_ratio_policy", "stretch") != "stretch":
        raise call.refused("it smooths while it shrinks, or keeps the aspect ratio")
    x = tf.convert_to_tensor(call[0])
    for axis, size, scale in _goals(call, x):
        places = _source_places(call, sizes(x)[axis], size, scale)
        x = _taken(call, x, axis, places)
    return x


def _goals(call: Call, x: Any) -> list[tuple[int, Any, Any]]:
    """(axis, new size, scale) for every axis that changes."""
    import tensorflow as tf

    scales, lengths = _arguments(call)
    axes = [int(axis) % rank(x) for axis in call.get("axes", range(rank(x)))]
    found = []
    for place, axis in enumerate(axes):
        have = sizes(x)[axis]
        if lengths is not None:
            goal = lengths[place]
            scale = tf.cast(goal, tf.float32) / tf.cast(have, tf.float32)
        else:
            scale = float(scales[place])
            goal = _scaled(have, scale)
        if not (isinstance(goal, int) and isinstance(have, int) and goal == have):
            found.append((axis, goal, scale))
    return found


def _scaled(size: Any, scale: float) -> Any:
    import tensorflow as tf

    if isinstance(size, int):
        return int(size * scale)
    return tf.cast(tf.floor(tf.cast(size, tf.float32) * scale), tf.int32)


def _is_newer(call: Call) -> bool:
    """Resize since version 11 has other defaults than what was before."""
    return call.operator == "Resize" and call.opset >= 11


def _arguments(call: Call) -> tuple[Any, Any]:
    """The scales or the sizes; their place among the inputs depends on the version."""
    import tensorflow as tf

    if call.operator == "Upsample" or call.opset < 11:
        return (call.get("scales") if call[1] is None else _numbers(call, 1)), None
    if call[3] is not None:
        known = call.static(3)
        return None, tf.unstack(tf.cast(call[3], tf.int32)) if known is None else [int(size) for size in known]
    return _numbers(call, 2), None


def _numbers(call: Call, place: int) -> Any:
    value = call.static(place)
    if value is None:
        raise call.refused("its scales are computed by the graph")
    return value


def _source_places(call: Call, have: Any, goal: Any, scale: Any) -> Any:
    """Where in the source each new place lies, as float32."""
    import tensorflow as tf

    mode = call.get("coordinate_transformation_mode", "half_pixel" if _is_newer(call) else "asymmetric")
    new = tf.range(tf.cast(goal, tf.float32), dtype=tf.float32)
    before, after = tf.cast(have, tf.float32), tf.cast(goal, tf.float32)
    if mode == "asymmetric":
        return new / scale
    if mode == "align_corners":
        return tf.where(after > 1, new * (before - 1) / tf.maximum(after - 1, 1), tf.zeros_like(new))
    if mode == "half_pixel":
        return (new + 0.5) / scale - 0.5
    if mode == "pytorch_half_pixel":
        return tf.where(after > 1, (new + 0.5) / scale - 0.5, tf.zeros_like(new))
    if mode == "tf_half_pixel_for_nn":
        return (new + 0.5) / scale
    if mode == "half_pixel_symmetric":
        adjusted = (before / 2) * (1 - after / (scale * before))
        return adjusted + (new + 0.5) / scale - 0.5
    raise call.refused(f"it places pixels by {mode}")


def _taken(call: Call, x: Any, axis: int, places: Any) -> Any:
    mode = call.get("mode", "nearest")
    if mode == "nearest":
        return _neighbour(x, axis, _nearest(call, places))
    if mode == "linear":
        return _weighted(x, axis, places, [lambda far: 1 - far, lambda far: far], first=0)
    if mode == "cubic":
        weights, inside = _cubic(call.get("cubic_coeff_a", -0.75)), bool(call.get("exclude_outside", 0))
        return _weighted(x, axis, places, weights, first=-1, inside=inside)
    raise call.refused(f"it resizes by {mode}")


def _nearest(call: Call, places: Any) -> Any:
    import tensorflow as tf

    rounding = call.get("nearest_mode", "round_prefer_floor" if _is_newer(call) else "floor")
    functions = {
        "floor": tf.floor,
        "ceil": tf.math.ceil,
        "round_prefer_floor": lambda at: tf.math.ceil(at - 0.5),
        "round_prefer_ceil": lambda at: tf.floor(at + 0.5),
    }
    return functions[rounding](places)


def _neighbour(x: Any, axis: int, places: Any) -> Any:
    """The values at places along an axis, or at its ends where a place is beyond them."""
    import tensorflow as tf

    last = tf.cast(tf.shape(x)[axis] - 1, tf.float32)
    return tf.gather(x, tf.cast(tf.clip_by_value(places, 0.0, last), tf.int32), axis=axis)


def _weighted(
    x: Any, axis: int, places: Any, weights: list[Callable[[Any], Any]], first: int, inside: bool = False
) -> Any:
    """The sum of the neighbours from ``first`` on, each by its weight for the distance from the one below; with
    ``inside`` only of those that there are."""
    import tensorflow as tf

    below = tf.floor(places)
    factors = [weight(places - below) for weight in weights]
    if inside:
        last = tf.cast(tf.shape(x)[axis] - 1, tf.float32)
        there = [(below + first + step >= 0) & (below + first + step <= last) for step in range(len(weights))]
        factors = [tf.where(found, factor, 0.0) for found, factor in zip(there, factors, strict=True)]
        total = tf.add_n(factors)
        factors = [factor / total for factor in factors]
    shape = [-1, *[1] * (rank(x) - axis - 1)]
    parts = [
        _neighbour(x, axis, below + first + step) * tf.cast(tf.reshape(factor, shape), x.dtype)
        for step, factor in enumerate(factors)
    ]
    return tf.add_n(parts)


def _cubic(a: float) -> list[Callable[[Any], Any]]:
    """The weights of four neighbours (Keys 1981), by the distance from the second."""

    def near(d: Any) -> Any:
        return ((a + 2) * d - (a + 3)) * d * d + 1

    def far(d: Any) -> Any:
        return ((a * d - 5 * a) * d + 8 * a) * d - 4 * a

    return [lambda d: far(1 + d), near, lambda d: near(1 - d), lambda d: far(2 - d)]
