"""The page for people who arrive with a pickle."""

from __future__ import annotations

import pytest
from django.test import Client
from pytest_django.fixtures import Settings

from models_app.models import Artifact, ModelVersion
from tests.models_app.conftest import client_of
from worker.formats._format import Summary

URL = "/why-not-pickle/"


@pytest.fixture
def pickled(version: ModelVersion) -> ModelVersion:
    Artifact.objects.update(format="pickle", name="soup.pkl")
    ModelVersion.objects.update(summary_data=Summary(imports=("posix.system",)).to_json())
    version.refresh_from_db()
    return version


def test_it_works(db: None) -> None:
    answer = client_of(None).get(URL)
    assert answer.status_code == 200
    assert "pickle" in answer.content.decode()
    assert answer.context["version"] is None


@pytest.mark.parametrize("weak", [False, True])
def test_every_page_says_that_the_sandbox_is_weak(as_vera: Client, settings: Settings, weak: bool) -> None:
    settings.WEAK_SANDBOX = weak
    for url in (URL, "/"):
        page = as_vera.get(url, follow=True).content.decode()
        assert ("LARDER_WEAK_SANDBOX" in page) == weak


def test_shows_what_ones_own_pickle_would_import(as_vera: Client, pickled: ModelVersion) -> None:
    answer = as_vera.get(URL, {"version": str(pickled.pk)})
    assert answer.context["imports"] == ("posix.system",)
    assert "posix.system" in answer.content.decode()
    assert answer.context["poll_seconds"] == 0


def test_is_followed_while_the_file_is_looked_at(as_vera: Client, pickled: ModelVersion) -> None:
    ModelVersion.objects.update(state=ModelVersion.State.WAITING)
    answer = as_vera.get(URL, {"version": str(pickled.pk)}, headers={"HX-Request": "true"})
    assert answer.context["poll_seconds"] == 1
    assert "<html" not in answer.content.decode()


def test_other_teams_files_are_not_shown(as_charlie: Client, pickled: ModelVersion) -> None:
    for client in (as_charlie, client_of(None)):
        assert client.get(URL, {"version": str(pickled.pk)}).status_code == 404


def test_nonsense_is_the_page_for_everybody(as_vera: Client, pickled: ModelVersion) -> None:
    assert as_vera.get(URL, {"version": "soup"}).context["version"] is None


def test_version_page_of_a_pickle(as_vera: Client, pickled: ModelVersion) -> None:
    answer = as_vera.get(pickled.get_absolute_url())
    assert answer.context["is_pickle"]
    assert {offer.state for offer in answer.context["offers"]} == {"impossible"}
    assert not answer.context["files"][0].shareable


def summarised(version: ModelVersion, *traits: str) -> None:
    summary = Summary(imports=("keras.src.saving",), traits=frozenset(traits))
    ModelVersion.objects.filter(pk=version.pk).update(summary_data=summary.to_json())


@pytest.mark.parametrize("own_page", [True, False], ids=["version", "why"])
def test_the_model_inside_can_be_rescued(as_bob: Client, pickled: ModelVersion, own_page: bool) -> None:
    summarised(pickled, "model-inside", "keras-config", "weights")
    answer = as_bob.get(pickled.get_absolute_url()) if own_page else as_bob.get(URL, {"version": str(pickled.pk)})
    assert answer.context["can_rescue"]
    assert "Rescue the model as .keras" in answer.content.decode()
    assert "never runs them" in answer.content.decode() or "without following them" in answer.content.decode()


def test_viewers_cannot_rescue(as_vera: Client, pickled: ModelVersion) -> None:
    summarised(pickled, "model-inside", "keras-config", "weights")
    assert "Rescue the model as .keras" not in as_vera.get(pickled.get_absolute_url()).content.decode()


def test_a_rescue_is_asked_for_once(as_bob: Client, pickled: ModelVersion) -> None:
    summarised(pickled, "model-inside", "keras-config", "weights")
    as_bob.post(f"{pickled.get_absolute_url()}convert/", {"target": "keras"})
    assert not as_bob.get(pickled.get_absolute_url()).context["can_rescue"]


def test_arrays_alone_need_their_architecture(as_bob: Client, pickled: ModelVersion) -> None:
    summarised(pickled, "arrays-inside")
    answer = as_bob.get(pickled.get_absolute_url())
    assert (answer.context["can_rescue"], answer.context["lonely_arrays"]) == (False, True)
    assert "architecture.json" in answer.content.decode()
