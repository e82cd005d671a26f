"""Jobs without a sandbox, in this process: the interface of the Zygote over the real steps, for toy formats only."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from worker import steps
from worker.errors import Canceled, LarderError, from_json
from worker.formats._format import WRITTEN
from worker.sandbox.limits import Limits
from worker.sandbox.request import Program

ONE_AT_A_TIME = threading.Lock()  # a process has one current folder


@dataclass(frozen=True)
class Answer:
    value: dict[str, Any]


@dataclass
class LocalJobs:
    """Runs each step at once, with everything through JSON as over the pipe. ``after`` may spoil what a step left."""

    asked: list[tuple[str, list[str]]] = field(default_factory=list)
    after: Callable[[str, Path, dict[str, Any]], None] = lambda step, folder, value: None

    def run(
        self,
        step: str,
        arguments: dict[str, Any],
        *,
        read: Sequence[Path],
        folder: Path,
        limits: Limits,
        canceled: Callable[[], bool] = lambda: False,
        progress: Callable[[str], None] = lambda text: None,
        program: Program | None = None,
    ) -> Answer:
        assert program is None, "a program would take the place of this process"
        self.asked.append((step, [path.name for path in read]))
        if canceled():
            raise Canceled
        with ONE_AT_A_TIME, contextlib.chdir(folder):
            try:
                value = steps.STEPS[step](json.loads(json.dumps(arguments)), lambda text: self._tell(text, progress))
            except LarderError as error:
                raise from_json(json.loads(json.dumps(error.to_json()))) from None
        value = json.loads(json.dumps(value, allow_nan=False))
        self.after(step, folder, value)
        return Answer(value)

    @staticmethod
    def _tell(text: str, progress: Callable[[str], None]) -> None:
        """All but that the result is there: it would be opened before ``after`` has come by."""
        if text != WRITTEN:
            progress(text)
