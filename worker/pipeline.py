"""The whole work of one inspection, one conversion or one comparison: jobs in the sandbox, then the judgement.

The Celery task and the command line both call this. No Django, and no model is opened here.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from worker import formats, routes
from worker.errors import BadOption, Canceled, LarderError, SandboxMissing, from_json
from worker.formats._format import Option, Summary
from worker.proving import OUT_OF_BOUNDS, Proof, Source
from worker.report import Finding, Report, Verdict, findings_from_json
from worker.sandbox.limits import Limits
from worker.work import MIB, Jobs, Json, Work, called, calling, link_name, never, sense, take, text, unheard
from worker.work import under_its_suffix as named_for

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
    custom_code: Path | None = None,
    canceled: Callable[[], bool] = never,
    name: str = "",
    load: bool = True,
) -> Inspection:
    """The structure of a file, what is to be known about it, and whether its model loads, unless ``load`` is off."""
    named = named_for(path, format, folder)
    arguments = {"path": str(named), "format": format, "custom_code": text(custom_code), "load": load}
    read = [path, *filter(None, [custom_code])]
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
    custom_code: Path | None = None,
    stage: Callable[[str], None] = unheard,
    canceled: Callable[[], bool] = never,
    with_twin: bool = True,
) -> Result:
    """Convert along the shortest route, each step in a job of its own, and judge the result.

    Raises NoRoute, FormatUnavailable or BadOption before any job, and whatever error a job ended with.
    """
    started = time.monotonic()
    route = routes.find_route(source.format, target, source.summary, limits.memory_bytes)
    chosen = check_options(target, options)
    work = Work(zygote, folder, limits, _seed(source.path), custom_code, samples, canceled, stage)
    twin = _twin_agrees if with_twin else None
    proof = Proof(work, source, route, chosen, folder / "step-1", twin=twin, looks=with_twin)
    path = source.path
    for number, hop in enumerate(pairwise(route), 1):
        stage(f"converting to {formats.get(hop[1]).label}, {number} of {len(route) - 1}")
        path = _hop(proof, number, path, *hop)
    return _judged(proof, path, started)


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
    custom_code: Path | None = None,
    findings: Sequence[Finding] = (),
    stage: Callable[[str], None] = unheard,
    canceled: Callable[[], bool] = never,
) -> Result:
    """Judge a file that is there already, whoever made it, by the terms of a conversion to its format.

    ``findings``: what was said when it was made, where that is known."""
    started = time.monotonic()
    chosen = check_options(target, options)
    work = Work(zygote, folder, limits, _seed(source.path), custom_code, samples, canceled, stage)
    work.add(findings)
    proof = Proof(work, source, _route_between(source, target), chosen, work.subfolder("step-1"), given=True)
    stage("running the source")
    named = named_for(source.path, source.format, proof.folder)
    arguments = {"path": str(named), "format": source.format, "probe": proof.request()}
    with calling(named, source.name):
        answer = work.job("probe", arguments, [source.path, *filter(None, [samples])], proof.folder)
    work.note_versions(source.format)
    with sense():
        proof.note(answer["probe"])
    return _judged(proof, named_for(result, target, work.subfolder("given")), started)


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
    wishes = {"options": proof.options if last else {}, "samples": text(work.samples), "seed": work.seed}
    probe = proof.request() if first else None
    with calling(folder / link_name(before), proof.source.name if first else ""):
        read = [path, *filter(None, [work.samples])]
        answer = work.job("convert", arguments | wishes | {"probe": probe}, read, folder)
    with sense():
        work.add(findings_from_json(answer["findings"]))
        if first:
            proof.note(answer["probe"])
    return take(target, work.limits.file_bytes)


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
            custom_code=work.custom_code,
            canceled=work.canceled,
            with_twin=False,
        )
    except (Canceled, SandboxMissing):
        raise
    except LarderError:  # it is an attempt: without a twin, what is not seen is named
        return False
    return found.report.verdict is Verdict.VERIFIED


def _judged(proof: Proof, path: Path, started: float) -> Result:
    verdict, reason, checks = proof.judge(path)
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


def _seed(path: Path) -> int:
    """A seed that belongs to the file, so that anybody who has it can repeat the check.

    Of its first 64 MiB: hashing all of a large one takes as long as copying its weights.
    """
    with path.open("rb") as file:
        return int(hashlib.sha256(file.read(SEEDING)).hexdigest()[:8], 16)


# Options --------------------------------------------------------------------------------------------------------


def check_options(target: str, given: Mapping[str, Any]) -> Json:
    """The options of the target with their types, defaults filled in; BadOption for one it does not have or take."""
    item = formats.get(target)
    known = {option.name: option for option in item.options}
    for name in given:
        if name not in known:
            choice = f"it has {', '.join(known)}" if known else "it has no options"
            raise BadOption(option=name, target=item.label, problem=choice)
    return {name: _value(option, given.get(name, option.default), item.label) for name, option in known.items()}


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
