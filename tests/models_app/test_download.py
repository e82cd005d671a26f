"""Downloading a file: whole, in parts, and never unseen."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client

from models_app import storage
from models_app.models import Artifact
from tests.models_app.conftest import event_tags, sha256


@pytest.fixture
def content(artifact: Artifact) -> bytes:
    return storage.path_of(artifact.sha256).read_bytes()


def get(client: Client, artifact: Artifact, method: str = "get", **headers: str) -> tuple[Any, bytes]:
    answer = getattr(client, method)(artifact.download_url, headers=headers)
    return answer, b"".join(answer.streaming_content) if answer.streaming else answer.content


def test_it_works(as_vera: Client, artifact: Artifact, content: bytes, vera: User) -> None:
    answer, body = get(as_vera, artifact)
    assert answer.status_code == 200
    assert sha256(body) == artifact.sha256
    assert answer["Content-Length"] == str(len(content))
    assert answer["Content-Disposition"] == 'attachment; filename="soup.keras"'
    assert answer["ETag"] == f'"{artifact.sha256}"'
    assert answer["X-Content-Type-Options"] == "nosniff"
    event = artifact.team.history.latest("pk")
    assert (event.tag, event.actor, event.data["sha256"]) == ("artifact:downloaded", vera, artifact.sha256)


def test_head_sends_nothing_and_is_no_download(as_vera: Client, artifact: Artifact, content: bytes) -> None:
    answer, body = get(as_vera, artifact, "head")
    assert (answer.status_code, body, answer["Content-Length"]) == (200, b"", str(len(content)))
    assert "artifact:downloaded" not in event_tags(artifact.team)


@pytest.mark.parametrize(
    ("asked", "start", "end"),
    [("bytes=0-99", 0, 100), ("bytes=100-", 100, None), ("bytes=-10", -10, None), ("bytes=5-999999", 5, None)],
)
def test_ranges(as_vera: Client, artifact: Artifact, content: bytes, asked: str, start: int, end: int | None) -> None:
    answer, body = get(as_vera, artifact, range=asked)
    assert (answer.status_code, body) == (206, content[start:end])
    assert answer["Content-Length"] == str(len(body))
    first = start % len(content)
    assert answer["Content-Range"] == f"bytes {first}-{first + len(body) - 1}/{len(content)}"


def test_an_interrupted_download_goes_on(as_vera: Client, artifact: Artifact, content: bytes) -> None:
    _, first = get(as_vera, artifact, range="bytes=0-49")
    _, rest = get(as_vera, artifact, range="bytes=50-", if_range=f'"{artifact.sha256}"')
    assert first + rest == content


@pytest.mark.parametrize("asked", ["bytes=0-1,4-5", "bytes=-", "lines=1-2", "bytes=9-3", "bytes=a-b", ""])
def test_other_ranges_mean_the_whole_file(as_vera: Client, artifact: Artifact, content: bytes, asked: str) -> None:
    answer, body = get(as_vera, artifact, range=asked)
    assert (answer.status_code, body) == (200, content)


def test_range_of_another_file_means_the_whole(as_vera: Client, artifact: Artifact, content: bytes) -> None:
    answer, body = get(as_vera, artifact, range="bytes=5-", if_range='"another"')
    assert (answer.status_code, body) == (200, content)


@pytest.mark.parametrize("asked", ["bytes=99999999-", "bytes=-0"])
def test_range_beyond_the_end(as_vera: Client, artifact: Artifact, content: bytes, asked: str) -> None:
    answer, _ = get(as_vera, artifact, range=asked)
    assert (answer.status_code, answer["Content-Range"]) == (416, f"bytes */{len(content)}")


def test_what_one_has_already_is_not_sent_again(as_vera: Client, artifact: Artifact) -> None:
    answer, body = get(as_vera, artifact, if_none_match=f'"{artifact.sha256}"')
    assert (answer.status_code, body) == (304, b"")


def test_a_part_is_a_download_too(as_vera: Client, artifact: Artifact) -> None:
    """Or everything but the first byte could be had without leaving a trace."""
    get(as_vera, artifact, range="bytes=1-")
    assert event_tags(artifact.team)[-1] == "artifact:downloaded"


def test_the_name_belongs_to_the_file(as_vera: Client, artifact: Artifact) -> None:
    assert as_vera.get(f"/files/{artifact.pk}/another.keras").status_code == 404


def test_names_of_all_scripts(as_vera: Client, artifact: Artifact) -> None:
    Artifact.objects.update(name="Füße 🍲.keras")
    artifact.refresh_from_db()
    answer, _ = get(as_vera, artifact)
    assert answer["Content-Disposition"] == "attachment; filename*=utf-8''F%C3%BC%C3%9Fe%20%F0%9F%8D%B2.keras"
