"""The canonical models of the format tests, and what the tests do with files again and again."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from worker import formats
from worker.formats._format import Hop, Loaded

if TYPE_CHECKING:
    from worker.formats._format import Arrays

KERAS_SLUGS = ("keras", "h5", "json_npz", "weights_h5", "json_safetensors")
TARGETS = (*KERAS_SLUGS, "saved_model", "data_pickle")


def dense() -> Any:
    import keras
    from keras import layers

    return keras.Sequential(
        [
            keras.Input((6,), name="features"),
            layers.Normalization(mean=[0.5] * 6, variance=[2.0] * 6),
            layers.Dense(5, "gelu"),
            layers.Dense(3, "softmax", name="probs"),
        ],
        name="dense",
    )


def conv() -> Any:
    import keras
    from keras import layers

    image = keras.Input((9, 8, 3), name="image")
    x = layers.Conv2D(4, 3, use_bias=False)(image)
    x = layers.ReLU(6.0)(layers.BatchNormalization()(x))
    x = layers.SeparableConv2D(5, 3, padding="same")(x)
    x = layers.DepthwiseConv2D(3)(x)
    return keras.Model(image, layers.GlobalAveragePooling2D(name="pooled")(x), name="conv")


def recurrent() -> Any:
    import keras
    from keras import layers

    tokens = keras.Input((7,), dtype="int32", name="tokens")
    x = layers.Embedding(20, 4, mask_zero=True)(tokens)
    x = layers.LSTM(5, return_sequences=True)(x)
    x = layers.Bidirectional(layers.GRU(3))(x)
    return keras.Model(tokens, layers.Dense(2, name="out")(x), name="recurrent")


def several() -> Any:
    """Two inputs of one shape, two outputs, a layer that is used twice, a nested model and an embedding."""
    import keras
    from keras import layers

    left, right = keras.Input((4,), name="left"), keras.Input((4,), name="right")
    kind = keras.Input((2,), dtype="int64", name="kind")
    inner = keras.Sequential([keras.Input((4,)), layers.Dense(4, "tanh"), layers.BatchNormalization()], name="inner")
    both = layers.Concatenate()([inner(left), inner(right), layers.Flatten()(layers.Embedding(9, 2)(kind))])
    outputs = [layers.Dense(3, "softmax", name="label")(both), layers.Dense(1, name="score")(inner(right))]
    return keras.Model([left, right, kind], outputs, name="several")


def attention() -> Any:
    """One block of a transformer: what is added to itself, and attention from a layer to itself."""
    import keras
    from keras import layers

    tokens = keras.Input((6,), dtype="int32", name="tokens")
    x = layers.Embedding(15, 8)(tokens)
    x = layers.LayerNormalization()(layers.Add()([x, layers.MultiHeadAttention(2, 4)(x, x)]))
    x = layers.LayerNormalization()(layers.Add()([x, layers.Dense(8)(layers.Dense(12, "gelu")(x))]))
    return keras.Model(tokens, layers.Dense(3, "softmax", name="label")(layers.GlobalAveragePooling1D()(x)))


MODELS: dict[str, Callable[[], Any]] = {
    "dense": dense,
    "conv": conv,
    "recurrent": recurrent,
    "several": several,
    "attention": attention,
}


def made(kind: str) -> Any:
    """A canonical model whose every weight has been moved away from where it starts: a lost bias or statistic shows.
    The same one each time: how far eight bits move it is no matter of chance."""
    import keras

    keras.utils.set_random_seed(3)
    model = MODELS[kind]()
    stir(model)
    return model


def stir(model: Any, seed: int = 3) -> None:
    """Works on models of Keras 3 and of tf_keras."""
    random = np.random.default_rng(seed)
    for variable in model.weights:
        value = np.asarray(variable)
        if value.dtype.kind == "f":
            variable.assign(np.abs(value + random.uniform(0.05, 0.3, value.shape)).astype(value.dtype))


def inputs_of(loaded: Loaded, seed: int = 5) -> Arrays:
    """Three rows for every input."""
    random = np.random.default_rng(seed)
    arrays = {}
    for spec in loaded.inputs:
        shape = [3 if size is None else size for size in spec.shape or ()]
        if np.dtype(spec.dtype).kind == "i":
            arrays[spec.name] = random.integers(0, spec.limit or 9, shape).astype(spec.dtype)
        else:
            arrays[spec.name] = random.normal(size=shape).astype(spec.dtype)
    return arrays


def load(slug: str, path: Path, scratch: Path) -> Loaded:
    opener = formats.get(slug).load
    assert opener
    return opener(path, scratch)


def convert(source: str, target: str, path: Path, scratch: Path) -> tuple[Path, list[str]]:
    """The converted file and the codes of what was found on the way."""
    item = formats.get(target)
    scratch.mkdir(parents=True, exist_ok=True)
    result = scratch / f"result{item.suffixes[0]}"
    hop = Hop(scratch)
    item.converts_from[source].run(path, result, hop)
    return result, [finding.code for finding in hop.findings]


def write(slug: str, model: Any, folder: Path) -> Path:
    """The Keras 3 model in a format, by the format's own writer."""
    from importlib import import_module

    folder.mkdir(parents=True, exist_ok=True)
    target = folder / f"model{formats.get(slug).suffixes[0]}"
    import_module(f"worker.formats.{slug}").write(model, target, Hop(folder))
    return target


def pack(target: Path, **files: bytes | Path) -> Path:
    """A ZIP of files; ``__`` in a name stands for a dot and ``___`` for a slash."""
    with zipfile.ZipFile(target, "w") as archive:
        for name, content in files.items():
            inside = name.replace("___", "/").replace("__", ".")
            archive.writestr(inside, content if isinstance(content, bytes) else content.read_bytes())
    return target


def pack_folder(folder: Path, target: Path, prefix: str = "") -> Path:
    with zipfile.ZipFile(target, "w") as archive:
        for item in sorted(folder.rglob("*")):
            if item.is_file():
                archive.write(item, prefix + str(item.relative_to(folder)))
    return target


def tensors(loaded: Loaded) -> Iterator[bytes]:
    """What each weight holds, for comparing as a multiset: names and order differ between formats."""
    for _, array in loaded.weights():
        yield repr((array.dtype.str, array.shape)).encode() + array.tobytes()


def assert_same(first: Loaded, second: Loaded, atol: float = 1e-6) -> None:
    """The same names, the same weights bit for bit, and the same outputs on the same inputs."""
    assert sorted(spec.name for spec in first.inputs) == sorted(spec.name for spec in second.inputs)
    assert sorted(tensors(first)) == sorted(tensors(second))
    arrays = inputs_of(first)
    wanted, found = first.run(arrays), second.run(arrays)
    assert sorted(wanted) == sorted(found)
    for name, value in wanted.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-5, atol=atol)
