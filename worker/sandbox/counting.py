"""Counting what the filter refuses, by name: in a job whose refused calls are first told to its supervisor.

For measurements, and for jobs that run code of a model's own: that can silence Python, and call the C library, of which
Python tells nothing. Instead of answering an error itself, the kernel asks whoever holds the filter's listener (user
notification, seccomp_unotify(2)); the supervisor counts the call and has it answered with the same error. Nothing is
allowed that would be refused otherwise, and what kills a job kills it here as well.
"""

from __future__ import annotations

import fcntl
import os
import select
import struct
from collections import Counter
from contextlib import suppress

from worker.sandbox import kernel, seccomp

RECEIVE, SEND = 0xC0502100, 0xC0182101  # SECCOMP_IOCTL_NOTIF_RECV and _SEND
NOTIFICATION = struct.Struct("=QIIiIQ6Q")  # its number, process, flags; the call, architecture, place, arguments
ANSWER = struct.Struct("=QqiI")  # its number, value, error, flags


class Counted:
    """The supervisor's end: what was refused so far. ``descriptor`` is the listener of one job's filter."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self.names: Counter[str] = Counter()

    def take(self) -> None:
        """Count one call and have it answered; nothing where the job is gone by now."""
        told = bytearray(NOTIFICATION.size)
        with suppress(OSError):
            fcntl.ioctl(self.descriptor, RECEIVE, told)
            number, _, _, call, architecture, _, *arguments = NOTIFICATION.unpack(told)
            name = seccomp.name_of(architecture, call)
            self.names[_said(name, arguments)] += 1
            error = seccomp.error_of(name)
            fcntl.ioctl(self.descriptor, SEND, ANSWER.pack(number, 0, -error, 0))


def _said(name: str, arguments: list[int]) -> str:
    """With the argument that the filter looks at."""
    place = seccomp.LOOKED_AT.get(name)
    return name if place is None else f"{name}({arguments[place]:#x})"


class Handover:
    """How a listener gets from the job, which may send nothing, to its supervisor, which takes it.

    ``give`` is called in the job and ``take`` in the supervisor. The job goes on when it was taken.
    """

    def __init__(self) -> None:
        self._told, self._tell = os.pipe()
        self._taken, self._take = os.pipe()

    def give(self, listener: int) -> None:
        os.close(self._told)
        os.close(self._take)
        os.write(self._tell, str(listener).encode())
        os.read(self._taken, 1)  # ends when the supervisor has closed its end
        for descriptor in (listener, self._tell, self._taken):
            os.close(descriptor)

    def keep(self) -> None:
        """In the job, where it has no listener to give."""
        for descriptor in (self._told, self._tell, self._taken, self._take):
            os.close(descriptor)

    def take(self, job: int) -> Counted | None:
        """None where the job ended before it had a filter, or gave nothing."""
        os.close(self._tell)
        os.close(self._taken)
        said = os.read(self._told, 20)
        try:
            return Counted(kernel.descriptor_of(job, int(said))) if said else None
        finally:
            os.close(self._told)
            os.close(self._take)


def serve(counted: Counted, ended: select.poll, events: list[tuple[int, int]]) -> bool:
    """Answer what was asked; was that all that happened? ``ended`` is what the supervisor waits for."""
    mine = [event for descriptor, event in events if descriptor == counted.descriptor]
    if any(event & select.POLLIN for event in mine):
        counted.take()
    elif mine:  # the last thread of the job is gone
        ended.unregister(counted.descriptor)
    return len(mine) == len(events)
