"""What one job may use, and the part of it that the kernel counts for us."""

from __future__ import annotations

import os
import resource
from dataclasses import dataclass
from pathlib import Path

from worker.sandbox.kernel import Unavailable

MIB = 1024**2
GIB = 1024**3
OPEN_FILES = 256
STACK_BYTES = 8 * MIB
SPARE_TASKS = 256  # threads beyond those that the machine runs already, plus some for each processor
TASKS_PER_CPU = 8
# Address space is not memory: TensorFlow reserves, and each thread takes a stack and an allocator arena.
SPARE_ADDRESSES = 4 * GIB
ADDRESSES_PER_CPU = 80 * MIB


@dataclass(frozen=True)
class Limits:
    """Bounds of one job. Memory is resident anonymous memory beyond what the zygote already holds."""

    memory_bytes: int = 8 * GIB
    disk_bytes: int = 16 * GIB
    file_bytes: int = 8 * GIB
    wall_seconds: float = 900
    cpu_seconds: int = 1800
    files: int = 20_000  # files and folders below the job's own; many more would be slow to count


def size(count: float) -> str:
    """Bytes for people: ``1.5 GiB``."""
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.4g} {unit}"
        count /= 1024
    return f"{count:.4g} TiB"


def _mapped_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    return pages * resource.getpagesize()


def _bound(which: int, value: int, hard: int | None = None) -> None:
    """Set a limit, or the lower one that this process was started with."""
    ceiling = resource.getrlimit(which)[1]
    hard = value if hard is None else hard
    if ceiling != resource.RLIM_INFINITY:
        value, hard = min(value, ceiling), min(hard, ceiling)
    resource.setrlimit(which, (value, hard))


def set_rlimits(limits: Limits) -> str:
    """Everything that the kernel counts per process; returns what was set, for people."""
    cpus = os.cpu_count() or 1
    addresses = limits.memory_bytes + SPARE_ADDRESSES + cpus * ADDRESSES_PER_CPU
    _bound(resource.RLIMIT_CORE, 0)
    _bound(resource.RLIMIT_MEMLOCK, 0)
    _bound(resource.RLIMIT_MSGQUEUE, 0)
    _bound(resource.RLIMIT_CPU, limits.cpu_seconds, limits.cpu_seconds + 2)
    _bound(resource.RLIMIT_FSIZE, limits.file_bytes)
    _bound(resource.RLIMIT_NOFILE, OPEN_FILES)
    _bound(resource.RLIMIT_STACK, STACK_BYTES)
    _bound(resource.RLIMIT_AS, _mapped_bytes() + addresses)
    return (
        f"{size(addresses)} of new addresses, {limits.cpu_seconds} s of processor time, "
        f"{size(limits.file_bytes)} for one file, {OPEN_FILES} open files, no core"
    )


def limit_tasks() -> str:
    """Bound the number of threads. The kernel counts all of this user's, so the bound is relative to the machine's."""
    if os.getuid() == 0:
        raise Unavailable("uid 0 is exempt from RLIMIT_NPROC; run Larder as an ordinary user to have it")
    running = int(Path("/proc/loadavg").read_text(encoding="ascii").split()[3].split("/")[1])
    tasks = running + SPARE_TASKS + TASKS_PER_CPU * (os.cpu_count() or 1)
    _bound(resource.RLIMIT_NPROC, tasks)
    return f"{tasks} tasks of this user"
