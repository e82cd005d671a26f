"""Training goes on where it was: settings and state of the optimizer, from files of several eras, in stock Keras."""

from __future__ import annotations

import json
import os
import random
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import h5py
import numpy as np
import pytest

from tests.formats.corpus import Entry, entries
from tests.formats.models import convert, pack_folder
from worker import formats, intake

SEED = int(os.environ.get("LARDER_CORPUS_SEED") or random.SystemRandom().randrange(10**6))
PICKLED = ("pickle_model", "joblib_model", "cloudpickle_model")
TRAINED = ("h5", "keras_v3", "hdf5_named_keras", "savedmodel_keras", *PICKLED, "tf_checkpoint")
AFTER = "output_0_after_one_more_epoch"
X = np.random.default_rng(0).normal(size=(16, 4, 3)).astype("float32")
Y = np.random.default_rng(1).normal(size=(16, 3)).astype("float32")


def layers_of(keras: Any) -> list[Any]:
    """Weights of one shape beside each other, statistics, a frozen layer, and two halves of a Bidirectional."""
    layers = keras.layers
    frozen = layers.Dense(3, trainable=False)
    inside = [
        layers.Bidirectional(layers.SimpleRNN(2, unroll=True)),
        layers.BatchNormalization(),
        frozen,
        layers.Dense(3),
        layers.Dense(3),
    ]
    return [keras.Input((4, 3)), *inside]


def trained(keras: Any, optimizer: Any, loss: Any = "mse") -> Any:
    model = keras.Sequential(layers_of(keras))
    model.compile(optimizer, loss, metrics=["mae"], run_eagerly=True)
    further(model)
    return model


def further(model: Any) -> np.ndarray:
    """One more epoch, and what the model then answers."""
    model.run_eagerly = True  # tracing would take most of the time
    model.fit(X, Y, batch_size=8, shuffle=False, epochs=1, verbose=0)
    return np.asarray(model(X, training=False))


def saved(model: Any, slug: str, folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if slug != "saved_model":
            model.save(folder / f"model.{slug}")
            return folder / f"model.{slug}"
        model.save(folder / "saved", save_format="tf")
    return pack_folder(folder / "saved", folder / "saved.zip")


def legacy_adam(tf_keras: Any) -> Any:
    return tf_keras.optimizers.legacy.Adam(0.02, decay=0.1, amsgrad=True)


def legacy_momentum(tf_keras: Any) -> Any:
    return tf_keras.optimizers.legacy.SGD(0.02, momentum=0.9, nesterov=True)


def rmsprop(tf_keras: Any) -> Any:
    return tf_keras.optimizers.RMSprop(0.02, momentum=0.5, centered=True)


def scheduled(tf_keras: Any) -> Any:
    return tf_keras.optimizers.Adam(tf_keras.optimizers.schedules.ExponentialDecay(0.05, 2, 0.5))


CASES = [("h5", legacy_adam), ("saved_model", legacy_momentum), ("h5", rmsprop), ("saved_model", scheduled)]


@pytest.mark.parametrize(("slug", "make"), CASES, ids=lambda case: getattr(case, "__name__", case))
def test_an_epoch_more_gives_what_keras_2_gets(slug: str, make: Callable[[Any], Any], tmp_path: Path) -> None:
    import keras
    import tf_keras

    model = trained(tf_keras, make(tf_keras))
    path = saved(model, slug, tmp_path / "old")
    result, codes = convert(slug, "keras", path, tmp_path / "new")
    assert not {"optimizer-dropped", "compile-dropped", "compile-setting-dropped"} & set(codes)
    assert ("repaired-decay" in codes) == (make is legacy_adam)
    again = keras.saving.load_model(result)
    np.testing.assert_allclose(further(again), further(model), atol=2e-6)


def test_an_epoch_more_from_the_h5_of_keras_3(tmp_path: Path) -> None:
    import keras

    model = trained(keras, keras.optimizers.AdamW(0.02))
    result, _ = convert("h5", "keras", saved(model, "h5", tmp_path / "old"), tmp_path / "new")
    np.testing.assert_allclose(further(keras.saving.load_model(result)), further(model), atol=2e-6)


def test_h5_keeps_the_settings_and_says_that_the_state_is_lost(tmp_path: Path) -> None:
    """Keras reads its own state from .h5 into an optimizer that then refuses every weight."""
    import keras

    model = trained(keras, keras.optimizers.Adam(0.02))
    result, codes = convert("keras", "h5", saved(model, "keras", tmp_path / "old"), tmp_path / "new")
    assert "optimizer-dropped" in codes
    assert "compile-dropped" not in codes
    again = keras.saving.load_model(str(result))
    assert float(again.optimizer.learning_rate) == pytest.approx(0.02)
    further(again)


def test_a_target_without_training_says_so(tmp_path: Path) -> None:
    import keras

    path = saved(trained(keras, keras.optimizers.Adam(0.02)), "keras", tmp_path / "old")
    assert {"optimizer-dropped", "compile-dropped"} <= set(convert("keras", "json_npz", path, tmp_path / "new")[1])
    assert {"optimizer", "compiled", "recurrent"} <= formats.get("keras").inspect(path, tmp_path / "i").traits


def test_a_loss_of_somebodys_own_costs_only_that_loss(tmp_path: Path) -> None:
    import keras

    def twice(truth: Any, guess: Any) -> Any:
        return keras.ops.mean(keras.ops.square(truth - guess)) * 2.0

    path = saved(trained(keras, keras.optimizers.Adam(0.02), twice), "h5", tmp_path / "old")
    result, codes = convert("h5", "keras", path, tmp_path / "new")
    assert "compile-setting-dropped" in codes
    assert "optimizer-dropped" not in codes
    assert int(keras.saving.load_model(result).optimizer.iterations) == 2


def swap(file: Any) -> None:
    """Two values of one shape in each other's place: only their names tell."""
    group = file["optimizer_weights"]
    names = [name.decode() if isinstance(name, bytes) else name for name in group.attrs["weight_names"]]
    first = next(index for index, name in enumerate(names) if name.endswith("kernel/m:0"))
    second = names.index(names[first].replace("/m:0", "/v:0"))
    names[first], names[second] = names[second], names[first]
    group.attrs["weight_names"] = names


def forget(file: Any) -> None:
    file["optimizer_weights"].attrs["weight_names"] = file["optimizer_weights"].attrs["weight_names"][:3]


def rename(file: Any) -> None:
    config = json.loads(file.attrs["training_config"])
    config["optimizer_config"]["class_name"] = "Custom>Ours"
    file.attrs["training_config"] = json.dumps(config)


@pytest.mark.parametrize("damage", [swap, forget, rename])
def test_what_does_not_belong_is_left_out(damage: Callable[[Any], None], tmp_path: Path) -> None:
    import tf_keras

    path = saved(trained(tf_keras, tf_keras.optimizers.legacy.Adam(0.02)), "h5", tmp_path / "old")
    with h5py.File(path, "r+") as file:
        damage(file)
    assert "optimizer-dropped" in convert("h5", "keras", path, tmp_path / "new")[1]


def test_settings_that_keras_cannot_read_back_from_h5_are_not_written(tmp_path: Path) -> None:
    import keras

    from tests.formats.models import write
    from worker.formats._format import Hop
    from worker.formats.h5 import write as write_h5

    model = trained(keras, keras.optimizers.Adam(0.02))  # its loss is "mse", which Keras writes and cannot read
    hop = Hop(tmp_path)
    write_h5(model, tmp_path / "result", hop)
    assert [finding.code for finding in hop.findings] == ["compile-dropped"]
    keras.saving.load_model(write("h5", model, tmp_path / "again"))


def test_numbers_of_an_optimizer_that_nobody_names_are_said_to_be_lost(tmp_path: Path) -> None:
    """As Keras 3 pickles a compiled model: its archive has the state, and settings without the optimizer."""
    import keras

    path = tmp_path / "nameless.keras"
    with ZipFile(saved(trained(keras, "adam"), "keras", tmp_path)) as source, ZipFile(path, "w") as target:
        for name in source.namelist():
            content = source.read(name)
            if name == "config.json":
                config = json.loads(content)
                del config["compile_config"]["optimizer"]
                content = json.dumps(config).encode()
            target.writestr(name, content)
    assert {"compile-dropped", "optimizer-dropped"} <= set(convert("keras", "json_npz", path, tmp_path / "c")[1])
    assert "optimizer" in formats.get("keras").inspect(path, tmp_path / "i").traits


def drawn() -> list[Any]:
    """One trained model in each format, of any release that recorded what another epoch makes of it."""
    generator = random.Random(SEED)  # noqa: S311 - which files to look at is no secret
    found = [entry for entry in entries() if entry.data["has_optimizer_state"] and AFTER in entry.recorded.files]
    groups = {kind: [entry for entry in found if entry.format == kind] for kind in TRAINED}
    return [pytest.param(generator.choice(group), id=kind) for kind, group in groups.items() if group]


@pytest.mark.parametrize("entry", drawn())
def test_an_epoch_more_gives_what_its_writer_recorded(entry: Entry, tmp_path: Path) -> None:
    """Or a finding says that it will not: a checkpoint, and a pickle of Keras 3, do not say which optimizer it was."""
    import keras

    print(f"LARDER_CORPUS_SEED={SEED} {entry.id}")
    path = entry.gather(tmp_path).path
    slug = intake.recognise(intake.take_sample(path, path.name))[0].slug
    result, codes = convert(slug, "keras", path, tmp_path / "new")
    again = keras.saving.load_model(result)
    unnamed = entry.format == "tf_checkpoint" or (entry.format in PICKLED and "rebuilt" not in codes)
    assert ("optimizer-dropped" in codes) == unnamed
    if unnamed:
        assert not again.compiled
        return
    given = entry.recorded
    again.fit(given["train_x"], given["train_y"], batch_size=8, shuffle=False, epochs=1, verbose=0)
    answer = np.asarray(again(given["input_0"], training=False))
    assert np.abs(given["output_0"] - given[AFTER]).max() > 1e-3
    np.testing.assert_allclose(answer, given[AFTER], atol=2e-6)
