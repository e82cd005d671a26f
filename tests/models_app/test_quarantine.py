"""What is not handed out: results that differ, and files that were changed behind Larder's back."""

from __future__ import annotations

import hashlib
import os
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import IntegrityError, connection, transaction
from django.test import Client
from django.test.utils import CaptureQueriesContext

from models_app import storage
from models_app.actions import conversions, quarantine, sharing
from models_app.actions.teams import create_team
from models_app.models import SYSTEM, Actor, Artifact, Conversion, ModelVersion, Quarantine
from models_app.models.quarantine import Cause, put_in_quarantine
from tests.models_app.conftest import LONG, a_report, client_of, event_tags, request_conversion
from tests.models_app.engine import FakeEngine, convert_as, engine
from worker import tasks
from worker.errors import Quarantined
from worker.report import Verdict

__all__ = ["engine"]


@pytest.fixture
def kept(version: ModelVersion, alice: User, engine: FakeEngine) -> Artifact:
    """A result that differs."""
    return convert_as(engine, version, alice)[1]


def text_of(answer: Any) -> str:
    return " ".join(answer.content.decode().split())


def fetch(client: Client, artifact: Artifact, **headers: str) -> int:
    """The status, after the file was read to its end where there is one."""
    answer = client.get(artifact.download_url, headers=headers)
    if answer.streaming:
        assert b"".join(answer.streaming_content)  # type: ignore[attr-defined]
    return answer.status_code


def change(artifact: Artifact, content: bytes | None = None) -> None:
    """What nobody should be able to do: other bytes under the same hash, of the same length unless said otherwise."""
    path = storage.path_of(artifact.sha256)
    before = path.read_bytes()
    path.chmod(0o640)
    path.write_bytes(before[::-1] if content is None else content)


def test_it_works(as_alice: Client, kept: Artifact) -> None:
    answer = as_alice.get(kept.download_url)
    assert (answer.status_code, answer.context["code"]) == (423, "quarantined")
    assert "is in quarantine and is not handed out: it does not compute the same as its source" in text_of(answer)
    assert as_alice.post(f"/files/{kept.pk}/share/").status_code == 423
    assert storage.path_of(kept.sha256).read_bytes() == b"a result that is differs"
    assert event_tags(kept.team)[-2:] == ["conversion:failed", "artifact:quarantined"]
    event = kept.team.history.get(tag="artifact:quarantined")
    assert (event.actor, event.data["cause"], event.data["reason"]) == (None, "differs", "all checks passed")


def test_the_team_sees_it_with_the_reason_and_the_failed_checks(as_vera: Client, kept: Artifact) -> None:
    answer = as_vera.get(f"/files/{kept.pk}/quarantine/")
    assert [check.name for check in answer.context["failed"]] == ["values"]
    assert "all checks passed" in text_of(answer)
    assert "Release from quarantine" not in text_of(answer)
    for address in (kept.get_absolute_url(), kept.conversions.get().get_absolute_url()):
        page = text_of(as_vera.get(address))
        assert f'href="/files/{kept.pk}/quarantine/"' in page
        assert kept.download_url not in page
        assert f'action="/files/{kept.pk}/share/"' not in page


def test_it_is_no_format_that_the_model_exists_in(as_vera: Client, kept: Artifact) -> None:
    (row,) = as_vera.get("/t/kitchen/").context["rows"]
    assert [each.slug for each in row.formats] == ["keras"]
    assert row.size == kept.version.source.size
    assert list(as_vera.get("/t/kitchen/?format=h5").context["rows"]) == []
    assert as_vera.get(kept.get_absolute_url()).context["ready"] == 1


def test_not_provable_is_handed_out(as_vera: Client, version: ModelVersion, alice: User, engine: FakeEngine) -> None:
    _, made = convert_as(engine, version, alice, Verdict.NOT_PROVABLE)
    assert made.quarantine is None
    assert fetch(as_vera, made) == 200


def test_it_can_be_asked_for_again(version: ModelVersion, alice: User, kept: Artifact, engine: FakeEngine) -> None:
    _, better = convert_as(engine, version, alice, Verdict.VERIFIED)
    assert (better.quarantine, kept.quarantine is None) == (None, False)


@pytest.mark.parametrize(
    ("meanwhile", "state"),
    [({"cancel_requested": True}, "canceled"), ({"state": "queued", "lease_token": None}, "queued")],
    ids=["canceled", "lost"],
)
def test_nobody_wants_it_any_more(
    version: ModelVersion, alice: User, engine: FakeEngine, meanwhile: dict[str, Any], state: str
) -> None:
    """A conversion that was canceled, or is another worker's by now, leaves no file, whatever its verdict."""

    def act(canceled: Any) -> None:
        Conversion.objects.update(**meanwhile)

    engine.report, engine.during = a_report(Verdict.DIFFERS), act
    conversion = request_conversion(version, alice)
    tasks.convert(str(conversion.pk))
    conversion.refresh_from_db()
    assert (conversion.state, conversion.artifact) == (state, None)
    assert not version.artifacts.filter(origin="converted").exists()
    assert not Quarantine.objects.exists()


def test_a_head_request_and_what_one_has_already_give_nothing_away(as_alice: Client, kept: Artifact) -> None:
    assert as_alice.head(kept.download_url).status_code == 423
    assert as_alice.get(kept.download_url, headers={"If-None-Match": f'"{kept.sha256}"'}).status_code == 423


@pytest.mark.parametrize("content", [None, b"short"])
def test_altered_bytes_are_found_at_the_download(as_vera: Client, artifact: Artifact, content: bytes | None) -> None:
    assert fetch(as_vera, artifact) == 200  # and remembered to be whole
    change(artifact, content)
    answer = as_vera.get(artifact.download_url)
    assert (answer.status_code, answer.context["code"]) == (423, "quarantined")
    assert "its stored bytes are not those that were published" in text_of(answer)
    assert event_tags(artifact.team)[-1] == "artifact:quarantined"
    assert artifact.team.history.latest("pk").actor_name == "larder"
    assert text_of(as_vera.get(f"/files/{artifact.pk}/quarantine/")).count("put it into quarantine") == 1
    assert fetch(as_vera, artifact) == 423


def test_altered_bytes_are_found_in_a_part_too(as_vera: Client, artifact: Artifact) -> None:
    change(artifact)
    assert fetch(as_vera, artifact, range="bytes=5-9") == 423


def test_a_time_that_was_set_back_hides_nothing(as_vera: Client, artifact: Artifact) -> None:
    fetch(as_vera, artifact)
    before = storage.path_of(artifact.sha256).stat()
    change(artifact)
    os.utime(storage.path_of(artifact.sha256), ns=(before.st_atime_ns, before.st_mtime_ns))
    assert fetch(as_vera, artifact) == 423


def test_whole_files_are_hashed_once(as_vera: Client, artifact: Artifact, monkeypatch: pytest.MonkeyPatch) -> None:
    fetch(as_vera, artifact)
    monkeypatch.setattr(hashlib, "file_digest", None)
    assert fetch(as_vera, artifact) == 200


def test_links_say_so(artifact: Artifact, alice: User) -> None:
    stranger = client_of(None)
    _, token = sharing.create_share_link(Actor.of(alice), artifact, LONG)
    change(artifact)
    assert stranger.get(f"/s/{token}/{artifact.name}").status_code == 423
    answer = stranger.get(f"/s/{token}/")
    assert answer.status_code == 423
    assert "is in quarantine and is not handed out" in text_of(answer)
    assert "share:downloaded" not in event_tags(artifact.team)


def test_the_page_of_all_links_shows_which_are_stopped(as_vera: Client, artifact: Artifact, alice: User) -> None:
    sharing.create_share_link(Actor.of(alice), artifact, LONG)
    quarantine.put_altered(artifact)
    assert f'href="/files/{artifact.pk}/quarantine/"' in text_of(as_vera.get("/t/kitchen/shares/"))


def test_links_do_not_tell_what_the_team_wrote(artifact: Artifact, alice: User) -> None:
    _, token = sharing.create_share_link(Actor.of(alice), artifact, LONG)
    with transaction.atomic():
        put_in_quarantine(Actor.of(alice), artifact, Cause.PERSON, "a private remark")
    answer = client_of(None).get(f"/s/{token}/")
    assert (answer.status_code, "private remark" in text_of(answer)) == (423, False)


def test_nothing_is_made_from_it(version: ModelVersion, alice: User, artifact: Artifact) -> None:
    quarantine.put_altered(artifact)
    with pytest.raises(Quarantined):
        conversions.request_conversion(Actor.of(alice), version, "h5")
    assert event_tags(artifact.team)[-1] == "conversion:refused"


def test_two_downloads_find_the_same(artifact: Artifact) -> None:
    quarantine.put_altered(artifact)
    quarantine.put_altered(artifact)
    assert Quarantine.objects.count() == 1


def test_one_stay_at_a_time(kept: Artifact) -> None:
    with pytest.raises(IntegrityError), transaction.atomic():
        put_in_quarantine(SYSTEM, kept, Cause.ALTERED, "again")


def test_what_the_check_says_is_hostile_text(as_vera: Client, artifact: Artifact) -> None:
    put_in_quarantine(SYSTEM, artifact, Cause.DIFFERS, "<script>alert(1)</script>\0\ud800" + "x" * 5000)
    for address in (f"/files/{artifact.pk}/quarantine/", artifact.get_absolute_url()):
        text = text_of(as_vera.get(address))
        assert "<script>alert" not in text
        assert "&lt;script&gt;alert" in text


def test_a_file_that_was_never_there(as_vera: Client, artifact: Artifact) -> None:
    assert as_vera.get(f"/files/{artifact.pk}/quarantine/").status_code == 404


@pytest.mark.parametrize(
    "values",
    [
        {"cause": "differs", "reason": ""},
        {"cause": "unknown", "reason": "x"},
        {"cause": "person", "reason": "nobody put it there"},
    ],
)
def test_the_database_refuses(artifact: Artifact, values: dict[str, Any]) -> None:
    with pytest.raises(IntegrityError), transaction.atomic():
        Quarantine.objects.create(artifact=artifact, **values)


# The same bytes once more -----------------------------------------------------------------------------------------


@pytest.fixture
def twin(version: ModelVersion, alice: User, engine: FakeEngine, kept: Artifact) -> Artifact:
    """The bytes that differ, out of a conversion with other options that found nothing wrong."""
    engine.report = a_report(Verdict.VERIFIED)
    conversion = request_conversion(version, alice, "tflite", precision="int8")
    tasks.convert(str(conversion.pk))
    conversion.refresh_from_db()
    assert conversion.artifact is not None
    assert (conversion.state, conversion.artifact.sha256) == ("succeeded", kept.sha256)
    return conversion.artifact


def test_the_same_bytes_are_kept_however_they_came_about(
    as_bob: Client, twin: Artifact, kept: Artifact, alice: User
) -> None:
    answer = as_bob.get(twin.download_url)
    assert (answer.status_code, answer.context["code"]) == (423, "quarantined")
    assert "is in quarantine and is not handed out: it does not compute the same as its source" in text_of(answer)
    assert as_bob.post(f"/files/{twin.pk}/share/").status_code == 423
    (row,) = as_bob.get("/t/kitchen/").context["rows"]
    assert [each.slug for each in row.formats] == ["keras"]
    for address in (twin.get_absolute_url(), twin.conversions.get().get_absolute_url()):
        page = text_of(as_bob.get(address))
        assert f'href="/files/{kept.pk}/quarantine/"' in page
        assert "which has the same bytes" in page
        assert twin.download_url not in page


def test_a_release_of_the_stay_frees_the_same_bytes(
    as_alice: Client, as_bob: Client, twin: Artifact, kept: Artifact
) -> None:
    assert as_bob.post(f"/files/{twin.pk}/quarantine/release/", {"reason": "an editor says so"}).status_code == 403
    as_alice.post(f"/files/{kept.pk}/quarantine/release/", {"reason": "The head that differs is not used."})
    assert (fetch(as_bob, twin), fetch(as_bob, kept)) == (200, 200)
    assert twin.download_url in text_of(as_bob.get(twin.get_absolute_url()))


def test_links_to_the_same_bytes_stop_too(
    as_alice: Client, artifact: Artifact, version: ModelVersion, alice: User
) -> None:
    _, token = sharing.create_share_link(Actor.of(alice), artifact, LONG)
    other = version.artifacts.create(
        format="keras", name="b.keras", sha256=artifact.sha256, size=artifact.size, origin="converted"
    )
    with transaction.atomic():
        put_in_quarantine(SYSTEM, other, Cause.DIFFERS, "the outputs differ")
    assert client_of(None).get(f"/s/{token}/").status_code == 423
    assert client_of(None).get(f"/s/{token}/{artifact.name}").status_code == 423
    assert f'href="/files/{other.pk}/quarantine/"' in text_of(as_alice.get("/t/kitchen/shares/"))
    with transaction.atomic():
        put_in_quarantine(SYSTEM, artifact, Cause.DIFFERS, "the outputs differ")
    reason = {"reason": "The head that differs is not used."}
    answer = as_alice.post(f"/files/{other.pk}/quarantine/release/", reason, follow=True)
    assert "another file with the same bytes is still in quarantine" in text_of(answer)
    assert fetch(as_alice, other) == 423
    as_alice.post(f"/files/{artifact.pk}/quarantine/release/", reason)
    assert client_of(None).get(f"/s/{token}/").status_code == 200


def test_other_teams_have_quarantines_of_their_own(as_charlie: Client, artifact: Artifact, charlie: User) -> None:
    garden = create_team(Actor.of(charlie), "Garden")
    theirs = garden.models.create(name="Tea", slug="tea").versions.create(
        number=1, uploaded_by=charlie, upload_name="tea.keras"
    )
    same = {"name": "tea.keras", "sha256": artifact.sha256, "size": artifact.size, "origin": "uploaded"}
    tea = theirs.artifacts.create(format="keras", **same)
    with transaction.atomic():
        put_in_quarantine(SYSTEM, artifact, Cause.DIFFERS, "the outputs differ")
    assert fetch(as_charlie, tea) == 200
    assert tea.quarantine is None


def test_lists_ask_once_for_all_files(
    as_vera: Client, version: ModelVersion, artifact: Artifact, alice: User, kept: Artifact
) -> None:
    def queries(address: str) -> int:
        with CaptureQueriesContext(connection) as asked:
            assert as_vera.get(address).status_code == 200
        return len(asked)

    addresses = ("/t/kitchen/shares/", version.get_absolute_url())
    sharing.create_share_link(Actor.of(alice), artifact, LONG)
    before = [queries(address) for address in addresses]
    for number in range(5):
        name = f"{number}.h5"
        made = version.artifacts.create(format="h5", name=name, sha256=f"{number}" * 64, size=1, origin="converted")
        sharing.create_share_link(Actor.of(alice), made, LONG)
        put_in_quarantine(SYSTEM, made, Cause.DIFFERS, "the outputs differ")
    assert [queries(address) for address in addresses] == before
