"""Ten small models of different kinds, as they start and after some steps of training, for ``scripts/bench proof``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

STATES = ("initialised", "trained")
ROWS = 32


def dense() -> Any:
    import keras
    from keras import layers

    stack = [keras.Input((8,), name="features"), layers.Dense(12, "gelu"), layers.Dense(12, "relu")]
    return keras.Sequential([*stack, layers.LayerNormalization(), layers.Dense(4, "softmax", name="probs")])


def convolution() -> Any:
    import keras
    from keras import layers

    image = x = keras.Input((12, 12, 3), name="image")
    for _ in range(2):
        x = layers.ReLU()(layers.BatchNormalization()(layers.Conv2D(6, 3, use_bias=False)(x)))
    x = layers.Flatten()(layers.MaxPooling2D()(x))
    return keras.Model(image, layers.Dense(5, "softmax", name="digit")(x))


def mobile() -> Any:
    """Three blocks of a MobileNet: depthwise, then pointwise, each with its BatchNormalization."""
    import keras
    from keras import layers

    image = keras.Input((12, 12, 3), name="image")
    x = layers.Conv2D(8, 3, padding="same", use_bias=False)(image)
    for _ in range(3):
        for layer in (layers.DepthwiseConv2D(3, padding="same", use_bias=False), layers.Conv2D(8, 1, use_bias=False)):
            x = layers.ReLU(6.0)(layers.BatchNormalization()(layer(x)))
    return keras.Model(image, layers.Dense(4, "softmax", name="kind")(layers.GlobalAveragePooling2D()(x)))


def residual() -> Any:
    import keras
    from keras import layers

    image = keras.Input((10, 10, 2), name="image")
    x = layers.Conv2D(6, 3, padding="same")(image)
    for _ in range(2):
        y = layers.Activation("relu")(layers.BatchNormalization()(layers.Conv2D(6, 3, padding="same")(x)))
        y = layers.BatchNormalization()(layers.Conv2D(6, 3, padding="same")(y))
        x = layers.Activation("relu")(layers.Add()([x, y]))
    return keras.Model(image, layers.Dense(3, name="logits")(layers.GlobalAveragePooling2D()(x)))


def lstm() -> Any:
    import keras
    from keras import layers

    series = keras.Input((9, 4), name="series")
    x = layers.LSTM(6)(layers.LSTM(6, return_sequences=True)(series))
    return keras.Model(series, layers.Dense(2, "tanh", name="next")(x))


def gru() -> Any:
    import keras
    from keras import layers

    series = keras.Input((8, 3), name="series")
    x = layers.Bidirectional(layers.GRU(5, return_sequences=True))(series)
    x = layers.Bidirectional(layers.GRU(4))(x)
    return keras.Model(series, layers.Dense(3, "sigmoid", name="labels")(x))


def attention() -> Any:
    """One block of a transformer."""
    import keras
    from keras import layers

    tokens = keras.Input((6, 8), name="tokens")
    x = layers.LayerNormalization()(layers.Add()([tokens, layers.MultiHeadAttention(2, 4)(tokens, tokens)]))
    x = layers.LayerNormalization()(layers.Add()([x, layers.Dense(8)(layers.Dense(12, "gelu")(x))]))
    return keras.Model(tokens, layers.Dense(3, "softmax", name="label")(layers.GlobalAveragePooling1D()(x)))


def several() -> Any:
    """Two inputs of one shape, two outputs of one shape."""
    import keras
    from keras import layers

    left, right = keras.Input((5,), name="left"), keras.Input((5,), name="right")
    inner = keras.Sequential([keras.Input((5,)), layers.Dense(6, "tanh"), layers.BatchNormalization()], name="inner")
    both = layers.Concatenate()([inner(left), inner(right)])
    outputs = [layers.Dense(3, name="mean")(both), layers.Dense(3, "softplus", name="spread")(inner(right))]
    return keras.Model([left, right], outputs)


def text() -> Any:
    """Words as whole numbers."""
    import keras
    from keras import layers

    words = keras.Input((10,), dtype="int32", name="words")
    x = layers.Conv1D(8, 3, activation="relu")(layers.Embedding(30, 6)(words))
    return keras.Model(words, layers.Dense(2, "softmax", name="mood")(layers.GlobalMaxPooling1D()(x)))


def separable() -> Any:
    import keras
    from keras import layers

    image = keras.Input((10, 10, 3), name="image")
    x = layers.Normalization(mean=[0.4, 0.5, 0.6], variance=[0.2, 0.3, 0.25])(image)
    x = layers.BatchNormalization()(layers.SeparableConv2D(6, 3, activation="elu")(x))
    x = layers.Conv2DTranspose(4, 3, strides=2, padding="same", activation="swish")(x)
    return keras.Model(image, layers.Dense(3, name="score")(layers.GlobalAveragePooling2D()(x)))


MODELS: dict[str, Callable[[], Any]] = {
    make.__name__: make
    for make in (dense, convolution, mobile, residual, lstm, gru, attention, several, text, separable)
}


def made(kind: str, state: str, seed: int) -> Any:
    """The model as Keras starts it, or after four passes over made data; the same seed gives the same weights."""
    import keras

    keras.utils.set_random_seed(seed)
    model = MODELS[kind]()
    if state == "trained":
        _train(model, np.random.default_rng(seed))
    return model


def _train(model: Any, random: np.random.Generator) -> None:
    """On data with a mean and a spread of their own, so that statistics move away from 0 and 1."""
    model.compile(optimizer="adam", loss="mse")
    model.optimizer.learning_rate = 0.01
    inputs = [_data(tensor, random) for tensor in model.inputs]
    outputs = [random.uniform(0, 1, (ROWS, *tensor.shape[1:])).astype("float32") for tensor in model.outputs]
    several = len(outputs) > 1
    model.fit(inputs if len(inputs) > 1 else inputs[0], outputs if several else outputs[0], 8, 4, verbose=0)


def _data(tensor: Any, random: np.random.Generator) -> Any:
    shape = (ROWS, *tensor.shape[1:])
    if "int" in str(tensor.dtype):
        return random.integers(0, 30, shape).astype("int32")
    return random.normal(0.6, 1.5, shape).astype("float32")


def saved(kind: str, state: str, seed: int, target: Path) -> Path:
    """The model in the format of the target's suffix."""
    model = made(kind, state, seed)
    model.save(target)
    return target


def statistics(kind: str, path: Path) -> tuple[list[Any], list[Any]]:
    """The moving means and the moving variances of a saved model."""
    import keras

    weights = keras.saving.load_model(path, compile=False).weights
    found = [(variable.name, np.asarray(variable)) for variable in weights]
    return [value for name, value in found if name == "moving_mean"], [
        value for name, value in found if name == "moving_variance"
    ]
