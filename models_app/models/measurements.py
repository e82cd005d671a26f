"""Measurements: how large, how fast and how near the files of one version are, side by side, on one machine."""

from __future__ import annotations

import json
import uuid
from collections import defaultdict
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from django.conf import settings
from django.db import models
from django.db.models import F, Q

from models_app.models.catalog import Artifact, ModelVersion
from models_app.models.conversions import Conversion
from models_app.models.fields import PlainJSONField
from models_app.models.leases import Leased, expired, new_lease, untold
from models_app.models.quarantine import handed_out
from worker import measuring
from worker.options import SIGNATURE

if TYPE_CHECKING:
    from models_app.models.teams import Team


class MeasurementQuerySet(models.QuerySet["Measurement"]):
    def claim(self, pk: int) -> uuid.UUID | None:
        """Take this measurement; None where somebody else has it or nothing is left to do."""
        free = Q(lease_token__isnull=True) | expired()
        lease = new_lease()
        waiting = self.filter(free, pk=pk, state=Measurement.State.WAITING, attempt__lt=settings.MAX_ATTEMPTS)
        taken = waiting.update(attempt=F("attempt") + 1, stage="", **lease)
        return uuid.UUID(str(lease["lease_token"])) if taken else None

    def held(self, pk: int, token: uuid.UUID) -> MeasurementQuerySet:
        """The measurement, as long as this token holds it."""
        return self.filter(pk=pk, state=Measurement.State.WAITING, lease_token=token)

    def lost(self) -> MeasurementQuerySet:
        """Measurements whose worker went silent."""
        return self.filter(expired(), state=Measurement.State.WAITING)

    def overdue(self) -> MeasurementQuerySet:
        """Measurements that nobody holds and no worker was told of lately."""
        return self.filter(untold(), state=Measurement.State.WAITING, lease_token__isnull=True)


class Measurement(Leased):
    """One request to measure the files of a version, and the table that came of it.

    waiting  a worker has yet to measure, or holds the lease and does
    done     ``table`` is there (worker.measuring.Table)
    failed   ``error`` says why

    waiting → done | failed, by a conditional UPDATE fenced by the lease's token. Every request is a row of its own; the
    page shows the latest table.
    """

    class State(models.TextChoices):
        WAITING = "waiting", "Being measured"
        DONE = "done", "Measured"
        FAILED = "failed", "Failed"

    version = models.ForeignKey(ModelVersion, on_delete=models.PROTECT, related_name="measurements")
    state = models.CharField(max_length=10, choices=State.choices, default=State.WAITING)
    stage = models.CharField(max_length=120, blank=True)  # text for people, never used in a condition
    table = PlainJSONField(null=True)
    error = PlainJSONField(null=True)  # LarderError.to_json
    asked_by = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.PROTECT, related_name="+")
    asked_at = models.DateTimeField(auto_now_add=True)
    finished_at = models.DateTimeField(null=True)

    objects = MeasurementQuerySet.as_manager()

    class Meta:
        ordering = ["-pk"]
        indexes = [models.Index(fields=["state", "lease_until"], name="measurement_work")]
        constraints = [
            models.UniqueConstraint(fields=["version"], condition=Q(state="waiting"), name="one_measurement_at_a_time"),
            models.CheckConstraint(
                condition=Q(state="waiting", table__isnull=True, error__isnull=True, finished_at__isnull=True)
                | Q(state="done", table__isnull=False, error__isnull=True, finished_at__isnull=False)
                | Q(state="failed", table__isnull=True, error__isnull=False, finished_at__isnull=False),
                name="measurement_has_what_its_state_says",
            ),
        ]

    def __str__(self) -> str:
        return f"measurement of {self.version}"

    @property
    def team(self) -> Team:
        return self.version.team

    @property
    def is_running(self) -> bool:
        """Does a worker hold it?"""
        return self.state == self.State.WAITING and self.lease_token is not None


Pair = tuple[Artifact, Conversion | None]  # a file with the conversion that it came out of


def variants_of(version: ModelVersion) -> list[Pair]:
    """The files that are handed out: the uploaded one, and the latest of each format and options. Those of another
    signature than the usual one compute something else, and are no variants of it."""
    known = handed_out().filter(version=version)
    made = version.conversions.filter(artifact__in=known).exclude(options__has_key=SIGNATURE)
    made = made.select_related("artifact").order_by("requested_at")
    latest = {(each.target, json.dumps(each.options, sort_keys=True)): each for each in made}
    source: list[Pair] = [(each, None) for each in known.filter(origin=Artifact.Origin.UPLOADED)]
    return source + [(each.artifact, each) for each in latest.values() if each.artifact]


def can_be_measured(pairs: Iterable[Pair]) -> bool:
    """Is there a result that runs here?"""
    return any(conversion and not measuring.home(artifact.format)[1] for artifact, conversion in pairs)


def rows_of(measurement: Measurement | None) -> list[dict[str, Any]]:
    """The rows of its table, each with the mark that its file has now: who let it out of quarantine."""
    if not (measurement and measurement.table):
        return []
    marks: defaultdict[str, list[str]] = defaultdict(list)
    for artifact in measurement.version.artifacts.prefetch_related("quarantines__released_by"):
        marks[artifact.sha256] += artifact.released_by
    return [{**row, "released_by": marks[row["sha256"]]} for row in measurement.table["rows"]]
