"""Architecture as JSON, weights as safetensors: one archive with ``architecture.json`` and ``weights.safetensors``.

The arrays are called by the paths of the Keras variables, in the order of ``model.get_weights()``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from worker.formats import _sniff, _sources, _stream
from worker.formats._format import Format, Hop, Sample


def sniff(sample: Sample) -> bool:
    return _sniff.holds_architecture(sample) and len(_sniff.members_called(sample, ".safetensors")) == 1


def write(model: Any, target: Path, hop: Hop) -> None:
    """``model.to_json()`` and every weight under its path."""
    _stream.write_living("json_safetensors", model, target, hop)


FORMAT = Format(
    label="JSON + safetensors",
    suffixes=(".zip",),
    sniff=sniff,
    inspect=_sources.inspect("json_safetensors"),
    load=_sources.load("json_safetensors"),
    converts_from=_sources.converters(write, "json_safetensors"),
    keeps=frozenset({"architecture", "weights", "training"}),
    exact=True,
    snippet="""import zipfile

import keras
from safetensors.numpy import load

with zipfile.ZipFile("{file}") as archive:
    model = keras.models.model_from_json(archive.read("architecture.json").decode())
    arrays = load(archive.read("weights.safetensors"))
names = []
for variable in model.weights:  # a second variable of the same path is called path#2
    names.append(variable.path)
    number = names.count(variable.path)
    variable.assign(arrays[variable.path if number == 1 else f"{variable.path}#{number}"])
"""
    + _sources.REFRESHING,
    needs=("tensorflow", "keras", "tf_keras", "safetensors"),
)
