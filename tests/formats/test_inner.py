"""What models show of their inside: the same numbers as the layers themselves compute, in order, and not too many."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.formats import models
from worker import inside
from worker.formats._format import Loaded, TensorSpec, no_weights
from worker.formats._inner import LARGEST, MOST, computes, few, numbered
from worker.verify import load_draws

GRAPHS = ("saved_model", "onnx", "tflite", "openvino", "tfjs_graph", "frozen_graph")


def inner_of(loaded: Loaded, rows: int = 1) -> dict[str, np.ndarray]:
    assert loaded.inner
    return dict(loaded.inner({name: array[:rows] for name, array in models.inputs_of(loaded).items()}))


def test_it_works(made_file: Callable[[str, str], Path], tmp_path: Path) -> None:
    shown = inner_of(models.load("keras", made_file("conv", "keras"), tmp_path))
    assert [name.split("_")[0] for name in shown] == ["conv2d", "batch", "re", "separable", "depthwise", "pooled"]
    assert shown["pooled"].shape == (1, 5)


@pytest.mark.parametrize("slug", ["keras", *GRAPHS])
def test_the_last_tensor_is_the_answer(slug: str, made_file: Callable[[str, str], Path], tmp_path: Path) -> None:
    path = made_file("conv", "saved_model" if slug not in ("keras", "saved_model") else slug)
    if slug in GRAPHS[1:]:
        path, _ = models.convert("saved_model", slug, path, tmp_path / "made")
    loaded = models.load(slug, path, tmp_path)
    arrays = {name: array[:1] for name, array in models.inputs_of(loaded).items()}
    before = loaded.run(arrays)["pooled"]
    shown = list(inner_of(loaded).values())
    assert len(shown) >= 5
    np.testing.assert_allclose(shown[-1].reshape(before.shape), before, rtol=1e-6)
    np.testing.assert_array_equal(loaded.run(arrays)["pooled"], before)  # nothing is left behind


def test_layers_inside_of_layers_and_those_called_twice_are_shown(
    made_file: Callable[[str, str], Path], tmp_path: Path
) -> None:
    names = list(inner_of(models.load("keras", made_file("several", "keras"), tmp_path)))
    dense = next(name for name in names if name.startswith("inner/dense"))
    assert f"{dense} (2)" in names
    assert all(not name.startswith("inner (") and name != "inner" for name in names)


def test_recurrent_layers_show_their_result_and_not_their_cells(
    made_file: Callable[[str, str], Path], tmp_path: Path
) -> None:
    shown = inner_of(models.load("keras", made_file("recurrent", "keras"), tmp_path))
    assert shown["out"].shape == (1, 2)
    assert not [name for name in shown if "cell" in name]


def test_a_model_of_keras_2_is_listened_to_as_well(tmp_path: Path) -> None:
    import tf_keras

    layers = [tf_keras.layers.Dense(4, "relu", name="hidden"), tf_keras.layers.Dense(2, name="out")]
    tf_keras.Sequential([tf_keras.Input((3,), name="x"), *layers]).save(tmp_path / "old.h5")
    loaded = models.load("h5", tmp_path / "old.h5", tmp_path)
    shown = inner_of(loaded, rows=2)
    assert list(shown) == ["hidden", "out"]
    np.testing.assert_array_equal(
        shown["out"], loaded.run({name: array[:2] for name, array in models.inputs_of(loaded).items()})["out"]
    )


def test_branches_and_loops_of_tensorflow_1_are_passed_by(tmp_path: Path) -> None:
    """What is inside of them has several values, or none, and cannot be fetched."""
    import tensorflow as tf

    from worker.formats._inner_graphs import of_function

    def build() -> None:
        x = tf.compat.v1.placeholder(tf.float32, (None, 2), name="x")
        tf.compat.v1.disable_control_flow_v2()
        doubled = tf.compat.v1.while_loop(lambda i, y: i < 3, lambda i, y: (i + 1, y * 2.0), [0, x + 1.0])[1]
        chosen = tf.compat.v1.cond(tf.reduce_sum(x) > 0, lambda: doubled * 3.0, lambda: doubled - 1.0)
        tf.identity(tf.sin(chosen, name="end"), name="y")
        tf.compat.v1.enable_control_flow_v2()

    owner = tf.compat.v1.wrap_function(build, [])
    shown = dict(of_function(owner, ["x:0"], [tf.ones((1, 2))]))
    np.testing.assert_allclose(shown["end"], np.sin([[48.0, 48.0]]), rtol=1e-5)
    assert "while/mul" not in shown
    assert "cond/mul" not in shown


def test_whole_numbers_are_told_as_what_they_stand_for(made_file: Callable[[str, str], Path], tmp_path: Path) -> None:
    from worker.formats import _tflite_write
    from worker.formats._format import Hop

    _tflite_write.write(made_file("dense", "saved_model"), tmp_path / "m.tflite", Hop(tmp_path, {"precision": "int8"}))
    loaded = models.load("tflite", tmp_path / "m.tflite", tmp_path)
    shown = list(inner_of(loaded, rows=3).values())
    assert all(array.dtype == np.float32 for array in shown)
    assert np.abs(shown[-1]).max() <= 1.01  # probabilities, not numbers from -128 to 127


def test_weights_beside_the_graph_are_found(made_file: Callable[[str, str], Path], tmp_path: Path) -> None:
    from worker.formats import onnx
    from worker.formats._format import Hop

    hop = Hop(tmp_path, {"external_data": True})
    onnx.from_saved_model(made_file("dense", "saved_model"), tmp_path / "m.zip", hop)
    assert zipfile.is_zipfile(tmp_path / "m.zip")
    folder = tmp_path / "open"
    folder.mkdir()
    loaded = models.load("onnx", tmp_path / "m.zip", folder)
    unpacked = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert "probs" in inner_of(loaded)
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == unpacked


# Bounds


def test_of_many_operations_those_that_end_a_layer_are_kept() -> None:
    names = [f"layer_{number // 4}/op_{number % 4}" for number in range(4 * MOST)]
    kept = few(names, names)
    assert len(kept) == MOST
    assert all(name.endswith("op_3") for name in kept)


def test_of_very_many_layers_every_so_many_are_kept_and_the_last() -> None:
    names = [f"layer_{number}" for number in range(5 * MOST + 3)]
    kept = few(names, names)
    assert len(kept) == MOST
    assert kept[-1] == names[-1]
    assert kept == sorted(kept, key=names.index)


def test_large_empty_and_whole_tensors_are_left_out() -> None:
    half, wide = np.ones(3, "float16"), np.ones(3, "float64")
    large = np.broadcast_to(np.float32(1), (LARGEST // 4 + 1,))
    given = [("a", half), ("a", wide), ("b", large), ("c", np.ones(0)), ("d", np.ones(3, int))]
    assert [(name, array.dtype.name) for name, array in numbered(given)] == [("a", "float32"), ("a (2)", "float64")]


def test_there_are_never_more_than_that() -> None:
    assert len(list(numbered((f"t{number}", np.ones(2)) for number in range(2 * MOST)))) == MOST


@pytest.mark.parametrize("kind", ["Reshape", "EXPAND_DIMS", "ReadVariableOp", "DequantizeLinear", "Conv2D", "ADD"])
def test_what_only_passes_on_is_no_layer(kind: str) -> None:
    assert computes(kind) is (kind in ("DequantizeLinear", "Conv2D", "ADD"))


# Handing it over


def test_one_row_is_handed_over_in_order(made_file: Callable[[str, str], Path], tmp_path: Path) -> None:
    loaded = models.load("keras", made_file("dense", "keras"), tmp_path)
    arrays = models.inputs_of(loaded)
    assert inside.save(loaded, arrays, 2, tmp_path / "inner.npz") == ""
    found = [(name, array) for draw in load_draws(tmp_path / "inner.npz") for name, array in draw.items()]
    assert [name.split("_")[0] for name, _ in found] == ["normalization", "dense", "probs"]
    np.testing.assert_allclose(found[-1][1], loaded.run(arrays)["probs"][2], rtol=1e-5)


def test_what_shows_nothing_says_why(tmp_path: Path) -> None:
    loaded = Loaded((), (), lambda arrays: {}, no_weights)
    assert "does not show" in inside.save(loaded, {}, 0, tmp_path / "inner.npz")
    assert not (tmp_path / "inner.npz").exists()


def test_what_fails_inside_is_a_reason_and_no_error(tmp_path: Path) -> None:
    def inner(arrays: dict[str, np.ndarray]) -> Iterator[tuple[str, np.ndarray]]:
        raise RuntimeError("no such kernel")
        yield

    spec = TensorSpec("x", (None, 2), "float32")
    loaded = Loaded((spec,), (), lambda arrays: {}, no_weights, inner=inner)
    assert "no such kernel" in inside.save(loaded, {"x": np.ones((1, 2))}, 0, tmp_path / "inner.npz")


def test_inputs_without_rows_are_given_whole() -> None:
    specs = (TensorSpec("x", (None, 2), "float32"), TensorSpec("scale", (), "float32"))
    loaded = Loaded(specs, (), lambda arrays: {}, no_weights)
    draw = {"x": np.ones((3, 2)), "scale": np.array(2.0)}
    assert inside.one_row(loaded, draw, 1) is draw
