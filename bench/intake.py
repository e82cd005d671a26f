"""What the intake says of honest files: each entry of a corpus is recognised and screened, and nothing is opened.

A refusal is wrong but where the entry's own notes ask for one, or where it holds weights without a model. Printed: what
was refused and why, how many files need consent and for what, and what the slowest file took.

usage: scripts/bench intake FOLDER [--only FORMAT …] [--sample N] [--seed S]
"""

from __future__ import annotations

import argparse
import os
import random
import re
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench._table import show
from tests.formats.corpus import Entry, entries
from worker.errors import LarderError
from worker.formats._screen import screen
from worker.intake import recognise, take_sample
from worker.report import Finding, needing_consent, refusals

ASKED = re.compile(r"refus", re.IGNORECASE)
LONGEST = 60.0  # seconds of one file


@dataclass(frozen=True)
class Outcome:
    """What was said of one entry. ``refused``: why, or ""."""

    entry: Entry
    refused: str
    findings: tuple[Finding, ...]
    seconds: float

    @property
    def is_wrong(self) -> bool:
        """Refused, though neither the notes ask for that nor a part of the model is missing."""
        incomplete = self.refused.partition(":")[0] in ("incomplete-model", "not-a-model") and not self.entry.has_model
        return bool(self.refused) and not incomplete and not ASKED.search(self.entry.notes)

    @property
    def needs_consent(self) -> str:
        return ", ".join(sorted({finding.code for finding in needing_consent(self.findings)}))


def examine(entry: Entry) -> Outcome:
    """Recognise and screen one entry, as a job does before it opens anything."""
    started = time.monotonic()
    findings: list[Finding] = []
    refused = ""
    with tempfile.TemporaryDirectory(prefix="larder-intake-") as folder:
        try:
            bundle = entry.gather(Path(folder))
            item, _ = recognise(take_sample(bundle.path, bundle.name))
            findings = screen(bundle.path, item.slug, Path(folder) / "scratch", bundle.name)
        except LarderError as error:
            refused = f"{error.code}: {error.message}"
    refused = refused or next((finding.sentence for finding in refusals(findings)), "")
    return Outcome(entry, refused, tuple(findings), time.monotonic() - started)


def report(outcomes: Sequence[Outcome]) -> int:
    refused = [outcome for outcome in outcomes if outcome.refused]
    show(
        ["entry", "asked for", "refused because"],
        [[item.entry.id, "no" if item.is_wrong else "yes", item.refused[:160]] for item in refused],
    )
    consents = Counter(outcome.needs_consent for outcome in outcomes if outcome.needs_consent)
    print(*(f"\n{count} files need consent: {codes}" for codes, count in sorted(consents.items())))
    wrong = sum(outcome.is_wrong for outcome in outcomes)
    slowest = max((outcome.seconds for outcome in outcomes), default=0.0)
    falls_short = wrong or slowest > LONGEST
    counted = f"{len(outcomes)} honest files: {len(refused)} refused, {wrong} of them without being asked for (bar 0)"
    print(
        f"{counted}; the slowest took {slowest:.1f} s (bar {LONGEST:g} s): {'falls short' if falls_short else 'holds'}"
    )
    return int(bool(falls_short))


def chosen(found: Iterable[Entry], only: Sequence[str] | None, count: int | None, seed: int) -> list[Entry]:
    """The entries of these formats; so many of them, where that is asked."""
    wanted = [entry for entry in found if not only or entry.format in only]
    return wanted if count is None else random.Random(seed).sample(wanted, min(count, len(wanted)))  # noqa: S311


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/bench intake")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--only", nargs="+", metavar="FORMAT")
    parser.add_argument("--sample", type=int, metavar="N")
    parser.add_argument("--seed", type=int, default=0, metavar="S")
    given = parser.parse_args()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    found = chosen(entries(given.folder), given.only, given.sample, given.seed)
    return report([examine(entry) for entry in found])


if __name__ == "__main__":
    sys.exit(main())
