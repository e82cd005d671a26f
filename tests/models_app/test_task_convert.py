"""What the worker does with a conversion: claim it once, keep what came out, lose nothing."""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Callable
from datetime import timedelta

import pytest
from django.conf import settings
from django.contrib.auth.models import User
from django.utils import timezone

from models_app import storage
from models_app.actions.conversions import cancel_conversion
from models_app.models import Actor, Conversion, ModelVersion
from tests.models_app.conftest import a_report, event_tags, request_conversion
from tests.models_app.engine import FakeEngine, engine, parameters
from tests.worker import files
from worker import pipeline, runtime, tasks
from worker.errors import Crashed, TimedOut
from worker.report import Verdict

__all__ = ["engine"]

State = Conversion.State
REAL_CONVERT = pipeline.convert


@pytest.fixture
def conversion(version: ModelVersion, alice: User) -> Conversion:
    return request_conversion(version, alice)


@pytest.fixture
def looking(engine: FakeEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    """The heartbeat looks all the time; it sees committed rows only, so the test must be a transactional one."""
    monkeypatch.setattr(tasks, "LOOK_SECONDS", 0.01)


def run(conversion: Conversion) -> Conversion:
    tasks.convert(str(conversion.pk))
    conversion.refresh_from_db()
    return conversion


def wait_for(condition: Callable[[], bool]) -> None:
    """A job that goes on until the heartbeat tells it to stop."""
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_it_works(conversion: Conversion, engine: FakeEngine) -> None:
    done = run(conversion)
    assert done.state == State.SUCCEEDED
    assert done.report == a_report()
    assert done.artifact is not None
    assert storage.path_of(done.artifact.sha256).read_bytes() == b"the result"
    assert (done.artifact.name, done.artifact.format, done.artifact.origin) == ("soup-v1.h5", "h5", "converted")
    assert [stage["text"] for stage in done.stages] == ["converting", "verifying"]
    assert (done.lease_token, done.lease_until, done.attempt) == (None, None, 1)
    assert event_tags(conversion.team)[-1] == "conversion:succeeded"
    assert not engine.folder.exists()


def test_two_results_of_one_format_have_names_of_their_own(
    version: ModelVersion, alice: User, engine: FakeEngine
) -> None:
    made = [run(request_conversion(version, alice, "tflite", precision=name)) for name in ("float32", "int8")]
    names = [conversion.artifact.name for conversion in made if conversion.artifact]
    assert names == ["soup-v1.tflite", "soup-v1-int8.tflite"]


def test_what_was_written_anew_is_not_called_like_its_source(
    version: ModelVersion, alice: User, engine: FakeEngine
) -> None:
    made = run(request_conversion(version, alice, "keras"))
    assert made.artifact is not None
    assert made.artifact.name == "soup-v1-renewed.keras"
    assert version.source.name == "soup.keras"


def test_a_result_that_became_an_archive_is_called_one(version: ModelVersion, alice: User, engine: FakeEngine) -> None:
    made = [run(request_conversion(version, alice, "onnx"))]
    engine.result = files.zipped({"model.onnx": b"graph", "model.onnx.data": b"weights"})
    made.append(run(request_conversion(version, alice, "onnx", external_data="true")))
    names = [conversion.artifact.name for conversion in made if conversion.artifact]
    assert names == ["soup-v1.onnx", "soup-v1-onnx-external-data.zip"]


def test_fake_is_called_like_the_real_one(engine: FakeEngine) -> None:
    assert parameters(engine.convert) == parameters(REAL_CONVERT)


def test_job_folder_is_private_and_gone_afterwards(conversion: Conversion, engine: FakeEngine) -> None:
    seen: list[int] = []

    def look(canceled: Callable[[], bool]) -> None:
        seen.append(engine.folder.stat().st_mode & 0o777)
        locked = engine.folder / "locked"
        locked.mkdir()
        (locked / "file").touch()
        locked.chmod(0)

    engine.during = look
    run(conversion)
    assert seen == [0o700]
    assert not list(settings.JOBS_ROOT.glob("*"))


def test_job_folder_goes_also_where_it_is_deeper_than_python_recurses(
    conversion: Conversion, engine: FakeEngine
) -> None:
    def nest(canceled: Callable[[], bool]) -> None:
        (engine.folder / "link").symlink_to("/etc")
        inner = f"{engine.folder}/a"
        for _ in range(1500):
            os.mkdir(inner)
            inner += "/a"

    engine.during = nest
    run(conversion)
    assert not list(settings.JOBS_ROOT.glob("*"))


def test_not_provable_is_offered_with_its_verdict(conversion: Conversion, engine: FakeEngine) -> None:
    engine.report = a_report(Verdict.NOT_PROVABLE)
    done = run(conversion)
    assert done.state == State.SUCCEEDED
    assert done.report is not None
    assert done.report.verdict is Verdict.NOT_PROVABLE


def test_result_that_differs_is_kept_in_quarantine(conversion: Conversion, engine: FakeEngine) -> None:
    engine.report, engine.result = a_report(Verdict.DIFFERS), b"a result that differs"
    done = run(conversion)
    assert done.state == State.FAILED
    assert done.error is not None
    assert done.error["code"] == "differs"
    assert done.report == engine.report
    assert done.artifact is not None
    assert done.artifact.quarantine is not None
    assert storage.path_of(done.artifact.sha256).read_bytes() == engine.result


def test_known_error_is_kept_with_its_code(conversion: Conversion, engine: FakeEngine) -> None:
    engine.error = TimedOut(seconds=9, kind="wall")
    done = run(conversion)
    assert (done.state, done.error) == (State.FAILED, engine.error.to_json())
    assert event_tags(conversion.team)[-1] == "conversion:failed"


def test_unknown_error_has_a_reference_that_is_in_the_log(
    conversion: Conversion, engine: FakeEngine, caplog: pytest.LogCaptureFixture
) -> None:
    engine.error = ZeroDivisionError("what nobody foresaw")
    done = run(conversion)
    assert done.error is not None
    assert done.error["code"] == "internal"
    assert "ZeroDivisionError" not in str(done.error)
    assert done.error["details"]["reference"] in caplog.text
    assert "what nobody foresaw" in caplog.text


def test_missing_sandbox_refuses_the_job(conversion: Conversion, engine: FakeEngine) -> None:
    engine.missing = "Landlock"
    done = run(conversion)
    assert done.error is not None
    assert done.error["code"] == "sandbox-missing"
    assert "Landlock" in done.error["message"]


def test_second_message_finds_nothing_to_do(conversion: Conversion, engine: FakeEngine) -> None:
    run(conversion)
    engine.error = AssertionError("must not run again")
    assert run(conversion).state == State.SUCCEEDED
    assert Conversion.objects.claim(conversion.pk) is None


def test_only_one_of_two_claims_gets_it(conversion: Conversion) -> None:
    assert [Conversion.objects.claim(conversion.pk) is None for _ in range(2)] == [False, True]


def test_lost_lease_publishes_nothing(conversion: Conversion, engine: FakeEngine) -> None:
    other = uuid.uuid4()
    engine.during = lambda canceled: steal(conversion, other)
    engine.result = b"a result of the worker that was given up"
    done = run(conversion)
    assert (done.state, done.lease_token, done.artifact) == (State.RUNNING, other, None)
    assert conversion.version.artifacts.count() == 1
    assert "conversion:succeeded" not in event_tags(conversion.team)


def test_error_after_the_lease_was_lost_is_not_published(conversion: Conversion, engine: FakeEngine) -> None:
    other = uuid.uuid4()
    engine.during, engine.error = lambda canceled: steal(conversion, other), ZeroDivisionError()
    assert run(conversion).state == State.RUNNING


def steal(conversion: Conversion, token: uuid.UUID) -> None:
    """What the reconciler and another worker do after a silence."""
    Conversion.objects.filter(pk=conversion.pk).update(lease_token=token)


@pytest.mark.django_db(transaction=True)
def test_heartbeat_notices_a_lost_lease(conversion: Conversion, engine: FakeEngine, looking: None) -> None:
    def until_stopped(canceled: Callable[[], bool]) -> None:
        steal(conversion, uuid.uuid4())
        wait_for(canceled)

    engine.during = until_stopped
    assert run(conversion).state == State.RUNNING


@pytest.mark.django_db(transaction=True)
def test_heartbeat_renews_the_lease(conversion: Conversion, engine: FakeEngine, looking: None) -> None:
    def long_work(canceled: Callable[[], bool]) -> None:
        nearly_over = timezone.now() + timedelta(seconds=1)
        rows = Conversion.objects.filter(pk=conversion.pk)
        rows.update(lease_until=nearly_over)
        wait_for(lambda: rows.filter(lease_until__gt=nearly_over).exists())

    engine.during = long_work
    assert run(conversion).state == State.SUCCEEDED


@pytest.mark.django_db(transaction=True)
def test_cancel_stops_a_running_job(conversion: Conversion, engine: FakeEngine, looking: None, bob: User) -> None:
    def until_canceled(canceled: Callable[[], bool]) -> None:
        cancel_conversion(Actor.of(bob), conversion)
        wait_for(canceled)

    engine.during = until_canceled
    done = run(conversion)
    assert (done.state, done.artifact) == (State.CANCELED, None)
    assert event_tags(conversion.team)[-1] == "conversion:canceled"


def test_cancel_in_the_last_moment_wins(conversion: Conversion, engine: FakeEngine, bob: User) -> None:
    engine.during = lambda canceled: cancel_conversion(Actor.of(bob), conversion)
    engine.result = b"a result that nobody wants"
    done = run(conversion)
    assert (done.state, done.artifact) == (State.CANCELED, None)
    assert conversion.version.artifacts.count() == 1


@pytest.mark.parametrize("error", [None, Crashed(signal="SIGKILL")])
def test_worker_that_ends_gives_its_work_back(
    conversion: Conversion, engine: FakeEngine, monkeypatch: pytest.MonkeyPatch, error: Exception | None
) -> None:
    engine.during, engine.error = lambda canceled: runtime.stopping.set(), error
    try:
        done = run(conversion)
    finally:
        runtime.stopping.clear()
    assert (done.state, done.attempt, done.lease_token, done.stages) == (State.QUEUED, 0, None, [])
    assert Conversion.objects.claim(conversion.pk)
