"""The verdict on a result, with its reason and the checks it rests on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from worker.errors import LarderError, NotRunnable
from worker.report import Check, Verdict
from worker.verify.interface import further_check, interface_checks
from worker.verify.seen import Seen, Terms
from worker.verify.sensitivity import sensitivity_check
from worker.verify.tables import tables_check
from worker.verify.unrounded import Unrounded, is_only_rounded, rounded_weights, unrounded_check
from worker.verify.values import relative, rounding_floor, steady_check, values_check
from worker.verify.weights import architecture_check, bits_check, weights_check

TWIN = (
    "Its alive twin, the same layers with other weights, came out the same on the same route, with faults that show;"
    " and all of its own weights are accounted for."
)
Judgement = tuple[Verdict, str, tuple[Check, ...]]


def judge(
    source: Seen, result: Seen, terms: Terms, twin: bool = False, unrounded: Unrounded | None = None
) -> Judgement:
    """The verdict on a result that was loaded and run, with its reason and the checks it rests on.

    ``twin``: were faults seen in the same layers with other weights, on the same route? That proves the graph where
    faults in the model itself do not show; its weights have to be accounted for on their own.
    ``unrounded``: the same conversion without rounding, which then is what faults have to show in."""
    weights = weights_check(source, result, terms)
    beside = unrounded_check(unrounded) if unrounded else None
    if unrounded:
        weights = rounded_weights(weights, unrounded)
    before = unrounded.checks if unrounded else ()
    explained = unrounded is not None and is_only_rounded(unrounded, weights)
    terms = replace(terms, explained=explained, rangeless=bool(unrounded and not unrounded.likeness.ranges))
    terms = replace(terms, shaky=any(item.name == "values" and item.passed is None for item in before))
    proof = (*([beside] if beside else []), *_proof(source, result, terms, weights))
    ran = any(check.name == "values" for check in proof)
    load = Check("load", True, f"The result opens{', and runs,' if ran and result.values else ''} in a fresh job.")
    tables = tables_check(source, result)
    interface = () if terms.weights_alone else (*interface_checks(source, result, terms), *([tables] if tables else []))
    own = unrounded.sensitivity if unrounded and not unrounded.likeness.problem else None
    sensitivity = (own or _sensitivity(source, terms, weights, twin)) if ran else None
    checks = (load, *interface, weights, *(check for check in (sensitivity, *proof) if check not in (weights, None)))
    failed = [check for check in checks if check.passed is False]
    if failed:
        return Verdict.DIFFERS, " ".join(check.sentence for check in failed), checks
    if unknown := [*_unknown(proof), *_unseen(sensitivity, weights, terms)]:
        return Verdict.NOT_PROVABLE, unknown[0].sentence, checks
    if terms.unwitnessed and not terms.weights_alone:
        return Verdict.NOT_PROVABLE, terms.unwitnessed, checks
    return Verdict.VERIFIED, _summary(checks, terms), checks


def _unknown(proof: Sequence[Check]) -> list[Check]:
    return [check for check in proof if check.passed is None]


def _sensitivity(source: Seen, terms: Terms, weights: Check, twin: bool) -> Check | None:
    """None for a model without weights: there is nothing to plant a fault into. Where all weights are accounted for, it
    is enough that gross faults show: then what they are used for is seen."""
    if not source.variables and not source.weights:
        return None
    floor, known = rounding_floor(source), weights.passed is True
    gross = known or is_gross(terms)
    check = sensitivity_check(source.faults, source.variables, relative(terms, floor, source), gross, known)
    if check.passed is None and twin:
        return replace(check, passed=True, sentence=f"{check.sentence} {TWIN}", data=check.data | {"twin": True})
    return check


def is_gross(terms: Terms) -> bool:
    """Is it enough that a gross fault shows, since the weights check sees small ones, or rounding hides them?"""
    return terms.is_coarse or terms.exact_weights


def _unseen(sensitivity: Check | None, weights: Check, terms: Terms) -> list[Check]:
    """What keeps values that agree from being a proof.

    Where weights have come back bit for bit, in the layers that Keras itself wrote here, nothing does. Where more than
    rounding is allowed, small faults have to be seen in the weights. Where no weight could be changed, all of them have
    to be accounted for."""
    if terms.exact_weights and weights.passed is None:
        return [weights]
    if sensitivity is None or (terms.exact_weights and not terms.given):
        return []
    if terms.is_coarse and weights.passed is None:
        return [weights]
    untried = not sensitivity.data["tried"] and weights.passed is True
    if sensitivity.passed is None and not untried:
        return [sensitivity]
    return []


def _proof(source: Seen, result: Seen, terms: Terms, weights: Check) -> tuple[Check, ...]:
    """What the verdict rests on: the values, or else all that values are computed from."""
    if terms.weights_alone:
        return (weights,)
    if source.architecture and not source.values:
        return weights, architecture_check(source, result)
    steady = steady_check(source, result, terms)
    if source.unsteady and steady:
        return (steady,)
    values = values_check(source, result, terms)
    doubt = bits_check(source, result, values, terms.given) if terms.exact_weights else None
    return tuple(check for check in (steady, values, doubt, further_check(source, result)) if check)


def asks_source(checks: Sequence[Check]) -> bool:
    """Is nothing wrong but values that lie apart, or that change? The source may do so itself: by its rounding, or by
    chance now and then."""
    failed = {check.name: check for check in checks if check.passed is False}
    numbers = "values" not in failed or bool(failed["values"].data.get("numbers"))
    return bool(failed) and failed.keys() <= {"values", "steady"} and numbers


def wants_twin(judgement: Judgement) -> bool:
    """Is nothing missing but that faults show, with all weights accounted for?"""
    verdict, _, checks = judgement
    passed = {check.name: check.passed for check in checks}
    known = all(value is True for name, value in passed.items() if name != "sensitivity")
    return verdict is Verdict.NOT_PROVABLE and known and "sensitivity" in passed


def wants_unrounded(judgement: Judgement) -> bool:
    """Is nothing wrong, unless values that rounding may have moved so far?"""
    return all(check.name == "values" for check in judgement[2] if check.passed is False)


def not_shown(error: LarderError, weights: Check | None = None) -> Judgement:
    """The verdict on a result that showed nothing, or its weights alone: it does not open, or nothing here can run
    it."""
    if error.code == NotRunnable.code:
        sentence = f"The result was not run: {error.details.get('problem', '')}."
        check = Check("values", None, sentence, {"code": error.code})
        if weights and weights.passed is False:
            return Verdict.DIFFERS, weights.sentence, (weights, check)
        return Verdict.NOT_PROVABLE, sentence, (*([weights] if weights else []), check)
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
