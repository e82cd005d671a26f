"""TensorFlow.js layers models: what Larder writes runs in TensorFlow.js itself, and what that saves is read."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.formats import models
from tests.tfjs import node
from worker import archive, intake
from worker.errors import CorruptFile, UnsupportedOperation
from worker.formats import _live, _outline, _sources, get, tfjs_layers
from worker.formats._architecture import parse
from worker.formats._format import Hop

MadeFile = Callable[[str, str], Path]
LAYERS = get("tfjs_layers")
RUNNING = ("dense", "conv", "several")
SHAPES = {1: (6,), 2: (5, 4), 3: (8, 7, 3), 4: (5, 6, 4, 2)}
ACTIVATIONS = ("elu", "selu", "relu6", "softplus", "softsign", "log_softmax", "gelu", "mish", "silu")
# What TensorFlow.js Layers has, as Keras 3 builds it on inputs of so many dimensions
TAKEN: dict[int, tuple[str, ...]] = {
    1: (
        *("ReLU(1.0)", "LeakyReLU(0.2)", "PReLU()", "ELU()", "Softmax()", "RepeatVector(3)", "Rescaling(0.5, 1.0)"),
        *("Reshape((3, 2))", "BatchNormalization()", "LayerNormalization()", "Dropout(0.5)", "GaussianNoise(0.1)"),
        *("Normalization(mean=[1.0] * 6, variance=[0.0, 1, 2, 3, 4, 5])", "GaussianDropout(0.2)", "AlphaDropout(0.1)"),
        *(f"Dense(4, '{name}')" for name in ACTIVATIONS),
        *(f"Activation('{name}')" for name in ("tanh", "sigmoid", "linear", "selu")),
    ),
    2: (
        *("Conv1D(3, 2)", "Conv1D(3, 2, padding='same', dilation_rate=2)", "MaxPooling1D()", "Permute((2, 1))"),
        *("AveragePooling1D(2, padding='same')", "GlobalAveragePooling1D()", "GlobalMaxPooling1D()", "Flatten()"),
        *("LSTM(3)", "LSTM(3, return_sequences=True, go_backwards=True)", "GRU(3, reset_after=False)", "SimpleRNN(3)"),
        *("TimeDistributed(layers.Dense(3))", "Bidirectional(layers.LSTM(3, return_sequences=True), merge_mode='sum')"),
        *("Bidirectional(layers.SimpleRNN(3), merge_mode='mul')", "LayerNormalization(axis=[1, 2])", "Masking(0.5)"),
        *("Bidirectional(layers.GRU(2, reset_after=False))", "PReLU(shared_axes=[1])", "SpatialDropout1D(0.2)"),
    ),
    3: (
        *("Conv2D(4, 3, strides=2, padding='same', use_bias=False)", "Conv2D(4, (2, 3), dilation_rate=2)"),
        *("Conv2DTranspose(3, 3, strides=2, padding='same')", "Conv2DTranspose(3, 2, strides=3)"),
        *("DepthwiseConv2D(2, depth_multiplier=2, strides=2, padding='same')", "GlobalMaxPooling2D()"),
        *("SeparableConv2D(4, 3, dilation_rate=2)", "MaxPooling2D(3, 2, padding='same')", "UpSampling2D((2, 3))"),
        *("AveragePooling2D(3, 2, padding='same')", "Cropping2D(((1, 2), (0, 1)))", "ZeroPadding2D(((1, 2), (0, 1)))"),
    ),
    4: (
        *("Conv3D(2, 2, strides=2, padding='same')", "Conv3DTranspose(2, 2, strides=2, padding='same')"),
        *("MaxPooling3D()", "AveragePooling3D(2, padding='same')"),
    ),
}
MERGING = ("Add()", "Multiply()", "Average()", "Maximum()", "Minimum()", "Concatenate()", "Dot(axes=1, normalize=True)")
# What it lacks, ignores without a word, or computes otherwise
REFUSED: list[tuple[int, str, str]] = [
    (1, "Activation('hard_sigmoid')", "hard_sigmoid"),  # another slope than in Keras 3
    (1, "Activation('exponential')", "exponential"),
    (1, "ReLU(negative_slope=0.1)", "negative_slope"),
    (1, "ELU(0.5)", "alpha"),
    (2, "GRU(3)", "reset_after"),
    (2, "Conv1D(3, 2, padding='causal')", "padding"),
    (2, "GlobalAveragePooling1D(keepdims=True)", "keepdims"),
    (2, "BatchNormalization(axis=1)", "along axis 1"),
    (2, "Softmax(axis=1)", "along axis 1"),
    (2, "MultiHeadAttention(2, 2)(x, x)", "MultiHeadAttention"),
    (2, "SeparableConv1D(2, 2)", "SeparableConv1D"),
    (3, "Conv2D(3, 2, groups=3)", "groups"),
    (3, "DepthwiseConv2D(2, dilation_rate=2)", "dilation_rate"),
    (3, "UpSampling2D(interpolation='bilinear')", "interpolation"),
    (3, "Rescaling([1.0, 2.0, 3.0])", "a number of its own"),
    (3, "Resizing(4, 4)", "Resizing"),
]


def made(expression: str, rank: int) -> Any:
    """A model of one layer, on one input or on two, with weights that show."""
    import keras
    from keras import layers

    x = keras.Input(SHAPES[rank], name="x")
    inputs = [x, keras.Input(SHAPES[rank], name="z")] if expression in MERGING else x
    made = eval(f"layers.{expression}", {"layers": layers, "x": x})  # noqa: S307 - the table above
    model = keras.Model(inputs, made(inputs) if callable(made) else made)
    models.stir(model)
    return model


def written(model: Any, folder: Path) -> tuple[Path, list[str]]:
    folder.mkdir(parents=True, exist_ok=True)
    hop = Hop(folder)
    tfjs_layers.write(model, folder / "result.zip", hop)
    return folder / "result.zip", [finding.code for finding in hop.findings]


def unpacked(path: Path, folder: Path) -> Path:
    (folder / "unpacked").mkdir(parents=True)
    archive.unpack(path, folder / "unpacked")
    return folder / "unpacked"


def assert_same_in_tensorflowjs(cases: dict[str, Any], folder: Path) -> None:
    """Every model answers in TensorFlow.js what it answers in Keras; all of them in one Node process."""
    jobs, wanted = [], []
    for number, (name, model) in enumerate(cases.items()):
        path, _ = written(model, folder / str(number))
        loaded = _live.loaded(model)
        inputs = models.inputs_of(loaded)
        wanted.append((name, loaded.run(inputs)))
        jobs.append(node.job(unpacked(path, folder / str(number)), inputs, list(wanted[-1][1])))
    for (name, values), answer in zip(wanted, node.answers(jobs), strict=True):
        found = node.arrays(answer, list(values))
        for output, value in values.items():
            np.testing.assert_allclose(found[output], value, rtol=1e-5, atol=3e-6, err_msg=name)


def test_it_works(made_file: MadeFile, tmp_path: Path) -> None:
    """The canonical models in TensorFlow.js and, rebuilt from the file, in Keras."""
    assert_same_in_tensorflowjs({kind: models.made(kind) for kind in RUNNING}, tmp_path / "js")
    for kind in RUNNING:
        source = made_file(kind, "keras")
        result, _ = models.convert("keras", "tfjs_layers", source, tmp_path / kind)
        before = models.load("keras", source, tmp_path / kind / "before")
        after = models.load("tfjs_layers", result, tmp_path / kind / "after")
        assert [spec.name for spec in before.inputs] == [spec.name for spec in after.inputs]
        inputs = models.inputs_of(before)
        values, found = before.run(inputs), after.run(inputs)
        for name in values:
            np.testing.assert_allclose(found[name], values[name], rtol=1e-5, atol=1e-6)


def test_it_is_recognised(made_file: MadeFile, tmp_path: Path) -> None:
    path, _ = models.convert("keras", "tfjs_layers", made_file("conv", "keras"), tmp_path)
    sample = intake.take_sample(path, "model.zip")
    assert LAYERS.sniff(sample)
    assert not get("tfjs_graph").sniff(sample)
    assert LAYERS.inspect(path, tmp_path).layers


def test_every_layer_that_is_taken_computes_the_same(tmp_path: Path) -> None:
    cases = {item: made(item, rank) for rank, items in TAKEN.items() for item in items}
    assert_same_in_tensorflowjs(cases | {item: made(item, 1) for item in MERGING}, tmp_path)


@pytest.mark.parametrize(("rank", "layer", "named"), REFUSED, ids=[item for _, item, _ in REFUSED])
def test_what_it_would_lose_is_refused_by_name(rank: int, layer: str, named: str, tmp_path: Path) -> None:
    model = made(layer, rank)
    with pytest.raises(UnsupportedOperation, match=named) as caught:
        written(model, tmp_path)
    assert said_before(model) == caught.value.message


def said_before(model: Any) -> str:
    """What inspection says of the model's description alone."""
    import keras

    architecture = parse(model.to_json(), "architecture.json", keras.__version__)
    return _outline.summarise(architecture).refusals.get("tfjs_layers", "")


def test_nothing_is_said_against_layers_that_are_taken() -> None:
    for rank, items in TAKEN.items():
        assert [said for item in items if (said := said_before(made(item, rank)))] == []
    assert [said for item in MERGING if (said := said_before(made(item, 1)))] == []


def test_layers_of_people_s_own_are_named_before_their_code_is_there() -> None:
    own = {"class_name": "Sauce", "config": {"name": "sauce"}, "registered_name": "Kitchen>Sauce"}
    root = {"class_name": "Sequential", "config": {"name": "soup", "layers": [own]}}
    said = _outline.summarise(parse(json.dumps(root), "architecture.json", "3.9.0")).refusals["tfjs_layers"]
    assert said == "TF.js layers model cannot hold Sauce: TensorFlow.js has no such layers; take the TF.js graph model."


def masked(*names: str) -> Any:
    """Layers behind an embedding with a mask."""
    import keras
    from keras import layers

    tokens = keras.Input((6,), dtype="int32", name="tokens")
    x = layers.Embedding(9, 4, mask_zero=True)(tokens)
    for name in names:
        x = eval(f"layers.{name}", {"layers": layers})(x)  # noqa: S307 - from this file
    model = keras.Model(tokens, x)
    models.stir(model)
    return model


def test_masks_reach_recurrent_layers(tmp_path: Path) -> None:
    chains = (
        ("LSTM(3, return_sequences=True)", "Bidirectional(layers.GRU(3, reset_after=False))"),
        ("BatchNormalization()", "Dropout(0.2)", "LSTM(2, go_backwards=True)"),
        ("TimeDistributed(layers.Dense(3))", "SimpleRNN(3)"),
    )
    cases = {str(chain): masked(*chain) for chain in chains}
    assert_same_in_tensorflowjs(cases, tmp_path)
    assert [said for model in cases.values() if (said := said_before(model))] == []


@pytest.mark.parametrize(
    "layers",
    [
        ("GlobalAveragePooling1D()",),  # leaves masked steps out in Keras alone
        ("LSTM(2)", "RepeatVector(3)", "LSTM(2)"),  # the second one gets a mask of the first in TensorFlow.js
        ("Bidirectional(layers.LSTM(3, return_sequences=True))",),  # gives zeros for masked steps in Keras alone
    ],
)
def test_masks_that_it_handles_otherwise_are_refused(layers: tuple[str, ...], tmp_path: Path) -> None:
    model = masked(*layers)
    with pytest.raises(UnsupportedOperation, match="mask") as caught:
        written(model, tmp_path)
    assert said_before(model) == caught.value.message


def test_nested_models_with_the_same_names_keep_their_weights(tmp_path: Path) -> None:
    import keras
    from keras import layers

    inner_input = keras.Input((6,), name="inner_input")
    both = [layers.Dense(3, name="d")(inner_input), layers.Dense(2, name="e")(inner_input)]
    inner = keras.Model(inner_input, both, name="inner")
    left, right = keras.Input((6,), name="left"), keras.Input((6,), name="right")
    one, two = inner(left), inner(right)
    model = keras.Model([left, right], layers.Dense(2, name="d")(layers.Concatenate()([one[0], two[1], two[0]])))
    models.stir(model)
    assert_same_in_tensorflowjs({"nested": model}, tmp_path)
    assert written(model, tmp_path / "again")[1] == ["tfjs-renamed-layer"]


def test_a_model_of_half_precision_says_that_it_computes_in_float32(tmp_path: Path) -> None:
    import keras

    policy = keras.dtype_policies.DTypePolicy("mixed_float16")
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2, dtype=policy)])
    assert written(model, tmp_path)[1] == ["tfjs-float32"]


def test_the_hard_sigmoid_of_keras_2_is_that_of_tensorflowjs(tmp_path: Path) -> None:
    import tf_keras

    model = tf_keras.Sequential([tf_keras.layers.Dense(3, "hard_sigmoid", input_shape=(4,), name="out")])
    model.save(tmp_path / "old.h5")
    result, _ = models.convert("h5", "tfjs_layers", tmp_path / "old.h5", tmp_path)
    x = np.linspace(-4, 4, 12, dtype="float32").reshape(3, 4)
    answer = node.answers([node.job(unpacked(result, tmp_path), {"dense_input": x}, ["out"])])[0]
    np.testing.assert_allclose(node.arrays(answer, ["out"])["out"], model.predict(x, verbose=0), rtol=1e-5, atol=1e-6)


# Files of others --------------------------------------------------------------------------------------------------

SAVED = """
const L = layers.layers;
const a = layers.input({shape: [6], name: 'a'}), b = layers.input({shape: [6], name: 'b'});
const inner = layers.sequential({name: 'inner'});
inner.add(L.dense({units: 3, inputShape: [6], activation: 'hardSigmoid'}));
inner.add(L.batchNormalization());
const sum = L.add().apply([inner.apply(a), inner.apply(b)]);
const shape = L.reshape({targetShape: [3, 1]}).apply(sum);
const cell = {units: 2, recurrentInitializer: 'glorotNormal', kernelInitializer: 'glorotNormal'};
const read = L.bidirectional({layer: L.lstm(cell), mergeMode: 'concat'}).apply(shape);
const out = L.dense({units: 2, name: 'out'}).apply(L.concatenate().apply([read, L.gru(cell).apply(shape)]));
const act = L.activation({activation: 'softmax', name: 'act'}).apply(sum);
const model = layers.model({inputs: [a, b], outputs: [out, act]});
model.compile({optimizer: 'adam', loss: 'meanSquaredError'});
await model.fit([tf.randomNormal([8, 6]), tf.randomNormal([8, 6])],
                [tf.randomNormal([8, 2]), tf.randomNormal([8, 3])], {epochs: 1, verbose: 0});
return model;
"""


def test_what_tensorflowjs_saved_is_read(tmp_path: Path) -> None:
    """By tf-keras and, rebuilt, by Keras 3: with JavaScript's names and its order of the weights."""
    (saved,) = node.answers([{"save": str(tmp_path / "js"), "script": SAVED}])
    assert "error" not in saved, saved
    path = tmp_path / "js.zip"
    archive.pack(tmp_path / "js", path)
    assert LAYERS.sniff(intake.take_sample(path, "js.zip"))
    loaded = models.load("tfjs_layers", path, tmp_path)
    rebuilt = _live.loaded(_sources.open_model("tfjs_layers", path, tmp_path).model)
    inputs = models.inputs_of(loaded)
    (answer,) = node.answers([node.job(tmp_path / "js", inputs, ["out", "act"])])
    for name, value in node.arrays(answer, ["out", "act"]).items():
        np.testing.assert_allclose(loaded.run(inputs)[name], value, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(rebuilt.run(inputs)[name], value, rtol=1e-5, atol=1e-6)


def rewritten(made_file: MadeFile, folder: Path, change: Callable[[dict[str, Any]], None]) -> Path:
    """A written model whose model.json was changed."""
    path, _ = models.convert("keras", "tfjs_layers", made_file("several", "keras"), folder)
    target = unpacked(path, folder)
    root = json.loads((target / "model.json").read_text(encoding="utf-8"))
    change(root)
    (target / "model.json").write_text(json.dumps(root), encoding="utf-8")
    archive.pack(target, folder / "changed.zip")
    return folder / "changed.zip"


def as_the_converter_names_a_keras_archive(root: dict[str, Any]) -> None:
    """The official converter takes the paths in the archive's HDF5 file for names."""
    names = {"embedding": "embedding", "dense": "inner/layers/dense", "label": "dense", "score": "dense_1"}
    names["batch_normalization"] = "inner/layers/batch_normalization"
    numbers: dict[str, int] = {}
    for weight in root["weightsManifest"][0]["weights"]:
        layer = weight["name"].split("/")[0]
        stem = next(names[key] for key in sorted(names, key=len, reverse=True) if layer.startswith(key))
        stem = stem.replace("inner/", "sequential/")
        numbers[stem] = numbers.get(stem, -1) + 1
        weight["name"] = f"layers/{stem}/vars/{numbers[stem]}"


def with_an_optimizer(root: dict[str, Any]) -> None:
    root["trainingConfig"] = {"optimizer_config": {"class_name": "Adam", "config": {}}, "loss": "mse"}
    row = {"name": "m", "shape": [0], "dtype": "float32", "group": "optimizer"}
    root["weightsManifest"][0]["weights"].append(row)


def losing_a_layer(root: dict[str, Any]) -> None:
    root["weightsManifest"][0]["weights"][-1]["name"] = "nobody/bias"


def test_names_of_a_keras_archive_are_understood(made_file: MadeFile, tmp_path: Path) -> None:
    path = rewritten(made_file, tmp_path, as_the_converter_names_a_keras_archive)
    before = models.load("keras", made_file("several", "keras"), tmp_path / "before")
    after = models.load("tfjs_layers", path, tmp_path / "after")
    inputs = models.inputs_of(before)
    wanted, found = before.run(inputs), after.run(inputs)
    for name, value in wanted.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-5, atol=1e-6)


def test_the_optimizer_is_left_behind_and_said_so(made_file: MadeFile, tmp_path: Path) -> None:
    path = rewritten(made_file, tmp_path, with_an_optimizer)
    _, codes = models.convert("tfjs_layers", "keras", path, tmp_path / "back")
    assert "optimizer-dropped" in codes


def test_a_weight_without_a_layer_is_told(made_file: MadeFile, tmp_path: Path) -> None:
    path = rewritten(made_file, tmp_path, losing_a_layer)
    with pytest.raises(CorruptFile, match="nobody/bias"):
        models.load("tfjs_layers", path, tmp_path / "load")


def test_its_snippet_runs_as_it_is_pasted(made_file: MadeFile, tmp_path: Path) -> None:
    folder = tmp_path / "page"
    folder.mkdir()
    path, _ = models.convert("keras", "tfjs_layers", made_file("conv", "keras"), tmp_path)
    archive.unpack(path, folder / "model")
    assert "pooled" in node.paste(LAYERS.snippet.replace('"{file}"', '"model.zip"'), folder)
