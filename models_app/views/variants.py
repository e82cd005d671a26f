"""The variants of a version: having them measured, having those of TensorFlow Lite made, and the table as JSON."""

from __future__ import annotations

from django.http import HttpResponse, JsonResponse
from django.shortcuts import redirect
from django.views.decorators.http import require_POST, require_safe

from models_app.actions import variants
from models_app.models import ModelVersion
from models_app.views import access
from models_app.views.access import Request, actor
from models_app.views.catalog import version_or_404
from models_app.views.errors import telling_refusals
from models_app.views.variant_rows import document


@require_safe
def table(request: Request, team: str, model: str, number: int) -> HttpResponse:
    version = version_or_404(request, team, model, number)
    headers = {"Content-Disposition": f'attachment; filename="{version.model.slug}-v{number}-variants.json"'}
    return JsonResponse(document(version), headers=headers, json_dumps_params={"indent": 2})


@require_POST
def measure(request: Request, team: str, model: str, number: int) -> HttpResponse:
    version = version_or_404(request, team, model, number)
    access.check(request, "convert", version)
    with telling_refusals(request):
        variants.request_measurement(actor(request), version)
    return _back(version)


@require_POST
def make(request: Request, team: str, model: str, number: int) -> HttpResponse:
    version = version_or_404(request, team, model, number)
    access.check(request, "convert", version)
    with telling_refusals(request):
        variants.request_missing_precisions(actor(request), version)
    return _back(version)


def _back(version: ModelVersion) -> HttpResponse:
    return redirect(f"{version.get_absolute_url()}#variants")
