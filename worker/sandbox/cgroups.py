"""A control group around each job, where the machine has handed one over: the kernel counts its memory and its tasks.

cgroup v2 alone (https://docs.kernel.org/admin-guide/cgroup-v2.html). Jobs get groups of their own below a *home*: the
group that this process is in, where that was delegated (systemd's ``Delegate=yes``; the root of a container's own
tree), or the one above it (``DelegateSubgroup=``), or the one that the operator names. A group that holds processes
can hand nothing on to groups below it, so often there is no home; then there is none, and the supervisor counts alone.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from worker.sandbox.limits import MIB, Limits, size

CONTROLLERS = ("memory", "pids")
PREFIX = "larder-"
TASKS = 512  # the supervisor and the threads of the job
# Beyond the job's limit, which the supervisor keeps: its own pages, those of the kernel, and files that are being read
SPARE_BYTES = 512 * MIB
SETTLED_SECONDS = 5.0  # a younger group may be one whose job has yet to enter it
DELEGATED = ("user.delegate", "trusted.delegate")  # attributes that systemd sets
NONE = "-"  # as the operator's choice: no groups


@dataclass(frozen=True)
class Home:
    """Where jobs get groups of their own; ``reason`` is why nowhere."""

    folder: str = ""
    reason: str = "not tried"


@dataclass(frozen=True)
class Group:
    """One job's. ``events`` is open for the supervisor, which may not see the folder any more."""

    folder: str
    events: int

    def was_short_of_memory(self) -> bool:
        """Has the kernel killed one of its processes for want of memory?"""
        found = re.search(rb"^oom_kill (\d+)$", os.pread(self.events, 4096, 0), re.MULTILINE)
        return bool(found and int(found[1]))


# A home --------------------------------------------------------------------------------------------------------


@cache
def home(wanted: str = "") -> Home:
    """The first group that can be one. Tried out: a group in it is made, bounded, and removed. ``wanted``: the only one
    to be tried; "-" for none."""
    if wanted == NONE:
        return Home(reason="switched off")
    reasons = []
    for folder in [wanted] if wanted else _candidates():
        reason = _tried(folder)
        if not reason:
            sweep(folder, {os.getpid()})
            return Home(folder, "")
        reasons.append(reason)
    return Home(reason="; ".join(dict.fromkeys(reasons)) or "no group was handed over to Larder")


def _candidates() -> Iterator[str]:
    """The own group and the one above, as far as they were handed over."""
    mounted = _mounted()
    inside = next((line[3:] for line in _lines("/proc/self/cgroup") if line.startswith("0::")), "")
    if not mounted or not inside.startswith("/") or ".." in inside:
        return
    for path in (inside, os.path.dirname(inside)):
        folder = os.path.normpath(f"{mounted}/{path}")
        if os.path.isdir(folder) and _is_handed_over(folder, mounted):
            yield folder


def _mounted() -> str:
    """Where the tree of version 2 is mounted; "" where it is not."""
    for line in _lines("/proc/self/mountinfo"):
        fields, _, kind = line.partition(" - ")
        if kind.startswith("cgroup2 "):
            return fields.split()[4]
    return ""


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []


def _is_handed_over(folder: str, root: str) -> bool:
    """The root of what is seen here; a folder that an ordinary user owns; one that systemd has marked."""
    user = os.geteuid()
    marked = False
    for name in DELEGATED:
        with suppress(OSError):
            marked = marked or os.getxattr(folder, name) == b"1"
    return marked or folder == root or (user != 0 and os.stat(folder).st_uid == user)


def _tried(folder: str) -> str:
    """Why jobs can have no groups in it; empty where they can."""
    group = f"{folder}/{PREFIX}{os.getpid()}-trial"
    try:
        held = Path(folder, "cgroup.controllers").read_text(encoding="ascii").split()
        if absent := [name for name in CONTROLLERS if name not in held]:
            return f"cgroup v2 has no {' and '.join(absent)} here"
        _write(folder, "cgroup.subtree_control", " ".join(f"+{name}" for name in CONTROLLERS))
        os.mkdir(group)
        try:
            _bound(group, Limits())
        finally:
            remove(group)
    except OSError as error:
        return f"{folder}: {error.strerror}"
    return ""


# A group -------------------------------------------------------------------------------------------------------


def enter(place: Home, name: str, limits: Limits) -> tuple[Group | None, str]:
    """Put this process, and all that it will fork, into a group of its own; the group, and what it means, or None and
    why not."""
    if not place.folder:
        return None, place.reason
    folder = f"{place.folder}/{PREFIX}{name}"
    try:
        os.makedirs(folder, exist_ok=True)
        bounds = _bound(folder, limits)
        events = os.open(f"{folder}/memory.events", os.O_RDONLY | os.O_CLOEXEC)
        _write(folder, "cgroup.procs", "0")
    except OSError as error:
        remove(folder)
        return None, error.strerror or str(error)
    return Group(folder, events), bounds


def _bound(folder: str, limits: Limits) -> str:
    """Write the limits; what they are, for people."""
    most = limits.memory_bytes + SPARE_BYTES
    _write(folder, "memory.max", str(most))
    _write(folder, "pids.max", str(TASKS))
    with suppress(OSError):  # absent where the kernel counts no swap
        _write(folder, "memory.swap.max", "0")
    return f"{size(most)} of memory, no swap, {TASKS} tasks"


def _write(folder: str, name: str, text: str) -> None:
    """One write, as these files want it."""
    descriptor = os.open(f"{folder}/{name}", os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(descriptor, text.encode())
    finally:
        os.close(descriptor)


def remove(folder: str) -> None:
    """A group whose last process is gone; another one stays."""
    with suppress(OSError):
        os.rmdir(folder)


def sweep(folder: str, mine: set[int]) -> None:
    """Remove the empty groups of these zygotes, and of those that live no more. Nobody can remove a group from
    inside, so the zygote does before the next job."""
    for left in Path(folder).glob(f"{PREFIX}*"):
        owner = left.name.removeprefix(PREFIX).split("-")[0]
        ours = owner.isdecimal() and (int(owner) in mine or not os.path.exists(f"/proc/{owner}"))
        if ours and time.time() - left.stat().st_mtime > SETTLED_SECONDS:
            remove(str(left))
