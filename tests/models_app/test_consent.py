"""Code that a model brings runs where the team allows it and a member has agreed, for one version, until it is over."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client

from models_app import storage
from models_app.actions import catalog, consents, teams
from models_app.models import SYSTEM, Actor, Consent, Conversion, ModelVersion, Role, Team, Upload
from models_app.models.consents import consent_of
from models_app.models.quarantine import Cause, put_in_quarantine
from tests.models_app.conftest import SUMMARY, Told, client_of, event_tags, keras_file, request_conversion, sha256
from tests.models_app.engine import FakeEngine, engine
from tests.worker.files import zipped
from worker import tasks
from worker.custom_code import Consent as OfJobs
from worker.errors import ConsentNeeded, CustomCode, LarderError, QuarantinedForGood, StateError, UnsafeContent

__all__ = ["engine"]
CODE = b"import keras\n\n\nclass Sauce(keras.layers.Layer):\n    '''</code><script>alert(1)</script>'''\n"
SETTINGS, POLICY = "/t/kitchen/settings/", "/t/kitchen/settings/policy/"


@pytest.fixture
def lacking(upload: Callable[..., Upload], team: Team, bob: User, told: Told) -> ModelVersion:
    """A version with code beside it, which does not load without."""
    files = [upload("soup.keras", keras_file("lacking")), upload("custom_objects.py", CODE)]
    version = catalog.add_version(Actor.of(bob), team, files)
    error = CustomCode(names="Sauce").to_json()
    said = {**SUMMARY.to_json(), "custom_objects": ["Sauce"], "lambdas": ["stir"]}
    ModelVersion.objects.filter(pk=version.pk).update(
        state=ModelVersion.State.UNREADABLE, error=error, summary_data=said, attempt=1
    )
    version.refresh_from_db()
    return version


@pytest.fixture
def allowed(team: Team, alice: User) -> Team:
    consents.set_custom_code_policy(Actor.of(alice), team, True)
    return team


@pytest.fixture
def agreed(lacking: ModelVersion, allowed: Team, bob: User, engine: FakeEngine) -> ModelVersion:
    """The same, once bob has agreed and it was inspected again."""
    consents.give_consent(Actor.of(bob), lacking)
    tasks.inspect_version(str(lacking.pk))
    lacking.refresh_from_db()
    return lacking


def agree(client: Client, version: ModelVersion, **ticked: str) -> str:
    return str(client.post(f"{version.get_absolute_url()}code/agree/", ticked, follow=True).content.decode())


def test_it_works(
    as_alice: Client,
    as_bob: Client,
    lacking: ModelVersion,
    team: Team,
    engine: FakeEngine,
    told: Told,
    django_capture_on_commit_callbacks: Any,
) -> None:
    """The owner allows it, an editor agrees, and then every job of the version has the code and nothing else has."""
    as_alice.post(POLICY, {"custom_code": "yes"})
    with django_capture_on_commit_callbacks(execute=True):
        agree(as_bob, lacking, agreed="yes")
    assert told.messages[-1] == ("worker.inspect_version", str(lacking.pk))
    tasks.inspect_version(str(lacking.pk))
    assert engine.consent == OfJobs("bob", storage.path_of(sha256(CODE)))
    lacking.refresh_from_db()
    assert (lacking.state, lacking.error) == (ModelVersion.State.INSPECTED, None)
    engine.consent = None
    tasks.convert(str(request_conversion(lacking, User.objects.get(username="bob")).pk))
    assert engine.consent == OfJobs("bob", storage.path_of(sha256(CODE)))
    assert "taken back" not in event_tags(team)
    given = team.history.get(tag="consent:given")
    wanted = {"names": ["Sauce", "stir"], "file_sha256": lacking.source.sha256, "code_sha256": sha256(CODE)}
    assert (given.actor_name, given.subject_url, given.data) == ("bob", lacking.get_absolute_url(), wanted)
    policy = team.history.get(tag="team:policy-changed")
    assert (policy.actor_name, policy.data) == ("alice", {"policy": "custom code", "before": False, "after": True})


def test_nothing_is_allowed_before_somebody_says_so(as_bob: Client, lacking: ModelVersion, engine: FakeEngine) -> None:
    """The sentence names who can change what, and no job gets the code."""
    assert not Team.objects.get().custom_code_allowed
    for page in (agree(as_bob, lacking, agreed="yes"), as_bob.get(lacking.get_absolute_url()).content.decode()):
        assert "The policy of the team Kitchen does not allow that. Its owner (alice) can change the policy" in page
    assert not Consent.objects.exists()
    ModelVersion.objects.update(state=ModelVersion.State.WAITING, attempt=0)
    tasks.inspect_version(str(lacking.pk))
    assert engine.consent is None


def test_a_conversion_that_lacks_consent_says_what_to_do(as_bob: Client, lacking: ModelVersion, alice: User) -> None:
    url = f"{lacking.get_absolute_url()}convert/"
    answer = as_bob.post(url, {"target": "h5"})
    assert (answer.status_code, answer.context["code"]) == (403, "consent-needed")
    assert "Sauce, stir" in answer.context["sentence"]
    assert "Its owner (alice)" in answer.context["sentence"]
    consents.set_custom_code_policy(Actor.of(alice), lacking.team, True)
    assert "can agree to that on the page of this version" in as_bob.post(url, {"target": "h5"}).context["sentence"]
    assert lacking.team.history.filter(tag="conversion:refused", data__code="consent-needed").count() == 2


def test_nobody_agrees_to_what_was_caught(lacking: ModelVersion, allowed: Team, bob: User, as_bob: Client) -> None:
    """Its code has run before, and tried what no model needs."""
    put_in_quarantine(SYSTEM, lacking.source, Cause.FORBIDDEN, "it tried to start a program")
    with pytest.raises(QuarantinedForGood):
        consents.give_consent(Actor.of(bob), lacking)
    agree(as_bob, lacking, agreed="yes")
    assert not Consent.objects.exists()


def test_without_the_tick_nothing_is_agreed_to(as_bob: Client, lacking: ModelVersion, allowed: Team) -> None:
    assert "tick the sentence first" in agree(as_bob, lacking)
    assert not Consent.objects.exists()


def test_consent_is_for_code_that_is_lacking(as_bob: Client, version: ModelVersion, allowed: Team) -> None:
    assert "no code of this version waits for consent" in agree(as_bob, version, agreed="yes")


def test_consent_is_given_once(lacking: ModelVersion, allowed: Team, alice: User, bob: User) -> None:
    consents.give_consent(Actor.of(bob), lacking)
    with pytest.raises(StateError):
        consents.give_consent(Actor.of(alice), lacking)
    assert Consent.objects.count() == 1


def test_who_only_looks_is_not_asked(as_vera: Client, lacking: ModelVersion, allowed: Team) -> None:
    page = as_vera.get(lacking.get_absolute_url()).content.decode()
    assert "code/agree/" not in page
    assert "A member of the team who may edit can agree" in page
    assert as_vera.post(f"{lacking.get_absolute_url()}code/agree/", {"agreed": "yes"}).status_code == 403
    assert as_vera.post(POLICY, {"custom_code": "yes"}).status_code == 403
    assert 'name="custom_code"' not in as_vera.get(SETTINGS).content.decode()


def test_editors_do_not_change_the_policy(as_bob: Client, team: Team) -> None:
    assert as_bob.post(POLICY, {"custom_code": "yes"}).status_code == 403
    assert not Team.objects.get(pk=team.pk).custom_code_allowed
    assert "An owner of the team can change that" in as_bob.get(SETTINGS).content.decode()


def test_another_team_allows_for_itself_alone(lacking: ModelVersion, charlie: User) -> None:
    other = teams.create_team(Actor.of(charlie), "Elsewhere")
    consents.set_custom_code_policy(Actor.of(charlie), other, True)
    as_charlie = client_of(charlie)
    assert as_charlie.post(f"{lacking.get_absolute_url()}code/agree/", {"agreed": "yes"}).status_code == 404
    assert as_charlie.post(POLICY, {"custom_code": "yes"}).status_code == 404
    with pytest.raises(ConsentNeeded):
        consents.give_consent(Actor.of(charlie), lacking)


def revoke(agreed: ModelVersion, client: Client) -> None:
    client.post(f"{agreed.get_absolute_url()}code/revoke/")


def forbid(agreed: ModelVersion, client: Client) -> None:
    client.post(POLICY, {"custom_code": "no"})


@pytest.mark.parametrize("end", [revoke, forbid])
def test_no_job_begins_once_it_is_over(
    agreed: ModelVersion,
    alice: User,
    as_alice: Client,
    engine: FakeEngine,
    end: Callable[[ModelVersion, Client], None],
) -> None:
    queued, running = request_conversion(agreed, alice), request_conversion(agreed, alice, "saved_model")
    assert Conversion.objects.claim(running.pk)
    engine.consent = None
    end(agreed, as_alice)
    for conversion in (queued, running):
        conversion.refresh_from_db()
    assert (queued.state, running.cancel_requested) == (Conversion.State.CANCELED, True)
    engine.unloadable = CustomCode(names="Sauce")
    tasks.convert(str(queued.pk))
    tasks.inspect_version(str(agreed.pk))
    assert engine.consent is None
    with pytest.raises(ConsentNeeded):
        request_conversion(ModelVersion.objects.get(pk=agreed.pk), alice)
    ended = agreed.team.history.get(tag="consent:revoked")
    assert (ended.actor_name, ended.data["names"], ended.data["given_by"]) == ("alice", ["Sauce", "stir"], "bob")


def test_allowing_again_brings_no_consent_back(agreed: ModelVersion, as_alice: Client) -> None:
    forbid(agreed, as_alice)
    as_alice.post(POLICY, {"custom_code": "yes"})
    assert consent_of(agreed) is None


def test_a_worker_that_inspects_loses_its_word(agreed: ModelVersion, bob: User) -> None:
    """Whoever inspects by a consent that is over publishes nothing."""
    consents.revoke_consent(Actor.of(bob), agreed)
    token = ModelVersion.objects.claim(agreed.pk)
    ModelVersion.objects.filter(pk=agreed.pk).update(state=ModelVersion.State.WAITING)
    Consent.objects.create(version=agreed, given_by=bob, file_sha256="x")
    consents.revoke_consent(Actor.of(bob), agreed)
    assert token is not None
    assert not ModelVersion.objects.held(agreed.pk, token).exists()


def test_a_policy_row_that_was_missed_is_no_way_in(agreed: ModelVersion, bob: User, engine: FakeEngine) -> None:
    """What counts is the policy at the moment of the job, whatever became of the consent."""
    conversion = request_conversion(agreed, bob)
    Team.objects.update(custom_code_allowed=False)
    engine.consent = None
    tasks.convert(str(conversion.pk))
    assert engine.consent is None


def test_consent_is_for_one_version(
    agreed: ModelVersion, upload: Callable[..., Upload], bob: User, engine: FakeEngine
) -> None:
    """The same bytes, sent again, are another version."""
    files = [upload("soup.keras", keras_file("lacking")), upload("custom_objects.py", CODE)]
    again = catalog.add_version(Actor.of(bob), agreed.team, files, model=agreed.model)
    tasks.inspect_version(str(again.pk))
    assert engine.consent is None


def test_code_does_not_run_behind_half_a_wall(agreed: ModelVersion, bob: User, engine: FakeEngine) -> None:
    """Also where the operator lets jobs run without a part of the floor."""
    engine.absent, engine.consent = "landlock (the kernel has none)", None
    conversion = request_conversion(agreed, bob)
    tasks.convert(str(conversion.pk))
    conversion.refresh_from_db()
    assert engine.consent is None
    assert "in a whole sandbox alone" in (conversion.error or {})["message"]


@pytest.mark.parametrize("packed", [False, True])
def test_code_comes_with_the_upload(
    upload: Callable[..., Upload], team: Team, bob: User, told: Told, as_vera: Client, packed: bool
) -> None:
    """As a further file, or in the archive; it is shown as text, and named in the history."""
    both = {"soup.keras": keras_file(), "custom_objects.py": CODE}
    sent = {"soup.zip": zipped(both)} if packed else both
    version = catalog.add_version(Actor.of(bob), team, [upload(name, content) for name, content in sent.items()])
    assert (version.code_sha256, version.code_size) == (sha256(CODE), len(CODE))
    assert (version.model.name, version.source.format) == ("soup", "keras")
    assert storage.path_of(version.code_sha256).read_bytes() == CODE
    assert team.history.get(tag="version:uploaded").data["code_sha256"] == sha256(CODE)
    assert version.findings_data == []
    page = as_vera.get(version.get_absolute_url()).content.decode()
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert "<script>alert" not in page


def test_what_cannot_be_seen_in_code_is_shown(
    upload: Callable[..., Upload], team: Team, bob: User, told: Told, as_vera: Client
) -> None:
    hidden = "x = 1  # \u202e\u2066 \x00 \u200b é\t\xff".encode("utf-8", "surrogatepass") + b"\xff\r\n"
    files = [upload("soup.keras", keras_file()), upload("custom_objects.py", hidden)]
    version = catalog.add_version(Actor.of(bob), team, files)
    page = as_vera.get(version.get_absolute_url()).content.decode()
    for shown in "⟨U+202E⟩⟨U+2066⟩ ⟨U+0000⟩ ⟨U+200B⟩ é\t":
        assert shown in page
    assert not {"\u202e", "\u2066", "\u200b", "\0"} & set(page)


def test_too_much_code_is_refused(upload: Callable[..., Upload], team: Team, bob: User, told: Told) -> None:
    files = [upload("soup.keras", keras_file()), upload("custom_objects.py", b"#" * (catalog.MOST_CODE + 1))]
    with pytest.raises(UnsafeContent, match="people are to read it"):
        catalog.add_version(Actor.of(bob), team, files)


def test_code_alone_is_no_model(upload: Callable[..., Upload], team: Team, bob: User, told: Told) -> None:
    with pytest.raises(LarderError):
        catalog.add_version(Actor.of(bob), team, [upload("custom_objects.py", CODE)])


def test_the_page_of_a_version_that_was_agreed_to(agreed: ModelVersion, as_vera: Client, as_bob: Client) -> None:
    assert "Take it back" not in as_vera.get(agreed.get_absolute_url()).content.decode()
    page = as_bob.get(agreed.get_absolute_url()).content.decode()
    assert "Take it back" in page
    assert "agreed" in page
    assert agreed.get_absolute_url() in as_vera.get(SETTINGS).content.decode()


def test_names_of_any_length_stay_in_the_sentence(lacking: ModelVersion, as_bob: Client) -> None:
    said = {**SUMMARY.to_json(), "custom_objects": ["<b>" + 10_000 * "x" + "\nend"]}
    ModelVersion.objects.update(summary_data=said)
    page = as_bob.get(lacking.get_absolute_url()).content.decode()
    section = page[page.index('id="code"') :].partition("</section>")[0]
    assert "&lt;b&gt;xxx" in section
    assert 1000 * "x" not in section


def test_the_same_policy_again_is_no_change(as_alice: Client, team: Team) -> None:
    as_alice.post(POLICY, {"custom_code": "no"})
    as_alice.post(POLICY, {"custom_code": "perhaps"})
    assert event_tags(team) == []


def test_two_owners_are_named(lacking: ModelVersion, charlie: User) -> None:
    lacking.team.memberships.create(user=charlie, role=Role.OWNER)
    with pytest.raises(ConsentNeeded, match=r"\(alice or charlie\)"):
        consents.give_consent(Actor.of(charlie), lacking)


def test_measuring_goes_by_it_too(agreed: ModelVersion, bob: User, monkeypatch: pytest.MonkeyPatch) -> None:
    from worker import measuring

    heard: list[Any] = []

    def measure(*_: Any, **wishes: Any) -> None:
        heard.append(wishes["consent"])
        raise LarderError(reference="x")

    monkeypatch.setattr(measuring, "measure", measure)
    measurement = agreed.measurements.create(asked_by=bob)
    tasks.measure(str(measurement.pk))
    assert heard == [OfJobs("bob", storage.path_of(sha256(CODE)))]
    assert json.dumps(heard[0].to_json())
