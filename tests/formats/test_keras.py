"""``.keras``: of Keras 3, of Keras 2, unpacked, damaged, and with what must not run."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.formats.byte_code import stored
from tests.formats.models import assert_same, convert, inputs_of, load, pack_folder, stir
from worker import formats
from worker.errors import CorruptFile, CustomCode, LambdaRefused, ModelError, WeightsMismatch


def test_it_works(made_file: Callable[[str, str], Path], tmp_path: Path) -> None:
    loaded = load("keras", made_file("several", "keras"), tmp_path)
    assert [spec.name for spec in loaded.inputs] == ["left", "right", "kind"]
    assert [spec.name for spec in loaded.outputs] == ["label", "score"]
    assert loaded.inputs[2].limit == 9  # the size of the embedding
    assert loaded.run(inputs_of(loaded))["label"].shape == (3, 3)


def test_inspect_tells_the_structure_without_weights(made_file: Callable[[str, str], Path], tmp_path: Path) -> None:
    summary = formats.get("keras").inspect(made_file("conv", "keras"), tmp_path)
    assert summary.inputs[0].shape == (None, 9, 8, 3)
    assert summary.outputs[0].shape == (None, 5)
    assert summary.parameters == 235
    assert [row.kind for row in summary.layers][:2] == ["InputLayer", "Conv2D"]
    assert summary.producer["keras"].startswith("3.")
    assert "keras-config" in summary.traits


@pytest.mark.parametrize("prefix", ["", "export/v2/"])
def test_an_unpacked_archive_packed_again(prefix: str, made_file: Callable[[str, str], Path], tmp_path: Path) -> None:
    path = made_file("recurrent", "keras")
    with zipfile.ZipFile(path) as archive:
        archive.extractall(tmp_path / "unpacked")
    again = pack_folder(tmp_path / "unpacked", tmp_path / "again.zip", prefix)
    assert_same(load("keras", path, tmp_path / "a"), load("keras", again, tmp_path / "b"))


def test_a_file_of_keras_2_is_rebuilt_and_compared_with_an_independent_reader(tmp_path: Path) -> None:
    import tf_keras

    model = tf_keras.Sequential(
        [
            tf_keras.layers.Bidirectional(tf_keras.layers.GRU(3, return_sequences=True), input_shape=(5, 2)),
            tf_keras.layers.LSTM(4, recurrent_activation="hard_sigmoid"),
            tf_keras.layers.Dense(2, name="dense_9"),
        ]
    )
    stir(model)
    model.compile("adam", "mse")
    model.save(tmp_path / "old.keras")
    loaded = load("keras", tmp_path / "old.keras", tmp_path / "a")
    result, codes = convert("keras", "json_npz", tmp_path / "old.keras", tmp_path / "b")
    assert_same(loaded, load("json_npz", result, tmp_path / "c"))
    assert {"rebuilt", "repaired-time-major", "repaired-hard-sigmoid", "compile-dropped", "optimizer-dropped"} <= set(
        codes
    )


def edited(path: Path, target: Path, change: Callable[[dict[str, Any]], None]) -> Path:
    """A copy of a .keras file with another config."""
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(target, "w") as result:
        for name in source.namelist():
            content = source.read(name)
            if name == "config.json":
                config = json.loads(content)
                change(config)
                content = json.dumps(config).encode()
            result.writestr(name, content)
    return target


def test_byte_code_that_is_not_understood_is_refused(made_file: Callable[[str, str], Path], tmp_path: Path) -> None:
    code = stored(lambda x: print(x))

    def put_lambda(config: dict[str, Any]) -> None:
        config["config"]["layers"][1] = {
            "module": "keras.layers",
            "class_name": "Lambda",
            "config": {"name": "sneaky", "function": {"class_name": "__lambda__", "config": {"code": code}}},
        }

    path = edited(made_file("dense", "keras"), tmp_path / "bad.keras", put_lambda)
    with pytest.raises(LambdaRefused, match=r"sneaky.*print"):
        load("keras", path, tmp_path)
    assert formats.get("keras").inspect(path, tmp_path).layers  # it can still be looked at


def test_unknown_classes_are_named(made_file: Callable[[str, str], Path], tmp_path: Path) -> None:
    def rename(config: dict[str, Any]) -> None:
        config["config"]["layers"][2].update(class_name="Swoosh", module=None, registered_name="Ours>Swoosh")

    path = edited(made_file("dense", "keras"), tmp_path / "custom.keras", rename)
    with pytest.raises(CustomCode, match="Swoosh"):
        load("keras", path, tmp_path)
    assert formats.get("keras").inspect(path, tmp_path).custom_objects == ("Swoosh",)


def test_broken_json_is_said(made_file: Callable[[str, str], Path], tmp_path: Path) -> None:
    path = tmp_path / "broken.keras"
    with zipfile.ZipFile(made_file("dense", "keras")) as source, zipfile.ZipFile(path, "w") as result:
        result.writestr("config.json", b"{")
        result.writestr("model.weights.h5", source.read("model.weights.h5"))
    with pytest.raises(CorruptFile, match="JSON"):
        load("keras", path, tmp_path)


def test_a_learnt_vocabulary_goes_everywhere(tmp_path: Path) -> None:
    import keras

    text = keras.Input((1,), dtype="string", name="text")
    words = keras.layers.TextVectorization(output_sequence_length=3, name="words")
    words.adapt(np.array([["a cat"], ["a dog"]]))
    model = keras.Model(text, keras.layers.Embedding(9, 2, name="out")(words(text)))
    model.save(tmp_path / "text.keras")
    feed = {"text": np.array([[b"dog a"], [b"cat ?"]])}
    wanted = load("keras", tmp_path / "text.keras", tmp_path / "source").run(feed)["out"]
    for target in ("h5", "json_npz", "weights_h5", "saved_model"):
        result, _ = convert("keras", target, tmp_path / "text.keras", tmp_path / target)
        assert np.array_equal(load(target, result, tmp_path / f"{target}-load").run(feed)["out"], wanted)


def test_weights_of_another_model_do_not_fit(tmp_path: Path) -> None:
    import tf_keras

    small, large = (tf_keras.Sequential([tf_keras.layers.Dense(size, input_shape=(3,))]) for size in (2, 4))
    small.save(tmp_path / "small.keras")
    large.save(tmp_path / "large.keras")
    with zipfile.ZipFile(tmp_path / "mixed.keras", "w") as mixed:
        for name, source in (("config.json", "small"), ("metadata.json", "small"), ("model.weights.h5", "large")):
            with zipfile.ZipFile(tmp_path / f"{source}.keras") as archive:
                mixed.writestr(name, archive.read(name))
    with pytest.raises(WeightsMismatch, match="shape"):
        load("keras", tmp_path / "mixed.keras", tmp_path)


@pytest.mark.parametrize(
    ("kind", "config"),
    [
        ("StringLookup", {"vocabulary": "/etc/hostname"}),
        ("TextVectorization", {"vocabulary": "words.txt"}),
        ("TFSMLayer", {"filepath": "/srv/model"}),
    ],
)
def test_files_of_the_machine_are_never_opened(
    kind: str, config: dict[str, Any], made_file: Callable[[str, str], Path], tmp_path: Path
) -> None:
    def put(root: dict[str, Any]) -> None:
        layer = {"module": "keras.layers", "class_name": kind, "config": {"name": "nosy", **config}}
        root["config"]["layers"].insert(1, layer)

    path = edited(made_file("dense", "keras"), tmp_path / "nosy.keras", put)
    with pytest.raises(ModelError, match="nosy"):
        load("keras", path, tmp_path)
