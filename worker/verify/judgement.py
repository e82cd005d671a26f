"""The verdict on a result, with its reason and the checks it rests on."""

from __future__ import annotations

from collections.abc import Sequence

from worker.errors import LarderError, NotRunnable
from worker.report import Check, Verdict
from worker.verify.interface import interface_checks
from worker.verify.seen import Seen, Terms
from worker.verify.values import values_check
from worker.verify.weights import architecture_check, weights_check

Judgement = tuple[Verdict, str, tuple[Check, ...]]


def judge(source: Seen, result: Seen, terms: Terms) -> Judgement:
    """The verdict on a result that was loaded and run, with its reason and the checks it rests on."""
    # Sensitivity (would these inputs have shown a fault?) and the model's own rounding floor, which is to replace the
    # fixed tolerance, are further checks in this list: each one a function of the same two arguments.
    weights = weights_check(source, result, terms)
    proof = _proof(source, result, terms, weights)
    ran = any(check.name == "values" for check in proof)
    load = Check("load", True, f"The result opens{', and runs,' if ran else ''} in a fresh job.")
    interface = () if terms.weights_alone else interface_checks(source, result, terms)
    checks = (load, *interface, weights, *(check for check in proof if check is not weights))
    failed = [check for check in checks if check.passed is False]
    if failed:
        return Verdict.DIFFERS, " ".join(check.sentence for check in failed), checks
    if unknown := [check for check in proof if check.passed is None]:
        return Verdict.NOT_PROVABLE, unknown[0].sentence, checks
    if terms.unwitnessed and not terms.weights_alone:
        return Verdict.NOT_PROVABLE, terms.unwitnessed, checks
    return Verdict.VERIFIED, _summary(checks, terms), checks


def _proof(source: Seen, result: Seen, terms: Terms, weights: Check) -> tuple[Check, ...]:
    """What the verdict rests on: the values, or else all that values are computed from."""
    if terms.weights_alone:
        return (weights,)
    if source.architecture and not source.values:
        return weights, architecture_check(source, result)
    return (values_check(source, result, terms),)


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
