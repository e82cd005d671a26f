"""`manage.py verify`: two files that are there already, judged as a conversion is."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from django.core.management.base import CommandError

from models_app.management.commands._batch import MISUSED
from tests.models_app.cli import borrow, codes, run, write_pair
from worker.sandbox.client import Zygote


@pytest.fixture(autouse=True)
def warm(zygote: Zygote, monkeypatch: pytest.MonkeyPatch) -> None:
    borrow(zygote, monkeypatch)


@pytest.fixture
def pair(tmp_path: Path) -> Path:
    return write_pair(tmp_path / "pair")


def converted(pair: Path, out: Path) -> Path:
    [row] = run("convert", pair, "--to", "h5", "--out", out, "--json").rows
    return Path(row["output"])


def test_it_works(pair: Path, tmp_path: Path) -> None:
    ran = run("verify", pair, converted(pair, tmp_path / "out"))
    assert ran.status == 0
    assert ran.text.startswith("verified")
    assert "  yes  values " in ran.text


def test_another_model_is_told_from_it(pair: Path, tmp_path: Path) -> None:
    result = converted(pair, tmp_path / "out")
    np.savez(pair / "weights.npz", np.arange(6.0, dtype="f4").reshape(3, 2), np.array([1, 1.01], "f4"))
    ran = run("verify", pair, result, "--json")
    assert ran.status == 3
    [row] = ran.rows
    assert (row["verdict"], row["target"]) == ("differs", "h5")
    assert {check["name"] for check in row["checks"] if check["passed"] is False} >= {"weights", "values"}
    told = run("verify", pair, result).text
    assert told.endswith("1 model: 0 fine, 1 different.\n")
    assert "not there bit for bit (" in told


def test_samples_are_found_from_where_one_stands(pair: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the page's line that repeats a check has them."""
    result = converted(pair, tmp_path / "out")
    np.savez(tmp_path / "good.npz", np.ones((2, 3), "f4"))
    monkeypatch.chdir(tmp_path)
    assert run("verify", pair, result, "--inputs", "good.npz").status == 0


def test_what_is_no_model_is_refused(pair: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    page.write_text("<!DOCTYPE html><p>Not found</p>")
    ran = run("verify", pair, page, "--json")
    assert ran.status == 3
    assert json.loads(ran.text)["error"]["code"] == "not-a-model"


def test_what_the_result_does_not_take_is_refused(pair: Path, tmp_path: Path) -> None:
    """Which options there are is known once the result was looked at, and before it is opened."""
    lite = tmp_path / "a.tflite"
    lite.write_bytes(b"\x1c\0\0\0TFL3".ljust(64, b"\0"))
    for result, words in ((lite, "int3"), (pair, "no options")):
        ran = run("verify", pair, result, "--option", "precision=int3", "--json")
        assert ran.status == 3
        assert codes(ran.rows) == ["bad-option"]
        assert words in ran.rows[0]["error"]["message"]


def test_an_option_without_a_value_ends_the_command(pair: Path) -> None:
    with pytest.raises(CommandError, match="expected NAME=VALUE") as caught:
        run("verify", pair, pair, "--option", "precision")
    assert caught.value.returncode == MISUSED
