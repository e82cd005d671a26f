"""Files that hold Keras layers, opened for changing: a description in JSON, and arrays in HDF5, npz or safetensors."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from bench._mutations import EPSILON_FACTORS, Array, Change, File
from bench._settings import changed_settings, similar

Json = Any
Members = dict[str, bytes]
SAME_SHAPE = frozenset(
    {"BatchNormalization", "LayerNormalization", "Activation", "ReLU", "Add", "Normalization", "MultiHeadAttention"}
)
ACTIVATIONS = frozenset({"Activation", "ReLU", "ELU", "LeakyReLU", "Softmax"})


# Packages -------------------------------------------------------------------------------------------------------


def read_zip(path: Path) -> Members:
    with zipfile.ZipFile(path) as archive:
        return {info.filename: archive.read(info) for info in archive.infolist() if not info.is_dir()}


def write_zip(members: Members, target: Path) -> None:
    with zipfile.ZipFile(target, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)


def _ending(members: Members, ending: str) -> str:
    return next(name for name in members if name.endswith(ending))


# The arrays -----------------------------------------------------------------------------------------------------


def read_hdf5(content: bytes) -> dict[str, Array]:
    """The floating data sets by path, without an optimizer's."""
    import h5py

    found: dict[str, Array] = {}

    def visit(name: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset) and item.dtype.kind == "f" and "optimizer" not in name:
            found[name] = item[()]

    with h5py.File(io.BytesIO(content), "r") as file:
        file.visititems(visit)
    return {name: np.asarray(array) for name, array in found.items()}


def written_hdf5(content: bytes, tensors: dict[str, Array], config: Json = None) -> bytes:
    """The file with these data sets, and with this description where there is one."""
    import h5py

    buffer = io.BytesIO(content)
    with h5py.File(buffer, "r+") as file:
        for name, array in tensors.items():
            file[name][...] = array
        if config is not None:
            file.attrs["model_config"] = json.dumps(config)
    return buffer.getvalue()


def read_npz(content: bytes) -> dict[str, Array]:
    with np.load(io.BytesIO(content), allow_pickle=False) as stored:
        return {name: stored[name] for name in stored.files}


def written_npz(content: bytes, tensors: dict[str, Array]) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **{**read_npz(content), **tensors})
    return buffer.getvalue()


def read_safetensors(content: bytes) -> dict[str, Array]:
    from safetensors.numpy import load

    return {name: array.copy() for name, array in load(content).items()}


def written_safetensors(content: bytes, tensors: dict[str, Array]) -> bytes:
    """The bytes of each array in its place, so that the order in the file stays."""
    length = int.from_bytes(content[:8], "little")
    header, data = json.loads(content[8 : 8 + length]), bytearray(content)
    for name, array in tensors.items():
        start, end = (8 + length + at for at in header[name]["data_offsets"])
        data[start:end] = np.ascontiguousarray(array).tobytes()
    return bytes(data)


Reader = Callable[[bytes], dict[str, Array]]
Writer = Callable[[bytes, dict[str, Array]], bytes]
HDF5: tuple[Reader, Writer] = (read_hdf5, written_hdf5)
NPZ: tuple[Reader, Writer] = (read_npz, written_npz)
SAFETENSORS: tuple[Reader, Writer] = (read_safetensors, written_safetensors)


def _floating(tensors: dict[str, Array]) -> dict[str, Array]:
    return {name: array for name, array in tensors.items() if array.dtype.kind == "f"}


# The formats ----------------------------------------------------------------------------------------------------


def open_h5(path: Path, scratch: Path) -> File:
    import h5py

    content = path.read_bytes()
    with h5py.File(io.BytesIO(content), "r") as file:
        config = json.loads(file.attrs["model_config"])
    tensors = read_hdf5(content)
    return File(tensors, layer_changes(config), lambda target: _store(target, written_hdf5(content, tensors, config)))


def _store(target: Path, content: bytes) -> None:
    target.write_bytes(content)


def open_safetensors(path: Path, scratch: Path) -> File:
    content = path.read_bytes()
    tensors = _floating(read_safetensors(content))
    return File(tensors, {}, lambda target: _store(target, written_safetensors(content, tensors)))


def open_pair(description: str, weights: str, arrays: tuple[Reader, Writer]) -> Callable[[Path, Path], File]:
    """A reader of archives with a description and a file of arrays, each known by how its name ends."""

    def opened(path: Path, scratch: Path) -> File:
        members = read_zip(path)
        text, store = _ending(members, description), _ending(members, weights)
        config, tensors = json.loads(members[text]), _floating(arrays[0](members[store]))

        def write(target: Path) -> None:
            changed = {text: json.dumps(config).encode(), store: arrays[1](members[store], tensors)}
            write_zip({**members, **changed}, target)

        return File(tensors, layer_changes(config), write)

    return opened


open_keras = open_pair("config.json", "model.weights.h5", HDF5)
open_weights_h5 = open_pair("architecture.json", ".weights.h5", HDF5)
open_json_npz = open_pair("architecture.json", ".npz", NPZ)
open_json_safetensors = open_pair("architecture.json", ".safetensors", SAFETENSORS)


def open_data_pickle(path: Path, scratch: Path) -> File:
    """The .keras file inside, wrapped again with its new digest."""
    from worker.formats import data_pickle

    inner = data_pickle.take_out(path, scratch)
    file = open_keras(inner, scratch)
    store = file.write

    def write(target: Path) -> None:
        store(inner)
        data_pickle._wrap(inner, target)

    file.write = write
    return file


def open_tfjs_layers(path: Path, scratch: Path) -> File:
    members = read_zip(path)
    name = _ending(members, "model.json")
    root = json.loads(members[name])
    tensors = read_shards(root, members)

    def write(target: Path) -> None:
        write_zip({**members, name: json.dumps(root).encode(), **written_shards(root, members, tensors)}, target)

    topology = root["modelTopology"]
    return File(tensors, layer_changes(topology.get("model_config", topology)), write)


# The shards of TensorFlow.js ------------------------------------------------------------------------------------


def read_shards(root: Json, members: Members) -> dict[str, Array]:
    """The float32 tensors of the manifest."""
    return {
        entry["name"]: np.frombuffer(data, "<f4", len(data) // 4).reshape(entry["shape"]).copy()
        for entry, data in _stored(root, members)
        if entry["dtype"] == "float32"
    }


def written_shards(root: Json, members: Members, tensors: dict[str, Array]) -> Members:
    """The shards with these tensors, cut where they were."""
    new = b"".join(
        tensors[entry["name"]].astype("<f4").tobytes() if entry["name"] in tensors else data
        for entry, data in _stored(root, members)
    )
    found, at = {}, 0
    for name in _shards(root, members):
        found[name] = new[at : at + len(members[name])]
        at += len(members[name])
    return found


def _shards(root: Json, members: Members) -> list[str]:
    return [_ending(members, path) for group in root["weightsManifest"] for path in group["paths"]]


def _stored(root: Json, members: Members) -> Iterator[tuple[Json, bytes]]:
    data, at = b"".join(members[name] for name in _shards(root, members)), 0
    for group in root["weightsManifest"]:
        for entry in group["weights"]:
            width = {"bool": 1, "uint8": 1, "complex64": 8}.get(entry["dtype"], 4)
            size = width * int(np.prod(entry["shape"], dtype=int))
            yield entry, data[at : at + size]
            at += size


# The layers -----------------------------------------------------------------------------------------------------


def layer_changes(config: Json) -> dict[str, list[Change]]:
    """What can be changed in a description of layers, of Keras 2 or Keras 3."""
    return {
        "outputs swapped": list(_output_swaps(config["config"])),
        "activation dropped": [*_activations(config), *_bypasses(config, ACTIVATIONS)],
        "epsilon changed": list(_epsilons(config)),
        "layer bypassed": list(_bypasses(config, SAME_SHAPE)),
        "setting changed": list(_settings(config)),
        "operation exchanged": list(_exchanges(config)),
        "inputs swapped": list(_input_swaps(config["config"])),
    }


# What a layer is called, what only training reads, and what the shapes of weights follow from
NO_SETTINGS = frozenset(
    {
        *("name", "trainable", "dtype", "batch_shape", "batch_input_shape", "seed", "momentum", "rate", "dropout"),
        *("recurrent_dropout", "synchronized", "unroll", "stateful", "implementation", "zero_output_for_mask"),
        *("registered_name", "is_graph_network", "cache_output", "invert", "use_bias", "center", "units", "optional"),
        *("filters", "kernel_size", "batch_size", "return_state", "reset_after", "autocast", "num_spatial_dims"),
        *("sparse", "ragged"),
    }
)
INITIALIZERS = frozenset({"GlorotUniform", "Zeros", "Ones", "Orthogonal", "RandomUniform", "RandomNormal"})


def _settings(config: Json) -> Iterator[Change]:
    """Of every layer, and of every call of one."""
    for kind, inner in _described(config["config"]):
        if kind not in INITIALIZERS and "layers" not in inner:
            yield from _settings_of(f"{kind} {inner.get('name')}", kind, inner)
    for layer in _layers(config):
        for node in layer.get("inbound_nodes", []):
            kwargs = node.get("kwargs") if isinstance(node, dict) else None
            if isinstance(kwargs, dict):
                yield from changed_settings(f"call of {layer['config'].get('name')}", kwargs, kwargs.__setitem__)


def _settings_of(label: str, kind: str, inner: Json) -> Iterator[Change]:
    yield from changed_settings(label, inner, inner.__setitem__, NO_SETTINGS)
    if kind == "ReLU" and inner.get("max_value") is None:
        yield Change(f"{label}.max_value = 6", partial(inner.__setitem__, "max_value", 6.0))
    vocabulary = inner.get("vocabulary")
    if isinstance(vocabulary, list) and len(vocabulary) > 1:
        yield Change(f"{label}.vocabulary", partial(_swap_last, vocabulary))


def _swap_last(entries: list[Any]) -> None:
    entries[-1], entries[-2] = entries[-2], entries[-1]


def _layers(value: Json) -> Iterator[Json]:
    if isinstance(value, dict):
        if "class_name" in value and isinstance(value.get("config"), dict):
            yield value
        value = list(value.values())
    if isinstance(value, list):
        for item in value:
            yield from _layers(item)


def _exchanges(config: Json) -> Iterator[Change]:
    for layer in _layers(config):
        for other in similar(layer["class_name"]):
            label = f"{layer['class_name']} {layer['config'].get('name')} → {other}"
            yield Change(label, partial(layer.__setitem__, "class_name", other))


def _input_swaps(config: Json) -> Iterator[Change]:
    inputs = config.get("input_layers")
    if isinstance(inputs, list) and len(inputs) > 1 and isinstance(inputs[0], list):
        yield Change("order of the inputs", inputs.reverse)


def _described(value: Json) -> Iterator[tuple[str, Json]]:
    """Every object of a class with its config, at any depth."""
    if isinstance(value, dict):
        if isinstance(value.get("config"), dict) and "class_name" in value:
            yield str(value["class_name"]), value["config"]
        value = list(value.values())
    if isinstance(value, list):
        for item in value:
            yield from _described(item)


def _output_swaps(config: Json) -> Iterator[Change]:
    outputs = config.get("output_layers")
    if isinstance(outputs, list) and len(outputs) > 1 and isinstance(outputs[0], list):
        yield Change("order of the outputs", outputs.reverse)


def _activations(config: Json) -> Iterator[Change]:
    for kind, inner in _described(config):
        for key in ("activation", "recurrent_activation"):
            if kind not in ACTIVATIONS and inner.get(key) not in (None, "linear"):
                yield _set(inner, key, "linear")


def _epsilons(config: Json) -> Iterator[Change]:
    for _, inner in _described(config):
        if isinstance(inner.get("epsilon"), float):
            for factor in EPSILON_FACTORS:
                yield _set(inner, "epsilon", inner["epsilon"] * factor)


def _set(config: Json, key: str, value: Json) -> Change:
    return Change(f"{config.get('name')}.{key} = {value}", partial(config.update, {key: value}))


def _bypasses(config: Json, kinds: frozenset[str]) -> Iterator[Change]:
    """Layers left out: of a list, or by handing their first input to whatever used them."""
    for network, inner in [(config["class_name"], config["config"]), *_described(config["config"])]:
        for layer in inner["layers"] if isinstance(inner.get("layers"), list) else ():
            if layer["class_name"] in kinds:
                change = _leave_out if network == "Sequential" else _lead_around
                name = layer["config"]["name"]
                yield Change(name, partial(change, inner, layer))


def _leave_out(network: Json, layer: Json) -> None:
    network["layers"].remove(layer)


def _lead_around(network: Json, layer: Json) -> None:
    name = layer["config"]["name"]
    source = next(_references(layer["inbound_nodes"]))[:3]
    for other in [item for item in network["layers"] if item is not layer]:
        for reference in _references(other.get("inbound_nodes", [])):
            if reference[0] == name:
                reference[:3] = source
    for reference in _references(network.get("output_layers", [])):
        if reference[0] == name:
            reference[:3] = source


def _references(value: Json) -> Iterator[list[Any]]:
    """``[layer, node, tensor, …]``, as both releases write them."""
    if isinstance(value, list):
        if len(value) >= 3 and isinstance(value[0], str) and isinstance(value[1], int) and isinstance(value[2], int):
            yield value
            return
        for item in value:
            yield from _references(item)
    if isinstance(value, dict):
        for item in value.values():
            yield from _references(item)
