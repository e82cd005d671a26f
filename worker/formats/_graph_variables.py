"""The constants of a graph as variables that can be changed while it is open."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from worker.formats import _graphs, _live
from worker.formats._changeable import changeable, is_fill, layer_of, unique
from worker.formats._format import Loaded, TensorSpec, Variable
from worker.formats._reach import reached

if TYPE_CHECKING:
    import numpy as np

    from worker.formats._format import Arrays

SHAPES = frozenset({"Shape", "ShapeN", "Size", "Rank", "ZerosLike", "OnesLike"})  # ask nothing but the shape


def with_variables(loaded: Loaded, function: _graphs.Function) -> Loaded:
    """The open graph, which runs as this function, with its floating constants that have dimensions."""

    def reopen() -> tuple[Callable[[Arrays], Arrays], list[Variable]]:
        definition, known = function.definition, function.variables
        every = known | _graphs.large_constants(definition, least=0, known=known)
        again = _graphs.function_of(definition, function.fed, function.given, every)
        return running(loaded.inputs, loaded.outputs, again.call), used(definition, function.given, every)

    return changeable(loaded, reopen)


def used(definition: Any, outputs: list[str], variables: dict[str, Any]) -> list[Variable]:
    """Those of the variables that the values of the outputs depend on, as far as the graph tells."""
    needed = _valued(definition, [name.split(":")[0] for name in outputs])
    return [variable_of(*item) for item in variables.items() if item[0] in needed and not is_fill(item[0])]


def _valued(definition: Any, outputs: list[str]) -> set[str]:
    """The nodes whose values, and not only their shapes, the outputs depend on: a recurrent layer computes a step of
    its loop once more to see its shape."""
    operands = {
        node.name: [] if node.op in SHAPES else [item.split(":")[0] for item in node.input if item[:1] != "^"]
        for node in definition.node
    }
    return reached(outputs, lambda name: operands.get(name, []))


def running(
    inputs: Iterable[TensorSpec], outputs: Iterable[TensorSpec], call: Callable[[list[Any]], list[Any]]
) -> Callable[[Arrays], Arrays]:
    """A function of tensors in this order as one of arrays by name."""
    specs, names = tuple(inputs), [spec.name for spec in outputs]

    def run(arrays: Arrays) -> Arrays:
        results = call([_live.feed(arrays[spec.name], spec.dtype) for spec in specs])
        return {name: _live.fetch(result) for name, result in zip(names, results, strict=True)}

    return run


def variable_of(name: str, variable: Any) -> Variable:
    """A variable of TensorFlow under this name, which tells the layer."""

    def read() -> np.ndarray:
        import numpy as np

        return np.array(variable)  # a copy: TensorFlow may write the next values into the same memory

    return Variable(name, layer_of(name), read, variable.assign)


def of_tensorflow(variables: list[Any]) -> list[Variable]:
    """Restored variables of floating types, under names of their own."""
    floating = [item for item in variables if item.dtype.is_floating]
    names = unique(str(item.name).removesuffix(":0") for item in floating)
    return [variable_of(name, item) for name, item in zip(names, floating, strict=True)]
