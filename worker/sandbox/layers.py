"""The layers around one job, in the order in which they engage.

A layer is a function that engages it and says what engaged; one that cannot raises, and is reported as missing. Those
of ``BEFORE_FORK`` hold for the supervisor and its job, and so do the namespaces, which come after them; those of
``IN_JOB`` hold for the job.
"""

from __future__ import annotations

import os
import sys
import sysconfig
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from worker.sandbox import kernel, landlock, limits, seccomp
from worker.sandbox.kernel import Unavailable
from worker.sandbox.request import Cell

if TYPE_CHECKING:
    from worker.sandbox.counting import Handover


@dataclass(frozen=True)
class Layer:
    """Whether a layer engaged, and what that means here; or whether a probe was stopped, and ``by`` which layer."""

    active: bool
    detail: str = ""
    by: str = ""

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Layer:
        return cls(bool(data["active"]), str(data["detail"]))


# Without these no job runs, nor without one of the two that keep it from other files.
FLOOR = ("descriptors", "environment", "supervisor", "rlimits", "capabilities", "no_new_privs", "seccomp")
FILE_LAYERS = ("landlock", "private_root")
# Set before the zygote starts, so that importing numpy and TensorFlow starts no thread and finds no GPU.
ENVIRONMENT = {
    "LANG": "C.UTF-8",
    "OPENBLAS_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "TF_NUM_INTRAOP_THREADS": "1",  # there is a job for every core, and one thread sums in the same order each time
    "TF_NUM_INTEROP_THREADS": "1",
    "CUDA_VISIBLE_DEVICES": "-1",
    "TF_CPP_MIN_LOG_LEVEL": "2",
    "TF_ENABLE_ONEDNN_OPTS": "0",  # other kernels round otherwise on other processors
    "KERAS_BACKEND": "tensorflow",
    "ORT_DISABLE_TELEMETRY": "1",  # or ONNX Runtime writes an identity of the machine, and tries to send it
}
REPOSITORY = Path(__file__).resolve().parents[2]
SYSTEM_PATHS = (
    "/usr/lib",
    "/usr/lib64",
    "/usr/local/lib",
    "/lib",
    "/lib64",
    "/usr/share/zoneinfo",
    "/etc/localtime",
    "/etc/ld.so.cache",
    "/dev/null",
    "/dev/zero",
    "/dev/urandom",  # TensorFlow aborts without it
    "/sys/devices/system/cpu",
    "/proc/self/cmdline",  # and without this, of the job itself
    "/proc/cpuinfo",
    "/proc/meminfo",
    "/proc/stat",
)


@cache
def library_paths() -> tuple[str, ...]:
    """What an imported TensorFlow may still open. Of the repository only the worker: its root may hold the data."""
    own = [sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")]
    own += [f"{sys.prefix}/lib", f"{sys.base_prefix}/lib", str(REPOSITORY / "worker")]
    return tuple(sorted({path for path in (*own, *SYSTEM_PATHS) if os.path.exists(path)}))


def close_descriptors(cell: Cell) -> str:
    """Nothing stays open but the job's pipes: input is empty, output and errors go to the log."""
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.dup2(cell.log, 1)
    os.dup2(cell.log, 2)
    start = 3
    for keep in sorted((cell.result, cell.status)):
        os.closerange(start, keep)
        start = keep + 1
    os.closerange(start, 2**31 - 1)
    kept = {"0", "1", "2", str(cell.result), str(cell.status)}
    stayed = [number for number in os.listdir("/proc/self/fd") if number not in kept]
    if any(os.path.exists(f"/proc/self/fd/{number}") for number in stayed):  # one was that of the listing
        raise Unavailable("descriptors of the worker stayed open")
    return "empty input, log, result"


def clean_environment(cell: Cell) -> str:
    """An environment that is built, not inherited."""
    folder = cell.request.folder
    own = {"HOME": folder, "TMPDIR": folder, "KERAS_HOME": folder, "PATH": "/nonexistent"}
    os.environ.clear()
    os.environ.update(ENVIRONMENT | own)
    return f"{len(os.environ)} variables of its own"


def limit_resources(cell: Cell) -> str:
    """What the kernel counts for each process."""
    return limits.set_rlimits(cell.request.limits)


def limit_tasks(_: Cell) -> str:
    """The number of threads."""
    return limits.limit_tasks()


def drop_capabilities(_: Cell) -> str:
    """No capability is held and, where this process may say so, none can be had."""
    emptied = kernel.empty_bounding_set()
    kernel.clear_capabilities()
    held = [line.split()[1] for line in _status_lines("CapInh", "CapPrm", "CapEff", "CapAmb")]
    if any(int(value, 16) for value in held):
        raise Unavailable("capabilities stayed")
    return "none held, none to be had" if emptied else "none held; no_new_privs keeps it so"


def _status_lines(*names: str) -> list[str]:
    lines = Path("/proc/self/status").read_text(encoding="utf-8", errors="replace").splitlines()
    return [line for line in lines if line.startswith(names)]


def give_up_privileges(_: Cell) -> str:
    """Programs with more rights than this process give it none."""
    kernel.prctl("PR_SET_NO_NEW_PRIVS", kernel.PR_SET_NO_NEW_PRIVS, 1)
    return "set, for good"


def restrict_files(cell: Cell) -> str:
    """Landlock. Refuses where a thread exists already, for it would stay outside."""
    if len(os.listdir("/proc/self/task")) > 1:
        raise Unavailable("the job has more than one thread, and the others would stay outside")
    program = cell.request.program.command[0] if cell.request.program else ""
    return landlock.restrict((*library_paths(), *cell.request.read), cell.request.folder, program)


def restrict_calls(cell: Cell) -> str:
    """seccomp, last: it refuses what the layers before it need."""
    if cell.handover and (told := _restrict_telling(cell, cell.handover)):
        return told
    return seccomp.load_filter(cell.request.strict, cell.request.program is not None, cell.alone)


def _restrict_telling(cell: Cell, handover: Handover) -> str:
    """The same, and refusals are told to the supervisor; "" where the kernel does that not, and nobody counts them."""
    counted = cell.request.counted
    try:
        listener = seccomp.load_telling_filter(cell.request.program is not None, cell.alone, everything=counted)
    except OSError:
        if counted:
            raise
        handover.keep()
        return ""
    handover.give(listener)
    return (
        f"allow-list of {len(seccomp.ALLOWED)} calls, everything else is {'counted' if counted else 'told'} and refused"
    )


Engage = Callable[[Cell], str]
BEFORE_FORK: dict[str, Engage] = {"descriptors": close_descriptors, "environment": clean_environment}
IN_JOB: dict[str, Engage] = {
    "rlimits": limit_resources,
    "tasks": limit_tasks,
    "capabilities": drop_capabilities,
    "no_new_privs": give_up_privileges,
    "landlock": restrict_files,
    "seccomp": restrict_calls,
}


def engage(layers: Mapping[str, Engage], cell: Cell) -> dict[str, Layer]:
    """Try every layer; none is assumed."""
    return {name: _engage(layer, cell) for name, layer in layers.items()}


def _engage(layer: Engage, cell: Cell) -> Layer:
    try:
        return Layer(True, layer(cell))
    except (OSError, ValueError, Unavailable) as error:
        return Layer(False, getattr(error, "strerror", None) or str(error))


def missing(layers: Mapping[str, Layer]) -> str:
    """Which parts of the floor are missing and why, for people; empty where the floor holds."""
    wanted = FLOOR if any(layers[name].active for name in FILE_LAYERS if name in layers) else (*FLOOR, FILE_LAYERS[0])
    absent = {name: layers.get(name, Layer(False, "not reported")) for name in wanted}
    return "; ".join(f"{name} ({layer.detail})" for name, layer in absent.items() if not layer.active)
