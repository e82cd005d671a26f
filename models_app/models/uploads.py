"""Uploads: bytes that have arrived but are not yet a version."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING

from django.conf import settings
from django.db import models

from models_app.models.teams import Team

if TYPE_CHECKING:
    from models_app.models.teams import Person


class UploadQuerySet(models.QuerySet["Upload"]):
    def visible_to(self, user: Person) -> UploadQuerySet:
        """Only one's own uploads, and only in teams one still belongs to."""
        return self.filter(team__in=Team.objects.visible_to(user), user_id=user.pk)


class Upload(models.Model):
    """One file that a person sent. ``sha256`` names its bytes in the store once all of them are there."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    team = models.ForeignKey(Team, on_delete=models.CASCADE, related_name="uploads")
    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="+")
    name = models.CharField(max_length=255)
    size = models.PositiveBigIntegerField()  # bytes
    sha256 = models.CharField(max_length=64)
    created_at = models.DateTimeField(auto_now_add=True)

    objects = UploadQuerySet.as_manager()

    def __str__(self) -> str:
        return self.name
