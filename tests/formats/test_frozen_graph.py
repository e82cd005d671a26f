"""Frozen graphs: recognised by bytes, their ends found, and written with the names that the model has."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.formats.models import convert, inputs_of, load, pack_folder
from worker import formats
from worker.errors import CorruptFile, IncompleteModel, UnsupportedOperation
from worker.formats import _graphs
from worker.formats._format import Hop, Sample

FROZEN = formats.get("frozen_graph")


def graph_of(build: Callable[[Any], None]) -> Any:
    """A GraphDef of TensorFlow 1."""
    import tensorflow as tf

    with tf.Graph().as_default() as graph:
        build(tf.compat.v1)
    return graph.as_graph_def()


def linear(v1: Any) -> None:
    import tensorflow as tf

    x = v1.placeholder("float32", (None, 3), "x")
    tf.identity(tf.matmul(x, tf.constant(np.arange(6, dtype="float32").reshape(3, 2), name="w")), "y")


def written(graph: Any, path: Path) -> Path:
    path.write_bytes(graph.SerializeToString())
    return path


def test_it_works(made_file: Callable[[str, str], Path], tmp_path: Path) -> None:
    source = made_file("several", "saved_model")
    result, _ = convert("saved_model", "frozen_graph", source, tmp_path / "a")
    before, after = load("saved_model", source, tmp_path / "b"), load("frozen_graph", result, tmp_path / "c")
    assert [spec.name for spec in after.inputs] == [spec.name for spec in before.inputs]
    assert {spec.name for spec in after.outputs} == {"label", "score"}
    arrays = inputs_of(before)
    wanted, found = before.run(arrays), after.run(arrays)
    for name in wanted:
        np.testing.assert_allclose(found[name], wanted[name], rtol=1e-5, atol=1e-6)
    summary = FROZEN.inspect(result, tmp_path)
    assert summary.traits == {"weights"}
    assert summary.parameters is not None
    assert summary.parameters > 50


def test_it_becomes_a_saved_model_again(made_file: Callable[[str, str], Path], tmp_path: Path) -> None:
    source = made_file("recurrent", "saved_model")
    result, _ = convert("saved_model", "frozen_graph", source, tmp_path / "a")
    hop = Hop(tmp_path)
    FROZEN.converts_to["saved_model"].run(result, tmp_path / "again.zip", hop)
    assert [finding.code for finding in hop.findings] == ["interface-found"]
    before, after = load("saved_model", source, tmp_path / "b"), load("saved_model", tmp_path / "again.zip", tmp_path)
    arrays = inputs_of(before)
    np.testing.assert_allclose(after.run(arrays)["out"], before.run(arrays)["out"], rtol=1e-5, atol=1e-6)


def test_binary_and_text_are_known_by_their_bytes(tmp_path: Path) -> None:
    from google.protobuf import text_format  # type: ignore[import-untyped]

    graph = graph_of(linear)
    text = text_format.MessageToString(graph).encode()
    for content in (graph.SerializeToString(), text, b"# written by hand\n" + text):
        assert FROZEN.sniff(Sample("anything", len(content), content[:65536]))
        (tmp_path / "graph").write_bytes(content)
        y = load("frozen_graph", tmp_path / "graph", tmp_path).run({"x": np.ones((2, 3), "float32")})["y"]
        np.testing.assert_allclose(y, [[6, 9], [6, 9]])


@pytest.mark.parametrize(
    "content", [b"\x08\x07\x12\x07pytorch", b"\x0a\x05hello", b"\x0a\xff\xff\xff\xff\x0f\x0a", b"node"]
)
def test_other_messages_are_not_taken(content: bytes) -> None:
    assert not FROZEN.sniff(Sample("model.pb", len(content), content))


def test_training_and_what_only_it_needs_is_no_part_of_the_model() -> None:
    """Neither the loss nor summaries nor the nodes that save are outputs, and labels are no input."""

    def build(v1: Any) -> None:
        import tensorflow as tf

        x, labels = v1.placeholder("float32", (None, 3), "x"), v1.placeholder("float32", (None, 2), "labels")
        keep = v1.placeholder_with_default(np.float32(1), (), "keep_prob")
        w = v1.get_variable("w", (3, 2), use_resource=False)
        logits = tf.identity(tf.matmul(x * keep, w), "logits")
        tf.nn.softmax(logits, name="probs")
        loss = tf.reduce_mean(tf.nn.softmax_cross_entropy_with_logits(labels, logits), name="loss")
        v1.summary.scalar("loss_curve", loss)
        v1.train.AdamOptimizer().minimize(loss)
        v1.train.Saver()
        v1.global_variables_initializer()

    found = _graphs.find_interface(graph_of(build))
    assert [port.tensor for port in found.inputs] == ["x:0"]
    assert [port.tensor for port in found.outputs] == ["logits:0", "probs:0"]


def test_a_loop_has_no_outputs_inside() -> None:
    def build(v1: Any) -> None:
        import tensorflow as tf

        v1.disable_control_flow_v2()
        x = v1.placeholder("float32", (None, 3), "x")
        _, total = tf.while_loop(lambda i, _: i < 3, lambda i, total: (i + 1, total + x), (0, x))
        tf.identity(total, "total")

    assert [port.tensor for port in _graphs.find_interface(graph_of(build)).outputs] == ["total:0"]


def test_names_with_scopes_become_names_that_every_format_holds(tmp_path: Path) -> None:
    def build(v1: Any) -> None:
        import tensorflow as tf

        with v1.name_scope("serving/net"):
            tf.identity(v1.placeholder("float32", (None, 3), "x") * 2.0, "y")

    loaded = load("frozen_graph", written(graph_of(build), tmp_path / "g.pb"), tmp_path)
    assert [spec.name for spec in (*loaded.inputs, *loaded.outputs)] == ["serving_net_x", "serving_net_y"]
    assert "serving/net/x:0" in loaded.findings[0].sentence


def test_a_graph_without_its_values_says_what_is_missing(tmp_path: Path) -> None:
    def build(v1: Any) -> None:
        import tensorflow as tf

        x = v1.placeholder("float32", (None, 3), "x")
        tf.matmul(x, v1.get_variable("kernel", (3, 2), use_resource=False), name="y")

    path = written(graph_of(build), tmp_path / "graph.pb")
    assert "weights" not in FROZEN.inspect(path, tmp_path).traits
    with pytest.raises(IncompleteModel, match=r"kernel.*checkpoint"):
        load("frozen_graph", path, tmp_path)


def test_a_damaged_graph_is_told(tmp_path: Path) -> None:
    content = graph_of(linear).SerializeToString()
    (tmp_path / "cut.pb").write_bytes(content[: len(content) // 2])
    with pytest.raises(CorruptFile):
        load("frozen_graph", tmp_path / "cut.pb", tmp_path)


def test_tables_are_refused_by_name(tmp_path: Path) -> None:
    import tensorflow as tf

    pairs = tf.lookup.KeyValueTensorInitializer(tf.constant(["a", "b"]), tf.constant([1, 2]))
    module = tf.Module()
    module.table = tf.lookup.StaticHashTable(pairs, 0)
    entry = tf.function(
        lambda x: {"y": module.table.lookup(x)}, input_signature=[tf.TensorSpec([None], tf.string, "x")]
    )
    tf.saved_model.save(module, str(tmp_path / "sm"), signatures=entry)
    path = pack_folder(tmp_path / "sm", tmp_path / "sm.zip")
    assert {"tables", "strings"} <= formats.get("saved_model").inspect(path, tmp_path / "i").traits
    with pytest.raises(UnsupportedOperation, match="lookup tables"):
        convert("saved_model", "frozen_graph", path, tmp_path / "a")


def test_exact_gelu_is_computed_exactly(tmp_path: Path) -> None:
    """TensorFlow takes a kernel of oneDNN for this pattern that is off by 6e-4: a guard against that."""

    def build(v1: Any) -> None:
        import tensorflow as tf

        kernel = tf.constant(np.linspace(-2, 2, 24, dtype="float32").reshape(4, 6))
        x = tf.nn.bias_add(tf.matmul(v1.placeholder("float32", (None, 4), "x"), kernel), tf.zeros(6))
        tf.multiply(0.5 * x, 1.0 + tf.math.erf(x / np.float32(np.sqrt(2))), name="y")

    arrays = {"x": np.random.default_rng(1).normal(size=(5, 4)).astype("float32")}
    y = load("frozen_graph", written(graph_of(build), tmp_path / "g.pb"), tmp_path).run(arrays)["y"]
    from math import erf

    x = arrays["x"].astype("float64") @ np.linspace(-2, 2, 24).reshape(4, 6)
    np.testing.assert_allclose(y, 0.5 * x * (1 + np.vectorize(erf)(x / np.sqrt(2))), atol=2e-6)


def constant_as_output(w: Any, x: Any) -> list[Any]:
    return [x @ w, w]


def constant_that_is_waited_for(w: Any, x: Any) -> list[Any]:
    import tensorflow as tf

    with tf.control_dependencies([w]):
        return [tf.identity(x * 2)]


def constant_in_a_loop(w: Any, x: Any) -> list[Any]:
    import tensorflow as tf

    v1 = tf.compat.v1
    value = tf.get_static_value(w)
    v1.disable_control_flow_v2()
    try:
        return [v1.while_loop(lambda i, a: i < 3, lambda i, a: (i + 1, a @ tf.constant(value) + 1), [0, x])[1]]
    finally:
        v1.enable_control_flow_v2()


@pytest.mark.parametrize("build", [constant_as_output, constant_that_is_waited_for, constant_in_a_loop])
def test_large_constants_stay_where_others_hold_on_to_them(build: Callable[[Any, Any], list[Any]]) -> None:
    """A constant of more than a MiB becomes a variable, but not where an edge of the graph would be lost with it."""
    import tensorflow as tf

    v1 = tf.compat.v1
    given = np.ones((2, 600), "float32")
    with tf.Graph().as_default() as graph, v1.Session() as session:
        x = v1.placeholder(tf.float32, [2, 600], name="x")
        results = build(tf.constant(np.full((600, 600), 0.01, "float32"), name="w"), x)
        names = [tensor.name for tensor in results]
        wanted = session.run(results, {x: given})
    function = _graphs.function_of(graph.as_graph_def(), ["x:0"], names)
    for found, value in zip(function.call([tf.constant(given)]), wanted, strict=True):
        np.testing.assert_allclose(found, value, rtol=1e-6)
