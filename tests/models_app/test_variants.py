"""The variants of a version: asked for, measured by a worker, shown side by side, and had as JSON."""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings
from django.contrib.auth.models import User
from django.core.files.uploadedfile import SimpleUploadedFile
from django.db import IntegrityError, transaction
from django.test import Client
from django.utils import timezone

from models_app.actions.samples import give_samples
from models_app.actions.variants import precisions, request_measurement, request_missing_precisions
from models_app.models import Actor, Conversion, Measurement, ModelVersion, Team
from models_app.models.measurements import variants_of
from tests.models_app.conftest import Told, event_tags, request_conversion
from tests.models_app.engine import FakeEngine, convert_as, engine, parameters
from tests.models_app.test_reconcile import silent
from tests.models_app.test_report_json import keys
from tests.stack import ROOT
from worker import measuring, tasks
from worker.custom_code import Consent
from worker.errors import NothingMeasured, StateError, TimedOut
from worker.measuring import Row, Table, Variant, marked
from worker.report import Verdict

__all__ = ["engine"]

State = Measurement.State
REAL_MEASURE = measuring.measure
MACHINE = {"host": "kitchen-1", "processor": "Oven", "processors": 2}
URL = "/t/kitchen/m/soup/v1/variants"


class Bench:
    """Measures without running anything: the first file takes a second, and each one after it half of that."""

    def __init__(self) -> None:
        self.asked: list[list[str]] = []
        self.error: Exception | None = None
        self.during: Callable[[], None] = lambda: None
        self.waited = 0.1

    def measure(
        self,
        zygote: Any,
        variants: Sequence[Variant],
        folder: Path,
        limits: Any,
        *,
        consent: Consent | None = None,
        stage: Callable[[str], None] = lambda text: None,
        canceled: Callable[[], bool] = bool,
    ) -> Table:
        self.asked.append([variant.name for variant in variants])
        stage("round 1 of 5")
        self.during()
        if self.error:
            raise self.error
        rows = marked([_row(variant, 0.5**place) for place, variant in enumerate(variants)])
        return Table(tuple(rows), {"x": [1, 4]}, 5, self.waited, MACHINE, 1.5)


def _row(variant: Variant, seconds: float) -> Row:
    error, top1, rows = (0.0, None, 0) if variant.is_source else (1.2e-3, 0.9921875, 128)
    return Row(
        name=variant.name,
        sha256=variant.sha256,
        format=variant.format,
        label=variant.format.upper(),
        options=variant.options,
        is_source=variant.is_source,
        size=variant.path.stat().st_size,
        runtime="Toys 1.0",
        seconds=seconds,
        quartiles=(seconds, seconds),
        rounds=(seconds,),
        relative=seconds,
        error=error,
        top1=top1,
        top1_rows=rows,
        verdict=variant.verdict,
        problem="",
    )


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch, engine: FakeEngine) -> Bench:
    fake = Bench()
    monkeypatch.setattr(measuring, "measure", fake.measure)
    return fake


@pytest.fixture
def made(version: ModelVersion, alice: User, engine: FakeEngine) -> Conversion:
    """A result that can be run."""
    return convert_as(engine, version, alice, Verdict.VERIFIED)[0]


@pytest.fixture
def asked(made: Conversion, version: ModelVersion, alice: User) -> Measurement:
    return request_measurement(Actor.of(alice), version)


def run(measurement: Measurement) -> Measurement:
    tasks.measure(str(measurement.pk))
    measurement.refresh_from_db()
    return measurement


def page(client: Client, version: ModelVersion) -> str:
    text = client.get(version.get_absolute_url()).content.decode()
    return " ".join(re.sub(r"<[^>]+>", " ", text[text.index('id="variants"') :].split("</section>")[0]).split())


def test_it_works(asked: Measurement, bench: Bench, as_vera: Client, version: ModelVersion, team: Team) -> None:
    done = run(asked)
    assert (done.state, done.lease_token, done.attempt) == (State.DONE, None, 1)
    assert bench.asked == [["soup.keras", "soup-v1.h5"]]
    assert event_tags(team)[-2:] == ["measurement:requested", "measurement:done"]
    shown = page(as_vera, version)
    for said in (
        "Source",
        "500 ms",
        "0.50 ×",
        "1.2e-3",
        "99.2 % of 128 rows",
        "Verified",
        "kitchen-1 (Oven, 2 processors)",
    ):
        assert said in shown
    assert "x 1×4" in shown
    assert "busy" not in shown
    assert "for alice on kitchen-1" in shown


def test_fake_is_called_like_the_real_one(bench: Bench) -> None:
    assert parameters(bench.measure) == parameters(REAL_MEASURE)


def test_nothing_to_measure_is_not_offered(as_bob: Client, version: ModelVersion, bob: User) -> None:
    assert "Measure size and speed" not in page(as_bob, version)
    with pytest.raises(StateError, match="convert it first"):
        request_measurement(Actor.of(bob), version)
    assert "convert it first" in as_bob.post(f"{URL}/measure/", follow=True).content.decode()


def test_asked_by_the_page(
    as_bob: Client, as_vera: Client, made: Conversion, version: ModelVersion, told: Told
) -> None:
    assert "Measure size and speed" in page(as_bob, version)
    assert "Measure size and speed" not in page(as_vera, version)
    answer = as_bob.post(f"{URL}/measure/")
    assert answer["Location"] == f"{version.get_absolute_url()}#variants"
    assert as_vera.get(version.get_absolute_url()).context["poll_seconds"] == 2
    assert "waits for a worker" in page(as_vera, version)


@pytest.mark.django_db(transaction=True)
def test_a_worker_is_told(made: Conversion, version: ModelVersion, alice: User, told: Told) -> None:
    told.messages.clear()
    measurement = request_measurement(Actor.of(alice), version)
    assert told.messages == [("worker.measure", str(measurement.pk))]


def test_asked_twice_is_asked_once(asked: Measurement, version: ModelVersion, bob: User, team: Team) -> None:
    assert request_measurement(Actor.of(bob), version) == asked
    assert event_tags(team).count("measurement:requested") == 1
    with pytest.raises(IntegrityError), transaction.atomic():
        version.measurements.create(asked_by=bob)


def test_asked_again_after_it_is_done(asked: Measurement, bench: Bench, version: ModelVersion, bob: User) -> None:
    run(asked)
    assert request_measurement(Actor.of(bob), version) != asked


def test_it_says_how_far_it_is(asked: Measurement, bench: Bench, as_vera: Client, version: ModelVersion) -> None:
    said: list[str] = []
    bench.during = lambda: said.append(page(as_vera, version))
    run(asked)
    assert "running each file in turn: round 1 of 5" in said[0]


def test_failure_is_a_sentence_and_the_last_table_stays(
    asked: Measurement, bench: Bench, as_vera: Client, version: ModelVersion, alice: User, team: Team
) -> None:
    run(asked)
    bench.error = NothingMeasured(problem="all were eaten")
    failed = run(request_measurement(Actor.of(alice), version))
    assert failed.state == State.FAILED
    assert event_tags(team)[-1] == "measurement:failed"
    shown = page(as_vera, version)
    assert "all were eaten" in shown
    assert "500 ms" in shown


def test_a_failed_measurement_can_be_asked_for_again(asked: Measurement, bench: Bench, as_bob: Client) -> None:
    bench.error = TimedOut(seconds=9, kind="wall")
    run(asked)
    assert "Measure size and speed" in page(as_bob, asked.version)


def test_a_lost_lease_publishes_nothing(asked: Measurement, bench: Bench) -> None:
    other = uuid.uuid4()
    bench.during = lambda: void(Measurement.objects.update(lease_token=other))
    found = run(asked)
    assert (found.state, found.lease_token, found.table) == (State.WAITING, other, None)


def void(_: object) -> None:
    """For its effect alone."""


def test_a_second_message_finds_nothing_to_do(asked: Measurement, bench: Bench) -> None:
    run(asked)
    run(asked)
    assert len(bench.asked) == 1
    assert Measurement.objects.claim(asked.pk) is None


def test_lost_work_goes_on(asked: Measurement, told: Told) -> None:
    told.messages.clear()
    Measurement.objects.update(attempt=1, dispatched_at=timezone.now(), **silent())
    tasks.reconcile()
    asked.refresh_from_db()
    assert (asked.state, asked.lease_token) == (State.WAITING, None)
    assert ("worker.measure", str(asked.pk)) in told.messages


def test_it_is_given_up_after_the_last_attempt(asked: Measurement) -> None:
    Measurement.objects.update(attempt=settings.MAX_ATTEMPTS, **silent())
    tasks.reconcile()
    asked.refresh_from_db()
    assert asked.error is not None
    assert (asked.state, asked.error["code"]) == (State.FAILED, "worker-lost")


# Which files ------------------------------------------------------------------------------------------------------


def test_files_in_quarantine_are_left_out(
    made: Conversion, version: ModelVersion, alice: User, engine: FakeEngine
) -> None:
    convert_as(engine, version, alice, Verdict.DIFFERS)
    assert [artifact.format for artifact, _ in variants_of(version)] == ["keras", "h5"]


def test_a_released_file_carries_its_mark(
    version: ModelVersion, as_alice: Client, as_vera: Client, alice: User, bench: Bench, engine: FakeEngine
) -> None:
    """Also in a table that was measured before or after, and in its JSON."""
    kept = convert_as(engine, version, alice, Verdict.DIFFERS)[1]
    reason = {"reason": "The head that differs is not used."}
    as_alice.post(f"/files/{kept.pk}/quarantine/release/", reason)
    run(request_measurement(Actor.of(alice), version))
    assert "Differs Released by alice" in page(as_vera, version)
    assert [row["released_by"] for row in read(as_vera)["table"]["rows"]] == [[], ["alice"]]


def test_files_of_another_signature_are_left_out(made: Conversion, version: ModelVersion) -> None:
    Conversion.objects.update(options={"signature": "train"})
    assert [artifact.format for artifact, _ in variants_of(version)] == ["keras"]


def test_the_latest_of_each_format_and_options(version: ModelVersion, alice: User, engine: FakeEngine) -> None:
    for number, precision in enumerate(["float32", "int8"]):
        engine.result = f"result {number}".encode()
        tasks.convert(str(request_conversion(version, alice, "tflite", precision=precision).pk))
    give_samples(Actor.of(alice), version, [SimpleUploadedFile("a.npz", b"arrays")])
    engine.result = b"calibrated again"
    tasks.convert(str(request_conversion(version, alice, "tflite", precision="int8").pk))
    said = [(conversion.options_said if conversion else "") for _, conversion in variants_of(version)]
    assert said == ["", "precision float32", "precision int8"]
    assert variants_of(version)[-1][0].size == len(b"calibrated again")


def test_newer_files_are_said(
    asked: Measurement, bench: Bench, as_vera: Client, version: ModelVersion, alice: User, engine: FakeEngine
) -> None:
    run(asked)
    assert "newer than this table" not in page(as_vera, version)
    engine.result = b"another"
    tasks.convert(str(request_conversion(version, alice, "onnx").pk))
    assert "1 file is newer than this table" in page(as_vera, version)


def test_a_busy_machine_is_said(asked: Measurement, bench: Bench, as_vera: Client, version: ModelVersion) -> None:
    bench.waited = 0.81
    run(asked)
    assert "for up to 81 % of the time" in page(as_vera, version)


# Every precision --------------------------------------------------------------------------------------------------


def test_every_precision_is_asked_for_at_once(as_bob: Client, version: ModelVersion, bob: User) -> None:
    request_conversion(version, bob, "tflite", precision="int8")
    assert "Not asked for yet: float32, float16, dynamic, int16x8." in page(as_bob, version)
    as_bob.post(f"{URL}/make/")
    asked = {conversion.options["precision"] for conversion in version.conversions.all()}
    assert asked == set(precisions())
    assert version.conversions.count() == len(asked)
    assert 'id="variants"' not in as_bob.get(version.get_absolute_url()).content.decode()


def test_with_other_samples_every_precision_is_missing_again(version: ModelVersion, as_bob: Client, bob: User) -> None:
    request_missing_precisions(Actor.of(bob), version)
    version.samples.create(name="a.npz", sha256="1" * 64, size=7, given_by=bob)
    assert "float32, float16, dynamic, int8, int16x8" in page(as_bob, version)


# As JSON ----------------------------------------------------------------------------------------------------------


def read(client: Client) -> Any:
    return json.loads(client.get(f"{URL}.json").content)


def test_json(as_vera: Client, as_charlie: Client, asked: Measurement, bench: Bench) -> None:
    assert (read(as_vera)["state"], read(as_vera)["table"]) == ("waiting", None)
    run(asked)
    said = read(as_vera)
    assert (said["schema"], said["state"], said["asked_by"]) == (measuring.SCHEMA, "done", "alice")
    assert [row["name"] for row in said["table"]["rows"]] == ["soup.keras", "soup-v1.h5"]
    assert as_charlie.get(f"{URL}.json").status_code == 404


def test_json_of_what_nobody_measured(as_vera: Client, version: ModelVersion) -> None:
    assert (read(as_vera)["state"], read(as_vera)["table"]) == ("none", None)


def test_every_key_is_documented_and_nothing_else(as_vera: Client, asked: Measurement, bench: Bench) -> None:
    run(asked)
    text = (ROOT / "docs/variants.md").read_text(encoding="utf-8")
    documented = re.findall(r"^\| `([a-z0-9_.]+)` \|", text, re.MULTILINE)
    assert sorted(set(_keys(read(as_vera)))) == sorted(documented)


def _keys(said: Any) -> Iterator[str]:
    """``shapes`` has names of inputs as its keys."""
    return (key for key in keys(said) if not key.startswith("table.shapes."))
