"""The proof of one result: the source and the result are run in jobs of their own, and judged here, outside of them."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from worker import formats, routes
from worker.errors import (
    Canceled,
    DiskFull,
    LarderError,
    OutOfMemory,
    SandboxMissing,
    TimedOut,
    from_json,
)
from worker.formats._format import Summary, TensorSpec, Tolerance
from worker.report import Finding, Verdict, findings_from_json
from worker.work import MIB, Json, Work, sense, take, text, under_its_suffix

if TYPE_CHECKING:
    from worker.verify import Arrays, Judgement, Seen, Terms

MAX_VALUES = 512 * MIB  # of inputs or outputs that a job may hand over; judging them takes some times that
# A float16 has 11 bits, and two libraries round every layer's result in an order of their own: some units of 2**-10
HALF_RTOL = 4 * 2.0**-10
BFLOAT_RTOL = 4 * 2.0**-7  # of a bfloat16, with its 8 bits
ONE_ROW = "batch-fixed"  # the finding that a result takes one row at a time
OUT_OF_BOUNDS = (TimedOut, OutOfMemory, DiskFull, Canceled, SandboxMissing)  # says nothing about the result


@dataclass(frozen=True)
class Source:
    """The file to convert, what inspection found out about it, and what messages call it."""

    path: Path
    format: str
    summary: Summary
    name: str = ""


@dataclass
class Proof:
    """What the source showed in ``folder``, the first job's own, and what is still to be shown."""

    work: Work
    source: Source
    route: routes.Route
    options: Json
    folder: Path
    shown: Json = field(default_factory=dict)  # by the source when it ran
    specs: list[Json] = field(default_factory=list)  # its inputs

    def request(self) -> Json:
        """What the job that has the source is asked to show of it."""
        samples = text(self.work.samples)
        described = samples is None and _all_exact(self.route)
        files = {"inputs": str(self.folder / "inputs.npz"), "outputs": str(self.folder / "outputs.npz")}
        return {"seed": self.work.seed, "samples": samples, "described": described, **files}

    def note(self, shown: Json) -> None:
        """Keep what the job answered."""
        self.shown = {"error": None, **shown}
        self.specs = [asdict(TensorSpec.from_json(spec)) for spec in self.shown.get("inputs", ())]
        self.work.add(findings_from_json(self.shown.get("findings", ())))

    def judge(self, path: Path) -> Judgement:
        """Run the result alone, twice, and compare what it shows with what the source showed."""
        from worker import verify

        self.work.stage("running the result")
        refusal = from_json(self.shown["error"]) if self.shown["error"] else None
        given = self.folder / "inputs.npz"
        described = bool(self.shown.get("architecture")) and not os.path.lexists(given)
        inputs = [] if refusal or described else [take(given, MAX_VALUES)]
        try:
            answers = self._run_result(path, inputs)
        except OUT_OF_BOUNDS:
            raise
        except LarderError as error:
            return verify.not_run(refusal) if refusal else verify.not_shown(error)
        if refusal:
            return verify.not_run(refusal)
        self.work.stage("comparing")
        with sense():
            return self._compare(answers, inputs)

    def _compare(self, answers: Sequence[Json], inputs: list[Path]) -> Judgement:
        """By the format's tolerance; where that is too little, by what rounding explains."""
        from worker import verify

        before = self._seen(self.shown, self.folder / "outputs.npz")
        before = dataclasses.replace(before, unsteady=str(self.shown.get("unsteady") or ""))
        after = self._seen(answers[0], self.work.folder / "result-1" / "outputs.npz")
        if len(answers) > 1:
            second = self._seen(answers[1], self.work.folder / "result-2" / "outputs.npz")
            after = dataclasses.replace(after, repeated=second.values)
        terms = _terms(self.source, self.route, self.options, self.work.findings)
        judgement = verify.judge(before, after, terms)
        if judgement[0] is not Verdict.DIFFERS or not verify.is_rounding(judgement[2]):
            return judgement
        self.work.stage("measuring the rounding")
        exact = self._exact(inputs)
        return verify.judge(
            dataclasses.replace(before, exact=exact), after, dataclasses.replace(terms, absolute=not exact)
        )

    def _exact(self, inputs: list[Path]) -> list[Arrays]:
        """The source's answers in float64; none where it cannot give them."""
        from worker import verify

        folder = self.work.subfolder("exact")
        named = under_its_suffix(self.source.path, self.source.format, folder)
        files = {"inputs": str(inputs[0]), "outputs": str(folder / "outputs.npz")}
        arguments = {"path": str(named), "format": self.source.format, **files}
        try:
            answer = self.work.job("exact", arguments, [self.source.path, *inputs], folder)
        except (Canceled, SandboxMissing):
            raise
        except LarderError:  # more memory or time than a job has: then the rounding stays unknown
            return []
        return verify.load_draws(take(folder / "outputs.npz", 2 * MAX_VALUES)) if answer["found"] else []

    def _run_result(self, path: Path, inputs: list[Path]) -> list[Json]:
        """The result in two fresh jobs that have nothing else but the inputs; without them it is opened, once."""
        names = ["result-1", "result-2"] if inputs else ["result-1"]
        folders = [self.work.subfolder(name) for name in names]
        with ThreadPoolExecutor(len(folders)) as threads:
            return list(threads.map(lambda folder: self._run(path, inputs, folder), folders))

    def _run(self, path: Path, inputs: list[Path], folder: Path) -> Json:
        files = {"inputs": str(inputs[0]) if inputs else None, "outputs": str(folder / "outputs.npz")}
        arguments = {"path": str(path), "format": self.route[-1], "specs": self.specs, **files}
        return self.work.job("run", arguments, [path, *inputs], folder)

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
    return Terms(Tolerance(rtol, atol), exact, alone, narrows, one_row)


def _half_rtol(summary: Summary) -> float:
    if any("bfloat16" in dtype for dtype in (*summary.dtypes, *(layer.dtype for layer in summary.layers))):
        return BFLOAT_RTOL
    return HALF_RTOL if summary.computes_in_half or "half" in summary.traits else 0.0


def _all_exact(route: routes.Route) -> bool:
    return all(formats.get(slug).exact for slug in route[1:])
