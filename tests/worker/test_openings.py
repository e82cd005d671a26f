"""A result is opened while its source still runs. With toy formats; real jobs are in the tests of the command line."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.worker import toy_formats
from tests.worker.local_jobs import Answer, LocalJobs
from tests.worker.toy_formats import SUMMARY, copying, toy, write
from worker import pipeline
from worker.errors import DiskFull, Forbidden, LarderError, ModelError, NoResult, TimedOut
from worker.formats._format import WRITTEN
from worker.looks import File
from worker.openings import QUESTION, Openings
from worker.report import Verdict
from worker.sandbox.attempts import Attempt, forbidden
from worker.sandbox.limits import Limits
from worker.work import Work, take_copy

LONG = 30.0


@pytest.fixture(autouse=True)
def known(monkeypatch: pytest.MonkeyPatch) -> None:
    toy_formats.install(monkeypatch, {"a": toy("A"), "b": toy("B", {"a": copying()})})


def nothing(path: Path) -> None:
    """The file stays as it was."""


class Ahead:
    """Jobs of which the converting one says that its result is there, and ends only when that has been opened twice."""

    def __init__(self, spoil: Callable[[Path], object] = nothing, error: LarderError | None = None) -> None:
        self.local, self.spoil, self.error = LocalJobs(), spoil, error
        self.opened = threading.Semaphore(0)
        self.canceled = 0

    def run(self, step: str, arguments: dict[str, Any], **more: Any) -> Answer:
        if step == "convert":
            return self._convert(arguments, more)
        self.opened.release()
        while not Path(arguments["asked"]).exists():
            if more["canceled"]():
                self.canceled += 1
                raise NoResult(status="9")
        return self.local.run(step, arguments, **more)

    def _convert(self, arguments: dict[str, Any], more: dict[str, Any]) -> Answer:
        answer = self.local.run("convert", arguments, **more)
        more["progress"](WRITTEN)
        assert all(self.opened.acquire(timeout=LONG) for _ in range(2)), "nobody opened the result"
        self.spoil(Path(arguments["target"]))
        if self.error:
            raise self.error
        return answer


def convert(tmp_path: Path, jobs: Ahead) -> pipeline.Result:
    source = pipeline.Source(write(tmp_path / "source"), "a", SUMMARY)
    (tmp_path / "work").mkdir()
    return pipeline.convert(jobs, source, "b", {}, tmp_path / "work", Limits())


def test_it_works(tmp_path: Path) -> None:
    assert convert(tmp_path, Ahead()).report.verdict is Verdict.VERIFIED


def test_what_is_written_after_that_is_another_file(tmp_path: Path) -> None:
    result = convert(tmp_path, Ahead(lambda path: path.write_text("something else")))
    assert result.report.verdict is Verdict.VERIFIED
    assert "something else" not in result.path.read_text()


def test_the_jobs_that_wait_end_with_the_conversion(tmp_path: Path) -> None:
    jobs = Ahead(error=ModelError(problem="it fell over"))
    with pytest.raises(ModelError):
        convert(tmp_path, jobs)
    assert jobs.canceled == 2


class Late(Ahead):
    """What waits for the source runs out of time by that."""

    ended = False

    def run(self, step: str, arguments: dict[str, Any], **more: Any) -> Answer:
        if step == "convert" or self.ended:
            answer = self._convert(arguments, more) if step == "convert" else self.local.run(step, arguments, **more)
            self.ended = True
            return answer
        self.opened.release()
        raise TimedOut(seconds=1, kind="wall-clock")


def test_a_result_that_waited_too_long_is_opened_once_more(tmp_path: Path) -> None:
    assert convert(tmp_path, Late()).report.verdict is Verdict.VERIFIED


def trying(jobs: Ahead) -> Callable[..., Answer]:
    """The same jobs, of which those that open the result try what no model needs, and nobody waits for that."""
    plain = jobs.run

    def run(step: str, arguments: dict[str, Any], **more: Any) -> Answer:
        try:
            return plain(step, arguments, **more)
        except NoResult:
            raise forbidden([Attempt("program", "sh")]) from None

    return run


def test_what_they_tried_counts_although_nobody_asks_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    jobs = Ahead(error=ModelError(problem="it fell over"))
    monkeypatch.setattr(jobs, "run", trying(jobs))
    with pytest.raises(Forbidden):
        convert(tmp_path, jobs)


class OneTries:
    """The first job of a result ends as it may, the second one tries what no model needs."""

    def __init__(self) -> None:
        self.began = threading.Event()

    def run(self, step: str, arguments: dict[str, Any], **more: Any) -> Answer:
        if "again" in arguments:
            self.began.set()
            raise forbidden([Attempt("program", "sh")])
        assert self.began.wait(LONG)
        raise ModelError(problem="it fell over")


def test_what_one_tried_counts_whatever_the_other_ended_with(tmp_path: Path) -> None:
    opened = Openings(
        Work(OneTries(), tmp_path, Limits(), seed=1), File(write(tmp_path / "made"), "b"), "", prints=False
    )
    write(tmp_path / "inputs")
    with pytest.raises(Forbidden):
        opened.ask([], tmp_path / "inputs")


class Lying:
    """A job that says it too early, twice."""

    def __init__(self) -> None:
        self.local = LocalJobs()

    def run(self, step: str, arguments: dict[str, Any], **more: Any) -> Answer:
        if step == "convert":
            more["progress"](WRITTEN)
            more["progress"](WRITTEN)
        return self.local.run(step, arguments, **more)


def test_a_job_that_says_it_too_early_gains_nothing(tmp_path: Path) -> None:
    source = pipeline.Source(write(tmp_path / "source"), "a", SUMMARY)
    (tmp_path / "work").mkdir()
    result = pipeline.convert(Lying(), source, "b", {}, tmp_path / "work", Limits())
    assert result.report.verdict is Verdict.VERIFIED


def test_without_a_question_it_is_opened_once(tmp_path: Path) -> None:
    jobs = LocalJobs()
    work = Work(jobs, tmp_path, Limits(), seed=1)
    result = File(write(tmp_path / "made"), "b")
    shown = Openings(work, result, "", prints=False, twice=False).ask([], None)
    assert len(shown.answer["weights"]) == 2
    assert shown.second is None
    assert jobs.asked == [("run", ["made", "told"])]
    assert (tmp_path / "told" / QUESTION).exists()


# Taking what a job may still change


def test_a_copy(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x" * 100_000)
    assert take_copy(tmp_path / "file", tmp_path / "copy", 100_000).read_bytes() == b"x" * 100_000


def test_without_room_no_part_of_a_copy_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    (tmp_path / "file").write_bytes(b"x")
    monkeypatch.setattr(os, "sendfile", full)
    with pytest.raises(DiskFull):
        take_copy(tmp_path / "file", tmp_path / "copy", 10)
    assert not (tmp_path / "copy").exists()


def linked(path: Path) -> None:
    path.symlink_to("/etc/passwd")


def named_twice(path: Path) -> None:
    path.touch()
    os.link(path, path.with_name("other"))


@pytest.mark.parametrize("make", [nothing, linked, named_twice, os.mkfifo, Path.mkdir])
def test_only_of_a_plain_file(make: Callable[[Path], object], tmp_path: Path) -> None:
    make(tmp_path / "file")
    with pytest.raises(NoResult):
        take_copy(tmp_path / "file", tmp_path / "copy", 10)


def test_only_of_so_many_bytes(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x" * 11)
    with pytest.raises(DiskFull):
        take_copy(tmp_path / "file", tmp_path / "copy", 10)
