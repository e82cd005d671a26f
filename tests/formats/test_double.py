"""Answers in float64: what of a difference is only rounding."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.formats import models
from worker.formats import _double, _frozen, _graphs
from worker.formats._format import Hop

MadeFile = Callable[[str, str], Path]


@pytest.mark.parametrize("slug", ["keras", "saved_model", "frozen_graph"])
def test_it_works(slug: str, made_file: MadeFile, tmp_path: Path) -> None:
    """The answers lie within some units of float32's last place of the plain ones, and are not the same."""
    source = made_file("conv", "saved_model" if slug == "frozen_graph" else slug)
    if slug == "frozen_graph":
        source = models.convert("saved_model", slug, source, tmp_path)[0]
    loaded = models.load(slug, source, tmp_path / "loaded")
    assert loaded.exact
    inputs = models.inputs_of(loaded)
    plain, exact = loaded.run(inputs), loaded.exact(inputs)
    assert plain.keys() == exact.keys()
    for name, array in exact.items():
        assert array.dtype == np.float64
        gap = np.abs(array - plain[name]).max() / np.abs(array).max()
        assert 0 < gap < 1e-6


def test_they_agree_with_arithmetic_in_float64(tmp_path: Path) -> None:
    """A sine that float32 gets wrong in its fifth digit."""
    import tensorflow as tf

    source = saved(lambda x: {"y": tf.sin(x * 1e4)}, tmp_path, tf.TensorSpec([None], name="x"))
    loaded = models.load("saved_model", source, tmp_path / "loaded")
    assert loaded.exact
    x = np.array([0.123456789], "float32")
    wanted = np.sin(x.astype("float64") * 1e4)
    assert abs(loaded.run({"x": x})["y"] - wanted)[0] > 1e-6
    assert abs(loaded.exact({"x": x})["y"] - wanted)[0] < 1e-11


def test_a_normalisation_is_spelled_out(tmp_path: Path) -> None:
    """TensorFlow has no fused normalisation in float64."""
    import tensorflow as tf

    rng = np.random.default_rng(3)
    scale, offset, mean, variance = (rng.random(5).astype("float32") + 0.1 for _ in range(4))

    def normalised(x: Any) -> dict[str, Any]:
        return {"y": tf.compat.v1.nn.fused_batch_norm(x, scale, offset, mean, variance, 0.01, is_training=False)[0]}

    source = saved(normalised, tmp_path, tf.TensorSpec([None, 2, 2, 5], name="x"))
    graph = _frozen.plain(source, Hop(tmp_path))
    assert _graphs.operations(graph.definition) & _double.NORMALISATIONS
    x = rng.standard_normal((3, 2, 2, 5)).astype("float32")
    wide = [array.astype("float64") for array in (scale, offset, mean, variance)]
    expected = (x.astype("float64") - wide[2]) / np.sqrt(wide[3] + np.float64(np.float32(0.01))) * wide[0] + wide[1]
    np.testing.assert_allclose(_double.run(graph, {"x": x})["y"], expected, rtol=1e-12)


def saved(function: Any, folder: Path, *specs: Any) -> Path:
    import tensorflow as tf

    from worker import archive

    module = tf.Module()
    module.serve = tf.function(function, input_signature=specs, autograph=False)
    tf.saved_model.save(module, str(folder / "exported"), signatures={"serving_default": module.serve})
    archive.pack(folder / "exported", folder / "exported.zip")
    return folder / "exported.zip"
