"""Layouts of Keras 1, of Theano and of cuDNN, against the rules that Keras 2 itself had for them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from tests.formats.models import load
from worker.formats import _architecture, _old_weights, _rebuild, _weights

RANDOM = np.random.default_rng(4)


def drawn(*shape: int) -> np.ndarray:
    return RANDOM.normal(size=shape).astype("float32")


def gates(count: int, inputs: int, units: int) -> list[np.ndarray]:
    """W, U and b of each gate, as Keras 1 kept them."""
    return [array for _ in range(count) for array in (drawn(inputs, units), drawn(units, units), drawn(units))]


def keras_1(kind: str, name: str, **config: Any) -> dict[str, Any]:
    return {"class_name": kind, "config": {"name": name, "trainable": True, **config}}


def recurrent(kind: str, name: str, units: int, **config: Any) -> dict[str, Any]:
    words = {"output_dim": units, "init": "uniform", "inner_init": "orthogonal", "activation": "tanh"}
    words |= {"inner_activation": "hard_sigmoid", "dropout_W": 0.0, "dropout_U": 0.1, "consume_less": "cpu"}
    return keras_1(kind, name, **words, input_dim=3, input_length=None, W_regularizer=None, **config)


IMAGES = {"border_mode": "same", "subsample": [1, 1], "dim_ordering": "tf", "bias": True, "init": "uniform"}
LAYERS = [
    keras_1("Convolution2D", "c", nb_filter=4, nb_row=3, nb_col=2, batch_input_shape=[None, 6, 6, 2], **IMAGES),
    keras_1("BatchNormalization", "n", epsilon=1e-5, mode=0, axis=-1, momentum=0.9, beta_regularizer=None),
    keras_1("MaxPooling2D", "p", pool_size=[2, 2], strides=[2, 2], border_mode="valid", dim_ordering="tf"),
    keras_1("Reshape", "r", target_shape=[9, 4]),
    keras_1("Convolution1D", "s", nb_filter=5, filter_length=2, subsample_length=1, border_mode="valid", bias=True),
    keras_1("Dropout", "d", p=0.5),
    recurrent("LSTM", "l", 6, return_sequences=True, forget_bias_init="one"),
    keras_1("Bidirectional", "b", merge_mode="concat", layer=recurrent("GRU", "g", 4, return_sequences=False)),
    keras_1("Dense", "o", output_dim=3, activation="softmax", bias=True, W_constraint={"name": "maxnorm", "m": 2}),
]
ROWS = {
    "c": [drawn(3, 2, 2, 4), drawn(4)],
    "n": [drawn(4), drawn(4), drawn(4), np.abs(drawn(4)) + 0.5],
    "s": [drawn(2, 1, 4, 5), drawn(5)],
    "l": gates(4, 5, 6),
    "b": [*gates(3, 6, 4), *gates(3, 6, 4)],
    "o": [drawn(8, 3), drawn(3)],
}


def same_in_keras_2(tf_keras: Any) -> Any:
    layers = tf_keras.layers
    gru = layers.GRU(4, recurrent_activation="hard_sigmoid", reset_after=False)
    return tf_keras.Sequential(
        [
            layers.Conv2D(4, (3, 2), padding="same", input_shape=(6, 6, 2), name="c"),
            layers.BatchNormalization(epsilon=1e-5, name="n"),
            layers.MaxPooling2D(name="p"),
            layers.Reshape((9, 4)),
            layers.Conv1D(5, 2, name="s"),
            layers.LSTM(6, return_sequences=True, recurrent_activation="hard_sigmoid", name="l"),
            layers.Bidirectional(gru, name="b"),
            layers.Dense(3, "softmax", name="o"),
        ]
    )


def reference(model: Any, rows: dict[str, list[np.ndarray]], version: str) -> Any:
    """The model of Keras 2 with weights as its own reader of old files lays them out."""
    from tf_keras.src.saving.legacy.hdf5_format import preprocess_weights_for_loading

    for name, arrays in rows.items():
        layer = model.get_layer(name)
        layer.set_weights(
            preprocess_weights_for_loading(layer, [item.copy() for item in arrays], version, "tensorflow")
        )
    return model


def written(path: Path, layers: list[dict[str, Any]], rows: dict[str, list[np.ndarray]], version: str) -> Path:
    import json

    with h5py.File(path, "w") as file:
        file.attrs["keras_version"] = version.encode()
        file.attrs["model_config"] = json.dumps({"class_name": "Sequential", "config": layers}).encode()
        group = file.create_group("model_weights")
        group.attrs["layer_names"] = [layer["config"]["name"].encode() for layer in layers]
        for layer in layers:
            name = layer["config"]["name"]
            inner = group.create_group(name)
            inner.attrs["weight_names"] = [f"{name}_{place}".encode() for place in range(len(rows.get(name, [])))]
            for place, array in enumerate(rows.get(name, [])):
                inner[f"{name}_{place}"] = array
    return path


def answer(path: Path, inputs: np.ndarray, scratch: Path) -> np.ndarray:
    loaded = load("h5", path, scratch)
    return next(iter(loaded.run({loaded.inputs[0].name: inputs}).values()))


def test_a_file_of_keras_1(tmp_path: Path) -> None:
    import tf_keras

    path = written(tmp_path / "k1.h5", LAYERS, ROWS, "1.2.2")
    inputs = drawn(3, 6, 6, 2)
    wanted = reference(same_in_keras_2(tf_keras), ROWS, "1")(inputs)
    np.testing.assert_allclose(answer(path, inputs, tmp_path), wanted, atol=1e-5)


def test_layers_of_cudnn_compute_the_same_on_any_machine(tmp_path: Path) -> None:
    import tf_keras

    plain = {"return_state": False, "go_backwards": False, "stateful": False, "unit_forget_bias": True}
    lstm = keras_1("CuDNNLSTM", "i", units=4, return_sequences=True, **plain)
    gru = keras_1("CuDNNGRU", "g", units=8, return_sequences=False, return_state=False)
    both = keras_1("Bidirectional", "b", merge_mode="concat", layer=lstm, batch_input_shape=[None, 5, 3])
    half = [(3, 16), (4, 16), (32,)]
    rows = {"b": [drawn(*shape) for shape in half + half], "g": [drawn(8, 24), drawn(8, 24), drawn(48)]}
    layers = tf_keras.layers
    inner = layers.Bidirectional(layers.LSTM(4, return_sequences=True), input_shape=(5, 3), name="b")
    wanted = reference(tf_keras.Sequential([inner, layers.GRU(8, reset_after=True, name="g")]), rows, "2")
    inputs = drawn(2, 5, 3)
    path = written(tmp_path / "gpu.h5", [both, gru], rows, "2.2.4")
    np.testing.assert_allclose(answer(path, inputs, tmp_path), wanted(inputs), atol=1e-5)


def modern(layer: dict[str, Any], arrays: list[np.ndarray], backend: str) -> tuple[list[Any], list[str]]:
    root = {"class_name": "Sequential", "config": [layer]}
    architecture = _architecture.Architecture(root, "2.0.8", backend)
    part = _rebuild.rebuild(architecture).part
    rows = _weights.Rows([(layer["config"]["name"], [("", array) for array in arrays])])
    result, findings = _old_weights.modernised(rows, part, architecture.of_keras_1, backend)
    return [array for _, array in result.rows[0][1]], [finding.code for finding in findings]


def test_kernels_of_theano_are_turned_around() -> None:
    conv = {"name": "c", "filters": 2, "kernel_size": [3, 3], "batch_input_shape": [None, 5, 5, 1]}
    arrays = [drawn(3, 3, 1, 2), drawn(2)]
    found, codes = modern({"class_name": "Conv2D", "config": conv}, arrays, "theano")
    np.testing.assert_array_equal(found[0], arrays[0][::-1, ::-1])
    assert codes == ["repaired-weight-layout"]
    assert modern({"class_name": "Conv2D", "config": conv}, arrays, "tensorflow") == (arrays, [])


@pytest.mark.parametrize("backend", ["", "theano"])
def test_a_convolution_of_keras_1_on_a_backend_that_nobody_knows_is_told(backend: str) -> None:
    config = {"nb_filter": 2, "nb_row": 3, "nb_col": 3, "batch_input_shape": [None, 5, 5, 1], **IMAGES}
    codes = modern(keras_1("Convolution2D", "c", **config), [drawn(3, 3, 1, 2), drawn(2)], backend)[1]
    assert ("unknown-backend" in codes) == (not backend)
