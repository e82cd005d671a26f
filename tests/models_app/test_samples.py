"""Samples of a version: given, replaced and removed by members, and used by every conversion from then on."""

from __future__ import annotations

import io
import zipfile
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core.files.uploadedfile import SimpleUploadedFile
from django.db import IntegrityError
from django.test import Client
from pytest_django.fixtures import Settings

from models_app import storage
from models_app.actions.samples import give_samples
from models_app.models import Actor, Conversion, ModelVersion, Samples, Team
from models_app.models.samples import samples_of
from models_app.views.rows import offer_rows
from tests.models_app.conftest import event_tags, request_conversion, sha256
from tests.models_app.engine import FakeEngine, engine
from tests.models_app.test_conversion_page import finished
from worker import tasks
from worker.errors import BadSamples
from worker.formats._samples import MOST_ROWS

__all__ = ["engine"]

URL = "/t/kitchen/m/soup/v1/samples/"
REMOVE = f"{URL}remove/"


def files(*named: tuple[str, bytes]) -> dict[str, Any]:
    return {"files": [SimpleUploadedFile(name, content) for name, content in named]}


def content_of(samples: Samples) -> bytes:
    return storage.path_of(samples.sha256).read_bytes()


def current(version: ModelVersion) -> Samples:
    found = samples_of(version)
    assert found is not None
    return found


@pytest.fixture
def given(version: ModelVersion, alice: User) -> Samples:
    return give_samples(Actor.of(alice), version, files(("soup.npz", b"arrays"))["files"])


def test_it_works(as_bob: Client, bob: User, version: ModelVersion, team: Team) -> None:
    answer = as_bob.post(URL, files(("soup.npz", b"arrays")))
    assert answer["Location"] == f"{version.get_absolute_url()}#samples"
    samples = current(version)
    assert (samples.name, samples.size, samples.given_by) == ("soup.npz", 6, bob)
    assert content_of(samples) == b"arrays"
    event = team.history.latest("pk")
    assert (event.tag, event.subject, event.actor_name) == ("samples:given", "Soup v1", "bob")
    assert event.data == {"name": "soup.npz", "sha256": sha256(b"arrays"), "size": 6, "replaced": None}
    assert "soup.npz" in as_bob.get(version.get_absolute_url()).content.decode()


def test_the_page_says_what_is_taken(as_bob: Client, as_vera: Client, version: ModelVersion) -> None:
    assert "an .npy or a .csv for a model with one input" in as_bob.get(version.get_absolute_url()).content.decode()
    assert 'id="samples-files"' not in as_vera.get(version.get_absolute_url()).content.decode()


def test_replacing(as_bob: Client, given: Samples, version: ModelVersion, team: Team) -> None:
    as_bob.post(URL, files(("other.csv", b"1,2")))
    assert current(version).name == "other.csv"
    assert version.samples.count() == 2
    assert team.history.latest("pk").data["replaced"] == given.sha256


def test_the_very_same_again_changes_nothing(as_bob: Client, given: Samples, version: ModelVersion, team: Team) -> None:
    as_bob.post(URL, files(("again.npz", b"arrays")))
    assert current(version) == given
    assert event_tags(team).count("samples:given") == 1


def test_removing(as_bob: Client, given: Samples, version: ModelVersion, team: Team) -> None:
    as_bob.post(REMOVE)
    assert samples_of(version) is None
    assert team.history.latest("pk").tag == "samples:removed"
    assert "the version has no samples" in as_bob.post(REMOVE, follow=True).content.decode()
    assert event_tags(team).count("samples:removed") == 1


def test_several_pictures_are_packed(as_bob: Client, version: ModelVersion) -> None:
    pictures = files(("a.png", b"one"), ("../b.png", b"two"), ("a.png", b"three"))
    as_bob.post(URL, pictures)
    samples = current(version)
    assert samples.name == "a.png + 2 more"
    with zipfile.ZipFile(io.BytesIO(content_of(samples))) as package:
        assert [package.read(name) for name in package.namelist()] == [b"one", b"two", b"three"]
        assert [name[6:] for name in package.namelist()] == ["a.png", "b.png", "a.png"]


def test_the_same_pictures_are_the_same_file(as_bob: Client, version: ModelVersion) -> None:
    for _ in range(2):
        as_bob.post(URL, files(("a.png", b"one"), ("b.png", b"two")))
    assert version.samples.count() == 1


@pytest.mark.parametrize(
    ("sent", "words"), [({}, "no file was chosen"), (files(("a.npz", b"")), "0 bytes")], ids=["nothing", "empty"]
)
def test_what_is_refused_is_said(as_bob: Client, version: ModelVersion, sent: dict[str, Any], words: str) -> None:
    assert words in as_bob.post(URL, sent, follow=True).content.decode()
    assert samples_of(version) is None


def test_too_large_is_refused_before_the_first_byte(
    as_bob: Client, version: ModelVersion, team: Team, settings: Settings
) -> None:
    settings.MAX_SAMPLES_BYTES = 100
    length = {"content-length": str(2 * 1024 * 1024)}
    answer = as_bob.post(URL, b"", content_type="multipart/form-data; boundary=x", headers=length)
    assert "LARDER_MAX_SAMPLES_MB" in as_bob.get(answer["Location"]).content.decode()
    assert (team.history.latest("pk").tag, team.history.latest("pk").data["code"]) == ("upload:refused", "too-large")
    assert "LARDER_MAX_SAMPLES_MB" in as_bob.post(URL, files(("a", bytes(200))), follow=True).content.decode()
    assert samples_of(version) is None


def test_a_body_without_a_length_is_refused(as_bob: Client, version: ModelVersion, team: Team) -> None:
    as_bob.post(URL, b"x", content_type="multipart/form-data; boundary=x", headers={"transfer-encoding": "chunked"})
    assert team.history.latest("pk").data["code"] == "length-required"


def test_nobody_outside_reaches_them(
    as_charlie: Client, as_vera: Client, given: Samples, version: ModelVersion
) -> None:
    for client, status in ((as_charlie, 404), (as_vera, 403)):
        assert client.post(URL, files(("other.npz", b"x"))).status_code == status
        assert client.post(REMOVE).status_code == status
    assert current(version) == given


def test_another_teams_version_is_not_found_through_ones_own(
    as_charlie: Client, charlie: User, given: Samples, version: ModelVersion
) -> None:
    from models_app.actions.teams import create_team

    create_team(Actor.of(charlie), "Garden")
    assert as_charlie.post(f"/t/garden/m/{version.model.slug}/v1/samples/remove/").status_code == 404
    assert current(version) == given


def test_two_at_once_leave_one(given: Samples, version: ModelVersion, alice: User) -> None:
    with pytest.raises(IntegrityError):
        version.samples.create(name="b", sha256="0" * 64, size=1, given_by=alice)


# What they are for ------------------------------------------------------------------------------------------------


def test_conversions_are_made_with_them(given: Samples, version: ModelVersion, alice: User, engine: FakeEngine) -> None:
    conversion = request_conversion(version, alice)
    tasks.convert(str(conversion.pk))
    assert (engine.samples, engine.samples_name) == (b"arrays", "soup.npz")
    conversion.refresh_from_db()
    assert conversion.state == Conversion.State.SUCCEEDED


def test_a_conversion_keeps_the_samples_that_it_was_asked_for_with(
    given: Samples, as_bob: Client, version: ModelVersion, alice: User, engine: FakeEngine
) -> None:
    conversion = request_conversion(version, alice)
    as_bob.post(REMOVE)
    tasks.convert(str(conversion.pk))
    assert engine.samples == b"arrays"
    assert "soup.npz" in as_bob.get(conversion.get_absolute_url()).content.decode()


def test_without_samples_there_are_none(version: ModelVersion, alice: User, engine: FakeEngine) -> None:
    tasks.convert(str(request_conversion(version, alice).pk))
    assert engine.samples is None


def test_a_name_of_any_length(version: ModelVersion, alice: User, engine: FakeEngine) -> None:
    give_samples(Actor.of(alice), version, files(("ü" * 240 + ".npz", b"arrays"))["files"])
    tasks.convert(str(request_conversion(version, alice).pk))
    assert engine.samples == b"arrays"


def test_with_other_samples_it_is_asked_for_again(version: ModelVersion, alice: User, engine: FakeEngine) -> None:
    first = request_conversion(version, alice)
    tasks.convert(str(first.pk))
    assert request_conversion(version, alice) == first
    assert not next(row for row in offer_rows(version) if row.format.slug == "h5").askable
    give_samples(Actor.of(alice), version, files(("soup.npz", b"arrays"))["files"])
    row = next(row for row in offer_rows(version) if row.format.slug == "h5")
    assert (row.state, row.askable) == ("ready", True)
    second = request_conversion(version, alice)
    assert second != first
    assert second.samples == samples_of(version)


def test_what_was_wrong_with_samples_goes_with_them(
    given: Samples, version: ModelVersion, alice: User, engine: FakeEngine
) -> None:
    conversion = request_conversion(version, alice)
    error = BadSamples(name="soup.npz", problem="they are words").to_json()
    Conversion.objects.filter(pk=conversion.pk).update(**finished(Conversion.State.FAILED, error=error))
    row = next(row for row in offer_rows(version) if row.format.slug == "h5")
    assert (row.state, "they are words" in row.reason) == ("failed", True)
    give_samples(Actor.of(alice), version, files(("better.npz", b"others"))["files"])
    row = next(row for row in offer_rows(version) if row.format.slug == "h5")
    assert (row.state, row.reason) == ("available", "")


def test_as_many_pictures_as_rows_that_are_used(as_bob: Client, version: ModelVersion, settings: Settings) -> None:
    assert settings.DATA_UPLOAD_MAX_NUMBER_FILES == MOST_ROWS
    named = [(f"{number}.png", b"x") for number in range(MOST_ROWS + 1)]
    as_bob.post(URL, files(*named[1:]))
    assert current(version).name == "1.png + 255 more"
    assert current(version).is_several
    answer = as_bob.post(URL, files(*named))
    assert answer.status_code == 400
    assert "More than 256 files were sent at once. Send fewer, or put them all into one ZIP." in answer.content.decode()
