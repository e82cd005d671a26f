"""Who belongs to a team, and as what."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client

from models_app.actions import teams
from models_app.models import Actor, Membership, Role, Team, can
from worker.errors import StateError

URL = "/t/kitchen/members/"


def of(user: User) -> Membership:
    return Membership.objects.get(user=user)


def add(client: Client, who: str, role: str = "viewer") -> Any:
    return client.post(f"{URL}add/", {"who": who, "role": role})


def test_it_works(as_alice: Client, team: Team, charlie: User) -> None:
    assert add(as_alice, "charlie", "editor")["Location"] == URL
    assert of(charlie).role == Role.EDITOR
    event = team.history.latest("pk")
    assert (event.tag, event.subject, event.data) == ("member:added", "charlie", {"role": "editor"})
    assert "charlie" in as_alice.get(URL).content.decode()


def test_by_mail_address(as_alice: Client, team: Team, charlie: User) -> None:
    add(as_alice, "Charlie@Example.org")
    assert of(charlie).role == Role.VIEWER


@pytest.mark.parametrize(
    ("who", "status", "words"), [("nobody", 400, "no account called nobody"), ("bob", 409, "member of Kitchen already")]
)
def test_refusal_is_said_at_the_field(as_alice: Client, team: Team, who: str, status: int, words: str) -> None:
    answer = add(as_alice, who)
    assert answer.status_code == status
    assert words in answer.content.decode()
    assert f'value="{who}"' in answer.content.decode()


def test_address_of_two_accounts_names_nobody(as_alice: Client, team: Team, charlie: User) -> None:
    User.objects.create_user("charles", charlie.email)
    assert add(as_alice, charlie.email).status_code == 400


def test_unknown_role(as_alice: Client, team: Team, charlie: User, bob: User) -> None:
    assert add(as_alice, "charlie", "emperor").status_code == 400
    as_alice.post(f"{URL}{of(bob).pk}/role/", {"role": "emperor"})
    assert of(bob).role == Role.EDITOR


def test_change_role(as_alice: Client, team: Team, bob: User) -> None:
    as_alice.post(f"{URL}{of(bob).pk}/role/", {"role": "owner"})
    assert of(bob).role == Role.OWNER
    assert team.history.latest("pk").data == {"before": "editor", "after": "owner"}


def test_remove(as_alice: Client, team: Team, bob: User) -> None:
    as_alice.post(f"{URL}{of(bob).pk}/remove/")
    assert team.role_of(bob) is None
    assert team.history.latest("pk").tag == "member:removed"


@pytest.mark.parametrize("act", [teams.remove_member, lambda actor, stale: teams.change_role(actor, stale, "viewer")])
def test_what_somebody_else_has_done_meanwhile_is_not_done_again(
    team: Team, alice: User, bob: User, act: Callable[[Actor, Membership], None]
) -> None:
    stale = of(bob)
    teams.remove_member(Actor.of(alice), of(bob))
    with pytest.raises(StateError, match="somebody else"):
        act(Actor.of(alice), stale)
    assert team.history.latest("pk").tag == "member:removed"
    assert team.history.filter(subject="bob").count() == 1


def test_a_team_never_loses_its_last_owner(as_alice: Client, team: Team, alice: User) -> None:
    for answer in (
        as_alice.post(f"{URL}{of(alice).pk}/role/", {"role": "editor"}),
        as_alice.post(f"{URL}{of(alice).pk}/remove/"),
    ):
        assert answer.status_code == 409
        assert "last owner" in answer.content.decode()
    assert of(alice).role == Role.OWNER


def test_an_owner_may_leave_another_one_behind(as_alice: Client, team: Team, alice: User, bob: User) -> None:
    team.memberships.filter(user=bob).update(role=Role.OWNER)
    assert as_alice.post(f"{URL}{of(alice).pk}/remove/")["Location"] == "/"
    assert team.role_of(alice) is None


def test_members_of_other_teams_are_not_reached(as_alice: Client, team: Team, charlie: User) -> None:
    other = Team.objects.create(slug="other", name="Other").memberships.create(user=charlie, role=Role.OWNER)
    assert as_alice.post(f"{URL}{other.pk}/remove/").status_code == 404


@pytest.mark.parametrize(
    ("role", "acts"),
    [
        ("viewer", {"view", "download"}),
        ("editor", {"view", "download", "upload", "convert", "share"}),
        ("owner", {"view", "download", "upload", "convert", "share", "manage-members"}),
    ],
)
def test_roles(team: Team, bob: User, role: str, acts: set[str]) -> None:
    team.memberships.filter(user=bob).update(role=role)
    every = {"view", "download", "upload", "convert", "share", "manage-members"}
    assert {act for act in every if can(bob, act, team)} == acts


def test_unknown_act_is_a_mistake(team: Team, alice: User) -> None:
    with pytest.raises(KeyError):
        can(alice, "fly", team)
