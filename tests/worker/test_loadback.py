"""Where else a result runs: which runtimes are asked, what becomes of each, and what is said of all."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from worker import formats, loadback, node
from worker.errors import LarderError, ModelError, NotRunnable
from worker.formats._format import TensorSpec, Tolerance
from worker.report import Check, Verdict
from worker.snippets import pinned
from worker.verify import Again, Asked, Seen, Terms
from worker.verify.loadback import (
    Cell,
    Outcome,
    answered,
    answered_again,
    beside,
    loadback_check,
    loadback_findings,
    refused,
    unless_few,
)

TERMS = Terms(Tolerance(1e-5, 1e-6), exact_weights=False)
SPEC = TensorSpec("x", (None, 2), "float32")
VALUES = np.linspace(-1, 1, 6, dtype="float32").reshape(3, 2)
SOURCE = Seen((SPEC,), (dataclasses.replace(SPEC, name="y"),), (), [{"y": VALUES}])
MIB = 2**20


def cell(runtime: str, verdict: Outcome = Outcome.ABSENT, said: str = "not tried", gap: float | None = None) -> Cell:
    return Cell(runtime, runtime.upper(), "1.0", verdict, gap, said, f"{runtime}==1.0")


def shown(values: Any) -> Seen:
    return dataclasses.replace(SOURCE, values=[{"y": values}])


# Which runtimes


@pytest.mark.parametrize(
    ("slug", "names"),
    [
        ("keras", ["keras", "tf_keras"]),
        ("h5", ["keras", "tf_keras"]),
        ("saved_model", ["tensorflow", "openvino"]),
        ("onnx", ["onnxruntime", "openvino", "onnx_reference"]),
        ("tflite", ["litert", "tf_lite", "openvino"]),
        ("openvino", ["openvino"]),
        ("tfjs_graph", ["tfjs", "tensorflow"]),
        ("coreml", ["coreml"]),
        ("safetensors", []),
    ],
)
def test_a_format_is_asked_of_its_runtimes_and_its_own_first(slug: str, names: list[str]) -> None:
    assert [turn.runtime for turn in loadback.runtimes(slug)] == names


@pytest.mark.parametrize("slug", [slug for slug, item in formats.formats().items() if item.converts_from])
def test_every_result_that_runs_has_a_runtime(slug: str) -> None:
    item = formats.get(slug)
    turns = loadback.runtimes(slug)
    assert bool(turns) is (item.keeps != {"weights"})
    assert all(turn.absent or turn.version for turn in turns)


def test_what_cannot_be_asked_says_why() -> None:
    assert "not run here" in loadback.runtimes("coreml")[0].absent
    with pytest.raises(NotRunnable, match="converted, not run here"):
        loadback.run_in("coreml", "coreml", Path("m.zip"), Path())
    with pytest.raises(NotRunnable, match="does not open this format"):
        loadback.run_in("litert", "onnx", Path("m.onnx"), Path())
    with pytest.raises(NotRunnable, match="in Python"):
        loadback.run_in("tfjs", "tfjs_graph", Path("m.zip"), Path())


def test_a_runtime_that_is_not_installed_is_not_present(monkeypatch: pytest.MonkeyPatch) -> None:
    other = dataclasses.replace(loadback.RUNTIMES["openvino"], packages=("no-such-package",))
    monkeypatch.setitem(loadback.RUNTIMES, "openvino", other)
    turn = loadback.runtimes("onnx")[1]
    assert (turn.absent, turn.version) == ("not present here", "")


def test_large_files_are_opened_by_their_own_runtime_alone() -> None:
    absent = {turn.runtime: turn.absent for turn in loadback.runtimes("onnx", 3 * MIB)}
    assert absent == {
        "onnxruntime": "",
        "openvino": "",
        "onnx_reference": "not tried: it is asked for files up to 2 MiB",
    }
    large = loadback.runtimes("onnx", 900 * MIB)
    assert [turn.runtime for turn in large if not turn.absent] == ["onnxruntime"]


def test_what_a_run_of_the_result_showed_counts_for_its_own_runtime() -> None:
    assert [turn.own for turn in loadback.runtimes("onnx")] == [True, False, False]
    assert [turn.own for turn in loadback.runtimes("keras")] == [False, False]  # by Keras alone, without our repairs
    assert loadback.runtimes("onnx")[0].install.startswith("onnxruntime==")
    assert " tensorflow==" in loadback.runtimes("keras")[0].install


def test_releases_are_told_by_name_and_that_of_node_too() -> None:
    own = loadback.runtimes("onnx")[1]
    assert own.releases == {"openvino": own.version}
    tfjs = loadback.runtimes("tfjs_graph")[0]
    assert set(tfjs.releases) == {*node.PACKAGES, "node"}
    assert tfjs.releases["@tensorflow/tfjs-core"] == tfjs.version
    assert tfjs.releases["node"] == node.found().release != tfjs.version


# One runtime


def test_the_same_answers() -> None:
    found = answered(cell("onnxruntime"), SOURCE, shown(VALUES * (1 + 1e-7)), TERMS)
    assert (found.verdict, found.said) == (Outcome.SAME, "")
    assert found.gap == pytest.approx(1e-7, rel=0.5)


def test_answers_that_prove_nothing_are_no_refusal() -> None:
    source = dataclasses.replace(SOURCE, exact=[{"y": VALUES * 1.1}])
    found = answered(cell("litert"), source, shown(VALUES * 0.9), TERMS)
    assert found.verdict is Outcome.ABSENT
    assert found.said.startswith("Rounding alone moves the answers of the source")
    assert loadback_check([found]).passed is None


def test_a_result_that_was_not_run_is_not_refused_by_its_own_runtime() -> None:
    """Its inputs do not correspond to the source's; another runtime that cannot be asked for that is of no use."""
    own = dataclasses.replace(cell("onnxruntime"), own=True)
    nothing = dataclasses.replace(SOURCE, values=[])
    assert answered(own, SOURCE, nothing, TERMS).verdict is Outcome.ABSENT
    check = loadback_check([answered(own, SOURCE, nothing, TERMS), refused(cell("openvino"), ModelError(problem="no"))])
    assert check.sentence.startswith("It does not run in OPENVINO 1.0. ONNXRUNTIME: not run, for")
    assert check.passed is None
    assert answered(cell("openvino"), SOURCE, nothing, TERMS).verdict is Outcome.REFUSED


def test_other_answers() -> None:
    found = answered(cell("onnxruntime"), SOURCE, shown(VALUES * 1.5), TERMS)
    assert found.verdict is Outcome.DIFFERS
    assert found.gap == pytest.approx(0.5)
    assert "The values differ" in found.said


def test_inputs_or_outputs_that_do_not_correspond() -> None:
    assert answered(cell("openvino"), SOURCE, dataclasses.replace(SOURCE, values=[]), TERMS).verdict is Outcome.REFUSED


def test_a_refusal_keeps_its_reason_and_not_more_than_that() -> None:
    found = refused(cell("tf_keras"), ModelError(problem="unknown word " * 90))
    assert found.verdict is Outcome.REFUSED
    assert found.said.startswith("unknown word")
    assert len(found.said) <= 300
    assert refused(cell("tf_keras"), LarderError(reference="7")).said


# All of them


@pytest.mark.parametrize(
    ("verdicts", "passed"),
    [
        ([Outcome.SAME], True),
        ([Outcome.SAME, Outcome.REFUSED, Outcome.DIFFERS], True),
        ([Outcome.DIFFERS, Outcome.SAME], False),
        ([Outcome.REFUSED, Outcome.SAME], False),
        ([Outcome.ABSENT, Outcome.SAME], True),
        ([Outcome.ABSENT], None),
        ([], None),
    ],
)
def test_the_runtime_of_the_snippet_decides(verdicts: list[Outcome], passed: bool | None) -> None:
    cells = [cell(f"r{number}", verdict) for number, verdict in enumerate(verdicts)]
    assert loadback_check(cells).passed is passed


OWN = dataclasses.replace(cell("own", Outcome.SAME), own=True)


@pytest.mark.parametrize(
    ("cells", "before", "passed", "verdict"),
    [
        ([cell("home", Outcome.REFUSED), OWN], Verdict.VERIFIED, None, Verdict.NOT_PROVABLE),
        ([cell("home", Outcome.REFUSED), OWN], Verdict.DIFFERS, None, Verdict.DIFFERS),
        ([cell("home", Outcome.REFUSED), cell("other", Outcome.SAME)], Verdict.VERIFIED, False, Verdict.DIFFERS),
        ([cell("home", Outcome.DIFFERS), OWN], Verdict.VERIFIED, False, Verdict.DIFFERS),
        ([cell("home", Outcome.DIFFERS), OWN], Verdict.NOT_PROVABLE, False, Verdict.DIFFERS),
        ([cell("home", Outcome.ABSENT), OWN], Verdict.VERIFIED, True, Verdict.VERIFIED),
        ([cell("home", Outcome.ABSENT)], Verdict.VERIFIED, None, Verdict.VERIFIED),
        ([cell("home", Outcome.SAME), OWN], Verdict.VERIFIED, True, Verdict.VERIFIED),
    ],
)
def test_what_does_not_run_at_home_is_not_verified(
    cells: list[Cell], before: Verdict, passed: bool | None, verdict: Verdict
) -> None:
    """Where Larder's own reader of the format computes the same, what is missing is the runtime's, and no fault."""
    check = loadback_check(cells)
    found = beside((before, "as before", ()), check)
    assert (check.passed, found[0]) == (passed, verdict)
    assert found[1] == ("as before" if verdict is before else check.sentence)
    assert found[2] == (check,)


@pytest.mark.parametrize(
    ("verdict", "code"),
    [
        (Outcome.REFUSED, "does-not-run"),
        (Outcome.ABSENT, "tfjs-not-run"),
        (Outcome.SAME, None),
        (Outcome.DIFFERS, None),
    ],
)
def test_a_runtime_that_was_not_asked_or_lacks_something_is_told(verdict: Outcome, code: str | None) -> None:
    findings = loadback_findings([cell("home", verdict, "no such operation"), OWN])
    assert [finding.code for finding in findings] == ([code] if code else [])
    assert all("no such operation." in finding.sentence and "OWN" in finding.sentence for finding in findings)


# How far a runtime with kernels of its own may lie off


def again(values: Any) -> Again:
    return Again(SOURCE.inputs, SOURCE.outputs, {0: {"y": values}})


@pytest.mark.parametrize(
    ("rounding", "outcome"),
    [(1e-5, Outcome.SAME), (1e-7, Outcome.DIFFERS), (None, Outcome.ABSENT)],
)
def test_rounding_is_measured_where_it_decides(rounding: float | None, outcome: Outcome) -> None:
    asked = []

    def exact() -> Asked | None:
        asked.append(rounding)
        return None if rounding is None else Asked(exact=[{"y": VALUES.astype("float64") * (1 + rounding)}])

    assert answered_again(cell("home"), SOURCE, again(VALUES * (1 + 1e-7)), TERMS, exact).verdict is Outcome.SAME
    assert answered_again(cell("home"), SOURCE, again(VALUES * 1.5), TERMS, exact).verdict is Outcome.DIFFERS
    assert asked == []
    found = answered_again(cell("home"), SOURCE, again(VALUES * (1 + 3e-5)), TERMS, exact)
    assert (found.verdict, asked) == (outcome, [rounding])
    assert found.gap == pytest.approx(3e-5, rel=0.1)


def test_all_is_said_and_survives_json() -> None:
    cells = [
        cell("home", Outcome.SAME, "", 1e-7),
        cell("other", Outcome.DIFFERS, "no", 0.5),
        cell("old", Outcome.REFUSED, "no such layer"),
        cell("far", Outcome.ABSENT, "converted, not run here"),
    ]
    check = loadback_check(cells)
    assert check.sentence == (
        "Opened and run, each time alone, with the same answers in HOME 1.0. It computes something else in OTHER 1.0."
        " It does not run in OLD 1.0. FAR: converted, not run here."
    )
    assert Check.from_json(json.loads(json.dumps(check.to_json()))).data["cells"][1]["verdict"] == "differs"
    findings = loadback_findings(cells)
    assert [finding.code for finding in findings] == ["differs-elsewhere"]
    assert "OTHER 1.0 opens the result too" in findings[0].sentence
    at_home = dataclasses.replace(cells[0], verdict=Outcome.DIFFERS)
    assert not loadback_findings([at_home, *cells[1:]])  # the result is at fault, and the verdict says so


# The snippet


def test_the_snippet_is_pinned_to_what_it_ran_with() -> None:
    item = formats.get("onnx")
    text = pinned(item, [loadback_check([cell("onnxruntime", Outcome.SAME, "", 0.0)])])
    first, _, rest = text.partition("\n")
    assert first == "# Ran here with ONNXRUNTIME 1.0. To have the same: pip install onnxruntime==1.0"
    assert rest == item.snippet


def test_packages_of_javascript_come_from_npm() -> None:
    home = dataclasses.replace(cell("tfjs", Outcome.SAME, "", 0.0), install="@tensorflow/tfjs-core@4.22.0")
    text = pinned(formats.get("tfjs_graph"), [loadback_check([home])])
    first = text.partition("\n")[0]
    assert first == "// Ran here with TFJS 1.0. To have the same: npm install @tensorflow/tfjs-core@4.22.0"
    assert text.count("npm install") == 1


@pytest.mark.parametrize(("second", "verdict"), [(VALUES, Outcome.ABSENT), (VALUES * 1.5, Outcome.DIFFERS)])
def test_agreeing_where_nothing_differs_is_not_agreeing(second: Any, verdict: Outcome) -> None:
    """Of a result that differs, on large inputs alone: the small ones that others are asked say nothing."""
    source = dataclasses.replace(SOURCE, values=[{"y": VALUES}, {"y": VALUES}])
    result = dataclasses.replace(SOURCE, values=[{"y": VALUES}, {"y": VALUES * 1.5}])
    asked = answered_again(cell("other"), source, again(second), TERMS)
    found = unless_few(asked, source, result, [0], TERMS)
    assert found.verdict is verdict
    assert unless_few(asked, source, source, [0], TERMS) == asked


def test_a_snippet_that_would_not_run_is_not_shown() -> None:
    assert pinned(formats.get("h5"), [loadback_check([cell("keras", Outcome.REFUSED, "no")])]) == ""


def test_a_snippet_that_was_not_tried_says_so() -> None:
    text = pinned(formats.get("tfjs_graph"), [loadback_check([cell("tfjs", Outcome.ABSENT, "not present here")])])
    assert text.startswith("// TFJS: not present here.\n// npm install")


def test_without_a_load_back_the_snippet_is_as_it_was() -> None:
    assert pinned(formats.get("onnx"), []) == formats.get("onnx").snippet
