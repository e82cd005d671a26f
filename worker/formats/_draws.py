"""Inputs to try a model on, made from what its signature says: for comparing two models, and for calibrating one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from worker.errors import BadSamples, ModelError
from worker.formats._format import Loaded, TensorSpec

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from worker.formats._format import Arrays

    Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Guess:
    """What a signature leaves open: the size of a free dimension, how large an integer may be, and whether numbers are
    whole although they are declared as floats, as the indices of an embedding are in Keras 1 and 2."""

    size: int
    high: int
    whole: bool = False


# Tried in this order until the source accepts one: an image needs room for its convolutions, a sequence has a longest
# length, an index beyond its table is refused.
GUESSES = (Guess(32, 10), Guess(8, 10), Guess(8, 2), Guess(1, 2), Guess(8, 2, whole=True), Guess(64, 2), Guess(224, 2))
DRAWS = (("normal", 1), ("normal", 3), ("uniform", 3), ("zeros", 3))  # (kind, batch)
WORDS = ("the", "cat", "ate", "a red apple", "", "unseen-word", "42", "Üñïçødé", "the cat ate the red apple")


def make_inputs(specs: Sequence[TensorSpec], seed: int, guess: Guess = GUESSES[0]) -> list[Arrays]:
    """One dict of arrays by input name for each of ``DRAWS``; the same seed gives the same arrays."""
    import numpy as np

    return [_draw(specs, np.random.default_rng([seed, number]), *DRAWS[number], guess) for number in range(len(DRAWS))]


def _draw(specs: Sequence[TensorSpec], rng: np.random.Generator, kind: str, batch: int, guess: Guess) -> Arrays:
    return {spec.name: _array(spec, rng, kind, _shape(spec, batch, guess), guess) for spec in specs}


def _shape(spec: TensorSpec, batch: int, guess: Guess) -> tuple[int, ...]:
    if spec.shape is None:
        return (batch, guess.size) if guess.size > 1 else (batch,)
    sizes = (batch, *[guess.size] * len(spec.shape))
    return tuple(size if free is None else free for free, size in zip(spec.shape, sizes, strict=False))


def _array(spec: TensorSpec, rng: np.random.Generator, kind: str, shape: tuple[int, ...], guess: Guess) -> Array:
    import numpy as np

    if spec.dtype == "string":
        words = np.array([word.encode() for word in WORDS])
        return np.zeros(shape, words.dtype) if kind == "zeros" else rng.choice(words, shape)
    dtype = _dtype(spec)
    if kind == "zeros":
        return np.zeros(shape, dtype)
    if dtype.kind in "iu" or spec.limit or guess.whole:
        high = spec.limit or (256 if dtype == np.uint8 else guess.high)
        most = np.iinfo(dtype).max if dtype.kind in "iu" else high
        return rng.integers(0, min(high, most), shape).astype(dtype)
    if dtype.kind == "b":
        return rng.random(shape) < 0.5
    values = rng.random(shape) if kind == "uniform" else rng.standard_normal(shape)
    return np.asarray(values).astype(dtype)


def _dtype(spec: TensorSpec) -> np.dtype[Any]:
    import numpy as np

    try:
        dtype = np.dtype("float32" if spec.dtype == "bfloat16" else spec.dtype)
    except TypeError:
        dtype = np.dtype("V")
    if dtype.kind not in "iufcb":
        raise BadSamples(name="Larder's own draw", problem=f"it cannot make values of dtype {spec.dtype} ({spec.name})")
    return dtype


def make_rows(loaded: Loaded, seed: int, count: int) -> list[Arrays]:
    """So many inputs of one row each, three in four normal, one zeros and the others uniform, with the first of
    ``GUESSES`` with which the model runs on all of them; ModelError where there is none. They are not those of
    ``make_inputs``: what is tuned on them can still be tested with those."""
    refusal = ""
    for guess in GUESSES:
        draws = _calibration(loaded.inputs, seed, count, guess)
        try:
            for draw in draws:
                loaded.run(draw)
            return [row for draw in draws for row in split_rows(draw, loaded.inputs)]
        except Exception as error:  # whatever the model's own library raises for an input that does not suit it
            refusal = refusal or " ".join(str(error).split())[:200]
    raise ModelError(problem=f"it does not run on inputs made from its signature ({refusal})")


def _calibration(specs: Sequence[TensorSpec], seed: int, count: int, guess: Guess) -> list[Arrays]:
    import numpy as np

    kinds = (("normal", count - count // 4 - 1), ("uniform", count // 4), ("zeros", 1))
    numbered = enumerate((kind, batch) for kind, batch in kinds if batch)
    return [
        _draw(specs, np.random.default_rng([seed, 1000 + number]), kind, batch, guess)
        for number, (kind, batch) in numbered
    ]


def split_rows(draw: Arrays, specs: Sequence[TensorSpec]) -> Iterator[Arrays]:
    """The inputs row by row, where all have a free first dimension; else as they are."""
    free = all(spec.shape and spec.shape[0] is None for spec in specs)
    counts = {len(array) for array in draw.values()} if free else set()
    if len(counts) != 1:
        yield draw
        return
    for row in range(counts.pop()):
        yield {name: array[row : row + 1] for name, array in draw.items()}
