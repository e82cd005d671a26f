"""Fingerprints of weights as they come out of a job: read as data from a stranger, and asked how alike they are."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

MOST_NUMBERS = 64  # of one list in a fingerprint
MOST_PRINTS = 20_000  # of one model
TOTAL_DIGITS = 16  # of 64 bits, as hex
LONGEST_NAME = 300
SINGLE = 1e-6  # relative: what some operations in float32 make of a number
SEEN = 1e-5  # how far what is kept of an axis may move when every value of it is rounded once more in float32
# Relative rounding of a dtype, as half the distance of two neighbours, and the smallest distance there is
HALF_STEPS = {"float16": (2.0**-11, 2.0**-25), "bfloat16": (2.0**-8, 0.0)}
SAFETY = 8  # roundings that fall together by chance
FEWEST_SAME = 4  # values that two tensors do not have in common by chance
CHANCE = 3  # the same where they are averaged: as many half steps are five times what is usual


def _numbers(data: Any) -> tuple[float, ...]:
    numbers = tuple(map(float, data))
    if len(numbers) > MOST_NUMBERS or not all(map(math.isfinite, numbers)):
        raise ValueError("not the numbers of a fingerprint")
    return numbers


def _total(digits: str) -> int | None:
    """Read once, and of a limited length: it is added up in very many combinations."""
    if len(digits) > TOTAL_DIGITS or digits.startswith("-"):
        raise ValueError("not the total of a fingerprint")
    return int(digits, 16) if digits else None


@dataclass(frozen=True)
class Place:
    """One axis of a tensor, or two neighbours taken together: a digest of its slices in order, and their means."""

    length: int
    digest: str
    mean: tuple[float, ...]

    @classmethod
    def merged(cls, data: Mapping[str, Any]) -> Place:
        return cls(int(data["length"]), str(data["digest"]), _numbers(data["mean"]))


@dataclass(frozen=True)
class Axis(Place):
    """One axis, with what of it survives that its slices are scaled."""

    lean: tuple[float, ...]
    side: tuple[float, ...]
    peak: tuple[float, ...]
    size: tuple[float, ...] = ()
    shares: tuple[tuple[float, ...], ...] = ()  # of each other axis: its length, and how the squares spread along it

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Axis:
        kept = {name: _numbers(data[name]) for name in ("mean", "lean", "side", "peak", "size")}
        shares = tuple(map(_numbers, list(data["shares"])[:MOST_NUMBERS]))
        return cls(int(data["length"]), str(data["digest"]), **kept, shares=shares)


@dataclass(frozen=True, eq=False)
class Print:
    """One tensor, as ``worker.fingerprints`` tells it. Each is equal to itself alone: they are taken one by one."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    count: int
    sha256: str  # of the bytes as they are
    values: str  # digest of the sorted values
    total: int | None  # 64 bits that add up when tensors are joined; None for what are no numbers
    finite: bool
    quantiles: tuple[float, ...]
    largest: float
    axes: tuple[Axis, ...] = ()
    merged: tuple[Place, ...] = ()
    step: float = 0.0  # between two numbers that can be stored; 0.0 where the dtype tells
    different: int = 0  # values
    sample: tuple[float, ...] = ()  # marks of those with the smallest ones, in their order

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Print:
        """ValueError, TypeError or KeyError for what is none."""
        (largest, step) = _numbers([data["largest"], data["step"]])
        return cls(
            name=str(data["name"])[:LONGEST_NAME],
            dtype=str(data["dtype"]),
            shape=tuple(map(int, data["shape"])),
            count=int(data["count"]),
            sha256=str(data["sha256"]),
            values=str(data["values"]),
            total=_total(str(data["total"])),
            finite=bool(data["finite"]),
            quantiles=_numbers(data["quantiles"]),
            largest=largest,
            axes=tuple(map(Axis.from_json, list(data["axes"])[:MOST_NUMBERS])),
            merged=tuple(map(Place.merged, list(data["merged"])[:MOST_NUMBERS])),
            step=step,
            different=int(data["different"]),
            sample=_numbers(data["sample"]),
        )

    def times(self, factor: float) -> Print:
        """What is left of the same tensor with each value multiplied by a number above zero: as much as says whether
        another one is it, rounded."""
        return replace(
            self,
            quantiles=tuple(factor * value for value in self.quantiles),
            largest=factor * self.largest,
            axes=tuple(replace(axis, mean=tuple(factor * value for value in axis.mean)) for axis in self.axes),
            merged=tuple(replace(place, mean=tuple(factor * value for value in place.mean)) for place in self.merged),
        )

    @property
    def is_uniform(self) -> bool:
        """Does it hold one number only?"""
        return self.finite and bool(self.quantiles) and self.quantiles[0] == self.quantiles[-1]

    @property
    def is_neutral(self) -> bool:
        """Does it hold nothing but zeros, or nothing but ones, as layers begin? Converters leave those out."""
        return self.is_uniform and self.quantiles[0] in (0.0, 1.0)

    @cached_property
    def lengths(self) -> tuple[int, ...]:
        """Its shape without regard to order and to axes of length one."""
        return tuple(sorted(size for size in self.shape if size != 1))

    @property
    def is_coarse(self) -> bool:
        return bool(self.step) or self.dtype in HALF_STEPS

    def rounding_of(self, value: float) -> float:
        """How far this tensor's rounding may move a value."""
        relative, least = HALF_STEPS.get(self.dtype, (SINGLE, 0.0))
        return max(self.step * 0.51, abs(value) * relative * 1.01 + least, self.largest * SINGLE)


@dataclass(frozen=True)
class Form:
    """What one normalisation may have become: projections of the logarithm of its scale, the scale and possible shifts
    as ``worker.fingerprints`` tells vectors, and how far rounding may move the shift."""

    size: tuple[float, ...]
    scale: tuple[float, ...]
    shifts: tuple[tuple[float, ...], ...]
    slack: float

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Form:
        shifts = tuple(map(_numbers, list(data["shifts"])[:MOST_NUMBERS]))
        return cls(_numbers(data["size"]), _numbers(data["scale"]), shifts, *_numbers([data["slack"]]))


@dataclass(frozen=True)
class Norm:
    """A normalisation of the source: the names of its tensors, their length, and what they may have become. The first
    shift of a form is its own, the others have one of ``biases`` in them. ``certain``: it became one of these; else its
    epsilon may be another one."""

    members: tuple[str, ...]
    biases: tuple[str, ...]
    length: int
    forms: tuple[Form, ...]
    certain: bool

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Norm:
        names = (list(data[key])[:MOST_NUMBERS] for key in ("members", "biases"))
        members, biases = (tuple(str(name)[:LONGEST_NAME] for name in each) for each in names)
        forms = tuple(map(Form.from_json, list(data["forms"])[:MOST_NUMBERS]))
        return cls(members, biases, int(data["length"]), forms, bool(data["certain"]))


@dataclass(frozen=True)
class Weights:
    """All that one model's job told of its weights."""

    prints: tuple[Print, ...] = ()
    norms: tuple[Norm, ...] = ()
    factors: tuple[float, ...] = ()  # above zero, that layers multiply their inputs with

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Weights:
        """``{"tensors": […], "normalisations": […], "factors": […]}``; ValueError, TypeError or KeyError for what is
        none."""
        if max(len(data["tensors"]), len(data["normalisations"])) > MOST_PRINTS:
            raise ValueError("more weight tensors than a model has")
        prints = tuple(map(Print.from_json, data["tensors"]))
        factors = tuple(factor for factor in _numbers(list(data["factors"])[:MOST_NUMBERS]) if factor > 0)
        return cls(prints, tuple(map(Norm.from_json, data["normalisations"])), factors)


def in_order(source: Print, result: Print) -> bool:
    """Do two tensors of the same values hold them in the same order, apart from transposing and reshaping?"""
    return _in_place(source, result, lambda a, b: a.digest == b.digest)


def _in_place(source: Print, result: Print, alike: Callable[[Place, Place], bool]) -> bool:
    """Is every axis of the one that has fewer an axis of the other, or two of its neighbours?

    Where lengths show that it was reshaped otherwise, nothing is known against it.
    """
    few, many = sorted((source, result), key=lambda print: len(print.lengths))
    left: list[Place] = [*many.axes, *(many.merged if len(few.lengths) < len(many.lengths) else ())]
    for place in few.axes:
        same = [other for other in left if other.length == place.length]
        found = next((other for other in same if alike(place, other)), None)
        if found is None:
            return not same and source.lengths != result.lengths
        left.remove(found)
    return True


def is_rounded(source: Print, result: Print) -> bool:
    """Can the result be the source, each value rounded? Sorted values never lie further apart than the values do; the
    means of slices do by chance, and much less."""
    if source.count != result.count or not (source.finite and result.finite):
        return False
    pairs = zip(source.quantiles, result.quantiles, strict=False)
    if any(abs(a - b) > max(result.rounding_of(a), source.rounding_of(b)) for a, b in pairs):
        return False
    one = result.rounding_of(source.largest) * CHANCE / math.sqrt(max(source.count, 1))
    least = source.largest * SINGLE
    return _in_place(source, result, lambda a, b: _near(a.mean, b.mean, one * math.sqrt(a.length) + least))


def _near(first: Sequence[float], second: Sequence[float], allowed: float) -> bool:
    return all(abs(a - b) <= allowed for a, b in zip(first, second, strict=False))


def folded_axes(source: Print, result: Print, turned: bool) -> list[tuple[Axis, Axis]]:
    """Can the result be the source with every slice of one of its axes multiplied by a number of its own? ``turned``:
    may that number be negative?

    What is kept of that axis does not change then, up to rounding. The values themselves do.
    """
    if source.count != result.count or source.lengths != result.lengths or len(source.lengths) < 2:
        return []
    if not (source.finite and result.finite) or source.values == result.values or result.is_uniform:
        return []
    allowed = folding(result)
    return [(a, b) for a in source.axes for b in result.axes if _same_slices(a, b, allowed, turned)]


def folding(result: Print) -> float:
    """How far rounding may move what is kept of an axis, which is of the size of one for values without any order."""
    if result.step:
        return SAFETY * result.step / max(result.largest, result.step)
    return SAFETY * HALF_STEPS[result.dtype][0] if result.dtype in HALF_STEPS else SEEN


def _same_slices(source: Axis, result: Axis, allowed: float, turned: bool) -> bool:
    if source.length != result.length or not any(source.peak):
        return False
    size = max(1.0, *map(abs, (*source.lean, *source.side)))
    own = (source.side, result.side) if turned else (source.lean, result.lean)
    peaks = allowed * max(1.0, *map(abs, source.peak))
    if not (_near(*own, allowed * size) and _near(source.peak, result.peak, peaks)):
        return False
    left = list(result.shares)
    return all(_takes(left, share, allowed) for share in source.shares)


def _takes(left: list[tuple[float, ...]], share: tuple[float, ...], allowed: float) -> bool:
    """Is one of these it, which then is taken?"""
    size = max(1.0, *map(abs, share[1:])) if share[1:] else 1.0
    found = next((each for each in left if each[:1] == share[:1] and _near(each[1:], share[1:], allowed * size)), None)
    if found is not None:
        left.remove(found)
    return found is not None


def is_nearly(source: Print, result: Print, share: float) -> bool:
    """Do the sorted values lie within a share of the largest?"""
    allowed = share * source.largest
    return _near(source.quantiles, result.quantiles, allowed)


def is_mostly(source: Print, result: Print) -> bool:
    """Has the result most of the very values of the source, and others in the place of some? Only where values tell
    tensors apart: not where all tensors have the same few, as those that were rounded to a grid."""
    if source.count != result.count or source.values == result.values:
        return False
    if 2 * min(source.different, result.different) < source.count:
        return False
    least = sorted({*source.sample, *result.sample})[: max(len(source.sample), len(result.sample))]
    both = set(least).intersection(source.sample, result.sample)
    return len(both) >= FEWEST_SAME and 2 * len(both) > len(least)


def is_vector(told: Sequence[float], result: Print, slack: float = 0.0) -> bool:
    """Is this one-dimensional tensor the vector, up to rounding?"""
    if len(result.lengths) > 1 or not result.axes or len(told) != len(result.axes[0].mean) + 3 or not result.finite:
        return False
    middle = len(result.quantiles) // 2
    seen = (*result.axes[0].mean, result.quantiles[0], result.quantiles[middle], result.quantiles[-1])
    allowed = SAFETY / 2 * result.rounding_of(max(result.largest, *map(abs, told[-3:]))) + slack
    return _near(told, seen, allowed)
