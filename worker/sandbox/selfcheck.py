"""Is the sandbox there? Measured: probes try, from inside a job, what a hostile file would try.

A probe calls the C library and not Python, so that only the kernel can stop it. It is "blocked" where it was refused
or killed, and nothing else counts: not an unreachable target, not an unclear end.
"""

from __future__ import annotations

import ctypes
import errno
import os
import resource
import socket
import struct
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from worker.errors import DiskFull, Forbidden, LarderError, OutOfMemory, SandboxMissing
from worker.sandbox.answers import Progress, Step
from worker.sandbox.layers import Layer, missing
from worker.sandbox.limits import MIB, Limits

if TYPE_CHECKING:
    from worker.sandbox.client import Zygote

LIMITS = Limits(
    memory_bytes=128 * MIB, disk_bytes=64 * MIB, file_bytes=32 * MIB, wall_seconds=20, cpu_seconds=20, files=500
)
F_SETOWN = 8
AT_ONCE = 100 * 1024 * MIB
MAP_ANONYMOUS = 0x22  # and private
IO_URING_SETUP = 425
KINDS = (
    (socket.AF_INET, socket.SOCK_STREAM),
    (socket.AF_INET, socket.SOCK_DGRAM),
    (socket.AF_UNIX, socket.SOCK_STREAM),
    (socket.AF_UNIX, socket.SOCK_STREAM),
)
_libc = ctypes.CDLL(None, use_errno=True)

# What an error number says about who refused. What was there for everybody else is not there in a private root.
ABSENT = {errno.ENOENT: "private_root", errno.EROFS: "private_root"}
FILES = {**ABSENT, errno.EACCES: "landlock"}
CALLS = {errno.EPERM: "seccomp", errno.EACCES: "seccomp", errno.EAGAIN: "seccomp", errno.ENOSYS: "seccomp"}
KILLED: dict[type[LarderError], str] = {Forbidden: "seccomp"}

Arguments = Mapping[str, Any]


def _call(name: str, *arguments: Any) -> int:
    """A function of the C library."""
    return int(getattr(_libc, name)(*arguments))


@dataclass(frozen=True)
class Probe:
    """One thing that must not work: ``act`` gives what the C library gave.

    ``refused``: the error numbers that count as a refusal, and ``stopped`` the ends of a job that do, each with the
    layer that they come from. ``done``: did it happen all the same, seen from outside? For calls that claim success.
    """

    act: Callable[[Arguments], int]
    refused: Mapping[int, str] = field(default_factory=dict)
    stopped: Mapping[type[LarderError], str] = field(default_factory=dict)
    done: Callable[[Arguments], bool] | None = None

    def step(self, arguments: dict[str, Any], _: Progress) -> dict[str, Any]:
        """The probe as a step of a job: the number of the error that it met, 0 where it met none."""
        ctypes.set_errno(0)
        return {"errno": ctypes.get_errno() if self.act(arguments) < 0 else 0}


def _nothing(_: Arguments) -> int:
    return 0


def _read(_: Arguments) -> int:
    return _call("open", b"/etc/passwd", os.O_RDONLY)


def _outside(arguments: Arguments, name: str) -> bytes:
    return os.fsencode(f"{arguments['outside']}/{name}")


def _read_neighbour(arguments: Arguments) -> int:
    return _call("open", _outside(arguments, "secret"), os.O_RDONLY)


def _list_neighbour(arguments: Arguments) -> int:
    return _call("open", _outside(arguments, "."), os.O_RDONLY | os.O_DIRECTORY)


def _read_environment(arguments: Arguments) -> int:
    return _call("open", f"/proc/{arguments['worker']}/environ".encode(), os.O_RDONLY)


def _change_mode(arguments: Arguments) -> int:
    return _call("chmod", _outside(arguments, "secret"), 0o777)


def _is_changed(arguments: Arguments) -> bool:
    return os.stat(_outside(arguments, "secret")).st_mode & 0o777 == 0o777


def _write(arguments: Arguments) -> int:
    return _call("open", _outside(arguments, "written"), os.O_WRONLY | os.O_CREAT, 0o600)


def _connect(family: int, address: bytes) -> int:
    opened = _call("socket", family, socket.SOCK_STREAM, 0)
    return opened if opened < 0 else _call("connect", opened, address, len(address))


def _connect_tcp(arguments: Arguments) -> int:
    port = struct.pack("!H", arguments["port"])
    return _connect(socket.AF_INET, struct.pack("=H", socket.AF_INET) + port + bytes([127, 0, 0, 1]) + bytes(8))


def _send_udp(arguments: Arguments) -> int:
    opened = _call("socket", socket.AF_INET, socket.SOCK_DGRAM, 0)
    port = struct.pack("!H", arguments["port"])
    address = struct.pack("=H", socket.AF_INET) + port + bytes([127, 0, 0, 1]) + bytes(8)
    return opened if opened < 0 else _call("sendto", opened, b"x", 1, 0, address, len(address))


def _connect_unix(arguments: Arguments) -> int:
    path = _outside(arguments, "socket")
    return _connect(socket.AF_UNIX, struct.pack("=H108s", socket.AF_UNIX, path))


def _connect_abstract(arguments: Arguments) -> int:
    name = b"\0" + arguments["abstract"].encode()
    return _connect(socket.AF_UNIX, struct.pack("=H", socket.AF_UNIX) + name)


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
    return _call("link", _outside(arguments, "secret"), b"hard")


def _io_uring(_: Arguments) -> int:
    return _call("syscall", IO_URING_SETUP, 1, ctypes.create_string_buffer(256))


def _enter_namespace(_: Arguments) -> int:
    return _call("setns", os.open("/proc/self/cmdline", os.O_RDONLY), 0)


def _new_namespace(_: Arguments) -> int:
    return _call("unshare", 0x10000000)


def _mount(_: Arguments) -> int:
    return _call("mount", b"tmpfs", os.fsencode(os.getcwd()), b"tmpfs", 0, None)


def _raise_limit(_: Arguments) -> int:
    unlimited = struct.pack("=QQ", 2**64 - 1, 2**64 - 1)
    return _call("setrlimit", resource.RLIMIT_AS, unlimited)


def _outlive(_: Arguments) -> int:
    return _call("prctl", 1, 0, 0, 0, 0)  # PR_SET_PDEATHSIG: not to die with its supervisor


def _many_files(arguments: Arguments) -> int:
    for number in range(2 * arguments["files"]):
        Path(f"file-{number}").write_bytes(b"")
        time.sleep(0.001)
    return 0


def _allocate(_: Arguments) -> int:
    _libc.mmap.restype = ctypes.c_ssize_t
    return _call("mmap", None, ctypes.c_size_t(AT_ONCE), 3, MAP_ANONYMOUS, -1, ctypes.c_long(0))


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
    "read /etc/passwd": Probe(_read, FILES),
    "read another job's file": Probe(_read_neighbour, FILES),
    "list another job's folder": Probe(_list_neighbour, FILES),
    "read the worker's variables": Probe(_read_environment, {errno.ENOENT: "processes", errno.EACCES: "landlock"}),
    "write outside the folder": Probe(_write, FILES),
    "change another file's mode": Probe(_change_mode, CALLS | ABSENT, done=_is_changed),
    "make a symbolic link": Probe(_symbolic_link, {errno.EPERM: "seccomp"}),
    "hard-link a foreign file": Probe(_hard_link, {errno.EPERM: "seccomp", **ABSENT, errno.EXDEV: "landlock"}),
    "open a TCP connection": Probe(_connect_tcp, CALLS),
    "send a UDP packet": Probe(_send_udp, CALLS),
    "open a unix socket": Probe(_connect_unix, CALLS),
    "open an abstract socket": Probe(_connect_abstract, CALLS),
    "start a program": Probe(_execute, CALLS),
    "create a process": Probe(_fork, CALLS),
    "trace a process": Probe(_trace, CALLS, KILLED),
    "signal its parent": Probe(_signal_parent, CALLS),
    "signal its parent by a pipe": Probe(_signal_by_pipe, CALLS),
    "outlive its supervisor": Probe(_outlive, CALLS),
    "use io_uring": Probe(_io_uring, CALLS),
    "enter a namespace": Probe(_enter_namespace, CALLS, KILLED),
    "make a namespace": Probe(_new_namespace, CALLS, KILLED),
    "mount a file system": Probe(_mount, CALLS, KILLED),
    "raise a limit": Probe(_raise_limit, CALLS),
    "reserve 100 GiB": Probe(_allocate, {errno.ENOMEM: "rlimits"}),
    "take too much memory": Probe(_memory, stopped={OutOfMemory: "supervisor"}),
    "write too much": Probe(_big_file, stopped={DiskFull: "rlimits"}),
    "write very many files": Probe(_many_files, stopped={DiskFull: "supervisor"}),
}
# What the zygote adds to the steps it knows. Their names come from here alone, never from a request of a person.
PROBES: dict[str, Step] = {"nothing": Probe(_nothing).step, **{name: probe.step for name, probe in ACTS.items()}}


@contextmanager
def _targets() -> Iterator[dict[str, Any]]:
    """Things to be reached, so that failing to reach them means something."""
    with ExitStack() as stack:
        outside = stack.enter_context(tempfile.TemporaryDirectory(prefix="larder-"))
        Path(outside, "secret").write_text("secret", encoding="ascii")
        abstract = f"larder-{os.path.basename(outside)}"
        tcp, udp, unix, unnamed = (stack.enter_context(socket.socket(*kind)) for kind in KINDS)
        tcp.bind(("127.0.0.1", 0))
        udp.bind(tcp.getsockname())
        unix.bind(f"{outside}/socket")
        unnamed.bind(f"\0{abstract}")
        for listening in (tcp, unix, unnamed):
            listening.listen()
        sizes = {"disk": LIMITS.disk_bytes, "memory": LIMITS.memory_bytes, "files": LIMITS.files}
        port, worker = tcp.getsockname()[1], os.getpid()
        yield {"outside": outside, "port": port, "abstract": abstract, "worker": worker, **sizes}


def _measure(zygote: Zygote, name: str, targets: dict[str, Any]) -> Layer:
    probe = ACTS[name]
    try:
        with tempfile.TemporaryDirectory(prefix="larder-") as folder:
            outcome = zygote.run(name, targets, read=(), folder=Path(folder), limits=LIMITS)
    except tuple(probe.stopped) as error:
        return Layer(True, f"stopped: {error.code}", probe.stopped[type(error)])
    except LarderError as error:
        return Layer(False, f"unclear: {error.message}")
    return _judged(probe, outcome.value["errno"], targets)


def _judged(probe: Probe, number: int, targets: dict[str, Any]) -> Layer:
    if probe.done and not number:
        done = probe.done(targets)
        return Layer(not done, "it worked" if done else "answered, not done", "" if done else "seccomp")
    if by := probe.refused.get(number):
        return Layer(True, f"refused: {errno.errorcode[number]}", by)
    return Layer(False, f"failed by chance: {errno.errorcode[number]}" if number else "it worked")


def check(zygote: Zygote) -> dict[str, Layer]:
    """Every layer as it engaged, then every probe by its name: active means blocked.

    Where the floor is missing and jobs are refused for it, there are no probes, for nothing is run. Raises SandboxError
    where there can be no jobs.
    """
    layers: dict[str, Layer] = dict(zygote.wait_ready()["layers"])
    if missing(layers) and not zygote.walls.weak:
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
