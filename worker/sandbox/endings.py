"""How a job ended, and the error that says so."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from worker.errors import (
    Canceled,
    Crashed,
    DiskFull,
    LarderError,
    NoResult,
    OutOfMemory,
    SandboxError,
    SandboxMissing,
    TimedOut,
    from_json,
)
from worker.sandbox.attempts import Attempt, forbidden, heard
from worker.sandbox.layers import Layer, missing
from worker.sandbox.limits import Limits, size
from worker.sandbox.seccomp import REACHING

MOST_ATTEMPTS = 20
NATIVE_SHORTAGE = ("bad_alloc", "out of memory", "failed to allocate")
# The only errors of the sandbox that a job may report itself; it could forge the others.
OWN_SHORTAGES = (OutOfMemory, DiskFull)


@dataclass
class Ending:
    """All that came through the pipes of one job. ``answers`` and ``events`` are the job's words, the rest is ours."""

    begun: bool = False  # the zygote took it and forked its supervisor
    layers: dict[str, Layer] = field(default_factory=dict)
    problem: str = ""  # why the sandbox could not be set up
    status: int | None = None  # as waitpid gives it
    reason: str = ""  # why the supervisor, or the worker, stopped it
    peak: int = 0
    denied: dict[str, int] = field(default_factory=dict)  # refused calls by name, where they are counted
    told: tuple[str, ...] = ()  # those of a job with code of a model's own
    answers: list[dict[str, Any]] = field(default_factory=list)
    events: list[dict[str, Any]] = field(default_factory=list)
    overflow: bool = False  # more came through the result pipe than may
    log: str = ""


def _stopped(reason: str, limits: Limits) -> LarderError:
    """The error for a job that was stopped with a reason."""
    return {
        "memory": OutOfMemory(limit=size(limits.memory_bytes)),
        "disk": DiskFull(limit=size(limits.disk_bytes)),
        "files": DiskFull(limit=f"{limits.files:,} files"),
        "hidden": forbidden([Attempt("hide")]),
        "wall": TimedOut(seconds=f"{limits.wall_seconds:g}", kind="wall-clock"),
        "canceled": Canceled(),
    }[reason]


def _killed(number: int, log: str, limits: Limits) -> LarderError:
    """The error for a job that died of a signal."""
    if number == signal.SIGABRT and any(words in log for words in NATIVE_SHORTAGE):
        return OutOfMemory(limit=size(limits.memory_bytes))
    named: dict[int, LarderError] = {
        signal.SIGXCPU: TimedOut(seconds=limits.cpu_seconds, kind="processor"),
        signal.SIGXFSZ: DiskFull(limit=size(limits.file_bytes)),
        signal.SIGSYS: forbidden([Attempt("call")]),
        signal.SIGKILL: Crashed(signal="SIGKILL: perhaps the machine ran out of memory"),
    }
    return named.get(number) or Crashed(signal=_signal_name(number))


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _tried(ending: Ending) -> LarderError | None:
    """Forbidden where the job tried what no model needs, even if it went on afterwards.

    A job says what it likes, and as often: the same counts once, and not without end."""
    said = list(islice(dict.fromkeys(filter(None, map(heard, ending.events))), MOST_ATTEMPTS))
    known = {attempt.kind for attempt in said}
    tried = [*said, *(attempt for attempt in reached(ending.told) if attempt.kind not in known)]
    return forbidden(tried) if tried else None


def reached(calls: Iterable[str]) -> list[Attempt]:
    """What the refused calls of these names were to do, where that is what no model needs."""
    names = sorted({name.partition("(")[0] for name in calls})
    return [Attempt(kind, name) for kind, of_kind in REACHING.items() for name in names if name in of_kind]


def _not_run(ending: Ending, weak: bool) -> LarderError | None:
    """The error for a job whose step did not begin."""
    if ending.reason == "canceled":
        return Canceled()
    if ending.problem:
        return SandboxError(problem=ending.problem)
    if ending.layers and not weak and (absent := missing(ending.layers)):
        return SandboxMissing(missing=absent)
    return None


def _died(ending: Ending, limits: Limits) -> LarderError | None:
    """The error for a job that did not end by itself."""
    if ending.reason:
        return _stopped(ending.reason, limits)
    if ending.status is None:
        return NoResult(status="unknown: its supervisor is gone")
    if os.WIFSIGNALED(ending.status):
        return _killed(os.WTERMSIG(ending.status), ending.log, limits)
    return None


def _reported(data: Any) -> LarderError:
    """The error that the job says it met."""
    if not isinstance(data, dict):
        return NoResult(status="an error without a name")
    error = from_json(data)
    if isinstance(error, SandboxError) and not isinstance(error, OWN_SHORTAGES):
        return forbidden([Attempt("speak")])
    return error


def _answered(ending: Ending) -> dict[str, Any] | LarderError:
    """The value of the one answer, or the error in its place."""
    if ending.overflow:
        return NoResult(status="an answer that is too long")
    if len(ending.answers) > 1:
        return forbidden([Attempt("forge")])
    if not ending.answers:
        return NoResult(status=os.waitstatus_to_exitcode(ending.status or 0))
    if "error" in ending.answers[0]:
        return _reported(ending.answers[0]["error"])
    value = ending.answers[0].get("value")
    return value if isinstance(value, dict) else NoResult(status="an answer without a value")


def judge(ending: Ending, limits: Limits, weak: bool = False) -> dict[str, Any]:
    """The value that the step returned. Raises the one error that says how the job ended otherwise. ``weak``: it may
    have run without the floor."""
    error = _tried(ending) or _not_run(ending, weak) or _died(ending, limits)
    answered = error or _answered(ending)
    if isinstance(answered, LarderError):
        if ending.log:
            answered.add_note(f"The job's log ends with:\n{ending.log[-2000:]}")
        raise answered
    return answered
