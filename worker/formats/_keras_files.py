"""What a Keras file of any kind holds, told without building anything: architecture, weights, what else was in it.

One reader per format; all give a ``Stored``. ``_sources`` makes living models from it.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from worker import archive
from worker.errors import CorruptFile, IncompleteModel, ModelError
from worker.formats import _weights
from worker.formats._architecture import Architecture, parse
from worker.formats._files import files_below, named, the_only, unpacked
from worker.report import Finding, Severity, declare

OPTIMIZER_DROPPED = declare(
    "optimizer-dropped",
    Severity.WARNING,
    "The file also holds the optimizer's state, which was not carried over: training starts anew.",
)
COMPILE_DROPPED = declare(
    "compile-dropped",
    Severity.NOTE,
    "The settings of compile() (loss, metrics, optimizer) were not carried over; call compile() before training.",
)

Weights = _weights.Rows | _weights.Flat | _weights.Tree


@dataclass(frozen=True)
class Stored:
    """A Keras model at rest.

    ``own_file``: a file that the library which wrote it can load by itself, whole; None where there is none.
    ``weights`` reads the weights when they are wanted.
    """

    architecture: Architecture
    weights: Callable[[], Weights]
    own_file: Path | None = None
    weights_file: Path | None = None
    vocabularies: Callable[[list[str]], dict[str, list[Any]]] = lambda names: {}  # of layers by name, where kept apart
    findings: tuple[Finding, ...] = ()


def read_keras(path: Path, scratch: Path) -> Stored:
    """A ``.keras`` archive, or an archive with an unpacked one somewhere inside."""
    config, metadata, own_file = _keras_texts(path, scratch)
    version = str(_json(metadata, path.name).get("keras_version", "")) if metadata else ""
    architecture = parse(config, path.name, version)

    def weights() -> Weights:
        folder = _keras_folder(path, scratch)
        return _weights.read_hdf5(folder / "model.weights.h5", _assets(folder))

    return Stored(architecture, weights, own_file, findings=_compiled(architecture.root.get("compile_config")))


def _compiled(config: Any) -> tuple[Finding, ...]:
    """What is lost of a model that was compiled when it was saved."""
    if not isinstance(config, dict) or not config:
        return ()
    return (COMPILE_DROPPED(), OPTIMIZER_DROPPED()) if config.get("optimizer") else (COMPILE_DROPPED(),)


def _keras_texts(path: Path, scratch: Path) -> tuple[bytes, bytes, Path]:
    """config.json, metadata.json and a file that Keras opens. An ordinary .keras is not unpacked for that."""
    with archive.reading(path.name):
        if zipfile.is_zipfile(path) and "config.json" in (names := _zip_names(path)):
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


def _assets(folder: Path) -> dict[str, str]:
    """The vocabularies of a .keras archive by their path below assets/."""
    root = folder / "assets"
    found = files_below(root, lambda name: name == _weights.VOCABULARY) if root.is_dir() else []
    return {item.relative_to(root).as_posix(): item.read_text(encoding="utf-8") for item in found}


def _json(text: bytes, name: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except ValueError as error:
        raise CorruptFile(name=name, problem=f"its metadata is not valid JSON ({error})") from error
    return value if isinstance(value, dict) else {}


def read_h5(path: Path, scratch: Path) -> Stored:
    """A whole model in HDF5, of Keras 1, 2 or 3, whatever the file is called."""
    with _weights.opened(path) as file:
        _weights.refuse_links(file, path.name)
        if "model_config" not in file.attrs:
            raise IncompleteModel(
                name=path.name,
                found="HDF5 weights",
                missing="the architecture",
                advice="Upload it together with the architecture JSON, in one archive.",
            )
        version = file.attrs.get("keras_version", b"")
        text = file.attrs["model_config"]
        findings = [COMPILE_DROPPED()] if "training_config" in file.attrs else []
        findings += [OPTIMIZER_DROPPED()] if "optimizer_weights" in file else []
    architecture = parse(text, path.name, version.decode() if isinstance(version, bytes) else str(version))
    own_file = named(path, scratch, ".h5")
    return Stored(architecture, lambda: _weights.read_hdf5(path), own_file, own_file, findings=tuple(findings))


def read_json_npz(path: Path, scratch: Path) -> Stored:
    """An archive with an architecture JSON and the arrays of ``get_weights`` as .npz."""
    architecture, folder = _architecture_in(path, scratch)
    arrays = the_only(
        files_below(folder, lambda name: name.endswith(".npz")), folder, path.name, "the .npz with weights"
    )
    return Stored(architecture, lambda: _weights.read_npz(arrays))


def read_weights_h5(path: Path, scratch: Path) -> Stored:
    """An archive with an architecture JSON and weights in HDF5 of any layout."""
    architecture, folder = _architecture_in(path, scratch)
    found = the_only(files_below(folder, is_hdf5_name), folder, path.name, "the .h5 with weights")
    return Stored(architecture, lambda: _weights.read_hdf5(found), None, found)


def is_hdf5_name(name: str) -> bool:
    return name.endswith((".h5", ".hdf5", ".keras"))


def _architecture_in(path: Path, scratch: Path) -> tuple[Architecture, Path]:
    folder = unpacked(path, scratch)
    texts = files_below(folder, lambda name: name.endswith(".json"))
    described = [item for item in texts if b'"class_name"' in item.read_bytes()[: 1024 * 1024]]
    found = the_only(described, folder, path.name, "the architecture JSON")
    return parse(found.read_bytes(), found.name), folder


def read_saved_model(path: Path, scratch: Path) -> Stored:
    """The Keras side of a SavedModel that Keras 2 wrote; ModelError for any other."""
    from worker.formats import _saved_model

    folder = _saved_model.folder_in(path, scratch)
    proto = _saved_model.read_proto(folder)
    root = _saved_model.keras_root(folder, proto)
    if root is None:
        raise ModelError(problem="it holds a graph of operations, not Keras layers")
    architecture = Architecture(root, str(root.get("keras_version") or "2").removesuffix("-tf"))
    weights = partial(_saved_model.keras_weights, folder)
    return Stored(architecture, weights, folder, vocabularies=partial(_saved_model.vocabularies, folder))


READERS: dict[str, Callable[[Path, Path], Stored]] = {
    "keras": read_keras,
    "h5": read_h5,
    "json_npz": read_json_npz,
    "weights_h5": read_weights_h5,
    "saved_model": read_saved_model,
}
