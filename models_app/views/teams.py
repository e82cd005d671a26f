"""The members of a team, and what it allows."""

from __future__ import annotations

from django.contrib import messages
from django.http import HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.http import require_POST, require_safe

from models_app.actions import attempts, consents, teams
from models_app.forms import MemberForm, PolicyForm, RoleForm
from models_app.models import Attempt, Consent, Membership, Role, Team
from models_app.views.access import Request, actor, check, may, team_or_404
from models_app.views.errors import telling_refusals
from worker.errors import LarderError, StateError

OF_CONSENTS = ("version__model__team", "given_by")
ATTEMPTS = 50  # the latest, on the page of the settings


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


@require_safe
def settings(request: Request, team: str) -> HttpResponse:
    found = team_or_404(request, team)
    allowed = may(request.user, found)
    context = {
        "team": found,
        "may": allowed,
        "consents": Consent.objects.current().filter(version__model__team=found).select_related(*OF_CONSENTS),
        "attempts": Attempt.objects.of_team(found)[:ATTEMPTS] if allowed["see_attempts"] else [],
    }
    return render(request, "teams/settings.html", context)


@require_POST
def policy(request: Request, team: str) -> HttpResponse:
    found = team_or_404(request, team, "set-policies")
    form = PolicyForm(request.POST)
    with telling_refusals(request):
        if not form.is_valid():
            raise StateError(problem="choose one of the two that are listed")
        allowed = form.cleaned_data["custom_code"] == "yes"
        consents.set_custom_code_policy(actor(request), found, allowed)
        said = "may agree to run the code that a model brings" if allowed else "cannot agree to run any code any more"
        messages.success(request, f"Members who may edit {said}.")
    return redirect("settings", found.slug)


@require_POST
def attempt_seen(request: Request, pk: int) -> HttpResponse:
    attempt = get_object_or_404(Attempt.objects.visible_to(request.user).select_related("version__model__team"), pk=pk)
    check(request, "see-attempts", attempt)
    with telling_refusals(request):
        attempts.see_attempt(actor(request), attempt)
    return redirect("settings", attempt.team.slug)


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
