"""The weights of a TensorFlow Lite file as variables that can be changed while it is open in LiteRT."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from worker.formats._changeable import changeable, is_fill, layer_of, unique
from worker.formats._format import Loaded, Variable
from worker.formats._reach import reached

if TYPE_CHECKING:
    import numpy as np

    from worker.formats._format import Arrays


def with_variables(loaded: Loaded, path: Path, open_again: Callable[[bytes], Loaded]) -> Loaded:
    """The open graph with its constants of float32 that have dimensions. An interpreter packs weights when it is made,
    so each change makes another one of the changed bytes when it is run next."""

    def reopen() -> tuple[Callable[[Arrays], Arrays], list[Variable]]:
        copy = _Copy(bytearray(path.read_bytes()), open_again)
        return copy.run, copy.variables()

    return changeable(loaded, reopen)


def _tensors(model: Any) -> Iterator[tuple[tuple[int, int], Any]]:
    """((number of its graph, number in it), tensor) for every tensor of a file."""
    for number in range(model.SubgraphsLength()):
        graph = model.Subgraphs(number)
        yield from (((number, place), graph.Tensors(place)) for place in range(graph.TensorsLength()))


def _needed(model: Any, graph: Any) -> set[int]:
    """The numbers of the tensors whose values the outputs of one graph depend on, and not only their shapes."""
    from tensorflow.lite.python import schema_py_generated as schema

    shapes = {getattr(schema.BuiltinOperator, name) for name in ("SHAPE", "RANK", "ZEROS_LIKE")}
    makers: dict[int, list[int]] = {}
    for operator in (graph.Operators(number) for number in range(graph.OperatorsLength())):
        code = model.OperatorCodes(operator.OpcodeIndex())
        kind = max(code.BuiltinCode(), code.DeprecatedBuiltinCode())
        operands = [] if kind in shapes or not operator.InputsLength() else operator.InputsAsNumpy().tolist()
        makers |= dict.fromkeys(operator.OutputsAsNumpy().tolist() if operator.OutputsLength() else [], operands)
    found = reached(graph.OutputsAsNumpy().tolist(), lambda number: makers.get(number, []))
    return {number for number in found if number >= 0}  # an operand that is left out is -1


class _Copy:
    """The bytes of a file, and what is made of them to run them."""

    def __init__(self, content: bytearray, open_again: Callable[[bytes], Loaded]) -> None:
        self.content, self.open_again = content, open_again
        self.opened: Loaded | None = None

    def run(self, arrays: Arrays) -> Arrays:
        if self.opened is None:
            self.opened = self.open_again(bytes(self.content))
        return self.opened.run(arrays)

    def variables(self) -> list[Variable]:
        """One for each buffer of numbers, under the name of the first tensor that shares it."""
        from tensorflow.lite.python import schema_py_generated as schema

        model = schema.Model.GetRootAsModel(self.content, 0)
        others = {item.Buffer() for _, item in _tensors(model) if item.Type() != schema.TensorType.FLOAT32}
        needed = [_needed(model, model.Subgraphs(number)) for number in range(model.SubgraphsLength())]
        found: dict[int, tuple[str, np.ndarray]] = {}
        for (graph, number), tensor in _tensors(model):
            name, buffer = tensor.Name().decode(), tensor.Buffer()
            if buffer in others or number not in needed[graph] or not tensor.ShapeLength() or is_fill(name):
                continue  # zeros of one buffer may also be where a slice begins
            values = self._values(model, tensor)
            if values is not None and values.size:
                found.setdefault(buffer, (name, values.reshape(tensor.ShapeAsNumpy())))
        names = unique(name for name, _ in found.values())
        return [self._variable(name, values) for name, (_, values) in zip(names, found.values(), strict=True)]

    def _values(self, model: Any, tensor: Any) -> np.ndarray | None:
        """The numbers where they stand in the bytes, also in large files, which keep them behind the flatbuffer."""
        import numpy as np

        buffer = model.Buffers(tensor.Buffer())
        if buffer.DataLength():
            stored = buffer.DataAsNumpy()
            return np.asarray(stored.view("<f4"))
        if buffer.Size():
            return np.frombuffer(self.content, "<f4", buffer.Size() // 4, buffer.Offset())
        return None

    def _variable(self, name: str, values: np.ndarray) -> Variable:
        def assign(value: np.ndarray) -> None:
            values[...] = value
            self.opened = None

        return Variable(name, layer_of(name), values.copy, assign)
