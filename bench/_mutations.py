"""Faults that a conversion could bring about, put into a converted file: one tensor, one operation or one name."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
TENSOR_KINDS = ("zeroed", "negated", "permuted", "reversed", "perturbed", "swapped", "one number", "one slice")
STRUCTURE_KINDS = (
    *("outputs swapped", "activation dropped", "epsilon changed", "layer bypassed"),
    *("setting changed", "operation exchanged", "inputs swapped"),
)
RESET = "statistics reset"
KINDS = (*TENSOR_KINDS, RESET, *STRUCTURE_KINDS)
PERTURBED_BY = 0.01  # of the tensor's own root mean square
EPSILON_FACTORS = (0.01, 100.0)
LARGE = 10.0  # times the tensor's own root mean square


@dataclass(frozen=True)
class Change:
    """One way to change an open file, and what is changed."""

    label: str
    apply: Callable[[], None]


@dataclass
class File:
    """A converted file, opened for changing: its floating tensors by name, and what can be changed of its structure.

    ``write`` stores the file with these tensors, and with whatever ``structure`` has changed, under a path.
    """

    tensors: dict[str, Array]
    structure: dict[str, list[Change]]
    write: Callable[[Path], None]
    statistics: tuple[Sequence[Array], Sequence[Array]] = field(default=((), ()))  # means and variances of the source


def mutate(file: File, kind: str, generator: random.Random) -> str:
    """Put one fault of this kind into the open file; what was changed, or "" where nothing of that kind can be."""
    changes = list(_changes(file, kind, generator))
    generator.shuffle(changes)
    for change in changes:
        before = {name: array.copy() for name, array in file.tensors.items()}
        change.apply()
        if kind in STRUCTURE_KINDS or _is_changed(before, file.tensors):
            return change.label
    return ""


def _is_changed(before: dict[str, Array], after: dict[str, Array]) -> bool:
    return any(array.tobytes() != after[name].tobytes() for name, array in before.items())


def _changes(file: File, kind: str, generator: random.Random) -> Iterator[Change]:
    if kind in STRUCTURE_KINDS:
        yield from file.structure.get(kind, ())
    elif kind == "swapped":
        yield from _swaps(file)
    elif kind == RESET:
        yield from _resets(file)
    else:
        for name in _weights(file):
            yield Change(name, partial(_put, file, name, kind, generator))


def _weights(file: File) -> list[str]:
    """Constants of one number are parts of operations, not weights."""
    return [name for name, array in file.tensors.items() if array.size > 1]


def _put(file: File, name: str, kind: str, generator: random.Random) -> None:
    file.tensors[name] = faulty(file.tensors[name], kind, generator.randrange(2**32))


def faulty(array: Array, kind: str, seed: int) -> Array:
    """The tensor with a fault, in its own shape and dtype."""
    noise = np.random.default_rng(seed)
    if kind == "zeroed":
        return np.zeros_like(array)
    if kind == "negated":
        return np.negative(array) if array.dtype.kind == "f" else np.invert(array)
    if kind == "permuted":
        return np.asarray(noise.permutation(array.reshape(-1))).reshape(array.shape)
    if kind == "reversed":
        return np.ascontiguousarray(array.transpose()).reshape(array.shape)
    if kind == "one number":
        return _one_number(array, noise)
    if kind == "one slice":
        return _one_slice(array, noise)
    return _perturbed(array, noise)


def _one_number(array: Array, noise: np.random.Generator) -> Array:
    """One number becomes a large one, as far as its dtype goes."""
    wrong, place = array.copy(), int(noise.integers(array.size))
    if array.dtype.kind == "f":
        size = float(np.sqrt(np.mean(array.astype("float64") ** 2)))
        wrong.flat[place] = np.asarray(LARGE * (size or 1.0)).astype(array.dtype)
    else:
        wrong.flat[place] = np.invert(array.flat[place])
    return wrong


def _one_slice(array: Array, noise: np.random.Generator) -> Array:
    """One row of a table, one channel of a kernel, becomes another one of its own."""
    axis = int(np.argmax(array.shape) if noise.random() < 0.5 else array.ndim - 1)
    one, other = (int(place) for place in noise.integers(array.shape[axis], size=2))
    wrong = np.moveaxis(array.copy(), axis, 0)
    wrong[one] = wrong[other] if one != other else -wrong[one]
    return np.ascontiguousarray(np.moveaxis(wrong, 0, axis))


def _perturbed(array: Array, noise: np.random.Generator) -> Array:
    wide = array.astype("float64")
    moved = wide + PERTURBED_BY * np.sqrt(np.mean(wide**2)) * noise.standard_normal(array.shape)
    return np.asarray(moved if array.dtype.kind == "f" else np.round(moved)).astype(array.dtype)


def _swaps(file: File) -> Iterator[Change]:
    names = _weights(file)
    for place, one in enumerate(names):
        for other in names[place + 1 :]:
            a, b = file.tensors[one], file.tensors[other]
            if a.shape == b.shape and a.dtype == b.dtype:
                yield Change(f"{one} ↔ {other}", partial(_swap, file, one, other))


def _swap(file: File, one: str, other: str) -> None:
    file.tensors[one], file.tensors[other] = file.tensors[other].copy(), file.tensors[one].copy()


def _resets(file: File) -> Iterator[Change]:
    """The statistics of a BatchNormalization, known by their values, as they are before any training."""
    for mean, variance in zip(*file.statistics, strict=True):
        found = [(_named(file, array), start) for array, start in ((mean, 0.0), (variance, 1.0))]
        if any(name for name, _ in found) and np.any(mean):
            yield Change(", ".join(name for name, _ in found if name), partial(_reset, file, found))


def _named(file: File, wanted: Array) -> str:
    plain = wanted.astype("float32").reshape(-1)
    same = (name for name, array in file.tensors.items() if np.array_equal(array.astype("float32").reshape(-1), plain))
    return next(same, "")


def _reset(file: File, found: Sequence[tuple[str, float]]) -> None:
    for name, start in found:
        if name:
            file.tensors[name] = np.full_like(file.tensors[name], start)
