"""How far the answers of two models lie apart, on the same inputs."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from worker.formats._format import Tolerance
from worker.report import Check
from worker.verify.draws import Array, Arrays
from worker.verify.interface import pair_outputs, show
from worker.verify.seen import Seen, Terms

FLOORS = 4  # of rounding that two libraries may lie apart: each one rounds in an order of its own
MOST_EXPLAINED = 2  # times what is allowed: so far rounding may have moved values; beyond it a range is another one
MOST_ROUNDING = 1e-2  # of an output's scale; a model whose rounding is more than that says nothing about a result
MOST_CHANGED = 0.5  # of an output's whole numbers or booleans: so many may change where rounding is all that is left
COSTLY = "Nothing but rounding was found to do it; take a finer precision, or measure it on samples of your own."
UNSTEADY = {
    "random": "The source answers the same input differently each time: it is random by design, or part of it trains.",
    "stateful": "The source changes its state when it runs, so its second answer to an input is another one.",
}


def steady_check(source: Seen, result: Seen, terms: Terms) -> Check | None:
    """Do two runs on one input agree? None where that is not known, or nothing is to be said."""
    if source.unsteady:
        return Check("steady", None, UNSTEADY.get(source.unsteady, UNSTEADY["random"]), {"kind": source.unsteady})
    if not result.repeated:
        return None
    worst = max(_unlike(result.values[number], values) for number, values in result.repeated.items())
    allowed = min(2 * relative(terms, rounding_floor(source), source), MOST_ROUNDING)
    if worst > allowed:
        sentence = f"Two fresh runs of the result on one input differ by {worst:.2g} of its largest value."
        return Check("steady", False, sentence, {"gap": worst})
    return Check("steady", True, "Two runs of the result in fresh jobs agree.", {"gap": worst})


def _unlike(first: Arrays, second: Arrays) -> float:
    """The largest difference of two answers, relative to the largest value; 1 where they cannot be compared."""
    if first.keys() != second.keys():
        return 1.0
    tolerance = Tolerance(MOST_ROUNDING, 0.0)
    found = [measure(array, second[name], tolerance) for name, array in first.items()]
    return max((max(item.max_rel, 1.0 if item.problem else 0.0) for item in found), default=0.0)


def rounding_floor(source: Seen) -> float | None:
    """How far the source lies from its own answers in float64, or to inputs an ulp beside, relative to the largest
    value of an output. None where neither is known. Numbers far beyond the others have a floor of their own."""
    near = source.on(range(len(source.values) - source.far))
    return _floor((near.exact, near.nudged), near.values)


def _floor(others: Iterable[Sequence[Arrays]], values: Sequence[Arrays]) -> float | None:
    known = [answers for answers in others if answers]
    if not known:
        return None
    anything = Tolerance(1.0, 0.0)
    gaps = [
        measure(other[name].astype(array.dtype), array, anything).max_rel
        for answers in known
        for other, answer in zip(answers, values, strict=True)
        for name, array in answer.items()
        if array.dtype.kind in "fc" and name in other and other[name].shape == array.shape
    ]
    return max(gaps, default=0.0)


def _changing(source: Seen, name: str) -> float:
    """The share of an output's whole numbers or booleans that rounding alone changes in the source."""
    both = _twice(source, name)
    return max((float((a != b).mean()) for a, b in both if a.shape == b.shape and b.size), default=0.0)


def _twice(source: Seen, name: str) -> list[tuple[Array, Array]]:
    """One output of all draws, beside what it is in float64 and on inputs an ulp beside, where those are known."""
    others = [held for held in (source.exact, source.nudged) if held]
    pairs = [pair for held in others for pair in zip(held, source.values, strict=False)]
    return [(other[name], values[name]) for other, values in pairs if name in other and name in values]


def values_check(source: Seen, result: Seen, terms: Terms) -> Check:
    names = pair_outputs(source, result)
    if names is None or not source.values or len(source.values) != len(result.values):
        return Check("values", None, "The values could not be compared.")
    floor = rounding_floor(source)
    tolerance = _widened(terms.tolerance, floor)
    pairs = list(zip(source.values, result.values, strict=True))
    usual, far = pairs[: len(pairs) - source.far], pairs[len(pairs) - source.far :]
    measured = _measured(usual, names, tolerance, terms.absolute)
    compared = [_worst(old, differences) for old, differences in measured.items()]
    data: dict[str, Any] = {"outputs": [asdict(difference) for difference in compared], "draws": len(source.values)}
    data |= {"allowed": tolerance.rtol, "rounding": floor, "far": source.far}
    wrong = _problems(measured) or _far_apart(source, far, names, tolerance)
    if wrong:
        return _wrong(wrong, source, terms, data)
    sentence = f"On {len(source.values)} sets of inputs the values {_much(compared, terms, tolerance, floor)}."
    return Check("values", True, sentence, data)


def _much(compared: Sequence[Difference], terms: Terms, tolerance: Tolerance, floor: float | None) -> str:
    largest = max((difference.max_abs for difference in compared), default=0.0)
    much = f"differ by at most {largest:.2g}" if largest else "are exactly the same"
    if largest and terms.is_coarse:
        share = max(difference.max_rel for difference in compared)
        much += f", {share:.1%} of the largest value of its output, where {terms.tolerance.rtol:.1%} is allowed"
        much += _top_classes(compared)
    if floor and tolerance != terms.tolerance:
        much += f"; the source itself rounds by {floor:.2g} of its largest value"
    return much


def _top_classes(compared: Sequence[Difference]) -> str:
    """Of how many rows the largest column is the same, in the output where it is of the fewest."""
    columns = [each for each in compared if each.top1 is not None]
    if not columns:
        return ""
    worst = min(columns, key=lambda each: each.top1 or 0.0)
    return f"; the largest column is the same in {worst.top1:.1%} of {worst.rows} rows"


def _wrong(wrong: dict[str, list[Difference]], source: Seen, terms: Terms, data: dict[str, Any]) -> Check:
    """Values that lie too far apart; no fault where rounding explains them, and then no proof either."""
    listed = "; ".join(f"{old}: {items[0].problem}" for old, items in wrong.items())
    every = [(old, item) for old, items in wrong.items() for item in items]
    if terms.explained and all(_is_cost(item, terms) for _, item in every):
        sentence = f"Rounding moves the values further than is allowed: {listed}. {COSTLY}"
        return Check("values", None, sentence, data | {"explained": True})
    if all(_is_shaky(old, item, source, terms) for old, item in every):
        sentence = f"Rounding alone moves the answers of the source so far that they prove nothing: {listed}."
        return Check("values", None, sentence, data)
    near = all(item.max_abs or item.changed for _, item in every)
    return Check("values", False, f"The values differ: {listed}.", data | {"numbers": near})


def _is_cost(item: Difference, terms: Terms) -> bool:
    """May so large a gap be what it costs to round a graph that is proven? Shapes and not-a-number are none."""
    if item.changed:
        return item.changed <= MOST_CHANGED
    return item.max_rel > 0 and (terms.rangeless or item.max_rel <= MOST_EXPLAINED * terms.tolerance.rtol)


def _is_shaky(old: str, item: Difference, source: Seen, terms: Terms) -> bool:
    """Does the source itself answer as differently where nothing but its rounding is another one?"""
    if item.changed:
        return item.changed <= FLOORS * _changing(source, old)
    far = FLOORS * (rounding_floor(source) or 0.0)
    if not item.max_rel:  # it answers zero there, which nothing is relative to
        return far > MOST_ROUNDING and 0 < item.max_abs <= FLOORS * _moving(source, old)
    return far > MOST_ROUNDING and (item.max_rel <= far or terms.shaky)


def _moving(source: Seen, name: str) -> float:
    """How far rounding alone moves a number of an output in the source, in the output's own unit."""
    gaps = (measure(other, values, Tolerance(1.0, 0.0)).max_abs for other, values in _twice(source, name))
    return max(gaps, default=0.0)


def _measured(
    pairs: Sequence[tuple[Arrays, Arrays]], names: Mapping[str, str], tolerance: Tolerance, absolute: bool = False
) -> dict[str, list[Difference]]:
    """Of each output its difference in every draw; nothing where there are no draws."""
    if not pairs:
        return {}
    return {old: [measure(a[old], b[new], tolerance, absolute) for a, b in pairs] for old, new in names.items()}


def _problems(measured: Mapping[str, Sequence[Difference]]) -> dict[str, list[Difference]]:
    """The outputs that lie too far apart, with those draws alone."""
    wrong = {old: [item for item in items if item.problem] for old, items in measured.items()}
    return {old: items for old, items in wrong.items() if items}


def _far_apart(
    source: Seen, pairs: Sequence[tuple[Arrays, Arrays]], names: Mapping[str, str], tolerance: Tolerance
) -> dict[str, list[Difference]]:
    """The outputs that lie visibly apart on numbers far beyond the others. Those are there for bounds and slopes that
    nothing else reaches, and rounding is another one there, so fine differences count for nothing."""
    others = [held[len(held) - len(pairs) :] for held in (source.exact, source.nudged)]
    floor = _floor(others, [values for values, _ in pairs]) or 0.0
    gross = Tolerance(max(tolerance.rtol, MOST_ROUNDING, FLOORS * floor), tolerance.atol)
    wrong = _problems(_measured(pairs, names, gross))
    return {old: [_on_large(item) for item in items] for old, items in wrong.items()}


def _on_large(item: Difference) -> Difference:
    return replace(item, problem=f"on inputs up to 100 times as large, {item.problem}")


def relative(terms: Terms, floor: float | None, source: Seen | None = None) -> float:
    """How far values may lie apart, relative to the output's scale: to the smallest one that the source showed, where
    the absolute part counts in full."""
    scale = _least_scale(source) if source and terms.absolute else 1.0
    return _widened(terms.tolerance, floor).rtol + terms.tolerance.atol / min(1.0, scale)


def _least_scale(source: Seen) -> float:
    """Of the outputs that are not all zero, which nothing is relative to."""
    numbers = [array for draw in source.values for array in draw.values() if array.dtype.kind == "f"]
    scales = [float(np.abs(array[np.isfinite(array)]).max(initial=0.0)) for array in numbers]
    return min((scale for scale in scales if scale), default=1.0)


def _widened(tolerance: Tolerance, floor: float | None) -> Tolerance:
    """At least what rounding alone makes of the source."""
    if floor is None:
        return tolerance
    return Tolerance(max(tolerance.rtol, min(FLOORS * floor, MOST_ROUNDING)), tolerance.atol)


@dataclass(frozen=True)
class Difference:
    """How far one output lies from the source's. ``max_rel`` is relative to the output's largest magnitude; ``changed``
    is the share of whole numbers or booleans that are not equal."""

    output: str = ""
    problem: str = ""  # empty where it is within the tolerance
    max_abs: float = 0.0
    max_rel: float = 0.0
    cosine: float | None = None
    top1: float | None = None  # the share of rows whose largest column is the same; for two dimensions
    rows: int = 0  # in which the largest column was compared
    changed: float = 0.0


def _worst(output: str, draws: Sequence[Difference]) -> Difference:
    cosines = [draw.cosine for draw in draws if draw.cosine is not None]
    same = sum(draw.top1 * draw.rows for draw in draws if draw.top1 is not None)
    rows = sum(draw.rows for draw in draws)
    return Difference(
        output=output,
        problem=next((draw.problem for draw in draws if draw.problem), ""),
        max_abs=max(draw.max_abs for draw in draws),
        max_rel=max(draw.max_rel for draw in draws),
        cosine=min(cosines, default=None),
        top1=same / rows if rows else None,
        rows=rows,
        changed=max(draw.changed for draw in draws),
    )


def measure(reference: Array, got: Array, tolerance: Tolerance, absolute: bool = False) -> Difference:
    """Compare one output of one draw: shapes, then exactly for text, integers and booleans, else within tolerance."""
    if reference.shape != got.shape:
        return Difference(problem=f"the shape is {show(got.shape)} instead of {show(reference.shape)}")
    if reference.dtype.kind not in "fc" or got.dtype.kind not in "fc":
        return _measure_exactly(reference, got)
    a, b = _wide(reference), _wide(got)
    finite = np.isfinite(a)
    if not (np.array_equal(finite, np.isfinite(b)) and np.array_equal(a[~finite], b[~finite], equal_nan=True)):
        return Difference(problem="not-a-number or infinity stands in other places")
    return _measure_finite(a, b, tolerance, absolute)


def _wide(array: Array) -> Array:
    return array.astype(np.complex128 if array.dtype.kind == "c" else np.float64)


def _measure_exactly(reference: Array, got: Array) -> Difference:
    if (reference.dtype.kind in "SU") != (got.dtype.kind in "SU"):
        return Difference(problem="text became numbers, or numbers text")
    unequal = int((reference != got).sum())
    problem = f"{unequal} of {reference.size} values are not equal" if unequal else ""
    return Difference(problem=problem, changed=unequal / reference.size if unequal else 0.0)


def _measure_finite(a: Array, b: Array, tolerance: Tolerance, absolute: bool) -> Difference:
    finite = np.isfinite(a)
    gap = float(np.abs(a[finite] - b[finite]).max(initial=0.0))
    scale = float(np.abs(a[finite]).max(initial=0.0))
    small = 1.0 if absolute or not scale else min(1.0, scale)  # a softmax over 1000 classes lives at 1e-3
    allowed = tolerance.atol * small + tolerance.rtol * scale
    problem = f"they differ by up to {gap:.2g}, and {allowed:.2g} is allowed" if gap > allowed else ""
    top1 = _top1(a, b)
    return Difference(
        problem=problem,
        max_abs=gap,
        max_rel=gap / scale if scale else 0.0,
        cosine=_cosine(a[finite], b[finite]),
        top1=top1,
        rows=0 if top1 is None else len(a),
    )


def _cosine(a: Array, b: Array) -> float | None:
    length = float(np.linalg.norm(a)) * float(np.linalg.norm(b))
    return float(np.real(np.vdot(a, b))) / length if length and math.isfinite(length) else None


def _top1(a: Array, b: Array) -> float | None:
    if a.ndim != 2 or a.shape[1] < 2 or a.dtype.kind == "c" or not a.shape[0]:
        return None
    return float((a.argmax(axis=1) == b.argmax(axis=1)).mean())
