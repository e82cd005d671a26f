"""TensorFlow.js itself, run by Node: the judge of what Larder writes for it. Installed once, outside of the project."""

from __future__ import annotations

import fcntl
import hashlib
import json
import shutil
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tests.stack import clean_environment

if TYPE_CHECKING:
    from worker.formats._format import Arrays

HERE = Path(__file__).resolve().parent
LOCKED = ("package.json", "package-lock.json")
DTYPES = {"f": "float32", "i": "int32", "u": "int32", "b": "bool", "S": "string", "U": "string"}


@cache
def packages() -> Path:
    """The ``node_modules`` of the lock file, in a folder of the virtual environment that is named after it."""
    require_node()
    digest = hashlib.sha256(b"".join((HERE / name).read_bytes() for name in LOCKED)).hexdigest()[:16]
    folder = Path(sys.prefix) / f"tfjs-{digest}"
    folder.mkdir(exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "complete").exists():
            _install(folder)
    return folder / "node_modules"


def require_node() -> None:
    """Node and npm are needed by these tests; ``scripts/setup --test`` installs them."""
    absent = [name for name in ("node", "npm") if shutil.which(name) is None]
    assert not absent, f"The tests of TensorFlow.js need {' and '.join(absent)}: run scripts/setup --test."


def _install(folder: Path) -> None:
    for name in LOCKED:
        shutil.copy(HERE / name, folder / name)
    command = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"npm ci could not install TensorFlow.js: {done.stderr[-1000:]}"
    (folder / "complete").touch()


def node(*arguments: str, cwd: Path) -> str:
    """What a Node program prints."""
    environment = clean_environment() | {"NODE_PATH": str(packages())}
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
    (folder / "node_modules").symlink_to(packages())
    (folder / "snippet.mjs").write_text(snippet, encoding="utf-8")
    return node("--import", str(HERE / "page.mjs"), "snippet.mjs", cwd=folder)
