"""Do a person's samples fit a model? Asked of a job as soon as they are given, so that no conversion has to say it.

The job reads the samples as every conversion does, against the inputs that inspection has found; the model's file is
not opened for that. No Django.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from worker.formats._format import TensorSpec
from worker.report import Finding, findings_from_json
from worker.sandbox.limits import Limits
from worker.work import Jobs, Json, never, sense

LONGEST_NAME = 300
MOST_INPUTS, MOST_FINDINGS, MOST_SIZES = 1000, 2000, 64  # of what a job says of a stranger's file


@dataclass(frozen=True)
class Given:
    """The samples of one input, as the model takes them. ``low`` and ``high``: of its finite numbers, None for text;
    ``finite``: are all of them?"""

    name: str
    shape: tuple[int, ...]
    dtype: str
    low: float | None = None
    high: float | None = None
    finite: bool = True

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Given:
        """ValueError, KeyError and TypeError for anything else."""
        low, high = (None if data[key] is None else _number(data[key]) for key in ("low", "high"))
        shape = tuple(map(int, data["shape"][:MOST_SIZES]))
        name, dtype = (str(data[key])[:LONGEST_NAME] for key in ("name", "dtype"))
        return cls(name, shape, dtype, low, high, data["finite"] is True)

    @property
    def range_said(self) -> str:
        """``-1.2 to 3.4``; nothing for text."""
        if self.low is None or self.high is None:
            return "" if self.finite else "no finite numbers"
        said = f"{self.low:.4g} to {self.high:.4g}" if self.low != self.high else f"all {self.low:.4g}"
        return said if self.finite else f"{said}, and some that are not finite"

    @property
    def shape_said(self) -> str:
        """``24×4``."""
        return "×".join(map(str, self.shape)) or "a single value"

    @property
    def said(self) -> str:
        """``x, 24×4 of float32, -1.2 to 3.4``."""
        return ", ".join(filter(None, [self.name, f"{self.shape_said} of {self.dtype}", self.range_said]))


@dataclass(frozen=True)
class Fit:
    """Samples that fit: what each input is given, and what is to be known about that."""

    inputs: tuple[Given, ...]
    findings: tuple[Finding, ...] = ()

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Fit:
        inputs = tuple(map(Given.from_json, data["inputs"][:MOST_INPUTS]))
        return cls(inputs, tuple(findings_from_json(data["findings"][:MOST_FINDINGS])))

    def to_json(self) -> Json:
        return {
            "inputs": [asdict(item) for item in self.inputs],
            "findings": [item.to_json() for item in self.findings],
        }

    @property
    def rows(self) -> int:
        """How many rows are used: the length of the first dimension."""
        return next((item.shape[0] for item in self.inputs if item.shape), 1)


def fit(
    zygote: Jobs,
    samples: Path,
    inputs: Sequence[TensorSpec],
    folder: Path,
    limits: Limits,
    canceled: Callable[[], bool] = never,
) -> Fit:
    """How the samples fit these inputs of a model; BadSamples says what does not, and whatever else a job ends with.

    The job has a folder of its own below ``folder``, which may hold a link to the samples."""
    own = folder / "fit"
    own.mkdir(mode=0o700)
    arguments = {"path": str(samples), "specs": [asdict(spec) for spec in inputs]}
    answer = zygote.run("fit", arguments, read=[samples], folder=own, limits=limits, canceled=canceled).value
    with sense():
        return Fit.from_json(answer)


def _number(value: Any) -> float:
    number = float(value)
    if not math.isfinite(number):
        raise ValueError("not the bound of a range")
    return number
