"""Every direction between formats, for the canonical models, through the real pipeline and the real sandbox.

The files to start from are what Larder wrote of the models, and, for formats that it only takes in, what people write
with the libraries themselves. A direction is right where the verdict is ``verified``, or where the routes said before
that it is not possible. Where values agree and only faults would not have shown, it is marked apart; a format that
cannot be run here (Core ML) is right with ``not-provable``.
"""

from __future__ import annotations

import random
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from tests.formats import makers
from tests.formats.models import MODELS, made
from worker import formats, pipeline, routes
from worker.errors import LarderError
from worker.formats._format import Summary
from worker.intake import recognise, take_sample
from worker.report import Report
from worker.sandbox.client import Zygote
from worker.sandbox.limits import Limits

AT_ONCE = 2
NOT_RUN_HERE = ("coreml",)


@dataclass(frozen=True)
class Cell:
    """What became of one direction: "ok", the sentence said before ("no: …"), why values that agree are no proof
    ("unseen: …"), or what went wrong ("FAILED …")."""

    kind: str
    source: str
    target: str
    said: str

    @property
    def is_right(self) -> bool:
        return not self.said.startswith("FAILED")


@dataclass
class Matrix:
    """The files of the canonical models in every format, made as they are needed."""

    zygote: Zygote
    root: Path
    files: dict[tuple[str, str], Path] = field(default_factory=dict)
    summaries: dict[tuple[str, str], Summary] = field(default_factory=dict)
    begun: dict[str, list[Cell]] = field(default_factory=dict)

    def started(self, kind: str) -> list[Cell]:
        """What became of every direction from ``.keras``, gone once."""
        if kind not in self.begun:
            self.begun[kind] = self._start(kind)
        return self.begun[kind]

    def file(self, kind: str, slug: str) -> Path:
        """The model in a format."""
        failed = [cell for cell in self.started(kind) if cell.target == slug and not cell.is_right]
        if (kind, slug) not in self.files:
            raise FileNotFoundError(f"there is no {slug} of {kind}: {[cell.said for cell in failed]}")
        return self.files[kind, slug]

    def _start(self, kind: str) -> list[Cell]:
        """The model as ``.keras``, everything that becomes of it, and the files that only people write."""
        file = self.root / f"{kind}.keras"
        model = made(kind)
        model.save(file)
        self.files[kind, "keras"] = file
        self.files |= {(kind, slug): path for slug, path in makers.write_all(model, self.root / f"{kind}-made").items()}
        return self.convert([(kind, "keras", target) for target in formats.formats() if target != "keras"])

    def sources(self, kind: str) -> list[str]:
        return sorted(slug for made_kind, slug in self.files if made_kind == kind)

    def directions(self, kind: str) -> list[tuple[str, str, str]]:
        """Every direction from everything that is there, also to its own format, but those that ``start`` has gone."""
        every = [(kind, source, target) for source in self.sources(kind) for target in formats.formats()]
        gone = {(cell.kind, cell.source, cell.target) for cell in self.started(kind)}
        return [direction for direction in every if direction not in gone]

    def convert(self, wanted: Sequence[tuple[str, str, str]]) -> list[Cell]:
        with ThreadPoolExecutor(AT_ONCE) as threads:
            return list(threads.map(lambda direction: self._cell(*direction), wanted))

    def _cell(self, kind: str, source: str, target: str) -> Cell:
        path = self.files[kind, source]
        try:
            summary = self._summary(kind, source)
            offered = {offer.format.slug: offer for offer in routes.offers(source, summary)}[target]
            if offered.error:
                return Cell(kind, source, target, f"no: {offered.error.message}")
            said = self._convert(kind, pipeline.Source(path, source, summary), target)
        except LarderError as error:
            said = f"FAILED {error.code}: {error.message}"
        return Cell(kind, source, target, said)

    def _convert(self, kind: str, source: pipeline.Source, target: str) -> str:
        result = pipeline.convert(self.zygote, source, target, {}, self._folder(), Limits())
        wanted = "not-provable" if target in NOT_RUN_HERE else "verified"
        if wanted == "verified" and _agrees(result.report):
            self.files.setdefault((kind, target), result.path)
            return f"unseen: {result.report.reason}"
        if result.report.verdict != wanted:
            return f"FAILED {result.report.verdict}: {result.report.reason}"
        self.files.setdefault((kind, target), result.path)
        return "ok"

    def _summary(self, kind: str, slug: str) -> Summary:
        """What inspection finds; the file must also be recognised as what it is."""
        if (kind, slug) not in self.summaries:
            path = self.files[kind, slug]
            found = recognise(take_sample(path, path.name))[0].slug
            if found != slug:
                raise LarderError(reference=f"{path.name} is recognised as {found}, not as {slug}")
            inspection = pipeline.inspect(self.zygote, path, slug, self._folder(), Limits())
            if inspection.error:
                raise inspection.error
            self.summaries[kind, slug] = inspection.summary
        return self.summaries[kind, slug]

    def _folder(self) -> Path:
        return Path(tempfile.mkdtemp(dir=self.root))


def _agrees(report: Report) -> bool:
    """Are the values the same, and is nothing open but whether faults would have shown? A network that was never
    trained hardly looks at its attention, and graphs have no layers of which to make an alive twin."""
    passed = {check.name: check.passed for check in report.checks}
    left = {name for name, value in passed.items() if value is not True}
    return report.verdict == "not-provable" and bool(passed.get("values")) and left <= {"sensitivity", "weights"}


def sampled(wanted: Sequence[tuple[str, str, str]], count: int, seed: int) -> list[tuple[str, str, str]]:
    """``count`` targets for every source that has more of them left."""
    generator = random.Random(seed)  # noqa: S311 - which directions to go is no secret
    by_source: dict[str, list[tuple[str, str, str]]] = {}
    for direction in wanted:
        by_source.setdefault(direction[1], []).append(direction)
    drawn = (generator.sample(group, count) for group in by_source.values() if len(group) > count)
    return [direction for group in drawn for direction in group]


def table(cells: Sequence[Cell]) -> Iterator[str]:
    """One line for each source: ✓ where it worked, ~ where values agree and faults would not show, · where it is said
    before that it cannot, ✗ where it failed."""
    targets = sorted({cell.target for cell in cells})
    width = max(map(len, (cell.source for cell in cells)))
    yield " " * width + "  " + " ".join(f"{number:>2}" for number in range(1, len(targets) + 1))
    for source in sorted({cell.source for cell in cells}):
        marks = {
            target: _mark([cell for cell in cells if (cell.source, cell.target) == (source, target)])
            for target in targets
        }
        yield source.ljust(width) + "  " + " ".join(f"{marks[target]:>2}" for target in targets)
    yield "  ".join(f"{number} {target}" for number, target in enumerate(targets, 1))


def _mark(cells: Sequence[Cell]) -> str:
    if not cells:
        return ""
    if not all(cell.is_right for cell in cells):
        return "✗"
    if any(cell.said.startswith("unseen") for cell in cells):
        return "~"
    return "·" if all(cell.said.startswith("no") for cell in cells) else "✓"


def line(cell: Cell) -> str:
    """The direction and what became of it."""
    return f"{cell.kind}: {cell.source} → {cell.target}: {cell.said}"


def reasons(cells: Sequence[Cell]) -> Mapping[str, list[str]]:
    """Each sentence said before, with the directions that it was said of."""
    found: dict[str, list[str]] = {}
    for cell in cells:
        if cell.said.startswith("no: "):
            found.setdefault(cell.said[4:], []).append(f"{cell.source} → {cell.target} ({cell.kind})")
    return found


KINDS: Sequence[str] = tuple(MODELS)
