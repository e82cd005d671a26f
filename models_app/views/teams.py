"""The members of a team."""

from __future__ import annotations

from django.contrib import messages
from django.http import HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.http import require_POST, require_safe

from models_app.actions import teams
from models_app.forms import MemberForm, RoleForm
from models_app.models import Membership, Role, Team
from models_app.views.access import Request, actor, may, team_or_404
from worker.errors import LarderError


@require_safe
def members(request: Request, team: str) -> HttpResponse:
    return _page(request, team_or_404(request, team), MemberForm())


def _page(request: Request, team: Team, form: MemberForm, status: int = 200) -> HttpResponse:
    context = {
        "team": team,
        "may": may(request.user, team),
        "members": team.memberships.select_related("user").order_by("user__username"),
        "form": form,
        "roles": Role.choices,
    }
    return render(request, "teams/members.html", context, status=status)


@require_POST
def member_add(request: Request, team: str) -> HttpResponse:
    found = team_or_404(request, team, "manage-members")
    form = MemberForm(request.POST)
    if not form.is_valid():
        return _page(request, found, form, 400)
    try:
        added = teams.add_member(actor(request), found, **form.cleaned_data)
    except LarderError as error:
        form.add_error("who", error.message)
        return _page(request, found, form, error.http_status)
    messages.success(request, f"{added.user} is now {added.get_role_display().lower()} of {found}.")
    return redirect("members", found.slug)


def _membership(request: Request, team: str, pk: int) -> Membership:
    found = team_or_404(request, team, "manage-members")
    return get_object_or_404(found.memberships.select_related("user", "team"), pk=pk)


@require_POST
def member_role(request: Request, team: str, pk: int) -> HttpResponse:
    membership = _membership(request, team, pk)
    form = RoleForm(request.POST)
    if not form.is_valid():
        messages.error(request, "Choose one of the roles that are listed.")
        return redirect("members", team)
    teams.change_role(actor(request), membership, form.cleaned_data["role"])
    messages.success(request, f"{membership.user} is now {Role(form.cleaned_data['role']).label.lower()}.")
    return redirect("members", team)


@require_POST
def member_remove(request: Request, team: str, pk: int) -> HttpResponse:
    membership = _membership(request, team, pk)
    teams.remove_member(actor(request), membership)
    messages.success(request, f"{membership.user} is no longer a member.")
    left = membership.user_id == request.user.pk
    return redirect("home") if left else redirect("members", team)
