"""Namespaces around a job: no network, no other processes, no other files, names and identities of its own.

Not every machine allows them: a container's default profile refuses, Ubuntu asks for an AppArmor profile. A process
that has entered some of them and fails at the next cannot go back, so ``best`` tries every plan out, in a process that
is thrown away, before the first job; jobs then take the first plan that works.
"""

from __future__ import annotations

import json
import os
import stat
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import NoReturn

from worker.sandbox import kernel, private_root
from worker.sandbox.cgroups import Home

FILES, HOST, IPC, USER, PROCESSES, NETWORK = (
    0x20000,
    0x4000000,
    0x8000000,
    0x10000000,
    0x20000000,
    0x40000000,
)
HOST_NAME = "larder"
# Layer → what it says where it engaged
TOLD = {
    "network": "no interface but one that is down",
    "ipc": "no shared memory, queues or host name of others",
    "private_root": "only what the job may read, read-only, and its own folder",
    "processes": "it sees its supervisor and itself",
    "identity": "",
}


@dataclass(frozen=True)
class Plan:
    """Which namespaces are entered, and by which right: with those of root, who then becomes ``user``, or, where that
    is 0, in a user namespace."""

    user: int = 0
    files: bool = True
    processes: bool = True

    @property
    def flags(self) -> int:
        wanted = {FILES: self.files, PROCESSES: self.processes, USER: not self.user}
        return NETWORK | HOST | IPC | sum(flag for flag, is_wanted in wanted.items() if is_wanted)

    @property
    def layers(self) -> list[str]:
        parts = {"private_root": self.files, "processes": self.processes, "identity": True}
        return ["network", "ipc", *(name for name, has in parts.items() if has)]


@dataclass(frozen=True)
class Enclosure:
    """The plan that works on this machine, and why better ones do not: for each layer that is missing. ``otherwise``:
    the best one in which jobs are the user that Larder is. ``home``: where each job gets a control group."""

    plan: Plan | None = None
    reasons: Mapping[str, str] = field(default_factory=dict)
    otherwise: Plan | None = None
    home: Home = field(default_factory=Home)

    def of_job(self, read: Iterable[str], folder: str) -> Enclosure:
        """The same with the job's folder given to its user; the other plan where that cannot be, as on a network's
        disk, or where what the job is to read is for its owner alone."""
        user = self.plan.user if self.plan else 0
        if user and not (all(_is_readable(path, user) for path in read) and _is_given(folder, user)):
            return replace(self, plan=self.otherwise)
        return self

    def told(self) -> dict[str, tuple[bool, str]]:
        """Every layer: whether it will engage, and what that means."""
        engaged = self.plan.layers if self.plan else []
        found = {
            name: (name in engaged, text if name in engaged else self._reason(name)) for name, text in TOLD.items()
        }
        if self.plan:
            found["identity"] = (True, _identity(self.plan))
        return found

    def _reason(self, name: str) -> str:
        return self.reasons.get(name) or "not tried"


def _identity(plan: Plan) -> str:
    return f"user {plan.user}, which nobody else is" if plan.user else "a user namespace of its own"


# Entering --------------------------------------------------------------------------------------------------------


def enter(plan: Plan, read: tuple[str, ...], folder: str) -> None:
    """Up to the fork that a pid namespace needs; then ``settle``. Raises OSError where the plan does not work."""
    if plan.user:
        kernel.unshare(plan.flags)
    else:
        _have_own_users(plan.flags)
    kernel.name_host(HOST_NAME)
    if plan.files:
        private_root.build(read, folder, plan.processes)


def settle(plan: Plan) -> None:
    """The rest, in the process that will watch the job: the first one of the pid namespace, where there is one."""
    if plan.files:
        private_root.finish(plan.processes)
    if plan.user:
        _become(plan.user)
    kernel.clear_capabilities()


def _map(user: int, group: int) -> None:
    """In the user namespace everybody is who they were, and there is nobody else."""
    for name, text in {"setgroups": "deny", "uid_map": f"{user} {user} 1", "gid_map": f"{group} {group} 1"}.items():
        with open(f"/proc/self/{name}", "r+b", buffering=0) as file:
            file.write(text.encode())


def _is_readable(path: str, user: int) -> bool:
    """May the user read it, as one that an earlier job left, or its group, or everybody? The group stays what it is
    when a job becomes another user."""
    if not os.path.exists(path):
        return True
    found = os.stat(path)
    own = stat.S_IRUSR if found.st_uid == user else 0
    return bool(found.st_mode & (own | stat.S_IRGRP | stat.S_IROTH))


def _is_given(folder: str, user: int) -> bool:
    """The job's folder and what lies in it already now belong to the user; False where they cannot."""
    try:
        os.chown(folder, user, -1)
        for place, folders, files in os.walk(folder):
            for name in (*folders, *files):
                os.chown(os.path.join(place, name), user, -1, follow_symlinks=False)
    except FileNotFoundError:
        raise
    except OSError:
        return False
    return True


def _become(user: int) -> None:
    os.setgroups([])
    os.setresuid(user, user, user)
    _have_own_users(USER)  # so that the number of its threads is counted by itself, and its keys are its own


def _have_own_users(flags: int) -> None:
    """A user namespace, and what else is in the flags."""
    user, group = os.getuid(), os.getgid()
    kernel.be_readable()
    kernel.unshare(flags)
    _map(user, group)


# Trying out ------------------------------------------------------------------------------------------------------


def _plans(user: int) -> list[Plan]:
    """The best first. Another user needs a root of its own: the libraries may lie where root alone may look."""
    users = [user, 0] if user and os.geteuid() == 0 else [0]
    return [Plan(each, True, processes) for processes in (True, False) for each in users] + [Plan(0, False, False)]


@cache
def best(libraries: tuple[str, ...], user: int) -> Enclosure:
    """The first plan that works here. Each is tried by a process that is thrown away, with these to read. ``user``:
    whom root becomes; 0 for nobody else."""
    reasons: dict[str, str] = {}
    for plan in _plans(user):
        problem = _tried(plan, libraries)
        if not problem:
            return Enclosure(plan, reasons, best(libraries, 0).plan if plan.user else None)
        reasons |= {name: problem for name in plan.layers if name not in reasons}
    return Enclosure(None, reasons)


def _tried(plan: Plan, libraries: tuple[str, ...]) -> str:
    """Why the plan does not work; empty where it does."""
    with tempfile.TemporaryDirectory(prefix="larder-") as folder:
        read, write = os.pipe()
        if (pid := os.fork()) == 0:
            _try(plan, libraries, os.path.realpath(folder), write)
        os.close(write)
        with open(read, "rb") as answer:
            told = answer.read(4096)
        os.waitpid(pid, 0)
    return str(json.loads(told)) if told else "a process that tried it was killed"


def _try(plan: Plan, libraries: tuple[str, ...], folder: str, write: int) -> NoReturn:
    """In the process that is thrown away, and in one that it forks: enter, read a library, write."""
    problem = "it did not end"
    try:
        if plan.user:
            os.chown(folder, plan.user, -1)
        enter(plan, libraries, folder)
        if plan.processes and os.fork():
            os.wait()
            os._exit(0)
        settle(plan)
        Path(folder, "written").write_bytes(Path(os.__file__).read_bytes())
        problem = ""
    except Exception as error:  # whatever it is, this plan is not for this machine
        problem = getattr(error, "strerror", None) or f"{type(error).__name__}: {error}"
    finally:
        os.write(write, json.dumps(problem).encode())
        os._exit(0)
