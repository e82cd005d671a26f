"""The whole work of one inspection, one conversion or one comparison: jobs in the sandbox, then the judgement.

The Celery task and the command line both call this. No Django, and no model is opened here.
"""

from __future__ import annotations

import dataclasses
import hashlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from worker import culprit, custom_code, formats, routes, signatures
from worker.advice import naming_the_step
from worker.custom_code import Consent
from worker.errors import BadOption, LarderError, from_json
from worker.formats._format import WRITTEN, Option, Summary, unheard
from worker.formats._likeness import Likeness
from worker.options import SIGNATURE, check_signature, takes_signature
from worker.proving import OUT_OF_BOUNDS, Proof, Source
from worker.report import Finding, Report, Verdict, findings_from_json
from worker.sandbox.limits import Limits
from worker.work import MIB, STOPPED, Jobs, Json, Work, called, calling, link_name, never, sense, take, text
from worker.work import under_its_suffix as named_for

if TYPE_CHECKING:
    from worker.verify import Judgement, Unrounded

__all__ = ["OUT_OF_BOUNDS", "Inspection", "Jobs", "Result", "Source", "check_options", "compare", "convert", "inspect"]
SEEDING = 64 * MIB


@dataclass(frozen=True)
class Inspection:
    """What a file holds; ``error`` is why the model does not load, where it does not."""

    summary: Summary
    findings: list[Finding]
    error: LarderError | None
    weights: str = ""  # one digest of all weights, the same in every format; "" where the model does not load


@dataclass(frozen=True)
class Result:
    """The produced file, in the folder that was given, and all that is known about it.

    A result whose verdict is ``differs`` is returned too: the report is worth keeping, the file is not to be offered.
    """

    path: Path
    report: Report


# Inspecting -----------------------------------------------------------------------------------------------------


def inspect(
    zygote: Jobs,
    path: Path,
    format: str,
    folder: Path,
    limits: Limits,
    consent: Consent | None = None,
    canceled: Callable[[], bool] = never,
    name: str = "",
    load: bool = True,
) -> Inspection:
    """The structure of a file, what is to be known about it, and whether its model loads, unless ``load`` is off."""
    named = named_for(path, format, folder)
    agreed = consent.to_json() if consent else None
    arguments = {"path": str(named), "format": format, "consent": agreed, "load": load}
    read = [path, *(consent.read if consent else ())]
    with calling(named, name):
        answer = zygote.run("inspect", arguments, read=read, folder=folder, limits=limits, canceled=canceled).value
    with sense():
        error = called(from_json(answer["error"]), named, name) if answer["error"] else None
        summary, findings = Summary.from_json(answer["summary"]), findings_from_json(answer["findings"])
        return Inspection(summary, findings, error, str(answer["weights"])[:64])


# Converting -----------------------------------------------------------------------------------------------------


def convert(
    zygote: Jobs,
    source: Source,
    target: str,
    options: Mapping[str, Any],
    folder: Path,
    limits: Limits,
    *,
    samples: Path | None = None,
    consent: Consent | None = None,
    stage: Callable[[str], None] = unheard,
    canceled: Callable[[], bool] = never,
    with_twin: bool = True,
    seed: int | None = None,
) -> Result:
    """Convert along the shortest route, each step in a job of its own, and judge the result. ``seed``: of whatever is
    drawn, instead of the one that belongs to the file.

    Raises NoRoute, FormatUnavailable or BadOption before any job, and whatever error a job ended with.
    """
    started = time.monotonic()
    source, chosen = _chosen(source, target, options)
    route = routes.find_route(source.format, target, source.summary, limits.memory_bytes)
    seed = _seed(source.path) if seed is None else seed
    work = Work(zygote, folder, limits, seed, consent, samples, canceled, stage)
    work.add([*signatures.left(source, target), *_about_code(consent, source, target)])
    twin = _twin_agrees if with_twin else None
    proof = Proof(work, source, route, chosen, folder / "step-1", twin=twin, looks=with_twin, unrounded=_unrounded)
    path = source.path
    try:
        for number, hop in enumerate(pairwise(route), 1):
            stage(f"converting to {formats.get(hop[1]).label}, {number} of {len(route) - 1}")
            path = _hop(proof, number, path, *hop)
        return _judged(proof, path, started)
    finally:
        proof.close()


def compare(
    zygote: Jobs,
    source: Source,
    result: Path,
    target: str,
    options: Mapping[str, Any],
    folder: Path,
    limits: Limits,
    *,
    samples: Path | None = None,
    consent: Consent | None = None,
    findings: Sequence[Finding] = (),
    stage: Callable[[str], None] = unheard,
    canceled: Callable[[], bool] = never,
    looks: bool = True,
) -> Result:
    """Judge a file that is there already, whoever made it, by the terms of a conversion to its format.

    ``findings``: what was said when it was made, where that is known. ``looks``: is more wanted than the verdict?"""
    started = time.monotonic()
    source, chosen = _chosen(source, target, options)
    work = Work(zygote, folder, limits, _seed(source.path), consent, samples, canceled, stage)
    work.add([*findings, *_about_code(consent, source, target)])
    route, first = _route_between(source, target), work.subfolder("step-1")
    proof = Proof(work, source, route, chosen, first, given=True, looks=looks, unrounded=_unrounded)
    stage("running the source")
    named = named_for(source.path, source.format, proof.folder)
    about = {"path": str(named), "format": source.format, "signature": source.signature}
    arguments = {**about, "probe": proof.request()}
    with calling(named, source.name):
        answer = work.job("probe", arguments, [source.path, *filter(None, [samples])], proof.folder)
    work.note_versions(source.format)
    with sense():
        proof.note(answer["probe"])
    return _judged(proof, named_for(result, target, work.subfolder("given")), started)


def _about_code(consent: Consent | None, source: Source, target: str) -> list[Finding]:
    return custom_code.findings(consent, source.summary, formats.get(target)) if consent else []


def _route_between(source: Source, target: str) -> routes.Route:
    """The route that Larder would take, for its terms; somebody else may have come another way."""
    try:
        return routes.find_route(source.format, target, source.summary)
    except LarderError:
        return (source.format, target)


def _hop(proof: Proof, number: int, path: Path, before: str, after: str) -> Path:
    """One step of the route; the first one also shows the source, the last one has the options."""
    work, first, last = proof.work, number == 1, after == proof.route[-1]
    folder = work.subfolder(f"step-{number}")
    target = folder / f"result{formats.get(after).suffixes[0]}"
    named = named_for(path, before, folder)
    arguments = {"source": str(named), "source_format": before, "target": str(target), "target_format": after}
    work.note_versions(before, after)
    chosen = {"options": proof.options if last else {}, "signature": proof.source.signature}
    wishes = {**chosen, "samples": text(work.samples), "seed": work.seed}
    probe = proof.request() if first and not proof.shown else None
    asked = arguments | wishes | {"probe": probe}
    read, said = [path, *filter(None, [work.samples])], list[str]()

    def hear(text: str) -> None:
        if text == WRITTEN and text not in said and probe and last:
            proof.open(target)
        said.append(text)

    ends = formats.get(before), formats.get(after)
    with (
        calling(folder / link_name(before), proof.source.name if first else ""),
        naming_the_step(*ends, said, lambda ending: culprit.find(work, asked, read, ending) if proof.looks else ""),
    ):
        answer = work.job("convert", asked, read, folder, hear)
    with sense():
        work.add(findings_from_json(answer["findings"]))
        if probe:
            proof.note(answer["probe"])
    return proof.opened.result.path if proof.opened else take(target, work.limits.file_bytes)


def _twin_agrees(proof: Proof) -> bool:
    """Does the alive twin of the source, sent along the same route, come out the same, with faults that show?

    ``False`` also where there is no twin: for models that hold no layers, or cannot be saved as they are drawn."""
    if "keras-config" not in proof.source.summary.traits:
        return False
    work = proof.work
    work.stage("trying its alive twin")
    folder = work.subfolder("twin")
    named, target = named_for(proof.source.path, proof.source.format, folder), folder / "twin.keras"
    arguments = {"path": str(named), "format": proof.source.format, "target": str(target), "seed": work.seed}
    try:
        work.job("twin", arguments, [proof.source.path], folder)
        source = Source(take(target, work.limits.file_bytes), "keras", proof.source.summary, proof.source.name)
        found = convert(
            work.zygote,
            source,
            proof.route[-1],
            proof.options,
            work.subfolder("twin-conversion"),
            work.limits,
            samples=work.samples,
            consent=work.consent,
            canceled=work.canceled,
            with_twin=False,
        )
    except STOPPED:
        raise
    except LarderError:  # it is an attempt: without a twin, what is not seen is named
        return False
    return found.report.verdict is Verdict.VERIFIED


def _unrounded(proof: Proof, path: Path) -> Unrounded | None:
    """The same conversion without rounding, judged by what the source has shown, and the result beside it.

    None where it cannot be made: what is not proven then is named."""
    from worker.verify import Unrounded

    item, work = formats.get(proof.route[-1]), proof.work
    options = item.unrounded(proof.options)
    if options is None or item.alike is None:
        return None
    own = dataclasses.replace(work, folder=work.subfolder("unrounded"), findings=[], versions={})
    fine = dataclasses.replace(proof, work=own, options=options, opened=None, given=False, looks=False, unrounded=None)
    try:
        file = proof.source.path
        for number, hop in enumerate(pairwise(proof.route), 1):
            file = _hop(fine, number, file, *hop)
        verdict, reason, checks = fine.judge(file)
        return Unrounded(verdict, reason, checks, _likeness(proof, file, path))
    except STOPPED:
        raise
    except LarderError:
        return None


def _likeness(proof: Proof, fine: Path, path: Path) -> Likeness:
    """How far the result is that file with numbers rounded."""
    proof.work.stage("comparing with the conversion without rounding")
    work, samples = proof.work, proof.work.samples
    measured = {"specs": proof.specs, "seed": work.seed, "samples": text(samples)}
    arguments = {"fine": str(fine), "path": str(path), "format": proof.route[-1], **measured}
    try:
        answer = work.job("alike", arguments, [fine, path, *filter(None, [samples])], work.subfolder("alike"))
        with sense():
            return Likeness.from_json(answer)
    except STOPPED:
        raise
    except LarderError as error:  # a result that cannot be compared must not do better than one that is another graph
        return Likeness(problem=f"the two could not be compared ({error.message.rstrip('.')})")


def _judged(proof: Proof, path: Path, started: float) -> Result:
    verdict, reason, checks = _with_signatures(proof, path, proof.judge(path)) if proof.looks else proof.judge(path)
    report = Report(
        source=proof.source.format,
        target=proof.route[-1],
        route=proof.route,
        verdict=verdict,
        reason=reason,
        checks=checks,
        findings=tuple(proof.work.findings),
        versions=proof.work.versions,
        seed=proof.work.seed,
        seconds=round(time.monotonic() - started, 3),
    )
    return Result(path, report)


def _with_signatures(proof: Proof, path: Path, judgement: Judgement) -> Judgement:
    """The judgement with what is known of the other signatures of the source: compared where the result has them too,
    else run alone."""
    if "signatures" not in formats.get(proof.route[-1]).keeps:
        verdict, reason, checks = judgement
        further = signatures.look(proof.work, proof.source)
        return verdict, reason, (*checks, *filter(None, [further]))
    names = signatures.to_compare(proof.source)
    held = _signatures_held(proof, path) if names else frozenset()
    for number, name in enumerate(names, 1):
        folder = proof.work.subfolder(f"signature-{number}")
        found = _of_signature(proof, path, name, folder) if name in held else None
        judgement = signatures.joined(judgement, name, found)
    return signatures.cut(judgement, proof.source)


def _signatures_held(proof: Proof, path: Path) -> frozenset[str]:
    """The names of the result's signatures; none where it cannot be read, which its own judgement says."""
    work = proof.work
    folder = work.subfolder("signatures")
    try:
        found = inspect(work.zygote, path, proof.route[-1], folder, work.limits, canceled=work.canceled, load=False)
    except STOPPED:
        raise
    except LarderError:
        return frozenset()
    return frozenset(item.name for item in found.summary.signatures)


def _of_signature(proof: Proof, path: Path, name: str, folder: Path) -> Judgement | LarderError:
    """The judgement on one of the signatures that source and result both have, or why there is none."""
    work = proof.work
    work.stage(f"comparing the signature {name}")
    try:
        found = compare(
            work.zygote,
            proof.source.of_signature(name),
            path,
            proof.route[-1],
            proof.options,
            folder,
            work.limits,
            consent=work.consent,
            findings=work.findings,
            canceled=work.canceled,
            looks=False,
        )
    except STOPPED:
        raise
    except LarderError as error:  # it is one of several, and the usual one is judged
        return error
    return found.report.verdict, found.report.reason, found.report.checks


def _seed(path: Path) -> int:
    """A seed that belongs to the file, so that anybody who has it can repeat the check.

    Of its first 64 MiB: hashing all of a large one takes as long as copying its weights.
    """
    with path.open("rb") as file:
        return int(hashlib.sha256(file.read(SEEDING)).hexdigest()[:8], 16)


# Options --------------------------------------------------------------------------------------------------------


def check_options(target: str, given: Mapping[str, Any], source: str = "", summary: Summary | None = None) -> Json:
    """The options of the target with their types, defaults filled in; BadOption for one it does not have or take.

    The signature is among them where it is another than the usual one of the source. Without the format ``source`` and
    its ``summary``, one is taken as it is given."""
    item = formats.get(target)
    known = {option.name: option for option in item.options}
    asked = dict(given)
    signature = str(asked.pop(SIGNATURE, "")) if takes_signature(item) else ""
    if signature and summary is not None:
        signature = check_signature(signature, source, target, summary)
    for name in asked:
        if name not in known:
            choice = f"it has {', '.join(known)}" if known else "it has no options"
            raise BadOption(option=name, target=item.label, problem=choice)
    chosen = {name: _value(option, asked.get(name, option.default), item.label) for name, option in known.items()}
    return {**chosen, **({SIGNATURE: signature} if signature else {})}


def _chosen(source: Source, target: str, options: Mapping[str, Any]) -> tuple[Source, Json]:
    """The source for who calls the signature that is asked for, and all that is asked for."""
    chosen = check_options(target, options, source.format, source.summary)
    return source.of_signature(chosen.get(SIGNATURE, "")), chosen


def _value(option: Option, raw: Any, label: str) -> Any:
    words = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
    try:
        value = words[str(raw).lower()] if option.kind is bool else option.kind(raw)
    except (KeyError, ValueError, TypeError):
        raise BadOption(option=option.name, target=label, problem=f"{raw!r} is no {option.kind.__name__}") from None
    if option.choices and value not in option.choices:
        choices = ", ".join(map(str, option.choices))
        raise BadOption(option=option.name, target=label, problem=f"{raw!r} is not one of {choices}")
    return value
