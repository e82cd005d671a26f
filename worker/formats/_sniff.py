"""Telling the Keras formats apart by a Sample; pure, and without any library."""

from __future__ import annotations

from pathlib import PurePosixPath

from worker.formats._format import Sample

HDF5_MAGIC = b"\x89HDF\r\n\x1a\n"
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
    return any('"class_name"' in text and '"config"' in text for text in sample.texts.values())


def _paths(sample: Sample) -> list[PurePosixPath]:
    paths = [PurePosixPath(member.name) for member in sample.members]
    return [path for path in paths if "__MACOSX" not in path.parts and not path.name.startswith("._")]
