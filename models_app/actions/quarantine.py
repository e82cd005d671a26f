"""Keeping files from being handed out, and letting them out again."""

from __future__ import annotations

from typing import Any

from django.db import IntegrityError, transaction
from django.utils import timezone

from models_app import storage
from models_app.models import SYSTEM, Actor, Artifact, Quarantine, Tag, record
from models_app.models.quarantine import Cause, put_in_quarantine
from worker.errors import Quarantined, QuarantinedForGood, StateError

NOT_IN = "the file is not in quarantine"


def check_handed_out(artifact: Artifact) -> None:
    """Quarantined where nobody may have the file, be it for a stay of another file with the same bytes."""
    if stay := artifact.quarantine:
        raise refusal(artifact, Cause(stay.cause), for_good=stay.is_for_good)


def refusal(artifact: Artifact, cause: Cause, *, for_good: bool = False) -> Quarantined:
    """What is said to whoever wants the file, whether of the team or not: never what a person wrote."""
    return (QuarantinedForGood if for_good else Quarantined)(name=artifact.name, reason=cause.label)


def mark(artifact: Artifact) -> dict[str, Any]:
    """What the history says of a file that was let out of quarantine, each time that it goes anywhere."""
    return {"released_from_quarantine_by": artifact.released_by} if artifact.releases else {}


def put_altered(artifact: Artifact) -> None:
    """Larder itself puts a file into quarantine whose stored bytes are not those that were published."""
    found = f"What is stored under the sha256 {artifact.sha256} has another one, or another size."
    try:
        with transaction.atomic():
            put_in_quarantine(SYSTEM, artifact, Cause.ALTERED, found)
    except IntegrityError:
        return  # somebody else's download has just found the same


def put_again(actor: Actor, artifact: Artifact, reason: str) -> Quarantine:
    """A person takes back a release, with a reason. StateError where there is none to take back."""
    if not artifact.releases:
        raise StateError(problem="only a file that was released can be put back into quarantine")
    try:
        with transaction.atomic():
            return put_in_quarantine(actor, artifact, Cause.PERSON, reason)
    except IntegrityError:
        raise StateError(problem="the file is in quarantine already") from None


def release(actor: Actor, artifact: Artifact, reason: str) -> None:
    """A person lets the file out, with a reason that stays with it. StateError where it is not in quarantine.

    Only the bytes that were published are let out: others would be found at the next download.
    """
    stay = Quarantine.objects.open().filter(artifact=artifact).first()
    if stay is None:
        raise StateError(problem=NOT_IN)
    if stay.is_for_good:
        raise refusal(artifact, Cause(stay.cause), for_good=stay.is_for_good)
    _check_whole(artifact)
    with transaction.atomic():
        ended = {"released_at": timezone.now(), "released_by": actor.person, "release_reason": reason}
        if not Quarantine.objects.open().filter(pk=stay.pk).update(**ended):
            raise StateError(problem=NOT_IN)
        said = {"cause": stay.cause, "found": stay.reason, "reason": reason, "sha256": artifact.sha256}
        record(actor, Tag.ARTIFACT_RELEASED, artifact.team, artifact, **said)


def _check_whole(artifact: Artifact) -> None:
    try:
        storage.open_whole(storage.Stored(artifact.sha256, artifact.size)).close()
    except (storage.Altered, FileNotFoundError):
        problem = "the stored bytes are not those that were published; put the right ones back into the store first"
        raise StateError(problem=problem) from None
