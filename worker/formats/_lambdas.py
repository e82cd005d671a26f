"""Lambda layers, read and never run: the function of one becomes a formula, and the formula operations of Keras 3.

A formula is refused where a name in it is not in the table of ``_lambda_names``, and again where it does not fit the
tensors that it is given. Nothing here imports Keras before a model is built.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from worker.errors import LambdaRefused
from worker.formats import _bytecode
from worker.formats import _lambda_functions as functions
from worker.formats import _lambda_names as table
from worker.formats._bytecode import Formula, Step
from worker.formats._marshalled import MOST_BYTES, NotUnderstood
from worker.report import Severity, declare

READ = declare(
    "lambda-read",
    Severity.WARNING,
    "The Lambda layer {layer} was read as {formula} and rebuilt from operations of Keras. Its Python code was not run: "
    "see whether this is what it computes. tf and K were taken for TensorFlow and the backend of Keras.",
)
LONGEST_TEXT = 1_000
MOST_ARGUMENTS = 1_000  # values in the arguments and defaults of one layer
DEEPEST = 8  # of lists in lists in them
_OF_TENSORS = frozenset({"shape", "dtype", "get_shape", "as_list"})
_GIVEN_BY_KERAS = ("mask", "training")


@dataclass(frozen=True)
class Reading:
    """What one Lambda layer computes. ``constants`` are the values of its parameters behind the first."""

    name: str
    formula: Formula
    constants: Mapping[str, Any] = field(default_factory=dict)
    output_shape: tuple[int | None, ...] | None = None
    of_tf_1: bool = False  # may TensorFlow 1 be meant, as well as 2?

    @property
    def text(self) -> str:
        """The formula as people write it, cut where it is long."""
        text = _Words(self.formula).of(self.formula.result)
        given = ", ".join(f"{name} = {value!r}"[:80] for name, value in self.constants.items())
        whole = f"{text} with {given}" if given else text
        return whole if len(whole) <= LONGEST_TEXT else f"{whole[: LONGEST_TEXT - 1]}…"


def reading(name: str, config: Any, *, of_tf_1: bool = False) -> Reading:
    """What a Lambda layer's config says; LambdaRefused names what is not understood."""
    try:
        return replace(_reading(name, dict(config) if isinstance(config, dict) else {}), of_tf_1=of_tf_1)
    except NotUnderstood as problem:
        raise LambdaRefused(names=name, problem=str(problem)[:200]) from problem


def _reading(name: str, config: dict[str, Any]) -> Reading:
    if config.get("mask") is not None:
        raise NotUnderstood("a mask of its own")
    formula, defaults = _function(config)
    _check_names(formula)
    arguments = config.get("arguments")
    constants = _constants(formula, defaults, arguments if isinstance(arguments, dict) else {})
    return Reading(name, formula, constants, declared_shape(config))


# The function ---------------------------------------------------------------------------------------------------


def _function(config: dict[str, Any]) -> tuple[Formula, tuple[Any, ...]]:
    """The formula and the defaults. Keras 2 stored ``[code, defaults, closure]``, Keras 3 an object of the three."""
    stored, module = config.get("function"), config.get("module")
    if isinstance(stored, dict) and stored.get("class_name") == "__lambda__":
        inner = stored.get("config")
        given = inner if isinstance(inner, dict) else {"code": inner}
        return _from_code(given.get("code"), given.get("defaults"), given.get("closure"))
    if isinstance(stored, dict) and stored.get("class_name") == "function":
        return _from_name(stored.get("config"), stored.get("module")), ()
    if isinstance(stored, (list, tuple)) and len(stored) == 3:
        return _from_code(*stored)
    if isinstance(stored, str) and config.get("function_type") == "function":
        return _from_name(stored, module), ()
    if isinstance(stored, str):
        return _from_code(stored, None, None)
    raise NotUnderstood("how its function is stored")


def _from_code(code: Any, defaults: Any, closure: Any) -> tuple[Formula, tuple[Any, ...]]:
    if closure:
        raise NotUnderstood("variables from outside of it")
    if not isinstance(defaults, (list, tuple, type(None))):
        raise NotUnderstood("its defaults")
    return _bytecode.read(code_bytes(code)), tuple(defaults or ())


def code_bytes(code: Any) -> bytes:
    """Base64; the first tf.keras wrote the bytes themselves, each as a character."""
    if not isinstance(code, str) or len(code) > 2 * MOST_BYTES:
        raise NotUnderstood("byte code that is none, or longer than any function that is worth reading")
    try:
        return base64.b64decode("".join(code.split()).encode("ascii"), validate=True)
    except (UnicodeEncodeError, binascii.Error):
        return code.encode("raw_unicode_escape")


def _from_name(name: Any, module: Any) -> Formula:
    """A function by its name. Keras itself looks for a bare name among its activations."""
    if not isinstance(name, str) or not isinstance(module, (str, type(None))):
        raise NotUnderstood("the name of its function")
    owner = {"": "activations", "builtins": "activations"}.get(module or "", (module or "").partition(".src")[0])
    found = table.canonical(f"{owner}.{name}")
    if found not in table.FUNCTIONS:
        raise NotUnderstood(f"the function {module or ''} {name}".replace("  ", " "))
    steps = (Step("argument", "x"), Step("name", found), Step("call", (), (1, 0)))
    return Formula(("x",), 0, steps, 2)


# What is known before anything is built -------------------------------------------------------------------------


def _check_names(formula: Formula) -> None:
    """Every name leads to a module, a constant or a function of the table, also where nothing comes of it."""
    names: dict[int, str] = {}
    for place, step in enumerate(formula.steps):
        if step.kind == "name" or (step.kind == "attribute" and step.parts[0] in names):
            whole = step.value if step.kind == "name" else f"{names[step.parts[0]]}.{step.value}"
            names[place] = table.canonical(str(whole))
            if not _is_known(names[place]):
                raise NotUnderstood(f"the name {whole}")
        elif step.kind == "attribute" and step.value not in _OF_TENSORS:
            raise NotUnderstood(f"the attribute {step.value}")
        elif step.kind == "call":
            _check_called(formula.steps[step.parts[0]], names.get(step.parts[0]))


def _check_called(step: Step, name: str | None) -> None:
    if name is None and not (step.kind == "attribute" and step.value in ("get_shape", "as_list")):
        raise NotUnderstood("a call of something other than a function")
    if name is not None and name not in table.FUNCTIONS:
        raise NotUnderstood(f"a call of {name}")


def _is_known(name: str) -> bool:
    return name in table.MODULES or name in table.CONSTANTS or name in table.FUNCTIONS


def _constants(formula: Formula, defaults: tuple[Any, ...], arguments: dict[str, Any]) -> dict[str, Any]:
    """The parameters behind the first, from the layer's arguments and the function's defaults."""
    if not formula.parameters:
        raise NotUnderstood("a function without an argument")
    rest = formula.parameters[1:]
    positional = formula.parameters[: len(formula.parameters) - formula.keyword_only]
    known = dict(zip(positional[::-1], defaults[::-1], strict=False)) | arguments
    for name in rest:
        if name in _GIVEN_BY_KERAS:
            raise NotUnderstood(f"the argument {name}, which Keras gives it")
        if name not in known:
            raise NotUnderstood(f"the argument {name}, which has no value")
    if unknown := sorted(set(arguments) - set(rest)):
        raise NotUnderstood(f"the value of {unknown[0]}, which it does not take")
    return {name: _plain(known[name]) for name in rest}


def _plain(value: Any) -> Any:
    """A value of plain data: numbers, texts, lists of them; the words of Keras for a tuple."""
    pending, count = [(value, 0)], 0
    while pending:
        item, depth = pending.pop()
        count += 1
        inner = item["config"].get("value") if _is_marked(item) else item
        known = (list,) if _is_marked(item) else (list, tuple, bool, int, float, str, type(None))
        if count > MOST_ARGUMENTS or depth > DEEPEST or not isinstance(inner, known):
            raise NotUnderstood("an argument or a default that is no plain constant")
        pending.extend((part, depth + 1) for part in (inner if isinstance(inner, (list, tuple)) else ()))
    return _without_marks(value)


def _is_marked(value: Any) -> bool:
    inner = value.get("config") if isinstance(value, dict) else None
    return isinstance(inner, dict) and value.get("class_name") == "__tuple__"


def _without_marks(value: Any) -> Any:
    if _is_marked(value):
        return tuple(_without_marks(item) for item in value["config"]["value"])
    return [_without_marks(item) for item in value] if isinstance(value, (list, tuple)) else value


def declared_shape(config: dict[str, Any]) -> tuple[int | None, ...] | None:
    """The shape without the batch that the layer declares in numbers. What a function would say of it follows from the
    operations, so no function for it is looked at."""
    value: Any = config.get("output_shape")
    value = value["config"].get("value") if _is_marked(value) else value
    kind = config.get("output_shape_type", "raw")
    if kind != "raw" or not isinstance(value, list) or not value:
        return None
    return tuple(value) if all(item is None or type(item) is int for item in value) else None


# Words ----------------------------------------------------------------------------------------------------------


class _Words:
    """A formula as a line of text. What is shared is written again, so there is an end to it."""

    MOST_PARTS = 80
    DEEPEST = 16

    def __init__(self, formula: Formula) -> None:
        self.formula, self.left = formula, self.MOST_PARTS

    def of(self, place: int, depth: int = 0) -> str:
        self.left -= 1
        if self.left < 0 or depth > self.DEEPEST:
            return "…"
        step = self.formula.steps[place]
        return self._of(step, [self.of(part, depth + 1) for part in step.parts])

    def _of(self, step: Step, parts: list[str]) -> str:
        if step.kind in ("index", "attribute", "item", "call"):
            parts[0] = self._wrapped(step.parts[0], parts[0])
        if step.kind in _SHOWN:
            return _SHOWN[step.kind](step, parts)
        if step.kind in ("binary", "compare"):
            inner = [self._wrapped(part, text) for part, text in zip(step.parts, parts, strict=True)]
            return f" {step.value} ".join(inner)
        if step.kind == "unary":
            return f"{step.value}{self._wrapped(step.parts[0], parts[0])}"
        return "…"

    def _wrapped(self, place: int, text: str) -> str:
        is_compound = self.formula.steps[place].kind in ("binary", "compare", "unary")
        return f"({text})" if is_compound else text


def _called(step: Step, parts: list[str]) -> str:
    plain = len(parts) - 1 - len(step.value)
    named = [f"{name}={text}" for name, text in zip(step.value, parts[1 + plain :], strict=True)]
    return f"{parts[0]}({', '.join([*parts[1 : 1 + plain], *named])})"


def _sliced(step: Step, parts: list[str]) -> str:
    start, stop, pace = ("" if text == "None" else text for text in parts)
    return f"{start}:{stop}:{pace}" if pace else f"{start}:{stop}"


def _constant(step: Step, parts: list[str]) -> str:
    text = _plainly(step.value)
    return text if len(text) <= 80 else f"{text[:79]}…"


def _plainly(value: Any) -> str:
    if isinstance(value, tuple):
        return f"({', '.join(map(_plainly, value))}{',' if len(value) == 1 else ''})"
    return "..." if value is Ellipsis else repr(value)


def _indexed(step: Step, parts: list[str]) -> str:
    key = parts[1][1:-1].rstrip(",") if parts[1].startswith("(") and parts[1] != "()" else parts[1]
    return f"{parts[0]}[{key}]"


_SHOWN: dict[str, Callable[[Step, list[str]], str]] = {
    "argument": lambda step, parts: str(step.value),
    "name": lambda step, parts: str(step.value),
    "constant": _constant,
    "attribute": lambda step, parts: f"{parts[0]}.{step.value}",
    "call": _called,
    "index": _indexed,
    "item": lambda step, parts: f"{parts[0]}[{step.value[0]}]",
    "slice": _sliced,
    "tuple": lambda step, parts: f"({', '.join(parts)}{',' if len(parts) == 1 else ''})",
    "list": lambda step, parts: f"[{', '.join(parts)}]",
}


# Layers ---------------------------------------------------------------------------------------------------------


def scaling(reading: Reading) -> tuple[float, float] | None:
    """Scale and offset where the formula is ``x * scale + offset`` in this order, or a part of it; else None.

    It is then the layer Rescaling, for which every format of layers has a word.
    """
    steps, place, offset = reading.formula.steps, reading.formula.result, 0.0
    if found := _with_number(reading, steps[place], "+-"):
        place, offset = found[0], -found[1] if steps[place].value == "-" else found[1]
    scale = 1.0
    if found := _with_number(reading, steps[place], "*/"):
        if not 1e-30 < abs(found[1]) < 1e30:
            return None
        place, scale = found[0], 1 / found[1] if steps[place].value == "/" else found[1]
    is_input = steps[place] == Step("argument", reading.formula.parameters[0])
    return (scale, offset) if is_input and place != reading.formula.result else None


def _with_number(reading: Reading, step: Step, signs: str) -> tuple[int, float] | None:
    """The place on the left and the number on the right of a sign, where there is one."""
    if step.kind != "binary" or step.value not in tuple(signs):
        return None
    right = reading.formula.steps[step.parts[1]]
    value = reading.constants.get(str(right.value)) if right.kind == "argument" else right.value
    is_number = right.kind in ("argument", "constant") and type(value) in (int, float)
    return (step.parts[0], float(value)) if is_number else None  # type: ignore[arg-type]


# Operations -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Named:
    """A module or a function of the table."""

    name: str


@dataclass(frozen=True)
class _Method:
    """``get_shape`` or ``as_list``, before it is called."""

    of: Any


@dataclass(frozen=True)
class _Given:
    """What the steps are computed from: the values of the parameters by name, the first of which is the input."""

    values: Mapping[str, Any]
    inputs: Any
    of_tf_1: bool


def compute(reading: Reading, inputs: Any) -> Any:
    """The formula on symbolic tensors; LambdaRefused where it does not fit them."""
    known = {reading.formula.parameters[0]: inputs, **reading.constants}
    given = _Given(known, inputs, reading.of_tf_1)
    values: list[Any] = []
    try:
        for step in reading.formula.steps:
            values.append(_RULES[step.kind](step, [values[part] for part in step.parts], given))
        return _result(values[reading.formula.result])
    except NotUnderstood as problem:
        raise LambdaRefused(names=reading.name, problem=str(problem)[:200]) from problem
    except Exception as error:  # Keras raises whatever an operation meets
        problem_text = " ".join(str(error).split())[:200]
        raise LambdaRefused(names=reading.name, problem=f"what it does with its input ({problem_text})") from error


def _result(value: Any) -> Any:
    values = list(value) if isinstance(value, (list, tuple)) else [value]
    if not values or not all(map(functions.is_tensor, values)):
        raise NotUnderstood("a result that is no tensor")
    return values if isinstance(value, (list, tuple)) else value


def _named(step: Step, parts: list[Any], given: _Given) -> Any:
    return _known(table.canonical(str(step.value)))


def _known(name: str) -> Any:
    return table.CONSTANTS[name] if name in table.CONSTANTS else _Named(name)


def _attribute(step: Step, parts: list[Any], given: _Given) -> Any:
    of = parts[0]
    if isinstance(of, _Named):
        return _known(table.canonical(f"{of.name}.{step.value}"))
    if step.value == "as_list" and isinstance(of, tuple):
        return _Method(of)
    if not functions.is_tensor(of) or step.value == "as_list":
        raise NotUnderstood(f"the attribute {step.value}")
    if step.value == "dtype":
        return str(of.dtype)
    return functions.shape_of(of) if step.value == "shape" else _Method(functions.shape_of(of))


def _call(step: Step, parts: list[Any], given: _Given) -> Any:
    function, *values = parts
    plain = len(values) - len(step.value)
    if isinstance(function, _Method) and not values:
        return function.of
    if not isinstance(function, _Named) or any(isinstance(value, (_Named, _Method)) for value in values):
        raise NotUnderstood("a function as a value")
    keywords = dict(zip(step.value, values[plain:], strict=True))
    return table.call(function.name, values[:plain], keywords, of_tf_1=given.of_tf_1)


def _compare(step: Step, parts: list[Any], given: _Given) -> Any:
    """Two tensors, or one and a number, are compared by what they are in TensorFlow 1, not by their values."""
    if step.value in ("==", "!=") and given.of_tf_1 and any(map(functions.is_tensor, parts)):
        raise NotUnderstood(f"{step.value}, which TensorFlow 1 and 2 do in two ways, and the file may be of either")
    return functions.operator(step.value, *parts)


def _index(step: Step, parts: list[Any], given: _Given) -> Any:
    of, key = parts
    if of is given.inputs and type(key) is int and functions.is_tensor(of):
        raise NotUnderstood("an index into the batch, or into a list of one tensor")
    if not isinstance(of, (list, tuple)):
        return functions.indexed(of, key)
    inside = isinstance(key, slice) or (type(key) is int and -len(of) <= key < len(of))
    if not inside:
        raise NotUnderstood("an index into several tensors")
    return of[key]


def _item(step: Step, parts: list[Any], given: _Given) -> Any:
    place, count = step.value
    if not isinstance(parts[0], (list, tuple)) or len(parts[0]) != count:
        raise NotUnderstood(f"{count} names for something other than {count} tensors")
    return parts[0][place]


def _slice(step: Step, parts: list[Any], given: _Given) -> Any:
    if not all(part is None or type(part) is int for part in parts):
        raise NotUnderstood("a slice that is only known while it runs")
    return slice(*parts)


_RULES: dict[str, Callable[[Step, list[Any], _Given], Any]] = {
    "argument": lambda step, parts, given: given.values[step.value],
    "constant": lambda step, parts, given: step.value,
    "name": _named,
    "attribute": _attribute,
    "call": _call,
    "unary": lambda step, parts, given: functions.unary(step.value, parts[0]),
    "binary": lambda step, parts, given: functions.operator(step.value, *parts),
    "compare": _compare,
    "index": _index,
    "item": _item,
    "slice": _slice,
    "tuple": lambda step, parts, given: tuple(parts),
    "list": lambda step, parts, given: list(parts),
}


class Block:
    """A Lambda layer that becomes a small model of operations once the shapes of its inputs are known.

    It has the layer's name. Called with other shapes, it becomes a second one. What is computed has no mask behind a
    Lambda layer, and none behind operations; a tensor that passes through as it is keeps its mask.
    """

    def __init__(self, reading: Reading, name: str, dtype: str | None) -> None:
        self.reading, self.name, self.dtype = reading, name, dtype
        self.models: dict[tuple[Any, ...], Any] = {}

    def __call__(self, inputs: Any, **arguments: Any) -> Any:
        if arguments.keys() - {"training", "mask"}:  # its function takes neither, see ``_constants``
            raise LambdaRefused(names=self.reading.name, problem="what it is called with")
        return self.model_for(inputs)(inputs)

    def model_for(self, inputs: Any) -> Any:
        """The model of operations for tensors of these shapes."""
        import keras

        key = tuple((tuple(item.shape), str(item.dtype), _is_masked(item)) for item in keras.tree.flatten(inputs))
        if key not in self.models:
            self.models[key] = self._made(inputs, f"{self.name}_{len(self.models)}" if self.models else self.name)
        return self.models[key]

    def _made(self, inputs: Any, name: str) -> Any:
        import keras

        if any(getattr(item, "sparse", False) or getattr(item, "ragged", False) for item in keras.tree.flatten(inputs)):
            raise LambdaRefused(names=self.reading.name, problem="a sparse or ragged tensor")
        given = keras.tree.map_structure(_input_like, inputs)
        result = compute(self.reading, keras.tree.map_structure(self._typed, given))
        self._check_shape(result)
        if layer := self._as_layer(given, inputs, result, name):
            return layer
        through = [item for item in keras.tree.flatten(result) if _place(item, given) is not None]
        if any(_is_masked(keras.tree.flatten(inputs)[_place(item, given) or 0]) for item in through):
            raise LambdaRefused(names=self.reading.name, problem="one of several tensors with a mask, passed through")
        outputs = keras.tree.map_structure(_copy_of_input(given), result)
        return keras.Model(given, outputs, name=name)

    def _as_layer(self, given: Any, inputs: Any, result: Any, name: str) -> Any:
        """The one layer of Keras that does the same, masks included; None where none does."""
        import keras

        if result is given:
            return keras.layers.Identity(name=name)
        plain = not isinstance(given, (list, tuple, dict)) and self.dtype in (None, str(given.dtype))
        numbers = scaling(self.reading) if plain and given.dtype == "float32" and not _is_masked(inputs) else None
        return keras.layers.Rescaling(*numbers, name=name) if numbers else None

    def _typed(self, tensor: Any) -> Any:
        """Layers bring floating inputs to their own type before they compute."""
        from keras import ops

        changes = self.dtype is not None and "float" in str(tensor.dtype) and str(tensor.dtype) != self.dtype
        return ops.cast(tensor, self.dtype) if changes else tensor

    def _check_shape(self, result: Any) -> None:
        declared = self.reading.output_shape
        if declared is None or isinstance(result, list):
            return
        found = tuple(result.shape[1:])
        same = len(found) == len(declared) and all(
            None in (one, two) or one == two for one, two in zip(found, declared, strict=True)
        )
        if not same:
            problem = f"the shape that it declares, {list(declared)}: what it was read as gives {list(found)}"
            raise LambdaRefused(names=self.reading.name, problem=problem)


class EachStep(Block):
    """A Lambda layer inside a TimeDistributed: the same for every step.

    Keras 2 took all steps for one batch (``folds``), unless the size of the batch is fixed: another result where a
    function looks along the batch.
    """

    def __init__(self, inner: Block, name: str, *, folds: bool = False) -> None:
        super().__init__(inner.reading, name, inner.dtype)
        self.inner, self.folds = inner, folds

    def _made(self, inputs: Any, name: str) -> Any:
        import keras

        if _is_masked(inputs):
            raise LambdaRefused(names=self.reading.name, problem="a mask of steps")
        step = keras.Input(batch_shape=(inputs.shape[0], *inputs.shape[2:]), dtype=inputs.dtype)
        inner = self.inner.model_for(step)
        if self.folds and None not in inputs.shape[1:] and inputs.shape[0] is None:
            return self._folded(inputs, inner, name)
        return keras.layers.TimeDistributed(inner, name=name)

    def _folded(self, inputs: Any, inner: Any, name: str) -> Any:
        import keras

        given = _input_like(inputs)
        result = inner(keras.ops.reshape(given, (-1, *inputs.shape[2:])))
        if not functions.is_tensor(result) or None in result.shape[1:]:
            raise LambdaRefused(names=self.reading.name, problem="what a TimeDistributed makes of its result")
        return keras.Model(given, keras.ops.reshape(result, (-1, inputs.shape[1], *result.shape[1:])), name=name)


def _input_like(tensor: Any) -> Any:
    import keras

    return keras.Input(batch_shape=tuple(tensor.shape), dtype=tensor.dtype)


def _place(tensor: Any, given: Any) -> int | None:
    """Which of the inputs this very tensor is; None where it was computed."""
    import keras

    return next((place for place, item in enumerate(keras.tree.flatten(given)) if item is tensor), None)


def _is_masked(tensor: Any) -> bool:
    return getattr(tensor, "_keras_mask", None) is not None


def _copy_of_input(given: Any) -> Callable[[Any], Any]:
    import keras

    return lambda tensor: tensor if _place(tensor, given) is None else keras.ops.copy(tensor)
