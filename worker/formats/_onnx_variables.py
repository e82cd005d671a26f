"""The weights of an ONNX file as variables that can be changed while it is open in ONNX Runtime."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from worker.formats import _onnx_file
from worker.formats._changeable import changeable, is_fill, layer_of
from worker.formats._format import Loaded, Variable
from worker.formats._reach import reached

if TYPE_CHECKING:
    import numpy as np

    from worker.formats._format import Arrays

FLOATING = frozenset({"float32", "float64", "float16"})  # those that NumPy has, so that they can be fed


def with_variables(loaded: Loaded, file: Path) -> Loaded:
    """The open graph with its floating constants that have dimensions, in the order of the file.

    They become optional inputs, for which ONNX Runtime takes what is given instead of what is in the file: no session
    has to be opened again for each change."""

    def reopen() -> tuple[Callable[[Arrays], Arrays], list[Variable]]:
        model = _onnx_file.read(file)
        needed = _needed(model.graph)
        stored = {item.name: item for item in _opened_up(model) if item.name in needed and not is_fill(item.name)}
        edged = _onnx_file.with_single_edges(model) or model.SerializeToString()
        session = _onnx_file.session_beside(file, model, edged)
        changed: Arrays = {}
        return _running(loaded, session, changed), [_variable(item, changed, file) for item in stored.values()]

    return changeable(loaded, reopen)


def _opened_up(model: Any) -> Iterator[Any]:
    """The tensors of the graph that can be given, each as an input with a default; the model is changed."""
    import onnx

    _take_constants(model.graph)
    model.ir_version = max(model.ir_version, 4)  # before it, everything stored had to be an input as well
    given = {item.name for item in model.graph.input}
    for tensor in model.graph.initializer:
        if tensor.dims and _onnx_file.dtype_name(tensor.data_type) in FLOATING:
            if tensor.name not in given:
                value = onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims))
                model.graph.input.append(value)
            yield tensor


def _needed(graph: Any) -> set[str]:
    """The names of all tensors whose values the outputs depend on; what loops and branches take from around them among
    them."""
    makers = {name: node for node in graph.node for name in node.output}
    outputs = [item.name for item in graph.output]
    return reached(outputs, lambda name: _operands(makers[name]) if name in makers else [])


def _operands(node: Any) -> list[str]:
    if node.op_type in ("Shape", "Size"):
        return []
    bodies = [graph for item in node.attribute for graph in ([item.g] if item.HasField("g") else item.graphs)]
    inner = [name for graph in bodies for item in graph.node for name in _operands(item)]
    return [*node.input, *inner, *(item.name for graph in bodies for item in graph.output)]


def _take_constants(graph: Any) -> None:
    """Constants that stand among the nodes, as most are in files of PyTorch, beside the others."""
    for place in range(len(graph.node) - 1, -1, -1):
        node = graph.node[place]
        if node.op_type == "Constant" and not node.domain and node.attribute and node.attribute[0].HasField("t"):
            tensor = graph.initializer.add()
            tensor.CopyFrom(node.attribute[0].t)
            tensor.name = node.output[0]
            del graph.node[place]


def _running(loaded: Loaded, session: Any, changed: Arrays) -> Callable[[Arrays], Arrays]:
    names = [spec.name for spec in loaded.outputs]

    def run(arrays: Arrays) -> Arrays:
        given = {spec.name: _onnx_file.feed(arrays[spec.name], spec.dtype) for spec in loaded.inputs}
        return dict(zip(names, map(_onnx_file.fetch, session.run(names, {**given, **changed})), strict=True))

    return run


def _variable(tensor: Any, changed: Arrays, file: Path) -> Variable:
    def read() -> np.ndarray:
        import numpy as np

        found = changed.get(tensor.name)
        return np.array(_onnx_file.array(tensor, file.parent) if found is None else found)

    def assign(value: np.ndarray) -> None:
        changed[tensor.name] = value

    return Variable(tensor.name, layer_of(tensor.name), read, assign)
