"""Planted faults in real models: which show, which do not, and that nothing of them stays."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.formats import models
from worker import archive, faults, steps
from worker.formats import _live
from worker.formats._draws import make_inputs
from worker.formats._format import Loaded, TensorSpec, Variable, no_weights

ENOUGH = 2e-5  # twice what is allowed between float32 formats


def unseen(rows: list[dict[str, Any]], key: str = "moved") -> set[str]:
    return {row["tensor"] for row in rows if row[key] < ENOUGH}


def idle(rows: list[dict[str, Any]]) -> set[str]:
    """Those that move nothing: of models with weights that are drawn anew by every run, some move little."""
    return {row["tensor"] for row in rows if row["moved"] < 1e-7}


def tried(loaded: Loaded) -> list[dict[str, Any]]:
    return faults.try_faults(loaded, make_inputs(loaded.inputs, 3), 3, 60, enough=ENOUGH)


def sequential(*layers: Any) -> Any:
    import keras

    keras.utils.set_random_seed(4)
    return keras.Sequential(list(layers))


@pytest.mark.parametrize("kind", ["dense", "conv", "recurrent", "several"])
def test_it_works(kind: str) -> None:
    import keras

    keras.utils.set_random_seed(5)
    loaded = _live.loaded(models.made(kind))
    rows = tried(loaded)
    assert {row["tensor"] for row in rows} == {variable.name for variable in loaded.variables()}
    assert not unseen(rows)
    assert all(row["moved_gross"] is None for row in rows)


FORMATS = ("keras", "h5", "saved_model", "tflite", "onnx", "frozen_graph", "tfjs_graph")


@pytest.mark.parametrize("slug", FORMATS)
def test_every_format_has_weights_that_can_be_changed_and_are_exactly_as_before(
    slug: str, made_file: Callable[[str, str], Path], tmp_path: Path
) -> None:
    direct = slug in ("keras", "h5", "saved_model")
    path = made_file("conv", slug if direct else "saved_model")
    if not direct:
        path, _ = models.convert("saved_model", slug, path, tmp_path)
    loaded = models.load(slug, path, tmp_path / "open")
    arrays = models.inputs_of(loaded)
    plain = loaded.run(arrays)
    before = {variable.name: variable.read() for variable in loaded.variables()}
    wanted = loaded.run(arrays)
    np.testing.assert_allclose(plain["pooled"], wanted["pooled"], rtol=1e-5, atol=1e-6)
    assert len(before) >= 7
    assert not idle(tried(loaded))
    assert {name: array.tobytes() for name, array in before.items()} == {
        variable.name: variable.read().tobytes() for variable in loaded.variables()
    }
    assert loaded.run(arrays)["pooled"].tobytes() == wanted["pooled"].tobytes()


@pytest.mark.parametrize("slug", ["tflite", "onnx", "tfjs_graph"])
def test_what_a_graph_needs_for_shapes_alone_is_no_weight(
    slug: str, made_file: Callable[[str, str], Path], tmp_path: Path
) -> None:
    path, _ = models.convert("saved_model", slug, made_file("recurrent", "saved_model"), tmp_path)
    loaded = models.load(slug, path, tmp_path / "open")
    assert len(loaded.variables()) >= 12
    assert not idle(tried(loaded))


def test_weights_beside_the_graph_can_be_changed_too(made_file: Callable[[str, str], Path], tmp_path: Path) -> None:
    from worker.formats import onnx
    from worker.formats._format import Hop

    result = tmp_path / "model.zip"
    onnx.from_saved_model(made_file("dense", "saved_model"), result, Hop(tmp_path, {"external_data": True}))
    loaded = models.load("onnx", result, tmp_path / "open")
    assert len(loaded.variables()) >= 4
    assert not idle(tried(loaded))


def test_a_saved_model_of_constants_has_weights_too(made_file: Callable[[str, str], Path], tmp_path: Path) -> None:
    from worker.formats import frozen_graph
    from worker.formats._format import Hop

    graph, _ = models.convert("saved_model", "frozen_graph", made_file("conv", "saved_model"), tmp_path / "graph")
    frozen_graph.to_saved_model(graph, tmp_path / "model.zip", Hop(tmp_path))
    loaded = models.load("saved_model", tmp_path / "model.zip", tmp_path / "open")
    assert len(loaded.variables()) == 10
    assert not idle(tried(loaded))


def test_layers_are_called_as_the_layer_table_calls_them() -> None:
    loaded = _live.loaded(models.made("several"))
    assert {variable.layer for variable in loaded.variables()} >= {"label", "score"}
    assert any(variable.layer.startswith("inner/dense") for variable in loaded.variables())


def test_statistics_that_a_layer_keeps_apart_are_changed_with_their_weights() -> None:
    from keras import layers

    norm = layers.Normalization(name="norm")
    norm.adapt(np.random.default_rng(0).normal(3, 2, (50, 4)))
    loaded = _live.loaded(sequential(layers.Input((4,)), norm, *(layers.Dense(4) for _ in range(6))))
    rows = tried(loaded)
    assert {"norm"} <= {row["layer"] for row in rows}
    assert not unseen(rows)


def test_a_fresh_network_with_batch_normalisation_shows_its_faults() -> None:
    from keras import layers

    blocks = [layer for _ in range(3) for layer in (layers.Conv2D(8, 3), layers.BatchNormalization(), layers.ReLU())]
    model = sequential(layers.Input((12, 12, 3)), *blocks, layers.GlobalAveragePooling2D(), layers.Dense(4, "softmax"))
    loaded = _live.loaded(model)
    assert len(loaded.variables()) == 20
    assert not unseen(tried(loaded))


def test_a_dead_network_is_found_out() -> None:
    from keras import layers

    dead = layers.Dense(6, "relu", name="dead", bias_initializer=lambda *_, **__: np.full(6, -1e4, "float32"))
    loaded = _live.loaded(
        sequential(layers.Input((4,)), layers.Dense(5, name="first"), dead, layers.Dense(2, name="out"))
    )
    rows = tried(loaded)
    for key in ("moved", "moved_gross"):
        less = [row for row in rows if row[key] is not None and row[key] < ENOUGH]
        left = {(row["layer"], row["tensor"].rpartition("/")[2]) for row in less}
        assert left - {("dead", "bias")} == {
            ("first", "kernel"),
            ("first", "bias"),
            ("dead", "kernel"),
            ("out", "kernel"),
        }


def test_scaled_inputs_show_what_ordinary_ones_do_not() -> None:
    from keras import layers

    bias = layers.Dense(6, "relu", name="sleeping", bias_initializer=lambda *_, **__: np.full(6, -40.0, "float32"))
    loaded = _live.loaded(sequential(layers.Input((4,)), bias, layers.Dense(2)))
    draws = make_inputs(loaded.inputs, 3)
    rows = faults.try_faults(loaded, draws, 3, 60, enough=ENOUGH)
    assert len(unseen(rows)) == 3
    better = faults.better_draws(loaded, draws, [loaded.run(draw) for draw in draws], rows, 3, 60, enough=ENOUGH)
    assert better.draws
    assert not unseen(better.rows)
    assert len(unseen(rows)) == 3  # what was handed in is as it was
    for draw, answer in zip(better.draws, better.answers, strict=True):
        assert faults.moved(answer, loaded.run(draw)) == 0


def test_nothing_more_is_drawn_where_everything_shows() -> None:
    loaded = _live.loaded(models.made("dense"))
    draws = make_inputs(loaded.inputs, 3)
    rows = faults.try_faults(loaded, draws, 3, 60, enough=ENOUGH)
    assert not faults.better_draws(
        loaded, draws, [loaded.run(draw) for draw in draws], rows, 3, 60, enough=ENOUGH
    ).draws


def test_no_draw_is_taken_on_which_the_outputs_sink() -> None:
    """Where a sigmoid is 1e-18, one library says 0: faults show in its last bits alone, and so does the library."""
    kept = {"w": np.ones(3, "float32")}

    def run(arrays: dict[str, Any]) -> dict[str, Any]:
        most = np.abs(arrays["x"]).max()
        return {"y": kept["w"] * 1e-5 * np.exp(-2.0 * most) + float(most < 5.0)}

    spec = TensorSpec("x", (None, 2), "float32")
    variable = Variable("w", "dense", lambda: kept["w"], lambda value: kept.update(w=value))
    loaded = Loaded((spec,), (), run, no_weights, variables=lambda: [variable])
    draws = make_inputs(loaded.inputs, 3)
    answers = [loaded.run(draw) for draw in draws]
    rows = faults.try_faults(loaded, draws, 3, 60, enough=ENOUGH)
    assert len(unseen(rows)) == 1
    assert not faults.better_draws(loaded, draws, answers, rows, 3, 60, enough=ENOUGH).draws


def test_a_weight_that_training_alone_reads_is_told_from_one_that_sleeps() -> None:
    """Whatever it holds, no output moves; behind a sleeping layer, some weights would wake it."""
    from keras import layers

    normalised = layers.SpectralNormalization(layers.Dense(5, "relu"))
    asleep = layers.Dense(3, "relu", bias_initializer="ones", name="asleep")
    loaded = _live.loaded(sequential(layers.Input((6,)), normalised, asleep, layers.Dense(2)))
    (bias,) = (item for item in loaded.variables() if item.name.endswith("asleep/bias"))
    bias.assign(np.full(3, -100.0, "float32"))
    rows = faults.try_faults(loaded, make_inputs(loaded.inputs, 3), 3, 60, enough=ENOUGH)
    assert [row["tensor"].rpartition("/")[2] for row in rows if row["unread"]] == ["vector_u"]
    assert any(name.endswith("asleep/kernel") for name in unseen(rows))


def test_a_fault_is_undone_even_where_the_run_fails() -> None:
    kept = {"w": np.ones(3, "float32")}

    def run(arrays: dict[str, Any]) -> dict[str, Any]:
        if not np.array_equal(kept["w"], np.ones(3, "float32")):
            raise RuntimeError("the runtime does not like it")
        return dict(arrays)

    variable = Variable("w", "w", lambda: kept["w"].copy(), lambda value: kept.update(w=value))
    loaded = Loaded((), (), run, lambda: iter(()), variables=lambda: [variable])
    rows = faults.try_faults(loaded, [{"x": np.ones(2)}], 1, 0)
    assert rows[0]["moved"] == faults.BEYOND
    assert kept["w"].tolist() == [1, 1, 1]


def test_a_sample_is_drawn_where_time_is_short() -> None:
    loaded = _live.loaded(sequential(*_many()))
    rows = faults.try_faults(loaded, make_inputs(loaded.inputs, 3), 3, 0)
    again = faults.try_faults(loaded, make_inputs(loaded.inputs, 3), 3, 0)
    assert 8 <= len(rows) <= len(loaded.variables())
    assert [row["tensor"] for row in rows[:8]] == [row["tensor"] for row in again[:8]]
    assert [row["moved"] for row in rows[:8]] == [row["moved"] for row in again[:8]]


def _many() -> Iterator[Any]:
    from keras import layers

    yield layers.Input((4,))
    yield from (layers.Dense(4, name=f"dense_{number}") for number in range(20))


def test_the_twin_of_a_dead_network_is_alive(tmp_path: Path) -> None:
    from worker.formats import _sources, _twin

    path = tmp_path / "dead.keras"
    dead_image().save(path)
    model = _sources.open_model("keras", path, tmp_path).model
    before = [np.array(item) for item in model.weights]
    assert len(unseen(tried(_live.loaded(model)))) > 5
    _twin.write("keras", path, tmp_path / "twin.keras", tmp_path, 11)
    assert all(np.array_equal(a, b) for a, b in zip(before, model.weights, strict=True))
    twin = models.load("keras", tmp_path / "twin.keras", tmp_path / "twin")
    assert not unseen(tried(twin))
    assert [array.shape for _, array in twin.weights()] == [array.shape for array in before]


def dead_image() -> Any:
    """Deep and narrow, with activations that let nothing through."""
    import keras
    from keras import layers

    keras.utils.set_random_seed(6)
    low = keras.initializers.Constant(-9.0)
    x = image = layers.Input((16, 16, 3))
    for _ in range(4):
        x = layers.Conv2D(4, 3, padding="same", use_bias=False)(x)
        x = layers.DepthwiseConv2D(3, padding="same")(layers.BatchNormalization()(x))
        x = layers.ReLU(6.0)(layers.BatchNormalization(beta_initializer=low)(x))
    return keras.Model(image, layers.Dense(3, "softmax")(layers.GlobalAveragePooling2D()(x)))


def test_the_same_seed_draws_the_same_twin() -> None:
    from worker.formats import _twin

    model, weights = models.made("conv"), []
    own = [np.array(item) for item in model.weights]
    for seed in (1, 1, 2):
        with _twin.redrawn(model, seed):
            weights.append(np.concatenate([np.array(item).ravel() for item in model.weights]))
    assert np.array_equal(weights[0], weights[1])
    assert not np.array_equal(weights[0], weights[2])
    assert all(np.array_equal(a, b) for a, b in zip(own, model.weights, strict=True))


def test_a_model_that_is_random_by_design_is_told_from_a_stateful_one() -> None:
    import tf_keras
    from keras import layers

    random = sequential(layers.Input((6,)), layers.Dense(8), _drop_always(0.5), layers.Dense(2))
    state = sequential(layers.Input(batch_shape=(3, 5, 2)), layers.GRU(4, stateful=True), layers.Dense(2))
    old = tf_keras.Sequential([tf_keras.layers.LSTM(3, stateful=True, batch_input_shape=(3, 5, 2))])
    assert steadiness(random) == "random"
    assert steadiness(state) == "stateful"
    assert steadiness(old) == "stateful"
    assert steadiness(models.made("dense")) == ""


@pytest.mark.parametrize("every", [1, 7])
def test_a_model_that_draws_for_a_few_inputs_or_now_and_then_is_random(every: int) -> None:
    """A token that is drawn from what is likely is the same one most of the time."""
    runs = iter(range(10**6))

    def run(arrays: dict[str, Any]) -> dict[str, Any]:
        moment = next(runs)
        return {"y": np.where(arrays["x"] > 2.5, moment // every, arrays["x"])}

    loaded = Loaded((), (), run, no_weights)
    draws = [{"x": np.ones(3)}, {"x": np.full(3, 3.0)}]
    answers = [loaded.run(draw) for draw in draws]
    assert faults.steady(loaded, draws, answers, 1e-6, 0.1) == "random"
    assert faults.steady(loaded, draws[:1], answers[:1], 1e-6, 0.1) == ""


def test_weights_are_told_as_they_are_in_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A model that counts its runs has counted some by the time that it is proven."""
    monkeypatch.chdir(tmp_path)
    source, result = (_counting(tmp_path / name) for name in ("a", "b"))
    named = {name: str(tmp_path / f"{name}.npz") for name in ("inputs", "outputs")}
    wanted = {"seed": 1, "allowed": 1e-5, "gross": True, "prints": False, **named}
    shown = steps.probe({"path": str(source), "format": "saved_model", "probe": wanted}, print)["probe"]
    assert shown["unsteady"] == "stateful"
    assert _runs_told() == _digest_of(0.0)
    steps.run({"path": str(result), "format": "saved_model", "specs": shown["inputs"], **named}, print)
    assert _runs_told() == _digest_of(0.0)


def _counting(folder: Path) -> Path:
    """A SavedModel whose only variable is how often it was run."""
    import tensorflow as tf

    module = tf.Module()
    module.runs = tf.Variable(0.0, name="runs")
    specs = [tf.TensorSpec((None, 2), tf.float32, name="x")]
    module.call = tf.function(lambda x: {"y": x + module.runs.assign_add(1.0)}, input_signature=specs)
    tf.saved_model.save(module, str(folder), signatures=module.call)
    path = folder.with_suffix(".zip")
    archive.pack(folder, path)
    return path


def _runs_told() -> str:
    (row,) = json.loads(Path(steps.SHOWN).read_text(encoding="utf-8"))["weights"]
    return str(row[2])


def _digest_of(number: float) -> str:
    return hashlib.sha256(np.float32(number).tobytes()).hexdigest()


def steadiness(model: Any) -> str:
    loaded = _live.loaded(model)
    shapes = {spec.name: [3 if size is None else size for size in spec.shape or ()] for spec in loaded.inputs}
    draw = {name: np.random.default_rng(1).normal(size=shape) for name, shape in shapes.items()}
    return faults.steady(loaded, [draw], [loaded.run(draw)], 1e-6, 0.1)


def _drop_always(rate: float) -> Any:
    from keras import layers, random

    class DropAlways(layers.Layer):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.generator = random.SeedGenerator(1)

        def call(self, inputs: Any) -> Any:
            return random.dropout(inputs, rate, seed=self.generator)

    return DropAlways()
