"""safetensors: arrays by name, and nothing of the model that they belong to."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from worker.formats import _safetensors, _sources, _stream
from worker.formats._format import Converter, Format, Hop, Loaded, Summary
from worker.formats._regions import Region
from worker.formats._tensors import Tensor, dtype_of, is_counter, value_of

if TYPE_CHECKING:
    import numpy as np

    from worker.formats._format import Arrays


def inspect(path: Path, scratch: Path) -> Summary:
    """How many numbers of which types, from the header alone."""
    header = _safetensors.read(Region.whole(path))
    count = sum(tensor.nbytes // tensor.dtype.itemsize for _, tensor in header.tensors)
    types = tuple(sorted({str(tensor.dtype) for _, tensor in header.tensors}))
    version = header.metadata.get("keras_version")
    producer = {"keras": version[:40]} if version else {}
    return Summary(parameters=count, dtypes=types, producer=producer, traits=frozenset({"weights"}))


def load(path: Path, scratch: Path) -> Loaded:
    """The weights; there is nothing to run, so no inputs and no outputs."""
    tensors = _safetensors.read(Region.whole(path)).tensors

    def weights() -> Iterator[tuple[str, np.ndarray]]:
        for name, tensor in tensors:
            if not is_counter(tensor):
                yield name, value_of(tensor)

    return Loaded((), (), _run, weights)


def _run(arrays: Arrays) -> Arrays:
    return {}


def write(model: Any, target: Path, hop: Hop) -> None:
    """Every weight of a Keras model under its path, in the order of ``get_weights()``."""
    _stream.write_living("safetensors", model, target, hop)


def write_variables(path: Path, target: Path, hop: Hop) -> None:
    """The variables of a SavedModel under their names, one after the other from its checkpoint."""
    from worker.formats import _saved_model

    folder = _saved_model.folder_in(path, hop.scratch / "saved_model-source")
    keras = _saved_model.keras_root(folder, _saved_model.read_proto(folder)) is not None
    tensors = _of_keras(folder) if keras else _in_checkpoint(folder)
    said = "variables of a Keras model" if keras else "variables of a SavedModel by their name in its checkpoint"
    _stream.write_safetensors(tensors, {"format": "tensorflow", "names": said}, target)


def _of_keras(folder: Path) -> list[tuple[str, Any]]:
    """What the layers hold, without the counters and the training beside them."""
    from worker.formats import _saved_model

    arrays = [(name, array) for name, array in _saved_model.keras_weights(folder).arrays if array.dtype.kind in "fcV"]
    names = [name for name, _ in arrays]
    return [(name if names.count(name) == 1 else f"{name}#{at}", array) for at, (name, array) in enumerate(arrays)]


def _in_checkpoint(folder: Path) -> list[tuple[str, Any]]:
    """All variables that compute, without an optimizer's. Each is read when it is written."""
    import tensorflow as tf

    reader = tf.train.load_checkpoint(str(folder / "variables" / "variables"))
    shapes, types = reader.get_variable_to_shape_map(), reader.get_variable_to_dtype_map()
    found = sorted(key for key in shapes if types[key].is_floating or types[key].is_complex)
    return [
        (_name(key), Tensor(tuple(shapes[key]), dtype_of(types[key].name), partial(reader.get_tensor, key)))
        for key in found
        if "optimizer" not in key.lower() and ".OPTIMIZER_SLOT" not in key
    ]


def _name(key: str) -> str:
    return key.removesuffix("/.ATTRIBUTES/VARIABLE_VALUE")


FORMAT = Format(
    label="safetensors",
    suffixes=(".safetensors",),
    sniff=_safetensors.is_safetensors,
    inspect=inspect,
    load=load,
    converts_from={
        **_sources.converters(write, "safetensors"),
        "saved_model": Converter(write_variables, frozenset({"variables"})),
    },
    keeps=frozenset({"weights"}),
    exact=True,
    snippet="""from safetensors.numpy import load_file

weights = load_file("{file}")
print({name: array.shape for name, array in weights.items()})
""",
    needs=("tensorflow", "keras", "tf_keras", "safetensors"),
    no_way_out="it holds weights and no model: upload it together with its architecture JSON.",
)
