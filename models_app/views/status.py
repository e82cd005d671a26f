"""The operator's page: the workers that are there, and what holds a job on their machines, as they measured it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from django.contrib import messages
from django.http import Http404, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.http import require_POST, require_safe
from django.views.decorators.vary import vary_on_headers

from models_app.actions.status import ask_for_check
from models_app.models import WorkerNode
from models_app.views.access import Request
from models_app.views.catalog import fragment_or_page
from worker.sandbox.layers import FLOOR

POLL_SECONDS = 2


@dataclass(frozen=True)
class Row:
    """One layer or one probe. ``tone`` and ``word`` say whether it engaged or was blocked."""

    name: str
    tone: str
    image: str
    word: str
    by: str
    detail: str


@dataclass(frozen=True)
class WorkerRow:
    """One worker with its two tables."""

    node: WorkerNode
    layers: list[Row]
    probes: list[Row]

    @property
    def open(self) -> int:
        """How many probes got through."""
        return sum(row.tone == "bad" for row in self.probes)


@vary_on_headers("HX-Request")
@require_safe
def status(request: Request) -> HttpResponse:
    _refuse_others(request)
    nodes = list(WorkerNode.objects.alive().order_by("name"))
    waits = any(node.is_check_due or node.checked_at is None for node in nodes)
    context = {"workers": [_row(node) for node in nodes], "waits": waits, "poll_seconds": POLL_SECONDS if waits else 0}
    return render(request, fragment_or_page(request, "status/_workers.html", "status/status.html"), context)


@require_POST
def check(request: Request) -> HttpResponse:
    _refuse_others(request)
    if not ask_for_check():
        messages.error(request, "No worker is running, so there is nothing to check.")
    return redirect("status")


def _refuse_others(request: Request) -> None:
    """What runs where is the operator's business; for others there is no such page."""
    if not request.user.is_staff:
        raise Http404


def _row(node: WorkerNode) -> WorkerRow:
    layers = [_layer(name, said) for name, said in node.sandbox_layers.items()]
    return WorkerRow(node, layers, [_probe(name, said) for name, said in node.sandbox_probes.items()])


def _layer(name: str, said: dict[str, Any]) -> Row:
    """A layer of the floor that is missing is bad, another one is a pity."""
    tone, image, word = ("good", "check", "Engaged") if said["active"] else ("warn", "warning", "Missing")
    if not said["active"] and name in FLOOR:
        tone, image = "bad", "cross"
    return Row(name, tone, image, word, "", said["detail"])


def _probe(name: str, said: dict[str, Any]) -> Row:
    tone, image, word = ("good", "check", "Blocked") if said["active"] else ("bad", "cross", "Open")
    return Row(name, tone, image, word, said.get("by", ""), said["detail"])
