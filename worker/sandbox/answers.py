"""The job's side of the result pipe, and the run of one step."""

from __future__ import annotations

import json
import os
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from typing import Any

from worker.errors import ConverterFailed, DiskFull, LarderError, OutOfMemory
from worker.sandbox.audit import Watch
from worker.sandbox.limits import Limits, size
from worker.sandbox.request import Request

Progress = Callable[[str], None]
Step = Callable[[dict[str, Any], Progress], dict[str, Any]]

MAX_PROBLEM = 300
DISK_WORDS = tuple(os.strerror(number) for number in (27, 28, 122))  # EFBIG, ENOSPC, EDQUOT


class ResultPipe:
    """JSON lines to the worker. Threads of a library may cause events while the answer is on its way."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._lock = threading.RLock()

    def send(self, line: dict[str, Any]) -> None:
        rest = json.dumps(line, default=str).encode() + b"\n"
        with self._lock:
            while rest:
                rest = rest[os.write(self._descriptor, rest) :]


def watch(pipe: ResultPipe, request: Request) -> None:
    """Tell the worker what this job tries that no model needs; becoming its program is expected of it."""
    expected = {"os.exec"} if request.program else set[str]()
    sys.addaudithook(Watch(request, lambda kind, detail: pipe.send({"event": kind, "detail": detail}), expected))


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def shortage(error: BaseException, limits: Limits) -> LarderError | None:
    """The limit that was met, when ``error`` or what caused it says so. TensorFlow calls a full disk exhausted too."""
    for cause in _causes(error):
        if any(word in str(cause) for word in DISK_WORDS):
            return DiskFull(limit=f"{size(min(limits.file_bytes, limits.disk_bytes))} or the space that is left")
        if isinstance(cause, MemoryError) or type(cause).__name__ == "ResourceExhaustedError":
            return OutOfMemory(limit=size(limits.memory_bytes))
    return None


def _unforeseen(step: str, error: BaseException) -> ConverterFailed:
    first = (str(error).strip().splitlines() or [""])[0]
    return ConverterFailed(doing=f"The step “{step}”", problem=f"{type(error).__name__}: {first}"[:MAX_PROBLEM])


def _value(step: Step, arguments: dict[str, Any], progress: Progress) -> dict[str, Any]:
    value = step(arguments, progress)
    if not isinstance(value, dict):
        raise TypeError(f"a step returns a dict, not {type(value).__name__}")
    json.dumps(value, allow_nan=False)  # raises here, where it is told, for what cannot cross the pipe
    return value


def answer(request: Request, step: Step, progress: Progress) -> dict[str, Any]:
    """Run the step: ``{"value": …}``, or ``{"error": …}`` in the words of worker/errors.py."""
    try:
        return {"value": _value(step, request.arguments, progress)}
    except LarderError as error:
        told = shortage(error, request.limits) or error
    except BaseException as error:  # a step may end in SystemExit as well
        traceback.print_exc()
        told = shortage(error, request.limits) or _unforeseen(request.step, error)
    return {"error": told.to_json()}
