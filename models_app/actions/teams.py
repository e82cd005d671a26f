"""Who belongs to a team, and as what."""

from __future__ import annotations

from django.contrib.auth.models import User
from django.db import IntegrityError, transaction
from django.db.models import Q
from django.utils.text import slugify

from models_app.models import Actor, Membership, Role, Tag, Team, record
from worker.errors import StateError, UnknownAccount


@transaction.atomic
def create_team(actor: Actor, name: str, slug: str = "") -> Team:
    """A new team whose owner is the actor."""
    team = Team.objects.create(name=name, slug=slug or slugify(name))
    if actor.user:
        team.memberships.create(user=actor.user, role=Role.OWNER)
    record(actor, Tag.TEAM_CREATED, team, team)
    return team


def add_member(actor: Actor, team: Team, who: str, role: str) -> Membership:
    """Let somebody in who has an account here; ``who`` is a user name or an e-mail address."""
    user = _find_account(who)
    try:
        with transaction.atomic():
            membership = team.memberships.create(user=user, role=Role(role))
            record(actor, Tag.MEMBER_ADDED, team, user, role=role)
    except IntegrityError:
        raise StateError(problem=f"{user} is a member of {team} already") from None
    return membership


@transaction.atomic
def change_role(actor: Actor, membership: Membership, role: str) -> None:
    """Give a member another role. StateError where this would leave the team without an owner."""
    before = membership.role
    if role != Role.OWNER:
        _keep_an_owner(membership)
    if not Membership.objects.filter(pk=membership.pk, role=before).update(role=Role(role)):
        raise _changed_meanwhile(membership)
    record(actor, Tag.MEMBER_ROLE_CHANGED, membership.team, membership.user, before=before, after=role)


@transaction.atomic
def remove_member(actor: Actor, membership: Membership) -> None:
    """Take somebody out. StateError where this would leave the team without an owner."""
    _keep_an_owner(membership)
    if not Membership.objects.filter(pk=membership.pk).delete()[0]:
        raise _changed_meanwhile(membership)
    record(actor, Tag.MEMBER_REMOVED, membership.team, membership.user, role=membership.role)


def _find_account(who: str) -> User:
    """The one active account; an e-mail address that two accounts share names nobody."""
    found = User.objects.filter(Q(username=who) | Q(email__iexact=who), is_active=True)[:2]
    if len(found) != 1:
        raise UnknownAccount(who=who)
    return found[0]


def _changed_meanwhile(membership: Membership) -> StateError:
    return StateError(problem=f"somebody else has just changed what {membership.user} may do in {membership.team}")


def _keep_an_owner(membership: Membership) -> None:
    team = Team.objects.select_for_update().get(pk=membership.team_id)  # two owners must not remove each other at once
    owners = team.memberships.filter(role=Role.OWNER)
    if not owners.exclude(pk=membership.pk).exists():
        raise StateError(problem=f"{membership.user} is the last owner of {team}; make somebody else an owner first")
