"""Letting a file out of quarantine: who may, with what reason, and the mark that it carries for ever."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import DatabaseError, IntegrityError, connection, transaction
from django.test import Client
from django.utils import timezone

from models_app import storage
from models_app.actions import quarantine, sharing
from models_app.models import Actor, Artifact, Conversion, ModelVersion, Quarantine
from models_app.models.quarantine import REASON_LENGTH
from tests.models_app.conftest import LONG, client_of, event_tags
from tests.models_app.engine import FakeEngine, convert_as, engine
from worker.errors import StateError

__all__ = ["engine"]

REASON = "The outputs differ in a head that the app never reads."


@pytest.fixture
def made(version: ModelVersion, alice: User, engine: FakeEngine) -> tuple[Conversion, Artifact]:
    return convert_as(engine, version, alice)


@pytest.fixture
def kept(made: tuple[Conversion, Artifact]) -> Artifact:
    return made[1]


def release(client: Client, artifact: Artifact, reason: str = REASON) -> Any:
    return client.post(f"/files/{artifact.pk}/quarantine/release/", {"reason": reason})


def text_of(answer: Any) -> str:
    return " ".join(answer.content.decode().split())


def test_it_works(as_alice: Client, as_vera: Client, kept: Artifact, alice: User) -> None:
    assert release(as_alice, kept)["Location"] == f"/files/{kept.pk}/quarantine/"
    answer = as_vera.get(kept.download_url)
    assert b"".join(answer.streaming_content) == b"a result that is differs"  # type: ignore[attr-defined]
    stay = Quarantine.objects.get()
    assert (stay.released_by, stay.release_reason, stay.released_at is None) == (alice, REASON, False)
    assert event_tags(kept.team)[-2:] == ["artifact:released", "artifact:downloaded"]
    event = kept.team.history.get(tag="artifact:released")
    assert (event.actor, event.address) == (alice, "127.0.0.1")
    assert (event.data["reason"], event.data["found"], event.data["sha256"]) == (REASON, stay.reason, kept.sha256)


def test_the_conversion_stays_what_it_was(as_alice: Client, made: tuple[Conversion, Artifact]) -> None:
    conversion, kept = made
    release(as_alice, kept)
    conversion.refresh_from_db()
    assert (conversion.state, conversion.error and conversion.error["code"]) == ("failed", "differs")


def test_the_mark_is_on_every_page(as_alice: Client, as_vera: Client, kept: Artifact, alice: User) -> None:
    release(as_alice, kept)
    _, token = sharing.create_share_link(Actor.of(alice), kept, LONG)
    conversion = kept.conversions.get()
    pages = [
        as_vera.get(kept.get_absolute_url()),
        as_vera.get(conversion.get_absolute_url()),
        as_vera.get(f"/files/{kept.pk}/quarantine/"),
        as_vera.get("/t/kitchen/history/?action=artifact:released"),
        client_of(None).get(f"/s/{token}/"),
    ]
    for page in pages:
        assert page.status_code == 200
        assert REASON in text_of(page)
        assert "alice" in text_of(page)
    report = as_vera.get(f"{conversion.get_absolute_url()}report.json").json()
    (stay,) = report["quarantine"]
    assert (stay["released"]["by"], stay["released"]["reason"]) == ("alice", REASON)


def test_it_can_be_shared_and_every_download_names_the_release(
    as_alice: Client, as_bob: Client, kept: Artifact
) -> None:
    release(as_alice, kept)
    answer = as_bob.post(f"/files/{kept.pk}/share/", {"lasts": "1d"})
    assert answer.status_code == 201
    address = client_of(None).get(answer.context["url"]).context["download_url"]
    for answer in (client_of(None).get(address), as_bob.get(kept.download_url)):
        assert b"".join(answer.streaming_content) == b"a result that is differs"  # type: ignore[attr-defined]
    for tag in ("share:created", "share:downloaded", "artifact:downloaded"):
        assert kept.team.history.get(tag=tag).data["released_from_quarantine_by"] == ["alice"]


@pytest.mark.parametrize("reason", ["", "   ", "ok", "1234567890 !!!", "\u200b" * 40, "x" * (REASON_LENGTH + 1)])
def test_a_reason_is_needed_and_what_was_typed_is_kept(as_alice: Client, kept: Artifact, reason: str) -> None:
    answer = release(as_alice, kept, reason)
    assert answer.status_code == 400
    assert answer.context["form"].errors["reason"]
    assert answer.context["form"]["reason"].value() == reason
    assert not Quarantine.objects.filter(released_at__isnull=False).exists()
    assert "artifact:released" not in event_tags(kept.team)


@pytest.mark.parametrize("person", ["as_bob", "as_vera", "as_charlie"])
def test_only_owners_release(request: pytest.FixtureRequest, kept: Artifact, person: str) -> None:
    answer = release(request.getfixturevalue(person), kept)
    assert answer.status_code == (404 if person == "as_charlie" else 403)
    assert kept.quarantine is not None


def test_a_reason_is_hostile_text(as_alice: Client, as_vera: Client, kept: Artifact, alice: User) -> None:
    release(as_alice, kept, "<img src=x onerror=alert(1)>\u202e it is\nfine by me")
    _, token = sharing.create_share_link(Actor.of(alice), kept, LONG)
    for page in (as_vera.get(kept.get_absolute_url()), client_of(None).get(f"/s/{token}/")):
        assert "<img" not in text_of(page)
        assert "&lt;img src=x onerror=alert(1)&gt; it is" in text_of(page)
        assert "\u202e" not in text_of(page)


def test_released_once(as_alice: Client, kept: Artifact, alice: User) -> None:
    stale = Artifact.objects.prefetch_related("quarantines").get(pk=kept.pk)
    assert stale.quarantine is not None
    release(as_alice, kept)
    assert release(as_alice, kept, "Another reason, later on.").status_code == 409
    with pytest.raises(StateError):  # who looked before the other one had released it
        quarantine.release(Actor.of(alice), stale, "Another reason, later on.")
    assert Quarantine.objects.get().release_reason == REASON
    assert event_tags(kept.team).count("artifact:released") == 1


def test_only_published_bytes_are_released(as_alice: Client, kept: Artifact) -> None:
    path = storage.path_of(kept.sha256)
    content = path.read_bytes()
    path.chmod(0o640)
    path.write_bytes(content[::-1])
    answer = release(as_alice, kept)
    assert (answer.status_code, "put the right ones back" in text_of(answer)) == (409, True)
    path.write_bytes(content)
    assert release(as_alice, kept).status_code == 302


def test_back_into_quarantine_and_out_again(as_alice: Client, as_bob: Client, kept: Artifact, alice: User) -> None:
    """Nothing is forgotten: the second stay is another row, and both releases are the file's mark."""
    release(as_alice, kept)
    _, token = sharing.create_share_link(Actor.of(alice), kept, LONG)
    back = {"reason": "A customer does read that head."}
    assert as_bob.post(f"/files/{kept.pk}/quarantine/again/", back).status_code == 302
    assert event_tags(kept.team)[-1] == "artifact:quarantined"
    assert as_alice.get(kept.download_url).status_code == 423
    assert client_of(None).get(f"/s/{token}/").status_code == 423
    assert as_bob.post(f"/files/{kept.pk}/quarantine/again/", back).status_code == 409
    assert release(as_alice, kept, "The customer was asked and agrees.").status_code == 302
    assert [stay.release_reason for stay in kept.releases] == [REASON, "The customer was asked and agrees."]
    assert "The customer was asked" in text_of(client_of(None).get(f"/s/{token}/"))


def test_what_was_never_in_quarantine_is_not_put_back(as_alice: Client, artifact: Artifact) -> None:
    answer = as_alice.post(f"/files/{artifact.pk}/quarantine/again/", {"reason": "Because I can do it."})
    assert answer.status_code == 409


@pytest.mark.parametrize(
    "values",
    [
        {"released_at": timezone.now()},
        {"released_at": timezone.now(), "release_reason": REASON},
        {"release_reason": REASON},
        {"released_at": timezone.now(), "release_reason": "short", "released_by": "alice"},
        {"released_by": "alice"},
    ],
    ids=lambda values: "-".join(values),
)
def test_the_database_wants_person_time_and_reason(kept: Artifact, alice: User, values: dict[str, Any]) -> None:
    if "released_by" in values:
        values = values | {"released_by": alice}
    with pytest.raises(IntegrityError), transaction.atomic():
        Quarantine.objects.update(**values)


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE models_app_quarantine SET released_at = NULL, released_by_id = NULL, release_reason = ''",
        "UPDATE models_app_quarantine SET release_reason = 'what somebody would rather have said'",
        "DELETE FROM models_app_quarantine",
    ],
)
def test_the_database_keeps_a_release_for_ever(kept: Artifact, alice: User, statement: str) -> None:
    quarantine.release(Actor.of(alice), kept, REASON)
    with pytest.raises(DatabaseError, match="for ever"), transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(statement)
    assert Quarantine.objects.get().release_reason == REASON


def test_where_a_person_finds_the_form(as_alice: Client, as_bob: Client, kept: Artifact) -> None:
    page = f"/files/{kept.pk}/quarantine/"
    assert f'action="{page}release/"' in text_of(as_alice.get(page))
    assert f'action="{page}release/"' not in text_of(as_bob.get(page))
    release(as_alice, kept)
    assert f'action="{page}again/"' in text_of(as_bob.get(page))
