"""TensorFlow graphs and checkpoints: operations that reach beyond them, and tensors longer than their bytes."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from worker.errors import CorruptFile, UnsafeContent
from worker.formats import _graph_dangers, _graph_walk, _graphs, _saved_model, _strict_json
from worker.formats._screen import _keras, _said, _table
from worker.report import Finding

OPERATIONS = "operations that compute from the inputs and the weights, and files inside of the model's own folder"
NUMBERS = "variables whose numbers are in the file"
FREE = 1024**3  # bytes that a constant of one repeated number may have
KERAS_METADATA = "keras_metadata.pb"


def saved_model(folder: Path, place: str, stored: int, shards: Sequence[int]) -> Iterator[Finding]:
    """A SavedModel in its folder: its graph, its assets, its list of variables, and what Keras left beside it.

    ``shards``: how many bytes each file with numbers of variables has, wherever it lies."""
    try:
        proto = _saved_model.read_proto(folder)
    except UnsafeContent as error:
        yield _said.refuse(place, f"is unsafe: {error.details['reason']}", OPERATIONS)
        return
    for meta in proto.meta_graphs:
        yield from _constants(meta.graph_def, place, stored)
        for node in meta.object_graph_def.nodes:
            if node.user_object.metadata.startswith("{"):
                yield from _metadata(node.user_object.metadata, place, stored)
    if (folder / KERAS_METADATA).is_file():
        yield from _keras_metadata(folder / KERAS_METADATA, place, stored)
    yield from checkpoint(folder / "variables" / "variables", place, shards)


def frozen(path: Path, place: str) -> Iterator[Finding]:
    """A graph without variables: what its outputs need, which are the nodes that nothing else uses."""
    graph = _graphs.read(path)
    used = {name for node in graph.node for name in _graph_walk.operands(node)}
    ends = [node.name for node in graph.node if node.name not in used and not _graphs.ASIDE.match(node.op)]
    ends = [name for name in ends if not _graphs.TRAINING.search(name)]
    try:
        _graph_dangers.refuse(graph, ends)
    except UnsafeContent as error:
        yield _said.refuse(place, f"is unsafe: {error.details['reason']}", OPERATIONS)
    yield from _constants(graph, place, path.stat().st_size)


def _constants(graph: Any, place: str, stored: int) -> Iterator[Finding]:
    """Constants that are described by a shape and one number: TensorFlow makes all of them."""
    nodes = (*graph.node, *(node for function in graph.library.function for node in function.node_def))
    for node in nodes:
        if node.op == "Const":
            shape = node.attr["value"].tensor.tensor_shape
            count = math.prod(max(size.size, 0) for size in shape.dim)
            if count > max(FREE, 64 * stored):
                found = f"has a constant ({_said.short(node.name)}) of {count:,} numbers that it does not hold"
                yield _said.refuse(place, found, "constants whose numbers are in the file")


def _keras_metadata(file: Path, place: str, stored: int) -> Iterator[Finding]:
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
    from tf_keras.protobuf import saved_metadata_pb2

    try:
        nodes = saved_metadata_pb2.SavedMetadata.FromString(file.read_bytes()).nodes
    except DecodeError as error:
        raise CorruptFile(name=place, problem=f"{KERAS_METADATA} is no protocol buffer") from error
    for node in nodes:
        yield from _metadata(node.metadata, place, stored)


def _metadata(text: str, place: str, stored: int) -> Iterator[Finding]:
    """What Keras notes of a layer. TensorFlow does not read it, so the numbers in it may be any."""
    try:
        root = json.loads(text) if text else None
        _strict_json.checked(root)
    except (ValueError, RecursionError):
        return  # who reads it leaves it aside, too
    yield from _keras.of_graph(root, _keras.Described(place, stored))


def checkpoint(prefix: Path, place: str, shards: Sequence[int]) -> Iterator[Finding]:
    """The list of variables: what they take in all is not more than the files of their numbers hold, each of which has
    so many bytes."""
    index = prefix.with_name(f"{prefix.name}.index")
    if not index.is_file():
        return
    held, files = sum(shards), len(shards)
    try:
        listed = _listed(index)
    except (ValueError, IndexError) as error:
        raise CorruptFile(name=place, problem=f"{index.name} is not a list of variables") from error
    if listed.shards > max(files, 1):
        yield _said.refuse(place, f"is spread over {listed.shards:,} files, and has {files}", NUMBERS)
    for name, entry in listed.entries:
        problem = _entry_problem(entry, held, files)
        if problem:
            yield _said.refuse(place, f"{problem} for the variable {_said.short(name)}", NUMBERS)


@dataclass(frozen=True)
class _List:
    """The files that numbers are spread over, and each variable with its entry."""

    shards: int
    entries: list[tuple[str, Any]]


def _listed(index: Path) -> _List:
    from google.protobuf.message import DecodeError
    from tensorflow.core.protobuf import tensor_bundle_pb2

    rows = list(_table.rows(index.read_bytes()))
    header, entry = tensor_bundle_pb2.BundleHeaderProto, tensor_bundle_pb2.BundleEntryProto
    try:
        shards = sum(header.FromString(value).num_shards for key, value in rows if not key)
        return _List(shards, [(key.decode("utf-8", "replace"), entry.FromString(value)) for key, value in rows if key])
    except DecodeError as error:
        raise ValueError("no entry of a variable") from error


def _entry_problem(entry: Any, held: int, files: int) -> str:
    sizes = [size.size for size in entry.shape.dim]
    if min(sizes, default=0) < 0 or entry.offset < 0 or entry.size < 0:
        return "declares a negative size"
    if entry.offset + entry.size > held:
        return f"has {entry.offset + entry.size:,} bytes declared, and {held:,} there,"
    if not entry.slices and math.prod(sizes) > max(8 * held, 8):  # of half a byte each at least
        return f"declares {math.prod(sizes):,} numbers, and holds {held:,} bytes,"
    return f"names the file number {entry.shard_id} of {files}" if not 0 <= entry.shard_id < max(files, 1) else ""
