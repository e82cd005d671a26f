"""What a Keras file of any kind holds, told without building anything: architecture, weights, what else was in it.

One reader per format; all give a ``Stored``. ``_sources`` makes living models from it.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

from worker import archive
from worker.errors import CorruptFile, IncompleteModel, ModelError
from worker.formats import _checkpoint, _safetensors, _tensors, _training_calls, _weights
from worker.formats._architecture import YAML_SUFFIXES, Architecture, parse, without_markers
from worker.formats._files import files_below, named, the_only, unpacked
from worker.formats._optimizer import Training
from worker.formats._regions import Region, members_of, the_only_member
from worker.report import Finding

Weights = _weights.Rows | _weights.Flat | _weights.Tree | _weights.Labelled | _checkpoint.Objects


NO_TRAINING = Training({})
IN_JSON = (b'"class_name"', rb"\"class_name\"")  # the second where the text stands inside of a JSON text


@dataclass(frozen=True, eq=False)
class Stored:
    """A Keras model at rest, one and the same as long as its file is: equal to nothing but itself.

    ``own_file``: a file that the library which wrote it can load by itself, whole; None where there is none.
    ``weights`` reads the weights when they are wanted.
    """

    architecture: Architecture
    weights: Callable[[], Weights]
    own_file: Path | None = None
    weights_file: Path | None = None
    vocabularies: Callable[[list[str]], dict[str, list[Any]]] = lambda names: {}  # of layers by name, where kept apart
    training: Training = NO_TRAINING

    @property
    def findings(self) -> tuple[Finding, ...]:
        """What is lost in a target that keeps nothing of training, and what of training was left on."""
        return (*self.training.dropped(), *_training_calls.findings(self.architecture))


# As Keras 3 pickles a model: the settings without the optimizer, its numbers among the weights
_UNNAMED = "the file holds its numbers and does not say which optimizer they belong to"


def read_keras(path: Path, scratch: Path) -> Stored:
    """A ``.keras`` archive, or an archive with an unpacked one somewhere inside."""
    config, metadata, own_file = _keras_texts(path, scratch)
    version = str(_json(metadata, path.name).get("keras_version", "")) if metadata else ""
    architecture = parse(config, path.name, version)

    def weights() -> Weights:
        members = members_of(path, scratch)
        found = _keras_weights(members, path.name)
        assets = PurePosixPath(found.name).with_name("assets")
        return _weights.read_hdf5(found, _assets(members, f"{assets}/"))

    def state() -> list[tuple[str, Any]]:
        return _optimizer_variables(_keras_weights(members_of(path, scratch), path.name))

    compiled = architecture.root.get("compile_config")
    said = compiled if isinstance(compiled, dict) else {}
    known = bool(said.get("optimizer"))
    doubt = _UNNAMED if said and not known and state() else ""
    training = Training(said, state if known else None, not architecture.legacy, doubt)
    return Stored(architecture, weights, own_file, training=training)


def _optimizer_variables(region: Region) -> list[tuple[str, Any]]:
    """The optimizer's variables in a ``.weights.h5``: numbered, without names."""
    with _tensors.opened(region) as file:
        _tensors.refuse_links(file, PurePosixPath(region.name).name)
        group = file.get("optimizer/vars", {})
        return [("", group[key][()]) for key in sorted(group, key=int)]


def _keras_texts(path: Path, scratch: Path) -> tuple[bytes, bytes, Path]:
    """config.json, metadata.json and a file that Keras opens. An ordinary .keras is not unpacked for that."""
    with archive.reading(path.name):
        if archive.container_of(path) == "zip" and "config.json" in (names := _zip_names(path)):
            own_file = named(path, scratch, ".keras")
            with zipfile.ZipFile(path) as file:
                return (
                    file.read("config.json"),
                    file.read("metadata.json") if "metadata.json" in names else b"",
                    own_file,
                )
    folder = _keras_folder(path, scratch)
    own_file = scratch / "own.keras"
    archive.pack(folder, own_file)
    metadata = folder / "metadata.json"
    return (folder / "config.json").read_bytes(), metadata.read_bytes() if metadata.is_file() else b"", own_file


def _zip_names(path: Path) -> set[str]:
    with zipfile.ZipFile(path) as file:
        return set(file.namelist())


def _keras_folder(path: Path, scratch: Path) -> Path:
    """The unpacked folder that holds config.json and model.weights.h5."""
    folder = unpacked(path, scratch)
    configs = files_below(folder, lambda name: name == "config.json")
    whole = [item for item in configs if (item.parent / "model.weights.h5").is_file()]
    return the_only(whole, folder, path.name, "config.json beside model.weights.h5").parent


def _keras_weights(members: list[Region], name: str) -> Region:
    """The model.weights.h5 that stands beside a config.json."""
    named = {item.name: item for item in members}
    configs = [item for item in members if PurePosixPath(item.name).name == "config.json"]
    whole = [item for item in configs if _weights_beside(item) in named]
    return named[_weights_beside(the_only_member(whole, name, "config.json beside model.weights.h5"))]


def _weights_beside(config: Region) -> str:
    return str(PurePosixPath(config.name).with_name("model.weights.h5"))


def _assets(members: list[Region], folder: str) -> dict[str, str]:
    """The vocabularies of a .keras archive by their path below assets/."""
    found = [item for item in members if item.name.startswith(folder) and item.name.endswith(_weights.VOCABULARY)]
    return {item.name.removeprefix(folder): b"".join(item.blocks()).decode() for item in found}


def _json(text: bytes | str, name: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except ValueError as error:
        raise CorruptFile(name=name, problem=f"its metadata is not valid JSON ({error})") from error
    return value if isinstance(value, dict) else {}


def read_h5(path: Path, scratch: Path) -> Stored:
    """A whole model in HDF5, of Keras 1, 2 or 3, whatever the file is called."""
    with _tensors.opened(path) as file:
        _tensors.refuse_links(file, path.name)
        if "model_config" not in file.attrs:
            raise IncompleteModel(
                name=path.name,
                found="HDF5 weights",
                missing="the architecture",
                advice="Upload it together with the architecture JSON, in one archive.",
            )
        version, backend = (_weights.text_of(file.attrs.get(name, "")) for name in ("keras_version", "backend"))
        text = file.attrs["model_config"]
        compiled = file.attrs.get("training_config")
        with_state = "optimizer_weights" in file
    architecture = parse(text, path.name, version, backend)
    own_file = named(path, scratch, ".h5")
    config = _training_config(_json(compiled, path.name) if compiled is not None else {})
    state = partial(_optimizer_rows, path) if with_state else None
    training = Training(config, state, not architecture.legacy)
    return Stored(architecture, lambda: _weights.read_hdf5(path), own_file, own_file, training=training)


def _training_config(config: dict[str, Any]) -> dict[str, Any]:
    """Keras 1 and 2 called the optimizer ``optimizer_config``."""
    return {"optimizer": config.get("optimizer_config"), **config} if config else {}


def _optimizer_rows(path: Path) -> list[tuple[str, Any]]:
    with _tensors.opened(path) as file:
        group = file["optimizer_weights"]
        return [(name, group[name][()]) for name in _weights.names_in(group, "weight_names")]


def read_json_npz(path: Path, scratch: Path) -> Stored:
    """An archive with an architecture JSON and the arrays of ``get_weights`` as .npz."""
    architecture, members = _architecture_in(path, scratch)
    found = _the_only_called(members, lambda name: name.endswith(".npz"), path.name, "the .npz with weights")
    return Stored(architecture, lambda: _weights.read_npz(found))


def read_weights_h5(path: Path, scratch: Path) -> Stored:
    """An archive with an architecture JSON and weights in HDF5 of any layout."""
    architecture, members = _architecture_in(path, scratch)
    found = _the_only_called(members, is_hdf5_name, path.name, "the .h5 with weights")
    return Stored(architecture, lambda: _weights.read_hdf5(found), None, found.path if found.is_whole else None)


def read_json_safetensors(path: Path, scratch: Path) -> Stored:
    """An archive with an architecture JSON and weights by name as safetensors."""
    architecture, members = _architecture_in(path, scratch)
    found = _the_only_called(members, lambda name: name.endswith(".safetensors"), path.name, "the .safetensors")
    return Stored(architecture, lambda: _weights.Labelled(list(_safetensors.read(found).tensors)))


def _the_only_called(members: list[Region], wanted: Callable[[str], bool], name: str, what: str) -> Region:
    return the_only_member([item for item in members if wanted(item.name)], name, what)


def is_hdf5_name(name: str) -> bool:
    return name.endswith((".h5", ".hdf5", ".keras"))


def _architecture_in(path: Path, scratch: Path) -> tuple[Architecture, list[Region]]:
    """The architecture of an archive, and all files in it."""
    members = members_of(path, scratch)
    described = _texts_with(members, (".json",), IN_JSON) or _texts_with(members, YAML_SUFFIXES, (b"class_name: ",))
    found = the_only_member(described, path.name, "the architecture JSON")
    return parse(b"".join(found.blocks()), PurePosixPath(found.name).name), members


def _texts_with(members: list[Region], suffixes: tuple[str, ...], words: tuple[bytes, ...]) -> list[Region]:
    named = [(item, item.head(1024 * 1024)) for item in members if item.name.endswith(suffixes)]
    return [item for item, head in named if any(word in head for word in words)]


def read_checkpoint(path: Path, scratch: Path) -> Stored:
    """An archive with an architecture and a TensorFlow checkpoint under any name."""
    architecture, _ = _architecture_in(path, scratch)
    folder = unpacked(path, scratch)
    objects = _checkpoint.Objects(_checkpoint.prefix_in(folder, path.name))
    training = Training({}, doubt=_CHECKPOINT_DOUBT if objects.has_optimizer else "")
    return Stored(architecture, lambda: objects, vocabularies=objects.vocabularies, training=training)


_CHECKPOINT_DOUBT = "a checkpoint does not say which optimizer it was, nor the loss"


def read_saved_model(path: Path, scratch: Path) -> Stored:
    """The Keras side of a SavedModel that Keras 2 wrote; ModelError for any other."""
    from worker.formats import _saved_model

    folder = _saved_model.folder_in(path, scratch)
    proto = _saved_model.read_proto(folder)
    root = _saved_model.keras_root(folder, proto)
    if root is None:
        raise ModelError(problem="it holds a graph of operations, not Keras layers")
    version = str(root.get("keras_version") or "2")
    architecture = Architecture(root, version.removesuffix("-tf"), of_tf=version.endswith("-tf"))
    weights = partial(_saved_model.keras_weights, folder)
    vocabularies = partial(_saved_model.vocabularies, folder)
    return Stored(architecture, weights, folder, vocabularies=vocabularies, training=_saved_training(folder, proto))


def _saved_training(folder: Path, proto: Any) -> Training:
    """The settings in the metadata of Keras 2, the optimizer's variables in the checkpoint."""
    from worker.formats import _saved_model

    metadata = _saved_model._root_metadata(folder, proto)
    config = without_markers(metadata.get("training_config") or {})
    objects = _checkpoint.Objects(folder / "variables" / "variables")
    state = objects.optimizer_variables if config and objects.has_optimizer else None
    return Training(_training_config(config), state)


def read_tfjs_layers(path: Path, scratch: Path) -> Stored:
    """The layers of a TensorFlow.js layers model."""
    from worker.formats import _tfjs_layers

    return _tfjs_layers.read(path, scratch)


def read_model_in_pickle(path: Path, scratch: Path) -> Stored:
    """The model inside of a pickle, which is not opened."""
    from worker.formats import _pickles_models

    return _pickles_models.stored(path, scratch)


def read_json_pickle(path: Path, scratch: Path) -> Stored:
    """An archive with an architecture and pickled weights."""
    from worker.formats import _pickles_models

    return _pickles_models.read_json_pickle(path, scratch)


def read_data_pickle(path: Path, scratch: Path) -> Stored:
    """A pickle of plain data around a .keras file."""
    from worker.formats import data_pickle

    return read_keras(data_pickle.take_out(path, scratch), scratch)


READERS: dict[str, Callable[[Path, Path], Stored]] = {
    "keras": read_keras,
    "h5": read_h5,
    "json_npz": read_json_npz,
    "weights_h5": read_weights_h5,
    "json_safetensors": read_json_safetensors,
    "saved_model": read_saved_model,
    "checkpoint": read_checkpoint,
    "tfjs_layers": read_tfjs_layers,
    "pickle": read_model_in_pickle,
    "json_pickle": read_json_pickle,
    "data_pickle": read_data_pickle,
}
