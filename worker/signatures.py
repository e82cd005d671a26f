"""The signatures of a source that the result is not made of: each is run, in one job, whose end says nothing about the
conversion. No model is opened here."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from worker import formats
from worker.errors import LarderError
from worker.report import Finding, Severity, Verdict, declare
from worker.work import MIB, STOPPED, Work, sense, under_its_suffix

if TYPE_CHECKING:
    from worker.proving import Source
    from worker.report import Check
    from worker.verify import Judgement

SIGNATURES_LEFT = declare(
    "signatures-left",
    Severity.WARNING,
    "Layers are called in one way. These signatures were not carried over: {names}. A format that holds a graph can be"
    " made of each.",
)
LARGEST = 512 * MIB  # of weights: with more, opening the source once again costs more than this is worth
MOST = 16
SECONDS = 20.0  # after which no further one is begun
LONGEST = 60.0  # seconds of the whole job


def further(source: Source) -> list[str]:
    """The signatures of the source but the one that is meant, where it can be asked for others."""
    names = source.summary.distinct_signatures
    if formats.get(source.format).load_signature is None:
        return []
    meant = source.signature or next(iter(names), "")
    return [name for name in names if name != meant]


def left(source: Source, target: str) -> list[Finding]:
    """What is said of signatures that a format of layers has no place for; converters to others say it themselves."""
    names = further(source) if "architecture" in formats.get(target).keeps else []
    return [SIGNATURES_LEFT(names=", ".join(names))] if names else []


def to_compare(source: Source) -> list[str]:
    """The further signatures that a result with all of them is compared in."""
    return further(source)[:MOST]


def joined(judgement: Judgement, name: str, found: Judgement | LarderError | None) -> Judgement:
    """The judgement with that on one signature more, None where the result does not have it: a result that differs in
    one of them differs, and one that is not proven in all of them is not proven."""
    from worker.verify.signatures import signature_check

    verdict, reason, checks = judgement
    check = signature_check(name, found)
    if check.passed is False:
        verdict, reason = Verdict.DIFFERS, " ".join([*([reason] if verdict is Verdict.DIFFERS else []), check.sentence])
    elif check.passed is None and verdict is Verdict.VERIFIED:
        verdict, reason = Verdict.NOT_PROVABLE, check.sentence
    elif check.passed is None:
        reason = f"{reason} {check.sentence}"
    return verdict, reason, (*checks, check)


def cut(judgement: Judgement, source: Source) -> Judgement:
    """The judgement, which is no proof where there are more signatures than a result is compared in."""
    from worker.verify.signatures import uncompared_check

    verdict, reason, checks = judgement
    more = further(source)[MOST:]
    if not more:
        return judgement
    check = uncompared_check(more)
    if verdict is Verdict.VERIFIED:
        verdict, reason = Verdict.NOT_PROVABLE, check.sentence
    return verdict, reason, (*checks, check)


def look(work: Work, source: Source) -> Check | None:
    """Whether each of the further signatures runs, and is steady; None where there are none."""
    from worker.verify.signatures import signatures_check, tried_from_json

    names = further(source)
    if not names:
        return None
    if source.summary.weight_bytes > LARGEST:
        return signatures_check([], names, f"the weights take more than {LARGEST // MIB} MiB")
    work.stage("running the other signatures of the source")
    try:
        with sense():
            tried = tried_from_json(_try(work, source, names[:MOST]), names)
    except STOPPED:
        raise
    except LarderError as error:  # of the job: it is worth knowing, and not worth a failure
        return signatures_check([], names, error.message.rstrip("."))
    return signatures_check(tried, names, "there are many, or they take long")


def _try(work: Work, source: Source, names: list[str]) -> list[dict[str, object]]:
    folder = work.subfolder("signatures")
    named = under_its_suffix(source.path, source.format, folder)
    about = {"path": str(named), "format": source.format, "names": names}
    brief = replace(work, limits=replace(work.limits, wall_seconds=min(work.limits.wall_seconds, LONGEST)))
    answer = brief.job("signatures", {**about, "seed": work.seed, "seconds": SECONDS}, [source.path], folder)
    return list(answer["signatures"])
