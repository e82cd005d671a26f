"""Files as other runtimes open them than the one that Larder runs their format with: each by its own loader alone,
without any repair, as people would. Where a runtime has no names for inputs and outputs, they stay in its order."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from worker.errors import CustomCode, IncompleteModel, ModelError
from worker.formats import (
    _agreed,
    _live,
    _onnx_file,
    _rebuild,
    _registry,
    _saved_model,
    _sources,
    _tf_keras,
    _tflite_run,
    openvino,
    tflite,
)
from worker.formats._architecture import refuse_unsafe
from worker.formats._files import named
from worker.formats._format import Loaded, no_weights
from worker.translation import translated

if TYPE_CHECKING:
    from worker.formats._format import Arrays


# Keras ------------------------------------------------------------------------------------------------------------


def keras(slug: str, path: Path, scratch: Path) -> Loaded:
    """As Keras 3 loads a whole file: not compiled, in safe mode. Lambdas and unknown classes are refused before, where
    nobody agreed to run them."""
    stored = _sources.read(slug, path, scratch)
    refuse_unsafe(stored.architecture)
    _registry.refuse_unknown(stored.architecture, _rebuild.LEGACY_NAMES)
    file = _own_file(stored.own_file, path)
    with translated("Loading Keras 3", path.name, ModelError):
        model = _agreed.load_model(file)
        return _live.loaded(_sources.with_interface(model, stored.architecture))


def tf_keras(slug: str, path: Path, scratch: Path) -> Loaded:
    """As the last Keras 2 loads it. Classes that are unknown there are no code of people's own: Keras 3 has them."""
    import tf_keras as library

    stored = _sources.read(slug, path, scratch)
    refuse_unsafe(stored.architecture)
    file = _own_file(stored.own_file, path)
    try:
        _registry.refuse_unknown(stored.architecture, _rebuild.LEGACY_NAMES | _registry.tf_keras_classes())
        with translated("Loading tf-keras", path.name, ModelError), _tf_keras.reading(stored.architecture.root):
            model = library.models.load_model(str(file), compile=False)
            _live.require_interface(model)
            return _live.loaded(model)
    except CustomCode as error:
        raise ModelError(problem=f"it has no {error.details['names']}") from error


def _own_file(file: Path | None, path: Path) -> Path:
    if file is None:
        raise IncompleteModel(name=path.name, found="several files", missing="one that Keras loads", advice="")
    return file


# TensorFlow Lite --------------------------------------------------------------------------------------------------


def tf_lite(path: Path, scratch: Path) -> Loaded:
    """In the interpreter that TensorFlow brings, the forerunner of LiteRT."""
    import tensorflow as tf

    file = tflite.flatbuffer_in(path, scratch)
    with translated("Loading TensorFlow Lite", path.name, ModelError), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it is deprecated
        interpreter = tf.lite.Interpreter(model_path=str(file), num_threads=1)
        _tflite_run.allocate(interpreter)
    return _tflite_run.loaded_from(interpreter, file)


# ONNX -------------------------------------------------------------------------------------------------------------


def onnx_reference(path: Path, scratch: Path) -> Loaded:
    """In ONNX' own evaluator, which is written after the specification, in NumPy and slowly."""
    from onnx.reference import ReferenceEvaluator

    file = _onnx_file.model_in(path, scratch)
    model = _onnx_file.read(file)
    with translated("Loading ONNX", path.name, ModelError):
        evaluator = ReferenceEvaluator(str(file))
    inputs, outputs = _onnx_file.inputs_of(model.graph), _onnx_file.outputs_of(model.graph)
    names = [item.name for item in outputs]

    def run(arrays: Arrays) -> Arrays:
        given = {item.name: _onnx_file.feed(arrays[item.name], item.dtype) for item in inputs}
        return dict(zip(names, map(_onnx_file.fetch, evaluator.run(names, given)), strict=True))

    return Loaded(inputs, outputs, run, no_weights)


# OpenVINO, which reads the files of others ------------------------------------------------------------------------


def openvino_of_onnx(path: Path, scratch: Path) -> Loaded:
    """ONNX keeps the names of inputs and outputs in OpenVINO's."""
    file = _onnx_file.model_in(path, scratch)
    graph = _onnx_file.read(file).graph
    names = [spec.name for spec in (*_onnx_file.inputs_of(graph), *_onnx_file.outputs_of(graph))]
    return _named(openvino.read_foreign(named(file, scratch, ".onnx")), {name: name for name in names})


def openvino_of_saved_model(path: Path, scratch: Path) -> Loaded:
    """The signature's names are among those of the tensors."""
    folder = _saved_model.folder_in(path, scratch / "saved_model-source")
    signatures = _saved_model.signatures_of(_saved_model.serving_graph(_saved_model.read_proto(folder)))
    chosen = signatures[_saved_model.choose_signature(list(signatures))]
    return _named(openvino.read_foreign(folder), {name: name for name in (*chosen.inputs, *chosen.outputs)})


def openvino_of_tflite(path: Path, scratch: Path) -> Loaded:
    """OpenVINO calls inputs and outputs as their tensors are called, and does not know the signature."""
    file = tflite.flatbuffer_in(path, scratch)
    loaded = _named(openvino.read_foreign(named(file, scratch, ".tflite")), _tflite_run.names_of_tensors(file))
    return dataclasses.replace(loaded, run=_tflite_run.row_by_row(loaded.inputs, loaded.run))


def _named(model: Any, names: Mapping[str, str]) -> Loaded:
    """The graph with inputs and outputs under the names that ``names`` has for one of the tensor's own."""
    for port in (*model.inputs, *model.outputs):
        known = sorted(names[name] for name in port.get_names() if name in names)
        if known:
            port.get_node().set_friendly_name(known[0])
            port.get_tensor().set_names({*port.get_names(), *known})
    return openvino.compiled(model)
