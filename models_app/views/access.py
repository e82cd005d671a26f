"""Who asks, and whether they may. Outsiders get 404 for everything of a team, members without the role get 403."""

from __future__ import annotations

from typing import Any

from django.contrib.auth.models import User
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest
from django.shortcuts import get_object_or_404

from models_app.models import Actor, Team, can
from models_app.models.teams import LEAST_ROLE, allowed


class Request(HttpRequest):
    """A request of somebody who is signed in; LoginRequiredMiddleware has seen to that."""

    user: User


def address(request: HttpRequest) -> str | None:
    """Where the request comes from; empty behind a unix socket."""
    return request.META.get("REMOTE_ADDR") or None


def actor(request: Request) -> Actor:
    return Actor.of(request.user, address(request))


def team_or_404(request: Request, slug: str, act: str = "view") -> Team:
    """The team, if this person belongs to it and may do ``act`` there."""
    team = get_object_or_404(Team.objects.visible_to(request.user), slug=slug)
    check(request, act, team)
    return team


def check(request: Request, act: str, thing: Any) -> None:
    """Refuse with 403 what the person's role does not allow."""
    if not can(request.user, act, thing):
        least = LEAST_ROLE[act].label.lower()
        raise PermissionDenied(
            f"This needs the role {least} in the team, or a higher one. Ask an owner of the team for it."
        )


def may(user: User, team: Team) -> dict[str, bool]:
    """What the person may do in this team, for templates."""
    role = team.role_of(user)
    return {act.replace("-", "_"): allowed(role, act) for act in LEAST_ROLE}
