"""TensorFlow checkpoints beside an architecture: found by their own object graph, whatever they are called."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.formats.models import assert_same, convert, load, pack_folder, stir
from worker import formats, intake
from worker.errors import CorruptFile, IncompleteModel, ModelError, WeightsMismatch


def old_model(units: int = 2) -> Any:
    """Two layers of one shape, a nested model that is used twice, and two halves of a Bidirectional."""
    import tf_keras

    layers = tf_keras.layers
    inner = tf_keras.Sequential([layers.Dense(4, input_shape=(4,)), layers.BatchNormalization()], name="inner")
    sequence = tf_keras.Input((5, 4), name="sequence")
    x = layers.Bidirectional(layers.GRU(units, return_sequences=True))(sequence)
    x = layers.Bidirectional(layers.LSTM(2))(x)
    x = inner(layers.Dense(4, name="second")(layers.Dense(4, name="first")(inner(x))))
    model = tf_keras.Model(sequence, x)
    stir(model)
    return model


def archive_of(model: Any, folder: Path, target: Path) -> Path:
    (folder / "architecture.json").write_text(model.to_json(), encoding="utf-8")
    return pack_folder(folder, target)


def test_it_works(tmp_path: Path) -> None:
    model = old_model()
    folder = tmp_path / "files"
    model.save_weights(str(folder / "epoch_07"), save_format="tf")
    path = archive_of(model, folder, tmp_path / "model.zip")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.save(tmp_path / "whole.h5")
    assert intake.recognise(intake.take_sample(path, path.name))[0].slug == "checkpoint"
    assert formats.get("checkpoint").inspect(path, tmp_path / "i").inputs[0].shape == (None, 5, 4)
    whole = load("h5", tmp_path / "whole.h5", tmp_path / "a")
    assert_same(whole, load("checkpoint", path, tmp_path / "b"))
    result, codes = convert("checkpoint", "keras", path, tmp_path / "c")
    assert_same(whole, load("keras", result, tmp_path / "d"))
    assert "optimizer-dropped" not in codes


def test_a_checkpoint_of_keras_3_with_its_optimizer(tmp_path: Path) -> None:
    import keras
    import tensorflow as tf

    layers = keras.layers
    model = keras.Sequential(
        [keras.Input((5, 3)), layers.Bidirectional(layers.LSTM(2)), layers.Dense(3), layers.Dense(3)]
    )
    model.compile("adam", "mse")
    model.fit(np.ones((8, 5, 3)), np.ones((8, 3)), verbose=0)
    stir(model)
    saver = tf.train.Checkpoint(model=model, optimizer=model.optimizer)
    saver.write(str(tmp_path / "files" / "old"))  # the newest one counts, not the first
    stir(model, seed=8)
    saver.save(str(tmp_path / "files" / "ckpt"))
    path = archive_of(model, tmp_path / "files", tmp_path / "model.zip")
    model.save(tmp_path / "whole.keras")
    whole = load("keras", tmp_path / "whole.keras", tmp_path / "a")
    assert_same(whole, load("checkpoint", path, tmp_path / "b"))
    assert "optimizer-dropped" in convert("checkpoint", "keras", path, tmp_path / "c")[1]


def test_the_weights_of_another_model_do_not_fit(tmp_path: Path) -> None:
    old_model(units=3).save_weights(str(tmp_path / "files" / "w"), save_format="tf")
    path = archive_of(old_model(), tmp_path / "files", tmp_path / "model.zip")
    with pytest.raises(WeightsMismatch, match="shape"):
        convert("checkpoint", "keras", path, tmp_path / "b")


def test_two_models_that_both_fit_are_not_guessed(tmp_path: Path) -> None:
    import keras
    import tensorflow as tf

    models = [keras.Sequential([keras.Input((2,)), keras.layers.Dense(3)]) for _ in range(2)]
    tf.train.Checkpoint(one=models[0], two=models[1]).write(str(tmp_path / "files" / "both"))
    path = archive_of(models[0], tmp_path / "files", tmp_path / "model.zip")
    with pytest.raises(ModelError, match="several models"):
        load("checkpoint", path, tmp_path / "b")


def test_data_of_another_checkpoint_is_damage(tmp_path: Path) -> None:
    model = old_model()
    model.save_weights(str(tmp_path / "files" / "w"), save_format="tf")
    (tmp_path / "files" / "w.index").write_bytes(b"not a table")
    path = archive_of(model, tmp_path / "files", tmp_path / "model.zip")
    with pytest.raises(CorruptFile, match="index"):
        convert("checkpoint", "keras", path, tmp_path / "b")


def test_a_checkpoint_alone_lacks_its_architecture(tmp_path: Path) -> None:
    old_model().save_weights(str(tmp_path / "files" / "w"), save_format="tf")
    path = pack_folder(tmp_path / "files", tmp_path / "alone.zip")
    with pytest.raises(IncompleteModel, match="architecture"):
        load("checkpoint", path, tmp_path / "b")
