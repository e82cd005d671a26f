"""Quarantine: files that are kept and not handed out, and who let which of them out again, and why."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable

from django.conf import settings
from django.db import models
from django.db.models import Exists, OuterRef, Q
from django.db.models.functions import Length
from django.db.models.lookups import GreaterThanOrEqual

from models_app.models.audit import Actor, Tag, record
from models_app.models.catalog import Artifact, ArtifactQuerySet
from models_app.models.fields import storable
from models_app.models.teams import Team

REASON_LETTERS = 10  # the least that a person writes: some words
REASON_LENGTH = 1000  # the most, in characters


class Cause(models.TextChoices):
    """Why a file is in quarantine, as the end of a sentence. Anybody may read it, also who only has a link."""

    DIFFERS = "differs", "it does not compute the same as its source"
    FORBIDDEN = "forbidden", "while it was opened, it tried what no model needs"
    ALTERED = "altered", "its stored bytes are not those that were published"
    PERSON = "person", "somebody of its team put it there"


class QuarantineQuerySet(models.QuerySet["Quarantine"]):
    def open(self) -> QuarantineQuerySet:
        """The stays that nobody has ended."""
        return self.filter(released_at__isnull=True)

    def of_bytes(self, team: Team, hashes: Iterable[str]) -> QuarantineQuerySet:
        """The open stays of any file of the team with one of these sha256."""
        found = self.open().filter(artifact__version__model__team=team, artifact__sha256__in=set(hashes))
        return found.select_related("artifact__version__model__team", "put_by", "released_by")


class Quarantine(models.Model):
    """One stay of one file in quarantine.

    open      the file is kept, and neither downloaded nor shared
    released  a named person let it out with a written reason; the file carries that as a mark for ever

    Whatever belongs to a version that reached for what no model needs is never released (``is_for_good``).

    open → released by one conditional UPDATE whose row count is looked at. There is no way back and no row is removed:
    a file that goes in again gets another row.

    A stay keeps the bytes: every other file of the same team with the same sha256 is not handed out either,
    until it ends.
    """

    artifact = models.ForeignKey(Artifact, on_delete=models.PROTECT, related_name="quarantines")
    cause = models.CharField(max_length=10, choices=Cause.choices)
    reason = models.CharField(max_length=REASON_LENGTH)  # what the check found, or what the person wrote
    since = models.DateTimeField(auto_now_add=True)
    put_by = models.ForeignKey(settings.AUTH_USER_MODEL, null=True, on_delete=models.PROTECT, related_name="+")
    released_at = models.DateTimeField(null=True)
    released_by = models.ForeignKey(settings.AUTH_USER_MODEL, null=True, on_delete=models.PROTECT, related_name="+")
    release_reason = models.CharField(max_length=REASON_LENGTH, blank=True)

    objects = QuarantineQuerySet.as_manager()

    class Meta:
        ordering = ["pk"]
        constraints = [
            models.UniqueConstraint(
                fields=["artifact"], condition=Q(released_at__isnull=True), name="one_open_quarantine_per_file"
            ),
            models.CheckConstraint(
                condition=Q(released_at__isnull=True, released_by__isnull=True, release_reason="")
                | Q(released_at__isnull=False, released_by__isnull=False)
                & Q(GreaterThanOrEqual(Length("release_reason"), REASON_LETTERS)),
                name="release_has_person_time_and_reason",
            ),
            models.CheckConstraint(
                condition=Q(cause__in=["differs", "forbidden", "altered"], put_by__isnull=True)
                | Q(cause="person", put_by__isnull=False),
                name="quarantine_is_put_by_a_check_or_a_person",
            ),
            models.CheckConstraint(condition=~Q(reason=""), name="quarantine_says_why"),
        ]

    def __str__(self) -> str:
        return f"quarantine of {self.artifact}"

    @property
    def is_for_good(self) -> bool:
        """Can nobody release it?"""
        same = Quarantine.objects.open().filter(artifact__version=self.artifact.version_id, cause=Cause.FORBIDDEN)
        return self.cause == Cause.FORBIDDEN or same.exists()

    @property
    def cause_said(self) -> str:
        """Why it was put there, as a sentence that anybody may read."""
        label = Cause(self.cause).label
        return f"{label[:1].upper()}{label[1:]}."


def put_in_quarantine(actor: Actor, artifact: Artifact, cause: Cause, reason: str) -> Quarantine:
    """Keep a file from being handed out, and write that down: call it inside a transaction.

    IntegrityError where it is in quarantine already.
    """
    why = storable(reason)[:REASON_LENGTH] or cause.label
    stay = artifact.quarantines.create(cause=cause, reason=why, put_by=actor.user)
    said = {"cause": cause, "reason": why, "sha256": artifact.sha256}
    record(actor, Tag.ARTIFACT_QUARANTINED, artifact.team, artifact, **said)
    return stay


def look_up_stays(team: Team, artifacts: Collection[Artifact]) -> None:
    """Tell every one of these files of the team what keeps it from being handed out, in one query."""
    found: dict[str, list[Quarantine]] = defaultdict(list)
    for stay in Quarantine.objects.of_bytes(team, (artifact.sha256 for artifact in artifacts)):
        found[stay.artifact.sha256].append(stay)
    for artifact in artifacts:
        artifact.known_stays = found[artifact.sha256]


def handed_out() -> ArtifactQuerySet:
    """The files that are not in quarantine, and whose bytes no other file of the team has that is."""
    same = {"artifact__sha256": OuterRef("sha256"), "artifact__version__model__team": OuterRef("version__model__team")}
    return Artifact.objects.exclude(Exists(Quarantine.objects.open().filter(**same)))
