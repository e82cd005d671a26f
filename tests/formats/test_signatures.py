"""SavedModels with several signatures: each is listed, can be asked for, and is proven by itself."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.formats.corpus import CORPUS
from tests.formats.models import load, pack_folder
from worker import formats, pipeline
from worker.errors import BadOption, LarderError, NoRoute
from worker.formats._format import Loaded, Summary
from worker.pipeline import Source
from worker.report import Check, Report, Verdict
from worker.sandbox.client import Zygote
from worker.sandbox.limits import Limits

SAVED_MODEL = formats.get("saved_model")
GRAPHS = ("tflite", "onnx", "openvino", "frozen_graph", "tfjs_graph")


# Models -----------------------------------------------------------------------------------------------------------


def weights() -> dict[str, np.ndarray]:
    random = np.random.default_rng(11)
    shapes = {"w": (4, 3), "v": (3, 5), "u": (2,)}
    return {name: random.normal(size=shape).astype("f4") for name, shape in shapes.items()}


def three_ways(folder: Path, **changed: np.ndarray) -> Path:
    """A module that encodes, decodes (two inputs, two outputs), and measures a text without a batch; each with a weight
    of its own, of which those that are ``changed`` differ."""
    import tensorflow as tf

    module = tf.Module()
    for name, value in (weights() | changed).items():
        setattr(module, name, tf.Variable(value, name=name))

    def encode(x: Any) -> Any:
        return {"code": tf.tanh(x @ module.w)}

    def decode(z: Any, shift: Any) -> Any:
        raw = z @ module.v
        return {"raw": raw + shift, "likely": tf.nn.softmax(raw)}

    def measure(text: Any) -> Any:
        return {"length": tf.cast(tf.strings.length(text), tf.float32) * module.u}

    x, z, shift = (tf.TensorSpec((None, size), tf.float32, name) for name, size in (("x", 4), ("z", 3), ("shift", 5)))
    encoding = tf.function(encode).get_concrete_function(x)
    signatures = {
        "serving_default": encoding,
        "also": encoding,
        "decode": tf.function(decode).get_concrete_function(z, shift),
        "measure": tf.function(measure).get_concrete_function(tf.TensorSpec((), tf.string, "text")),
    }
    tf.saved_model.save(module, str(folder), signatures)
    return pack_folder(folder, folder.with_suffix(".zip"))


def two_endpoints(folder: Path) -> Path:
    import keras

    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, "tanh"), keras.layers.Dense(2)])
    archive = keras.export.ExportArchive()
    archive.track(model)
    taken = [keras.InputSpec(shape=(None, 4), dtype="float32", name="x")]
    archive.add_endpoint("whole", lambda x: model(x), taken)
    archive.add_endpoint("hidden", lambda x: model.layers[0](x), taken)
    archive.write_out(str(folder), verbose=False)
    return pack_folder(folder, folder.with_suffix(".zip"))


def of_tensorflow_1(folder: Path, *, resources: bool) -> Path:
    import tensorflow as tf

    v1 = tf.compat.v1
    info, define = v1.saved_model.build_tensor_info, v1.saved_model.build_signature_def
    with tf.Graph().as_default(), v1.Session() as session:
        x = v1.placeholder(tf.float32, (None, 4), name="x")
        first, second = (
            v1.get_variable(name, shape, initializer=v1.random_normal_initializer(seed=5), use_resource=resources)
            for name, shape in (("first", (4, 3)), ("second", (3, 2)))
        )
        hidden = tf.matmul(x, first)
        session.run(v1.global_variables_initializer())
        outputs = {"serving_default": tf.matmul(hidden, second), "features": hidden}
        signatures = {name: define({"x": info(x)}, {"y": info(tensor)}) for name, tensor in outputs.items()}
        builder = v1.saved_model.Builder(str(folder))
        builder.add_meta_graph_and_variables(session, ["serve"], {**signatures, "same": signatures["serving_default"]})
        builder.save()
    return pack_folder(folder, folder.with_suffix(".zip"))


def unsteady(folder: Path) -> Path:
    """One signature that works, one that draws, one that always fails, and one that takes nothing."""
    import tensorflow as tf

    module = tf.Module()
    module.w = tf.Variable(weights()["w"])

    def fail(x: Any) -> Any:
        with tf.control_dependencies([tf.debugging.Assert(tf.reduce_sum(x) > 1e30, ["never enough"])]):
            return {"y": tf.identity(x)}

    ways = {
        "serving_default": lambda x: {"y": x @ module.w},
        "draw": lambda x: {"y": x + tf.random.normal(tf.shape(x))},
        "fail": fail,
    }
    taken = tf.TensorSpec((None, 4), tf.float32, name="x")
    made = {name: tf.function(way, autograph=False).get_concrete_function(taken) for name, way in ways.items()}
    made["tell"] = tf.function(lambda: {"y": tf.nn.softmax(module.w)}).get_concrete_function()
    tf.saved_model.save(module, str(folder), made)
    return pack_folder(folder, folder.with_suffix(".zip"))


@dataclass
class Models:
    """Each model is written once."""

    root: Path

    def __post_init__(self) -> None:
        self.made: dict[str, Path] = {}

    def get(self, name: str) -> Path:
        makers: dict[str, Callable[[Path], Path]] = {
            "module": three_ways,
            "other decoder": lambda folder: three_ways(folder, v=weights()["v"] * np.float32(1.01)),
            "archive": two_endpoints,
            "tf1": lambda folder: of_tensorflow_1(folder, resources=True),
            "tf1 of old": lambda folder: of_tensorflow_1(folder, resources=False),
            "unsteady": unsteady,
        }
        if name not in self.made:
            self.made[name] = makers[name](self.root / name.replace(" ", "-"))
        return self.made[name]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Models:
    return Models(tmp_path_factory.mktemp("signatures"))


def summary_of(path: Path, scratch: Path) -> Summary:
    return SAVED_MODEL.inspect(path, scratch / "inspected")


def opened(path: Path, name: str, scratch: Path) -> Loaded:
    assert SAVED_MODEL.load_signature
    return SAVED_MODEL.load_signature(path, scratch / "opened", name)


@dataclass
class Desk:
    """Conversions and comparisons in real jobs."""

    zygote: Zygote
    folder: Path
    count: int = 0

    def source(self, path: Path) -> Source:
        return Source(path, "saved_model", summary_of(path, self.next()))

    def convert(self, path: Path, target: str, **options: str) -> pipeline.Result:
        return pipeline.convert(self.zygote, self.source(path), target, options, self.next(), Limits())

    def compare(self, path: Path, result: Path, target: str, **options: str) -> Report:
        source = self.source(path)
        return pipeline.compare(self.zygote, source, result, target, options, self.next(), Limits()).report

    def next(self) -> Path:
        self.count += 1
        made = self.folder / f"work-{self.count}"
        made.mkdir(mode=0o700)
        return made


@pytest.fixture
def desk(zygote: Zygote, tmp_path: Path) -> Desk:
    return Desk(zygote, tmp_path)


def failed(report: Report) -> set[str]:
    return {check.name for check in report.checks if check.passed is False}


def of_signatures(report: Report) -> list[Check]:
    return [check for check in report.checks if check.name == "signatures"]


# Listing and opening ----------------------------------------------------------------------------------------------


def test_it_works(models: Models, tmp_path: Path) -> None:
    summary = summary_of(models.get("module"), tmp_path)
    assert [(item.name, item.same_as) for item in summary.signatures] == [
        ("serving_default", ""),
        ("also", "serving_default"),
        ("decode", ""),
        ("measure", ""),
    ]
    decode, measure = summary.signatures[2:]
    assert {spec.name: spec.shape for spec in (*decode.inputs, *decode.outputs)} == {
        "z": (None, 3),
        "shift": (None, 5),
        "raw": (None, 5),
        "likely": (None, 5),
    }
    assert [(spec.name, spec.shape, spec.dtype) for spec in measure.inputs] == [("text", (), "string")]
    assert "strings" not in summary.traits
    assert measure.traits == {"strings"}
    assert Summary.from_json(summary.to_json()) == summary


def test_only_a_second_name_is_another_name(models: Models, tmp_path: Path) -> None:
    """Two signatures of one interface are two, and Keras' export gives its first endpoint a second name."""
    names = {
        "archive": {"serving_default": "", "whole": "serving_default", "hidden": ""},
        "tf1": {"serving_default": "", "same": "serving_default", "features": ""},
        "unsteady": {"serving_default": "", "draw": "", "fail": "", "tell": ""},
    }
    for name, known in names.items():
        found = summary_of(models.get(name), tmp_path / name).signatures
        assert {item.name: item.same_as for item in found} == known


def test_each_one_runs_with_its_own_weights(models: Models, tmp_path: Path) -> None:
    path, known = models.get("module"), weights()
    z, shift = np.ones((2, 3), "f4"), np.zeros((2, 5), "f4")
    decode, measure = (opened(path, name, tmp_path) for name in ("decode", "measure"))
    np.testing.assert_allclose(decode.run({"z": z, "shift": shift})["raw"], z @ known["v"], rtol=1e-5)
    np.testing.assert_allclose(measure.run({"text": np.array(b"word")})["length"], 4 * known["u"], rtol=1e-6)
    for loaded, name in ((decode, "v"), (measure, "u"), (load("saved_model", path, tmp_path), "w")):
        [(_, array)] = list(loaded.weights())
        assert array.tobytes() == known[name].tobytes()
        assert len(loaded.variables()) == 1


@pytest.mark.parametrize("model", ["tf1", "tf1 of old"])
def test_one_of_tensorflow_1_has_the_weights_that_it_uses(model: str, models: Models, tmp_path: Path) -> None:
    path = models.get(model)
    whole, features = load("saved_model", path, tmp_path), opened(path, "features", tmp_path)
    assert sorted(array.shape for _, array in whole.weights()) == [(3, 2), (4, 3)]
    assert [array.shape for _, array in features.weights()] == [(4, 3)]
    assert len(features.variables()) == 1
    assert features.run({"x": np.ones((5, 4), "f4")})["y"].shape == (5, 3)


@pytest.mark.parametrize("root", sorted(CORPUS.glob("tf2.*/tf_module")), ids=lambda root: root.parent.name)
def test_each_one_answers_as_its_writer_did(root: Path, tmp_path: Path) -> None:
    """Modules that every release of TensorFlow 2 wrote, with two signatures and what both computed there."""
    recorded = np.load(root / "expected.npz")
    names = summary_of(root / "savedmodel.zip", tmp_path).distinct_signatures
    assert len(names) == 2
    for name in names:
        loaded = opened(root / "savedmodel.zip", name, tmp_path)
        found = loaded.run({spec.name: recorded[f"{name}.input.{spec.name}"] for spec in loaded.inputs})
        for spec in loaded.outputs:
            np.testing.assert_allclose(found[spec.name], recorded[f"{name}.output.{spec.name}"], rtol=1e-5)


def test_an_unknown_one_is_not_opened(models: Models, tmp_path: Path) -> None:
    with pytest.raises(LarderError, match="no signature 'encode'; it has also, decode"):
        opened(models.get("module"), "encode", tmp_path)


# Converting -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("target", GRAPHS)
def test_another_one_is_converted_and_proven(target: str, models: Models, desk: Desk) -> None:
    report = desk.convert(models.get("module"), target, signature="decode").report
    assert (report.verdict, failed(report)) == (Verdict.VERIFIED, set())
    [dropped] = [finding for finding in report.findings if finding.code == "signatures-dropped"]
    assert dropped.data == {"kept": "decode", "names": "serving_default, measure"}
    assert "option signature" in dropped.sentence
    checks = {check.name: check for check in report.checks}
    assert checks["sensitivity"].data["tried"] == 1  # the one weight that this signature has
    assert checks["load-back"].passed
    assert "serving_default and measure run and are steady" in checks["signatures"].sentence


def test_one_that_takes_nothing(models: Models, desk: Desk) -> None:
    report = desk.convert(models.get("unsteady"), "onnx", signature="tell").report
    assert (report.verdict, failed(report)) == (Verdict.VERIFIED, set())


def test_text_without_a_batch(models: Models, desk: Desk) -> None:
    result = desk.convert(models.get("module"), "frozen_graph", signature="measure")
    assert result.report.verdict is Verdict.VERIFIED
    with pytest.raises(NoRoute, match="does not work on text"):
        desk.convert(models.get("module"), "tflite", signature="measure")


@pytest.mark.parametrize(
    ("model", "name", "target"),
    [("archive", "hidden", "tflite"), ("tf1", "features", "openvino"), ("tf1 of old", "features", "onnx")],
)
def test_of_other_writers(model: str, name: str, target: str, models: Models, desk: Desk) -> None:
    report = desk.convert(models.get(model), target, signature=name).report
    assert (report.verdict, failed(report)) == (Verdict.VERIFIED, set())


def test_the_usual_one_under_any_name_is_no_choice(models: Models, tmp_path: Path) -> None:
    summary = summary_of(models.get("module"), tmp_path)
    for name in ("serving_default", "also"):
        assert pipeline.check_options("onnx", {"signature": name}, "saved_model", summary) == {
            "opset": 18,
            "external_data": False,
        }


@pytest.mark.parametrize(
    ("target", "name", "words"),
    [
        ("onnx", "encode", "'encode' is not one of serving_default, decode, measure"),
        ("keras", "decode", "it has no options"),
        ("saved_model", "decode", "it has no options"),
    ],
)
def test_what_cannot_be_asked_for_is_refused_before_any_job(
    target: str, name: str, words: str, models: Models, tmp_path: Path
) -> None:
    summary = summary_of(models.get("module"), tmp_path)
    with pytest.raises(BadOption, match=words):
        pipeline.check_options(target, {"signature": name}, "saved_model", summary)


# Proving ----------------------------------------------------------------------------------------------------------


def test_a_fault_in_its_own_weights_is_seen(models: Models, desk: Desk) -> None:
    """1 % in the decoder alone: its own proof fails, and that of the encoder does not."""
    target = "tflite"
    source, wrong = models.get("module"), models.get("other decoder")
    decoder = desk.convert(wrong, target, signature="decode").path
    report = desk.compare(source, decoder, target, signature="decode")
    assert report.verdict is Verdict.DIFFERS
    assert failed(report) >= {"values", "load-back"}
    assert {check.name: check.passed for check in report.checks}["weights"] is not True
    encoder = desk.convert(wrong, target).path
    assert desk.compare(source, encoder, target).verdict is Verdict.VERIFIED


def test_a_result_of_another_signature_differs(models: Models, desk: Desk) -> None:
    result = desk.convert(models.get("module"), "onnx").path
    report = desk.compare(models.get("module"), result, "onnx", signature="decode")
    assert report.verdict is Verdict.DIFFERS
    assert "names" in failed(report) or "shapes" in failed(report)


def test_saved_models_are_compared_in_all_of_them(models: Models, desk: Desk) -> None:
    report = desk.compare(models.get("module"), models.get("other decoder"), "saved_model")
    assert report.verdict is Verdict.DIFFERS
    assert {check.data["signature"]: check.passed for check in of_signatures(report)} == {
        "decode": False,
        "measure": True,
    }
    assert "The signature decode differs" in report.reason


def test_what_does_not_run_or_is_unsteady_is_said_and_fails_nothing(models: Models, desk: Desk) -> None:
    report = desk.convert(models.get("unsteady"), "onnx").report
    assert report.verdict is Verdict.VERIFIED
    [check] = of_signatures(report)
    assert check.passed is None
    assert "tell runs and is steady; draw runs, and answers one input differently each time" in check.sentence
    assert "fail does not run (" in check.sentence


def test_one_that_draws_is_not_provable(models: Models, desk: Desk) -> None:
    report = desk.convert(models.get("unsteady"), "frozen_graph", signature="draw").report
    assert report.verdict is Verdict.NOT_PROVABLE
