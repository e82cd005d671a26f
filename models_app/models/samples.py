"""People's own inputs for a version: what each of its conversions is compared and calibrated on, from then on."""

from __future__ import annotations

import re

from django.conf import settings
from django.db import models
from django.db.models import Q

from models_app.models.catalog import ModelVersion
from models_app.models.teams import Team


class SamplesQuerySet(models.QuerySet["Samples"]):
    def current(self) -> SamplesQuerySet:
        """Those that nobody has replaced or removed."""
        return self.filter(ended_at__isnull=True)


class Samples(models.Model):
    """One file of samples; its bytes lie in the store under their sha256, and are read in jobs alone.

    current  conversions that are asked for are made with it
    ended    it was replaced or removed; the conversions that were made with it still name it

    current → ended by one conditional UPDATE whose row count is looked at.
    """

    version = models.ForeignKey(ModelVersion, on_delete=models.PROTECT, related_name="samples")
    name = models.CharField(max_length=255)
    sha256 = models.CharField(max_length=64)
    size = models.PositiveBigIntegerField()  # bytes
    given_by = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.PROTECT, related_name="+")
    given_at = models.DateTimeField(auto_now_add=True)
    ended_at = models.DateTimeField(null=True)

    objects = SamplesQuerySet.as_manager()

    class Meta:
        ordering = ["-pk"]
        verbose_name_plural = "samples"
        constraints = [
            models.UniqueConstraint(fields=["version"], condition=Q(ended_at__isnull=True), name="one_file_of_samples"),
        ]

    def __str__(self) -> str:
        return self.name

    @property
    def is_several(self) -> bool:
        """Were several files given, so that the name is not one of a file that anybody has?"""
        return re.search(r" \+ \d+ more$", self.name) is not None

    @property
    def team(self) -> Team:
        return self.version.team


def samples_of(version: ModelVersion) -> Samples | None:
    """The current ones of the version."""
    return Samples.objects.current().filter(version=version).select_related("given_by").first()
