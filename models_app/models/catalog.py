"""What a team keeps: registered models, their versions, and the files of each version."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING

from django.conf import settings
from django.db import models
from django.db.models import F, Q
from django.urls import reverse

from models_app.models.fields import PlainJSONField
from models_app.models.leases import Leased, expired, new_lease, untold
from models_app.models.teams import Team
from worker.errors import Forbidden, UnsafeContent, from_json
from worker.formats._format import Summary
from worker.report import Finding, findings_from_json

if TYPE_CHECKING:
    from models_app.models.quarantine import Quarantine
    from models_app.models.teams import Person


class RegisteredModelQuerySet(models.QuerySet["RegisteredModel"]):
    def visible_to(self, user: Person) -> RegisteredModelQuerySet:
        """The models of the teams this person belongs to."""
        return self.filter(team__in=Team.objects.visible_to(user))


class RegisteredModel(models.Model):
    """A named thing a team keeps; on pages simply "model"."""

    team = models.ForeignKey(Team, on_delete=models.PROTECT, related_name="models")
    slug = models.SlugField(max_length=80)
    name = models.CharField(max_length=100)
    created_at = models.DateTimeField(auto_now_add=True)
    updated_at = models.DateTimeField(auto_now=True)

    objects = RegisteredModelQuerySet.as_manager()

    class Meta:
        ordering = ["-updated_at"]
        constraints = [models.UniqueConstraint(fields=["team", "slug"], name="model_slug_is_unique_in_team")]

    def __str__(self) -> str:
        return self.name

    def get_absolute_url(self) -> str:
        return reverse("model", args=[self.team.slug, self.slug])


class ModelVersionQuerySet(models.QuerySet["ModelVersion"]):
    def visible_to(self, user: Person) -> ModelVersionQuerySet:
        """The versions in the teams this person belongs to."""
        return self.filter(model__team__in=Team.objects.visible_to(user))

    def with_weights_of(self, version: ModelVersion) -> ModelVersionQuerySet:
        """The other versions of its team that hold the same weights, in whatever format, newest first."""
        if not version.weights_sha256:
            return self.none()
        same = self.filter(model__team=version.model.team_id, weights_sha256=version.weights_sha256)
        return same.exclude(pk=version.pk).order_by("-pk")

    def claim(self, pk: int) -> uuid.UUID | None:
        """Take the inspection of this version; None where somebody else has it or nothing is left to do."""
        free = Q(lease_token__isnull=True) | expired()
        lease = new_lease()
        waiting = self.filter(free, pk=pk, state=ModelVersion.State.WAITING, attempt__lt=settings.MAX_ATTEMPTS)
        taken = waiting.update(attempt=F("attempt") + 1, **lease)
        return uuid.UUID(str(lease["lease_token"])) if taken else None

    def held(self, pk: int, token: uuid.UUID) -> ModelVersionQuerySet:
        """The version, as long as this token holds its inspection."""
        return self.filter(pk=pk, state=ModelVersion.State.WAITING, lease_token=token)

    def lost(self) -> ModelVersionQuerySet:
        """Inspections whose worker went silent."""
        return self.filter(expired(), state=ModelVersion.State.WAITING)

    def overdue(self) -> ModelVersionQuerySet:
        """Inspections that nobody holds and no worker was told of lately."""
        return self.filter(untold(), state=ModelVersion.State.WAITING, lease_token__isnull=True)


class ModelVersion(Leased):
    """One numbered, immutable upload.

    waiting     a worker has yet to inspect it, or holds the lease and does
    inspected   there is a Summary
    unreadable  ``error`` says why

    waiting → inspected | unreadable, by a conditional UPDATE fenced by the lease's token; inspected | unreadable →
    waiting when somebody agrees to run its code, or no longer does. The uploaded file is kept in every state.
    """

    class State(models.TextChoices):
        WAITING = "waiting", "Being inspected"
        INSPECTED = "inspected", "Inspected"
        UNREADABLE = "unreadable", "Cannot be loaded"

    model = models.ForeignKey(RegisteredModel, on_delete=models.PROTECT, related_name="versions")
    number = models.PositiveIntegerField()
    uploaded_by = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.PROTECT, related_name="+")
    uploaded_at = models.DateTimeField(auto_now_add=True)
    upload_name = models.CharField(max_length=255)
    state = models.CharField(max_length=12, choices=State.choices, default=State.WAITING)
    recognised_by = models.CharField(max_length=300, blank=True)
    summary_data = PlainJSONField(default=dict)
    findings_data = PlainJSONField(default=list)
    weights_sha256 = models.CharField(max_length=64, blank=True)  # of all weights, whatever the format; "" if unknown
    code_sha256 = models.CharField(max_length=64, blank=True)  # of the custom_objects.py that came with it, if one did
    code_size = models.PositiveIntegerField(default=0)  # bytes
    error = PlainJSONField(null=True)  # LarderError.to_json

    objects = ModelVersionQuerySet.as_manager()

    class Meta:
        ordering = ["-number"]
        indexes = [models.Index(fields=["weights_sha256"], condition=~Q(weights_sha256=""), name="versions_by_weights")]
        constraints = [
            models.UniqueConstraint(fields=["model", "number"], name="version_number_is_unique_in_model"),
            models.CheckConstraint(
                condition=~Q(state="unreadable") | Q(error__isnull=False), name="unreadable_version_says_why"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.model} v{self.number}"

    def get_absolute_url(self) -> str:
        return reverse("version", args=[self.model.team.slug, self.model.slug, self.number])

    @property
    def team(self) -> Team:
        return self.model.team

    @property
    def summary(self) -> Summary:
        return Summary.from_json(self.summary_data)

    @property
    def findings(self) -> list[Finding]:
        return findings_from_json(self.findings_data)

    @property
    def is_harmful(self) -> bool:
        """Was it refused for what opening or running it would do?"""
        return self.error is not None and isinstance(from_json(self.error), UnsafeContent | Forbidden)

    @property
    def source(self) -> Artifact:
        """The file as it was uploaded."""
        return self.artifacts.get(origin=Artifact.Origin.UPLOADED)


class ArtifactQuerySet(models.QuerySet["Artifact"]):
    def visible_to(self, user: Person) -> ArtifactQuerySet:
        """The files in the teams this person belongs to."""
        return self.filter(version__model__team__in=Team.objects.visible_to(user))


class Artifact(models.Model):
    """Stored bytes in exactly one format; the bytes lie in the store under their sha256."""

    class Origin(models.TextChoices):
        UPLOADED = "uploaded", "Uploaded"
        CONVERTED = "converted", "Converted"

    version = models.ForeignKey(ModelVersion, on_delete=models.PROTECT, related_name="artifacts")
    format = models.SlugField(max_length=32)  # a slug of worker.formats; no choices, formats are not a table
    name = models.CharField(max_length=255)  # the download's name
    sha256 = models.CharField(max_length=64, db_index=True)
    size = models.PositiveBigIntegerField()  # bytes
    origin = models.CharField(max_length=10, choices=Origin.choices)
    created_at = models.DateTimeField(auto_now_add=True)

    objects = ArtifactQuerySet.as_manager()
    known_stays: list[Quarantine] | None = None  # what look_up_stays found for a whole list; None where nobody looked

    class Meta:
        ordering = ["created_at"]
        constraints = [
            models.UniqueConstraint(fields=["version"], condition=Q(origin="uploaded"), name="one_upload_per_version"),
        ]

    def __str__(self) -> str:
        return self.name

    def get_absolute_url(self) -> str:
        return self.version.get_absolute_url()

    @property
    def team(self) -> Team:
        return self.version.model.team

    @property
    def quarantine(self) -> Quarantine | None:
        """What keeps its bytes from being handed out, where anything does: its own stay, or else that of another file
        of the team with the same bytes. Whoever has those converted again gets nothing new.
        """
        stays = self._open_stays() if self.known_stays is None else self.known_stays
        return min(stays, key=lambda stay: (stay.artifact_id != self.pk, stay.pk), default=None)

    def _open_stays(self) -> list[Quarantine]:
        of_any_file = self.quarantines.model.objects
        return list(of_any_file.of_bytes(self.team, [self.sha256]))

    @property
    def releases(self) -> list[Quarantine]:
        """Its mark: every time that somebody let it out of quarantine, oldest first."""
        return [stay for stay in self.quarantines.all() if stay.released_at is not None]

    @property
    def released_by(self) -> list[str]:
        """Who let it out, oldest first."""
        return [str(stay.released_by) for stay in self.releases]

    @property
    def is_shareable(self) -> bool:
        return not self.why_not_shared

    @property
    def why_not_shared(self) -> str:
        """Why it stays in the team, whoever may share: opening it anywhere else could do harm; "" where it may go."""
        if self.format in ("pickle", "json_pickle"):
            return "a pickle runs code when it is opened, so it cannot be shared"
        if self.origin == self.Origin.UPLOADED and self.version.is_harmful:
            return "Larder refused to open it, so it cannot be shared"
        return ""

    @property
    def download_url(self) -> str:
        return reverse("download", args=[self.pk, self.name])
