"""Architecture JSON and NumPy arrays: in the writer's order, without pickles, with fresh statistics."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.formats.models import assert_same, convert, load, pack, stir
from worker import formats
from worker.errors import AmbiguousFormat, IncompleteModel, ModelError, PickledCode, WeightsMismatch
from worker.intake import take_sample


def test_it_works(made_file: Callable[[str, str], Path], tmp_path: Path) -> None:
    path = made_file("several", "json_npz")
    assert_same(load("keras", made_file("several", "keras"), tmp_path / "a"), load("json_npz", path, tmp_path / "b"))
    assert [spec.name for spec in formats.get("json_npz").inspect(path, tmp_path).inputs] == ["left", "right", "kind"]


def two_files(model: object, folder: Path, *arrays: np.ndarray) -> Path:
    """The model's JSON with the given arrays, as people pack them."""
    np.savez(folder / "w.npz", *arrays)
    text = model.to_json().encode()  # type: ignore[attr-defined]
    return pack(folder / "pair.zip", deep___architecture__json=text, deep___weights__npz=folder / "w.npz")


def test_more_than_ten_arrays_keep_their_order(tmp_path: Path) -> None:
    import keras

    model = keras.Sequential([keras.Input((2,)), *(keras.layers.Dense(2) for _ in range(6))])
    stir(model)
    model.save(tmp_path / "deep.keras")
    path = two_files(model, tmp_path, *model.get_weights())
    assert_same(load("keras", tmp_path / "deep.keras", tmp_path / "a"), load("json_npz", path, tmp_path / "b"))


def test_a_text_inside_of_a_text(tmp_path: Path) -> None:
    """``json.dump(model.to_json(), file)``."""
    import keras

    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(2)])
    stir(model)
    model.save(tmp_path / "plain.keras")
    np.savez(tmp_path / "w.npz", *model.get_weights())
    text = json.dumps(model.to_json()).encode()
    path = pack(tmp_path / "pair.zip", architecture__json=text, notes__json=b'{"a": 1}', w__npz=tmp_path / "w.npz")
    assert [item.slug for item in formats.matches(take_sample(path, "pair.zip"))] == ["json_npz"]
    assert_same(load("keras", tmp_path / "plain.keras", tmp_path / "a"), load("json_npz", path, tmp_path / "b"))


def test_normalization_statistics_are_not_lost(tmp_path: Path) -> None:
    import keras

    model = keras.Sequential([keras.Input((2,), name="x"), keras.layers.Normalization(name="y")])
    model.layers[0].adapt(np.array([[1.0, 10.0], [3.0, 30.0]]))
    model.save(tmp_path / "norm.keras")
    path = two_files(model, tmp_path, *model.get_weights())
    found = load("json_npz", path, tmp_path / "a").run({"x": np.array([[3.0, 30.0]], "float32")})["y"]
    np.testing.assert_allclose(found, [[1.0, 1.0]], rtol=1e-6)


def test_weights_of_another_shape_are_refused_with_both_shapes(tmp_path: Path) -> None:
    import keras

    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(3)])
    path = two_files(model, tmp_path, np.ones((4, 3), "float32"), np.ones(3, "float32"))
    with pytest.raises(WeightsMismatch, match=r"\(2, 3\).*\(4, 3\)"):
        load("json_npz", path, tmp_path)


def test_a_pickle_in_the_npz_is_refused(tmp_path: Path) -> None:
    import keras

    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(3)])
    path = two_files(model, tmp_path, np.array([None, "x"], dtype=object))
    with pytest.raises(PickledCode):
        load("json_npz", path, tmp_path)


def test_two_weights_files_are_ambiguous_and_none_is_incomplete(tmp_path: Path) -> None:
    import keras

    text = keras.Sequential([keras.Input((2,)), keras.layers.Dense(3)]).to_json().encode()
    with pytest.raises(AmbiguousFormat):
        load("json_npz", pack(tmp_path / "two.zip", a__json=text, b__npz=b"PK", c__npz=b"PK"), tmp_path / "a")
    with pytest.raises(IncompleteModel, match="npz"):
        load("json_npz", pack(tmp_path / "none.zip", a__json=text), tmp_path / "b")


def test_json_of_something_else_is_no_architecture(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="not the architecture"):
        load("json_npz", pack(tmp_path / "x.zip", a__json=b'{"class_name": "Dense"}', b__npz=b"PK"), tmp_path)


def test_a_pair_of_keras_2_in_its_own_order(tmp_path: Path) -> None:
    """A nested model with a frozen layer: get_weights of Keras 2 goes layer by layer."""
    import tf_keras

    layers = tf_keras.layers
    inner = tf_keras.Sequential([layers.Dense(4, input_shape=(4,)), layers.BatchNormalization(), layers.Dense(4)])
    inner.layers[0].trainable = False
    model = tf_keras.Sequential([layers.Dense(4, input_shape=(3,)), inner, layers.Dense(4)])
    stir(model)
    path = two_files(model, tmp_path, *model.get_weights())
    result, codes = convert("json_npz", "keras", path, tmp_path / "b")
    assert_same(load("json_npz", path, tmp_path / "a"), load("keras", result, tmp_path / "c"))
    assert "rebuilt" in codes
