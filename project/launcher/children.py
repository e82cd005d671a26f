"""The processes that Larder consists of: started, watched and stopped together."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

PR_SET_PDEATHSIG = 1
LARGEST_LOG_BYTES = 10 * 1024 * 1024
TAIL_LINES = 20

_libc = ctypes.CDLL(None)  # loaded before any fork


class Child:
    """One process in a session of its own, so that Ctrl-C reaches the launcher alone, with its output in a log."""

    def __init__(self, name: str, command: Sequence[str], log: Path, environment: Mapping[str, str]) -> None:
        self.name = name
        self.log = log
        _set_aside(log)
        launcher = os.getpid()
        with log.open("ab") as output:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=environment,
                start_new_session=True,
                preexec_fn=lambda: _die_with(launcher),
            )

    @property
    def status(self) -> int | None:
        """The exit status, None while it runs."""
        return self.process.poll()

    @property
    def obituary(self) -> str:
        """How it ended, with the end of its log."""
        status = self.process.returncode
        how = f"was killed by {signal.Signals(-status).name}" if status < 0 else f"ended with exit status {status}"
        return f"The {self.name} process {how}. The end of its log, {self.log}:\n\n{self._tail()}"

    def _tail(self) -> str:
        lines = self.log.read_text(encoding="utf-8", errors="replace").splitlines()
        return "\n".join(f"    {line}" for line in lines[-TAIL_LINES:])

    def wait(self, deadline: float) -> None:
        """Wait for the end; when the time is over, end it and whatever it started in its session."""
        try:
            self.process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()


def _die_with(launcher: int) -> None:
    """In the child: die when the launcher does, even by kill -9, for nobody else would stop it."""
    _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != launcher:  # it died before the line above
        os._exit(1)


def _set_aside(log: Path) -> None:
    """Begin a new log where the old one has grown long; one old one is kept."""
    if log.exists() and log.stat().st_size > LARGEST_LOG_BYTES:
        log.replace(log.with_suffix(".log.1"))


class Children:
    """All of them, with one environment and one folder of logs."""

    def __init__(self, logs: Path, environment: Mapping[str, str]) -> None:
        self.logs = logs
        self.environment = dict(environment)
        self.lasting: list[Child] = []
        self.passing: list[Child] = []

    def start(self, name: str, *command: str) -> Child:
        """Start a child that has to run for as long as Larder does."""
        self.lasting.append(self._new(name, command))
        return self.lasting[-1]

    def start_passing(self, name: str, *command: str) -> Child:
        """Start a child that does one thing and ends."""
        self.passing.append(self._new(name, command))
        return self.passing[-1]

    def _new(self, name: str, command: Sequence[str]) -> Child:
        return Child(name, command, self.logs / f"{name}.log", self.environment)

    def find_dead(self) -> Child | None:
        """A child that has ended though it should not have."""
        return next((child for child in self.lasting if child.status is not None), None)

    def stop(self, seconds: float, last: Child | None) -> None:
        """Stop all at the same time, but ``last`` when the others, which need it, are gone.

        Only the processes themselves are asked: Celery's finishes or gives back what its jobs do.
        """
        others = [child for child in (*self.passing, *self.lasting) if child is not last]
        for group in (others, [last] if last else []):
            _stop(group, time.monotonic() + seconds)


def _stop(group: Sequence[Child], deadline: float) -> None:
    for child in group:
        child.process.terminate()
    for child in group:
        child.wait(deadline)
