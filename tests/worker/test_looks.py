"""Looks whose jobs are stopped, or hand over what no job of ours writes: neither may fail a conversion."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from worker import loadback, node
from worker.errors import Canceled, Crashed, DiskFull, LarderError, NoResult, OutOfMemory, TimedOut
from worker.formats._format import TensorSpec, Tolerance
from worker.formats._inner import MOST
from worker.looks import File, Look
from worker.sandbox.limits import Limits
from worker.verify import Seen, Terms, save_draws
from worker.work import Work, sense

SPEC = TensorSpec("x", (None, 2), "float32")
SHOWN = Seen((SPEC,), (SPEC,), (), [{"x": np.ones((3, 2), "float32")}])
Does = Callable[[dict[str, Any]], dict[str, Any]]


@dataclass(frozen=True)
class Answer:
    value: dict[str, Any]


@dataclass
class Jobs:
    """Every job does the same."""

    does: Does

    def run(self, step: str, arguments: dict[str, Any], **_: Any) -> Answer:
        return Answer(self.does(arguments))


def look(folder: Path, does: Does) -> Look:
    work = Work(Jobs(does), folder, Limits(), seed=1)
    files = File(folder / "source", "keras"), File(folder / "result", "onnx")
    for file in files:
        file.path.touch()
    return Look(work, *files, SHOWN, SHOWN, Terms(Tolerance(1e-5, 1e-6), exact_weights=False), [], folder / "in.npz")


def failing(error: LarderError) -> Does:
    def fail(arguments: dict[str, Any]) -> dict[str, Any]:
        raise error

    return fail


def verdicts(found: Look) -> list[tuple[str, str]]:
    back = found.load_back()
    assert back is not None
    return [(cell["verdict"], cell["said"]) for cell in back[0].data["cells"]]


# Where else it runs


@pytest.mark.parametrize(
    "error", [TimedOut(seconds=9, kind="wall"), OutOfMemory(limit="4 GiB"), DiskFull(limit="9 MiB")]
)
def test_a_job_that_was_stopped_says_nothing_about_the_result(error: LarderError, tmp_path: Path) -> None:
    found = look(tmp_path, failing(error))
    assert verdicts(found)[1:] == [("absent", error.message)] * 2


def test_nor_does_it_where_the_result_is_at_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    turn = loadback.Turn("home", "Home", "1.0", "home==1.0")
    monkeypatch.setattr(loadback, "runtimes", lambda *_: [turn])
    back = look(tmp_path, failing(TimedOut(seconds=9, kind="wall"))).load_back()
    assert back is not None
    assert (back[0].passed, back[1]) == (None, [])
    assert back[0].sentence == "Home: The job was stopped after 9 seconds of wall time, the most it may take."


def test_a_crash_does(tmp_path: Path) -> None:
    found = look(tmp_path, failing(Crashed(signal="SIGSEGV")))
    assert [verdict for verdict, _ in verdicts(found)[1:]] == ["refused"] * 2


@pytest.mark.parametrize("answer", [{}, {"inputs": [3], "outputs": []}, {"inputs": [], "outputs": None}])
def test_an_answer_that_makes_no_sense_is_a_refusal(answer: dict[str, Any], tmp_path: Path) -> None:
    assert [verdict for verdict, _ in verdicts(look(tmp_path, lambda _: answer))[1:]] == ["refused"] * 2


def test_each_runtime_says_on_how_much_it_was_asked(tmp_path: Path) -> None:
    """The result's own answers are to all draws; others are asked the smallest."""
    back = look(tmp_path, failing(Crashed(signal="SIGSEGV"))).load_back()
    assert back is not None
    cells = back[0].data["cells"]
    assert [(cell["draws"], cell["rows"]) for cell in cells] == [(1, 3), (0, 0), (0, 0)]


def test_runtimes_that_took_part_are_among_the_versions(tmp_path: Path) -> None:
    found = look(tmp_path, failing(Crashed(signal="SIGSEGV")))
    found.load_back()
    assert found.work.versions == {name: version(name) for name in ("onnxruntime", "openvino", "onnx")}


def test_those_that_were_stopped_are_not(tmp_path: Path) -> None:
    found = look(tmp_path, failing(TimedOut(seconds=9, kind="wall")))
    found.load_back()
    assert set(found.work.versions) == {"onnxruntime"}


@dataclass
class NodeJobs:
    """Every job goes on as Node and ends with the error; ``begun``: after TensorFlow.js was there."""

    error: LarderError
    begun: bool

    def run(self, step: str, arguments: dict[str, Any], **more: Any) -> Answer:
        assert (step, more["program"].command[0]) == ("hand_over", node.found().command[0])
        assert set(node.found().read) < set(more["read"])
        assert more["limits"].wall_seconds <= 60
        if self.begun:
            more["progress"](node.BEGUN)
        raise self.error


@pytest.mark.parametrize("error", [Crashed(signal="SIGABRT"), NoResult(status=1)])
@pytest.mark.parametrize(("begun", "verdict"), [(True, "refused"), (False, "absent")])
def test_a_node_that_does_not_start_says_nothing_about_the_result(
    error: LarderError, begun: bool, verdict: str, tmp_path: Path
) -> None:
    found = look(tmp_path, failing(error))
    work = dataclasses.replace(found.work, zygote=NodeJobs(error, begun))
    found = dataclasses.replace(found, work=work, result=dataclasses.replace(found.result, format="tfjs_graph"))
    said = "" if begun else "Node does not start in a job"
    assert [(word, text.startswith(said)) for word, text in verdicts(found)[:1]] == [(verdict, True)]


@pytest.mark.parametrize(
    "answer", [{}, {"refusal": "", "draws": [[{}]], "told": {}}, {"refusal": "", "draws": 3, "told": {"draws": None}}]
)
def test_an_answer_of_node_that_makes_no_sense_is_a_refusal(answer: dict[str, Any], tmp_path: Path) -> None:
    found = look(tmp_path, lambda _: answer)
    found = dataclasses.replace(found, result=dataclasses.replace(found.result, format="tfjs_graph"))
    assert verdicts(found)[0][0] == "refused"


# Where they part


def inner(*draws: dict[str, Any]) -> Does:
    """A job that hands over these."""

    def write(arguments: dict[str, Any]) -> dict[str, Any]:
        save_draws(Path(arguments["inner"]), draws)
        return {}

    return write


def is_link(arguments: dict[str, Any]) -> dict[str, Any]:
    Path(arguments["inner"]).symlink_to("/etc/hostname")
    return {}


def is_no_archive(arguments: dict[str, Any]) -> dict[str, Any]:
    Path(arguments["inner"]).write_bytes(b"PK nothing")
    return {}


@pytest.mark.parametrize(
    "does",
    [
        inner(*[{"a": np.ones(2)}] * (MOST + 1)),
        inner({"a": np.ones(2**16 + 1)}),
        inner({"a": np.array(["text"])}),
        is_link,
        is_no_archive,
        failing(TimedOut(seconds=9, kind="wall")),
    ],
)
def test_a_bad_picture_is_none(does: Does, tmp_path: Path) -> None:
    assert look(tmp_path, does).drift(1e-5, differs=True) is None


def test_a_good_one_is_shown(tmp_path: Path) -> None:
    check = look(tmp_path, inner({"dense": np.arange(6.0)})).drift(1e-5, differs=False)
    assert check is not None
    assert check.passed is True


def test_whoever_cancels_is_heard(tmp_path: Path) -> None:
    with pytest.raises(Canceled):
        look(tmp_path, failing(Canceled())).drift(1e-5, differs=True)


def test_numbers_that_are_none_make_no_sense() -> None:
    with pytest.raises(NoResult, match="OverflowError"), sense():
        int(float("inf"))
