"""SavedModel: TensorFlow's graph, variables and assets in a folder, kept here as one archive."""

from __future__ import annotations

import dataclasses
import math
import re
import shutil
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from worker import archive
from worker.errors import ConverterFailed, LarderError, ModelError
from worker.formats import (
    _double,
    _graphs,
    _inner_graphs,
    _keras_files,
    _live,
    _outline,
    _saved_model,
    _saved_model_variables,
    _sniff,
    _sources,
)
from worker.formats._architecture import Architecture
from worker.formats._format import Format, Hop, Loaded, Summary, TensorSpec
from worker.formats._implied_graphs import implied_by_signature
from worker.formats._tensors import value_of
from worker.formats._weights import LOOKUPS
from worker.report import Severity, declare

if TYPE_CHECKING:
    import numpy as np

    from worker.formats._format import Arrays

LABEL = "SavedModel"
RENAMED_INPUT = declare(
    "renamed-input", Severity.WARNING, "A signature takes no such name: {name} is called {new} in the result."
)


# Reading ----------------------------------------------------------------------------------------------------------


def inspect(path: Path, scratch: Path) -> Summary:
    """Signatures, layers and sizes from the protocol buffer and the list of variables; the graph is not loaded."""
    folder = _saved_model.folder_in(path, scratch)
    proto = _saved_model.read_proto(folder)
    graph = _saved_model.serving_graph(proto)
    signatures = _saved_model.signatures_of(graph)
    root = _saved_model.keras_root(folder, proto)
    keras = _keras_side(path, scratch, root) if root else Summary()
    parameters, dtypes = _sizes(folder)
    stored = {"variables"} if parameters else set()
    chosen = signatures[_saved_model.choose_signature(list(signatures))] if signatures else None
    return dataclasses.replace(
        keras,
        inputs=_declared(chosen.inputs) if chosen else (),
        outputs=_declared(chosen.outputs) if chosen else (),
        parameters=parameters,
        dtypes=dtypes,
        producer={**keras.producer, "tensorflow": graph.meta_info_def.tensorflow_version},
        signatures=tuple(sorted(signatures)),
        traits=keras.traits | _traits(graph, chosen) | stored,
    )


def _keras_side(path: Path, scratch: Path, root: dict[str, Any]) -> Summary:
    """What the description of the layers tells, and whether the settings and the state of training are there."""
    trained = _keras_files.read_saved_model(path, scratch).training.traits
    return _outline.summarise(Architecture(root, str(root["keras_version"] or "2")), trained)


def _traits(graph: Any, chosen: Any) -> frozenset[str]:
    """What the operations of the serving signature tell about the model."""
    if chosen is None:
        return frozenset({"weights"})
    fed = [info.name.split(":")[0] for info in chosen.inputs.values()]
    part = _graphs.part_for(graph.graph_def, _nodes_of([chosen]), fed)
    return _graphs.facts(part, _declared(chosen.inputs)) | {"weights"}


def _nodes_of(signatures: Iterable[Any]) -> list[str]:
    """The nodes that the results of signatures come from."""
    return [info.name.split(":")[0] for signature in signatures for info in signature.outputs.values()]


def _declared(tensors: Any) -> tuple[TensorSpec, ...]:
    return tuple(_saved_model.spec_of(name, tensors[name]) for name in sorted(tensors, key=_natural))


def _natural(name: str) -> tuple[int, str]:
    """``inputs, inputs_1, …, inputs_10`` in the order in which they were numbered."""
    return len(name), name


def _sizes(folder: Path) -> tuple[int | None, tuple[str, ...]]:
    """How many numbers the variables hold, and of which types; without reading them."""
    import tensorflow as tf

    try:
        reader = tf.train.load_checkpoint(str(folder / "variables" / "variables"))
    except (ValueError, tf.errors.OpError):
        return None, ()
    types = reader.get_variable_to_dtype_map()
    shapes = {key: value for key, value in reader.get_variable_to_shape_map().items() if _is_variable(key, types[key])}
    count = sum(math.prod(shape) for shape in shapes.values())
    return count, tuple(sorted({types[key].name for key in shapes}))


def _is_variable(key: str, dtype: Any) -> bool:
    return bool(dtype.is_floating) and "optimizer" not in key.lower() and ".OPTIMIZER_SLOT" not in key


def load(path: Path, scratch: Path) -> Loaded:
    """The serving signature, ready to run; what was loaded stays referenced as long as the result."""
    return _load(path.absolute(), scratch, _stamp(path))


@cache
def _load(path: Path, scratch: Path, _: tuple[int, ...]) -> Loaded:
    _graphs.compute_exactly()
    if _changes_references(path, scratch):
        return _load_in_session(path, scratch)
    restored, signature = open_signature(path, scratch)
    inputs = implied_by_signature(signature, _signature_inputs(signature, _declared_order(restored)))
    outputs = tuple(_tensor_spec(key, spec) for key, spec in _ordered(signature.structured_outputs))

    def run(arrays: Arrays) -> Arrays:
        results = signature(**{spec.name: _live.feed(arrays[spec.name], spec.dtype) for spec in inputs})
        return {spec.name: _live.fetch(results[spec.name]) for spec in outputs}

    def weights() -> Iterator[tuple[str, np.ndarray]]:
        folder = _saved_model.folder_in(path, scratch / "saved_model-source")
        if _saved_model.keras_root(folder, _saved_model.read_proto(folder)):
            stored = _saved_model.keras_weights(folder).arrays
            return _computing((name, value_of(tensor)) for name, tensor in stored)
        variables = list(_variables(restored, signature))
        if not variables:
            return _computing(_constants(path, scratch))
        return _computing((variable.name, variable.numpy()) for variable in variables)

    def exact(arrays: Arrays) -> Arrays:
        return _double.of_function(signature, list(signature._arg_keywords), arrays)

    def inner(arrays: Arrays) -> Iterator[tuple[str, np.ndarray]]:
        return _inner_graphs.of_saved_model(path, scratch, arrays)

    return _saved_model_variables.of_signature(
        Loaded(inputs, outputs, run, weights, inner=inner, exact=exact), _variables(restored, signature), path, scratch
    )


def _constants(path: Path, scratch: Path) -> Iterator[tuple[str, np.ndarray]]:
    """What a finished graph has instead of variables; nothing where the graph cannot be laid out flat."""
    from worker.formats import _frozen  # which opens SavedModels by this module

    try:
        return _graphs.constants(_frozen.plain(path, Hop(scratch)).definition)
    except LarderError:
        return iter(())


def _changes_references(path: Path, scratch: Path) -> bool:
    """Does the graph change variables as TensorFlow 1 did? TensorFlow 2 makes no function of such a graph."""
    graph = _saved_model.serving_graph(
        _saved_model.read_proto(_saved_model.folder_in(path, scratch / "saved_model-source"))
    )
    if graph.HasField("object_graph_def"):
        return False
    part = _graphs.part_for(graph.graph_def, _nodes_of(_saved_model.signatures_of(graph).values()))
    return any(_graphs.ASSIGNMENTS.match(kind) for kind in _graphs.operations(part))


def _load_in_session(path: Path, scratch: Path) -> Loaded:
    """The serving signature in a session of TensorFlow 1, which keeps its variables from one run to the next."""
    import tensorflow as tf

    v1 = tf.compat.v1
    folder = _saved_model.folder_in(path, scratch / "saved_model-source")
    graph = _saved_model.serving_graph(_saved_model.read_proto(folder))
    signatures = _saved_model.signatures_of(graph)
    chosen = signatures[_saved_model.choose_signature(list(signatures))]
    session = v1.Session(graph=tf.Graph())
    with session.graph.as_default():
        v1.saved_model.loader.load(session, list(graph.meta_info_def.tags), str(folder))
    inputs, outputs = _declared(chosen.inputs), _declared(chosen.outputs)

    def fed(arrays: Arrays) -> dict[str, Any]:
        return {chosen.inputs[spec.name].name: arrays[spec.name] for spec in inputs}

    def run(arrays: Arrays) -> Arrays:
        results = session.run({spec.name: chosen.outputs[spec.name].name for spec in outputs}, fed(arrays))
        return {name: _live.fetch(result) for name, result in results.items()}

    def weights() -> Iterator[tuple[str, np.ndarray]]:
        with session.graph.as_default():
            variables = v1.global_variables()
        return _computing((variable.name, session.run(variable)) for variable in variables)

    def inner(arrays: Arrays) -> Iterator[tuple[str, np.ndarray]]:
        return _inner_graphs.of_session(session, fed(arrays))

    return _saved_model_variables.of_session(Loaded(inputs, outputs, run, weights, inner=inner), session)


def open_signature(path: Path, scratch: Path) -> tuple[Any, Any]:
    """What was restored, and its serving signature: the first must stay referenced while the second is used."""
    return _open_signature(path.absolute(), scratch, _stamp(path))


@cache
def _open_signature(path: Path, scratch: Path, _: tuple[int, ...]) -> tuple[Any, Any]:
    """Once for all who ask: a second copy would hold all weights again."""
    folder = _saved_model.folder_in(path, scratch / "saved_model-source")
    proto = _saved_model.read_proto(folder)
    restored = _restore(folder, _saved_model.serving_graph(proto))
    name = _saved_model.choose_signature([key for key in restored.signatures if not key.startswith("__saved_model")])
    return restored, restored.signatures[name]


def _stamp(path: Path) -> tuple[int, int]:
    """What tells a file from another that was under its name before."""
    status = path.stat()
    return status.st_mtime_ns, status.st_size


def _restore(folder: Path, graph: Any) -> Any:
    import tensorflow as tf

    try:
        return tf.saved_model.load(str(folder), tags=list(graph.meta_info_def.tags))
    except Exception as error:  # TensorFlow raises whatever the graph's age brings about
        raise ModelError(problem=_why_not(error)) from error


def _why_not(error: Exception) -> str:
    text = " ".join(str(error).split())
    if "reference type" in text or "_ref" in text:
        return "its graph changes variables as TensorFlow 1 did (reference variables), which TensorFlow 2 cannot load"
    return f"TensorFlow says: {text[:300]}"


def _ordered(structure: dict[str, Any]) -> list[tuple[str, Any]]:
    return sorted(structure.items(), key=lambda item: _natural(item[0]))


def _signature_inputs(signature: Any, declared: list[str]) -> tuple[TensorSpec, ...]:
    """Inputs by name, in the order of the arguments where a function tells it: the signature's map itself has none."""
    specs = signature.structured_input_signature[1]
    positions = {name: index for index, name in enumerate(declared)} if set(declared) == set(specs) else {}
    names = sorted(specs, key=lambda name: (positions.get(name, 0), _natural(name)))
    return tuple(_tensor_spec(name, specs[name]) for name in names)


def _declared_order(restored: Any) -> list[str]:
    """The arguments of the function behind the signature, which Keras and its exporter keep beside it."""
    import tensorflow as tf

    for attribute in ("serve", "_default_save_signature", "__call__"):
        for concrete in getattr(getattr(restored, attribute, None), "concrete_functions", ()):
            leaves = tf.nest.flatten(concrete.structured_input_signature)
            names = [leaf.name for leaf in leaves if isinstance(leaf, tf.TensorSpec)]
            if names:
                return names
    return []


def _tensor_spec(name: str, spec: Any) -> TensorSpec:
    shape = None if spec.shape.rank is None else tuple(spec.shape.as_list())
    return TensorSpec(name, shape, spec.dtype.name)


def _variables(restored: Any, signature: Any) -> Any:
    """The variables that the signature uses. A Keras model has more: statistics that became constants of its graph."""
    return getattr(signature, "variables", None) or getattr(restored, "variables", [])


def _computing(weights: Iterable[tuple[str, np.ndarray]]) -> Iterator[tuple[str, np.ndarray]]:
    """Without text, counters and random states, which compute nothing."""
    return ((name, array) for name, array in weights if array.dtype.kind not in "iuOSU")


# Writing ----------------------------------------------------------------------------------------------------------


def write(model: Any, target: Path, hop: Hop) -> None:
    """One ``serving_default`` with the model's own names. Each weight is stored once: Keras' own export stores it
    twice, since it tracks the model beside the function that uses it."""
    import keras

    names = [_argument(name, hop) for name in _live.input_names(model)]
    folder = hop.scratch / "result-saved-model"
    shutil.rmtree(folder, ignore_errors=True)
    export = _export if isinstance(model, keras.Model) else _export_tf_keras
    try:
        export(model, _signature(model, names), folder)
    except Exception as error:  # tracing raises whatever a layer's graph code meets
        text = " ".join(str(error).split())[:300]
        raise ConverterFailed(target=LABEL, doing="Tracing the model", problem=text) from error
    archive.pack(folder, target)
    shutil.rmtree(folder)


def _argument(name: str, hop: Hop) -> str:
    """A name that a function's argument can have."""
    clean = re.sub(r"\W", "_", name)
    clean = f"_{clean}" if clean[:1].isdigit() else clean
    if clean != name:
        hop.add(RENAMED_INPUT(name=name, new=clean))
    return clean


def _export(model: Any, signature: list[Any], folder: Path) -> None:
    import keras

    exporter = keras.export.ExportArchive()
    for layer in model._flatten_layers(include_self=False, recursive=True):
        if type(layer).__name__ in LOOKUPS and layer.built:  # a table is no variable to be found
            exporter.track(layer)
    exporter.add_endpoint("serve", _endpoint(model), signature)
    exporter.write_out(str(folder), verbose=False)


def _export_tf_keras(model: Any, signature: list[Any], folder: Path) -> None:
    """Only the variables and the function: not the layers, which nobody could build any more."""
    import tensorflow as tf

    module = tf.Module()
    module.kept = list(model.variables)
    module.serve = tf.function(_endpoint(model), input_signature=signature, autograph=False)
    tf.saved_model.save(module, str(folder), signatures={"serving_default": module.serve})


def _endpoint(model: Any) -> Callable[..., dict[str, Any]]:
    output_names = _live.output_names(model)

    def serve(*tensors: Any) -> dict[str, Any]:
        results = _live.flatten(model(_live.pack(model, list(tensors)), training=False))
        return dict(zip(output_names, results, strict=True))

    return serve


def _signature(model: Any, names: list[str]) -> list[Any]:
    import tensorflow as tf

    pairs = zip(names, _live.input_specs(model), strict=True)
    return [tf.TensorSpec(spec.shape, spec.dtype, name=name) for name, spec in pairs]


FORMAT = Format(
    label=LABEL,
    suffixes=(".zip", ".tar.gz"),
    sniff=_sniff.holds_saved_model,
    inspect=inspect,
    load=load,
    converts_from=_sources.converters(write, "saved_model", _sources.open_any),
    keeps=frozenset({"graph", "weights"}),
    snippet="""import tempfile
import zipfile

import tensorflow as tf

folder = tempfile.mkdtemp()
with zipfile.ZipFile("{file}") as archive:
    archive.extractall(folder)
restored = tf.saved_model.load(folder)
signature = restored.signatures["serving_default"]
print(signature.structured_input_signature[1], signature.structured_outputs)
""",
    needs=("tensorflow", "keras", "tf_keras"),
)
