"""Work whose worker or message was lost goes on."""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.conf import settings
from django.contrib.auth.models import User
from django.utils import timezone

from models_app import storage
from models_app.actions import catalog
from models_app.models import Actor, Conversion, ModelVersion, Team, Upload, WorkerNode
from tests.models_app.conftest import Told, event_tags, keras_file, request_conversion
from worker import tasks

State = Conversion.State


@pytest.fixture
def conversion(version: ModelVersion, alice: User, told: Told) -> Conversion:
    """Told to a worker just now."""
    found = request_conversion(version, alice)
    Conversion.objects.update(dispatched_at=timezone.now())
    told.messages.clear()
    return found


@pytest.fixture
def waiting(team: Team, alice: User, upload: Callable[..., Upload], told: Told) -> ModelVersion:
    found = catalog.add_version(Actor.of(alice), team, [upload("stew.keras", keras_file())])
    ModelVersion.objects.update(dispatched_at=timezone.now())
    told.messages.clear()
    return found


def silent(seconds: int = 1, **values: Any) -> dict[str, Any]:
    """A lease whose holder was last heard of too long ago."""
    return {"lease_token": uuid.uuid4(), "lease_until": timezone.now() - timedelta(seconds=seconds), **values}


def after(row: Any, **values: Any) -> Any:
    type(row).objects.filter(pk=row.pk).update(**values)
    tasks.reconcile()
    row.refresh_from_db()
    return row


def test_it_works(conversion: Conversion, told: Told) -> None:
    found = after(conversion, state=State.RUNNING, attempt=1, **silent())
    assert (found.state, found.lease_token, found.attempt) == (State.QUEUED, None, 1)
    assert told.messages == [("worker.convert", str(conversion.pk))]


def test_healthy_work_is_left_alone(conversion: Conversion, told: Told) -> None:
    held = silent(seconds=-30, state=State.RUNNING, attempt=1)
    found = after(conversion, **held)
    assert (found.state, found.lease_token) == (State.RUNNING, held["lease_token"])
    assert not told.messages


def test_conversion_is_given_up_after_the_last_attempt(conversion: Conversion) -> None:
    found = after(conversion, state=State.RUNNING, attempt=settings.MAX_ATTEMPTS, **silent())
    assert (found.state, found.error["code"]) == (State.FAILED, "worker-lost")
    assert "3 times" in found.error["message"]
    assert event_tags(conversion.team)[-1] == "conversion:failed"


def test_canceled_work_of_a_dead_worker_ends(conversion: Conversion) -> None:
    found = after(conversion, state=State.RUNNING, attempt=1, cancel_requested=True, **silent())
    assert found.state == State.CANCELED


@pytest.mark.parametrize("dispatched", [None, timedelta(hours=1)])
def test_forgotten_message_is_sent_again(conversion: Conversion, told: Told, dispatched: timedelta | None) -> None:
    after(conversion, dispatched_at=dispatched and timezone.now() - dispatched)
    assert told.messages == [("worker.convert", str(conversion.pk))]


def test_fresh_message_is_not_sent_again(conversion: Conversion, told: Told) -> None:
    tasks.reconcile()
    assert not told.messages


def test_inspection_goes_on(waiting: ModelVersion, told: Told) -> None:
    found = after(waiting, attempt=1, **silent())
    assert (found.state, found.lease_token) == (ModelVersion.State.WAITING, None)
    assert told.messages == [("worker.inspect_version", str(waiting.pk))]


def test_inspection_is_given_up_after_the_last_attempt(waiting: ModelVersion) -> None:
    found = after(waiting, attempt=settings.MAX_ATTEMPTS, **silent())
    assert (found.state, found.error["code"]) == (ModelVersion.State.UNREADABLE, "worker-lost")
    assert event_tags(waiting.team)[-1] == "version:unreadable"


def test_broker_that_is_away_loses_nothing(
    version: ModelVersion, alice: User, caplog: pytest.LogCaptureFixture
) -> None:
    class Away:
        def apply_async(self, *args: Any, **kwargs: Any) -> None:
            raise OSError("connection refused")

    conversion = version.conversions.create(target="h5", options_key="x", requested_by=alice)
    REAL_DISPATCH(Away(), conversion)
    conversion.refresh_from_db()
    assert conversion.dispatched_at is not None
    assert "connection refused" in caplog.text


REAL_DISPATCH = tasks.dispatch


def test_day_old_leftovers_are_swept(team: Team, alice: User, upload: Callable[..., Upload]) -> None:
    storage.prepare()
    yesterday = time.time() - 25 * 3600
    old, young = settings.JOBS_ROOT / "old", settings.JOBS_ROOT / "young"
    for folder in (old, young):
        (folder / "inner").mkdir(parents=True)
    abandoned = settings.STAGING_ROOT / "abandoned"
    abandoned.touch()
    os.utime(old, (yesterday, yesterday))
    os.utime(abandoned, (yesterday, yesterday))
    stale, fresh = upload("a", b"a"), upload("b", b"b")
    Upload.objects.filter(pk=stale.pk).update(created_at=timezone.now() - timedelta(hours=25))
    WorkerNode.objects.create(name="gone", seen_at=timezone.now() - timedelta(hours=25))
    tasks.reconcile()
    assert [old.exists(), young.exists(), abandoned.exists()] == [False, True, False]
    assert list(Upload.objects.values_list("pk", flat=True)) == [fresh.pk]
    assert not WorkerNode.objects.exists()
