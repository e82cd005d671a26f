"""The weights of a SavedModel as variables that can be changed while it is open."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from worker.errors import LarderError
from worker.formats import _graph_variables, _graphs
from worker.formats._changeable import changeable, layer_of
from worker.formats._format import Hop, Loaded, Variable

if TYPE_CHECKING:
    import numpy as np

    from worker.formats._format import Arrays


def of_signature(loaded: Loaded, variables: list[Any], path: Path, scratch: Path) -> Loaded:
    """The open signature with the variables that it uses; with its constants where it has none of floating types."""

    def reopen() -> tuple[Callable[[Arrays], Arrays], list[Variable]]:
        found = _graph_variables.of_tensorflow(variables)
        return (loaded.run, found) if found else _of_constants(loaded, path, scratch)

    return changeable(loaded, reopen)


def _of_constants(loaded: Loaded, path: Path, scratch: Path) -> tuple[Callable[[Arrays], Arrays], list[Variable]]:
    """The graph without functions, whose constants can be reached; nothing for a graph that cannot be made so."""
    from worker.formats import _frozen  # it opens SavedModels by the module that this one belongs to

    try:
        graph = _frozen.plain(path, Hop(scratch))
    except LarderError:
        return loaded.run, []
    every = _graphs.large_constants(graph.definition, least=0)
    inputs, outputs = ([port.tensor for port in ports] for ports in (graph.inputs, graph.outputs))
    function = _graphs.function_of(graph.definition, inputs, outputs, every)
    given, found = ([port.spec for port in ports] for ports in (graph.inputs, graph.outputs))
    run = _graph_variables.running(given, found, function.call)
    return run, _graph_variables.used(graph.definition, outputs, every)


def of_session(loaded: Loaded, session: Any) -> Loaded:
    """The signature in a session of TensorFlow 1, with the floating variables of its graph."""

    def reopen() -> tuple[Callable[[Arrays], Arrays], list[Variable]]:
        import tensorflow as tf

        with session.graph.as_default():
            variables = tf.compat.v1.global_variables()
        return loaded.run, [_in_session(item, session) for item in variables if item.dtype.base_dtype.is_floating]

    return changeable(loaded, reopen)


def _in_session(variable: Any, session: Any) -> Variable:
    name = str(variable.name).removesuffix(":0")

    def read() -> np.ndarray:
        import numpy as np

        return np.array(session.run(variable))

    def assign(value: np.ndarray) -> None:
        session.run(variable.initializer, {variable.initializer.inputs[1]: value})

    return Variable(name, layer_of(name), read, assign)
