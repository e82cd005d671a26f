"""Signing in: who did, who failed to, and who has failed too often."""

from __future__ import annotations

import hashlib
from datetime import timedelta

from django.contrib.auth.forms import UsernameField
from django.contrib.auth.models import User
from django.db import transaction
from django.utils import timezone

from models_app.models import Actor, AuditEvent, Tag, Team, record
from worker.errors import TooManyAttempts
from worker.visible import one_line

WINDOW = timedelta(minutes=5)
FAILURES = 10
VISITOR = "somebody"


@transaction.atomic
def record_sign_in(actor: Actor) -> None:
    """Stands in the history of every team the person belongs to."""
    for team in _teams(actor.user):
        record(actor, Tag.USER_SIGNED_IN, team, actor.name)


@transaction.atomic
def record_failed_sign_in(typed: str, address: str | None) -> None:
    """Stands in the history of the account's teams. The actor is not the account: nobody has proven to be it."""
    typed, user = _meant(typed)
    for team in _teams(user):
        record(Actor(None, VISITOR, address), Tag.USER_SIGN_IN_FAILED, team, _account(typed, user))


def check_sign_in_allowed(typed: str, address: str | None) -> None:
    """Raise TooManyAttempts after ten failures on one account from one address within five minutes."""
    typed, user = _meant(typed)
    failures = AuditEvent.objects.filter(
        tag=Tag.USER_SIGN_IN_FAILED,
        subject=_account(typed, user),
        address=address,
        at__gt=timezone.now() - WINDOW,
        team=_teams(user)[0],
    )
    if failures.count() >= FAILURES:
        raise TooManyAttempts(minutes=int(WINDOW.total_seconds() // 60))


def _meant(typed: str) -> tuple[str, User | None]:
    """The name as signing in reads it, and its account: spaces around bob and full-width letters are bob as well."""
    name = str(UsernameField().to_python(typed)).replace("\0", "")  # PostgreSQL takes no NUL
    return name, User.objects.filter(username=name).first()


def _teams(user: User | None) -> list[Team | None]:
    """Where the history of this account is read; None where it is nobody's."""
    return list(Team.objects.visible_to(user).order_by("pk")) or [None] if user else [None]


def _account(typed: str, user: User | None) -> str:
    """The account's name. What is no account may be a password in the wrong field, so only its hash is kept."""
    return one_line(user.username) if user else f"unknown account {hashlib.sha256(typed.encode()).hexdigest()[:8]}"
