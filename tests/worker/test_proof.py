"""A sample of ``scripts/bench proof``: none of its faults may be called verified.

Always the same one, so that it speaks of the change at hand; ``LARDER_PROOF_SEED`` draws another, as the benchmark
does.
"""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

from bench import proof
from bench._judged import MISSED, NOTHING
from bench._models import MODELS
from tests.formats.conftest import LIBRARIES
from worker.sandbox.client import Zygote

FAULTS = 12
SEED = int(os.environ.get("LARDER_PROOF_SEED") or 4)
pytestmark = [pytest.mark.filterwarnings(rule) for rule in LIBRARIES]


def test_no_fault_in_a_converted_file_is_called_verified(zygote: Zygote, tmp_path: Path) -> None:
    kind = random.Random(SEED).choice(list(MODELS))  # noqa: S311 - which faults to plant is no secret
    print(f"seed {SEED}, model {kind}")  # pytest shows it where the test fails; for scripts/bench proof --seed --models
    wanted = proof.Wanted(FAULTS, 0, SEED, ("h5", "onnx", "tflite"), (kind,))
    found = proof.Findings()
    proof.prove(zygote, wanted, tmp_path, found)
    assert [item for item in found.honest if item.verdict not in proof.FINE] == []
    assert [fault for fault in found.faults if fault.word == MISSED] == []
    assert sum(fault.word != NOTHING for fault in found.faults) == FAULTS
