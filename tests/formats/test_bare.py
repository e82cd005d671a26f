"""Results in other runtimes than the one that Larder runs their format with, each by its own loader alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.formats import models
from worker import loadback
from worker.errors import LarderError, ModelError
from worker.verify import pair

File = Callable[[str, str], Path]


def ran(runtime: str, slug: str, kind: str, path: Path, made_file: File, folder: Path) -> float:
    """How far the answers of the runtime lie from those of Keras."""
    (folder / "source").mkdir()
    (folder / "result").mkdir()
    source = models.load("keras", made_file(kind, "keras"), folder / "source")
    result = loadback.run_in(runtime, slug, path, folder / "result")
    inputs, outputs = pair(source.inputs, result.inputs), pair(source.outputs, result.outputs)
    assert inputs is not None
    assert outputs is not None
    arrays = models.inputs_of(source)
    wanted, found = source.run(arrays), result.run({inputs[name]: array for name, array in arrays.items()})
    return max(float(np.abs(wanted[name] - found[outputs[name]]).max()) for name in wanted)


@pytest.mark.parametrize("slug", ["keras", "h5"])
def test_it_works(slug: str, made_file: File, tmp_path: Path) -> None:
    assert ran("keras", slug, "several", made_file("several", slug), made_file, tmp_path) == 0.0


@pytest.mark.parametrize(
    ("runtime", "slug", "kind"),
    [
        ("onnx_reference", "onnx", "several"),
        ("openvino", "onnx", "several"),
        ("openvino", "tflite", "several"),
        ("openvino", "tflite", "recurrent"),
        ("tf_lite", "tflite", "several"),
    ],
)
def test_finished_graphs_run_elsewhere(runtime: str, slug: str, kind: str, made_file: File, tmp_path: Path) -> None:
    """Inputs of one shape are not confused, and a graph for one row takes three."""
    path, _ = models.convert("saved_model", slug, made_file(kind, "saved_model"), tmp_path / "made")
    assert ran(runtime, slug, kind, path, made_file, tmp_path) < 1e-6


def test_openvino_reads_a_saved_model(made_file: File, tmp_path: Path) -> None:
    assert ran("openvino", "saved_model", "several", made_file("several", "saved_model"), made_file, tmp_path) < 1e-6


def test_keras_2_does_not_know_what_keras_3_wrote(made_file: File, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="it has no Functional"):
        loadback.run_in("tf_keras", "keras", made_file("conv", "keras"), tmp_path)
    with pytest.raises(ModelError):
        loadback.run_in("tf_keras", "h5", made_file("conv", "h5"), tmp_path)


def test_keras_2_opens_its_own(tmp_path: Path) -> None:
    import tf_keras

    tf_keras.Sequential([tf_keras.Input((3,)), tf_keras.layers.Dense(2)]).save(tmp_path / "old.h5")
    loaded = loadback.run_in("tf_keras", "h5", tmp_path / "old.h5", tmp_path)
    assert loaded.run({loaded.inputs[0].name: np.ones((1, 3), "float32")})


def test_keras_alone_repairs_nothing(tmp_path: Path) -> None:
    """Larder opens this file all the same; the cell of Keras says that people cannot."""
    import tf_keras

    tf_keras.Sequential([tf_keras.Input((4, 4, 1)), tf_keras.layers.DepthwiseConv2D(2)]).save(tmp_path / "old.h5")
    assert models.load("h5", tmp_path / "old.h5", tmp_path).inputs
    with pytest.raises(LarderError):
        loadback.run_in("keras", "h5", tmp_path / "old.h5", tmp_path)
