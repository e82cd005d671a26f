"""One version: its files, what it can become, what is in it."""

from __future__ import annotations

import ast
import dataclasses
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import Client
from django.utils import timezone

from models_app.actions.samples import give_samples
from models_app.actions.sharing import create_share_link
from models_app.models import Actor, Artifact, Conversion, ModelVersion, WorkerNode
from models_app.views import rows
from tests.models_app.conftest import LONG, a_report, request_conversion, sha256
from tests.models_app.engine import FakeEngine, engine
from worker import formats, tasks
from worker.errors import CustomCode, Forbidden, LarderError, ModelError, SandboxError, UnsafeContent, classes
from worker.report import Finding, Severity

__all__ = ["engine"]

State = Conversion.State


def page(client: Client, version: ModelVersion) -> Any:
    return client.get(version.get_absolute_url())


def offer(client: Client, version: ModelVersion, slug: str) -> Any:
    return next(found for found in page(client, version).context["offers"] if found.format.slug == slug)


def test_it_works(as_vera: Client, version: ModelVersion, artifact: Artifact) -> None:
    answer = page(as_vera, version)
    (file,) = answer.context["files"]
    assert (file.artifact, file.verdict, file.shareable) == (artifact, "", True)
    assert file.checksum_line == f"{artifact.sha256}  soup.keras"
    assert "soup.keras" in file.snippet
    assert file.url in answer.content.decode()
    assert {found.format.slug for found in answer.context["offers"]} == set(formats.formats())
    assert answer.context["poll_seconds"] == 0


@pytest.mark.parametrize(("slug", "language"), [("keras", "Python"), ("tfjs_graph", "JavaScript")])
def test_the_code_is_called_by_its_language(
    as_vera: Client, version: ModelVersion, artifact: Artifact, slug: str, language: str
) -> None:
    Artifact.objects.update(format=slug)
    assert f"Load it in {language}, next to the download" in page(as_vera, version).content.decode()


def test_a_name_cannot_put_code_into_the_snippet(as_vera: Client, version: ModelVersion) -> None:
    name = 'a"); import os; os.system("evil.keras'
    Artifact.objects.update(name=name)
    (file,) = page(as_vera, version).context["files"]
    texts = [node.value for node in ast.walk(ast.parse(file.snippet)) if isinstance(node, ast.Constant)]
    assert name in texts


def test_waiting_version_says_so(as_vera: Client, version: ModelVersion) -> None:
    ModelVersion.objects.update(state=ModelVersion.State.WAITING)
    context = page(as_vera, version).context
    assert (context["offers"], context["poll_seconds"]) == ([], 1)
    assert "No worker is running" in context["worker_problem"]


def test_missing_sandbox_is_said_while_something_waits(as_vera: Client, version: ModelVersion, alice: User) -> None:
    request_conversion(version, alice)
    node = WorkerNode.objects.create(name="vm:1", seen_at=timezone.now(), sandbox_problem="Jobs are refused.")
    assert page(as_vera, version).context["worker_problem"] == "Jobs are refused."
    node.sandbox_problem = ""
    node.save()
    assert page(as_vera, version).context["worker_problem"] == ""


def test_unreadable_version_shows_its_error_and_its_file(as_vera: Client, version: ModelVersion) -> None:
    error = CustomCode(names="secret_sauce")
    ModelVersion.objects.update(state=ModelVersion.State.UNREADABLE, error=error.to_json())
    answer = page(as_vera, version)
    assert "secret_sauce" in answer.content.decode()
    assert "Nothing risky was found" not in answer.content.decode()
    assert len(answer.context["files"]) == 1


@pytest.mark.parametrize(
    ("state", "shown"),
    [
        ("queued", "running"),
        ("running", "running"),
        ("succeeded", "ready"),
        ("failed", "failed"),
        ("canceled", "available"),
    ],
)
def test_offer_shows_its_latest_conversion(
    as_vera: Client, version: ModelVersion, alice: User, state: str, shown: str
) -> None:
    conversion = request_conversion(version, alice)
    final = state in Conversion.FINAL
    Conversion.objects.update(
        state=state,
        finished_at=timezone.now() if final else None,
        lease_token=conversion.pk,
        error={"message": "The oven was cold."} if state == "failed" else None,
    )
    found = offer(as_vera, version, "h5")
    assert (found.state, found.conversion) == (shown, conversion)
    assert found.reason == ("The oven was cold." if state == "failed" else "")


def test_impossible_format_has_its_reason(as_vera: Client, version: ModelVersion) -> None:
    found = offer(as_vera, version, "pickle")
    assert (found.state, found.route) == ("impossible", [])
    assert found.reason


def test_every_offer_stands_in_one_place(as_vera: Client, version: ModelVersion) -> None:
    context = page(as_vera, version).context
    shown = [row.format.slug for group in context["groups"] for row in group.rows]
    shown += [row.format.slug for row in context["impossible"]]
    assert sorted(shown) == sorted(formats.formats())
    assert "pickle" in [row.format.slug for row in context["impossible"]]


def test_a_format_that_no_group_names_stands_at_the_end(
    as_vera: Client, version: ModelVersion, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rows, "GROUPS", {"Keras": ("", ("h5",))})
    groups = page(as_vera, version).context["groups"]
    assert [group.name for group in groups] == ["Keras", "More"]
    assert "saved_model" in [row.format.slug for row in groups[1].rows]


def test_impossible_says_why_without_repeating_the_names(as_vera: Client, version: ModelVersion) -> None:
    found = offer(as_vera, version, "pickle")
    assert found.reason.startswith("Keras cannot become Pickle: a pickle is")
    assert found.why.startswith("A pickle is")


def test_options_are_fields(as_bob: Client, version: ModelVersion) -> None:
    answer = page(as_bob, version)
    found = offer(as_bob, version, "tflite")
    (precision,) = [item for item in found.options if item.option.name == "precision"]
    assert (precision.field, precision.label, precision.value) == ("tflite.precision", "Precision", "float32")
    assert ("int8", "int8") in precision.choices
    assert 'name="tflite.precision"' in answer.content.decode()
    assert precision.option.help in answer.content.decode()


def test_a_format_with_options_can_be_asked_for_again(as_bob: Client, version: ModelVersion, alice: User) -> None:
    for precision in ("float32", "float16", "float16"):
        request_conversion(version, alice, "tflite", precision=precision)
        Conversion.objects.update(state=State.SUCCEEDED, finished_at=timezone.now())
    found = offer(as_bob, version, "tflite")
    assert (found.state, found.askable) == ("ready", True)
    assert [made.options_said for made in found.made] == ["precision float32", "precision float16"]
    text = page(as_bob, version).content.decode()
    assert "Precision float16" in text
    assert 'id="to-tflite"' in text


def test_a_format_without_options_is_made_once(as_bob: Client, version: ModelVersion, alice: User) -> None:
    request_conversion(version, alice)
    Conversion.objects.update(state=State.SUCCEEDED, finished_at=timezone.now())
    found = offer(as_bob, version, "h5")
    assert (found.state, found.askable) == ("ready", False)
    assert 'id="to-h5"' not in page(as_bob, version).content.decode()


def test_the_same_format_is_offered_as_written_anew(as_bob: Client, version: ModelVersion) -> None:
    summary = dataclasses.replace(version.summary, producer={"keras": "2.8.0"})
    ModelVersion.objects.update(summary_data=summary.to_json())
    found = offer(as_bob, version, "keras")
    assert (found.state, found.title, found.detour) == ("available", "Keras, written anew", [])
    assert offer(as_bob, version, "h5").title == "HDF5 model"
    text = " ".join(page(as_bob, version).content.decode().split())
    assert "The same format, as Keras 3 writes it today. Keras 2.8.0 wrote this file." in text
    assert text.count("as Keras 3 writes it today") == 1


def test_what_is_not_written_anew_says_why(as_vera: Client, version: ModelVersion) -> None:
    version.artifacts.update(format="saved_model")
    found = offer(as_vera, version, "saved_model")
    assert (found.state, found.renews) == ("impossible", False)
    assert found.why == "It is in that format already, and only formats that keep the layers of Keras are written anew."


def test_what_inspection_said_against_a_format_is_the_reason(as_vera: Client, version: ModelVersion) -> None:
    summary = dataclasses.replace(version.summary, refusals={"tfjs_layers": "It has no <b>Mixing</b>."})
    ModelVersion.objects.update(summary_data=summary.to_json())
    assert offer(as_vera, version, "tfjs_layers").why == "It has no <b>Mixing</b>."
    assert "It has no &lt;b&gt;Mixing&lt;/b&gt;." in page(as_vera, version).content.decode()


def test_what_cannot_be_run_here_is_said_before_asking(as_vera: Client, version: ModelVersion) -> None:
    assert (offer(as_vera, version, "h5").runs_here, offer(as_vera, version, "coreml").runs_here) == (True, False)


def test_what_is_alarming_stands_at_the_top(as_vera: Client, version: ModelVersion) -> None:
    found = [Finding("a", Severity.NOTE, "A note."), Finding("b", Severity.DANGER, "It bites.")]
    ModelVersion.objects.update(findings_data=[item.to_json() for item in found])
    context = page(as_vera, version).context
    assert [item.sentence for item in context["alarming"]] == ["It bites."]
    assert [item.sentence for item in context["findings"]] == ["It bites.", "A note."]


def test_result_is_offered_with_its_verdict(as_vera: Client, version: ModelVersion, alice: User) -> None:
    conversion = request_conversion(version, alice)
    made = version.artifacts.create(
        format="h5", name="soup-v1.h5", sha256="0" * 64, size=7, origin=Artifact.Origin.CONVERTED
    )
    Conversion.objects.filter(pk=conversion.pk).update(
        state=State.SUCCEEDED, finished_at=timezone.now(), artifact=made, report_data=a_report().to_json()
    )
    files = page(as_vera, version).context["files"]
    assert [(file.artifact.name, file.verdict) for file in files] == [("soup.keras", ""), ("soup-v1.h5", "verified")]


def test_format_that_was_removed_from_larder_is_still_shown(as_vera: Client, version: ModelVersion) -> None:
    version.artifacts.create(
        format="forgotten", name="soup.old", sha256="0" * 64, size=7, origin=Artifact.Origin.CONVERTED
    )
    answer = page(as_vera, version)
    assert answer.status_code == 200
    assert "soup.old" in answer.content.decode()


def test_fragment_for_htmx(as_vera: Client, version: ModelVersion) -> None:
    answer = as_vera.get(version.get_absolute_url(), headers={"HX-Request": "true"})
    assert "<html" not in answer.content.decode()


def test_history_of_the_version(as_vera: Client, version: ModelVersion, alice: User) -> None:
    request_conversion(version, alice)
    tags = [event.tag for event in page(as_vera, version).context["events"]]
    assert tags == ["conversion:requested", "version:uploaded"]


# Files of one name ------------------------------------------------------------------------------------------------


def test_results_of_one_name_say_what_they_were_made_on(
    as_vera: Client, version: ModelVersion, alice: User, engine: FakeEngine
) -> None:
    def make(content: bytes) -> None:
        engine.result = content
        tasks.convert(str(request_conversion(version, alice).pk))

    make(b"made up")
    assert [file.made_on for file in page(as_vera, version).context["files"]] == ["", ""]
    for content in (b"one", b"two"):
        give_samples(Actor.of(alice), version, [SimpleUploadedFile("ours.npz", content)])
        make(content)
    files = page(as_vera, version).context["files"]
    assert {file.artifact.name for file in files[1:]} == {"soup-v1.h5"}
    digests = [sha256(content)[:8] for content in (b"one", b"two")]
    assert [file.made_on for file in files] == [
        "",
        "on inputs that Larder made up",
        *(f"on the samples ours.npz ({digest})" for digest in digests),
    ]
    assert f"on the samples ours.npz ({digests[0]})" in page(as_vera, version).content.decode()


# Files that were refused ------------------------------------------------------------------------------------------


def refused(version: ModelVersion, error: LarderError) -> None:
    ModelVersion.objects.update(state=ModelVersion.State.UNREADABLE, error=error.to_json())


HARMFUL = UnsafeContent(name="The graph", reason="its operation 'x' (WriteFile) writes files")


def test_a_refused_file_is_not_offered_for_loading(
    as_bob: Client, version: ModelVersion, artifact: Artifact, bob: User
) -> None:
    refused(version, HARMFUL)
    answer = page(as_bob, version)
    (file,) = answer.context["files"]
    assert (file.snippet, file.shareable) == ("", False)
    text = answer.content.decode()
    assert "Load, check" not in text
    assert "What you can do instead" in text
    assert "Do not open it elsewhere" in text
    assert "Upload another file as the next version" in text
    artifact.refresh_from_db()
    with pytest.raises(UnsafeContent, match="Larder refused to open it"):
        create_share_link(Actor.of(bob), artifact, LONG)


@pytest.mark.parametrize("error", [error for error in classes() if issubclass(error, ModelError | SandboxError)])
def test_every_refusal_comes_with_advice(as_vera: Client, version: ModelVersion, error: type[LarderError]) -> None:
    refused(version, error())
    answer = page(as_vera, version)
    assert answer.context["instead"]
    assert answer.context["files"][0].shareable is (error is not Forbidden)
    assert "Upload another file" not in answer.content.decode()  # vera only looks


def test_a_model_that_loads_needs_no_advice(as_vera: Client, version: ModelVersion) -> None:
    assert page(as_vera, version).context["instead"] == ()
    assert "What you can do instead" not in page(as_vera, version).content.decode()


def test_what_a_file_is_refused_for_comes_first(as_vera: Client, version: ModelVersion) -> None:
    found = [Finding("a", Severity.DANGER, "It bites."), Finding("b", Severity.CONSENT, "It runs.")]
    found += [Finding("c", Severity.REFUSE, "It steals.")]
    ModelVersion.objects.update(findings_data=[item.to_json() for item in found])
    answer = page(as_vera, version)
    assert [item.sentence for item in answer.context["findings"]] == ["It steals.", "It runs.", "It bites."]
    assert answer.context["alarming"][0].sentence == "It steals."
    assert all(word in answer.content.decode() for word in ("Refused", "Needs consent"))
