"""What the filter refuses is counted by name, and is refused all the same."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.worker import levels
from tests.worker.test_sandbox import FAKES, SMALL
from worker.errors import Forbidden
from worker.sandbox import seccomp
from worker.sandbox.client import Walls, Zygote
from worker.sandbox.selfcheck import ACTS

LEVELS = {"as it is": (), "ordinary user": levels.AS_ORDINARY_USER}


@pytest.fixture(scope="module", params=LEVELS)
def counting(request: pytest.FixtureRequest) -> Iterator[Zygote]:
    with Zygote(steps=(FAKES,), preload=False, walls=Walls(LEVELS[request.param]), counted=True) as own:
        own.wait_ready()
        yield own


def denied(zygote: Zygote, step: str) -> dict[str, int]:
    assert zygote.denied is not None
    return {name: count for (of, name), count in zygote.denied.items() if of == step}


def test_it_works(counting: Zygote, tmp_path: Path) -> None:
    assert counting.run("echo", {"word": "x"}, read=(), folder=tmp_path, limits=SMALL).value == {"heard": "x"}
    assert denied(counting, "echo") == {}


def test_threads_are_made_by_the_older_call(counting: Zygote, tmp_path: Path) -> None:
    outcome = counting.run("start-threads", {}, read=(), folder=tmp_path, limits=SMALL)
    assert outcome.value == {"threads": 8}
    assert denied(counting, "start-threads") == {"clone3": 8}


def test_a_program_is_counted_and_does_not_start(counting: Zygote, tmp_path: Path) -> None:
    with pytest.raises(Forbidden, match="start a program"):
        counting.run("start-program", {}, read=(), folder=tmp_path, limits=SMALL)
    assert [name.partition("(")[0] for name in denied(counting, "start-program")] == ["clone3", "clone"]


@pytest.mark.parametrize(("probe", "call"), [("open a TCP connection", "socket"), ("use io_uring", "io_uring_setup")])
def test_what_is_counted_answers_as_ever(counting: Zygote, tmp_path: Path, probe: str, call: str) -> None:
    found = counting.run(probe, {"port": 9}, read=(), folder=tmp_path, limits=SMALL).value["errno"]
    assert found == seccomp.error_of(call)
    assert found in ACTS[probe].refused
    assert denied(counting, probe) == {call: 1}


def test_what_kills_a_job_kills_it(counting: Zygote, tmp_path: Path) -> None:
    with pytest.raises(Forbidden):
        counting.run("make a namespace", {}, read=(), folder=tmp_path, limits=SMALL)


def test_hints_are_told_to_be_followed() -> None:
    assert {seccomp.error_of(name) for name in ("mbind", "sched_setaffinity", "chmod")} == {0}
    assert seccomp.error_of("linkat") == 1
