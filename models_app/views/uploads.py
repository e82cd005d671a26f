"""Taking files: one by one from the script, or all at once from a plain form."""

from __future__ import annotations

import uuid
from typing import Any

from django.conf import settings
from django.contrib import messages
from django.core.files.uploadedfile import UploadedFile
from django.core.files.uploadhandler import TemporaryFileUploadHandler
from django.http import HttpResponse, JsonResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.views.decorators.csrf import csrf_exempt, csrf_protect
from django.views.decorators.http import require_http_methods, require_POST

from models_app import storage
from models_app.actions import catalog, uploads
from models_app.forms import FinishForm, UploadForm
from models_app.models import ModelVersion, Team, Upload
from models_app.views.access import Request, actor, may, team_or_404
from models_app.views.errors import answers_json
from worker import formats
from worker.errors import LarderError, LengthRequired, UploadError

FORM_BYTES = 1024 * 1024  # what the fields around the files may take
RAW_TYPE = "application/octet-stream"
ARCHIVES = (".zip", ".tar.gz")
KNOWN_PARTS = (
    ("Architecture and weights", "model.json or .yaml with .npz, .npy, .safetensors, .h5, .pkl or a checkpoint"),
    ("SavedModel", "the folder with saved_model.pb and variables/"),
    ("TensorFlow 1 checkpoint", ".meta, .index and .data files"),
    ("TensorFlow.js", "model.json and the .bin files that it names"),
    ("ONNX", ".onnx and the files with its weights"),
    ("OpenVINO", ".xml and .bin"),
    ("Core ML", "the .mlpackage folder"),
    ("Keras, unpacked", "config.json, metadata.json and model.weights.h5"),
    ("Code of your own", "custom_objects.py beside the model: kept, and run by nobody before a member agrees"),
)


# Looking for the CSRF token in a form reads all of the body, so the checks that come before the first byte stand in an
# exempt view around the protected one.
@csrf_exempt
@require_http_methods(["GET", "HEAD", "POST"])
def upload(request: Request, team: str) -> HttpResponse:
    found = team_or_404(request, team, "upload")
    if request.method == "POST":
        refused = _refuse_early(request, found, settings.MAX_UPLOAD_BYTES + FORM_BYTES)
        if refused:
            return _page(request, found, UploadForm(found), refused)
        request.upload_handlers = [TemporaryFileUploadHandler(request)]
    return _upload(request, found)


@csrf_protect
def _upload(request: Request, team: Team) -> HttpResponse:
    if request.method != "POST":
        return _page(request, team, UploadForm(team, initial={"model": request.GET.get("model")}))
    form = UploadForm(team, request.POST, request.FILES)
    if not form.is_valid():
        return _page(request, team, form, status=400)
    try:
        return redirect(_address(request, _receive_form(request, team, form)))
    except LarderError as error:
        return _page(request, team, form, error)


def _receive_form(request: Request, team: Team, form: UploadForm) -> ModelVersion:
    files: list[UploadedFile[Any]] = form.cleaned_data["files"]
    who = actor(request)
    received = [uploads.receive(who, team, file.name or "", file, file.size) for file in files]
    return catalog.add_version(who, team, received, form.cleaned_data["name"], form.cleaned_data["model"])


def _page(
    request: Request, team: Team, form: UploadForm, error: LarderError | None = None, status: int = 200
) -> HttpResponse:
    context = {
        "team": team,
        "may": may(request.user, team),
        "form": form,
        "error": error.to_json() if error else None,
        "known_files": _known_files(),
        "known_parts": KNOWN_PARTS,
    }
    return render(request, "uploads/upload.html", context, status=error.http_status if error else status)


def _known_files() -> list[tuple[str, list[str]]]:
    """The formats that are one file of their own, with their suffixes."""
    known = [(item.label, [end for end in item.suffixes if end not in ARCHIVES]) for item in formats.formats().values()]
    return [(label, suffixes) for label, suffixes in known if suffixes]


@csrf_exempt
@answers_json
@require_POST
def upload_raw(request: Request, team: str) -> HttpResponse:
    """One file as the request's whole body; see ``upload`` for why the checks come first."""
    found = team_or_404(request, team, "upload")
    if refused := _refuse_early(request, found, settings.MAX_UPLOAD_BYTES):
        raise refused
    if request.content_type != RAW_TYPE:
        raise UploadError(reason=f"expected the bytes themselves as {RAW_TYPE}")
    return _receive_raw(request, found)


@csrf_protect
def _receive_raw(request: Request, team: Team) -> HttpResponse:
    kept = uploads.receive(actor(request), team, request.GET.get("name", ""), request, declared_length(request))
    said = {"id": str(kept.pk), "name": kept.name, "size": kept.size, "sha256": kept.sha256}
    return JsonResponse(said, status=201)


@answers_json
@require_POST
def upload_finish(request: Request, team: str) -> HttpResponse:
    """The files that were sent before become one version."""
    found = team_or_404(request, team, "upload")
    form = FinishForm(found, request.POST)
    if not form.is_valid():
        raise UploadError(reason="; ".join(str(error) for errors in form.errors.values() for error in errors))
    files = _own_uploads(request, found)
    version = catalog.add_version(actor(request), found, files, form.cleaned_data["name"], form.cleaned_data["model"])
    return JsonResponse(_recognised(request, version), status=201)


def _own_uploads(request: Request, team: Team) -> list[Upload]:
    mine = Upload.objects.visible_to(request.user).filter(team=team)
    wanted = request.POST.getlist("upload")
    if not wanted:
        raise UploadError(reason="no file was sent")
    try:
        return [mine.get(pk=pk) for pk in dict.fromkeys(map(uuid.UUID, wanted))]
    except (ValueError, Upload.DoesNotExist):
        raise UploadError(reason="a file that was sent before is not there any more; send it again") from None


def _recognised(request: Request, version: ModelVersion) -> dict[str, Any]:
    slug = version.source.format
    return {
        "url": _address(request, version),
        "format": slug,
        "label": formats.get(slug).label,
        "recognised_by": version.recognised_by,
    }


def _address(request: Request, version: ModelVersion) -> str:
    """Where to go after an upload. Who brings a pickle is told first why Larder does not open it."""
    earlier = catalog.earlier_copy(version)
    if earlier:
        messages.info(request, f"The very same file is {earlier} already.")
    if version.source.format == "pickle":
        return f"{reverse('why-not-pickle')}?version={version.pk}"
    return version.get_absolute_url()


def _refuse_early(request: Request, team: Team, limit: int) -> UploadError | None:
    """What can be known before the first byte, recorded like every refusal. None: go on."""
    length = declared_length(request)
    name = uploads.clean_name(request.GET.get("name", ""))
    try:
        with uploads.refusals(actor(request), team, name):
            if length is None:
                raise LengthRequired
            if length > limit:
                raise storage.too_large(length, settings.MAX_UPLOAD_BYTES, name)
    except UploadError as error:
        return error
    return None


def declared_length(request: Request) -> int | None:
    """The declared length. With Transfer-Encoding there is none that can be trusted, and Django would read 0 bytes."""
    declared = request.META.get("CONTENT_LENGTH") or ""
    if "HTTP_TRANSFER_ENCODING" in request.META or not declared.isdecimal():
        return None
    return int(declared)
