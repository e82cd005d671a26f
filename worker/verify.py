"""Does the result compute what the source computes? How values are handed on, and the judgement of what both answered.

A verdict has parts, and each is a Check that is shown: load, names, shapes, dtypes, weights, values. A check that
could not be made has ``passed`` None, and without values nothing is called verified.
"""

from __future__ import annotations

import math
import zipfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from worker.errors import LarderError, NoResult, NotRunnable
from worker.formats._format import TensorSpec, Tolerance
from worker.report import Check, Verdict

Array = npt.NDArray[Any]
Arrays = dict[str, Array]
Digest = tuple[str, tuple[int, ...], str]  # dtype, shape, sha256 of the bytes
Shape = tuple[int | None, ...] | None
Judgement = tuple[Verdict, str, tuple[Check, ...]]


# Inputs ---------------------------------------------------------------------------------------------------------


def save_draws(path: Path, draws: Sequence[Mapping[str, Array]]) -> None:
    """Write the draws as one .npz, in order, under "number/name"."""
    named = {f"{number}/{name}": array for number, draw in enumerate(draws) for name, array in draw.items()}
    with path.open("wb") as file:
        np.savez(file, allow_pickle=False, **named)


def load_draws(path: Path, limit: int = 2**31) -> list[Arrays]:
    """Read what ``save_draws`` wrote. The file comes from a job, so it may hold anything: NoResult where it does."""
    draws: dict[int, Arrays] = {}
    try:
        _check_plain(path, limit)
        with np.load(path, allow_pickle=False) as stored:
            for key in stored.files:
                number, _, name = key.partition("/")
                draws.setdefault(int(number), {})[name] = stored[key]
    except Exception as error:  # also RecursionError, TokenError, …: NumPy reads a header as Python text
        raise NoResult(status=f"values that cannot be read ({type(error).__name__})") from error
    return [draws[number] for number in sorted(draws)]


def _check_plain(path: Path, limit: int) -> None:
    """Arrays as ``np.savez`` stores them: not compressed, so they cannot grow, and not more than ``limit`` bytes."""
    with zipfile.ZipFile(path) as package:
        infos = package.infolist()
    if sum(info.file_size for info in infos) > limit or any(info.compress_type for info in infos):
        raise ValueError("not plain arrays")


# Pairing --------------------------------------------------------------------------------------------------------


def pair(source: Sequence[TensorSpec], result: Sequence[TensorSpec]) -> dict[str, str] | None:
    """Which name of the result stands for which of the source: the same names, else the same places, else None.

    By place only where count, shapes and dtypes agree, because two inputs that are swapped go unnoticed otherwise.
    """
    if len(source) != len(result):
        return None
    names = [spec.name for spec in source]
    if set(names) == {spec.name for spec in result}:
        return {name: name for name in names}
    both = list(zip(source, result, strict=True))
    if all(_same_shape(a.shape, b.shape) and a.dtype == b.dtype for a, b in both):
        return {a.name: b.name for a, b in both}
    return None


def _same_shape(source: Shape, result: Shape) -> bool:
    """Does the result accept every shape that the source does?"""
    if source is None or result is None:
        return True
    return len(source) == len(result) and all(b is None or a == b for a, b in zip(source, result, strict=True))


COARSE = 1e-3  # about the rounding of a float16


# Judgement ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Seen:
    """What one model showed in its job: its interface, its weights, and its answers, one dict for each draw.

    ``architecture``: a digest of its layers and their connections, where it is too large to be run for a proof.
    """

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    weights: tuple[Digest, ...]
    values: list[Arrays]
    architecture: str = ""


@dataclass(frozen=True)
class Terms:
    """How a pair is judged: how far values may lie apart, whether weights must come back bit for bit, whether the
    result is weights alone, with nothing to run, which dtypes its format holds as another, and whether it takes one row
    at a time, as was said when it was made."""

    tolerance: Tolerance
    exact_weights: bool
    weights_alone: bool = False
    narrows: Mapping[str, str] = field(default_factory=dict)
    one_row: bool = False

    @property
    def is_coarse(self) -> bool:
        """Is more allowed than rounding can explain, so that people have to be told how much it is?"""
        return self.tolerance.rtol > COARSE


def judge(source: Seen, result: Seen, terms: Terms) -> Judgement:
    """The verdict on a result that was loaded and run, with its reason and the checks it rests on."""
    # Sensitivity (would these inputs have shown a fault?) and the model's own rounding floor, which is to replace the
    # fixed tolerance, are further checks in this list: each one a function of the same two arguments.
    weights = _weights_check(source, result, terms)
    proof = _proof(source, result, terms, weights)
    ran = any(check.name == "values" for check in proof)
    load = Check("load", True, f"The result opens{', and runs,' if ran else ''} in a fresh job.")
    interface = () if terms.weights_alone else _interface_checks(source, result, terms)
    checks = (load, *interface, weights, *(check for check in proof if check is not weights))
    failed = [check for check in checks if check.passed is False]
    if failed:
        return Verdict.DIFFERS, " ".join(check.sentence for check in failed), checks
    if unknown := [check for check in proof if check.passed is None]:
        return Verdict.NOT_PROVABLE, unknown[0].sentence, checks
    return Verdict.VERIFIED, _summary(checks, terms), checks


def _proof(source: Seen, result: Seen, terms: Terms, weights: Check) -> tuple[Check, ...]:
    """What the verdict rests on: the values, or else all that values are computed from."""
    if terms.weights_alone:
        return (weights,)
    if source.architecture and not source.values:
        return weights, _architecture_check(source, result)
    return (_values_check(source, result, terms),)


def not_shown(error: LarderError) -> Judgement:
    """The verdict on a result that showed nothing: it does not open, or nothing here can run it."""
    if error.code == NotRunnable.code:
        sentence = f"The result was not run: {error.details.get('problem', '')}."
        check = Check("values", None, sentence, {"code": error.code})
        return Verdict.NOT_PROVABLE, sentence, (check,)
    check = Check("load", False, f"The result does not open or run: {error.message}", {"code": error.code})
    return Verdict.DIFFERS, check.sentence, (check,)


def not_run(error: LarderError) -> Judgement:
    """The verdict where the source itself could not be run, so that there is nothing to compare with."""
    check = Check("values", None, f"The source could not be run here: {error.message}", {"code": error.code})
    return Verdict.NOT_PROVABLE, check.sentence, (check,)


def _summary(checks: Sequence[Check], terms: Terms) -> str:
    compared = [check.sentence for check in checks if check.name in ("weights", "values") and check.passed]
    told = {check.name: check.sentence for check in checks}
    if "values" not in told:
        return " ".join(filter(None, [told.get("architecture"), *compared]))
    likeness = "nearly the same" if terms.is_coarse else "the same"
    return " ".join([f"The result has the same interface and computes {likeness}.", *compared])


def _interface_checks(source: Seen, result: Seen, terms: Terms) -> Iterator[Check]:
    inputs, outputs = pair(source.inputs, result.inputs), pair(source.outputs, result.outputs)
    yield _names_check(source, result, inputs, outputs)
    if inputs is None or outputs is None:
        return
    pairs = [*_specs(source.inputs, result.inputs, inputs), *_specs(source.outputs, result.outputs, outputs)]
    unlike = [(a, b) for a, b in pairs if not _same_shape(a.shape, _any_rows(b.shape) if terms.one_row else b.shape)]
    shapes = [f"{a.name} was {_show(a.shape)} and is {_show(b.shape)}" for a, b in unlike]
    changed = [(a, b) for a, b in pairs if b.dtype not in (a.dtype, terms.narrows.get(a.dtype))]
    dtypes = [f"{a.name} was {a.dtype} and is {b.dtype}" for a, b in changed]
    if terms.one_row and not shapes:
        yield Check("shapes", True, "The result takes one row at a time; apart from that all shapes are the same.")
    else:
        yield _agreement("shapes", shapes)
    yield _agreement("dtypes", dtypes)


def _any_rows(shape: Shape) -> Shape:
    """The shape of one row as a shape of any number of rows."""
    return (None, *shape[1:]) if shape and shape[0] == 1 else shape


def _specs(
    source: Sequence[TensorSpec], result: Sequence[TensorSpec], names: Mapping[str, str]
) -> Iterator[tuple[TensorSpec, TensorSpec]]:
    by_name = {spec.name: spec for spec in result}
    yield from ((spec, by_name[names[spec.name]]) for spec in source)


def _names_check(
    source: Seen, result: Seen, inputs: Mapping[str, str] | None, outputs: Mapping[str, str] | None
) -> Check:
    if inputs is None or outputs is None:
        before = ", ".join(spec.name for spec in (*source.inputs, *source.outputs))
        after = ", ".join(spec.name for spec in (*result.inputs, *result.outputs))
        return Check("names", False, f"Inputs and outputs do not correspond: {before} became {after}.")
    renamed = {old: new for old, new in (*inputs.items(), *outputs.items()) if old != new}
    if not renamed:
        return Check("names", True, "All inputs and outputs have the same names.")
    listed = ", ".join(f"{old} is now {new}" for old, new in renamed.items())
    return Check("names", True, f"Renamed, and matched by place: {listed}.", {"renamed": renamed})


def _agreement(name: str, disagreements: list[str]) -> Check:
    if disagreements:
        return Check(name, False, f"The {name} differ: {'; '.join(disagreements)}.")
    return Check(name, True, f"All inputs and outputs have the same {name}.")


def _show(shape: Shape) -> str:
    return (
        "of any rank" if shape is None else "×".join("?" if size is None else str(size) for size in shape) or "a scalar"
    )


def _weights_check(source: Seen, result: Seen, terms: Terms) -> Check:
    """Every tensor of the source is found in the result exactly once, bit for bit, under whatever name."""
    if not terms.exact_weights:
        return Check(
            "weights", None, "The weights are compared through the values, because the formats store them apart."
        )
    missing, extra = Counter(source.weights), Counter(result.weights)
    missing, extra = missing - extra, extra - missing
    data = {"tensors": len(source.weights), "missing": missing.total(), "extra": extra.total()}
    if terms.weights_alone and extra and not missing:  # a graph need not use all that its checkpoint holds
        sentence = f"All {len(source.weights)} weight tensors are there, bit for bit, and {extra.total()} more."
        return Check("weights", True, sentence, data)
    if missing or extra:
        counts = (
            f"{missing.total()} of {len(source.weights)} tensors are not there bit for bit, {extra.total()} are new"
        )
        return Check("weights", False, f"The weights differ: {counts}.", data)
    return Check("weights", True, f"All {len(source.weights)} weight tensors are the same, bit for bit.", data)


def _architecture_check(source: Seen, result: Seen) -> Check:
    """Values follow from layers, connections and weights; running a large model would take more than it shows."""
    if source.architecture != result.architecture:
        sentence = "The layers are described in other words, and the model is too large to compare its values."
        return Check("architecture", None, sentence)
    if source.weights != result.weights:
        return Check("architecture", False, "The weights are not in the same places of the layers.")
    sentence = "The layers and their connections are the same. The model is too large to compute values for the proof."
    return Check("architecture", True, sentence, {"sha256": source.architecture})


def _values_check(source: Seen, result: Seen, terms: Terms) -> Check:
    names = pair(source.outputs, result.outputs)
    if names is None or not source.values or len(source.values) != len(result.values):
        return Check("values", None, "The values could not be compared.")
    compared = [
        _worst(
            old, [measure(a[old], b[new], terms.tolerance) for a, b in zip(source.values, result.values, strict=True)]
        )
        for old, new in names.items()
    ]
    wrong = [difference for difference in compared if difference.problem]
    data = {"outputs": [asdict(difference) for difference in compared], "draws": len(source.values)}
    if wrong:
        listed = "; ".join(f"{difference.output}: {difference.problem}" for difference in wrong)
        return Check("values", False, f"The values differ: {listed}.", data)
    largest = max((difference.max_abs for difference in compared), default=0.0)
    much = f"differ by at most {largest:.2g}" if largest else "are exactly the same"
    if largest and terms.is_coarse:
        share = max(difference.max_rel for difference in compared)
        much += f", {share:.1%} of the largest value of its output, where {terms.tolerance.rtol:.1%} is allowed"
    sentence = f"On {len(source.values)} sets of inputs the values {much}."
    return Check("values", True, sentence, data)


@dataclass(frozen=True)
class Difference:
    """How far one output lies from the source's. ``max_rel`` is relative to the output's largest magnitude."""

    output: str = ""
    problem: str = ""  # empty where it is within the tolerance
    max_abs: float = 0.0
    max_rel: float = 0.0
    cosine: float | None = None
    top1: float | None = None  # the share of rows whose largest column is the same; for two dimensions


def _worst(output: str, draws: Sequence[Difference]) -> Difference:
    cosines = [draw.cosine for draw in draws if draw.cosine is not None]
    top1 = [draw.top1 for draw in draws if draw.top1 is not None]
    return Difference(
        output=output,
        problem=next((draw.problem for draw in draws if draw.problem), ""),
        max_abs=max(draw.max_abs for draw in draws),
        max_rel=max(draw.max_rel for draw in draws),
        cosine=min(cosines, default=None),
        top1=sum(top1) / len(top1) if top1 else None,
    )


def measure(reference: Array, got: Array, tolerance: Tolerance) -> Difference:
    """Compare one output of one draw: shapes, then exactly for text, integers and booleans, else within tolerance."""
    if reference.shape != got.shape:
        return Difference(problem=f"the shape is {_show(got.shape)} instead of {_show(reference.shape)}")
    if reference.dtype.kind not in "fc" or got.dtype.kind not in "fc":
        return _measure_exactly(reference, got)
    a, b = _wide(reference), _wide(got)
    finite = np.isfinite(a)
    if not (np.array_equal(finite, np.isfinite(b)) and np.array_equal(a[~finite], b[~finite], equal_nan=True)):
        return Difference(problem="not-a-number or infinity stands in other places")
    return _measure_finite(a, b, tolerance)


def _wide(array: Array) -> Array:
    return array.astype(np.complex128 if array.dtype.kind == "c" else np.float64)


def _measure_exactly(reference: Array, got: Array) -> Difference:
    if (reference.dtype.kind in "SU") != (got.dtype.kind in "SU"):
        return Difference(problem="text became numbers, or numbers text")
    unequal = int((reference != got).sum())
    return Difference(problem=f"{unequal} of {reference.size} values are not equal" if unequal else "")


def _measure_finite(a: Array, b: Array, tolerance: Tolerance) -> Difference:
    finite = np.isfinite(a)
    gap = float(np.abs(a[finite] - b[finite]).max(initial=0.0))
    scale = float(np.abs(a[finite]).max(initial=0.0))
    allowed = tolerance.atol + tolerance.rtol * scale
    problem = f"they differ by up to {gap:.2g}, and {allowed:.2g} is allowed" if gap > allowed else ""
    return Difference(
        problem=problem,
        max_abs=gap,
        max_rel=gap / scale if scale else 0.0,
        cosine=_cosine(a[finite], b[finite]),
        top1=_top1(a, b),
    )


def _cosine(a: Array, b: Array) -> float | None:
    length = float(np.linalg.norm(a)) * float(np.linalg.norm(b))
    return float(np.real(np.vdot(a, b))) / length if length and math.isfinite(length) else None


def _top1(a: Array, b: Array) -> float | None:
    if a.ndim != 2 or a.shape[1] < 2 or a.dtype.kind == "c" or not a.shape[0]:
        return None
    return float((a.argmax(axis=1) == b.argmax(axis=1)).mean())
