"""What a job tried that no model needs: the kinds of it, their words, and the error that they make of any end.

The job says of itself what it tried (``audit``), so that its words are cut and cleaned here; what the kernel and the
supervisor stopped is told in the same way.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from worker.errors import Forbidden
from worker.report import Finding, FindingKind, Severity, declare

LONGEST_DETAIL = 200


@dataclass(frozen=True)
class Kind:
    """``what`` completes "the file tried to …"; ``finding`` tells one attempt."""

    what: str
    finding: FindingKind


def _kind(code: str, what: str, happened: str) -> Kind:
    return Kind(what, declare(f"tried-{code}", Severity.DANGER, f"While it was opened, the file tried to {happened}."))


KINDS = {
    "program": _kind("program", "start a program", "start a program{detail}"),
    "process": _kind("process", "create a process", "create a process{detail}"),
    "network": _kind("network", "open a network connection", "open a network connection{detail}"),
    "read": _kind("read", "read {detail}", "read what it was not given{detail}"),
    "write": _kind("write", "change {detail}", "write or change something outside of its own folder{detail}"),
    "library": _kind("library", "load the library {detail}", "load a library that is not one of Larder's{detail}"),
    "signal": _kind("signal", "signal another process", "signal another process{detail}"),
    "call": _kind("call", "make a system call that is not allowed", "make a system call that is not allowed{detail}"),
    "hide": _kind("hide", "hide what it writes", "hide what it writes{detail}"),
    "forge": _kind("forge", "forge the answer", "answer in the place of the step that opened it{detail}"),
    "speak": _kind("speak", "speak for the sandbox", "answer in the sandbox's own words{detail}"),
}


@dataclass(frozen=True)
class Attempt:
    """One thing that was tried, of one of the ``KINDS``."""

    kind: str
    detail: str = ""

    @property
    def what(self) -> str:
        return KINDS[self.kind].what.format(detail=self.detail)

    @property
    def finding(self) -> Finding:
        told = KINDS[self.kind].finding(detail=f": {self.detail}" if self.detail else "")
        return Finding(told.code, told.severity, told.sentence, {"what": self.what})


def heard(event: Mapping[str, Any]) -> Attempt | None:
    """What a job says that it tried; None where that is nothing known."""
    kind, detail = event.get("event"), str(event.get("detail", ""))[:LONGEST_DETAIL]
    shown = "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in detail)
    return Attempt(kind, shown) if isinstance(kind, str) and kind in KINDS else None


def forbidden(attempts: Sequence[Attempt]) -> Forbidden:
    """The error of a job that tried these, the first of which is its sentence."""
    return Forbidden(what=attempts[0].what, attempts=[each.finding.to_json() for each in attempts])
