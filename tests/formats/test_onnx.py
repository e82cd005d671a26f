"""ONNX: recognised, written without the weights passing through tf2onnx, refused by name, and read back."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.formats.models import MODELS, assert_same, inputs_of, load, stir, write
from worker import intake
from worker.errors import ConverterFailed, CorruptFile, IncompleteModel, UnsafeContent, UnsupportedOperation
from worker.formats import _onnx_outline, _onnx_write, get, matches
from worker.formats._format import Hop, Sample

ONNX = get("onnx")
Made = Callable[[str, str], Path]


def convert(source: Path, folder: Path, **options: Any) -> tuple[Path, list[str]]:
    folder.mkdir(parents=True, exist_ok=True)
    hop, target = Hop(folder, options), folder / "model.onnx"
    ONNX.converts_from["saved_model"].run(source, target, hop)
    return target, [finding.code for finding in hop.findings]


def exported(model: Any, folder: Path) -> Path:
    stir(model)
    return write("saved_model", model, folder)


def nodes_of(file: Path) -> list[Any]:
    import onnx

    return list(onnx.load(file).graph.node)


def assert_same_values(source: Path, result: Path, folder: Path) -> None:
    before, after = load("saved_model", source, folder / "before"), load("onnx", result, folder / "after")
    assert [item.name for item in before.inputs] == [item.name for item in after.inputs]
    assert [item.name for item in before.outputs] == [item.name for item in after.outputs]
    arrays = inputs_of(before)
    wanted, found = before.run(arrays), after.run(arrays)
    for name, value in wanted.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", MODELS)
def test_it_works(kind: str, made_file: Made, tmp_path: Path) -> None:
    source = made_file(kind, "saved_model")
    result, findings = convert(source, tmp_path)
    assert_same_values(source, result, tmp_path)
    summary = ONNX.inspect(result, tmp_path)
    assert summary.inputs[0].shape is not None
    assert summary.inputs[0].shape[0] is None  # the batch stays free
    assert summary.producer["opset ai.onnx"] == "18"
    assert summary.parameters
    assert not findings
    assert [item.slug for item in matches(intake.take_sample(result, "holiday.jpg"))] == ["onnx"]


@pytest.mark.parametrize("kind", MODELS)
def test_it_comes_back(kind: str, made_file: Made, tmp_path: Path) -> None:
    result, _ = convert(made_file(kind, "saved_model"), tmp_path)
    hop = Hop(tmp_path / "back")
    hop.scratch.mkdir()
    ONNX.converts_to["saved_model"].run(result, tmp_path / "back.zip", hop)
    before, after = load("onnx", result, tmp_path), load("saved_model", tmp_path / "back.zip", tmp_path)
    assert_same(_without_weights(before), _without_weights(after))


def _without_weights(loaded: Any) -> Any:
    import dataclasses

    return dataclasses.replace(loaded, weights=lambda: iter(()))


# The converter's own faults ---------------------------------------------------------------------------------------


def test_inputs_of_one_shape_are_not_swapped(tmp_path: Path) -> None:
    import keras

    last, first = keras.Input((4,), name="zeta"), keras.Input((4,), name="alpha")
    outputs = {"b": keras.layers.Subtract()([last, first]), "a": keras.layers.Dense(2)(last)}
    source = exported(keras.Model([last, first], outputs), tmp_path)
    assert_same_values(source, convert(source, tmp_path)[0], tmp_path)


def test_one_tensor_may_be_several_outputs_and_an_input(tmp_path: Path) -> None:
    import keras

    given, unused = keras.Input((4,), name="given"), keras.Input((3,), name="unused")
    shared = keras.layers.Dense(2)(given)
    source = exported(keras.Model([given, unused], {"same": given, "one": shared, "two": shared}), tmp_path)
    assert_same_values(source, convert(source, tmp_path)[0], tmp_path)


def test_statistics_do_not_become_inputs(made_file: Made, tmp_path: Path) -> None:
    result, _ = convert(made_file("dense", "saved_model"), tmp_path)
    assert [item.name for item in ONNX.inspect(result, tmp_path).inputs] == ["features"]


def test_a_result_with_inputs_of_its_own_is_refused(
    made_file: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What tf2onnx makes by itself of a Normalization: its mean and variance are inputs that somebody has to feed."""
    import keras
    import tensorflow as tf
    from tf2onnx.convert import from_function

    model = keras.saving.load_model(made_file("dense", "keras"))
    taken = [tf.TensorSpec((None, 6), tf.float32, name="features")]
    leaky, _ = from_function(tf.function(lambda features: {"probs": model(features)}), taken, opset=18)
    assert len(leaky.graph.input) == 3
    monkeypatch.setattr(_onnx_write, "_run_tf2onnx", lambda source, opset: leaky)
    with pytest.raises(ConverterFailed):
        convert(made_file("dense", "saved_model"), tmp_path)
    assert not (tmp_path / "model.onnx").exists()


def test_large_weights_never_pass_through_tf2onnx(tmp_path: Path) -> None:
    import keras
    from keras import layers

    image, tokens = keras.Input((8, 8, 16), name="image"), keras.Input((3,), dtype="int32", name="tokens")
    x = layers.Flatten()(layers.DepthwiseConv2D(3, depth_multiplier=64)(layers.Conv2D(64, 3, groups=2)(image)))
    y = layers.Flatten()(layers.Embedding(3000, 4)(tokens))
    model = keras.Model([image, tokens], layers.Dense(2)(layers.Concatenate()([x, y])))
    source = exported(model, tmp_path)
    outline = _onnx_outline.outline(source, Hop(tmp_path))
    assert outline.graph.definition.ByteSize() < 128 * 1024
    assert sum(read().nbytes for read in outline.weights.values()) > 4 * 0.85 * model.count_params()
    result, _ = convert(source, tmp_path)
    stored = {item.name for item in _initializers(result)}
    assert not [node for node in nodes_of(result) if set(node.input) <= stored]  # nothing left to rearrange
    assert_same_values(source, result, tmp_path)


def _initializers(file: Path) -> list[Any]:
    import onnx

    return list(onnx.load(file).graph.initializer)


def test_an_operation_that_it_does_not_have_is_named_with_its_layer(tmp_path: Path) -> None:
    import keras

    words = keras.layers.Hashing(5, name="buckets")
    source = exported(keras.Sequential([keras.Input((2,), dtype="string"), words]), tmp_path)
    with pytest.raises(UnsupportedOperation, match=r"StringToHashBucketFast.*buckets"):
        convert(source, tmp_path)
    assert not (tmp_path / "model.onnx").exists()


def test_operations_that_tf2onnx_does_not_know_are_written_with_others(tmp_path: Path) -> None:
    import keras
    from keras import layers

    number = keras.Input((3,), name="number")
    kind = keras.Input((3,), dtype="int64", name="kind")
    outputs = [
        layers.Activation("gelu")(number),
        layers.Activation("celu")(number),
        layers.Discretization([-1.0, 0.5])(number),
        layers.CategoryEncoding(9, output_mode="count")(kind),
        layers.CategoryEncoding(9, output_mode="multi_hot")(kind),
        layers.IntegerLookup(vocabulary=[3, 5])(kind),
    ]
    source = exported(keras.Model([number, kind], outputs), tmp_path)
    assert_same_values(source, convert(source, tmp_path)[0], tmp_path)


def test_tables_of_words_are_kept(tmp_path: Path) -> None:
    import keras

    words = keras.Input((2,), dtype="string", name="words")
    source = write(
        "saved_model", keras.Model(words, keras.layers.StringLookup(vocabulary=["red", "grün"])(words)), tmp_path
    )
    result, _ = convert(source, tmp_path)
    hop = Hop(tmp_path / "back")
    hop.scratch.mkdir()
    ONNX.converts_to["saved_model"].run(result, tmp_path / "back.zip", hop)
    arrays = {"words": np.array([["grün".encode(), b"red"], [b"blue", b""]])}
    for slug, file in (("saved_model", source), ("onnx", result), ("saved_model", tmp_path / "back.zip")):
        found = next(iter(load(slug, file, tmp_path / file.stem).run(arrays).values()))
        assert found.tolist() == [[2, 1], [0, 0]]


def test_bfloat16_is_computed_in_float32(tmp_path: Path) -> None:
    import keras

    policy = keras.DTypePolicy("mixed_bfloat16")
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, "tanh", dtype=policy)])
    source = exported(model, tmp_path)
    result, findings = convert(source, tmp_path)
    assert findings == ["computed-in-single"]
    before, after = load("saved_model", source, tmp_path / "a"), load("onnx", result, tmp_path / "b")
    assert after.outputs[0].dtype == before.outputs[0].dtype == "bfloat16"
    arrays = inputs_of(before)
    (wanted,), (found,) = before.run(arrays).values(), after.run(arrays).values()
    np.testing.assert_allclose(found, wanted, atol=2e-2)


def test_signatures_that_are_not_carried_over_are_named(tmp_path: Path) -> None:
    import tensorflow as tf

    from worker import archive

    module = tf.Module()
    module.scale = tf.Variable(2.0)
    taken = tf.TensorSpec([None, 3], name="x")
    entry = tf.function(lambda x: {"y": x * module.scale}).get_concrete_function(taken)
    other = tf.function(lambda x: {"y": x / module.scale}).get_concrete_function(taken)
    tf.saved_model.save(module, str(tmp_path / "sm"), signatures={"serving_default": entry, "classify": other})
    archive.pack(tmp_path / "sm", tmp_path / "model.zip")
    assert convert(tmp_path / "model.zip", tmp_path)[1] == ["signatures-dropped"]


def test_shapes_that_were_noted_at_operations_do_no_harm(tmp_path: Path) -> None:
    """As passes of TensorFlow leave them behind in a graph that was optimised before it was saved."""
    import tensorflow as tf
    from tensorflow.core.framework import attr_value_pb2

    from worker import archive

    def serve(x: Any) -> dict[str, Any]:
        y = tf.nn.relu(x)
        noted = attr_value_pb2.AttrValue()
        noted.list.shape.append(tf.TensorShape([None, 3]).as_proto())
        y.op._set_attr("_input_shapes", noted)
        return {"y": y}

    module = tf.Module()
    module.serve = tf.function(serve, input_signature=[tf.TensorSpec([None, 3], name="x")], autograph=False)
    tf.saved_model.save(module, str(tmp_path / "sm"), signatures=module.serve)
    archive.pack(tmp_path / "sm", tmp_path / "model.zip")
    assert convert(tmp_path / "model.zip", tmp_path)[1] == []


# Options ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("opset", [13, 17, 21])
def test_the_version_of_the_operators_can_be_chosen(opset: int, made_file: Made, tmp_path: Path) -> None:
    source = made_file("several", "saved_model")
    result, _ = convert(source, tmp_path, opset=opset)
    assert ONNX.inspect(result, tmp_path).producer["opset ai.onnx"] == str(opset)
    assert_same_values(source, result, tmp_path)


def test_weights_can_be_kept_beside_the_graph(tmp_path: Path) -> None:
    import keras

    source = exported(keras.Sequential([keras.Input((200,)), keras.layers.Dense(300)]), tmp_path)
    result, _ = convert(source, tmp_path, external_data=True)
    with zipfile.ZipFile(result) as packed:
        assert packed.namelist() == ["model.onnx", "model.onnx.data"]
        assert packed.getinfo("model.onnx").file_size < 8 * 1024
    assert [item.slug for item in matches(intake.take_sample(result, "model.zip"))] == ["onnx"]
    assert ONNX.inspect(result, tmp_path / "inspect").parameters == 200 * 300 + 300
    assert_same_values(source, result, tmp_path)


def test_what_one_file_cannot_hold_is_split_by_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import keras

    monkeypatch.setattr("worker.formats.onnx.LARGEST", 40_000)
    source = exported(keras.Sequential([keras.Input((100,)), keras.layers.Dense(100)]), tmp_path)
    result, _ = convert(source, tmp_path)
    assert zipfile.is_zipfile(result)
    assert_same_values(source, result, tmp_path)


# Files of others --------------------------------------------------------------------------------------------------


def model_bytes(location: str = "", domain: str = "", **fields: str) -> bytes:
    """y = x · w; ``w`` is kept at ``location`` where there is one."""
    from onnx import TensorProto, helper

    weight = helper.make_tensor("w", TensorProto.FLOAT, [2, 2], np.eye(2, dtype="float32").tobytes(), raw=True)
    if location:
        weight.ClearField("raw_data")
        weight.data_location = TensorProto.EXTERNAL
        weight.external_data.add(key="location", value=location)
    node = helper.make_node("Mystery" if domain else "MatMul", ["x", "w"], ["y"], domain=domain)
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 2]) for name in ("x", "y")]
    graph = helper.make_graph([node], "graph", ends[:1], ends[1:], [weight])
    opsets = [helper.make_opsetid("", 13), *([helper.make_opsetid(domain, 1)] if domain else [])]
    return bytes(helper.make_model(graph, opset_imports=opsets, ir_version=7, **fields).SerializeToString())


@pytest.mark.parametrize("location", ["../secret.bin", "/etc/passwd", "a/../../secret", "..\\secret", "C:secret"])
def test_weights_outside_the_archive_are_refused(location: str, tmp_path: Path) -> None:
    (tmp_path / "secret.bin").write_bytes(bytes(16))
    with zipfile.ZipFile(tmp_path / "model.zip", "w") as packed:
        packed.writestr("inner/model.onnx", model_bytes(location))
    assert ONNX.load
    with pytest.raises(UnsafeContent, match="outside its own folder"):
        ONNX.inspect(tmp_path / "model.zip", tmp_path / "scratch")
    with pytest.raises(UnsafeContent):
        ONNX.load(tmp_path / "model.zip", tmp_path / "scratch")


def test_missing_weights_are_told(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(model_bytes("weights.bin"))
    with pytest.raises(IncompleteModel, match=r"weights\.bin"):
        ONNX.inspect(tmp_path / "model.onnx", tmp_path)


def test_operators_of_others_are_named(tmp_path: Path) -> None:
    file = tmp_path / "model.onnx"
    file.write_bytes(model_bytes(domain="com.example"))
    assert ONNX.inspect(file, tmp_path).custom_objects == ("com.example.Mystery",)
    assert ONNX.load
    with pytest.raises(UnsupportedOperation, match=r"com\.example\.Mystery"):
        ONNX.load(file, tmp_path)


@pytest.mark.parametrize("fields", [{}, {"producer_name": "pytorch"}, {"doc_string": "x" * 300}])
def test_it_is_recognised_by_its_bytes(fields: dict[str, str]) -> None:
    content = model_bytes(**fields)
    assert ONNX.sniff(Sample("model.bin", len(content), content))
    assert ONNX.sniff(Sample("model.bin", 10**9, content[:60]))


def test_other_protocol_buffers_are_not_mistaken_for_it(made_file: Made) -> None:
    import tensorflow as tf

    with zipfile.ZipFile(made_file("dense", "saved_model")) as packed:
        saved_model = packed.read("saved_model.pb")
    with tf.Graph().as_default() as graph:
        tf.constant(1.0)
    for content in (saved_model, graph.as_graph_def().SerializeToString(), b"\x08\x07", b"\x08\x07\x3a", b"\x08\x07PK"):
        assert not ONNX.sniff(Sample("model.pb", len(content), content[:65536]))


def test_a_damaged_file_is_told(tmp_path: Path) -> None:
    file = tmp_path / "model.onnx"
    file.write_bytes(model_bytes()[:-9])
    with pytest.raises(CorruptFile):
        ONNX.inspect(file, tmp_path)


def test_a_tensorflow_lite_file_that_keeps_a_state_is_refused_by_name(tmp_path: Path) -> None:
    import tensorflow as tf

    module = tf.Module()
    module.sum = tf.Variable(tf.zeros((1, 4)))
    specs = [tf.TensorSpec((1, 4), tf.float32, name="x")]
    module.call = tf.function(lambda x: module.sum.assign_add(x), input_signature=specs)
    converter = tf.lite.TFLiteConverter.from_concrete_functions([module.call.get_concrete_function()], module)
    converter.experimental_enable_resource_variables = True
    (tmp_path / "model.tflite").write_bytes(converter.convert())
    with pytest.raises(UnsupportedOperation, match=r"ASSIGN_VARIABLE.*changes its variables"):
        ONNX.converts_from["tflite"].run(tmp_path / "model.tflite", tmp_path / "model.onnx", Hop(tmp_path))


@pytest.mark.parametrize("kind", ["dense", "conv"])
def test_from_tensorflow_lite(kind: str, made_file: Made, tmp_path: Path) -> None:
    between, result = tmp_path / "model.tflite", tmp_path / "model.onnx"
    get("tflite").converts_from["saved_model"].run(made_file(kind, "saved_model"), between, Hop(tmp_path))
    ONNX.converts_from["tflite"].run(between, result, Hop(tmp_path))
    before, after = load("tflite", between, tmp_path), load("onnx", result, tmp_path)
    assert before.inputs == after.inputs
    arrays = inputs_of(before)
    wanted, found = before.run(arrays), after.run(arrays)
    for name, value in wanted.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-5, atol=1e-5)
