"""Tensors inside of a model as ONNX Runtime, LiteRT and OpenVINO compute them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from worker.formats import _onnx_file
from worker.formats._inner import computes, few, numbered

if TYPE_CHECKING:
    import numpy as np

    from worker.formats._format import Arrays

    Named = Iterator[tuple[str, np.ndarray]]

FLOATING = frozenset({"tensor(float)", "tensor(float16)", "tensor(double)"})


# ONNX -------------------------------------------------------------------------------------------------------------


def of_onnx(file: Path, given: Arrays) -> Named:
    """The graph read once more, with what its nodes compute as further outputs."""
    model = _onnx_file.read(file)
    wanted = _add_outputs(model.graph)
    session = _onnx_file.session_beside(file, model, model.SerializeToString())
    types = {item.name: item.type for item in session.get_outputs()}
    names = [name for name in wanted if types.get(name) in FLOATING]
    shown = few(names, [_plain(name) for name in names])
    if shown:
        results = session.run(shown, given)
        yield from numbered((_plain(name), array) for name, array in zip(shown, results, strict=True))


def _plain(name: str) -> str:
    return name.removesuffix(":0")


def _add_outputs(graph: Any) -> list[str]:
    """The first result of every node that computes, in the order of the nodes, which is that of computing."""
    wanted = [node.output[0] for node in graph.node if computes(node.op_type) and node.output and node.output[0]]
    there = {item.name for item in graph.output}
    for name in wanted:
        if name not in there:
            graph.output.add(name=name)  # of which type, ONNX Runtime finds out
    return wanted


# TensorFlow Lite --------------------------------------------------------------------------------------------------


def of_tflite(file: Path, given: Mapping[int, np.ndarray]) -> Named:
    """An interpreter that keeps every tensor, without delegates, which compute several operations as one.

    ``given``: an array for each input tensor of the first graph, by its number. Whole numbers that stand for others
    are told as those.
    """
    interpreter = _ran(given, model_path=str(file))
    details = {item["index"]: item for item in interpreter.get_tensor_details()}
    shown = [details[number] for number in _computed(interpreter) if number in details]
    picked = few(shown, [item["name"] for item in shown])
    yield from numbered((item["name"], _meant(interpreter.get_tensor(item["index"]), item)) for item in picked)


def computed_by_tflite(content: bytes, given: Mapping[int, np.ndarray]) -> dict[int, np.ndarray]:
    """All that the operations of the first graph compute, by the numbers of their tensors: copies, as the numbers that
    they stand for."""
    interpreter = _ran(given, model_content=content)
    details = {item["index"]: item for item in interpreter.get_tensor_details()}
    shown = [number for number in _computed(interpreter) if number in details]
    return {number: _meant(interpreter.get_tensor(number), details[number]) for number in shown}


def _ran(given: Mapping[int, np.ndarray], **of: Any) -> Any:
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    plain = OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    interpreter = Interpreter(
        **of, num_threads=1, experimental_op_resolver_type=plain, experimental_preserve_all_tensors=True
    )
    for number, array in given.items():
        interpreter.resize_tensor_input(number, array.shape)
    interpreter.allocate_tensors()
    for number, array in given.items():
        interpreter.set_tensor(number, array)
    interpreter.invoke()
    return interpreter


def _computed(interpreter: Any) -> list[int]:
    """The results of the operations that compute, in their order."""
    operations = [item for item in interpreter._get_ops_details() if computes(item["op_name"])]
    return [int(number) for item in operations for number in item["outputs"]]


def _meant(array: np.ndarray, details: Mapping[str, Any]) -> np.ndarray:
    """The numbers that whole numbers stand for, by the tensor's scale."""
    scale, zero = details["quantization"]
    if not scale or array.dtype.kind not in "iu":
        return array
    meant: np.ndarray = ((array.astype("float32") - zero) * scale).astype("float32")
    return meant


# OpenVINO ---------------------------------------------------------------------------------------------------------


def of_openvino(library: Any, model: Any, properties: Mapping[str, Any], given: list[np.ndarray]) -> Named:
    """A copy of the graph whose outputs are what its operations compute, compiled anew."""
    copy = model.clone()
    ports = [
        node.output(0)
        for node in copy.get_ordered_ops()
        if computes(node.get_type_name()) and node.get_output_size() and _is_floating(node.output(0))
    ]
    shown = few(ports, [port.get_node().get_friendly_name() for port in ports])
    if shown:
        names = [port.get_node().get_friendly_name() for port in shown]
        inside = library.Model(shown, copy.get_sinks(), copy.get_parameters(), "inside")
        request = library.Core().compile_model(inside, "CPU", properties).create_infer_request()
        request.infer(given)
        values = (request.get_output_tensor(place).data for place in range(len(shown)))
        yield from numbered((name, _onnx_file.fetch(value)) for name, value in zip(names, values, strict=True))


def _is_floating(port: Any) -> bool:
    return bool(port.get_element_type().is_real())
