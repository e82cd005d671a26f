"""Files that attack: each gets what its manifest asks for, and nothing of it is left."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from bench.hostile import LIMITS, Jobs, cases_of, report, run
from worker.sandbox.client import Zygote


def test_it_works(zygote: Zygote, shared: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """All of them, one after the other, as ``scripts/bench hostile`` shows it; here none may take so long."""
    folder = shared / "hostile"
    limits = dataclasses.replace(LIMITS, wall_seconds=15, cpu_seconds=15)
    endings = run(cases_of(folder), folder, Jobs(zygote, limits))
    with capsys.disabled():
        print()
        status = report(endings)
    assert {ending.case["id"]: ending.wrong for ending in endings if ending.wrong} == {}
    assert status == 0
