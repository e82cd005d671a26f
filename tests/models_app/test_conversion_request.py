"""Asking for a conversion."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.utils import timezone

from models_app.actions import conversions
from models_app.models import Actor, Conversion, ModelVersion
from tests.models_app.conftest import Told, event_tags, request_conversion
from worker import routes
from worker.errors import NoRoute, WeightsMismatch
from worker.formats._format import Summary

State = Conversion.State


@pytest.fixture
def url(version: ModelVersion) -> str:
    return f"{version.get_absolute_url()}convert/"


def test_it_works(as_bob: Client, url: str, version: ModelVersion, bob: User) -> None:
    answer = as_bob.post(url, {"target": "h5"})
    conversion = Conversion.objects.get()
    assert answer["Location"] == conversion.get_absolute_url()
    assert (conversion.target, conversion.state, conversion.requested_by) == ("h5", State.QUEUED, bob)
    event = version.team.history.latest("pk")
    assert (event.tag, event.actor, event.data["target"]) == ("conversion:requested", bob, "h5")


def test_worker_is_told_after_the_commit(
    as_bob: Client, url: str, told: Told, django_capture_on_commit_callbacks: Any
) -> None:
    with django_capture_on_commit_callbacks(execute=True):
        as_bob.post(url, {"target": "h5"})
    assert ("worker.convert", str(Conversion.objects.get().pk)) in told.messages


def test_asking_twice_gives_the_same_one(version: ModelVersion, alice: User, bob: User) -> None:
    first = request_conversion(version, alice)
    assert request_conversion(version, bob) == first
    assert event_tags(version.team).count("conversion:requested") == 1


def test_other_options_are_another_one(as_bob: Client, url: str, version: ModelVersion) -> None:
    for precision in ("float32", "float16", "float32"):
        as_bob.post(url, {"target": "tflite", "tflite.precision": precision})
    made = Conversion.objects.order_by("requested_at")
    assert [conversion.options["precision"] for conversion in made] == ["float32", "float16"]
    assert [conversion.title for conversion in made] == [
        "TensorFlow Lite (precision float32)",
        "TensorFlow Lite (precision float16)",
    ]
    event = version.team.history.filter(tag="conversion:requested").latest("pk")
    assert event.subject == "Soup v1 to TensorFlow Lite (precision float16)"


def test_a_succeeded_one_is_not_made_again(version: ModelVersion, alice: User) -> None:
    first = request_conversion(version, alice)
    Conversion.objects.update(state=State.SUCCEEDED, finished_at=timezone.now())
    assert request_conversion(version, alice) == first


@pytest.mark.parametrize("state", [State.FAILED, State.CANCELED])
def test_what_failed_or_was_canceled_can_be_asked_for_again(version: ModelVersion, alice: User, state: State) -> None:
    first = request_conversion(version, alice)
    Conversion.objects.update(state=state, finished_at=timezone.now(), error={"message": "no"})
    assert request_conversion(version, alice) != first


def test_two_requests_in_the_same_moment(version: ModelVersion, alice: User, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both have found nothing; the constraint lets one of them through, the other gets what that one made."""
    first = request_conversion(version, alice)
    monkeypatch.setattr(conversions, "_asked_already", lambda *args: None)
    assert request_conversion(version, alice) == first


def test_impossible_format_is_refused_with_the_sentence_of_the_page(
    as_bob: Client, url: str, version: ModelVersion
) -> None:
    bare = Summary(traits=frozenset({"weights"}))
    version.artifacts.update(format="saved_model")
    ModelVersion.objects.update(summary_data=bare.to_json())
    with pytest.raises(NoRoute) as refused:
        routes.find_route("saved_model", "h5", bare)
    answer = as_bob.post(url, {"target": "h5"})
    offered = as_bob.get(version.get_absolute_url()).context["offers"]
    reason = next(offer.reason for offer in offered if offer.format.slug == "h5")
    assert answer.status_code == 400
    assert answer.context["sentence"] == reason == refused.value.message
    event = version.team.history.latest("pk")
    assert (event.tag, event.data["code"], event.data["message"]) == ("conversion:refused", "no-route", reason)


@pytest.mark.parametrize("target", ["no-such-format", "pickle"])
def test_nonsense_is_refused(as_bob: Client, url: str, target: str) -> None:
    assert as_bob.post(url, {"target": target}).status_code == 400
    assert not Conversion.objects.exists()


def test_the_same_format_can_be_asked_for(as_bob: Client, url: str, version: ModelVersion) -> None:
    assert as_bob.post(url, {"target": "keras"}).status_code == 302
    assert version.source.format == version.conversions.get().target == "keras"


def test_unknown_option_is_refused(as_bob: Client, url: str) -> None:
    answer = as_bob.post(url, {"target": "h5", "h5.colour": "red"})
    assert (answer.status_code, answer.context["code"]) == (400, "bad-option")


def test_waiting_version_is_not_converted_yet(as_bob: Client, url: str) -> None:
    ModelVersion.objects.update(state=ModelVersion.State.WAITING)
    answer = as_bob.post(url, {"target": "h5"})
    assert answer.status_code == 409
    assert "being inspected" in answer.content.decode()


def test_unreadable_version_answers_with_its_own_error(as_bob: Client, url: str) -> None:
    error = WeightsMismatch(problem="7 tensors for 6 places")
    ModelVersion.objects.update(state=ModelVersion.State.UNREADABLE, error=error.to_json())
    assert as_bob.post(url, {"target": "h5"}).context["sentence"] == error.message


def test_several_at_once(as_bob: Client, url: str, version: ModelVersion) -> None:
    answer = as_bob.post(url, {"target": ["h5", "saved_model", "pickle"]}, follow=True)
    assert answer.redirect_chain[-1][0] == version.get_absolute_url()
    assert set(Conversion.objects.values_list("target", flat=True)) == {"h5", "saved_model"}
    assert len(list(answer.context["messages"])) == 1  # about the pickle


def test_nothing_chosen(as_bob: Client, url: str) -> None:
    answer = as_bob.post(url, follow=True)
    assert "choose at least one format" in answer.content.decode()


def test_actor_must_be_a_person(version: ModelVersion) -> None:
    with pytest.raises(ValueError, match="not a person"):
        conversions.request_conversion(Actor(None, "larder"), version, "h5")
