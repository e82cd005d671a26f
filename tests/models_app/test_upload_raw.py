"""One file as the body of a request, as the upload script sends it."""

from __future__ import annotations

import io
from typing import Any

import pytest
from django.test import Client
from pytest_django.fixtures import Settings

from models_app import storage
from models_app.actions.uploads import clean_name
from models_app.models import Team, Upload
from tests.models_app.conftest import sha256

URL = "/t/kitchen/uploads/"


def send(client: Client, content: bytes, name: str = "soup.keras", **headers: str) -> Any:
    body: Any = {"wsgi.input": io.BytesIO(content)}  # the test client's own refuses to end early
    headers = {"content-type": "application/octet-stream", **headers}
    return client.generic("POST", f"{URL}?name={name}", content, headers=headers, **body)


def test_it_works(as_bob: Client, team: Team) -> None:
    answer = send(as_bob, b"some bytes")
    upload = Upload.objects.get()
    assert answer.status_code == 201
    assert answer.json() == {
        "id": str(upload.pk),
        "name": "soup.keras",
        "size": 10,
        "sha256": sha256(b"some bytes"),
    }
    assert storage.path_of(upload.sha256).read_bytes() == b"some bytes"


@pytest.mark.parametrize(
    ("headers", "status", "code"),
    [
        ({"content-length": ""}, 411, "length-required"),
        ({"content-length": "-1"}, 411, "length-required"),
        ({"transfer-encoding": "chunked"}, 411, "length-required"),
        ({"content-length": str(2**50)}, 413, "too-large"),
    ],
)
def test_refused_before_the_first_byte(
    as_bob: Client, team: Team, headers: dict[str, str], status: int, code: str
) -> None:
    answer = send(as_bob, b"some bytes", **headers)
    assert answer.status_code == status
    assert answer.json()["error"]["code"] == code
    assert team.history.latest("pk").data["code"] == code
    assert not Upload.objects.exists()


def test_body_that_ends_too_early(as_bob: Client, team: Team) -> None:
    answer = send(as_bob, b"some bytes", **{"content-length": "4000"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "incomplete-upload")
    assert "10 of 4000 bytes" in answer.json()["error"]["message"]
    assert team.history.latest("pk").tag == "upload:refused"


def test_empty_body(as_bob: Client, team: Team) -> None:
    answer = send(as_bob, b"", **{"content-length": "0"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "empty-file")


def test_too_large(as_bob: Client, team: Team, settings: Settings) -> None:
    settings.MAX_UPLOAD_BYTES = 9
    answer = send(as_bob, b"some bytes")
    assert (answer.status_code, answer.json()["error"]["code"]) == (413, "too-large")
    assert "9" in answer.json()["error"]["message"]


def test_forms_are_not_raw_bytes(as_bob: Client, team: Team) -> None:
    answer = as_bob.post(URL, {"name": "x"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "upload-refused")


@pytest.mark.parametrize(
    ("typed", "clean"),
    [
        ("soup.keras", "soup.keras"),
        ("model/variables/variables.index", "model/variables/variables.index"),
        ("../../etc/passwd", "etc/passwd"),
        ("C:\\models\\soup.h5", "C:/models/soup.h5"),
        ("/absolute//soup.h5", "absolute/soup.h5"),
        ("a\x00b\r\n\u202egnp.h5", "abgnp.h5"),
        ("Füße 🍲.keras", "Füße 🍲.keras"),
        ("..", "file"),
        ("", "file"),
        ("x" * 300 + ".h5", "x" * 252 + ".h5"),
    ],
)
def test_names_are_cleaned_for_display(typed: str, clean: str) -> None:
    assert clean_name(typed) == clean
