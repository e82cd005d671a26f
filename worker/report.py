"""What a conversion has to say about itself: findings, checks, verdict. Plain data that survives JSON."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from worker.visible import said

SCHEMA = 1  # of a report's JSON, docs/report.md: raised when a key goes away or means something else


class Severity(StrEnum):
    """How much a person should care, the least first. The last two decide what becomes of a file, no other does."""

    NOTE = "note"  # worth knowing, changes nothing
    WARNING = "warning"  # something was lost, approximated or replaced
    DANGER = "danger"  # the file holds something that could do harm, and that Larder leaves closed
    CONSENT = "needs-consent"  # code of the file's own would have to be run: people decide, and a team's policy
    REFUSE = "refuse"  # the file is not opened


class Verdict(StrEnum):
    """What the checks together say of a result."""

    VERIFIED = "verified"
    DIFFERS = "differs"
    NOT_PROVABLE = "not-provable"


@dataclass(frozen=True)
class Finding:
    """One thing repaired, dropped, approximated, added or risky."""

    code: str
    severity: Severity
    sentence: str
    data: dict[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Finding:
        return cls(str(data["code"]), Severity(data["severity"]), str(data["sentence"]), dict(data.get("data") or {}))


@dataclass(frozen=True)
class FindingKind:
    """A declared kind of finding; calling it with its data makes one."""

    code: str
    severity: Severity
    sentence: str

    def __call__(self, **data: Any) -> Finding:
        shown = {name: said(detail) for name, detail in data.items()}
        return Finding(self.code, self.severity, self.sentence.format_map(shown), data)


def refusals(findings: Iterable[Finding]) -> list[Finding]:
    """Those for which a file is not opened at all."""
    return [finding for finding in findings if finding.severity is Severity.REFUSE]


def needing_consent(findings: Iterable[Finding]) -> list[Finding]:
    """Those for which a file is opened only after somebody agreed, where the team's policy allows it."""
    return [finding for finding in findings if finding.severity is Severity.CONSENT]


KINDS: dict[str, FindingKind] = {}


def declare(code: str, severity: Severity, sentence: str) -> FindingKind:
    """Declare a kind of finding once; a second declaration of the same code is a mistake and raises ValueError."""
    if code in KINDS:
        raise ValueError(f"finding {code!r} is declared twice")
    KINDS[code] = FindingKind(code, severity, sentence)
    return KINDS[code]


@dataclass(frozen=True)
class Check:
    """One comparison between source and result. ``passed`` is None where the comparison could not be made."""

    name: str  # load, names, shapes, dtypes, weights, values; sensitivity comes with the whole of verification
    passed: bool | None
    sentence: str
    data: dict[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Check:
        return cls(str(data["name"]), data["passed"], str(data["sentence"]), dict(data.get("data") or {}))


@dataclass(frozen=True)
class Report:
    """All that is known about one conversion; stored with it and shown to people."""

    source: str
    target: str
    route: tuple[str, ...]
    verdict: Verdict
    reason: str
    checks: tuple[Check, ...]
    findings: tuple[Finding, ...]
    versions: dict[str, str]
    seed: int
    seconds: float

    def to_json(self) -> dict[str, Any]:
        return {"schema": SCHEMA, **dataclasses.asdict(self)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Report:
        return cls(
            source=data["source"],
            target=data["target"],
            route=tuple(data["route"]),
            verdict=Verdict(data["verdict"]),
            reason=data["reason"],
            checks=tuple(map(Check.from_json, data["checks"])),
            findings=tuple(map(Finding.from_json, data["findings"])),
            versions=dict(data["versions"]),
            seed=data["seed"],
            seconds=data["seconds"],
        )


def findings_from_json(rows: Iterable[Mapping[str, Any]]) -> list[Finding]:
    """Findings as they came over the pipe."""
    return [Finding.from_json(row) for row in rows]
