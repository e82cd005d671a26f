"""Half a model: which half a sample holds, which one is missing, and what to do about it. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import PurePosixPath

from worker import formats
from worker.formats._format import Sample

BOTH = "Choose the architecture and the weights together, or put both into one ZIP archive."
WHOLE = 'A model that was saved whole with model.save("model.keras") needs no second file.'
FOLDER = "Upload the whole folder that holds saved_model.pb and variables/, packed as a ZIP or tar.gz archive."
CHECKPOINT = (
    "Choose all files of the checkpoint together: .index, every .data file, and the .meta file where there is one."
)
JSON_ARCHITECTURE = re.compile(r'"class_name"\s*:\s*"')
YAML_ARCHITECTURE = re.compile(r"^class_name:\s*\S", re.MULTILINE)
SHARD = re.compile(r"\.data-(\d{5})-of-(\d{5})$")
OPENVINO = re.compile(rb"^\s*(<\?xml[^>]*>\s*)?<net\s")
RECORDED = ("input", "output")  # what the arrays of recorded inputs and outputs are called, as no weights are
TENSORFLOW_JS = {"modelTopology", "weightsManifest"}

Missing = tuple[str, str, str]  # what was found, what is missing, what to do


def missing_half(sample: Sample) -> Missing | None:
    """The half that is there and the half that is not, where a sample holds half a model."""
    architecture, weights = architecture_in(sample), weights_in(sample)
    if architecture and not weights:
        return architecture, "the file with its weights", BOTH
    if weights and not architecture:
        return weights, "the architecture (.json)", f"{BOTH} {WHOLE}"
    return next(((row.found, row.missing, row.advice) for row in ROWS if row.test(sample)), None)


def architecture_in(sample: Sample) -> str:
    """The Keras architecture that the sample holds, in words; empty where it holds none."""
    for name, text in sample.texts.items():
        if sample.json_keys.get(name, frozenset()) & TENSORFLOW_JS:
            continue
        if JSON_ARCHITECTURE.search(text) and '"config"' in text:
            return "an architecture in JSON"
        if YAML_ARCHITECTURE.search(text):
            return "an architecture in YAML"
    return ""


def weights_in(sample: Sample) -> str:
    """What kind of weights the sample holds, in words; empty where it holds none."""
    names = [member.name for member in sample.members]
    if sample.head.startswith(b"\x93NUMPY"):
        return "one NumPy array"
    if is_npz(sample):
        return f"{len(names)} NumPy arrays"
    if any(markers and "model_config" not in markers for markers in sample.hdf5.values()):
        return "weights in HDF5"
    if is_safetensors(sample) or any(name.endswith(".safetensors") for name in names):
        return "weights in safetensors"
    return "weights in a NumPy archive" if any(name.endswith(".npz") for name in names) else ""


def weights_name(sample: Sample) -> str:
    """What one file of weights is called inside a bundle, by its bytes; empty where it is none."""
    if sample.head.startswith(b"\x93NUMPY"):
        return "weights.npy"
    if is_npz(sample):
        recorded = any(member.name.startswith(RECORDED) for member in sample.members)
        return "" if recorded else "weights.npz"
    if is_safetensors(sample):
        return "weights.safetensors"
    markers = sample.hdf5.get("", frozenset())
    if markers and "model_config" not in markers:
        return "model.weights.h5"
    return "weights.pkl" if is_pickle(sample) else ""


def is_npz(sample: Sample) -> bool:
    """Is the archive a ``.npz``? One that is called ``.zip`` is somebody's folder of arrays."""
    arrays = bool(sample.members) and all(member.name.endswith(".npy") for member in sample.members)
    return arrays and not sample.name.lower().endswith(".zip")


def is_pickle(sample: Sample) -> bool:
    """Is the file a pickle, or an array of objects, which is one inside?"""
    return formats.get("pickle").sniff(sample)


def is_safetensors(sample: Sample) -> bool:
    """Eight bytes of length, then JSON of that length."""
    length = int.from_bytes(sample.head[:8], "little")
    return sample.container == "file" and sample.head[8:10] in (b'{"', b"{ ") and 2 <= length <= sample.size


@dataclass(frozen=True)
class _Row:
    found: str
    missing: str
    advice: str
    test: Callable[[Sample], bool]


def _called(*suffixes: str) -> Callable[[Sample], bool]:
    return lambda sample: sample.container == "file" and sample.name.endswith(suffixes)


def _holds(suffix: str) -> Callable[[Sample], bool]:
    return lambda sample: any(member.name.endswith(suffix) for member in sample.members)


def _is_graph_of_saved_model(sample: Sample) -> bool:
    return sample.head.startswith(b"\x08\x01\x12") and PurePosixPath(sample.name).suffix in (".pb", "")


def _is_checkpoint(sample: Sample) -> bool:
    return _holds(".index")(sample) and any(SHARD.search(member.name) for member in sample.members)


def _is_data(sample: Sample) -> bool:
    return sample.container == "file" and bool(SHARD.search(sample.name))


def _is_tensorflow_js(sample: Sample) -> bool:
    return any(keys & TENSORFLOW_JS for keys in sample.json_keys.values())


ROWS = (
    _Row("the graph of a SavedModel", "the folder around it (variables/, assets/)", FOLDER, _is_graph_of_saved_model),
    _Row("the variables of a SavedModel", "saved_model.pb", FOLDER, _holds("variables/variables.index")),
    _Row(
        "a TensorFlow checkpoint, which holds only weights",
        "the model that they belong to",
        "Choose it together with the architecture (.json), or with the .meta file of TensorFlow 1. Where there is "
        'neither, load the checkpoint into its model and save that with model.save("model.keras").',
        _is_checkpoint,
    ),
    _Row("the index of a TensorFlow checkpoint", "its .data file", CHECKPOINT, _called(".index")),
    _Row("the data of a TensorFlow checkpoint", "its .index file", CHECKPOINT, _is_data),
    _Row(
        "the graph of a TensorFlow 1 checkpoint",
        "the checkpoint itself (.index and .data)",
        CHECKPOINT,
        _called(".meta"),
    ),
    _Row(
        "the graph of an OpenVINO model",
        "the .bin file with its weights",
        "Choose the .xml and the .bin file together.",
        lambda sample: sample.container == "file" and bool(OPENVINO.match(sample.head)),
    ),
    _Row(
        "the model.json of a TensorFlow.js model",
        "the data of its weights",
        "Choose model.json and all files beside it together, or the folder that holds them.",
        _is_tensorflow_js,
    ),
)
