"""How a worker process comes up, says that it is there, and goes down."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest
from django.db import connections

from models_app.models import WorkerNode
from worker import heartbeat, runtime, tasks
from worker.errors import SandboxError, SandboxMissing
from worker.sandbox import selfcheck
from worker.sandbox.client import Walls
from worker.sandbox.layers import Layer


class FakeZygote:
    closed = False

    def __init__(self, walls: Walls) -> None:
        self.walls = walls

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def fresh(monkeypatch: pytest.MonkeyPatch) -> runtime.Runtime:
    own = runtime.Runtime()
    monkeypatch.setattr(runtime, "runtime", own)
    monkeypatch.setattr(runtime, "Zygote", FakeZygote)
    return own


@pytest.fixture
def stopping() -> Iterator[threading.Event]:
    yield runtime.stopping
    runtime.stopping.clear()


def finds(monkeypatch: pytest.MonkeyPatch, **layers: bool) -> None:
    """What the self-check is going to measure."""
    found = {name: Layer(active, "measured") for name, active in layers.items()}
    monkeypatch.setattr(selfcheck, "check", lambda zygote: found)


def refuses(monkeypatch: pytest.MonkeyPatch, reasons: str) -> None:
    monkeypatch.setattr(selfcheck, "reasons", lambda layers: reasons)
    monkeypatch.setattr(selfcheck, "problem", lambda layers: f"Refused: {reasons}" if reasons else "")


def test_it_works(fresh: runtime.Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    finds(monkeypatch, seccomp=True)
    refuses(monkeypatch, "")
    runtime.start(Walls())
    zygote = runtime.zygote()
    assert isinstance(zygote, FakeZygote)
    assert fresh.layers == {"seccomp": {"active": True, "detail": "measured", "by": ""}}
    runtime.stop()
    assert zygote.closed


def test_jobs_are_refused_where_the_floor_is_missing(fresh: runtime.Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    finds(monkeypatch, seccomp=False)
    refuses(monkeypatch, "seccomp")
    runtime.start(Walls())
    with pytest.raises(SandboxMissing, match="cannot contain them: seccomp"):
        runtime.zygote()
    assert fresh.problem == "Refused: seccomp"


def test_the_operator_may_have_them_run_all_the_same(fresh: runtime.Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    finds(monkeypatch, seccomp=False)
    refuses(monkeypatch, "seccomp")
    runtime.start(Walls(weak=True))
    assert isinstance(runtime.zygote(), FakeZygote)
    assert fresh.problem == "Refused: seccomp", "and it is still told"


def test_zygote_that_does_not_start_is_said(
    fresh: runtime.Runtime, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(zygote: Any) -> None:
        raise SandboxError(problem="the zygote did not start")

    monkeypatch.setattr(selfcheck, "check", broken)
    runtime.start(Walls())
    assert runtime.zygote()  # the next job tries again, and says what it meets
    assert "the zygote did not start" in fresh.problem
    assert "the zygote did not start" in caplog.text


def test_no_zygote_before_the_start(fresh: runtime.Runtime) -> None:
    fresh.checked.set()
    with pytest.raises(SandboxMissing):
        runtime.zygote()


@pytest.mark.django_db(transaction=True)
def test_worker_says_that_it_is_there_and_that_it_leaves(
    fresh: runtime.Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    fresh.layers, fresh.problem = {"seccomp": {"active": False, "detail": "x"}}, "Jobs are refused."
    monkeypatch.setattr(tasks, "_node", heartbeat.Heartbeat(tasks._say_here, 0.01, connections.close_all))
    tasks.come_up()
    node = WorkerNode.objects.get()
    assert (node.sandbox_layers, node.sandbox_problem) == (fresh.layers, "Jobs are refused.")
    assert WorkerNode.objects.problem() == "Jobs are refused."
    seen = threading.Event()
    while not seen.wait(0.01):
        if WorkerNode.objects.get().seen_at > node.seen_at:
            seen.set()
    tasks.go_down()
    assert not WorkerNode.objects.exists()


def test_heartbeat_goes_on_after_a_failure(caplog: pytest.LogCaptureFixture) -> None:
    beats, again, finished = [0], threading.Event(), threading.Event()

    def beat() -> None:
        beats[0] += 1
        if beats[0] == 1:
            raise OSError("the database is away")
        again.set()

    with heartbeat.Heartbeat(beat, 0.001, finished.set):
        assert again.wait(20)
    assert finished.is_set()
    assert "the database is away" in caplog.text


def test_ending_worker_does_not_complain_about_its_zygote(
    fresh: runtime.Runtime,
    stopping: threading.Event,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def closed(zygote: Any) -> None:
        raise SandboxError(problem="closed")

    stopping.set()
    monkeypatch.setattr(selfcheck, "check", closed)
    runtime.start(Walls())
    runtime.zygote()
    assert (fresh.problem, caplog.text) == ("", "")
