"""ONNX' branches, loops and tables as TensorFlow operations."""

from __future__ import annotations

from typing import Any

from worker.formats._onnx_calls import Call, Operator

WRITTEN_OUT = 64  # turns
NOT_FOLDED = frozenset({"If", "Loop", "Scan", "CategoryMapper"})


def operators() -> dict[str, Operator]:
    """The functions by the operator's name."""
    return {"If": _if, "Loop": _loop, "Scan": _scan, "CategoryMapper": _category_mapper}


def _graph(call: Call, name: str, given: list[Any]) -> list[Any]:
    """The tensors that a graph among the attributes gives."""
    import tensorflow as tf

    assert call.body
    return [tf.convert_to_tensor(item) for item in call.body(call.attributes[name], given)]


def _if(call: Call) -> Any:
    """The branch alone where it is known which one is taken."""
    import tensorflow as tf

    known = call.static(0)
    if known is not None:
        return _graph(call, "then_branch" if bool(known.reshape(-1)[0]) else "else_branch", [])
    condition = tf.reshape(call[0], ())
    return tf.cond(condition, lambda: _graph(call, "then_branch", []), lambda: _graph(call, "else_branch", []))


def _loop(call: Call) -> Any:
    """As long as the condition holds, and at most so many times; some outputs are collected from every turn."""
    import tensorflow as tf

    if (found := _written_out(call)) is not None:
        return found
    states = [tf.convert_to_tensor(item) for item in call.inputs[2:]]
    most = tf.reshape(tf.cast(call[0], tf.int64), ()) if call[0] is not None else tf.constant(2**62, tf.int64)
    start = tf.reshape(call[1], ()) if call[1] is not None else tf.constant(True)

    def turn(number: Any, going: Any, current: list[Any]) -> tuple[Any, list[Any]]:
        found = _graph(call, "body", [number, going, *current])
        return tf.reshape(found[0], ()), found[1:]

    return _turns(call, "body", states, most, start, turn)


def _written_out(call: Call) -> list[Any] | None:
    """The turns one after the other, which every target can hold; None where their number is not known, or large."""
    import numpy as np
    import tensorflow as tf

    most, going = call.static(0), True if call[1] is None else call.static(1)
    if most is None or going is None or call.body is None or int(most.reshape(-1)[0]) > WRITTEN_OUT:
        return None
    states = call.inputs[2:]
    collected: list[list[Any]] = [[] for _ in range(call_outputs(call) - len(states))]
    for number in range(int(most.reshape(-1)[0])):
        if not bool(np.all(going)):
            break
        results = call.body(call.attributes["body"], [np.array(number, "int64"), np.array(True), *states])
        going, states = results[0], results[1 : 1 + len(states)]
        if not isinstance(going, np.ndarray):
            return None
        for items, item in zip(collected, results[1 + len(states) :], strict=True):
            items.append(item)
    return [*states, *(tf.stack(items) for items in collected)] if all(collected) else None


def _scan(call: Call) -> Any:
    """Once for each place along the first axis of its sequences."""
    import tensorflow as tf

    count = int(call.get("num_scan_inputs"))
    given = [tf.convert_to_tensor(item) for item in call.inputs]
    states, sequences = given[:-count], given[-count:]
    changed = ("scan_input_axes", "scan_output_axes", "scan_input_directions", "scan_output_directions")
    if call.opset < 9 or any(any(call.get(name, [])) for name in changed):
        raise call.refused("it runs along another axis, or backwards")

    def turn(number: Any, going: Any, current: list[Any]) -> tuple[Any, list[Any]]:
        return going, _graph(call, "body", [*current, *(item[number] for item in sequences)])

    most = tf.shape(sequences[0], tf.int64)[0]
    return _turns(call, "body", states, most, tf.constant(True), turn)


def _turns(call: Call, name: str, states: list[Any], most: Any, start: Any, turn: Any) -> list[Any]:
    """The last states, and all turns of the other outputs. Shapes that a turn changes are left free."""
    outputs = list(call.attributes[name].output)
    collected = outputs[len(outputs) - (call_outputs(call) - len(states)) :] if call_outputs(call) > len(states) else []
    try:
        return _while(states, collected, most, start, turn, [item.shape for item in states])
    except ValueError:
        import tensorflow as tf

        free = [tf.TensorShape([None] * len(item.shape)) for item in states]
        return _while(states, collected, most, start, turn, free)


def call_outputs(call: Call) -> int:
    """How many outputs a loop has: every one of its body but the condition."""
    return len(call.attributes["body"].output) - (1 if call.operator == "Loop" else 0)


def _while(states: list[Any], collected: list[Any], most: Any, start: Any, turn: Any, shapes: list[Any]) -> list[Any]:
    import tensorflow as tf

    arrays = [_array_for(item) for item in collected]

    def body(number: Any, going: Any, current: Any, gathered: Any) -> Any:
        going, found = turn(number, going, list(current))
        following = found[: len(states)]
        added = zip(gathered, found[len(states) :], strict=True)
        place = tf.cast(number, tf.int32)
        return number + 1, going, following, [array.write(place, item) for array, item in added]

    _, _, last, gathered = tf.while_loop(
        lambda number, going, *_: (number < most) & going,
        body,
        (tf.constant(0, tf.int64), start, states, arrays),
        shape_invariants=(tf.TensorShape([]), tf.TensorShape([]), shapes, [tf.TensorShape(None) for _ in arrays]),
    )
    return [*last, *(array.stack() for array in gathered)]


def _array_for(item: Any) -> Any:
    import tensorflow as tf

    from worker.formats._onnx_file import spec

    described = spec(item)
    return tf.TensorArray(described.dtype, 0, dynamic_size=True, element_shape=described.shape, infer_shape=False)


def _category_mapper(call: Call) -> Any:
    """Text to numbers or numbers to text; the default for what is not in the table."""
    import tensorflow as tf

    texts, numbers = [list(call.attributes[name]) for name in ("cats_strings", "cats_int64s")]
    text_first = tf.as_dtype(call[0].dtype) == tf.string
    keys, values = (texts, numbers) if text_first else (numbers, texts)
    default = call.get("default_int64", -1) if text_first else call.get("default_string", "_Unused")
    kinds = (tf.string, tf.int64) if text_first else (tf.int64, tf.string)
    if call.result not in call.tables:  # a function may be traced more than once
        with tf.init_scope():
            pairs = tf.lookup.KeyValueTensorInitializer(keys, values, *kinds)
            call.tables[call.result] = tf.lookup.StaticHashTable(pairs, default)
    return call.tables[call.result].lookup(call[0])
