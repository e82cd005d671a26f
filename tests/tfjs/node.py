"""TensorFlow.js itself, run by Node outside of any job: the judge of what Larder writes for it."""

from __future__ import annotations

import json
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tests.stack import clean_environment
from worker.node import packages

if TYPE_CHECKING:
    from worker.formats._format import Arrays

HERE = Path(__file__).resolve().parent
DTYPES = {"f": "float32", "i": "int32", "u": "int32", "b": "bool", "S": "string", "U": "string"}


def node(*arguments: str, cwd: Path) -> str:
    """What a Node program prints."""
    environment = clean_environment() | {"NODE_PATH": str(packages() / "node_modules")}
    command = ["node", *arguments]
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def answers(jobs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What run.js answers to each job: ``{"value": …}`` or ``{"error": …}``."""
    with tempfile.TemporaryDirectory() as name:
        given, found = Path(name) / "jobs.json", Path(name) / "answers.json"
        given.write_text(json.dumps(jobs), encoding="utf-8")
        node(str(HERE / "run.js"), str(given), str(found), cwd=Path(name))
        result: list[dict[str, Any]] = json.loads(found.read_text(encoding="utf-8"))
        return result


def job(folder: Path, inputs: Arrays, outputs: list[str]) -> dict[str, Any]:
    """Run the unpacked model on the inputs."""
    given = {name: _plain(array) for name, array in inputs.items()}
    return {"folder": str(folder), "inputs": given, "outputs": outputs}


def _plain(array: np.ndarray) -> dict[str, Any]:
    return {"shape": array.shape, "dtype": DTYPES[array.dtype.kind], "data": array.reshape(-1).tolist()}


def arrays(answer: dict[str, Any], outputs: list[str]) -> Arrays:
    """The outputs of a model by name; what went wrong in TensorFlow.js is an AssertionError."""
    assert "error" not in answer, answer["error"]
    found = zip(outputs, answer["value"], strict=True)
    return {name: np.array(item["data"], "float64").reshape(item["shape"]) for name, item in found}


def paste(snippet: str, folder: Path) -> str:
    """What a snippet prints that is pasted into a page beside ``model/``: files are fetched from the folder."""
    (folder / "node_modules").symlink_to(packages() / "node_modules")
    (folder / "snippet.mjs").write_text(snippet, encoding="utf-8")
    return node("--import", str(HERE / "page.mjs"), "snippet.mjs", cwd=folder)
