"""The walls around jobs, as the operator's settings have them."""

from __future__ import annotations

from django.conf import settings

from worker.sandbox.client import Walls


def walls() -> Walls:
    """From ``LARDER_SANDBOX_INSIDE`` and ``_USER``, ``LARDER_WEAK_SANDBOX`` and ``LARDER_SANDBOX_CGROUP``."""
    inside = tuple(settings.SANDBOX_INSIDE)
    return Walls(inside, settings.SANDBOX_USER, settings.WEAK_SANDBOX, settings.SANDBOX_CGROUP)
