"""Having seen what a file tried."""

from __future__ import annotations

from django.db import transaction
from django.utils import timezone

from models_app.models import Actor, Attempt, Tag, record
from worker.errors import StateError


@transaction.atomic
def see_attempt(actor: Actor, attempt: Attempt) -> None:
    """The owners of the team are not told of it any more. StateError where somebody else said so before."""
    seen = {"seen_at": timezone.now(), "seen_by": actor.person}
    if not Attempt.objects.unseen().filter(pk=attempt.pk).update(**seen):
        raise StateError(problem="somebody else has seen it already")
    record(actor, Tag.ATTEMPT_SEEN, attempt.team, attempt.version, attempt=attempt.pk)
