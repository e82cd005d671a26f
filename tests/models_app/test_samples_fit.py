"""Samples are looked at when they are given: the page says whether they fit, and what does not fit is not used."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import IntegrityError, transaction
from django.test import Client
from django.utils import timezone

from models_app.actions.samples import give_samples
from models_app.actions.variants import missing_precisions
from models_app.models import Actor, ModelVersion, Samples, Team
from models_app.models.samples import samples_in_use, samples_of
from models_app.views.rows import offer_rows
from tests.models_app.conftest import SUMMARY, Told, event_tags, request_conversion
from tests.models_app.engine import FakeEngine, engine
from tests.models_app.test_reconcile import silent
from tests.models_app.test_samples import files
from worker import fitting, tasks
from worker.errors import BadSamples, LarderError, OutOfMemory, SandboxMissing
from worker.fitting import Fit, Given
from worker.formats._format import TensorSpec
from worker.formats._samples import TOO_SMALL

__all__ = ["engine"]

State = Samples.State
FOUND = Fit(
    (Given("x", (24, 4), "float32", -1.2, 3.4),), (TOO_SMALL(name="x", low=0, high=1, wanted_low=0, wanted_high=255),)
)
UNFIT = BadSamples(name="soup.npz", problem="x is 24×3, and the model takes ?×4")


@dataclass
class Reader:
    """Stands for the job that reads samples."""

    answer: Fit | LarderError = FOUND
    asked: list[tuple[str, bytes, tuple[TensorSpec, ...]]] = field(default_factory=list)

    def fit(
        self,
        zygote: Any,
        samples: Path,
        inputs: Sequence[TensorSpec],
        folder: Path,
        limits: Any,
        canceled: Callable[[], bool] = bool,
    ) -> Fit:
        self.asked.append((samples.name, samples.read_bytes(), tuple(inputs)))
        if isinstance(self.answer, LarderError):
            raise self.answer
        return self.answer


@pytest.fixture
def reader(monkeypatch: pytest.MonkeyPatch, engine: FakeEngine) -> Reader:
    found = Reader()
    monkeypatch.setattr(fitting, "fit", found.fit)
    return found


@pytest.fixture
def given(version: ModelVersion, alice: User) -> Samples:
    return give_samples(Actor.of(alice), version, files(("soup.npz", b"arrays"))["files"])


def looked(samples: Samples) -> Samples:
    tasks.fit_samples(str(samples.pk))
    samples.refresh_from_db()
    return samples


def section(client: Client, version: ModelVersion) -> str:
    text = client.get(version.get_absolute_url()).content.decode()
    return " ".join(re.sub(r"<[^>]+>", " ", text[text.index('id="samples"') :].split("</section>")[0]).split())


def test_it_works(given: Samples, reader: Reader, as_vera: Client, version: ModelVersion, team: Team) -> None:
    assert "Larder is looking whether they fit the model." in section(as_vera, version)
    assert as_vera.get(version.get_absolute_url()).context["poll_seconds"] == 1
    assert looked(given).state == State.FITS
    assert reader.asked == [("soup.npz", b"arrays", SUMMARY.inputs)]
    said = section(as_vera, version)
    assert "24 samples fit. Every conversion from now on" in said
    assert "x : 24×4 of float32, -1.2 to 3.4" in said
    assert "They seem to be scaled already" in said
    assert as_vera.get(version.get_absolute_url()).context["poll_seconds"] == 0
    event = team.history.latest("pk")
    assert (event.tag, event.actor_name) == ("samples:fit", "larder")
    assert event.data["inputs"] == ["x, 24×4 of float32, -1.2 to 3.4"]


def test_a_worker_is_told_when_they_are_given(
    version: ModelVersion, alice: User, told: Told, django_capture_on_commit_callbacks: Any
) -> None:
    told.messages.clear()
    with django_capture_on_commit_callbacks(execute=True):
        found = give_samples(Actor.of(alice), version, files(("soup.npz", b"arrays"))["files"])
    assert told.messages == [("worker.fit_samples", str(found.pk))]


def test_what_does_not_fit_is_said_and_stays_visible(
    given: Samples, reader: Reader, as_vera: Client, version: ModelVersion, team: Team
) -> None:
    reader.answer = UNFIT
    assert looked(given).state == State.UNFIT
    said = section(as_vera, version)
    assert "The samples in soup.npz do not fit the model: x is 24×3, and the model takes ?×4." in said
    assert "No conversion uses them from now on" in said
    assert "The model takes: x : (?, 4) of float32" in said
    assert "soup.npz" in said
    assert (team.history.latest("pk").tag, team.history.latest("pk").data["message"]) == (
        "samples:unfit",
        UNFIT.message,
    )


def test_what_does_not_fit_is_not_used(
    given: Samples, reader: Reader, version: ModelVersion, alice: User, engine: FakeEngine
) -> None:
    plain = missing_precisions(version)
    before = request_conversion(version, alice)
    assert before.samples == given  # nobody knows yet
    reader.answer = UNFIT
    looked(given)
    assert (samples_of(version), samples_in_use(version)) == (given, None)
    after = request_conversion(version, alice)
    assert (after.samples, after == before) == (None, False)
    tasks.convert(str(after.pk))
    assert engine.samples is None
    assert missing_precisions(version) == plain
    assert not next(row for row in offer_rows(version) if row.format.slug == "h5").samples_changed


def test_what_fits_is_used(given: Samples, reader: Reader, version: ModelVersion, alice: User) -> None:
    looked(given)
    assert request_conversion(version, alice).samples == given


def test_replacing_what_does_not_fit(
    given: Samples, reader: Reader, version: ModelVersion, alice: User, as_vera: Client
) -> None:
    reader.answer = UNFIT
    looked(given)
    other = give_samples(Actor.of(alice), version, files(("better.npz", b"others"))["files"])
    reader.answer = FOUND
    looked(other)
    assert samples_in_use(version) == other
    assert "do not fit" not in section(as_vera, version)


def test_a_version_that_was_not_inspected_yet_is_waited_for(
    given: Samples,
    reader: Reader,
    version: ModelVersion,
    as_vera: Client,
    told: Told,
    django_capture_on_commit_callbacks: Any,
) -> None:
    ModelVersion.objects.update(state=ModelVersion.State.WAITING, summary_data={}, attempt=0)
    assert looked(given).state == State.WAITING
    assert reader.asked == []
    assert "once Larder has looked inside the model" in section(as_vera, version)
    told.messages.clear()
    with django_capture_on_commit_callbacks(execute=True):
        tasks.inspect_version(str(version.pk))
    assert told.messages == [("worker.fit_samples", str(given.pk))]
    assert looked(given).state == State.FITS


def test_a_model_of_which_nobody_knows_what_it_takes(
    given: Samples, reader: Reader, version: ModelVersion, as_vera: Client, alice: User
) -> None:
    ModelVersion.objects.update(summary_data={**SUMMARY.to_json(), "inputs": []})
    assert looked(given).state == State.UNKNOWN
    assert reader.asked == []
    assert "whether they fit is not known yet. The next conversion uses them" in section(as_vera, version)
    version.refresh_from_db()
    assert request_conversion(version, alice).samples == given


def test_a_job_that_fails_is_not_held_against_them(
    given: Samples, reader: Reader, as_vera: Client, version: ModelVersion, alice: User
) -> None:
    reader.answer = OutOfMemory(limit="1 MiB")
    assert looked(given).state == State.UNKNOWN
    assert "could not be found out: The job needed more than the 1 MiB" in section(as_vera, version)
    again = give_samples(Actor.of(alice), version, files(("soup.npz", b"arrays"))["files"])
    assert (again == given, again.state) == (False, State.WAITING)


def test_they_wait_for_a_worker_that_can_contain_jobs(given: Samples, engine: FakeEngine, reader: Reader) -> None:
    engine.missing = "no seccomp"
    assert (looked(given).state, given.attempt, given.lease_token) == (State.WAITING, 0, None)
    reader.answer = SandboxMissing(missing="no seccomp")
    engine.missing = ""
    assert (looked(given).state, given.attempt) == (State.WAITING, 0)


def test_ended_ones_are_not_looked_at(given: Samples, reader: Reader) -> None:
    Samples.objects.update(ended_at=timezone.now())
    assert looked(given).state == State.WAITING
    assert reader.asked == []


def test_work_that_was_lost_goes_on(given: Samples, told: Told, version: ModelVersion) -> None:
    told.messages.clear()
    Samples.objects.update(attempt=1, dispatched_at=timezone.now(), **silent())
    tasks.reconcile()
    assert told.messages == [("worker.fit_samples", str(given.pk))]
    Samples.objects.update(attempt=99, **silent())
    tasks.reconcile()
    given.refresh_from_db()
    assert (given.state, given.error["code"]) == (State.UNKNOWN, "worker-lost")


def test_a_lost_message_is_sent_again(given: Samples, told: Told, version: ModelVersion) -> None:
    told.messages.clear()
    Samples.objects.update(dispatched_at=timezone.now() - timedelta(hours=1))
    ModelVersion.objects.update(state=ModelVersion.State.WAITING, dispatched_at=timezone.now())
    tasks.reconcile()
    assert told.messages == []  # before inspection there is nothing to look at
    ModelVersion.objects.update(state=ModelVersion.State.INSPECTED)
    tasks.reconcile()
    assert told.messages == [("worker.fit_samples", str(given.pk))]


def test_the_database_keeps_states_and_answers_together(given: Samples) -> None:
    for wrong in ({"state": State.FITS}, {"state": State.UNFIT}, {"error": UNFIT.to_json()}):
        with pytest.raises(IntegrityError), transaction.atomic():
            Samples.objects.update(**wrong)


def test_the_event_is_in_the_history_once(given: Samples, reader: Reader, team: Team) -> None:
    looked(given)
    looked(given)
    assert event_tags(team).count("samples:fit") == 1
    assert len(reader.asked) == 1
