"""Agreeing to run the code of a version, and taking that back: a form on the version's page."""

from __future__ import annotations

from django.contrib import messages
from django.http import HttpResponse
from django.shortcuts import redirect
from django.views.decorators.http import require_POST

from models_app.actions import consents
from models_app.forms import ConsentForm
from models_app.models import ModelVersion
from models_app.views import access
from models_app.views.access import Request, actor
from models_app.views.catalog import version_or_404
from models_app.views.errors import telling_refusals


@require_POST
def agree(request: Request, team: str, model: str, number: int) -> HttpResponse:
    version = version_or_404(request, team, model, number)
    access.check(request, "consent", version)
    with telling_refusals(request):
        if ConsentForm(request.POST).is_valid():
            consents.give_consent(actor(request), version)
            messages.success(
                request, "Larder looks inside again, and runs the code of this version in its jobs from now on."
            )
        else:
            messages.error(request, "Nothing was agreed to: tick the sentence first.")
    return _back(version)


@require_POST
def revoke(request: Request, team: str, model: str, number: int) -> HttpResponse:
    version = version_or_404(request, team, model, number)
    access.check(request, "consent", version)
    with telling_refusals(request):
        consents.revoke_consent(actor(request), version)
        messages.success(request, "The code of this version does not run any more.")
    return _back(version)


def _back(version: ModelVersion) -> HttpResponse:
    return redirect(f"{version.get_absolute_url()}#code")
