"""What the worker asks of the zygote, as it crosses the control socket."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from worker.sandbox.limits import Limits

if TYPE_CHECKING:
    from worker.sandbox.counting import Handover


@dataclass(frozen=True)
class Program:
    """What a job turns into when its step has ended, under the same layers and limits.

    ``command``: the program's file by its whole path, and its first arguments; two more tell it where the step's answer
    lies and on which descriptor it gives its own. ``environment``: what it has beyond the job's.
    """

    command: tuple[str, ...]
    environment: dict[str, str]


@dataclass(frozen=True)
class Request:
    """One job: a step by name, its arguments, what it may read, the one folder in which it may write, and the program
    that it ends in, where its step only prepares for one."""

    step: str
    arguments: dict[str, Any]
    read: tuple[str, ...]
    folder: str
    limits: Limits
    strict: bool = False
    weak: bool = False  # run it although the floor is missing
    program: Program | None = None
    counted: bool = False  # count the calls that are refused
    foreign: bool = False  # it runs Python code of the model's own, which can silence what Python tells of it

    def encode(self) -> bytes:
        return json.dumps(dataclasses.asdict(self)).encode()

    @classmethod
    def decode(cls, message: bytes) -> Request:
        data = json.loads(message)
        program = data["program"] and Program(tuple(data["program"]["command"]), data["program"]["environment"])
        plain = {"read": tuple(data["read"]), "limits": Limits(**data["limits"]), "program": program}
        return cls(**{**data, **plain})


@dataclass(frozen=True)
class Cell:
    """A request and the pipe ends that its job writes to. ``alone``: in a root of its own, with no other files."""

    request: Request
    result: int  # JSON lines: progress, events, the answer
    log: int  # what the job prints
    status: int  # JSON lines of the sandbox itself; closed before the step runs
    alone: bool = False
    handover: Handover | None = None  # where refused calls are told
