"""`manage.py measure`: real files, run in real jobs, in one table."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.models_app.cli import Ran, borrow, codes, run, write_pair
from worker import measuring
from worker.sandbox.client import Zygote


@pytest.fixture(autouse=True)
def warm(zygote: Zygote, monkeypatch: pytest.MonkeyPatch) -> None:
    borrow(zygote, monkeypatch)
    monkeypatch.setattr(measuring, "ROUNDS", 1)
    monkeypatch.setattr(measuring, "SECONDS", 0.01)


@pytest.fixture
def pair(tmp_path: Path) -> Path:
    return write_pair(tmp_path / "pair")


@pytest.fixture
def made(pair: Path, tmp_path: Path) -> list[Path]:
    """A file that runs here, and one that does not."""
    rows = [
        run("convert", pair, "--to", slug, "--out", tmp_path, "--json").rows[0] for slug in ("tflite", "tfjs_layers")
    ]
    return [Path(row["output"]) for row in rows]


def measure(pair: Path, *results: Path, json: bool = False) -> Ran:
    return run("measure", pair, *results, *(["--json"] if json else []))


def test_it_works(pair: Path, made: list[Path]) -> None:
    ran = measure(pair, *made, json=True)
    assert ran.status == 0
    [row] = ran.rows
    table = row["variants"]
    source, lite, browser = table["rows"]
    assert [source["is_source"], lite["name"], browser["name"]] == [True, *(path.name for path in made)]
    assert source["seconds"] > 0
    assert lite["relative"] == lite["seconds"] / source["seconds"]
    assert (lite["size"], lite["runtime"].split()[0]) == (made[0].stat().st_size, "LiteRT")
    assert lite["error"] < 1e-5
    assert (lite["top1"], lite["top1_rows"]) == (1.0, 36)
    assert (browser["seconds"], browser["error"], "plain JavaScript" in browser["problem"]) == (None, 0.0, True)
    assert table["shapes"] == {"x": [1, 3]}


def test_a_table_for_people(pair: Path) -> None:
    """Of a model and itself."""
    first, source, result, about, busy, sum_up = measure(pair, pair).text.splitlines()
    assert first.split() == ["size", "time", "difference", "same", "top", "class", "runs", "in"]
    assert " ms " in source
    assert "100 % of 36 rows  Keras 3 " in result
    assert "the median of 1 round;" in about
    assert " % of the time" in busy
    assert sum_up == "1 model: 1 fine."


def test_what_is_no_model_is_refused_before_anything_runs(pair: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    page.write_text("<!DOCTYPE html><p>Not found</p>")
    ran = measure(pair, page, json=True)
    assert (ran.status, codes(ran.rows)) == (3, ["not-a-model"])
