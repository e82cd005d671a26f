"""Files of Keras 2 with Lambda layers: tf-keras is the judge of what was rebuilt, with formulas for their functions."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.formats.models import assert_same, convert, inputs_of, load, stir
from worker import formats, pipeline, proving
from worker.errors import UnsupportedOperation
from worker.formats import _lambda_names, _lambda_witness, _sources
from worker.formats.h5 import refusal

pytestmark = pytest.mark.filterwarnings("ignore:Layer .* was passed an input with a mask")
tf: Any = None  # names that the functions below are written with
K: Any = None
BuildModel = Callable[[Any], Any]


def saved(build: BuildModel, folder: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Any]:
    """The file of a model of Keras 2, and the model, whose functions are its own."""
    import tensorflow
    import tf_keras

    monkeypatch.setitem(globals(), "tf", tensorflow)
    monkeypatch.setitem(globals(), "K", tf_keras.backend)
    model = build(tf_keras.layers)
    stir(model)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that .h5 is old
        model.save(folder / "model.h5", save_format="h5")
    return folder / "model.h5", model


def model_of(*given: Any) -> Any:
    import tf_keras

    return tf_keras.Model(*given)


def plain(layers: Any) -> Any:
    x = layers.Input((4,), name="x")
    y = layers.Lambda(unit)(layers.Dense(3)(x))
    return model_of(x, layers.Lambda(scaled, arguments={"by": 3})([y, x]))


unit = lambda x: tf.nn.l2_normalize(K.abs(x) + 0.5, axis=-1) * 2 / float(x.shape[-1])  # noqa: E731
scaled = lambda pair, by: tf.concat([pair[0] * by, pair[1]], 1)  # noqa: E731


def masked(layers: Any, merge: Callable[[Any], Any], work: Callable[[Any], Any]) -> Any:
    """One of two tensors that are merged has a mask, which the next layer wants."""
    tokens = layers.Input((6,), dtype="int32", name="tokens")
    embedded = layers.Embedding(9, 4, mask_zero=True)(tokens)
    return model_of(tokens, layers.LSTM(3)(merge([work(embedded), embedded])))


def added(layers: Any) -> Any:
    return masked(layers, layers.Add(), layers.Lambda(lambda x: x * 0.5))


def joined(layers: Any) -> Any:
    return masked(layers, layers.Concatenate(), layers.Lambda(lambda x: x * 0.5))


def without_lambda(layers: Any) -> Any:
    return masked(layers, layers.Multiply(), layers.Conv1D(4, 1))


def two_masks(layers: Any) -> Any:
    one, two = (layers.Input((6,), dtype="int32", name=name) for name in ("one", "two"))
    embedded = [layers.Embedding(9, 4, mask_zero=True)(item) for item in (one, two)]
    return model_of([one, two], layers.LSTM(3)(layers.Average()(embedded)))


def attended(layers: Any) -> Any:
    """Attention looks for masks only when it runs; so do layers behind a model inside."""
    given, tokens = (layers.Input((6,), dtype="int32", name=name) for name in ("given", "tokens"))
    embedded = layers.Embedding(9, 4, mask_zero=True)(given)
    inner = model_of(given, layers.Add()([layers.Dense(4)(embedded), layers.Conv1D(4, 1)(embedded)]))
    return model_of(tokens, layers.MultiHeadAttention(2, 2)(inner(tokens), inner(tokens)))


def over_the_batch(layers: Any) -> Any:
    """Keras 2 makes one batch of all steps, where the size of the batch is free."""
    x = layers.Input((5, 4), name="x")
    return model_of(x, layers.TimeDistributed(layers.Lambda(lambda x: x - K.mean(x, axis=0, keepdims=True)))(x))


def slashed(layers: Any) -> Any:
    x = layers.Input((4,), name="x")
    both = [layers.Lambda(lambda x: x * x, name="a/b")(x), layers.Lambda(lambda x: x - x * x, name="a_b")(x)]
    return model_of(x, layers.Subtract(name="out")(both))


BUILDS: list[BuildModel] = [plain, added, joined, without_lambda, two_masks, attended, over_the_batch, slashed]


@pytest.mark.parametrize("build", BUILDS, ids=lambda build: build.__name__)
def test_it_works(build: BuildModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The writer, the witness and the result say the same."""
    path, model = saved(build, tmp_path, monkeypatch)
    witness = load("h5", path, tmp_path / "a")
    assert witness.findings == ()
    given = inputs_of(witness)
    for array in given.values():
        if array.dtype.kind == "i":
            array *= np.array([0, 1, 1, 0, 1, 1], array.dtype)
    tensors = [given[spec.name].astype(spec.dtype) for spec in witness.inputs]
    wanted = np.asarray(model(tensors if len(tensors) > 1 else tensors[0]))
    result, _ = convert("h5", "keras", path, tmp_path / "b")
    after = load("keras", result, tmp_path / "c")
    for loaded in (witness, after):
        np.testing.assert_allclose(next(iter(loaded.run(given).values())), wanted, rtol=1e-5, atol=1e-6)


def test_a_wrong_operation_does_not_judge_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The witness calls what the names stand for, not what stands for them in the rebuilt model."""
    path, _ = saved(plain, tmp_path, monkeypatch)
    monkeypatch.setitem(_lambda_names.FUNCTIONS, "K.abs", lambda x: x)
    witness = load("h5", path, tmp_path)
    rebuilt = _sources.open_model("h5", path, tmp_path).model
    given = inputs_of(witness)
    assert not np.allclose(next(iter(witness.run(given).values())), np.asarray(rebuilt(given["x"])))


def test_without_a_witness_it_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, _ = saved(plain, tmp_path, monkeypatch)
    monkeypatch.setattr(_lambda_witness, "_functions", lambda name: [])
    findings = load("h5", path, tmp_path).findings
    assert [finding.code for finding in findings] == ["unwitnessed"]
    source = pipeline.Source(path, "h5", formats.get("h5").inspect(path, tmp_path))
    assert proving._terms(source, ("h5", "keras"), {}, findings).unwitnessed == findings[0].sentence


def test_a_mask_of_keras_2_is_no_mask_that_keras_3_finds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An .h5 cannot hold it, and without it the values would be others."""
    path, _ = saved(without_lambda, tmp_path, monkeypatch)
    with pytest.raises(UnsupportedOperation, match="take the Keras format"):
        convert("h5", "h5", path, tmp_path / "b")


def test_a_mask_that_no_layer_uses_is_in_nobodys_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def flat(layers: Any) -> Any:
        tokens = layers.Input((6,), dtype="int32", name="tokens")
        embedded = layers.Embedding(9, 4, mask_zero=True)(tokens)
        joined = layers.Concatenate(name="joined")([embedded, layers.Conv1D(4, 1)(embedded)])
        return model_of(tokens, layers.Flatten()(joined))

    path, _ = saved(flat, tmp_path, monkeypatch)
    result, _ = convert("h5", "h5", path, tmp_path / "b")
    assert_same(load("h5", path, tmp_path / "c"), load("h5", result, tmp_path / "d"))


def test_a_stack_with_a_formula_is_refused_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the name of the layer. A stack of layers has no list of operations."""

    def stack(layers: Any) -> Any:
        import tf_keras

        return tf_keras.Sequential([layers.Dense(3, input_shape=(4,)), layers.Lambda(lambda x: x * x, name="squared")])

    path, _ = saved(stack, tmp_path, monkeypatch)
    said = refusal({}, _sources.open_model("h5", path, tmp_path).model)
    assert "in squared" in said
    assert "take the Keras format" in said
    with pytest.raises(UnsupportedOperation, match="in squared"):
        convert("h5", "h5", path, tmp_path / "b")
