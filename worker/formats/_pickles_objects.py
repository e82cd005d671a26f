"""A model of early Keras 3 that was pickled as the Python object that it is, which only cloudpickle can.

The attributes of its layers stand in the pickle, and with them what each layer was made from (``_auto_config``), which
call gave which tensor (``_inbound_nodes``), and the values of the variables. From these the description is written
that ``get_config`` would have given; https://github.com/keras-team/keras/blob/v3.0.5/keras/models/functional.py.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from worker.errors import ModelError
from worker.formats._architecture import Architecture
from worker.formats._pickles import is_numeric, tensor
from worker.formats._pickles_values import UNKNOWN, Array, Name, Opaque, Table, text_of, walk
from worker.formats._pickles_weights import MAX_NODES, plain
from worker.formats._weights import Rows

if TYPE_CHECKING:
    from worker.formats._architecture import Node
    from worker.formats._tensors import Named

NETWORKS = {"Functional": "keras.src.models.functional", "Sequential": "keras"}  # by the modules that Keras 3 writes
# Arguments of layers that change nothing of what a trained layer computes, or are read elsewhere
NEUTRAL = re.compile(
    r"\w+_(initializer|regularizer|constraint)|name|dtype|trainable|autocast|seed|weights|kwargs|args|backward_layer"
    r"|lora_\w+|quantization_\w+|unroll|use_cudnn|flash_attention"
)
MAX_LAYERS = 10_000
MAX_DEPTH = 50


def is_model_object(value: Any) -> bool:
    """An instance of Keras' own model classes, with its attributes."""
    return _kind(value) in NETWORKS and _attribute(value, "_layers") is not None


def architecture(value: Opaque) -> Architecture:
    """What ``get_config`` of the object would give; ModelError where its attributes do not tell it."""
    return Architecture(_described(value, 0))


def rows(value: Opaque) -> Rows:
    """The variables of each layer, in Keras' order: its own, then those of the layers inside of it."""
    layers = [layer for layer in _layers(value) if _kind(layer) != "InputLayer"]
    return Rows([(_name(layer), list(_variables(layer, 0))) for layer in layers])


def _kind(value: Any) -> str:
    """The class of an instance of a class of Keras; "" for anything else."""
    callee = value.callee if isinstance(value, Opaque) and isinstance(value.state, Table) else None
    return callee.name if isinstance(callee, Name) and callee.module.startswith("keras.") else ""


def _attribute(value: Any, name: str) -> Any:
    state = value.state if isinstance(value, Opaque) else None
    return state.get(name) if isinstance(state, Table) else None


def _items(value: Any) -> list[Any]:
    """The elements of a list, or of the classes that Keras and TensorFlow make of lists."""
    if isinstance(value, Opaque):
        given = value.arguments[0] if isinstance(value.arguments, tuple) and value.arguments else ()
        value = value.items or given
    return list(value) if isinstance(value, (list, tuple)) and len(value) < MAX_LAYERS else []


def _layers(value: Opaque) -> list[Opaque]:
    return [item for item in _items(_attribute(value, "_layers")) if isinstance(item, Opaque)]


def _name(layer: Any) -> str:
    name = text_of(_attribute(layer, "name"))
    if name is None:
        raise ModelError(problem="a layer in this pickle has no name")
    return name


# The description ------------------------------------------------------------------------------------------------


def _described(layer: Opaque, depth: int) -> Node:
    if depth > MAX_DEPTH or not isinstance(layer.callee, Name):
        raise ModelError(problem="the model object in this pickle cannot be described")
    kind = layer.callee.name
    describe = {"Functional": _functional, "Sequential": _sequential}.get(kind)
    config = describe(layer, depth) if describe and _kind(layer) else _own_config(layer, depth)
    return {"module": _module(layer.callee), "class_name": kind, "config": config, "registered_name": None}


def _module(callee: Name) -> str:
    """The public module: the private ones moved from release to release."""
    if callee.name in NETWORKS:
        return NETWORKS[callee.name]
    return "keras.layers" if callee.module.startswith(("keras.src.layers.", "keras.layers.")) else callee.module


def _own_config(layer: Opaque, depth: int) -> dict[str, Any]:
    """What the layer was made from, with the name and the precision that it then had."""
    made_from = _attribute(_attribute(layer, "_auto_config"), "config")
    config: dict[str, Any] = (
        plain(made_from, [MAX_NODES]) if isinstance(made_from, Table) else _from_attributes(layer, depth)
    )
    precision = text_of(_attribute(_attribute(layer, "dtype_policy"), "_name"))
    known = {"name": _name(layer), **({"dtype": precision} if precision and "dtype" not in config else {})}
    return {**config, **known}


def _from_attributes(layer: Opaque, depth: int) -> dict[str, Any]:
    """Layers keep their arguments under the same names, those of recurrent ones in their cell; each must be found."""
    import keras

    cls = getattr(keras.layers, layer.callee.name, None)
    names = list(inspect.signature(cls).parameters) if isinstance(cls, type) else []
    return {name: _argument(layer, name, depth) for name in names if not NEUTRAL.fullmatch(name)}


def _argument(layer: Opaque, name: str, depth: int) -> Any:
    states = [item.state for item in (layer, _attribute(layer, "cell")) if isinstance(item, Opaque)]
    wanted = (name, f"_{name}", f"forward_{name}")  # a Bidirectional keeps its layer as two
    held = [pair for state in states if isinstance(state, Table) for pair in state.pairs]
    found = next((value for key in wanted for attribute, value in held if text_of(attribute) == key), UNKNOWN)
    if found is UNKNOWN:
        raise ModelError(problem=f"the pickle does not say what {name} of the layer {_name(layer)} is")
    if isinstance(found, Name) and found.module.startswith("keras."):
        return found.name
    if isinstance(found, Opaque) and _attribute(found, "_layers") is not None:
        return _described(found, depth + 1)
    return plain(found, [MAX_NODES])


def _sequential(model: Opaque, depth: int) -> dict[str, Any]:
    layers = [_described(layer, depth + 1) for layer in _layers(model)]
    return {"name": _name(model), "trainable": True, "layers": layers}


def _functional(model: Opaque, depth: int) -> dict[str, Any]:
    graph = _Graph.of(model)
    layers = []
    for operation in graph.operations:
        calls = [{"args": graph.plain(args), "kwargs": graph.plain(kwargs)} for args, kwargs in graph.calls(operation)]
        layers.append({**_described(operation, depth + 1), "name": _name(operation), "inbound_nodes": calls})
    ends = {"input_layers": "_inputs_struct", "output_layers": "_outputs_struct"}
    references = {key: graph.references(_attribute(model, attribute)) for key, attribute in ends.items()}
    return {"name": _name(model), "trainable": True, "layers": layers, **references}


@dataclass
class _Graph:
    """The calls of one functional model. A layer's calls in other models do not count, so the rest is numbered anew."""

    operations: list[Opaque]
    kept: dict[tuple[int, int], int] = field(default_factory=dict)  # (operation's id, old number) → new number

    @classmethod
    def of(cls, model: Opaque) -> _Graph:
        depths = _attribute(model, "_nodes_by_depth")
        pairs = depths.pairs if isinstance(depths, (Table, Opaque)) else []
        inside = {id(node) for _, nodes in pairs for node in _items(nodes)}
        listed = _items(_attribute(model, "_operations")) or _items(_attribute(model, "_layers"))
        graph = cls([item for item in listed if isinstance(item, Opaque)])
        for operation in graph.operations:
            numbers = [
                number
                for number, node in enumerate(_items(_attribute(operation, "_inbound_nodes")))
                if id(node) in inside
            ]
            graph.kept.update({(id(operation), old): new for new, old in enumerate(numbers)})
        return graph

    def calls(self, operation: Opaque) -> Iterator[tuple[Any, Any]]:
        """The arguments of each call of a layer; an input is not called."""
        for number, node in enumerate(_items(_attribute(operation, "_inbound_nodes"))):
            given = _attribute(node, "arguments")
            if (id(operation), number) in self.kept and _attribute(node, "is_input") is not True:
                yield _attribute(given, "args"), _attribute(given, "kwargs")

    def plain(self, value: Any, depth: int = 0) -> Any:
        """Arguments as JSON, tensors as Keras writes them there."""
        if depth > MAX_DEPTH:
            raise ModelError(problem="the arguments of a layer in this pickle are too deep")
        if _kind(value) == "KerasTensor":
            shape, dtype = _attribute(value, "shape"), text_of(_attribute(value, "dtype"))
            config = {"shape": plain(shape, [MAX_NODES]), "dtype": dtype, "keras_history": self.history(value)}
            return {"class_name": "__keras_tensor__", "config": config}
        if isinstance(value, (list, tuple)):
            return [self.plain(item, depth + 1) for item in value]
        if isinstance(value, Table) and (named := value.named()) is not None:
            return {key: self.plain(item, depth + 1) for key, item in named.items()}
        return plain(value, [MAX_NODES])

    def history(self, value: Any) -> list[Any]:
        """The layer that gave a tensor, which of its calls it was, and which of its outputs."""
        history = _attribute(value, "_keras_history")
        given = history.arguments if isinstance(history, Opaque) else ()
        if isinstance(given, tuple) and len(given) == 3 and (id(given[0]), given[1]) in self.kept:
            return [_name(given[0]), self.kept[id(given[0]), given[1]], given[2]]
        raise ModelError(problem="a tensor in this pickle comes from no layer of the model")

    def references(self, value: Any, depth: int = 0) -> Any:
        """Inputs or outputs of the model in their structure."""
        if _kind(value) == "KerasTensor":
            return self.history(value)
        if isinstance(value, Opaque) and value.pairs:
            value = Table(value.pairs)
        if isinstance(value, Table) and depth < MAX_DEPTH:
            return {key: self.references(item, depth + 1) for key, item in (value.named() or {}).items()}
        items = _items(value)
        if not items or depth >= MAX_DEPTH:
            raise ModelError(problem="the inputs and outputs of the model object are not in this pickle")
        return [self.references(item, depth + 1) for item in items]


# The weights ----------------------------------------------------------------------------------------------------


def _variables(layer: Any, depth: int) -> Iterator[Named]:
    if depth > MAX_DEPTH:
        raise ModelError(problem="the layers in this pickle are too deep inside of each other")
    for attribute in ("_trainable_variables", "_non_trainable_variables"):
        for variable in _items(_attribute(layer, attribute)):
            yield text_of(_attribute(variable, "name")) or "", tensor(_value(variable))
    for inner in _layers(layer):
        yield from _variables(inner, depth + 1)


def _value(variable: Any) -> Array:
    """The array that the variable of the backend was to be made from."""
    held = walk(_attribute(variable, "_value"))
    found = next((item for item in held if isinstance(item, Array) and is_numeric(item)), None)
    if found is None:
        raise ModelError(problem="a variable of the model object in this pickle has no values")
    return found
