"""ONNX' recurrent layers as TensorFlow operations.

Short sequences of a known length are written out step by step, which every target can hold; others become a loop.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from worker.formats._onnx_calls import Call, Operator

WRITTEN_OUT = 32  # steps
Step = Callable[[Any, list[Any]], list[Any]]


def operators() -> dict[str, Operator]:
    """The functions by the operator's name."""
    return {"LSTM": _lstm, "GRU": _gru, "RNN": _rnn}


@dataclass(frozen=True)
class Cell:
    """One direction of a layer: its weights, and the functions between them."""

    kernel: Any  # (gates × hidden, input)
    recurrent: Any  # (gates × hidden, hidden)
    bias: Any  # of the inputs, or None
    recurrent_bias: Any
    functions: list[Callable[[Any], Any]]
    clip: float | None

    def clipped(self, x: Any) -> Any:
        import tensorflow as tf

        return x if self.clip is None else tf.clip_by_value(x, -self.clip, self.clip)


def _lstm(call: Call) -> Any:
    if call[7] is not None or call.get("input_forget", 0):
        raise call.refused("it has peepholes, or joins its input and forget gates")
    return _layer(call, ("Sigmoid", "Tanh", "Tanh"), 2, _lstm_step)


def _gru(call: Call) -> Any:
    step = _gru_step_reset_after if call.get("linear_before_reset", 0) else _gru_step
    return _layer(call, ("Sigmoid", "Tanh"), 1, step)


def _rnn(call: Call) -> Any:
    return _layer(call, ("Tanh",), 1, _rnn_step)


# One step ---------------------------------------------------------------------------------------------------------


def _both(cell: Cell, x: Any, hidden: Any) -> Any:
    """What the gates get from the input and from the last output."""
    import tensorflow as tf

    total = tf.matmul(x, cell.kernel, transpose_b=True) + tf.matmul(hidden, cell.recurrent, transpose_b=True)
    return total if cell.bias is None else total + (cell.bias + cell.recurrent_bias)


def _lstm_step(cell: Cell) -> Step:
    import tensorflow as tf

    def step(x: Any, states: list[Any]) -> list[Any]:
        gates = tf.split(cell.clipped(_both(cell, x, states[0])), 4, -1)
        gate, candidate, result = cell.functions
        enter, leave, forget = gate(gates[0]), gate(gates[1]), gate(gates[2])
        memory = forget * states[1] + enter * candidate(gates[3])
        return [leave * result(memory), memory]

    return step


def _rnn_step(cell: Cell) -> Step:
    return lambda x, states: [cell.functions[0](cell.clipped(_both(cell, x, states[0])))]


def _gru_step_reset_after(cell: Cell) -> Step:
    """The reset gate is applied to what the recurrent weights have made of the state, their bias included."""
    import tensorflow as tf

    def step(x: Any, states: list[Any]) -> list[Any]:
        given = tf.matmul(x, cell.kernel, transpose_b=True)
        kept = tf.matmul(states[0], cell.recurrent, transpose_b=True)
        given, kept = (given, kept) if cell.bias is None else (given + cell.bias, kept + cell.recurrent_bias)
        (zx, rx, nx), (zh, rh, nh) = tf.split(given, 3, -1), tf.split(kept, 3, -1)
        gate, candidate = cell.functions
        update, reset = gate(cell.clipped(zx + zh)), gate(cell.clipped(rx + rh))
        new = candidate(cell.clipped(nx + reset * nh))
        return [(1 - update) * new + update * states[0]]

    return step


def _gru_step(cell: Cell) -> Step:
    """The reset gate is applied to the state itself."""
    import tensorflow as tf

    def step(x: Any, states: list[Any]) -> list[Any]:
        given = tf.matmul(x, cell.kernel, transpose_b=True)
        given = given if cell.bias is None else given + cell.bias + cell.recurrent_bias
        zx, rx, nx = tf.split(given, 3, -1)
        zw, rw, nw = tf.split(cell.recurrent, 3, 0)
        gate, candidate = cell.functions
        update = gate(cell.clipped(zx + tf.matmul(states[0], zw, transpose_b=True)))
        reset = gate(cell.clipped(rx + tf.matmul(states[0], rw, transpose_b=True)))
        new = candidate(cell.clipped(nx + tf.matmul(reset * states[0], nw, transpose_b=True)))
        return [(1 - update) * new + update * states[0]]

    return step


# The layer --------------------------------------------------------------------------------------------------------


def _layer(call: Call, defaults: tuple[str, ...], states: int, step_of: Callable[[Cell], Step]) -> Any:
    """Every direction on its own: all outputs (time, direction, batch, hidden), then the last states."""
    import tensorflow as tf

    x = tf.convert_to_tensor(call[0])
    x = tf.transpose(x, [1, 0, 2]) if call.get("layout", 0) else x
    directions = int(call[1].shape[0])
    outputs, finals = [], []
    for number in range(directions):
        backwards = number == 1 or call.get("direction", "forward") == "reverse"
        cell = _cell(call, number, len(defaults), defaults)
        first = [_state(call, x, 5 + place, number, cell) for place in range(states)]
        output, final = _run(x, first, step_of(cell), call[4], backwards)
        outputs.append(output)
        finals.append(final)
    last = [tf.stack([final[place] for final in finals]) for place in range(states)]
    whole = tf.stack(outputs, 1)
    if call.get("layout", 0):
        return (tf.transpose(whole, [2, 0, 1, 3]), *(tf.transpose(item, [1, 0, 2]) for item in last))
    return (whole, *last)


def _cell(call: Call, number: int, count: int, defaults: tuple[str, ...]) -> Cell:
    import tensorflow as tf

    bias = (None, None) if call[3] is None else tf.split(call[3][number], 2)
    names = [item.decode() for item in call.get("activations", [])] or list(defaults) * 2
    chosen = names[number * count : (number + 1) * count]
    functions = [_function(call, name) for name in chosen]
    clip = call.get("clip")
    return Cell(call[1][number], call[2][number], bias[0], bias[1], functions, None if clip is None else float(clip))


def _function(call: Call, name: str) -> Callable[[Any], Any]:
    import tensorflow as tf

    known: dict[str, Callable[[Any], Any]] = (
        {"Sigmoid": tf.sigmoid, "Tanh": tf.tanh, "Relu": tf.nn.relu, "Softsign": tf.nn.softsign}
        | {"Softplus": tf.math.softplus, "Elu": tf.nn.elu}
        | {"HardSigmoid": lambda x: tf.clip_by_value(0.2 * x + 0.5, 0.0, 1.0)}
    )
    if name not in known or call.get("activation_alpha") or call.get("activation_beta"):
        raise call.refused(f"its activation {name} is one that cannot be written here")
    return known[name]


def _state(call: Call, x: Any, place: int, number: int, cell: Cell) -> Any:
    import tensorflow as tf

    if call[place] is None:
        return tf.zeros([tf.shape(x)[1], int(cell.recurrent.shape[-1])], x.dtype)
    return call[place][:, number] if call.get("layout", 0) else call[place][number]


def _run(x: Any, states: list[Any], step: Step, lengths: Any, backwards: bool) -> tuple[Any, list[Any]]:
    """All outputs and the last states. Sequences that end earlier keep their last state, and give zeros after it."""
    turned = _turned(x, lengths) if backwards else x
    masked = step if lengths is None else None
    time = turned.shape[0]
    run = _written_out if time is not None and time <= WRITTEN_OUT else _looped
    outputs, states = run(turned, states, masked or step, lengths)
    return (_turned(outputs, lengths) if backwards else outputs), states


def _turned(x: Any, lengths: Any) -> Any:
    import tensorflow as tf

    return tf.reverse(x, [0]) if lengths is None else tf.reverse_sequence(x, lengths, seq_axis=0, batch_axis=1)


def _advance(step: Step, x: Any, states: list[Any], time: Any, lengths: Any) -> tuple[Any, list[Any]]:
    import tensorflow as tf

    new = step(x, states)
    if lengths is None:
        return new[0], new
    alive = (tf.cast(time, tf.int32) < tf.cast(lengths, tf.int32))[:, None]
    kept = [tf.where(alive, item, old) for item, old in zip(new, states, strict=True)]
    return tf.where(alive, new[0], tf.zeros_like(new[0])), kept


def _written_out(x: Any, states: list[Any], step: Step, lengths: Any) -> tuple[Any, list[Any]]:
    import tensorflow as tf

    outputs = []
    for time, item in enumerate(tf.unstack(x)):
        output, states = _advance(step, item, states, time, lengths)
        outputs.append(output)
    return tf.stack(outputs), states


def _looped(x: Any, states: list[Any], step: Step, lengths: Any) -> tuple[Any, list[Any]]:
    import tensorflow as tf

    count, hidden = tf.shape(x)[0], states[0].shape[-1]
    outputs = tf.TensorArray(x.dtype, count, element_shape=[None, hidden])
    shapes = [tf.TensorShape([None, hidden]) for _ in states]

    def body(time: Any, collected: Any, current: list[Any]) -> Any:
        output, following = _advance(step, x[time], list(current), time, lengths)
        return time + 1, collected.write(time, output), following

    _, outputs, states = tf.while_loop(
        lambda time, *_: time < count,
        body,
        (tf.constant(0), outputs, states),
        shape_invariants=(tf.TensorShape([]), tf.TensorShape(None), shapes),
    )
    return outputs.stack(), list(states)
