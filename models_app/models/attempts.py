"""What files tried while they were opened: kept for the people who answer for a team, until one of them has seen it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from django.conf import settings
from django.db import models
from django.db.models import Q

from models_app.models.catalog import ModelVersion
from models_app.models.fields import PlainJSONField
from models_app.models.teams import Team
from worker.report import Finding, findings_from_json

if TYPE_CHECKING:
    from models_app.models.teams import Person


class AttemptQuerySet(models.QuerySet["Attempt"]):
    def visible_to(self, user: Person) -> AttemptQuerySet:
        """Those in the teams this person belongs to."""
        return self.filter(version__model__team__in=Team.objects.visible_to(user))

    def of_team(self, team: Team) -> AttemptQuerySet:
        return self.filter(version__model__team=team).select_related("version__model__team", "seen_by")

    def unseen(self) -> AttemptQuerySet:
        """Those that nobody has said to have seen."""
        return self.filter(seen_at__isnull=True)


class Attempt(models.Model):
    """One job that tried what no model needs; ``findings_data`` says what.

    unseen  the owners of the team are told on the page of its models
    seen    one of them has said so; it stays on the page of the team's settings

    unseen → seen by one conditional UPDATE whose row count is looked at.
    """

    version = models.ForeignKey(ModelVersion, on_delete=models.PROTECT, related_name="attempts")
    doing = models.CharField(max_length=100)  # what the job was there for, as in "inspecting it"
    findings_data = PlainJSONField(default=list)
    at = models.DateTimeField(auto_now_add=True)
    seen_by = models.ForeignKey(settings.AUTH_USER_MODEL, null=True, on_delete=models.PROTECT, related_name="+")
    seen_at = models.DateTimeField(null=True)

    objects = AttemptQuerySet.as_manager()

    class Meta:
        ordering = ["-pk"]
        constraints = [
            models.CheckConstraint(
                condition=Q(seen_at__isnull=True, seen_by__isnull=True)
                | Q(seen_at__isnull=False, seen_by__isnull=False),
                name="attempt_is_seen_by_somebody",
            ),
        ]

    def __str__(self) -> str:
        return f"attempt of {self.version}"

    @property
    def team(self) -> Team:
        return self.version.team

    @property
    def findings(self) -> list[Finding]:
        return findings_from_json(self.findings_data)
