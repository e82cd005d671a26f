"""SavedModel: TensorFlow's graph, variables and assets in a folder, kept here as one archive."""

from __future__ import annotations

import dataclasses
import math
import re
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
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
    _tables,
)
from worker.formats._architecture import Architecture
from worker.formats._format import MOST_SIGNATURES, Format, Hop, Loaded, Signature, Summary, TensorSpec
from worker.formats._implied_graphs import implied_by_signature
from worker.formats._tensors import value_of
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
    signatures = _signatures(graph)
    root = _saved_model.keras_root(folder, proto)
    keras = _keras_side(path, scratch, root) if root else Summary()
    parameters, dtypes = _sizes(folder)
    stored = {"variables"} if parameters else set()
    usual = signatures[0] if signatures else Signature("")
    return dataclasses.replace(
        keras,
        inputs=usual.inputs,
        outputs=usual.outputs,
        parameters=parameters,
        dtypes=dtypes,
        producer={**keras.producer, "tensorflow": graph.meta_info_def.tensorflow_version},
        signatures=signatures,
        traits=keras.traits | usual.traits | stored | {"weights"},
    )


def _keras_side(path: Path, scratch: Path, root: dict[str, Any]) -> Summary:
    """What the description of the layers tells, and whether the settings and the state of training are there."""
    trained = _keras_files.read_saved_model(path, scratch).training.traits
    return _outline.summarise(Architecture(root, str(root["keras_version"] or "2")), trained)


def _signatures(graph: Any) -> tuple[Signature, ...]:
    """What each signature takes, gives and computes, the usual one first; no more than anybody lists."""
    known = _saved_model.signatures_of(graph)
    names = list(_saved_model.distinct(graph).items())[:MOST_SIGNATURES]
    return tuple(_signature_of(graph, name, known[name], same) for name, same in names)


def _signature_of(graph: Any, name: str, declared: Any, same_as: str) -> Signature:
    found = _saved_model.signature_of(name, declared)
    facts = frozenset() if same_as else _facts(graph, declared, found.inputs)
    return dataclasses.replace(found, traits=facts, same_as=same_as)


def _facts(graph: Any, declared: Any, inputs: tuple[TensorSpec, ...]) -> frozenset[str]:
    """What the operations of a signature tell about the model."""
    fed = [info.name.split(":")[0] for info in declared.inputs.values()]
    return _graphs.facts(_graphs.part_for(graph.graph_def, _nodes_of([declared]), fed), inputs)


def _nodes_of(signatures: Iterable[Any]) -> list[str]:
    """The nodes that the results of signatures come from."""
    return [info.name.split(":")[0] for signature in signatures for info in signature.outputs.values()]


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


def load(path: Path, scratch: Path, signature: str = "") -> Loaded:
    """A signature, the serving one unless another is named, ready to run; what was loaded stays referenced as long as
    the result."""
    return _load(path.absolute(), scratch, _stamp(path), signature)


@cache
def _load(path: Path, scratch: Path, stamp: tuple[int, ...], name: str) -> Loaded:
    _graphs.compute_exactly()
    if _changes_references(path, scratch):
        return _load_in_session(path, scratch, stamp, name)
    restored, signature = open_signature(path, scratch, name)
    inputs = implied_by_signature(signature, _signature_inputs(signature, [] if name else _declared_order(restored)))
    outputs = tuple(_tensor_spec(key, spec) for key, spec in _ordered(signature.structured_outputs))

    def run(arrays: Arrays) -> Arrays:
        results = signature(**{spec.name: _live.feed(arrays[spec.name], spec.dtype) for spec in inputs})
        return {spec.name: _live.fetch(results[spec.name]) for spec in outputs}

    def weights() -> Iterator[tuple[str, np.ndarray]]:
        folder = _saved_model.folder_in(path, scratch / "saved_model-source")
        if not name and _saved_model.keras_root(folder, _saved_model.read_proto(folder)):
            stored = _saved_model.keras_weights(folder).arrays
            return _computing((key, value_of(tensor)) for key, tensor in stored)
        variables = _variables(restored, signature, name)
        if not variables:
            return _computing(_constants(path, scratch, name))
        return _computing((variable.name, variable.numpy()) for variable in variables)

    def exact(arrays: Arrays) -> Arrays:
        return _double.of_function(signature, list(signature._arg_keywords), arrays)

    def inner(arrays: Arrays) -> Iterator[tuple[str, np.ndarray]]:
        return _inner_graphs.of_saved_model(path, scratch, arrays, name)

    further = _further(path, scratch, name)
    opened = Loaded(inputs, outputs, run, weights, inner=inner, exact=exact, further=further)
    opened = dataclasses.replace(opened, tables=lambda: _tables.of_signature(signature))
    changing = _variables(restored, signature, name)
    return _saved_model_variables.of_signature(opened, changing, path, Hop(scratch, signature=name))


def _further(path: Path, scratch: Path, name: str) -> tuple[str, ...]:
    folder = _saved_model.folder_in(path, scratch / "saved_model-source")
    return tuple(_saved_model.further(_saved_model.serving_graph(_saved_model.read_proto(folder)), name)[1])


def _constants(path: Path, scratch: Path, name: str) -> Iterator[tuple[str, np.ndarray]]:
    """What a finished graph has instead of variables; nothing where the graph cannot be laid out flat."""
    from worker.formats import _frozen  # which opens SavedModels by this module

    try:
        return _graphs.constants(_frozen.plain(path, Hop(scratch, signature=name)).definition)
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


def _load_in_session(path: Path, scratch: Path, stamp: tuple[int, ...], name: str) -> Loaded:
    """A signature in a session of TensorFlow 1, which keeps its variables from one run to the next."""
    session, signatures = _open_session(path, scratch, stamp)
    chosen = _chosen(signatures, name)
    declared = _saved_model.signature_of(name, chosen)
    inputs, outputs = declared.inputs, declared.outputs

    def fed(arrays: Arrays) -> dict[str, Any]:
        return {chosen.inputs[spec.name].name: arrays[spec.name] for spec in inputs}

    def run(arrays: Arrays) -> Arrays:
        results = session.run({spec.name: chosen.outputs[spec.name].name for spec in outputs}, fed(arrays))
        return {name: _live.fetch(result) for name, result in results.items()}

    def variables() -> list[Any]:
        return _saved_model_variables.used_in_session(session, [info.name for info in chosen.outputs.values()])

    def weights() -> Iterator[tuple[str, np.ndarray]]:
        return _computing((variable.name, session.run(variable)) for variable in variables())

    def inner(arrays: Arrays) -> Iterator[tuple[str, np.ndarray]]:
        return _inner_graphs.of_session(session, fed(arrays))

    return _saved_model_variables.of_session(Loaded(inputs, outputs, run, weights, inner=inner), session, variables)


@cache
def _open_session(path: Path, scratch: Path, _: tuple[int, ...]) -> tuple[Any, dict[str, Any]]:
    """Once for all signatures: another one would hold all weights again."""
    import tensorflow as tf

    v1 = tf.compat.v1
    folder = _saved_model.folder_in(path, scratch / "saved_model-source")
    graph = _saved_model.serving_graph(_saved_model.read_proto(folder))
    session = v1.Session(graph=tf.Graph())
    with session.graph.as_default():
        v1.saved_model.loader.load(session, list(graph.meta_info_def.tags), str(folder))
    return session, _saved_model.signatures_of(graph)


def open_signature(path: Path, scratch: Path, name: str = "") -> tuple[Any, Any]:
    """What was restored, and a signature of it, the serving one unless another is named: the first must stay referenced
    while the second is used."""
    restored = _restored(path.absolute(), scratch, _stamp(path))
    known = {key: restored.signatures[key] for key in restored.signatures if not key.startswith("__saved_model")}
    return restored, _chosen(known, name)


def _chosen(signatures: Mapping[str, Any], name: str) -> Any:
    if name and name not in signatures:
        known = ", ".join(sorted(signatures))
        raise ModelError(problem=f"this SavedModel has no signature {name!r}; it has {known}")
    return signatures[name or _saved_model.choose_signature(list(signatures))]


@cache
def _restored(path: Path, scratch: Path, _: tuple[int, ...]) -> Any:
    """Once for all who ask: a second copy would hold all weights again."""
    folder = _saved_model.folder_in(path, scratch / "saved_model-source")
    return _restore(folder, _saved_model.serving_graph(_saved_model.read_proto(folder)))


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
    return sorted(structure.items(), key=lambda item: _saved_model.natural(item[0]))


def _signature_inputs(signature: Any, declared: list[str]) -> tuple[TensorSpec, ...]:
    """Inputs by name, in the order of the arguments where a function tells it: the signature's map itself has none."""
    specs = signature.structured_input_signature[1]
    positions = {name: index for index, name in enumerate(declared)} if set(declared) == set(specs) else {}
    names = sorted(specs, key=lambda name: (positions.get(name, 0), _saved_model.natural(name)))
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


def _variables(restored: Any, signature: Any, name: str) -> list[Any]:
    """The variables that the signature uses. A Keras model has more: statistics that became constants of its graph. A
    graph of TensorFlow 1 has those of all its signatures."""
    every = list(getattr(signature, "variables", None) or ())
    if every or name:
        return _saved_model_variables.used_by_function(signature, every)
    return list(getattr(restored, "variables", []))


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
    for table in _tables.in_layers(model):
        exporter.track(table)
    exporter.add_endpoint("serve", _endpoint(model), signature)
    exporter.write_out(str(folder), verbose=False)


def _export_tf_keras(model: Any, signature: list[Any], folder: Path) -> None:
    """Only the variables and the function: not the layers, which nobody could build any more."""
    import tensorflow as tf

    module = tf.Module()
    module.kept = [*model.variables, *_tables.in_layers(model)]
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
    load_signature=load,
    converts_from=_sources.converters(write, "saved_model", _sources.open_any),
    keeps=frozenset({"graph", "weights", "signatures"}),
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
