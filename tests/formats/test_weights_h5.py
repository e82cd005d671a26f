"""Architecture JSON and HDF5 weights of both layouts, also where names mislead."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from tests.formats.models import assert_same, convert, load, pack, stir
from worker import formats
from worker.errors import ModelError, WeightsMismatch


def test_it_works(made_file: Callable[[str, str], Path], tmp_path: Path) -> None:
    path = made_file("recurrent", "weights_h5")
    assert_same(
        load("keras", made_file("recurrent", "keras"), tmp_path / "a"), load("weights_h5", path, tmp_path / "b")
    )
    assert formats.get("weights_h5").inspect(path, tmp_path).inputs[0].limit == 20


def old_model() -> Any:
    """Two layers of one shape whose names are the other's group in the newer layout, and a Bidirectional."""
    import tf_keras

    layers = tf_keras.layers
    return tf_keras.Sequential(
        [
            layers.Bidirectional(layers.GRU(2, return_sequences=True), input_shape=(4, 4)),
            layers.Dense(4, name="dense_1"),
            layers.Dense(4, name="dense"),
            layers.Bidirectional(layers.LSTM(2)),
        ]
    )


@pytest.mark.parametrize("name", ["model.weights.h5", "model_weights.h5"])
def test_both_layouts_of_keras_2(name: str, tmp_path: Path) -> None:
    model = old_model()
    stir(model)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.save_weights(tmp_path / name)
        model.save(tmp_path / "whole.h5")
    path = pack(tmp_path / "pair.zip", architecture__json=model.to_json().encode(), weights__h5=tmp_path / name)
    result, _ = convert("weights_h5", "keras", path, tmp_path / "b")
    assert_same(load("h5", tmp_path / "whole.h5", tmp_path / "a"), load("weights_h5", path, tmp_path / "w"))
    assert_same(load("h5", tmp_path / "whole.h5", tmp_path / "a"), load("keras", result, tmp_path / "c"))


def test_layers_of_another_copy_of_the_model_go_by_their_order(tmp_path: Path) -> None:
    model = old_model()
    stir(model)
    model.save_weights(tmp_path / "w.h5")
    with h5py.File(tmp_path / "w.h5", "r+") as file:
        names = [name if isinstance(name, bytes) else name.encode() for name in file.attrs["layer_names"]]
        for name in names:
            file.move(name.decode(), f"copy_of_{name.decode()}")
        file.attrs["layer_names"] = [b"copy_of_" + name for name in names]
    path = pack(tmp_path / "pair.zip", a__json=model.to_json().encode(), w__h5=tmp_path / "w.h5")
    result, _ = convert("weights_h5", "keras", path, tmp_path / "b")
    found = load("keras", result, tmp_path / "c")
    wanted = [np.asarray(weight).tobytes() for weight in model.weights]
    assert sorted(array.tobytes() for _, array in found.weights()) == sorted(wanted)


def test_a_whole_model_beside_its_json_gives_its_weights(made_file: Callable[[str, str], Path], tmp_path: Path) -> None:
    import keras

    model = keras.saving.load_model(made_file("conv", "keras"))
    path = pack(tmp_path / "pair.zip", a__json=model.to_json().encode(), w__h5=made_file("conv", "h5"))
    assert_same(load("keras", made_file("conv", "keras"), tmp_path / "a"), load("weights_h5", path, tmp_path / "b"))


def test_a_layer_without_weights_in_the_file_is_named(tmp_path: Path) -> None:
    model = old_model()
    with h5py.File(tmp_path / "w.h5", "w") as file:
        group = file.create_group("dense_1")
        group.attrs["weight_names"] = [b"dense_1/kernel:0", b"dense_1/bias:0"]
        group["dense_1/kernel:0"], group["dense_1/bias:0"] = np.ones((4, 4)), np.ones(4)
        file.attrs["layer_names"] = [b"dense_1"]
    path = pack(tmp_path / "pair.zip", a__json=model.to_json().encode(), w__h5=tmp_path / "w.h5")
    with pytest.raises(WeightsMismatch, match="4 layers"):
        convert("weights_h5", "keras", path, tmp_path / "b")


def test_hdf5_of_something_else_holds_no_weights(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "w.h5", "w") as file:
        file["table"] = np.ones(3)
    path = pack(tmp_path / "pair.zip", a__json=old_model().to_json().encode(), w__h5=tmp_path / "w.h5")
    with pytest.raises(ModelError, match="no weights"):
        convert("weights_h5", "keras", path, tmp_path / "b")
