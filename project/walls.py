"""The walls around jobs, as the operator's settings have them."""

from __future__ import annotations

from django.conf import settings

from worker.sandbox.client import Walls


def walls() -> Walls:
    """From ``LARDER_SANDBOX_INSIDE``, ``LARDER_SANDBOX_USER`` and ``LARDER_WEAK_SANDBOX``."""
    return Walls(tuple(settings.SANDBOX_INSIDE), settings.SANDBOX_USER, settings.WEAK_SANDBOX)
