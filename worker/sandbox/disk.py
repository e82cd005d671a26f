"""How much a job has written. It may try to hide it."""

from __future__ import annotations

import errno
import os
import stat
from contextlib import suppress

GONE = (errno.ENOENT, errno.ENOTDIR, errno.ESRCH)
BLOCK = 512  # the unit of st_blocks


class Hidden(Exception):
    """The job made a folder that its supervisor cannot look into: no rights, or too deep for a path."""


class TooManyFiles(Exception):
    """More files than can be counted quickly."""


def _unless_gone(error: OSError) -> None:
    """The job may remove what is being counted; anything else keeps it from being counted."""
    if error.errno not in GONE:
        raise Hidden(f"a folder cannot be looked into: {error.strerror}") from error


def _entries(folder: str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as found:
            return list(found)
    except OSError as error:
        _unless_gone(error)
        return []


def _bytes(entry: os.DirEntry[str]) -> int:
    try:
        return entry.stat(follow_symlinks=False).st_blocks * BLOCK
    except OSError as error:
        _unless_gone(error)
        return 0


def used_bytes(folder: str, most_files: int) -> int:
    """Bytes that the files below ``folder`` take. Raises Hidden and TooManyFiles."""
    total = count = 0
    pending = [folder]
    while pending:
        entries = _entries(pending.pop())
        total += sum(map(_bytes, entries))
        pending += [entry.path for entry in entries if entry.is_dir(follow_symlinks=False)]
        count += len(entries)
        if count > most_files:
            raise TooManyFiles(f"the folder holds more than {most_files:,} files")
    return total


def unlinked_bytes(pid: int) -> int:
    """Bytes of files that process ``pid`` holds open and that have no name any more."""
    sizes: dict[tuple[int, int], int] = {}
    # PermissionError: the process has just ended; while it lives, it is ours.
    with suppress(FileNotFoundError, ProcessLookupError, PermissionError):
        for number in os.listdir(f"/proc/{pid}/fd"):
            with suppress(FileNotFoundError):
                found = os.stat(f"/proc/{pid}/fd/{number}")
                if stat.S_ISREG(found.st_mode) and found.st_nlink == 0:
                    sizes[found.st_dev, found.st_ino] = found.st_blocks * BLOCK
    return sum(sizes.values())
