"""Results in TensorFlow.js itself, in a job that goes on as Node: the first cell of the load-back of both formats."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.formats import models
from worker import archive, formats, node, pipeline
from worker.formats import _tfjs_graph
from worker.formats._draws import make_inputs
from worker.formats._format import Summary, Tolerance
from worker.looks import File, Look
from worker.report import Report
from worker.sandbox.client import Zygote
from worker.sandbox.limits import MIB, Limits
from worker.snippets import pinned
from worker.verify import Seen, Terms, save_draws
from worker.work import Work

MadeFile = Callable[[str, str], Path]
Json = dict[str, Any]
Change = Callable[[Json, Path], None]
TERMS = Terms(Tolerance(1e-5, 1e-6), exact_weights=False)
PLACES = {"tfjs_graph": "saved_model", "tfjs_layers": "keras"}  # what each format is written from


@dataclass(frozen=True)
class Bench:
    """What a look at a TensorFlow.js file needs: its source, the jobs, and a folder."""

    zygote: Zygote
    made_file: MadeFile
    folder: Path

    def result(self, kind: str, slug: str) -> Path:
        return models.convert(PLACES[slug], slug, self.made_file(kind, PLACES[slug]), self.folder / "made")[0]

    def cells(self, kind: str, slug: str, result: Path, limits: Limits | None = None) -> list[Json]:
        """The cells of the load-back, TensorFlow.js' first; the result's own values stand for those of the source."""
        source = self._loaded(PLACES[slug], self.made_file(kind, PLACES[slug]))
        draws = make_inputs(source.inputs, seed=1)
        save_draws(self.folder / "inputs.npz", draws)
        before = Seen(source.inputs, source.outputs, (), [source.run(draw) for draw in draws])
        work = Work(self.zygote, self.folder, limits or Limits(), seed=1)
        files = File(self.made_file(kind, PLACES[slug]), PLACES[slug]), File(result, slug)
        specs = [asdict(spec) for spec in source.inputs]
        look = Look(work, *files, before, before, TERMS, specs, self.folder / "inputs.npz")
        back = look.load_back()
        assert back is not None
        return list(back[0].data["cells"])

    def _loaded(self, slug: str, path: Path) -> Any:
        (self.folder / "loaded").mkdir()
        return models.load(slug, path, self.folder / "loaded")

    def report(self, kind: str, slug: str, result: Path) -> Report:
        """Of a file that is given."""
        source = pipeline.Source(
            self.made_file(kind, "saved_model"), "saved_model", Summary(traits=frozenset({"weights"}))
        )
        (self.folder / "work").mkdir()
        return pipeline.compare(self.zygote, source, result, slug, {}, self.folder / "work", Limits()).report


@pytest.fixture
def bench(zygote: Zygote, made_file: MadeFile, tmp_path: Path) -> Bench:
    return Bench(zygote, made_file, tmp_path)


def changed(path: Path, folder: Path, change: Change) -> Path:
    """The packed model with its model.json or its shards changed."""
    unpacked = folder / "changed"
    unpacked.mkdir()
    archive.unpack(path, unpacked)
    root = json.loads((unpacked / "model.json").read_text(encoding="utf-8"))
    change(root, unpacked)
    (unpacked / "model.json").write_text(json.dumps(root), encoding="utf-8")
    return models.pack_folder(unpacked, folder / "changed.zip")


@pytest.mark.parametrize(
    ("kind", "slug"),
    [*((kind, slug) for kind in ("dense", "conv", "several") for slug in PLACES), ("recurrent", "tfjs_graph")],
)
def test_it_works(kind: str, slug: str, bench: Bench) -> None:
    ours, _ = bench.cells(kind, slug, bench.result(kind, slug))
    assert (ours["runtime"], ours["verdict"], ours["said"]) == ("tfjs", "same", "")
    assert 0 <= ours["gap"] < 1e-5
    assert ours["version"] == "4.22.0"
    assert "@tensorflow/tfjs-core@4.22.0" in ours["install"]


def test_a_changed_weight_shows(bench: Bench) -> None:
    def negate(root: Json, folder: Path) -> None:
        shard = folder / root["weightsManifest"][0]["paths"][0]
        shard.write_bytes((-np.frombuffer(shard.read_bytes(), "<f4")).tobytes())

    path = changed(bench.result("conv", "tfjs_layers"), bench.folder, negate)
    assert bench.cells("conv", "tfjs_layers", path)[0]["verdict"] == "differs"


def test_a_loop_as_other_converters_write_it_is_refused_in_the_words_of_tensorflow_js(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """TensorFlow runs it, and TensorFlow.js loses what the loop collects."""
    monkeypatch.setattr(_tfjs_graph, "_keep_list_items", lambda function: None)
    ours, theirs = bench.cells("recurrent", "tfjs_graph", bench.result("recurrent", "tfjs_graph"))
    assert ours["verdict"] == "refused"
    assert ours["said"].startswith("TensorListStack (")
    assert "Cannot read properties of undefined" in ours["said"]
    assert theirs["verdict"] == "same"


def strange(root: Json, _: Path) -> None:
    """An operation that changes nothing, and that TensorFlow.js does not have."""
    (step,) = [each for each in root["modelTopology"]["node"] if each["op"] == "Softmax"]
    before = step["input"][0]
    root["modelTopology"]["node"].append(
        {"name": "strange", "op": "PreventGradient", "input": [before], "attr": {"T": {"type": "DT_FLOAT"}}}
    )
    step["input"][0] = "strange"


def test_what_does_not_run_there_is_not_verified_and_no_snippet_says_so(bench: Bench) -> None:
    path = changed(bench.result("dense", "tfjs_graph"), bench.folder, strange)
    report = bench.report("dense", "tfjs_graph", path)
    check = next(check for check in report.checks if check.name == "load-back")
    assert (check.passed, [cell["verdict"] for cell in check.data["cells"]]) == (None, ["refused", "same"])
    assert report.verdict == "not-provable"
    assert "does not run in TensorFlow.js 4.22.0" in report.reason
    (finding,) = [each for each in report.findings if each.code == "does-not-run"]
    assert "PreventGradient" in finding.sentence
    assert pinned(formats.get("tfjs_graph"), report.checks) == ""


# What a hostile file may try


def absurd_shape(root: Json, _: Path) -> None:
    root["weightsManifest"][0]["weights"][0]["shape"] = [2**31, 2**20]


def no_layers(root: Json, _: Path) -> None:
    root["modelTopology"]["model_config"]["config"]["layers"] = [{"class_name": "constructor", "config": {}}] * 3


@pytest.mark.parametrize(
    ("change", "verdict", "said"),
    [(absurd_shape, "refused", "values but has"), (no_layers, "absent", "do not correspond")],
)
def test_nonsense_is_no_answer(change: Change, verdict: str, said: str, bench: Bench) -> None:
    path = changed(bench.result("dense", "tfjs_layers"), bench.folder, change)
    found = bench.cells("dense", "tfjs_layers", path)[0]
    assert (found["verdict"], said in found["said"]) == (verdict, True)


def graph_of(bench: Bench, function: Callable[[Any], Any]) -> Path:
    """A graph that takes and gives what the dense model does."""
    import tensorflow as tf

    module = tf.Module()
    spec = tf.TensorSpec([None, 6], name="features")
    module.serve = tf.function(lambda features: {"probs": function(features)}, [spec], autograph=False)
    tf.saved_model.save(module, str(bench.folder / "exported"), signatures={"serving_default": module.serve})
    archive.pack(bench.folder / "exported", bench.folder / "exported.zip")
    return models.convert("saved_model", "tfjs_graph", bench.folder / "exported.zip", bench.folder / "made")[0]


def test_a_loop_without_an_end_is_stopped(bench: Bench) -> None:
    import tensorflow as tf

    def endless(x: Any) -> Any:
        return tf.while_loop(lambda y: tf.reduce_sum(y * 0.0) < 1.0, lambda y: (y * 0.5,), [x])[0]

    limits = dataclasses.replace(Limits(), wall_seconds=3)
    ours, _ = bench.cells("dense", "tfjs_graph", graph_of(bench, endless), limits)
    assert ours["verdict"] == "absent"
    assert "stopped after 3 seconds" in ours["said"]


def test_a_tensor_without_an_end_is_stopped(bench: Bench) -> None:
    import tensorflow as tf

    def vast(x: Any) -> Any:
        return tf.zeros(tf.repeat(tf.shape(x)[1:] * 200, 3)) + tf.reduce_sum(x)

    limits = dataclasses.replace(Limits(), memory_bytes=1024 * MIB)
    ours, _ = bench.cells("dense", "tfjs_graph", graph_of(bench, vast), limits)
    assert (ours["verdict"], "memory" in ours["said"]) == ("absent", True)


# Where it is not here


def test_without_node_the_cell_says_what_to_install(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LARDER_NODE", "/nowhere/node")
    report = bench.report("dense", "tfjs_graph", bench.result("dense", "tfjs_graph"))
    check = next(check for check in report.checks if check.name == "load-back")
    assert check.passed is True
    assert [cell["verdict"] for cell in check.data["cells"]] == ["absent", "same"]
    assert node.HOW in check.sentence
    assert "tfjs-not-run" in [finding.code for finding in report.findings]
    assert pinned(formats.get("tfjs_graph"), report.checks).startswith("// TensorFlow.js: not present here")
