"""ONNX: one protocol buffer with a finished graph, run by ONNX Runtime and most accelerators' runtimes.

Specification: https://github.com/onnx/onnx/blob/main/docs/IR.md.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from worker import archive
from worker.formats import (
    _inner_runtimes,
    _onnx_file,
    _onnx_from_tflite,
    _onnx_import,
    _onnx_stored,
    _onnx_variables,
)
from worker.formats._format import Converter, Format, Hop, LayerRow, Loaded, Option, Room, Summary
from worker.formats._implied_files import implied_by_onnx
from worker.formats._onnx_outline import outline
from worker.formats._onnx_weights import LARGEST, write_apart, write_whole
from worker.formats._onnx_write import Converted, convert

if TYPE_CHECKING:
    import numpy as np

    from worker.formats._format import Arrays

LABEL = "ONNX"
SAVED_MODEL = "result-saved-model"
OPSETS = (13, 14, 15, 16, 17, 18, 19, 20, 21)


# Reading ----------------------------------------------------------------------------------------------------------


def inspect(path: Path, scratch: Path) -> Summary:
    """The interface, the kinds of operations and the sizes as the protocol buffer declares them; nothing is run."""
    model = _onnx_file.read(_onnx_file.model_in(path, scratch))
    stored = list(_onnx_file.tensors(model))
    floating = [item for item in stored if "float" in _onnx_file.dtype_name(item.data_type)]
    return Summary(
        inputs=_onnx_file.inputs_of(model.graph),
        outputs=_onnx_file.outputs_of(model.graph),
        layers=_kinds(model.graph),
        parameters=sum(math.prod(item.dims) for item in floating),
        dtypes=tuple(sorted({_onnx_file.dtype_name(item.data_type) for item in floating})),
        custom_objects=tuple(_onnx_file.foreign_operations(model)),
        producer=_producer(model),
        traits=frozenset({"weights"}) | _facts(model),
    )


def _facts(model: Any) -> frozenset[str]:
    """What the graph tells about the model, in the words of ``FACTS``."""
    edges = (*_onnx_file.inputs_of(model.graph), *_onnx_file.outputs_of(model.graph))
    kinds = {name for _, name in _onnx_file.operations(model)}
    stored = {_onnx_file.dtype_name(item.data_type) for item in _onnx_file.tensors(model)}
    found = {
        "strings": any(item.dtype == "string" for item in edges),
        "tables": bool(kinds & {"CategoryMapper", "LabelEncoder"}),
        "recurrent": bool(kinds & {"LSTM", "GRU", "RNN", "Loop", "Scan"})
        and any(item.shape and item.shape[0] is None for item in edges),
        "half": bool(stored & {"float16", "bfloat16"}),
    }
    return frozenset(fact for fact, there in found.items() if there)


def _kinds(graph: Any) -> tuple[LayerRow, ...]:
    """A graph has no layers: how often each operator stands in it, instead."""
    counted = Counter(node.op_type for node in graph.node)
    return tuple(LayerRow(kind, f"{count} ×", "", "", 0) for kind, count in sorted(counted.items()))


def _producer(model: Any) -> dict[str, str]:
    """What wrote the file, and the versions of the operators it uses."""
    made = {model.producer_name: model.producer_version or "?"} if model.producer_name else {}
    sets = {f"opset {item.domain or 'ai.onnx'}": str(item.version) for item in model.opset_import}
    return {**made, **sets, "IR": str(model.ir_version)}


def load(path: Path, scratch: Path) -> Loaded:
    """The graph in ONNX Runtime."""
    file = _onnx_file.model_in(path, scratch)
    model = _onnx_file.read(file)
    session = _onnx_file.open_session(file, model)
    inputs = implied_by_onnx(model, _onnx_file.inputs_of(model.graph))
    outputs = _onnx_file.outputs_of(model.graph)
    names = [item.name for item in outputs]

    def fed(arrays: Arrays) -> Arrays:
        return {item.name: _onnx_file.feed(arrays[item.name], item.dtype) for item in inputs}

    def run(arrays: Arrays) -> Arrays:
        return dict(zip(names, map(_onnx_file.fetch, session.run(names, fed(arrays))), strict=True))

    def inner(arrays: Arrays) -> Iterator[tuple[str, np.ndarray]]:
        return _inner_runtimes.of_onnx(file, fed(arrays))

    def weights() -> Iterator[tuple[str, np.ndarray]]:
        return _onnx_stored.weights(model, file.parent)

    def steps() -> dict[str, float]:
        return _onnx_stored.steps(model, file.parent)

    loaded = Loaded(inputs, outputs, run, weights, steps=steps, inner=inner)
    return _onnx_variables.with_variables(loaded, file)


# Writing ----------------------------------------------------------------------------------------------------------


def from_saved_model(source: Path, target: Path, hop: Hop) -> None:
    """The serving signature with its variables as constants; the large ones never pass through tf2onnx."""
    _write(convert(outline(source, hop), int(hop.options.get("opset", 18))), target, hop)


def from_tflite(source: Path, target: Path, hop: Hop) -> None:
    """The graph of the flatbuffer, quantised tensors included."""
    model = _onnx_from_tflite.convert(source, int(hop.options.get("opset", 18)), hop)
    _write(Converted(model, []), target, hop)


def _write(converted: Converted, target: Path, hop: Hop) -> None:
    """One .onnx file; the graph and its weights apart, in an archive, where that is asked for or has to be."""
    size = converted.model.ByteSize() + sum(weight.size for weight in converted.weights)
    if size <= LARGEST and not hop.options.get("external_data", False):
        write_whole(converted.model, converted.weights, target)
        return
    folder = hop.scratch / "result-onnx"
    folder.mkdir()
    write_apart(converted.model, converted.weights, folder / "model.onnx")
    archive.pack(folder, target)


# ONNX as a source ------------------------------------------------------------------------------------------------


def to_saved_model(source: Path, target: Path, hop: Hop) -> None:
    """The graph written with TensorFlow operations, with its inputs and outputs as the serving signature."""
    import tensorflow as tf

    module = _onnx_import.module_of(_onnx_file.model_in(source, hop.scratch), hop)
    folder = hop.scratch / SAVED_MODEL
    tf.saved_model.save(module, str(folder), signatures={"serving_default": module.serve})
    archive.pack(folder, target)


FORMAT = Format(
    label=LABEL,
    suffixes=(".onnx", ".zip"),
    sniff=_onnx_file.sniff,
    inspect=inspect,
    load=load,
    converts_from={
        "saved_model": Converter(from_saved_model),
        "tflite": Converter(from_tflite, frozenset({"no-loops"})),
    },
    converts_to={"saved_model": Converter(to_saved_model)},
    keeps=frozenset({"weights", "graph"}),
    refuses={"old-lists": "ONNX has no operations for lists inside the loops of TensorFlow 1."},
    changes={"half": "What the model computes in bfloat16, it computes in float32; float16 stays."},
    room=Room(memory=3.0),
    options=(
        Option("opset", int, 18, "The version of ONNX' operators. Older runtimes want a lower one.", OPSETS),
        Option("external_data", bool, False, "Keep the weights in a file beside the graph, both in one archive."),
    ),
    snippet="""import tempfile
import zipfile

import onnxruntime

path = "{file}"
if zipfile.is_zipfile(path):  # with its weights in a file of their own
    folder = tempfile.mkdtemp()
    zipfile.ZipFile(path).extractall(folder)
    path = f"{folder}/model.onnx"
session = onnxruntime.InferenceSession(path)
print([(item.name, item.shape, item.type) for item in session.get_inputs()])
print([(item.name, item.shape, item.type) for item in session.get_outputs()])
""",
    needs=("tensorflow", "tf2onnx", "onnx", "onnxruntime"),
)
