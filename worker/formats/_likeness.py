"""What comparing a file with the same one before its numbers were rounded has found. Plain data; pure."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from worker.formats._format import TensorSpec

MOST_NAMED, LONGEST = 1000, 300  # of what a job says about a stranger's file


@dataclass(frozen=True)
class Rounded:
    """One constant of a rounded file beside the same one before: how many steps they lie apart where that is most. A
    step is the distance of two numbers that the rounded file can store there. ``is_rounded``: is it stored coarser?"""

    name: str
    steps: float
    is_rounded: bool

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Rounded:
        return cls(str(data["name"])[:LONGEST], _distance(data["steps"]), bool(data["is_rounded"]))


@dataclass(frozen=True)
class Measured:
    """What ranges are measured on when numbers are rounded: people's samples, or rows that belong to the seed. The
    inputs are those of the source."""

    inputs: tuple[TensorSpec, ...]
    seed: int
    samples: Path | None = None


@dataclass(frozen=True)
class CutOff:
    """A computed tensor, and how far its values reach beyond what its whole numbers can stand for, as a share of their
    span."""

    name: str
    share: float

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> CutOff:
        return cls(str(data["name"])[:LONGEST], _distance(data["share"]))


def _distance(said: Any) -> float:
    """How far a job says that something lies off; ValueError for what is no distance."""
    found = float(said)
    if not math.isfinite(found) or found < 0:
        raise ValueError("not how far numbers lie apart")
    return found


@dataclass(frozen=True)
class Likeness:
    """How far a file is another one of its format with numbers rounded, as ``Format.alike`` finds it.

    ``problem``: where the two graphs part; "" where they are the same, and then the rest is known: how many operations
    and constants were compared, how many of these are rounded, those that lie furthest apart, the layers that compute
    in float32, the tensors of which most is cut off, where that was asked, and how many values have a range beyond
    which they are cut off.
    """

    problem: str = ""
    operations: int = 0
    tensors: int = 0
    rounded: int = 0
    furthest: tuple[Rounded, ...] = ()
    floating: tuple[str, ...] = ()
    cut_off: tuple[CutOff, ...] = ()
    ranges: int = 0

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Likeness:
        """ValueError, TypeError or KeyError for what is none."""
        return cls(
            problem=str(data["problem"])[:LONGEST],
            operations=int(data["operations"]),
            tensors=int(data["tensors"]),
            rounded=int(data["rounded"]),
            furthest=tuple(map(Rounded.from_json, list(data["furthest"])[:MOST_NAMED])),
            floating=tuple(str(name)[:LONGEST] for name in list(data["floating"])[:MOST_NAMED]),
            cut_off=tuple(map(CutOff.from_json, list(data["cut_off"])[:MOST_NAMED])),
            ranges=int(data["ranges"]),
        )
