"""Many models, one after the other or two at once, in one zygote: what `inspect` and `convert` have in common.

One row for each model, in the order they were given, as soon as it is known. A model that fails is a row too.
"""

from __future__ import annotations

import json
import logging
import sys
import tempfile
import uuid
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandParser

from project.walls import walls
from worker import pipeline
from worker.bundle import CODE, Bundle, gather
from worker.custom_code import Consent, check_walls
from worker.errors import CustomCode, LambdaRefused, LarderError, UnreadablePath
from worker.intake import recognise, suffix_finding, take_sample
from worker.report import Check, Finding, Verdict, refusals
from worker.sandbox.client import Zygote
from worker.sandbox.limits import Limits
from worker.visible import visible

log = logging.getLogger(__name__)
AT_ONCE = 2  # jobs are processes; more of them than cores only wait for each other
AT_THE_COMMAND_LINE = "whoever ran this command"  # as whose word consent is told
REFUSED, MISUSED, INTERRUPTED = 3, 2, 130  # exit statuses


@dataclass
class Row:
    """What is said about one model; the fields of the JSON line, in its order."""

    source: str
    format: str | None = None
    target: str | None = None
    route: tuple[str, ...] = ()
    verdict: Verdict | None = None
    checks: tuple[Check, ...] = ()
    findings: list[Finding] = field(default_factory=list)
    error: LarderError | None = None
    seconds: float = 0.0
    output: Path | None = None
    name: str = ""  # what the result will be called, before its suffix
    reason: str = ""  # of the verdict, for people; in JSON the checks say it
    hint: str = ""  # what the command line can add to the error
    more: dict[str, Any] = field(default_factory=dict)

    @property
    def message(self) -> str:
        """The error's sentence, and the hint."""
        return f"{self.error.message if self.error else ''}{self.hint}"

    def to_json(self) -> dict[str, Any]:
        return {
            "source": self.source,
            "format": self.format,
            "target": self.target,
            "route": list(self.route),
            "verdict": self.verdict,
            "checks": [check.to_json() for check in self.checks],
            "findings": [finding.to_json() for finding in self.findings],
            "error": {"code": self.error.code, "message": self.message} if self.error else None,
            "seconds": self.seconds,
            "output": str(self.output) if self.output else None,
            **self.more,
        }


@dataclass(frozen=True)
class Model:
    """One recognised model, with what its jobs need."""

    row: Row
    bundle: Bundle
    slug: str
    because: str
    zygote: Zygote
    scratch: Path
    consent: Consent | None

    def folder(self, name: str) -> Path:
        """A new private folder for jobs."""
        made = self.scratch / name
        made.mkdir(mode=0o700)
        return made

    def examine(self, load: bool = True) -> pipeline.Inspection:
        """Inspect it, and note the findings in the row; whether it loads too, unless a conversion will tell. Raises why
        the screen refuses it, since nothing may open it then."""
        folder = self.folder("inspect" if load else "structure")
        inspection = pipeline.inspect(
            self.zygote,
            self.bundle.path,
            self.slug,
            folder,
            limits(),
            consent=self.consent,
            name=self.bundle.name,
            load=load,
        )
        self.row.findings += [finding for finding in inspection.findings if finding not in self.row.findings]
        if inspection.error and refusals(inspection.findings):
            raise inspection.error
        return inspection


def add_common_arguments(parser: CommandParser, more_than_one: bool = True) -> None:
    """The arguments of every command that takes models."""
    about = "A model file, or a folder whose files make up one model."
    parser.add_argument("models", nargs="+" if more_than_one else 1, metavar="MODEL", help=about)
    parser.add_argument("--json", action="store_true", help="One JSON object per model, one per line.")
    parser.add_argument(
        "--allow-custom-code",
        action="store_true",
        help="Run the Python code that a model needs, inside the sandbox: of its Lambda layers, and custom_objects.py "
        "of its folder.",
    )


def limits() -> Limits:
    """What one job may use, from the settings."""
    return Limits(
        memory_bytes=settings.JOB_MEMORY_BYTES,
        disk_bytes=settings.JOB_DISK_BYTES,
        wall_seconds=settings.JOB_WALL_SECONDS,
    )


def work_through(
    command: BaseCommand,
    options: dict[str, Any],
    rows: Sequence[Row],
    work: Callable[[Model], None],
    describe: Callable[[Row], str],
) -> None:
    """Do ``work`` for every row, print each, and exit with the status that sums them up."""
    with Zygote(walls=walls()) as zygote, ThreadPoolExecutor(AT_ONCE) as threads:
        pending = [threads.submit(_settle, row, zygote, bool(options["allow_custom_code"]), work) for row in rows]
        try:
            for row in (future.result() for future in pending):
                command.stdout.write(json.dumps(row.to_json()) if options["json"] else visible(describe(row)))
                command.stdout.flush()
        except KeyboardInterrupt:
            threads.shutdown(wait=False, cancel_futures=True)
            zygote.close()
            sys.exit(INTERRUPTED)
    if not options["json"]:
        command.stdout.write(_sum_up(rows))
    if any(_is_refused(row) for row in rows):
        sys.exit(REFUSED)


def _settle(row: Row, zygote: Zygote, allow_code: bool, work: Callable[[Model], None]) -> Row:
    """Whatever becomes of one model, it becomes its row."""
    started = monotonic()
    try:
        with _recognised(row, zygote, allow_code) as model:
            work(model)
    except LarderError as error:
        row.error = error
    except OSError as error:
        row.error = UnreadablePath(name=row.source, reason=error.strerror or str(error))
    except Exception:
        reference = uuid.uuid4().hex[:8]
        log.exception("reference %s: %s failed in a way that nobody foresaw", reference, row.source)
        row.error = LarderError(reference=reference)
    row.seconds = round(monotonic() - started, 3)
    return row


@contextmanager
def _recognised(row: Row, zygote: Zygote, allow_code: bool) -> Iterator[Model]:
    """The model behind a row, with a folder that is gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="larder-", ignore_cleanup_errors=True) as scratch:
        bundle = gather(Path(row.source), Path(scratch))
        sample = take_sample(bundle.path, bundle.name)
        item, because = recognise(sample)
        row.format = item.slug
        row.findings += bundle.findings
        if not bundle.packed and (misleading := suffix_finding(sample, item)):
            row.findings.append(misleading)
        if allow_code:
            check_walls(zygote.absent)
        consent = Consent(AT_THE_COMMAND_LINE, bundle.code) if allow_code else None
        try:
            yield Model(row, bundle, item.slug, because, zygote, Path(scratch), consent)
        except (CustomCode, LambdaRefused) as error:
            row.hint = "" if allow_code else _hint(error, bundle)
            raise


def _hint(error: LarderError, bundle: Bundle) -> str:
    """What the command line could do about code that nobody has agreed to run."""
    if isinstance(error, LambdaRefused):
        return " Or give --allow-custom-code, which runs it, inside the sandbox."
    return f" {CODE} is beside it: --allow-custom-code runs it, inside the sandbox." if bundle.code else ""


def finding_line(finding: Finding) -> str:
    """A finding below the line of its model."""
    return f"         {finding.severity}: {finding.sentence}"


def _is_refused(row: Row) -> bool:
    return row.error is not None or row.verdict not in (None, Verdict.VERIFIED)


def _sum_up(rows: Sequence[Row]) -> str:
    refused = sum(row.error is not None for row in rows)
    unproven = sum(row.verdict is Verdict.NOT_PROVABLE for row in rows)
    differing = sum(row.error is None and row.verdict is Verdict.DIFFERS for row in rows)
    parts = [f"{len(rows) - refused - unproven - differing} fine"]
    parts += [f"{differing} different"] if differing else []
    parts += [f"{unproven} not provable"] if unproven else []
    parts += [f"{refused} refused"] if refused else []
    return f"{len(rows)} model{'s' if len(rows) != 1 else ''}: {', '.join(parts)}."
