"""Object-based checkpoints of TensorFlow 2 (``ckpt.index`` and ``ckpt.data-00000-of-00001``), read without restoring.

A checkpoint holds its own object graph: which object had which other one under which name. Weights are found by
walking that graph beside the layers that were built from the architecture: the k-th layer with weights in the one is
the k-th in the other, and inside a layer every variable is known by its attribute. No operation runs.
Layout: tensorflow/core/protobuf/trackable_object_graph.proto.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from worker.errors import CorruptFile, ModelError, WeightsMismatch
from worker.formats import _weights
from worker.formats._files import files_below, the_only
from worker.formats._rebuild import Part

if TYPE_CHECKING:
    import numpy as np

GRAPH_KEY = "_CHECKPOINTABLE_OBJECT_GRAPH"
# Where models keep their layers: Keras 2 numbers them, Keras 3 keeps lists.
_NUMBERED = re.compile(r"layer_with_weights-(\d+)")
_LISTS = ("_operations", "_layers", "layers")
# Parts of a model that are not its weights, though they lead to variables.
_BESIDE = re.compile(r"optimizer|.*_function|keras_api|signatures|save_counter|token_counts|_compile.*|loss.*|metrics")
# Attributes that Keras 3 calls otherwise.
_RENAMED = {"mean": "adapt_mean", "variance": "adapt_variance", "depthwise_kernel": "kernel"}


def prefix_in(folder: Path, name: str) -> Path:
    """The path that names the one checkpoint below a folder, without ``.index``; the latest where several were kept."""
    found = files_below(folder, lambda name: name.endswith(".index"))
    latest = _latest(folder)
    if latest in found:
        found = [latest]
    return the_only(found, folder, name, "the .index file of a checkpoint").with_suffix("")


def _latest(folder: Path) -> Path | None:
    """What the text file ``checkpoint`` calls the newest one. Its path is of another machine, so the name counts."""
    texts = files_below(folder, lambda name: name == "checkpoint")
    text = texts[0].read_text(encoding="utf-8", errors="replace") if len(texts) == 1 else ""
    stated = re.search(r'^model_checkpoint_path:\s*"([^"]+)"', text, re.MULTILINE)
    return texts[0].parent / f"{stated[1].replace(chr(92), '/').rsplit('/')[-1]}.index" if stated else None


@dataclass(frozen=True)
class Objects:
    """The weights of a model in a checkpoint, found by the structure of its objects."""

    prefix: Path

    def fill(self, part: Part) -> None:
        """Give every variable of the model its own tensor; WeightsMismatch where one is missing or does not fit."""
        attempts = [self._attempt(root) for root in self._roots(part)]
        fitting = [pairs for pairs in attempts if not isinstance(pairs, WeightsMismatch)]
        if not fitting:
            raise next(error for error in attempts if isinstance(error, WeightsMismatch))
        if len({frozenset(pairs) for pairs in fitting}) > 1:
            raise ModelError(problem="the checkpoint holds several models that fit the architecture")
        variables = {id(variable): variable for variable in _weights.variables_of(part)}
        for node, variable in fitting[0].items():
            variables[variable].assign(self.array(node))

    def _attempt(self, root: _Root) -> dict[int, int] | WeightsMismatch:
        """Nodes of the graph beside the ids of variables."""
        try:
            return _Alignment(self).align(root.part, root.node)
        except WeightsMismatch as error:
            return error

    def _roots(self, part: Part) -> list[_Root]:
        """The whole checkpoint where it is a model, else what people called ``model=…`` in ``tf.train.Checkpoint``."""
        if self.layers(0) is not None:
            return [_Root(part, 0)]
        children = [child for name, child in self.children(0).items() if self.weights_below(child)]
        return [_Root(part, child) for child in children] or [_Root(part, 0)]

    def vocabularies(self, names: list[str]) -> dict[str, list[Any]]:
        """The tables of the named layers in the order of the model, as TensorFlow 2.3 to 2.5 kept them."""
        found = [key for key in self._dtypes if key.endswith("/table-keys") and "token_counts" not in key]
        ordered = sorted(found, key=lambda key: [int(number) for number in re.findall(r"\d+", key)])
        tables = [table for table in map(self._table, ordered) if table]
        return dict(zip(names, tables, strict=True)) if len(tables) == len(names) else {}

    def _table(self, key: str) -> list[Any]:
        """The words of a table by their numbers."""
        numbers = self._reader.get_tensor(key.removesuffix("table-keys") + "table-values").tolist()
        pairs = sorted(zip(numbers, self._reader.get_tensor(key).tolist(), strict=True))
        return [word.decode() if isinstance(word, bytes) else word for _, word in pairs]

    @property
    def has_optimizer(self) -> bool:
        return bool(self._optimizer_nodes())

    @cached_property
    def _optimizer(self) -> Any:
        """The node of the optimizer: beside the model, or below it as ``compile`` leaves it."""
        pending, seen = [0], set()
        while pending:
            node = pending.pop(0)
            seen.add(node)
            for child in self._nodes[node].children:
                if child.local_name == "optimizer":
                    return self._nodes[child.node_id]
                if child.node_id not in seen and node == 0:
                    pending.append(child.node_id)
        return None

    def optimizer_variables(self) -> list[tuple[str, np.ndarray]]:
        """The optimizer's counter and values under their full names, in the order in which they were made."""
        return [(self._nodes[node].attributes[0].full_name, self.array(node)) for node in self._optimizer_nodes()]

    def _optimizer_nodes(self) -> list[int]:
        if self._optimizer is None:
            return []
        children = {child.local_name: child.node_id for child in self._optimizer.children}
        if "_variables" in children:
            listed = self._nodes[children["_variables"]].children
            return [child.node_id for child in sorted(listed, key=lambda child: int(child.local_name))]
        return [*([children["iter"]] if "iter" in children else []), *self._slots()]

    def _slots(self) -> list[int]:
        """The values of an optimizer of up to Keras 2.10: kind after kind, each in the order of the weights."""
        found = list(self._optimizer.slot_variables)
        kinds = list(dict.fromkeys(slot.slot_name for slot in found))
        listed = self._nodes[self.children(0).get("variables", 0)].children
        place = {child.node_id: int(child.local_name) for child in listed if child.local_name.isdigit()}
        ordered = sorted(
            found, key=lambda slot: (kinds.index(slot.slot_name), place.get(slot.original_variable_node_id, 0))
        )
        return [slot.slot_variable_node_id for slot in ordered]

    @cached_property
    def _reader(self) -> Any:
        import tensorflow as tf

        try:
            return tf.train.load_checkpoint(str(self.prefix))
        except (ValueError, tf.errors.OpError) as error:
            name = self.prefix.name
            problem = f"its data does not belong to its index ({str(error).splitlines()[0][:200]})"
            raise CorruptFile(name=name, problem=problem) from error

    @cached_property
    def _nodes(self) -> list[Any]:
        from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
        from tensorflow.core.protobuf import trackable_object_graph_pb2

        if not self._reader.has_tensor(GRAPH_KEY):
            raise ModelError(problem="the checkpoint is one of TensorFlow 1, which holds names of a graph, not layers")
        try:
            graph = trackable_object_graph_pb2.TrackableObjectGraph.FromString(self._reader.get_tensor(GRAPH_KEY))
        except DecodeError as error:
            raise CorruptFile(name=self.prefix.name, problem="its object graph cannot be read") from error
        return list(graph.nodes)

    @cached_property
    def _dtypes(self) -> dict[str, Any]:
        return dict(self._reader.get_variable_to_dtype_map())

    def children(self, node: int) -> dict[str, int]:
        """What a node has, by name; without what leads away from the model."""
        found = {child.local_name: child.node_id for child in self._nodes[node].children}
        return {name: child for name, child in found.items() if not _BESIDE.fullmatch(name)}

    def is_weight(self, node: int) -> bool:
        """Does the node hold numbers that a layer computes with? Counters and random states are whole numbers."""
        return any(_is_floating(self._dtypes.get(item.checkpoint_key)) for item in self._nodes[node].attributes)

    def array(self, node: int) -> np.ndarray:
        found: np.ndarray = self._reader.get_tensor(self._nodes[node].attributes[0].checkpoint_key)
        return found

    def shape(self, node: int) -> tuple[int, ...]:
        shapes = self._reader.get_variable_to_shape_map()
        return tuple(shapes[self._nodes[node].attributes[0].checkpoint_key])

    def weights_below(self, node: int) -> list[int]:
        """Every weight that can be reached from a node."""
        seen: set[int] = set()
        pending = [node]
        while pending:
            current = pending.pop()
            if current not in seen:
                seen.add(current)
                pending += self.children(current).values()
        return sorted(item for item in seen if self.is_weight(item))

    def layers(self, node: int) -> list[int] | None:
        """The layers of a model that hold weights, in the model's order; None where the node is no such model."""
        children = self.children(node)
        numbered = {int(found[1]): child for name, child in children.items() if (found := _NUMBERED.fullmatch(name))}
        if numbered:
            return self._with_weights([numbered[number] for number in sorted(numbered)])
        if "_functional" in children:
            return self.layers(children["_functional"])
        listed = next((self.children(children[name]) for name in _LISTS if name in children), {})
        numbers = sorted((int(name), child) for name, child in listed.items() if name.isdigit())
        return self._with_weights([child for _, child in numbers]) if numbers else None

    def _with_weights(self, nodes: list[int]) -> list[int]:
        return [node for node in dict.fromkeys(nodes) if self.weights_below(node)]


@dataclass(frozen=True)
class _Root:
    part: Part
    node: int


def _is_floating(dtype: Any) -> bool:
    return dtype is not None and bool(dtype.is_floating or dtype.is_complex)


class _Alignment:
    """Weights of the graph beside variables of the model, as far as the walk has come."""

    def __init__(self, objects: Objects) -> None:
        self.objects = objects
        self.pairs: dict[int, int] = {}
        self.taken: dict[int, int] = {}

    def align(self, part: Part, node: int) -> dict[int, int]:
        """Node numbers beside ids of variables, one for one and complete."""
        self._part(part, node)
        wanted = _weights.without_counters(_weights.variables_of(part))
        left = [item for item in wanted if id(item) not in self.taken]
        if left:
            problem = f"the checkpoint has no weights for {_weights.variable_path(left[0])}"
            raise WeightsMismatch(problem=problem)
        return self.pairs

    def _part(self, part: Part, node: int) -> None:
        layers = self.objects.layers(node)
        if not part.parts or layers is None:
            self._object(part.layer, part.name, node)
            return
        parts = [inner for inner in part.parts if _weights.variables_of(inner)]
        if len(parts) != len(layers):
            problem = f"{part.name} has {len(parts)} layers with weights, the checkpoint has {len(layers)}"
            raise WeightsMismatch(problem=problem)
        for inner, child in zip(parts, layers, strict=True):
            self._part(inner, child)

    def _object(self, owner: Any, name: str, node: int) -> None:
        """A layer, or a list of layers or variables: by the names of its attributes."""
        for attribute, child in self.objects.children(node).items():
            if not self.objects.weights_below(child):
                continue
            found = _attribute(owner, attribute)
            if found is not None:
                self._value(found, f"{name}.{attribute}", child)
            elif not attribute.startswith("_"):  # private lists repeat what public attributes hold
                raise WeightsMismatch(problem=f"{name} has nothing called {attribute}")

    def _value(self, found: Any, name: str, node: int) -> None:
        if self.objects.is_weight(node):
            self._pair(found, name, node)
        elif hasattr(found, "layers") and self.objects.layers(node) is not None:
            self._part(_weights.part_of(found), node)
        else:
            self._object(found, name, node)

    def _pair(self, variable: Any, name: str, node: int) -> None:
        shape = tuple(getattr(variable, "shape", ()))
        if not hasattr(variable, "assign") or shape != self.objects.shape(node):
            problem = f"{name} has the shape {shape}, the checkpoint's has {self.objects.shape(node)}"
            raise WeightsMismatch(problem=problem)
        other = self.pairs.setdefault(node, id(variable)), self.taken.setdefault(id(variable), node)
        if other != (id(variable), node):
            raise WeightsMismatch(problem=f"{name} is one variable here and two in the checkpoint, or the reverse")


def _attribute(owner: Any, name: str) -> Any:
    """What the living object calls by this name; releases differ in an underscore."""
    if name.isdigit():
        return owner[int(name)] if isinstance(owner, (list, tuple)) and int(name) < len(owner) else None
    if isinstance(owner, dict):
        return owner.get(name)
    spellings: Iterator[str] = iter((name, f"_{name}", name.lstrip("_"), _RENAMED.get(name, name)))
    return next((item for spelling in spellings if (item := getattr(owner, spelling, None)) is not None), None)
