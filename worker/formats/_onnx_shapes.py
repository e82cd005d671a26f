"""ONNX operators that move, cut and join tensors, as TensorFlow operations."""

from __future__ import annotations

from typing import Any

from worker.formats._onnx_calls import Call, Operator, rank, sizes


def operators() -> dict[str, Operator]:
    """The functions by the operator's name."""
    return (
        {"Reshape": _reshape, "Flatten": _flatten, "Transpose": _transpose, "Squeeze": _squeeze}
        | {"Unsqueeze": _unsqueeze, "Concat": _concat, "Split": _split, "Slice": _slice, "Shape": _shape, "Size": _size}
        | {"Gather": _gather, "GatherElements": _gather_elements, "GatherND": _gather_nd, "ScatterND": _scatter_nd}
        | {"Expand": _expand, "Tile": _tile, "Pad": _pad, "ConstantOfShape": _constant_of_shape, "Range": _range}
        | {"OneHot": _one_hot, "EyeLike": _eye_like, "DepthToSpace": _depth_to_space, "SpaceToDepth": _space_to_depth}
        | {"NonZero": _non_zero, "Constant": _constant, "ReverseSequence": _reverse_sequence}
    )


def _constant(call: Call) -> Any:
    import numpy as np
    import onnx

    for name, kind in (("float", "float32"), ("int", "int64"), ("string", "O")):
        for attribute in (f"value_{name}", f"value_{name}s"):
            if attribute in call.attributes:
                return np.asarray(call.attributes[attribute], kind)
    if "value" not in call.attributes:
        raise call.refused("it is a sparse constant")
    return onnx.numpy_helper.to_array(call.attributes["value"])


def _reshape(call: Call) -> Any:
    """A 0 keeps the dimension at its place, unless ``allowzero`` says that it means 0."""
    import tensorflow as tf

    x = tf.convert_to_tensor(call[0])
    wanted = call.static(1) if call[1] is not None else call.get("shape")
    if wanted is None:
        return tf.reshape(x, _with_kept_sizes(call, x))
    have = sizes(x)
    places = [int(size) for size in wanted]
    if not call.get("allowzero", 0):
        return tf.reshape(x, [have[place] if size == 0 else size for place, size in enumerate(places)])
    return tf.reshape(x, places)


def _with_kept_sizes(call: Call, x: Any) -> Any:
    """A shape that the graph computes, with the sizes of x where it has a 0."""
    import tensorflow as tf

    shape = tf.cast(call[1], tf.int32)
    count, partly = shape.shape[0], tf.get_static_value(shape, partial=True)
    no_zero = partly is not None and all(size != 0 for size in partly)
    if no_zero or count is None or count > rank(x) or call.get("allowzero", 0):
        return shape
    return tf.where(shape == 0, tf.shape(x)[:count], shape)


def _flatten(call: Call) -> Any:
    import tensorflow as tf

    x, axis = call[0], int(call.get("axis", 1))
    axis = axis + rank(x) if axis < 0 else axis
    before, after = _product(sizes(x)[:axis]), _product(sizes(x)[axis:])
    return tf.reshape(x, [before if isinstance(before, int) else -1, after])


def _product(items: list[Any]) -> Any:
    result: Any = 1
    for item in items:
        result = result * item
    return result


def _transpose(call: Call) -> Any:
    import tensorflow as tf

    return tf.transpose(call[0], call.get("perm"))


def _squeeze(call: Call) -> Any:
    import tensorflow as tf

    return tf.squeeze(call[0], call.axes(1))


def _unsqueeze(call: Call) -> Any:
    import tensorflow as tf

    x, axes = call[0], call.axes(1) or []
    final = len(x.shape) + len(axes)
    for axis in sorted(axis % final for axis in axes):
        x = tf.expand_dims(x, axis)
    return x


def _concat(call: Call) -> Any:
    import tensorflow as tf

    return tf.concat(call.inputs, int(call.get("axis", 1)))


def _split(call: Call) -> Any:
    """Into the given sizes; else into equal parts, of which the last may be smaller (``num_outputs``)."""
    import tensorflow as tf

    x, axis = call[0], int(call.get("axis", 0))
    lengths = call.known(1) if call[1] is not None else call.get("split")
    if lengths is not None:
        return tf.split(x, [int(size) for size in lengths], axis)
    length = x.shape[axis]
    if length is None or length % call.wanted == 0:
        return tf.split(x, call.wanted, axis)
    part = -(-length // call.wanted)
    return tf.split(x, [part] * (call.wanted - 1) + [length - part * (call.wanted - 1)], axis)


def _slice(call: Call) -> Any:
    """Starts, ends, axes and steps are attributes up to version 9, inputs since 10."""
    import tensorflow as tf

    x = tf.convert_to_tensor(call[0])
    starts, ends = _list(call, 1, "starts"), _list(call, 2, "ends")
    axes = _list(call, 3, "axes") or list(range(len(starts)))
    steps = _list(call, 4, "steps") or [1] * len(starts)
    parts: list[Any] = [slice(None)] * rank(x)
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        parts[int(axis) % rank(x)] = slice(_bound(start), _bound(end), int(step))
    return x[tuple(parts)]


def _list(call: Call, place: int, name: str) -> list[Any]:
    """The numbers of an argument; scalar tensors where they are not known beforehand."""
    import tensorflow as tf

    value = call.static(place) if place < len(call.inputs) else call.get(name)
    if value is not None:
        return [int(item) for item in value]
    return tf.unstack(tf.cast(call[place], tf.int32)) if call[place] is not None else []


def _bound(value: Any) -> Any:
    """INT_MAX and INT_MIN stand for "to the end"; a start beyond the end is cut by TensorFlow as well."""
    if not isinstance(value, int):
        return value
    return None if abs(value) >= 2**31 - 1 else value


def _shape(call: Call) -> Any:
    import tensorflow as tf

    whole = tf.shape(call[0], tf.int64)
    start, end = call.get("start", 0), call.get("end")
    return whole if not start and end is None else whole[start:end]


def _size(call: Call) -> Any:
    import tensorflow as tf

    return tf.size(call[0], tf.int64)


def _gather(call: Call) -> Any:
    import tensorflow as tf

    axis, place = int(call.get("axis", 0)), call.static(1)
    if (known := _known_sizes(call[0], place)) is not None:
        return known
    if place is not None and place.ndim == 0:  # cut out instead: sizes that are known stay known
        x = tf.convert_to_tensor(call[0])
        parts: list[Any] = [slice(None)] * rank(x)
        parts[axis] = int(place)
        return x[tuple(parts)]
    return tf.gather(call[0], _from_the_front(call, 1, sizes(tf.convert_to_tensor(call[0]))[axis]), axis=axis)


def _known_sizes(shape: Any, places: Any) -> Any:
    """The chosen sizes of a tensor, where ``shape`` is its shape and they are known; else None."""
    import numpy as np

    source = shape.op.inputs[0] if getattr(getattr(shape, "op", None), "type", "") == "Shape" else None
    if places is None or source is None or source.shape.rank is None:
        return None
    sizes_known = source.shape.as_list()
    chosen = [sizes_known[int(place)] for place in places.reshape(-1)]
    return None if None in chosen else np.array(chosen, "int64").reshape(places.shape)


def _from_the_front(call: Call, place: int, length: Any) -> Any:
    """Indices that count from the end, as TensorFlow wants them."""
    import numpy as np
    import tensorflow as tf

    known = call.static(place)
    if known is not None and known.size < 1024 and (isinstance(length, int) or bool(np.all(known >= 0))):
        return np.where(known < 0, known + (length if isinstance(length, int) else 0), known)
    indices = tf.convert_to_tensor(call[place])
    return tf.where(indices < 0, indices + tf.cast(length, indices.dtype), indices)


def _gather_elements(call: Call) -> Any:
    """The element at each index along one axis, at the same place in all others."""
    import tensorflow as tf

    x, axis = tf.convert_to_tensor(call[0]), int(call.get("axis", 0))
    axis = axis % rank(x)
    indices = tf.cast(_from_the_front(call, 1, sizes(x)[axis]), tf.int32)
    shape = tf.shape(indices)
    grid = tf.meshgrid(*(tf.range(shape[place]) for place in range(rank(x))), indexing="ij")
    grid[axis] = indices
    return tf.gather_nd(x, tf.stack(grid, -1))


def _gather_nd(call: Call) -> Any:
    import tensorflow as tf

    return tf.gather_nd(call[0], call[1], batch_dims=int(call.get("batch_dims", 0)))


def _scatter_nd(call: Call) -> Any:
    import tensorflow as tf

    if call.get("reduction", "none") != "none":
        raise call.refused(f"it reduces by {call.get('reduction')}")
    return tf.tensor_scatter_nd_update(call[0], call[1], call[2])


def _expand(call: Call) -> Any:
    """Broadcast both ways: a 1 in the wanted shape keeps the dimension."""
    import tensorflow as tf

    x = tf.convert_to_tensor(call[0])
    if x.dtype == tf.bool:
        return tf.cast(tf.cast(x, tf.int32) * tf.ones(tf.cast(call[1], tf.int32), tf.int32), tf.bool)
    wanted = call.static(1)
    known = list(x.shape)
    if wanted is not None and None not in known:
        import numpy as np

        return tf.broadcast_to(x, np.broadcast_shapes(tuple(known), tuple(int(size) for size in wanted)))
    return tf.broadcast_to(x, tf.broadcast_dynamic_shape(tf.shape(x), tf.cast(call[1], tf.int32)))


def _tile(call: Call) -> Any:
    import tensorflow as tf

    return tf.tile(call[0], call[1])


def _pad(call: Call) -> Any:
    """Begins, then ends, of all axes or of the chosen ones; negative numbers cut."""
    import tensorflow as tf

    x = tf.convert_to_tensor(call[0])
    if call.opset >= 11 and call.static(1) is None and call[3] is None and call.get("mode", "constant") == "constant":
        return _padded(call, x, tf.transpose(tf.reshape(call[1], [2, rank(x)])))
    given = call.known(1) if call.opset >= 11 else [int(item) for item in call.get("pads", call.get("paddings"))]
    axes = call.known(3) if call[3] is not None else list(range(rank(x)))
    pads = [[0, 0] for _ in range(rank(x))]
    for place, axis in enumerate(axes):
        pads[axis % rank(x)] = [given[place], given[place + len(axes)]]
    cut = tuple(slice(max(0, -first), min(0, last) or None) for first, last in pads)
    x = x[cut] if any(min(pair) < 0 for pair in pads) else x
    return _padded(call, x, [[max(0, first), max(0, last)] for first, last in pads])


def _padded(call: Call, x: Any, pads: Any) -> Any:
    import tensorflow as tf

    mode = call.get("mode", "constant")
    if mode == "constant":
        value = call[2] if call.opset >= 11 else call.get("value", 0.0)
        value = tf.zeros((), x.dtype) if value is None else tf.reshape(tf.cast(value, x.dtype), ())
        return tf.pad(x, pads, constant_values=value)
    if mode == "reflect":
        return tf.pad(x, pads, "REFLECT")
    if mode != "edge":
        raise call.refused(f"it pads in the mode {mode}")
    while any(max(pair) > 0 for pair in pads):  # the outermost element again and again
        step = [[min(1, first), min(1, last)] for first, last in pads]
        x = tf.pad(x, step, "SYMMETRIC")
        pads = [[first - a, last - b] for (first, last), (a, b) in zip(pads, step, strict=True)]
    return x


def _constant_of_shape(call: Call) -> Any:
    import numpy as np
    import onnx
    import tensorflow as tf

    given = call.get("value")
    value = np.zeros(1, "float32") if given is None else onnx.numpy_helper.to_array(given)
    return tf.fill(tf.cast(call[0], tf.int32), value.reshape(()))


def _range(call: Call) -> Any:
    import tensorflow as tf

    return tf.range(*(tf.reshape(item, ()) for item in call.inputs))


def _one_hot(call: Call) -> Any:
    """Indices outside have no place; those below zero count from the end."""
    import tensorflow as tf

    depth = tf.cast(tf.reshape(call[1], ()), tf.int64)
    indices = tf.cast(call[0], tf.int64)
    indices = tf.where(indices < 0, indices + depth, indices)
    off, on = tf.unstack(tf.convert_to_tensor(call[2]), 2)
    return tf.one_hot(indices, tf.cast(depth, tf.int32), on, off, int(call.get("axis", -1)))


def _eye_like(call: Call) -> Any:
    import tensorflow as tf

    from worker.formats._onnx_file import dtype_name

    dtype = dtype_name(int(call.get("dtype"))) if call.get("dtype") else call[0].dtype
    rows, columns = sizes(tf.convert_to_tensor(call[0]))
    shifted = tf.range(columns)[None, :] - tf.range(rows)[:, None]
    return tf.cast(tf.equal(shifted, int(call.get("k", 0))), dtype)


def _depth_to_space(call: Call) -> Any:
    """``DCR`` takes the block from the outer part of the channels, ``CRD`` from the inner one."""
    import tensorflow as tf

    block = int(call.get("blocksize"))
    batch, channels, height, width = sizes(call[0])
    depth = channels // (block * block)
    if call.get("mode", "DCR") == "DCR":
        x = tf.reshape(call[0], [-1, block, block, depth, height, width])
        x = tf.transpose(x, [0, 3, 4, 1, 5, 2])
    else:
        x = tf.reshape(call[0], [-1, depth, block, block, height, width])
        x = tf.transpose(x, [0, 1, 4, 2, 5, 3])
    return tf.reshape(x, [batch, depth, height * block, width * block])


def _space_to_depth(call: Call) -> Any:
    import tensorflow as tf

    block = int(call.get("blocksize"))
    batch, channels, height, width = sizes(call[0])
    x = tf.reshape(call[0], [-1, channels, height // block, block, width // block, block])
    x = tf.transpose(x, [0, 3, 5, 1, 2, 4])
    return tf.reshape(x, [batch, channels * block * block, height // block, width // block])


def _non_zero(call: Call) -> Any:
    import tensorflow as tf

    x = tf.convert_to_tensor(call[0])
    return tf.transpose(tf.where(x if x.dtype == tf.bool else tf.not_equal(x, tf.zeros((), x.dtype))))


def _repeated(tensor: Any) -> int | None:
    """The number that a tensor repeats, where it is known to be one: the length of every sequence of a batch."""
    import numpy as np
    import tensorflow as tf

    made_from = tensor.op.inputs[0] if getattr(getattr(tensor, "op", None), "type", "") == "BroadcastTo" else tensor
    value = made_from if isinstance(made_from, np.ndarray) else tf.get_static_value(made_from)
    numbers = set() if value is None else set(np.asarray(value).reshape(-1).tolist())
    return numbers.pop() if len(numbers) == 1 else None


def _reverse_sequence(call: Call) -> Any:
    import tensorflow as tf

    time, batch = int(call.get("time_axis", 0)), int(call.get("batch_axis", 1))
    if _repeated(call[1]) == call[0].shape[time]:
        return tf.reverse(call[0], [time])
    return tf.reverse_sequence(call[0], call[1], seq_axis=time, batch_axis=batch)
