"""`manage.py convert MODEL… --to FORMAT --out DIR`: convert and verify. No web server, no database."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from models_app.management.commands._batch import (
    MISUSED,
    Model,
    Row,
    add_common_arguments,
    finding_line,
    limits,
    work_through,
)
from worker import archive, formats, pipeline
from worker.errors import CustomCode, LambdaRefused, LarderError, VerificationError
from worker.formats._format import Summary
from worker.report import Report, Severity, Verdict


class Command(BaseCommand):
    help = "Convert model files to another format, and prove that the results compute the same."
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: CommandParser) -> None:
        add_common_arguments(parser)
        parser.add_argument("--to", required=True, metavar="FORMAT", help="The target; `manage.py formats` lists them.")
        parser.add_argument("--out", required=True, type=Path, metavar="DIR", help="The folder for the results.")
        add_terms(parser)

    def handle(self, *args: Any, **options: Any) -> None:
        target, chosen = _target(options["to"], options["option"])
        samples = given_samples(options["inputs"])
        out = _folder(options["out"])
        names = _names(options["models"])
        rows = [Row(source, target=target, name=name) for source, name in zip(options["models"], names, strict=True)]

        def convert(model: Model) -> None:
            result = _convert(model, chosen, samples)
            if result.report.verdict is Verdict.DIFFERS:
                raise VerificationError(problem=result.report.reason.removesuffix("."))
            model.row.output = _place(result.path, out, model.row.name, formats.get(target).suffixes)

        work_through(self, options, rows, convert, _describe)


def _convert(model: Model, options: dict[str, Any], samples: Path | None) -> pipeline.Result:
    """The conversion tells whether the model loads; only where something is amiss is it loaded alone, to say why."""
    summary = model.examine(load=False).summary
    try:
        result = _converted(model, summary, options, samples)
    except pipeline.OUT_OF_BOUNDS:
        raise
    except LarderError:
        _require_loading(model)
        raise
    if result.report.verdict is Verdict.NOT_PROVABLE:
        _require_loading(model)
    return result


def _require_loading(model: Model) -> None:
    error = model.examine().error
    if error and not isinstance(error, (CustomCode, LambdaRefused)):
        raise error


def _converted(model: Model, summary: Summary, options: dict[str, Any], samples: Path | None) -> pipeline.Result:
    result = pipeline.convert(
        model.zygote,
        pipeline.Source(model.bundle.path, model.slug, summary, model.bundle.name),
        str(model.row.target),
        options,
        model.folder("convert"),
        limits(),
        samples=samples,
        consent=model.consent,
    )
    keep_report(model.row, result.report)
    return result


def keep_report(row: Row, report: Report) -> None:
    """What a conversion or a comparison found out, in the model's row."""
    row.route, row.verdict, row.checks, row.reason = report.route, report.verdict, report.checks, report.reason
    row.findings += [finding for finding in report.findings if finding not in row.findings]


# What was asked for; nonsense ends the command before any work ----------------------------------------------------


def add_terms(parser: CommandParser) -> None:
    """The arguments that say what the target is to be like, and on what it is compared."""
    parser.add_argument(
        "--option",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="An option of the target; may be repeated.",
    )
    parser.add_argument("--inputs", type=Path, metavar="FILE", help="Samples of your own: .npz, .npy, .csv, pictures.")


def chosen_options(pairs: Sequence[str]) -> dict[str, Any]:
    """The options that were given as NAME=VALUE."""
    return dict(_split(pair) for pair in pairs)


def _target(slug: str, pairs: Sequence[str]) -> tuple[str, dict[str, Any]]:
    try:
        return slug, pipeline.check_options(slug, chosen_options(pairs))
    except LarderError as error:
        raise CommandError(error.message, returncode=MISUSED) from error


def _split(pair: str) -> tuple[str, str]:
    name, equals, value = pair.partition("=")
    if not name or not equals:
        raise CommandError(f"--option {pair}: expected NAME=VALUE.", returncode=MISUSED)
    return name, value


def given_samples(path: Path | None) -> Path | None:
    """The file, or the folder of pictures, with people's own inputs, where they gave one: absolute, for jobs run in
    folders of their own."""
    if path is not None and not path.exists():
        raise CommandError(f"--inputs {path}: there is no such file.", returncode=MISUSED)
    return path.resolve() if path else None


def _folder(path: Path) -> Path:
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CommandError(f"--out {path}: {error.strerror}.", returncode=MISUSED) from error
    return path


# Results ----------------------------------------------------------------------------------------------------------


def _names(sources: Sequence[str]) -> list[str]:
    """What each result is called before its suffix, in order: the source's stem; the second of a name gets -2."""
    seen: Counter[str] = Counter()
    names = []
    for source in sources:
        stem = _stem(Path(source).resolve())
        seen[stem] += 1
        names.append(f"{stem}-{seen[stem]}" if seen[stem] > 1 else stem)
    return names


def _stem(path: Path) -> str:
    known = sorted((suffix for item in formats.formats().values() for suffix in item.suffixes), key=len, reverse=True)
    endings = [".tar.gz", ".tar.bz2", ".tar.xz", ".tgz", ".weights.h5", *known]
    ending = next((ending for ending in endings if path.name.lower().endswith(ending)), "")
    return path.name[: len(path.name) - len(ending)] or path.name


def _place(result: Path, out: Path, name: str, suffixes: Sequence[str]) -> Path:
    """Move the result to the folder under its name, or the next free one: nothing that is there is overwritten."""
    suffix = archive.suffix_of(result, suffixes)
    number = 1
    while True:
        target = out / f"{name if number == 1 else f'{name}-{number}'}{suffix}"
        try:
            target.touch(exist_ok=False)
        except FileExistsError:
            number += 1
            continue
        shutil.move(result, target)
        return target


def _describe(row: Row) -> str:
    """One line for each model, and one more for each thing that was lost on the way."""
    if row.error:
        return f"refused       {row.source}: {row.message}"
    line = f"{row.verdict:<13} {row.source} -> {row.output} ({row.seconds:.1f} s): {row.reason}"
    return "\n".join([line, *(finding_line(item) for item in row.findings if item.severity is not Severity.NOTE)])
