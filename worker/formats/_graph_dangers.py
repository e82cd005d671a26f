"""Operations of a TensorFlow graph that reach beyond it: files, programs, the network. No model computes with them.

A graph is refused where one of them would run: where an output needs it, or what is run when it is opened. Those that
only belong to saving, or to a pipeline that fed the training, stay where they are and are never run.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any

from worker.errors import UnsafeContent
from worker.formats._reach import reached


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


READS = _names("""
ReadFile MatchingFiles WholeFileReader WholeFileReaderV2 TextLineReader TextLineReaderV2 TFRecordReader TFRecordReaderV2
FixedLengthRecordReader FixedLengthRecordReaderV2 LMDBReader TextLineDataset TFRecordDataset TFRecordDatasetV2
FixedLengthRecordDataset FixedLengthRecordDatasetV2 LMDBDataset SqlDataset CSVDataset CSVDatasetV2 LoadDataset
MatchingFilesDataset ExperimentalMatchingFilesDataset ExperimentalCSVDataset ExperimentalLMDBDataset
ExperimentalSqlDataset ImmutableConst Restore RestoreSlice RestoreV2
""")
WRITES = _names("""
WriteFile Save SaveSlices SaveV2 MergeV2Checkpoints SaveDataset SaveDatasetV2 SnapshotDataset SnapshotDatasetV2
CacheDataset CacheDatasetV2 CreateSummaryFileWriter CreateSummaryDbWriter SummaryWriter DebugIdentity DebugIdentityV2
DebugIdentityV3 DebugNanCount DebugNumericSummary DebugNumericSummaryV2 DatasetToTFRecord ExperimentalDatasetToTFRecord
""")
RUNS = _names("PyFunc PyFuncStateless EagerPyFunc LoadLibrary Abort FileSystemSetConfiguration")
CALLS = _names("""
DataServiceDataset DataServiceDatasetV2 DataServiceDatasetV3 DataServiceDatasetV4 RegisterDataset RegisterDatasetV2
RpcServerStart RpcServer RpcClient RpcCall Rpc TryRpc BigQueryReader GcsConfigureCredentials GcsConfigureBlockCache
_Send _Recv _HostSend _HostRecv Send Recv CollectiveInitializeCommunicator
""")
WHAT = (
    (READS, "reads files of the machine that it runs on"),
    (WRITES, "writes files on the machine that it runs on"),
    (RUNS, "runs code of its own, or ends the program that opens it"),
    (CALLS, "talks to other machines"),
)
TABLES = _names("InitializeTableFromTextFile InitializeTableFromTextFileV2")
PROTOCOLS = _names("DecodeProtoV2 EncodeProto")
STREAMS = ("stdout", "stderr", "log(info)", "log(warning)", "log(error)")
ELSEWHERE = re.compile(rb"^([\\/~]|[A-Za-z]:|[a-z0-9]+://)|(^|[\\/])\.\.([\\/]|$)")
STARTERS = ("_initialize", "_create_resource")  # what a resource runs when it is restored
OLD_ASSETS = "saved_model_assets"
INITIALISERS = ("saved_model_main_op", "legacy_init_op", "saved_model_legacy_init_op")


def refuse(
    graph: Any, roots: Iterable[str] | None = None, functions: Iterable[str] = (), assets: Collection[str] = ()
) -> None:
    """UnsafeContent where what these nodes need, or one of these functions runs, reaches beyond the graph. Without
    ``roots`` all nodes count. ``assets``: the constants that stand for files of the model's own."""
    paths = {node.name: node.attr["value"].tensor for node in graph.node if node.op == "Const"}
    paths = {name: tensor.string_val for name, tensor in paths.items() if tensor.string_val and name not in assets}
    for node in _needed(graph, roots, functions):
        if what := _reaches_out(node, paths):
            raise UnsafeContent(name="The graph", reason=f"its operation {node.name[:80]!r} ({node.op[:40]}) {what}")


def refuse_saved_model(proto: Any) -> None:
    """The same for everything that opening a SavedModel, or calling one of its signatures, would run."""
    for meta in proto.meta_graphs:
        tensors = [info.name for item in meta.signature_def.values() for info in item.outputs.values()]
        roots = {tensor.partition(":")[0] for tensor in tensors} | set(_initialisers(meta))
        assets = {_producer(asset.tensor_info.name) for asset in _assets(meta)}
        refuse(meta.graph_def, roots, _restorers(meta.object_graph_def), assets)


def _assets(meta: Any) -> Iterator[Any]:
    """The files that belong to the model, as TensorFlow 2 and TensorFlow 1 write them down."""
    older = meta.collection_def[OLD_ASSETS].any_list.value if OLD_ASSETS in meta.collection_def else ()
    for found in (*meta.asset_file_def, *map(_unpacked, older)):
        if ELSEWHERE.search(found.filename.encode()):
            raise UnsafeContent(name="The graph", reason=f"its asset {found.filename[:80]!r} lies outside of the model")
        yield found


def _unpacked(packed: Any) -> Any:
    from tensorflow.core.protobuf import meta_graph_pb2

    found = meta_graph_pb2.AssetFileDef()
    packed.Unpack(found)
    return found


def _initialisers(meta: Any) -> Iterator[str]:
    for name in INITIALISERS:
        if name in meta.collection_def:
            yield from meta.collection_def[name].node_list.value


def _restorers(objects: Any) -> Iterator[str]:
    """The functions that make and fill the tables and other resources of a TensorFlow 2 SavedModel."""
    for node in objects.nodes:
        for child in node.children:
            if child.local_name in STARTERS and child.node_id < len(objects.nodes):
                yield from objects.nodes[child.node_id].function.concrete_functions


def _needed(graph: Any, roots: Iterable[str] | None, functions: Iterable[str]) -> Iterator[Any]:
    library = {item.signature.name: item for item in graph.library.function}
    nodes = {node.name: node for node in graph.node}
    operands = {name: [_producer(operand) for operand in node.input] for name, node in nodes.items()}
    run = nodes.keys() if roots is None else reached(roots, lambda name: operands.get(name, ()))
    outer = [nodes[name] for name in run if name in nodes]
    called = {name for node in outer for name in _called(node, library)} | {
        name for name in functions if name in library
    }
    inner = reached(called, lambda name: {each for node in library[name].node_def for each in _called(node, library)})
    yield from outer
    for name in inner:
        yield from library[name].node_def


def _producer(operand: str) -> str:
    return operand.removeprefix("^").partition(":")[0]


def _called(node: Any, library: dict[str, Any]) -> Iterator[str]:
    """The functions that a node names: in its kind, or in its attributes."""
    if node.op in library:
        yield node.op
    for value in node.attr.values():
        for function in (value.func, *value.list.func):
            if function.name in library:
                yield function.name


def _reaches_out(node: Any, paths: Mapping[str, Iterable[bytes]]) -> str:
    """What the operation does beyond the graph; empty where it does nothing of the kind."""
    if node.op == "PrintV2" and _text(node, "output_stream") not in ("", *STREAMS):
        return WHAT[1][1]
    if node.op in PROTOCOLS and _text(node, "descriptor_source").partition("://")[0] not in ("", "local", "bytes"):
        return WHAT[0][1]
    if node.op in TABLES and _is_elsewhere(node, paths):
        return WHAT[0][1]
    return next((what for names, what in WHAT if node.op in names), "")


def _text(node: Any, name: str) -> str:
    return str(node.attr[name].s.decode("utf-8", "replace")) if name in node.attr else ""


def _is_elsewhere(node: Any, paths: Mapping[str, Iterable[bytes]]) -> bool:
    """Does a table take its words from a file that is not part of the model?"""
    wanted = _producer(node.input[1]) if len(node.input) > 1 else ""
    return any(ELSEWHERE.search(value) for value in paths.get(wanted, ()))
