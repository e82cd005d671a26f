"""`manage.py convert`: many models, one zygote, one honest line for each."""

from __future__ import annotations

import dataclasses
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from django.core.management.base import CommandError

from models_app.management.commands._batch import Row
from models_app.management.commands.convert import _describe, _place
from tests.models_app.cli import DOUBLER, FIELDS, borrow, codes, run, write_pair
from tests.stack import clean_environment
from tests.worker import files
from tests.worker.opcodes import OS_SYSTEM
from worker import formats, pipeline
from worker.formats._format import TensorSpec
from worker.formats._frozen import SIGNATURES_DROPPED
from worker.formats._sources import REBUILT
from worker.report import Verdict
from worker.sandbox.client import Zygote
from worker.sandbox.limits import Limits
from worker.verify import load_draws, save_draws

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def warm(zygote: Zygote, monkeypatch: pytest.MonkeyPatch) -> None:
    borrow(zygote, monkeypatch)


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


@pytest.fixture(scope="module")
def dense(tmp_path_factory: pytest.TempPathFactory, zygote: Zygote) -> Path:
    """The demo's dense sample model, as a .keras file."""
    folder = tmp_path_factory.mktemp("dense")
    arguments = {"kind": "dense", "path": str(folder / "dense.keras")}
    zygote.run("sample", arguments, read=[], folder=folder, limits=Limits())
    return folder / "dense.keras"


def test_it_works(dense: Path, out: Path) -> None:
    ran = run("convert", dense, "--to", "h5", "--out", out, "--json")
    [row] = ran.rows
    assert ran.status == 0
    assert list(row) == FIELDS
    assert (row["source"], row["format"], row["target"], row["route"]) == (str(dense), "keras", "h5", ["keras", "h5"])
    assert row["verdict"] == "verified"
    assert {check["name"]: check["passed"] for check in row["checks"]} == dict.fromkeys(
        ["load", "names", "shapes", "dtypes", "weights", "sensitivity", "steady", "values", "load-back"], True
    )
    assert row["error"] is None
    assert row["output"] == str(out / "dense.h5")
    assert (out / "dense.h5").read_bytes().startswith(files.HDF5)


@pytest.mark.parametrize("target", ["h5", "json_npz", "weights_h5", "saved_model"])
def test_there_and_back_again(dense: Path, out: Path, target: str) -> None:
    """Every way out of .keras, and the way back where there is one, verified both times."""
    there = run("convert", dense, "--to", target, "--out", out, "--json").rows[0]
    assert there["verdict"] == "verified"
    back = run("convert", there["output"], "--to", "keras", "--out", out, "--json").rows[0]
    assert back["verdict"] == ("verified" if target != "saved_model" else None)
    assert codes([back]) == [None if target != "saved_model" else "no-route"]


def test_one_bad_model_stops_nobody(dense: Path, out: Path, tmp_path: Path) -> None:
    bad = {
        "empty.keras": (b"", "empty-file"),
        "page.keras": (files.HTML, "not-a-model"),
        "cut.keras": (dense.read_bytes()[:-200], "corrupt-file"),
        "pointer.h5": (files.lfs_pointer(), "not-a-model"),
        "model.pkl": (OS_SYSTEM, "model-unreadable"),
        "hollow.keras": (files.KERAS, "corrupt-file"),
    }
    for name, (content, _) in bad.items():
        (tmp_path / name).write_bytes(content)
    sources = [tmp_path / "nowhere.keras", *(tmp_path / name for name in bad), dense]
    ran = run("convert", *sources, "--to", "h5", "--out", out, "--json")
    assert ran.status == 3
    assert [row["source"] for row in ran.rows] == list(map(str, sources))
    assert codes(ran.rows)[:-2] == ["unreadable-path", *(code for _, code in bad.values())][:-1]
    assert codes(ran.rows)[-2] in ("corrupt-file", "model-unreadable")
    assert ran.rows[-1]["verdict"] == "verified"
    assert [path.name for path in out.iterdir()] == ["dense.h5"]
    assert "Traceback" not in ran.text


def test_a_folder_is_one_model(out: Path, tmp_path: Path) -> None:
    folder = write_pair(tmp_path / "soup")
    (folder / "README.md").write_text("notes", encoding="utf-8")
    np.savez(folder / "expected.npz", input_0=np.ones((2, 3), "f4"), output_0=np.zeros((2, 2)))
    ran = run("convert", folder, "--to", "keras", "--inputs", folder / "expected.npz", "--out", out, "--json")
    assert (ran.status, ran.rows[0]["format"], ran.rows[0]["output"]) == (0, "json_npz", str(out / "soup.keras"))
    [values] = [check for check in ran.rows[0]["checks"] if check["name"] == "values"]
    assert values["data"]["draws"] == 6


def test_weights_that_do_not_fit_are_refused(out: Path, tmp_path: Path) -> None:
    ran = run("convert", write_pair(tmp_path / "soup", columns=7), "--to", "keras", "--out", out, "--json")
    assert (ran.status, codes(ran.rows)) == (3, ["weights-mismatch"])


def test_custom_code_runs_only_when_it_is_allowed(out: Path, tmp_path: Path) -> None:
    folder = write_pair(tmp_path / "soup", custom=True)
    (folder / "custom_objects.py").write_text(DOUBLER, encoding="utf-8")
    refused = run("convert", folder, "--to", "keras", "--out", out, "--json")
    assert (refused.status, codes(refused.rows)) == (3, ["custom-code"])
    assert "Doubler" in refused.rows[0]["error"]["message"]
    assert "--allow-custom-code" in refused.rows[0]["error"]["message"]
    allowed = run("convert", folder, "--to", "keras", "--out", out, "--json", "--allow-custom-code")
    assert (allowed.status, allowed.rows[0]["verdict"]) == (0, "verified")


def test_custom_code_that_fails_is_told(out: Path, tmp_path: Path) -> None:
    folder = write_pair(tmp_path / "soup", custom=True)
    (folder / "custom_objects.py").write_text("raise RuntimeError('no soup today')", encoding="utf-8")
    ran = run("convert", folder, "--to", "keras", "--out", out, "--json", "--allow-custom-code")
    assert ran.status == 3
    assert "custom_objects.py fails when it runs (RuntimeError: no soup today)" in ran.rows[0]["error"]["message"]


def test_results_of_one_name_do_not_meet(dense: Path, out: Path, tmp_path: Path) -> None:
    second = tmp_path / "second" / "dense.keras"
    second.parent.mkdir()
    shutil.copy(dense, second)
    ran = run("convert", dense, second, "--to", "h5", "--out", out, "--json")
    assert [row["output"] for row in ran.rows] == [str(out / "dense.h5"), str(out / "dense-2.h5")]


def test_nothing_that_is_there_is_overwritten(dense: Path, out: Path) -> None:
    out.mkdir()
    (out / "dense.h5").write_text("mine", encoding="utf-8")
    ran = run("convert", dense, "--to", "h5", "--out", out, "--json")
    assert ran.rows[0]["output"] == str(out / "dense-2.h5")
    assert (out / "dense.h5").read_text(encoding="utf-8") == "mine"


def test_the_same_format_is_written_anew_beside_the_source(dense: Path, tmp_path: Path) -> None:
    source = Path(shutil.copy(dense, tmp_path / "soup.keras"))
    [row] = run("convert", source, "--to", "keras", "--out", tmp_path, "--json").rows
    assert (row["route"], row["verdict"]) == (["keras", "keras"], "verified")
    assert row["output"] == str(tmp_path / "soup-2.keras")
    assert source.read_bytes() == dense.read_bytes()


def test_a_result_that_became_an_archive_is_called_one(out: Path, tmp_path: Path) -> None:
    out.mkdir()
    contents = [b"graph", files.zipped({"model.onnx": b"graph"}), files.zipped({"model.onnx": b"other"})]
    placed = []
    for content in contents:
        (tmp_path / "result.onnx").write_bytes(content)
        placed.append(_place(tmp_path / "result.onnx", out, "soup", formats.get("onnx").suffixes).name)
    assert placed == ["soup.onnx", "soup.zip", "soup-2.zip"]
    assert [(out / name).read_bytes() for name in placed] == contents


def test_people_read_one_line_per_model(dense: Path, out: Path, tmp_path: Path) -> None:
    ran = run("convert", dense, tmp_path / "no.keras", "--to", "h5", "--out", out)
    lines = ran.text.splitlines()
    assert lines[0].startswith(f"verified      {dense} -> {out / 'dense.h5'} (")
    assert (
        lines[1] == f"refused       {tmp_path / 'no.keras'}: no.keras cannot be read: there is no such file or folder."
    )
    assert lines[2] == "2 models: 1 fine, 1 refused."


def differing(result: pipeline.Result) -> pipeline.Result:
    return dataclasses.replace(
        result, report=dataclasses.replace(result.report, verdict=Verdict.DIFFERS, reason="The values differ: y.")
    )


def test_people_read_what_was_lost() -> None:
    lost, noted = SIGNATURES_DROPPED(kept="y", names="z"), REBUILT(version="2.15.0")
    row = Row("a.zip", verdict=Verdict.VERIFIED, findings=[noted, lost], output=Path("a.tflite"), reason="Equal.")
    assert _describe(row).splitlines() == [
        "verified      a.zip -> a.tflite (0.0 s): Equal.",
        "         warning: The result has one signature, y. These were not carried over: z."
        " Convert again with the option signature to have one of them.",
    ]


def test_a_result_that_differs_is_not_handed_out(dense: Path, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    convert = pipeline.convert
    monkeypatch.setattr(pipeline, "convert", lambda *given, **more: differing(convert(*given, **more)))
    ran = run("convert", dense, "--to", "h5", "--out", out, "--json")
    [row] = ran.rows
    assert (ran.status, row["verdict"], row["output"]) == (3, "differs", None)
    assert row["error"]["code"] == "differs"
    assert "The values differ: y." in row["error"]["message"]
    assert list(out.iterdir()) == []


def test_what_nobody_foresaw_is_a_reference_and_no_traceback(
    dense: Path, out: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fall(*given: Any, **more: Any) -> None:
        raise ZeroDivisionError("secret")

    monkeypatch.setattr(pipeline, "convert", fall)
    ran = run("convert", dense, "--to", "h5", "--out", out, "--json")
    assert (ran.status, codes(ran.rows)) == (3, ["internal"])
    assert "secret" not in ran.text
    reference = ran.rows[0]["error"]["message"].split()[-1].rstrip(".")
    assert reference in caplog.text


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--to", "betamax"], f"There is no format called betamax. Known: {next(iter(formats.formats()))}, "),
        (["--to", "h5", "--option", "speed=3"], "speed is not a valid option of HDF5 model"),
        (["--to", "h5", "--option", "speed"], "--option speed: expected NAME=VALUE."),
        (["--to", "h5", "--inputs", "/no/such.npz"], "--inputs /no/such.npz: there is no such file."),
        ([], "the following arguments are required: --to"),
    ],
)
def test_bad_usage_starts_nothing(dense: Path, out: Path, arguments: list[str], words: str) -> None:
    with pytest.raises(CommandError) as caught:
        run("convert", dense, "--out", out, *arguments)
    assert words in str(caught.value)
    assert not out.exists()


def test_an_output_folder_that_cannot_be_is_bad_usage(dense: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(CommandError) as caught:
        run("convert", dense, "--to", "h5", "--out", tmp_path / "file")
    assert caught.value.returncode == 2


def as_process(*arguments: object) -> subprocess.CompletedProcess[str]:
    """The command as people run it: a process of its own, with a zygote of its own."""
    command = [sys.executable, "manage.py", *map(str, arguments)]
    environment = clean_environment()
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300, check=False)


def test_as_people_run_it(dense: Path, out: Path, tmp_path: Path) -> None:
    ran = as_process("convert", dense, tmp_path / "no.keras", "--to", "json_npz", "--out", out, "--json")
    rows = [json.loads(line) for line in ran.stdout.splitlines()]
    assert [row["verdict"] for row in rows] == ["verified", None]
    assert ran.returncode == 3
    assert "Traceback" not in ran.stderr


@pytest.mark.parametrize(
    "arguments", [["convert"], ["convert", "x.keras", "--to", "betamax", "--out", "/nowhere"], ["inspect"]]
)
def test_bad_usage_ends_with_2(arguments: list[str]) -> None:
    assert as_process(*arguments).returncode == 2


# Files that other releases of TensorFlow wrote, against the outputs that those releases computed

CORPUS = ROOT.parent / "shared" / "corpus"
RECORDED = [
    ("tf2.8/mlp/model.h5", "keras"),
    ("tf2.3/cnn/model.h5", "saved_model"),
    ("tf2.16/cnn/model.keras", "h5"),
    ("tf2.21/rnn/model.keras", "weights_h5"),
    ("tf2.12/mlp/architecture.json+model_weights.npz", "keras"),
    ("tf2.15/cnn/savedmodel_keras.zip", "keras"),
    ("thirdparty/half_plus_two_cpu/saved_model.zip", "tflite"),
]


@pytest.mark.parametrize(("name", "target"), RECORDED if CORPUS.is_dir() else [])
def test_the_corpus_computes_what_was_recorded(
    name: str, target: str, out: Path, tmp_path: Path, zygote: Zygote
) -> None:
    folder = (CORPUS / name).parent
    source = tmp_path / "model"
    source.mkdir()
    for part in Path(name).name.split("+"):
        shutil.copy(folder / part, source)
    ran = run("convert", source, "--to", target, "--inputs", folder / "expected.npz", "--out", out, "--json")
    [row] = ran.rows
    assert (row["error"], row["verdict"], ran.status) == (None, "verified", 0)
    assert_recorded(Path(row["output"]), target, folder / "expected.npz", zygote, tmp_path)


def assert_recorded(path: Path, slug: str, expected: Path, zygote: Zygote, tmp_path: Path) -> None:
    """Run the converted file alone on the recorded inputs, and compare with the outputs that its writer recorded."""
    with np.load(expected) as recorded:
        inputs = [recorded[key] for key in sorted(recorded.files) if key.startswith("input_")]
        outputs = [recorded[key] for key in sorted(recorded.files) if key in ("output_0", "output_1")]
    job = tmp_path / "job"
    job.mkdir()
    names = [f"input_{number}" for number in range(len(inputs))]
    specs = [TensorSpec(name, tuple(array.shape), str(array.dtype)) for name, array in zip(names, inputs, strict=True)]
    save_draws(job / "inputs.npz", [dict(zip(names, inputs, strict=True))])
    arguments = {"path": str(path), "format": slug, "specs": [dataclasses.asdict(spec) for spec in specs]}
    arguments |= {"inputs": str(job / "inputs.npz"), "outputs": str(job / "outputs.npz")}
    zygote.run("run", arguments, read=[path], folder=job, limits=Limits())
    [values] = load_draws(job / "outputs.npz")
    for value, output in zip(values.values(), outputs, strict=True):
        np.testing.assert_allclose(value, output, rtol=1e-4, atol=1e-5)
