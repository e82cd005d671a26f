"""Inputs to try a model on, made from its signature and from what its layers imply: for comparing two models, and for
calibrating one."""

from __future__ import annotations

import dataclasses
import math
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
    """What a signature leaves open.

    size: of every free dimension but the first. spatial, length: of those of images and of sequences in one of the
    draws, so that two sizes are tried; 0 where all draws have ``size``.
    high: how large an integer may be. From 10 on, bytes are drawn from all that there are.
    whole: are numbers whole although declared as floats, as the indices of an embedding are in Keras 1 and 2?
    known: are only words of the vocabulary taken?
    """

    size: int
    high: int
    spatial: int = 0
    length: int = 0
    whole: bool = False
    known: bool = False


# Tried in this order until the source accepts one: an image needs room for its convolutions, a sequence has a longest
# length, an index beyond its table is refused.
GUESSES = (
    Guess(32, 10, spatial=64, length=1),
    Guess(32, 10, spatial=64, length=24),
    Guess(32, 10),
    Guess(8, 10, spatial=16, length=1),
    Guess(8, 10, spatial=16, length=6),
    Guess(8, 10),
    Guess(8, 2),
    Guess(1, 2),
    Guess(8, 2, whole=True),
    Guess(8, 10, known=True),
    Guess(64, 2),
    Guess(224, 2),
)
DRAWS = (("normal", 1), ("normal", 3), ("uniform", 3), ("zeros", 3))  # (kind, batch)
OTHER_SIZE = 0  # the draw in which free dimensions have their second size
LARGE_ROW = 100_000  # values, as a photograph has
BOTH_BATCHES = 2  # the first draws, which show one row and several: of large rows two, and one in the later draws
MANY_ROWS, SMALL_ROW = 16, 1000  # rows of several draws, of rows with so many values: more units of a layer wake up
STEPS_OUT = (10.0, 100.0, 3.0)  # by which the rows of one further draw are multiplied, in turn
INSIDE = 1  # the draws from this one on stay near what the layers imply
WORDS = ("the", "cat", "ate", "a red apple", "", "unseen-word", "42", "Üñïçødé", "the cat ate the red apple")
EVERY_BYTE = 10  # ``Guess.high`` from which on bytes are drawn from all that there are


def make_inputs(
    specs: Sequence[TensorSpec],
    seed: int,
    guess: Guess = GUESSES[0],
    like: Arrays | None = None,
    brief: bool = False,
) -> list[Arrays]:
    """One dict of arrays by input name for each of ``DRAWS``; the same seed gives the same arrays.

    ``like`` are people's samples: then the draws are rows of them, hardly changed, since a result whose ranges were
    measured on them is to be compared on nothing else. ``brief`` leaves out the later draws of large rows.
    """
    import numpy as np

    draws: list[Arrays] = []
    for number, (kind, batch) in enumerate(DRAWS):
        rng = np.random.default_rng([seed, number])
        if like:
            draws.append(_rows_like(specs, like, rng, kind, batch))
        else:
            draw = _Draw(rng, kind, batch, guess, number == OTHER_SIZE, number >= INSIDE)
            if draw.row_size(specs) > LARGE_ROW:
                if brief and number >= BOTH_BATCHES:
                    break
                draw = dataclasses.replace(draw, batch=min(batch, 1 if number >= BOTH_BATCHES else 2))
            elif batch > 1 and kind != "zeros" and draw.row_size(specs) <= SMALL_ROW:
                draw = dataclasses.replace(draw, batch=MANY_ROWS)
            draws.append(draw.of(specs))
    return draws


def far_out(specs: Sequence[TensorSpec], draw: Arrays) -> Arrays | None:
    """The rows of a draw multiplied, so that they reach what bounds and slopes do to large numbers; None where no input
    takes such. Of large rows the first one alone."""
    import numpy as np

    names = [spec.name for spec in specs if "float" in spec.dtype and not spec.limit and not spec.words]
    if not names or not all(draw[name].ndim for name in names):
        return None
    if size_of(draw) > LARGE_ROW and all(spec.shape and spec.shape[0] is None for spec in specs):
        draw = {name: array[:1] for name, array in draw.items()}
    steps = {name: np.resize(STEPS_OUT, (len(draw[name]), *[1] * (draw[name].ndim - 1))) for name in names}
    return {**draw, **{name: (draw[name] * step).astype(draw[name].dtype) for name, step in steps.items()}}


def smallest(draws: Sequence[Arrays], most: int) -> list[int]:
    """The places of so many draws with the fewest values, the smallest one first."""
    return sorted(range(len(draws)), key=lambda number: size_of(draws[number]))[:most]


def size_of(draw: Arrays) -> int:
    """How many values a draw has, over all inputs."""
    return sum(array.size for array in draw.values())


def for_another_run(draws: Sequence[Arrays]) -> list[int]:
    """The places of the draws that are worth a further run of a model: the two smallest, of large ones a single one."""
    places = smallest(draws, 2)
    return sorted(places[:1] + [number for number in places[1:] if size_of(draws[number]) <= LARGE_ROW])


def _rows_like(specs: Sequence[TensorSpec], samples: Arrays, rng: np.random.Generator, kind: str, batch: int) -> Arrays:
    """So many rows of the samples, the same of each input; their numbers moved by a hundredth of their range, except in
    the draw that is of zeros otherwise."""
    import numpy as np

    rows = list(split_rows(samples, specs))
    chosen = [rows[number] for number in rng.integers(0, len(rows), batch if len(rows) > 1 else 1)]
    drawn = (
        {spec.name: np.concatenate([row[spec.name] for row in chosen]) for spec in specs} if chosen[1:] else chosen[0]
    )
    return {spec.name: drawn[spec.name] if kind == "zeros" else _moved(spec, drawn[spec.name], rng) for spec in specs}


def _moved(spec: TensorSpec, array: Array, rng: np.random.Generator) -> Array:
    import numpy as np

    if array.dtype.kind != "f" or spec.limit or not array.size:
        return array
    low, high = array.min(), array.max()
    noise = rng.normal(0, float(high - low) / 100, array.shape)
    return np.asarray(np.clip(array + noise, low, high)).astype(array.dtype)


def distinct_guesses(specs: Sequence[TensorSpec]) -> tuple[Guess, ...]:
    """``GUESSES`` without those that draw for these inputs what an earlier one has drawn."""
    found: dict[object, Guess] = {}
    for guess in GUESSES:
        found.setdefault(_what_matters(specs, guess), guess)
    return tuple(found.values())


def _what_matters(specs: Sequence[TensorSpec], guess: Guess) -> object:
    free = any(spec.shape is None or None in spec.shape[1:] for spec in specs)
    sizes = (guess.size, guess.spatial, guess.length) if free else ()
    high = guess.high if any(_is_open(spec) for spec in specs) else 0
    floats = any("float" in spec.dtype for spec in specs)
    return sizes, high, guess.whole and floats, guess.known and any(spec.words for spec in specs)


def _is_open(spec: TensorSpec) -> bool:
    """Is it an integer of which nothing else says how large it may be?"""
    return "int" in spec.dtype and spec.limit is None and not spec.words


@dataclass(frozen=True)
class _Draw:
    """One draw in the making. ``other`` gives free dimensions their second size, ``inside`` keeps numbers near the
    range that the layers imply."""

    rng: np.random.Generator
    kind: str
    batch: int
    guess: Guess
    other: bool = False
    inside: bool = True

    def of(self, specs: Sequence[TensorSpec]) -> Arrays:
        return {spec.name: self._padded(spec, self._array(spec, self._shape(spec))) for spec in specs}

    def row_size(self, specs: Sequence[TensorSpec]) -> int:
        """How many values one row has, over all inputs."""
        return sum(math.prod(self._shape(spec)[1:]) for spec in specs)

    def _shape(self, spec: TensorSpec) -> tuple[int, ...]:
        size = self._size(spec)
        if spec.shape is None:
            return (self.batch, size) if self.guess.size > 1 else (self.batch,)
        sizes = (self.batch, *[size] * len(spec.shape))
        return tuple(size if free is None else free for free, size in zip(spec.shape, sizes, strict=False))

    def _size(self, spec: TensorSpec) -> int:
        is_image = spec.shape is not None and len(spec.shape) >= 4
        second = self.guess.spatial if is_image else self.guess.length
        return second or self.guess.size if self.other else self.guess.size

    def _array(self, spec: TensorSpec, shape: tuple[int, ...]) -> Array:
        import numpy as np

        if spec.dtype == "string":
            return self._text(spec, shape)
        dtype = _dtype(spec)
        if dtype.kind in "iu" and spec.words:
            return self._entries(spec, shape).astype(dtype)
        if dtype.kind in "iu" or spec.limit or self.guess.whole:
            return self._whole(spec, shape, dtype)
        if dtype.kind == "b":
            return np.zeros(shape, dtype) if self.kind == "zeros" else self.rng.random(shape) < 0.5
        values = self._numbers(shape, spec)
        if dtype.kind == "c":
            values = values + 1j * self._numbers(shape, spec)
        return np.asarray(values).astype(dtype)

    def _whole(self, spec: TensorSpec, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
        """Whole numbers of the range, its two ends among them in the uniform draw."""
        import numpy as np

        low, high = self._range(spec, dtype)
        if self.kind == "zeros":
            return np.zeros(shape, dtype)
        values = self.rng.integers(low, high, shape)
        if self.kind == "uniform" and values.size > 1:
            values.flat[0], values.flat[-1] = high - 1, low
        return values.astype(dtype)

    def _range(self, spec: TensorSpec, dtype: np.dtype[Any]) -> tuple[int, int]:
        import numpy as np

        limits = np.iinfo(dtype) if dtype.kind in "iu" else None
        if spec.limit is None and limits and limits.bits == 8 and self.guess.high >= EVERY_BYTE:
            return limits.min, limits.max + 1
        if spec.limit is None and spec.high:
            low, high = int(min(spec.low)), int(max(spec.high)) + 1
        else:
            low, high = 0, spec.limit or self.guess.high
        return (max(low, limits.min), min(high, int(limits.max))) if limits else (low, high)

    def _numbers(self, shape: tuple[int, ...], spec: TensorSpec) -> Array:
        """Standard normal, uniform or zero; in the implied range where the draw is to be, or where a model that expects
        it would see nothing else."""
        import numpy as np

        low, high = _bounds(spec, shape)
        if low is None or high is None:
            return self._plain(shape)
        width = high - low
        if self.kind == "uniform":
            return self.rng.uniform(low, high, shape)
        if self.kind == "zeros":
            return np.broadcast_to(np.clip(0.0, low, high), shape)
        middle = np.clip(self.rng.normal((low + high) / 2, width / 4, shape), low, high)
        far = (low - width > 0) | (high + width < 0)  # 0 lies so far outside that all of a standard normal does
        return middle if self.inside else np.where(far, middle, self._plain(shape))

    def _plain(self, shape: tuple[int, ...]) -> Array:
        import numpy as np

        if self.kind == "zeros":
            return np.zeros(shape)
        return self.rng.random(shape) if self.kind == "uniform" else self.rng.standard_normal(shape)

    def _text(self, spec: TensorSpec, shape: tuple[int, ...]) -> Array:
        """Words of the vocabulary, some in a row, and others; nothing but those of the vocabulary where it must be."""
        import numpy as np

        known = list(spec.words)
        few = [" ".join(known[start : start + 3]) for start in range(0, len(known), 3)]
        others = [] if self.guess.known and known else list(WORDS)
        texts = known + ([] if self.guess.known else few) + others
        words = np.array([word.encode() for word in texts])
        if self.kind == "zeros":
            return np.full(shape, words[0] if self.guess.known and known else b"", words.dtype)
        half = np.array([word.encode() for word in known or texts]).astype(words.dtype)
        return np.where(self.rng.random(shape) < 0.5, self.rng.choice(half, shape), self.rng.choice(words, shape))

    def _entries(self, spec: TensorSpec, shape: tuple[int, ...]) -> Array:
        """Whole numbers of a vocabulary, with some that are not in it where that is allowed."""
        import numpy as np

        known = np.array([int(word) for word in spec.words])
        if self.kind == "zeros":
            return np.full(shape, known[0] if self.guess.known else 0)
        entries = self.rng.choice(known, shape)
        return entries if self.guess.known else np.where(self.rng.random(shape) < 0.75, entries, known.max() + 1)

    def _padded(self, spec: TensorSpec, array: Array) -> Array:
        """Rows of several lengths, the first one whole, with padding behind; in the uniform draw alone, so that masks
        are tried and rows without them too."""
        if spec.padding is None or self.kind != "uniform" or array.ndim < 2 or array.dtype.kind not in "iuf":
            return array
        if spec.limit and spec.padding == 0 and spec.limit > 1:
            array[array == 0] = 1  # or a row would have gaps
        for row in range(1, len(array)):
            array[row, max(1, array.shape[1] * (len(array) - row) // (len(array) + 1)) :] = spec.padding
        return array


def _bounds(spec: TensorSpec, shape: tuple[int, ...]) -> tuple[Array, Array] | tuple[None, None]:
    """The implied range as arrays that fit the last dimension; (None, None) where there is none."""
    import numpy as np

    low, high = np.array(spec.low), np.array(spec.high)
    if not low.size or not high.size:
        return None, None
    if low.size == high.size and shape and low.size in (1, shape[-1]):
        return low, high
    return low.min(), high.max()


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
    for guess in distinct_guesses(loaded.inputs):
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
        _Draw(np.random.default_rng([seed, 1000 + number]), kind, batch, guess).of(specs)
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
