"""Whole models in HDF5: refused where Keras could not read the result back, never following links out of the file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from tests.formats.models import assert_same, convert, load, stir, write
from worker import formats, intake, routes
from worker.errors import CorruptFile, IncompleteModel, ModelError, NoRoute, UnsupportedOperation
from worker.formats import _tensors


def test_it_works(made_file: Callable[[str, str], Path], tmp_path: Path) -> None:
    path = made_file("conv", "h5")
    assert_same(load("keras", made_file("conv", "keras"), tmp_path / "a"), load("h5", path, tmp_path / "b"))
    assert formats.get("h5").inspect(path, tmp_path).parameters == 235


def test_what_keras_cannot_read_back_is_refused_by_name(tmp_path: Path) -> None:
    import keras

    x = keras.Input((4,), name="x")
    y = keras.layers.Dense(4)(x)
    model = keras.Model(x, keras.layers.Dense(1)(keras.ops.not_equal(y, 0.0)))
    with pytest.raises(UnsupportedOperation, match="NotEqual") as caught:
        write("h5", model, tmp_path)
    model.save(tmp_path / "ops.keras")
    summary = formats.get("keras").inspect(tmp_path / "ops.keras", tmp_path)
    assert summary.refusals["h5"] == caught.value.message
    with pytest.raises(NoRoute, match="Keras cannot become HDF5 model: HDF5 model cannot hold NotEqual"):
        routes.find_route("keras", "h5", summary)


def test_masks_that_keras_finds_again_are_not_refused_before(
    made_file: Callable[[str, str], Path], tmp_path: Path
) -> None:
    """Keras describes them as operations between layers, and they are left out."""
    assert "h5" not in formats.get("keras").inspect(made_file("recurrent", "keras"), tmp_path).refusals


def test_operations_that_keras_cannot_read_back_are_read_here(tmp_path: Path) -> None:
    import keras

    x = keras.Input((4,), name="x")
    y = keras.layers.Dense(3, name="inner")(x)
    model = keras.Model(
        x, keras.layers.Dense(2, name="out")(keras.ops.concatenate([y * 2.0, keras.ops.tanh(y)], axis=-1))
    )
    stir(model)
    model.save(tmp_path / "ops.keras")
    model.save(tmp_path / "ops.h5")
    assert_same(load("keras", tmp_path / "ops.keras", tmp_path / "a"), load("h5", tmp_path / "ops.h5", tmp_path / "b"))


def test_a_compiled_and_trained_model_of_keras_2(tmp_path: Path) -> None:
    import tf_keras

    model = tf_keras.Sequential([tf_keras.layers.Dense(3, input_shape=(4,)), tf_keras.layers.LeakyReLU(0.2)])
    model.compile(tf_keras.optimizers.Adam(0.01), "mse")
    model.fit(np.ones((8, 4)), np.ones((8, 3)), verbose=0)
    save_quietly(model, tmp_path / "old.h5")
    result, codes = convert("h5", "keras", tmp_path / "old.h5", tmp_path / "b")
    assert_same(load("h5", tmp_path / "old.h5", tmp_path / "a"), load("keras", result, tmp_path / "c"))
    assert {"rebuilt", "repaired-renamed-argument"} <= set(codes)
    assert not {"compile-dropped", "optimizer-dropped"} & set(codes)


def save_quietly(model: object, path: Path) -> None:
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.save(path)  # type: ignore[attr-defined]


def test_h5_under_the_name_keras(made_file: Callable[[str, str], Path], tmp_path: Path) -> None:
    path = tmp_path / "model.keras"
    path.write_bytes(made_file("dense", "h5").read_bytes())
    assert intake.recognise(intake.take_sample(path, path.name))[0].slug == "h5"
    assert_same(load("h5", made_file("dense", "h5"), tmp_path / "a"), load("h5", path, tmp_path / "b"))


@pytest.mark.parametrize("kind", ["external", "soft", "data"])
def test_links_out_of_the_file_are_refused(kind: str, made_file: Callable[[str, str], Path], tmp_path: Path) -> None:
    path = tmp_path / "linked.h5"
    path.write_bytes(made_file("dense", "h5").read_bytes())
    with h5py.File(path, "r+") as file:
        if kind == "external":
            file["model_weights/evil"] = h5py.ExternalLink("/etc/hostname", "/")
        elif kind == "soft":
            file["model_weights/evil"] = h5py.SoftLink("/model_weights")
        else:
            file.create_dataset("evil", (4,), "u1", external=[("/etc/hostname", 0, 4)])
    with pytest.raises(ModelError, match="evil"):
        load("h5", path, tmp_path)


def test_weights_alone_need_their_architecture(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "weights.h5", "w") as file:
        file.attrs["layer_names"] = [b"dense"]
    with pytest.raises(IncompleteModel, match="architecture"):
        load("h5", tmp_path / "weights.h5", tmp_path)


def test_a_cut_file_is_damaged(made_file: Callable[[str, str], Path], tmp_path: Path) -> None:
    path = tmp_path / "cut.h5"
    path.write_bytes(made_file("dense", "h5").read_bytes()[:5000])
    with pytest.raises(CorruptFile, match="HDF5"):
        load("h5", path, tmp_path)


def test_masks_that_layers_find_by_themselves_are_no_obstacle(tmp_path: Path) -> None:
    """Keras 3 writes the NotEqual of an embedding's mask into the file, and cannot read it back."""
    import keras

    ids = keras.Input((5,), dtype="int32", name="ids")
    x = keras.layers.Embedding(9, 3, mask_zero=True)(ids)
    x = keras.layers.GRU(2)(keras.layers.LSTM(4, return_sequences=True)(x))
    model = keras.Model(ids, x)
    stir(model)
    model.save(tmp_path / "masked.keras")
    result, _ = convert("keras", "h5", tmp_path / "masked.keras", tmp_path / "b")
    again = keras.saving.load_model(str(result), compile=False)
    padded = np.array([[3, 4, 0, 0, 0], [1, 2, 3, 4, 5]])
    np.testing.assert_allclose(np.asarray(again(padded)), np.asarray(model(padded)), atol=1e-6)


def test_a_mask_of_somebodys_own_is_never_dropped(tmp_path: Path) -> None:
    import keras

    ids = keras.Input((5,), dtype="int32", name="ids")
    x = keras.layers.Embedding(9, 3, mask_zero=True)(ids)
    model = keras.Model(ids, keras.layers.LSTM(4)(x, mask=keras.ops.not_equal(ids, 7)))
    with pytest.raises(UnsupportedOperation, match="NotEqual"):
        write("h5", model, tmp_path)


def test_statistics_of_keras_2_are_the_same_weights_in_keras_3(tmp_path: Path) -> None:
    """The counter beside mean and variance computes nothing, and only one of the two libraries lists it."""
    import tf_keras

    model = tf_keras.Sequential([tf_keras.layers.Normalization(input_shape=(3,)), tf_keras.layers.Dense(2)])
    model.layers[0].adapt(np.random.default_rng(1).normal(5.0, 2.0, (64, 3)).astype("float32"))
    model.save(tmp_path / "old.h5")
    result, _ = convert("h5", "keras", tmp_path / "old.h5", tmp_path / "new")
    before, after = load("h5", tmp_path / "old.h5", tmp_path / "a"), load("keras", result, tmp_path / "b")
    weights = [sorted(array.tobytes() for _, array in loaded.weights()) for loaded in (before, after)]
    assert len(weights[0]) == 4
    assert weights[0] == weights[1]


def test_a_group_that_lies_in_itself_is_walked_once(tmp_path: Path) -> None:
    """A hard link makes a circle, which is no link to elsewhere; it was walked for ever."""
    path = tmp_path / "circle.h5"
    with h5py.File(path, "w") as file:
        inner = file.create_group("a")
        inner["b"] = file["/"]
        inner["values"] = [1.0]
        _tensors.refuse_links(file, path.name)
