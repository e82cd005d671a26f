"""Every direction between formats on the canonical models: verified, or said before that it is not possible.

All targets from ``.keras``, and for each other source some targets at random; the seed is printed. LARDER_MATRIX_SEED
draws the same again, LARDER_MATRIX=whole goes every direction. The table is printed with ``-s``, and where it fails.
"""

from __future__ import annotations

import os
import random

import pytest

from tests.formats.matrix import KINDS, Matrix, line, reasons, sampled, table
from worker import formats

SEED = int(os.environ.get("LARDER_MATRIX_SEED") or random.SystemRandom().randrange(10**6))
WHOLE = os.environ.get("LARDER_MATRIX") == "whole"
TARGETS_OF_EACH = 1


@pytest.mark.parametrize("kind", KINDS)
def test_every_direction(kind: str, matrix: Matrix) -> None:
    cells = list(matrix.started(kind))
    wanted = matrix.directions(kind)
    cells += matrix.convert(wanted if WHOLE else sampled(wanted, TARGETS_OF_EACH, SEED))
    print(f"\nLARDER_MATRIX_SEED={SEED} {kind}: {len(cells)} directions", *table(cells), sep="\n")
    for reason, directions in reasons(cells).items():
        print(f"  not possible: {reason} ({len(directions)} directions, such as {directions[0]})")
    assert "\n".join(line(cell) for cell in cells if not cell.is_right) == ""


@pytest.mark.parametrize("target", [slug for slug, item in formats.formats().items() if "architecture" in item.keeps])
def test_a_graph_without_layers_does_not_become_layers(target: str) -> None:
    converter = formats.get(target).converts_from.get("saved_model")
    assert converter is None or "keras-config" in converter.requires
