"""Code that a model brings runs in one place: proven on the syntax trees of everything that runs (CWE-94).

Keras 3 is told each time to be safe, but in ``_agreed``; tf-keras, which runs byte code whatever it is told, is only
called where ``_tf_keras.reading`` was given what Larder has read of the file.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SOURCES = sorted(path for package in ("worker", "models_app", "project") for path in (ROOT / package).rglob("*.py"))
AGREED, CUSTOM, NOWHERE = "worker/formats/_agreed.py", "worker/custom_code.py", "nowhere"
# What makes code out of data, and where that is what somebody agreed to
MAKERS = {"exec": CUSTOM, "compile": CUSTOM, "eval": NOWHERE, "FunctionType": AGREED, "func_load": NOWHERE}
UNSAFE = {"enable_unsafe_deserialization", "unsafe_load"}
LOADERS = {
    *("load_model", "model_from_json", "model_from_yaml", "model_from_config", "from_config", "deserialize"),
    *("deserialize_keras_object", "layer_from_config", "clone_model"),
}
GUARD = "_tf_keras.reading"
OTHERS = {"onnx"}  # libraries with a ``load_model`` of their own, which knows no code


def faults(source: str, where: str = "") -> list[str]:
    """What of this source could run code that a model brings, as "line: code"."""
    tree = ast.parse(source)
    old = _names_of(tree, "tf_keras")
    found = [node for node in ast.walk(tree) if _makes_code(node, where) or _is_unsafe(node, where, old)]
    found += _unguarded(tree, old)
    return [f"{node.lineno}: {ast.unparse(node)[:80]}" for node in found]  # type: ignore[attr-defined]


def _names_of(tree: ast.AST, library: str) -> set[str]:
    """What the library, and what is taken out of it, is called here."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {each.asname or library for each in node.names if each.name.split(".")[0] == library}
        if isinstance(node, ast.ImportFrom) and node.level == 0 and (node.module or "").split(".")[0] == library:
            names |= {each.asname or each.name for each in node.names}
    return names


def _called(node: ast.AST) -> tuple[str, str]:
    """Of a call, the name that begins what is called, and the one that ends it."""
    if not isinstance(node, ast.Call):
        return "", ""
    parts = ast.unparse(node.func).split(".")
    return parts[0], parts[-1]


def _makes_code(node: ast.AST, where: str) -> bool:
    first, last = _called(node)
    return last in MAKERS and (first == last or last not in ("compile", "exec", "eval")) and MAKERS[last] != where


def _is_unsafe(node: ast.AST, where: str, old: set[str]) -> bool:
    """Keras 3 without its safe mode, be it for want of saying so."""
    first, last = _called(node)
    if last in UNSAFE:
        return True
    if not isinstance(node, ast.Call) or where == AGREED:
        return False
    said = {keyword.arg: keyword.value for keyword in node.keywords}
    told = ast.unparse(said["safe_mode"]) == "True" if "safe_mode" in said else None
    silent = last in ("load_model", "deserialize_keras_object") and first not in OTHERS | old | {"_agreed"}
    unsafe_scope = last == "SafeModeScope" and [ast.unparse(each) for each in node.args] != ["True"]
    return told is False or (silent and told is None) or unsafe_scope


def _unguarded(tree: ast.AST, old: set[str]) -> Iterator[ast.AST]:
    """Calls of a loader of tf-keras outside of the guard. Iterates over the tree by hand, to know what is around."""
    pending: list[tuple[ast.AST, bool]] = [(tree, False)]
    while pending:
        node, guarded = pending.pop()
        first, last = _called(node)
        if first in old and last in LOADERS and not guarded:
            yield node
        inside = guarded or (isinstance(node, ast.With) and any(_is_guard(item.context_expr) for item in node.items))
        pending += [(child, inside) for child in ast.iter_child_nodes(node)]


def _is_guard(node: ast.AST) -> bool:
    return isinstance(node, ast.Call) and ast.unparse(node.func) == GUARD and bool(node.args)


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_it_works(path: Path) -> None:
    assert faults(path.read_text(encoding="utf-8"), str(path.relative_to(ROOT))) == []


def test_the_places_are_there() -> None:
    """What is allowed somewhere is done there; else it should not be allowed."""
    assert "safe_mode=" in (ROOT / AGREED).read_text(encoding="utf-8")
    for place in {*MAKERS.values()} - {NOWHERE}:
        assert faults((ROOT / place).read_text(encoding="utf-8"), "elsewhere")


@pytest.mark.parametrize(
    "source",
    [
        "keras.saving.load_model(path, safe_mode=False)",
        "keras.saving.load_model(path, safe_mode=flag)",
        "keras.saving.load_model(path)",
        "keras.saving.deserialize_keras_object(config)",
        "layer = keras.layers.Lambda.from_config(config, safe_mode=None)",
        "with SafeModeScope(False): pass",
        "keras.config.enable_unsafe_deserialization()",
        "exec(text)",
        "eval(text)",
        "compile(text, '', 'exec')",
        "types.FunctionType(code, {})",
        "python_utils.func_load(code)",
        "import tf_keras\ntf_keras.models.load_model(path, compile=False)",
        "import tf_keras as library\nlibrary.models.load_model(path)",
        "import tf_keras\nwith _tf_keras.reading():\n    tf_keras.models.load_model(path)",
        "import tf_keras\nwith other(root):\n    tf_keras.models.model_from_json(text)",
        "from tf_keras.models import load_model\nload_model(path)",
        "from tf_keras import layers\nlayers.deserialize(config)",
        "import tf_keras\nwith _tf_keras.reading(root):\n    pass\ntf_keras.models.load_model(path)",
    ],
)
def test_the_test_can_fail(source: str) -> None:
    assert faults(source)


@pytest.mark.parametrize(
    "source",
    [
        "keras.saving.load_model(path, compile=False, safe_mode=True)",
        "_agreed.load_model(path)",
        "re.compile(pattern)",
        "onnx.load_model(path, load_external_data=False)",
        "import tf_keras\nwith _tf_keras.reading(root):\n    tf_keras.models.load_model(path)",
        "import tf_keras\nnames = vars(tf_keras.layers)",
        "cls.from_config(config)",
    ],
)
def test_the_harmless_neighbours_pass(source: str) -> None:
    assert faults(source) == []
