"""Each repair on its own: what changes, what is said, and what is refused because it would change the model."""

from __future__ import annotations

from typing import Any

import pytest

from worker.errors import ModelError
from worker.formats import _repairs
from worker.formats._registry import accepted_arguments, layer_classes
from worker.formats._repairs import Draft, repair


def repaired(kind: str, **config: Any) -> Draft:
    draft = Draft(kind, dict(config))
    repair(draft, lambda name: accepted_arguments(layer_classes()[name]))
    return draft


@pytest.mark.parametrize(
    ("kind", "argument", "value"),
    [
        ("DepthwiseConv2D", "groups", 1),
        ("SeparableConv2D", "kernel_initializer", {"class_name": "Zeros", "config": {}}),
        ("LSTM", "time_major", False),
        ("GRU", "implementation", 1),
        ("Embedding", "input_length", 9),
        ("BatchNormalization", "fused", True),
        ("MultiHeadAttention", "query_shape", [None, 3]),
        ("SpatialDropout1D", "trainable", True),
        ("RandomFlip", "rng_type", "stateful"),
    ],
)
def test_arguments_that_change_nothing_are_left_out(kind: str, argument: str, value: Any) -> None:
    draft = repaired(kind, **{argument: value, **({"reset_after": True} if kind == "GRU" else {})})
    assert argument not in draft.config
    assert [finding.code for finding in draft.findings] == [f"repaired-{argument.replace('_', '-')}"]


@pytest.mark.parametrize(
    ("kind", "argument", "value"),
    [
        ("LSTM", "time_major", True),
        ("BatchNormalization", "virtual_batch_size", 4),
        ("BatchNormalization", "renorm", True),
        ("BatchNormalization", "mode", 2),
        ("SeparableConv2D", "groups", 2),
        ("Dense", "surprise", 3),
    ],
)
def test_arguments_that_would_change_the_model_are_refused_by_name(kind: str, argument: str, value: Any) -> None:
    with pytest.raises(ModelError, match=argument):
        repaired(kind, **{argument: value})


@pytest.mark.parametrize(
    ("kind", "config", "code"),
    [
        ("GRU", {"units": 2}, "repaired-reset-after"),
        ("CuDNNLSTM", {"units": 2}, "repaired-cudnn"),
        ("Attention", {"causal": True}, "repaired-causal-attention"),
        ("Dense", {"output_dim": 2}, "repaired-keras-1"),
        ("Merge", {"mode": "mul"}, "repaired-merge"),
        ("BatchNormalization", {"axis": [3]}, "repaired-axis"),
        ("LeakyReLU", {"alpha": 0.3}, "repaired-renamed-argument"),
        ("BatchNormalizationV1", {}, "repaired-class"),
        ("ThresholdedReLU", {"theta": 0.4}, "repaired-thresholded-relu"),
        ("Discretization", {"dtype": "int64"}, "repaired-discretization"),
        ("Dense", {"dtype": {"class_name": "Policy", "config": {"name": "mixed_float16"}}}, "repaired-dtype-policy"),
    ],
)
def test_what_is_repaired_is_told(kind: str, config: dict[str, Any], code: str) -> None:
    assert [finding.code for finding in repaired(kind, **config).findings] == [code]


def test_an_unknown_argument_that_is_off_is_left_out() -> None:
    draft = repaired("Dense", units=1, lora_magic=None)
    assert draft.config == {"units": 1}
    assert [finding.code for finding in draft.findings] == ["repaired-argument"]


def test_hard_sigmoid_of_keras_2_computes_what_it_did() -> None:
    import keras
    import numpy as np

    draft = repaired("Activation", activation="hard_sigmoid")
    layer = keras.layers.Activation.from_config(draft.config)
    x = np.array([-3.0, -2.5, -1.0, 0.0, 0.3, 2.4, 9.0], "float32")
    np.testing.assert_allclose(layer(x), np.clip(0.2 * x + 0.5, 0, 1), atol=1e-7)


@pytest.mark.parametrize("key", ["activation", "recurrent_activation"])
def test_hard_sigmoid_is_seen_in_every_spelling(key: str) -> None:
    old = {"module": "builtins", "class_name": "function", "config": "hard_sigmoid", "registered_name": "function"}
    for value in (old, "hard_sigmoid"):
        draft = repaired("LSTMCell", units=2, **{key: value})
        assert draft.config[key] == _repairs.HARD_SIGMOID
        assert "repaired-hard-sigmoid" in [finding.code for finding in draft.findings]


def test_hard_sigmoid_of_keras_3_stays_as_it_is() -> None:
    draft = Draft("Activation", {"activation": "hard_sigmoid"}, legacy=False)
    _repairs.repair(draft, lambda name: accepted_arguments(layer_classes()[name]))
    assert draft.config == {"activation": "hard_sigmoid"}


def test_a_gru_without_reset_after_is_of_the_time_before_it() -> None:
    assert repaired("GRU", units=2).config["reset_after"] is False
    assert repaired("GRU", units=2, reset_after=True).config["reset_after"] is True


def test_layers_of_cudnn_get_the_defaults_that_cudnn_had() -> None:
    gru = repaired("CuDNNGRU", units=2)
    assert (gru.kind, gru.config["reset_after"]) == ("GRU", True)
    assert repaired("CuDNNLSTM", units=2).kind == "LSTM"


def test_attention_is_told_at_its_call_to_look_back_only() -> None:
    draft = repaired("Attention", causal=True)
    assert draft.call == {"use_causal_mask": True}
    assert "causal" not in draft.config
    assert repaired("Attention", causal=False).call == {}


def test_the_words_of_keras_1() -> None:
    conv = repaired(
        "Convolution2D", nb_filter=2, nb_row=3, nb_col=4, border_mode="same", dim_ordering="th", init="zero"
    )
    assert conv.kind == "Conv2D"
    assert conv.config == {"filters": 2, "kernel_size": [3, 4], "padding": "same", "data_format": "channels_first"}
    assert repaired("Dropout", p=0.3).config == {"rate": 0.3}
    embedding = repaired("Embedding", input_dim=5, output_dim=2, dropout=0.2, init="uniform")
    assert embedding.config == {"input_dim": 5, "output_dim": 2}
    assert [finding.code for finding in embedding.findings] == ["repaired-training-argument"]


def test_merge_became_a_layer_for_each_mode() -> None:
    assert repaired("Merge", mode="concat", concat_axis=1, layers=[]).config["axis"] == 1
    assert repaired("Merge", mode="mul", layers=[]).kind == "Multiply"
    for config in ({"mode": "cos"}, {"mode": "sum", "layers": [{"class_name": "Dense"}]}):
        with pytest.raises(ModelError, match="Merge"):
            repaired("Merge", **config)


def test_one_axis_and_no_more() -> None:
    assert repaired("BatchNormalization", axis=[3]).config["axis"] == 3
    with pytest.raises(ModelError, match="axes"):
        repaired("BatchNormalization", axis=[1, 2])


def test_renamed_arguments_and_classes() -> None:
    assert repaired("LeakyReLU", alpha=0.3).config == {"negative_slope": 0.3}
    assert repaired("BatchNormalizationV1", axis=[1]).kind == "BatchNormalization"
    relu = repaired("ThresholdedReLU", theta=0.4)
    assert (relu.kind, relu.config) == ("ReLU", {"threshold": 0.4})


def test_dtype_policies_by_name() -> None:
    policy = {"class_name": "Policy", "config": {"name": "mixed_float16"}}
    assert repaired("Dense", units=1, dtype=policy).config["dtype"] == "mixed_float16"
    assert "dtype" not in repaired("TextVectorization", dtype="string").config


def test_initializers_of_old_releases() -> None:
    old = {"class_name": "VarianceScaling", "config": {"distribution": "normal", "dtype": "float32", "seed": None}}
    config = repaired("Dense", units=1, kernel_initializer=old).config["kernel_initializer"]["config"]
    assert config == {"distribution": "truncated_normal"}


def test_names_without_slashes() -> None:
    assert _repairs.clean_name("block/conv") == "block_conv"
