"""What a graph of operations implies of its inputs, read without running it.

The walk knows a few operations by canonical names; what reads a GraphDef, an ONNX graph or a TensorFlow Lite flatbuffer
tells it which of its own operations these are, and what its constants hold.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from worker.formats._format import MOST_BOUNDS, TensorSpec
from worker.formats._implied import Fed, Implied, some_words, together

if TYPE_CHECKING:
    import numpy.typing as npt

    Array = npt.NDArray[Any]

PASS, MOVE, CONCAT, CHOOSE, CALL = "pass", "move", "concat", "choose", "call"  # MOVE: a part of the values, or more
GATHER, ONE_HOT, BINCOUNT, LOOKUP = "gather", "one-hot", "bincount", "lookup"
MULTIPLY, DIVIDE, ADD, SUBTRACT, NOT_EQUAL = "multiply", "divide", "add", "subtract", "not-equal"
SQRT, RSQRT, RECIPROCAL, MAXIMUM = "sqrt", "rsqrt", "reciprocal", "maximum"
MOST_STEPS = 2000
DEEPEST = 16  # calls inside calls, and operations on constants behind each other


@dataclass(frozen=True)
class Known:
    """Something that does not depend on inputs: its shape, its value where it is small, a handle of a table."""

    shape: tuple[int, ...]
    value: Array | None = None
    handle: Any = None


@dataclass(frozen=True)
class Operation:
    """One node. ``body`` is what a call calls; ``axis`` is a gather's, ``types`` of keys and values are a lookup's."""

    kind: str  # one of the above; "" for any other
    inputs: Sequence[str]
    outputs: Sequence[str]
    axis: int = 0
    body: str = ""
    types: tuple[int, int] = (0, 0)


@dataclass(frozen=True)
class Body:
    """A graph or a function: its operations, the names of its arguments and results, and what is constant in it."""

    operations: Sequence[Operation]
    arguments: Sequence[str] = ()
    results: Sequence[str] = ()
    known: Callable[[str], Known | None] = lambda name: None
    makers: dict[str, Operation] = field(default_factory=dict)
    users: dict[str, list[Operation]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for operation in self.operations:
            self.makers.update(dict.fromkeys(operation.outputs, operation))
            for name in operation.inputs:
                self.users.setdefault(name, []).append(operation)


Found = Generator[Implied, None, dict[str, Fed]]  # what is known, and in the end the values on their way


def implied_by_graph(
    fed: Mapping[str, TensorSpec],
    graph: Body,
    given: Mapping[str, Known] | None = None,
    functions: Callable[[str], Body | None] = lambda name: None,
) -> dict[str, TensorSpec]:
    """The specs of the inputs, by the names of the tensors that hold them, with what the graph implies of them.

    ``given`` are arguments of the graph that are known, such as captured variables.
    """
    return {
        tensor: together(
            _Walk(functions, "int" in spec.dtype).facts(graph, {tensor: Fed.unchanged()}, dict(given or {}), 0)
        ).on(spec)
        for tensor, spec in fed.items()
    }


class _Walk:
    """One input's way through a graph; ``whole`` for one of integers."""

    def __init__(self, functions: Callable[[str], Body | None], whole: bool) -> None:
        self.functions, self.whole = functions, whole
        self.steps = 0

    def facts(self, body: Body, fed: dict[str, Fed], given: dict[str, Known], depth: int) -> Iterator[Implied]:
        """What is known of the values that come into the body as ``fed``; the others on their way are added to it."""
        pending, seen = list(fed.items()), set()
        while pending and self.steps < MOST_STEPS:
            name, value = pending.pop(0)
            for operation in body.users.get(name, []):
                if (id(operation), name) in seen:
                    continue
                seen.add((id(operation), name))
                self.steps += 1
                context = _Context(body, given, operation, name, value, self.whole)
                yield from context.said()
                results = yield from self._after(context, depth)
                fed.update({result: value for result, value in results.items() if result not in fed})
                pending += results.items()

    def _after(self, context: _Context, depth: int) -> Found:
        """The values behind the operation, by the names of its results."""
        operation = context.operation
        if operation.kind == CALL:
            return (yield from self._call(context, depth))
        value = context.after()
        if value is None:
            yield context.fed.implied()
            return {}
        return dict.fromkeys(operation.outputs, value)

    def _call(self, context: _Context, depth: int) -> Found:
        operation, body = context.operation, self.functions(context.operation.body)
        if body is None or depth > DEEPEST:
            return {}
        pairs = list(zip(operation.inputs, body.arguments, strict=False))
        fed = {inner: context.fed for outer, inner in pairs if outer == context.name}
        given = {inner: known for outer, inner in pairs if (known := context.known(outer))}
        yield from self.facts(body, fed, given, depth + 1)
        both = zip(operation.outputs, body.results, strict=False)
        return {outer: fed[inner] for outer, inner in both if inner in fed}


@dataclass(frozen=True)
class _Context:
    """One operation that an input has come to, under ``name``."""

    body: Body
    given: Mapping[str, Known]
    operation: Operation
    name: str
    fed: Fed
    whole: bool

    def said(self) -> Iterator[Implied]:
        """What the operation tells of indices, words and padding, where the values come as they were given."""
        kind, inputs = self.operation.kind, self.operation.inputs
        if not self.fed.is_unchanged or len(inputs) < 2:
            return
        other = self.known(next((name for name in inputs if name != self.name), ""))
        second = inputs[1] == self.name
        if kind == GATHER and second and other and len(other.shape) > self.operation.axis:
            yield Implied(limit=other.shape[self.operation.axis] or None)
        elif kind in (ONE_HOT, BINCOUNT) and not second and other and other.value is not None and other.value.size:
            yield Implied(limit=max(int(other.value.flat[0]), 0) or None)
        elif kind == LOOKUP and second and other and other.handle is not None:
            yield _words(other.handle, *self.operation.types)
        elif kind == NOT_EQUAL and other and other.value is not None and other.value.size == 1:
            yield _padding(other.value)

    def after(self) -> Fed | None:
        """The values behind it; None where it makes something else of them."""
        kind, inputs = self.operation.kind, list(self.operation.inputs)
        first = inputs[0] == self.name
        if kind == CONCAT or (kind in (PASS, MOVE) and first) or (kind == CHOOSE and not first):
            return self.fed
        if kind not in (MULTIPLY, DIVIDE, ADD, SUBTRACT) or len(inputs) != 2 or inputs[0] == inputs[1]:
            return None
        other = self.known(inputs[1 if first else 0])
        if other is None and self.whole and kind in (MULTIPLY, ADD):
            return self.fed  # an index is not computed with: it is chosen, by a factor of 0 or 1
        if other is None or other.value is None or (not first and kind in (DIVIDE, SUBTRACT)):
            return None
        steps = {MULTIPLY: self.fed.times, DIVIDE: self.fed.over, ADD: self.fed.plus}
        return self.fed.plus(-_float(other.value)) if kind == SUBTRACT else steps[kind](other.value)

    def known(self, name: str, depth: int = 0) -> Known | None:
        """What the tensor holds, where that does not depend on inputs and takes few operations to find out."""
        if name in self.given:
            return self.given[name]
        found = self.body.known(name)
        maker = self.body.makers.get(name)
        if found or maker is None or depth > DEEPEST or not maker.inputs:
            return found
        if maker.kind == PASS:
            return self.known(maker.inputs[0], depth + 1)
        values = [known.value for item in maker.inputs if (known := self.known(item, depth + 1))]
        return _computed(maker.kind, values) if len(values) == len(maker.inputs) else None


def _padding(value: Array) -> Implied:
    number = value.item() if value.dtype.kind in "iuf" else math.nan
    return Implied(padding=float(number)) if math.isfinite(number) else Implied()


def _float(value: Array) -> Array:
    import numpy as np

    return np.asarray(value, float)


def _computed(kind: str, values: Sequence[Array | None]) -> Known | None:
    """What is made of a mean and a variance before it meets an input."""
    import numpy as np

    functions: dict[str, Callable[..., Any]] = {
        SQRT: np.sqrt,
        RSQRT: lambda value: 1 / np.sqrt(value),
        RECIPROCAL: lambda value: 1 / value,
        MAXIMUM: np.maximum,
        MULTIPLY: np.multiply,
        ADD: np.add,
        SUBTRACT: np.subtract,
        DIVIDE: np.divide,
    }
    if kind not in functions or any(value is None or value.dtype.kind not in "iuf" for value in values):
        return None
    try:
        with np.errstate(all="ignore"):
            value = np.asarray(functions[kind](*values))
    except (TypeError, ValueError):
        return None
    return Known(value.shape, value)


def constant(array: Array) -> Known:
    """A constant of a graph: a small one with its value."""
    return Known(tuple(array.shape), array if array.size <= MOST_BOUNDS else None)


# TensorFlow ----------------------------------------------------------------------------------------------------------

_PASSING = (
    *("Identity", "ReadVariableOp", "Cast", "Reshape", "ExpandDims", "Squeeze", "Snapshot", "StopGradient"),
    *("PreventGradient", "EnsureShape", "PlaceholderWithDefault", "Enter"),
)
_MOVING = (
    *("Transpose", "Tile", "StridedSlice", "Slice", "Pad", "PadV2", "MirrorPad", "ResizeBilinear"),
    *(
        "StringLower",
        "StringUpper",
        "StringStrip",
        "RegexReplace",
        "StaticRegexReplace",
        "StringSplit",
        "StringSplitV2",
    ),
)
_TENSORFLOW = {
    **dict.fromkeys(_PASSING, PASS),
    **dict.fromkeys(_MOVING, MOVE),
    **dict.fromkeys(("ConcatV2", "Pack"), CONCAT),
    **dict.fromkeys(("Select", "SelectV2"), CHOOSE),
    **dict.fromkeys(("PartitionedCall", "StatefulPartitionedCall"), CALL),
    **dict.fromkeys(("Gather", "GatherV2", "ResourceGather"), GATHER),
    "OneHot": ONE_HOT,
    "DenseBincount": BINCOUNT,
    "Bincount": BINCOUNT,
    "NotEqual": NOT_EQUAL,
    **dict.fromkeys(("LookupTableFind", "LookupTableFindV2"), LOOKUP),
    "Mul": MULTIPLY,
    "RealDiv": DIVIDE,
    "Div": DIVIDE,
    "Add": ADD,
    "AddV2": ADD,
    "BiasAdd": ADD,
    "Sub": SUBTRACT,
    "Sqrt": SQRT,
    "Rsqrt": RSQRT,
    "Reciprocal": RECIPROCAL,
    "Inv": RECIPROCAL,
    "Maximum": MAXIMUM,
}
MOST_RESULTS = 64  # of a node


def tensor_name(operand: str) -> str:
    """``node:0`` for ``node``, and for ``node:output:0`` as functions say it."""
    parts = operand.lstrip("^").split(":")
    return f"{parts[0]}:{parts[-1] if len(parts) > 1 and parts[-1].isdecimal() else 0}"


def implied_by_graph_def(
    fed: Mapping[str, TensorSpec], definition: Any, given: Mapping[str, Known] | None = None
) -> dict[str, TensorSpec]:
    """``implied_by_graph`` of a GraphDef; tensors are called ``node:0``."""
    library = {function.signature.name: function for function in definition.library.function}
    bodies: dict[str, Body] = {}

    def function(name: str) -> Body | None:
        if name not in bodies and name in library:
            bodies[name] = _function_body(library[name])
        return bodies.get(name)

    return implied_by_graph(fed, _body(definition.node), given, function)


def _function_body(function: Any) -> Body:
    arguments = [f"{item.name}:0" for item in function.signature.input_arg]
    results = [tensor_name(function.ret[item.name]) for item in function.signature.output_arg]
    return _body(function.node_def, arguments, results)


def _body(nodes: Iterable[Any], arguments: Sequence[str] = (), results: Sequence[str] = ()) -> Body:
    kept = list(nodes)
    constants = {f"{node.name}:0": node for node in kept if node.op in ("Const", "VarHandleOp", "VariableV2")}
    return Body([_operation(node) for node in kept], arguments, results, lambda name: _constant(constants.get(name)))


def _operation(node: Any) -> Operation:
    kind = _TENSORFLOW.get(node.op, "")
    operands = [tensor_name(name) for name in node.input if not name.startswith("^")]
    count = MOST_RESULTS if kind == CALL else 2 if node.op.startswith("StringSplit") else 1
    outputs = [f"{node.name}:{number}" for number in range(count)]
    if node.op == "GatherV2":
        operands = operands[:2]  # the third is the axis, which is 0 for a table
    called = node.attr["f"].func.name if kind == CALL else ""
    types = (node.attr["Tin"].type, node.attr["Tout"].type) if kind == LOOKUP else (0, 0)
    return Operation(kind, operands, outputs, body=called, types=types)


def _constant(node: Any) -> Known | None:
    import tensorflow as tf

    if node is None:
        return None
    if node.op != "Const":
        shape = node.attr["shape"].shape
        return None if shape.unknown_rank else Known(tuple(max(int(item.size), 0) for item in shape.dim))
    proto = node.attr["value"].tensor
    shape = tuple(int(item.size) for item in proto.tensor_shape.dim)
    return Known(shape) if math.prod(shape) > MOST_BOUNDS else constant(tf.make_ndarray(proto))


def implied_by_signature(signature: Any, inputs: Sequence[TensorSpec]) -> tuple[TensorSpec, ...]:
    """The inputs of a concrete function of TensorFlow, by what its graph, its variables and its tables imply."""
    graph = signature.graph
    named = {f"{tensor.op.name}:0": tensor.op.name for tensor in graph.inputs}
    captured = list(zip(signature.captured_inputs, graph.internal_captures, strict=False))
    given = {inner.name: known for outer, inner in captured if (known := _captured(outer))}
    places = _argument_tensors(signature, named)
    fed = {places[spec.name]: spec for spec in inputs if spec.name in places}
    found = implied_by_graph_def(fed, graph.as_graph_def(), given)
    return tuple(found.get(places.get(spec.name, ""), spec) for spec in inputs)


def _argument_tensors(signature: Any, named: Mapping[str, str]) -> dict[str, str]:
    """Which placeholder holds which argument: they carry its name, or the signature lists them by it."""
    keywords = list(getattr(signature, "_arg_keywords", None) or [])
    names = list(named)
    if keywords and len(keywords) <= len(names):
        return dict(zip(keywords, names, strict=False))
    return {argument: tensor for tensor, argument in named.items()}


def _captured(tensor: Any) -> Known | None:
    """A variable by its handle: the shape, and the value of a small one; or else what may be a table."""
    import numpy as np
    import tensorflow as tf

    if tensor.dtype != tf.resource:
        return constant(np.asarray(tensor)) if math.prod(tensor.shape) <= MOST_BOUNDS else Known(tuple(tensor.shape))
    data = getattr(tensor, "_handle_data", None)
    if data is None or not data.is_set or not data.shape_and_type:
        return Known((), handle=tensor)
    shape = tuple(max(int(item.size), 0) for item in data.shape_and_type[0].shape.dim)
    dtype = tf.dtypes.as_dtype(data.shape_and_type[0].dtype)
    if math.prod(shape) > MOST_BOUNDS or not dtype.is_floating:
        return Known(shape)
    return constant(np.asarray(tf.raw_ops.ReadVariableOp(resource=tensor, dtype=dtype), "float64"))


def _words(handle: Any, key: int, value: int) -> Implied:
    """Some keys of a table. The types of keys and values are those with which the graph looks them up, since TensorFlow
    ends the process where it is asked for others."""
    import numpy as np
    import tensorflow as tf

    try:
        keys, _ = tf.raw_ops.LookupTableExportV2(table_handle=handle, Tkeys=key, Tvalues=value)
    except (tf.errors.OpError, ValueError, TypeError):
        return Implied()
    return some_words(np.sort(np.asarray(keys).astype("S")).tolist())
