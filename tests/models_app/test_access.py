"""Who may see and do what: every URL for five kinds of people. A URL that is missing here fails."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest
from django.contrib.auth.models import User
from django.http.response import HttpResponseBase
from django.test import Client
from django.urls import URLPattern, URLResolver, get_resolver, reverse

from models_app.actions import sharing
from models_app.models import SYSTEM, Actor, Artifact, Conversion, Membership, ModelVersion, Team
from models_app.models.quarantine import Cause, put_in_quarantine
from tests.models_app.conftest import LONG, a_report, client_of, request_conversion

OK, FORBIDDEN, MISSING, SIGN_IN, REFUSED = "ok", 403, 404, "sign-in", "refused"


@dataclass(frozen=True)
class Row:
    """What alice (owner), bob (editor), vera (viewer), charlie (outside) and a stranger without account get.

    "refused" means that the person got through and the input, which is empty here, was refused.
    """

    method: str
    alice: object
    bob: object
    vera: object
    charlie: object
    stranger: object = SIGN_IN


READ = Row("get", OK, OK, OK, MISSING)
WRITE = Row("post", OK, OK, FORBIDDEN, MISSING)
OWN = Row("post", OK, FORBIDDEN, FORBIDDEN, MISSING)
PUBLIC = Row("get", OK, OK, OK, OK, OK)

TABLE = {
    "home": [Row("get", OK, OK, OK, OK)],
    "login": [PUBLIC],
    "logout": [Row("post", OK, OK, OK, OK)],
    "healthz": [Row("get", REFUSED, REFUSED, REFUSED, REFUSED, REFUSED)],  # no broker, no worker
    "status": [Row("get", MISSING, MISSING, MISSING, MISSING)],  # nobody here is staff
    "status-check": [Row("post", MISSING, MISSING, MISSING, MISSING)],
    "why-not-pickle": [PUBLIC],
    "team": [READ],
    "upload": [Row("get", OK, OK, FORBIDDEN, MISSING), Row("post", REFUSED, REFUSED, FORBIDDEN, MISSING)],
    "upload-raw": [Row("post", REFUSED, REFUSED, FORBIDDEN, MISSING)],
    "upload-finish": [Row("post", REFUSED, REFUSED, FORBIDDEN, MISSING)],
    "members": [READ],
    "member-add": [Row("post", REFUSED, FORBIDDEN, FORBIDDEN, MISSING)],
    "member-role": [OWN],
    "member-remove": [OWN],
    "settings": [READ],
    "policy": [OWN],
    "attempt-seen": [OWN],
    "shares": [READ],
    "history": [READ],
    "history-csv": [READ],
    "model": [READ],
    "version": [READ],
    "convert": [WRITE],
    "consent-agree": [WRITE],
    "consent-revoke": [WRITE],
    "samples": [WRITE],
    "samples-remove": [WRITE],
    "variants": [READ],
    "variants-make": [WRITE],
    "variants-measure": [WRITE],
    "conversion": [READ],
    "conversion-cancel": [WRITE],
    "conversion-report": [READ],
    "share-create": [WRITE],
    "quarantine": [READ],
    "quarantine-release": [Row("post", REFUSED, FORBIDDEN, FORBIDDEN, MISSING)],
    "quarantine-again": [Row("post", REFUSED, REFUSED, FORBIDDEN, MISSING)],
    "download": [READ],
    "share-revoke": [WRITE],
    "public-share": [PUBLIC],
    "public-download": [PUBLIC],
}
CASES = [(name, row) for name, rows in TABLE.items() for row in rows]
PEOPLE = ["alice", "bob", "vera", "charlie", "stranger"]


@pytest.fixture
def people(alice: User, bob: User, vera: User, charlie: User) -> dict[str, Client]:
    return {
        "alice": client_of(alice),
        "bob": client_of(bob),
        "vera": client_of(vera),
        "charlie": client_of(charlie),
        "stranger": client_of(None),
    }


@pytest.fixture
def address(version: ModelVersion, artifact: Artifact, alice: User, vera: User, team: Team) -> Callable[[str], str]:
    """Each URL's address in a team that has one thing of everything."""
    conversion = request_conversion(version, alice)
    Conversion.objects.filter(pk=conversion.pk).update(report_data=a_report().to_json())
    link, token = sharing.create_share_link(Actor.of(alice), artifact, LONG)
    kept = version.artifacts.create(
        format="h5", name="soup-v1.h5", sha256="0" * 64, size=7, origin=Artifact.Origin.CONVERTED
    )
    put_in_quarantine(SYSTEM, kept, Cause.DIFFERS, "the outputs differ")
    attempt = version.attempts.create(doing="inspecting it")
    member = Membership.objects.get(user=vera)
    known = {
        "team": team.slug,
        "model": version.model.slug,
        "number": version.number,
        "name": artifact.name,
        "token": token,
    }
    keys = {"member": member.pk, "quarantine": kept.pk, "conversion": conversion.pk, "share-revoke": link.pk}
    keys |= {"attempt": attempt.pk}

    def find(name: str) -> str:
        key = keys.get(name) or keys.get(name.split("-")[0], artifact.pk)
        names = next(iter(get_resolver().reverse_dict.getlist(name)))[0][0][1]
        return reverse(name, kwargs={each: (known | {"pk": key})[each] for each in names})

    return find


def test_it_works(as_alice: Client, address: Callable[[str], str]) -> None:
    assert as_alice.get(address("team")).status_code == 200


def test_every_url_is_in_the_table() -> None:
    (part,) = get_resolver().url_patterns
    assert isinstance(part, URLResolver)
    patterns = [pattern for pattern in part.url_patterns if isinstance(pattern, URLPattern)]
    assert len(patterns) == len(part.url_patterns)
    assert [pattern.name for pattern in patterns if pattern.name not in TABLE] == []


@pytest.mark.parametrize("person", PEOPLE)
@pytest.mark.parametrize(("name", "row"), CASES, ids=[f"{name}-{row.method}" for name, row in CASES])
def test_everybody_gets_what_they_may(
    people: dict[str, Client], address: Callable[[str], str], person: str, name: str, row: Row
) -> None:
    response = getattr(people[person], row.method)(address(name))
    assert _outcome(response) == getattr(row, person)


@pytest.mark.parametrize("name", [name for name, rows in TABLE.items() if {row.method for row in rows} == {"post"}])
def test_writes_are_post_only(as_alice: Client, address: Callable[[str], str], name: str) -> None:
    assert as_alice.get(address(name)).status_code == 405


@pytest.mark.parametrize("name", [name for name, rows in TABLE.items() if "post" in {row.method for row in rows}])
def test_writes_need_the_csrf_token(alice: User, address: Callable[[str], str], name: str) -> None:
    strict = Client(enforce_csrf_checks=True)
    strict.force_login(alice)
    response = strict.post(address(name), b"x", content_type="application/octet-stream")
    assert response.status_code == 403
    assert "cookies" in response.content.decode()


def _outcome(response: HttpResponseBase) -> object:
    if response.streaming:
        b"".join(response)  # or its file stays open
    if response.status_code == 302 and response["Location"].startswith("/login/?next="):
        return SIGN_IN
    if response.status_code in (FORBIDDEN, MISSING):
        return response.status_code
    return OK if response.status_code < 400 else REFUSED
