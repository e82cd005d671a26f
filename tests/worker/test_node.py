"""Is TensorFlow.js here? With the real Node and the real packages, and with others in their place."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pytest

from worker import loadback, measuring, node

LOCK = json.loads((node.HERE / "package-lock.json").read_text(encoding="utf-8"))


def stand_in(folder: Path, text: str) -> str:
    """A program in Node's place."""
    file = folder / "node"
    file.write_text(text, encoding="utf-8")
    file.chmod(0o755)
    return str(file)


def test_it_works() -> None:
    found = node.found()
    assert (found.absent, found.version) == ("", "4.22.0")
    assert Path(found.command[0]).name.startswith("node")
    assert found.read[0] == node.packages()
    assert node.packages().parent == Path(sys.prefix)


def test_it_is_the_first_runtime_of_both_formats() -> None:
    for slug in ("tfjs_graph", "tfjs_layers"):
        first = loadback.runtimes(slug)[0]
        assert (first.runtime, first.version, first.absent) == ("tfjs", "4.22.0", "")
        assert (first.by_node, first.own) == (True, False)
        assert loadback.home(slug) == ""  # the second run of a result is one by the library of the first


def test_large_files_are_not_asked_for() -> None:
    assert "not tried" in loadback.runtimes("tfjs_graph", 65 * 2**20)[0].absent


def test_it_is_not_timed() -> None:
    assert measuring.home("tfjs_graph") == ("TensorFlow.js 4.22.0", measuring.PLAIN)


def test_without_node_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LARDER_NODE", "/nowhere/node")
    turn = loadback.runtimes("tfjs_layers")[0]
    assert turn.absent == "not present here: install Node 18 or newer and npm, and run scripts/setup"
    assert (turn.version, turn.install) == ("", "")


def test_without_its_packages_it_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(node, "packages", lambda: tmp_path)
    assert "its packages are not installed" in node.found().absent


@pytest.mark.parametrize(
    ("program", "said"),
    [
        ('#!/bin/sh\necho \'["16.20.0", "/usr/bin/node"]\'\n', "Node is 16.20.0"),
        ("#!/bin/sh\nexit 1\n", "Node does not start"),
        ("#!/bin/sh\necho hello\n", "Node does not start"),
        ("no program", "Node does not start"),
    ],
)
def test_another_node_is_told(program: str, said: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LARDER_NODE", stand_in(tmp_path, program))
    assert said in node.found().absent


def test_what_starts_node_is_looked_behind(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A job may run one program, and no shell that looks for it."""
    monkeypatch.setenv("LARDER_NODE", stand_in(tmp_path, f'#!/bin/sh\nexec {shutil.which("node")} "$@"\n'))
    assert node.found().command[0] == str(Path(shutil.which("node") or "").resolve())


def test_its_packages_are_pinned_and_come_from_no_place() -> None:
    packages = {name: item for name, item in LOCK["packages"].items() if name}
    assert all("integrity" in item and "resolved" not in item for item in packages.values())
    assert {item["version"] for name, item in packages.items() if "@tensorflow" in name} == {"4.22.0"}
    assert sorted(LOCK["packages"][""]["dependencies"]) == sorted(node.PACKAGES)
    assert LOCK["packages"][""]["engines"]["node"] == f">={node.OLDEST}"
