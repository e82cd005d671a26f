"""The whole path in a browser: drop a real model file, ask for other formats, download files that are proven equal."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from playwright.sync_api import Page

from tests.acceptance.walk import convert, download, upload

OFFICIAL = Path(__file__).with_name("official.py")

CORPUS = Path(__file__).resolve().parents[3] / "shared" / "corpus"
# Files and targets: each file was written by another TensorFlow than the one that converts it.
KINDS = {
    "TensorFlow 1 SavedModel by a third party": (["thirdparty/half_plus_two_cpu/saved_model.zip"], ["tflite"]),
    "Keras 2 .h5": (["tf2.8/cnn/model.h5"], ["keras", "saved_model", "json_npz", "weights_h5"]),
    "Keras 3 .keras": (["tf2.19/multi_io/model.keras"], ["h5", "saved_model", "json_npz", "weights_h5", "tflite"]),
    "JSON + NumPy": (
        ["tf2.3/mlp/architecture.json", "tf2.3/mlp/model_weights.npz"],
        ["keras", "h5"],
    ),
    "JSON + weights.h5": (
        ["tf2.16/rnn/architecture.json", "tf2.16/rnn/model.weights.h5"],
        ["keras", "saved_model", "json_npz"],
    ),
    "Keras 2 SavedModel": (["tf2.12/mlp/savedmodel_keras.zip"], ["keras", "h5"]),
}
PASTED = "Keras 3 .keras"  # the kind whose files, one of each format, are loaded with the page's own code


def differences(files: dict[str, Path], expected: Path) -> dict[str, float]:
    """How far each downloaded file is from the recorded outputs, by the official loaders in a fresh process."""
    asked = [f"{target}={file}" for target, file in files.items()]
    command = [sys.executable, str(OFFICIAL), str(expected), *asked]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def snippet(page: Page) -> str:
    """The code that the page gives for loading the file."""
    return page.locator("pre code").first.text_content() or ""


def run_as_pasted(code: str, folder: Path) -> None:
    """Run the page's own code in a fresh interpreter beside the file."""
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{code}\n{done.stderr[-2000:]}"


def test_it_works(signed_in_page: Page, tmp_path: Path) -> None:
    """With the sample model, which is there on every machine."""
    page = signed_in_page
    page.get_by_role("link", name="Sample classifier", exact=True).click()
    page.get_by_role("link", name="Version 1").click()
    convert(page, "h5")
    file = download(page, tmp_path)
    assert file.name == "sample-classifier-v1.h5"
    run_as_pasted(snippet(page), tmp_path)


@pytest.mark.parametrize("kind", KINDS if CORPUS.exists() else [])
def test_a_file_of_another_tensorflow_becomes_files_that_compute_the_same(
    signed_in_page: Page, tmp_path: Path, kind: str
) -> None:
    page = signed_in_page
    names, targets = KINDS[kind]
    files = [CORPUS / name for name in names]
    upload(page, files, kind)
    version, results, snippets = page.url, {}, []
    for target in targets:
        page.goto(version)
        convert(page, target)
        results[target] = download(page, tmp_path)
        snippets.append(snippet(page))
    found = differences(results, files[0].with_name("expected.npz"))
    assert found.keys() == set(targets)
    assert all(difference <= 1 for difference in found.values()), found
    for number, code in enumerate(snippets if kind == PASTED else []):
        assert results[targets[number]].name in code
        run_as_pasted(code, tmp_path)
