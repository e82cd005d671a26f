"""What the screen has to say: each sentence tells what was found, what is expected, and what to do."""

from __future__ import annotations

from collections.abc import Iterator

from worker.report import Finding, Severity, declare

REFUSED = declare("refused", Severity.REFUSE, "{place} {found}. Expected: {expected}. {advice}")
CODE = declare(
    "holds-code",
    Severity.CONSENT,
    "{place} holds Python code that would have to be run ({names}). Expected: layers that Keras knows. Run it in the "
    "sandbox where your team allows that, or save the model as a SavedModel, which carries its graph.",
)
CUSTOM = declare(
    "custom-class",
    Severity.CONSENT,
    "{place} needs code that is not in the file ({names}). Expected: what Keras has itself. Add custom_objects.py "
    "where your team allows it, or save the model as a SavedModel, which carries its graph.",
)
FORMULA = declare(
    "lambda-formula",
    Severity.NOTE,
    "The Lambda layer {layer} holds Python code. It is not run: it is read as {formula}.",
)
UNUSED_CODE = declare(
    "training-code",
    Severity.NOTE,
    "The settings of training hold Python code or a class of their own ({names}). It is never run: the model works "
    "without.",
)
AGAIN = "Save the model again with the library that made it, and upload that file."
MOST_NAMES, LONGEST = 5, 80
MOST_FINDINGS = 20  # of one kind: nobody reads more


def refuse(place: str, found: str, expected: str, advice: str = AGAIN) -> Finding:
    """A refusal; ``place`` is the file, as people know it."""
    return REFUSED(place=short(place), found=found, expected=expected, advice=advice)


def short(value: object) -> str:
    """A stranger's text for a sentence: nothing that cannot be seen, not endless."""
    shown = "".join(char if char.isprintable() else "?" for char in str(value)[: LONGEST + 1])
    return shown if len(shown) <= LONGEST else f"{shown[:LONGEST]}…"


def listed(names: list[str]) -> str:
    """A few of the names, once each."""
    few = list(dict.fromkeys(map(short, names)))
    return ", ".join(few[:MOST_NAMES]) + (f" and {len(few) - MOST_NAMES} more" if len(few) > MOST_NAMES else "")


def few(findings: Iterator[Finding]) -> list[Finding]:
    """Of each kind no more than anybody reads, each once. Notes, however many, hide no refusal behind them."""
    found: dict[str, list[Finding]] = {}
    for finding in findings:
        same = found.setdefault(finding.code, [])
        if len(same) < MOST_FINDINGS and finding not in same:
            same.append(finding)
        if len(found.get(REFUSED.code, ())) >= MOST_FINDINGS:
            break
    return [finding for same in found.values() for finding in same]
