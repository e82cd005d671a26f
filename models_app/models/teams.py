"""Teams, who belongs to them, and the one question about permissions: ``can``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.conf import settings
from django.contrib.auth.models import AbstractBaseUser, AnonymousUser
from django.db import models
from django.urls import reverse

if TYPE_CHECKING:
    Person = AbstractBaseUser | AnonymousUser


class Role(models.TextChoices):
    """What a member may do; each role may do what the ones before it may."""

    VIEWER = "viewer", "Viewer"  # looks and downloads
    EDITOR = "editor", "Editor"  # uploads, converts, shares
    OWNER = "owner", "Owner"  # everything


RANK = {role: rank for rank, role in enumerate(Role.values)}

# The least role for each act. An act that is not listed here is a mistake and raises KeyError.
LEAST_ROLE = {
    "view": Role.VIEWER,
    "download": Role.VIEWER,
    "upload": Role.EDITOR,
    "convert": Role.EDITOR,
    "share": Role.EDITOR,
    "quarantine": Role.EDITOR,
    "release": Role.OWNER,  # of a file in quarantine: whoever answers for the team answers for this
    "consent": Role.EDITOR,  # to running a model's own Python code in jobs, where the team's policy allows that
    "set-policies": Role.OWNER,
    "see-attempts": Role.OWNER,  # of files that reached for what no model needs
    "manage-members": Role.OWNER,
}


class TeamQuerySet(models.QuerySet["Team"]):
    def visible_to(self, user: Person) -> TeamQuerySet:
        """The teams this person belongs to."""
        return self.filter(memberships__user_id=user.pk) if user.pk else self.none()


class Team(models.Model):
    """People who keep models together. Everything but accounts belongs to exactly one team."""

    slug = models.SlugField(max_length=64, unique=True)
    name = models.CharField(max_length=100)
    created_at = models.DateTimeField(auto_now_add=True)
    custom_code_allowed = models.BooleanField(default=False)  # may members agree to run the code that a model brings?

    objects = TeamQuerySet.as_manager()

    def __str__(self) -> str:
        return self.name

    def get_absolute_url(self) -> str:
        return reverse("team", args=[self.slug])

    def role_of(self, user: Person) -> Role | None:
        """The person's role in this team, or None for an outsider."""
        found = self.memberships.filter(user_id=user.pk).values_list("role", flat=True).first() if user.pk else None
        return Role(found) if found else None


class Membership(models.Model):
    """One person in one team, with one role."""

    team = models.ForeignKey(Team, on_delete=models.CASCADE, related_name="memberships")
    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="memberships")
    role = models.CharField(max_length=10, choices=Role.choices)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["team", "user"], name="one_membership_per_person"),
            models.CheckConstraint(condition=models.Q(role__in=Role.values), name="membership_role_is_known"),
        ]

    def __str__(self) -> str:
        return f"{self.user} is {self.role} of {self.team}"


def allowed(role: Role | None, act: str) -> bool:
    """Does the role cover the act? None is an outsider, who may do nothing."""
    least = LEAST_ROLE[act]
    return role is not None and RANK[role] >= RANK[least]


def can(user: Person, act: str, thing: Any) -> bool:
    """May this person do ``act`` (see LEAST_ROLE) to the team, or to anything that has a ``team``?"""
    team: Team = thing if isinstance(thing, Team) else thing.team
    return allowed(team.role_of(user), act)
