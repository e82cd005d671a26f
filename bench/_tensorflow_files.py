"""Files that hold a graph of TensorFlow, opened for changing: SavedModel, frozen graph, TensorFlow.js graph model."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from bench._graph_files import constant_epsilons, is_activation, keeps_shape
from bench._layer_files import _ending, read_shards, read_zip, write_zip, written_shards
from bench._mutations import EPSILON_FACTORS, Array, Change, File
from bench._settings import changed_settings, float_constants, similar, whole_constants

FLOATS = (1, 2, 19)  # DT_FLOAT, DT_DOUBLE, DT_HALF
NORMALIZATIONS = ("FusedBatchNorm", "FusedBatchNormV3")
CONSTANTS = ("Const", "ReadVariableOp")
Nodes = list[tuple[Any, Any]]  # a graph or function, and one of its nodes


def open_frozen_graph(path: Path, scratch: Path) -> File:
    from tensorflow.core.framework import graph_pb2

    graph = graph_pb2.GraphDef.FromString(path.read_bytes())
    values = dict(_constants(graph))
    tensors = _arrays(values)

    def write(target: Path) -> None:
        _put(values, tensors)
        target.write_bytes(graph.SerializeToString(deterministic=True))

    return File(tensors, _structure(graph, tensors, list(_renamed_outputs(graph))), write)


def open_tfjs_graph(path: Path, scratch: Path) -> File:
    from google.protobuf import json_format  # type: ignore[import-untyped]
    from tensorflow.core.framework import graph_pb2

    members = read_zip(path)
    name = _ending(members, "model.json")
    root = json.loads(members[name])
    graph = json_format.ParseDict(root["modelTopology"], graph_pb2.GraphDef())
    tensors = read_shards(root, members)

    def write(target: Path) -> None:
        text = json.dumps({**root, "modelTopology": json_format.MessageToDict(graph)}).encode()
        write_zip({**members, name: text, **written_shards(root, members, tensors)}, target)

    return File(tensors, _structure(graph, tensors, list(_declared_outputs(root["signature"]["outputs"]))), write)


def open_saved_model(path: Path, scratch: Path) -> File:
    """Variables from the checkpoint; the constants of the graph are changed as its structure is."""
    import tensorflow as tf
    from tensorflow.core.protobuf import saved_model_pb2

    members = read_zip(path)
    name = _ending(members, "saved_model.pb")
    proto = saved_model_pb2.SavedModel.FromString(members[name])
    folder = scratch / "saved-model"
    for inside, content in members.items():
        (folder / inside).parent.mkdir(parents=True, exist_ok=True)
        (folder / inside).write_bytes(content)
    prefix = (folder / name).parent / "variables" / "variables"
    reader = tf.train.load_checkpoint(str(prefix))
    kept = {key: reader.get_tensor(key) for key in reader.get_variable_to_shape_map()}
    tensors: dict[str, Array] = {
        key: array
        for key, array in kept.items()
        if getattr(array, "dtype", None) == "float32" and "optimizer" not in key
    }

    def write(target: Path) -> None:
        _put(values, constants)
        base = name.removesuffix("saved_model.pb") + "variables/variables"
        files = _checkpoint({**kept, **tensors}, scratch / "changed")
        inside = {f"{base}.{ending}": content for ending, content in files.items()}
        others = {key: content for key, content in members.items() if not key.startswith(base)}
        write_zip({**others, name: proto.SerializeToString(deterministic=True), **inside}, target)

    graph = proto.meta_graphs[0].graph_def
    values = dict(_constants(graph))
    constants = _arrays(values)
    return File(tensors, _structure(graph, constants, list(_returned(graph))), write)


def _checkpoint(tensors: dict[str, Any], prefix: Path) -> dict[str, bytes]:
    """The files of a checkpoint by their endings, with checksums of their own."""
    import tensorflow as tf

    names = sorted(tensors)
    values = [tf.constant(tensors[name]) for name in names]
    tf.raw_ops.SaveV2(prefix=str(prefix), tensor_names=names, shape_and_slices=[""] * len(names), tensors=values)
    files = prefix.parent.glob(f"{prefix.name}.*")
    return {file.name.removeprefix(f"{prefix.name}."): file.read_bytes() for file in files}


# Nodes ----------------------------------------------------------------------------------------------------------


def _nodes(graph: Any) -> Nodes:
    """Those of the graph itself and of its functions."""
    return [(graph, node) for node in graph.node] + [
        (function, node) for function in graph.library.function for node in function.node_def
    ]


def _constants(graph: Any) -> Iterator[tuple[str, Any]]:
    for place, (_, node) in enumerate(_nodes(graph)):
        if node.op == "Const" and node.attr["value"].tensor.dtype in FLOATS:
            yield f"{place} {node.name}", node.attr["value"].tensor


def _arrays(values: dict[str, Any]) -> dict[str, Array]:
    import tensorflow as tf

    return {name: tf.make_ndarray(value).copy() for name, value in values.items()}


def _put(values: dict[str, Any], tensors: dict[str, Array]) -> None:
    import tensorflow as tf

    for name, array in tensors.items():
        values[name].CopyFrom(tf.make_tensor_proto(array, shape=array.shape))


def _structure(graph: Any, tensors: dict[str, Array], outputs: list[Change]) -> dict[str, list[Change]]:
    nodes = _nodes(graph)
    return {
        "outputs swapped": outputs,
        "activation dropped": [*_identities(nodes, is_activation), *_fused(nodes)],
        "epsilon changed": [*_epsilons(nodes), *constant_epsilons(tensors)],
        "layer bypassed": list(_identities(nodes, lambda kind: keeps_shape(kind) or kind in NORMALIZATIONS)),
        "setting changed": [*_settings(nodes), *_whole(nodes), *float_constants(tensors)],
        "operation exchanged": list(_exchanges(nodes)),
    }


def _settings(nodes: Nodes) -> Iterator[Change]:
    """Settings that are numbers, words or lists of numbers; what starts with an underscore is for TensorFlow alone."""
    for _, node in nodes:
        plain = {key: _setting(value) for key, value in node.attr.items() if not key.startswith("_")}
        if node.op not in ("Const", "Placeholder", "VarHandleOp", "ReadVariableOp"):
            yield from changed_settings(f"{node.op} {node.name[-30:]}", plain, partial(_put_setting, node))


def _setting(value: Any) -> Any:
    kind = value.WhichOneof("value")
    if kind == "list":
        return list(value.list.i)
    found = getattr(value, kind) if kind in ("i", "f", "b", "s") else None
    return found.decode(errors="replace") if isinstance(found, bytes) else found


def _put_setting(node: Any, name: str, new: Any) -> None:
    value = node.attr[name]
    if isinstance(new, list):
        value.list.i[:] = new
    else:
        kind = value.WhichOneof("value")
        setattr(value, kind, new.encode() if isinstance(new, str) else new)


def _whole(nodes: Nodes) -> Iterator[Change]:
    import tensorflow as tf

    kept = {
        f"{place} {node.name[-30:]}": node.attr["value"].tensor
        for place, (_, node) in enumerate(nodes)
        if node.op == "Const" and node.attr["value"].tensor.dtype in (3, 9)
    }

    def put(name: str, new: Any) -> None:
        kept[name].CopyFrom(tf.make_tensor_proto(new, shape=new.shape))

    return whole_constants({name: tf.make_ndarray(value) for name, value in kept.items()}, put)


def _exchanges(nodes: Nodes) -> Iterator[Change]:
    for _, node in nodes:
        for other in similar(node.op):
            yield Change(f"{node.op} {node.name[-30:]} → {other}", partial(setattr, node, "op", other))


def _identities(nodes: Nodes, wanted: Any) -> Iterator[Change]:
    for owner, node in nodes:
        if wanted(node.op):
            yield Change(f"{node.op} {node.name}", partial(_make_identity, owner, node))


def _make_identity(owner: Any, node: Any) -> None:
    """Inside of functions tensors are called by the name of the operation's output, which is another then."""
    kinds = {item.name: item.op for item in _siblings(owner)}
    data = [name for name in node.input if kinds.get(name.split(":")[0]) not in CONSTANTS and not name.startswith("^")]
    kind = node.attr["T"].type
    node.op = "Identity"
    node.input[:] = [(data or list(node.input))[0]]
    node.attr.clear()
    node.attr["T"].type = kind
    if hasattr(owner, "node_def"):
        _rename_uses(owner, node.name)


def _siblings(owner: Any) -> Any:
    return owner.node_def if hasattr(owner, "node_def") else owner.node


def _rename_uses(function: Any, name: str) -> None:
    new = f"{name}:output:0"
    for node in function.node_def:
        node.input[:] = [new if given.startswith(f"{name}:") else given for given in node.input]
    for key, given in list(function.ret.items()):
        if given.startswith(f"{name}:"):
            function.ret[key] = new


def _fused(nodes: Nodes) -> Iterator[Change]:
    """Activations that were drawn into the operation before them."""
    for _, node in nodes:
        inside = node.attr["fused_ops"].list.s if "fused_ops" in node.attr else []
        if any(is_activation(name.decode()) for name in inside):
            yield Change(f"fused in {node.name}", partial(_keep_plain, inside))


def _keep_plain(inside: Any) -> None:
    inside[:] = [name for name in inside if not is_activation(name.decode())]


def _epsilons(nodes: Nodes) -> Iterator[Change]:
    for _, node in nodes:
        if "epsilon" in node.attr and node.attr["epsilon"].f:
            for factor in EPSILON_FACTORS:
                new = node.attr["epsilon"].f * factor
                yield Change(f"{node.name} × {factor}", partial(setattr, node.attr["epsilon"], "f", new))


# Outputs --------------------------------------------------------------------------------------------------------


def _renamed_outputs(graph: Any) -> Iterator[Change]:
    """The ends of a plain graph are its outputs, by the names of their nodes."""
    used = {name.lstrip("^").split(":")[0] for node in graph.node for name in node.input}
    ends = [node for node in graph.node if node.name not in used and node.op == "Identity"]
    if len(ends) > 1:
        yield Change(f"{ends[0].name} ↔ {ends[1].name}", partial(_swap_names, ends[0], ends[1]))


def _swap_names(one: Any, other: Any) -> None:
    one.name, other.name = str(other.name), str(one.name)


def _declared_outputs(outputs: dict[str, Any]) -> Iterator[Change]:
    names = sorted(outputs)
    if len(names) > 1:
        yield Change(" ↔ ".join(names[:2]), partial(_swap_entries, outputs, names[0], names[1], "name"))


def _swap_entries(outputs: dict[str, Any], one: str, other: str, key: str) -> None:
    outputs[one][key], outputs[other][key] = outputs[other][key], outputs[one][key]


def _returned(graph: Any) -> Iterator[Change]:
    """What the function of a signature gives under its names."""
    for function in graph.library.function:
        names = sorted(function.ret)
        if "signature_wrapper" in function.signature.name and len(names) > 1:
            yield Change(" ↔ ".join(names[:2]), partial(_swap_returned, function.ret, names[0], names[1]))


def _swap_returned(returned: Any, one: str, other: str) -> None:
    first, second = str(returned[one]), str(returned[other])
    returned[one], returned[other] = second, first
