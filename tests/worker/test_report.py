"""Reports are plain data: they survive JSON, and findings are declared once."""

from __future__ import annotations

import json

import pytest

from worker import report
from worker.report import Check, Finding, Report, Severity, Verdict, declare, findings_from_json

REPORT = Report(
    source="keras",
    target="h5",
    route=("keras", "h5"),
    verdict=Verdict.VERIFIED,
    reason="The same.",
    checks=(
        Check("values", True, "The same.", {"outputs": [{"output": "y", "max_abs": 0.0}]}),
        Check("weights", None, "–"),
    ),
    findings=(Finding("suffix-misleads", Severity.NOTE, "The name.", {"suffix": ".h5"}),),
    versions={"keras": "3.15.1"},
    seed=7,
    seconds=0.5,
)


def test_it_works() -> None:
    assert Report.from_json(json.loads(json.dumps(REPORT.to_json()))) == REPORT


def test_findings_come_over_the_pipe() -> None:
    rows = json.loads(json.dumps([finding.to_json() for finding in REPORT.findings]))
    assert findings_from_json(rows) == list(REPORT.findings)


def test_a_kind_of_finding_is_declared_once() -> None:
    with pytest.raises(ValueError, match="declared twice"):
        declare("suffix-misleads", Severity.NOTE, "Again.")


def test_a_finding_fills_its_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report, "KINDS", {})
    kind = declare("tried", Severity.WARNING, "It tried {what}.")
    assert kind(what="{hard}") == Finding("tried", Severity.WARNING, "It tried {hard}.", {"what": "{hard}"})


@pytest.mark.parametrize("broken", [{}, {"code": "x"}, {"code": "x", "severity": "loud", "sentence": "y"}])
def test_what_is_no_finding_is_refused(broken: dict[str, str]) -> None:
    with pytest.raises((KeyError, ValueError)):
        findings_from_json([broken])
