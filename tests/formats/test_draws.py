"""What inputs are made of a signature, and of what the layers behind it imply."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.formats import models
from worker.errors import BadSamples
from worker.formats import _implied_graphs as graphs
from worker.formats import _live
from worker.formats._draws import GUESSES, Guess, distinct_guesses, far_out, make_inputs, make_rows
from worker.formats._format import Loaded, TensorSpec, no_weights
from worker.formats._implied import Fed, Implied, numbers_between
from worker.formats._implied_graphs import Body, Known, Operation, implied_by_graph

EXACT = Guess(8, 10)


def drawn(spec: TensorSpec, guess: Guess = EXACT, seed: int = 7) -> list[np.ndarray]:
    return [draw[spec.name] for draw in make_inputs((spec,), seed, guess)]


def spec(dtype: str, shape: tuple[int | None, ...] | None = (None, 4), **implied: Any) -> TensorSpec:
    return TensorSpec("x", shape, dtype, **implied)


def test_it_works() -> None:
    first, second = (drawn(spec("float32")) for _ in range(2))
    assert [array.shape for array in first] == [(1, 4), (16, 4), (16, 4), (3, 4)]
    assert all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))
    assert not np.array_equal(first[1], drawn(spec("float32"), seed=8)[1])


def test_rows_that_are_small_are_many() -> None:
    assert [len(array) for array in drawn(spec("float32", (None, 1001)))] == [1, 3, 3, 3]
    assert [len(array) for array in drawn(spec("float32", (2, 4)))] == [2, 2, 2, 2]


def test_numbers_far_beyond_the_others() -> None:
    index = TensorSpec("i", (None, 4), "float32", limit=9)
    near = make_inputs((spec("float32"), index), 7, EXACT)[1]
    far = far_out((spec("float32"), index), near)
    assert far is not None
    assert np.array_equal(far["i"], near["i"])
    assert np.allclose(far["x"][:4] / near["x"][:4], np.array([[10.0], [100.0], [3.0], [10.0]]))
    assert far_out((index,), near) is None


# Kinds of numbers -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16", "complex64", "bool", "int8", "uint8", "int64"])
def test_every_kind_of_number(dtype: str) -> None:
    arrays = drawn(spec(dtype))
    assert {array.dtype.name for array in arrays} == {"float32" if dtype == "bfloat16" else dtype}
    assert all(len(np.unique(array)) > 1 for array in arrays[1:3])
    assert not arrays[3].any()


def test_complex_numbers_have_both_parts() -> None:
    array = drawn(spec("complex64"))[1]
    assert array.real.any()
    assert array.imag.any()


def test_bytes_are_drawn_from_all_that_there_are() -> None:
    large = spec("int8", (None, 400))
    assert (drawn(large)[2].min(), drawn(large)[2].max()) == (-128, 127)
    assert drawn(spec("uint8", (None, 400)))[2].max() == 255
    assert drawn(large, Guess(8, 2))[1].max() == 1  # where the source refused


def test_indices_stay_in_the_table_and_reach_its_ends() -> None:
    for array in drawn(spec("int32", (None, 50), limit=7)) + drawn(spec("float32", (None, 50), limit=7)):
        assert array.min() >= 0
        assert array.max() <= 6
        assert np.array_equal(array, array.astype(int))
    assert {0, 6} <= set(drawn(spec("int32", limit=7))[2].flat)


def test_a_small_dtype_bounds_a_large_table() -> None:
    assert drawn(spec("int8", (None, 400), limit=1000))[1].max() <= 127


def test_no_values_of_an_unknown_dtype() -> None:
    with pytest.raises(BadSamples, match="resource"):
        drawn(spec("resource"))


# What layers imply ------------------------------------------------------------------------------------------------


def test_images_are_tried_at_their_scale_too() -> None:
    normal, middle, uniform, zeros = drawn(spec("float32", (None, 16, 16, 3), low=(0.0,), high=(255.0,)))
    assert np.abs(normal).max() < 10
    assert 100 < middle.mean() < 155
    assert 30 < middle.std() < 90
    assert uniform.min() < 10
    assert uniform.max() > 245
    assert not zeros.any()


def test_each_feature_has_its_own_range() -> None:
    low, high = (998.0, -1.0), (1002.0, 3.0)
    for array in drawn(spec("float32", (None, 2), low=low, high=high)):
        assert array[:, 0].min() > 990
        assert array[:, 0].max() < 1010
        assert np.abs(array[:, 1]).max() < 10
    assert drawn(spec("float32", (None, 5), low=low, high=high))[2].max() < 1002.1  # does not fit: one range for all


def test_beside_samples_there_is_nothing_but_their_like() -> None:
    specs = (spec("float32", (None, 2)), TensorSpec("kind", (None,), "int32"))
    samples = {"x": np.array([[0.0, 50.0], [100.0, 150.0]], "float32"), "kind": np.array([1, 2], "int32")}
    draws = make_inputs(specs, 7, EXACT, like=samples)
    assert [draw["x"].shape for draw in draws] == [(1, 2), (3, 2), (3, 2), (3, 2)]
    for draw in draws:
        nearest = samples["x"][draw["kind"] - 1]  # the same rows of both
        assert np.abs(draw["x"] - nearest).max() < 10
    assert not np.isin(draws[1]["x"], samples["x"]).all()
    assert np.isin(draws[3]["x"], samples["x"]).all()
    again = make_inputs(specs, 7, EXACT, like=samples)
    assert np.array_equal(draws[1]["x"], again[1]["x"])


def test_padded_rows_end_in_padding() -> None:
    rows = drawn(spec("int32", (None, 9), limit=5, padding=0.0))
    assert rows[1].shape == (16, 9)
    lengths = [int((row != 0).sum()) for row in rows[2]]
    assert lengths[0] == 9
    assert lengths == sorted(lengths, reverse=True)
    assert lengths[-1] >= 1
    assert all((row[length:] == 0).all() for row, length in zip(rows[2], lengths, strict=True))
    masked = drawn(spec("float32", (None, 9, 2), padding=-1.0))[2]
    assert (masked[15, -1] == -1).all()
    assert (masked[0] != -1).all()


def test_words_of_the_vocabulary_and_others() -> None:
    arrays = drawn(spec("string", (None, 40), words=("red", "green")))
    found = {word.decode() for array in arrays for word in array.flat}
    assert {"red", "green", "", "unseen-word"} <= found
    known = drawn(spec("string", (None, 40), words=("red", "green")), Guess(8, 10, known=True))
    assert {word for array in known for word in array.flat} == {b"red", b"green"}


def test_entries_of_a_vocabulary_of_whole_numbers() -> None:
    values = {int(value) for array in drawn(spec("int64", (None, 40), words=("100", "200"))) for value in array.flat}
    assert {100, 200} < values
    known = drawn(spec("int64", (None, 40), words=("100", "200")), Guess(8, 10, known=True))
    assert {int(value) for array in known for value in array.flat} == {100, 200}


# Free dimensions --------------------------------------------------------------------------------------------------


def test_free_dimensions_have_two_sizes() -> None:
    assert [array.shape[1] for array in drawn(spec("float32", (None, None, 3)), GUESSES[0])] == [1, 32, 32, 32]
    images = drawn(spec("float32", (None, None, None, 3)), GUESSES[0])
    assert [array.shape for array in images[:2]] == [(1, 64, 64, 3), (3, 32, 32, 3)]
    assert drawn(spec("float32", None), GUESSES[0])[1].shape == (16, 32)


def test_what_would_be_drawn_again_is_not_tried_again() -> None:
    assert len(distinct_guesses((spec("float32"),))) == 2  # numbers, and whole numbers
    assert len(distinct_guesses((spec("int32", limit=3),))) == 1
    assert len(distinct_guesses((spec("float32", (None, None)),))) > 6


def picky(length: int | None, other: int) -> Loaded:
    """A model that takes sequences of one length or another."""

    def run(arrays: dict[str, Any]) -> dict[str, Any]:
        if arrays["x"].shape[1] not in (length, other):
            raise ValueError("no such length")
        return arrays

    return Loaded((spec("float32", (None, None)),), (), run, no_weights)


def test_rows_for_calibration_are_other_rows() -> None:
    rows = make_rows(picky(8, 8), 7, 8)
    assert len(rows) == 8
    assert {row["x"].shape for row in rows} == {(1, 8)}
    draws = make_inputs((spec("float32", (None, None)),), 7, EXACT)
    assert not any(np.array_equal(rows[0]["x"][0], row) for row in draws[1]["x"])


def test_rows_for_calibration_are_in_the_implied_range() -> None:
    image = spec("float32", (None, 4, 4, 3), low=(0.0,), high=(255.0,))
    rows = make_rows(Loaded((image,), (), lambda arrays: arrays, no_weights), 7, 8)
    assert sum(row["x"].max() > 100 for row in rows) == 7  # and one of zeros


# A job's word -----------------------------------------------------------------------------------------------------


def test_a_spec_survives_json() -> None:
    full = spec("int32", limit=3, low=(0.0,), high=(2.0,), words=("1",), padding=0.0)
    data = {"name": "x", "shape": [None, 4], "dtype": "int32", "limit": 3, "low": [0], "high": [2.0], "words": ["1"]}
    assert TensorSpec.from_json({**data, "padding": 0}) == full
    assert TensorSpec.from_json({"name": "x", "shape": [None, 4], "dtype": "int32"}) == spec("int32")


@pytest.mark.parametrize(
    "wrong", [{"low": ["a"]}, {"high": [float("nan")]}, {"low": [0.0] * 5000}, {"padding": float("inf")}, {"low": 3}]
)
def test_nonsense_of_a_job_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises((ValueError, TypeError)):
        TensorSpec.from_json({"name": "x", "shape": None, "dtype": "float32"} | wrong)


def test_words_of_a_job_are_bounded() -> None:
    data = {"name": "x", "shape": None, "dtype": "string", "words": ["w" * 1000] * 1000}
    words = TensorSpec.from_json(data).words
    assert len(words) <= 64
    assert max(map(len, words)) <= 200


# How layers are read ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("scale", "shift", "low", "high"),
    [
        (1 / 255, 0, 0, 255),
        (1 / 127.5, -1, 0, 255),
        (1 / 255, -0.5, 0, 255),
        (0.5, -50, 96, 104),  # mean 100, deviation 2
        (1, -120, 0, 240),
    ],
)
def test_a_scale_tells_the_range(scale: float, shift: float, low: float, high: float) -> None:
    fed = Fed(np.array(scale), np.array(float(shift))).implied()
    assert fed.low == pytest.approx((low,))
    assert fed.high == pytest.approx((high,))


@pytest.mark.parametrize(("scale", "shift"), [(1, 0), (0.5, 0), (-1, 0), (1, 0.1), (float("nan"), 3), (1e-300, 2)])
def test_other_arithmetic_tells_nothing(scale: float, shift: float) -> None:
    assert Fed(np.array(scale), np.array(float(shift))).implied() == Implied()


def test_a_range_upside_down_is_none() -> None:
    assert numbers_between(np.array(2.0), np.array(1.0)) == Implied()


def _images(keras: Any) -> Any:
    layers = keras.layers
    image = keras.Input((None, None, 3), name="x")
    x = layers.Normalization(mean=[0.4, 0.5, 0.6], variance=[0.04, 0.05, 0.06])(layers.Rescaling(1 / 255)(image))
    return keras.Model(image, layers.GlobalAveragePooling2D()(layers.Conv2D(2, 3)(x)))


def _prepared(keras: Any) -> Any:
    image = keras.Input((8, 8, 3), name="x")
    return keras.Model(image, keras.layers.Conv2D(2, 3)(keras.applications.mobilenet.preprocess_input(image)))


def _text(keras: Any) -> Any:
    layers = keras.layers
    text = keras.Input((1,), name="x", dtype="string")
    vector = layers.TextVectorization(vocabulary=["red", "green"], output_sequence_length=4)(text)
    return keras.Model(text, layers.Embedding(4, 2)(vector))


def _masked(keras: Any) -> Any:
    layers = keras.layers
    tokens, more = (keras.Input((3,), name=name, dtype="int32") for name in ("x", "more"))
    x = layers.Embedding(30, 4, mask_zero=True)(layers.Concatenate()([tokens, more]))
    return keras.Model([tokens, more], layers.LSTM(2)(x))


def _numbers(keras: Any) -> Any:
    layers = keras.layers
    code = keras.Input((1,), name="x", dtype="int64")
    known = layers.IntegerLookup(vocabulary=[100, 200], num_oov_indices=0)(code)
    return keras.Model(code, layers.Dense(2)(layers.CategoryEncoding(3)(known)))


def _first(keras: Any, make: Callable[[Any], Any]) -> TensorSpec:
    found: TensorSpec = _live.input_specs(make(keras))[0]
    return found


@pytest.mark.parametrize("library", ["keras", "tf_keras"])
def test_layers_of_both_libraries_are_read(library: str) -> None:
    keras = import_module(library)
    images = _first(keras, _images)
    assert images.low == pytest.approx((0.0, 13.46, 28.08), abs=0.01)
    assert images.high == pytest.approx((204.0, 241.54, 277.92), abs=0.01)
    prepared = _first(keras, _prepared)
    assert prepared.low == (0.0,)
    assert prepared.high == pytest.approx((255.0,))
    assert set(_first(keras, _text).words) == {"red", "green"}
    masked = _first(keras, _masked)
    assert (masked.limit, masked.padding) == (30, 0.0)
    assert _first(keras, _numbers).words == ("100", "200")


@pytest.mark.parametrize(("make", "targets"), [(_images, ("frozen_graph", "onnx")), (_masked, ("onnx", "tflite"))])
def test_graphs_say_the_same(tmp_path: Path, make: Callable[[Any], Any], targets: tuple[str, ...]) -> None:
    import keras

    source = models.write("keras", make(keras), tmp_path)
    saved, _ = models.convert("keras", "saved_model", source, tmp_path / "saved")
    wanted = models.load("keras", source, tmp_path).inputs[0]
    for target in ("saved_model", *targets):
        path = saved if target == "saved_model" else models.convert("saved_model", target, saved, tmp_path / target)[0]
        found = next(item for item in models.load(target, path, tmp_path / f"{target}-run").inputs if item.name == "x")
        assert found.limit == wanted.limit
        assert found.low == pytest.approx(wanted.low, abs=1e-3)
        assert found.high == pytest.approx(wanted.high, abs=1e-3)


def test_a_table_of_a_saved_model_tells_its_words(tmp_path: Path) -> None:
    import keras

    source = models.write("keras", _text(keras), tmp_path)
    saved, _ = models.convert("keras", "saved_model", source, tmp_path / "saved")
    assert models.load("saved_model", saved, tmp_path).inputs[0].words == ("green", "red")


def test_a_graph_is_walked_no_longer_than_it_is() -> None:
    """A function that calls itself, as only a hostile file does."""
    around = Body([Operation(graphs.CALL, ["a"], ["b"], body="again")], ["a"], ["b"])
    found = implied_by_graph({"a": spec("float32")}, around, functions=lambda name: around)
    assert found["a"] == spec("float32")


def test_a_one_hot_tells_its_depth() -> None:
    known = {"depth": Known((), np.array(6))}
    body = Body([Operation(graphs.ONE_HOT, ["a", "depth"], ["b"])], known=known.get)
    assert implied_by_graph({"a": spec("int32")}, body)["a"].limit == 6
