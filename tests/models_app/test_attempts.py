"""A job tried what no model needs: the work fails, nothing of the version goes anywhere, and its owners are told."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client

from models_app.actions import attempts, catalog, quarantine, sharing
from models_app.models import Actor, Artifact, Attempt, Conversion, Measurement, ModelVersion, Quarantine, Team, Upload
from models_app.models.quarantine import Cause, handed_out
from tests.models_app.conftest import LONG, a_report, client_of, event_tags, request_conversion
from tests.models_app.engine import FakeEngine, convert_as, engine
from worker import tasks
from worker.errors import QuarantinedForGood, StateError
from worker.report import Verdict
from worker.sandbox.attempts import Attempt as Tried
from worker.sandbox.attempts import forbidden

__all__ = ["engine"]
ERROR = forbidden([Tried("program", "<b>sh</b>"), Tried("read", "/etc/passwd")])
TEAM, SETTINGS = "/t/kitchen/", "/t/kitchen/settings/"


@pytest.fixture
def caught(version: ModelVersion, bob: User, engine: FakeEngine) -> Conversion:
    """A conversion whose job tried to start a program, and then answered well."""
    conversion = request_conversion(version, bob)
    engine.error = ERROR
    tasks.convert(str(conversion.pk))
    conversion.refresh_from_db()
    engine.error = None
    return conversion


def test_it_works(caught: Conversion, version: ModelVersion, as_alice: Client, as_bob: Client) -> None:
    assert caught.state == Conversion.State.FAILED
    assert (caught.error or {})["code"] == "forbidden"
    assert caught.artifact is None
    [attempt] = Attempt.objects.all()
    assert (attempt.version, attempt.doing) == (version, "converting it to HDF5 model")
    assert [item.code for item in attempt.findings] == ["tried-program", "tried-read"]
    assert [stay.cause for stay in Quarantine.objects.open()] == ["forbidden"]
    version.refresh_from_db()
    assert [item.code for item in version.findings] == ["tried-program", "tried-read"]
    tags = event_tags(version.team)
    assert tags[-3:] == ["conversion:failed", "attempt:stopped", "artifact:quarantined"]
    stopped = version.team.history.get(tag="attempt:stopped")
    assert (stopped.actor_name, stopped.subject_url) == ("larder", version.get_absolute_url())
    assert "/etc/passwd" in stopped.data["tried"][1]
    for url in (caught.get_absolute_url(), version.get_absolute_url()):
        page = as_bob.get(url).content.decode()
        assert "start a program: &lt;b&gt;sh&lt;/b&gt;" in page
        assert "<b>sh</b>" not in page
    assert "tried what no model needs" in as_alice.get(TEAM).content.decode()


def test_nobody_can_have_it(caught: Conversion, artifact: Artifact, alice: User, as_alice: Client) -> None:
    """Not even an owner, with a reason."""
    answer = as_alice.get(artifact.download_url)
    assert (answer.status_code, answer.context["code"]) == (423, "quarantined-for-good")
    assert not handed_out().filter(version=artifact.version).exists()
    with pytest.raises(QuarantinedForGood):
        quarantine.release(Actor.of(alice), artifact, "I know what I am doing here")
    as_alice.post(f"/files/{artifact.pk}/quarantine/release/", {"reason": "I know what I am doing here"})
    assert Quarantine.objects.open().count() == 1
    page = as_alice.get(f"/files/{artifact.pk}/quarantine/").content.decode()
    assert "Nobody can release it" in page
    assert "Release from quarantine" not in page
    with pytest.raises(QuarantinedForGood):
        sharing.create_share_link(Actor.of(alice), artifact, LONG)


def test_no_further_conversion(caught: Conversion, version: ModelVersion, bob: User) -> None:
    with pytest.raises(QuarantinedForGood):
        request_conversion(version, bob, "saved_model")
    as_bob = client_of(bob)
    assert 'id="convert"' not in as_bob.get(version.get_absolute_url()).content.decode()
    assert "Try again" not in as_bob.get(caught.get_absolute_url()).content.decode()


def test_what_was_made_of_it_before_goes_along(version: ModelVersion, bob: User, engine: FakeEngine) -> None:
    _, good = convert_as(engine, version, bob, Verdict.VERIFIED)
    conversion = request_conversion(version, bob, "saved_model")
    engine.error = ERROR
    tasks.convert(str(conversion.pk))
    assert good.quarantine is not None
    assert good.quarantine.is_for_good


def test_what_was_in_quarantine_stays_there_for_good(
    version: ModelVersion, alice: User, bob: User, engine: FakeEngine
) -> None:
    _, differing = convert_as(engine, version, bob, Verdict.DIFFERS)
    conversion = request_conversion(version, bob, "saved_model")
    engine.error = ERROR
    tasks.convert(str(conversion.pk))
    assert [stay.cause for stay in differing.quarantines.all()] == [Cause.DIFFERS]
    with pytest.raises(QuarantinedForGood):
        quarantine.release(Actor.of(alice), differing, "I know what I am doing here")


def test_other_work_on_it_ends(version: ModelVersion, bob: User, engine: FakeEngine) -> None:
    first, _, running = (request_conversion(version, bob, target) for target in ("h5", "tflite", "onnx"))
    assert Conversion.objects.claim(running.pk)
    engine.error = ERROR
    tasks.convert(str(first.pk))
    states = dict(Conversion.objects.values_list("target", "state"))
    assert states == {"h5": "failed", "tflite": "canceled", "onnx": "running"}
    running.refresh_from_db()
    assert running.cancel_requested


def test_the_same_bytes_elsewhere_in_the_team_are_kept_too(
    caught: Conversion, artifact: Artifact, upload: Callable[..., Upload], bob: User
) -> None:
    from tests.models_app.conftest import keras_file

    again = catalog.add_version(Actor.of(bob), caught.team, [upload("other.keras", keras_file())])
    assert again.source.sha256 == artifact.sha256
    assert again.source.quarantine is not None


def test_an_inspection_that_tried(version: ModelVersion, engine: FakeEngine, as_bob: Client) -> None:
    ModelVersion.objects.update(state=ModelVersion.State.WAITING, attempt=0)
    engine.error = ERROR
    tasks.inspect_version(str(version.pk))
    version.refresh_from_db()
    assert (version.state, (version.error or {})["code"]) == (ModelVersion.State.UNREADABLE, "forbidden")
    assert Attempt.objects.get().doing == "inspecting it"
    assert version.source.quarantine is not None
    page = as_bob.get(version.get_absolute_url()).content.decode()
    assert "/etc/passwd" in page
    assert "can be downloaded" not in page
    assert "kept in quarantine" in page


def test_a_measurement_that_tried(version: ModelVersion, bob: User, monkeypatch: pytest.MonkeyPatch) -> None:
    from worker import measuring

    def measure(*_: object, **__: object) -> None:
        raise ERROR

    monkeypatch.setattr(measuring, "measure", measure)
    monkeypatch.setattr(tasks, "_consent", lambda version: None)
    monkeypatch.setattr("worker.runtime.zygote", lambda: None)
    measurement = version.measurements.create(asked_by=bob)
    tasks.measure(str(measurement.pk))
    assert Measurement.objects.get().state == Measurement.State.FAILED
    assert Attempt.objects.get().doing == "measuring it"


def test_who_cancels_hides_nothing(version: ModelVersion, bob: User, engine: FakeEngine) -> None:
    """The job had tried before somebody no longer wanted its answer."""
    conversion = request_conversion(version, bob)

    def cancel(_: Callable[[], bool]) -> None:
        Conversion.objects.update(cancel_requested=True)
        raise ERROR

    engine.during = cancel
    tasks.convert(str(conversion.pk))
    conversion.refresh_from_db()
    assert conversion.state == Conversion.State.FAILED
    assert Attempt.objects.count() == 1


@pytest.mark.parametrize("verdict", [Verdict.VERIFIED, Verdict.DIFFERS])
def test_nothing_is_published_once_another_job_has_tried(
    version: ModelVersion, bob: User, engine: FakeEngine, monkeypatch: pytest.MonkeyPatch, verdict: Verdict
) -> None:
    """Not in the very moment either, when its file is there and the alarm has not seen it."""
    add = tasks._add_artifact

    def added(*arguments: Any) -> Artifact:
        artifact = add(*arguments)
        Conversion.objects.update(cancel_requested=True)
        return artifact

    monkeypatch.setattr(tasks, "_add_artifact", added)
    engine.report = a_report(verdict)
    conversion = request_conversion(version, bob)
    tasks.convert(str(conversion.pk))
    conversion.refresh_from_db()
    assert conversion.artifact is None
    assert conversion.state == Conversion.State.RUNNING  # what was asked for here is undone with what was published
    assert [each.origin for each in version.artifacts.all()] == [Artifact.Origin.UPLOADED]


def test_who_takes_the_work_away_hides_nothing(version: ModelVersion, engine: FakeEngine) -> None:
    """As whoever takes a consent back does while the code runs."""
    ModelVersion.objects.update(state=ModelVersion.State.WAITING, attempt=0)

    def take(_: Callable[[], bool]) -> None:
        ModelVersion.objects.update(lease_token=None, lease_until=None)
        raise ERROR

    engine.during = take
    tasks.inspect_version(str(version.pk))
    version.refresh_from_db()
    assert version.state == ModelVersion.State.WAITING
    assert Attempt.objects.count() == 1
    assert version.source.quarantine is not None


def test_the_owners_are_told_until_one_has_seen_it(
    caught: Conversion, team: Team, as_alice: Client, as_bob: Client, as_vera: Client, as_charlie: Client
) -> None:
    for others in (as_bob, as_vera):
        assert "tried what no model needs" not in others.get(TEAM).content.decode()
        assert "What files tried" not in others.get(SETTINGS).content.decode()
    attempt = Attempt.objects.get()
    url = f"/attempts/{attempt.pk}/seen/"
    assert [each.post(url).status_code for each in (as_bob, as_vera, as_charlie)] == [403, 403, 404]
    assert "I have seen this" in as_alice.get(SETTINGS).content.decode()
    as_alice.post(url)
    assert "tried what no model needs" not in as_alice.get(TEAM).content.decode()
    page = as_alice.get(SETTINGS).content.decode()
    assert "/etc/passwd" in page
    assert "seen by" in page
    assert team.history.latest("pk").tag == "attempt:seen"


def test_it_is_seen_once(caught: Conversion, alice: User) -> None:
    attempt = Attempt.objects.get()
    attempts.see_attempt(Actor.of(alice), attempt)
    with pytest.raises(StateError):
        attempts.see_attempt(Actor.of(alice), attempt)


def test_a_team_without_any_reads_that(as_alice: Client, team: Team) -> None:
    assert "Nothing. Should a file try" in as_alice.get(SETTINGS).content.decode()
