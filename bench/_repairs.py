"""Files of older releases, one for each repair that Larder knows, and results of theirs with weights misaligned.

A rebuilt model whose weights went to the wrong layer of the same shape looks right in every other way: that is the
fault which a repair could bring about, and each has to be caught.
"""

from __future__ import annotations

import json
import random
import tempfile
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import h5py

from bench._judged import CAUGHT, judged
from bench._layer_files import open_keras
from bench._mutations import mutate
from tests.formats import test_old_weights
from tests.formats.models import stir
from worker import pipeline
from worker.errors import LarderError
from worker.formats import _registry, _repairs
from worker.sandbox.client import Zygote
from worker.sandbox.limits import Limits

AT_ONCE = 2
TARGET = "keras"
Json = Any
Edit = Callable[[Json], None]

# Of each class the shape of one input, and how the layer is made
LAYERS: dict[str, tuple[tuple[int, ...], dict[str, Any]]] = {
    "Dense": ((6,), {"units": 6}),
    "BatchNormalization": ((6,), {}),
    "LeakyReLU": ((6,), {"alpha": 0.3}),
    "ThresholdedReLU": ((6,), {"theta": 0.2}),
    "SpatialDropout1D": ((5, 4), {"rate": 0.5}),
    "Embedding": ((5,), {"input_dim": 9, "output_dim": 4}),
    "LSTM": ((5, 4), {"units": 6, "recurrent_activation": "hard_sigmoid"}),
    "GRU": ((5, 4), {"units": 6, "reset_after": False}),
    "MultiHeadAttention": ((5, 4), {"num_heads": 2, "key_dim": 3}),
    "Attention": ((5, 4), {"use_scale": True}),
    "AdditiveAttention": ((5, 4), {}),
    "DepthwiseConv1D": ((8, 4), {"kernel_size": 3}),
    "DepthwiseConv2D": ((6, 6, 4), {"kernel_size": 3}),
    "SeparableConv1D": ((8, 4), {"filters": 4, "kernel_size": 3}),
    "SeparableConv2D": ((6, 6, 4), {"filters": 4, "kernel_size": 3}),
    "Conv1DTranspose": ((8, 4), {"filters": 4, "kernel_size": 3}),
    "Conv2DTranspose": ((6, 6, 4), {"filters": 4, "kernel_size": 3}),
    "Conv3DTranspose": ((3, 3, 3, 2), {"filters": 2, "kernel_size": 2}),
}
ANYWHERE = ("Dense", "SpatialDropout1D", "Embedding")  # where arguments that no class owns are put
PAIRS = frozenset({"Attention", "AdditiveAttention"})  # called with a list


@dataclass(frozen=True)
class Case:
    """The finding of one repair, and how a file that needs it is made."""

    code: str
    make: Callable[[Path], Path]
    layer: str = ""


@dataclass(frozen=True)
class Misaligned:
    """What became of one result whose weights were misaligned."""

    code: str
    layer: str
    what: str
    word: str
    reason: str


# Making the files -----------------------------------------------------------------------------------------------


def cases() -> list[Case]:
    """One for each argument that is left out, of each class that has it; and one for each other repair."""
    removed = [
        Case(f"repaired-{argument.replace('_', '-')}", partial(_with, kind, partial(_put, argument, value)), kind)
        for (owner, argument), (value, *_) in _repairs._REMOVED.items()
        for kind in [_owner(owner, argument)]
        if kind in LAYERS and _is_unknown(kind, argument)
    ]
    return [*removed, *_others()]


def _owner(kind: str, argument: str) -> str:
    """The class, or one that does not take an argument that could be anywhere."""
    if kind != "*":
        return kind
    known = _registry.layer_classes()
    free = (name for name in ANYWHERE if argument not in _registry.accepted_arguments(known[name]))
    return next(free, "")


def _is_unknown(kind: str, argument: str) -> bool:
    """Is it left out, and neither taken by the Keras that is here nor moved elsewhere (``_repairs.move_causal``)?"""
    return argument not in _registry.accepted_arguments(_registry.layer_classes()[kind]) and argument != "causal"


def _put(argument: str, value: Any, layer: Json) -> None:
    layer["config"][argument] = 1 if value is _repairs.ANY else value


def _others() -> Iterator[Case]:
    yield Case("repaired-argument", partial(_with, "Dense", partial(_put, "lora_magic", None)), "Dense")
    yield Case("repaired-renamed-argument", partial(_with, "LeakyReLU", _nothing), "LeakyReLU")
    yield Case("repaired-class", partial(_with, "BatchNormalization", _as_first_version), "BatchNormalization")
    yield Case("repaired-axis", partial(_with, "BatchNormalization", _nothing), "BatchNormalization")
    yield Case("repaired-thresholded-relu", partial(_with, "ThresholdedReLU", _nothing), "ThresholdedReLU")
    yield Case("repaired-hard-sigmoid", partial(_with, "LSTM", _nothing), "LSTM")
    yield Case("repaired-reset-after", partial(_with, "GRU", _without_reset_after), "GRU")
    yield Case("repaired-dtype-policy", partial(_with, "Dense", _with_policy), "Dense")
    yield Case("repaired-causal-attention", partial(_with, "Attention", partial(_put, "causal", True)), "Attention")
    yield Case("renamed", partial(_with, "Dense", _nothing, name="block/target"), "Dense")
    yield Case("repaired-operation", _with_operation, "tf.nn.relu")
    yield Case("repaired-merge", _with_merge, "Merge")
    yield Case("repaired-cudnn", _of_cudnn, "CuDNNLSTM, CuDNNGRU")
    for code in ("repaired-keras-1", "repaired-training-argument", "repaired-weight-layout"):
        yield Case(code, _of_keras_1, "Convolution2D, LSTM, Bidirectional")


def _nothing(layer: Json) -> None:
    """The library writes it as it was."""


def _as_first_version(layer: Json) -> None:
    layer["class_name"] = "BatchNormalizationV1"


def _without_reset_after(layer: Json) -> None:
    del layer["config"]["reset_after"]


def _with_policy(layer: Json) -> None:
    layer["config"]["dtype"] = {"class_name": "Policy", "config": {"name": "float32"}}


def _with(kind: str, edit: Edit, folder: Path, name: str = "target") -> Path:
    """A model with this layer and, after it, three of the same shape, whose description is then edited."""
    import tf_keras

    shape, arguments = LAYERS[kind]
    layers = tf_keras.layers
    start = tf_keras.Input(shape, name="start", dtype="int32" if kind == "Embedding" else "float32")
    layer = getattr(layers, kind)(**arguments, name=name)
    value = layer(start, start) if kind == "MultiHeadAttention" else layer([start, start] if kind in PAIRS else start)
    return _edited(tf_keras.Model(start, _end(layers, value)), folder, edit, name)


def _end(layers: Any, value: Any) -> Any:
    """Layers of one shape, each of which could take the weights of another."""
    value = layers.Dense(6, "tanh", name="first")(layers.Flatten()(value))
    for name in ("second", "third"):
        value = layers.Dense(6, "tanh", name=name)(value)
    return layers.Dense(3, name="end")(value)


def _edited(model: Any, folder: Path, edit: Edit, name: str) -> Path:
    stir(model)
    path = folder / "old.h5"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.save(path)
    with h5py.File(path, "r+") as file:
        root = json.loads(file.attrs["model_config"])
        edit(next(layer for layer in root["config"]["layers"] if layer["config"].get("name") == name))
        file.attrs["model_config"] = json.dumps(root)
    return path


def _with_operation(folder: Path) -> Path:
    import tensorflow as tf
    import tf_keras

    start = tf_keras.Input((6,), name="start")
    value = tf.nn.relu(tf_keras.layers.Dense(6, name="target")(start))
    return _edited(tf_keras.Model(start, _end(tf_keras.layers, value)), folder, _nothing, "target")


def _with_merge(folder: Path) -> Path:
    import tf_keras

    layers, start = tf_keras.layers, tf_keras.Input((6,), name="start")
    both = layers.Add(name="target")([layers.Dense(6, name="left")(start), layers.Dense(6, name="right")(start)])
    return _edited(tf_keras.Model(start, _end(layers, both)), folder, _as_merge, "target")


def _as_merge(layer: Json) -> None:
    layer["class_name"] = "Merge"
    layer["config"] = {"name": "target", "mode": "sum", "layers": []}


def _of_keras_1(folder: Path) -> Path:
    return test_old_weights.written(folder / "old.h5", test_old_weights.LAYERS, test_old_weights.ROWS, "1.2.2")


def _of_cudnn(folder: Path) -> Path:
    drawn, old = test_old_weights.drawn, test_old_weights.keras_1
    lstm = old("CuDNNLSTM", "i", units=4, return_sequences=True)
    both = old("Bidirectional", "b", merge_mode="concat", layer=lstm, batch_input_shape=[None, 5, 3])
    gru = old("CuDNNGRU", "g", units=8, return_sequences=False)
    half = [(3, 16), (4, 16), (32,)]
    rows = {"b": [drawn(*shape) for shape in half + half], "g": [drawn(8, 24), drawn(8, 24), drawn(48)]}
    return test_old_weights.written(folder / "old.h5", [both, gru], rows, "2.2.4")


# Misaligning the results ----------------------------------------------------------------------------------------


@dataclass
class Misalignment:
    """Every case, repaired, misaligned in several ways and judged; two at once."""

    zygote: Zygote
    root: Path
    seed: int
    each: int = 2
    making: threading.Lock = field(default_factory=threading.Lock)

    def go(self, wanted: Sequence[Case]) -> list[Misaligned]:
        with ThreadPoolExecutor(AT_ONCE) as threads:
            return [found for case in threads.map(self._case, wanted) for found in case]

    def _case(self, case: Case) -> list[Misaligned]:
        folder = Path(tempfile.mkdtemp(dir=self.root))
        try:
            source, result = self._repaired(case, folder)
        except LarderError as error:
            return [Misaligned(case.code, case.layer, "", f"error {error.code}", error.message)]
        if problem := self._problem(case, source, result, folder):
            return [Misaligned(case.code, case.layer, "", "false alarm", problem)]
        return [self._misaligned(case, number, source, result, folder) for number in range(self.each)]

    def _repaired(self, case: Case, folder: Path) -> tuple[pipeline.Source, pipeline.Result]:
        """The old file, and the new one that is made of it."""
        with self.making:
            path = case.make(folder)
        inner = [folder / name for name in ("inspected", "converted")]
        for item in inner:
            item.mkdir()
        inspection = pipeline.inspect(self.zygote, path, "h5", inner[0], Limits())
        source = pipeline.Source(path, "h5", inspection.summary, path.name)
        return source, pipeline.convert(self.zygote, source, TARGET, {}, inner[1], Limits())

    def _problem(self, case: Case, source: pipeline.Source, result: pipeline.Result, folder: Path) -> str:
        """Why the repaired file itself would not do, or ""."""
        codes = [finding.code for finding in result.report.findings]
        if case.code not in codes:
            return f"the repair was not made, only {', '.join(codes) or 'nothing'}"
        word, reason = judged(self.zygote, source, TARGET, {}, result.path, folder, result.report.findings)
        return reason if word == CAUGHT else ""

    def _misaligned(
        self, case: Case, number: int, source: pipeline.Source, result: pipeline.Result, folder: Path
    ) -> Misaligned:
        own = Path(tempfile.mkdtemp(dir=folder))
        generator = random.Random(f"{self.seed}/{case.code}/{case.layer}/{number}")  # noqa: S311 - no secret
        with self.making:
            file = open_keras(result.path, own)
            what = mutate(file, "swapped", generator)
            file.write(own / "changed.keras")
        word, reason = judged(self.zygote, source, TARGET, {}, own / "changed.keras", own, result.report.findings)
        return Misaligned(case.code, case.layer, what, word, reason)


def table(found: Sequence[Misaligned]) -> tuple[list[str], list[list[str]]]:
    """One row for each repair: how many results were misaligned, and what became of them."""
    rows = []
    for code in dict.fromkeys(item.code for item in found):
        words = [item.word for item in found if item.code == code]
        counts = [str(words.count(word)) for word in ("caught", "declared", "missed")]
        rows.append([code, str(len(words)), *counts, str(sum(word.startswith(("error", "false")) for word in words))])
    return ["repair", "misaligned", "caught", "declared", "missed", "not made"], rows
