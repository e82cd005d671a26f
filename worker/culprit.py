"""Which operation a converter does not survive. Its process is gone, and nobody is left to say so: the graph is cut
short, by halves, and each part is converted in a job of its own, until one operation alone makes the difference."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from worker.errors import LarderError
from worker.formats import _cut
from worker.work import STOPPED, Json, Work

SECONDS_OF_ALL, SECONDS_OF_ONE = 300, 60


@dataclass(frozen=True)
class Tried:
    """One part: whether converting it ended well, how many operations the whole has, and the last one of this part."""

    survived: bool
    total: int
    last: str


def find(work: Work, arguments: Json, read: Sequence[Path], folder: Path, ending: type[LarderError]) -> str:
    """The operation with which parts of the graph begin to end the job of these arguments as the whole did
    (``ending``); "" where they do not tell: it is not made from a graph, or only the whole ends so."""
    work.stage("looking for the operation that the converter does not survive")
    hasty = replace(work, limits=replace(work.limits, wall_seconds=min(SECONDS_OF_ONE, work.limits.wall_seconds)))
    return between(lambda first: _try(hasty, arguments | {"first": first, "probe": None}, read, folder, ending))


def between(attempt: Callable[[int], Tried | None], seconds: float = SECONDS_OF_ALL) -> str:
    """The operation with which parts begin to fail. ``attempt`` converts a part of so many operations."""
    end = time.monotonic() + seconds
    part = attempt(0)
    if part is None or not part.survived:  # nobody came to a graph, or it fails whatever is in it
        return ""
    low, high = 0, part.total
    failing = attempt(high)
    while failing and not failing.survived and high - low > 1 and time.monotonic() < end:
        part = attempt((low + high) // 2)
        if part is None:
            return ""
        if part.survived:
            low = (low + high) // 2
        else:
            high, failing = (low + high) // 2, part
    return failing.last if failing and not failing.survived and high - low == 1 else ""


def _try(work: Work, arguments: Json, read: Sequence[Path], folder: Path, ending: type[LarderError]) -> Tried | None:
    said: list[str] = []
    survived = True
    try:
        work.job("convert", arguments, read, folder, said.append)
    except STOPPED:
        raise
    except LarderError as error:  # a refusal is an end that was meant
        survived = not isinstance(error, ending)
    finally:
        _remove(Path(arguments["target"]))
    told = next(filter(None, map(_cut.heard, said)), None)
    return Tried(survived, *told) if told else None


def _remove(path: Path) -> None:
    """Whatever a job left there: a link is never followed."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    elif os.path.lexists(path):
        path.unlink()
