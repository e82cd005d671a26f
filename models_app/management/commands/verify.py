"""`manage.py verify SOURCE RESULT`: does the one compute what the other does? No web server, no database.

The check that Larder makes of its own conversions, on two files that are there already.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandParser

from models_app.management.commands._batch import (
    Model,
    Row,
    add_common_arguments,
    finding_line,
    limits,
    work_through,
)
from models_app.management.commands.convert import add_terms, chosen_options, given_samples, keep_report
from worker import pipeline
from worker.bundle import gather
from worker.intake import recognise, take_sample
from worker.report import Severity


class Command(BaseCommand):
    help = "Say whether a model file computes what another one does, whoever converted it."
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: CommandParser) -> None:
        add_common_arguments(parser, more_than_one=False)
        parser.add_argument("result", type=Path, metavar="RESULT", help="The file, or folder, that came out of it.")
        add_terms(parser)

    def handle(self, *args: Any, **options: Any) -> None:
        samples = given_samples(options["inputs"])
        chosen = chosen_options(options["option"])

        def compare(model: Model) -> None:
            bundle = gather(options["result"], model.folder("result"))
            item, _ = recognise(take_sample(bundle.path, bundle.name))
            model.row.target = item.slug
            result = pipeline.compare(
                model.zygote,
                pipeline.Source(model.bundle.path, model.slug, model.examine(load=False).summary, model.bundle.name),
                bundle.path,
                item.slug,
                chosen,
                model.folder("compare"),
                limits(),
                samples=samples,
                consent=model.consent,
            )
            keep_report(model.row, result.report)

        work_through(self, options, [Row(source) for source in options["models"]], compare, _describe)


def _describe(row: Row) -> str:
    """The verdict, then what was checked, and what is to be known about the files."""
    if row.error:
        return f"refused       {row.source}: {row.message}"
    marks = {True: "yes", False: "NO ", None: "?  "}
    checks = [f"  {marks[check.passed]}  {check.name:<12} {check.sentence}" for check in row.checks]
    notes = [finding_line(item) for item in row.findings if item.severity is not Severity.NOTE]
    return "\n".join([f"{row.verdict:<13} {row.source} ({row.seconds:.1f} s)", *checks, *notes])
