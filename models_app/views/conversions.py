"""Asking for formats, watching the work, and reading what came out."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.contrib import messages
from django.http import Http404, HttpResponse, JsonResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.utils import timezone
from django.views.decorators.http import require_POST, require_safe
from django.views.decorators.vary import vary_on_headers

from models_app.actions import conversions
from models_app.models import Conversion, ModelVersion, WorkerNode
from models_app.views import access
from models_app.views.access import Request, actor, may
from models_app.views.catalog import fragment_or_page, version_or_404
from models_app.views.errors import telling_refusals
from models_app.views.reports import document, repeat
from models_app.views.rows import SHARE_CHOICES, by_severity, file_row, format_of, labels
from worker import routes
from worker.errors import LarderError
from worker.formats._format import Format
from worker.options import SIGNATURE
from worker.report import findings_from_json

State = Conversion.State


@dataclass(frozen=True)
class StepRow:
    """One line of the timeline; ``state`` is done, current or failed."""

    text: str
    at: datetime | None
    state: str


@require_POST
def convert(request: Request, team: str, model: str, number: int) -> HttpResponse:
    version = version_or_404(request, team, model, number)
    access.check(request, "convert", version)
    targets = list(dict.fromkeys(request.POST.getlist("target")))
    if len(targets) == 1:
        asked = conversions.request_conversion(actor(request), version, targets[0], _options(request, targets[0]))
        return redirect(asked)
    for target in targets:
        _request_one_of_several(request, version, target)
    if not targets:
        messages.error(request, "Nothing was asked for: choose at least one format.")
    return redirect(version)


def _request_one_of_several(request: Request, version: ModelVersion, target: str) -> None:
    """One impossible format does not keep the others from being asked for."""
    with telling_refusals(request):
        conversions.request_conversion(actor(request), version, target, _options(request, target))


def _options(request: Request, target: str) -> dict[str, str]:
    prefix = f"{target}."
    typed = {name: str(request.POST[name]) for name in request.POST if name.startswith(prefix)}
    return {name.removeprefix(prefix): value for name, value in typed.items() if value}


def _conversion_or_404(request: Request, pk: uuid.UUID) -> Conversion:
    related = ("version__model__team", "version__uploaded_by", "requested_by", "artifact__version__model__team")
    visible = Conversion.objects.visible_to(request.user).select_related("samples", *related)
    return get_object_or_404(visible, pk=pk)


@vary_on_headers("HX-Request")
@require_safe
def conversion(request: Request, pk: uuid.UUID) -> HttpResponse:
    found = _conversion_or_404(request, pk)
    context = _context(found) | {"may": may(request.user, found.team)}
    page = fragment_or_page(request, "conversions/_conversion.html", "conversions/conversion.html")
    return render(request, page, context)


@require_POST
def cancel(request: Request, pk: uuid.UUID) -> HttpResponse:
    found = _conversion_or_404(request, pk)
    access.check(request, "convert", found)
    conversions.cancel_conversion(actor(request), found)
    return redirect(found)


@require_safe
def report(request: Request, pk: uuid.UUID) -> HttpResponse:
    found = _conversion_or_404(request, pk)
    if found.report_data is None:
        raise Http404
    name = f"{found.version.model.slug}-v{found.version.number}-{found.target}-report.json"
    headers = {"Content-Disposition": f'attachment; filename="{name}"'}
    return JsonResponse(document(found), headers=headers, json_dumps_params={"indent": 2})


def _context(conversion: Conversion) -> dict[str, Any]:
    version, report, target = conversion.version, conversion.report, format_of(conversion.target)
    source = version.source
    return {
        "team": version.team,
        "model": version.model,
        "version": version,
        "conversion": conversion,
        "route": labels(report.route if report else _planned_route(conversion, source.format)),
        "format": target,
        "renews": source.format == conversion.target,
        "approximate": target is not None and _is_approximate(target, conversion),
        "runs_here": target is not None and target.load is not None,
        "source_format": format_of(source.format),
        "steps": list(_steps(conversion)),
        "position": _position(conversion),
        "elapsed_seconds": _elapsed(conversion),
        "report": report,
        "repeat": "\n".join(filter(None, (repeat(conversion) or {}).values())),
        "findings": by_severity(report.findings) if report else [],
        "error": conversion.error,
        "attempts": findings_from_json((conversion.error or {}).get("details", {}).get("attempts", ())),
        "file": file_row(conversion.artifact, conversion) if conversion.artifact else None,
        "share_choices": SHARE_CHOICES,
        "worker_problem": "" if conversion.is_final else WorkerNode.objects.problem(),
        "poll_seconds": _poll_seconds(conversion),
    }


def _is_approximate(target: Format, conversion: Conversion) -> bool:
    """Do its options ask for a result that only comes close to the source?"""
    tolerance = target.tolerance_with(conversion.options)
    return tolerance.rtol > target.tolerance.rtol or tolerance.atol > target.tolerance.atol


def _planned_route(conversion: Conversion, source: str) -> tuple[str, ...]:
    try:
        summary = conversion.version.summary.of_signature(conversion.options.get(SIGNATURE, ""))
        return routes.find_route(source, conversion.target, summary)
    except LarderError:  # a format that has since been removed
        return (source, conversion.target)


def _steps(conversion: Conversion) -> Iterator[StepRow]:
    """The timeline: nothing but what has happened, with its time."""
    waiting = conversion.state == State.QUEUED
    yield StepRow("Queued", conversion.requested_at, "current" if waiting else "done")
    for place, stage in enumerate(conversion.stages, start=1):
        last = place == len(conversion.stages)
        now = last and conversion.state == State.RUNNING
        yield StepRow(stage["text"], datetime.fromisoformat(stage["at"]), "current" if now else "done")
    if conversion.is_final:
        failed = conversion.state != State.SUCCEEDED
        yield StepRow(conversion.get_state_display(), conversion.finished_at, "failed" if failed else "done")


def _position(conversion: Conversion) -> int:
    """How many are queued before it."""
    if conversion.state != State.QUEUED:
        return 0
    return Conversion.objects.filter(state=State.QUEUED, requested_at__lt=conversion.requested_at).count()


def _elapsed(conversion: Conversion) -> float:
    end = conversion.finished_at or timezone.now()
    return round((end - conversion.requested_at).total_seconds(), 1)


def _poll_seconds(conversion: Conversion) -> float:
    """Often while the answer may come at any moment, seldom for long work."""
    if conversion.is_final:
        return 0
    elapsed = _elapsed(conversion)
    return 0.25 if elapsed < 5 else 1 if elapsed < 60 else 5
