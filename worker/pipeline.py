"""The whole work of one inspection or one conversion: jobs in the sandbox, then the judgement. No Django.

The Celery task and the command line both call this. Nothing that a job says is trusted: its answer is plain data, its
files are taken by expected name, and the judgement is made here, outside the job.
"""

from __future__ import annotations

import hashlib
import os
import stat
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from worker import formats, routes
from worker.errors import (
    BadOption,
    Canceled,
    DiskFull,
    LarderError,
    NoResult,
    OutOfMemory,
    SandboxMissing,
    TimedOut,
    from_json,
)
from worker.formats._format import Option, Summary, TensorSpec, Tolerance
from worker.report import Finding, Report, findings_from_json
from worker.sandbox.limits import Limits

if TYPE_CHECKING:
    from collections.abc import Sequence

    from worker.verify import Judgement, Seen, Terms

Json = dict[str, Any]
MIB = 1024 * 1024
SEEDING = 64 * MIB
MAX_VALUES = 512 * MIB  # of inputs or outputs that a job may hand over; judging them takes some times that
# A float16 has 11 bits, and two libraries round every layer's result in an order of their own: some units of 2**-10
HALF_RTOL = 4 * 2.0**-10
BFLOAT_RTOL = 4 * 2.0**-7  # of a bfloat16, with its 8 bits
ONE_ROW = "batch-fixed"  # the finding that a result takes one row at a time
UNWITNESSED = "unwitnessed"  # the finding that a source was run as the very model that it was rebuilt as
OUT_OF_BOUNDS = (TimedOut, OutOfMemory, DiskFull, Canceled, SandboxMissing)  # says nothing about the result


class Answer(Protocol):
    """What of a job's outcome is used here."""

    @property
    def value(self) -> Json: ...


class Jobs(Protocol):
    """Where steps run: the Zygote of the sandbox, or a stand-in with the same interface."""

    def run(
        self,
        step: str,
        arguments: Json,
        *,
        read: Sequence[Path],
        folder: Path,
        limits: Limits,
        canceled: Callable[[], bool] = ...,
        progress: Callable[[str], None] = ...,
    ) -> Answer: ...


@dataclass(frozen=True)
class Source:
    """The file to convert, what inspection found out about it, and what messages call it."""

    path: Path
    format: str
    summary: Summary
    name: str = ""


@dataclass(frozen=True)
class Inspection:
    """What a file holds; ``error`` is why the model does not load, where it does not."""

    summary: Summary
    findings: list[Finding]
    error: LarderError | None


@dataclass(frozen=True)
class Result:
    """The produced file, in the folder that was given, and all that is known about it.

    A result whose verdict is ``differs`` is returned too: the report is worth keeping, the file is not to be offered.
    """

    path: Path
    report: Report


def never() -> bool:
    """Nobody cancels."""
    return False


def unheard(text: str) -> None:
    """Nobody listens to the stages."""


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
    named = _under_its_suffix(path, format, folder)
    arguments = {"path": str(named), "format": format, "custom_code": _text(custom_code), "load": load}
    read = [path, *filter(None, [custom_code])]
    with _calling(named, name):
        answer = zygote.run("inspect", arguments, read=read, folder=folder, limits=limits, canceled=canceled).value
    with _sense():
        error = _called(from_json(answer["error"]), named, name) if answer["error"] else None
        return Inspection(Summary.from_json(answer["summary"]), findings_from_json(answer["findings"]), error)


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
) -> Result:
    """Convert along the shortest route, each step in a job of its own, and judge the result.

    Raises NoRoute, FormatUnavailable or BadOption before any job, and whatever error a job ended with.
    """
    started = time.monotonic()
    route = routes.find_route(source.format, target, source.summary, limits.memory_bytes)
    chosen = check_options(target, options)
    work = _Work(zygote, folder, limits, custom_code, canceled, stage, seed=_seed(source.path))
    path = work.convert_along(source, route, chosen, samples)
    verdict, reason, checks = work.judge(path, source, route, chosen)
    report = Report(
        source=source.format,
        target=target,
        route=route,
        verdict=verdict,
        reason=reason,
        checks=checks,
        findings=tuple(work.findings),
        versions=work.versions,
        seed=work.seed,
        seconds=round(time.monotonic() - started, 3),
    )
    return Result(path, report)


@dataclass
class _Work:
    """One conversion on its way: what every job of it needs, and what they have said so far."""

    zygote: Jobs
    folder: Path
    limits: Limits
    custom_code: Path | None
    canceled: Callable[[], bool]
    stage: Callable[[str], None]
    seed: int
    probe: Json = field(default_factory=dict)  # what the source showed when it ran
    specs: list[Json] = field(default_factory=list)  # its inputs
    findings: list[Finding] = field(default_factory=list)
    versions: dict[str, str] = field(default_factory=dict)

    def convert_along(self, source: Source, route: routes.Route, options: Json, samples: Path | None) -> Path:
        """Every step of the route; the first one also runs the source. The last file, inside ``folder``."""
        path = source.path
        for number, (before, after) in enumerate(pairwise(route), 1):
            self.stage(f"converting to {formats.get(after).label}, {number} of {len(route) - 1}")
            probe = self._probe_request(samples, route) if number == 1 else None
            chosen = options if number == len(route) - 1 else {}
            with _calling(self.folder / f"step-{number}" / _link_name(before), source.name if number == 1 else ""):
                path = self._hop(number, path, before, after, {"options": chosen, "samples": _text(samples)}, probe)
        return path

    def judge(self, path: Path, source: Source, route: routes.Route, options: Json) -> Judgement:
        """Run the result alone, and compare what it shows with what the source showed."""
        from worker import verify

        self.stage("running the result")
        refusal = from_json(self.probe["error"]) if self.probe["error"] else None
        given = self.folder / "step-1" / "inputs.npz"
        described = bool(self.probe.get("architecture")) and not os.path.lexists(given)
        inputs = [] if refusal or described else [take(given, MAX_VALUES)]
        try:
            answer = self._run_result(path, route[-1], inputs)
        except OUT_OF_BOUNDS:
            raise
        except LarderError as error:
            return verify.not_run(refusal) if refusal else verify.not_shown(error)
        if refusal:
            return verify.not_run(refusal)
        self.stage("comparing")
        with _sense():
            before = self._seen(self.probe, self.folder / "step-1" / "outputs.npz")
            after = self._seen(answer, self.folder / "result" / "outputs.npz")
            return verify.judge(before, after, _terms(source, route, options, self.findings))

    def _hop(self, number: int, path: Path, before: str, after: str, wishes: Json, probe: Json | None) -> Path:
        folder = self._subfolder(f"step-{number}")
        target = folder / f"result{formats.get(after).suffixes[0]}"
        named = _under_its_suffix(path, before, folder)
        arguments = {"source": str(named), "source_format": before, "target": str(target), "target_format": after}
        read = [path] + ([Path(wishes["samples"])] if wishes["samples"] else [])
        answer = self._job("convert", arguments | wishes | {"seed": self.seed, "probe": probe}, read, folder)
        with _sense():
            self._add(findings_from_json(answer["findings"]))
            self.versions |= {str(name): str(version) for name, version in answer["versions"].items()}
            if probe is not None:
                self.probe = {"error": None, **answer["probe"]}
                self.specs = [asdict(TensorSpec.from_json(spec)) for spec in self.probe.get("inputs", ())]
                self._add(findings_from_json(self.probe.get("findings", ())))
        return take(target, self.limits.file_bytes)

    def _probe_request(self, samples: Path | None, route: routes.Route) -> Json:
        folder = self.folder / "step-1"
        described = samples is None and _all_exact(route)
        files = {"inputs": str(folder / "inputs.npz"), "outputs": str(folder / "outputs.npz")}
        return {"seed": self.seed, "samples": _text(samples), "described": described, **files}

    def _run_result(self, path: Path, slug: str, inputs: list[Path]) -> Json:
        """The result in a fresh job that has nothing else but the inputs; without them it is only opened."""
        folder = self._subfolder("result")
        files = {"inputs": str(inputs[0]) if inputs else None, "outputs": str(folder / "outputs.npz")}
        arguments = {"path": str(path), "format": slug, "specs": self.specs, **files}
        return self._job("run", arguments, [path, *inputs], folder)

    def _job(self, step: str, arguments: Json, read: list[Path], folder: Path) -> Json:
        own = {"custom_code": _text(self.custom_code)}
        return self.zygote.run(
            step,
            arguments | own,
            read=[*read, *filter(None, [self.custom_code])],
            folder=folder,
            limits=self.limits,
            canceled=self.canceled,
        ).value

    def _subfolder(self, name: str) -> Path:
        folder = self.folder / name
        folder.mkdir(mode=0o700)
        return folder

    def _add(self, findings: list[Finding]) -> None:
        self.findings += [finding for finding in findings if finding not in self.findings]

    def _seen(self, answer: Json, values: Path) -> Seen:
        from worker.verify import Seen, load_draws

        return Seen(
            inputs=tuple(map(TensorSpec.from_json, answer["inputs"])),
            outputs=tuple(map(TensorSpec.from_json, answer["outputs"])),
            weights=tuple((str(dtype), tuple(shape), str(digest)) for dtype, shape, digest in answer["weights"]),
            values=load_draws(take(values, MAX_VALUES)) if os.path.lexists(values) else [],
            architecture=str(answer.get("architecture") or ""),
        )


def _terms(source: Source, route: routes.Route, options: Json, findings: Sequence[Finding]) -> Terms:
    """The loosest tolerance of the route; bit for bit where layers go into formats that keep every weight."""
    from worker.verify import Terms

    steps = [formats.get(slug) for slug in route[1:]]
    allowed = [item.tolerance for item in steps[:-1]] + [steps[-1].tolerance_with(options)]
    rtol = max(_half_rtol(source.summary), *(item.rtol for item in allowed))
    atol = max(item.atol for item in allowed)
    alone = steps[-1].keeps == {"weights"}
    exact = _all_exact(route) and (alone or "keras-config" in source.summary.traits)
    narrows = {wide: narrow for item in steps for wide, narrow in item.narrows.items()}
    one_row = any(finding.code == ONE_ROW for finding in findings)
    unwitnessed = next((finding.sentence for finding in findings if finding.code == UNWITNESSED), "")
    return Terms(Tolerance(rtol, atol), exact, alone, narrows, one_row, unwitnessed)


def _half_rtol(summary: Summary) -> float:
    if any("bfloat16" in dtype for dtype in (*summary.dtypes, *(layer.dtype for layer in summary.layers))):
        return BFLOAT_RTOL
    return HALF_RTOL if summary.computes_in_half or "half" in summary.traits else 0.0


def _all_exact(route: routes.Route) -> bool:
    return all(formats.get(slug).exact for slug in route[1:])


def _seed(path: Path) -> int:
    """A seed that belongs to the file, so that anybody who has it can repeat the check.

    Of its first 64 MiB: hashing all of a large one takes as long as copying its weights.
    """
    with path.open("rb") as file:
        return int(hashlib.sha256(file.read(SEEDING)).hexdigest()[:8], 16)


def _under_its_suffix(path: Path, slug: str, folder: Path) -> Path:
    """A link to the file in the job's folder, for libraries that go by the name; the store's files have no suffix."""
    link = folder / _link_name(slug)
    link.symlink_to(path.resolve())
    return link


def _link_name(slug: str) -> str:
    return f"model{formats.get(slug).suffixes[0]}"


@contextmanager
def _calling(link: Path, name: str) -> Iterator[None]:
    """Let errors call the file what people call it, where that is known, and not as it is called in the job."""
    try:
        yield
    except LarderError as error:
        raise _called(error, link, name) from error


def _called(error: LarderError, link: Path, name: str) -> LarderError:
    if not name or error.details.get("name") != link.name:
        return error
    return type(error)(**{**error.details, "name": name})


# What comes out of a job ----------------------------------------------------------------------------------------


def take(path: Path, limit: int) -> Path:
    """The file a job was to write: regular, with one name, no larger than ``limit``; NoResult for anything else."""
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        raise NoResult(status=f"0; it wrote no {path.name}") from None
    if not stat.S_ISREG(found.st_mode) or found.st_nlink != 1:
        raise NoResult(status=f"0; {path.name} is not a plain file")
    if found.st_size > limit:
        raise DiskFull(limit=f"{limit // MIB:,} MiB")
    return path


@contextmanager
def _sense() -> Iterator[None]:
    """An answer that does not have the shape it should is no answer; it came from a job that read a stranger's file."""
    try:
        yield
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise NoResult(status=f"0; its answer makes no sense: {type(error).__name__}") from error


def _text(path: Path | None) -> str | None:
    return str(path) if path else None


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
