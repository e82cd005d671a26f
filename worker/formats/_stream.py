"""Writing the Keras formats array by array: nothing of the weights is in memory beyond one block.

Each format is written from a model, which may have shapes alone, and a function that gives the array of a variable. An
HDF5 file is laid out first, with room for every array and no array in it; its bytes are then put together with those of
the arrays as they go to their place, also into an archive, so that nothing is written twice.
"""

from __future__ import annotations

import io
import json
import stat
import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from worker import archive
from worker.formats import _masks, _plan, _safetensors, _tensors, _weights
from worker.formats._format import Hop
from worker.formats._plan import Plan

if TYPE_CHECKING:
    from worker.formats._tensors import Stored

    Reading = Callable[[Any], Stored]  # variable -> its array
    Blocks = Iterable[Any]

TEXT, KERAS_WEIGHTS = "architecture.json", "model.weights.h5"


def converts(plan: Plan, slug: str) -> bool:
    """Can this model go into this format without living?"""
    return slug in WRITERS and (slug != "h5" or _fits_h5(plan.model))


def write(slug: str, plan: Plan, target: Path, hop: Hop) -> None:
    """Write the file; the model has no values, its arrays come from the source."""
    WRITERS[slug](plan.model, plan.tensor, target, hop)
    hop.add(*plan.findings)


def write_living(slug: str, model: Any, target: Path, hop: Hop) -> None:
    """The same file of a model that lives in memory."""
    WRITERS[slug](model, _plan.living, target, hop)


# The formats ----------------------------------------------------------------------------------------------------


def _write_keras(model: Any, reading: Reading, target: Path, hop: Hop) -> None:
    """``config.json``, ``metadata.json`` and ``model.weights.h5``, as ``model.save`` packs them."""
    from keras.src.saving import saving_lib

    config, metadata = saving_lib._serialize_model_as_json(model)
    weights = _tree(model, reading, hop.scratch)
    members = [("metadata.json", _of(metadata)), ("config.json", _of(config)), (KERAS_WEIGHTS, weights)]
    _pack(members, target)


def _write_weights_h5(model: Any, reading: Reading, target: Path, hop: Hop) -> None:
    """``model.to_json()`` beside what ``model.save_weights()`` writes."""
    weights = _tree(model, reading, hop.scratch)
    _pack([(TEXT, _of(model.to_json(indent=1))), (KERAS_WEIGHTS, weights)], target)


def _write_json_npz(model: Any, reading: Reading, target: Path, hop: Hop) -> None:
    """``model.to_json()`` beside what ``np.savez`` makes of ``model.get_weights()``."""
    arrays = [(f"arr_{number}", reading(variable)) for number, variable in enumerate(model.weights)]
    with zipfile.ZipFile(target, "w") as package:
        _put(package, TEXT, *_of(model.to_json(indent=1)))
        with package.open(_info("weights.npz"), "w", force_zip64=True) as file, zipfile.ZipFile(file, "w") as inner:
            for name, tensor in arrays:
                header = _npy_header(tensor)
                _put(inner, f"{name}.npy", len(header) + tensor.nbytes, _joined(header, tensor))


def _write_json_safetensors(model: Any, reading: Reading, target: Path, hop: Hop) -> None:
    """``model.to_json()`` beside the weights under their Keras paths."""
    weights = _safetensors.encoded(_labelled(model, reading), _metadata())
    _pack([(TEXT, _of(model.to_json(indent=1))), ("weights.safetensors", weights)], target)


def _write_safetensors(model: Any, reading: Reading, target: Path, hop: Hop) -> None:
    write_safetensors(_labelled(model, reading), _metadata(), target)


def write_safetensors(tensors: Sequence[tuple[str, Stored]], metadata: dict[str, str], target: Path) -> None:
    """One file with the arrays in the order in which they are given."""
    _, blocks = _safetensors.encoded(tensors, metadata)
    with target.open("wb") as file:
        file.writelines(blocks)


def _labelled(model: Any, reading: Reading) -> list[tuple[str, Stored]]:
    variables = model.weights
    return [(path, reading(item)) for path, item in zip(_weights.unique_paths(variables), variables, strict=True)]


def _metadata() -> dict[str, str]:
    import keras

    said = "variables of a Keras model by their path, in the order of get_weights()"
    return {"format": "keras", "keras_version": keras.__version__, "names": said}


def _write_h5(model: Any, reading: Reading, target: Path, hop: Hop) -> None:
    """Attributes and groups as ``model.save`` lays them out in HDF5: a group for each layer, an array for each name."""
    from keras.src import backend
    from keras.src.legacy.saving import legacy_h5_format as legacy
    from keras.src.version import __version__ as version

    layout = _Layout(hop.scratch / "layout.h5", reading)
    with layout.opened() as file:
        file.attrs["keras_version"], file.attrs["backend"] = version, backend.backend()
        file.attrs["model_config"] = json.dumps(_h5_config(model)).encode()
        group = file.create_group("model_weights")
        legacy.save_attributes_to_hdf5_group(group, "layer_names", [layer.name.encode() for layer in model.layers])
        group.attrs["backend"], group.attrs["keras_version"] = backend.backend().encode(), version.encode()
        for layer in sorted(model.layers, key=lambda layer: str(layer.name)):
            _write_row(layout, group.create_group(layer.name), legacy._legacy_weights(layer))
        _write_row(layout, group.create_group("top_level_model_weights"), _top_level(model))
    with target.open("wb") as result:
        result.writelines(layout.contents()[1])


def _write_row(layout: _Layout, group: Any, variables: list[Any]) -> None:
    from keras.src.legacy.saving import legacy_h5_format as legacy

    legacy.save_attributes_to_hdf5_group(group, "weight_names", [str(item.path).encode() for item in variables])
    for variable in variables:
        layout.add(group, str(variable.path), variable)


def _top_level(model: Any) -> list[Any]:
    weights = {id(item) for item in model.weights}
    return [item for item in model._trainable_variables + model._non_trainable_variables if id(item) in weights]


def _h5_config(model: Any) -> dict[str, Any]:
    """The description in the form that .h5 has, without the masks that layers find by themselves."""
    from keras.src.legacy.saving import json_utils, saving_options, saving_utils

    with saving_options.keras_option_scope(use_legacy_config=True):
        found = saving_utils.model_metadata(model, include_optimizer=False)["model_config"]
        root: dict[str, Any] = json.loads(json.dumps(found, default=json_utils.get_json_type))
    _masks.leave_out(model, root)
    return root


def read_back_h5(model: Any) -> Any:
    """The model that Keras builds of its own description in an .h5, with shapes but no values.

    Raises whatever Keras does: it writes some that it cannot open again, without a word.
    """
    with _plan.hollow():
        return _plan.deserialized(_h5_config(model))


def _fits_h5(model: Any) -> bool:
    """Does Keras read its own .h5 of this model?"""
    try:
        again = read_back_h5(model)
    except Exception:  # the living way says what it is about
        return False
    mine, theirs = ([(item.shape, item.dtype) for item in each.weights] for each in (model, again))
    paths = [item.path for item in model.weights]
    return mine == theirs and len(set(paths)) == len(paths) and all(item.dtype != "bfloat16" for item in model.weights)


WRITERS: dict[str, Callable[[Any, Any, Path, Hop], None]] = {
    "keras": _write_keras,
    "h5": _write_h5,
    "weights_h5": _write_weights_h5,
    "json_npz": _write_json_npz,
    "json_safetensors": _write_json_safetensors,
    "safetensors": _write_safetensors,
}
# What of training a format keeps, so that writing it takes a compiled model
TRAINING = {slug: frozenset[str]() for slug in WRITERS} | {
    "keras": frozenset({"compiled", "optimizer"}),
    "h5": frozenset({"compiled"}),
}


# HDF5 -----------------------------------------------------------------------------------------------------------


@dataclass
class _Layout:
    """An HDF5 file with room for arrays, and which arrays belong there."""

    path: Path
    reading: Reading
    arrays: list[tuple[int, Stored]] = field(default_factory=list)  # (offset in the file, array)

    def opened(self) -> Any:
        import h5py

        return h5py.File(self.path, "w")

    def add(self, group: Any, name: str, variable: Any) -> Any:
        """Make room for the variable's array at once, without filling it, so that its offset is known."""
        import h5py

        tensor = self.reading(variable)
        properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        properties.set_layout(h5py.h5d.CONTIGUOUS)
        properties.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
        properties.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
        item = group.create_dataset(name, tuple(tensor.shape), tensor.dtype, dcpl=properties)
        if tensor.nbytes:
            self.arrays.append((item.id.get_offset(), tensor))
        return item

    def contents(self) -> tuple[int, Iterator[Any]]:
        """The size of the finished file, and its bytes: the layout's, and in its gaps those of the arrays."""
        return self.path.stat().st_size, self._blocks()

    def _blocks(self) -> Iterator[Any]:
        with self.path.open("rb") as file:
            for start, tensor in sorted(self.arrays, key=lambda item: item[0]):
                yield file.read(start - file.tell())
                yield from _tensors.blocks(tensor)
                file.seek(start + tensor.nbytes)
            yield file.read()
        self.path.unlink()


def _tree(model: Any, reading: Reading, scratch: Path) -> tuple[int, Iterator[Any]]:
    """What ``save_weights`` writes, laid out by Keras' own walk over the model."""
    from keras.src.saving import saving_lib

    layout = _Layout(scratch / "layout.h5", reading)

    class Store(saving_lib.H5IOStore):  # type: ignore[misc]
        """Keras' store, which makes room for variables instead of asking for their values."""

        def _get_h5_file(self, path: Any, mode: Any = None) -> Any:
            return layout.opened()

        def __setitem__(self, key: str, value: Any) -> None:
            if not self._h5_entry_initialized:
                self._create_h5_group(self._h5_entry_path)
            item = layout.add(self._h5_entry_group, key, value)
            if str(value.dtype) == "bfloat16":
                item.attrs["dtype"] = "bfloat16"

    store = Store(layout.path, mode="w")
    try:
        saving_lib._save_state(model, store, None, "", set())
    finally:
        store.close()
    return layout.contents()


# Archives -------------------------------------------------------------------------------------------------------


def _pack(members: list[tuple[str, tuple[int, Blocks]]], target: Path) -> None:
    """A ZIP of stored members, each written block by block."""
    with zipfile.ZipFile(target, "w") as package:
        for name, (size, blocks) in members:
            _put(package, name, size, blocks)


def _put(package: zipfile.ZipFile, name: str, size: int, blocks: Blocks) -> None:
    info = _info(name)
    info.file_size = size
    with package.open(info, "w", force_zip64=size > zipfile.ZIP64_LIMIT // 2) as file:
        file.writelines(blocks)


def _info(name: str) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name, archive.ZIP_TIME)
    info.external_attr = (stat.S_IFREG | 0o644) << 16
    return info


def _of(text: str) -> tuple[int, Blocks]:
    content = text.encode()
    return len(content), [content]


def _npy_header(tensor: Stored) -> bytes:
    from numpy.lib import format as npy

    file = io.BytesIO()
    said = {"descr": npy.dtype_to_descr(tensor.dtype), "fortran_order": False, "shape": tuple(tensor.shape)}
    npy.write_array_header_1_0(file, said)
    return file.getvalue()


def _joined(header: bytes, tensor: Stored) -> Iterator[Any]:
    yield header
    yield from _tensors.blocks(tensor)
