"""Telling the Keras formats apart by a Sample; pure, and without any library."""

from __future__ import annotations

import re
from pathlib import PurePosixPath

from worker.formats._files import is_junk
from worker.formats._format import Sample

HDF5_MAGIC = b"\x89HDF\r\n\x1a\n"
_YAML_CLASS = re.compile(r"^class_name: ", re.MULTILINE)
_YAML_CONFIG = re.compile(r"^config:", re.MULTILINE)
GRAPHS = ("saved_model.pb", "saved_model.pbtxt")


def holds_saved_model(sample: Sample) -> bool:
    """Is there a SavedModel's graph somewhere in the archive?"""
    return sample.container != "file" and any(path.name in GRAPHS for path in _paths(sample))


def holds_keras_archive(sample: Sample) -> bool:
    """config.json beside model.weights.h5: a .keras file, or an archive of an unpacked one."""
    paths = set(_paths(sample)) if sample.container != "file" else set()
    return any(path.name == "config.json" and path.parent / "model.weights.h5" in paths for path in paths)


def is_whole_hdf5(sample: Sample) -> bool:
    """HDF5 with the architecture inside."""
    inside = sample.hdf5.get("", frozenset())
    return sample.container == "file" and sample.head.startswith(HDF5_MAGIC) and "model_config" in inside


def holds_npz(sample: Sample) -> bool:
    return any(path.suffix == ".npz" for path in _paths(sample))


def holds_weights_hdf5(sample: Sample) -> bool:
    """Is there an HDF5 file with weights in the archive?"""
    known = {"layer_names", "weight_names", "_layer_checkpoint_dependencies", "vars"}
    return any(name and markers & known for name, markers in sample.hdf5.items())


def holds_architecture(sample: Sample) -> bool:
    """Is there an architecture JSON in the archive, with its weights apart?"""
    if sample.container == "file" or holds_saved_model(sample) or holds_keras_archive(sample):
        return False
    return any(_describes_layers(text) for text in sample.texts.values())


def _describes_layers(text: str) -> bool:
    """JSON as every release writes it, or YAML as ``to_yaml`` of Keras 1 and 2 did."""
    return ('"class_name"' in text and '"config"' in text) or is_yaml_architecture(text)


def is_yaml_architecture(text: str) -> bool:
    return bool(_YAML_CLASS.search(text)) and bool(_YAML_CONFIG.search(text))


def holds_checkpoint(sample: Sample) -> bool:
    """``prefix.index`` beside ``prefix.data-00000-of-00001``, wherever they are."""
    paths = set(map(str, _paths(sample)))
    indexed = [path.removesuffix(".index") for path in paths if path.endswith(".index")]
    return any(path.startswith(f"{prefix}.data-") for prefix in indexed for path in paths)


def members_called(sample: Sample, suffix: str) -> list[PurePosixPath]:
    """The files in an archive whose names end like this."""
    return [path for path in _paths(sample) if path.name.endswith(suffix)]


def _paths(sample: Sample) -> list[PurePosixPath]:
    paths = [PurePosixPath(member.name) for member in sample.members]
    return [path for path in paths if not is_junk(path)]
