"""Landlock: which files a job may read, and the one folder in which it may write.

https://docs.kernel.org/userspace-api/landlock.html. It does not cover stat, chmod, utime, UDP and unix sockets that
have a path; seccomp.py does.
"""

from __future__ import annotations

import os
import stat
import struct
from collections.abc import Iterable

from worker.sandbox.kernel import Unavailable, call

EXECUTE, WRITE_FILE, READ_FILE, READ_DIR = 1, 2, 4, 8
REMOVE_DIR, REMOVE_FILE, MAKE_DIR, MAKE_REG = 16, 32, 128, 256
REFER, TRUNCATE, IOCTL_DEV = 8192, 16384, 32768
FIRST_RIGHTS = (1 << 13) - 1  # those that the first version knows
FIRST_USABLE_ABI = 2  # the first one refuses to move files between folders, which TensorFlow does to write a SavedModel
READ = READ_FILE | READ_DIR
# Files and folders only: no symbolic links, pipes, sockets or devices.
WRITE = READ | WRITE_FILE | REMOVE_DIR | REMOVE_FILE | MAKE_DIR | MAKE_REG | REFER | TRUNCATE
FOR_FILES = EXECUTE | WRITE_FILE | READ_FILE | TRUNCATE
TCP = 1 | 2  # bind, connect
SCOPES = 1 | 2  # abstract unix sockets, signals to processes outside
WRITABLE_DEVICES = ("/dev/null", "/dev/zero")
# The kernel opens these to run any program that is not linked statically
LOADERS = ("/lib64/ld-linux-x86-64.so.2", "/lib/ld-linux-aarch64.so.1")
PATH_BENEATH = 1
GET_VERSION = 1
ABSENT = "the kernel has no Landlock: Linux 5.19 has, unless it is left out of the lsm= list or a container hides it"
TOO_OLD = "the kernel's Landlock cannot move files between folders: Linux 5.19 or newer is needed"


def abi() -> int:
    """The version that this kernel speaks; 0 where it has no Landlock."""
    try:
        return call("landlock_create_ruleset", None, 0, GET_VERSION)
    except OSError:
        return 0


def _handled(version: int) -> int:
    added = {3: TRUNCATE, 5: IOCTL_DEV}
    return FIRST_RIGHTS | REFER | sum(right for since, right in added.items() if version >= since)


def _create(version: int) -> int:
    """A ruleset that refuses everything it knows of."""
    rules = [_handled(version)]
    rules += [TCP] if version >= 4 else []
    rules += [SCOPES] if version >= 6 else []
    attributes = struct.pack(f"={len(rules)}Q", *rules)
    return call("landlock_create_ruleset", attributes, len(attributes), 0)


def _allow(ruleset: int, path: str, rights: int) -> None:
    target = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        if not stat.S_ISDIR(os.fstat(target).st_mode):
            rights = rights & FOR_FILES | (WRITE_FILE if path in WRITABLE_DEVICES else 0)
        call("landlock_add_rule", ruleset, PATH_BENEATH, struct.pack("=Qi", rights, target), 0)
    finally:
        os.close(target)


def restrict(read: Iterable[str], folder: str, program: str = "") -> str:
    """Lock this thread: ``read`` may be read, ``folder`` may be written, ``program`` may be run, all else is refused.
    Says what engaged."""
    version = abi()
    if version < FIRST_USABLE_ABI:
        raise Unavailable(TOO_OLD if version else ABSENT)
    ruleset = _create(version)
    for path in read:
        _allow(ruleset, path, READ)
    _allow(ruleset, folder, WRITE & _handled(version))
    for path in filter(os.path.exists, (program, *LOADERS) if program else ()):
        _allow(ruleset, path, EXECUTE | READ_FILE)
    call("landlock_restrict_self", ruleset, 0)
    os.close(ruleset)
    parts = ["files"] + ["TCP"] * (version >= 4) + ["signals and abstract sockets"] * (version >= 6)
    return f"ABI {version}: {', '.join(parts)}" + (f"; may run {program}" if program else "")
