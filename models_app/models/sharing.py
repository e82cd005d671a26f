"""Share links: a secret, expiring, revocable, counted way to one file."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from django.conf import settings
from django.db import models
from django.utils import timezone

from models_app.models.catalog import Artifact
from models_app.models.teams import Team

if TYPE_CHECKING:
    from models_app.models.teams import Person


def token_hash(token: str) -> str:
    """What is stored of a token. It has 256 random bits, so a plain sha256 is enough: there is nothing to guess."""
    return hashlib.sha256(token.encode()).hexdigest()


class ShareLinkQuerySet(models.QuerySet["ShareLink"]):
    def visible_to(self, user: Person) -> ShareLinkQuerySet:
        """The links of the teams this person belongs to."""
        return self.filter(artifact__version__model__team__in=Team.objects.visible_to(user))

    def usable(self) -> ShareLinkQuerySet:
        """Links that are neither revoked nor past their end."""
        return self.filter(revoked_at__isnull=True, expires_at__gt=timezone.now())

    def opened_by(self, token: str) -> ShareLinkQuerySet:
        """The usable link with this token, if any. Looking up a hash gives nothing away through timing."""
        return self.usable().filter(token_sha256=token_hash(token))


class ShareLink(models.Model):
    """The token itself is shown once, to the person who made the link, and is not kept."""

    artifact = models.ForeignKey(Artifact, on_delete=models.PROTECT, related_name="share_links")
    token_sha256 = models.CharField(max_length=64, unique=True)
    created_by = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.PROTECT, related_name="+")
    created_at = models.DateTimeField(auto_now_add=True)
    expires_at = models.DateTimeField()
    revoked_at = models.DateTimeField(null=True)
    opened_count = models.PositiveIntegerField(default=0)
    downloaded_count = models.PositiveIntegerField(default=0)

    objects = ShareLinkQuerySet.as_manager()

    class Meta:
        ordering = ["-created_at"]

    def __str__(self) -> str:
        return f"link to {self.artifact}"

    @property
    def team(self) -> Team:
        return self.artifact.team

    @property
    def is_usable(self) -> bool:
        return self.revoked_at is None and self.expires_at > timezone.now()
