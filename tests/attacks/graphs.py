"""TensorFlow graphs, TensorFlow Lite, ONNX and OpenVINO files that reach beyond themselves or lie about their parts."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tests.attacks._attack import FINE, REFUSE, Attack, zipped


def attacks() -> Iterator[Attack]:
    for slug, make in SAVED_MODELS.items():
        yield Attack(f"graph-{slug}", "model.zip", make, REFUSE)
    for slug, make in ONNX.items():
        yield Attack(f"onnx-{slug}", "model.zip", make, REFUSE)
    for slug, make in OPENVINO.items():
        yield Attack(f"openvino-{slug}", "model.zip", make, REFUSE)
    for slug, make in TFLITE.items():
        yield Attack(f"tflite-{slug}", "model.tflite", make, REFUSE)
    for slug, node in OPERATIONS.items():
        yield Attack(f"frozen-{slug}", "model.pb", lambda node=node: _frozen(*node), REFUSE)  # type: ignore[misc]
    yield Attack("graph-honest", "model.zip", lambda: _packed(_saved()), FINE)
    yield Attack("onnx-honest", "model.onnx", lambda: _onnx().SerializeToString(), FINE)
    yield Attack("onnx-honest-beside", "model.zip", lambda: _onnx_beside("model.data", 0, 32), FINE)
    yield Attack("tflite-honest", "model.tflite", _tflite, FINE)
    yield Attack("openvino-honest", "model.zip", lambda: _openvino(), FINE)


# SavedModels ----------------------------------------------------------------------------------------------------


@cache
def _saved() -> dict[str, bytes]:
    import tensorflow as tf

    class Module(tf.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            self.kernel = tf.Variable(tf.ones((4, 2)), name="kernel")

        @tf.function(input_signature=[tf.TensorSpec((None, 4), tf.float32, name="x")])  # type: ignore[untyped-decorator]
        def serve(self, x: Any) -> Any:
            return {"y": tf.matmul(x, self.kernel)}

    module = Module()
    with TemporaryDirectory() as folder:
        tf.saved_model.save(module, folder, signatures={"serving_default": module.serve})
        root = Path(folder)
        return {str(file.relative_to(root)): file.read_bytes() for file in root.rglob("*") if file.is_file()}


def _packed(files: dict[str, bytes]) -> bytes:
    return zipped(files)


def _changed(change: Callable[[Any], None]) -> bytes:
    from tensorflow.core.protobuf import saved_model_pb2

    files = dict(_saved())
    proto = saved_model_pb2.SavedModel.FromString(files["saved_model.pb"])
    change(proto.meta_graphs[0])
    return zipped({**files, "saved_model.pb": proto.SerializeToString()})


def _served(graph: Any) -> Any:
    """The function in the library that the signature runs."""
    return next(item for item in graph.graph_def.library.function if any(n.op == "MatMul" for n in item.node_def))


def _runs(kind: str, **attributes: Any) -> Callable[[Any], None]:
    def change(graph: Any) -> None:
        function = _served(graph)
        node = function.node_def.add(name="bad", op=kind)
        for name, value in attributes.items():
            node.attr[name].s = value
        function.control_ret["bad"] = "bad"
        function.signature.control_output.append("bad")

    return change


def _started(name: str) -> Callable[[Any], None]:
    """A function that opening or closing runs, of an object in the graph."""

    def change(graph: Any) -> None:
        _runs("WriteFile")(graph)
        nodes = graph.object_graph_def.nodes
        number = len(nodes)
        nodes.add().function.concrete_functions.append(_served(graph).signature.name)
        if name == "saveable":
            nodes[0].saveable_objects["x"].restore_function = number
        else:
            nodes[0].children.add(node_id=number, local_name=name)
        del graph.signature_def["serving_default"]
        del graph.signature_def["__saved_model_init_op"]

    return change


def _restored(graph: Any) -> None:
    """The operation that fills the variables of a SavedModel of TensorFlow 1."""
    graph.graph_def.node.add(name="bad", op="WriteFile")
    graph.graph_def.node.add(name="restore_all", op="NoOp").input.append("^bad")
    graph.saver_def.restore_op_name = "restore_all"


def _asset(name: str) -> Callable[[Any], None]:
    def change(graph: Any) -> None:
        asset = graph.asset_file_def.add(filename=name)
        asset.tensor_info.name = "x:0"

    return change


def _index(key: bytes = b"", **changed: Any) -> bytes:
    """The list of variables with other shapes, shards or places."""
    from tensorflow.core.protobuf import tensor_bundle_pb2

    files = dict(_saved())
    found = files["variables/variables.index"]
    entry = tensor_bundle_pb2.BundleEntryProto
    at, parsed = _entry_in(found, entry)
    for name, value in changed.items():
        setattr(parsed, name, value)
    new = parsed.SerializeToString()
    return zipped({**files, "variables/variables.index": _table_with(found, at, new)})


def _entry_in(table: bytes, entry: Any) -> tuple[bytes, Any]:
    from worker.formats._screen._table import rows

    for name, value in rows(table):
        if name.startswith(b"kernel"):
            return name, entry.FromString(value)
    raise AssertionError("no such variable")


def _table_with(table: bytes, key: bytes, value: bytes) -> bytes:
    from tests.attacks._table import written
    from worker.formats._screen._table import rows

    return written([(name, value if name == key else old) for name, old in rows(table)])


def _shape(*sizes: int) -> bytes:
    from tensorflow.core.protobuf import tensor_bundle_pb2

    files = dict(_saved())
    key, parsed = _entry_in(files["variables/variables.index"], tensor_bundle_pb2.BundleEntryProto)
    del parsed.shape.dim[:]
    for size in sizes:
        parsed.shape.dim.add(size=size)
    parsed.size = 32
    return zipped({**files, "variables/variables.index": _table_with(
        files["variables/variables.index"], key, parsed.SerializeToString()
    )})  # fmt: skip


def _shards(count: int) -> bytes:
    from tensorflow.core.protobuf import tensor_bundle_pb2

    from tests.attacks._table import written
    from worker.formats._screen._table import rows

    files = dict(_saved())
    header = tensor_bundle_pb2.BundleHeaderProto(num_shards=count)
    new = [
        (name, header.SerializeToString() if not name else old)
        for name, old in rows(files["variables/variables.index"])
    ]
    return zipped({**files, "variables/variables.index": written(new)})


def _huge_constant(graph: Any) -> None:
    node = _served(graph).node_def.add(name="bad", op="Const")
    node.attr["dtype"].type = 1
    tensor = node.attr["value"].tensor
    tensor.dtype = 1
    tensor.float_val.append(1.0)
    for _ in range(2):
        tensor.tensor_shape.dim.add(size=10**6)


SAVED_MODELS: dict[str, Callable[[], bytes]] = {
    slug: (lambda change=change: _changed(change))
    for slug, change in {
        "matching-files": _runs("MatchingFiles"),
        "remap": _runs("LoadAndRemapMatrix"),
        "dump": _runs("DumpTensor"),
        "distributed-save": _runs("DistributedSave"),
        "snapshot-reader": _runs("SnapshotDatasetReader"),
        "python": _runs("EagerPyFunc"),
        "python-stateless": _runs("PyFuncStateless"),
        "sleep": _runs("SleepOp"),
        "remote-call": _runs("RemoteCall"),
        "summary": _runs("WriteScalarSummary"),
        "import-event": _runs("ImportEvent"),
        "collective": _runs("CollectiveBcastSendV2"),
        "xla-custom-call": _runs("XlaCustomCallV2"),
        "xla-host": _runs("XlaHostCompute"),
        "graph-dataset": _runs("DatasetFromGraph"),
        "iterator-of-bytes": _runs("DeserializeIterator"),
        "record-input": _runs("RecordInput"),
        "list-snapshot": _runs("ListSnapshotChunksDataset"),
        "session-handle": _runs("GetSessionTensor"),
        "mlir": _runs("MlirPassthroughOp"),
        "asset-climbs": _asset("../../../etc/passwd"),
        "asset-absolute": _asset("/etc/passwd"),
        "asset-remote": _asset("gs://bucket/words.txt"),
        "restored": _restored,
        "destroyed": _started("_destroy_resource"),
        "saveable": _started("saveable"),
        "huge-constant": _huge_constant,
    }.items()
} | {
    "index-shape": lambda: _shape(10**6, 10**6),
    "index-offset": lambda: _index(offset=2**40),
    "index-shard": lambda: _index(shard_id=7),
    "index-many-shards": lambda: _shards(100_000),
    "index-negative": lambda: _shape(-4, -2),
    "index-garbage": lambda: zipped({**_saved(), "variables/variables.index": b"garbage" * 100}),
}

Nodes = tuple[str, dict[str, bytes]]
OPERATIONS: dict[str, Nodes] = {
    "dump": ("DumpTensor", {}),
    "reader": ("SnapshotDatasetReader", {}),
    "python": ("PyFuncStateless", {"token": b"pyfunc_0"}),
    "print-file": ("PrintV2", {"output_stream": b"file:///tmp/larder_canary_frozen"}),
    "remap": ("LoadAndRemapMatrix", {}),
}


def _frozen(kind: str, attributes: dict[str, bytes]) -> bytes:
    from tensorflow.core.framework import graph_pb2

    graph = graph_pb2.GraphDef()
    x = graph.node.add(name="x", op="Placeholder")
    x.attr["dtype"].type = 1
    bad = graph.node.add(name="bad", op=kind)
    for name, value in attributes.items():
        bad.attr[name].s = value
    y = graph.node.add(name="y", op="Identity", input=["x", "^bad"])
    y.attr["T"].type = 1
    return bytes(graph.SerializeToString())


# ONNX -----------------------------------------------------------------------------------------------------------


def _onnx(*nodes: Any, sizes: tuple[int, ...] = (4, 2), raw: bytes = bytes(32)) -> Any:
    from onnx import TensorProto, helper

    kernel = helper.make_tensor("kernel", TensorProto.FLOAT, (4, 2), bytes(32), raw=True)
    del kernel.dims[:]
    kernel.dims.extend(sizes)
    kernel.raw_data = raw
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, 4])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [None, 2])
    graph = helper.make_graph([helper.make_node("MatMul", ["x", "kernel"], ["y"]), *nodes], "g", [x], [y], [kernel])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)


def _onnx_beside(location: str, offset: int | str, length: int | str, content: bytes = bytes(32)) -> bytes:
    model = _onnx()
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = 1
    for key, value in {"location": location, "offset": offset, "length": length}.items():
        entry = tensor.external_data.add()
        entry.key, entry.value = key, str(value)
    return zipped({"model.onnx": model.SerializeToString(), "model.data": content})


def _onnx_zip(model: Any) -> bytes:
    return zipped({"model.onnx": model.SerializeToString(), "notes.txt": b"x"})


def _recursive() -> bytes:
    """A function that calls itself."""
    from onnx import helper

    model = _onnx(helper.make_node("Twice", ["x"], ["z"], domain="own"))
    call = helper.make_node("Twice", ["a"], ["b"], domain="own")
    sets = [helper.make_opsetid("", 18), helper.make_opsetid("own", 1)]
    model.functions.append(helper.make_function("own", "Twice", ["a"], ["b"], [call], sets))
    model.opset_import.append(helper.make_opsetid("own", 1))
    return _onnx_zip(model)


def _sparse() -> bytes:
    from onnx import TensorProto, helper

    model = _onnx()
    values = helper.make_tensor("wide", TensorProto.FLOAT, [1], [1.0])
    indices = helper.make_tensor("i", TensorProto.INT64, [1], [0])
    model.graph.sparse_initializer.append(helper.make_sparse_tensor(values, indices, [10**9, 10**6]))
    return _onnx_zip(model)


ONNX: dict[str, Callable[[], bytes]] = {
    "climbs": lambda: _onnx_beside("../model.data", 0, 32),
    "absolute": lambda: _onnx_beside("/etc/passwd", 0, 32),
    "remote": lambda: _onnx_beside("http://127.0.0.1:9/x", 0, 32),
    "offset": lambda: _onnx_beside("model.data", 2**40, 32),
    "length": lambda: _onnx_beside("model.data", 0, 2**40),
    "negative": lambda: _onnx_beside("model.data", -16, 32),
    "no-number": lambda: _onnx_beside("model.data", "a lot", 32),
    "short": lambda: _onnx_beside("model.data", 0, 8),
    "dimensions": lambda: _onnx_zip(_onnx(sizes=(10**6, 10**6))),
    "negative-dimensions": lambda: _onnx_zip(_onnx(sizes=(-4, -2))),
    "recursive": _recursive,
    "sparse": _sparse,
}

# OpenVINO -------------------------------------------------------------------------------------------------------

XML = """<?xml version="1.0"?>{dtd}
<net name="m" version="11"><layers>
<layer id="0" name="x" type="Parameter" version="opset1"><data shape="?,4" element_type="f32"/>
<output><port id="0" precision="FP32" names="x"><dim>-1</dim><dim>4</dim></port></output></layer>
<layer id="1" name="k" type="Const" version="opset1">
<data element_type="f32" shape="{shape}" offset="{offset}" size="{size}"/>
<output><port id="0" precision="FP32"><dim>4</dim><dim>2</dim></port></output></layer>
<layer id="2" name="m" type="{kind}" version="{version}"><data transpose_a="false" transpose_b="false"/>
<input><port id="0" precision="FP32"><dim>-1</dim><dim>4</dim></port>
<port id="1" precision="FP32"><dim>4</dim><dim>2</dim></port></input>
<output><port id="2" precision="FP32" names="y"><dim>-1</dim><dim>2</dim></port></output></layer>
<layer id="3" name="y" type="Result" version="opset1">
<input><port id="0" precision="FP32"><dim>-1</dim><dim>2</dim></port></input></layer>
</layers><edges><edge from-layer="0" from-port="0" to-layer="2" to-port="0"/>
<edge from-layer="1" from-port="0" to-layer="2" to-port="1"/>
<edge from-layer="2" from-port="2" to-layer="3" to-port="0"/>
</edges>{more}</net>"""
LAUGHS = "<!DOCTYPE net [<!ENTITY a 'ha'>" + "".join(
    f"<!ENTITY {new} '{f'&{before};' * 10}'>" for before, new in zip("abcdefgh", "bcdefghi", strict=True)
)


def _openvino(**changes: Any) -> bytes:
    usual = {"dtd": "", "shape": "4,2", "offset": 0, "size": 32, "kind": "MatMul", "version": "opset1", "more": ""}
    return zipped({"model.xml": XML.format(**{**usual, **changes}), "model.bin": bytes(32)})


OPENVINO: dict[str, Callable[[], bytes]] = {
    "entities": lambda: _openvino(dtd=LAUGHS + "]>", more="<rt_info>&i;</rt_info>"),
    "external-entity": lambda: _openvino(
        dtd="<!DOCTYPE net [<!ENTITY p SYSTEM 'file:///etc/passwd'>]>", more="<rt_info>&p;</rt_info>"
    ),
    "offset": lambda: _openvino(offset=2**40),
    "negative-offset": lambda: _openvino(offset=-8),
    "size": lambda: _openvino(size=2**40),
    "shape": lambda: _openvino(shape="1000000,1000000"),
    "overflow": lambda: _openvino(offset=2**64 - 16),
    "deep": lambda: _openvino(more="<a>" * 5000 + "</a>" * 5000),
}

# TensorFlow Lite --------------------------------------------------------------------------------------------------


@cache
def _tflite() -> bytes:
    import tensorflow as tf

    @tf.function(input_signature=[tf.TensorSpec((1, 4), tf.float32, name="x")])  # type: ignore[untyped-decorator]
    def serve(x: Any) -> Any:
        return {"y": tf.nn.softmax(tf.matmul(x, tf.constant([[0.5, 2.0]] * 4)))}

    converter = tf.lite.TFLiteConverter.from_concrete_functions([serve.get_concrete_function()], tf.Module())
    return bytes(converter.convert())


def _object() -> Any:
    from tensorflow.lite.python import schema_py_generated as schema

    return schema.ModelT.InitFromObj(schema.Model.GetRootAsModel(_tflite(), 0))


def _flat(change: Callable[[Any], None]) -> bytes:
    import flatbuffers  # type: ignore[import-untyped]

    found = _object()
    change(found)
    builder = flatbuffers.Builder(1024)
    builder.Finish(found.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def _set(place: str, value: Any) -> Callable[[], bytes]:
    """The file with one field of its object tree set."""

    def change(found: Any) -> None:
        *way, last = place.split(".")
        for step in way:
            found = found[int(step)] if step.isdigit() else getattr(found, step)
        if last.isdigit():
            found[int(last)] = value
        else:
            setattr(found, last, value)

    return lambda: _flat(change)


def _constant(found: Any) -> Any:
    graph = found.subgraphs[0]
    return next(item for item in graph.tensors if found.buffers[item.buffer].data is not None)


def _long(found: Any) -> None:
    _constant(found).shape = [10**5, 10**5]


def _negative(found: Any) -> None:
    _constant(found).shape = [-1, 8]


def _custom(name: str) -> Callable[[Any], None]:
    def change(found: Any) -> None:
        found.operatorCodes[0].customCode = name.encode()
        found.operatorCodes[0].builtinCode = 32

    return change


def _vector_length() -> bytes:
    """The number of subgraphs is more than there are bytes."""
    data = bytearray(_tflite())
    from tensorflow.lite.python import schema_py_generated as schema

    model = schema.Model.GetRootAsModel(bytes(data), 0)
    at = model._tab.Vector(model._tab.Offset(8)) - 4
    data[at : at + 4] = struct.pack("<L", 2**31)
    return bytes(data)


def _itself(found: Any) -> None:
    """A WHILE whose body is the graph that it stands in."""
    from tensorflow.lite.python import schema_py_generated as schema

    found.operatorCodes[0].builtinCode, found.operatorCodes[0].deprecatedBuiltinCode = 119, 119
    operator = found.subgraphs[0].operators[0]
    operator.builtinOptionsType = schema.BuiltinOptions.WhileOptions
    operator.builtinOptions = schema.WhileOptionsT()
    operator.builtinOptions.condSubgraphIndex = operator.builtinOptions.bodySubgraphIndex = 0


TFLITE: dict[str, Callable[[], bytes]] = {
    "vector-length": _vector_length,
    "tensor-of-operation": _set("subgraphs.0.operators.0.inputs", [99, 1]),
    "operation-code": _set("subgraphs.0.operators.0.opcodeIndex", 77),
    "input-outside": _set("subgraphs.0.inputs", [5000]),
    "output-outside": _set("subgraphs.0.outputs", [-7]),
    "buffer-outside": _set("subgraphs.0.tensors.0.buffer", 4242),
    "signature-outside": _set("signatureDefs.0.subgraphIndex", 9),
    "signature-tensor": _set("signatureDefs.0.inputs.0.tensorIndex", 999),
    "unknown-type": _set("subgraphs.0.tensors.0.type", 120),
    "unknown-code": _set("operatorCodes.0.builtinCode", 100_000),
    "shape": lambda: _flat(_long),
    "negative-shape": lambda: _flat(_negative),
    "buffer-beyond": _set("buffers.1.offset", 2**40),
    "file-operation": lambda: _flat(_custom("FlexReadFile")),
    "python-operation": lambda: _flat(_custom("FlexPyFunc")),
    "body-is-itself": lambda: _flat(_itself),
    "version": _set("version", 77),
    "no-graphs": _set("subgraphs", []),
}
