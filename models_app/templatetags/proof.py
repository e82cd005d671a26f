"""Parts of a report as words and pictures: what a check that is neither passed nor failed has found, how the difference
grows from layer to layer, and where else the result runs."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from django import template

from worker import formats
from worker.report import Check, Report

register = template.Library()

SMALLEST, LARGEST = 1e-8, 1.0  # relative differences at the ends of a bar: its length is the order of magnitude
CELLS: dict[str, tuple[str, str, str]] = {  # colour, icon, words
    "same": ("good", "check", "Same answers"),
    "differs": ("bad", "cross", "Other answers"),
    "refused": ("warn", "warning", "Does not run"),
    "absent": ("", "none", "Not run here"),
}
UNTOLD = ("", "question", "Not told")  # it was run, and its answers prove nothing
BAR = 0.99  # the share of tensors in which faults have to show, as worker.verify.sensitivity has it
SHOWN_UNSEEN = 40  # tensors; the report as JSON has all
SHOWN_LOSSES = 3  # layers that lose most, named beside the picture
IN_WHOLE_NUMBERS = frozenset({"int8", "int16x8"})  # precisions of which layers may stay in float32


@register.filter
def undecided(check: Check) -> str:
    """What is said of a check that is neither passed nor failed: it was made for a part, or it proves nothing, or it
    could not be made."""
    if check.name == "weights" and check.data.get("tensors", 0) > len(check.data.get("unmatched", ())) > 0:
        return "In part"
    if check.name == "sensitivity" and check.data.get("seen"):
        return "In part"
    if check.name == "load-back" and any(cell["verdict"] == "same" for cell in check.data.get("cells", ())):
        return "In part"
    if check.name == "steady" and check.data.get("kind"):
        return "Changes" if check.data["kind"] == "stateful" else "By chance"
    made = check.data.get("explained") or check.name == "unrounded"
    return "Unproven" if made else "Not made"


@register.inclusion_tag("_badge.html")
def check_badge(check: Check) -> dict[str, str]:
    """Colour, icon and word of a check. One that passed for less than all that is asked for is not green."""
    if check.passed and _is_short(check):
        return {"tone": "warn check", "image": "question", "label": "In part"}
    if check.passed:
        return {"tone": "good check", "image": "check", "label": "By its twin" if check.data.get("twin") else "Passed"}
    if check.passed is None:
        return {"tone": "warn check", "image": "question", "label": undecided(check)}
    return {"tone": "bad check", "image": "cross", "label": "Failed"}


def _is_short(check: Check) -> bool:
    """Would faults show in fewer tensors than is asked for? Weights that are all accounted for make up for that in the
    verdict, and an alive twin shows them in the same layers."""
    return check.name == "sensitivity" and not check.data.get("twin") and check.data.get("share", 1.0) < BAR


@register.filter
def unseen(check: Check) -> dict[str, Any]:
    """The tensors in which a planted fault did not show, a part of them where they are many; empty for other checks."""
    found = [str(tensor) for _, tensor in check.data.get("unseen", ())] if check.name == "sensitivity" else []
    return {"count": len(found), "names": found[:SHOWN_UNSEEN], "more": max(0, len(found) - SHOWN_UNSEEN)}


@register.filter
def chance(report: Report) -> str:
    """Why the source does not answer the same twice, "random" or "stateful", where that is what the verdict rests on;
    else empty."""
    check = _named(report, "steady")
    return str(check.data.get("kind", "")) if check and check.passed is None else ""


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
    asked: str  # on how much: differences compare where that is the same
    said: str


@register.inclusion_tag("conversions/_drift.html")
def drift(report: Report) -> dict[str, Any]:
    """The picture of a report's ``drift`` check; nothing where there is none."""
    check = _named(report, "drift")
    layers = check.data.get("layers", ()) if check else ()
    first = check.data.get("first") if check else None
    return {"rows": [_layer(layer, first) for layer in layers]}


@register.simple_tag
def losing_layers(report: Report, options: Mapping[str, Any]) -> list[str]:
    """The layers at which most is added to the difference, where such layers can be asked to stay in float32."""
    check = _named(report, "drift")
    can_stay = any(option.name == "keep_float" for option in formats.get(report.target).options)
    if check is None or not can_stay or options.get("precision") not in IN_WHOLE_NUMBERS:
        return []
    layers = check.data.get("layers", ())
    gaps = [0.0, *(float(layer["gap"]) for layer in layers)]
    steps = sorted((gaps[place] - gaps[place + 1], place) for place in range(len(layers)))
    return [str(layers[place]["name"]) for step, place in steps[:SHOWN_LOSSES] if step < 0]


@register.inclusion_tag("conversions/_loadback.html")
def load_back(report: Report) -> dict[str, Any]:
    """The table of a report's ``load-back`` check; nothing where there is none."""
    check = _named(report, "load-back")
    rows = [_cell(cell) for cell in check.data.get("cells", ())] if check else []
    return {"rows": rows, "asked": {row.asked for row in rows} - {""}}


def _named(report: Report, name: str) -> Check | None:
    return next((check for check in report.checks if check.name == name), None)


def _layer(layer: dict[str, Any], first: str | None) -> LayerRow:
    gap = float(layer["gap"])
    return LayerRow(str(layer["name"]), str(layer["result"]), share(gap), bar_length(gap), layer["name"] == first)


def _cell(cell: dict[str, Any]) -> CellRow:
    known = cell["gap"] is not None
    tone, image, word = UNTOLD if known and cell["verdict"] == "absent" else CELLS[cell["verdict"]]
    gap, said = share(float(cell["gap"])) if known else "", str(cell["said"])
    name = f"{cell['label']} {cell['version']}".strip()
    return CellRow(name, tone, image, word, gap, _asked(cell), f"{said[:1].upper()}{said[1:]}")


def _asked(cell: dict[str, Any]) -> str:
    """``9 draws, 41 rows``; nothing where it gave no answers, or nobody counted."""
    draws, rows = int(cell.get("draws") or 0), int(cell.get("rows") or 0)
    if not draws:
        return ""
    return f"{draws:,} draw{'' if draws == 1 else 's'}, {rows:,} row{'' if rows == 1 else 's'}"


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
