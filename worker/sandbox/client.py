"""The worker's side of the sandbox: one zygote, and jobs that run in it, several at once."""

from __future__ import annotations

import dataclasses
import json
import logging
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from worker.errors import LarderError, SandboxError, SandboxMissing
from worker.sandbox.endings import Ending, judge
from worker.sandbox.layers import ENVIRONMENT, REPOSITORY, Layer, missing
from worker.sandbox.limits import MIB, Limits
from worker.sandbox.pipes import JobPipes
from worker.sandbox.request import Program, Request

MAX_REQUEST_BYTES = 128 * 1024
MAX_READY_BYTES = 64 * 1024
READY_SECONDS = 120.0
REHEARSAL = "nothing"  # a step of the self-check
OWN_USER = 64_123  # nobody has it, neither people nor systemd's services
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Outcome:
    """What a job that ended well has to say. ``value`` came from the job: data, to be checked by whoever uses it."""

    value: dict[str, Any]
    layers: dict[str, Layer]
    seconds: float
    peak_memory_bytes: int
    log: str
    events: tuple[dict[str, Any], ...]


def never() -> bool:
    """Nobody cancels."""
    return False


def ignore(text: str) -> None:
    """Nobody listens."""


@dataclass(frozen=True)
class Walls:
    """What the operator may say about them. ``inside``: a command that starts the zygote, as in another kernel, with
    the zygote's own command as its last arguments. ``user``: the user id that jobs have where Larder runs as root, 0
    for root's. ``weak``: jobs run where the floor is missing, too. ``group``: the folder of the control group below
    which each job gets its own; "" for one that is found, "-" for none."""

    inside: tuple[str, ...] = ()
    user: int = OWN_USER
    weak: bool = False
    group: str = ""


STANDARD = Walls()


def _names(folder: str) -> list[str]:
    return os.listdir(folder) if os.path.isdir(folder) else []


def _emptied(request: Request, before: set[str]) -> bool:
    """Nothing is left in the folder of what a job wrote that was lost; False where something cannot be removed."""
    for name in set(_names(request.folder)) - before:
        path = Path(request.folder, name)
        with suppress(OSError):
            path.unlink() if path.is_symlink() or not path.is_dir() else shutil.rmtree(path)
    return not set(_names(request.folder)) - before


class Zygote:
    """A warm process that has imported TensorFlow and forks one locked-up job for every ``run``.

    It starts at once and imports while the worker goes on. It ends with this process, however that ends, and takes its
    jobs along. ``steps`` are modules with a registry ``STEPS``. Where refused system calls are to be ``counted``,
    ``denied`` has them by step and name, of all jobs.
    """

    def __init__(
        self,
        log_stderr: bool = False,
        *,
        steps: Sequence[str] = ("worker.steps",),
        preload: bool = True,
        walls: Walls = STANDARD,
        counted: bool = False,
    ) -> None:
        self.walls = walls
        self.denied: Counter[tuple[str, str]] | None = Counter() if counted else None
        self._options = [*steps, f"--user={walls.user}", f"--group={walls.group}", *([] if preload else ["--bare"])]
        self._log_stderr = log_stderr
        self._lock = threading.Lock()  # for starting and getting ready; jobs run side by side
        self._counting = threading.Lock()
        self._closed = 0  # how often somebody ended it on purpose
        self._ready: dict[str, Any] | None = None
        self._start()

    def __enter__(self) -> Zygote:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the zygote and the jobs that run in it. A later ``run`` would start it again."""
        self._closed += 1
        self._process.kill()  # first, for a thread may hold the lock and wait for the imports
        with self._lock:
            self._end()

    def wait_ready(self, timeout: float = READY_SECONDS) -> dict[str, Any]:
        """Wait for the imports, then measure the layers in a first job: ``{pid, threads, seconds, layers}``.

        Starts the zygote again where it has died. Raises SandboxError where it does not get ready in time.
        """
        with self._lock:
            if self._process.poll() is not None:
                self._end()
                self._start()
            if self._ready is None:
                ready = self._receive_ready(timeout)
                self._ready = {**ready, "layers": self._rehearse()}
            return self._ready

    def run(
        self,
        step: str,
        arguments: dict[str, Any],
        *,
        read: Sequence[Path],
        folder: Path,
        limits: Limits,
        canceled: Callable[[], bool] = never,
        progress: Callable[[str], None] = ignore,
        strict: bool = False,
        program: Program | None = None,
    ) -> Outcome:
        """Run one step in a job of its own. It may read ``read``, and write in ``folder`` only. Where there is a
        ``program``, the job goes on as that after its step, and the answer is the program's.

        Raises the LarderError that the step reported, or the one that says how the job ended. ``canceled`` is asked
        five times a second; ``progress`` is called with the step's texts while it runs. ``strict`` kills the job at the
        first system call that would have been refused, to prove that honest ones make none.
        """
        if (absent := missing(self.wait_ready()["layers"])) and not self.walls.weak:
            raise SandboxMissing(missing=absent)
        started = time.monotonic()
        paths = tuple(str(path.absolute()) for path in read)  # not resolved: a link among them is there in the job, too
        request = Request(step, arguments, paths, str(folder.resolve()), limits, strict, self.walls.weak, program)
        foreign = bool(arguments.get("consent")) and not program  # which Node does not run
        request = dataclasses.replace(request, counted=self.denied is not None, foreign=foreign)
        ending = self._perform(request, canceled, progress)
        ending.told = tuple(ending.denied) if foreign else ()
        seconds = time.monotonic() - started
        try:
            value = judge(ending, limits, self.walls.weak)
        except LarderError as error:
            log.debug("job %s: %s after %.2f s, peak %d MiB", step, error.code, seconds, ending.peak // MIB)
            raise
        return Outcome(value, ending.layers, seconds, ending.peak, ending.log, tuple(ending.events))

    @property
    def absent(self) -> str:
        """What of the floor is missing, whether or not the operator lets jobs run without it; empty where it holds."""
        return missing(self.wait_ready()["layers"])

    def _start(self) -> None:
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._stderr: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115  (closed by _end)
        own = [str(theirs.fileno()), str(os.getpid())]
        command = [sys.executable, "-P", "-s", "-m", "worker.sandbox.zygote", *own, *self._options]
        with theirs:
            self._process = subprocess.Popen(
                [*self.walls.inside, *command],
                cwd="/",
                env={**ENVIRONMENT, "PATH": "/usr/bin:/bin", "PYTHONPATH": str(REPOSITORY)},
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=None if self._log_stderr else self._stderr,
                start_new_session=True,  # Ctrl-C is for the worker, which then closes it
            )

    def _end(self) -> None:
        """The kernel takes the jobs along, each with its supervisor."""
        self._process.kill()
        self._process.wait()
        self._control.close()
        self._stderr.close()
        self._ready = None

    def _receive_ready(self, timeout: float) -> dict[str, Any]:
        self._control.settimeout(timeout)
        try:
            message = self._control.recv(MAX_READY_BYTES)
        except TimeoutError:
            raise SandboxError(problem=f"the zygote was not ready after {timeout:g} seconds") from None
        finally:
            self._control.settimeout(None)
        ready = json.loads(message) if message else {"problem": self._last_words()}
        if "problem" in ready:
            self._process.wait()
            raise SandboxError(problem=f"the zygote did not start: {ready['problem']}")
        return dict(ready)

    def _last_words(self) -> str:
        status = self._process.wait()
        self._stderr.seek(0)
        lines = self._stderr.read().decode("utf-8", "replace").strip().splitlines()
        return lines[-1] if lines else f"exit status {status}"

    def _rehearse(self) -> dict[str, Layer]:
        """What engages around a job on this machine, from a job that does nothing."""
        with tempfile.TemporaryDirectory(prefix="larder-") as folder:
            limits = Limits(wall_seconds=30)
            ending = self._attempt(Request(REHEARSAL, {}, (), folder, limits), never, ignore)
        if ending.problem or not ending.layers:
            raise SandboxError(problem=ending.problem or "the first job did not begin")
        return ending.layers

    def _perform(self, request: Request, canceled: Callable[[], bool], progress: Callable[[str], None]) -> Ending:
        """Run a job; a second time where the zygote died before it took it, or took it along."""
        closed, before = self._closed, set(_names(request.folder))
        ending = self._attempt(request, canceled, progress)
        if ending.problem or ending.reason or ending.status is not None:
            return ending
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=1)
        if ending.begun and (self._process.poll() is None or self._closed > closed or not _emptied(request, before)):
            return ending
        self.wait_ready()
        return self._attempt(request, canceled, progress)

    def _count(self, request: Request, ending: Ending) -> None:
        if self.denied is not None:
            with self._counting:
                self.denied.update({(request.step, name): count for name, count in ending.denied.items()})

    def _attempt(self, request: Request, canceled: Callable[[], bool], progress: Callable[[str], None]) -> Ending:
        message = request.encode()
        if len(message) > MAX_REQUEST_BYTES:
            raise SandboxError(problem=f"its arguments take {len(message)} bytes, more than {MAX_REQUEST_BYTES}")
        pipes = JobPipes()
        try:
            with suppress(BrokenPipeError, ConnectionResetError):  # its pipes tell it as well
                socket.send_fds(self._control, [message], pipes.write_ends)
            pipes.close_write_ends()
            ending = pipes.follow(request.limits.wall_seconds, canceled, progress)
            self._count(request, ending)
            return ending
        finally:
            pipes.close()
