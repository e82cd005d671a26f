"""What an operator asks of the workers."""

from __future__ import annotations

from django.utils import timezone

from models_app.models import WorkerNode
from worker import tasks


def ask_for_check() -> int:
    """Have every worker that is there try its sandbox out again; how many these are."""
    asked = WorkerNode.objects.alive().update(check_asked_at=timezone.now())
    tasks.wake_for_check()
    return asked
