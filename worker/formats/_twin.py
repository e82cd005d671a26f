"""The alive twin of a Keras model: its layers and connections with other weights, with which faults show.

A network whose weights were never trained may answer everything with the same numbers. Sent through the same route, its
twin proves the graph of the result; that the result has the weights of the source, their comparison proves.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from worker.formats import _live, _sources, keras
from worker.formats._draws import distinct_guesses, make_inputs
from worker.formats._format import Hop

if TYPE_CHECKING:
    import numpy.typing as npt

    Array = npt.NDArray[Any]

SLUG = "keras"  # the format in which it is written
OWN = 0.1  # how much a normalisation keeps of its drawn statistics: those of a batch of three rows are often zero
BESIDE_ONE = frozenset({"gamma", "scale", "moving_variance"})
ITS_OWN = frozenset({"Normalization"})  # layers whose weights are measured, not trained: what inputs are made for


def write(slug: str, path: Path, target: Path, scratch: Path, seed: int) -> None:
    """The twin of the model in this file as ``.keras``; errors as opening and saving raise them. The open model has its
    own weights again afterwards."""
    model = _sources.open_model(slug, path, scratch).model
    with redrawn(model, seed):
        keras.write(model, target, Hop(scratch))


@contextmanager
def redrawn(model: Any, seed: int) -> Iterator[None]:
    """A Keras 3 model with other weights, drawn by the seed, while in the block."""
    variables = [item for item in _trained(model) if "float" in str(item.dtype)]
    kept = [_copy(item) for item in variables]
    try:
        owners = {id(item): type(layer).__name__ for layer in _layers(model) for item in layer.weights}
        for place, variable in enumerate(variables):
            variable.assign(_drawn(variable, owners.get(id(variable), ""), [seed, place]))
        _settle(model, seed)
        yield
    finally:
        for variable, value in zip(variables, kept, strict=True):
            variable.assign(value)


def _trained(model: Any) -> list[Any]:
    measured = {id(item) for layer in _layers(model) if type(layer).__name__ in ITS_OWN for item in layer.weights}
    return [item for item in model.weights if id(item) not in measured]


def _copy(variable: Any) -> Array:
    import numpy as np

    return np.array(variable)


def _drawn(variable: Any, kind: str, seed: list[int]) -> Array:
    """By what the variable is called: statistics and scales near one, shifts near zero and never zero, and kernels that
    pass on about as much as they get (He, arXiv:1502.01852). ``kind`` is the class of the layer that it belongs to."""
    import numpy as np

    rng, shape = np.random.default_rng(seed), tuple(variable.shape)
    name = str(variable.path).rpartition("/")[2]
    if name in BESIDE_ONE:
        return rng.uniform(0.7, 1.3, shape)
    if name == "alpha":  # of a PReLU
        return rng.uniform(0.1, 0.3, shape)
    if len(shape) < 2 or "bias" in name:
        return rng.choice((-1.0, 1.0), shape) * rng.uniform(0.05, 0.15, shape)
    return rng.standard_normal(shape) * _spread(name, kind, str(variable.path), shape)


def _spread(name: str, kind: str, path: str, shape: tuple[int, ...]) -> float:
    """The standard deviation of a kernel's values."""
    if name == "embeddings":
        return 1.0
    if name == "recurrent_kernel":
        return 1 / math.sqrt(shape[0])
    return math.sqrt(2 / max(1, _fan_in(name, kind, path, shape)))


def _fan_in(name: str, kind: str, path: str, shape: tuple[int, ...]) -> int:
    """How many numbers one result is the sum of."""
    if name == "depthwise_kernel" or kind.startswith("Depthwise"):
        return math.prod(shape[:-2])
    if kind.endswith("Transpose"):  # (…, out, in)
        return math.prod(shape) // shape[-2]
    if any(part in path for part in ("/query/", "/key/", "/value/")):  # (in, heads, size)
        return shape[0]
    return math.prod(shape[:-1])


def _settle(model: Any, seed: int) -> None:
    """Statistics near those that a batch has, so that signals neither grow nor fade on their way through the layers."""
    normalising = [layer for layer in _layers(model) if type(layer).__name__ == "BatchNormalization"]
    momenta = [layer.momentum for layer in normalising]
    try:
        for layer in normalising:
            layer.momentum = OWN
        if normalising:
            _train_once(model, seed)
        for place, layer in enumerate(normalising):
            _shift(layer, [seed, place])
    finally:
        for layer, momentum in zip(normalising, momenta, strict=True):
            layer.momentum = momentum


def _shift(layer: Any, seed: list[int]) -> None:
    """Means away from zero, by a part of the deviation: 1 % of those of a convolution is next to nothing."""
    import numpy as np

    rng, variance = np.random.default_rng(seed), _copy(layer.moving_variance)
    away = rng.choice((-1.0, 1.0), variance.shape) * rng.uniform(0.2, 0.4, variance.shape)
    layer.moving_mean.assign(_copy(layer.moving_mean) + away * np.sqrt(variance))


def _layers(model: Any) -> list[Any]:
    return list(model._flatten_layers(include_self=True, recursive=True))


def _train_once(model: Any, seed: int) -> None:
    """One call as in training, on a draw of several rows; none where the model takes none of the draws."""
    specs = _live.input_specs(model)
    for guess in distinct_guesses(specs):
        with suppress(Exception):  # whatever a layer raises for an input that does not suit it
            draw = make_inputs(specs, seed, guess)[1]
            model(_live.pack(model, [_live.feed(draw[spec.name], spec.dtype) for spec in specs]), training=True)
            return
