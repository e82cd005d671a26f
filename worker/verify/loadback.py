"""Where else a result opens, and whether it computes the same there: one cell for each runtime of its format."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from enum import StrEnum

from worker.errors import LarderError
from worker.report import Check, Finding, Severity, Verdict, declare
from worker.verify.draws import Arrays
from worker.verify.judgement import Judgement
from worker.verify.seen import Again, Asked, Seen, Terms
from worker.verify.values import MOST_ROUNDING, values_check

AskAgain = Callable[[], Asked | None]
FEW = (
    "its answers agree on the few small inputs that it was asked, as those of the result do where Larder runs it; on"
    " others the result differs"
)
UNTOLD = "its answers lie about as far from the source's as rounding goes, and that could not be measured"
UNPAIRED = "not run, for the result's inputs do not correspond to the source's"

DIFFERS_THERE = declare(
    "differs-elsewhere",
    Severity.WARNING,
    "{runtime} {version} opens the result too, and computes something else with it ({gap}): do not run it there.",
)
NOT_RUN_THERE = declare(
    "does-not-run",
    Severity.WARNING,
    "Converted, but {runtime} {version} does not run it: {problem} What the file holds computes the same in {own}.",
)
NOT_RUN_AT_HOME = declare(
    "tfjs-not-run",
    Severity.NOTE,
    "What this file holds was read and run by {own} here; {runtime} itself was not run on it: {problem}",
)
LONGEST = 300


class Outcome(StrEnum):
    """What became of a result in one runtime."""

    SAME = "same"
    DIFFERS = "differs"
    REFUSED = "refused"  # it does not open there, or does not run
    ABSENT = "absent"  # it was not tried, or its answers prove nothing, and ``said`` has the reason


@dataclass(frozen=True)
class Cell:
    """One runtime. ``gap``: how far its answers lie from the source's, relative to an output's largest value; None
    where it gave none. ``install``: what people install to have the same. ``own``: does Larder
    run the format with it anyway? ``draws``, ``rows``: on how many it was asked, 0 where it gave no answers; the gap is
    of these alone."""

    runtime: str
    label: str
    version: str
    verdict: Outcome
    gap: float | None = None
    said: str = ""
    install: str = ""
    own: bool = False
    draws: int = 0
    rows: int = 0

    @property
    def named(self) -> str:
        return f"{self.label} {self.version}".strip()


def answered_again(cell: Cell, source: Seen, shown: Again, terms: Terms, ask_again: AskAgain | None = None) -> Cell:
    """The cell of a runtime that ran the result on some of the draws.

    ``ask_again`` tells how far rounding moves the source, or None where nobody can: it is called where values lie so
    near that nothing else tells whether rounding has moved them."""
    found = answered(cell, source.on(sorted(shown.values)), shown.seen(), terms)
    near = found.verdict is Outcome.DIFFERS and 0 < (found.gap or 0) <= MOST_ROUNDING
    if ask_again is None or source.exact or not near:
        return found
    asked = ask_again()
    if asked is None:
        return _with(found, Outcome.ABSENT, found.gap, UNTOLD)
    finer = asked.of(source).on(sorted(shown.values))
    return answered(cell, finer, shown.seen(), replace(terms, absolute=not asked.exact))


def unless_few(cell: Cell, source: Seen, result: Seen, numbers: Sequence[int], terms: Terms) -> Cell:
    """The cell of a runtime that computes the same on these draws, unless they would not tell: a result that differs
    on all of them, and on these alone does not."""
    differs = answered(cell, source, result, terms).verdict is Outcome.DIFFERS
    few = differs and answered(cell, source.on(numbers), result.on(numbers), terms).verdict is not Outcome.DIFFERS
    return _with(cell, Outcome.ABSENT, cell.gap, FEW) if few and cell.verdict is Outcome.SAME else cell


def answered(cell: Cell, source: Seen, shown: Seen, terms: Terms) -> Cell:
    """The cell of a runtime that ran the result, by the same measure as the values of the result itself. Larder's own
    runs no result whose inputs do not correspond to the source's: its check of the interface has failed by then."""
    if cell.own and not shown.values:
        return _with(cell, Outcome.ABSENT, None, UNPAIRED)
    check = values_check(source, shown, terms)
    gaps = [float(output["max_rel"]) for output in check.data.get("outputs", ())]
    unknown = Outcome.ABSENT if gaps else Outcome.REFUSED  # answers that were compared, and prove nothing
    outcome = {True: Outcome.SAME, False: Outcome.DIFFERS, None: unknown}[check.passed]
    said = "" if check.passed else check.sentence
    asked = replace(cell, draws=len(source.values), rows=sum(map(_rows, source.values))) if gaps else cell
    return _with(asked, outcome, max(gaps, default=None), said)


def _rows(draw: Arrays) -> int:
    """How many rows a draw has: the length of the first dimension of the answers to it."""
    return next((array.shape[0] for array in draw.values() if array.ndim), 1)


def refused(cell: Cell, error: LarderError) -> Cell:
    """The cell of a runtime that does not open the result, or does not run it."""
    return _with(cell, Outcome.REFUSED, None, _problem(error))


def untold(cell: Cell, error: LarderError) -> Cell:
    """The cell of a runtime that was stopped before it could answer, which says nothing about the result."""
    return _with(cell, Outcome.ABSENT, None, _problem(error))


def _problem(error: LarderError) -> str:
    return str(error.details.get("problem") or error.message)


def _with(cell: Cell, outcome: Outcome, gap: float | None, said: str) -> Cell:
    return replace(cell, verdict=outcome, gap=gap, said=said[:LONGEST])


def loadback_check(cells: Sequence[Cell]) -> Check:
    """True where the runtime that the format's snippet is written for, which is the first cell, computes the same, or
    where it cannot be asked and another one does; False where it refuses or differs; None where none could be asked,
    and where it lacks what the file needs, while Larder's own reader of the format computes the same."""
    by_outcome = {outcome: [cell for cell in cells if cell.verdict is outcome] for outcome in Outcome}
    home, same = cells[0].verdict if cells else Outcome.ABSENT, by_outcome[Outcome.SAME]
    passed = home is Outcome.SAME if home is not Outcome.ABSENT else (True if same else None)
    passed = None if home is Outcome.REFUSED and _own(cells) else passed
    sentences = _sentences(by_outcome)
    return Check("load-back", passed, " ".join(sentences), {"cells": [asdict(cell) for cell in cells]})


def _sentences(by_outcome: dict[Outcome, list[Cell]]) -> Iterator[str]:
    names = {outcome: ", ".join(cell.named for cell in cells) for outcome, cells in by_outcome.items()}
    if names[Outcome.SAME]:
        yield f"Opened and run, each time alone, with the same answers in {names[Outcome.SAME]}."
    if names[Outcome.DIFFERS]:
        yield f"It computes something else in {names[Outcome.DIFFERS]}."
    if names[Outcome.REFUSED]:
        yield f"It does not run in {names[Outcome.REFUSED]}."
    for cell in by_outcome[Outcome.ABSENT]:
        yield f"{cell.label}: {cell.said.rstrip('.')}."


def _own(cells: Sequence[Cell]) -> Cell | None:
    """Larder's own reader of the format, where the snippet is written for another one, and it computes the same."""
    return next((cell for cell in cells[1:] if cell.own and cell.verdict is Outcome.SAME), None)


def beside(judgement: Judgement, check: Check) -> Judgement:
    """The judgement with the load-back: what differs where people run it differs, and what does not run there is not
    verified, whatever it holds."""
    verdict, reason, checks = judgement
    refused = check.passed is None and check.data["cells"][0]["verdict"] == Outcome.REFUSED
    if check.passed is False and verdict is not Verdict.DIFFERS:
        verdict, reason = Verdict.DIFFERS, check.sentence
    if verdict is Verdict.VERIFIED and refused:
        verdict, reason = Verdict.NOT_PROVABLE, check.sentence
    return verdict, reason, (*checks, check)


def loadback_findings(cells: Sequence[Cell]) -> list[Finding]:
    """A runtime that opens the result and computes something else, where the format's own does not (else the check
    fails); and a format's own that does not run it, or was not asked, while another one ran what is in the file."""
    return [*_at_home(cells)] + [
        DIFFERS_THERE(runtime=cell.label, version=cell.version, gap=_much(cell))
        for cell in cells[1:]
        if cell.verdict is Outcome.DIFFERS and cells[0].verdict is not Outcome.DIFFERS
    ]


def _at_home(cells: Sequence[Cell]) -> Iterator[Finding]:
    if (own := _own(cells)) and cells[0].verdict in (Outcome.REFUSED, Outcome.ABSENT):
        kind = NOT_RUN_THERE if cells[0].verdict is Outcome.REFUSED else NOT_RUN_AT_HOME
        problem = f"{cells[0].said.rstrip('.')}."
        yield kind(runtime=cells[0].label, version=cells[0].version, problem=problem, own=own.label)


def _much(cell: Cell) -> str:
    return f"{cell.gap:.2g} of the largest value" if cell.gap else cell.said.rstrip(".")
