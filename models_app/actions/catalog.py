"""Putting models and versions into a team's catalog."""

from __future__ import annotations

import itertools
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from django.db import transaction
from django.utils.text import slugify

from models_app import storage
from models_app.actions.quarantine import mark
from models_app.actions.uploads import clean_name, refusals
from models_app.models import Actor, Artifact, ModelVersion, RegisteredModel, Tag, Team, Upload, record
from worker import bundle, intake, tasks
from worker.errors import AmbiguousFormat, NotAModel, StateError, UnsafeContent
from worker.formats._format import Format
from worker.report import Finding

PACKED_SUFFIX = ".zip"
MOST_CODE = 256 * 1024  # bytes of custom_objects.py, all of which are shown
SHORT = 60  # characters of a label, which may be four bytes each, in the name of a folder


@dataclass(frozen=True)
class Recognised:
    """One model's file, and what its bytes say it is."""

    stored: storage.Stored
    name: str
    format: Format
    because: str
    code: storage.Stored | None
    findings: tuple[Finding, ...]


def add_version(
    actor: Actor, team: Team, uploads: Sequence[Upload], name: str = "", model: RegisteredModel | None = None
) -> ModelVersion:
    """Make the uploads, which together are one model, a version of ``model`` or of a new one called ``name``.

    A refusal is an UploadError and stands in the history; then the uploads stay, so that nothing has to be sent again.
    """
    label = _label(uploads)
    with refusals(actor, team, label):
        recognised = _recognise(uploads)
    with transaction.atomic():
        version = _create(actor, model or _new_model(team, name or _stem(label)), recognised, label)
        record(actor, Tag.VERSION_UPLOADED, team, version, **_facts(recognised))
        _use_up(uploads)
        transaction.on_commit(lambda: tasks.dispatch(tasks.inspect_version, version))
    return version


def record_download(actor: Actor, artifact: Artifact) -> None:
    """Write down a member's download, before its first byte is sent."""
    said = {"sha256": artifact.sha256, "format": artifact.format, **mark(artifact)}
    record(actor, Tag.ARTIFACT_DOWNLOADED, artifact.team, artifact, **said)


def earlier_copy(version: ModelVersion) -> ModelVersion | None:
    """The first version of the same team that has the very same bytes."""
    source = version.source
    copies = Artifact.objects.filter(version__model__team=version.team, sha256=source.sha256, origin=source.origin)
    first = copies.order_by("pk").select_related("version__model__team").first()
    return first.version if first and first.version_id != version.pk else None


def _label(uploads: Sequence[Upload]) -> str:
    """What the person sent, in few words: the file's name, the common folder, or the names together."""
    parts = [PurePosixPath(upload.name).parts for upload in uploads]
    if len(parts) == 1:
        return parts[0][-1]
    folders = {names[0] for names in parts if len(names) > 1}
    if len(folders) == 1 and all(len(names) > 1 for names in parts):
        return folders.pop()
    return " + ".join(sorted(names[-1] for names in parts))[:255]


def _stem(label: str) -> str:
    names = label.split(" + ")
    return next((name for name in names if name != bundle.CODE), names[0]).split(".")[0] or label


def _recognise(uploads: Sequence[Upload]) -> Recognised:
    stored, name, code, findings = _one_file(uploads)
    sample = intake.take_sample(storage.path_of(stored.sha256), name)
    found, because = intake.recognise(sample)
    misleading = intake.suffix_finding(sample, found)
    return Recognised(stored, name, found, because, code, (*findings, misleading) if misleading else findings)


def _one_file(uploads: Sequence[Upload]) -> tuple[storage.Stored, str, storage.Stored | None, tuple[Finding, ...]]:
    """The upload itself, or what of the uploads or of the uploaded archive is the model, in one file; and its code."""
    label = _label(uploads)
    with storage.staging(label) as staging:
        found = bundle.gather(_given(uploads, staging, label), staging, label)
        code = _kept_code(found)
        if found.path == storage.path_of(uploads[0].sha256):
            return storage.Stored(uploads[0].sha256, uploads[0].size), label, code, found.findings
        name = f"{slugify(_stem(label)) or 'model'}{PACKED_SUFFIX}" if found.packed else _file_name(found.name)
        return storage.adopt(found.path), name, code, found.findings


def _kept_code(found: bundle.Bundle) -> storage.Stored | None:
    """The custom_objects.py that came with the model, which nobody runs before somebody agrees to that."""
    if found.code is None:
        return None
    size = found.code.stat().st_size
    if size > MOST_CODE:
        raise UnsafeContent(name=found.code_name, reason=f"it has {size:,} bytes, and people are to read it")
    return storage.adopt(found.code)


def _file_name(inside: str) -> str:
    """What a file in an archive is called when it is downloaded by itself."""
    return clean_name(inside).rpartition("/")[2]


def _given(uploads: Sequence[Upload], staging: Path, label: str) -> Path:
    """The one file as it is stored, or a folder with all of them."""
    if len(uploads) == 1:
        return storage.path_of(uploads[0].sha256)
    folder = staging / "sent" / label.replace("/", " ")[:SHORT]
    _lay_out(uploads, folder, label)
    return folder


def _lay_out(uploads: Sequence[Upload], folder: Path, label: str) -> None:
    """The uploads under their own names in a folder, as second names of the stored bytes."""
    for upload in uploads:
        place = folder / upload.name
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            os.link(storage.path_of(upload.sha256), place)
        except (FileExistsError, NotADirectoryError):
            raise AmbiguousFormat(name=label, found=f"two files called {upload.name}") from None
        except OSError as error:
            found = f"a file whose name cannot be kept ({error.strerror})"
            raise NotAModel(name=label, found=found, advice="Give it a shorter name.") from None


def _new_model(team: Team, name: str) -> RegisteredModel:
    """A model under a free slug; where the name is taken it is numbered, so that two are never told apart by id."""
    Team.objects.select_for_update().get(pk=team.pk)  # two uploads of one name at once would find the same slug free
    slug = slugify(name)[:70] or "model"
    taken = set(team.models.filter(slug__startswith=slug).values_list("slug", flat=True))
    if slug not in taken:
        return team.models.create(slug=slug, name=name[:100])
    number = next(number for number in itertools.count(2) if f"{slug}-{number}" not in taken)
    return team.models.create(slug=f"{slug}-{number}", name=f"{name[:90]} {number}")


def _create(actor: Actor, model: RegisteredModel, recognised: Recognised, label: str) -> ModelVersion:
    model = RegisteredModel.objects.select_for_update().get(pk=model.pk)  # one number per version
    last = model.versions.first()
    version = model.versions.create(
        number=last.number + 1 if last else 1,
        uploaded_by=actor.person,
        upload_name=label,
        recognised_by=recognised.because[:300],
        code_sha256=recognised.code.sha256 if recognised.code else "",
        code_size=recognised.code.size if recognised.code else 0,
        findings_data=[finding.to_json() for finding in recognised.findings],
    )
    version.artifacts.create(
        format=recognised.format.slug,
        name=recognised.name,
        sha256=recognised.stored.sha256,
        size=recognised.stored.size,
        origin=Artifact.Origin.UPLOADED,
    )
    model.save(update_fields=["updated_at"])
    return version


def _use_up(uploads: Sequence[Upload]) -> None:
    """Each upload becomes one version, also when its form was sent twice."""
    used, _ = Upload.objects.filter(pk__in=[upload.pk for upload in uploads]).delete()
    if used != len(uploads):
        raise StateError(problem="the same upload has become a version already")


def _facts(recognised: Recognised) -> dict[str, object]:
    stored = recognised.stored
    said = {"format": recognised.format.slug, "name": recognised.name, "sha256": stored.sha256, "size": stored.size}
    return said | ({"code_sha256": recognised.code.sha256} if recognised.code else {})
