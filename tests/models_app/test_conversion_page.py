"""Following a conversion, and reading what came out."""

from __future__ import annotations

import dataclasses
import json
import uuid
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.utils import timezone

from models_app.models import Artifact, Conversion, ModelVersion
from tests.models_app.conftest import a_report, request_conversion
from worker.errors import TimedOut
from worker.report import Verdict

State = Conversion.State


@pytest.fixture
def conversion(version: ModelVersion, alice: User) -> Conversion:
    return request_conversion(version, alice)


def shown(client: Client, conversion: Conversion, **values: Any) -> Any:
    Conversion.objects.filter(pk=conversion.pk).update(**values)
    answer = client.get(conversion.get_absolute_url())
    assert answer.status_code == 200
    return answer.context


def finished(state: State, **values: Any) -> dict[str, Any]:
    return {"state": state, "finished_at": timezone.now(), **values}


def test_it_works(as_vera: Client, conversion: Conversion, version: ModelVersion) -> None:
    made = version.artifacts.create(
        format="h5", name="soup-v1.h5", sha256="0" * 64, size=7, origin=Artifact.Origin.CONVERTED
    )
    stages = [{"at": timezone.now().isoformat(), "text": "comparing"}]
    done = finished(State.SUCCEEDED, artifact=made, stages=stages, report_data=a_report().to_json())
    context = shown(as_vera, conversion, **done)
    assert context["report"] == a_report()
    assert context["file"].artifact == made
    assert [(step.text, step.state) for step in context["steps"]] == [
        ("Queued", "done"),
        ("comparing", "done"),
        ("Succeeded", "done"),
    ]
    assert context["poll_seconds"] == 0


def test_the_same_format_is_said_to_be_written_anew(as_vera: Client, conversion: Conversion) -> None:
    said = "to</span> {}, written anew</h1>"
    assert said.format("HDF5 model") not in as_vera.get(conversion.get_absolute_url()).content.decode()
    Conversion.objects.update(target="keras")
    assert said.format("Keras") in as_vera.get(conversion.get_absolute_url()).content.decode()


def test_queued(as_vera: Client, conversion: Conversion) -> None:
    Conversion.objects.create(
        version=conversion.version, target="json_npz", options_key="x", requested_by=conversion.requested_by
    )
    Conversion.objects.exclude(pk=conversion.pk).update(requested_at=timezone.now() - timedelta(minutes=1))
    context = shown(as_vera, conversion)
    assert (context["position"], context["poll_seconds"]) == (1, 0.25)
    assert context["route"] == ["Keras", "HDF5"] or context["route"][0] == "Keras"
    assert [(step.text, step.state) for step in context["steps"]] == [("Queued", "current")]


def test_running(as_vera: Client, conversion: Conversion) -> None:
    stages = [{"at": timezone.now().isoformat(), "text": text} for text in ("converting", "running the result")]
    context = shown(as_vera, conversion, state=State.RUNNING, lease_token=uuid.uuid4(), stages=stages)
    assert [step.state for step in context["steps"]] == ["done", "done", "current"]


@pytest.mark.parametrize(("minutes", "seconds"), [(0, 0.25), (0.5, 1), (5, 5)])
def test_polls_less_often_with_time(as_vera: Client, conversion: Conversion, minutes: float, seconds: float) -> None:
    asked = timezone.now() - timedelta(minutes=minutes)
    assert shown(as_vera, conversion, requested_at=asked)["poll_seconds"] == seconds


def test_failed(as_vera: Client, conversion: Conversion) -> None:
    error = TimedOut(seconds=900, kind="wall")
    context = shown(as_vera, conversion, **finished(State.FAILED, error=error.to_json()))
    assert context["error"]["message"] == error.message
    assert context["steps"][-1].state == "failed"


def test_try_again_keeps_the_options(as_bob: Client, version: ModelVersion, alice: User) -> None:
    conversion = request_conversion(version, alice, "tflite", precision="float16")
    Conversion.objects.update(**finished(State.FAILED, error=TimedOut(seconds=9, kind="wall").to_json()))
    text = " ".join(as_bob.get(conversion.get_absolute_url()).content.decode().split())
    assert 'name="tflite.precision" value="float16"' in text
    assert "With precision float16" in text


@pytest.mark.parametrize(
    ("precision", "title"),
    [("float32", "Verified: it computes the same"), ("int8", "Verified, as closely as precision int8 allows")],
)
def test_a_result_that_only_comes_close_says_so(
    as_vera: Client, version: ModelVersion, alice: User, precision: str, title: str
) -> None:
    conversion = request_conversion(version, alice, "tflite", precision=precision)
    Conversion.objects.update(**finished(State.SUCCEEDED, report_data=a_report().to_json()))
    assert title in as_vera.get(conversion.get_absolute_url()).content.decode()


@pytest.mark.parametrize(("target", "title"), [("coreml", "Converted, not run here"), ("h5", "could not be proven")])
def test_what_was_not_proven(as_vera: Client, version: ModelVersion, alice: User, target: str, title: str) -> None:
    conversion = request_conversion(version, alice, target)
    report = dataclasses.replace(a_report(Verdict.NOT_PROVABLE), target=target, reason="Only a Mac runs it.")
    Conversion.objects.update(**finished(State.SUCCEEDED, report_data=report.to_json()))
    text = as_vera.get(conversion.get_absolute_url()).content.decode()
    assert title in text
    assert "Only a Mac runs it." in text


def test_fragment_for_htmx(as_vera: Client, conversion: Conversion) -> None:
    answer = as_vera.get(conversion.get_absolute_url(), headers={"HX-Request": "true"})
    assert "<html" not in answer.content.decode()


def test_report_as_json(as_vera: Client, conversion: Conversion) -> None:
    Conversion.objects.update(report_data=a_report().to_json())
    answer = as_vera.get(f"{conversion.get_absolute_url()}report.json")
    assert json.loads(answer.content)["verdict"] == "verified"
    assert answer["Content-Disposition"] == 'attachment; filename="soup-v1-h5-report.json"'


def test_no_report_yet(as_vera: Client, conversion: Conversion) -> None:
    assert as_vera.get(f"{conversion.get_absolute_url()}report.json").status_code == 404


def test_target_format_that_was_removed_from_larder(as_vera: Client, conversion: Conversion) -> None:
    context = shown(as_vera, conversion, **finished(State.SUCCEEDED, target="forgotten"))
    assert (context["format"], context["route"][-1]) == (None, "forgotten")
