"""Core ML packages: written, and read back as data. Nothing on Linux runs them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.formats import models
from worker import archive, intake, routes
from worker.errors import CorruptFile, NoRoute, UnsupportedOperation
from worker.formats import coreml, get
from worker.formats._format import Hop, Sample, Summary

MadeFile = Callable[[str, str], Path]
COREML = get("coreml")


def convert(source: Path, folder: Path, **options: Any) -> tuple[Path, list[str]]:
    folder.mkdir(parents=True, exist_ok=True)
    hop = Hop(folder, options)
    coreml.from_saved_model(source, folder / "result.zip", hop)
    return folder / "result.zip", [finding.code for finding in hop.findings]


def test_it_works(made_file: MadeFile, tmp_path: Path) -> None:
    """Names and shapes survive, in the description and in the program, with the outputs in each other's places."""
    path, codes = convert(made_file("several", "saved_model"), tmp_path)
    assert codes == ["coreml-bounded", "coreml-int32"]
    assert COREML.sniff(intake.take_sample(path, "model.zip"))
    summary = COREML.inspect(path, tmp_path)
    shapes = {spec.name: (spec.shape, spec.dtype) for spec in summary.inputs}
    assert shapes == {"left": ((None, 4), "float32"), "right": ((None, 4), "float32"), "kind": ((None, 2), "int32")}
    assert sorted(spec.name for spec in summary.outputs) == ["label", "score"]
    spec = coreml.read_spec(path, tmp_path)
    (block,) = spec.mlProgram.functions["main"].block_specializations.values()
    sizes = {operation.outputs[0].name: _shape(operation) for operation in block.operations if operation.outputs}
    assert {name: sizes[name][-1] for name in block.outputs} == {"label": 3, "score": 1}


def _shape(operation: Any) -> list[int]:
    return [int(size.constant.size) for size in operation.outputs[0].type.tensorType.dimensions]


def test_free_dimensions_get_a_bound_that_is_said(made_file: MadeFile, tmp_path: Path) -> None:
    """coremltools by itself takes batches of two at the most, and only warns of it."""
    path, _ = convert(made_file("dense", "saved_model"), tmp_path, largest=64)
    (feature,) = coreml.read_spec(path, tmp_path).description.input
    batch = feature.type.multiArrayType.shapeRange.sizeRanges[0]
    assert (batch.lowerBound, batch.upperBound) == (1, 64)


def test_weights_are_float32_unless_half_is_asked_for(made_file: MadeFile, tmp_path: Path) -> None:
    """coremltools by itself rounds to float16 without a word."""
    source = made_file("dense", "saved_model")
    assert COREML.inspect(convert(source, tmp_path / "single")[0], tmp_path / "single").dtypes == ("float32",)
    path, codes = convert(source, tmp_path / "half", precision="float16")
    assert "coreml-half" in codes
    assert COREML.inspect(path, tmp_path / "half").dtypes == ("float16",)


def test_nothing_is_printed(made_file: MadeFile, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    convert(made_file("conv", "saved_model"), tmp_path)
    printed = "".join(capfd.readouterr())
    assert "coremltools" not in printed
    assert "passes/s" not in printed


def test_coremltools_opens_it_as_the_snippet_does(
    made_file: MadeFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, _ = convert(made_file("dense", "saved_model"), tmp_path)
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {"print": lambda *said: None}
    with coreml._quiet():
        exec(COREML.snippet.replace("{file}", path.name), names)  # noqa: S102 - the snippet is what is tested
    assert "features" in str(names["model"].input_description)
    assert "probs" in str(names["model"].output_description)


def test_an_input_without_dimensions_is_refused(tmp_path: Path) -> None:
    import tensorflow as tf

    module = tf.Module()
    spec = tf.TensorSpec([], name="x")
    module.serve = tf.function(lambda x: {"y": x * 2.0}, input_signature=[spec], autograph=False)
    tf.saved_model.save(module, str(tmp_path / "sm"), signatures={"serving_default": module.serve})
    archive.pack(tmp_path / "sm", tmp_path / "sm.zip")
    with pytest.raises(UnsupportedOperation, match=r"the input x.*single number"):
        convert(tmp_path / "sm.zip", tmp_path / "result")


def test_loops_are_refused_by_name(made_file: MadeFile, tmp_path: Path) -> None:
    with pytest.raises(UnsupportedOperation, match="While"):
        convert(made_file("recurrent", "saved_model"), tmp_path)


def test_loops_inside_of_calls_are_refused_by_name() -> None:
    """As a SavedModel has them that was made from a TF.js graph model: coremltools does not name them."""
    import tensorflow as tf

    def doubled(x: Any) -> Any:
        return tf.while_loop(lambda y: tf.reduce_sum(y) < 1e3, lambda y: (y * 2.0,), [x])[0]

    called = tf.function(doubled, autograph=False)
    function = tf.function(
        lambda x: called(x), input_signature=[tf.TensorSpec([3])], autograph=False
    ).get_concrete_function()
    refusal = coreml._refusal(IndexError("list index out of range"), function)
    assert isinstance(refusal, UnsupportedOperation)
    assert "While" in str(refusal.details["operation"])


@pytest.mark.parametrize("fact", ["strings", "tables", "recurrent"])
def test_it_says_before_what_it_cannot_hold(fact: str) -> None:
    with pytest.raises(NoRoute):
        routes.find_route("saved_model", "coreml", Summary(traits=frozenset({"weights", fact})))


def test_a_package_that_names_a_file_outside_is_refused(tmp_path: Path) -> None:
    listed = {"rootModelIdentifier": "a", "itemInfoEntries": {"a": {"path": "../../../../../etc/passwd"}}}
    path = models.pack(tmp_path / "model.zip", m__mlpackage___Manifest__json=json.dumps(listed).encode())
    with pytest.raises(CorruptFile):
        COREML.inspect(path, tmp_path)


def test_other_lists_are_no_package() -> None:
    assert not COREML.sniff(Sample("x.zip", 9, b"PK", "zip", texts={"a.json": '{"itemInfoEntries": {}}'}))


def test_it_is_not_run_here() -> None:
    assert COREML.load is None
    assert COREML.no_way_out
