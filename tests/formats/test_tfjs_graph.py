"""TensorFlow.js graph models: what Larder writes runs in TensorFlow.js itself, and what converters write is read."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.formats import models
from tests.tfjs import node
from worker import archive, intake, routes
from worker.errors import CorruptFile, IncompleteModel, ModelError, NoRoute, UnsupportedOperation
from worker.formats import _tfjs, _tfjs_graph, get, tfjs_graph
from worker.formats._format import Hop, Loaded, Summary
from worker.formats._graphs import constant_node

MadeFile = Callable[[str, str], Path]
GRAPH = get("tfjs_graph")


def convert(source: Path, folder: Path) -> Path:
    return models.convert("saved_model", "tfjs_graph", source, folder)[0]


def unpacked(path: Path, folder: Path) -> tuple[Path, dict[str, Any]]:
    """The folder of a packed model, and its model.json."""
    target = folder / "unpacked"
    target.mkdir()
    archive.unpack(path, target)
    return target, json.loads((target / "model.json").read_text(encoding="utf-8"))


def export(function: Any, folder: Path, *specs: Any) -> Path:
    """A function as a packed SavedModel."""
    import tensorflow as tf

    module = tf.Module()
    module.serve = tf.function(function, input_signature=specs, autograph=False)
    tf.saved_model.save(module, str(folder / "exported"), signatures={"serving_default": module.serve})
    archive.pack(folder / "exported", folder / "exported.zip")
    return folder / "exported.zip"


def pack(root: dict[str, Any], target: Path, **shards: bytes) -> Path:
    return models.pack(target, model__json=json.dumps(root).encode(), **shards)


def test_it_works(made_file: MadeFile, tmp_path: Path) -> None:
    """TensorFlow.js and our own reader answer as the source does, with the same names for inputs and outputs."""
    jobs, wanted = [], []
    for kind in models.MODELS:
        source = made_file(kind, "saved_model")
        result = convert(source, tmp_path / kind)
        before = models.load("saved_model", source, tmp_path / kind / "before")
        after = models.load("tfjs_graph", result, tmp_path / kind / "after")
        assert_same_names(before, after)
        inputs = models.inputs_of(before)
        values = before.run(inputs)
        assert_close(after.run(inputs), values)
        jobs.append(node.job(unpacked(result, tmp_path / kind)[0], inputs, list(values)))
        wanted.append(values)
    for answer, values in zip(node.answers(jobs), wanted, strict=True):
        assert_close(node.arrays(answer, list(values)), values)


def assert_same_names(first: Loaded, second: Loaded) -> None:
    assert sorted(spec.name for spec in first.inputs) == sorted(spec.name for spec in second.inputs)
    assert sorted(spec.name for spec in first.outputs) == sorted(spec.name for spec in second.outputs)


def assert_close(found: dict[str, np.ndarray], wanted: dict[str, np.ndarray]) -> None:
    assert set(found) == set(wanted)
    for name, value in wanted.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-5, atol=3e-6)


def test_it_is_recognised_and_inspected_without_its_shards(made_file: MadeFile, tmp_path: Path) -> None:
    path = convert(made_file("several", "saved_model"), tmp_path)
    sample = intake.take_sample(path, "model.zip")
    assert GRAPH.sniff(sample)
    assert not get("tfjs_layers").sniff(sample)
    summary = GRAPH.inspect(path, tmp_path)
    assert {spec.name: (spec.shape, spec.dtype) for spec in summary.inputs} == {
        "left": ((None, 4), "float32"),
        "right": ((None, 4), "float32"),
        "kind": ((None, 2), "int64"),
    }
    assert sorted(spec.name for spec in summary.outputs) == ["label", "score"]
    assert summary.parameters


def test_what_its_kernels_do_not_fuse_is_taken_apart(made_file: MadeFile, tmp_path: Path) -> None:
    """TensorFlow fuses tanh into a multiplication of matrices, and the kernels of TensorFlow.js do not know that."""
    _, root = unpacked(convert(made_file("several", "saved_model"), tmp_path), tmp_path)
    nodes = root["modelTopology"]["node"]
    assert [item["op"] for item in nodes if item["op"] == "Tanh"]
    graph = _tfjs_graph.parsed(root["modelTopology"])
    fused = {step for item in graph.node for step in item.attr["fused_ops"].list.s}
    assert fused <= _tfjs_graph.FUSES


def test_64_bit_numbers_are_said_to_be_32(made_file: MadeFile, tmp_path: Path) -> None:
    _, codes = models.convert("saved_model", "tfjs_graph", made_file("several", "saved_model"), tmp_path)
    assert codes == ["tfjs-int32"]


def test_large_weights_are_cut_into_shards(tmp_path: Path) -> None:
    import tensorflow as tf

    values = np.arange(1200 * 1000, dtype="float32").reshape(1200, 1000) / 1e6
    source = export(lambda x: {"y": tf.matmul(x, values)}, tmp_path, tf.TensorSpec([None, 1200], name="x"))
    folder, root = unpacked(convert(source, tmp_path), tmp_path)
    (group,) = root["weightsManifest"]
    assert group["paths"] == ["group1-shard1of2.bin", "group1-shard2of2.bin"]
    assert (folder / group["paths"][0]).stat().st_size == 4 * 1024 * 1024
    loaded = models.load("tfjs_graph", tmp_path / "result.zip", tmp_path)
    assert any(array.tobytes() == values.tobytes() for _, array in loaded.weights())


def test_an_operation_that_it_does_not_have_is_named(tmp_path: Path) -> None:
    import tensorflow as tf

    source = export(lambda x: {"y": tf.linalg.cholesky(x)}, tmp_path, tf.TensorSpec([None, 3, 3], name="x"))
    with pytest.raises(UnsupportedOperation, match="Cholesky"):
        convert(source, tmp_path)


def test_a_whole_number_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    import tensorflow as tf

    spec = tf.TensorSpec([None], tf.int64, name="x")
    source = export(lambda x: {"y": x + tf.constant([2**40], tf.int64)}, tmp_path, spec)
    with pytest.raises(UnsupportedOperation, match="32 bits"):
        convert(source, tmp_path)


def test_loops_hand_on_what_they_collect(made_file: MadeFile, tmp_path: Path) -> None:
    """TensorFlow.js throws a collected tensor away unless the very same one, no copy of it, is an output as well."""
    path = convert(made_file("recurrent", "saved_model"), tmp_path)
    assert GRAPH.inspect(path, tmp_path / "inspect").traits == {"weights", "recurrent"}
    _, root = unpacked(path, tmp_path)
    graph = _tfjs_graph.parsed(root["modelTopology"])
    bodies = [item for item in graph.library.function if any(n.op == "TensorListSetItem" for n in item.node_def)]
    assert len(bodies) == 3
    for body in bodies:
        collected = {item.input[2] for item in body.node_def if item.op == "TensorListSetItem"}
        assert collected <= set(body.ret.values())
    loops = [item for item in graph.node if item.op in _tfjs_graph.CALLING]
    assert all(not name.startswith("^") for item in loops for name in item.input)


def test_a_loop_that_would_lose_what_it_collects_is_refused(tmp_path: Path) -> None:
    import tensorflow as tf

    def each(x: Any) -> dict[str, Any]:
        return {"y": tf.map_fn(lambda row: row * 2.0, x)}

    with pytest.raises(UnsupportedOperation, match="a round of the loop"):
        convert(export(each, tmp_path, tf.TensorSpec([None, 3], name="x")), tmp_path)


@pytest.mark.parametrize("fact", ["strings", "tables"])
def test_text_and_tables_are_refused_before(fact: str) -> None:
    with pytest.raises(NoRoute):
        routes.find_route("saved_model", "tfjs_graph", Summary(traits=frozenset({"weights", fact})))


# Files of the official converter ----------------------------------------------------------------------------------


def quantised(kind: str, values: np.ndarray, tmp_path: Path) -> Any:
    """A manifest of two groups, the second with one quantised weight between two plain ones."""
    rows: list[dict[str, Any]] = [{"name": "first", "shape": [2], "dtype": "int32"}]
    stored = values.astype(kind)
    info: dict[str, Any] = {"dtype": kind, "original_dtype": "float32"} | (
        {} if kind == "float16" else {"min": -1.0, "scale": 0.5}
    )
    second: list[dict[str, Any]] = [{"name": "flag", "shape": [], "dtype": "bool"}]
    second += [{"name": "weight", "shape": [2, 2], "dtype": "float32", "quantization": info}]
    second += [{"name": "words", "shape": [2], "dtype": "string"}]
    words = b"".join(len(word).to_bytes(4, "little") + word for word in (b"ab", b""))
    groups = [{"paths": ["a.bin"], "weights": rows}, {"paths": ["b.bin", "c.bin"], "weights": second}]
    root = {"modelTopology": {"node": []}, "weightsManifest": groups}
    data = b"\x01" + stored.tobytes() + words
    first = np.array([7, -7], "int32").tobytes()
    return _tfjs.read(pack(root, tmp_path / "m.zip", a__bin=first, b__bin=data[:2], c__bin=data[2:]), tmp_path)


@pytest.mark.parametrize(("kind", "meaning"), [("uint8", [-1, -0.5, 0, 126.5]), ("uint16", [-1, -0.5, 0, 126.5])])
def test_quantised_weights_are_the_numbers_they_stand_for(kind: str, meaning: list[float], tmp_path: Path) -> None:
    package = quantised(kind, np.array([[0, 1], [2, 255]]), tmp_path)
    found = {entry.name: array for entry, array in package.arrays()}
    assert found["weight"].reshape(-1).tolist() == meaning
    assert found["weight"].dtype == np.float32
    assert found["first"].tolist() == [7, -7]
    assert found["flag"].tolist() is True
    assert found["words"].tolist() == [b"ab", b""]


def test_half_weights_are_only_shorter(tmp_path: Path) -> None:
    package = quantised("float16", np.array([[0.5, 1], [2, 1024]]), tmp_path)
    assert {entry.name: array for entry, array in package.arrays()}["weight"].tolist() == [[0.5, 1], [2, 1024]]


def test_operations_that_only_tensorflowjs_has_are_spelled_out(tmp_path: Path) -> None:
    """As the official converter writes a depthwise convolution with bias and activation, and PReLU."""
    import tensorflow as tf

    kernel, bias, alpha = (
        np.full((2, 2, 1, 1), -0.5, "float32"),
        np.array([0.25], "float32"),
        np.array([0.1], "float32"),
    )
    root = json.loads((node.HERE / "fused.json").read_text(encoding="utf-8"))
    data = b"".join(item.tobytes() for item in (kernel, bias, np.array(0.5, "float32"), alpha))
    path = pack(root, tmp_path / "fused.zip", weights__bin=data)
    loaded = models.load("tfjs_graph", path, tmp_path)
    image = np.linspace(-1, 2, 18, dtype="float32").reshape(2, 3, 3, 1)
    plain = tf.nn.relu(tf.nn.bias_add(tf.nn.depthwise_conv2d(image, kernel, [1, 1, 1, 1], "VALID"), bias)) - 0.5
    (found,) = loaded.run({"image": image}).values()
    np.testing.assert_allclose(found, np.where(plain > 0, plain, 0.1 * plain), rtol=1e-6)
    (tmp_path / "unpacked").mkdir()
    archive.unpack(path, tmp_path / "unpacked")
    answer = node.answers([node.job(tmp_path / "unpacked", {"image": image}, ["result"])])[0]
    np.testing.assert_allclose(node.arrays(answer, ["result"])["result"], found, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", ["several", "recurrent"])
def test_it_becomes_a_saved_model(kind: str, made_file: MadeFile, tmp_path: Path) -> None:
    source = made_file(kind, "saved_model")
    path = convert(source, tmp_path)
    result = tmp_path / "back.zip"
    GRAPH.converts_to["saved_model"].run(path, result, Hop(tmp_path / "back"))
    before = models.load("saved_model", source, tmp_path / "one")
    after = models.load("saved_model", result, tmp_path / "two")
    assert_same_names(before, after)
    inputs = models.inputs_of(before)
    assert_close(after.run(inputs), before.run(inputs))


def test_what_was_fused_is_taken_apart_for_other_formats(made_file: MadeFile, tmp_path: Path) -> None:
    """TensorFlow Lite knows neither ``_FusedMatMul`` nor ``Erf``: it would need the operations of TensorFlow itself."""
    source = made_file("dense", "saved_model")
    path = convert(source, tmp_path)
    _, root = unpacked(path, tmp_path)
    assert {"_FusedMatMul", "Erf"} <= {item["op"] for item in root["modelTopology"]["node"]}
    GRAPH.converts_to["saved_model"].run(path, tmp_path / "back.zip", Hop(tmp_path / "back"))
    result, codes = models.convert("saved_model", "tflite", tmp_path / "back.zip", tmp_path / "lite")
    assert codes == []
    before, after = models.load("saved_model", source, tmp_path / "one"), models.load("tflite", result, tmp_path)
    inputs = models.inputs_of(before)
    assert_close(after.run(inputs), before.run(inputs))


@pytest.mark.parametrize("layout", ["NHWC", "NCHW"])
def test_a_fused_bias_keeps_its_layout(layout: str) -> None:
    from tensorflow.core.framework import graph_pb2

    graph = graph_pb2.GraphDef()
    node = graph.node.add(name="y", op="_FusedConv2D", input=["x", "kernel", "bias"])
    node.attr["fused_ops"].list.s[:] = [b"BiasAdd", b"LeakyRelu"]
    node.attr["leakyrelu_alpha"].f = 0.5
    node.attr["data_format"].s = layout.encode()
    node.attr["filter_format"].s = b"HWIO"  # which a plain convolution does not have
    plain, bias, last = _tfjs_graph.as_tensorflow(graph).node
    assert [item.op for item in (plain, bias, last)] == ["Conv2D", "BiasAdd", "LeakyRelu"]
    assert set(plain.attr) == {"data_format"}
    assert bias.attr["data_format"].s == layout.encode()
    assert (last.name, last.attr["alpha"].f) == ("y", 0.5)


def test_a_fused_normalisation_is_taken_apart() -> None:
    """TensorFlow fuses what Keras 2 writes for a BatchNormalization, and no kernel of TensorFlow.js takes it so."""
    import tensorflow as tf
    from tensorflow.core.framework import graph_pb2

    random = np.random.default_rng(2)
    arrays = [random.uniform(0.5, 2.0, shape).astype("float32") for shape in ((2, 6, 6, 2), (3, 3, 2, 4), *[(4,)] * 4)]
    graph = graph_pb2.GraphDef()
    for number, array in enumerate(arrays):
        graph.node.append(constant_node(f"c{number}", array, tf.float32.as_datatype_enum))
    node = graph.node.add(name="y", op="_FusedConv2D", input=[item.name for item in graph.node])
    node.attr["fused_ops"].list.s[:] = [b"FusedBatchNorm", b"Relu"]
    node.attr["T"].type, node.attr["num_args"].i = tf.float32.as_datatype_enum, 4
    node.attr["epsilon"].f, node.attr["padding"].s = 0.1, b"SAME"
    node.attr["strides"].list.i[:] = [1, 1, 2, 1]
    node.attr["TArgs"].list.type[:] = [tf.float32.as_datatype_enum] * 4
    plain = _tfjs_graph.as_tensorflow(graph)
    assert [item.op for item in plain.node[-3:]] == ["Conv2D", "FusedBatchNormV3", "Relu"]
    fused, apart = ([*_run(definition, ["y:0"])] for definition in (graph, plain))
    np.testing.assert_allclose(apart, fused, rtol=1e-5)


def _run(graph: Any, names: list[str]) -> Any:
    import tensorflow as tf

    return tf.compat.v1.wrap_function(lambda: tf.import_graph_def(graph, {}, names), [])()


def test_a_fused_operation_without_its_bias_is_told() -> None:
    from tensorflow.core.framework import graph_pb2

    graph = graph_pb2.GraphDef()
    graph.node.add(name="y", op="_FusedMatMul", input=["x", "kernel"]).attr["fused_ops"].list.s[:] = [b"BiasAdd"]
    with pytest.raises(ModelError, match="does not load"):
        tfjs_graph._imported(graph, ["x"], ["y"])


def damaged(made_file: MadeFile, folder: Path, change: Callable[[Path, dict[str, Any]], None]) -> Path:
    unpacked_folder, root = unpacked(convert(made_file("dense", "saved_model"), folder), folder)
    change(unpacked_folder, root)
    (unpacked_folder / "model.json").write_text(json.dumps(root), encoding="utf-8")
    archive.pack(unpacked_folder, folder / "damaged.zip")
    return folder / "damaged.zip"


def truncate(folder: Path, root: dict[str, Any]) -> None:
    os.truncate(folder / root["weightsManifest"][0]["paths"][0], 9)


def lose(folder: Path, root: dict[str, Any]) -> None:
    (folder / root["weightsManifest"][0]["paths"][0]).unlink()


def point_outside(folder: Path, root: dict[str, Any]) -> None:
    root["weightsManifest"][0]["paths"] = ["../../../../../../etc/passwd"]


@pytest.mark.parametrize(
    ("change", "error"), [(truncate, CorruptFile), (lose, IncompleteModel), (point_outside, CorruptFile)]
)
def test_damage_is_told(change: Any, error: type[Exception], made_file: MadeFile, tmp_path: Path) -> None:
    path = damaged(made_file, tmp_path, change)
    with pytest.raises(error):
        models.load("tfjs_graph", path, tmp_path / "load")


def test_its_snippet_runs_as_it_is_pasted(made_file: MadeFile, tmp_path: Path) -> None:
    folder = tmp_path / "page"
    folder.mkdir()
    archive.unpack(convert(made_file("dense", "saved_model"), tmp_path), folder / "model")
    said = node.paste(GRAPH.snippet.replace('"{file}"', '"model.zip"'), folder)
    assert "features" in said
    assert "probs" in said
