"""A rounded result beside the same conversion without rounding: what the two together prove."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from worker.formats._format import TensorSpec, Tolerance
from worker.formats._likeness import CutOff, Likeness, Rounded
from worker.report import Check, Verdict
from worker.verify import Seen, Terms, Unrounded, judge, wants_unrounded

SPEC = TensorSpec("x", (None, 3), "float32")
VALUES = np.array([[0.5, -2.0, 1.0]], "float32")
TERMS = Terms(Tolerance(0.35, 1e-3), exact_weights=False)
FAR = 1.0  # half of the largest value, where 0.35 of it is allowed
SHOWN = Check("sensitivity", True, "A fault of 1 % in any layer would have shown.", {"tried": 3, "seen": 3})
SAME = Likeness("", 9, 6, 4, (Rounded("kernel", 0.4999, True), Rounded("bias", 0.1, True)), ranges=5)
PROVEN = Unrounded(Verdict.VERIFIED, "It computes the same.", (SHOWN,), SAME)


def seen(gap: float) -> Seen:
    return Seen((SPEC,), (SPEC,), (("float32", (3,), "digest"),), [{"x": VALUES + np.float32(gap)}], variables=3)


def test_a_file_that_is_proven_and_rounded_is_verified() -> None:
    verdict, reason, checks = judge(seen(0), seen(0.1), TERMS, unrounded=PROVEN)
    passed = {check.name: check.passed for check in checks}
    assert verdict is Verdict.VERIFIED
    assert passed["weights"] is passed["unrounded"] is passed["sensitivity"] is True
    assert "4 of them are rounded, no number by more than half a step" in reason
    assert "computes nearly the same" in reason


def test_without_it_the_values_prove_nothing() -> None:
    assert judge(seen(0), seen(0.1), TERMS)[0] is Verdict.NOT_PROVABLE


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (replace(PROVEN, verdict=Verdict.NOT_PROVABLE, reason="Faults hide."), "is not proven: Faults hide."),
        (replace(PROVEN, verdict=Verdict.DIFFERS, reason="It is off."), "is not proven: It is off."),
        (replace(PROVEN, likeness=Likeness("ADD is missing")), "the result is another graph: ADD is missing."),
        (replace(PROVEN, likeness=replace(SAME, furthest=(Rounded("kernel", 0.7, True),))), "(by up to 0.7 steps)"),
        (replace(PROVEN, likeness=replace(SAME, cut_off=(CutOff("relu", 0.2),))), "on something else: relu (20%)"),
    ],
)
def test_what_is_missing_is_said(found: Unrounded, said: str) -> None:
    verdict, _, checks = judge(seen(0), seen(0.1), TERMS, unrounded=found)
    assert verdict is Verdict.NOT_PROVABLE
    assert any(said in check.sentence for check in checks if check.passed is None)


def test_numbers_further_off_than_rounding_are_a_fault() -> None:
    found = replace(PROVEN, likeness=replace(SAME, furthest=(Rounded("kernel", 2.4, True),)))
    verdict, reason, _ = judge(seen(0), seen(0.1), TERMS, unrounded=found)
    assert verdict is Verdict.DIFFERS
    assert reason == "The weights differ: kernel (by up to 2.4 steps) lie further off than rounding explains."


def test_what_rounding_costs_is_no_fault_and_no_proof() -> None:
    """Beyond the tolerance, where nothing else was found that could have moved the values."""
    alone = judge(seen(0), seen(FAR), TERMS)
    assert alone[0] is Verdict.DIFFERS
    assert wants_unrounded(alone)
    verdict, reason, checks = judge(seen(0), seen(FAR), TERMS, unrounded=PROVEN)
    assert verdict is Verdict.NOT_PROVABLE
    assert reason.startswith("Rounding moves the values further than is allowed: x: they differ by up to")
    assert next(check for check in checks if check.name == "values").data["explained"]


def test_a_file_that_hides_faults_but_agrees_explains_what_its_rounding_costs() -> None:
    found = replace(PROVEN, verdict=Verdict.NOT_PROVABLE, reason="Faults hide.")
    verdict, _, checks = judge(seen(0), seen(FAR), TERMS, unrounded=found)
    assert verdict is Verdict.NOT_PROVABLE
    assert next(check for check in checks if check.name == "values").data["explained"]


def test_what_no_rounding_costs_is_a_fault() -> None:
    """A range that is another one moves values as far as it likes."""
    assert judge(seen(0), seen(4 * FAR), TERMS, unrounded=PROVEN)[0] is Verdict.DIFFERS


def test_without_ranges_any_gap_is_what_rounding_costs() -> None:
    """Weights in halves or in eight bits, computed in floats: there is nothing else that could be wrong."""
    found = replace(PROVEN, likeness=replace(SAME, ranges=0))
    assert judge(seen(0), seen(4 * FAR), TERMS, unrounded=found)[0] is Verdict.NOT_PROVABLE


def test_what_rounding_decides_is_no_fault() -> None:
    spec = replace(SPEC, dtype="bool")
    source, one, most = (
        replace(seen(0), inputs=(SPEC,), outputs=(spec,), values=[{"x": np.array([values])}])
        for values in ([True, False, True], [True, True, True], [False, True, True])
    )
    assert judge(source, one, TERMS, unrounded=PROVEN)[0] is Verdict.NOT_PROVABLE
    assert judge(source, most, TERMS, unrounded=PROVEN)[0] is Verdict.DIFFERS


def test_what_is_no_number_in_one_of_several_draws_is_never_rounding() -> None:
    values = [np.array([[np.nan, -2.0, 1.0]], "float32"), VALUES + np.float32(0.01)]
    source = replace(seen(0), values=[{"x": VALUES}, {"x": VALUES}])
    result = replace(seen(0), values=[{"x": value} for value in values])
    assert judge(source, result, TERMS, unrounded=PROVEN)[0] is Verdict.DIFFERS


@pytest.mark.parametrize(
    "found",
    [
        replace(PROVEN, likeness=Likeness("ADD is missing")),
        replace(PROVEN, verdict=Verdict.DIFFERS),
        replace(PROVEN, likeness=replace(SAME, furthest=(Rounded("kernel", 0.7, True),))),
        replace(PROVEN, likeness=replace(SAME, cut_off=(CutOff("relu", 0.2),))),
    ],
)
def test_values_too_far_off_are_a_fault_where_anything_else_is_open(found: Unrounded) -> None:
    assert judge(seen(0), seen(1.5), TERMS, unrounded=found)[0] is Verdict.DIFFERS


def test_what_is_no_number_is_never_rounding() -> None:
    result = replace(seen(0), values=[{"x": np.array([[np.nan, -2.0, 1.0]], "float32")}])
    assert judge(seen(0), result, TERMS, unrounded=PROVEN)[0] is Verdict.DIFFERS
