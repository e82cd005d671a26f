"""SavedModels: each weight once, names kept, every era read, Keras 2's layers taken back out."""

from __future__ import annotations

import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench._tensorflow_files import open_saved_model
from tests.formats.models import assert_same, convert, inputs_of, load, pack, pack_folder, stir
from worker import archive, formats
from worker.errors import AmbiguousFormat, ConversionError, CorruptFile, ModelError, UnsupportedOperation


def test_it_works(made_file: Callable[[str, str], Path], tmp_path: Path) -> None:
    path = made_file("several", "saved_model")
    loaded = load("saved_model", path, tmp_path)
    assert [spec.name for spec in loaded.inputs] == ["left", "right", "kind"]  # the order of the arguments
    assert {spec.name for spec in loaded.outputs} == {"label", "score"}
    assert loaded.inputs[0].shape == (None, 4)
    for rows in (1, 7):
        arrays = {name: np.resize(array, (rows, *array.shape[1:])) for name, array in inputs_of(loaded).items()}
        assert loaded.run(arrays)["score"].shape == (rows, 1)


def test_a_second_name_that_gives_something_else_is_told(made_file: Callable[[str, str], Path], tmp_path: Path) -> None:
    """Keras' export has two names for one endpoint; only one of them is run."""
    path, other = made_file("several", "saved_model"), tmp_path / "other.zip"
    file = open_saved_model(path, tmp_path)
    file.structure["outputs swapped"][0].apply()
    file.write(other)
    assert load("saved_model", path, tmp_path / "a").further == ()
    assert load("saved_model", other, tmp_path / "b").further == ("serve",)


def test_inspect_reads_the_protocol_buffer(made_file: Callable[[str, str], Path], tmp_path: Path) -> None:
    summary = formats.get("saved_model").inspect(made_file("conv", "saved_model"), tmp_path)
    assert [(item.name, item.same_as) for item in summary.signatures] == [
        ("serving_default", ""),
        ("serve", "serving_default"),
    ]
    assert summary.parameters == 235
    assert summary.traits == {"weights", "variables"}
    assert summary.producer["tensorflow"].startswith("2.")


def test_each_weight_is_stored_once(made_file: Callable[[str, str], Path], tmp_path: Path) -> None:
    import tensorflow as tf

    archive.unpack(made_file("several", "saved_model"), tmp_path)
    stored = tf.train.list_variables(str(tmp_path / "variables" / "variables"))
    numbers = sum(int(np.prod(shape)) for name, shape in stored if "VARIABLE_VALUE" in name)
    loaded = load("keras", made_file("several", "keras"), tmp_path / "a")
    assert numbers == sum(array.size for _, array in loaded.weights())


@pytest.mark.parametrize("kind", ["zip", "tar.gz"])
def test_at_any_depth_with_what_macos_adds(kind: str, made_file: Callable[[str, str], Path], tmp_path: Path) -> None:
    source = made_file("dense", "saved_model")
    folder = tmp_path / "top" / "export" / "1699999999"
    archive.unpack(source, folder)
    (folder / "assets.extra").mkdir()
    (folder / "assets.extra" / "warmup").write_bytes(b"requests")
    (tmp_path / "top" / "__MACOSX").mkdir()
    (tmp_path / "top" / "__MACOSX" / "._saved_model.pb").write_bytes(b"\0")
    path = tmp_path / f"deep.{kind}"
    if kind == "zip":
        pack_folder(tmp_path / "top", path)
    else:
        with tarfile.open(path, "w:gz") as package:
            package.add(folder, "model")
    assert_same(load("saved_model", source, tmp_path / "a"), load("saved_model", path, tmp_path / "b"))


def test_two_side_by_side_are_ambiguous(made_file: Callable[[str, str], Path], tmp_path: Path) -> None:
    for name in ("a", "b"):
        archive.unpack(made_file("dense", "saved_model"), tmp_path / "two" / name)
    path = pack_folder(tmp_path / "two", tmp_path / "two.zip")
    with pytest.raises(AmbiguousFormat, match=r"a/saved_model\.pb"):
        load("saved_model", path, tmp_path / "x")


def test_a_damaged_graph_is_said(tmp_path: Path) -> None:
    path = tmp_path / "bad.zip"
    pack(path, saved_model__pb=b"\xff\xff\xff nonsense")
    with pytest.raises(CorruptFile, match="protocol buffer"):
        load("saved_model", path, tmp_path)


def old_model() -> Any:
    import tf_keras

    layers = tf_keras.layers
    left, right = tf_keras.Input((5, 3), name="left"), tf_keras.Input((5, 3), name="right")
    shared = layers.Bidirectional(layers.GRU(2))
    both = layers.BatchNormalization()(layers.Concatenate()([shared(left), shared(right)]))
    return tf_keras.Model([left, right], [layers.Dense(2, name="kind")(both), layers.Dense(1, name="score")(both)])


def saved(model: Any, folder: Path) -> Path:
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.save(folder / "old", save_format="tf")
    return pack_folder(folder / "old", folder / "old.zip")


def test_layers_that_keras_2_described_come_back(tmp_path: Path) -> None:
    model = old_model()
    stir(model)
    path = saved(model, tmp_path)
    summary = formats.get("saved_model").inspect(path, tmp_path / "i")
    assert "keras-config" in summary.traits
    assert "Bidirectional" in [row.kind for row in summary.layers]
    source = load("saved_model", path, tmp_path / "a")
    for target in ("keras", "h5"):
        result, codes = convert("saved_model", target, path, tmp_path / target)
        assert "rebuilt" in codes
        assert_same(source, load(target, result, tmp_path / f"{target}-load"))


def test_layers_that_keras_3_lost_still_become_a_graph(tmp_path: Path) -> None:
    import tf_keras

    model = tf_keras.Sequential(
        [tf_keras.layers.LocallyConnected1D(2, 3, input_shape=(6, 2)), tf_keras.layers.Flatten(name="flat")]
    )
    stir(model)
    model.save(tmp_path / "local.keras")
    result, codes = convert("keras", "saved_model", tmp_path / "local.keras", tmp_path / "b")
    assert "read-by-tf-keras" in codes
    source = load("keras", tmp_path / "local.keras", tmp_path / "a")
    assert_same(source, load("saved_model", result, tmp_path / "c"))
    with pytest.raises(ModelError, match="LocallyConnected1D"):
        convert("keras", "h5", tmp_path / "local.keras", tmp_path / "d")


def test_names_that_no_signature_takes_are_changed_and_told(tmp_path: Path) -> None:
    import keras

    x = keras.Input((3,), name="my input:1")
    keras.Model(x, keras.layers.Dense(2, name="out")(x)).save(tmp_path / "odd.keras")
    result, codes = convert("keras", "saved_model", tmp_path / "odd.keras", tmp_path / "b")
    assert "renamed-input" in codes
    assert [spec.name for spec in load("saved_model", result, tmp_path / "c").inputs] == ["my_input_1"]


@pytest.mark.parametrize("kept", [True, False], ids=["its function is kept", "its function is not kept"])
def test_inputs_without_order_are_numbered_ones_in_order(kept: bool, tmp_path: Path) -> None:
    """A signature's map has no order: two inputs of one shape fed the wrong way round would raise nothing."""
    import tensorflow as tf

    names = ["inputs", *(f"inputs_{number}" for number in range(1, 12))]
    specs = [tf.TensorSpec((None,), tf.float32, name=name) for name in names]
    module, serve = tf.Module(), tf.function(lambda *values: {"first": values[0]}, input_signature=specs)
    if kept:
        module.serve = serve
    tf.saved_model.save(module, str(tmp_path / "sm"), signatures=serve)
    path = pack_folder(tmp_path / "sm", tmp_path / "sm.zip")
    assert [spec.name for spec in load("saved_model", path, tmp_path / "a").inputs] == names
    assert [spec.name for spec in formats.get("saved_model").inspect(path, tmp_path / "b").inputs] == names


def test_inputs_are_in_the_order_of_the_arguments(tmp_path: Path) -> None:
    """Whatever their names are, where the function behind the signature tells it."""
    import tensorflow as tf

    module = tf.Module()
    specs = [tf.TensorSpec((None,), tf.float32, name=name) for name in ("omega", "alpha")]
    module.serve = tf.function(lambda omega, alpha: {"less": omega - alpha}, input_signature=specs)
    tf.saved_model.save(module, str(tmp_path / "sm"), signatures=module.serve)
    loaded = load("saved_model", pack_folder(tmp_path / "sm", tmp_path / "sm.zip"), tmp_path / "a")
    assert [spec.name for spec in loaded.inputs] == ["omega", "alpha"]


def counter(folder: Path) -> Path:
    """A model of TensorFlow 1 that changes a reference variable each time it runs."""
    import tensorflow as tf

    v1 = tf.compat.v1
    with tf.Graph().as_default(), v1.Session() as session:
        step = v1.placeholder("float32", (), "step")
        count = v1.get_variable("count", initializer=np.float32(0), use_resource=False)
        total = v1.assign_add(count, step)
        session.run(v1.global_variables_initializer())
        v1.saved_model.simple_save(session, str(folder / "sm"), {"step": step}, {"total": total})
    return pack_folder(folder / "sm", folder / "counter.zip")


def test_reference_variables_of_tensorflow_1_run_in_a_session(tmp_path: Path) -> None:
    path = counter(tmp_path)
    loaded = load("saved_model", path, tmp_path)
    assert [float(loaded.run({"step": np.array(2, "float32")})["total"]) for _ in range(2)] == [2, 4]
    with pytest.raises(UnsupportedOperation, match="Assign"):
        convert("saved_model", "frozen_graph", path, tmp_path / "a")


def test_what_a_model_works_with_is_known_before_it_is_opened(
    made_file: Callable[[str, str], Path], tmp_path: Path
) -> None:
    """Saving and restoring work on text in every SavedModel: that is no fact about the model."""
    inspect = formats.get("saved_model").inspect
    assert inspect(made_file("recurrent", "saved_model"), tmp_path / "a").traits == {
        "weights",
        "variables",
        "recurrent",
    }
    assert inspect(made_file("several", "saved_model"), tmp_path / "b").traits == {"weights", "variables"}


def test_a_model_that_cannot_be_traced_says_why(tmp_path: Path) -> None:
    import keras

    x = keras.Input((None, None, 3), name="image")
    keras.Model(x, keras.layers.UpSampling2D(2, interpolation="bilinear", name="up")(x)).save(tmp_path / "up.keras")
    with pytest.raises(ConversionError, match="Tracing"):
        convert("keras", "saved_model", tmp_path / "up.keras", tmp_path / "b")
