"""The table of a version's variants: how large each file is, how long it takes, and how near it lies to its source.

Each file is timed alone, in a job of its own, in several rounds over all of them, so that whatever else the machine
does hits all alike. Nearness is what the file's own report says. No Django, and no model is opened here.
"""

from __future__ import annotations

import dataclasses
import math
import os
import platform
import shutil
import socket
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from worker import formats, loadback
from worker.custom_code import Consent
from worker.errors import LarderError, NothingMeasured
from worker.formats._format import TensorSpec, unheard
from worker.report import Report
from worker.sandbox.limits import Limits
from worker.work import MIB, STOPPED, Jobs, Json, Work, calling, never, sense, take
from worker.work import under_its_suffix as named_for

SCHEMA = 1  # of the table's JSON, docs/variants.md: raised when a key goes away or means something else
SEED = 7  # of the row, which is the same at every measurement
ROUNDS, LEAST_ROUNDS = 5, 3
SECONDS = 0.5  # of running one file in one round
BUDGET = 90.0  # seconds after which no round begins that need not be
MOST_INPUT = 512 * MIB  # bytes of one row
ROUNDING = 1e-5  # of the output's scale: what lies nearer than that differs by the order of sums alone
ALIKE = 1.1  # times: what two measurements of one file on a busy machine may lie apart
Point = tuple[int, float, float]
PLAIN = "not timed: jobs have the plain JavaScript kernels of TensorFlow.js alone, and browsers have faster ones"
WEIGHTS_ALONE = "it holds weights alone, so there is nothing to run"


@dataclass(frozen=True)
class Nearness:
    """How near a file lies to its source, as its report has it: the largest difference relative to the largest value of
    an output, the share of rows with the same largest column, and how many there were; None where nobody knows."""

    error: float | None = None
    top1: float | None = None
    top1_rows: int = 0


@dataclass(frozen=True)
class Variant:
    """One file of a version. ``options``: those of the conversion that it came out of, in words; ``verdict``: of its
    report, None where it has none."""

    path: Path
    format: str
    name: str
    sha256: str
    options: str = ""
    near: Nearness = Nearness()
    verdict: str | None = None
    is_source: bool = False


@dataclass(frozen=True)
class Row:
    """One file in the table; sizes in bytes, times in seconds. ``problem``: why it was not run, or ""."""

    name: str
    sha256: str
    format: str
    label: str
    options: str
    is_source: bool
    size: int
    runtime: str
    seconds: float | None
    quartiles: tuple[float, float] | None
    rounds: tuple[float, ...]
    relative: float | None  # times the seconds of the source
    error: float | None
    top1: float | None
    top1_rows: int
    verdict: str | None
    problem: str
    front: bool = False
    released_by: tuple[str, ...] = ()  # out of quarantine; filled in by whoever keeps files


@dataclass(frozen=True)
class Table:
    """All files of a version. ``shapes``: of the inputs that all were run on. ``waited``: the largest share of its
    time in which a file did not have a processor, because other work did: times are that much too long."""

    rows: tuple[Row, ...]
    shapes: dict[str, list[int]]
    rounds: int
    waited: float
    machine: Json
    seconds: float

    def to_json(self) -> Json:
        return {"schema": SCHEMA, **asdict(self)}


def home(slug: str) -> tuple[str, str]:
    """The runtime that files of the format are made for, with its release, and why it is not asked here, or ""."""
    item = formats.formats().get(slug)
    if item is None:
        return "", "its format is no longer known"
    if item.keeps == {"weights"}:
        return "", WEIGHTS_ALONE
    turn = next(iter(loadback.runtimes(slug)), None)
    if turn is None or turn.absent or item.load is None:
        return turn.label if turn else "", (turn.absent if turn else "") or "not run here"
    return f"{turn.label} {turn.version}".strip(), PLAIN if turn.by_node else ""


def measure(
    zygote: Jobs,
    variants: Sequence[Variant],
    folder: Path,
    limits: Limits,
    *,
    consent: Consent | None = None,
    stage: Callable[[str], None] = unheard,
    canceled: Callable[[], bool] = never,
) -> Table:
    """The table of these files, the source first. NothingMeasured where none of them runs here."""
    started = time.monotonic()
    work = Work(zygote, folder, limits, SEED, consent, canceled=canceled, stage=stage)
    bench = _Bench(work, variants)
    bench.run_all(started)
    if not any(bench.taken):
        raise NothingMeasured(problem=next(filter(None, bench.problems), "there are no files"))
    rows = sorted(marked([_row(variant, bench, place) for place, variant in enumerate(variants)]), key=_order)
    waited = max(statistics.median(each.waited for each in taken) for taken in bench.taken if taken)
    rounds = max(map(len, bench.taken))
    return Table(tuple(rows), bench.shapes, rounds, waited, machine(), round(time.monotonic() - started, 3))


def _order(row: Row) -> tuple[bool, bool, float]:
    """The source first, then the fastest first, then what was not run, the smallest first."""
    return not row.is_source, row.seconds is None, row.seconds or row.size


def nearness(report: Report | None) -> Nearness:
    """What the values check of a report says; nothing where values were not compared, or cannot be."""
    checks = report.checks if report else ()
    outputs = next(
        (check.data["outputs"] for check in checks if check.name == "values" and "outputs" in check.data), ()
    )
    if not outputs:
        return Nearness()
    errors = [_error(output) for output in outputs]
    known = [error for error in errors if error is not None]
    told = [output for output in outputs if output.get("top1") is not None]
    error = max(known) if len(known) == len(errors) else None
    if not told:
        return Nearness(error)
    worst = min(told, key=lambda output: float(output["top1"]))
    return Nearness(error, float(worst["top1"]), int(worst.get("rows") or 0))


def _error(output: Json) -> float | None:
    """None for an output that differs in another way than in how large its numbers are."""
    gap = float(output["max_rel"])
    return gap if math.isfinite(gap) and (gap or not output["problem"]) else None


def machine() -> Json:
    """The machine that this runs on: its name, its processor and how many of them there are."""
    return {"host": socket.gethostname(), "processor": _processor(), "processors": os.cpu_count() or 1}


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.machine())


# The front --------------------------------------------------------------------------------------------------------


def marked(rows: Sequence[Row]) -> list[Row]:
    """The rows, those on the Pareto front marked: no other one is at least as good in all three, and better in one."""
    points = [_point(row) for row in rows]
    known = [point for point in points if point]
    front = [point is not None and not any(_beats(other, point) for other in known) for point in points]
    return [dataclasses.replace(row, front=on) for row, on in zip(rows, front, strict=True)]


def _point(row: Row) -> Point | None:
    """Size, seconds and difference, of which rounding is no part; None where one of them is not known."""
    if row.seconds is None or row.error is None:
        return None
    return row.size, row.seconds, max(row.error, ROUNDING)


def _beats(one: Point, other: Point) -> bool:
    """Is the one no larger, no slower and no further than the other, and better in one of them?

    Times that are alike decide nothing."""
    (size, seconds, error), (larger, slower, further) = one, other
    if size > larger or seconds > slower * ALIKE or error > further:
        return False
    return size < larger or seconds * ALIKE < slower or error < further


# Timing -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Taken:
    """What one job said of one file, in seconds."""

    median: float
    quartiles: tuple[float, float]
    waited: float  # share of the time without a processor

    @classmethod
    def from_json(cls, data: Json) -> _Taken:
        """What came from a job; ValueError and the like where it makes no sense."""
        first, third = data["quartiles"]
        return cls(
            _time_in(data["median"]), (_time_in(first), _time_in(third)), min(1.0, max(0.0, float(data["waited"])))
        )


@dataclass
class _Bench:
    """The files while they are timed: what was taken of each so far, or why it cannot be."""

    work: Work
    variants: Sequence[Variant]
    taken: list[list[_Taken]] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    specs: list[Json] | None = None  # the inputs of the file that drew the row: the first one that runs
    inputs: Path | None = None
    shapes: dict[str, list[int]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.taken = [[] for _ in self.variants]
        self.problems = [home(variant.format)[1] for variant in self.variants]
        for place, variant in enumerate(self.variants):
            if not variant.path.is_file():
                self.problems[place] = "its file is not in the store"

    def run_all(self, started: float) -> None:
        """There and back, so that none always comes after the same other one."""
        places = range(len(self.variants))
        for number in range(1, ROUNDS + 1):
            if number > LEAST_ROUNDS and time.monotonic() - started > BUDGET:
                break
            self.work.stage(f"round {number} of {ROUNDS}")
            for place in places if number % 2 else reversed(places):
                if not self.problems[place]:
                    self._try(number, place)

    def _try(self, number: int, place: int) -> None:
        """One file in one round; what cannot be run once is not tried again, and has no time."""
        try:
            self.taken[place].append(self._time(number, place))
        except STOPPED:
            raise
        except LarderError as error:
            self.problems[place] = error.message
            self.taken[place].clear()

    def _time(self, number: int, place: int) -> _Taken:
        variant, folder = self.variants[place], self.work.subfolder(f"{number}-{place}")
        drawn = folder / "row.npz"
        named = named_for(variant.path, variant.format, folder)
        about: Json = {"path": str(named), "format": variant.format, "specs": self.specs, "seed": SEED}
        arguments = about | {"inputs": str(self.inputs or drawn), "seconds": SECONDS}
        read = [variant.path, *([self.inputs] if self.inputs else [])]
        with calling(named, variant.name):
            answer = self.work.job("measure", arguments, read, folder)
        with sense():
            taken = _Taken.from_json(answer)
            if self.inputs is None:
                self._keep_row(answer, drawn)
            else:
                shutil.rmtree(folder, ignore_errors=True)
        return taken

    def _keep_row(self, answer: Json, drawn: Path) -> None:
        """All others are run on the same row."""
        specs = [asdict(TensorSpec.from_json(spec)) for spec in answer["specs"]]
        shapes = {spec["name"]: list(map(int, answer["shapes"][spec["name"]])) for spec in specs}
        self.inputs, self.specs, self.shapes = take(drawn, MOST_INPUT), specs, shapes


def _time_in(value: Any) -> float:
    """A time that came from a job; ValueError where it is none."""
    seconds = float(value)
    if not (math.isfinite(seconds) and seconds > 0):
        raise ValueError("no time")
    return seconds


def _row(variant: Variant, bench: _Bench, place: int) -> Row:
    taken, problem = bench.taken[place], bench.problems[place]
    near = Nearness(0.0) if variant.is_source else variant.near
    item = formats.formats().get(variant.format)
    seconds = _median(taken)
    base = next((_median(bench.taken[at]) for at, each in enumerate(bench.variants) if each.is_source), None)
    quartiles = [statistics.median(each.quartiles[side] for each in taken) for side in (0, 1)] if taken else []
    return Row(
        name=variant.name,
        sha256=variant.sha256,
        format=variant.format,
        label=item.label if item else variant.format,
        options=variant.options,
        is_source=variant.is_source,
        size=variant.path.stat().st_size if variant.path.is_file() else 0,
        runtime=home(variant.format)[0],
        seconds=seconds,
        quartiles=(quartiles[0], quartiles[1]) if taken else None,
        rounds=tuple(each.median for each in taken),
        relative=seconds / base if seconds and base else None,
        error=near.error,
        top1=near.top1,
        top1_rows=near.top1_rows,
        verdict=variant.verdict,
        problem=problem,
    )


def _median(taken: Sequence[_Taken]) -> float | None:
    return statistics.median(each.median for each in taken) if taken else None
