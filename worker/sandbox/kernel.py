"""System calls that Python has no function for."""

from __future__ import annotations

import ctypes
import os
import platform
import select
import struct
from typing import Any

PR_SET_PDEATHSIG = 1
PR_SET_DUMPABLE = 4
PR_SET_SECCOMP = 22
PR_CAPBSET_DROP = 24
PR_SET_NO_NEW_PRIVS = 38
SECCOMP_MODE_FILTER = 2
SECCOMP_NEW_LISTENER = 8
CAPABILITY_VERSION_3 = 0x20080522

_IS_X86 = platform.machine() == "x86_64"
# The numbers that every architecture shares, and those that x86-64 has for itself.
NUMBERS = {
    "capset": 126 if _IS_X86 else 91,
    "pivot_root": 155 if _IS_X86 else 41,
    "seccomp": 317 if _IS_X86 else 277,
    "pidfd_getfd": 438,
    "mount_setattr": 442,
    "landlock_create_ruleset": 444,
    "landlock_add_rule": 445,
    "landlock_restrict_self": 446,
}
_libc = ctypes.CDLL(None, use_errno=True)


class Unavailable(Exception):
    """A layer cannot be had on this machine; the text says why."""


def _checked(name: str, result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")
    return result


def call(name: str, *arguments: Any) -> int:
    """The system call ``name``: numbers, ``bytes`` and None as arguments; OSError names the call."""
    native = [ctypes.c_long(item) if isinstance(item, int) else item for item in arguments]
    return _checked(name, _libc.syscall(ctypes.c_long(NUMBERS[name]), *native))


def prctl(name: str, option: int, *arguments: Any) -> int:
    """prctl(2); ``name`` is for the error."""
    native = [ctypes.c_ulong(item) if isinstance(item, int) else item for item in arguments]
    padding = [ctypes.c_ulong(0)] * (4 - len(native))
    return _checked(name, _libc.prctl(option, *native, *padding))


def unshare(flags: int) -> None:
    """unshare(2): this process leaves the namespaces of ``flags`` for new ones."""
    _checked("unshare", _libc.unshare(flags))


def mount(source: str | None, target: str, kind: str | None, flags: int, data: str | None = None) -> None:
    """mount(2)."""
    texts = [text.encode() if text is not None else None for text in (source, target, kind, data)]
    result = _libc.mount(texts[0], texts[1], texts[2], ctypes.c_ulong(flags), texts[3])
    _checked(f"mount {kind or 'bind'} on {target}", result)


def unmount(target: str, flags: int) -> None:
    """umount2(2)."""
    _checked(f"umount {target}", _libc.umount2(target.encode(), flags))


def name_host(name: str) -> None:
    """What this uts namespace calls the machine."""
    _checked("sethostname", _libc.sethostname(name.encode(), len(name)))


def be_readable() -> None:
    """Have /proc/self belong to this user, as it does before a change of users."""
    prctl("PR_SET_DUMPABLE", PR_SET_DUMPABLE, 1)


def die_with_parent(parent: int) -> None:
    """SIGKILL for this process as soon as its parent is gone, and now where it is gone already."""
    prctl("PR_SET_PDEATHSIG", PR_SET_PDEATHSIG, 9)
    if os.getppid() != parent:
        os._exit(1)


def die_with(parent: int) -> None:
    """The same for a parent in another pid namespace, which is known by a descriptor (pidfd_open) that is closed."""
    prctl("PR_SET_PDEATHSIG", PR_SET_PDEATHSIG, 9)
    gone = select.poll()
    gone.register(parent, select.POLLIN)
    if gone.poll(0):
        os._exit(1)
    os.close(parent)


def outlive_parent() -> None:
    """No more of ``die_with_parent``."""
    prctl("PR_SET_PDEATHSIG", PR_SET_PDEATHSIG, 0)


def empty_bounding_set() -> bool:
    """Take every capability from the bounding set; False where this process may not."""
    try:
        for capability in range(64):
            prctl("PR_CAPBSET_DROP", PR_CAPBSET_DROP, capability)
    except OSError as error:
        return error.errno == 22  # EINVAL: past the last capability, so all are gone
    return True


def clear_capabilities() -> None:
    """Empty the effective, permitted and inheritable sets, and with them the ambient one."""
    call("capset", struct.pack("=Ii", CAPABILITY_VERSION_3, 0), bytes(24))


class _Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("instructions", ctypes.c_void_p)]


def install_filter(program: bytes) -> None:
    """Load a seccomp program: instructions of 8 bytes each. Needs no_new_privs."""
    instructions = ctypes.create_string_buffer(program, len(program))
    described = _Program(len(program) // 8, ctypes.addressof(instructions))
    prctl("PR_SET_SECCOMP", PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.byref(described))


def install_telling_filter(program: bytes) -> int:
    """The same for a program that asks about calls; the descriptor at which it asks."""
    instructions = ctypes.create_string_buffer(program, len(program))
    described = _Program(len(program) // 8, ctypes.addressof(instructions))
    return call("seccomp", 1, SECCOMP_NEW_LISTENER, ctypes.byref(described))


def descriptor_of(process: int, number: int) -> int:
    """What another process has open under this number, here. It must be one that this process may trace."""
    handle = os.pidfd_open(process)
    try:
        return call("pidfd_getfd", handle, number, 0)
    finally:
        os.close(handle)
