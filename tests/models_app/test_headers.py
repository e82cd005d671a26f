"""What every answer says about itself, whatever the address, the person and the outcome."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from django.contrib.auth.models import User
from django.http.response import HttpResponseBase
from django.test import Client

from tests.models_app.conftest import client_of
from tests.models_app.test_access import CASES, PEOPLE, TABLE, Row, address, people

__all__ = ["address", "people"]  # fixtures
FILES = ("download", "public-download", "history-csv", "conversion-report", "variants")
SCRIPTED = ("healthz", "upload-raw", "upload-finish")  # answer JSON to whoever called them
POLICY = {
    "default-src 'none'",
    "script-src 'self'",
    "style-src 'self'",
    "connect-src 'self'",
    "img-src 'self' data:",
    "font-src 'self'",
    "form-action 'self'",
    "base-uri 'none'",
    "frame-ancestors 'none'",
}


def check(response: HttpResponseBase) -> None:
    assert set(response["Content-Security-Policy"].split("; ")) == POLICY
    assert response["X-Content-Type-Options"] == "nosniff"
    assert response["Referrer-Policy"] == "same-origin"
    assert "unsafe" not in str(response.headers)


@pytest.mark.parametrize("person", PEOPLE)
@pytest.mark.parametrize(("name", "row"), CASES, ids=[f"{name}-{row.method}" for name, row in CASES])
def test_every_answer_is_guarded(
    people: dict[str, Client], address: Callable[[str], str], person: str, name: str, row: Row
) -> None:
    response = getattr(people[person], row.method)(address(name))
    check(response)
    if response.streaming:
        b"".join(response)  # or its file stays open
    kind = response.get("Content-Type", "").split(";")[0]
    if response.status_code == 200 and kind != "text/html":
        assert name in (*FILES, *SCRIPTED)
        assert name in SCRIPTED or response["Content-Disposition"].startswith("attachment")


@pytest.mark.parametrize("name", FILES)
def test_what_is_downloaded_is_never_shown(as_alice: Client, address: Callable[[str], str], name: str) -> None:
    response = as_alice.get(address(name))
    assert response.status_code == 200
    assert response["Content-Disposition"].startswith('attachment; filename="')
    assert response["Content-Type"].split(";")[0] in ("application/octet-stream", "application/json", "text/csv")
    if response.streaming:
        b"".join(response)


def test_no_file_is_missing_here(as_alice: Client, address: Callable[[str], str]) -> None:
    """Whatever answers a reader with something else than a page is a file."""
    answers = {name: as_alice.get(address(name)) for name, rows in TABLE.items() if rows[0].method == "get"}
    others = [name for name, response in answers.items() if not response["Content-Type"].startswith("text/html")]
    for response in answers.values():
        if response.streaming:
            b"".join(response)
    assert sorted(others) == sorted([*FILES, "healthz"])


@pytest.mark.parametrize("path", ["/nowhere/", "/static/larder/larder.css", "/static/nothing.css", "/t/%00/", "/%ff"])
def test_nothing_is_an_answer_too(as_alice: Client, path: str) -> None:
    check(as_alice.get(path))


def test_what_breaks_is_guarded_too(alice: User, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("broken")

    monkeypatch.setattr("models_app.views.catalog.render", broken)
    monkeypatch.setattr("models_app.views.catalog.redirect", broken)
    client = client_of(alice)
    client.raise_request_exception = False
    response = client.get("/")
    assert response.status_code == 500
    check(response)
