"""A control group for each job: on this machine as it is, and on one that hands groups over.

Files in a plain folder stand for those of the kernel: what is written there can be read, and nothing is bounded.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.worker.test_sandbox import FAKES, SMALL
from worker.errors import Crashed, LarderError, OutOfMemory
from worker.sandbox import cgroups
from worker.sandbox.cgroups import Home
from worker.sandbox.client import Walls, Zygote
from worker.sandbox.layers import missing

FILES = ("memory.max", "memory.swap.max", "pids.max", "cgroup.procs")


@pytest.fixture(autouse=True)
def _nothing_known() -> Iterator[None]:
    cgroups.home.cache_clear()
    yield
    cgroups.home.cache_clear()


def fill(folder: Path) -> None:
    for name in FILES:
        (folder / name).touch()
    (folder / "memory.events").write_text("low 0\noom 3\noom_kill 0\noom_group_kill 0\n", encoding="ascii")


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A group that was handed over; one that is made in it has the kernel's files at once."""
    root = tmp_path / "tree"
    root.mkdir()
    (root / "cgroup.controllers").write_text("cpu io memory pids\n", encoding="ascii")
    (root / "cgroup.subtree_control").touch()
    make, remove = os.mkdir, os.rmdir

    def mkdir(path: str, mode: int = 0o777) -> None:
        make(path, mode)
        if Path(path).parent == root:
            fill(Path(path))

    def rmdir(path: str) -> None:
        for left in Path(path).iterdir() if Path(path).parent == root else ():
            left.unlink()
        remove(path)

    monkeypatch.setattr(os, "mkdir", mkdir)
    monkeypatch.setattr(os, "rmdir", rmdir)
    return root


def test_it_works(tree: Path) -> None:
    found = cgroups.home(str(tree))
    assert found == Home(str(tree), "")
    assert (tree / "cgroup.subtree_control").read_text(encoding="ascii") == "+memory +pids"
    group, bounds = cgroups.enter(found, "1-2", SMALL)
    assert group is not None
    made = tree / "larder-1-2"
    written = {name: (made / name).read_text(encoding="ascii") for name in FILES}
    most = str(SMALL.memory_bytes + cgroups.SPARE_BYTES)
    assert written == {"memory.max": most, "memory.swap.max": "0", "pids.max": "512", "cgroup.procs": "0"}
    assert "no swap, 512 tasks" in bounds
    assert not group.was_short_of_memory()
    (made / "memory.events").write_text("oom_kill 1\n", encoding="ascii")
    assert group.was_short_of_memory()
    os.close(group.events)


def test_groups_of_nobody_are_removed(tree: Path) -> None:
    dead = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True)
    gone, own = f"larder-{int(dead.stdout)}-7", f"larder-{os.getpid()}-7"
    other, foreign = f"larder-{os.getppid()}-7", "somebody.service"
    for name in (gone, own, other, foreign):
        (tree / name).mkdir()
        os.utime(tree / name, (0, 0))
    (tree / f"{own}-young").mkdir()
    cgroups.home(str(tree))
    assert {path.name for path in tree.glob("*.service")} == {foreign}
    assert {path.name for path in tree.glob("larder-*")} == {other, f"{own}-young"}


@pytest.mark.parametrize(
    ("controllers", "said"), [("", "no memory and pids"), ("pids cpu", "no memory here"), (None, "No such file")]
)
def test_what_was_not_handed_over_is_said(tmp_path: Path, controllers: str | None, said: str) -> None:
    if controllers is not None:
        (tmp_path / "cgroup.controllers").write_text(controllers, encoding="ascii")
    found = cgroups.home(str(tmp_path))
    assert not found.folder
    assert said in found.reason
    assert cgroups.enter(found, "1-2", SMALL) == (None, found.reason)


def test_a_group_that_cannot_be_bounded_is_none(tree: Path) -> None:
    (tree / "larder-1-2").mkdir()
    (tree / "larder-1-2" / "pids.max").unlink()
    assert cgroups.enter(Home(str(tree)), "1-2", SMALL) == (None, "No such file or directory")
    assert not (tree / "larder-1-2").exists()


def test_switched_off() -> None:
    assert cgroups.home("-") == Home(reason="switched off")


def test_this_machine() -> None:
    """Whatever it allows: a job has a group of its own, or is told why it has none."""
    with Zygote(steps=(FAKES,), preload=False) as own:
        layers = own.wait_ready()["layers"]
    found = cgroups.home()
    assert layers["cgroup"].active == bool(found.folder)
    assert layers["cgroup"].detail
    assert missing(layers) == ""


@pytest.mark.parametrize(("kills", "error"), [(0, Crashed), (1, OutOfMemory)])
def test_who_was_killed_for_memory_is_told_so(tmp_path: Path, kills: int, error: type[LarderError]) -> None:
    """The whole way of a job through a tree of files: the zygote is told of it, and its group lies there before."""
    root = tmp_path / "tree"
    root.mkdir()
    folder = tmp_path / "job"
    folder.mkdir()
    starter = tmp_path / "start.py"
    starter.write_text(EMULATED.format(root=str(root), kills=kills), encoding="utf-8")
    inside = (sys.executable, str(starter))
    with Zygote(steps=(FAKES,), preload=False, walls=Walls(inside, group=str(root))) as own:
        layers = own.wait_ready()["layers"]
        assert layers["cgroup"].active, layers["cgroup"].detail
        with pytest.raises(error):
            own.run("kill-itself", {}, read=(), folder=folder, limits=SMALL)
        seen = own.run("look-around", {}, read=(), folder=folder, limits=SMALL).value
        assert seen["descriptors"] == [0, 1, 2, 3], "that of the group is the supervisor's alone"


# Goes on as the zygote, in a process in which a new folder of the tree has the kernel's files.
EMULATED = """
import os, runpy, sys
root, make = {root!r}, os.mkdir
def write(path, text):
    with open(path, "w") as file:
        file.write(text)
write(root + "/cgroup.controllers", "memory pids")
write(root + "/cgroup.subtree_control", "")
def mkdir(path, mode=0o777, **more):
    make(path, mode, **more)
    if os.path.dirname(path) == root:
        for name in ("memory.max", "memory.swap.max", "pids.max", "cgroup.procs"):
            write(path + "/" + name, "")
        write(path + "/memory.events", "oom_kill {kills}\\n")
os.mkdir = mkdir
sys.argv = sys.argv[sys.argv.index("worker.sandbox.zygote"):]
runpy.run_module("worker.sandbox.zygote", run_name="__main__", alter_sys=True)
"""
