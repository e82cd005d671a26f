"""Share links, from both ends."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.utils import timezone

from models_app.actions import sharing
from models_app.models import Actor, Artifact, ShareLink
from tests.models_app.conftest import LONG, client_of, event_tags, sha256


@pytest.fixture
def stranger() -> Client:
    return client_of(None)


@pytest.fixture
def shared(artifact: Artifact, alice: User) -> tuple[ShareLink, str]:
    return sharing.create_share_link(Actor.of(alice), artifact, LONG)


def url(token: str) -> str:
    return f"/s/{token}/"


def is_gone(client: Client, address: str) -> bool:
    answer = client.get(address)
    return answer.status_code == 404 and "Ask whoever sent it" in answer.content.decode()


def test_it_works(as_bob: Client, stranger: Client, artifact: Artifact) -> None:
    answer = as_bob.post(f"/files/{artifact.pk}/share/", {"lasts": "1d"})
    assert answer.status_code == 201
    assert answer["Cache-Control"].startswith("max-age=0")
    address = answer.context["url"]
    assert re.fullmatch(r"http://localhost/s/[\w-]{43}/", address)
    page = stranger.get(address)
    assert page.status_code == 200
    assert (page.context["shared_by"], page.context["team_name"]) == ("bob", "Kitchen")
    download = stranger.get(page.context["download_url"])
    assert sha256(b"".join(download.streaming_content)) == artifact.sha256  # type: ignore[attr-defined]
    link = ShareLink.objects.get()
    assert (link.opened_count, link.downloaded_count) == (1, 1)
    assert event_tags(artifact.team)[-3:] == ["share:created", "share:opened", "share:downloaded"]
    opened = artifact.team.history.get(tag="share:opened")
    assert (opened.actor, opened.actor_name, opened.address) == (None, "a share link", "127.0.0.1")


def test_token_is_kept_nowhere(shared: tuple[ShareLink, str], as_alice: Client, artifact: Artifact) -> None:
    link, token = shared
    assert token not in str([*ShareLink.objects.values_list(), *artifact.team.history.values_list()])
    assert link.token_sha256 == sha256(token.encode())
    assert token not in as_alice.get("/t/kitchen/shares/").content.decode()


@pytest.mark.parametrize(("typed", "days"), [("1d", 1), ("90d", 90), ("nonsense", 7), ("", 7)])
def test_every_link_ends(as_bob: Client, artifact: Artifact, typed: str, days: int) -> None:
    as_bob.post(f"/files/{artifact.pk}/share/", {"lasts": typed})
    left = ShareLink.objects.get().expires_at - timezone.now()
    assert timedelta(days=days, minutes=-1) < left <= timedelta(days=days)


def test_no_link_lasts_longer_than_90_days(artifact: Artifact, alice: User) -> None:
    link, _ = sharing.create_share_link(Actor.of(alice), artifact, timedelta(days=1000))
    assert link.expires_at < timezone.now() + timedelta(days=91)


@pytest.mark.parametrize(
    "values", [{"expires_at": timezone.now() - timedelta(seconds=1)}, {"revoked_at": timezone.now()}]
)
def test_ended_revoked_and_unknown_links_look_the_same(
    stranger: Client, shared: tuple[ShareLink, str], values: dict[str, Any]
) -> None:
    _, token = shared
    ShareLink.objects.update(**values)
    assert is_gone(stranger, url(token))
    assert is_gone(stranger, f"{url(token)}soup.keras")
    assert is_gone(stranger, url("x" * 43))


def test_link_gives_nothing_but_its_file(stranger: Client, shared: tuple[ShareLink, str]) -> None:
    assert is_gone(stranger, f"{url(shared[1])}another.keras")


def test_revoke(as_bob: Client, stranger: Client, shared: tuple[ShareLink, str], artifact: Artifact) -> None:
    link, token = shared
    assert as_bob.post(f"/shares/{link.pk}/revoke/")["Location"] == "/t/kitchen/shares/"
    assert is_gone(stranger, url(token))
    assert event_tags(artifact.team)[-2] == "share:revoked" or event_tags(artifact.team)[-1] == "share:revoked"
    assert as_bob.post(f"/shares/{link.pk}/revoke/").status_code == 409


def test_pickles_are_not_shared(as_bob: Client, stranger: Client, shared: tuple[ShareLink, str]) -> None:
    """Neither from now on, nor by a link that is older than this rule."""
    link, token = shared
    Artifact.objects.update(format="pickle")
    answer = as_bob.post(f"/files/{link.artifact_id}/share/")
    assert (answer.status_code, answer.context["code"]) == (400, "unsafe-content")
    assert is_gone(stranger, url(token))
    assert is_gone(stranger, f"{url(token)}soup.keras")


def test_page_of_all_links(as_vera: Client, shared: tuple[ShareLink, str]) -> None:
    answer = as_vera.get("/t/kitchen/shares/")
    assert list(answer.context["links"]) == [shared[0]]


def test_looking_at_the_head_is_no_use(stranger: Client, shared: tuple[ShareLink, str]) -> None:
    link, token = shared
    stranger.head(url(token))
    stranger.head(f"{url(token)}soup.keras")
    link.refresh_from_db()
    assert (link.opened_count, link.downloaded_count) == (0, 0)
