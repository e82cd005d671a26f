"""TensorFlow Lite: recognised, written from signatures of every era, refused by the operation's name."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from worker import archive
from worker.errors import CorruptFile, UnsupportedOperation
from worker.formats import get
from worker.formats._format import Hop, Sample
from worker.verify import make_inputs

TFLITE, SAVED_MODEL = get("tflite"), get("saved_model")
CORPUS = Path(__file__).resolve().parents[3] / "shared" / "corpus"
OLD = ["thirdparty/half_plus_two_cpu", "thirdparty/regression_saved_model", "tf1.4/tf1_convnet"]


def export(model: object, folder: Path) -> Path:
    """The model as a SavedModel archive, written by the format itself."""
    from worker.formats.saved_model import write

    target = folder / "model.zip"
    write(model, target, Hop(folder))
    return target


def convert(source: Path, folder: Path) -> Path:
    target = folder / "model.tflite"
    TFLITE.converts_from["saved_model"].run(source, target, Hop(folder))
    return target


def assert_same_values(source: Path, result: Path, folder: Path) -> None:
    assert SAVED_MODEL.load
    assert TFLITE.load
    before, after = SAVED_MODEL.load(source, folder), TFLITE.load(result, folder)
    assert [spec.name for spec in after.inputs] == sorted(spec.name for spec in before.inputs)
    for draw in make_inputs(before.inputs, seed=7):
        wanted, found = before.run(draw), after.run(draw)
        assert wanted.keys() == found.keys()
        for name in wanted:
            np.testing.assert_allclose(found[name], wanted[name], rtol=1e-5, atol=1e-6)


def test_it_works(tmp_path: Path) -> None:
    import keras

    left, right = keras.Input((5,), name="left"), keras.Input((3,), name="right")
    merged = keras.layers.Concatenate()([keras.layers.Dense(4, "relu")(left), right])
    outputs = [keras.layers.Dense(2, "softmax", name="kind")(merged), keras.layers.Dense(1, name="score")(merged)]
    source = export(keras.Model([left, right], outputs), tmp_path)
    result = convert(source, tmp_path)
    assert_same_values(source, result, tmp_path)
    summary = TFLITE.inspect(result, tmp_path)
    assert summary.signatures == ("serving_default",)
    assert summary.inputs[0].shape is not None
    assert summary.inputs[0].shape[0] is None  # the batch stays free
    assert TFLITE.sniff(Sample("model.tflite", 0, result.read_bytes()[:64]))


@pytest.mark.parametrize("kind", [kind for kind in OLD if (CORPUS / kind).exists()])
def test_variables_of_tensorflow_1_are_folded(kind: str, tmp_path: Path) -> None:
    source = next(CORPUS.joinpath(kind).glob("saved_model*.zip"))
    assert_same_values(source, convert(source, tmp_path), tmp_path)


def test_signatures_that_are_not_carried_over_are_named(tmp_path: Path) -> None:
    import tensorflow as tf

    module = tf.Module()
    module.scale = tf.Variable(2.0)
    entry = tf.function(lambda x: {"y": x * module.scale}, input_signature=[tf.TensorSpec([None, 3], name="x")])
    tf.saved_model.save(module, str(tmp_path / "sm"), signatures={"serving_default": entry, "classify": entry})
    archive.pack(tmp_path / "sm", tmp_path / "model.zip")
    hop = Hop(tmp_path)
    TFLITE.converts_from["saved_model"].run(tmp_path / "model.zip", tmp_path / "model.tflite", hop)
    assert [finding.code for finding in hop.findings] == ["signatures-dropped"]
    assert "classify" in hop.findings[0].sentence
    assert TFLITE.inspect(tmp_path / "model.tflite", tmp_path).signatures == ("serving_default",)


def test_an_operation_that_it_does_not_have_is_named(tmp_path: Path) -> None:
    import keras

    model = keras.Sequential([keras.Input((6, 3)), keras.layers.GRU(4)])
    source = export(model, tmp_path)
    with pytest.raises(UnsupportedOperation, match="TensorListReserve"):
        convert(source, tmp_path)


def test_lookup_tables_are_refused_by_name(tmp_path: Path) -> None:
    import keras

    words = keras.layers.StringLookup(vocabulary=["red", "green"], output_mode="one_hot")
    model = keras.Sequential([keras.Input((1,), dtype="string"), words, keras.layers.Dense(2)])
    source = export(model, tmp_path)
    with pytest.raises(UnsupportedOperation, match="lookup tables"):
        convert(source, tmp_path)


def test_a_damaged_file_is_told(tmp_path: Path) -> None:
    file = tmp_path / "model.tflite"
    file.write_bytes(b"\x1c\0\0\0TFL3" + bytes(64))
    with pytest.raises(CorruptFile):
        TFLITE.inspect(file, tmp_path)
