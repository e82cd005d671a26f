"""A TensorFlow Lite file as an ONNX model, by tf2onnx' own reader of flatbuffers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from worker.errors import LarderError, UnsupportedOperation
from worker.formats import _tflite_file, _tflite_run, tflite
from worker.formats._format import Hop, Loaded
from worker.formats._onnx_operations import handlers
from worker.formats._onnx_write import NATIVE_OPSET, at_opset, check, declare_shapes, refusal

STATE = frozenset({"VAR_HANDLE", "READ_VARIABLE", "ASSIGN_VARIABLE"})


def convert(source: Path, opset: int, hop: Hop) -> Any:
    """The ModelProto, with the inputs and outputs of the signature under their names.

    Quantised tensors stay quantised: they are QuantizeLinear and DequantizeLinear pairs in ONNX.
    """
    file = tflite.flatbuffer_in(source, hop.scratch)
    _refuse_state(file)
    loaded = tflite.load(source, hop.scratch)
    try:
        model = _run_tf2onnx(file, min(opset, NATIVE_OPSET), loaded)
        specs = {spec.name: spec for spec in (*loaded.inputs, *loaded.outputs)}
        declare_shapes([*model.graph.input, *model.graph.output], specs)
        model = at_opset(model, opset)
        check(model)
    except (LarderError, MemoryError):
        raise
    except Exception as error:  # tf2onnx raises ValueError for everything, onnxruntime classes of its own
        raise refusal(str(error), {}) from error
    return model


def _refuse_state(file: Path) -> None:
    if found := STATE & _tflite_file.read(file).builtin:
        problem = "the model changes its variables while it runs, and a finished graph has none"
        raise UnsupportedOperation(target="ONNX", operation=", ".join(sorted(found)), problem=problem)


def _run_tf2onnx(file: Path, opset: int, loaded: Loaded) -> Any:
    from tf2onnx import optimizer, tfonnx

    tensors = _tensors(file, loaded)
    inputs, outputs = ([tensors[spec.name] for spec in side] for side in (loaded.inputs, loaded.outputs))
    graph = tfonnx.process_tf_graph(
        None,
        opset=opset,
        input_names=inputs,
        output_names=outputs,
        tensors_to_rename={tensor: name for name, tensor in tensors.items() if tensor != name},
        tflite_path=str(file),
        custom_op_handlers=handlers({}),
    )
    return optimizer.optimize_graph(graph, catch_errors=False).make_model("Larder")


def _tensors(file: Path, loaded: Loaded) -> dict[str, str]:
    """The name of each input's and output's tensor in the graph: a signature has names of its own for them."""
    interpreter = _tflite_run.open_interpreter(file)
    names = interpreter.get_signature_list()
    if not names:
        return {spec.name: spec.name for spec in (*loaded.inputs, *loaded.outputs)}
    runner = interpreter.get_signature_runner(_tflite_file.choose(names))
    details = {**runner.get_input_details(), **runner.get_output_details()}
    return {name: str(item["name"]) for name, item in details.items()}
