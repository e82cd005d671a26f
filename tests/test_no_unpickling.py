"""Nothing here unpickles: proven on the syntax trees of everything that runs (CWE-502)."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SOURCES = sorted(path for package in ("worker", "models_app", "project") for path in (ROOT / package).rglob("*.py"))

# Modules whose only use is to turn bytes into objects by running them; ``pickletools`` only reads and is allowed.
MODULES = {
    *(
        "pickle",
        "_pickle",
        "cPickle",
        "cloudpickle",
        "dill",
        "joblib",
        "shelve",
        "marshal",
        "pickle5",
        "hickle",
        "skops",
    ),
    *("torch", "copyreg", "zodbpickle", "jsonpickle", "pickleshare"),
}
# multiprocessing sends objects as pickles; these names of it do not
HARMLESS_OF_MULTIPROCESSING = {"cpu_count"}
# Calls and attributes that unpickle, whatever they are reached through
NAMES = {
    *(
        "Unpickler",
        "PickleSerializer",
        "read_pickle",
        "to_pickle",
        "load_pickle",
        "recv",
        "find_class",
        "persistent_load",
    ),
    *("full_load", "unsafe_load", "UnsafeLoader", "enable_unsafe_deserialization"),
}
SOCKETS = {"recv"}  # a socket's is bytes; a Connection's is a pickle
ALLOWED_RECV = {"worker/sandbox"}  # the control socket, and nothing of multiprocessing is imported there
# Switches that make a harmless call unpickle, and the value that keeps it harmless
AGREED = "worker/formats/_agreed.py"  # where a person agreed; see test_code_runs_nowhere_else.py
SWITCHES = {"allow_pickle": False, "weights_only": True, "safe_mode": True, "allow_dangerous_deserialization": False}


def faults(source: str, where: str = "") -> list[str]:
    """What of this source could unpickle, as "line: code"."""
    tree = ast.parse(source)
    return [f"{node.lineno}: {ast.unparse(node)[:80]}" for node in ast.walk(tree) if _is_fault(node, where)]  # type: ignore[attr-defined]


def _is_fault(node: ast.AST, where: str) -> bool:
    if isinstance(node, ast.Import | ast.ImportFrom):
        return any(_is_forbidden(name) for name in _imported(node))
    if isinstance(node, ast.Call):
        return _imports_by_text(node) or any(_switches_on(keyword, where) for keyword in node.keywords)
    if isinstance(node, ast.Attribute | ast.Name):
        name = node.attr if isinstance(node, ast.Attribute) else node.id
        return name in NAMES and not (name in SOCKETS and any(where.startswith(place) for place in ALLOWED_RECV))
    return False


def _imported(node: ast.Import | ast.ImportFrom) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif node.level == 0 and node.module:
        yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _is_forbidden(name: str) -> bool:
    parts = name.split(".")
    if parts[0] == "multiprocessing":
        return parts[-1] not in HARMLESS_OF_MULTIPROCESSING
    return parts[0] in MODULES or name.startswith(("numpy.lib.npyio.pickle", "pandas.io.pickle"))


def _imports_by_text(node: ast.Call) -> bool:
    """``import_module("pickle")`` and ``__import__("pickle")``."""
    called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
    first = node.args[0] if node.args else None
    text = first.value if isinstance(first, ast.Constant) and isinstance(first.value, str) else ""
    return called in ("import_module", "__import__", "find_spec") and _is_forbidden(text)


def _switches_on(keyword: ast.keyword, where: str) -> bool:
    """A switch that is not plainly set to its harmless value, also where the value is computed."""
    if keyword.arg not in SWITCHES or (keyword.arg == "safe_mode" and where == AGREED):
        return False
    value = keyword.value
    return not (isinstance(value, ast.Constant) and value.value is SWITCHES[keyword.arg])


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_unpickles(path: Path) -> None:
    assert faults(path.read_text(encoding="utf-8"), str(path.relative_to(ROOT))) == []


def test_there_is_something_to_read() -> None:
    assert len(SOURCES) > 40


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "import pickle as p\np.loads(data)",
        "from pickle import loads",
        "from pickle import Unpickler as Reader",
        "def f():\n    import joblib\n    return joblib.load(path)",
        "import cloudpickle, dill",
        "import shelve",
        "import marshal\nmarshal.loads(code)",
        "import torch\ntorch.load(path)",
        "from importlib import import_module\nimport_module('pickle').loads(data)",
        "__import__('dill').load(file)",
        "import numpy as np\nnp.load(path, allow_pickle=True)",
        "np.load(path, allow_pickle=flag)",
        "np.lib.format.read_array(file, allow_pickle=1)",
        "pandas.read_pickle(path)",
        "frame = pd.read_pickle(path)",
        "from multiprocessing import Pipe",
        "import multiprocessing.connection",
        "connection.recv()",
        "reader = codec.Unpickler(file)",
        "class Reader(Unpickler): pass",
        "yaml.unsafe_load(text)",
        "keras.saving.load_model(path, safe_mode=False)",
        "keras.config.enable_unsafe_deserialization()",
        "torch_like.load(path, weights_only=False)",
    ],
)
def test_the_test_can_fail(source: str) -> None:
    assert faults(source)


@pytest.mark.parametrize(
    "source",
    [
        "import pickletools\npickletools.genops(data)",
        "import json\njson.loads(text)",
        "np.load(path, allow_pickle=False)",
        "keras.saving.load_model(path, safe_mode=True)",
        "from worker.formats import pickle",
        "yaml.safe_load(text)",
        "from multiprocessing import cpu_count",
    ],
)
def test_the_harmless_neighbours_pass(source: str) -> None:
    assert faults(source) == []
