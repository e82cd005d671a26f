"""A sample of ``scripts/bench proof``, with other faults every time: none of them may be called verified."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from bench import proof
from bench._judged import MISSED, NOTHING
from bench._models import MODELS
from tests.formats.conftest import LIBRARIES
from worker.sandbox.client import Zygote

FAULTS = 12
pytestmark = [pytest.mark.filterwarnings(rule) for rule in LIBRARIES]


def test_no_fault_in_a_converted_file_is_called_verified(zygote: Zygote, tmp_path: Path) -> None:
    seed = random.SystemRandom().randrange(10**4)
    kind = random.SystemRandom().choice(list(MODELS))
    print(f"seed {seed}, model {kind}")  # pytest shows it where the test fails; for scripts/bench proof --seed --models
    wanted = proof.Wanted(FAULTS, 0, seed, ("h5", "onnx", "tflite"), (kind,))
    found = proof.Findings()
    proof.prove(zygote, wanted, tmp_path, found)
    assert [item for item in found.honest if item.verdict not in proof.FINE] == []
    assert [fault for fault in found.faults if fault.word == MISSED] == []
    assert sum(fault.word != NOTHING for fault in found.faults) == FAULTS
