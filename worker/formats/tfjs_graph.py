"""TensorFlow.js graph model: a frozen graph as JSON, its constants in shards beside it, run in browsers and in Node.

Specification: https://github.com/tensorflow/tfjs/tree/master/tfjs-converter
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from worker import archive
from worker.errors import ConverterFailed, ModelError
from worker.formats import _graph_variables, _graphs, _inner_graphs, _tfjs, _tfjs_graph
from worker.formats._format import Converter, Format, Hop, Loaded, Room, Sample, Signature, Summary, TensorSpec
from worker.formats._frozen import Wish, built, folded, plain
from worker.formats._live import feed, fetch
from worker.formats._saved_model import spec_of

if TYPE_CHECKING:
    import numpy as np

    from worker.formats._format import Arrays

LABEL = _tfjs_graph.LABEL
GIB = 1024**3
Interface = dict[str, tuple[str, TensorSpec]]  # name in the signature -> (tensor in the graph, spec)


def sniff(sample: Sample) -> bool:
    """A model.json whose topology is a graph of nodes."""
    return _tfjs.is_graph(sample) is True


# Reading ----------------------------------------------------------------------------------------------------------


def inspect(path: Path, scratch: Path) -> Summary:
    """Inputs, outputs and sizes from model.json; no shard is opened."""
    package = _tfjs.read(path, scratch / "tfjs_graph-source")
    graph = _tfjs_graph.parsed(package.root["modelTopology"])
    inputs, outputs = _interface(package.root, graph)
    specs = tuple(spec for _, spec in inputs.values())
    found = tuple(spec for _, spec in outputs.values())
    weights = [entry for entry in package.entries if entry.dtype in {"float32", "complex64"}]
    return Summary(
        inputs=specs,
        outputs=found,
        parameters=sum(entry.size for entry in weights),
        dtypes=tuple(sorted({entry.stored for entry in weights})),
        producer=_producer(package.root),
        signatures=(Signature("serving_default", specs, found),),
        traits=_graphs.facts(graph, specs) | {"weights"},
    )


def _producer(root: Mapping[str, Any]) -> dict[str, str]:
    known = {"tensorflow": root.get("generatedBy"), "converter": root.get("convertedBy")}
    return {name: str(value) for name, value in known.items() if value}


def _interface(root: Mapping[str, Any], graph: Any) -> tuple[Interface, Interface]:
    """Inputs and outputs of the signature; files of old converters have none, so the graph's own ends are taken."""
    metadata = root.get("userDefinedMetadata")
    inner = metadata.get("signature") if isinstance(metadata, dict) else None
    signature = root.get("signature") or inner or {}
    placeholders = {node.name: node for node in graph.node if node.op == "Placeholder"}
    inputs = _declared(signature.get("inputs") or {})
    inputs = inputs or {name: (f"{name}:0", _placeholder_spec(node)) for name, node in placeholders.items()}
    outputs = _declared(signature.get("outputs") or {}) or {
        name: (f"{name}:0", _unknown(name)) for name in _ends(graph)
    }
    return inputs, outputs


def tensors(root: Mapping[str, Any]) -> tuple[dict[str, str], dict[str, str]]:
    """Which tensor of the graph each input is, and each output, by name."""
    inputs, outputs = _interface(root, _tfjs_graph.parsed(root["modelTopology"]))
    return {name: tensor for name, (tensor, _) in inputs.items()}, {
        name: tensor for name, (tensor, _) in outputs.items()
    }


def _declared(tensors: Mapping[str, Any]) -> Interface:
    """The official converter calls the inputs of some models ``left:0``."""
    plain = {name.removesuffix(":0"): info for name, info in sorted(tensors.items())}
    return {name: (str(info["name"]), _spec(name, info)) for name, info in plain.items()}


def _spec(name: str, info: Mapping[str, Any]) -> TensorSpec:
    from google.protobuf import json_format  # type: ignore[import-untyped]
    from tensorflow.core.protobuf import meta_graph_pb2

    known = {key: value for key, value in info.items() if key in {"name", "dtype", "tensorShape"}}
    return spec_of(name, json_format.ParseDict(known, meta_graph_pb2.TensorInfo()))


def _placeholder_spec(node: Any) -> TensorSpec:
    from tensorflow.core.protobuf import meta_graph_pb2

    shape = node.attr["shape"].shape
    return spec_of(node.name, meta_graph_pb2.TensorInfo(dtype=node.attr["dtype"].type, tensor_shape=shape))


def _unknown(name: str) -> TensorSpec:
    return TensorSpec(name, None, "float32")


def _ends(graph: Any) -> list[str]:
    used = {name.lstrip("^").split(":")[0] for node in graph.node for name in node.input}
    return [node.name for node in graph.node if node.name not in used and node.op != "Const"]


def load(path: Path, scratch: Path) -> Loaded:
    """The graph with its constants put back, run by TensorFlow: the content is judged, not TensorFlow.js' kernels."""
    function, inputs, outputs, arrays = _function(path, scratch)
    entries = _tfjs.read(path, scratch / "tfjs_graph-source").entries

    def run(given: Arrays) -> Arrays:
        results = function.call([feed(given[spec.name], spec.dtype) for spec in inputs])
        return {spec.name: fetch(result) for spec, result in zip(outputs, results, strict=True)}

    def weights() -> Iterator[tuple[str, np.ndarray]]:
        for entry in entries:
            if arrays[entry.name].dtype.kind == "f":
                stored = "float16" if entry.stored == "float16" else arrays[entry.name].dtype
                yield entry.name, arrays[entry.name].astype(stored, copy=False)

    def steps() -> dict[str, float]:
        return {entry.name: entry.step for entry in entries if entry.step}

    def inner(given: Arrays) -> Iterator[tuple[str, np.ndarray]]:
        fed = [feed(given[spec.name], spec.dtype) for spec in inputs]
        return _inner_graphs.of_function(function.owner, function.fed, fed)

    loaded = Loaded(inputs, outputs, run, weights, steps=steps, inner=inner)
    return _graph_variables.with_variables(loaded, function)


def _function(
    path: Path, scratch: Path
) -> tuple[_graphs.Function, tuple[TensorSpec, ...], tuple[TensorSpec, ...], dict[str, np.ndarray]]:
    package = _tfjs.read(path, scratch / "tfjs_graph-source")
    if (package.root.get("modelInitializer") or {}).get("node"):
        raise ModelError(problem="it fills lookup tables when it starts, which is not read back")
    arrays = {entry.name: array for entry, array in package.arrays()}
    graph = _tfjs_graph.parsed(package.root["modelTopology"])
    inputs, outputs = _interface(package.root, graph)
    _tfjs_graph.put_constants(graph, arrays)
    graph = _tfjs_graph.with_unique_functions(graph)
    function = _imported(graph, [tensor for tensor, _ in inputs.values()], [tensor for tensor, _ in outputs.values()])
    traced = zip(outputs.values(), function.pruned.outputs, strict=True)
    found = tuple(_traced(spec, tensor) for (_, spec), tensor in traced)
    return function, tuple(spec for _, spec in inputs.values()), found, arrays


def _imported(graph: Any, inputs: list[str], outputs: list[str]) -> _graphs.Function:
    """The graph as a function of its inputs, in order, that gives its outputs as a list."""
    from tensorflow import errors

    try:
        plain = _tfjs_graph.as_tensorflow(graph)
        return _graphs.function_of(plain, [_tensor(name) for name in inputs], [_tensor(name) for name in outputs])
    except (ValueError, LookupError, TypeError, errors.OpError) as error:
        raise ModelError(problem=f"its graph does not load in TensorFlow ({str(error)[:300]})") from error


def _tensor(name: str) -> str:
    return name if ":" in name else f"{name}:0"


def _traced(spec: TensorSpec, tensor: Any) -> TensorSpec:
    """What the signature declares, and where it declares nothing what the graph computes."""
    shape = None if tensor.shape.rank is None else tuple(tensor.shape.as_list())
    return TensorSpec(spec.name, spec.shape or shape, tensor.dtype.name)


# Writing ----------------------------------------------------------------------------------------------------------


def from_saved_model(source: Path, target: Path, hop: Hop) -> None:
    """Freeze the signature, optimise it as the official converter does, and take its constants apart."""
    function, module = built(plain(source, hop, Wish(single=True, loops=True)), variables=True)
    graph, signature = _flat(function)
    assert module  # it owned the weights until now
    hop.add(*_tfjs.note_int32(_specs(function)))
    try:
        graph = _tfjs_graph.prepared(graph, signature)
    except (ValueError, RuntimeError) as error:  # Grappler's own errors
        raise ConverterFailed(target=LABEL, doing="Optimising the graph", problem=str(error)[:300]) from error
    hop.add(*_tfjs.note_rounded(_tfjs_graph.dtypes_of(graph)))
    weights = _tfjs_graph.take_constants(graph)
    _tfjs.write(_root(graph, signature), weights, target, hop.scratch)


def _flat(function: Any) -> tuple[Any, Any]:
    """The GraphDef of a function without calls of other functions, and its signature under the interface's names."""
    from tensorflow.core.protobuf import meta_graph_pb2

    definition, inputs = folded(function, loops=True)
    signature = meta_graph_pb2.SignatureDef(method_name="tensorflow/serving/predict")
    for tensor in inputs:
        signature.inputs[tensor.name.split(":")[0]].CopyFrom(_info(tensor))
    for name, tensor in zip(sorted(function.structured_outputs), function.outputs, strict=True):
        signature.outputs[name].CopyFrom(_info(tensor))
    return definition, signature


def _specs(function: Any) -> list[TensorSpec]:
    inputs = function.structured_input_signature[0]
    named = [*((spec.name, spec) for spec in inputs), *function.structured_outputs.items()]
    return [TensorSpec(name, None, tensor.dtype.name) for name, tensor in named]


def _info(tensor: Any) -> Any:
    from tensorflow.core.protobuf import meta_graph_pb2

    return meta_graph_pb2.TensorInfo(
        name=tensor.name, dtype=tensor.dtype.as_datatype_enum, tensor_shape=tensor.shape.as_proto()
    )


def _root(graph: Any, signature: Any) -> dict[str, Any]:
    import tensorflow as tf
    from google.protobuf.json_format import MessageToDict  # type: ignore[import-untyped]

    return {
        "format": "graph-model",
        "generatedBy": tf.__version__,
        "convertedBy": _tfjs.WRITER,
        "signature": MessageToDict(signature),
        "modelTopology": MessageToDict(graph),
    }


def to_saved_model(source: Path, target: Path, hop: Hop) -> None:
    """One ``serving_default`` with the names of the signature; small weights stay constants of its graph."""
    import tensorflow as tf

    function, inputs, outputs, _ = _function(source, hop.scratch)

    def serve(*tensors: Any) -> dict[str, Any]:
        results = function.call(list(tensors))
        return dict(zip([spec.name for spec in outputs], results, strict=True))

    module = tf.Module()
    module.kept = function.variables
    specs = [tf.TensorSpec(spec.shape, spec.dtype, name=spec.name) for spec in inputs]
    module.serve = tf.function(serve, input_signature=specs, autograph=False)
    folder = hop.scratch / "result-saved-model"
    shutil.rmtree(folder, ignore_errors=True)
    tf.saved_model.save(module, str(folder), signatures={"serving_default": module.serve})
    archive.pack(folder, target)
    shutil.rmtree(folder)


FORMAT = Format(
    label=LABEL,
    suffixes=(".zip",),
    sniff=sniff,
    inspect=inspect,
    load=load,
    converts_from={"saved_model": Converter(from_saved_model)},
    converts_to={"saved_model": Converter(to_saved_model)},
    keeps=frozenset({"graph", "weights"}),
    refuses={
        "strings": "TensorFlow.js has no operations on text; prepare the text before the model.",
        "tables": "a TF.js graph model that Larder writes has no tables; look the words up before the model.",
        "old-loops": "TensorFlow.js does not run the loops of TensorFlow 1 (Switch, Merge).",
    },
    changes={"half": "TensorFlow.js has no float16: it computes in float32."},
    room=Room(limit=2 * GIB, memory=20.0),
    snippet="""// npm install @tensorflow/tfjs-core @tensorflow/tfjs-converter @tensorflow/tfjs-backend-cpu
// Unpack "{file}" into the folder "model", and serve it beside the page.
import "@tensorflow/tfjs-backend-cpu";
import { loadGraphModel } from "@tensorflow/tfjs-converter";

const model = await loadGraphModel("model/model.json");
console.log(model.modelSignature);
""",
    snippet_language="javascript",
    needs=("tensorflow",),
)
