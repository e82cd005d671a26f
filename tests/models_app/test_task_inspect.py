"""What the worker does with a new version."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from django.contrib.auth.models import User

from models_app.actions import catalog
from models_app.models import Actor, ModelVersion, Team, Upload
from tests.models_app.conftest import SUMMARY, Told, event_tags, keras_file
from tests.models_app.engine import FakeEngine, engine, parameters
from worker import pipeline, tasks
from worker.errors import LambdaRefused
from worker.report import Finding, Severity

__all__ = ["engine"]

State = ModelVersion.State
REAL_INSPECT = pipeline.inspect
ODD = Finding("odd-layer", Severity.NOTE, "A layer is odd.")


@pytest.fixture
def fresh(team: Team, alice: User, upload: Callable[..., Upload], told: Told) -> ModelVersion:
    return catalog.add_version(Actor.of(alice), team, [upload("soup.h5.keras", keras_file())])


def run(version: ModelVersion) -> ModelVersion:
    tasks.inspect_version(str(version.pk))
    version.refresh_from_db()
    return version


def test_it_works(fresh: ModelVersion, engine: FakeEngine) -> None:
    engine.findings = [ODD]
    done = run(fresh)
    assert (done.state, done.summary, done.lease_token) == (State.INSPECTED, SUMMARY, None)
    assert ODD in done.findings
    assert event_tags(done.team)[-1] == "version:inspected"


def test_fake_is_called_like_the_real_one(engine: FakeEngine) -> None:
    assert parameters(engine.inspect) == parameters(REAL_INSPECT)


def test_what_was_found_at_the_upload_stays(fresh: ModelVersion, engine: FakeEngine) -> None:
    before = Finding("misleading-suffix", Severity.NOTE, "It is called something else.")
    ModelVersion.objects.filter(pk=fresh.pk).update(findings_data=[before.to_json()])
    engine.findings = [before, ODD]
    assert run(fresh).findings == [before, ODD]


def test_unreadable_file_says_why_and_can_still_be_had(fresh: ModelVersion, engine: FakeEngine) -> None:
    engine.error = LambdaRefused(names="secret_sauce")
    done = run(fresh)
    assert (done.state, done.error) == (State.UNREADABLE, engine.error.to_json())
    assert done.source.size > 0
    assert event_tags(done.team)[-1] == "version:unreadable"


def test_what_is_known_of_a_model_that_does_not_load_is_kept(fresh: ModelVersion, engine: FakeEngine) -> None:
    engine.unloadable, engine.findings = LambdaRefused(names="secret_sauce"), [ODD]
    done = run(fresh)
    assert (done.state, done.error) == (State.UNREADABLE, engine.unloadable.to_json())
    assert (done.summary, done.findings[-1]) == (SUMMARY, ODD)
    assert event_tags(done.team)[-1] == "version:unreadable"


def test_without_a_sandbox_the_file_waits(fresh: ModelVersion, engine: FakeEngine) -> None:
    """It is the machine's fault, not the file's."""
    engine.missing = "seccomp"
    done = run(fresh)
    assert (done.state, done.attempt, done.lease_token) == (State.WAITING, 0, None)


def test_inspected_once(fresh: ModelVersion, engine: FakeEngine) -> None:
    run(fresh)
    engine.error = AssertionError("must not run again")
    assert run(fresh).state == State.INSPECTED


@pytest.mark.parametrize("said", ["5a" * 32, "5A" * 32, "x" * 64, "<b>" + "a" * 61, "5a" * 31, "5a" * 31 + "a\n", ""])
def test_only_a_digest_of_the_weights_is_kept(
    fresh: ModelVersion, engine: FakeEngine, monkeypatch: pytest.MonkeyPatch, said: str
) -> None:
    monkeypatch.setattr(pipeline, "inspect", lambda *given, **named: pipeline.Inspection(SUMMARY, [], None, said))
    assert run(fresh).weights_sha256 == (said if said == "5a" * 32 else "")
