"""Which walls stand around jobs on this machine, and whether they hold."""

from __future__ import annotations

import json
from argparse import ArgumentParser
from collections.abc import Mapping
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from project.walls import walls
from worker.errors import SandboxError
from worker.sandbox.client import Zygote
from worker.sandbox.layers import Layer
from worker.sandbox.selfcheck import ACTS, check, problem


class Command(BaseCommand):
    help = "Shows the layers of the sandbox and what probes inside it could do; exits 1 where jobs are refused."
    requires_system_checks = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--json", action="store_true", help="one JSON object: layers, probes, problem")

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            with Zygote(walls=walls()) as zygote:
                found = check(zygote)
        except SandboxError as error:
            raise CommandError(error.message) from None
        layers = {name: layer for name, layer in found.items() if name not in ACTS}
        probes = {name: layer for name, layer in found.items() if name in ACTS}
        sentence = problem(found)
        self.stdout.write(as_json(layers, probes, sentence) if options["json"] else as_text(layers, probes))
        if sentence:
            raise CommandError(sentence)


def as_json(layers: Mapping[str, Layer], probes: Mapping[str, Layer], sentence: str) -> str:
    """``{layers: {name: {active, detail}}, probes: {name: {blocked, detail, layer}}, problem}``."""
    return json.dumps(
        {
            "layers": {name: {"active": layer.active, "detail": layer.detail} for name, layer in layers.items()},
            "probes": {name: _probe(probe) for name, probe in probes.items()},
            "problem": sentence,
        }
    )


def _probe(probe: Layer) -> dict[str, Any]:
    return {"blocked": probe.active, "detail": probe.detail, "layer": probe.by}


def as_text(layers: Mapping[str, Layer], probes: Mapping[str, Layer]) -> str:
    """Two aligned tables."""
    rows = [*_rows("LAYER", layers, "active", "missing"), "", *_rows("A JOB TRIED TO", probes, "blocked", "OPEN")]
    return "\n".join(rows if probes else rows[:-2])


def _rows(title: str, found: Mapping[str, Layer], yes: str, no: str) -> list[str]:
    lines = [f"{name:<28} {yes if layer.active else no:<8} {_told(layer)}" for name, layer in found.items()]
    return [title, *lines]


def _told(layer: Layer) -> str:
    return f"{layer.by + ':':<14} {layer.detail}" if layer.by else layer.detail
