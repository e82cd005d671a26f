"""Files that are not handed out: why, who let which out again, and doing either."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.contrib import messages
from django.http import Http404, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.http import require_POST, require_safe

from models_app.actions import quarantine
from models_app.forms import ReasonForm
from models_app.models import Artifact
from models_app.views import access
from models_app.views.access import Request, actor, may
from models_app.views.rows import file_row

PEOPLE = ("put_by", "released_by")


def _artifact_or_404(request: Request, pk: int) -> Artifact:
    artifacts = Artifact.objects.visible_to(request.user).select_related("version__model__team")
    return get_object_or_404(artifacts, pk=pk)


@require_safe
def stays(request: Request, pk: int) -> HttpResponse:
    return _page(request, _artifact_or_404(request, pk), ReasonForm())


@require_POST
def release(request: Request, pk: int) -> HttpResponse:
    return _with_reason(request, pk, "release", _release)


@require_POST
def again(request: Request, pk: int) -> HttpResponse:
    return _with_reason(request, pk, "quarantine", _put_again)


def _with_reason(request: Request, pk: int, action: str, do: Callable[[Request, Artifact, str], None]) -> HttpResponse:
    """Do to the file what takes a written reason; without one, the form again."""
    artifact = _artifact_or_404(request, pk)
    access.check(request, action, artifact)
    form = ReasonForm(request.POST)
    if not form.is_valid():
        return _page(request, artifact, form, status=400)
    do(request, artifact, form.cleaned_data["reason"])
    return redirect("quarantine", pk)


def _release(request: Request, artifact: Artifact, reason: str) -> None:
    quarantine.release(actor(request), artifact, reason)
    if artifact.quarantine:
        said = f"{artifact} is released, but another file with the same bytes is still in quarantine."
        messages.warning(request, said)
    else:
        said = f"{artifact} is released: it can be downloaded and shared, and says that you released it."
        messages.success(request, said)


def _put_again(request: Request, artifact: Artifact, reason: str) -> None:
    quarantine.put_again(actor(request), artifact, reason)
    messages.success(request, f"{artifact} is in quarantine again.")


def _page(request: Request, artifact: Artifact, form: ReasonForm, status: int = 200) -> HttpResponse:
    found = list(artifact.quarantines.select_related(*PEOPLE))
    if not found:
        raise Http404
    return render(request, "quarantine/quarantine.html", _context(request, artifact, found, form), status=status)


def _context(request: Request, artifact: Artifact, found: list[Any], form: ReasonForm) -> dict[str, Any]:
    conversion = artifact.conversions.first()
    report = conversion.report if conversion else None
    row = file_row(artifact, conversion)
    return {
        "team": artifact.team,
        "model": artifact.version.model,
        "version": artifact.version,
        "may": may(request.user, artifact.team),
        "file": row,
        "stays": found,
        "latest": row.quarantine or found[-1],
        "conversion": conversion,
        "failed": [check for check in report.checks if check.passed is False] if report else [],
        "form": form,
    }
