"""`manage.py inspect`: what a file holds and whether its model loads, without a web server or a database."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.attacks._attack import dense, keras, layer, model
from tests.models_app.cli import DOUBLER, FIELDS, borrow, codes, run, write_pair
from tests.worker import files
from tests.worker.opcodes import OS_SYSTEM
from worker.sandbox.client import Zygote

CORPUS = Path(__file__).resolve().parents[3] / "shared" / "corpus"


@pytest.fixture(autouse=True)
def warm(zygote: Zygote, monkeypatch: pytest.MonkeyPatch) -> None:
    borrow(zygote, monkeypatch)


def test_it_works(tmp_path: Path) -> None:
    ran = run("inspect", write_pair(tmp_path / "soup"), "--json")
    [row] = ran.rows
    assert ran.status == 0
    assert list(row) == [*FIELDS, "recognised_by", "summary"]
    assert (row["format"], row["error"]) == ("json_npz", None)
    assert row["recognised_by"] == "a ZIP archive with architecture.json and weights.npz"
    assert row["summary"]["parameters"] == 8
    assert row["summary"]["inputs"][0]["shape"] == [None, 3]


def test_the_name_of_a_folder_promises_no_format(tmp_path: Path) -> None:
    [row] = run("inspect", write_pair(tmp_path / "soup-tf1.4-cnn"), "--json").rows
    assert (row["error"], row["findings"]) == (None, [])


def test_a_pickle_is_read_and_not_opened(tmp_path: Path) -> None:
    (tmp_path / "model.keras").write_bytes(OS_SYSTEM)
    ran = run("inspect", tmp_path / "model.keras", "--json")
    [row] = ran.rows
    assert (ran.status, row["format"], row["summary"]["imports"]) == (3, "pickle", ["posix.system"])
    assert "no model is stored inside" in row["error"]["message"]
    assert {finding["code"] for finding in row["findings"]} == {"suffix-misleads", "pickle-import-dangerous"}


def test_a_model_that_does_not_load_still_shows_what_it_is(tmp_path: Path) -> None:
    folder = write_pair(tmp_path / "soup", custom=True)
    (folder / "custom_objects.py").write_text(DOUBLER, encoding="utf-8")
    refused = run("inspect", folder, "--json")
    assert (refused.status, codes(refused.rows)) == (3, ["custom-code"])
    assert refused.rows[0]["summary"]["custom_objects"]
    assert run("inspect", folder, "--json", "--allow-custom-code").status == 0


def test_what_is_refused_is_opened_by_no_command(tmp_path: Path) -> None:
    """The findings say all of it, the error the first; converting ends before any converter sees the file."""
    (tmp_path / "soup.keras").write_bytes(keras(model(dense(), layer("system", "os", name="bad"))))
    for ran in (
        run("inspect", tmp_path / "soup.keras", "--json"),
        run("convert", tmp_path / "soup.keras", "--to", "onnx", "--out", tmp_path, "--json"),
    ):
        [row] = ran.rows
        assert (ran.status, row["error"]["code"]) == (3, "unsafe-content")
        assert "names os.system" in row["error"]["message"]
        assert [(item["code"], item["severity"]) for item in row["findings"]] == [("refused", "refuse")]


def test_what_needs_consent_says_so(tmp_path: Path) -> None:
    (tmp_path / "soup.keras").write_bytes(keras(model(dense(), layer("Gate", None, "Kitchen>Gate", name="gate"))))
    ran = run("inspect", tmp_path / "soup.keras")
    assert "needs-consent: config.json needs code that is not in the file (Gate)." in ran.text


def test_weights_that_do_not_fit_are_told(tmp_path: Path) -> None:
    ran = run("inspect", write_pair(tmp_path / "soup", columns=7), "--json")
    assert (ran.status, codes(ran.rows)) == (3, ["weights-mismatch"])


def test_people_read_it(tmp_path: Path) -> None:
    (tmp_path / "page.keras").write_bytes(files.HTML)
    ran = run("inspect", write_pair(tmp_path / "soup"), tmp_path / "page.keras")
    lines = ran.text.splitlines()
    assert lines[0].startswith(f"readable {tmp_path / 'soup'}: JSON + NumPy, a ZIP archive")
    assert "         inputs: x (?×3, float32)" in lines
    assert "         parameters: 8" in lines
    assert lines[-2].startswith(f"refused  {tmp_path / 'page.keras'}: page.keras is an HTML page")
    assert lines[-1] == "2 models: 1 fine, 1 refused."


THIRD_PARTY = [CORPUS / "thirdparty/half_plus_two_cpu/saved_model.zip"]


@pytest.mark.parametrize("path", THIRD_PARTY if CORPUS.is_dir() else [])
def test_a_third_partys_saved_model_of_tensorflow_1(path: Path) -> None:
    ran = run("inspect", path, "--json")
    [row] = ran.rows
    assert (ran.status, row["format"]) == (0, "saved_model")
    assert row["summary"]["inputs"]
    assert "keras-config" not in row["summary"]["traits"]
