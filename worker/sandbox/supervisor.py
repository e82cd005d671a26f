"""The process between the zygote and a job: it forks the job, watches it, and stops it with a named reason."""

from __future__ import annotations

import dataclasses
import json
import os
import select
import signal
import sys
import tempfile
import time
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from worker.errors import NotRunnable
from worker.sandbox import cgroups, disk, kernel
from worker.sandbox.answers import ResultPipe, Step, answer, watch
from worker.sandbox.cgroups import Group
from worker.sandbox.counting import Counted, Handover, serve
from worker.sandbox.layers import BEFORE_FORK, IN_JOB, Layer, engage, library_paths, missing
from worker.sandbox.namespaces import Enclosure, enter, settle
from worker.sandbox.request import Cell, Program, Request

POLL_SECONDS = 0.02
FIRST_POLL_SECONDS = 0.002  # many jobs are short, and their peak is worth knowing
HANDED_OVER = "handed-over.json"  # in the job's folder: what its step says to the program that it ends in
MEMORY_LINES = ("RssAnon:", "RssShmem:", "VmSwap:")


def _send(status: int, line: dict[str, Any]) -> None:
    os.write(status, json.dumps(line).encode() + b"\n")


def _memory_bytes(pid: int | str) -> int:
    """Memory that only this process has, resident or swapped; 0 once it is gone."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text(encoding="utf-8", errors="replace").splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith(MEMORY_LINES))


@dataclass
class Watch:
    """What is measured of one job. The baselines are what was there before it."""

    pid: int
    request: Request
    deadline: float
    memory_before: int
    disk_before: int
    disk_due: float = 0  # when to count the disk again
    peak: int = 0
    counted: Counted | None = None
    group: Group | None = None

    def excess(self) -> str:
        """Which limit is passed: memory, disk, files, hidden, wall; empty while none is."""
        limits = self.request.limits
        memory = self._memory()
        self.peak = max(self.peak, memory)
        if memory > limits.memory_bytes:
            return "memory"
        if time.monotonic() > self.deadline:
            return "wall"
        return self.disk_excess() if time.monotonic() > self.disk_due else ""

    def _memory(self) -> int:
        """Beyond what was there before; a program that took the job's place has given that back."""
        held = _memory_bytes(self.pid)
        if self.request.program:
            self.memory_before = min(self.memory_before, held)
        return held - self.memory_before

    def disk_excess(self) -> str:
        """The part of ``excess`` that is still true after the job has ended. Takes a fifth of the time at most."""
        started = time.monotonic()
        reason = self._count_disk()
        self.disk_due = started + 5 * (time.monotonic() - started)
        return reason

    def _count_disk(self) -> str:
        limits = self.request.limits
        try:
            used = disk.used_bytes(self.request.folder, limits.files) + disk.unlinked_bytes(self.pid)
        except disk.Hidden:
            return "hidden"
        except disk.TooManyFiles:
            return "files"
        return "disk" if used - self.disk_before > limits.disk_bytes else ""


def _wait(watched: Watch) -> str:
    """Until the job has ended or must end; the reason, empty where it ended by itself."""
    ended = select.poll()
    ended.register(os.pidfd_open(watched.pid), select.POLLIN)
    if watched.counted:
        ended.register(watched.counted.descriptor, select.POLLIN)
    pause = FIRST_POLL_SECONDS
    while not _has_ended(ended, pause, watched.counted):
        if reason := watched.excess():
            return reason
        pause = min(pause * 1.5, POLL_SECONDS)
    return watched.disk_excess()


def _has_ended(ended: select.poll, pause: float, counted: Counted | None) -> bool:
    events = ended.poll(pause * 1000)
    return bool(events) and not (counted and serve(counted, ended, events))


def _supervise(watched: Watch) -> dict[str, Any]:
    reason = _wait(watched)
    os.kill(watched.pid, signal.SIGKILL)  # nobody has waited for it, so the number is still its own
    _, status = os.waitpid(watched.pid, 0)
    if not reason and os.WIFSIGNALED(status) and watched.group and watched.group.was_short_of_memory():
        reason = "memory"
    counted = watched.counted.names if watched.counted else {}
    return {"status": status, "reason": reason, "peak": watched.peak, "denied": counted}


def _lock_up(cell: Cell, layers: dict[str, Layer], supervisor: int) -> bool:
    """Engage the job's layers and report all of them; False where the floor is missing."""
    kernel.die_with_parent(supervisor)
    # Where the machine runs out of memory, the kernel takes the job and not the worker.
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000", encoding="ascii")
    os.chdir(cell.request.folder)
    tempfile.tempdir = None  # imports have cached /tmp, TMPDIR says otherwise now
    sys.dont_write_bytecode = True  # it could not
    layers |= engage(IN_JOB, cell)
    _send(cell.status, {"layers": {name: dataclasses.asdict(layer) for name, layer in layers.items()}})
    return cell.request.weak or not missing(layers)


def _run_step(cell: Cell, step: Step) -> None:
    pipe, program = ResultPipe(cell.result), cell.request.program
    watch(pipe, cell.request)
    answered = answer(cell.request, step, lambda text: pipe.send({"progress": text}))
    sys.stdout.flush()
    sys.stderr.flush()
    if program and "value" in answered:
        answered = _become(program, answered["value"], cell.result)
    pipe.send(answered)


def _become(program: Program, value: dict[str, Any], result: int) -> dict[str, Any]:
    """Go on as the program, which finds the step's answer in a file and gives its own. Returns where that failed."""
    Path(HANDED_OVER).write_text(json.dumps(value), encoding="utf-8")
    os.set_inheritable(result, True)
    command = [*program.command, HANDED_OVER, str(result)]
    try:
        os.execve(command[0], command, {**os.environ, **program.environment})  # noqa: S606  (the worker named it)
    except OSError as error:
        return {"error": NotRunnable(problem=f"{command[0]} does not start: {error.strerror}").to_json()}


def _run_job(cell: Cell, step: Step, layers: dict[str, Layer], supervisor: int) -> NoReturn:
    """The job's own process, to its end."""
    try:
        contained = _lock_up(cell, layers, supervisor)
    except BaseException as error:
        _send(cell.status, {"problem": f"{type(error).__name__}: {error}"})
        os._exit(1)
    os.close(cell.status)  # from here on the job cannot speak for the sandbox
    try:
        if contained:
            _run_step(cell, step)
    finally:
        os._exit(0 if contained else 1)


def _fork_job(cell: Cell, step: Step, layers: dict[str, Layer], group: Group | None) -> int:
    supervisor = os.getpid()
    if (pid := os.fork()) == 0:
        if group:
            os.close(group.events)
        _run_job(cell, step, layers, supervisor)
    return pid


def _enclose(cell: Cell, enclosure: Enclosure) -> dict[str, Layer]:
    """Enter the namespaces that this machine allows. Returns in the process that is to watch the job, which in a pid
    namespace is a new one; this one then stays behind until that ends, for it is the one that the worker knows."""
    plan, request = enclosure.plan, cell.request
    if plan:
        program = request.program.command[:1] if request.program else ()
        enter(plan, (*library_paths(), *request.read, *program), request.folder)
        parent = _go_on_inside() if plan.processes else os.getppid()
        settle(plan)
        # Only now: the kernel forgets that a process dies with its parent when it becomes another user
        (kernel.die_with if plan.processes else kernel.die_with_parent)(parent)
    return {name: Layer(*told) for name, told in enclosure.told().items()}


def _go_on_inside() -> int:
    """Fork the first process of the pid namespace and go on in it; a descriptor of the process that stays behind."""
    outside = os.pidfd_open(os.getpid())
    if os.fork() == 0:
        return outside
    os.closerange(0, 2**31 - 1)
    os.wait()
    os._exit(0)


def oversee(cell: Cell, step: Step, enclosure: Enclosure) -> None:
    """Run one job and report on it. Called in a process of its own, which ends afterwards."""
    os.setsid()
    _send(cell.status, {"pid": os.getpid()})
    request = cell.request
    enclosure = enclosure.of_job(request.read, request.folder)
    alone = bool(enclosure.plan and enclosure.plan.files)
    layers = engage(BEFORE_FORK, cell)
    group, bounds = cgroups.enter(enclosure.home, f"{os.getppid()}-{os.getpid()}", request.limits)
    layers |= {"cgroup": Layer(group is not None, bounds)} | _enclose(cell, enclosure)
    cell = dataclasses.replace(cell, alone=alone, handover=Handover() if request.counted or request.foreign else None)
    watched = Watch(
        pid=0,
        group=group,
        request=request,
        deadline=time.monotonic() + request.limits.wall_seconds,
        memory_before=_memory_bytes("self"),
        disk_before=disk.used_bytes(request.folder, request.limits.files),
    )
    layers["supervisor"] = Layer(watched.memory_before > 0, "memory, disk and time, 50 times a second")
    watched.pid = _fork_job(cell, step, layers, group)
    os.close(cell.result)
    os.closerange(0, 3)  # the log ends with the job
    with nullcontext() if request.counted else suppress(OSError):  # without its words the calls are refused as well
        watched.counted = cell.handover.take(watched.pid) if cell.handover else None
    _send(cell.status, _supervise(watched))
