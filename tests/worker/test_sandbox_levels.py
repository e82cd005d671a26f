"""The same walls on machines that allow less, down to those where no job may run."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.worker import levels
from tests.worker.test_sandbox import DEATHS, FAKES, SMALL, descendants, parents, wait_until
from worker.errors import Forbidden, LarderError, SandboxMissing
from worker.sandbox import namespaces, selfcheck
from worker.sandbox.client import OWN_USER, Walls, Zygote
from worker.sandbox.layers import FLOOR, missing
from worker.sandbox.limits import Limits

LEVELS = {
    "as it is": (),
    "in a container": levels.IN_CONTAINER,
    "ordinary user": levels.AS_ORDINARY_USER,
    "without Landlock": levels.WITHOUT_LANDLOCK,
}
# Ends that hang on what the supervisor may see and do, one of each kind
TELLING = ("eat-memory", "write-many-files", "make-many-files", "write-unlinked-files", "hide-deep", "start-program")


@pytest.fixture(scope="module", params=LEVELS)
def level(request: pytest.FixtureRequest) -> Iterator[tuple[str, Zygote]]:
    with Zygote(steps=(FAKES,), preload=False, walls=Walls(LEVELS[request.param])) as own:
        own.wait_ready()
        yield request.param, own


def test_it_works(level: tuple[str, Zygote], tmp_path: Path) -> None:
    outcome = level[1].run("echo", {"word": "hello"}, read=(), folder=tmp_path, limits=SMALL)
    assert outcome.value == {"heard": "hello"}
    assert missing(outcome.layers) == ""


def test_a_job_reads_what_comes_into_a_folder_that_it_may_read(level: tuple[str, Zygote], tmp_path: Path) -> None:
    """So that a result may be opened before it is known what it will be asked."""
    told, folder = tmp_path / "told", tmp_path / "folder"
    for each in (told, folder):
        each.mkdir()

    def tell(_: str) -> None:
        (tmp_path / "draft").write_text("now")
        (tmp_path / "draft").replace(told / "question")

    arguments = {"path": str(told / "question")}
    outcome = level[1].run("wait-for", arguments, read=(told,), folder=folder, limits=SMALL, progress=tell)
    assert outcome.value == {"read": "now"}


def test_a_call_that_python_tells_nothing_of_is_told_by_the_kernel(level: tuple[str, Zygote], tmp_path: Path) -> None:
    with pytest.raises(Forbidden):
        level[1].run("call-home-below-python", {"consent": {"file": None}}, read=(), folder=tmp_path, limits=SMALL)


def test_what_engages(level: tuple[str, Zygote]) -> None:
    """All that the machine allows, told from outside; in a container the floor alone."""
    name, zygote = level
    layers = zygote.wait_ready()["layers"]
    enters = name != "in a container" and subprocess.run(levels.ENTERS, check=False).returncode == 0
    assert all(layers[wall].active for wall in FLOOR)
    assert {wall: layers[wall].active for wall in namespaces.TOLD} == dict.fromkeys(namespaces.TOLD, enters)
    assert layers["landlock"].active == (name != "without Landlock")
    assert all(layer.detail for layer in layers.values())


def test_probes_are_blocked(level: tuple[str, Zygote]) -> None:
    found = selfcheck.check(level[1])
    assert {name: found[name] for name in selfcheck.ACTS if not found[name].active} == {}
    assert {found[name].by for name in selfcheck.ACTS} <= {*found}, "each by a layer that is in the table"
    assert all(found[found[name].by].active for name in selfcheck.ACTS)


@pytest.mark.parametrize("step", TELLING)
def test_ends_are_told(level: tuple[str, Zygote], tmp_path: Path, step: str) -> None:
    error, words = next((row[2], row[3]) for row in DEATHS if row[0] == step)
    with pytest.raises(LarderError) as caught:
        level[1].run(step, {}, read=(), folder=tmp_path, limits=SMALL)
    assert type(caught.value) is error
    assert words in caught.value.message


def test_what_is_given_can_be_read(level: tuple[str, Zygote], tmp_path: Path) -> None:
    """A file as the store holds it, below a folder of its own, by links in the job's folder and elsewhere; and what it
    writes is there afterwards."""
    store, folder = tmp_path / "store", tmp_path / "job"
    store.mkdir(mode=0o700)
    folder.mkdir(mode=0o700)
    (store / "given").write_text("model", encoding="utf-8")
    (store / "given").chmod(0o440)
    (store / "link").symlink_to("given")
    (folder / "model.h5").symlink_to(store / "given")
    for read, path in ((store / "given", folder / "model.h5"), (store / "link", store / "link")):
        found = level[1].run("copy", {"path": str(path)}, read=[read], folder=folder, limits=SMALL).value
        assert found == {"read": "model"}
    assert (folder / "copied").read_text(encoding="utf-8") == "model"


def test_a_file_for_its_owner_alone_is_read_by_its_owner(level: tuple[str, Zygote], tmp_path: Path) -> None:
    """Another user could not, so the job then is none."""
    folder, given = tmp_path / "job", tmp_path / "given"
    folder.mkdir(mode=0o700)
    given.write_text("model", encoding="utf-8")
    given.chmod(0o400)
    outcome = level[1].run("copy", {"path": str(given)}, read=[given], folder=folder, limits=SMALL)
    assert outcome.value == {"read": "model"}
    assert "which nobody else is" not in outcome.layers["identity"].detail


def test_what_an_earlier_job_left_for_itself_is_read_by_the_next(level: tuple[str, Zygote], tmp_path: Path) -> None:
    folder, given = tmp_path / "job", tmp_path / "given"
    folder.mkdir(mode=0o700)
    given.write_text("model", encoding="utf-8")
    given.chmod(0o600)
    identity = level[1].wait_ready()["layers"]["identity"]
    if str(OWN_USER) in identity.detail:  # else a job is the user that Larder is
        os.chown(given, OWN_USER, -1)
    outcome = level[1].run("copy", {"path": str(given)}, read=[given], folder=folder, limits=SMALL)
    assert outcome.value == {"read": "model"}
    assert outcome.layers["identity"] == identity


@pytest.mark.parametrize("mask", [0o022, 0o077])  # the second one is that of scripts/serve
def test_who_a_job_is_does_not_hang_on_the_umask(mask: int, level: tuple[str, Zygote]) -> None:
    before = os.umask(mask)
    try:
        with Zygote(steps=(FAKES,), preload=False, walls=level[1].walls) as own:
            assert own.wait_ready()["layers"]["identity"] == level[1].wait_ready()["layers"]["identity"]
    finally:
        os.umask(before)


def test_a_folder_that_cannot_change_hands_stays_whose_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mine, other = namespaces.Plan(), namespaces.Plan(user=1234)
    both = namespaces.Enclosure(other, {}, mine)
    changed = []
    monkeypatch.setattr(os, "chown", lambda path, *rest, **more: changed.append(path))
    assert both.of_job([], str(tmp_path)) == both
    assert changed == [str(tmp_path)]

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "chown", refuse)
    assert both.of_job([], str(tmp_path)).plan == mine


def test_a_killed_zygote_leaves_nothing_behind(tmp_path: Path) -> None:
    for name, inside in LEVELS.items():
        folder = tmp_path / name
        folder.mkdir()
        with Zygote(steps=(FAKES,), preload=False, walls=Walls(inside)) as own:
            started = own.wait_ready()["pid"]
            seen: set[int] = set()

            def kill(_: str, started: int = started, seen: set[int] = seen, own: Zygote = own) -> None:
                seen |= descendants(started)
                own.close()

            with pytest.raises(LarderError):
                own.run("sleep", {"seconds": 60}, read=(), folder=folder, limits=SMALL, progress=kill)
            assert len(seen) >= 2
            wait_until(lambda seen=seen: not seen & set(parents()))


def test_below_the_floor_no_job_runs(tmp_path: Path) -> None:
    with Zygote(steps=(FAKES,), preload=False, walls=Walls(levels.BELOW_THE_FLOOR)) as own:
        with pytest.raises(SandboxMissing, match="landlock"):
            own.run("echo", {"word": "x"}, read=(), folder=tmp_path, limits=Limits())
        assert "private_root" not in missing(own.wait_ready()["layers"])


def test_the_operator_may_say_otherwise(tmp_path: Path) -> None:
    with Zygote(steps=(FAKES,), preload=False, walls=Walls(levels.BELOW_THE_FLOOR, weak=True)) as own:
        outcome = own.run("echo", {"word": "x"}, read=(), folder=tmp_path, limits=Limits())
    assert outcome.value == {"heard": "x"}
    assert "landlock" in missing(outcome.layers)
