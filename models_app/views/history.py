"""Who did what, when: the team's history, as a page and as a table for a spreadsheet."""

from __future__ import annotations

import csv
import json
import unicodedata
from collections.abc import Iterable, Iterator
from urllib.parse import urlencode

from django.db.models import QuerySet
from django.http import HttpResponse, HttpResponseBase, QueryDict, StreamingHttpResponse
from django.shortcuts import render
from django.urls import reverse
from django.views.decorators.http import require_safe

from models_app.forms import HistoryForm
from models_app.models import AuditEvent
from models_app.views.access import Request, may, team_or_404
from worker.visible import visible

PAGE_SIZE = 50
COLUMNS = ["id", "time", "person", "action", "subject", "address", "data"]
FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r", "\n")
FILTERS = ("person", "action", "since", "until")


@require_safe
def history(request: Request, team: str) -> HttpResponse:
    found = team_or_404(request, team)
    form = HistoryForm(found, request.GET)
    events = list(_page(form.filter(found.history.all()), request.GET))
    context = {
        "team": found,
        "may": may(request.user, found),
        "events": events[:PAGE_SIZE],
        "form": form,
        "older_url": _url(request, before=str(events[PAGE_SIZE - 1].pk)) if len(events) > PAGE_SIZE else "",
        "newest_url": _url(request) if "before" in request.GET else "",
        "csv_url": f"{reverse('history-csv', args=[found.slug])}{_url(request)}",
    }
    return render(request, "history/history.html", context)


@require_safe
def history_csv(request: Request, team: str) -> HttpResponseBase:
    found = team_or_404(request, team)
    events = HistoryForm(found, request.GET).filter(found.history.all())
    headers = {"Content-Disposition": f'attachment; filename="history-of-{found.slug}.csv"'}
    return StreamingHttpResponse(_csv(events.iterator(1000)), content_type="text/csv; charset=utf-8", headers=headers)


def _page(events: QuerySet[AuditEvent], query: QueryDict) -> QuerySet[AuditEvent]:
    """One event more than a page tells whether there are older ones. By key, so that nothing shifts meanwhile."""
    before = query.get("before", "")
    if before.isdecimal() and len(before) < 19:
        events = events.filter(pk__lt=int(before))
    return events[: PAGE_SIZE + 1]


def _url(request: Request, **extra: str) -> str:
    """This page's address with its filters; "?" alone goes back to the page without any."""
    kept = {name: request.GET[name] for name in FILTERS if request.GET.get(name)}
    return f"?{urlencode(kept | extra)}"


class _Line:
    """A file for csv.writer that hands each line back instead of keeping it."""

    def write(self, line: str) -> str:
        return line


def _csv(events: Iterable[AuditEvent]) -> Iterator[str]:
    writer = csv.writer(_Line())
    yield writer.writerow(COLUMNS)
    for event in events:
        data = json.dumps(event.data, ensure_ascii=False)
        cells = [event.at.isoformat(), event.actor_name, event.tag, event.subject, event.address or "", data]
        yield writer.writerow([event.pk, *map(_inert, cells)])


def _inert(cell: str) -> str:
    """A cell that no spreadsheet takes for a formula (CWE-1236)."""
    shown = visible(cell)
    first = unicodedata.normalize("NFKC", shown.lstrip(" ")[:1])  # some take the wide signs for the narrow ones
    return f"'{shown}" if first.startswith(FORMULA_STARTS) else shown
