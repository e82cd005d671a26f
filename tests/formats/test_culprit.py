"""The operation that a converter does not survive is found, with real jobs that crash, hang and eat memory."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from tests.formats.matrix import Matrix
from worker import formats, pipeline, routes
from worker.culprit import Tried, between
from worker.errors import Crashed, LarderError, OutOfMemory, TimedOut
from worker.formats._cut import heard
from worker.formats._format import Hop
from worker.sandbox.client import Zygote
from worker.sandbox.limits import GIB, Limits

ENDS: dict[str, tuple[type[LarderError], str]] = {
    "segfault": (Crashed, "crashes"),
    "eat-memory": (OutOfMemory, "runs out of memory"),
    "sleep": (TimedOut, "takes too long"),
}


class Dying:
    """Jobs in which the one converter does not survive one kind of operation."""

    def __init__(self, zygote: Zygote, target: str, deadly: str, how: str) -> None:
        self.zygote, self.target, self.more = zygote, target, {"deadly": deadly, "how": how}

    def run(self, step: str, arguments: dict[str, Any], **more: Any) -> Any:
        if step == "convert" and arguments["target_format"] == self.target:
            return self.zygote.run("convert-dying", arguments | self.more, **more)
        return self.zygote.run(step, arguments, **more)


def said_of(zygote: Zygote, matrix: Matrix, folder: Path, deadly: str, how: str = "segfault") -> str:
    """What people read when a SavedModel becomes a frozen graph by a converter that this operation ends."""
    path = matrix.file("dense", "saved_model")
    (folder / "inspect").mkdir(parents=True)
    (folder / "convert").mkdir()
    summary = pipeline.inspect(zygote, path, "saved_model", folder / "inspect", Limits(), load=False).summary
    source = pipeline.Source(path, "saved_model", summary, "dense.zip")
    limits = Limits(memory_bytes=GIB, wall_seconds=8)
    with pytest.raises(ENDS[how][0]) as caught:
        pipeline.convert(
            Dying(zygote, "frozen_graph", deadly, how), source, "frozen_graph", {}, folder / "convert", limits
        )
    return caught.value.message


@pytest.mark.parametrize(
    ("kind", "layer", "how"),
    [("Erfc", "dense", "segfault"), ("Softmax", "probs", "eat-memory"), ("Softmax", "probs", "sleep")],
)
def test_it_works(kind: str, layer: str, how: str, zygote: Zygote, matrix: Matrix, tmp_path: Path) -> None:
    said = said_of(zygote, matrix, tmp_path, kind, how)
    assert f"It was converting SavedModel to Frozen graph. It {ENDS[how][1]} at the operation " in said
    assert re.search(rf"at the operation {kind} of dense\w*/{layer}[/\w]*; what comes before that converts", said)


def test_what_is_in_no_part_has_no_name(zygote: Zygote, matrix: Matrix, tmp_path: Path) -> None:
    """Each part, that of no operation too, has the model's input."""
    said = said_of(zygote, matrix, tmp_path, "Placeholder")
    assert "at the operation" not in said
    assert "leave layers out of the model" in said


def test_nobody_searches_where_the_answer_is_thrown_away(zygote: Zygote, matrix: Matrix, tmp_path: Path) -> None:
    """The conversion of a twin is an attempt: nobody reads why it failed."""
    path, stages = matrix.file("dense", "saved_model"), list[str]()
    summary = pipeline.inspect(zygote, path, "saved_model", tmp_path, Limits(), load=False).summary
    source = pipeline.Source(path, "saved_model", summary, "dense.zip")
    jobs, folder = Dying(zygote, "frozen_graph", "Softmax", "segfault"), tmp_path / "convert"
    folder.mkdir()
    with pytest.raises(Crashed):
        pipeline.convert(jobs, source, "frozen_graph", {}, folder, Limits(), stage=stages.append, with_twin=False)
    assert not any("looking for the operation" in stage for stage in stages)


@pytest.mark.parametrize("target", ["coreml", "frozen_graph", "onnx", "openvino", "tfjs_graph", "tflite"])
def test_each_converter_takes_a_part(target: str, matrix: Matrix, tmp_path: Path) -> None:
    said: list[str] = []
    hop = Hop(tmp_path, pipeline.check_options(target, {}), first=2, say=said.append)
    result = tmp_path / f"part{formats.get(target).suffixes[0]}"
    routes.converter("saved_model", target).run(matrix.file("dense", "saved_model"), result, hop)
    total, last = heard(said[0]) or (0, "")
    assert total == 12
    assert re.fullmatch(r"RealDiv of dense\w*/normalization\w*", last)
    assert result.exists()


@pytest.mark.parametrize("total", [1, 2, 3, 7, 200])
def test_it_is_found_by_halves(total: int) -> None:
    for wrong in range(1, total + 1):
        asked: list[int] = []

        def attempt(first: int, wrong: int = wrong, asked: list[int] = asked) -> Tried:
            asked.append(first)
            return Tried(first < wrong, total, f"operation {first}")

        assert between(attempt) == f"operation {wrong}"
        assert len(asked) <= 2 + total.bit_length()


def test_where_parts_do_not_tell_there_is_no_name() -> None:
    assert between(lambda first: Tried(True, 9, "x")) == ""
    assert between(lambda first: None) == ""
    assert between(lambda first: Tried(first < 5, 9, "x") if first != 4 else None) == ""
    assert between(lambda first: Tried(first < 5, 9, "x"), seconds=0) == ""
