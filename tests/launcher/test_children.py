"""Processes that are watched, and stopped together."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from project.launcher.children import LARGEST_LOG_BYTES, Children
from tests.stack import ROOT, wait_until_gone

SLEEP = (sys.executable, "-c", "import time; time.sleep(60)")
STUBBORN = (
    sys.executable,
    "-c",
    "import signal, time; signal.signal(15, signal.SIG_IGN); print('deaf', flush=True); time.sleep(60)",
)


@pytest.fixture
def children(tmp_path: Path) -> Iterator[Children]:
    family = Children(tmp_path, os.environ)
    yield family
    family.stop(0, last=None)


def wait_for_line(log: Path, line: str) -> None:
    deadline = time.monotonic() + 10
    while line not in log.read_text(encoding="utf-8") and time.monotonic() < deadline:
        time.sleep(0.02)


def test_it_works(children: Children) -> None:
    child = children.start("sleeper", *SLEEP)
    assert child.status is None
    assert children.find_dead() is None
    children.stop(5, last=child)
    assert child.status == -signal.SIGTERM


def test_one_that_dies_is_found_with_the_end_of_its_log(children: Children) -> None:
    children.start("sleeper", *SLEEP)
    dead = children.start("broken", sys.executable, "-c", "print('what went wrong'); raise SystemExit(3)")
    dead.process.wait(10)
    assert children.find_dead() is dead
    assert "The broken process ended with exit status 3." in dead.obituary
    assert "    what went wrong" in dead.obituary


def test_signal_is_named(children: Children) -> None:
    child = children.start("victim", *SLEEP)
    child.process.kill()
    child.process.wait()
    assert "The victim process was killed by SIGKILL." in child.obituary


def test_passing_one_may_end(children: Children) -> None:
    children.start_passing("short", sys.executable, "-c", "pass").process.wait(10)
    assert children.find_dead() is None


def test_one_that_does_not_listen_is_killed(children: Children) -> None:
    child = children.start("stubborn", *STUBBORN)
    wait_for_line(child.log, "deaf")
    children.stop(0.2, last=None)
    assert child.status == -signal.SIGKILL


FAREWELL = """
import pathlib, signal, sys, time
def end(*_):
    time.sleep(0.3)
    print("alive" if pathlib.Path("/proc", sys.argv[1], "cmdline").read_bytes() else "gone", flush=True)
    raise SystemExit
signal.signal(signal.SIGTERM, end)
print("listening", flush=True)
time.sleep(60)
"""


def test_last_one_outlives_the_others(children: Children) -> None:
    """The broker is still there while the worker says goodbye."""
    broker = children.start("broker", *SLEEP)
    worker = children.start("worker", sys.executable, "-c", FAREWELL, str(broker.process.pid))
    wait_for_line(worker.log, "listening")
    children.stop(5, last=broker)
    assert worker.log.read_text(encoding="utf-8").splitlines() == ["listening", "alive"]


def test_children_die_with_a_launcher_that_is_killed(tmp_path: Path) -> None:
    launcher = f"""
import os, pathlib, sys, time
from project.launcher.children import Children
child = Children(pathlib.Path({str(tmp_path)!r}), os.environ).start("sleeper", *{SLEEP!r})
print(child.process.pid, flush=True)
time.sleep(60)
"""
    with subprocess.Popen([sys.executable, "-c", launcher], cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        child = int(process.stdout.readline())
        process.kill()
    assert wait_until_gone({child}) == []


def test_long_log_is_set_aside(children: Children, tmp_path: Path) -> None:
    (tmp_path / "short.log").write_bytes(b"x" * (LARGEST_LOG_BYTES + 1))
    children.start_passing("short", sys.executable, "-c", "print('new')").process.wait(10)
    assert (tmp_path / "short.log").read_text(encoding="utf-8") == "new\n"
    assert (tmp_path / "short.log.1").stat().st_size == LARGEST_LOG_BYTES + 1
