"""The jobs of one result: it is opened in fresh ones as soon as it is there, while the source still runs, and asked
once the source has answered. No model is opened here."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from worker import formats, loadback
from worker.errors import Forbidden, LarderError
from worker.loadback import Turn
from worker.looks import AT_ONCE, File, run_again, shown_in
from worker.work import MAX_VALUES, STOPPED, Json, Work, take_copy, text, whole

if TYPE_CHECKING:
    from worker.verify import Again

QUESTION, INPUTS = "question.json", "inputs.npz"
Elsewhere = Mapping[str, "Again | LarderError"]


@dataclass(frozen=True)
class Shown:
    """What a result showed: Larder's own first run of it, and where its values are, if it gave any; the second run; and
    what it answered or raised in each runtime but Larder's own, by the runtime's name."""

    answer: Json
    outputs: Path
    second: Again | None = None
    elsewhere: Elsewhere = field(default_factory=dict)


class Openings:
    """A result that is opened in two jobs at once, which wait for ``ask``; then in every other runtime that is present.

    ``signature``: the one that is meant, where the result has several. ``prints``: are fingerprints of the weights
    wanted? ``twice``: may there be something to ask, so that a second job is wanted?
    ``looks``: is it to be opened in other runtimes than Larder's own? ``close`` ends what still waits.
    """

    def __init__(
        self, work: Work, result: File, signature: str, *, prints: bool, twice: bool = True, looks: bool = True
    ) -> None:
        self.result, self._signature, self._prints = result, signature, prints
        self._is_closed = False
        self._work = replace(work, canceled=lambda: self._is_closed or work.canceled())
        self._outputs = work.subfolder("result") / "outputs.npz"
        self._told = work.subfolder("told")
        self._told.chmod(0o755)  # for a job that is another user
        self._question = {"asked": str(self._told / QUESTION)}
        self._home, self._others = _runtimes(result) if looks else (None, [])
        self._threads = ThreadPoolExecutor(AT_ONCE)
        self._first = self._threads.submit(self._run)
        self._second = self._threads.submit(self._run_again) if twice and formats.get(result.format).load else None
        self._jobs: list[Future[Any]] = [self._first, *filter(None, [self._second])]

    def ask(self, specs: Sequence[Json], inputs: Path | None) -> Shown:
        """What it shows on the draws of ``inputs``, an .npz under the names of ``specs``; without them, what it shows
        when it is opened. Raises what the first or the second of its jobs ended with."""
        try:
            if inputs is None or self._second is None:
                self._tell(specs, None)
                return Shown(self._first.result(), self._outputs)
            self._tell(specs, take_copy(inputs, self._told / INPUTS, MAX_VALUES))
            further = {turn.runtime: self._threads.submit(self._shown_in, turn) for turn in self._others}
            self._jobs += further.values()
            answer, (second, at_home) = self._first.result(), self._second.result()
            elsewhere = {runtime: found.result() for runtime, found in further.items()}
            return Shown(answer, self._outputs, second, {**at_home, **elsewhere})
        finally:
            self.close()

    def close(self) -> None:
        """End the jobs that still run, and wait for that. Forbidden where one of them tried what no model needs: that
        counts whatever the others ended with, and whether or not anybody still wants to know what it showed."""
        self._is_closed = True
        self._threads.shutdown(cancel_futures=True)
        for job in self._jobs:
            if (caught := _caught(job)) is not None:
                raise caught

    def _tell(self, specs: Sequence[Json], inputs: Path | None) -> None:
        """Jobs look for it in a folder where they cannot write: it is there with all that it says, or not at all."""
        draft = self._work.folder / QUESTION
        draft.write_text(json.dumps({"specs": list(specs), "inputs": text(inputs)}), encoding="utf-8")
        draft.chmod(0o644)
        draft.replace(self._told / QUESTION)

    def _run(self) -> Json:
        """Larder's own first run, which tells of the weights, too."""
        folder = self._outputs.parent
        about = {"path": str(self.result.path), "format": self.result.format, "signature": self._signature}
        wanted = {"prints": self._prints, "outputs": str(self._outputs), **self._question}
        return whole(self._work.job("run", about | wanted, [self.result.path, self._told], folder), folder)

    def _run_again(self) -> tuple[Again, Elsewhere]:
        """By the loader that people use, where Larder's own is another one; that it refuses is no end."""
        own = replace(self.result, signature=self._signature)
        if self._home is None:
            return run_again(self._work, own, self._question, self._told), {}
        found = self._shown_in(self._home)
        if isinstance(found, STOPPED):
            raise found
        second = run_again(self._work, own, self._question, self._told) if isinstance(found, LarderError) else found
        return second, {self._home.runtime: found}

    def _shown_in(self, turn: Turn) -> Again | LarderError:
        """What it showed there, or why it did not."""
        try:
            return shown_in(turn, self._work, self.result, self._question, self._told)
        except LarderError as error:
            return error


def _caught(job: Future[Any]) -> Forbidden | None:
    """What the job tried, as an error; some jobs give theirs back."""
    if job.cancelled():
        return None
    ending = job.exception() or job.result()
    return ending if isinstance(ending, Forbidden) else None


def _runtimes(result: File) -> tuple[Turn | None, list[Turn]]:
    """The one that people are told to use, where it is not Larder's own, and the further ones to be asked."""
    size = result.path.stat().st_size
    home = loadback.home(result.format, size)
    asked = {turn.runtime: turn for turn in loadback.runtimes(result.format, size) if turn.is_asked}
    return asked.pop(home, None), list(asked.values())
