"""Machines that allow less than this one, each as a command that starts what it is put before."""

from __future__ import annotations

import sys

_START = "os.execv(sys.argv[1], sys.argv[1:])"
_FILTER = """
import ctypes, errno, os, sys
import pyseccomp
filter = pyseccomp.SyscallFilter(pyseccomp.ALLOW)
def refuse(number, *names):
    for name in names:
        try:
            filter.add_rule(pyseccomp.ERRNO(number), name)
        except (OSError, ValueError):
            pass
"""
# The default profile of Docker: nothing that makes a namespace or a mount, and of root's capabilities 14.
_CONTAINER = """
refuse(errno.EPERM, "unshare", "setns", "mount", "umount2", "pivot_root", "mount_setattr", "move_mount", "open_tree",
       "fsopen", "fsconfig", "fsmount", "fspick", "bpf", "perf_event_open", "keyctl", "add_key", "request_key",
       "io_uring_setup", "userfaultfd", "open_by_handle_at", "sethostname")
refuse(errno.ENOSYS, "clone3")
for bit in (0x20000, 0x4000000, 0x8000000, 0x10000000, 0x20000000, 0x40000000):
    filter.add_rule(pyseccomp.ERRNO(errno.EPERM), "clone", pyseccomp.Arg(0, pyseccomp.MASKED_EQ, bit, bit))
for capability in set(range(41)) - {0, 1, 3, 4, 5, 6, 7, 8, 10, 13, 18, 27, 29, 31}:
    ctypes.CDLL(None).prctl(24, capability, 0, 0, 0)
"""
_NO_LANDLOCK = 'refuse(errno.ENOSYS, "landlock_create_ruleset")\n'
# Somebody who is not root and holds no capability: in a user namespace, so that their files stay theirs.
_ORDINARY = """
import ctypes, os, sys
user, group = os.getuid(), os.getgid()
if ctypes.CDLL(None).unshare(0x10000000):
    sys.exit("no user namespaces")
for name, text in (("setgroups", "deny"), ("uid_map", f"1234 {user} 1"), ("gid_map", f"1234 {group} 1")):
    with open(f"/proc/self/{name}", "r+b", buffering=0) as file:
        file.write(text.encode())
"""


def _command(source: str) -> tuple[str, ...]:
    return (sys.executable, "-c", source)


IN_CONTAINER = _command(f"{_FILTER}{_CONTAINER}filter.load()\n{_START}")
BELOW_THE_FLOOR = _command(f"{_FILTER}{_CONTAINER}{_NO_LANDLOCK}filter.load()\n{_START}")
WITHOUT_LANDLOCK = _command(f"{_FILTER}{_NO_LANDLOCK}filter.load()\n{_START}")
AS_ORDINARY_USER = _command(f"{_ORDINARY}{_START}")
# What can be told from outside: may a process of this user enter what an enclosure consists of?
ENTERS = _command("import ctypes, sys; sys.exit(ctypes.CDLL(None).unshare(0x7C020000) != 0)")
