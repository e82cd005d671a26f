"""A team's models, their versions and their files."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

from django.conf import settings
from django.core.paginator import Paginator
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseBase
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.http import require_safe
from django.views.decorators.vary import vary_on_headers

from models_app.actions import catalog
from models_app.models import (
    Artifact,
    Attempt,
    AuditEvent,
    Conversion,
    ModelVersion,
    RegisteredModel,
    Samples,
    Team,
    WorkerNode,
)
from models_app.models.quarantine import handed_out
from models_app.models.samples import samples_of
from models_app.views.access import Request, actor, may, team_or_404
from models_app.views.code_rows import code_row
from models_app.views.downloads import send
from models_app.views.refused import instead
from models_app.views.rows import (
    SHARE_CHOICES,
    by_severity,
    file_rows,
    format_of,
    model_rows,
    offer_groups,
    offer_rows,
    rescue,
    version_rows,
)
from models_app.views.variant_rows import variants
from worker import formats
from worker.report import Severity

PAGE_SIZE = 50
EVENTS = 20
ATTEMPTS = 5  # that nobody has seen yet, on the page of the models
TWINS = 5  # versions with the same weights that are named
SORTS = {
    "recent": ("Last changed", "-updated_at"),
    "name": ("Name", "name"),
    "oldest": ("Oldest first", "created_at"),
}


def fragment_or_page(request: HttpRequest, fragment: str, page: str) -> str:
    """htmx asks for the part that changes; everybody else for the page.

    Such views vary on HX-Request, or the browser's Back button shows the part that it has cached for the address.
    """
    wants_part = request.headers.get("HX-Request") == "true" and request.headers.get("HX-Boosted") != "true"
    return fragment if wants_part else page


@require_safe
def home(request: Request) -> HttpResponse:
    teams = list(Team.objects.visible_to(request.user).order_by("name"))
    if len(teams) == 1:
        return redirect(teams[0])
    return render(request, "teams/home.html", {})


@vary_on_headers("HX-Request")
@require_safe
def team(request: Request, team: str) -> HttpResponse:
    found = team_or_404(request, team)
    filters = {name: request.GET.get(name, "").replace("\0", "") for name in ("q", "format", "sort")}
    page = Paginator(_filtered(found, filters), PAGE_SIZE).get_page(request.GET.get("page"))
    rows = model_rows(list(page))
    query = urlencode({name: value for name, value in filters.items() if value})
    allowed = may(request.user, found)
    context = {
        "team": found,
        "may": allowed,
        "attempts": list(Attempt.objects.of_team(found).unseen()[:ATTEMPTS]) if allowed["see_attempts"] else [],
        "rows": rows,
        "page_obj": page,
        "total": found.models.count(),
        "filters": filters,
        "format_choices": [(item.slug, item.label) for item in formats.formats().values()],
        "sort_choices": [(value, label) for value, (label, _) in SORTS.items()],
        "query": f"{query}&" if query else "",
        "poll_seconds": 5 if any(row.running for row in rows) else 0,
    }
    return render(request, fragment_or_page(request, "catalog/_models.html", "catalog/team.html"), context)


def _filtered(team: Team, filters: dict[str, str]) -> QuerySet[RegisteredModel]:
    models = team.models.select_related("team")
    if filters["q"]:
        models = models.filter(name__icontains=filters["q"])
    if filters["format"]:
        having = handed_out().filter(format=filters["format"], version__model__team=team)
        models = models.filter(pk__in=having.values("version__model"))
    return models.order_by(SORTS.get(filters["sort"], SORTS["recent"])[1], "pk")


@require_safe
def model(request: Request, team: str, model: str) -> HttpResponse:
    found = team_or_404(request, team)
    kept = get_object_or_404(found.models.select_related("team"), slug=model)
    versions = kept.versions.select_related("uploaded_by", "model__team")
    context = {"team": found, "may": may(request.user, found), "model": kept, "rows": version_rows(list(versions))}
    return render(request, "catalog/model.html", context)


def version_or_404(request: Request, team: str, model: str, number: int) -> ModelVersion:
    versions = ModelVersion.objects.visible_to(request.user).select_related("model__team", "uploaded_by")
    return get_object_or_404(versions, model__team__slug=team, model__slug=model, number=number)


@vary_on_headers("HX-Request")
@require_safe
def version(request: Request, team: str, model: str, number: int) -> HttpResponse:
    found = version_or_404(request, team, model, number)
    context = _version_context(found) | {
        "may": may(request.user, found.team),
        "twins": _twins(request, found),
        "most_twins": TWINS,
    }
    return render(request, fragment_or_page(request, "catalog/_version.html", "catalog/version.html"), context)


def _version_context(version: ModelVersion) -> dict[str, Any]:
    source = version.source
    files = file_rows(version)
    offers = [] if source.quarantine else offer_rows(version)  # nothing is made of what nobody may have
    waiting, samples = version.state == ModelVersion.State.WAITING, samples_of(version)
    looking = samples is not None and samples.state == Samples.State.WAITING and not version.error
    busy = waiting or looking or Conversion.objects.unfinished().filter(version=version).exists()
    shown = variants(version, offers)
    measuring = bool(shown and shown["waiting"])
    return {
        "team": version.team,
        "model": version.model,
        "version": version,
        "source": source,
        "format": format_of(source.format),
        "is_pickle": source.format == "pickle",
        "files": files,
        "ready": sum(row.quarantine is None for row in files),
        "offers": offers,
        "groups": offer_groups(offers),
        "impossible": [row for row in offers if row.state == "impossible"],
        "summary": version.summary,
        "findings": by_severity(version.findings),
        "alarming": [finding for finding in by_severity(version.findings) if finding.severity != Severity.NOTE],
        "error": version.error,
        "instead": instead(version),
        "code": code_row(version),
        "events": _events(version),
        "samples": samples,
        "variants": shown,
        "max_samples": settings.MAX_SAMPLES_BYTES,
        "share_choices": SHARE_CHOICES,
        "worker_problem": WorkerNode.objects.problem() if busy or measuring else "",
        "poll_seconds": 1 if busy else 2 if measuring else 0,
        **rescue(version, offers),
    }


def _twins(request: Request, version: ModelVersion) -> list[ModelVersion]:
    """Other versions of the team with the same weights; one more than is shown tells that there are more."""
    same = ModelVersion.objects.visible_to(request.user).with_weights_of(version)
    return list(same.select_related("model__team")[: TWINS + 1])


def _events(version: ModelVersion) -> QuerySet[AuditEvent]:
    """The latest of what happened to the version, its files and its conversions."""
    addresses = [version.get_absolute_url(), *(each.get_absolute_url() for each in version.conversions.all())]
    return version.team.history.filter(subject_url__in=addresses)[:EVENTS]


@require_safe
def download(request: Request, pk: int, name: str) -> HttpResponseBase:
    artifacts = Artifact.objects.visible_to(request.user).select_related("version__model__team")
    artifact = get_object_or_404(artifacts, pk=pk, name=name)
    return send(request, artifact, lambda: catalog.record_download(actor(request), artifact))
