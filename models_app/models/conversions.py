"""Conversions: one request for one format, and its outcome. The row is the only truth about the work."""

from __future__ import annotations

import uuid
from datetime import timedelta
from typing import TYPE_CHECKING

from django.conf import settings
from django.db import models
from django.db.models import F, Q
from django.urls import reverse
from django.utils import timezone

from models_app.models.catalog import Artifact, ModelVersion
from models_app.models.fields import PlainJSONField
from models_app.models.leases import Leased, expired, new_lease, untold
from models_app.models.samples import Samples
from models_app.models.teams import Team
from worker import formats, options
from worker.report import Report

if TYPE_CHECKING:
    from models_app.models.teams import Person


class ConversionQuerySet(models.QuerySet["Conversion"]):
    def visible_to(self, user: Person) -> ConversionQuerySet:
        """The conversions in the teams this person belongs to."""
        return self.filter(version__model__team__in=Team.objects.visible_to(user))

    def claim(self, pk: uuid.UUID) -> uuid.UUID | None:
        """queued → running for one worker only; None where there is nothing to take. A stale message ends here."""
        lease = new_lease()
        queued = self.filter(
            pk=pk, state=Conversion.State.QUEUED, attempt__lt=settings.MAX_ATTEMPTS, cancel_requested=False
        )
        taken = queued.update(
            state=Conversion.State.RUNNING, attempt=F("attempt") + 1, started_at=timezone.now(), stages=[], **lease
        )
        return uuid.UUID(str(lease["lease_token"])) if taken else None

    def held(self, pk: uuid.UUID, token: uuid.UUID) -> ConversionQuerySet:
        """The conversion, as long as it runs under this token."""
        return self.filter(pk=pk, state=Conversion.State.RUNNING, lease_token=token)

    def lost(self) -> ConversionQuerySet:
        """Conversions whose worker went silent."""
        return self.filter(expired(), state=Conversion.State.RUNNING)

    def overdue(self) -> ConversionQuerySet:
        """Queued conversions that no worker was told of lately."""
        return self.filter(untold(), state=Conversion.State.QUEUED)

    def unfinished(self) -> ConversionQuerySet:
        return self.filter(state__in=[Conversion.State.QUEUED, Conversion.State.RUNNING])


class Conversion(Leased):
    """One request for one target format of one version.

    queued     waits for a worker; a Celery message is only a hint that it does
    running    a worker holds the lease (``lease_token``, ``lease_until``) and renews it
    succeeded  the result is stored and its verdict is verified or not-provable
    failed     ``error`` holds the code and the sentence; after the verdict differs the report is there, and the file is
               in quarantine; whoever releases it does so with the file, and this conversion stays failed
    canceled   somebody no longer wanted it

    queued → running → succeeded | failed | canceled; queued → canceled; running → queued when the lease ran out.
    Every move is one conditional UPDATE whose row count is looked at; publishing is fenced by the token.
    """

    class State(models.TextChoices):
        QUEUED = "queued", "Queued"
        RUNNING = "running", "Running"
        SUCCEEDED = "succeeded", "Succeeded"
        FAILED = "failed", "Failed"
        CANCELED = "canceled", "Canceled"

    FINAL = (State.SUCCEEDED, State.FAILED, State.CANCELED)

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    version = models.ForeignKey(ModelVersion, on_delete=models.PROTECT, related_name="conversions")
    target = models.SlugField(max_length=32)
    options = PlainJSONField(default=dict)
    options_key = models.CharField(max_length=64)  # sha256 of options and samples: what "asked twice" compares
    requested_by = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.PROTECT, related_name="+")
    requested_at = models.DateTimeField(auto_now_add=True)
    state = models.CharField(max_length=10, choices=State.choices, default=State.QUEUED)
    stage = models.CharField(max_length=120, blank=True)  # text for people, never used in a condition
    stages = PlainJSONField(default=list)  # [{"at": ISO time, "text": stage}], in order
    cancel_requested = models.BooleanField(default=False)
    started_at = models.DateTimeField(null=True)
    finished_at = models.DateTimeField(null=True)
    report_data = PlainJSONField(null=True)
    error = PlainJSONField(null=True)  # LarderError.to_json
    samples = models.ForeignKey(Samples, null=True, on_delete=models.PROTECT, related_name="conversions")
    artifact = models.ForeignKey(Artifact, null=True, on_delete=models.PROTECT, related_name="conversions")

    objects = ConversionQuerySet.as_manager()

    class Meta:
        ordering = ["-requested_at"]
        indexes = [models.Index(fields=["state", "lease_until"], name="conversion_work")]
        constraints = [
            models.UniqueConstraint(
                fields=["version", "target", "options_key"],
                condition=Q(state__in=["queued", "running", "succeeded"]),
                name="asked_twice_is_asked_once",
            ),
            models.CheckConstraint(
                condition=Q(state__in=["queued", "running", "succeeded", "failed", "canceled"]),
                name="conversion_state_is_known",
            ),
            models.CheckConstraint(
                condition=~Q(state="running") | Q(lease_token__isnull=False), name="running_conversion_has_a_lease"
            ),
            models.CheckConstraint(
                condition=Q(state__in=["queued", "running"], finished_at__isnull=True)
                | Q(state__in=["succeeded", "failed", "canceled"], finished_at__isnull=False),
                name="final_conversion_is_finished",
            ),
            models.CheckConstraint(
                condition=~Q(state="failed") | Q(error__isnull=False), name="failed_conversion_says_why"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.version} to {self.title}"

    def get_absolute_url(self) -> str:
        return reverse("conversion", args=[self.pk])

    @property
    def title(self) -> str:
        """What is made, in words: ``TensorFlow Lite (precision int8)``."""
        found = formats.formats().get(self.target)
        label = found.label if found else self.target
        return f"{label} ({self.options_said})" if self.options_said else label

    @property
    def options_said(self) -> str:
        return options.in_words(self.target, self.options)

    @property
    def team(self) -> Team:
        return self.version.model.team

    @property
    def is_final(self) -> bool:
        return self.state in self.FINAL

    @property
    def is_set_aside(self) -> bool:
        """Is what came out in quarantine?"""
        return self.artifact is not None and self.artifact.quarantine is not None

    @property
    def is_released(self) -> bool:
        """Did it fail, and somebody let what came out be handed out nonetheless?"""
        failed = self.state == self.State.FAILED
        return failed and self.artifact is not None and self.artifact.quarantine is None

    @property
    def report(self) -> Report | None:
        return Report.from_json(self.report_data) if self.report_data else None


class WorkerNodeQuerySet(models.QuerySet["WorkerNode"]):
    def alive(self) -> WorkerNodeQuerySet:
        """Workers that were heard of within the last minute."""
        return self.filter(seen_at__gt=timezone.now() - timedelta(minutes=1))

    def problem(self) -> str:
        """Why no job can run just now; empty where one can."""
        problems = list(self.alive().values_list("sandbox_problem", flat=True))
        if not problems:
            return "No worker is running. Work that is asked for waits until one starts."
        if "" in problems:
            return ""
        return problems[0]


class WorkerNode(models.Model):
    """A Celery worker that said it is there; ``seen_at`` older than a minute means that it is gone."""

    name = models.CharField(max_length=200, primary_key=True)
    seen_at = models.DateTimeField()
    versions = models.JSONField(default=dict)  # {library: release}
    sandbox_layers = models.JSONField(default=dict)  # {layer: {"active": bool, "detail": str}}
    sandbox_probes = models.JSONField(default=dict)  # the same of what a job tried; "by": the layer that stopped it
    sandbox_problem = models.TextField(blank=True)  # why jobs are refused, empty where the floor holds
    checked_at = models.DateTimeField(null=True)  # when the worker tried its sandbox out
    check_asked_at = models.DateTimeField(null=True)  # when an operator last asked for that

    objects = WorkerNodeQuerySet.as_manager()

    def __str__(self) -> str:
        return self.name

    @property
    def is_check_due(self) -> bool:
        """Has an operator asked since the last one ended?"""
        asked, checked = self.check_asked_at, self.checked_at
        return asked is not None and (checked is None or checked < asked)
