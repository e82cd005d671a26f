"""The proof of one result: the source and the result are run in jobs of their own, and judged here, outside of them."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from worker import formats, loadback, routes
from worker.errors import DiskFull, LarderError, NoResult, NotRunnable, from_json
from worker.formats._format import Summary, TensorSpec, Tolerance
from worker.looks import File, Look, ask, not_asked
from worker.openings import Openings, Shown
from worker.report import Finding, Verdict, findings_from_json
from worker.work import MAX_VALUES, MIB, OF_THE_JOB, STOPPED, Json, Work, sense, take, take_copy, text, whole

if TYPE_CHECKING:
    from worker.verify import Asked, Judgement, Seen, Terms, Unrounded
    from worker.verify.loadback import AskAgain

NEAR_RTOL = 1e-2  # a result with a larger tolerance is compared on samples and their like alone, where there are some
# A float16 has 11 bits, and two libraries round every layer's result in an order of their own: some units of 2**-10
HALF_RTOL = 4 * 2.0**-10
BFLOAT_RTOL = 4 * 2.0**-7  # of a bfloat16, with its 8 bits
ONE_ROW = "batch-fixed"  # the finding that a result takes one row at a time
UNWITNESSED = "unwitnessed"  # the finding that a source was run as the very model that it was rebuilt as
LONGEST_NAME = 300  # of a weight that is kept
MOST_AHEAD = 256 * MIB  # of a result that is opened while the source runs: both are in memory then
OUT_OF_BOUNDS = (*OF_THE_JOB, *STOPPED)  # says nothing about the result


@dataclass(frozen=True)
class Source:
    """The file to convert, what inspection found out about it, and what messages call it. ``signature``: the one that
    is meant, and that ``summary`` is of; "" for the usual one."""

    path: Path
    format: str
    summary: Summary
    name: str = ""
    signature: str = ""

    @property
    def file(self) -> File:
        """What a job has to open."""
        return File(self.path, self.format, self.signature)

    def of_signature(self, name: str) -> Source:
        """The same file for who calls another signature."""
        return dataclasses.replace(self, summary=self.summary.of_signature(name), signature=name) if name else self


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
    given: bool = False  # the result was not made here, so nobody said what is to be known about it
    opened: Openings | None = None  # the result, where that was done while the source ran
    looks: bool = True  # is it worth looking at more than the verdict?
    twin: Callable[[Proof], bool] | None = None  # sends the same layers with other weights along the same route
    unrounded: Callable[[Proof, Path], Unrounded | None] | None = None  # proves the same conversion without rounding

    def request(self) -> Json:
        """What the job that has the source is asked to show of it."""
        from worker import verify

        samples, terms = text(self.work.samples), self._terms(self._fine_options())
        described = samples is None and _all_exact(self.route)
        wanted = {"allowed": verify.relative(terms, None), "gross": verify.is_gross(terms), "prints": self._prints()}
        wanted["decisive"] = self.given or not terms.exact_weights  # or do the weights prove it, bit for bit?
        near = samples is not None and self._is_near()
        files = {"inputs": str(self.folder / "inputs.npz"), "outputs": str(self.folder / "outputs.npz")}
        about = {"seed": self.work.seed, "samples": samples, "near": near, "described": described}
        return {**about, **wanted, **files}

    def _terms(self, options: Json | None = None) -> Terms:
        return _terms(self.source, self.route, options or self.options, self.work.findings)

    def _fine_options(self) -> Json | None:
        """Those of the same conversion without rounding, in which faults have to show; None where there is none."""
        item = formats.get(self.route[-1])
        return item.unrounded(self.options) if item.alike and self.unrounded else None

    def _is_near(self) -> bool:
        """Is the result to be compared on nothing but what its ranges were measured on, and the like?"""
        return formats.get(self.route[-1]).tolerance_with(self.options).rtol > NEAR_RTOL

    def _left_out(self) -> int:
        """How many of the last draws the result is not run on. No ranges were measured on those that were scaled to
        show more faults; and where rounding is coarse, numbers far beyond the others say nothing."""
        far = int(self.shown.get("far_draws") or 0)
        if self._is_near():
            return far + int(self.shown.get("scaled_draws") or 0)
        return far if self._terms().is_coarse else 0

    def _given(self) -> Path:
        """The draws that the result is run on."""
        from worker import verify

        given, further = take(self.folder / "inputs.npz", MAX_VALUES), self._left_out()
        if not further:
            return given
        near = self.work.folder / "near.npz"
        verify.save_draws(near, verify.load_draws(given, MAX_VALUES)[:-further])
        near.chmod(0o644)  # for a job that is another user
        return near

    def _prints(self) -> bool:
        return not self._terms().exact_weights

    def note(self, shown: Json) -> None:
        """Keep what the job answered."""
        self.shown = {"error": None, **whole(shown, self.folder)}
        self.specs = [asdict(TensorSpec.from_json(spec)) for spec in self.shown.get("inputs", ())]
        self.work.add(findings_from_json(self.shown.get("findings", ())))

    def open(self, path: Path) -> None:
        """Open a result that is there while the job that made it still runs the source. It is judged as it is now: what
        that job may write afterwards is another file."""
        if self.opened or not formats.get(self.route[-1]).load:
            return
        with suppress(NoResult, DiskFull):  # then it is opened when the job has ended
            ahead = dataclasses.replace(self.work, folder=self.work.subfolder("ahead"))
            own = take_copy(path, ahead.folder / path.name, MOST_AHEAD)
            self.opened = self._opened(ahead, own, twice=True)

    def close(self) -> None:
        """End what still waits to be asked."""
        if self.opened:
            self.opened.close()

    def judge(self, path: Path) -> Judgement:
        """Run the result alone, twice, and compare what it shows with what the source showed."""
        from worker import verify

        self.work.stage(self._stage())
        refusal = from_json(self.shown["error"]) if self.shown["error"] else None
        given = self.folder / "inputs.npz"
        described = bool(self.shown.get("architecture")) and not os.path.lexists(given)
        inputs = None if refusal or described else self._given()
        try:
            shown = self._shown(path, inputs)
        except OUT_OF_BOUNDS:
            raise
        except LarderError as error:
            return verify.not_run(refusal) if refusal else verify.not_shown(error)
        if refusal:
            return verify.not_run(refusal)
        self.work.stage("comparing")
        with sense():
            if formats.get(self.route[-1]).load is None:  # a format that runs on other machines
                return self._unopened(shown.answer)
            return self._compare(path, shown, inputs)

    def _shown(self, path: Path, inputs: Path | None) -> Shown:
        """What the result shows. Where it was opened ahead and fell short, it is opened once more: waiting for the
        source took of its time, and the source's own job took of the machine."""
        if self.opened:
            with suppress(*OF_THE_JOB):
                return self.opened.ask(self.specs, inputs)
        return self._opened(self.work, path, twice=bool(inputs)).ask(self.specs, inputs)

    def _unopened(self, answer: Json) -> Judgement:
        """A result of which only the weights can be read here."""
        from worker import verify
        from worker.verify.loadback import loadback_check

        before, after = (verify.Weights.from_json(shown["prints"]) for shown in (self.shown, answer))
        weights = verify.compare_weights(before, after)
        verdict, reason, checks = verify.not_shown(NotRunnable(problem=str(answer["not_run"])), weights)
        cells = [not_asked(turn) for turn in loadback.runtimes(self.route[-1])]
        return verdict, reason, (*checks, loadback_check(cells)) if cells and self.looks else checks

    def _stage(self) -> str:
        """What is done with the result, in a word: not all of them are run."""
        if formats.get(self.route[-1]).load is None:
            return "reading the result's weights"
        return "opening the result" if self.shown["error"] else "running the result"

    def _compare(self, path: Path, shown: Shown, inputs: Path | None) -> Judgement:
        """The judgement, then two looks beyond it: where the result parts from the source, and where else it runs."""
        before, after = self._before(), self._after(shown)
        terms = self._terms()
        if self.given:
            one_row = terms.one_row or _takes_one_row(before, after)
            terms = dataclasses.replace(terms, given=True, one_row=one_row)
        asked_again = cache(lambda: self._asked_again(inputs) if inputs else None)
        judgement, before, terms = self._judged(before, after, terms, asked_again)
        judgement = self._beside_unrounded(judgement, before, after, terms, path)
        if not inputs or before.unsteady or not self.looks:
            return judgement
        files = self.source.file, File(path, self.route[-1])
        look = Look(self.work, *files, before, after, terms, self.specs, inputs, shown.elsewhere, asked_again)
        return self._looked(judgement, look)

    def _before(self) -> Seen:
        """What the source showed."""
        from worker import verify

        seen, further = self._seen(self.shown, self.folder / "outputs.npz"), self._left_out()
        return dataclasses.replace(
            seen,
            values=seen.values[: len(seen.values) - further],
            far=max(0, int(self.shown.get("far_draws") or 0) - further),
            unsteady=str(self.shown.get("unsteady") or ""),
            faults=tuple(verify.rows_from_json(self.shown.get("faults") or ())),
            variables=int(self.shown.get("variables") or 0),
        )

    def _after(self, shown: Shown) -> Seen:
        """What the result showed, and the values of its second run."""
        first = self._seen(shown.answer, shown.outputs)
        return dataclasses.replace(first, repeated=shown.second.values if shown.second and first.values else {})

    def _judged(self, before: Seen, after: Seen, terms: Terms, asked_again: AskAgain) -> tuple[Judgement, Seen, Terms]:
        """By the format's tolerance; where that is too little, by what rounding explains; and where faults would not
        show, with the help of an alive twin."""
        from worker import verify

        judgement = verify.judge(before, after, terms)
        wanted = verify.wants_twin(judgement) and not self._fine_options()
        if wanted and self.twin is not None and self.twin(self):
            return verify.judge(before, after, terms, twin=True), before, terms
        if judgement[0] is not Verdict.DIFFERS or not verify.asks_source(judgement[2]):
            return judgement, before, terms
        self.work.stage("measuring the rounding")
        found = asked_again()
        if found is None:
            return judgement, before, terms
        before, terms = found.of(before), dataclasses.replace(terms, absolute=not found.exact)
        return verify.judge(before, after, terms), before, terms

    def _beside_unrounded(self, judgement: Judgement, before: Seen, after: Seen, terms: Terms, path: Path) -> Judgement:
        """Where more than rounding of float32 is allowed, the judgement with the same conversion without rounding."""
        from worker import verify

        if not (terms.is_coarse and self._fine_options() and self.unrounded and verify.wants_unrounded(judgement)):
            return judgement
        found = self.unrounded(self, path)
        return verify.judge(before, after, terms, unrounded=found) if found else judgement

    def _looked(self, judgement: Judgement, look: Look) -> Judgement:
        from worker.verify.loadback import beside

        verdict, reason, checks = judgement
        values = next((check for check in checks if check.name == "values"), None)
        differs = values is not None and values.passed is False
        allowed = float(values.data.get("allowed", look.terms.tolerance.rtol)) if values else look.terms.tolerance.rtol
        drift = look.drift(allowed, differs) if differs or look.terms.is_coarse else None
        back = (look.beside_itself() if values and values.data.get("explained") else look).load_back()
        judgement = verdict, reason, (*checks, drift) if drift else checks
        if back is None:
            return judgement
        self.work.add(back[1])
        return beside(judgement, back[0])

    def _asked_again(self, inputs: Path) -> Asked | None:
        """None where a job cannot tell."""
        from worker import verify

        folder, most = self.work.subfolder("exact"), 2 * MAX_VALUES
        exact, nudged = folder / "outputs.npz", folder / "nudged.npz"
        wishes = {"inputs": str(inputs), "outputs": str(exact), "nudged": str(nudged)}
        try:
            answer = ask(self.work, "exact", self.source.file, wishes, inputs, folder)
        except STOPPED:
            raise
        except LarderError:  # more memory or time than a job has: the verdict may not hang on that
            return None
        taken = (verify.load_draws(take(path, most), most) if os.path.lexists(path) else [] for path in (exact, nudged))
        return verify.Asked(str(answer["unsteady"]), *taken)

    def _opened(self, work: Work, path: Path, twice: bool) -> Openings:
        """The jobs of the result."""
        result = File(path, self.route[-1])
        return Openings(work, result, self._held(), prints=self._prints(), twice=twice, looks=self.looks)

    def _held(self) -> str:
        """The signature's name in the result; "" where it holds no other one."""
        return self.source.signature if "signatures" in formats.get(self.route[-1]).keeps else ""

    def _seen(self, answer: Json, values: Path) -> Seen:
        from worker.verify import Seen, Weights, load_draws

        return Seen(
            inputs=tuple(map(TensorSpec.from_json, answer["inputs"])),
            outputs=tuple(map(TensorSpec.from_json, answer["outputs"])),
            weights=tuple((str(dtype), tuple(shape), str(digest)) for dtype, shape, digest, *_ in answer["weights"]),
            names=tuple(str(name)[:LONGEST_NAME] for *_, name in answer["weights"]),
            values=load_draws(take(values, MAX_VALUES), MAX_VALUES) if os.path.lexists(values) else [],
            architecture=str(answer.get("architecture") or ""),
            layers=str(answer.get("layers") or ""),
            further=tuple(str(name)[:LONGEST_NAME] for name in answer.get("further") or ()),
            tables=tuple(str(digest)[:LONGEST_NAME] for digest in answer.get("tables") or ()),
            prints=Weights.from_json(answer["prints"]) if answer.get("prints") else Weights(),
        )


def _takes_one_row(source: Seen, result: Seen) -> bool:
    """Does the result take one row wherever the source takes any number?"""
    pairs = list(zip(source.inputs, result.inputs, strict=False))
    free = [(a, b) for a, b in pairs if a.shape and a.shape[0] is None]
    return bool(free) and all(b.shape and b.shape[0] == 1 for _, b in free)


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
    in_order = "architecture" in steps[-1].keeps and "graph" not in formats.get(source.format).keeps
    named = "keras-config" in source.summary.traits
    return Terms(Tolerance(rtol, atol), exact, alone, narrows, one_row, unwitnessed, in_order=in_order, named=named)


def _half_rtol(summary: Summary) -> float:
    if any("bfloat16" in dtype for dtype in (*summary.dtypes, *(layer.dtype for layer in summary.layers))):
        return BFLOAT_RTOL
    return HALF_RTOL if summary.computes_in_half or "half" in summary.traits else 0.0


def _all_exact(route: routes.Route) -> bool:
    return all(formats.get(slug).exact for slug in route[1:])
