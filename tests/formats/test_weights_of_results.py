"""What becomes of each weight in every format of finished graphs: found, or named; and a changed one is never found."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.formats import models
from tests.formats.matrix import Matrix
from worker import fingerprints, formats
from worker.formats._format import Hop, Scales
from worker.report import Check
from worker.verify.prints import Print, Weights
from worker.verify.weights import compare

GRAPHS = ("tflite", "onnx", "openvino", "tfjs_graph", "frozen_graph", "saved_model", "coreml")
KINDS = ("dense", "conv", "recurrent", "attention")
# The only tensors of the canonical models that no one can find again: nothing says by how much a vector was multiplied
NAMED = {("several", "tflite"): {"score/kernel", "score/bias"}}
NOT_POSSIBLE = {("recurrent", "coreml")}
EVERY = [(kind, slug) for kind in (*KINDS, "several") for slug in GRAPHS if (kind, slug) not in NOT_POSSIBLE]


def tensors(slug: str, path: Path, scratch: Path) -> tuple[list[tuple[str, Any]], dict[str, float]]:
    """The weights that a file shows, and how those were rounded that are stored as whole numbers."""
    item = formats.get(slug)
    scratch.mkdir(exist_ok=True)
    if item.load is None:
        assert item.weights
        return list(item.weights(path, scratch)), {}
    loaded = item.load(path, scratch)
    return list(loaded.weights()), dict(loaded.steps())


def told(found: tuple[list[tuple[str, Any]], dict[str, float]]) -> Weights:
    return Weights.from_json(fingerprints.of_weights(*found, Scales()))


def source_of(matrix: Matrix, kind: str, tmp_path: Path) -> Weights:
    return told(tensors("keras", matrix.file(kind, "keras"), tmp_path / "source"))


def test_it_works(matrix: Matrix, tmp_path: Path) -> None:
    before = source_of(matrix, "conv", tmp_path)
    check = compare(before, told(tensors("tflite", matrix.file("conv", "tflite"), tmp_path / "result")))
    assert check.passed
    assert check.sentence == (
        "All 10 weight tensors are accounted for: 4 bit for bit, 1 transposed or reshaped, 5 folded into others."
    )


@pytest.mark.parametrize(("kind", "slug"), EVERY)
def test_every_tensor_is_found_or_named(kind: str, slug: str, matrix: Matrix, tmp_path: Path) -> None:
    after = tensors(slug, matrix.file(kind, slug), tmp_path / "result")
    before = source_of(matrix, kind, tmp_path)
    check = compare(before, told(after))
    print(kind, slug, check.data)
    assert {name.split("/", 1)[-1] if name.startswith(kind) else name for name in check.data["unmatched"]} == NAMED.get(
        (kind, slug), set()
    )
    assert check.passed is (None if (kind, slug) in NAMED else True)
    names = [name for name, _ in after[0]]
    assert len(names) == len(set(names))


def changes(array: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    """Faults in one tensor that change its values for certain."""
    random = np.random.default_rng(1)
    yield "zeroed", np.zeros_like(array)
    if array.any():
        yield "negated", -array
    noise = 0.01 * float(np.sqrt(np.mean(np.square(array)))) or 0.01
    yield "noise", (array + noise * random.normal(size=array.shape)).astype(array.dtype)
    if array.ndim > 1 and array.shape[0] > 1 and not np.array_equal(array, array[::-1]):
        yield "back to front", array[::-1].copy()


@pytest.mark.parametrize(("kind", "slug"), [pair for pair in EVERY if pair[0] in KINDS])
def test_a_changed_tensor_is_not_accounted_for(kind: str, slug: str, matrix: Matrix, tmp_path: Path) -> None:
    weights, steps = tensors(slug, matrix.file(kind, slug), tmp_path / "result")
    before, honest = source_of(matrix, kind, tmp_path), told((weights, steps))
    missed, places = [], _needed(before, honest)
    assert places
    for place in sorted(places):
        name, array = weights[place]
        for how, changed in changes(np.asarray(array, array.dtype)):
            if np.array_equal(changed, array):
                continue
            prints = list(honest.prints)
            prints[place] = Print.from_json(fingerprints.fingerprint(name, changed, steps.get(name, 0.0)))
            if compare(before, replace(honest, prints=tuple(prints))).passed:
                missed.append(f"{name} {how}")
    assert missed == [], missed


def _needed(before: Weights, after: Weights) -> set[int]:
    """The places of those tensors without which something of the source is missing: a converter may keep copies, and
    one of them has to be right."""
    prints = after.prints
    without = (replace(after, prints=prints[:place] + prints[place + 1 :]) for place in range(len(prints)))
    return {place for place, rest in enumerate(without) if not compare(before, rest).passed}


def compared(folder: Path, slug: str, **options: Any) -> Check:
    """A model with a BatchNormalization and weights large enough to be stored as whole numbers."""
    import keras
    from keras import layers

    folder.mkdir(exist_ok=True)
    image = keras.Input((12, 12, 3), name="image")
    x = layers.ReLU()(layers.BatchNormalization()(layers.Conv2D(32, 3)(image)))
    x = layers.ReLU()(layers.BatchNormalization(epsilon=1.001e-5)(layers.Conv2D(48, 3, use_bias=False)(x)))
    model = keras.Model(image, layers.Dense(40)(layers.GlobalAveragePooling2D()(x)))
    models.stir(model)
    random = np.random.default_rng(2)
    for variable in model.weights:  # of both signs, as trained ones are, but for variances
        if "variance" not in variable.path:
            variable.assign(np.asarray(variable) * random.choice([-1.0, 1.0], variable.shape))
    source = folder / "model.keras"
    model.save(source)
    middle, _ = models.convert("keras", "saved_model", source, folder)
    item = formats.get(slug)
    result = folder / f"small{item.suffixes[0]}"
    item.converts_from["saved_model"].run(middle, result, Hop(folder, options))
    return compare(told(tensors("keras", source, folder / "source")), told(tensors(slug, result, folder / "result")))


@pytest.mark.parametrize("precision", ["float16", "dynamic", "int8"])
def test_rounded_weights_are_told_from_changed_ones(precision: str, tmp_path: Path) -> None:
    check = compared(tmp_path / precision, "tflite", precision=precision)
    print(precision, check.passed, check.data)
    assert check.passed
    assert check.data.get("rounded", 0) + check.data.get("folded", 0) >= 3


def test_one_model_has_one_in_every_format(tmp_path: Path, made_file: Callable[[str, str], Path]) -> None:
    slugs = ("keras", "h5", "json_npz", "json_safetensors", "saved_model")
    opened = [models.load(slug, made_file("conv", slug), tmp_path / slug) for slug in slugs]
    assert len({fingerprints.of_model(loaded.weights()) for loaded in opened}) == 1
