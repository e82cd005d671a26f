"""Operations of a TensorFlow graph that reach beyond it: files, programs, the network. No model computes with them.

A graph is refused where one of them would run: where an output needs it, or what is run when it is opened. Those that
only belong to saving, or to a pipeline that fed the training, stay where they are and are never run.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from functools import cache
from typing import Any

from worker.errors import UnsafeContent
from worker.formats import _graph_walk


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


READS = _names("""
ReadFile MatchingFiles WholeFileReader WholeFileReaderV2 TextLineReader TextLineReaderV2 TFRecordReader TFRecordReaderV2
FixedLengthRecordReader FixedLengthRecordReaderV2 LMDBReader TextLineDataset TFRecordDataset TFRecordDatasetV2
FixedLengthRecordDataset FixedLengthRecordDatasetV2 LMDBDataset SqlDataset CSVDataset CSVDatasetV2 LoadDataset
MatchingFilesDataset ExperimentalMatchingFilesDataset ExperimentalCSVDataset ExperimentalLMDBDataset
ExperimentalSqlDataset ImmutableConst Restore RestoreSlice RestoreV2 LoadAndRemapMatrix RecordInput
SnapshotDatasetReader SnapshotNestedDatasetReader SnapshotChunkDataset ListSnapshotChunksDataset DTensorRestoreV2
""")
WRITES = _names("""
WriteFile Save SaveSlices SaveV2 MergeV2Checkpoints SaveDataset SaveDatasetV2 SnapshotDataset SnapshotDatasetV2
CacheDataset CacheDatasetV2 CreateSummaryFileWriter CreateSummaryDbWriter SummaryWriter DebugIdentity DebugIdentityV2
DebugIdentityV3 DebugNanCount DebugNumericSummary DebugNumericSummaryV2 DatasetToTFRecord ExperimentalDatasetToTFRecord
DumpTensor DistributedSave CalibrationStatisticsSaver ImportEvent WriteSummary WriteScalarSummary WriteHistogramSummary
WriteImageSummary WriteAudioSummary WriteGraphSummary WriteRawProtoSummary FlushSummaryWriter CloseSummaryWriter
StatsAggregatorSetSummaryWriter
""")
RUNS = _names("""
PyFunc PyFuncStateless EagerPyFunc LoadLibrary Abort FileSystemSetConfiguration XlaCustomCall XlaCustomCallV2
MlirPassthroughOp DatasetFromGraph DeserializeIterator
GetSessionHandle GetSessionHandleV2 GetSessionTensor DeleteSessionTensor StubResourceHandleOp
""")
CALLS = _names("""
DataServiceDataset DataServiceDatasetV2 DataServiceDatasetV3 DataServiceDatasetV4 RegisterDataset RegisterDatasetV2
RpcServerStart RpcServer RpcClient RpcCall Rpc TryRpc BigQueryReader GcsConfigureCredentials GcsConfigureBlockCache
_Send _Recv _HostSend _HostRecv Send Recv CollectiveInitializeCommunicator RpcServerRegister RpcGetValue
RpcCheckStatus RemoteCall XlaHostCompute WorkerHeartbeat
""")
# Of operations that keep something from one run to the next, or have effects: those that models compute with
EFFECTS = re.compile(
    r"^(_?(While|If)|Case|StatefulPartitionedCall|Assert|Print(V2)?|CheckNumerics(V2)?|GuaranteeConst|Empty|DeepCopy|_Arg|_Retval"
    r"|VariableShape|TemporaryVariable|DestroyTemporaryVariable|(_ReadVariables|_VarHandles|Var|ReadVariable).*|Variable(V2)?"
    r"|(Ref)?Assign.*|Resource.*|StoreMinibatch.*|DisableCopyOnRead|IsResourceHandleRefCounting|DestroyResourceOp"
    r"|.*(HashTable|LookupTable|InitializeTable).*|TensorArray.*|(Stack|Queue|Barrier|Stage|Unstage|Map|OrderedMap).*"
    r"|.*(Queue|Accumulator|MemoryCache)(V2)?|Mutex.*|ConsumeMutexLock|(Deterministic)?.*(Iterator|Dataset).*|Rng.*"
    r"|(Stateful|Parameterized|NonDeterministic|Stateless)?(Random|Truncated|Uniform|Standard|Ints).*|Stateful.*|Multinomial"
    r"|.*CandidateSampler|.*SeedGenerator.*|ParameterizedTruncatedNormal|NonDeterministicInts|SampleDistorted.*|Skipgram"
    r"|NegTrain|CudnnRNN.*|BoostedTrees.*|IsBoosted.*|.*SparseTensorsMap|AddManySparse.*|TakeManySparse.*|Timestamp"
    r"|Xla(CallModule|If|While|Launch|Dequantize)|.*Summary(V2)?|DummyMemoryCache|DummyIterationCounter|IsTensorFloat32Enabled"
    r"|DtypeWithDefaultOp|DevicePlacementOp|DeviceIndex|StatelessRandomGetAlg|Reader(Reset|NumRecords|NumWork).*"
    r"|ReduceDataset|AddSparse.*|(Ordered)?Map(Clear|Peek|Size|IncompleteSize))$"
)
WHAT = (
    (READS, "reads files of the machine that it runs on"),
    (WRITES, "writes files on the machine that it runs on"),
    (RUNS, "runs code of its own, or ends the program that opens it"),
    (CALLS, "talks to other machines"),
)
OTHER = "has effects on the program that runs it, which no model needs"
TABLES = _names("InitializeTableFromTextFile InitializeTableFromTextFileV2")
PROTOCOLS = _names("DecodeProtoV2 EncodeProto")
STREAMS = ("stdout", "stderr", "log(info)", "log(warning)", "log(error)")
ELSEWHERE = re.compile(rb"^([\\/~]|[A-Za-z]:|[a-z0-9]+://)|(^|[\\/])\.\.([\\/]|$)")
# What a resource runs when it is restored, and when it goes
STARTERS = ("_initialize", "_create_resource", "_destroy_resource")
RESTORES = _names("Restore RestoreSlice RestoreV2")  # how weights get into variables
OLD_ASSETS = "saved_model_assets"
INITIALISERS = ("saved_model_main_op", "legacy_init_op", "saved_model_legacy_init_op")


def refuse(
    graph: Any,
    roots: Iterable[str] | None = None,
    functions: Iterable[str] = (),
    assets: Collection[str] = (),
    meant: Collection[str] = (),
) -> None:
    """UnsafeContent where what these nodes need, or one of these functions runs, reaches beyond the graph. Without
    ``roots`` all nodes count. ``assets``: the constants that stand for files of the model's own. ``meant``: kinds of
    operations that belong there all the same."""
    paths = {node.name: node.attr["value"].tensor for node in graph.node if node.op == "Const"}
    paths = {name: tensor.string_val for name, tensor in paths.items() if tensor.string_val and name not in assets}
    for node in _needed(graph, roots, functions):
        if node.op not in meant and (what := _reaches_out(node, paths)):
            raise UnsafeContent(name="The graph", reason=f"its operation {node.name[:80]!r} ({node.op[:40]}) {what}")


def refuse_saved_model(proto: Any) -> None:
    """The same for everything that opening a SavedModel, or calling one of its signatures, would run."""
    for meta in proto.meta_graphs:
        tensors = [info.name for item in meta.signature_def.values() for info in item.outputs.values()]
        roots = {tensor.partition(":")[0] for tensor in tensors} | set(_initialisers(meta))
        assets = {_graph_walk.producer(asset.tensor_info.name) for asset in _assets(meta)}
        refuse(meta.graph_def, roots, _restorers(meta.object_graph_def), assets)
        if meta.saver_def.restore_op_name:  # which opening runs, too, to fill the variables
            restore = _graph_walk.producer(meta.saver_def.restore_op_name)
            refuse(meta.graph_def, [restore], assets=assets, meant=RESTORES)


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
    """The functions that make, fill and end the tables and other resources of a TensorFlow 2 SavedModel, and those with
    which objects are saved and restored."""
    for node in objects.nodes:
        started = [child.node_id for child in node.children if child.local_name in STARTERS]
        for item in node.saveable_objects.values():
            started += [item.save_function, item.restore_function]
        for number in started:
            if number < len(objects.nodes):
                yield from _of_function(objects.nodes[number])


def _of_function(node: Any) -> Iterator[str]:
    yield from (*node.function.concrete_functions, *filter(None, [node.bare_concrete_function.concrete_function_name]))


def _needed(graph: Any, roots: Iterable[str] | None, functions: Iterable[str]) -> Iterator[Any]:
    library = _graph_walk.functions_of(graph.library)
    run = None if roots is None else _graph_walk.upstream(graph, roots)
    outer = [node for node in graph.node if run is None or node.name in run]
    yield from outer
    for name in _graph_walk.called(outer, library, functions):
        yield from library[name].node_def


def what(kind: str) -> str:
    """What an operation of this kind does beyond a graph; empty where it only computes, or is none of TensorFlow's."""
    kind = kind.removeprefix("Flex")  # as TensorFlow Lite calls them
    return next((what for names, what in WHAT if kind in names), "") or ("" if _computes(kind) else OTHER)


@cache
def _computes(kind: str) -> bool:
    from tensorflow.python.framework import op_def_registry

    known = op_def_registry.get(kind)
    return known is None or not known.is_stateful or EFFECTS.match(kind) is not None


def _reaches_out(node: Any, paths: Mapping[str, Iterable[bytes]]) -> str:
    """What the operation does beyond the graph; empty where it does nothing of the kind."""
    if node.op == "PrintV2" and _text(node, "output_stream") not in ("", *STREAMS):
        return WHAT[1][1]
    if node.op in PROTOCOLS and _text(node, "descriptor_source").partition("://")[0] not in ("", "local", "bytes"):
        return WHAT[0][1]
    if node.op in TABLES and _is_elsewhere(node, paths):
        return WHAT[0][1]
    return what(node.op)


def _text(node: Any, name: str) -> str:
    return str(node.attr[name].s.decode("utf-8", "replace")) if name in node.attr else ""


def _is_elsewhere(node: Any, paths: Mapping[str, Iterable[bytes]]) -> bool:
    """Does a table take its words from a file that is not part of the model?"""
    wanted = _graph_walk.producer(node.input[1]) if len(node.input) > 1 else ""
    return any(ELSEWHERE.search(value) for value in paths.get(wanted, ()))
