"""What two models showed in their jobs, and the terms on which they are compared."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from worker.formats._format import TensorSpec, Tolerance
from worker.verify.draws import Arrays

Digest = tuple[str, tuple[int, ...], str]  # dtype, shape, sha256 of the bytes
Shape = tuple[int | None, ...] | None
COARSE = 1e-3  # about the rounding of a float16


@dataclass(frozen=True)
class Seen:
    """What one model showed in its job: its interface, its weights, and its answers, one dict for each draw.

    ``architecture``: a digest of its layers and their connections, where it is too large to be run for a proof.
    """

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    weights: tuple[Digest, ...]
    values: list[Arrays]
    architecture: str = ""


@dataclass(frozen=True)
class Terms:
    """How a pair is judged: how far values may lie apart, whether weights must come back bit for bit, whether the
    result is weights alone, with nothing to run, which dtypes its format holds as another, and whether it takes one row
    at a time, as was said when it was made, and why only the rebuilt model itself was there to compare with."""

    tolerance: Tolerance
    exact_weights: bool
    weights_alone: bool = False
    narrows: Mapping[str, str] = field(default_factory=dict)
    one_row: bool = False
    unwitnessed: str = ""

    @property
    def is_coarse(self) -> bool:
        """Is more allowed than rounding can explain, so that people have to be told how much it is?"""
        return self.tolerance.rtol > COARSE
