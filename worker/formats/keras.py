"""``.keras``: the archive of Keras 3 and late Keras 2 (config.json, metadata.json, model.weights.h5, assets/)."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from worker.formats import _sniff, _sources
from worker.formats._format import Format, Hop


def write(model: Any, target: Path, hop: Hop) -> None:
    """Save a Keras 3 model; Keras wants the suffix, whatever the target is called."""
    result = hop.scratch / "result.keras"
    model.save(result)
    shutil.move(result, target)


FORMAT = Format(
    label="Keras",
    suffixes=(".keras",),
    sniff=_sniff.holds_keras_archive,
    inspect=_sources.inspect("keras"),
    load=_sources.load("keras"),
    converts_from=_sources.converters(write, "keras", _sources.open_trained),
    keeps=frozenset({"architecture", "weights", "training", "compile", "optimizer"}),
    exact=True,
    snippet="""import keras

model = keras.saving.load_model("{file}")
""",
    needs=("tensorflow", "keras", "tf_keras", "h5py"),
)
