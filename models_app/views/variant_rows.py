"""What the page shows of a version's variants: the latest table, how far a measurement is, and what could be asked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from models_app.actions.variants import TFLITE, missing_precisions
from models_app.models import Measurement, ModelVersion
from models_app.models.measurements import can_be_measured, rows_of, variants_of
from models_app.views.rows import OfferRow
from worker import figures
from worker.measuring import ALIKE, SCHEMA

BUSY = 0.2  # of the time that a file waited for a processor: what is less changes little


@dataclass(frozen=True)
class VariantRow:
    """One line of the table, as people read it."""

    label: str
    options: str
    name: str
    is_source: bool
    size: int  # bytes
    relative_size: str
    time: str
    spread: str  # between which two times half of the runs lie
    relative: str
    error: str
    top1: str
    top1_rows: str
    verdict: str
    front: bool
    runtime: str
    problem: str
    released_by: str  # who let it out of quarantine, or ""


def variants(version: ModelVersion, offers: Sequence[OfferRow]) -> dict[str, Any] | None:
    """The context of the section; None where there is nothing to compare, and nothing to ask for."""
    pairs = variants_of(version)
    latest = version.measurements.first()
    shown = version.measurements.filter(state=Measurement.State.DONE).select_related("asked_by").first()
    tflite = next((row for row in offers if row.format.slug == TFLITE and row.state != "impossible"), None)
    missing = missing_precisions(version) if tflite else []
    possible = can_be_measured(pairs)
    if not (shown or possible or missing):
        return None
    table = shown.table if shown else None
    known = {row["sha256"] for row in rows_of(shown)}
    return {
        "possible": possible,
        "waiting": latest if latest and latest.state == Measurement.State.WAITING else None,
        "failed": latest if latest and latest.state == Measurement.State.FAILED else None,
        "shown": shown,
        "table": table,
        "rows": table_rows(rows_of(shown)),
        "input": inputs_said(table["shapes"]) if table else "",
        "machine": machine_said(table["machine"]) if table else "",
        "waited": figures.percent(table["waited"]) if table and table["waited"] > BUSY else "",
        "alike": f"{round((ALIKE - 1) * 100)} %",
        "new": sum(artifact.sha256 not in known for artifact, _ in pairs) if shown else 0,
        "missing": missing,
    }


def table_rows(rows: Sequence[Mapping[str, Any]]) -> list[VariantRow]:
    """As they stand in the table."""
    base = next((row["size"] for row in rows if row["is_source"]), 0)
    return [_row(row, base) for row in rows]


def inputs_said(shapes: Mapping[str, Sequence[int]]) -> str:
    """``image 1×28×28×1``."""
    said = [f"{name} {'×'.join(map(str, shape)) or 'a scalar'}" for name, shape in shapes.items()]
    return ", ".join(said[:4]) + (", …" if said[4:] else "")


def machine_said(machine: Mapping[str, Any]) -> str:
    """``kitchen-1 (Intel Xeon, 2 processors)``."""
    count = machine["processors"]
    return f"{machine['host']} ({machine['processor']}, {count} processor{'' if count == 1 else 's'})"


def document(version: ModelVersion) -> dict[str, Any]:
    """The latest table as JSON, and how far the latest measurement is (docs/variants.md)."""
    latest = version.measurements.first()
    shown = version.measurements.filter(state=Measurement.State.DONE).select_related("asked_by").first()
    return {
        "schema": SCHEMA,
        "team": version.team.slug,
        "model": version.model.slug,
        "version": version.number,
        "state": latest.state if latest else "none",
        "error": latest.error["message"] if latest and latest.error else None,
        "asked_by": str(shown.asked_by) if shown else None,
        "measured_at": shown.finished_at.isoformat() if shown and shown.finished_at else None,
        "table": {**shown.table, "rows": rows_of(shown)} if shown and shown.table else None,
    }


def _row(row: Mapping[str, Any], base: int) -> VariantRow:
    seconds, quartiles = row["seconds"], row["quartiles"]
    low_high = [figures.milliseconds(each).removesuffix(" ms") for each in quartiles or ()]
    return VariantRow(
        label=row["label"],
        options=row["options"],
        name=row["name"],
        is_source=row["is_source"],
        size=row["size"],
        relative_size=figures.factor(row["size"] / base) if base and not row["is_source"] else "",
        time=figures.milliseconds(seconds) if seconds is not None else "",
        spread=" to ".join(low_high) + " ms" if low_high else "",
        relative=figures.factor(row["relative"]) if row["relative"] and not row["is_source"] else "",
        error="" if row["is_source"] else figures.difference(row["error"]),
        top1="" if row["is_source"] else figures.percent(row["top1"]),
        top1_rows=figures.of_rows(row["top1_rows"]),
        verdict=row["verdict"] or "",
        front=row["front"],
        runtime=row["runtime"],
        problem=row["problem"],
        released_by=", ".join(dict.fromkeys(row["released_by"])),
    )
