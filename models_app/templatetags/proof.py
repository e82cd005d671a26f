"""Two parts of a report as pictures: how the difference grows from layer to layer, and where else the result runs."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from django import template

from worker.report import Check, Report

register = template.Library()

SMALLEST, LARGEST = 1e-8, 1.0  # relative differences at the ends of a bar: its length is the order of magnitude
CELLS: dict[str, tuple[str, str, str]] = {  # colour, icon, words
    "same": ("good", "check", "Same answers"),
    "differs": ("bad", "cross", "Other answers"),
    "refused": ("warn", "warning", "Does not run"),
    "absent": ("", "none", "Not tried"),
}


@dataclass(frozen=True)
class LayerRow:
    """One bar. ``length``: of 100; ``departs``: is it the first layer that does?"""

    name: str
    result: str
    gap: str
    length: int
    departs: bool


@dataclass(frozen=True)
class CellRow:
    """One runtime."""

    name: str
    tone: str
    image: str
    word: str
    gap: str
    said: str


@register.inclusion_tag("conversions/_drift.html")
def drift(report: Report) -> dict[str, Any]:
    """The picture of a report's ``drift`` check; nothing where there is none."""
    check = _named(report, "drift")
    layers = check.data.get("layers", ()) if check else ()
    first = check.data.get("first") if check else None
    return {"check": check, "rows": [_layer(layer, first) for layer in layers]}


@register.inclusion_tag("conversions/_loadback.html")
def load_back(report: Report) -> dict[str, Any]:
    """The table of a report's ``load-back`` check; nothing where there is none."""
    check = _named(report, "load-back")
    return {"check": check, "rows": [_cell(cell) for cell in check.data.get("cells", ())] if check else []}


def _named(report: Report, name: str) -> Check | None:
    return next((check for check in report.checks if check.name == name), None)


def _layer(layer: dict[str, Any], first: str | None) -> LayerRow:
    gap = float(layer["gap"])
    return LayerRow(str(layer["name"]), str(layer["result"]), share(gap), bar_length(gap), layer["name"] == first)


def _cell(cell: dict[str, Any]) -> CellRow:
    tone, image, word = CELLS[cell["verdict"]]
    gap = "" if cell["gap"] is None else share(float(cell["gap"]))
    return CellRow(f"{cell['label']} {cell['version']}".strip(), tone, image, word, gap, str(cell["said"]))


def share(gap: float) -> str:
    """``0``, ``2.1e-07``, ``0.012 %``, ``4.1 %``: a relative difference as people read it."""
    if gap <= 0:
        return "0"
    return f"{gap:.1e}" if gap < 1e-4 else f"{gap * 100:.2g} %" if gap < 1 else f"{gap * 100:,.0f} %"


def bar_length(gap: float) -> int:
    """Of 100, by orders of magnitude: 1e-8 and less is nothing, 1 and more is all."""
    if not gap > SMALLEST:
        return 0
    return min(100, round(100 * math.log10(gap / SMALLEST) / math.log10(LARGEST / SMALLEST)))
