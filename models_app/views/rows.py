"""What the pages show of a version: its files, and what it can become."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from django.conf import settings
from django.db.models import Count, Prefetch, Q

from models_app.forms import LASTS
from models_app.models import Artifact, Conversion, ModelVersion, Quarantine, RegisteredModel, Samples
from models_app.models.quarantine import handed_out, look_up_stays
from models_app.models.samples import samples_in_use
from worker import formats, routes
from worker.errors import BadSamples
from worker.formats._format import Format, Option
from worker.options import signature_option
from worker.report import Finding, Severity
from worker.snippets import pinned

SHARE_CHOICES = [(value, label) for value, (label, _) in LASTS.items()]
SEVERITIES = list(reversed(Severity))
RUNNING = Q(conversions__state__in=["queued", "running"])
STAYS = Prefetch("quarantines", Quarantine.objects.select_related("put_by", "released_by"))
OFFER_STATES = {"succeeded": "ready", "queued": "running", "running": "running", "failed": "failed"}
# Where a format stands on the page. One that is named nowhere stands at the end.
GROUPS = {
    "Keras": (
        "To go on training, or to rebuild the model in Python.",
        ("keras", "h5", "weights_h5", "json_npz", "json_safetensors", "json_pickle", "checkpoint"),
    ),
    "Weights and plain data": (
        "Arrays by their names, for tools of your own.",
        ("safetensors", "data_pickle", "pickle"),
    ),
    "TensorFlow, phones and browsers": (
        "The graph of operations, to serve it.",
        ("saved_model", "tflite", "frozen_graph", "tf1_checkpoint", "tfjs_graph", "tfjs_layers"),
    ),
    "Other runtimes": ("To run it without TensorFlow.", ("onnx", "openvino", "coreml")),
}


@dataclass(frozen=True)
class VersionRow:
    version: ModelVersion
    formats: list[Format]
    size: int  # bytes, all files together that can be had
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
    quarantine: Quarantine | None  # what keeps it from being handed out; maybe of another file with the same bytes
    made_on: str = ""  # what its conversion was compared and calibrated on, where another file has the same name

    @property
    def snippet_title(self) -> str:
        """What stands above the code that loads the file."""
        return snippet_title(self.format)

    @property
    def releases(self) -> list[Quarantine]:
        """Every time that somebody let it out of quarantine."""
        return self.artifact.releases


@dataclass(frozen=True)
class OptionRow:
    """One field of the form. ``choices`` are pairs of what is sent and what is read; empty for one that is typed."""

    option: Option
    field: str
    value: str
    label: str
    choices: list[tuple[str, str]]


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
    made: list[Conversion]  # the latest for each set of options, unless it was canceled
    renews: bool  # is it the format that the file is in already?
    written_by: str  # the release of Keras that wrote the file, where that is known
    samples_changed: bool  # was the latest asked for with other samples than those that the version has now?

    @property
    def askable(self) -> bool:
        """Can it be asked for? One with options can be asked for again, with others, and each with other samples."""
        again = bool(self.options) or self.samples_changed
        return self.state in ("available", "failed") or (again and self.state != "impossible")

    @property
    def title(self) -> str:
        """What would be made."""
        return f"{self.format.label}, written anew" if self.renews else self.format.label

    @property
    def why(self) -> str:
        """The reason without the names of the two formats, which stand beside it."""
        _, _, reason = self.reason.partition(f"become {self.format.label}: ")
        return f"{reason[:1].upper()}{reason[1:]}" if reason else self.reason

    @property
    def runs_here(self) -> bool:
        """Only a format that runs here can be compared with the source by what it computes."""
        return self.format.load is not None

    @property
    def detour(self) -> list[str]:
        """The formats between source and target."""
        return self.route[1:-1]


@dataclass(frozen=True)
class OfferGroup:
    """Target formats for the same purpose."""

    name: str
    purpose: str
    rows: list[OfferRow]


def by_severity(findings: Iterable[Finding]) -> list[Finding]:
    """What could do harm first."""
    return sorted(findings, key=lambda finding: SEVERITIES.index(finding.severity))


def rescue(version: ModelVersion, offers: Iterable[OfferRow]) -> dict[str, bool]:
    """For a pickle's page: can its model be taken out as a Keras file, and was not yet? Does it hold arrays alone?"""
    if version.source.format != "pickle":
        return {"can_rescue": False, "lonely_arrays": False}
    traits = version.summary.traits
    possible = any(row.format.slug == "keras" and row.state in ("available", "failed") for row in offers)
    return {"can_rescue": possible, "lonely_arrays": "arrays-inside" in traits and "model-inside" not in traits}


def version_rows(versions: Iterable[ModelVersion]) -> list[VersionRow]:
    """One row per version, in two queries however many there are."""
    pks = [version.pk for version in versions]
    slugs: dict[int, set[str]] = {pk: set() for pk in pks}
    sizes = dict.fromkeys(pks, 0)
    for pk, slug, size in handed_out().filter(version__in=pks).values_list("version_id", "format", "size"):
        slugs[pk].add(slug)
        sizes[pk] += size
    found = ModelVersion.objects.filter(pk__in=pks)
    running = dict(found.annotate(total=Count("conversions", RUNNING)).values_list("pk", "total"))
    return [
        VersionRow(version, _formats(slugs[version.pk]), sizes[version.pk], running[version.pk]) for version in versions
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
    by_artifact = {
        conversion.artifact_id: conversion
        for conversion in version.conversions.exclude(artifact=None).select_related("samples")
    }
    artifacts = list(version.artifacts.select_related("version__model__team").prefetch_related(STAYS))
    look_up_stays(version.team, artifacts)
    counted = Counter(artifact.name for artifact in artifacts)
    rows = [file_row(artifact, by_artifact.get(artifact.pk)) for artifact in artifacts]
    return [replace(row, made_on=made_on(row.conversion)) if counted[row.artifact.name] > 1 else row for row in rows]


def made_on(conversion: Conversion | None) -> str:
    """``on the samples soup.npz (a1b2c3d4)``: which inputs a result was compared and calibrated on."""
    if conversion is None:
        return ""
    samples = conversion.samples
    return f"on the samples {samples.name} ({samples.sha256[:8]})" if samples else "on inputs that Larder made up"


def file_row(artifact: Artifact, conversion: Conversion | None) -> FileRow:
    stay = artifact.quarantine
    return FileRow(
        artifact=artifact,
        format=format_of(artifact.format),
        verdict=verdict(conversion),
        conversion=conversion,
        url=artifact.download_url,
        snippet=snippet(artifact, conversion),
        checksum_line=checksum_line(artifact),
        shareable=artifact.is_shareable and stay is None,
        quarantine=stay,
    )


def verdict(conversion: Conversion | None) -> str:
    return str(conversion.report_data["verdict"]) if conversion and conversion.report_data else ""


def snippet(artifact: Artifact, conversion: Conversion | None) -> str:
    """The code that loads the file once it lies next to a fresh interpreter, with what it was tested with here; "" for
    a file of which Larder knows none, or that it could not load."""
    if artifact.origin == Artifact.Origin.UPLOADED and artifact.version.error:
        return ""  # it did not load here
    found = format_of(artifact.format)
    name = json.dumps(artifact.name, ensure_ascii=False)  # people run this, and somebody else chose the name
    report = conversion.report if conversion else None
    return pinned(found, report.checks if report else ()).replace('"{file}"', name) if found else ""


def snippet_title(item: Format | None) -> str:
    """What stands above the code that loads a file: in which language it is."""
    language = {"javascript": "JavaScript"}.get(item.snippet_language if item else "", "Python")
    return f"Load it in {language}, next to the download"


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
    asked: dict[str, list[Conversion]] = {}
    conversions = list(version.conversions.select_related("artifact", "samples").order_by("requested_at"))
    look_up_stays(version.team, [conversion.artifact for conversion in conversions if conversion.artifact])
    for conversion in conversions:
        asked.setdefault(conversion.target, []).append(conversion)
    offers = routes.offers(version.source.format, version.summary, settings.JOB_MEMORY_BYTES)
    keras, samples = version.summary.producer.get("keras", ""), samples_in_use(version)
    rows = [_offer_row(offer, asked.get(offer.format.slug, []), keras, samples) for offer in offers]
    return sorted(rows, key=lambda row: row.state == "impossible")


def offer_groups(rows: Sequence[OfferRow]) -> list[OfferGroup]:
    """The formats that are possible, by what people want them for."""
    left = {row.format.slug: row for row in rows if row.state != "impossible"}
    found = []
    for name, (purpose, slugs) in GROUPS.items():
        found.append(OfferGroup(name, purpose, [left.pop(slug) for slug in slugs if slug in left]))
    found.append(OfferGroup("More", "", list(left.values())))
    return [group for group in found if group.rows]


def _offer_row(offer: routes.Offer, asked: Sequence[Conversion], written_by: str, samples: Samples | None) -> OfferRow:
    conversion = asked[-1] if asked else None
    changed = conversion is not None and _digest(conversion.samples) != _digest(samples)
    if conversion and conversion.error and conversion.error.get("code") == BadSamples.code and changed:
        conversion = None  # what was wrong with samples that are there no more is nobody's concern
    state = OFFER_STATES.get(conversion.state, "available") if conversion else "available"
    reason = conversion.error["message"] if conversion and conversion.error and not conversion.is_released else ""
    if offer.error:
        state, reason = "impossible", offer.error.message
    latest = {json.dumps(conversion.options, sort_keys=True): conversion for conversion in asked}
    return OfferRow(
        format=offer.format,
        state=state,
        route=labels(offer.route),
        drops=offer.drops,
        changes=offer.changes,
        reason=reason,
        conversion=conversion,
        options=[_option_row(offer.format.slug, option) for option in _options(offer)],
        made=[conversion for conversion in latest.values() if conversion.state in OFFER_STATES],
        renews=offer.renews,
        written_by=written_by,
        samples_changed=changed,
    )


def _options(offer: routes.Offer) -> list[Option]:
    """Which signature of the source is meant, where there is a choice, then what the format itself can be asked for."""
    choice = [signature_option(offer.signatures)] if offer.signatures else []
    return [*choice, *offer.format.options]


def _digest(samples: Samples | None) -> str:
    return samples.sha256 if samples else ""


def _option_row(slug: str, option: Option) -> OptionRow:
    words = option.name.replace("_", " ")
    values = option.choices or ((False, True) if option.kind is bool else ())
    said = {False: "no", True: "yes"} if option.kind is bool else {}
    choices = [(str(value), said.get(value, str(value))) for value in values]
    return OptionRow(option, f"{slug}.{option.name}", str(option.default), f"{words[:1].upper()}{words[1:]}", choices)


def _formats(slugs: Iterable[str]) -> list[Format]:
    return [found for slug in sorted(slugs) if (found := format_of(slug))]
