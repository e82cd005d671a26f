"""Work that one worker at a time holds: a lease with a token, renewed while the work goes on."""

from __future__ import annotations

import uuid
from datetime import datetime, timedelta

from django.conf import settings
from django.db import models
from django.db.models import Q
from django.utils import timezone


class Leased(models.Model):
    """What a row needs so that workers may die at any moment and the work is neither lost nor published twice.

    A worker takes the row with one conditional UPDATE that sets a fresh ``lease_token`` and counts the ``attempt``.
    It renews ``lease_until`` while it works, and everything it writes is conditional on the token still being its own.
    """

    attempt = models.PositiveSmallIntegerField(default=0)
    lease_token = models.UUIDField(null=True)
    lease_until = models.DateTimeField(null=True)
    dispatched_at = models.DateTimeField(null=True)  # when a worker was last told; a hint, never a proof

    class Meta:
        abstract = True


def new_lease() -> dict[str, uuid.UUID | datetime]:
    """A token nobody else has, and until when it holds."""
    return {"lease_token": uuid.uuid4(), "lease_until": lease_end()}


def lease_end() -> datetime:
    return timezone.now() + timedelta(seconds=settings.LEASE_SECONDS)


def expired() -> Q:
    """The holder has been silent for longer than its lease."""
    return Q(lease_token__isnull=False, lease_until__lt=timezone.now())


def untold() -> Q:
    """No worker was told for so long that the message must be lost, or was never sent."""
    long_ago = timezone.now() - timedelta(seconds=2 * settings.LEASE_SECONDS)
    return Q(dispatched_at__isnull=True) | Q(dispatched_at__lt=long_ago)
