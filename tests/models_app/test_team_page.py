"""The models of a team, and the way there."""

from __future__ import annotations

import pytest
from django.contrib.auth.models import User
from django.test import Client

from models_app.actions import teams
from models_app.models import Actor, Artifact, ModelVersion, RegisteredModel, Team
from models_app.views.catalog import PAGE_SIZE
from tests.models_app.conftest import request_conversion


@pytest.fixture
def many(team: Team) -> None:
    numbers = range(PAGE_SIZE + 2)
    RegisteredModel.objects.bulk_create(RegisteredModel(team=team, slug=f"m{n}", name=f"Model {n:03}") for n in numbers)


def names(client: Client, **query: str) -> list[str]:
    return [row.model.name for row in client.get("/t/kitchen/", query).context["rows"]]


def test_it_works(as_vera: Client, version: ModelVersion) -> None:
    answer = as_vera.get("/t/kitchen/")
    (row,) = answer.context["rows"]
    assert (row.model.name, row.version, row.size, row.running) == ("Soup", version, version.source.size, 0)
    assert [found.slug for found in row.formats] == ["keras"]
    assert answer.context["poll_seconds"] == 0
    assert "Soup" in answer.content.decode()


def test_home_of_somebody_with_one_team_is_that_team(as_vera: Client, team: Team) -> None:
    assert as_vera.get("/")["Location"] == "/t/kitchen/"


def test_home_lists_several_teams_or_none(as_vera: Client, as_charlie: Client, vera: User, team: Team) -> None:
    teams.create_team(Actor.of(vera), "Garden")
    assert [found.slug for found in as_vera.get("/").context["my_teams"]] == ["garden", "kitchen"]
    assert as_charlie.get("/").status_code == 200


def test_running_work_is_shown_and_followed(as_vera: Client, version: ModelVersion, alice: User) -> None:
    request_conversion(version, alice)
    answer = as_vera.get("/t/kitchen/", headers={"HX-Request": "true"})
    assert answer.context["rows"][0].running == 1
    assert answer.context["poll_seconds"] == 5
    assert "<html" not in answer.content.decode()


def test_search_filter_and_sort_are_in_the_url(as_vera: Client, version: ModelVersion, many: None) -> None:
    assert names(as_vera, q="soup") == ["Soup"]
    assert names(as_vera, format="keras") == ["Soup"]
    assert names(as_vera, format="h5") == []
    assert names(as_vera, sort="name")[0] == "Model 000"
    answer = as_vera.get("/t/kitchen/", {"q": "model", "sort": "name"})
    assert answer.context["query"] == "q=model&sort=name&"


def test_pages(as_vera: Client, many: None) -> None:
    assert len(names(as_vera)) == PAGE_SIZE
    assert len(names(as_vera, page="2")) == 2
    assert len(names(as_vera, page="nonsense")) == PAGE_SIZE


def test_latest_version_counts(as_vera: Client, version: ModelVersion, alice: User) -> None:
    newer = version.model.versions.create(number=2, uploaded_by=alice, upload_name="newer.h5")
    newer.artifacts.create(format="h5", name="newer.h5", sha256="0" * 64, size=7, origin=Artifact.Origin.UPLOADED)
    (row,) = as_vera.get("/t/kitchen/").context["rows"]
    assert (row.version, row.size, [found.slug for found in row.formats]) == (newer, 7, ["h5"])


def test_number_of_queries_does_not_grow(
    as_vera: Client, many: None, version: ModelVersion, django_assert_max_num_queries: object
) -> None:
    with django_assert_max_num_queries(14):  # type: ignore[operator]
        as_vera.get("/t/kitchen/")


def test_model_page_lists_its_versions(as_vera: Client, version: ModelVersion, alice: User) -> None:
    version.model.versions.create(number=2, uploaded_by=alice, upload_name="newer.h5")
    answer = as_vera.get("/t/kitchen/m/soup/")
    assert [row.version.number for row in answer.context["rows"]] == [2, 1]
    assert "newer.h5" in answer.content.decode()
