"""Models that tf-keras builds and saves, rebuilt for Keras 3 from their own description: the same values."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.formats.models import assert_same, convert, load, stir
from worker.errors import ModelError
from worker.formats._architecture import Architecture, parse
from worker.formats._rebuild import rebuild


def nested_and_shared(keras: Any) -> Any:
    """A nested model that is called twice, a deferred one, a frozen layer inside."""
    layers = keras.layers
    inner = keras.Sequential([layers.Dense(4, "relu", input_shape=(5,)), layers.BatchNormalization()], name="inner")
    late = keras.Sequential([layers.Dense(4), layers.BatchNormalization(), layers.Dense(2)], name="late")
    left, right = keras.Input((5,), name="left"), keras.Input((5,), name="right")
    inner.layers[0].trainable = False
    return keras.Model([left, right], [late(inner(left)), layers.Add(name="sum")([inner(left), inner(right)])])


def two_outputs_inside(keras: Any) -> Any:
    layers = keras.layers
    x = keras.Input((6,))
    y = layers.Dense(6)(x)
    inner = keras.Model(x, [y, layers.Dense(2)(y)], name="two")
    start = keras.Input((6,), name="start")
    first, second = inner(start)
    return keras.Model(start, layers.Concatenate(name="all")([second, *inner(first)]))


def encoder_decoder(keras: Any) -> Any:
    layers = keras.layers
    x = keras.Input((7, 4), name="x")
    sequence, hidden, cell = layers.LSTM(5, return_state=True, return_sequences=True)(x)
    return keras.Model(x, layers.LSTM(5, name="decoder")(sequence, initial_state=[hidden, cell]))


def cells(keras: Any) -> Any:
    layers = keras.layers
    x = keras.Input((7, 4), name="x")
    y = layers.RNN([layers.LSTMCell(3), layers.GRUCell(4)], return_sequences=True)(x)
    return keras.Model(x, layers.Bidirectional(layers.GRU(2, recurrent_activation="hard_sigmoid"), name="out")(y))


def time_distributed(keras: Any) -> Any:
    layers = keras.layers
    inner = keras.Sequential([layers.Conv2D(2, 3, input_shape=(6, 6, 1)), layers.Flatten(), layers.Dense(3)])
    x = keras.Input((4, 6, 6, 1), name="x")
    return keras.Model(x, layers.TimeDistributed(inner, name="out")(x))


def attention(keras: Any) -> Any:
    layers = keras.layers
    query, value = keras.Input((4, 6), name="query"), keras.Input((5, 6), name="value")
    heads = layers.MultiHeadAttention(2, 3, value_dim=4, output_shape=5)(query, value)
    plain = layers.Attention(use_scale=True)([query, value])
    return keras.Model([query, value], layers.Concatenate(name="out")([heads, plain]))


def operations(keras: Any) -> Any:
    import tensorflow as tf

    x = keras.Input((6,), name="x")
    y = tf.concat([tf.nn.relu(x * 2.0 + 1.0), x], axis=-1)
    y = tf.reduce_mean(tf.reshape(y, [-1, 3, 4]), axis=1)
    parts = tf.split(tf.pad(x, [[0, 0], [1, 0]], constant_values=2.0), [3, 4], axis=-1)
    y = y + tf.gather(parts[1], [3, 1, 1, 0], axis=1) * tf.math.reduce_std(parts[0], axis=1, keepdims=True)
    y = tf.clip_by_value(y, -1.0, 1.0) / 3.0 - tf.expand_dims(tf.math.l2_normalize(x, axis=-1)[:, 0], 1)
    return keras.Model(x, 1.0 - keras.layers.Dense(2)(y))


def convolutions(keras: Any) -> Any:
    layers = keras.layers
    x = keras.Input((12, 12, 3), name="x")
    y = layers.Conv2D(6, 3, groups=3, padding="same", activation="hard_sigmoid")(x)
    y = layers.SeparableConv2D(4, 3)(layers.DepthwiseConv2D(3, depth_multiplier=2)(y))
    y = layers.Conv2DTranspose(3, 3, strides=2, output_padding=1, padding="same")(y)
    y = layers.LeakyReLU(0.3)(layers.ThresholdedReLU(0.2)(layers.BatchNormalization(axis=[3])(y)))
    return keras.Model(x, layers.GlobalMaxPooling2D(name="out")(y))


def slashes(keras: Any) -> Any:
    x = keras.Input((4,), name="in/x")
    return keras.Model(x, keras.layers.Dense(2, name="block/out")(keras.layers.Dense(3, name="block/in")(x)))


def same_names(keras: Any) -> Any:
    """Layers of one name and one shape at three places of the model."""
    layers = keras.layers
    one, two = (keras.Sequential([layers.Dense(4, name="d", input_shape=(4,))], name=name) for name in ("one", "two"))
    x = keras.Input((4,), name="x")
    return keras.Model(x, layers.Dense(4, name="d")(two(layers.Activation("tanh")(one(x)))))


def dictionaries(keras: Any) -> Any:
    layers = keras.layers
    a, b = keras.Input((3,), name="a"), keras.Input((2,), name="b")
    return keras.Model({"a": a, "b": b}, {"z": layers.Dense(2)(a), "y": layers.Dense(1)(layers.Concatenate()([a, b]))})


KINDS = [nested_and_shared, two_outputs_inside, encoder_decoder, cells, time_distributed, attention]
KINDS += [operations, convolutions, slashes, dictionaries, same_names]


@pytest.mark.parametrize("build", KINDS, ids=lambda build: build.__name__)
@pytest.mark.parametrize("slug", ["h5", "keras"])
def test_it_computes_the_same(slug: str, build: Callable[[Any], Any], tmp_path: Path) -> None:
    import tf_keras

    model = build(tf_keras)
    stir(model)
    path = tmp_path / f"old.{slug}"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.save(path)
    target = "keras" if slug == "h5" else "json_npz"
    result, codes = convert(slug, target, path, tmp_path / "b")
    assert "rebuilt" in codes
    assert_same(load(slug, path, tmp_path / "a"), load(target, result, tmp_path / "c"))


@pytest.mark.parametrize("slug", ["h5", "keras"])
def test_bins_are_found_in_a_graph_too(slug: str, tmp_path: Path) -> None:
    """Keras 3 cuts the inputs of a Discretization off to whole numbers there, if that is its dtype as in Keras 2."""
    import tf_keras

    age = tf_keras.Input((1,), name="age")
    bins = tf_keras.layers.Discretization(bin_boundaries=[-1.0, 0.0, 1.5])(age)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tf_keras.Model(age, bins).save(tmp_path / f"old.{slug}")
    result, codes = convert(slug, "saved_model", tmp_path / f"old.{slug}", tmp_path / "b")
    assert "repaired-discretization" in codes
    found = load("saved_model", result, tmp_path / "c").run({"age": np.array([[1.4], [1.6], [-0.5]], "float32")})
    assert next(iter(found.values())).tolist() == [[2], [3], [1]]


def test_a_width_that_hangs_on_the_vocabulary(tmp_path: Path) -> None:
    """The description alone does not tell it; tf-keras takes the words from its own file."""
    import tf_keras

    words = tf_keras.layers.TextVectorization(output_mode="tf_idf", name="words")
    words.adapt(["the cat sat", "the dog ran far", "a bird flew"])
    text = tf_keras.Input((1,), dtype="string", name="text")
    model = tf_keras.Model(text, tf_keras.layers.Dense(1)(words(text)))
    model.save(tmp_path / "old.keras")
    with pytest.raises(ModelError, match="its width hangs on the vocabulary of words, which the description"):
        rebuild(parse(model.to_json(), "old.json"))
    result, _ = convert("keras", "saved_model", tmp_path / "old.keras", tmp_path / "b")
    source, written = load("keras", tmp_path / "old.keras", tmp_path / "a"), load("saved_model", result, tmp_path / "c")
    given = {"text": np.array([["the cat ran"], ["a cow"]])}
    before, after = (next(iter(each.run(given).values())) for each in (source, written))
    np.testing.assert_allclose(before, after, rtol=1e-5)


@pytest.mark.parametrize(
    ("slug", "said"),
    [("h5", "at difference: it takes results of shared from calls"), ("keras", "has 2 layers with weights, the file")],
)
def test_calls_that_were_lost_in_writing_are_said(slug: str, said: str, tmp_path: Path) -> None:
    """tf-keras writes such a file and then reads it for ever."""
    import tf_keras

    layers = tf_keras.layers
    shared = tf_keras.Sequential([layers.Dense(6), layers.BatchNormalization()], name="shared")
    left, right = tf_keras.Input((5,)), tf_keras.Input((5,))
    one, other = shared(left), shared(right)
    difference = layers.Subtract(name="difference")([one, other])
    inner = tf_keras.Model(left, layers.Dense(4)(one), name="inner")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tf_keras.Model([left, right], [difference, inner(right)]).save(tmp_path / f"old.{slug}")
    with pytest.raises(ModelError, match=said):
        load(slug, tmp_path / f"old.{slug}", tmp_path / "scratch")


def sequential(*layers: dict[str, Any], version: str = "2.1.2") -> Architecture:
    return Architecture({"class_name": "Sequential", "config": list(layers)}, version)


def test_a_sequential_of_the_time_when_it_was_a_bare_list() -> None:
    dense = {"class_name": "Dense", "config": {"name": "d", "units": 2, "batch_input_shape": [None, 3]}}
    rebuilt = rebuild(sequential(dense))
    assert rebuilt.model.inputs[0].shape == (None, 3)
    assert rebuilt.model.inputs[0].name == "d_input"


def test_names_with_a_slash_are_changed_and_told() -> None:
    """Also that of the input, which a stack is given after its first layer."""
    dense = {"class_name": "Dense", "config": {"name": "block/d", "units": 2, "batch_input_shape": [None, 3]}}
    stack = rebuild(sequential(dense))
    assert [tensor.name for tensor in stack.model.inputs] == ["block_d_input"]
    told = [(finding.data["name"], finding.data["new"]) for finding in stack.findings if finding.code == "renamed"]
    assert told == [("block/d", "block_d"), ("block/d_input", "block_d_input")]
    given = {"class_name": "InputLayer", "config": {"name": "in/x", "batch_input_shape": [None, 3]}}
    stack = rebuild(sequential(given, {"class_name": "Dense", "config": {"name": "d", "units": 2}}))
    assert [tensor.name for tensor in stack.model.inputs] == ["in_x"]
    assert [finding.data["new"] for finding in stack.findings if finding.code == "renamed"] == ["in_x"]


def test_layers_that_do_not_fit_are_named() -> None:
    dense = {"class_name": "Dense", "config": {"name": "d", "units": -2, "batch_input_shape": [None, 3]}}
    with pytest.raises(ModelError, match=r"layer d \(Dense\)"):
        rebuild(sequential(dense))


def test_a_graph_that_leads_nowhere_is_refused() -> None:
    node = {
        "class_name": "Dense",
        "name": "d",
        "config": {"name": "d", "units": 2},
        "inbound_nodes": [[["d", 0, 0, {}]]],
    }
    config = {"name": "m", "layers": [node], "input_layers": [["d", 0, 0]], "output_layers": [["d", 0, 0]]}
    with pytest.raises(ModelError, match="cannot be followed at d"):
        rebuild(Architecture({"class_name": "Functional", "config": config}, "2.8.0"))


def test_operations_outside_the_list_are_refused_by_name() -> None:
    lambdas = [
        {"class_name": "InputLayer", "name": "x", "config": {"name": "x", "batch_input_shape": [None, 3]}},
        {
            "class_name": "TFOpLambda",
            "name": "t",
            "config": {"name": "t", "function": "io.write_file"},
            "inbound_nodes": [["x", 0, 0, {"contents": "y"}]],
        },
    ]
    config = {"name": "m", "layers": lambdas, "input_layers": [["x", 0, 0]], "output_layers": [["t", 0, 0]]}
    with pytest.raises(ModelError, match=r"io\.write_file"):
        rebuild(Architecture({"class_name": "Functional", "config": config}, "2.8.0"))


def test_an_operation_beside_a_layer_of_its_name() -> None:
    """Keras 2 called ``x * 3`` ``tf.math.multiply`` beside a Multiply layer ``multiply``, as in its MobileNetV3; in
    Keras 3 both are called after the class, one of them in any process."""
    import keras
    import numpy as np

    keras.backend.clear_session()
    start = {"name": "x", "batch_input_shape": [None, 3]}
    scale = {"name": "tf.math.multiply", "function": "math.multiply"}
    layers = [
        {"class_name": "InputLayer", "name": "x", "config": start, "inbound_nodes": []},
        {
            "class_name": "TFOpLambda",
            "name": "tf.math.multiply",
            "config": scale,
            "inbound_nodes": [["x", 0, 0, {"y": 3.0, "name": None}]],
        },
        {
            "class_name": "Multiply",
            "name": "multiply",
            "config": {"name": "multiply", "trainable": True},
            "inbound_nodes": [[["x", 0, 0, {}], ["tf.math.multiply", 0, 0, {}]]],
        },
    ]
    config = {"name": "m", "layers": layers, "input_layers": [["x", 0, 0]], "output_layers": [["multiply", 0, 0]]}
    model = rebuild(Architecture({"class_name": "Functional", "config": config}, "2.12.0")).model
    assert model.get_layer("multiply").__class__ is keras.layers.Multiply
    np.testing.assert_array_equal(model(np.array([[1.0, 2.0, 3.0]], "float32")), [[3.0, 12.0, 27.0]])


def test_versions_tell_the_era() -> None:
    assert parse('{"class_name": "Sequential", "config": [], "keras_version": "2.2.4-tf"}', "x").legacy
    assert not parse('{"class_name": "Sequential", "config": {}, "module": "keras"}', "x").legacy
    assert parse('{"class_name": "Functional", "config": {}, "module": "keras.src.engine.functional"}', "x").legacy
    assert not parse('{"class_name": "Sequential", "config": {}}', "x", "3.4.1").legacy


def test_arrays_of_old_markers_become_plain() -> None:
    text = '{"class_name": "A", "config": {"s": {"class_name": "__tuple__", "items": [1, null]}}, "keras_version": "2"}'
    assert parse(text, "x").root["config"]["s"] == [1, None]
    value = '{"class_name": "__numpy__", "config": {"value": 0.5}}'
    text = '{"class_name": "A", "keras_version": "2", "config": {"v": VALUE}}'.replace("VALUE", value)
    assert parse(text, "x").root["config"]["v"] == 0.5


def test_causal_attention_of_old_files_looks_back_only() -> None:
    import keras
    import numpy as np

    name = {"name": "q", "batch_input_shape": [None, 4, 3], "dtype": "float32"}
    attention = {"name": "a", "use_scale": False, "causal": True, "dropout": 0.0}
    calls = [[["q", 0, 0, {}], ["q", 0, 0, {}]]]
    layers = [
        {"class_name": "InputLayer", "name": "q", "config": name, "inbound_nodes": []},
        {"class_name": "Attention", "name": "a", "config": attention, "inbound_nodes": calls},
    ]
    config = {"name": "m", "layers": layers, "input_layers": [["q", 0, 0]], "output_layers": [["a", 0, 0]]}
    model = rebuild(Architecture({"class_name": "Functional", "config": config}, "2.4.0")).model
    x = np.random.default_rng(2).normal(size=(2, 4, 3)).astype("float32")
    wanted = keras.layers.Attention()([x, x], use_causal_mask=True)
    np.testing.assert_allclose(model(x), wanted, atol=1e-6)


def test_tensors_that_keras_1_merged() -> None:
    import numpy as np

    inputs = [
        {
            "class_name": "InputLayer",
            "name": name,
            "config": {"name": name, "batch_input_shape": [None, 2], "input_dtype": "float32"},
            "inbound_nodes": [],
        }
        for name in "ab"
    ]
    merge = {"name": "m", "layers": [], "mode": "concat", "concat_axis": -1, "mode_type": "raw"}
    calls = [[["b", 0, 0], ["a", 0, 0]]]
    layers = [*inputs, {"class_name": "Merge", "name": "m", "config": merge, "inbound_nodes": calls}]
    config = {"name": "n", "layers": layers, "input_layers": [["a", 0, 0], ["b", 0, 0]], "output_layers": [["m", 0, 0]]}
    model = rebuild(Architecture({"class_name": "Model", "config": config}, "1.2.2")).model
    found = model([np.array([[1.0, 2.0]]), np.array([[3.0, 4.0]])])
    assert np.asarray(found).tolist() == [[3.0, 4.0, 1.0, 2.0]]
