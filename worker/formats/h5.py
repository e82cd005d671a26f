"""``.h5``: a whole Keras model in one HDF5 file, as Keras 1 and 2 saved it and Keras 3 still does."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

from worker.errors import UnsupportedOperation
from worker.formats import _agreed, _masks, _sniff, _sources, _stream
from worker.formats._architecture import Node
from worker.formats._format import Format, Hop
from worker.formats._optimizer import COMPILE_DROPPED

LABEL = "HDF5 model"
UNKNOWN = re.compile(r"Unknown layer: '([^']+)'")


def write(model: Any, target: Path, hop: Hop) -> None:
    """Save a Keras 3 model and read it back: Keras writes .h5 files that it cannot open again, without a word."""
    result = hop.scratch / "result.h5"
    try:
        model.save(result)
        _simplify_masks(model, result)
        _drop_state(result)
        again = _read_back(result, hop)
    except Exception as error:  # Keras raises whatever its old reader and writer meet
        raise _refused(model, error) from error
    if len(again.weights) != len(model.weights):
        problem = f"Keras reads {len(again.weights)} of {len(model.weights)} weights back"
        raise UnsupportedOperation(target=LABEL, operation="this model", problem=problem)
    shutil.move(result, target)


def _simplify_masks(model: Any, path: Path) -> None:
    """Describe the model without the masks that its layers find by themselves."""
    import h5py

    with h5py.File(path, "r+") as file:
        root = json.loads(file.attrs["model_config"])
        _masks.leave_out(model, root)
        file.attrs["model_config"] = json.dumps(root)


def _read_back(path: Path, hop: Hop) -> Any:
    """The model that Keras reads; without the settings of compile() where those are what it cannot read."""
    import h5py

    try:
        return _agreed.load_model(path, compiled=True)
    except Exception as error:  # whatever the old reader meets in them, or in the model
        with h5py.File(path, "r+") as file:
            if "training_config" not in file.attrs:
                raise error
            del file.attrs["training_config"]
        hop.add(COMPILE_DROPPED())
        return _agreed.load_model(path)


def _drop_state(path: Path) -> None:
    """Keras cannot go on training from the state in its own .h5: it makes the optimizer for a model without weights."""
    import h5py

    with h5py.File(path, "r+") as file:
        if "optimizer_weights" in file:
            del file["optimizer_weights"]


def refusal(root: Node, model: Any) -> str:
    """Operations between the layers that Keras writes into an .h5 and does not know again when it reads that."""
    if model is None or not _operations(model):
        return ""
    try:
        _stream.read_back_h5(model)
    except Exception as error:  # whatever the old reader meets
        return _refused(model, error).message
    return ""


def _refused(model: Any, error: Exception) -> UnsupportedOperation:
    """What the file cannot hold: the class that Keras names, else the operations between the layers."""
    found, operations = UNKNOWN.search(str(error)), _operations(model)
    if found:
        owners = list(dict.fromkeys(owner for kind, _, owner in operations if kind == found[1] and owner))
        operation = f"{found[1]} in {', '.join(owners[:5])}" if owners else found[1]
        problem = "Keras would write it there and not know it again; take the Keras format"
        return UnsupportedOperation(target=LABEL, operation=operation, problem=problem)
    names = [f"{name} in {owner}" if owner else name for _, name, owner in operations[:5]]
    advice = "; take the Keras format" if operations else ""
    return UnsupportedOperation(
        target=LABEL, operation=", ".join(names) or "this model", problem=f"{_problem(error)}{advice}"
    )


def _operations(model: Any, owner: str = "") -> list[tuple[str, str, str]]:
    """The operations between the layers, also in models inside of this one: class, name, and the model inside, which
    is a Lambda layer where one was read."""
    import keras

    found: list[tuple[str, str, str]] = []
    for item in getattr(model, "operations", None) or getattr(model, "layers", []):
        if isinstance(item, keras.Model):
            found += _operations(item, item.name)
        elif not isinstance(item, keras.layers.Layer):
            found.append((type(item).__name__, item.name, owner))
    return found


def _problem(error: Exception) -> str:
    lines = [line for line in str(error).splitlines() if line.strip()]
    return f"Keras cannot write it there and read it back ({lines[0][:200] if lines else type(error).__name__})"


FORMAT = Format(
    label=LABEL,
    suffixes=(".h5", ".hdf5"),
    sniff=_sniff.is_whole_hdf5,
    inspect=_sources.inspect("h5"),
    load=_sources.load("h5"),
    converts_from=_sources.converters(write, "h5", _sources.open_compiled),
    keeps=frozenset({"architecture", "weights", "training", "compile"}),
    refusal=refusal,
    exact=True,
    snippet="""import keras

model = keras.saving.load_model("{file}", compile=False)
""",
    needs=("tensorflow", "keras", "tf_keras", "h5py"),
)
