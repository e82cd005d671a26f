"""Operations that reach beyond a graph are refused where they would run, and nowhere else."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import pytest

from worker import formats
from worker.errors import LarderError, UnsafeContent
from worker.formats import _graph_dangers, _saved_model


def node(graph: Any, name: str, op: str, inputs: list[str] | None = None, **texts: str) -> Any:
    made = graph.add(name=name, op=op, input=inputs or [])
    for key, text in texts.items():
        made.attr[key].s = text.encode()
    return made


def constant(graph: Any, name: str, text: str) -> None:
    tensor = node(graph, name, "Const").attr["value"].tensor
    tensor.dtype = 7
    tensor.string_val.append(text.encode())


def saved_model(output: str = "y") -> Any:
    """A SavedModel whose one signature gives the node ``output``; a path, ``name``, is there too."""
    from tensorflow.core.protobuf import saved_model_pb2

    proto = saved_model_pb2.SavedModel()
    meta = proto.meta_graphs.add()
    meta.meta_info_def.tags.append("serve")
    node(meta.graph_def.node, "x", "Placeholder")
    node(meta.graph_def.node, "y", "Identity", ["x"])
    constant(meta.graph_def.node, "name", "/tmp/larder")
    meta.signature_def["serving_default"].outputs["y"].name = f"{output}:0"
    return proto


def refusal(proto: Any) -> str:
    try:
        _graph_dangers.refuse_saved_model(proto)
    except UnsafeContent as error:
        return str(error.details["reason"])
    return ""


def test_it_works() -> None:
    proto = saved_model("saved")
    node(proto.meta_graphs[0].graph_def.node, "saved", "WriteFile", ["name", "x"])
    assert refusal(proto) == "its operation 'saved' (WriteFile) writes files on the machine that it runs on"


@pytest.mark.parametrize(
    "op",
    [
        *("ReadFile", "PyFunc", "DataServiceDatasetV4", "TFRecordDataset", "RestoreV2", "LoadAndRemapMatrix"),
        *("DumpTensor", "DatasetFromGraph", "XlaCustomCallV2", "NcclAllReduce", "ConfigureDistributedTPU"),
    ],
)
def test_only_what_runs_counts(op: str) -> None:
    """Every SavedModel holds what restores it, and some what fed their training."""
    proto = saved_model()
    node(proto.meta_graphs[0].graph_def.node, "aside", op, ["name"])
    assert refusal(proto) == ""
    proto.meta_graphs[0].graph_def.node[1].input.append("^aside")
    assert f"'aside' ({op})" in refusal(proto)


def test_functions_are_followed() -> None:
    proto = saved_model("call")
    library = proto.meta_graphs[0].graph_def.library
    for name in ("outer", "inner", "unused"):
        library.function.add().signature.name = name
    call = node(proto.meta_graphs[0].graph_def.node, "call", "StatefulPartitionedCall", ["x"])
    call.attr["f"].func.name = "outer"
    library.function[0].node_def.add(name="again", op="inner")
    node(library.function[2].node_def, "hidden", "WriteFile")
    assert refusal(proto) == ""
    node(library.function[1].node_def, "deep", "WriteFile")
    assert "'deep' (WriteFile)" in refusal(proto)


def test_what_runs_when_it_is_opened_counts() -> None:
    """The initialiser of TensorFlow 1, and of TensorFlow 2 what fills a table."""
    older, newer = saved_model(), saved_model()
    node(older.meta_graphs[0].graph_def.node, "begin", "WriteFile", ["name", "x"])
    older.meta_graphs[0].collection_def["saved_model_main_op"].node_list.value.append("begin")
    assert "'begin' (WriteFile)" in refusal(older)
    function = newer.meta_graphs[0].graph_def.library.function.add()
    function.signature.name = "__inference__initializer_7"
    node(function.node_def, "fill", "WriteFile")
    assert refusal(newer) == ""
    objects = newer.meta_graphs[0].object_graph_def.nodes
    objects.add().children.add(node_id=1, local_name="_initialize")
    objects.add().function.concrete_functions.append("__inference__initializer_7")
    assert "'fill' (WriteFile)" in refusal(newer)


@pytest.mark.parametrize(("stream", "refused"), [("stdout", False), ("", False), ("file:///tmp/larder", True)])
def test_printing_into_a_file_is_writing(stream: str, refused: bool) -> None:
    proto = saved_model("told")
    node(proto.meta_graphs[0].graph_def.node, "told", "PrintV2", ["x"], output_stream=stream)
    assert bool(refusal(proto)) == refused


@pytest.mark.parametrize(
    ("path", "refused"),
    [("assets/words.txt", False), ("/etc/passwd", True), ("../words.txt", True), ("gs://bucket/words", True)],
)
def test_words_come_from_the_model_itself(path: str, refused: bool) -> None:
    """TensorFlow 1 writes where the words lay in training, and says that they are the model's own now."""
    proto = saved_model("table")
    graph = proto.meta_graphs[0].graph_def.node
    constant(graph, "words", path)
    node(graph, "table", "InitializeTableFromTextFileV2", ["x", "words"])
    assert bool(refusal(proto)) == refused
    proto.meta_graphs[0].asset_file_def.add(filename="words.txt").tensor_info.name = "words:0"
    assert refusal(proto) == ""
    proto.meta_graphs[0].asset_file_def[0].filename = path
    assert bool(refusal(proto)) == refused


def test_nothing_of_it_is_opened(tmp_path: Path) -> None:
    """Neither to inspect it nor to load it, as a folder or as a frozen graph."""
    proto = saved_model("saved")
    node(proto.meta_graphs[0].graph_def.node, "saved", "WriteFile", ["name", "x"])
    path = tmp_path / "model.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("saved_model.pb", proto.SerializeToString())
    frozen = tmp_path / "model.pb"
    frozen.write_bytes(proto.meta_graphs[0].graph_def.SerializeToString())
    for slug, file in (("saved_model", path), ("frozen_graph", frozen)):
        item = formats.get(slug)
        assert item.inspect is not None
        assert item.load is not None
        for act in (item.inspect, item.load):
            folder = tmp_path / f"{slug}-{act.__name__}"
            folder.mkdir()
            with pytest.raises(LarderError):
                act(file, folder)
    with pytest.raises(UnsafeContent, match="writes files"):
        _saved_model.read_proto(_saved_model.folder_in(path, tmp_path / "again"))


@pytest.mark.parametrize(
    "op", ["VarHandleOp", "RandomUniform", "TensorListReserve", "LookupTableFindV2", "QueueDequeueV2"]
)
def test_what_models_keep_between_runs_passes(op: str) -> None:
    """Variables, tables, random numbers and queues have effects, too; an operation nobody knows is for the loader."""
    assert (_graph_dangers.what(op), _graph_dangers.what("LarderUnknown")) == ("", "")
