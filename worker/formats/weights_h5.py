"""Architecture as JSON, weights as Keras' own ``.weights.h5``: one archive with both."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from worker.formats import _sniff, _sources, _stream
from worker.formats._format import Format, Hop, Sample


def sniff(sample: Sample) -> bool:
    return _sniff.holds_architecture(sample) and _sniff.holds_weights_hdf5(sample)


def write(model: Any, target: Path, hop: Hop) -> None:
    """``model.to_json()`` and ``model.save_weights()``."""
    _stream.write_living("weights_h5", model, target, hop)


FORMAT = Format(
    label="JSON + weights.h5",
    suffixes=(".zip",),
    sniff=sniff,
    inspect=_sources.inspect("weights_h5"),
    load=_sources.load("weights_h5"),
    converts_from=_sources.converters(write, "weights_h5"),
    keeps=frozenset({"architecture", "weights", "training"}),
    exact=True,
    snippet="""import tempfile
import zipfile

import keras

with tempfile.TemporaryDirectory() as folder, zipfile.ZipFile("{file}") as archive:
    archive.extractall(folder)
    with open(f"{folder}/architecture.json") as text:
        model = keras.models.model_from_json(text.read())
    model.load_weights(f"{folder}/model.weights.h5")
""",
    needs=("tensorflow", "keras", "tf_keras", "h5py"),
)
