"""OpenVINO IR: recognised, written from SavedModels and ONNX in full precision, and never phoning home."""

from __future__ import annotations

import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.formats.models import MODELS, inputs_of, load, stir, write
from worker import intake
from worker.errors import CorruptFile, UnsupportedOperation
from worker.formats import get, matches
from worker.formats._format import Hop

OPENVINO = get("openvino")
Made = Callable[[str, str], Path]


def convert(source: Path, folder: Path, slug: str = "saved_model", **options: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / "result.zip"
    OPENVINO.converts_from[slug].run(source, target, Hop(folder, options))
    return target


def difference(source: Path, result: Path, folder: Path, slug: str = "saved_model") -> float:
    before, after = load(slug, source, folder / "before"), load("openvino", result, folder / "after")
    assert [(item.name, item.shape, item.dtype) for item in before.inputs] == [
        (item.name, item.shape, item.dtype) for item in after.inputs
    ]
    assert [item.name for item in before.outputs] == [item.name for item in after.outputs]
    arrays = inputs_of(before)
    wanted, found = before.run(arrays), after.run(arrays)
    return max(float(np.abs(found[name] - value).max()) for name, value in wanted.items())


@pytest.mark.parametrize("kind", MODELS)
def test_it_works(kind: str, made_file: Made, tmp_path: Path) -> None:
    source = made_file(kind, "saved_model")
    result = convert(source, tmp_path)
    assert difference(source, result, tmp_path) < 1e-5
    summary = OPENVINO.inspect(result, tmp_path / "inspect")
    assert summary.parameters
    assert summary.inputs[0].shape is not None
    assert summary.inputs[0].shape[0] is None
    assert [item.slug for item in matches(intake.take_sample(result, "holiday.jpg"))] == ["openvino"]


@pytest.mark.parametrize("kind", ["dense", "conv"])
def test_from_onnx(kind: str, made_file: Made, tmp_path: Path) -> None:
    onnx = tmp_path / "model.onnx"
    get("onnx").converts_from["saved_model"].run(made_file(kind, "saved_model"), onnx, Hop(tmp_path))
    assert difference(onnx, convert(onnx, tmp_path, "onnx"), tmp_path, "onnx") < 1e-5


def test_weights_keep_their_precision_unless_it_is_asked_otherwise(made_file: Made, tmp_path: Path) -> None:
    source = made_file("conv", "saved_model")
    full, half = convert(source, tmp_path / "full"), convert(source, tmp_path / "half", precision="float16")
    assert OPENVINO.inspect(full, tmp_path / "a").dtypes == ("float32",)
    assert "float16" in OPENVINO.inspect(half, tmp_path / "b").dtypes
    assert 1e-5 < difference(source, half, tmp_path / "half") < 0.05
    assert OPENVINO.tolerance_for
    assert OPENVINO.tolerance_for({"precision": "float16"}).rtol > OPENVINO.tolerance.rtol


def test_inputs_of_one_shape_are_not_swapped(tmp_path: Path) -> None:
    import keras

    last, first = keras.Input((4,), name="zeta"), keras.Input((4,), name="alpha")
    outputs = {"b": keras.layers.Subtract()([last, first]), "a": last}
    source = write("saved_model", keras.Model([last, first], outputs), tmp_path)
    assert difference(source, convert(source, tmp_path), tmp_path) < 1e-6


def test_what_openvino_does_not_read_goes_through_onnx(tmp_path: Path) -> None:
    import keras

    kind = keras.Input((3,), dtype="int32", name="kind")
    model = keras.Model(kind, keras.layers.Dense(2)(keras.layers.CategoryEncoding(9, output_mode="count")(kind)))
    stir(model)
    source = write("saved_model", model, tmp_path)
    assert difference(source, convert(source, tmp_path), tmp_path) < 1e-5


def test_lookup_tables_are_refused_by_name(tmp_path: Path) -> None:
    import keras

    words = keras.Input((1,), dtype="string", name="words")
    model = keras.Model(words, keras.layers.StringLookup(vocabulary=["red"], output_mode="one_hot")(words))
    source = write("saved_model", model, tmp_path)
    with pytest.raises(UnsupportedOperation, match="LookupTableFind"):
        convert(source, tmp_path)


def test_nothing_is_reported_to_its_makers(made_file: Made, tmp_path: Path) -> None:
    load("openvino", convert(made_file("dense", "saved_model"), tmp_path), tmp_path / "load")
    assert "openvino" in sys.modules
    assert sys.modules["openvino_telemetry"] is None
    assert not [name for name in sys.modules if name.startswith("openvino_telemetry.")]


def test_a_damaged_file_is_told(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "model.zip", "w") as packed:
        packed.writestr("model.xml", "<?xml version='1.0'?><net><layers>")
        packed.writestr("model.bin", bytes(8))
    with pytest.raises(CorruptFile):
        OPENVINO.inspect(tmp_path / "model.zip", tmp_path / "scratch")
