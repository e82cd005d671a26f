"""`manage.py formats`: what there is, and what becomes what."""

from __future__ import annotations

import json

import pytest

from models_app.management.commands import _batch
from tests.models_app.cli import run
from worker import formats


@pytest.fixture(autouse=True)
def no_zygote(monkeypatch: pytest.MonkeyPatch) -> None:
    def start() -> None:
        raise AssertionError("listing the formats needs no jobs")

    monkeypatch.setattr(_batch, "Zygote", start)


def test_it_works() -> None:
    told = json.loads(run("formats", "--json").text)
    assert [row["slug"] for row in told["formats"]] == list(formats.formats())
    by_slug = {row["slug"]: row for row in told["formats"]}
    assert by_slug["keras"] == {
        "slug": "keras",
        "label": "Keras",
        "suffixes": [".keras"],
        "can_read": True,
        "can_write": True,
        "options": [],
        "available": True,
        "missing": [],
    }
    assert (by_slug["pickle"]["can_read"], by_slug["pickle"]["can_write"]) == (True, False)


def test_every_pair_has_a_route_or_a_reason() -> None:
    told = json.loads(run("formats", "--json").text)
    count = len(told["formats"])
    assert len(told["pairs"]) == count * count
    assert all(bool(pair["route"]) != bool(pair["reason"]) for pair in told["pairs"])
    found = {(pair["source"], pair["target"]): pair for pair in told["pairs"]}
    assert found["keras", "h5"]["route"] == ["keras", "h5"]
    assert found["saved_model", "h5"]["requires"] == ["keras-config"]


def test_people_read_it() -> None:
    text = run("formats").text
    assert "keras          Keras (.keras)" in text
    assert "keras -> h5\n" in text
    assert "saved_model -> keras  (where the file has: keras-config)" in text
    assert "Keras cannot become Pickle: a pickle is a program that runs when it is opened" in text
