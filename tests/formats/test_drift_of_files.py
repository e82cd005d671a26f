"""A fault in a file is found at its layer, from the inner tensors that source and result show."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.formats import models
from worker import inside
from worker.formats._format import Hop
from worker.report import Check
from worker.verify import load_draws
from worker.verify.draws import Array
from worker.verify.drift import Tensors, drift_check


def named(check: Check) -> list[str]:
    return [layer["name"] for layer in check.data["layers"]]


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small convolution network as .keras and as a SavedModel."""
    import keras
    from keras import layers

    keras.utils.set_random_seed(4)
    image = keras.Input((12, 12, 2), name="image")
    x = layers.Conv2D(6, 3, name="edges")(image)
    x = layers.ReLU(name="clip")(layers.BatchNormalization(name="norm")(x))
    x = layers.GlobalAveragePooling2D(name="mean")(layers.Conv2D(40, 3, name="strokes")(x))
    model = keras.Model(image, layers.Dense(4, name="digit")(layers.Dense(32, "relu", name="mix")(x)))
    models.stir(model)
    folder = tmp_path_factory.mktemp("drift")
    model.save(folder / "m.keras")
    models.convert("keras", "saved_model", folder / "m.keras", folder / "saved")
    return folder


def shown(slug: str, path: Path, folder: Path) -> Tensors:
    folder.mkdir()
    loaded = models.load(slug, path, folder)
    assert inside.save(loaded, models.inputs_of(loaded), 0, folder / "inner.npz") == ""
    return list(tensors(load_draws(folder / "inner.npz")))


def tensors(draws: list[dict[str, Array]]) -> Iterator[tuple[str, Array]]:
    yield from ((name, array) for draw in draws for name, array in draw.items())


@pytest.mark.parametrize("anonymous", [False, True])
@pytest.mark.parametrize(
    ("weight", "layers"),
    [("digit", {"digit"}), ("mix", {"mix"}), ("strokes", {"strokes"}), ("edges", {"edges", "norm"})],
)
def test_an_onnx_file_with_one_changed_weight(
    weight: str, layers: set[str], anonymous: bool, saved: Path, tmp_path: Path
) -> None:
    import onnx

    made, _ = models.convert("saved_model", "onnx", saved / "saved" / "result.zip", tmp_path / "made")
    model = onnx.load(made)
    spoil(model.graph, weight)
    if anonymous:
        forget_names(model.graph)
    onnx.save(model, made)
    source = shown("keras", saved / "m.keras", tmp_path / "a")
    check = drift_check(source, shown("onnx", made, tmp_path / "b"), 1e-5, differs=True)
    assert check.data["first"] in layers  # the convolution and its BatchNorm are one operation there
    assert len(check.data["layers"]) >= 5


def spoil(graph: Any, layer: str) -> None:
    """Turn the sign of the layer's kernel."""
    from onnx import numpy_helper

    nodes = [node for node in graph.node if node.op_type in ("Conv", "MatMul", "Gemm")]
    node = nodes[["edges", "strokes", "mix", "digit"].index(layer)]
    kernel = next(item for item in graph.initializer if item.name == node.input[1])
    kernel.CopyFrom(numpy_helper.from_array(-numpy_helper.to_array(kernel), kernel.name))


def forget_names(graph: Any) -> None:
    """Call every inner tensor and operation by a number."""
    edges = {item.name for item in (*graph.input, *graph.output)} | {item.name for item in graph.initializer}
    numbers: dict[str, str] = {}
    for node in graph.node:
        node.name = ""
        for side in (node.input, node.output):
            side[:] = [name if name in edges else numbers.setdefault(name, f"t{len(numbers)}") for name in side]
    del graph.value_info[:]


def test_the_series_of_an_int8_file_grows_from_nothing(saved: Path, tmp_path: Path) -> None:
    from worker.formats import _tflite_write

    source = shown("keras", saved / "m.keras", tmp_path / "a")
    for precision in ("float32", "int8"):
        _tflite_write.write(
            saved / "saved" / "result.zip", tmp_path / precision, Hop(fresh(tmp_path), {"precision": precision})
        )
    plain, rough = (
        drift_check(source, shown("tflite", tmp_path / precision, tmp_path / f"{precision}-inner"), 0.35, False)
        for precision in ("float32", "int8")
    )
    assert max(layer["gap"] for layer in plain.data["layers"]) < 1e-5
    assert named(rough) == named(plain)
    assert named(rough)[-1] == "digit"
    gaps = [layer["gap"] for layer in rough.data["layers"]]
    assert all(1e-4 < gap < 0.2 for gap in gaps)
    assert "Layer by layer" in rough.sentence


def fresh(folder: Path) -> Path:
    made = folder / f"hop-{len(list(folder.iterdir()))}"
    made.mkdir()
    return made
