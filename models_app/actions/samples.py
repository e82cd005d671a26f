"""Giving a version samples, and taking them away again."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from django.conf import settings
from django.core.files.uploadedfile import UploadedFile
from django.db import transaction
from django.utils import timezone

from models_app import storage
from models_app.actions.uploads import clean_name, refusals
from models_app.models import Actor, ModelVersion, Samples, Tag, record
from models_app.models.samples import samples_of
from worker import tasks
from worker.errors import EmptyFile, StateError

if TYPE_CHECKING:
    File = UploadedFile[Any]


def give_samples(actor: Actor, version: ModelVersion, files: Sequence[File]) -> Samples:
    """Keep the files, several as one archive, as the samples of the version, in place of those that it has.

    They are not looked into here: whether they fit, a worker says as soon as the version is inspected. A refusal is an
    UploadError and stands in the history.
    """
    name = _label(files)
    with refusals(actor, version.team, name):
        check_size(sum(file.size or 0 for file in files), name)
        stored = _store(files, name)
    with transaction.atomic():
        replaced = _locked_current(version)
        if replaced and replaced.sha256 == stored.sha256 and replaced.state != Samples.State.UNKNOWN:
            return replaced
        _end(replaced)
        given = version.samples.create(name=name, sha256=stored.sha256, size=stored.size, given_by=actor.person)
        said = {"name": name, "sha256": stored.sha256, "size": stored.size}
        record(actor, Tag.SAMPLES_GIVEN, version.team, version, **said, replaced=replaced.sha256 if replaced else None)
        transaction.on_commit(lambda: tasks.dispatch(tasks.fit_samples, given))
    return given


def remove_samples(actor: Actor, version: ModelVersion) -> None:
    """Make the conversions from now on without samples; StateError where there are none."""
    with transaction.atomic():
        current = _locked_current(version)
        if current is None:
            raise StateError(problem="the version has no samples")
        _end(current)
        record(actor, Tag.SAMPLES_REMOVED, version.team, version, name=current.name, sha256=current.sha256)


def check_size(size: int, name: str) -> None:
    """Raise TooLarge for more than samples may take."""
    if size > settings.MAX_SAMPLES_BYTES:
        raise storage.too_large(size, settings.MAX_SAMPLES_BYTES, name, setting="LARDER_MAX_SAMPLES_MB")


def _label(files: Sequence[File]) -> str:
    """What people call them: the file's name, or that of the first one and how many more there are."""
    name = PurePosixPath(clean_name(files[0].name or "")).name
    return name if len(files) == 1 else f"{name[:200]} + {len(files) - 1} more"


def _store(files: Sequence[File], name: str) -> storage.Stored:
    if len(files) == 1:
        size = files[0].size or 0
        return storage.receive(files[0], size, size, name)
    if not any(file.size for file in files):
        raise EmptyFile(name=name)
    with storage.staging(name) as folder:
        return storage.adopt(_packed(files, folder / "samples.zip"))


def _packed(files: Sequence[File], target: Path) -> Path:
    """An archive of the files as they are, numbered, since two may have one name; the same ones give the same bytes."""
    with zipfile.ZipFile(target, "w") as package:
        for number, file in enumerate(files):
            inside = f"{number:05}-{PurePosixPath(clean_name(file.name or '')).name}"
            with package.open(zipfile.ZipInfo(inside), "w", force_zip64=True) as member:
                for chunk in file.chunks():
                    member.write(chunk)
    return target


def _locked_current(version: ModelVersion) -> Samples | None:
    """The current samples, while nobody else gives or removes any."""
    ModelVersion.objects.select_for_update().get(pk=version.pk)
    return samples_of(version)


def _end(samples: Samples | None) -> None:
    if samples and not Samples.objects.current().filter(pk=samples.pk).update(ended_at=timezone.now()):
        raise StateError(problem="somebody else has just replaced the samples")
