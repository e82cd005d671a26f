"""A rounded result beside the same conversion without rounding, which can be proven finely.

Rounding to eight bits moves values further than most faults do, so values alone prove little of such a result. But it
is made of a file that is not rounded: where that file is proven, and the result is that file operation by operation,
each of its numbers within half a step, nothing but rounding lies between the source and the result.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

from worker.formats._likeness import CutOff, Likeness, Rounded
from worker.report import Check, Verdict

HALF = 0.5 + 1e-3  # of a step: as far as rounding to the nearest number goes
WHOLE = 1.0 + 1e-3  # rounded, but not to the nearest; beyond it another number was stored
MOST_CUT = 3e-3  # of the span of the values of a tensor, beyond what its range holds; half a step of 8 bits is 2e-3
SHOWN_NAMES = 3


@dataclass(frozen=True)
class Unrounded:
    """The judgement of the same conversion without rounding, and how far the result is that file with numbers
    rounded."""

    verdict: Verdict
    reason: str
    checks: tuple[Check, ...]
    likeness: Likeness

    @property
    def sensitivity(self) -> Check | None:
        """Would faults have shown in it?"""
        found = next((check for check in self.checks if check.name == "sensitivity"), None)
        if found is None:
            return None
        sentence = f"In the same conversion without rounding: {found.sentence[:1].lower()}{found.sentence[1:]}"
        return replace(found, sentence=sentence)


def unrounded_check(found: Unrounded) -> Check:
    """True where the result is a file that is proven, rounded; None where that is not known."""
    like = found.likeness
    data = {"verdict": str(found.verdict), "reason": found.reason, "operations": like.operations}
    if found.verdict is not Verdict.VERIFIED:
        return Check("unrounded", None, f"The same conversion without rounding is not proven: {found.reason}", data)
    if like.problem:
        sentence = f"The same conversion without rounding is verified, but the result is another graph: {like.problem}."
        return Check("unrounded", None, sentence, data)
    if cut := _cut_off(like):
        named = ", ".join(f"{item.name} ({item.share:.0%})" for item in cut[:SHOWN_NAMES])
        sentence = f"Whole numbers cut off what is computed, as if ranges had been measured on something else: {named}."
        return Check("unrounded", None, sentence, data | {"cut_off": [asdict(item) for item in cut[:SHOWN_NAMES]]})
    sentence = (
        f"The same conversion without rounding is verified, and the result is that one with numbers rounded: the same"
        f" {like.operations} operations, each fed by the same."
    )
    return Check("unrounded", True, sentence, data)


def rounded_weights(weights: Check, found: Unrounded) -> Check:
    """The weights check with what the comparison number by number adds; as it was where the graphs are not the same."""
    like = found.likeness
    if like.problem or weights.passed is False:
        return weights
    data = weights.data | {"constants": like.tensors, "rounded_constants": like.rounded}
    data |= {"furthest": [asdict(item) for item in like.furthest[:SHOWN_NAMES]]}
    if wrong := _beyond(like.furthest, WHOLE):
        sentence = f"The weights differ: {_listed(wrong)} lie further off than rounding explains."
        return Check("weights", False, sentence, data)
    if loose := _beyond(like.furthest, HALF):
        sentence = f"Not all weights are rounded to the nearest number: {_listed(loose)}."
        return Check("weights", None, sentence, data)
    if found.verdict is not Verdict.VERIFIED:
        return weights
    return replace(weights, passed=True, sentence=_said(like), data=data | {"unmatched": []})


def is_only_rounded(found: Unrounded, weights: Check) -> bool:
    """Is rounding all that lies between the result and a file that agrees with the source in its values, whether or not
    every fault in that would show?"""
    like = found.likeness
    open_ends = like.problem or _cut_off(like) or _beyond(like.furthest, HALF)
    return found.verdict is not Verdict.DIFFERS and weights.passed is not False and not open_ends


def _cut_off(like: Likeness) -> list[CutOff]:
    return [item for item in like.cut_off if item.share > MOST_CUT]


def _said(like: Likeness) -> str:
    whose = f"All {like.tensors} constants of the result are those of the same conversion without rounding"
    if not like.rounded:
        return f"{whose}, and none of them is rounded."
    return f"{whose}; {like.rounded} of them are rounded, no number by more than half a step."


def _beyond(items: Sequence[Rounded], steps: float) -> list[Rounded]:
    return [item for item in items if item.steps > steps]


def _listed(items: Sequence[Rounded]) -> str:
    named = ", ".join(f"{item.name} (by up to {item.steps:.3g} steps)" for item in items[:SHOWN_NAMES])
    more = f" and {len(items) - SHOWN_NAMES} more" if len(items) > SHOWN_NAMES else ""
    return named + more
