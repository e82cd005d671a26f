"""Reading SavedModels: the folder in an archive, the protocol buffer, and what Keras 2 left in it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from worker.errors import CorruptFile, IncompleteModel, ModelError
from worker.formats import _graph_dangers, _tf_keras
from worker.formats._architecture import without_markers
from worker.formats._files import files_below, the_only, unpacked
from worker.formats._format import Signature, TensorSpec

if TYPE_CHECKING:
    from worker.formats._architecture import Node
    from worker.formats._weights import Flat

GRAPHS = ("saved_model.pb", "saved_model.pbtxt")
KERAS_METADATA = "keras_metadata.pb"


def folder_in(path: Path, scratch: Path) -> Path:
    """The folder of the SavedModel in an archive, at any depth. Several that are not inside each other: ambiguous."""
    root = unpacked(path, scratch)
    found = files_below(root, lambda name: name in GRAPHS)
    outer = [item for item in found if not any(other.parent in item.parent.parents for other in found)]
    if len({item.parent for item in outer}) > 1 or not outer:
        the_only(outer, root, path.name, "saved_model.pb")
    return outer[0].parent


def read_proto(folder: Path) -> Any:
    """The parsed saved_model.pb; CorruptFile where it is none, UnsafeContent where it reaches beyond itself. The graph
    is not loaded."""
    from google.protobuf import text_format  # type: ignore[import-untyped]
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
    from tensorflow.core.protobuf import saved_model_pb2

    proto = saved_model_pb2.SavedModel()
    try:
        if (folder / GRAPHS[0]).is_file():
            proto.ParseFromString((folder / GRAPHS[0]).read_bytes())
        else:
            text_format.Parse((folder / GRAPHS[1]).read_text(encoding="utf-8"), proto)
    except (DecodeError, text_format.ParseError, UnicodeDecodeError) as error:
        raise CorruptFile(name=GRAPHS[0], problem="it is not a SavedModel's protocol buffer") from error
    if not proto.meta_graphs:
        raise CorruptFile(name=GRAPHS[0], problem="it holds no graph")
    _graph_dangers.refuse_saved_model(proto)
    return proto


def serving_graph(proto: Any) -> Any:
    """The graph that is meant for serving, else the first one."""
    graphs = list(proto.meta_graphs)
    return next((graph for graph in graphs if "serve" in graph.meta_info_def.tags), graphs[0])


def signatures_of(graph: Any) -> dict[str, Any]:
    """The signatures that people call; initialisers and the like are none."""
    return {key: item for key, item in graph.signature_def.items() if not key.startswith("__saved_model")}


def spec_of(name: str, info: Any) -> TensorSpec:
    """A TensorInfo as a TensorSpec under another name."""
    from tensorflow import dtypes

    shape = info.tensor_shape
    sizes = None if shape.unknown_rank else tuple(None if item.size < 0 else int(item.size) for item in shape.dim)
    return TensorSpec(name, sizes, dtypes.as_dtype(info.dtype).base_dtype.name)


def signature_of(name: str, declared: Any) -> Signature:
    """A SignatureDef with what it takes and gives."""
    return Signature(name, _declared(declared.inputs), _declared(declared.outputs))


def _declared(tensors: Any) -> tuple[TensorSpec, ...]:
    return tuple(spec_of(name, tensors[name]) for name in sorted(tensors, key=natural))


def natural(name: str) -> tuple[int, str]:
    """``inputs, inputs_1, …, inputs_10`` in the order in which they were numbered."""
    return len(name), name


def choose_signature(names: list[str]) -> str:
    """``serving_default``, else ``serve``, else the first by name; ModelError where there is none."""
    if not names:
        raise ModelError(problem="this SavedModel has no signature, so nobody can say what its inputs are")
    return next((name for name in ("serving_default", "serve", "predict") if name in names), sorted(names)[0])


def distinct(graph: Any) -> dict[str, str]:
    """The names of the signatures, the usual one first, each with the name of the earlier one that it is another name
    of, or "": Keras' export gives its first endpoint two."""
    signatures = signatures_of(graph)
    if not signatures:
        return {}
    usual = choose_signature(list(signatures))
    seen: dict[Any, str] = {}
    order = [usual, *sorted(set(signatures) - {usual})]
    meanings = _Meanings(graph)
    first = {name: seen.setdefault(meanings.of(signatures[name]), name) for name in order}
    return {name: "" if same == name else same for name, same in first.items()}


def further(graph: Any, chosen: str = "") -> tuple[str, list[str]]:
    """The signature that a format with one entry holds, the usual one unless another is chosen, and those that it does
    not hold; ModelError where there is none."""
    names = distinct(graph)
    kept = chosen or choose_signature(list(names))
    return kept, [name for name, same in names.items() if not same and name != kept]


class _Meanings:
    """What signatures compute, as values that are equal for two names of one signature."""

    def __init__(self, graph: Any) -> None:
        self.nodes = {node.name: node for node in graph.graph_def.node}
        self.functions = {item.signature.name: item for item in graph.graph_def.library.function}

    def of(self, signature: Any) -> Any:
        """TensorFlow 1 names the tensors. TensorFlow 2 wraps the one function anew for each name, with inputs and a
        call of their own."""
        inputs, outputs = _tensors(signature.inputs), _tensors(signature.outputs)
        callers = {tensor.partition(":")[0] for _, tensor in outputs}
        call = self.nodes.get(callers.pop()) if len(callers) == 1 else None
        wrapper = self.functions.get(_called(call)) if call is not None else None
        if call is None or wrapper is None:
            return inputs, outputs
        fed = {tensor.partition(":")[0] for _, tensor in inputs}
        captured = tuple(operand for operand in call.input if operand not in fed)
        places = tuple((name, tensor.partition(":")[2]) for name, tensor in outputs)
        return tuple(name for name, _ in inputs), places, captured, self._body(wrapper)

    def _body(self, wrapper: Any) -> Any:
        calls = ((node.name, node.op, tuple(node.input), _called(node)) for node in wrapper.node_def)
        given = ((item.name, item.type) for item in wrapper.signature.input_arg)
        return tuple(calls), tuple(given), tuple(sorted(wrapper.ret.items()))


def _called(node: Any) -> str:
    """The function that a node calls, or ""."""
    return str(node.attr["f"].func.name) if "f" in node.attr else ""  # asked for, a key would be made


def _tensors(side: Any) -> tuple[tuple[str, str], ...]:
    """What a signature calls its inputs or outputs, and their tensors in the graph."""
    return tuple((name, str(side[name].name)) for name in sorted(side))


def keras_root(folder: Path, proto: Any) -> Node | None:
    """The architecture that Keras 2 stored beside the graph, as a node of its own kind; None where there is none."""
    metadata = _root_metadata(folder, proto)
    if not metadata or not isinstance(metadata.get("config"), (dict, list)) or "class_name" not in metadata:
        return None
    model_config = metadata.get("model_config")
    node = model_config if isinstance(model_config, dict) and "config" in model_config else metadata
    if not isinstance(node["config"], list) and "layers" not in node["config"]:
        return None
    return {
        "class_name": node["class_name"],
        "config": without_markers(node["config"]),
        "keras_version": metadata.get("keras_version", ""),
        "build_config": {"input_shape": without_markers(metadata.get("build_input_shape"))},
    }


def _root_metadata(folder: Path, proto: Any) -> dict[str, Any]:
    """Since TensorFlow 2.5 in a file of its own, before that in the object graph."""
    text = ""
    if (folder / KERAS_METADATA).is_file():
        text = next((node.metadata for node in _metadata_nodes(folder) if node.node_path == "root"), "")
    else:
        objects = serving_graph(proto).object_graph_def.nodes
        if objects and objects[0].user_object.identifier.startswith("_tf_keras"):
            text = objects[0].user_object.metadata
    try:
        value = json.loads(text) if text else {}
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def _metadata_nodes(folder: Path) -> Any:
    from tf_keras.protobuf import saved_metadata_pb2

    return saved_metadata_pb2.SavedMetadata.FromString((folder / KERAS_METADATA).read_bytes()).nodes


def _all_metadata(folder: Path) -> list[Any]:
    """What Keras 2 stored about any object of the model, each of which tf-keras makes anew by itself: the root's own
    description need not name them. ValueError for what is no JSON."""
    if (folder / KERAS_METADATA).is_file():
        texts = [node.metadata for node in _metadata_nodes(folder)]
    else:
        graphs = read_proto(folder).meta_graphs
        texts = [node.user_object.metadata for graph in graphs for node in graph.object_graph_def.nodes]
    return [json.loads(text) for text in texts if text]


def keras_weights(folder: Path) -> Flat:
    """The variables of the root model in its own order, read from the checkpoint: no operation runs."""
    import tensorflow as tf
    from tensorflow.core.protobuf import trackable_object_graph_pb2

    from worker.formats._weights import Flat

    try:
        reader = tf.train.load_checkpoint(str(folder / "variables" / "variables"))
        graph = trackable_object_graph_pb2.TrackableObjectGraph.FromString(
            reader.get_tensor("_CHECKPOINTABLE_OBJECT_GRAPH")
        )
    except (ValueError, tf.errors.OpError) as error:
        raise IncompleteModel(
            name="the SavedModel",
            found="saved_model.pb",
            missing="a readable variables/ folder",
            advice="Pack the whole folder again.",
        ) from error
    nodes = graph.nodes
    children = {child.local_name: child.node_id for child in nodes[0].children}
    listed = nodes[children["variables"]].children if "variables" in children else []
    entries = [nodes[child.node_id].attributes[0] for child in sorted(listed, key=lambda child: int(child.local_name))]
    return Flat([(entry.full_name, reader.get_tensor(entry.checkpoint_key)) for entry in entries])


def vocabularies(folder: Path, names: list[str]) -> dict[str, list[Any]]:
    """The vocabularies of the named layers, in the order of the model; they are in tables, not in the description."""
    stored = _stored_tables(folder)
    return dict(zip(names, stored, strict=True)) if len(stored) == len(names) else _living_tables(folder)


def _stored_tables(folder: Path) -> list[list[Any]]:
    """The tables in the checkpoint, as TensorFlow 2.3 to 2.5 kept them: words, and their numbers."""
    import tensorflow as tf

    reader = tf.train.load_checkpoint(str(folder / "variables" / "variables"))
    sizes = {key: shape for key, shape in reader.get_variable_to_shape_map().items() if key.endswith("/table-keys")}
    keys = [key for key, shape in sizes.items() if shape != [0] and "token_counts" not in key]  # counts of adapt()
    tables = []
    for key in sorted(keys, key=lambda key: [int(number) for number in re.findall(r"\d+", key)]):
        numbers = reader.get_tensor(key.replace("table-keys", "table-values"))
        pairs = sorted(zip(numbers.tolist(), reader.get_tensor(key).tolist(), strict=True))
        tables.append([word.decode() if isinstance(word, bytes) else word for _, word in pairs])
    return tables


def _living_tables(folder: Path) -> dict[str, list[Any]]:
    """Tables made from assets or constants when the model is loaded, which only tf-keras puts back into layers."""
    import tf_keras

    try:
        with _tf_keras.reading(*_all_metadata(folder)):
            model = tf_keras.models.load_model(str(folder), compile=False)
    except Exception:  # whatever an old loader meets: then the vocabulary is missing, and that is said
        return {}
    layers = model._flatten_layers(include_self=False, recursive=True)
    tables = {layer.name: layer.get_vocabulary(False) for layer in layers if hasattr(layer, "get_vocabulary")}
    return {
        name: [str(word) if isinstance(word, str) else int(word) for word in words] for name, words in tables.items()
    }
