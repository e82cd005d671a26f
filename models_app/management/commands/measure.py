"""`manage.py measure SOURCE RESULT…`: size, time, difference and agreement, side by side.

No web server, no database.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandParser

from models_app.management.commands._batch import Model, Row, add_common_arguments, limits, work_through
from models_app.management.commands.convert import given_samples
from worker import figures, measuring, pipeline
from worker.bundle import gather
from worker.formats._format import Summary
from worker.intake import recognise, take_sample
from worker.report import Report

HEADINGS = ("", "size", "", "time", "", "difference", "same top class", "runs in")
LAST_NUMBER = 5  # of these columns; they begin with the second


class Command(BaseCommand):
    help = "Compare what was made of a model: which file is small, fast and near to its source."
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: CommandParser) -> None:
        add_common_arguments(parser, more_than_one=False)
        parser.add_argument("results", nargs="+", type=Path, metavar="RESULT", help="The files that came out of it.")
        parser.add_argument("--inputs", type=Path, metavar="FILE", help="Samples of your own, to compare on.")

    def handle(self, *args: Any, **options: Any) -> None:
        samples = given_samples(options["inputs"])

        def measure(model: Model) -> None:
            given = [_Result(model, path, number) for number, path in enumerate(options["results"])]
            summary = model.examine(load=False).summary
            variants = [_source(model), *(each.compared(summary, samples) for each in given)]
            folder = model.folder("measure")
            table = measuring.measure(model.zygote, variants, folder, limits(), consent=model.consent)
            model.row.more["variants"] = table.to_json()

        work_through(self, options, [Row(source) for source in options["models"]], measure, _describe)


def _source(model: Model) -> measuring.Variant:
    path = model.bundle.path
    return measuring.Variant(path, model.slug, model.bundle.name, _sha256(path), is_source=True)


class _Result:
    """One RESULT: recognised before anything is run, so that a wrong path costs no time."""

    def __init__(self, model: Model, path: Path, number: int) -> None:
        self.model, self.number = model, number
        self.bundle = gather(path, model.folder(f"result-{number}"))
        self.item, _ = recognise(take_sample(self.bundle.path, self.bundle.name))

    def compared(self, summary: Summary, samples: Path | None) -> measuring.Variant:
        """The file with how near it lies to the source; no verdict, which hangs on options that nobody gave."""
        path, slug = self.bundle.path, self.item.slug
        near = measuring.nearness(self._report(summary, samples))
        return measuring.Variant(path, slug, self.bundle.name, _sha256(path), near=near)

    def _report(self, summary: Summary, samples: Path | None) -> Report:
        model, source = self.model, self.model.bundle
        return pipeline.compare(
            model.zygote,
            pipeline.Source(source.path, model.slug, summary, source.name),
            self.bundle.path,
            self.item.slug,
            {},
            model.folder(f"compare-{self.number}"),
            limits(),
            samples=samples,
            consent=model.consent,
            looks=False,
        ).report


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _describe(row: Row) -> str:
    """The table, its columns under each other, and on what it was measured."""
    if row.error:
        return f"refused       {row.source}: {row.message}"
    table = row.more["variants"]
    base = table["rows"][0]["size"]
    lines = [HEADINGS, *(_line(each, base) for each in table["rows"])]
    widths = [max(len(line[place]) for line in lines) for place in range(len(HEADINGS))]
    text = ["  ".join(map(_padded, line, widths, range(len(line)))).rstrip() for line in lines]
    rounds = f"{table['rounds']} round{'' if table['rounds'] == 1 else 's'}"
    about = f"One run on one thread, the median of {rounds}; * unbeaten in size, time and difference."
    busy = f"The machine was busy with other work for up to {figures.percent(table['waited'])} of the time."
    return "\n".join([*text, about, busy])


def _line(row: dict[str, Any], base: int) -> tuple[str, ...]:
    if row["is_source"]:
        near = ("source", "")
    else:
        near = (figures.difference(row["error"]), f"{figures.percent(row['top1'])} {figures.of_rows(row['top1_rows'])}")
    return (
        f"{'*' if row['front'] else ' '} {row['name']}",
        figures.megabytes(row["size"]),
        figures.factor(row["size"] / base),
        figures.milliseconds(row["seconds"]),
        figures.factor(row["relative"]),
        *near,
        row["problem"] or row["runtime"],
    )


def _padded(cell: str, width: int, place: int) -> str:
    """Numbers to the right."""
    return cell.rjust(width) if 1 <= place <= LAST_NUMBER else cell.ljust(width)
