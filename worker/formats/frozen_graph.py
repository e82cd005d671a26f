"""Frozen graph: a TensorFlow GraphDef in one file, its weights as constants.

Specification: ``tensorflow/core/framework/graph.proto``.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

from worker import archive
from worker.errors import IncompleteModel
from worker.formats import _frozen, _graphs
from worker.formats._format import Converter, Format, Hop, Loaded, Room, Sample, Summary

LABEL = "Frozen graph"
# Field 1 of a GraphDef, a node, that starts with fields 1 and 2: its name and the kind of its operation
NODE = re.compile(rb"\x0a([\x80-\xff]{0,4}[\0-\x7f])\x0a(.)([A-Za-z0-9.][\w>./-]*)", re.DOTALL)
KIND = re.compile(rb"\x12(.)([A-Za-z_][\w>]*)", re.DOTALL)
TEXT = re.compile(rb"^\s*(#[^\n]*\n\s*)*(node|versions|library)\s*:?\s*\{")
TEXT_NODE = re.compile(rb"\bop:\s*\"\w+\"")


def sniff(sample: Sample) -> bool:
    """A node with its name and its kind at the very start; or the same as text."""
    if sample.container != "file":
        return False
    return starts_with_node(sample.head) or is_text(sample.head)


def starts_with_node(head: bytes) -> bool:
    found = NODE.match(head)
    if not found or len(found[3]) < found[2][0]:
        return False
    end = found.start(3) + found[2][0]
    kind = KIND.match(head, end)
    return kind is not None and len(kind[2]) >= kind[1][0] > 0


def is_text(head: bytes) -> bool:
    return bool(TEXT.match(head)) and bool(TEXT_NODE.search(head))


def inspect(path: Path, scratch: Path) -> Summary:
    """Inputs, outputs and constants; the graph is built, and nothing of it runs."""
    graph = _graphs.pruned(_graphs.find_interface(_graphs.read(path)))
    weights = [(array.size, array.dtype.name) for _, array in _graphs.constants(graph.definition)]
    inputs = tuple(port.spec for port in graph.inputs)
    frozen = not _variables(graph)
    return Summary(
        inputs=inputs,
        outputs=tuple(port.spec for port in graph.outputs),
        parameters=sum(size for size, _ in weights),
        dtypes=tuple(sorted({dtype for _, dtype in weights})),
        traits=_graphs.facts(graph.definition, inputs) | ({"weights"} if frozen else set()),
    )


def load(path: Path, scratch: Path) -> Loaded:
    """The graph behind the inputs and outputs that it has; IncompleteModel where its weights are elsewhere."""
    graph = _read(path)
    return _graphs.loaded(graph, (_graphs.note(graph),))


def _read(path: Path) -> _graphs.Graph:
    graph = _graphs.pruned(_graphs.find_interface(_graphs.read(path)))
    if names := _variables(graph):
        raise IncompleteModel(
            name=path.name,
            found=f"a graph with {len(names)} variables ({', '.join(names[:3])})",
            missing="the checkpoint with their values",
            advice="Pack the graph and the files of the checkpoint (.index, .data-…) into one ZIP archive.",
        )
    return graph


def _variables(graph: _graphs.Graph) -> list[str]:
    return [node.name for node in graph.definition.node if node.op in _graphs.VARIABLES]


def to_saved_model(source: Path, target: Path, hop: Hop) -> None:
    """The graph as it is, with a signature for the inputs and outputs that it seems to have."""
    graph = _read(source)
    hop.add(_graphs.note(graph))
    pack_saved_model(graph, target, hop)


def pack_saved_model(graph: _graphs.Graph, target: Path, hop: Hop) -> None:
    folder = hop.scratch / "graph-saved-model"
    shutil.rmtree(folder, ignore_errors=True)
    _graphs.save(graph, folder)
    archive.pack(folder, target)
    shutil.rmtree(folder)


def from_saved_model(source: Path, target: Path, hop: Hop) -> None:
    """The signature with constants for variables; its inputs and outputs are nodes of the same names."""
    graph = _graphs.named(_frozen.plain(source, hop))
    content: Any = graph.definition
    target.write_bytes(content.SerializeToString(deterministic=True))


FORMAT = Format(
    label=LABEL,
    suffixes=(".pb", ".pbtxt"),
    sniff=sniff,
    inspect=inspect,
    load=load,
    converts_from={"saved_model": Converter(from_saved_model)},
    converts_to={"saved_model": Converter(to_saved_model)},
    keeps=frozenset({"graph", "weights"}),
    refuses={"tables": "A finished graph has no place for the words and numbers of lookup tables."},
    room=Room(limit=2**31, memory=5),
    snippet="""import tensorflow as tf

graph = tf.compat.v1.GraphDef()
with open("{file}", "rb") as file:
    graph.ParseFromString(file.read())
used = [name.split(":")[0].lstrip("^") for node in graph.node for name in node.input]
inputs = [node.name + ":0" for node in graph.node if node.op == "Placeholder"]
outputs = [node.name + ":0" for node in graph.node if node.op == "Identity" and node.name not in used]
imported = tf.compat.v1.wrap_function(lambda: tf.graph_util.import_graph_def(graph, name=""), [])
model = imported.prune(inputs, outputs)  # takes the inputs in this order, and returns a list
print(inputs, outputs)
""",
    needs=("tensorflow",),
)
