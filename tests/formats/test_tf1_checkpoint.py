"""Checkpoints of TensorFlow 1: the graph and its values, of either version, at any depth, become a SavedModel."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.formats.models import load, pack_folder
from worker import formats, intake
from worker.errors import IncompleteModel, ModelError
from worker.formats._format import Hop

CHECKPOINT = formats.get("tf1_checkpoint")
X = np.arange(6, dtype="float32").reshape(2, 3)


def saved(folder: Path, version: int = 2, steps: tuple[int, ...] = (7,), var_list: Any = None) -> None:
    """A trained graph as tf.train.Saver leaves it; each step adds one to every weight."""
    import tensorflow as tf

    v1 = tf.compat.v1
    folder.mkdir(parents=True, exist_ok=True)
    with tf.Graph().as_default(), v1.Session() as session:
        x = v1.placeholder("float32", (None, 3), "x")
        w = v1.get_variable("w", initializer=np.ones((3, 2), "float32"), use_resource=False)
        loss = tf.reduce_sum(tf.matmul(x, w, name="y"), name="loss")
        v1.train.GradientDescentOptimizer(0.1).minimize(loss)
        saver = v1.train.Saver(var_list and {var_list: w}, write_version=version)
        session.run(v1.global_variables_initializer())
        for step in steps:
            session.run(v1.assign_add(w, np.ones((3, 2), "float32")))
            saver.save(session, str(folder / "model.ckpt"), step)
        v1.train.write_graph(session.graph, str(folder), "graph.pbtxt")


def packed(folder: Path, *left_out: str) -> Path:
    for pattern in left_out:
        for item in folder.glob(pattern):
            item.unlink()
    return pack_folder(folder, folder.with_suffix(".zip"))


def assert_computes(path: Path, scratch: Path, weight: float) -> None:
    assert intake.recognise(intake.take_sample(path, path.name))[0].slug == "tf1_checkpoint"
    loaded = load("tf1_checkpoint", path, scratch)
    assert [spec.name for spec in loaded.inputs] == ["x"]
    np.testing.assert_allclose(loaded.run({"x": X})["y"], X @ np.full((3, 2), weight))


@pytest.mark.parametrize("version", [1, 2])
def test_it_works(version: int, tmp_path: Path) -> None:
    saved(tmp_path / "a", version)
    path = packed(tmp_path / "a", "graph.pbtxt")
    assert_computes(path, tmp_path / "s", 2)
    summary = CHECKPOINT.inspect(path, tmp_path / "i")
    assert summary.parameters == 6
    assert summary.traits == {"weights"}
    hop = Hop(tmp_path / "hop")
    CHECKPOINT.converts_to["saved_model"].run(path, tmp_path / "sm.zip", hop)
    result = load("saved_model", tmp_path / "sm.zip", tmp_path / "r")
    np.testing.assert_allclose(result.run({"x": X})["y"], X @ np.full((3, 2), 2.0))


def test_the_latest_of_several_steps_is_taken(tmp_path: Path) -> None:
    saved(tmp_path / "a", steps=(9, 10))
    assert_computes(packed(tmp_path / "a", "graph.pbtxt"), tmp_path / "s", 3)
    assert_computes(packed(tmp_path / "a", "checkpoint"), tmp_path / "t", 3)


def test_weights_stored_under_another_name_are_found(tmp_path: Path) -> None:
    """As averages are: only the graph's own restoring operations know which name belongs to which variable."""
    saved(tmp_path / "a", var_list="w/ExponentialMovingAverage")
    assert_computes(packed(tmp_path / "a", "graph.pbtxt"), tmp_path / "s", 2)


def test_a_graph_in_text_beside_the_values_will_do(tmp_path: Path) -> None:
    saved(tmp_path / "a")
    inner = tmp_path / "both" / "checkpoint.zip"
    inner.parent.mkdir()
    (tmp_path / "a" / "graph.pbtxt").rename(inner.parent / "graph.pbtxt")
    for item in (tmp_path / "a").glob("*.meta"):
        item.unlink()
    pack_folder(tmp_path / "a", inner)
    assert_computes(packed(tmp_path / "both"), tmp_path / "s", 2)


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    saved(tmp_path / "a")
    path = packed(tmp_path / "a", "*.index", "*.data*")
    with pytest.raises(IncompleteModel, match="checkpoint with its values"):
        load("tf1_checkpoint", path, tmp_path / "s")


def test_a_session_bundle_is_refused_by_name(tmp_path: Path) -> None:
    saved(tmp_path / "a", version=1)
    for item in (tmp_path / "a").glob("model.ckpt-7*"):
        item.rename(tmp_path / "a" / item.name.replace("model.ckpt-7", "export"))
    with pytest.raises(ModelError, match="session bundle"):
        load("tf1_checkpoint", packed(tmp_path / "a", "graph.pbtxt", "checkpoint"), tmp_path / "s")
