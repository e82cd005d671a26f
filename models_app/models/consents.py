"""Consent: that a person agreed to run the Python code that one version brings, in jobs and nowhere else."""

from __future__ import annotations

from django.conf import settings
from django.db import models
from django.db.models import Q

from models_app.models.catalog import ModelVersion
from models_app.models.fields import PlainJSONField
from models_app.models.teams import Role, Team
from worker.errors import ConsentNeeded

AGREE = "A member of the team who may edit can agree to that on the page of this version."
ASK = (
    "The policy of the team {team} does not allow that. Its owner ({owners}) can change the policy in the team's "
    "settings; then a member who may edit can agree on the page of this version."
)
NEEDED_FOR = ("custom-code", "lambda-refused")  # the errors of models that do not load without


class ConsentQuerySet(models.QuerySet["Consent"]):
    def current(self) -> ConsentQuerySet:
        """Those that nobody has taken back."""
        return self.filter(ended_at__isnull=True)

    def in_effect(self) -> ConsentQuerySet:
        """The current ones of teams whose policy allows it, at this moment."""
        return self.current().filter(version__model__team__custom_code_allowed=True)


class Consent(models.Model):
    """One person's word for one version, whose file and code never change.

    current  the version's jobs run its code, as long as the team's policy allows that
    ended    somebody took it back, or the policy was changed; no job begins with it any more

    current → ended by one conditional UPDATE whose row count is looked at.
    """

    version = models.ForeignKey(ModelVersion, on_delete=models.PROTECT, related_name="consents")
    names = PlainJSONField(default=list)  # the classes, functions and Lambda layers that were shown
    file_sha256 = models.CharField(max_length=64)
    code_sha256 = models.CharField(max_length=64, blank=True)
    given_by = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.PROTECT, related_name="+")
    given_at = models.DateTimeField(auto_now_add=True)
    ended_by = models.ForeignKey(settings.AUTH_USER_MODEL, null=True, on_delete=models.PROTECT, related_name="+")
    ended_at = models.DateTimeField(null=True)

    objects = ConsentQuerySet.as_manager()

    class Meta:
        ordering = ["-pk"]
        constraints = [
            models.UniqueConstraint(
                fields=["version"], condition=Q(ended_at__isnull=True), name="one_consent_at_a_time"
            ),
            models.CheckConstraint(
                condition=Q(ended_at__isnull=True, ended_by__isnull=True)
                | Q(ended_at__isnull=False, ended_by__isnull=False),
                name="consent_is_ended_by_somebody",
            ),
        ]

    def __str__(self) -> str:
        return f"consent for {self.version}"

    @property
    def team(self) -> Team:
        return self.version.team


def consent_of(version: ModelVersion) -> Consent | None:
    """What the version's jobs may go by now."""
    return Consent.objects.in_effect().filter(version=version).select_related("given_by").first()


def needs_consent(version: ModelVersion) -> bool:
    """Does it not load for want of code that nobody has agreed to run?"""
    return bool(version.error) and version.error.get("code") in NEEDED_FOR


def refusal(version: ModelVersion) -> ConsentNeeded:
    """Why its code does not run, and who can do what about that."""
    team = version.team
    names = ", ".join(version.summary.code) or (version.error or {}).get("details", {}).get("names", "")
    if Team.objects.filter(pk=team.pk, custom_code_allowed=True).exists():
        return ConsentNeeded(names=names, advice=AGREE)
    owners = team.memberships.filter(role=Role.OWNER).order_by("user__username")
    said = " or ".join(owners.values_list("user__username", flat=True)[:3])
    return ConsentNeeded(names=names, advice=ASK.format(team=team, owners=said))
