"""What a Lambda layer was read as, computed by TensorFlow and tf-keras themselves: a judge of what was rebuilt of it.

A file of Keras 2 with Lambda layers is run by tf-keras like any other, in a description without byte code: in the place
of each Lambda layer stands a subclass of tf-keras' own Lambda, which applies the formula with the very functions that
it names. The reading is the same as that of the rebuilt model; everything behind it is not: functions, broadcasting,
types, masks, batches. Only names of the table are called, and only after the rebuilding has bounded every size.
"""

from __future__ import annotations

import builtins
import math
import operator
from collections.abc import Callable, Mapping
from typing import Any

from worker.formats import _lambda_names as table
from worker.formats import _lambdas
from worker.formats._architecture import Architecture, Node, is_lambda, name_of
from worker.formats._bytecode import Step
from worker.formats._lambdas import Reading

KIND = "LarderFormula"
_KEPT = ("name", "trainable", "dtype", "batch_input_shape")
_OPERATORS: dict[str, Callable[[Any, Any], Any]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": operator.truediv,
    "//": operator.floordiv,
    "%": operator.mod,
    "**": operator.pow,
    "@": operator.matmul,
    "&": operator.and_,
    "|": operator.or_,
    "<": operator.lt,
    "<=": operator.le,
    "==": operator.eq,
    "!=": operator.ne,
    ">": operator.gt,
    ">=": operator.ge,
}


def without_byte_code(architecture: Architecture) -> tuple[Node, dict[str, Any]]:
    """The root with a layer of ``KIND`` for each Lambda layer, and the class that stands behind that name."""
    readings: list[Reading] = []
    root = _replaced(architecture.root, readings)
    return root, {KIND: _layer_class(readings)}


def _replaced(value: Any, readings: list[Reading]) -> Any:
    if isinstance(value, list):
        return [_replaced(item, readings) for item in value]
    if not isinstance(value, dict):
        return value
    if not isinstance(value.get("class_name"), str) or not is_lambda(value):
        return {key: _replaced(item, readings) for key, item in value.items()}
    readings.append(_lambdas.reading(name_of(value), value["config"]))
    config = {key: value["config"][key] for key in _KEPT if key in value["config"]}
    beside = {key: item for key, item in value.items() if key not in ("class_name", "config", "module")}
    return {**beside, "class_name": KIND, "config": {**config, "place": len(readings) - 1}}


def _layer_class(readings: list[Reading]) -> Any:
    import tensorflow as tf
    import tf_keras

    class LarderFormula(tf_keras.layers.Lambda):  # type: ignore[misc]
        """tf-keras' own Lambda layer, masks and types included, with a formula for its function."""

        @classmethod
        def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> Any:
            reading = readings[config["place"]]
            function = tf.autograph.experimental.do_not_convert(lambda inputs: computed(reading, inputs))
            return cls(function, **{key: config[key] for key in _KEPT if key in config})

    return LarderFormula


# Values ---------------------------------------------------------------------------------------------------------


def computed(reading: Reading, inputs: Any) -> Any:
    """The formula on tensors of TensorFlow; raises whatever its functions do."""
    given = {reading.formula.parameters[0]: inputs, **reading.constants}
    values: list[Any] = []
    for step in reading.formula.steps:
        values.append(_RULES[step.kind](step, [values[part] for part in step.parts], given))
    return values[reading.formula.result]


class _Name(str):
    """A module or a function of the table."""


def _named(name: str) -> Any:
    found = table.canonical(name)
    return table.CONSTANTS[found] if found in table.CONSTANTS else _Name(found)


def _attribute(step: Step, parts: list[Any], given: Mapping[str, Any]) -> Any:
    if isinstance(parts[0], _Name):
        return _named(f"{parts[0]}.{step.value}")
    return getattr(parts[0], step.value)  # one of four, see ``_lambdas._check_names``


def _call(step: Step, parts: list[Any], given: Mapping[str, Any]) -> Any:
    function, *values = parts
    plain = len(values) - len(step.value)
    keywords = dict(zip(step.value, values[plain:], strict=True))
    if not isinstance(function, _Name):
        return function(*values[:plain], **keywords)  # get_shape and as_list
    problem: Exception = LookupError(function)
    for candidate in _functions(function):
        try:
            return candidate(*values[:plain], **keywords)
        except TypeError as error:  # arguments of TensorFlow 1, which that of its names still takes
            problem = error
    raise problem


def _functions(name: str) -> list[Callable[..., Any]]:
    """What the name stands for, first as in TensorFlow 2, then as in 1."""
    if name not in table.FUNCTIONS:
        raise LookupError(name)
    owner, _, attribute = name.rpartition(".")
    return [getattr(place, attribute) for place in _owners(owner) if hasattr(place, attribute)]


def _owners(name: str) -> list[Any]:
    import numpy as np
    import tensorflow as tf
    import tf_keras

    old = tf.compat.v1
    return {
        "": [builtins],
        "math": [math],
        "np": [np],
        "tf": [tf, tf.math, tf.nn, tf.linalg, tf.dtypes, old, old.math, old.nn],
        "tf.image": [tf.image],
        "K": [tf_keras.backend],
        "activations": [tf_keras.activations],
    }.get(name, [])


def _unary(step: Step, parts: list[Any], given: Mapping[str, Any]) -> Any:
    return -parts[0] if step.value == "-" else +parts[0] if isinstance(parts[0], (int, float)) else parts[0]


def _two(step: Step, parts: list[Any], given: Mapping[str, Any]) -> Any:
    return _OPERATORS[step.value](*parts)


_RULES: dict[str, Callable[[Step, list[Any], Mapping[str, Any]], Any]] = {
    "argument": lambda step, parts, given: given[step.value],
    "constant": lambda step, parts, given: step.value,
    "name": lambda step, parts, given: _named(str(step.value)),
    "attribute": _attribute,
    "call": _call,
    "unary": _unary,
    "binary": _two,
    "compare": _two,
    "index": lambda step, parts, given: parts[0][parts[1]],
    "item": lambda step, parts, given: parts[0][step.value[0]],
    "slice": lambda step, parts, given: slice(*parts),
    "tuple": lambda step, parts, given: tuple(parts),
    "list": lambda step, parts, given: list(parts),
}
