"""Does a fault change anything that a file computes? Asked of faults that were called verified, on many more inputs.

In float64 where the library can compute in it. Without it, what lies within the rounding of float32 counts as nothing:
a bias of keys in an attention, say, which the softmax takes out again.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from worker import formats
from worker.formats._format import Loaded, TensorSpec

ROWS = 8
SCALES = (1.0, 10.0, 100.0)
EXACT = 1e-12  # of the output's scale, in float64
ROUNDED = 4e-6  # in float32
SIZE = 16  # of a free dimension


def matters(slug: str, before: Path, after: Path, inputs: Sequence[TensorSpec]) -> tuple[bool, str]:
    """Does the fault move an output, and how far, in words?"""
    load = formats.get(slug).load
    if load is None or not inputs:
        return True, "it was not run"
    with tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as other:
        first, second = load(before, Path(one)), load(after, Path(other))
        if not first.inputs:
            return True, "it holds weights alone"
        exact = first.exact is not None and second.exact is not None
        moved = max(_moved(first, second, draw, exact) for draw in _draws(first.inputs, inputs))
    said = f"it moves an output by {moved:.2g} of its scale, computed in {'float64' if exact else 'its own precision'}"
    return moved > (EXACT if exact else ROUNDED), said


def _moved(first: Loaded, second: Loaded, draw: dict[str, Any], exact: bool) -> float:
    one, two = (_answer(loaded, draw, exact) for loaded in (first, second))
    return max(_gap(one[name], two[name]) for name in one)


def _answer(loaded: Loaded, draw: dict[str, Any], exact: bool) -> dict[str, Any]:
    run = loaded.exact if exact and loaded.exact else loaded.run
    return {name: np.asarray(array, "float64") for name, array in run(draw).items()}


def _gap(one: Any, two: Any) -> float:
    return float(np.abs(one - two).max(initial=0.0) / max(np.abs(one).max(initial=0.0), 1e-300))


def _draws(own: Sequence[TensorSpec], source: Sequence[TensorSpec]) -> list[dict[str, Any]]:
    """Inputs of several scales; whole numbers up to what the source's layers take."""
    random = np.random.default_rng(0)
    limits = [spec.limit for spec in source]
    return [
        {spec.name: _array(spec, limits[place], scale, random) for place, spec in enumerate(own)} for scale in SCALES
    ]


def _array(spec: TensorSpec, limit: int | None, scale: float, random: np.random.Generator) -> Any:
    shape = [ROWS if place == 0 else size or SIZE for place, size in enumerate(spec.shape or ())]
    if np.dtype(spec.dtype).kind in "iu" or limit:
        return random.integers(0, limit or 9, shape).astype(spec.dtype)
    return (scale * random.normal(size=shape)).astype(spec.dtype)
