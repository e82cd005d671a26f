"""Models that call a layer with training=True: said wherever they come from, and never failed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from worker import faults, formats
from worker.formats import _keras_files, _training_calls
from worker.formats._architecture import parse
from worker.formats._draws import make_inputs
from worker.formats._format import Hop


def dropping(library: Any, left_on: bool = True) -> Any:
    x = library.Input((6,), name="x")
    hidden = library.layers.Dropout(0.5, name="drop")(library.layers.Dense(8)(x), training=left_on or None)
    return library.Model(x, library.layers.Dense(2)(hidden))


def said(model: Any) -> list[str]:
    return [finding.sentence for finding in _training_calls.findings(parse(model.to_json(), "architecture.json"))]


def test_it_works() -> None:
    import keras
    import tf_keras

    for library in (keras, tf_keras):
        (sentence,) = said(dropping(library))
        assert sentence.startswith("The model calls drop with training=True")
        assert said(dropping(library, left_on=False)) == []


def test_a_whole_model_inside_of_another_is_named() -> None:
    import keras

    x = keras.Input((6,))
    (sentence,) = said(keras.Model(x, keras.Sequential([keras.layers.Dropout(0.5)], name="inner")(x, training=True)))
    assert "calls inner with" in sentence


@pytest.mark.parametrize("library", ["keras", "tf_keras"])
def test_it_is_said_with_every_conversion(library: str, tmp_path: Path) -> None:
    """Keras 2 keeps it on in predict(), and is then told to be random; Keras 3 does not, and is steady."""
    import importlib

    path, target = tmp_path / "model.h5", tmp_path / "model.zip"
    dropping(importlib.import_module(library)).save(path)
    assert _training_calls.TRAINING_ON.code in {item.code for item in _keras_files.read_h5(path, tmp_path).findings}
    hop = Hop(tmp_path)
    formats.get("saved_model").converts_from["h5"].run(path, target, hop)
    assert _training_calls.TRAINING_ON.code in {item.code for item in hop.findings}
    load = formats.get("h5").load
    assert load
    loaded = load(path, tmp_path)
    draw = make_inputs(loaded.inputs, 3)[0]
    assert faults.steady(loaded, [draw], [loaded.run(draw)], 1e-6, 0.1) == ("random" if library == "tf_keras" else "")
