"""The command that makes a team for an account."""

from __future__ import annotations

import io

import pytest
from django.contrib.auth.models import User
from django.core.management import call_command
from django.core.management.base import CommandError

from models_app.models import Role, Team


def test_it_works(charlie: User) -> None:
    said = io.StringIO()
    call_command("create_team", "Night Shift", owner=charlie.username, stdout=said)
    team = Team.objects.get(slug="night-shift")
    assert team.role_of(charlie) == Role.OWNER
    assert team.history.get().tag == "team:created"
    assert said.getvalue() == "charlie owns Night Shift: /t/night-shift/\n"


@pytest.mark.parametrize(
    ("name", "owner", "words"),
    [("Night", "nobody", "no account nobody"), ("Kitchen", "charlie", "already"), ("!!", "charlie", "no letter")],
)
def test_nonsense_is_a_sentence(team: Team, charlie: User, name: str, owner: str, words: str) -> None:
    with pytest.raises(CommandError, match=words):
        call_command("create_team", name, owner=owner)
