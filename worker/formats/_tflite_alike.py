"""Is one TensorFlow Lite file another one, rounded? Two files of one conversion, with and without quantising, compared
operation by operation and number by number. Nothing is run.

Both are walked from their outputs back. What only changes how numbers are stored (QUANTIZE, DEQUANTIZE) is stepped
over; every other operation has to be of the same kind with the same settings, fed by the same. Constants are compared
as the numbers that they stand for, in steps of their own scale: rounding moves none by more than half a step. No scale
may be wider than its numbers need, or a step would hide anything; and the biases of convolutions and products count as
the kernels read them, whatever scale they name.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from worker.formats import _tflite_file, _tflite_ranges, _tflite_weights
from worker.formats._changeable import layer_of
from worker.formats._likeness import Likeness, Measured, Rounded

if TYPE_CHECKING:
    import numpy as np

LOOP = "WHILE"
RESTORING = frozenset({"QUANTIZE", "DEQUANTIZE"})  # the same numbers, stored in another way
# How whole numbers are handled, which is nothing that floats have
OF_QUANTISING = frozenset({"asymmetricQuantizeInputs", "quantizedBiasType", "potScaleInt16"})
GRAPHS = frozenset({"condSubgraphIndex", "bodySubgraphIndex", "thenSubgraphIndex", "elseSubgraphIndex", "subgraph"})
# What hands whole numbers on as they are: that is right only where they mean the same before and after
# fmt: off
HANDING_ON = frozenset({
    "RESHAPE", "TRANSPOSE", "SQUEEZE", "EXPAND_DIMS", "GATHER", "GATHER_ND", "SLICE", "STRIDED_SLICE", "SPLIT",
    "SPLIT_V", "PACK", "UNPACK", "TILE", "PAD", "PADV2", "MIRROR_PAD", "MAX_POOL_2D", "SPACE_TO_DEPTH",
    "DEPTH_TO_SPACE", "BATCH_TO_SPACE_ND", "SPACE_TO_BATCH_ND", "REVERSE_V2", "BROADCAST_TO", "CONCATENATION",
    "SELECT", "SELECT_V2",
    "MAXIMUM", "MINIMUM", "REDUCE_MAX", "REDUCE_MIN", "RESIZE_NEAREST_NEIGHBOR", "RESIZE_BILINEAR", "TOPK_V2",
    "REVERSE_SEQUENCE", "SCATTER_ND", "WHERE", "DYNAMIC_UPDATE_SLICE",
})
# fmt: on
WHOLE_NUMBERS = frozenset({"int8", "uint8", "int16"})  # that stand for others inside of a graph
# Where these are fed input, kernel and bias; the bias is read in steps of the product of the other two's scales
BIASED = {
    "CONV_2D": (0, 1, 2),
    "DEPTHWISE_CONV_2D": (0, 1, 2),
    "FULLY_CONNECTED": (0, 1, 2),
    "TRANSPOSE_CONV": (2, 1, 3),
}
SYMMETRIC = {"int4": 7, "int8": 127, "int16": 32767}  # steps from zero to the end
ASYMMETRIC = {"int4": 15, "int8": 255, "int16": 65535, "uint8": 255}  # steps from end to end
WIDER = 1.05  # than the numbers of a constant need
NARROWEST = 5e-7  # the distance from zero that converters give to what is smaller
MOST_BIAS = (2**31 - 1) / 2  # in steps; a kernel's scale is made wider for a bias of more
SINGLE = 4e-7  # relative: what computing in float32 makes of a number
HALF = (2.0**-10, 2.0**-24)  # the distance of two float16, relative and at least
LARGEST_HALF = 65504.0
FAR = float(2**127)  # steps: nothing that rounding explains
MOST_PAIRS, MOST_STEPS = 200_000, 1000
MOST_NAMED = 20


class Apart(Exception):
    """The two graphs are not the same; the message says where they part."""


def alike(fine: Path, coarse: Path, measured: Measured | None = None) -> Likeness:
    """How far ``coarse`` is what ``fine`` is, with numbers rounded. Takes the memory of both files and of the largest
    tensor a few times. ``measured``: what ``fine`` is run on, to tell which whole numbers cannot stand for what is
    computed."""
    try:
        walk = walked(fine.read_bytes(), coarse.read_bytes())
    except Apart as apart:
        return Likeness(problem=str(apart))
    changed = sorted(walk.constants.values(), key=lambda item: -item.steps)
    return Likeness(
        operations=len(walk.operations),
        tensors=len(walk.constants),
        rounded=sum(item.is_rounded for item in changed),
        furthest=tuple(changed[:MOST_NAMED]),
        floating=tuple(walk.floating()),
        cut_off=tuple(_tflite_ranges.cut_off(fine, walk, measured)[:MOST_NAMED]) if measured else (),
        ranges=walk.coarse.ranges() + walk.cut,
    )


def walked(fine: bytes, coarse: bytes) -> Walk:
    """Both files, compared from end to end; Apart where they are not the same graph."""
    walk = Walk(File(fine), File(coarse))
    walk.compare()
    return walk


@dataclass(frozen=True)
class _Operation:
    """One operation of a graph: its kind, and what it is fed and gives, as numbers of tensors."""

    kind: str
    item: Any  # the schema's OperatorT

    @property
    def places(self) -> list[int]:
        """What it is fed, with -1 for an operand that is left out."""
        return [int(number) for number in self.item.inputs]

    @property
    def inputs(self) -> list[int]:
        return [number for number in self.places if number >= 0]

    @property
    def outputs(self) -> list[int]:
        return [int(number) for number in self.item.outputs]

    def settings(self) -> Iterator[tuple[str, Any]]:
        for options in (self.item.builtinOptions, self.item.builtinOptions2):
            found = vars(options) if options else {}
            yield from ((name, value) for name, value in found.items() if name not in OF_QUANTISING)
        if (custom := self.item.customOptions) is not None and len(custom):
            yield "customOptions", bytes(bytearray(custom))


class File:
    """One flatbuffer with its graphs."""

    def __init__(self, content: bytes) -> None:
        from tensorflow.lite.python import schema_py_generated as schema

        self.content, self.model = content, schema.Model.GetRootAsModel(content, 0)
        self.types, names = _tflite_file.type_names(), _tflite_file.operation_names()
        codes = [self.model.OperatorCodes(number) for number in range(self.model.OperatorCodesLength())]
        self.kinds = [
            code.CustomCode().decode() if code.CustomCode() else names[_tflite_file._code(code)] for code in codes
        ]
        self.graphs = [_Graph(self, number) for number in range(self.model.SubgraphsLength())]
        self.loops = self._loops()

    def _loops(self) -> dict[int, tuple[int, _Operation]]:
        """The graphs that a loop is made of, with the graph that it stands in and its operation."""
        found: dict[int, tuple[int, _Operation]] = {}
        for number, graph in enumerate(self.graphs):
            for operation in graph.operations:
                inside = dict(operation.settings()) if operation.kind == LOOP else {}
                for name in GRAPHS & inside.keys():
                    if int(inside[name]) in found:
                        raise Apart("two loops share what they repeat")
                    found[int(inside[name])] = number, operation
        return found

    def ranges(self) -> int:
        """How many computed values are stored as whole numbers that stand for others."""
        computed = [(graph, number) for graph in self.graphs for number in graph.makers]
        return sum(graph.kind(number) in WHOLE_NUMBERS and graph.is_scaled(number) for graph, number in computed)

    def constant(self, loop: _Operation) -> set[int]:
        """The places of what a loop hands on as it is, each time."""
        body = self.graphs[int(dict(loop.settings())["bodySubgraphIndex"])]
        pairs = enumerate(zip(body.inputs, body.outputs, strict=False))
        return {place for place, (first, last) in pairs if body.stored(last) == first}

    def changing(self, loop: _Operation, numbers: list[int]) -> list[int]:
        """Of what a loop is fed or gives, that which changes while it runs; all, for other operations."""
        constant = self.constant(loop) if loop.kind == LOOP else set()
        return [number for place, number in enumerate(numbers) if place not in constant]

    def origin(self, graph: int, tensor: int) -> tuple[int, int]:
        """The graph and the tensor that this one only stores in another way, or that a loop only hands on to it."""
        for _ in range(MOST_STEPS):
            tensor = self.graphs[graph].stored(tensor)
            outer = self._before(graph, tensor)
            if outer is None:
                return graph, tensor
            graph, tensor = outer
        raise Apart("its loops stand in a circle")

    def made(self, graph: int, tensor: int) -> tuple[int, int] | None:
        """The operation that makes a tensor, and as which of its results; None for what is none's."""
        found = self.graphs[graph]
        if (made := found.makers.get(tensor)) is None:
            return None
        operation = found.operations[made[0]]
        return made[0], self.changing(operation, operation.outputs).index(tensor)

    def _before(self, graph: int, tensor: int) -> tuple[int, int] | None:
        """What a loop was given, where it only hands it on: into itself, or out of itself."""
        found = self.graphs[graph]
        if (made := found.makers.get(tensor)) is not None:
            loop, place = found.operations[made[0]], made[1]
            return (graph, loop.inputs[place]) if loop.kind == LOOP and place in self.constant(loop) else None
        if graph not in self.loops or tensor not in found.inputs:
            return None
        outer, loop = self.loops[graph]
        place = found.inputs.index(tensor)
        return (outer, loop.inputs[place]) if place in self.constant(loop) else None

    def edges(self) -> tuple[int, dict[str, int], dict[str, int]]:
        """The number of the graph that is run, and its inputs and outputs: by the names of the signature, else by their
        places."""
        signatures = _tflite_file._signatures(self.model)
        if not signatures:
            first = self.graphs[0]
            return 0, _numbered(first.inputs), _numbered(first.outputs)
        chosen = signatures[_tflite_file.choose(signatures)]
        inputs = [chosen.Inputs(number) for number in range(chosen.InputsLength())]
        outputs = [chosen.Outputs(number) for number in range(chosen.OutputsLength())]
        named = (dict(_tflite_file._mapped(tensors)) for tensors in (inputs, outputs))
        return int(chosen.SubgraphIndex()), next(named), next(named)


def _numbered(numbers: list[int]) -> dict[str, int]:
    return {str(place): number for place, number in enumerate(numbers)}


class _Graph:
    """One graph: what makes each of its tensors, and which of them are constants."""

    def __init__(self, file: File, number: int) -> None:
        from tensorflow.lite.python import schema_py_generated as schema

        self.file, self.graph = file, file.model.Subgraphs(number)
        items = (self.graph.Operators(place) for place in range(self.graph.OperatorsLength()))
        self.operations = [
            _Operation(file.kinds[item.OpcodeIndex()], schema.OperatorT.InitFromObj(item)) for item in items
        ]
        self.makers = {
            tensor: (place, own)
            for place, operation in enumerate(self.operations)
            for own, tensor in enumerate(operation.outputs)
        }
        self.inputs = _tflite_file._sizes(self.graph.InputsAsNumpy())
        self.outputs = _tflite_file._sizes(self.graph.OutputsAsNumpy())

    def stored(self, tensor: int) -> int:
        """The tensor that this one only stores in another way."""
        for _ in range(len(self.operations) + 1):
            place = self.makers.get(tensor)
            if place is None or self.operations[place[0]].kind not in RESTORING:
                return tensor
            tensor = self.operations[place[0]].inputs[0]
        raise Apart("its operations run in a circle")

    def tensor(self, number: int) -> Any:
        return self.graph.Tensors(number)

    def kind(self, number: int) -> str:
        return self.file.types[self.tensor(number).Type()]

    def name(self, number: int) -> str:
        return (self.tensor(number).Name() or b"").decode(errors="replace")

    def buffer(self, number: int) -> Any:
        """What a constant holds; None for what is computed, or empty."""
        buffer = self.file.model.Buffers(self.tensor(number).Buffer())
        return buffer if buffer.DataLength() or buffer.Size() else None

    def meaning(self, number: int) -> tuple[float, int] | None:
        """Scale and zero of whole numbers that stand for others, where all have the same."""
        scales = _tflite_weights._scales(self.tensor(number)) if self.kind(number) in WHOLE_NUMBERS else None
        return (float(scales.scale[0]), int(scales.zero[0])) if scales and len(scales.scale) == 1 else None

    def is_scaled(self, number: int) -> bool:
        return _tflite_weights._scales(self.tensor(number)) is not None

    def scale(self, number: int) -> np.ndarray:
        """The scales of a tensor; Apart where its whole numbers are what they are."""
        import numpy as np

        if (scales := _tflite_weights._scales(self.tensor(number))) is None:
            raise Apart(f"what {self.name(number)} stands for is not known")
        return np.asarray(scales.scale, "float64")

    def product(self, values: int, kernel: int) -> np.ndarray:
        """What one step of a bias is to the kernels."""
        product: np.ndarray = self.scale(values) * self.scale(kernel)
        return product

    def whole(self, number: int) -> np.ndarray:
        """The whole numbers of a bias."""
        import numpy as np

        raw = bytes(_tflite_weights._bytes(self.file.content, self.buffer(number)))
        return np.frombuffer(raw, _tflite_weights.WHOLE[self.kind(number)]).astype("float64")

    def too_wide(self, number: int, fine: np.ndarray) -> bool:
        """Is a scale of this constant wider than these numbers need, or below zero? Slices of zeros need none."""
        import numpy as np

        kind, scales = self.kind(number), _tflite_weights._scales(self.tensor(number))
        if kind not in ASYMMETRIC or scales is None or self._tied(number):
            return False
        kept = {scales.axis} if len(scales.scale) > 1 else set()
        axes = tuple(axis for axis in range(fine.ndim) if axis not in kept)
        top, low = np.maximum(fine.max(axis=axes), 0).ravel(), np.maximum(-fine.min(axis=axes), 0).ravel()
        own, zero = np.asarray(scales.scale, "float64"), np.asarray(scales.zero)
        needed = (np.maximum(top, NARROWEST) + np.maximum(low, NARROWEST)) / ASYMMETRIC[kind]
        if kind in SYMMETRIC and not zero.any():
            needed = np.maximum(np.maximum(top, low), NARROWEST) / SYMMETRIC[kind]
        needed = np.maximum(needed, self._for_bias(number))
        return bool((((own > WIDER * needed) | (own <= 0)) & (top + low > 0)).any())

    def _for_bias(self, kernel: int) -> Any:
        """The scale that the bias beside a kernel needs, so that its whole numbers do not run over."""
        import numpy as np

        for operation in self.operations:
            values, place, bias = BIASED.get(operation.kind, (0, 0, 0))
            if bias and bias < len(operation.places) and operation.places[place] == kernel:
                number, fed = operation.places[bias], operation.places[values]
                if number >= 0 and self.kind(number) in ("int32", "int64") and self.buffer(number) is not None:
                    return np.abs(self.whole(number)) * self.product(fed, kernel) / self.scale(fed) / MOST_BIAS
        return 0.0

    def _tied(self, number: int) -> bool:
        """Does a constant share its scale with what is computed, because both are handed on together?"""
        group, waiting = {number}, [number]
        while waiting:
            tensor = waiting.pop()
            for operation in self.operations:
                fed = (*operation.inputs, *operation.outputs)
                if operation.kind in HANDING_ON and tensor in fed:
                    new = {other for other in fed if self.meaning(other) is not None} - group
                    group |= new
                    waiting += new
        makers = (self.makers.get(other) for other in group)
        made = any(self.operations[maker[0]].kind not in HANDING_ON for maker in makers if maker)
        return made or bool(group & set(self.inputs))


@dataclass
class Walk:
    """Both files, pair by pair: (graph, tensor) of the one and of the other that should be the same."""

    fine: File
    coarse: File
    waiting: list[tuple[int, int, int, int]] = field(default_factory=list)
    seen: set[tuple[int, int, int, int]] = field(default_factory=set)
    operations: set[tuple[int, int, int, int]] = field(default_factory=set)
    constants: dict[tuple[int, int], Rounded] = field(default_factory=dict)
    entries: dict[tuple[int, int], dict[int, int]] = field(default_factory=dict)  # inputs of two graphs, paired
    computed: dict[tuple[int, int], tuple[int, int]] = field(default_factory=dict)  # of the other, and of the one
    cut: int = 0  # constants with a number beyond the range of a float16

    def compare(self) -> None:
        one, inputs, outputs = self.fine.edges()
        other, own_inputs, own_outputs = self.coarse.edges()
        if inputs.keys() != own_inputs.keys() or outputs.keys() != own_outputs.keys():
            raise Apart("its inputs and outputs have other names")
        self.entries[one, other] = {inputs[name]: own_inputs[name] for name in inputs}
        self.waiting += [(one, outputs[name], other, own_outputs[name]) for name in outputs]
        while self.waiting:
            self._pair(*self.waiting.pop())

    def _pair(self, one: int, first: int, other: int, second: int) -> None:
        (one, first), (other, second) = self.fine.origin(one, first), self.coarse.origin(other, second)
        if (one, first, other, second) in self.seen:
            return
        self.seen.add((one, first, other, second))
        if len(self.seen) > MOST_PAIRS:
            raise Apart("it has more operations than can be compared")
        made, own_made = self.fine.made(one, first), self.coarse.made(other, second)
        self.computed[other, second] = one, first
        if made is not None and own_made is not None and made[1] == own_made[1]:
            self._operation(one, made[0], other, own_made[0])
        elif made is None and own_made is None:
            self._end(one, first, other, second)
        else:
            raise Apart(f"{self._called(other, second)} is not computed as it should be")

    def _called(self, graph: int, tensor: int) -> str:
        return layer_of(self.coarse.graphs[graph].name(tensor)) or f"tensor {tensor}"

    # Operations ---------------------------------------------------------------------------------------------------

    def _operation(self, one: int, first: int, other: int, second: int) -> None:
        if (one, first, other, second) in self.operations:
            return
        self.operations.add((one, first, other, second))
        a, b = self.fine.graphs[one].operations[first], self.coarse.graphs[other].operations[second]
        where = self._called(other, b.outputs[0])
        if a.kind == "SQUARED_DIFFERENCE" and (difference := self._difference(other, b)):
            a, b = _Operation("SUB", a.item), difference
        elif a.kind != b.kind:
            raise Apart(f"{where} is made by {b.kind}, and not by {a.kind}")
        elif dict(self._plain(a)) != dict(self._plain(b)):
            raise Apart(f"{b.kind} of {where} has other settings")
        fed, own_fed = self.fine.changing(a, a.places), self.coarse.changing(b, b.places)
        if [number >= 0 for number in fed] != [number >= 0 for number in own_fed]:
            raise Apart(f"{b.kind} of {where} is fed with other things")
        self._check_meaning(other, b, where)
        self._bias(one, a, other, b)
        self._enter(a, b)
        self.waiting += [(one, x, other, y) for x, y in zip(fed, own_fed, strict=True) if x >= 0]

    def _plain(self, operation: _Operation) -> Iterator[tuple[str, Any]]:
        """Its settings as plain data; those that name other graphs are compared by what is in these."""
        for name, value in operation.settings():
            if name not in GRAPHS:
                yield name, value.tolist() if hasattr(value, "tolist") else value

    def _difference(self, graph: int, product: _Operation) -> _Operation | None:
        """A squared difference in two steps: the difference whose product with itself this is."""
        found = self.coarse.graphs[graph]
        ends = {found.stored(number) for number in product.inputs}
        made = found.makers.get(next(iter(ends))) if product.kind == "MUL" and len(ends) == 1 else None
        inner = found.operations[made[0]] if made else None
        plain = all(not dict(item.settings()).get("fusedActivationFunction") for item in (product, inner) if item)
        return inner if inner and inner.kind == "SUB" and plain else None

    def _check_meaning(self, graph: int, operation: _Operation, where: str) -> None:
        """Whole numbers that are handed on as they are have to stand for the same numbers."""
        if operation.kind in HANDING_ON:
            found = self.coarse.graphs[graph]
            meanings = {found.meaning(number) for number in (*operation.inputs, *operation.outputs)} - {None}
            if len(meanings) > 1:
                raise Apart(f"the whole numbers that {operation.kind} of {where} hands on change what they stand for")

    def _bias(self, one: int, a: _Operation, other: int, b: _Operation) -> None:
        """A bias counts as the number that the kernel makes of it, in steps of the scales of input and kernel."""
        found, places = self.coarse.graphs[other], BIASED.get(b.kind)
        if places is None or len(b.places) <= places[2] or b.places[places[2]] < 0:
            return
        values, kernel, bias = (b.places[place] for place in places)
        if found.kind(bias) not in ("int32", "int64"):
            return
        (graph, fine), (own, coarse) = self.fine.origin(one, a.places[places[2]]), self.coarse.origin(other, bias)
        before, after = self.fine.graphs[graph], self.coarse.graphs[own]
        if before.buffer(fine) is not None and after.buffer(coarse) is not None:
            step = found.product(values, kernel)
            steps = _steps(_numbers(before, fine), after.whole(coarse) * step, step)
            self._note((own, coarse), Rounded(self._called_constant(after, coarse), steps, True))

    def _note(self, key: tuple[int, int], found: Rounded) -> None:
        """A constant that several are fed with counts as where it lies furthest off."""
        if key not in self.constants or self.constants[key].steps < found.steps:
            self.constants[key] = found

    def _enter(self, a: _Operation, b: _Operation) -> None:
        """The graphs inside of a loop or a branch: their outputs are to be the same, of the same inputs."""
        inside, own = dict(a.settings()), dict(b.settings())
        for name in GRAPHS & inside.keys():
            pair = int(inside[name]), int(own[name])
            if pair not in self.entries:
                one, other = self.fine.graphs[pair[0]], self.coarse.graphs[pair[1]]
                inputs = self.fine.changing(a, one.inputs), self.coarse.changing(b, other.inputs)
                outputs = (one.outputs, other.outputs)
                if name == "bodySubgraphIndex":
                    outputs = self.fine.changing(a, one.outputs), self.coarse.changing(b, other.outputs)
                if len(inputs[0]) != len(inputs[1]) or len(outputs[0]) != len(outputs[1]):
                    raise Apart(f"what {b.kind} runs has other inputs or outputs")
                self.entries[pair] = dict(zip(*inputs, strict=True))
                self.waiting += [(pair[0], x, pair[1], y) for x, y in zip(*outputs, strict=True)]

    # Where graphs begin -------------------------------------------------------------------------------------------

    def _end(self, one: int, first: int, other: int, second: int) -> None:
        """Both are inputs, constants, or hold nothing."""
        entry = self.entries.get((one, other), {}).get(first)
        if entry is not None or second in self.coarse.graphs[other].inputs:
            if entry != second:
                raise Apart(f"{self._called(other, second)} comes from another input")
            return
        a, b = self.fine.graphs[one], self.coarse.graphs[other]
        held, own = a.buffer(first), b.buffer(second)
        if (held is None) != (own is None) or _shape(a, first) != _shape(b, second):
            raise Apart(f"{self._called(other, second)} is a constant of another shape")
        if held is not None:
            self._note((other, second), self._rounded(a, first, b, second))

    def _rounded(self, a: _Graph, first: int, b: _Graph, second: int) -> Rounded:
        fine, coarse = _numbers(a, first), _numbers(b, second)
        name = self._called_constant(b, second)
        if fine.dtype.kind != coarse.dtype.kind:
            raise Apart(f"the constant {name} is of another kind")
        if fine.dtype.kind != "f" or (a.kind(first) == b.kind(second) and fine.tobytes() == coarse.tobytes()):
            if fine.tobytes() != coarse.tobytes():
                raise Apart(f"the constant {name} holds other numbers")
            return Rounded(name, 0.0, False)
        if b.kind(second) == "float16":
            fine = self._cut(fine)
        steps = _steps(fine, coarse, _step(fine, b, second))
        return Rounded(name, FAR if b.too_wide(second, fine) else steps, a.kind(first) != b.kind(second))

    def _cut(self, fine: np.ndarray) -> np.ndarray:
        """What is beyond the largest float16 is stored as that one: an attention's -1e9 for what is masked, which is
        as good, or a scale, which is not. The values have to tell."""
        import numpy as np

        cut = np.where(np.isfinite(fine), np.clip(fine, -LARGEST_HALF, LARGEST_HALF), fine)
        self.cut += int((cut != fine).any())
        return cut

    def _called_constant(self, graph: _Graph, number: int) -> str:
        return graph.name(number).split(";")[0] or f"tensor {number}"

    def floating(self) -> Iterator[str]:
        """The layers that compute in float32, in their order; of use where others compute in whole numbers."""
        found = {}
        for _, _, graph, place in sorted(self.operations, key=lambda item: item[2:]):
            own = self.coarse.graphs[graph]
            output = own.operations[place].outputs[0]
            if own.kind(output) == "float32":
                found[self._called(graph, output)] = True
        yield from found


def _shape(graph: _Graph, number: int) -> list[int]:
    return _tflite_file._sizes(graph.tensor(number).ShapeAsNumpy()) if graph.tensor(number).ShapeLength() else []


def _numbers(graph: _Graph, number: int) -> np.ndarray:
    """What a constant stands for: floats in float64, or whole numbers that are what they are."""
    import numpy as np

    tensor, kind = graph.tensor(number), graph.kind(number)
    scales = _tflite_weights._scales(tensor)
    if kind in _tflite_weights.PLAIN or (scales and kind in _tflite_weights.WHOLE):
        values = _tflite_weights._values(graph.file.content, tensor, kind, graph.buffer(number), exact=True)
        return values.astype("float64")
    return np.frombuffer(bytes(_tflite_weights._bytes(graph.file.content, graph.buffer(number))), "u1")


def _steps(fine: np.ndarray, coarse: np.ndarray, step: Any) -> float:
    """How many steps the two lie apart where that is most: steps between numbers that the result can store. What
    computing in float32 explains does not count."""
    import numpy as np

    if not np.array_equal(np.isfinite(fine), np.isfinite(coarse)):
        return FAR
    gap = np.maximum(np.abs(np.nan_to_num(fine - coarse)) - SINGLE * np.abs(np.nan_to_num(fine)), 0)
    with np.errstate(divide="ignore", over="ignore"):
        steps = np.divide(gap, np.abs(step), where=gap > 0, out=np.zeros_like(gap))
    return float(np.minimum(np.nan_to_num(steps, nan=FAR, posinf=FAR), FAR).max(initial=0.0))


def _step(fine: np.ndarray, graph: _Graph, number: int) -> Any:
    import numpy as np

    scales = _tflite_weights._scales(graph.tensor(number))
    if scales and graph.kind(number) in _tflite_weights.WHOLE:
        shape = [1] * fine.ndim
        if len(scales.scale) > 1:
            shape[scales.axis] = -1
        return np.abs(np.asarray(scales.scale, "float64")).reshape(shape if fine.ndim else ())
    if graph.kind(number) == "float16":
        return np.maximum(np.abs(fine) * HALF[0], HALF[1])
    return np.maximum(np.abs(fine).max(initial=0.0) * SINGLE, np.finfo("float32").tiny)  # stored as it was
