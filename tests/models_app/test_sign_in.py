"""Signing in and out."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any
from unittest.mock import patch

import pytest
from django.conf import settings as project_settings
from django.contrib.auth.models import User
from django.test import Client
from django.utils import timezone
from pytest_django.fixtures import Settings

from models_app.actions import accounts
from models_app.models import AuditEvent, Team
from tests.models_app.conftest import PASSWORD, client_of, event_tags


@pytest.fixture
def visitor() -> Client:
    return client_of(None)


def sign_in(client: Client, name: str = "bob", password: str = PASSWORD) -> Any:
    return client.post("/login/", {"username": name, "password": password, "next": "/t/kitchen/"})


def test_it_works(visitor: Client, team: Team, bob: User) -> None:
    assert sign_in(visitor)["Location"] == "/t/kitchen/"
    event = team.history.latest("pk")
    assert (event.tag, event.actor, event.address) == ("user:signed-in", bob, "127.0.0.1")
    assert visitor.get("/t/kitchen/").status_code == 200
    visitor.post("/logout/")
    assert visitor.get("/t/kitchen/").status_code == 302


def test_failure_stands_in_the_history_of_the_accounts_teams(visitor: Client, team: Team) -> None:
    answer = sign_in(visitor, password="wrong")
    assert answer.status_code == 200
    assert 'value="bob"' in answer.content.decode()
    event = team.history.latest("pk")
    assert (event.tag, event.actor, event.actor_name, event.subject) == ("user:sign-in-failed", None, "somebody", "bob")


def test_what_is_no_account_is_not_kept(visitor: Client, team: Team) -> None:
    """It may be a password that was typed into the wrong field."""
    sign_in(visitor, "my secret password")
    event = AuditEvent.objects.latest("pk")
    assert event.team is None
    assert "secret" not in str(AuditEvent.objects.values_list())


@pytest.mark.parametrize("name", ["bob", "nobody"])
def test_too_many_failures(visitor: Client, team: Team, name: str) -> None:
    for _ in range(accounts.FAILURES):
        assert sign_in(visitor, name, "wrong").status_code == 200
    answer = sign_in(visitor, name)
    assert answer.status_code == 429
    assert "Wait 5 minutes" in answer.content.decode()
    assert sign_in(visitor, "alice").status_code == 302


@pytest.mark.parametrize("name", [" bob", "bob  ", "\u00a0bob", "\N{FULLWIDTH LATIN SMALL LETTER B}ob"])
def test_other_spellings_of_an_account_are_the_same_account(visitor: Client, team: Team, name: str) -> None:
    for _ in range(accounts.FAILURES):
        sign_in(visitor, "bob", "wrong")
    assert sign_in(visitor, name).status_code == 429
    assert team.history.filter(subject="bob").count() == accounts.FAILURES


def test_after_a_while_it_goes_again(visitor: Client, team: Team) -> None:
    for _ in range(accounts.FAILURES):
        sign_in(visitor, password="wrong")
    later = timezone.now() + accounts.WINDOW + timedelta(seconds=1)
    with patch.object(timezone, "now", lambda: later):
        assert sign_in(visitor).status_code == 302


def test_elsewhere_it_goes_at_once(visitor: Client, team: Team) -> None:
    for _ in range(accounts.FAILURES):
        sign_in(visitor, password="wrong")
    elsewhere = Client(headers={"host": "localhost"}, REMOTE_ADDR="192.0.2.7")
    assert sign_in(elsewhere).status_code == 302


def test_empty_form_is_no_failure(visitor: Client, team: Team) -> None:
    sign_in(visitor, "", "")
    assert event_tags(team) == []


def test_demo_account_is_shown_where_the_demo_runs(
    visitor: Client, team: Team, settings: Settings, tmp_path: Any
) -> None:
    settings.DEMO_FILE = tmp_path / "demo.json"
    settings.DEMO_FILE.write_text(json.dumps({"username": "demo", "password": "tasty"}))
    assert visitor.get("/login/").context["demo"] is None
    settings.LARDER_DEMO = True
    assert "tasty" in visitor.get("/login/").content.decode()
    settings.DEMO_FILE.unlink()
    assert visitor.get("/login/").context["demo"] is None


def test_foreign_addresses_are_not_followed(visitor: Client, team: Team) -> None:
    answer = visitor.post("/login/", {"username": "bob", "password": PASSWORD, "next": "https://evil.example.org/"})
    assert answer["Location"] == "/"


def test_passwords_are_hashed_with_argon2() -> None:
    from project import settings as real

    assert "Argon2" in real.PASSWORD_HASHERS[0]
    assert project_settings.PASSWORD_HASHERS != real.PASSWORD_HASHERS  # the tests' own is fast
