"""Which operation a converter does not survive. Its process is gone, and nobody is left to say so: the graph is cut
short, by halves, and each part is converted in a job of its own, until one operation alone makes the difference."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from worker.errors import LarderError
from worker.formats import _cut
from worker.work import STOPPED, Json, Work, under_its_suffix

SECONDS_OF_ALL, SECONDS_OF_ONE = 300, 60


@dataclass(frozen=True)
class Tried:
    """One part: whether converting it ended well, how many operations the whole has, and the last one of this part."""

    survived: bool
    total: int
    last: str


def find(work: Work, arguments: Json, read: Sequence[Path], ending: type[LarderError]) -> str:
    """The operation with which parts of the graph begin to end the job of these arguments as the whole did
    (``ending``); "" where they do not tell: it is not made from a graph, or only the whole ends so. ``read``: what the
    job may read, its source first."""
    work.stage("looking for the operation that the converter does not survive")
    hasty = replace(work, limits=replace(work.limits, wall_seconds=min(SECONDS_OF_ONE, work.limits.wall_seconds)))
    return between(lambda first: _try(hasty, arguments, read, ending, first))


def between(attempt: Callable[[int], Tried | None], seconds: float = SECONDS_OF_ALL) -> str:
    """The operation with which parts begin to fail. ``attempt`` converts a part of so many operations."""
    end = time.monotonic() + seconds
    part = attempt(0)
    if part is None or not part.survived:  # nobody came to a graph, or it fails whatever is in it
        return ""
    low, high = 0, part.total
    failing = attempt(high)
    while failing and not failing.survived and high - low > 1 and time.monotonic() < end:
        middle = (low + high) // 2
        part = attempt(middle)
        if part is None:
            return ""
        if part.survived:
            low = middle
        else:
            high, failing = middle, part
    return failing.last if failing and not failing.survived and high - low == 1 else ""


def _try(work: Work, arguments: Json, read: Sequence[Path], ending: type[LarderError], first: int) -> Tried | None:
    folder = work.subfolder(f"part-{first}")
    source = under_its_suffix(read[0], arguments["source_format"], folder)
    files = {"source": str(source), "target": str(folder / Path(arguments["target"]).name)}
    said: list[str] = []
    survived = True
    try:
        work.job("convert", arguments | files | {"first": first, "probe": None}, read, folder, said.append)
    except STOPPED:
        raise
    except LarderError as error:  # a refusal is an end that was meant
        survived = not isinstance(error, ending)
    told = next(filter(None, map(_cut.heard, said)), None)
    return Tried(survived, *told) if told else None
