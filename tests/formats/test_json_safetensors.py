"""Architecture JSON and safetensors: each array goes to the variable that its name, number or shape proves."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load, save

from tests.formats import models
from tests.formats.models import assert_same, convert, made, pack, stir
from worker import formats, intake
from worker.errors import AmbiguousFormat, IncompleteModel, WeightsMismatch
from worker.formats import _sources


def test_it_works(made_file: Callable[[str, str], Path], tmp_path: Path) -> None:
    path = made_file("several", "json_safetensors")
    assert_same(
        models.load("keras", made_file("several", "keras"), tmp_path / "a"),
        models.load("json_safetensors", path, tmp_path / "b"),
    )
    with zipfile.ZipFile(path) as archive:
        assert archive.namelist() == ["architecture.json", "weights.safetensors"]
        assert "label/kernel" in load(archive.read("weights.safetensors"))


def pair(model: Any, folder: Path, arrays: dict[str, np.ndarray]) -> Path:
    """The model's JSON with arrays under names of somebody's own, as people pack them."""
    return pack(folder / "pair.zip", deep___model__json=model.to_json().encode(), deep___w__safetensors=save(arrays))


def same_shapes() -> Any:
    """Weights that only their names tell apart."""
    import keras

    layers = [keras.layers.Dense(3, name=name) for name in ("first", "second", "third")]
    model = keras.Sequential([keras.Input((3,), name="x"), *layers], name="model")
    stir(model)
    return model


def names_by_path(model: Any) -> list[str]:
    return [variable.path for variable in model.weights]


NAMES: dict[str, Callable[[Any], list[str]]] = {
    "path": names_by_path,
    "dots": lambda model: [path.replace("/", ".") for path in names_by_path(model)],
    "model first": lambda model: [f"model/{path}:0" for path in names_by_path(model)],
    "numbered": lambda model: [f"{number}:{path}" for number, path in enumerate(names_by_path(model))],
    "numbers": lambda model: [str(number) for number, _ in enumerate(model.weights)],
    "from one": lambda model: [f"weight_{number + 1}" for number, _ in enumerate(model.weights)],
}


@pytest.mark.parametrize("names", NAMES)
@pytest.mark.parametrize("build", [same_shapes, lambda: made("conv")], ids=["same shapes", "conv"])
def test_names_of_others_find_their_variables(names: str, build: Callable[[], Any], tmp_path: Path) -> None:
    """In whatever order the file has them: the library's own is that of the types and the alphabet."""
    model = build()
    model.save(tmp_path / "model.keras")
    path = pair(model, tmp_path, dict(zip(NAMES[names](model), model.get_weights(), strict=True)))
    wanted = models.load("keras", tmp_path / "model.keras", tmp_path / "a")
    assert_same(wanted, models.load("json_safetensors", path, tmp_path / "b"))


def test_shapes_that_are_all_different_are_as_good_as_names(tmp_path: Path) -> None:
    import keras

    model = keras.Sequential([keras.Input((2,), name="x"), keras.layers.Dense(3), keras.layers.Dense(5)])
    stir(model)
    model.save(tmp_path / "model.keras")
    path = pair(model, tmp_path, dict(zip(["some", "names", "of", "mine"], model.get_weights(), strict=True)))
    wanted = models.load("keras", tmp_path / "model.keras", tmp_path / "a")
    assert_same(wanted, models.load("json_safetensors", path, tmp_path / "b"))


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["ka", "ba", "kb", "bb", "kc", "bc"], "do not say which is which"),
        (["a/kernel", "a/bias", "b/kernel", "b/bias", "c/kernel", "c/bias"], "do not say which is which"),
        (["first/kernel", "first/bias", "second/kernel", "second/bias"], "has 6 weights, the file has 4"),
    ],
)
def test_names_that_prove_nothing_are_refused(names: list[str], words: str, tmp_path: Path) -> None:
    model = same_shapes()
    path = pair(model, tmp_path, dict(zip(names, model.get_weights(), strict=False)))
    with pytest.raises(WeightsMismatch, match=words):
        models.load("json_safetensors", path, tmp_path / "b")


def test_other_shapes_are_refused_with_both(tmp_path: Path) -> None:
    model = same_shapes()
    arrays = dict(zip(names_by_path(model), model.get_weights(), strict=True))
    arrays[names_by_path(model)[0]] = np.ones((3, 4), "float32")
    with pytest.raises(WeightsMismatch, match=r"\(3, 4\)"):
        models.load("json_safetensors", pair(model, tmp_path, arrays), tmp_path / "b")


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_stays(dtype: str, tmp_path: Path) -> None:
    import keras

    layers = [keras.layers.Dense(3, dtype=dtype), keras.layers.Dense(2, dtype=dtype)]
    model = keras.Sequential([keras.Input((4,), name="x", dtype=dtype), *layers])
    model.save(tmp_path / "half.keras")
    path, _ = convert("keras", "json_safetensors", tmp_path / "half.keras", tmp_path / "a")
    back, _ = convert("json_safetensors", "keras", path, tmp_path / "b")
    wanted = [np.asarray(variable) for variable in model.weights]
    found = [np.asarray(variable) for variable in _sources.open_model("keras", back, tmp_path / "c").model.weights]
    assert [(item.dtype, item.tobytes()) for item in found] == [(item.dtype, item.tobytes()) for item in wanted]


def test_it_is_known_by_what_is_inside(tmp_path: Path) -> None:
    model = same_shapes()
    path = pair(model, tmp_path, dict(zip(names_by_path(model), model.get_weights(), strict=True)))
    sample = intake.take_sample(path, "download")
    assert [item.slug for item in formats.matches(sample)] == ["json_safetensors"]


def test_two_files_of_weights_are_ambiguous_and_none_is_incomplete(tmp_path: Path) -> None:
    text = same_shapes().to_json().encode()
    load = formats.get("json_safetensors").load
    assert load
    with pytest.raises(AmbiguousFormat):
        load(pack(tmp_path / "two.zip", a__json=text, b__safetensors=b"x", c__safetensors=b"x"), tmp_path / "a")
    with pytest.raises(IncompleteModel, match="safetensors"):
        load(pack(tmp_path / "none.zip", a__json=text, b__bin=io.BytesIO().getvalue()), tmp_path / "b")
