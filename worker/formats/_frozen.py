"""A SavedModel's signature with its variables folded into constants: what finished-graph formats are made from.

Converters that meet variables by themselves leave them uninitialised in what Keras 3 exported, or refuse those of
TensorFlow 1; a graph of constants has neither fault.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from worker.errors import UnsupportedOperation
from worker.formats import _saved_model, saved_model
from worker.formats._format import Hop, TensorSpec
from worker.report import Severity, declare

SIGNATURES_DROPPED = declare(
    "signatures-dropped",
    Severity.WARNING,
    "The result has one signature, {kept}. These were not carried over: {names}.",
)


def frozen(path: Path, hop: Hop) -> tuple[Any, Any]:
    """A concrete function of constants, with the inputs and outputs of the signature under their own names, and the
    module that owns it: converters that keep the names want both."""
    import tensorflow as tf

    scratch = hop.scratch
    loaded = saved_model.load(path, scratch)
    inputs, outputs = loaded.inputs, [spec.name for spec in loaded.outputs]
    folder = _saved_model.folder_in(path, scratch / "saved_model-source")
    graph = _saved_model.serving_graph(_saved_model.read_proto(folder))
    _note_dropped(list(_saved_model.signatures_of(graph)), hop)
    if graph.HasField("object_graph_def"):
        folded = _fold_function(path, scratch)
    else:
        folded = _fold_session(folder, graph, inputs, outputs)

    def serve(*tensors: Any) -> dict[str, Any]:
        return dict(zip(outputs, folded(list(tensors)), strict=True))

    specs = [tf.TensorSpec(spec.shape, spec.dtype, name=spec.name) for spec in inputs]
    module = tf.Module()
    module.serve = tf.function(serve, input_signature=specs, autograph=False)
    return module.serve.get_concrete_function(), module


def _note_dropped(names: list[str], hop: Hop) -> None:
    if others := _saved_model.left_behind(names):
        hop.add(SIGNATURES_DROPPED(kept=_saved_model.choose_signature(names), names=", ".join(others)))


def _fold_function(path: Path, scratch: Path) -> Callable[[list[Any]], list[Any]]:
    """For TensorFlow 2: the outputs of the function come in the order of their sorted names."""
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    _, signature = saved_model.open_signature(path, scratch)
    loaded = saved_model.load(path, scratch)
    folded = convert_variables_to_constants_v2(signature)
    if len(folded.inputs) != len(loaded.inputs):  # the handles of tables stay inputs
        problem = "a finished graph has no place for the words in them; look them up before the model"
        raise UnsupportedOperation(target="A finished graph", operation="lookup tables", problem=problem)
    order, names = sorted(signature.structured_outputs), [spec.name for spec in loaded.outputs]

    def call(tensors: list[Any]) -> list[Any]:
        results = dict(zip(order, _listed(folded(*tensors)), strict=True))
        return [results[name] for name in names]

    return call


def _fold_session(
    folder: Path, graph: Any, inputs: tuple[TensorSpec, ...], outputs: list[str]
) -> Callable[[list[Any]], list[Any]]:
    """For TensorFlow 1: restored in a session, where reference variables still have values."""
    import tensorflow as tf

    v1 = tf.compat.v1
    signatures = _saved_model.signatures_of(graph)
    signature = signatures[_saved_model.choose_signature(list(signatures))]
    fetched = [signature.outputs[name].name for name in outputs]
    with tf.Graph().as_default(), v1.Session() as session:
        v1.saved_model.loader.load(session, list(graph.meta_info_def.tags), str(folder))
        nodes = [name.split(":")[0] for name in fetched]
        constants = v1.graph_util.convert_variables_to_constants(session, session.graph.as_graph_def(), nodes)
    imported = v1.wrap_function(lambda: tf.graph_util.import_graph_def(constants, name=""), [])
    folded = imported.prune([signature.inputs[spec.name].name for spec in inputs], fetched)
    return lambda tensors: _listed(folded(*tensors))


def _listed(results: Any) -> list[Any]:
    return list(results) if isinstance(results, (list, tuple)) else [results]
