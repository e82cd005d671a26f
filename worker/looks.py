"""Two looks beyond the values: where the result parts from the source, and where else it runs. Both are made of jobs
that open one file each, and are judged here, outside of them. No model is opened here."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from worker import loadback, node
from worker.errors import Crashed, LarderError, ModelError, NoResult, NotRunnable
from worker.formats._format import TensorSpec
from worker.sandbox.request import Program
from worker.work import MAX_VALUES, MIB, OF_THE_JOB, STOPPED, Json, Work, sense, take, text, under_its_suffix

if TYPE_CHECKING:
    from worker.report import Check, Finding
    from worker.verify import Again, Arrays, Seen, Terms
    from worker.verify.drift import Tensors
    from worker.verify.loadback import AskAgain, Cell

MAX_INNER = 128 * MIB  # of inner tensors that a job may hand over: 200, thinned, are 52
AT_ONCE = 2


@dataclass(frozen=True)
class File:
    """A model's file and its format, and the signature that is meant where it is not the usual one."""

    path: Path
    format: str
    signature: str = ""


@dataclass(frozen=True)
class Look:
    """What both looks need: the jobs, the two files, what they showed when they ran, and on which inputs.

    ``specs`` are the source's inputs as they travel to jobs, ``inputs`` the .npz of draws under their names.
    ``elsewhere``: what the result showed or raised in the runtimes that were asked already. ``ask_again``: has the
    source say how far rounding moves it; None where nobody can.
    """

    work: Work
    source: File
    result: File
    before: Seen
    after: Seen
    terms: Terms
    specs: Sequence[Json]
    inputs: Path
    elsewhere: Mapping[str, Again | LarderError] = field(default_factory=dict)
    ask_again: AskAgain | None = None

    def beside_itself(self) -> Look:
        """The same, with what the result answered in its own runtime to compare other runtimes with: for a result that
        rounding has moved too far from the source."""
        from worker import verify

        names = verify.pair_outputs(self.before, self.after) or {}
        values = [{old: draw[new] for old, new in names.items()} for draw in self.after.values]
        return replace(self, before=replace(self.before, values=values), ask_again=None)

    # Where they part -----------------------------------------------------------------------------------------------

    def drift(self, allowed: float, differs: bool) -> Check | None:
        """The first layer that departs, and the difference from layer to layer, on the row where the outputs lie
        furthest apart. None where one of the two shows nothing of its inside."""
        from worker import verify
        from worker.verify.drift import drift_check, worst_row

        names = verify.pair_outputs(self.before, self.after)
        if names is None or not self.before.values:
            return None
        draw, row = worst_row(self.before.values, self.after.values, names)
        self.work.stage("comparing layer by layer")
        with ThreadPoolExecutor(AT_ONCE) as threads:
            sides = {"inside-source": self.source, "inside-result": self.result}
            source, result = threads.map(lambda name: self._inside(name, sides[name], draw, row), sides)
        return drift_check(source, result, allowed, differs) if source and result else None

    def _inside(self, folder_name: str, file: File, draw: int, row: int) -> Tensors:
        """The inner tensors of one file, in the order in which they are computed; none where a job cannot show them."""
        from worker import verify
        from worker.verify.drift import taken

        folder = self.work.subfolder(folder_name)
        inner = folder / "inner.npz"
        wishes = {"specs": list(self.specs), "draw": draw, "row": row, "inner": str(inner)}
        try:
            self._job("inside", file, wishes, folder)
            return taken(verify.load_draws(take(inner, MAX_INNER), MAX_INNER)) if os.path.lexists(inner) else []
        except STOPPED:
            raise
        except LarderError:  # the picture is worth having, and not worth a failure
            return []

    # Where else it runs --------------------------------------------------------------------------------------------

    def load_back(self) -> tuple[Check, list[Finding]] | None:
        """The result in every runtime of its format that is present; None for a format that nothing runs."""
        from worker.verify.loadback import loadback_check, loadback_findings

        turns = loadback.runtimes(self.result.format, self.result.path.stat().st_size)
        if not turns or not self.before.values:
            return None
        cells = [self._cell(turn) for turn in turns]
        for turn, cell in zip(turns, cells, strict=True):
            if took_part(cell):
                self.work.versions |= turn.releases
        return loadback_check(cells), loadback_findings(cells)

    def _cell(self, turn: loadback.Turn) -> Cell:
        from worker.verify.loadback import answered, answered_again, refused, unless_few, untold

        cell = not_asked(turn)
        if turn.absent:
            return cell
        if turn.own:
            return answered(cell, self.before, self.after, self.terms)
        try:
            known = self.elsewhere.get(turn.runtime)
            shown = known or shown_in(turn, self.work, self.result, self._question(), self.inputs)
            if isinstance(shown, LarderError):
                raise shown
            with sense():
                found = answered_again(cell, self.before, shown, self.terms, self.ask_again if turn.by_node else None)
                return unless_few(found, self.before, self.after, sorted(shown.values), self.terms)
        except STOPPED:
            raise
        except (*OF_THE_JOB, NotRunnable) as error:  # of the job, not of the result
            return untold(cell, error)
        except LarderError as error:
            return refused(cell, error)

    def _question(self) -> Json:
        return {"specs": list(self.specs), "inputs": str(self.inputs)}

    def _job(self, step: str, file: File, wishes: Json, folder: Path) -> Json:
        return ask(self.work, step, file, {**wishes, "inputs": str(self.inputs)}, self.inputs, folder)


def not_asked(turn: loadback.Turn) -> Cell:
    """The cell of a runtime that has not been asked, with the reason where it cannot be."""
    from worker.verify.loadback import Cell, Outcome

    named = turn.runtime, turn.label, turn.version
    return Cell(*named, Outcome.ABSENT, said=turn.absent, install=turn.install, own=turn.own)


def took_part(cell: Cell) -> bool:
    """Did this runtime open the result, or refuse to?"""
    from worker.verify.loadback import Outcome

    return cell.verdict is not Outcome.ABSENT or cell.gap is not None


def shown_in(turn: loadback.Turn, work: Work, file: File, question: Json, read: Path) -> Again:
    """What a result answers to the smallest draws in a fresh job, in this runtime: see ``run_again``."""
    if turn.by_node:
        return run_in_tfjs(work, file, question, read)
    return run_again(work, file, question, read, turn.runtime)


def run_again(work: Work, file: File, question: Json, read: Path, runtime: str = "") -> Again:
    """What a result answers to the smallest draws in a fresh job: in this runtime, or as Larder always runs it.

    ``question``: the ``specs`` and ``inputs`` of the draws, or where that will be told once it is known, ``asked``;
    ``read`` is where they lie."""
    from worker.verify import Again, load_draws

    folder = work.subfolder(f"again-{runtime}")
    answers = folder / "outputs.npz"
    wishes = {**question, "outputs": str(answers), "again": True}
    answer = ask(work, "run", file, wishes | ({"runtime": runtime} if runtime else {}), read, folder)
    with sense():
        values = load_draws(take(answers, MAX_VALUES), MAX_VALUES) if os.path.lexists(answers) else []
        inputs_shown, outputs_shown = (tuple(map(TensorSpec.from_json, answer[side])) for side in ("inputs", "outputs"))
        numbered = dict(zip(map(int, answer["draws"]), values, strict=True))
        return Again(inputs_shown, outputs_shown, numbered)


def run_in_tfjs(work: Work, file: File, question: Json, read: Path) -> Again:
    """What a result answers to the smallest draws in TensorFlow.js: a job hands them over, and goes on as Node.

    ModelError where TensorFlow.js does not run it; NotRunnable where that was not tried."""
    from worker.verify import Again

    folder = work.subfolder("again-tfjs")
    answer = _answer_of_tfjs(work, file, question, read, folder)
    with sense():
        if answer["refusal"]:
            raise ModelError(problem=str(answer["refusal"]))
        told = answer["told"]
        inputs_shown, outputs_shown = (tuple(map(TensorSpec.from_json, told[side])) for side in ("inputs", "outputs"))
        draws = [_raw(rows, folder, number) for number, rows in enumerate(answer["draws"])]
        return Again(inputs_shown, outputs_shown, dict(zip(map(int, told["draws"]), draws, strict=True)))


def _answer_of_tfjs(work: Work, file: File, question: Json, read: Path, folder: Path) -> Json:
    """NotRunnable where Node ended before it could begin, which is no fault of the model."""
    here, said = node.found(), list[str]()
    named = under_its_suffix(file.path, file.format, folder)
    arguments = {"path": text(named), "format": file.format, **question}
    program = Program(here.command, dict(here.environment))
    try:
        return work.job("hand_over", arguments, [file.path, read, *here.read], folder, said.append, program)
    except (Crashed, NoResult) as error:
        if node.BEGUN in said:
            raise
        raise NotRunnable(problem=f"Node does not start in a job ({error.message.rstrip('.')})") from error


def _raw(rows: Sequence[Json], folder: Path, number: int) -> Arrays:
    """The outputs of one draw, from the files that ``worker/tfjs/run.js`` writes."""
    from worker.verify import load_raw

    files = [take(folder / f"output-{number}-{place}.bin", MAX_VALUES) for place in range(len(rows))]
    found = zip(rows, files, strict=True)
    return {str(row["name"]): load_raw(file, row["dtype"], row["shape"]) for row, file in found}


def ask(work: Work, step: str, file: File, wishes: Json, read: Path, folder: Path) -> Json:
    """The answer of one job that opens this file, and may read what else lies at ``read``; ``wishes`` is what else it
    is told."""
    named = under_its_suffix(file.path, file.format, folder)
    arguments = {"path": text(named), "format": file.format, "signature": file.signature, **wishes}
    return work.job(step, arguments, [file.path, read], folder)
