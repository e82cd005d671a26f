"""What people see when something is wrong."""

from __future__ import annotations

import re
from typing import Any

import pytest
from django.http import HttpResponse
from django.test import Client
from django.test.client import RequestFactory

from models_app.models import Team
from models_app.views import catalog, errors
from worker.errors import LarderError


def test_it_works(as_alice: Client, team: Team) -> None:
    answer = as_alice.get("/t/of-another-team/")
    assert answer.status_code == 404
    assert "belongs to a team" in answer.content.decode()


def test_forbidden_says_what_it_takes(as_vera: Client, team: Team) -> None:
    answer = as_vera.get("/t/kitchen/upload/")
    assert answer.status_code == 403
    assert "the role editor" in answer.content.decode()


def test_crash_has_a_reference_that_is_in_the_log(
    as_alice: Client, team: Team, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def crash(*args: Any) -> None:
        raise ZeroDivisionError("what nobody foresaw")

    monkeypatch.setattr(catalog, "model_rows", crash)
    as_alice.raise_request_exception = False
    answer = as_alice.get("/t/kitchen/")
    page = answer.content.decode()
    assert answer.status_code == 500
    assert "ZeroDivisionError" not in page
    assert "Traceback" not in page
    reference = re.search(r"\b[0-9a-f]{8}\b", page)
    assert reference
    assert reference[0] in caplog.text
    assert "what nobody foresaw" in caplog.text


def test_crash_of_a_script_is_json(
    as_alice: Client, team: Team, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def crash(*args: Any) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("models_app.actions.uploads.receive", crash)
    as_alice.raise_request_exception = False
    answer = as_alice.post("/t/kitchen/uploads/", b"x", content_type="application/octet-stream")
    assert answer.status_code == 500
    assert answer.json()["error"]["code"] == "internal"
    assert answer.json()["error"]["details"]["reference"] in caplog.text


@pytest.mark.parametrize(
    ("path", "status"), [("/t/of-another-team/uploads/", 404), ("/t/of-another-team/uploads/finish/", 404)]
)
def test_scripts_get_json(as_alice: Client, team: Team, path: str, status: int) -> None:
    answer = as_alice.post(path, b"x", content_type="application/octet-stream")
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, "not-found")


def test_bad_request(as_alice: Client, team: Team) -> None:
    answer = as_alice.post("/t/kitchen/members/add/", {f"field{number}": "x" for number in range(1001)})
    assert answer.status_code == 400
    assert "reload the page" in answer.content.decode()


def test_unknown_address_needs_no_sign_in_to_be_unknown(db: None) -> None:
    assert Client(headers={"host": "localhost"}).get("/nothing/here/").status_code == 404


def test_only_our_own_errors_are_taken(rf: RequestFactory) -> None:
    pages = errors.ErrorPages(lambda request: HttpResponse())
    assert pages.process_exception(rf.get("/"), ZeroDivisionError()) is None
    assert LarderError.http_status == 400
