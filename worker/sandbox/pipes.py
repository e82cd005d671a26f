"""The worker's side of a job's three pipes. What comes through them is data and is never trusted: JSON, bounded."""

from __future__ import annotations

import json
import os
import selectors
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from worker.sandbox.endings import Ending
from worker.sandbox.layers import Layer
from worker.visible import one_line

RESULT_BYTES = 1024 * 1024
LOG_BYTES = 256 * 1024
STATUS_BYTES = 64 * 1024
CHUNK = 64 * 1024
POLL_SECONDS = 0.2  # how often the worker asks whether the job is still wanted
GRACE_SECONDS = 5.0  # how long a stopped job may take to let go of its pipes, and how much later we stop it ourselves
PROGRESS_CHARACTERS = 200
MAX_DEPTH = 64  # of lists and objects in one another
MAX_PROGRESS = 500  # lines; each may cost the worker a write to the database


def parse(line: bytes) -> dict[str, Any] | None:
    """One line of JSON; None for anything else, and for what nests deeper than any answer does."""
    try:
        data = json.loads(line, parse_constant=str)
    except (ValueError, RecursionError):
        return None
    return data if isinstance(data, dict) and _is_flat(data) else None


def _is_flat(data: Any) -> bool:
    """Whoever goes through the answer later may do so by recursion."""
    level = [data]
    for _ in range(MAX_DEPTH):
        if not level:
            return True
        inner = [item.values() if isinstance(item, dict) else item for item in level]
        level = [each for items in inner for each in items if isinstance(each, (dict, list))]
    return False


class Lines:
    """Bytes that arrive in pieces, cut into lines. After ``limit`` bytes the rest is thrown away."""

    def __init__(self, limit: int) -> None:
        self._left = limit
        self._rest = b""
        self.overflow = False

    def feed(self, chunk: bytes) -> list[dict[str, Any]]:
        self.overflow = self.overflow or len(chunk) > self._left
        whole = self._rest + chunk[: self._left]
        self._left -= min(len(chunk), self._left)
        *lines, self._rest = whole.split(b"\n")
        return [data for line in lines if (data := parse(line)) is not None]


class JobPipes:
    """Three pipes. The write ends go to the zygote; the read ends are followed until the job has ended."""

    def __init__(self) -> None:
        self._pipes = [os.pipe() for _ in range(3)]
        self._result, self._log, self._status = (read for read, _ in self._pipes)
        self.write_ends = [write for _, write in self._pipes]
        self._open = {self._result, self._log, self._status}
        self._result_lines = Lines(RESULT_BYTES)
        self._status_lines = Lines(STATUS_BYTES)
        self._log_tail = bytearray()
        self._supervisor: int | None = None  # a descriptor of the process, for its number may be used again
        self._progress: Callable[[str], None] = lambda text: None
        self._told = 0
        self.ending = Ending()

    def close_write_ends(self) -> None:
        """Let go of what the zygote has now; the pipes end with the job."""
        while self.write_ends:
            os.close(self.write_ends.pop())

    def close(self) -> None:
        """Stop what is left of the job and let go of everything."""
        self._kill()
        self.close_write_ends()
        for descriptor in (*self._open, *([] if self._supervisor is None else [self._supervisor])):
            os.close(descriptor)
        self._open.clear()
        self._supervisor = None

    def follow(self, wall_seconds: float, canceled: Callable[[], bool], progress: Callable[[str], None]) -> Ending:
        """Read until the job has ended; stop it when it is canceled, or when its supervisor failed to."""
        self._progress = progress
        deadline = time.monotonic() + wall_seconds + GRACE_SECONDS
        with selectors.DefaultSelector() as selector:
            for descriptor in self._open:
                selector.register(descriptor, selectors.EVENT_READ)
            while not self._ended() and not self.ending.reason:
                self._read_for(POLL_SECONDS, selector)
                self._stop_when("wall", time.monotonic() > deadline)
                self._stop_when("canceled", canceled())
            self._drain(selector)
        self.ending.overflow = self._result_lines.overflow
        self.ending.log = self._log_tail.decode("utf-8", "replace")
        return self.ending

    def _ended(self) -> bool:
        """The supervisor has spoken its last word, or is gone."""
        return self.ending.status is not None or self._status not in self._open

    def _stop_when(self, reason: str, condition: bool) -> None:
        if condition and not self._ended():
            self.ending.reason = reason
            self._kill()

    def _kill(self) -> None:
        """SIGKILL the supervisor; the kernel then kills its job."""
        if self._supervisor is not None:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._supervisor, signal.SIGKILL)

    def _read_for(self, seconds: float, selector: selectors.BaseSelector) -> None:
        """Read whatever comes in the meantime; shorter where the job ends."""
        until = time.monotonic() + seconds
        while not self._ended() and (left := until - time.monotonic()) > 0:
            self._read(selector, left)

    def _drain(self, selector: selectors.BaseSelector) -> None:
        """What is still in the pipes, until the job has let go of them."""
        deadline = time.monotonic() + GRACE_SECONDS
        while self._open & {self._result, self._log} and time.monotonic() < deadline:
            self._read(selector, POLL_SECONDS)

    def _read(self, selector: selectors.BaseSelector, timeout: float) -> None:
        for key, _ in selector.select(timeout):
            chunk = os.read(key.fd, CHUNK)
            if chunk:
                self._take(key.fd, chunk)
            else:
                selector.unregister(key.fd)
                self._open.discard(key.fd)
                os.close(key.fd)

    def _take(self, descriptor: int, chunk: bytes) -> None:
        if descriptor == self._log:
            self._log_tail += chunk
            del self._log_tail[:-LOG_BYTES]
        elif descriptor == self._status:
            for line in self._status_lines.feed(chunk):
                self._take_status(line)
        else:
            for line in self._result_lines.feed(chunk):
                self._take_result(line)

    def _take_status(self, line: dict[str, Any]) -> None:
        """Lines of the sandbox itself; the job's end of this pipe was closed before its step began."""
        if "pid" in line:
            self.ending.begun = True
            with suppress(ProcessLookupError):
                self._supervisor = os.pidfd_open(line["pid"])
            if self.ending.reason:  # canceled before it began
                self._kill()
        elif "layers" in line:
            self.ending.layers = {name: Layer.from_json(layer) for name, layer in line["layers"].items()}
        elif "problem" in line:
            self.ending.problem = line["problem"]
        else:
            self.ending.status, self.ending.peak = line["status"], line["peak"]
            self.ending.denied = line["denied"]
            self.ending.reason = self.ending.reason or line["reason"]

    def _take_result(self, line: dict[str, Any]) -> None:
        """Lines of the job."""
        if "progress" in line:
            self._told += 1
            if self._told <= MAX_PROGRESS:
                self._progress(one_line(str(line["progress"]))[:PROGRESS_CHARACTERS])
        elif "event" in line:
            self.ending.events.append(line)
        else:
            self.ending.answers.append(line)
