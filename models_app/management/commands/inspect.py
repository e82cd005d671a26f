"""`manage.py inspect MODEL…`: what is in a model file, and whether it loads. No web server, no database."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandParser

from models_app.management.commands._batch import Model, Row, add_common_arguments, finding_line, work_through
from worker import formats
from worker.formats._format import Signature, Summary, TensorSpec
from worker.visible import one_line


class Command(BaseCommand):
    help = "Say what model files hold, and whether the models load."
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: CommandParser) -> None:
        add_common_arguments(parser)

    def handle(self, *args: Any, **options: Any) -> None:
        rows = [Row(source, more={"recognised_by": "", "summary": None}) for source in options["models"]]
        work_through(self, options, rows, _inspect, _describe)


def _inspect(model: Model) -> None:
    model.row.more["recognised_by"] = model.because
    inspection = model.examine()
    model.row.more["summary"] = inspection.summary.to_json()
    if inspection.error:
        raise inspection.error


def _describe(row: Row) -> str:
    if row.error:
        lines = [f"refused  {row.source}: {row.message}"]
    else:
        lines = [f"readable {row.source}: {formats.get(str(row.format)).label}, {row.more['recognised_by']}"]
    if row.more["summary"]:
        lines += _facts(Summary.from_json(row.more["summary"]))
    return "\n".join([*lines, *map(finding_line, row.findings)])


def _facts(summary: Summary) -> list[str]:
    """The structure in a few indented lines, each only where there is something to say."""
    facts = {
        "inputs": ", ".join(map(_spec, summary.inputs)),
        "outputs": ", ".join(map(_spec, summary.outputs)),
        "parameters": f"{summary.parameters:,}" if summary.parameters is not None else "",
        "layers": str(len(summary.layers) or ""),
        "written by": ", ".join(f"{name} {version}" for name, version in summary.producer.items()),
        "needs code": ", ".join(summary.code),
        "imports": ", ".join(summary.imports[:20]),
    }
    lines = [f"{name}: {text}" for name, text in facts.items() if text]
    return [f"         {one_line(line)}" for line in [*lines, *_signatures(summary)]]


def _signatures(summary: Summary) -> list[str]:
    """Every way to call the model, where there is more than one; inputs and outputs are those of the first."""
    return [_signature(item) for item in summary.signatures] if len(summary.signatures) > 1 else []


def _signature(item: Signature) -> str:
    if item.same_as:
        return f"signature {item.name}: another name of {item.same_as}"
    inputs, outputs = (", ".join(map(_spec, side)) or "nothing" for side in (item.inputs, item.outputs))
    return f"signature {item.name}: {inputs} -> {outputs}"


def _spec(spec: TensorSpec) -> str:
    shape = "any shape" if spec.shape is None else "×".join("?" if size is None else str(size) for size in spec.shape)
    return f"{spec.name} ({shape or 'scalar'}, {spec.dtype})"
