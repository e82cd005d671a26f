"""The plain upload form, which works without any script."""

from __future__ import annotations

import re

import pytest
from django.conf import settings
from django.contrib.auth.models import User
from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import Client
from pytest_django.fixtures import Settings

from models_app.models import ModelVersion, RegisteredModel, Team, Upload
from tests.models_app.conftest import Told, event_tags, keras_file

URL = "/t/kitchen/upload/"
LFS_POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 12\n"


@pytest.fixture(autouse=True)
def _told(team: Team, told: Told) -> None:
    """Nobody needs a worker here."""


def files(*named: tuple[str, bytes]) -> list[SimpleUploadedFile]:
    return [SimpleUploadedFile(name, content) for name, content in named]


def test_it_works(as_bob: Client, team: Team, bob: User) -> None:
    answer = as_bob.post(URL, {"files": files(("soup.keras", keras_file())), "name": "Soup of the day"})
    version = ModelVersion.objects.get()
    assert answer["Location"] == version.get_absolute_url() == "/t/kitchen/m/soup-of-the-day/v1/"
    assert (version.model.name, version.upload_name, version.uploaded_by) == ("Soup of the day", "soup.keras", bob)
    assert (version.source.format, version.source.name) == ("keras", "soup.keras")
    assert not Upload.objects.exists()
    assert not list(settings.STAGING_ROOT.glob("*"))
    assert event_tags(team) == ["version:uploaded"]


def test_page_says_what_is_taken(as_bob: Client, version: ModelVersion) -> None:
    page = as_bob.get(URL, {"model": version.model.slug}).content.decode()
    assert "SavedModel" in page
    assert re.search(r'<option value="soup"\s+selected', page)


def test_new_version_of_a_model(as_bob: Client, version: ModelVersion) -> None:
    as_bob.post(URL, {"files": files(("other.keras", keras_file("2"))), "model": "soup", "name": "ignored"})
    assert list(version.model.versions.values_list("number", flat=True)) == [2, 1]
    assert RegisteredModel.objects.count() == 1


def test_several_files_are_one_model(as_bob: Client) -> None:
    architecture = b'{"class_name": "Sequential", "config": {"name": "s", "layers": []}, "keras_version": "3.15.1"}'
    weights = b"\x89HDF\r\n\x1a\n" + bytes(500) + b"layers\0vars\0" + bytes(500)
    parts = files(("architecture.json", architecture), ("model.weights.h5", weights))
    as_bob.post(URL, {"files": parts, "name": "Soup"})
    version = ModelVersion.objects.get()
    assert version.source.format == "weights_h5"
    assert version.source.name == "architecture.zip"
    assert version.upload_name == "architecture.json + model.weights.h5"


@pytest.mark.parametrize(
    ("name", "content", "code", "words"),
    [
        ("soup.keras", b"", "empty-file", "0 bytes"),
        ("soup.keras", b"<!DOCTYPE html><html><body>Sign in</body></html>", "not-a-model", "HTML"),
        ("soup.h5", LFS_POINTER, "not-a-model", "LFS"),
        ("soup.keras", keras_file()[:-30], "corrupt-file", "damaged"),
        ("soup.xyz", bytes(range(1, 200)), "unknown-format", "soup.xyz"),
    ],
)
def test_refusal_is_a_sentence_and_keeps_what_was_typed(
    as_bob: Client, team: Team, name: str, content: bytes, code: str, words: str
) -> None:
    answer = as_bob.post(URL, {"files": files((name, content)), "name": "My own name"})
    page = answer.content.decode()
    assert answer.status_code == 400
    assert words in page
    assert 'value="My own name"' in page
    assert not ModelVersion.objects.exists()
    event = team.history.latest("pk")
    assert (event.tag, event.actor_name, event.data["code"]) == ("upload:refused", "bob", code)


def test_nothing_chosen(as_bob: Client) -> None:
    answer = as_bob.post(URL, {"name": "My own name"})
    assert answer.status_code == 400
    assert 'value="My own name"' in answer.content.decode()


def test_too_large_is_refused_before_the_first_byte(as_bob: Client, team: Team, settings: Settings) -> None:
    settings.MAX_UPLOAD_BYTES = 100
    length = str(2 * 1024 * 1024)
    answer = as_bob.post(URL, b"", content_type="multipart/form-data; boundary=x", headers={"content-length": length})
    assert answer.status_code == 413
    assert "LARDER_MAX_UPLOAD_MB" in answer.content.decode()
    assert team.history.latest("pk").data["code"] == "too-large"


def test_one_file_over_the_limit(as_bob: Client, settings: Settings) -> None:
    settings.MAX_UPLOAD_BYTES = 100
    assert as_bob.post(URL, {"files": files(("soup.keras", keras_file()))}).status_code == 413


def test_pickle_leads_to_the_page_about_pickles(as_bob: Client) -> None:
    body = b"\x8c\x05posix\x94\x8c\x06system\x94\x93\x94\x8c\x02id\x94\x85\x94R\x94."
    pickled = b"\x80\x04\x95" + len(body).to_bytes(8, "little") + body
    answer = as_bob.post(URL, {"files": files(("soup.pkl", pickled))}, follow=True)
    assert answer.redirect_chain[-1][0] == f"/why-not-pickle/?version={ModelVersion.objects.get().pk}"


def test_the_very_same_file_again_is_said(as_bob: Client, version: ModelVersion) -> None:
    page = as_bob.post(URL, {"files": files(("soup.keras", keras_file()))}, follow=True).content.decode()
    assert "The very same file is Soup v1 already." in page
    assert ModelVersion.objects.count() == 2


def test_other_pages_take_no_files(as_bob: Client, version: ModelVersion) -> None:
    """What is sent to them is thrown away while it arrives."""
    as_bob.post(f"{version.get_absolute_url()}convert/", {"target": "h5", "x": files(("big", bytes(10_000)))})
    assert not list(settings.STAGING_ROOT.glob("*"))
