"""`manage.py formats`: every format, and which becomes which. Starts nothing."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from django.core.management.base import BaseCommand, CommandParser

from worker import formats, routes
from worker.errors import LarderError
from worker.formats._format import TRAITS, Format, Option, Summary

WHOLE = Summary(traits=frozenset(TRAITS))  # a model that has everything a converter can ask for


class Command(BaseCommand):
    help = "List the formats: slugs, suffixes, and which pairs have a route."
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--json", action="store_true", help="One JSON object.")

    def handle(self, *args: Any, **options: Any) -> None:
        known = formats.formats()
        pairs = [_pair(source, target) for source in known for target in known]
        if options["json"]:
            rows = [_row(item, pairs) for item in known.values()]
            self.stdout.write(json.dumps({"formats": rows, "pairs": pairs}, indent=2))
        else:
            self.stdout.write("\n".join(_table(known, pairs)))


def _row(item: Format, pairs: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "slug": item.slug,
        "label": item.label,
        "suffixes": list(item.suffixes),
        "can_read": item.load is not None,
        "can_write": any(pair["route"] for pair in pairs if pair["target"] == item.slug),
        "options": [_option(option) for option in item.options],
        "available": not formats.missing(item),
        "missing": formats.missing(item),
    }


def _option(option: Option) -> dict[str, Any]:
    return {**asdict(option), "kind": option.kind.__name__, "choices": list(option.choices)}


def _pair(source: str, target: str) -> dict[str, Any]:
    """The route of a model that has everything, and what it must have for it; or the reason why there is none."""
    pair: dict[str, Any] = {"source": source, "target": target, "route": None, "requires": [], "reason": ""}
    try:
        route = routes.find_route(source, target, WHOLE)
    except LarderError as error:
        return {**pair, "reason": error.message}
    return {**pair, "route": list(route), "requires": list(routes.required(route))}


def _table(known: Mapping[str, Format], pairs: list[dict[str, Any]]) -> list[str]:
    lines = [f"{slug:<14} {item.label} ({' '.join(item.suffixes)})" for slug, item in known.items()]
    lines.append("")
    for pair in pairs:
        if pair["route"]:
            needs = f"  (where the file has: {', '.join(pair['requires'])})" if pair["requires"] else ""
            lines.append(f"{' -> '.join(pair['route'])}{needs}")
    reasons = dict.fromkeys(pair["reason"] for pair in pairs if not pair["route"])
    return [*lines, "", *reasons]
