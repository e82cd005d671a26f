"""Giving a version samples, and removing them: a form on the version's page."""

from __future__ import annotations

from django.conf import settings
from django.contrib import messages
from django.core.files.uploadhandler import TemporaryFileUploadHandler
from django.http import HttpResponse
from django.shortcuts import redirect
from django.views.decorators.csrf import csrf_exempt, csrf_protect
from django.views.decorators.http import require_POST

from models_app.actions import samples
from models_app.actions.uploads import refusals
from models_app.forms import SamplesForm
from models_app.models import ModelVersion
from models_app.views.access import Request, actor, check
from models_app.views.catalog import version_or_404
from models_app.views.errors import telling_refusals
from models_app.views.uploads import FORM_BYTES, declared_length
from worker.errors import LengthRequired, UploadError


@csrf_exempt  # what comes before the first byte of the body is checked first; the inner view asks for the token
@require_POST
def give(request: Request, team: str, model: str, number: int) -> HttpResponse:
    version = version_or_404(request, team, model, number)
    check(request, "convert", version)
    with telling_refusals(request):
        _refuse_early(request, version)
        request.upload_handlers = [TemporaryFileUploadHandler(request)]
        return _give(request, version)
    return _back(version)


@csrf_protect
def _give(request: Request, version: ModelVersion) -> HttpResponse:
    form = SamplesForm(request.POST, request.FILES)
    with telling_refusals(request):
        if not form.is_valid():
            raise UploadError(reason="no file was chosen")
        given = samples.give_samples(actor(request), version, form.cleaned_data["files"])
        messages.success(request, f"{given.name} is kept. Whether it fits the model is said below.")
    return _back(version)


@require_POST
def remove(request: Request, team: str, model: str, number: int) -> HttpResponse:
    version = version_or_404(request, team, model, number)
    check(request, "convert", version)
    with telling_refusals(request):
        samples.remove_samples(actor(request), version)
        messages.success(request, "Conversions from now on are compared on inputs that Larder makes up.")
    return _back(version)


def _refuse_early(request: Request, version: ModelVersion) -> None:
    """What can be known before the first byte; it stands in the history."""
    length = declared_length(request)
    with refusals(actor(request), version.team, "samples"):
        if length is None:
            raise LengthRequired
        samples.check_size(length - min(length, FORM_BYTES) if length > settings.MAX_SAMPLES_BYTES else 0, "samples")


def _back(version: ModelVersion) -> HttpResponse:
    return redirect(f"{version.get_absolute_url()}#samples")
