"""A SavedModel's signature with its variables folded into constants: what finished-graph formats are made from.

Converters that meet variables by themselves leave them uninitialised in what Keras 3 exported, or refuse those of
TensorFlow 1; a graph of constants has neither fault.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from worker.formats import _batch, _cut, _graphs, _half, _saved_model, saved_model
from worker.formats._format import Hop, Loaded
from worker.formats._graphs import Graph, Port
from worker.report import Severity, declare

SIGNATURES_DROPPED = declare(
    "signatures-dropped",
    Severity.WARNING,
    "The result has one signature, {kept}. These were not carried over: {names}. Convert again with the option"
    " signature to have one of them.",
)
FINISHED = "A finished graph"


@dataclass(frozen=True)
class Wish:
    """How a target wants its graph.

    batch: the size of the first dimension, where the source leaves it free; None leaves it free.
    single: compute in float32 what the source computes in float16 or bfloat16; inputs and outputs keep their types.
    loops: keep While and If as operations with functions, instead of the Switch and Merge of TensorFlow 1.
    """

    batch: int | None = None
    single: bool = False
    loops: bool = False


PLAIN = Wish()


def frozen(path: Path, hop: Hop, wish: Wish = PLAIN) -> tuple[Any, Any]:
    """A concrete function of constants, with the inputs and outputs of the signature under their own names, and the
    module that owns it: converters that keep the names want both."""
    return built(plain(path, hop, wish), wish.batch)


def built(graph: Graph, batch: int | None = None, variables: bool = False) -> tuple[Any, Any]:
    """What ``frozen`` gives, from a graph that is there already; with ``batch`` in place of a free first dimension.

    ``variables`` keeps large weights out of the graph, as variables of the module: TensorFlow copies a graph many times
    (37 times the weights were measured on the way to TensorFlow Lite), and variables hardly ever."""
    import tensorflow as tf

    if batch is not None:
        graph = _batch.with_fixed_lists(graph, batch)
    module = tf.Module()
    module.kept = _graphs.large_constants(graph.definition, kept=_outputs(graph)) if variables else {}
    serve = tf.function(_serving(graph, module.kept), input_signature=_tensor_specs(graph, batch), autograph=False)
    module.serve = serve
    return serve.get_concrete_function(), module


def _outputs(graph: Graph) -> set[str]:
    return {port.tensor.split(":")[0] for port in graph.outputs}


def plain(path: Path, hop: Hop, wish: Wish = PLAIN) -> Graph:
    """The signature as a GraphDef of constants alone, without what its outputs do not need.

    The ports are in the order of the model's inputs and outputs, and have its names. The batch stays free here."""
    loaded = saved_model.load(path, hop.scratch, hop.signature)
    folder = _saved_model.folder_in(path, hop.scratch / "saved_model-source")
    proto = _saved_model.serving_graph(_saved_model.read_proto(folder))
    note_dropped(proto, hop)
    if proto.HasField("object_graph_def"):
        graph = _fold_function(path, hop, loaded, wish.loops)
    else:
        graph = _fold_session(folder, proto, loaded, hop.signature)
    graph = _graphs.pruned(graph)
    _graphs.refuse_tables(graph.definition, FINISHED)
    _graphs.refuse_assignments(graph.definition, FINISHED)
    if hop.first is not None:
        graph, said = _cut.cut(graph, hop.first)
        hop.say(said)
    return _half.in_single(graph, hop) if wish.single else graph


def _serving(graph: Graph, kept: dict[str, Any]) -> Any:
    names = [port.spec.name for port in graph.outputs]

    def serve(*tensors: Any) -> dict[str, Any]:
        values = {f"{name}:0": variable.read_value() for name, variable in kept.items()}
        return dict(zip(names, _imported(graph, list(tensors), values), strict=True))

    return serve


def _tensor_specs(graph: Graph, batch: int | None) -> list[Any]:
    import tensorflow as tf

    return [tf.TensorSpec(fixed(port.spec.shape, batch), port.spec.dtype, name=port.spec.name) for port in graph.inputs]


def fixed(shape: tuple[int | None, ...] | None, batch: int | None) -> tuple[int | None, ...] | None:
    """The shape with this size in place of a free first dimension."""
    return (batch, *shape[1:]) if shape and shape[0] is None else shape


def _imported(graph: Graph, tensors: list[Any], values: dict[str, Any]) -> list[Any]:
    """The graph built into the current one on these inputs, and with ``values`` in place of constants: shapes are
    inferred anew from theirs. What computes in another precision than its edges have is cast there."""
    import tensorflow as tf

    results = [port.tensor for port in graph.outputs]
    fed = {port.tensor: tensor for port, tensor in zip(graph.inputs, tensors, strict=True)}
    types = {node.name: node.attr["dtype"].type for node in graph.definition.node if node.op == "Placeholder"}
    edges = {key: tf.cast(value, types.get(key.split(":")[0], value.dtype)) for key, value in fed.items()}
    within = {key: value for key, value in {**edges, **values}.items() if key not in results}
    body = _graphs.without(graph.definition, {key.split(":")[0] for key in within})
    found = tf.graph_util.import_graph_def(body, within, results, name="")
    return [
        tf.cast(edges.get(port.tensor, result), port.spec.dtype)
        for port, result in zip(graph.outputs, found, strict=True)
    ]


def note_dropped(graph: Any, hop: Hop) -> None:
    """Say which signatures of a SavedModel's graph a format with one entry leaves behind."""
    kept, others = _saved_model.further(graph, hop.signature)
    if others:
        hop.add(SIGNATURES_DROPPED(kept=kept, names=", ".join(others)))


def _fold_function(path: Path, hop: Hop, loaded: Loaded, loops: bool) -> Graph:
    """For TensorFlow 2. The function that TensorFlow would build around its constants is not asked for: it costs the
    weights once more in memory, and for loops that TensorFlow 1.15 exported it cannot be built."""
    owner, signature = saved_model.open_signature(path, hop.scratch, hop.signature)
    assert owner  # what the function belongs to must outlive it
    definition, tensors = folded(signature, loops)
    left = [tensor.name for tensor in tensors]
    if len(left) != len(loaded.inputs):  # the handles of tables stay inputs
        _graphs.refuse_tables(definition, FINISHED)
    inputs = dict(zip(signature._arg_keywords, left, strict=False))
    outputs = dict(zip(sorted(signature.structured_outputs), signature.outputs, strict=True))
    return Graph(
        definition,
        tuple(Port(inputs[spec.name], spec) for spec in loaded.inputs),
        tuple(Port(outputs[spec.name].name, spec) for spec in loaded.outputs),
    )


def folded(function: Any, loops: bool) -> tuple[Any, list[Any]]:
    """The GraphDef of a concrete function with its calls inlined and its variables as constants, and the inputs that
    are left; loops stay operations with functions where that is asked for."""
    from tensorflow.python.framework import convert_to_constants

    data = convert_to_constants._FunctionConverterDataInEager(function, not loops, False)
    definition, places = convert_to_constants._replace_variables_by_constants(data)
    captured = {function.graph.internal_captures[place].name for place in places}
    return definition, [tensor for tensor in function.inputs if tensor.name not in captured]


def _fold_session(folder: Path, proto: Any, loaded: Loaded, name: str) -> Graph:
    """For TensorFlow 1: restored in a session, where reference variables still have values."""
    import tensorflow as tf

    v1 = tf.compat.v1
    signatures = _saved_model.signatures_of(proto)
    signature = signatures[name or _saved_model.choose_signature(list(signatures))]
    inputs = tuple(Port(signature.inputs[spec.name].name, spec) for spec in loaded.inputs)
    outputs = tuple(Port(signature.outputs[spec.name].name, spec) for spec in loaded.outputs)
    with tf.Graph().as_default(), v1.Session() as session:
        v1.saved_model.loader.load(session, list(proto.meta_info_def.tags), str(folder))
        return Graph(constants_of(session, inputs, outputs), inputs, outputs)


def constants_of(session: Any, inputs: tuple[Port, ...], outputs: tuple[Port, ...]) -> Any:
    """The session's graph with the values that its variables have now, as far as the outputs need it."""
    import tensorflow as tf

    nodes = [port.tensor.split(":")[0] for port in (*outputs, *inputs)]
    graph = session.graph.as_graph_def()
    return tf.compat.v1.graph_util.convert_variables_to_constants(session, graph, list(dict.fromkeys(nodes)))
