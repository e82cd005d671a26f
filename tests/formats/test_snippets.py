"""Each snippet runs as it is pasted: in a fresh interpreter, beside the file. (TensorFlow.js has tests of its own.)"""

from __future__ import annotations

import shutil
import subprocess
import sys

import pytest

from tests.formats.matrix import Matrix
from tests.stack import clean_environment
from worker import formats

SNIPPETS = tuple(slug for slug, item in formats.formats().items() if item.snippet and item.snippet_language == "python")
# One interpreter for all of them, since importing TensorFlow is most of the time; each snippet has its own names.
RUN = """
import sys
import numpy as np

x = np.linspace(-1, 1, 12, dtype="float32").reshape(2, 6)
for slug in sys.argv[1:]:
    names = {}
    exec(compile(open("use_" + slug + ".py").read(), slug, "exec"), names)
    found = "loaded"
    if hasattr(names.get("model"), "layers"):
        found = np.asarray(names["model"](x))
    elif slug == "saved_model":
        found = names["signature"](features=x)["probs"].numpy()
    elif slug == "onnx":
        found = names["session"].run(None, {"features": x})[0]
    elif slug == "tflite":
        found = names["signature"](features=x)["probs"]
    print("SNIPPET", slug, found if isinstance(found, str) else ",".join(f"{value:.5f}" for value in found.ravel()))
"""
COMPUTE = {"keras", "h5", "json_npz", "weights_h5", "json_safetensors", "data_pickle", "saved_model", "onnx", "tflite"}


@pytest.fixture(scope="module")
def said(matrix: Matrix, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What each snippet came to: the model's outputs, or that it loads."""
    folder = tmp_path_factory.mktemp("snippets")
    for slug in SNIPPETS:
        path = matrix.file("dense", slug)
        name = f"{slug}-download{path.suffix}"
        shutil.copy(path, folder / name)
        (folder / f"use_{slug}.py").write_text(formats.get(slug).snippet.replace("{file}", name), encoding="utf-8")
    command = [sys.executable, "-c", RUN, *SNIPPETS]
    done = subprocess.run(command, cwd=folder, env=clean_environment(), capture_output=True, text=True, check=False)
    lines = (line.split() for line in done.stdout.splitlines() if line.startswith("SNIPPET "))
    found = {slug: text for _, slug, text in lines}
    return found | {"error": done.stderr[-2000:]}


@pytest.mark.parametrize("slug", SNIPPETS)
def test_it_runs_as_it_is_pasted(slug: str, said: dict[str, str]) -> None:
    assert slug in said, said["error"]


def test_all_that_compute_agree(said: dict[str, str]) -> None:
    assert set(SNIPPETS) >= COMPUTE
    values = [[float(value) for value in said[slug].split(",")] for slug in sorted(COMPUTE)]
    assert all(abs(a - b) < 2e-5 for row in values for a, b in zip(row, values[0], strict=True))
