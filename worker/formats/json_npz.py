"""Architecture as JSON, weights as NumPy arrays: one archive with ``architecture.json`` and ``weights.npz``.

The arrays are ``arr_0``, ``arr_1``, … in the order of ``model.get_weights()``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from worker.formats import _sniff, _sources, _stream
from worker.formats._format import Format, Hop, Sample


def sniff(sample: Sample) -> bool:
    return _sniff.holds_architecture(sample) and _sniff.holds_npz(sample)


def write(model: Any, target: Path, hop: Hop) -> None:
    """``model.to_json()`` and ``model.get_weights()``, nothing pickled."""
    _stream.write_living("json_npz", model, target, hop)


FORMAT = Format(
    label="JSON + NumPy",
    suffixes=(".zip",),
    sniff=sniff,
    inspect=_sources.inspect("json_npz"),
    load=_sources.load("json_npz"),
    converts_from=_sources.converters(write, "json_npz"),
    keeps=frozenset({"architecture", "weights", "training"}),
    exact=True,
    snippet="""import io
import zipfile

import keras
import numpy as np

with zipfile.ZipFile("{file}") as archive:
    model = keras.models.model_from_json(archive.read("architecture.json").decode())
    arrays = np.load(io.BytesIO(archive.read("weights.npz")))
model.set_weights([arrays[f"arr_{number}"] for number in range(len(arrays.files))])
"""
    + _sources.REFRESHING,
    needs=("tensorflow", "keras", "tf_keras"),
)
