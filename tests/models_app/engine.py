"""An engine without TensorFlow: it takes what the real one takes and does what a test tells it to."""

from __future__ import annotations

import inspect as introspection
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import User

from models_app.models import Artifact, Conversion, ModelVersion
from tests.models_app.conftest import SUMMARY, a_report, request_conversion
from worker import pipeline, runtime, tasks
from worker.custom_code import Consent
from worker.errors import Canceled, LarderError, SandboxMissing
from worker.report import Finding, Report, Verdict
from worker.sandbox.limits import Limits


@dataclass
class FakeEngine:
    """``during`` runs in the middle of a job; ``error`` is raised at its end, else ``report`` is the answer."""

    report: Report = field(default_factory=a_report)
    result: bytes = b"the result"
    findings: list[Finding] = field(default_factory=list)
    error: Exception | None = None
    unloadable: LarderError | None = None  # what inspection says of a model that does not load
    during: Callable[[Callable[[], bool]], None] = lambda canceled: None
    folder: Path = Path()
    missing: str = ""
    samples: bytes | None = None  # what was given to the last conversion
    samples_name: str = ""
    consent: Consent | None = None  # what the last job went by
    absent: str = ""  # parts of the floor, where the operator lets jobs run without them

    def zygote(self) -> FakeEngine:
        if self.missing:
            raise SandboxMissing(missing=self.missing)
        return self

    def inspect(
        self,
        zygote: Any,
        path: Path,
        format: str,
        folder: Path,
        limits: Limits,
        consent: Consent | None = None,
        canceled: Callable[[], bool] = bool,
        name: str = "",
        load: bool = True,
    ) -> pipeline.Inspection:
        self.consent = consent
        self._act(folder, canceled)
        return pipeline.Inspection(SUMMARY, self.findings, self.unloadable)

    def convert(
        self,
        zygote: Any,
        source: pipeline.Source,
        target: str,
        options: dict[str, Any],
        folder: Path,
        limits: Limits,
        *,
        samples: Path | None = None,
        consent: Consent | None = None,
        stage: Callable[[str], None] = lambda text: None,
        canceled: Callable[[], bool] = bool,
        with_twin: bool = True,
        seed: int | None = None,
    ) -> pipeline.Result:
        stage("converting")
        self.consent = consent
        self.samples, self.samples_name = (samples.read_bytes(), samples.name) if samples else (None, "")
        self._act(folder, canceled)
        stage("verifying")
        path = folder / "result.h5"
        path.write_bytes(self.result)
        return pipeline.Result(path, self.report)

    def _act(self, folder: Path, canceled: Callable[[], bool]) -> None:
        self.folder = folder
        self.during(canceled)
        if canceled():
            raise Canceled
        if self.error:
            raise self.error


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> FakeEngine:
    fake = FakeEngine()
    for name in ("inspect", "convert"):
        monkeypatch.setattr(pipeline, name, getattr(fake, name))
    monkeypatch.setattr(runtime, "zygote", fake.zygote)
    monkeypatch.setattr(tasks, "LOOK_SECONDS", 3600)  # its thread would not see what a test has not committed
    return fake


def convert_as(
    engine: FakeEngine, version: ModelVersion, user: User, verdict: Verdict = Verdict.DIFFERS
) -> tuple[Conversion, Artifact]:
    """A conversion that came to this verdict, and the file that came out."""
    engine.report, engine.result = a_report(verdict), f"a result that is {verdict}".encode()
    conversion = request_conversion(version, user)
    tasks.convert(str(conversion.pk))
    conversion.refresh_from_db()
    assert conversion.artifact is not None
    return conversion, conversion.artifact


def parameters(function: Callable[..., Any]) -> list[tuple[str, Any]]:
    """How a function may be called."""
    return [(each.name, each.kind) for each in introspection.signature(function).parameters.values()]
