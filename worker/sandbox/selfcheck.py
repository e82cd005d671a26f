"""Is the sandbox there? Measured: probes try, from inside a job, what a hostile file would try.

A probe calls the C library and not Python, so that only the kernel can stop it. It is "blocked" where it was refused
or killed, and nothing else counts: not an unreachable target, not an unclear end.
"""

from __future__ import annotations

import ctypes
import errno
import os
import socket
import struct
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from worker.errors import DiskFull, Forbidden, LarderError, OutOfMemory, SandboxMissing
from worker.sandbox.answers import Progress, Step
from worker.sandbox.layers import Layer, missing
from worker.sandbox.limits import MIB, Limits

if TYPE_CHECKING:
    from worker.sandbox.client import Zygote

LIMITS = Limits(memory_bytes=128 * MIB, disk_bytes=64 * MIB, file_bytes=32 * MIB, wall_seconds=20, cpu_seconds=20)
REFUSALS = (errno.EPERM, errno.EACCES, errno.EAGAIN, errno.EXDEV)
F_SETOWN = 8
_libc = ctypes.CDLL(None, use_errno=True)

Arguments = Mapping[str, Any]


def _call(name: str, *arguments: Any) -> int:
    """A function of the C library."""
    return int(getattr(_libc, name)(*arguments))


@dataclass(frozen=True)
class Probe:
    """One thing that must not work: ``act`` gives what the C library gave, ``stopped`` names ends that count too."""

    act: Callable[[Arguments], int]
    stopped: tuple[type[LarderError], ...] = ()

    def step(self, arguments: dict[str, Any], _: Progress) -> dict[str, Any]:
        """The probe as a step of a job: the number of the error that it met, 0 where it met none."""
        ctypes.set_errno(0)
        return {"errno": ctypes.get_errno() if self.act(arguments) < 0 else 0}


def _nothing(_: Arguments) -> int:
    return 0


def _read(_: Arguments) -> int:
    return _call("open", b"/etc/passwd", os.O_RDONLY)


def _write(arguments: Arguments) -> int:
    return _call("open", os.fsencode(f"{arguments['outside']}/written"), os.O_WRONLY | os.O_CREAT, 0o600)


def _connect(family: int, address: bytes) -> int:
    opened = _call("socket", family, socket.SOCK_STREAM, 0)
    return opened if opened < 0 else _call("connect", opened, address, len(address))


def _connect_tcp(arguments: Arguments) -> int:
    port = struct.pack("!H", arguments["port"])
    return _connect(socket.AF_INET, struct.pack("=H", socket.AF_INET) + port + bytes([127, 0, 0, 1]) + bytes(8))


def _connect_unix(arguments: Arguments) -> int:
    path = os.fsencode(f"{arguments['outside']}/socket")
    return _connect(socket.AF_UNIX, struct.pack("=H108s", socket.AF_UNIX, path))


def _execute(_: Arguments) -> int:
    command = (ctypes.c_char_p * 4)(b"sh", b"-c", b"exit 0", None)
    return _call("execv", b"/bin/sh", command)


def _fork(_: Arguments) -> int:
    if (pid := _call("fork")) == 0:
        os._exit(0)
    return pid


def _trace(_: Arguments) -> int:
    return _call("ptrace", 0, 0, None, None)  # PTRACE_TRACEME


def _signal_parent(_: Arguments) -> int:
    return _call("kill", os.getppid(), 0)  # 0 asks for the right and sends nothing


def _signal_by_pipe(_: Arguments) -> int:
    read, _write_end = os.pipe()
    return _call("fcntl", read, F_SETOWN, os.getppid())


def _symbolic_link(_: Arguments) -> int:
    return _call("symlink", b"/etc/passwd", b"link")


def _hard_link(arguments: Arguments) -> int:
    return _call("link", os.fsencode(f"{arguments['outside']}/secret"), b"hard")


def _big_file(arguments: Arguments) -> int:
    with open("big", "wb", buffering=0) as file:
        return sum(file.write(bytes(MIB)) for _ in range(2 * arguments["disk"] // MIB))


def _memory(arguments: Arguments) -> int:
    held = []
    for _ in range(4 * arguments["memory"] // MIB):
        held.append(b"\1" * MIB)
        time.sleep(0.001)
    return len(held)


ACTS: dict[str, Probe] = {
    "read /etc/passwd": Probe(_read),
    "write outside the folder": Probe(_write),
    "open a TCP connection": Probe(_connect_tcp),
    "open a unix socket": Probe(_connect_unix),
    "start a program": Probe(_execute),
    "create a process": Probe(_fork),
    "trace a process": Probe(_trace, (Forbidden,)),
    "signal its parent": Probe(_signal_parent),
    "signal its parent by a pipe": Probe(_signal_by_pipe),
    "make a symbolic link": Probe(_symbolic_link),
    "hard-link a foreign file": Probe(_hard_link),
    "write too much": Probe(_big_file, (DiskFull,)),
    "take too much memory": Probe(_memory, (OutOfMemory,)),
}
# What the zygote adds to the steps it knows. Their names come from here alone, never from a request of a person.
PROBES: dict[str, Step] = {"nothing": Probe(_nothing).step, **{name: probe.step for name, probe in ACTS.items()}}


@contextmanager
def _targets() -> Iterator[dict[str, Any]]:
    """Things to be reached, so that failing to reach them means something."""
    with tempfile.TemporaryDirectory(prefix="larder-") as outside, socket.socket() as tcp:
        Path(outside, "secret").write_text("secret", encoding="ascii")
        tcp.bind(("127.0.0.1", 0))
        tcp.listen()
        with socket.socket(socket.AF_UNIX) as unix:
            unix.bind(f"{outside}/socket")
            unix.listen()
            sizes = {"disk": LIMITS.disk_bytes, "memory": LIMITS.memory_bytes}
            yield {"outside": outside, "port": tcp.getsockname()[1], **sizes}


def _measure(zygote: Zygote, name: str, targets: dict[str, Any]) -> Layer:
    try:
        with tempfile.TemporaryDirectory(prefix="larder-") as folder:
            outcome = zygote.run(name, targets, read=(), folder=Path(folder), limits=LIMITS)
    except ACTS[name].stopped as error:
        return Layer(True, f"stopped: {error.code}")
    except LarderError as error:
        return Layer(False, f"unclear: {error.message}")
    number = outcome.value["errno"]
    if number in REFUSALS:
        return Layer(True, f"refused: {errno.errorcode[number]}")
    return Layer(False, f"failed by chance: {errno.errorcode[number]}" if number else "it worked")


def check(zygote: Zygote | None = None) -> dict[str, Layer]:
    """Every layer as it engaged, then every probe by its name: active means blocked.

    Where the floor is missing there are no probes, for nothing is run. Starts a zygote where none is given, which
    takes as long as importing TensorFlow. Raises SandboxError where there can be none.
    """
    if zygote is None:
        from worker.sandbox.client import Zygote

        with Zygote() as own:
            return check(own)
    layers: dict[str, Layer] = dict(zygote.wait_ready()["layers"])
    if missing(layers):
        return layers
    with _targets() as targets:
        return layers | {name: _measure(zygote, name, targets) for name in ACTS}


def reasons(layers: Mapping[str, Layer]) -> str:
    """What is missing for jobs to be contained on this machine; empty where the floor holds."""
    absent = missing(layers)
    open_doors = [
        f"a job can {name} ({layers[name].detail})" for name in ACTS if name in layers and not layers[name].active
    ]
    return "; ".join([absent] * bool(absent) + open_doors)


def problem(layers: Mapping[str, Layer]) -> str:
    """The sentence with which jobs are refused on this machine; empty where the floor holds."""
    found = reasons(layers)
    return SandboxMissing(missing=found).message if found else ""
