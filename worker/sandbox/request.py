"""What the worker asks of the zygote, as it crosses the control socket."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from typing import Any

from worker.sandbox.limits import Limits


@dataclass(frozen=True)
class Request:
    """One job: a step by name, its arguments, what it may read, and the one folder in which it may write."""

    step: str
    arguments: dict[str, Any]
    read: tuple[str, ...]
    folder: str
    limits: Limits
    strict: bool = False

    def encode(self) -> bytes:
        return json.dumps(dataclasses.asdict(self)).encode()

    @classmethod
    def decode(cls, message: bytes) -> Request:
        data = json.loads(message)
        return cls(**{**data, "read": tuple(data["read"]), "limits": Limits(**data["limits"])})


@dataclass(frozen=True)
class Cell:
    """A request and the pipe ends that its job writes to."""

    request: Request
    result: int  # JSON lines: progress, events, the answer
    log: int  # what the job prints
    status: int  # JSON lines of the sandbox itself; closed before the step runs
