"""An architecture with pickled weights: every shape in which people keep them, in the writer's order, as data."""

from __future__ import annotations

import io
import json
import os
import pickle as standard
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench.corpus import stratified
from tests.formats.corpus import Entry, entries
from tests.formats.models import assert_same, convert, load, made, pack, stir
from tests.worker import opcodes
from worker import formats, intake
from worker.errors import AmbiguousFormat, CorruptFile, IncompleteModel, ModelError, NoRoute, WeightsMismatch
from worker.formats._format import Summary
from worker.routes import find_route

SEED = int(os.environ.get("LARDER_CORPUS_SEED") or random.SystemRandom().randrange(10**6))


def saved(value: Any) -> bytes:
    """What ``np.save`` writes."""
    buffer = io.BytesIO()
    np.save(buffer, value)
    return buffer.getvalue()


def of_objects(rows: list[Any]) -> bytes:
    return saved(np.array(rows, dtype=object))


def pair(folder: Path, model: Any, **weights: bytes) -> Path:
    model.save(folder / "model.keras")
    return pack(folder / "pair.zip", architecture__json=model.to_json().encode(), **weights)


def assert_loads(folder: Path, model: Any, **weights: bytes) -> None:
    path = pair(folder, model, **weights)
    sample = intake.take_sample(path, path.name)
    assert [item.slug for item in formats.matches(sample)] == ["json_pickle"]
    assert_same(load("keras", folder / "model.keras", folder / "a"), load("json_pickle", path, folder / "b"))


def test_it_works(tmp_path: Path) -> None:
    """``np.save`` of the weights of each layer, those without weights included."""
    model = made("several")
    assert_loads(tmp_path, model, weights__npy=of_objects([layer.get_weights() for layer in model.layers]))
    inputs = formats.get("json_pickle").inspect(tmp_path / "pair.zip", tmp_path).inputs
    assert [spec.name for spec in inputs] == ["left", "right", "kind"]


@pytest.mark.parametrize("protocol", [0, 2, 5])
def test_a_pickle_of_get_weights(protocol: int, tmp_path: Path) -> None:
    model = made("recurrent")
    assert_loads(tmp_path, model, w__pkl=standard.dumps(model.get_weights(), protocol))


def test_a_compressed_pickle_by_layers_names(tmp_path: Path) -> None:
    model = made("dense")
    rows = {layer.name: layer.get_weights() for layer in model.layers}
    assert_loads(tmp_path, model, weights__joblib=opcodes.COMPRESSIONS["lz4"](standard.dumps(rows)))


def test_arrays_that_became_one(tmp_path: Path) -> None:
    """Where all arrays have one shape, NumPy makes one array of them, of numbers or of objects."""
    import keras

    layers = [keras.layers.Dense(3, use_bias=False) for _ in range(4)]
    model = keras.Sequential([keras.Input((3,)), *layers])
    stir(model)
    rows = [layer.get_weights() for layer in model.layers]
    for number, weights in enumerate([saved(rows), saved(model.get_weights()), of_objects(rows)]):
        (tmp_path / str(number)).mkdir()
        assert_loads(tmp_path / str(number), model, weights__npy=weights)


def test_layers_with_as_many_weights_each(tmp_path: Path) -> None:
    """The array of objects then has two axes."""
    import keras

    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(4), keras.layers.Dense(2)])
    stir(model)
    weights = np.empty((2, 2), dtype=object)
    for row, layer in enumerate(model.layers):
        weights[row, 0], weights[row, 1] = layer.get_weights()
    assert_loads(tmp_path, model, weights__npy=saved(weights))


def test_variables_and_tensors_are_the_arrays_that_they_are_made_from(tmp_path: Path) -> None:
    import tensorflow as tf

    model = made("dense")
    held = [
        tf.constant(value) if number % 2 else tf.Variable(value) for number, value in enumerate(model.get_weights())
    ]
    assert_loads(tmp_path, model, w__pkl=standard.dumps(held))


def test_weights_of_another_model_are_refused(tmp_path: Path) -> None:
    path = pair(tmp_path, made("dense"), w__pkl=standard.dumps(made("conv").get_weights()))
    with pytest.raises(WeightsMismatch):
        load("json_pickle", path, tmp_path)


def test_pickles_of_something_else_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    with pytest.raises(ModelError, match="no lists of arrays"):
        load("json_pickle", pair(tmp_path / "a", made("dense"), w__pkl=opcodes.OS_SYSTEM), tmp_path / "a")
    (tmp_path / "b").mkdir()
    with pytest.raises(CorruptFile, match="no whole pickle"):
        load("json_pickle", pair(tmp_path / "b", made("dense"), w__pkl=opcodes.OS_SYSTEM[:-1]), tmp_path / "b")


def test_two_weights_files_are_ambiguous_and_none_is_incomplete(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    with pytest.raises(AmbiguousFormat):
        load("json_pickle", pair(tmp_path / "a", made("dense"), v__pkl=b"x", w__npy=b"y"), tmp_path / "a")
    (tmp_path / "b").mkdir()
    with pytest.raises(IncompleteModel):
        load("json_pickle", pair(tmp_path / "b", made("dense"), notes__txt=b"x"), tmp_path / "b")


def test_other_pairs_are_not_this_one(tmp_path: Path) -> None:
    item = formats.get("json_pickle")
    with_npz = pair(tmp_path, made("dense"), w__npz=b"PK", notes__pkl=b"x")
    assert not item.sniff(intake.take_sample(with_npz, "pair.zip"))
    np.savez(tmp_path / "plain.npz", np.ones(3))
    assert not item.sniff(intake.take_sample(tmp_path / "plain.npz", "plain.npz"))


def test_nothing_becomes_it() -> None:
    with pytest.raises(NoRoute, match="Larder makes none"):
        find_route("keras", "json_pickle", Summary(traits=frozenset({"weights", "keras-config"})))


def drawn() -> list[Any]:
    """One entry of every version and kind of pickled weights, of those that nobody has to refuse."""
    pickled = [entry for entry in entries() if entry.format in ("pickle_weights", "json+npy_object")]
    readable = [entry for entry in pickled if not entry.code and not entry.refusals]
    return [pytest.param(entry, id=f"{entry.tag}-{entry.format}") for entry in stratified(readable, 1, SEED)]


@pytest.mark.parametrize("entry", drawn())
def test_it_computes_what_its_writer_recorded(entry: Entry, tmp_path: Path) -> None:
    print(f"LARDER_CORPUS_SEED={SEED} {entry.id}")
    path = entry.gather(tmp_path).path
    loaded = load("json_pickle", path, tmp_path / "a")
    assert entry.difference(loaded.run(entry.inputs([spec.name for spec in loaded.inputs]))) == ""


def test_it_becomes_keras(tmp_path: Path) -> None:
    model = made("dense")
    path = pair(tmp_path, model, w__pkl=standard.dumps(model.get_weights()))
    result, _ = convert("json_pickle", "keras", path, tmp_path / "a")
    assert_same(load("keras", tmp_path / "model.keras", tmp_path / "b"), load("keras", result, tmp_path / "c"))


@pytest.mark.parametrize("layout", ["rows", "flat", "with numbers"])
def test_words_among_the_weights_come_back(layout: str, tmp_path: Path) -> None:
    """Keras 2 counted a vocabulary among the weights; without it the model would answer, and answer wrongly."""
    import tf_keras

    words = ["the", "cat", "sat"]
    vectorize = tf_keras.layers.TextVectorization(max_tokens=9, output_sequence_length=4, vocabulary=words)
    layers = [tf_keras.Input((1,), dtype="string", name="text"), vectorize, tf_keras.layers.Embedding(9, 2, name="out")]
    model = tf_keras.Sequential(layers)
    table = {"embedding": np.arange(18, dtype="f4").reshape(9, 2)}["embedding"]
    model.layers[-1].set_weights([table])
    root = json.loads(model.to_json())
    next(layer for layer in root["config"]["layers"] if "Vector" in layer["class_name"])["config"]["vocabulary"] = None
    keys = np.array([b"sat", b"", b"the", b"[UNK]", b"cat"], dtype=object)
    held = {
        "rows": [[np.array(words, dtype=object)], [table]],
        "flat": [np.array(words, dtype=object), table],
        "with numbers": [[keys, np.array([4, 0, 2, 1, 3])], [table]],
    }[layout]
    path = pack(tmp_path / "p.zip", a__json=json.dumps(root).encode(), w__pkl=standard.dumps(held))
    asked = np.array([["the sat dog cat"]], dtype=object)
    wanted = table[[2, 4, 1, 3]][None]
    loaded = load("json_pickle", path, tmp_path / "a")
    np.testing.assert_array_equal(loaded.run({loaded.inputs[0].name: asked})[loaded.outputs[0].name], wanted)
    result, _ = convert("json_pickle", "keras", path, tmp_path / "b")
    loaded = load("keras", result, tmp_path / "c")
    np.testing.assert_array_equal(loaded.run({loaded.inputs[0].name: asked})[loaded.outputs[0].name], wanted)
