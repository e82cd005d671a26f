"""A version's page names the team's other versions that hold the same weights, and nobody else's."""

from __future__ import annotations

from collections.abc import Callable

from django.contrib.auth.models import User
from django.test import Client

from models_app.actions import catalog, teams
from models_app.models import Actor, ModelVersion, Team, Upload
from models_app.views.catalog import TWINS
from tests.models_app.conftest import keras_file

WEIGHTS = "5a" * 32


def add(team: Team, person: User, upload: Upload, name: str, weights: str = WEIGHTS) -> ModelVersion:
    version = catalog.add_version(Actor.of(person), team, [upload], name)
    ModelVersion.objects.filter(pk=version.pk).update(state=ModelVersion.State.INSPECTED, weights_sha256=weights)
    version.refresh_from_db()
    return version


def twins(client: Client, version: ModelVersion) -> list[str]:
    return [str(found) for found in client.get(version.get_absolute_url()).context["twins"]]


def test_it_works(
    as_vera: Client, version: ModelVersion, team: Team, alice: User, upload: Callable[..., Upload]
) -> None:
    ModelVersion.objects.update(weights_sha256=WEIGHTS)
    version.refresh_from_db()
    stew = add(team, alice, upload("stew.keras", keras_file("stew")), "Stew")
    assert twins(as_vera, version) == ["Stew v1"]
    assert twins(as_vera, stew) == ["Soup v1"]
    text = as_vera.get(version.get_absolute_url()).content.decode()
    assert "Same weights as" in text
    assert stew.get_absolute_url() in text


def test_unknown_weights_are_like_none(
    as_vera: Client, version: ModelVersion, team: Team, alice: User, upload: Callable[..., Upload]
) -> None:
    add(team, alice, upload("stew.keras", keras_file("stew")), "Stew", weights="")
    assert twins(as_vera, version) == []
    assert "Same weights as" not in as_vera.get(version.get_absolute_url()).content.decode()


def test_other_teams_stay_unknown(
    as_alice: Client, version: ModelVersion, alice: User, charlie: User, upload: Callable[..., Upload], team: Team
) -> None:
    ModelVersion.objects.update(weights_sha256=WEIGHTS)
    version.refresh_from_db()
    strangers, own = (teams.create_team(Actor.of(person), name) for person, name in ((charlie, "Bar"), (alice, "Cafe")))
    for others, person in ((strangers, charlie), (own, alice)):
        given = upload("tea.keras", keras_file("tea"))
        Upload.objects.filter(pk=given.pk).update(team=others)
        given.refresh_from_db()
        add(others, person, given, "Tea")
    assert twins(as_alice, version) == []


def test_many_are_not_all_named(
    as_vera: Client, version: ModelVersion, team: Team, alice: User, upload: Callable[..., Upload]
) -> None:
    ModelVersion.objects.update(weights_sha256=WEIGHTS)
    for number in range(TWINS + 1):
        add(team, alice, upload("stew.keras", keras_file(f"stew {number}")), "Stew")
    text = as_vera.get(version.get_absolute_url()).content.decode()
    shown = text.partition('id="twins"')[2].partition("</div>")[0]
    assert shown.count("<a ") == TWINS
    assert "and more" in text
