"""The history page and its table."""

from __future__ import annotations

import csv
import io
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.utils import timezone

from models_app.models import SYSTEM, Actor, AuditEvent, Tag, Team, record
from models_app.views.history import PAGE_SIZE
from worker.errors import LarderError

URL = "/t/kitchen/history/"


@pytest.fixture
def events(team: Team, alice: User, bob: User) -> list[AuditEvent]:
    record(Actor.of(alice), Tag.VERSION_UPLOADED, team, "soup v1")
    record(Actor.of(bob, "192.0.2.1"), Tag.CONVERSION_REQUESTED, team, "soup v1 to h5")
    record(SYSTEM, Tag.CONVERSION_SUCCEEDED, team, "soup v1 to h5", verdict="verified")
    record(Actor(None, "a share link"), Tag.SHARE_OPENED, team, "soup.h5")
    return list(team.history.all())


def subjects(client: Client, **query: str) -> list[str]:
    return [event.tag for event in client.get(URL, query).context["events"]]


def table(client: Client, **query: str) -> list[list[str]]:
    answer: Any = client.get("/t/kitchen/history.csv", query)
    return list(csv.reader(io.StringIO(b"".join(answer.streaming_content).decode())))


def test_it_works(as_vera: Client, events: list[AuditEvent]) -> None:
    answer = as_vera.get(URL)
    assert answer.context["events"] == events
    assert answer.context["older_url"] == answer.context["newest_url"] == ""
    assert "soup v1 to h5" in answer.content.decode()


def test_filters_are_in_the_url(as_vera: Client, events: list[AuditEvent], bob: User) -> None:
    assert subjects(as_vera, person=str(bob.pk)) == ["conversion:requested"]
    assert subjects(as_vera, person="larder") == ["conversion:succeeded"]
    assert subjects(as_vera, person="a share link") == ["share:opened"]
    assert subjects(as_vera, action="version:uploaded") == ["version:uploaded"]
    tomorrow, yesterday = (f"{timezone.now() + timedelta(days=days):%Y-%m-%dT%H:%M}" for days in (1, -1))
    assert subjects(as_vera, since=tomorrow) == []
    assert len(subjects(as_vera, since=yesterday, until=tomorrow)) == len(events)
    assert subjects(as_vera, until=yesterday) == []


def test_nonsense_filters_nothing(as_vera: Client, events: list[AuditEvent]) -> None:
    query = {"person": "x", "action": "y", "since": "z", "until": "", "before": "w"}
    assert len(subjects(as_vera, **query)) == len(events)


def test_pages_by_key(as_vera: Client, team: Team) -> None:
    for number in range(PAGE_SIZE + 5):
        record(SYSTEM, Tag.VERSION_INSPECTED, team, f"soup v{number}")
    first = as_vera.get(URL, {"action": "version:inspected"}).context
    second = as_vera.get(URL + first["older_url"]).context
    assert (len(first["events"]), len(second["events"])) == (PAGE_SIZE, 5)
    assert (second["older_url"], second["newest_url"]) == ("", "?action=version%3Ainspected")


def test_other_teams_history_is_not_shown(as_vera: Client, team: Team, alice: User) -> None:
    other = Team.objects.create(slug="other", name="Other")
    record(Actor.of(alice), Tag.VERSION_UPLOADED, other, "secret sauce")
    assert "secret sauce" not in as_vera.get(URL).content.decode()
    assert "secret sauce" not in str(table(as_vera))


def test_csv(as_vera: Client, events: list[AuditEvent], bob: User) -> None:
    head, row = table(as_vera, person=str(bob.pk))
    assert head == ["id", "time", "person", "action", "subject", "address", "data"]
    assert row[2:] == ["bob", "conversion:requested", "soup v1 to h5", "192.0.2.1", "{}"]


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r", "\n"])
def test_no_cell_is_a_formula(as_vera: Client, team: Team, start: str) -> None:
    subject = f"{start}cmd|' /C calc'!A0"
    AuditEvent.objects.create(team=team, actor_name="larder", tag=Tag.UPLOAD_REFUSED, subject=subject)
    assert table(as_vera)[1][4].startswith("'" + start)


def test_every_tag_has_a_sentence(as_vera: Client, team: Team) -> None:
    for tag in Tag:
        assert record(SYSTEM, tag, team, "soup").sentence == tag.label
    assert as_vera.get(URL).status_code == 200


def test_tag_that_was_removed_from_larder_is_still_shown(as_vera: Client, team: Team) -> None:
    AuditEvent.objects.create(team=team, actor_name="larder", tag="soup:cooked", subject="soup")
    assert "soup:cooked" in as_vera.get(URL).content.decode()


def test_history_of_the_visible_teams(alice: User, charlie: User, events: list[AuditEvent]) -> None:
    assert set(AuditEvent.objects.visible_to(alice)) == set(events)
    assert not AuditEvent.objects.visible_to(charlie).exists()


def test_act_and_event_stand_or_fall_together(
    as_bob: Client, team: Team, version: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the event cannot be written, nothing has happened."""
    from models_app.actions import conversions

    def broken(*args: Any, **data: Any) -> None:
        raise LarderError(reference="broken")

    monkeypatch.setattr(conversions, "record", broken)
    as_bob.post(f"{version.get_absolute_url()}convert/", {"target": "h5"})
    assert not version.conversions.exists()
