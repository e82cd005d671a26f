"""A root folder of a job's own: what it may read, read-only, and its folder. All else is not there, not even to stat.

Needs a mount namespace and the right to mount in it; ``namespaces`` sees to both. mount_setattr(2) is in Linux 5.12.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterable
from pathlib import Path

from worker.sandbox import kernel

MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_BIND, MS_REC, MS_PRIVATE = 2, 4, 8, 4096, 16384, 1 << 18
MNT_DETACH = 2
AT_FDCWD, AT_RECURSIVE = -100, 0x8000
READ_ONLY, NO_SETUID, NO_DEVICES = 1, 2, 4  # attributes of mount_setattr
OLD = "/.old"
SIZE = "size=1m,nr_inodes=4k,mode=0755"  # of the root itself, which holds empty folders and links
PROC = "/proc"
DEVICES = "/dev/"


def build(read: Iterable[str], folder: str, own_proc: bool) -> None:
    """Make ``/`` of this mount namespace a small one; the old one stays at ``OLD`` until ``finish``.

    ``read`` and ``folder`` are absolute; they keep their paths. ``own_proc``: /proc stays empty until ``finish``.
    """
    before = os.umask(0o022)  # or the folders on the way would be closed to a job that is another user
    try:
        _build(read, folder, own_proc)
    finally:
        os.umask(before)


def _build(read: Iterable[str], folder: str, own_proc: bool) -> None:
    kernel.mount(None, "/", None, MS_REC | MS_PRIVATE)
    # Whatever is mounted on the job's folder hides nothing for long: it becomes the root, the folder lies below OLD
    kernel.mount("tmpfs", folder, "tmpfs", MS_NOSUID | MS_NODEV, SIZE)
    os.chdir(folder)
    os.mkdir(f".{OLD}", 0o700)
    kernel.call("pivot_root", b".", f".{OLD}".encode())
    os.chdir("/")
    placed = [path for path in dict.fromkeys(read) if not _is_in(path, PROC)]
    for path in _outermost(placed):
        if not _is_in(path, folder):
            _bind(path, READ_ONLY | NO_SETUID | (0 if path.startswith(DEVICES) else NO_DEVICES))
    _mount(_place(folder), NO_SETUID | NO_DEVICES)  # even where it lies in a place that was bound read-only
    os.makedirs(PROC, exist_ok=True)
    if not own_proc:
        kernel.mount(f"{OLD}{PROC}", PROC, None, MS_BIND | MS_REC)


def finish(own_proc: bool) -> None:
    """Let go of the old root for good. In the first process of a pid namespace where /proc is to be its own."""
    if own_proc:
        kernel.mount("proc", PROC, "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC)
    kernel.unmount(OLD, MNT_DETACH)
    os.rmdir(OLD)
    _restrict("/", READ_ONLY, 0)


def _outermost(paths: Iterable[str]) -> list[str]:
    """Those that lie in none of the others."""
    found: list[str] = []
    for path in sorted(paths):
        if not any(_is_in(path, other) for other in found):
            found.append(path)
    return found


def _is_in(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder.rstrip("/") + "/")


def _bind(path: str, attributes: int) -> None:
    """The old root's ``path`` at the same place in the new one."""
    place = _place(path)
    if os.path.lexists(f"{OLD}{place}") and not _is_mounted(place):
        _mount(place, attributes)


def _mount(place: str, attributes: int) -> None:
    _make_place(place, os.path.isdir(f"{OLD}{place}"))
    kernel.mount(f"{OLD}{place}", place, None, MS_BIND | MS_REC)
    _restrict(place, attributes, AT_RECURSIVE)


def _place(path: str) -> str:
    """Where a path really leads in the old root; each symbolic link on the way is made in the new one."""
    place, rest, hops = "", [part for part in path.split("/") if part], 0
    while rest:
        place = f"{place}/{rest.pop(0)}"
        if os.path.islink(f"{OLD}{place}") and hops < 40:
            target, hops = os.readlink(f"{OLD}{place}"), hops + 1
            _make_link(place, target)
            whole = os.path.normpath(os.path.join(os.path.dirname(place), target))
            place, rest = "", [part for part in whole.split("/") if part] + rest
    return place


def _make_link(place: str, target: str) -> None:
    if not os.path.lexists(place):
        os.makedirs(os.path.dirname(place), exist_ok=True)
        os.symlink(target, place)


def _make_place(place: str, is_folder: bool) -> None:
    if not os.path.lexists(place):
        os.makedirs(place if is_folder else os.path.dirname(place), exist_ok=True)
        if not is_folder:
            Path(place).touch()


def _is_mounted(place: str) -> bool:
    """Is it there already, by itself or as a part of what was bound before?"""
    return os.path.lexists(place) and os.lstat(place).st_dev != os.lstat("/").st_dev


def _restrict(place: str, attributes: int, flags: int) -> None:
    change = struct.pack("=QQQQ", attributes, 0, 0, 0)
    kernel.call("mount_setattr", AT_FDCWD, place.encode(), flags, change, len(change))
