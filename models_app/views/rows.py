"""What the pages show of a version: its files, and what it can become."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from django.conf import settings
from django.db.models import Count, Q, Sum

from models_app.forms import LASTS
from models_app.models import Artifact, Conversion, ModelVersion, RegisteredModel
from worker import formats, routes
from worker.formats._format import Format, Option

SHARE_CHOICES = [(value, label) for value, (label, _) in LASTS.items()]
RUNNING = Q(conversions__state__in=["queued", "running"])
OFFER_STATES = {"succeeded": "ready", "queued": "running", "running": "running", "failed": "failed"}


@dataclass(frozen=True)
class VersionRow:
    version: ModelVersion
    formats: list[Format]
    size: int  # bytes, all files together
    running: int


@dataclass(frozen=True)
class ModelRow:
    """A model as the team's page lists it, with what its latest version holds."""

    model: RegisteredModel
    version: ModelVersion | None
    formats: list[Format]
    size: int
    running: int


@dataclass(frozen=True)
class FileRow:
    """``format`` is None where the format was removed from Larder; the file can still be downloaded."""

    artifact: Artifact
    format: Format | None
    verdict: str
    conversion: Conversion | None
    url: str
    snippet: str
    checksum_line: str
    shareable: bool


@dataclass(frozen=True)
class OptionRow:
    option: Option
    field: str
    value: Any


@dataclass(frozen=True)
class OfferRow:
    """One target format: ready, running, failed, available or impossible."""

    format: Format
    state: str
    route: list[str]
    drops: tuple[str, ...]
    changes: tuple[str, ...]
    reason: str
    conversion: Conversion | None
    options: list[OptionRow]


def version_rows(versions: Iterable[ModelVersion]) -> list[VersionRow]:
    """One row per version, in three queries however many there are."""
    pks = [version.pk for version in versions]
    slugs: dict[int, set[str]] = {pk: set() for pk in pks}
    for pk, slug in Artifact.objects.filter(version__in=pks).values_list("version_id", "format"):
        slugs[pk].add(slug)
    found = ModelVersion.objects.filter(pk__in=pks)
    sizes = dict(found.annotate(total=Sum("artifacts__size")).values_list("pk", "total"))
    running = dict(found.annotate(total=Count("conversions", RUNNING)).values_list("pk", "total"))
    return [
        VersionRow(version, _formats(slugs[version.pk]), sizes[version.pk] or 0, running[version.pk])
        for version in versions
    ]


def model_rows(models: Iterable[RegisteredModel]) -> list[ModelRow]:
    latest = ModelVersion.objects.filter(model__in=[model.pk for model in models]).select_related("model__team")
    newest = {version.model_id: version for version in latest.order_by("number")}
    rows = {row.version.model_id: row for row in version_rows(list(newest.values()))}
    return [_model_row(model, rows.get(model.pk)) for model in models]


def _model_row(model: RegisteredModel, row: VersionRow | None) -> ModelRow:
    if row is None:
        return ModelRow(model, None, [], 0, 0)
    return ModelRow(model, row.version, row.formats, row.size, row.running)


def file_rows(version: ModelVersion) -> list[FileRow]:
    by_artifact = {conversion.artifact_id: conversion for conversion in version.conversions.exclude(artifact=None)}
    artifacts = version.artifacts.select_related("version__model__team")
    return [file_row(artifact, by_artifact.get(artifact.pk)) for artifact in artifacts]


def file_row(artifact: Artifact, conversion: Conversion | None) -> FileRow:
    return FileRow(
        artifact=artifact,
        format=format_of(artifact.format),
        verdict=verdict(conversion),
        conversion=conversion,
        url=artifact.download_url,
        snippet=snippet(artifact),
        checksum_line=checksum_line(artifact),
        shareable=artifact.is_shareable,
    )


def verdict(conversion: Conversion | None) -> str:
    return str(conversion.report_data["verdict"]) if conversion and conversion.report_data else ""


def snippet(artifact: Artifact) -> str:
    """The code that loads the file once it lies next to a fresh interpreter."""
    found = format_of(artifact.format)
    name = json.dumps(artifact.name, ensure_ascii=False)  # people run this, and somebody else chose the name
    return found.snippet.replace('"{file}"', name) if found else ""


def checksum_line(artifact: Artifact) -> str:
    """What ``sha256sum -c`` reads."""
    return f"{artifact.sha256}  {artifact.name}"


def format_of(slug: str) -> Format | None:
    return formats.formats().get(slug)


def labels(slugs: Iterable[str]) -> list[str]:
    return [found.label if (found := format_of(slug)) else slug for slug in slugs]


def offer_rows(version: ModelVersion) -> list[OfferRow]:
    """Every format that this version could have, then those that it cannot, and why. Empty until it was inspected."""
    if version.state != ModelVersion.State.INSPECTED:
        return []
    latest = {conversion.target: conversion for conversion in version.conversions.order_by("requested_at")}
    offers = routes.offers(version.source.format, version.summary, settings.JOB_MEMORY_BYTES)
    rows = [_offer_row(offer, latest.get(offer.format.slug)) for offer in offers]
    return sorted(rows, key=lambda row: row.state == "impossible")


def _offer_row(offer: routes.Offer, conversion: Conversion | None) -> OfferRow:
    state = OFFER_STATES.get(conversion.state, "available") if conversion else "available"
    reason = conversion.error["message"] if conversion and conversion.error else ""
    if offer.error:
        state, reason = "impossible", offer.error.message
    slug = offer.format.slug
    options = [OptionRow(option, f"{slug}.{option.name}", option.default) for option in offer.format.options]
    return OfferRow(offer.format, state, labels(offer.route), offer.drops, offer.changes, reason, conversion, options)


def _formats(slugs: Iterable[str]) -> list[Format]:
    return [found for slug in sorted(slugs) if (found := format_of(slug))]
