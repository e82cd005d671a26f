"""The shape of the code, read from its syntax trees: who imports whom, what nobody may call, how long things are."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.stack import clean_environment

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("models_app", "project", "worker")
SOURCES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
HEAVY = {"tensorflow", "keras", "tf_keras", "ai_edge_litert", "h5py", "numpy"}
ARRAYS_AT_THE_TOP = "worker/verify/"  # nothing but NumPy, and only imported once a job is done
UNPICKLING_MODULES = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal", "torch"}
UNSAFE_YAML = {"load", "load_all", "unsafe_load", "unsafe_load_all", "full_load", "full_load_all", "UnsafeLoader"}
VAGUE_NAMES = {"util", "utils", "helper", "helpers", "common", "manager", "managers", "service", "services", "misc"}
LONGEST_FUNCTION = 40
LONGEST_TEMPLATE = 80


def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def imported_by(node: ast.AST) -> set[str]:
    """The top packages that one import statement names."""
    if isinstance(node, ast.Import):
        return {alias.name.split(".")[0] for alias in node.names}
    if isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
        return {node.module.split(".")[0]}
    return set()


def outside_functions(node: ast.AST) -> Iterator[ast.AST]:
    """The nodes that run when the module is imported; not those that only a type checker reads."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            continue
        yield child
        yield from outside_functions(child)


def unpickling(tree: ast.AST) -> list[str]:
    """Every import or call in the tree that could run what a file says."""
    return [ast.unparse(node)[:80] for node in ast.walk(tree) if _unpickles(node)]


def _unpickles(node: ast.AST) -> bool:
    if isinstance(node, ast.keyword):
        return node.arg == "allow_pickle" and not (isinstance(node.value, ast.Constant) and node.value.value is False)
    if isinstance(node, ast.Attribute):
        return node.attr in ("read_pickle", "Unpickler") or (
            ast.unparse(node.value) == "yaml" and node.attr in UNSAFE_YAML
        )
    return bool(imported_by(node) & UNPICKLING_MODULES)


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_nothing_unpickles(path: Path) -> None:
    assert unpickling(tree_of(path)) == []


@pytest.mark.parametrize(
    "code",
    [
        "import pickle",
        "from pickle import loads",
        "def f():\n    import joblib",
        "import os, dill as d",
        "np.load(path, allow_pickle=True)",
        "np.load(path, allow_pickle=flag)",
        "pandas.read_pickle(path)",
        "import shelve",
        "from marshal import loads",
        "import torch.serialization",
        "yaml.load(text, Loader=yaml.Loader)",
        "yaml.unsafe_load(text)",
    ],
)
def test_unpickling_would_be_found(code: str) -> None:
    assert unpickling(ast.parse(code))


def test_harmless_neighbours_are_no_false_alarm() -> None:
    assert unpickling(ast.parse("import pickletools\nnp.load(path, allow_pickle=False)\nyaml.safe_load(text)")) == []


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_heavy_libraries_are_imported_inside_functions(path: Path) -> None:
    found = {name for node in outside_functions(tree_of(path)) for name in imported_by(node)}
    allowed = {"numpy"} if name_of(path).startswith(ARRAYS_AT_THE_TOP) else set()
    assert found & HEAVY <= allowed


# Runs in a process of its own: everything that the web and Celery processes import, and every page without an argument.
LOAD_ALL = """
import importlib, json, pkgutil, sys
import django
django.setup()
import models_app, project, worker.celery, worker.tasks
from django.core.management import call_command
from django.test import Client
from django.urls import get_resolver
for package in (models_app, project):
    for found in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
        importlib.import_module(found.name)
call_command("migrate", verbosity=0)
call_command("collectstatic", verbosity=0)
client = Client(headers={"host": "localhost"})
for pattern in get_resolver().url_patterns[0].url_patterns:
    if "<" not in str(pattern.pattern):
        assert client.get("/" + str(pattern.pattern)).status_code in (200, 302, 405, 503), pattern
print(json.dumps(sorted(name for name in sys.modules if name.split(".")[0] in %r)))
"""


def test_web_and_celery_processes_never_load_tensorflow(tmp_path: Path) -> None:
    environment = clean_environment(DJANGO_SETTINGS_MODULE="project.settings", LARDER_DATA=str(tmp_path))
    command = [sys.executable, "-c", LOAD_ALL % sorted(HEAVY)]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "[]"


def test_import_contracts_hold() -> None:
    """Layers and forbidden imports, as pyproject.toml declares them for import-linter."""
    command = [str(Path(sys.executable).with_name("lint-imports")), "--no-logo", "--no-cache"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_modules_are_named_for_what_they_hold(path: Path) -> None:
    assert not VAGUE_NAMES & set(path.relative_to(ROOT).with_suffix("").parts)


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_functions_are_short(path: Path) -> None:
    functions = [node for node in ast.walk(tree_of(path)) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    assert [node.name for node in functions if (node.end_lineno or 0) - node.lineno >= LONGEST_FUNCTION] == []


def test_templates_are_short() -> None:
    lengths = {
        name_of(path): path.read_text(encoding="utf-8").count("\n") for path in (ROOT / "templates").rglob("*.html")
    }
    assert lengths
    assert {name: lines for name, lines in lengths.items() if lines >= LONGEST_TEMPLATE} == {}


def test_pages_load_nothing_from_elsewhere() -> None:
    """No CDN, no inline script or style: the strict policy would block them, silently for whoever wrote the page."""
    texts = {name_of(path): path.read_text(encoding="utf-8") for path in (ROOT / "templates").rglob("*.html")}
    foreign = re.compile(r"""(?:src|href|action)=["'](?:https?:)?//|<style|\sstyle=|\son\w+=|<script(?![^>]*\ssrc=)""")
    assert {name: found[0] for name, text in texts.items() if (found := foreign.search(text))} == {}


INSTALL_FILES = [*ROOT.glob("requirements*"), *(ROOT / "scripts").glob("*"), ROOT / ".ci/run", ROOT / "pyproject.toml"]


@pytest.mark.parametrize("path", INSTALL_FILES, ids=name_of)
def test_nothing_names_a_package_registry(path: Path) -> None:
    """Which index and proxy to use is the machine's own affair."""
    text = path.read_text(encoding="utf-8")
    assert re.findall(r"https?://|index-url|find-links|trusted-host", text) == []


@pytest.mark.parametrize("name", ["requirements.txt", "requirements-dev.txt"])
def test_locks_pin_every_package_with_hashes(name: str) -> None:
    lines = (ROOT / name).read_text(encoding="utf-8").splitlines()
    packages = [number for number, line in enumerate(lines) if re.match(r"[A-Za-z0-9]", line)]
    assert packages
    assert [lines[number] for number in packages if "==" not in lines[number]] == []
    assert [lines[number] for number in packages if "--hash=sha256:" not in lines[number + 1]] == []


@pytest.mark.parametrize("name", ["requirements.txt", "requirements-dev.txt"])
def test_direct_requirements_are_in_both_locks(name: str) -> None:
    direct = pins(ROOT / "requirements.in")
    assert direct
    assert direct - pins(ROOT / name) == set()


def pins(path: Path) -> set[str]:
    """``name==version`` of every line, without extras and markers."""
    found = re.findall(r"^([\w.-]+)(?:\[[\w,]+\])?(==[\w.]+)", path.read_text(encoding="utf-8"), re.MULTILINE)
    return {f"{name.lower().replace('_', '-')}{version}" for name, version in found}
