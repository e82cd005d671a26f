"""A conversion from end to end: jobs, files, judgement. With toy formats here; the real ones run in the CLI's tests."""

from __future__ import annotations

import importlib.metadata
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.worker import toy_formats
from tests.worker.local_jobs import LocalJobs
from tests.worker.toy_formats import LEVEL, SUMMARY, copying, toy, write
from worker import loadback, pipeline
from worker.errors import (
    BadOption,
    BadSamples,
    Canceled,
    Crashed,
    CustomCode,
    DiskFull,
    LarderError,
    ModelError,
    NoResult,
    OutOfMemory,
    TimedOut,
    WeightsMismatch,
    from_json,
)
from worker.formats._format import Converter, LayerRow, Loaded, TensorSpec, Tolerance
from worker.pipeline import Result, Source
from worker.report import Check, Verdict
from worker.sandbox.limits import Limits


@pytest.fixture(autouse=True)
def known(monkeypatch: pytest.MonkeyPatch) -> None:
    """a → b → c exact, c → loose; a → wrong in several ways."""
    halved = copying(lambda model: {**model, "factor": 1.0})
    rounded = copying(lambda model: {**model, "factor": model["factor"] + 1e-5})
    reweighted = copying(lambda model: {**model, "weights": [[3.0], [2.0, 1.0]]})
    broken = copying(lambda model: {**model, "error": "the head is missing"})
    renamed = copying(
        lambda model: {**model, "inputs": [["in", [None, 4], "float32"]], "outputs": [["out", [None, 4], "float32"]]}
    )
    narrowed = copying(lambda model: {**model, "inputs": [["x", [1, 4], "float32"]]})
    formats = {
        "a": toy("A"),
        "b": toy("B", {"a": copying()}),
        "c": toy("C", {"b": copying()}, options=(LEVEL,)),
        "loose": toy("Loose", {"c": rounded}, exact=False, tolerance=Tolerance(1e-3, 1e-3)),
        "halved": toy("Halved", {"a": halved}),
        "rerounded": toy("Rerounded", {"a": copying(lambda model: {**model, "factor": model["factor"] * 1.001})}),
        "reweighted": toy("Reweighted", {"a": reweighted}),
        "broken": toy("Broken", {"a": broken}),
        "renamed": toy("Renamed", {"a": renamed}),
        "narrowed": toy("Narrowed", {"a": narrowed}),
        "nothing": toy("Nothing", {"a": Converter(lambda source, target, hop: None)}),
    }
    toy_formats.install(monkeypatch, formats)


def convert(
    tmp_path: Path, target: str, jobs: LocalJobs | None = None, limits: Limits | None = None, **more: Any
) -> Result:
    changes = more.pop("model", {})
    options = more.pop("options", {})
    source = Source(write(tmp_path / "stored-without-a-suffix", **changes), "a", more.pop("summary", SUMMARY))
    folder = tmp_path / "work"
    folder.mkdir()
    return pipeline.convert(jobs or LocalJobs(), source, target, options, folder, limits or Limits(), **more)


def named(checks: tuple[Check, ...]) -> dict[str, bool | None]:
    return {check.name: check.passed for check in checks}


def test_it_works(tmp_path: Path) -> None:
    result = convert(tmp_path, "b")
    report = result.report
    assert report.verdict is Verdict.VERIFIED
    assert report.route == ("a", "b")
    checks = named(report.checks)
    assert checks.pop("sensitivity") is None  # the weights of toys cannot be changed
    assert checks == dict.fromkeys(["load", "names", "shapes", "dtypes", "weights", "steady", "values"], True)
    assert [finding.code for finding in report.findings] == ["toy-copied", "toy-loaded"]
    assert {"python", "tensorflow", "keras"} <= set(report.versions)
    assert report.seconds >= 0
    assert result.path.is_relative_to(tmp_path / "work")
    assert result.path.name == "result.toy"


def test_every_step_of_a_route_is_a_job_and_the_result_runs_alone(tmp_path: Path) -> None:
    jobs = LocalJobs()
    stages: list[str] = []
    report = convert(tmp_path, "loose", jobs, stage=stages.append).report
    assert report.route == ("a", "b", "c", "loose")
    assert [step for step, _ in jobs.asked] == ["convert", "convert", "convert", "run", "run"]
    assert jobs.asked[-1][1] == ["result.toy", "told"]
    assert stages[:3] == ["converting to B, 1 of 3", "converting to C, 2 of 3", "converting to Loose, 3 of 3"]
    assert report.verdict is Verdict.VERIFIED  # by the tolerance of the loosest step
    assert named(report.checks)["weights"] is True  # by their fingerprints


def test_made_with_what_the_formats_of_the_route_need(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chain = {
        "a": toy("A"),
        "b": toy("B", {"a": copying()}, needs=("h5py",)),
        "c": toy("C", {"b": copying()}, needs=("tf_keras",)),
        "other": toy("Other", {"a": copying()}, needs=("onnx",)),
    }
    toy_formats.install(monkeypatch, chain)
    versions = convert(tmp_path, "c").report.versions
    assert set(versions) == {"python", "tensorflow", "keras", "numpy", "h5py", "tf-keras"}
    assert versions["h5py"] == importlib.metadata.version("h5py")


def test_what_nothing_here_runs_is_not_said_to_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It has a table of runtimes all the same, which says so in so many words."""

    def weights(path: Path, scratch: Path) -> Iterator[tuple[str, Any]]:
        return iter(toy_formats.load(path, scratch).weights())

    apart = toy("Apart", {"a": copying()}, load=None, exact=False, weights=weights)
    toy_formats.install(monkeypatch, {"a": toy("A"), "apart": apart})
    absent = "converted, not run here: it runs on other systems"
    monkeypatch.setattr(loadback, "RUNTIMES", {"apart": loadback.Runtime("Apart", (), {"apart": None}, absent=absent)})
    stages: list[str] = []
    report = convert(tmp_path, "apart", stage=stages.append).report
    assert stages[1:] == ["reading the result's weights", "comparing"]
    assert report.verdict is Verdict.NOT_PROVABLE
    check = report.checks[-1]
    assert (check.name, check.passed, check.sentence) == ("load-back", None, f"Apart: {absent}.")
    assert [(cell["verdict"], cell["said"]) for cell in check.data["cells"]] == [("absent", absent)]


def test_the_same_file_is_judged_on_the_same_inputs(tmp_path: Path) -> None:
    seeds = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        seeds.append(convert(tmp_path / name, "b").report.seed)
    assert seeds[0] == seeds[1]


@pytest.mark.parametrize(
    ("target", "check", "words"),
    [
        ("halved", "values", "the values differ"),
        ("reweighted", "weights", "1 of 2 tensors are not there bit for bit"),
        ("broken", "load", "the head is missing"),
        ("narrowed", "shapes", "x was ?×4 and is 1×4"),
    ],
)
def test_a_wrong_result_comes_with_its_report(tmp_path: Path, target: str, check: str, words: str) -> None:
    result = convert(tmp_path, target)
    assert result.report.verdict is Verdict.DIFFERS
    assert named(result.report.checks)[check] is False
    assert words.lower() in result.report.reason.lower()
    assert result.path.exists()


@pytest.mark.parametrize(("dtype", "verdict"), [("float32", Verdict.DIFFERS), ("mixed_float16", Verdict.VERIFIED)])
def test_half_precision_is_judged_by_its_own_rounding(tmp_path: Path, dtype: str, verdict: Verdict) -> None:
    summary = replace(SUMMARY, layers=(LayerRow("head", "Dense", "(?, 4)", dtype, 4),))
    assert convert(tmp_path, "rerounded", summary=summary).report.verdict is verdict


def test_renamed_inputs_are_fed_by_place(tmp_path: Path) -> None:
    report = convert(tmp_path, "renamed").report
    assert report.verdict is Verdict.VERIFIED
    assert "x is now in" in report.checks[1].sentence


def test_a_source_that_does_not_run_is_converted_and_not_proven(tmp_path: Path) -> None:
    report = convert(tmp_path, "b", model={"error": "its own code is missing"}).report
    assert report.verdict is Verdict.NOT_PROVABLE
    assert "its own code is missing" in report.reason


def test_inputs_are_tried_until_the_source_accepts_some(tmp_path: Path) -> None:
    model = {"inputs": [["x", [None, None], "float32"]], "outputs": [["y", [None, None], "float32"]], "only_size": 64}
    assert convert(tmp_path, "b", model=model).report.verdict is Verdict.VERIFIED


def test_a_source_that_accepts_none_is_not_proven(tmp_path: Path) -> None:
    model = {"inputs": [["x", [None, None], "float32"]], "only_size": 5}
    report = convert(tmp_path, "b", model=model).report
    assert report.verdict is Verdict.NOT_PROVABLE
    assert "it does not run on inputs made from its signature" in report.reason


def test_samples_prove_it_then(tmp_path: Path) -> None:
    np.savez(tmp_path / "samples.npz", input_0=np.ones((2, 5), "float32"))
    model = {"inputs": [["x", [None, None], "float32"]], "outputs": [["y", [None, None], "float32"]], "only_size": 5}
    report = convert(tmp_path, "b", model=model, samples=tmp_path / "samples.npz").report
    assert report.verdict is Verdict.VERIFIED
    assert report.checks[-1].data["draws"] == 1


def test_samples_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "samples.npz", input_0=np.ones((2, 9), "float32"))
    with pytest.raises(BadSamples):
        convert(tmp_path, "b", samples=tmp_path / "samples.npz")


def test_samples_that_the_model_refuses_are_at_fault(tmp_path: Path) -> None:
    """And not the model, for it runs on what is made from its signature."""
    np.savez(tmp_path / "samples.npz", input_0=np.ones((2, 9), "float32"))
    model = {"inputs": [["x", [None, None], "float32"]], "only_size": 32}
    with pytest.raises(BadSamples, match=r"samples\.npz .* runs on other inputs, and not on these: x is 2×9 .*not fit"):
        convert(tmp_path, "b", model=model, samples=tmp_path / "samples.npz")


def test_cancelling_stops_it(tmp_path: Path) -> None:
    with pytest.raises(Canceled):
        convert(tmp_path, "b", canceled=lambda: True)


# What a job leaves behind is not trusted


def spoil(name: str, change: Callable[[Path], object], step: str = "convert") -> LocalJobs:
    def after(done: str, folder: Path, value: dict[str, Any]) -> None:
        if done == step:
            change(folder / name)

    return LocalJobs(after=after)


def to_link(path: Path) -> None:
    path.unlink()
    path.symlink_to("/etc/passwd")


def to_second_name(path: Path) -> None:
    os.link(path, path.with_name("other"))


def to_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def to_fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


@pytest.mark.parametrize("name", ["result.toy", "inputs.npz", "outputs.npz"])
@pytest.mark.parametrize("change", [Path.unlink, to_link, to_second_name, to_folder, to_fifo])
def test_files_of_a_job_are_taken_only_when_plain(tmp_path: Path, name: str, change: Callable[[Path], object]) -> None:
    if name == "outputs.npz" and change is Path.unlink:
        assert convert(tmp_path, "b", spoil(name, change)).report.verdict is Verdict.NOT_PROVABLE
        return
    with pytest.raises(NoResult):
        convert(tmp_path, "b", spoil(name, change))


def test_a_converter_that_writes_nothing_is_told(tmp_path: Path) -> None:
    with pytest.raises(NoResult, match=r"it wrote no result\.toy"):
        convert(tmp_path, "nothing")


def test_a_result_over_the_limit_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DiskFull):
        convert(tmp_path, "b", limits=Limits(file_bytes=10))


@pytest.mark.parametrize(
    "change",
    [
        {"findings": 7},
        {"probe": "yes"},
        {"probe": {"error": None, "inputs": [{"name": "x"}], "outputs": [], "weights": []}},
        {"probe": {"error": None, "inputs": 1, "outputs": 2, "weights": 3}},
    ],
)
def test_a_senseless_answer_is_no_result(tmp_path: Path, change: dict[str, Any]) -> None:
    def after(step: str, folder: Path, value: dict[str, Any]) -> None:
        if step == "convert":
            value.update(change)

    with pytest.raises(NoResult):
        convert(tmp_path, "b", LocalJobs(after=after))


@pytest.mark.parametrize(
    "summary",
    [
        {"parameters": "many"},
        {"layers": [{"name": "a", "kind": "b", "shape": "c", "dtype": "d", "parameters": []}]},
        {"layers": [{"name": "a"}]},
        {"inputs": [{"name": "x", "shape": ["wide"], "dtype": "float32"}]},
        {"producer": "me"},
        {"dtypes": 4},
    ],
)
def test_a_senseless_summary_is_no_result(tmp_path: Path, summary: dict[str, Any]) -> None:
    """It would break every page that shows it."""

    def after(step: str, folder: Path, value: dict[str, Any]) -> None:
        value.update(summary=summary)

    with pytest.raises(NoResult):
        pipeline.inspect(LocalJobs(after=after), write(tmp_path / "m"), "a", _folder(tmp_path), Limits())


class Failing(LocalJobs):
    """Runs out of time, or crashes, when the result runs."""

    def __init__(self, error: LarderError) -> None:
        super().__init__()
        self.error = error

    def run(self, step: str, *arguments: Any, **more: Any) -> Any:
        if step == "run":
            raise self.error
        return super().run(step, *arguments, **more)


def test_running_out_of_time_says_nothing_about_the_result(tmp_path: Path) -> None:
    with pytest.raises(TimedOut):
        convert(tmp_path, "b", Failing(TimedOut(seconds=1, kind="wall")))


class Ending(LocalJobs):
    """A job that converts to one format says what it does, and ends there."""

    def __init__(self, target: str, error: LarderError, *said: str) -> None:
        super().__init__()
        self.target, self.error, self.said = target, error, said

    def run(self, step: str, arguments: dict[str, Any], **more: Any) -> Any:
        if step == "convert" and arguments["target_format"] == self.target:
            for text in self.said:
                more["progress"](text)
            raise self.error
        return super().run(step, arguments, **more)


@pytest.mark.parametrize(
    ("error", "advice"),
    [
        (Crashed(signal="SIGSEGV"), "leave layers out of the model"),
        (NoResult(status=1), "leave layers out of the model"),
        (TimedOut(seconds=1, kind="wall-clock"), "raise LARDER_JOB_SECONDS"),
        (OutOfMemory(limit="1 GiB"), "raise LARDER_JOB_MEMORY_MB"),
        (DiskFull(limit="1 GiB"), "raise LARDER_JOB_DISK_MB"),
    ],
    ids=lambda value: getattr(value, "code", ""),
)
def test_a_step_that_ends_in_the_middle_is_named_with_what_to_try(
    tmp_path: Path, error: LarderError, advice: str
) -> None:
    error.add_note("the end of the log")
    with pytest.raises(type(error)) as caught:
        convert(tmp_path, "loose", Ending("c", error, "converting B to C"))
    assert f"{error.message} It was converting B to C. Ask for another format" in caught.value.message
    assert advice in caught.value.message
    assert caught.value.__notes__ == ["the end of the log"]
    assert from_json(caught.value.to_json()).message == caught.value.message


def test_a_source_that_ends_its_job_is_not_taken_for_the_converter(tmp_path: Path) -> None:
    jobs = Ending("b", Crashed(signal="SIGSEGV"), "converting A to B", "running the source")
    with pytest.raises(Crashed, match="It was converting A to B, while running the source"):
        convert(tmp_path, "b", jobs)


def test_a_result_that_crashes_differs(tmp_path: Path) -> None:
    report = convert(tmp_path, "b", Failing(ModelError(problem="it crashed"))).report
    assert report.verdict is Verdict.DIFFERS


# Options


@pytest.mark.parametrize(("given", "value"), [({}, 3), ({"level": "2"}, 2), ({"level": 1}, 1)])
def test_options_are_typed_and_reach_the_last_step(tmp_path: Path, given: dict[str, Any], value: int) -> None:
    findings = convert(tmp_path, "c", options=given).report.findings
    assert [item.sentence for item in findings if item.code == "toy-copied"] == [
        "Copied with {}.",
        f"Copied with {{'level': {value}}}.",
    ]


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"level": "high"}, "'high' is no int"),
        ({"level": "7"}, "'7' is not one of 1, 2, 3"),
        ({"speed": "1"}, "speed is not a valid option of C: it has level"),
    ],
)
def test_options_that_make_no_sense_are_refused(tmp_path: Path, given: dict[str, Any], words: str) -> None:
    jobs = LocalJobs()
    with pytest.raises(BadOption) as caught:
        convert(tmp_path, "c", jobs, options=given)
    assert words in caught.value.message
    assert jobs.asked == []


# Inspecting


def test_inspecting(tmp_path: Path) -> None:
    seen = pipeline.inspect(LocalJobs(), write(tmp_path / "m"), "a", _folder(tmp_path), Limits())
    assert seen.summary.traits == {"keras-config", "weights"}
    assert [finding.code for finding in seen.findings] == ["toy-loaded"]
    assert seen.error is None


def test_what_the_layers_imply_is_kept_with_the_inputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is by these inputs that samples are matched, also before any conversion."""
    word = TensorSpec("word", (None, 4), "int32", limit=50)
    opened = copying_inputs(word)
    toy_formats.install(monkeypatch, {"a": toy("A", load=opened)})
    seen = pipeline.inspect(LocalJobs(), write(tmp_path / "m"), "a", _folder(tmp_path), Limits())
    assert seen.summary.inputs == (word,)


def copying_inputs(*inputs: TensorSpec) -> Callable[[Path, Path], Loaded]:
    """A loader that finds these inputs."""
    return lambda path, scratch: replace(toy_formats.load(path, scratch), inputs=inputs)


def test_a_model_that_does_not_load_keeps_its_summary(tmp_path: Path) -> None:
    path = write(tmp_path / "m", error="kernel: expected 2 variables, but received 3")
    seen = pipeline.inspect(LocalJobs(), path, "a", _folder(tmp_path), Limits())
    assert isinstance(seen.error, WeightsMismatch)
    assert seen.summary.traits


def test_errors_call_the_file_as_people_do(tmp_path: Path) -> None:
    path = write(tmp_path / "3f9a", error="truncated file: eof = 7")
    seen = pipeline.inspect(LocalJobs(), path, "a", _folder(tmp_path), Limits(), name="soup.toy")
    assert seen.error
    assert seen.error.message.startswith("soup.toy is damaged: truncated file")


def test_missing_code_is_told(tmp_path: Path) -> None:
    path = write(tmp_path / "m", error="Could not locate class 'Attention'. Make sure custom classes are decorated")
    seen = pipeline.inspect(LocalJobs(), path, "a", _folder(tmp_path), Limits())
    assert seen.error
    assert seen.error.message == CustomCode(names="Attention").message


def _folder(tmp_path: Path) -> Path:
    folder = tmp_path / "job"
    folder.mkdir()
    return folder
