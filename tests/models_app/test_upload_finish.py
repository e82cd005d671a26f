"""The files that the script has sent become one version."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client

from models_app import storage
from models_app.actions import catalog
from models_app.models import Actor, ModelVersion, Team, Upload
from tests.models_app.conftest import Told, client_of, keras_file, sha256
from tests.worker import files
from worker import archive
from worker.errors import StateError

URL = "/t/kitchen/uploads/finish/"


def finish(client: Client, *uploads: Upload, **fields: str) -> Any:
    return client.post(URL, {"upload": [str(upload.pk) for upload in uploads], **fields})


def test_it_works(as_alice: Client, upload: Callable[..., Upload], told: Told) -> None:
    answer = finish(as_alice, upload("soup.keras", keras_file()), name="Soup")
    version = ModelVersion.objects.get()
    assert answer.status_code == 201
    assert answer.json() == {
        "url": version.get_absolute_url(),
        "format": "keras",
        "label": "Keras",
        "recognised_by": version.recognised_by,
    }
    assert version.state == ModelVersion.State.WAITING


def test_one_file_named_twice_is_one_file(as_alice: Client, upload: Callable[..., Upload], told: Told) -> None:
    sent = str(upload("soup.keras", keras_file()).pk)
    assert as_alice.post(URL, {"upload": [sent, sent.upper(), f"{{{sent}}}"]}).status_code == 201


def test_two_files_of_one_name_are_refused(as_alice: Client, upload: Callable[..., Upload], told: Told) -> None:
    answer = finish(as_alice, upload("soup.json", b"{}"), upload("soup.json", b"[]"))
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "ambiguous-format")


def test_worker_is_told_after_the_commit(
    as_alice: Client, upload: Callable[..., Upload], told: Told, django_capture_on_commit_callbacks: Any
) -> None:
    with django_capture_on_commit_callbacks(execute=True):
        finish(as_alice, upload("soup.keras", keras_file()))
        assert not told.messages
    assert told.messages == [("worker.inspect_version", str(ModelVersion.objects.get().pk))]


def test_folder_is_packed_with_its_paths(as_alice: Client, upload: Callable[..., Upload], told: Told) -> None:
    names = (
        "kitchen/saved_model.pb",
        "kitchen/variables/variables.index",
        "kitchen/variables/variables.data-00000-of-00001",
    )
    graph = b"\x08\x01\x12\x10\x0a\x0e\x12\x05serve" + bytes(200)
    answer = finish(as_alice, *(upload(name, graph) for name in names))
    assert answer.json().get("format") == "saved_model", answer.json()
    version = ModelVersion.objects.get()
    assert (version.model.name, version.upload_name, version.source.name) == ("kitchen", "kitchen", "kitchen.zip")
    packed = archive.members(storage.path_of(version.source.sha256))
    assert sorted(member.name for member in packed) == sorted(name.removeprefix("kitchen/") for name in names)


def test_a_folder_may_be_called_as_the_archive_that_is_made(
    as_alice: Client, upload: Callable[..., Upload], told: Told
) -> None:
    names = (
        "bundle.zip/saved_model.pb",
        "bundle.zip/variables/variables.index",
        "bundle.zip/variables/variables.data-00000-of-00001",
    )
    graph = b"\x08\x01\x12\x10\x0a\x0e\x12\x05serve" + bytes(200)
    answer = finish(as_alice, *(upload(name, graph) for name in names))
    assert answer.json().get("format") == "saved_model", answer.json()


def test_what_is_no_part_of_the_model_is_left_out_and_said(
    as_alice: Client, upload: Callable[..., Upload], told: Told
) -> None:
    """As on the command line: a folder with notes and recorded outputs beside the model is that model."""
    names = {"soup/model.keras": keras_file(), "soup/README.md": b"# soup", "soup/custom_objects.py": b"import os"}
    answer = finish(as_alice, *(upload(name, content) for name, content in names.items()))
    assert answer.json().get("format") == "keras", answer.json()
    version = ModelVersion.objects.get()
    assert (version.source.name, version.source.sha256) == ("model.keras", sha256(keras_file()))
    assert [item.sentence for item in version.findings] == ["Not a part of the model, and left out: soup/README.md."]
    assert version.code_sha256 == sha256(b"import os")


def test_an_archive_of_weights_beside_an_architecture_is_opened(
    as_alice: Client, upload: Callable[..., Upload], told: Told
) -> None:
    sent = {"architecture.json": files.ARCHITECTURE.encode(), "checkpoint.zip": files.zipped(files.CHECKPOINT)}
    answer = finish(as_alice, *(upload(name, content) for name, content in sent.items()))
    assert answer.json().get("format") == "checkpoint", answer.json()
    source = ModelVersion.objects.get().source
    packed = [member.name for member in archive.members(storage.path_of(source.sha256))]
    assert packed == ["architecture.json", "checkpoint", "ckpt-2.data-00000-of-00001", "ckpt-2.index"]


def test_the_model_in_an_archive_is_taken_out(as_alice: Client, upload: Callable[..., Upload], told: Told) -> None:
    content = files.zipped({"soup/model.keras": keras_file(), "soup/expected.npz": files.RECORDED_NPZ})
    answer = finish(as_alice, upload("soup.zip", content))
    assert answer.json().get("format") == "keras", answer.json()
    version = ModelVersion.objects.get()
    assert (version.upload_name, version.source.name) == ("soup.zip", "model.keras")
    assert version.source.sha256 == sha256(keras_file())
    assert [item.sentence for item in version.findings] == ["Not a part of the model, and left out: soup/expected.npz."]


def test_an_archive_of_one_model_is_kept_as_it_was_sent(
    as_alice: Client, upload: Callable[..., Upload], told: Told
) -> None:
    content = files.zipped({"m.json": files.ARCHITECTURE, "w.npz": files.NPZ})
    finish(as_alice, upload("soup.zip", content))
    source = ModelVersion.objects.get().source
    assert (source.format, source.name, source.sha256) == ("json_npz", "soup.zip", sha256(content))


def test_half_a_checkpoint_says_what_is_missing(as_alice: Client, upload: Callable[..., Upload], told: Told) -> None:
    answer = finish(as_alice, upload("soup.index", b"\0\1index"))
    assert answer.json()["error"]["code"] == "incomplete-model"
    assert "its .data file is missing" in answer.json()["error"]["message"]


def test_sent_twice_is_one_version(alice: User, team: Team, upload: Callable[..., Upload], told: Told) -> None:
    """As when both requests have found the upload before one of them used it up."""
    sent = upload("soup.keras", keras_file())
    catalog.add_version(Actor.of(alice), team, [sent])
    with pytest.raises(StateError):
        catalog.add_version(Actor.of(alice), team, [sent])
    assert ModelVersion.objects.count() == 1


def test_refusal_loses_nothing(as_alice: Client, team: Team, upload: Callable[..., Upload]) -> None:
    sent = upload("soup.keras", bytes(range(1, 200)))
    answer = finish(as_alice, sent)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "unknown-format")
    assert Upload.objects.filter(pk=sent.pk).exists()
    assert team.history.latest("pk").tag == "upload:refused"


def test_somebody_elses_upload_is_not_there(bob: User, upload: Callable[..., Upload]) -> None:
    answer = finish(client_of(bob), upload("soup.keras", keras_file()))
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "upload-refused")


@pytest.mark.parametrize("fields", [{}, {"upload": "nonsense"}, {"upload": "00000000-0000-0000-0000-000000000000"}])
def test_nothing_to_finish(as_alice: Client, team: Team, fields: dict[str, str]) -> None:
    answer = as_alice.post(URL, fields)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "upload-refused")


def test_unknown_model(as_alice: Client, upload: Callable[..., Upload]) -> None:
    answer = finish(as_alice, upload("soup.keras", keras_file()), model="of-another-team")
    assert answer.status_code == 400


def test_names_that_are_taken_are_numbered(as_alice: Client, upload: Callable[..., Upload], told: Told) -> None:
    for _ in range(3):
        finish(as_alice, upload("soup.keras", keras_file()), name="Soup")
    models = ModelVersion.objects.order_by("pk").values_list("model__slug", "model__name")
    assert list(models) == [("soup", "Soup"), ("soup-2", "Soup 2"), ("soup-3", "Soup 3")]
