"""A Keras 3 model from an architecture of any era: this module reads the graph itself and calls the layers.

Keras 3 reads its own configs; what older releases wrote differs in arguments, in the numbering of calls and in the way
tensors are referred to. So layers are made one by one from repaired configs (``_repairs``) and called as the file's
``inbound_nodes`` say. The result keeps the file's layers in the file's order, because that order is what weights
files of every era rely on.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from worker.errors import LambdaRefused, LarderError, ModelError
from worker.formats import _agreed, _lambdas, _masks, _ops, _registry, _repairs
from worker.formats._architecture import (
    CONSTANT,
    Architecture,
    Node,
    flat_references,
    input_shape_of,
    is_lambda,
    is_network,
    is_reference,
    layers_of,
    name_of,
    objects,
    refuse_unsafe,
)
from worker.report import Finding

LEGACY_NAMES = frozenset(_repairs.RENAMED_CLASSES) | _ops.OPERATION_LAYERS | {"ThresholdedReLU", "Merge"}


@dataclass
class Part:
    """One layer of the file beside what was built for it; networks have parts of their own."""

    name: str
    kind: str
    layer: Any
    parts: list[Part] = field(default_factory=list)


@dataclass
class Rebuilt:
    """A model that was rebuilt, and its layers in the file's order."""

    model: Any
    part: Part
    findings: list[Finding]


@dataclass
class _Site:
    """What the whole rebuilding shares."""

    legacy: bool
    findings: list[Finding] = field(default_factory=list)
    calls: dict[int, dict[str, Any]] = field(default_factory=dict)  # by the id of a layer: arguments for its calls
    of_tf_1: bool = False
    root: Node = field(default_factory=dict)
    masks_of_keras_2: bool = False  # do they matter to any layer, and are they others than those of Keras 3?
    names: dict[str, str] = field(default_factory=dict)  # every name that is taken, and what it is in the file

    def note(self, *findings: Finding) -> None:
        self.findings.extend(item for item in findings if item not in self.findings)


def rebuild(architecture: Architecture) -> Rebuilt:
    """The model, with fresh weights. LambdaRefused and CustomCode come first: nothing is built from such a file."""
    refuse_unsafe(architecture)
    _registry.refuse_unknown(architecture, LEGACY_NAMES)
    names = {name: name for name in map(name_of, objects(architecture.root))}
    site = _Site(architecture.legacy, of_tf_1=architecture.may_be_of_tf_1, root=architecture.root, names=names)
    site.masks_of_keras_2 = architecture.legacy and any(map(_uses_a_mask, objects(architecture.root)))
    try:
        part = _part(architecture.root, site)
    except LarderError:
        raise
    except Exception as error:  # a description that is not what it should be can fail anywhere
        raise ModelError(problem=f"its description cannot be followed ({type(error).__name__}: {error})") from error
    return Rebuilt(part.layer, part, site.findings)


def _uses_a_mask(node: Node) -> bool:
    kind = node["class_name"]
    return _registry.uses_a_mask({**node, "class_name": _repairs.RENAMED_CLASSES.get(kind, kind)})


def _part(node: Node, site: _Site) -> Part:
    if node["class_name"] == "Sequential":
        return _sequential(node, site)
    if is_network(node):
        return _Network(node, site).build()
    return Part(name_of(node), node["class_name"], _layer(node, site))


def _layer(node: Node, site: _Site) -> Any:
    """One layer from its repaired config; ModelError names it where Keras refuses."""
    if node["class_name"] in _ops.OPERATION_LAYERS:
        return _operation(node, site)
    if is_lambda(node):
        return _lambda(node, site)
    if _is_operation(node):
        return _registry.operation_classes()[node["class_name"]].from_config(dict(node["config"]))
    try:
        return _construct(node, site)
    except LarderError:
        raise
    except Exception as error:  # Keras raises whatever its constructors meet
        raise ModelError(problem=f"layer {name_of(node)} ({node['class_name']}) cannot be built: {error}") from error


def _is_operation(node: Node) -> bool:
    """Keras 3 stores ``x * 2`` under the class name of the layer Multiply, but every layer says ``trainable``."""
    return node["class_name"] in _registry.operation_classes() and "trainable" not in node["config"]


def _operation(node: Node, site: _Site) -> Callable[..., Any]:
    name, new, call = _ops.operation(node)
    site.note(_ops.REPLACED(operation=name, new=new))
    return call


def _lambda(node: Node, site: _Site) -> Any:
    """What a Lambda layer was read as; it becomes a model of operations where it is called. One that is not understood
    is run, where somebody agreed to that."""
    name, config = name_of(node), node["config"]
    draft = _repairs.Draft("Lambda", {"name": name, "dtype": config.get("dtype")}, site.legacy)
    _repairs.name_policy(draft)
    _rename(draft.config, site)
    try:
        reading = _lambdas.reading(name, config, of_tf_1=site.of_tf_1)
    except LambdaRefused as error:
        if not _agreed.allowed():
            raise
        site.note(_agreed.RUN(layer=name, problem=error.details["problem"]))
        return _agreed.layer(draft.config["name"], config, draft.config["dtype"])
    site.note(_lambdas.READ(layer=reading.name, formula=reading.text))
    return _lambdas.Block(reading, draft.config["name"], _compute_type(draft.config["dtype"]))


def _compute_type(policy: Any) -> str | None:
    """The type that a layer of this policy computes in; None where it says nothing."""
    import keras

    return str(keras.dtype_policies.get(policy).compute_dtype) if isinstance(policy, str) else None


def _construct(node: Node, site: _Site) -> Any:
    custom = _registry.custom_object(node)
    draft = _repairs.Draft(node["class_name"], _spelled(node["config"]), site.legacy)
    known = _registry.layer_classes()
    _repairs.repair(
        draft, lambda kind: frozenset(draft.config) if custom else _registry.accepted_arguments(known[kind])
    )
    site.note(*draft.findings)
    _rename(draft.config, site)
    nested = {key: _nested(value, site) for key, value in draft.config.items() if key in _NESTED}
    if isinstance(nested.get("layer"), _lambdas.Block) and draft.kind == "TimeDistributed":
        return _lambdas.EachStep(nested["layer"], draft.config["name"], folds=site.legacy)
    cls = custom or known[draft.kind]
    made = cls(**{**draft.config, **nested}) if nested else cls.from_config(draft.config)
    if draft.call:
        site.calls[id(made)] = draft.call
    return made


_NESTED = ("layer", "backward_layer", "cell", "cells")


def _spelled(config: Any) -> dict[str, Any]:
    """A copy of a layer's config; old Bidirectional layers have one empty ``backward_layer``."""
    return {key: value for key, value in dict(config).items() if not (key == "backward_layer" and value is None)}


def _nested(value: Any, site: _Site) -> Any:
    if isinstance(value, list):
        return [_part(item, site).layer for item in value]
    return _part(value, site).layer if isinstance(value, dict) else value


def _rename(config: dict[str, Any], site: _Site) -> None:
    name = config.get("name")
    if isinstance(name, str):
        config["name"] = _without_slash(name, site)


def _without_slash(name: str, site: _Site) -> str:
    """The name as Keras 3 takes it; where that is another one, it is told."""
    if "/" not in name:
        return name
    new = _free_name(name, site)
    site.note(_repairs.RENAMED_LAYER(name=name, new=new))
    return new


def _free_name(name: str, site: _Site) -> str:
    """The name without its slash, and with a number where another layer has it."""
    clean, count = _repairs.clean_name(name), 0
    while site.names.setdefault(f"{clean}_{count}" if count else clean, name) != name:
        count += 1
    return f"{clean}_{count}" if count else clean


def _sequential(node: Node, site: _Site) -> Part:
    """A stack of layers. Where the file declares no input shape, the stack is built by whoever calls it."""
    import keras

    config = node["config"] if isinstance(node["config"], dict) else {}
    nodes = layers_of(node)
    parts = [_part(item, site) for item in nodes if item["class_name"] != "InputLayer"]
    name = _repairs.clean_name(str(config.get("name") or "sequential"))
    start = _stack_input(node, nodes, parts, site)
    try:
        model = keras.Sequential([*start, *_settled(start, parts)], name=name)
    except LarderError:
        raise
    except Exception as error:  # whatever the build of a layer meets
        raise ModelError(problem=f"the layers of {name} do not fit onto each other: {error}") from error
    return Part(name, "Sequential", model, parts)


def _settled(start: list[Any], parts: list[Part]) -> list[Any]:
    """The layers of a stack. Where there are Lambda layers, the shapes on the way tell what these become."""
    layers = [part.layer for part in parts]
    if not any(isinstance(layer, _lambdas.Block) for layer in layers):
        return layers
    if not start:
        raise ModelError(problem="a stack of layers with a Lambda layer does not say the shape of its input")
    tensor = start[0]
    for place, layer in enumerate(layers):
        layers[place] = layer.model_for(tensor) if isinstance(layer, _lambdas.Block) else layer
        tensor = layers[place](tensor)
    return layers


def _stack_input(node: Node, nodes: list[Node], parts: list[Part], site: _Site) -> list[Any]:
    import keras

    if not nodes:
        return []
    first = nodes[0]
    if first["class_name"] == "InputLayer":
        return [_input(first, site)]
    if is_network(first) and parts[0].layer.built:
        inner = parts[0].layer.inputs[0]
        return [keras.Input(batch_shape=inner.shape, dtype=inner.dtype, name=f"{parts[0].name}_input")]
    shape = input_shape_of(first) or input_shape_of(node)
    if shape is None:
        return []
    name = _without_slash(f"{parts[0].name}_input", site)
    return [keras.Input(batch_shape=tuple(shape), dtype=_plain_dtype(first), name=name)]


def _plain_dtype(node: Node) -> str | None:
    config = node["config"] if isinstance(node["config"], dict) else {}
    dtype = config.get("dtype") or config.get("input_dtype")
    return dtype if isinstance(dtype, str) and "_" not in dtype else None


def _input(node: Node, site: _Site) -> Any:
    import keras

    config = node["config"]
    if config.get("ragged"):
        raise ModelError(problem=f"input {name_of(node)} is ragged, which Keras 3 does not have")
    shape = config.get("batch_input_shape") or config.get("batch_shape")
    return keras.Input(
        batch_shape=tuple(shape) if shape is not None else None,
        dtype=config.get("dtype") or config.get("input_dtype"),
        sparse=bool(config.get("sparse")),
        name=_without_slash(name_of(node), site),
    )


@dataclass
class _Call:
    """One call of a layer: what stands for ``args`` and ``kwargs``, with references for tensors."""

    layer: str
    index: int
    args: list[Any]
    kwargs: dict[str, Any]


class _Network:
    """Builds one functional model."""

    def __init__(self, node: Node, site: _Site) -> None:
        self.node, self.site = node, site
        self.config: dict[str, Any] = node["config"]
        self.parts: dict[str, Part] = {}
        self.results: dict[tuple[str, int], list[Any]] = {}
        self.bare: dict[tuple[str, int], list[Any]] = {}  # without the masks of Keras 2, which change names
        self.shift: dict[str, int] = {}

    def build(self) -> Part:
        import keras

        layers = layers_of(self.node)
        self._make_parts(layers)
        self.shift = _first_calls(self.config, layers)
        self._run([call for layer in layers for call in self._calls(layer)])
        name = _repairs.clean_name(str(self.config.get("name") or "model"))
        inputs = self._structure(self.config["input_layers"])
        outputs = self._structure(self.config["output_layers"], named=True)
        model = keras.Model(inputs, outputs, name=name)
        if self.config.get("trainable") is False:
            model.trainable = False
        return Part(name, "Functional", model, list(self.parts.values()))

    def _make_parts(self, layers: list[Node]) -> None:
        for node in layers:
            name = name_of(node)
            if node["class_name"] == "InputLayer":
                tensor = _input(node, self.site)
                self.results[name, 0] = [tensor]
                self.parts[name] = Part(name, "InputLayer", None)
            else:
                self.parts[name] = _part(node, self.site)
                self.parts[name].name = name

    def _calls(self, node: Node) -> list[_Call]:
        name = name_of(node)
        if node["class_name"] == "InputLayer":
            return []
        first = self.shift.get(name, 0)
        return [self._call(name, first + index, entry) for index, entry in enumerate(node.get("inbound_nodes") or [])]

    def _call(self, name: str, index: int, entry: Any) -> _Call:
        """One entry of ``inbound_nodes``: Keras 3 says args and kwargs, Keras 2 lists references with kwargs behind."""
        if isinstance(entry, dict) and "args" in entry:
            return _Call(name, index, list(entry["args"]), dict(entry.get("kwargs") or {}))
        if isinstance(entry, dict):
            return _Call(name, index, [entry], {})
        references = [entry] if is_reference(entry) else list(entry)
        flat = flat_references(references)
        kwargs = next((dict(item[3]) for item in flat if len(item) == 4 and item[3]), {})
        return _Call(name, index, self._positional(name, references), kwargs)

    def _positional(self, name: str, references: list[Any]) -> list[Any]:
        """Several tensors are one list, except for recurrent layers: there the rest are initial states."""
        if len(references) == 1:
            return references
        if self.parts[name].kind in _RECURRENT:
            return [references[0], list(references[1:])]
        return [references]

    def _run(self, pending: list[_Call]) -> None:
        left = [(call, set(self._needs([call.args, call.kwargs]))) for call in pending]
        while left:
            waiting = []
            for call, needs in left:
                if needs <= self.results.keys():
                    self._apply(call)
                else:
                    waiting.append((call, needs))
            if len(waiting) == len(left):
                raise ModelError(problem=self._lost(left))
            left = waiting

    def _lost(self, left: Sequence[tuple[_Call, set[tuple[str, int]]]]) -> str:
        """What is wrong where no call can be made. tf-keras loses calls of shared layers when it writes."""
        names = ", ".join(sorted({call.layer for call, _ in left})[:5])
        awaited = {(call.layer, call.index) for call, _ in left}
        lost = sorted({name for _, needs in left for name, index in needs - self.results.keys() - awaited})
        why = (
            f": it takes results of {', '.join(lost[:5])} from calls that the description does not hold" if lost else ""
        )
        return f"the graph of its layers cannot be followed at {names}{why}"

    def _needs(self, value: Any) -> list[tuple[str, int]]:
        reference = self._reference(value)
        if reference is not None:
            return [(reference[0], reference[1])]
        items = value.values() if isinstance(value, dict) else value if isinstance(value, list) else []
        return [need for item in items for need in self._needs(item)]

    def _reference(self, value: Any) -> tuple[str, int, int] | None:
        if isinstance(value, dict) and value.get("class_name") == "__keras_tensor__":
            value = value["config"]["keras_history"]
        if is_reference(value) and value[0] in self.parts:
            return value[0], value[1], value[2]
        return None

    def _resolve(self, value: Any) -> Any:
        """References become tensors; Keras 3's own markers become what they stand for."""
        reference = self._reference(value)
        if reference is not None:
            return self.results[reference[0], reference[1]][reference[2]]
        if isinstance(value, list):
            return value[2] if value[:1] == [CONSTANT] else [self._resolve(item) for item in value]
        if isinstance(value, dict):
            return (
                _marker(value) if "class_name" in value else {key: self._resolve(item) for key, item in value.items()}
            )
        return value

    def _apply(self, call: _Call) -> None:
        import keras

        args = [self._resolve(item) for item in call.args]
        kwargs = {key: self._resolve(value) for key, value in call.kwargs.items()}
        kwargs = {key: value for key, value in kwargs.items() if not (key in _OPTIONAL and not _is_given(value))}
        layer = self.parts[call.layer].layer
        try:
            result = layer(*args, **kwargs, **self.site.calls.get(id(layer), {}))
        except LarderError:
            raise
        except Exception as error:  # whatever a layer's build and call meet
            raise ModelError(problem=self._refused(call.layer, args, error)) from error
        if self.parts[call.layer].kind in _ops.OPERATION_LAYERS:
            _name_apart(keras.tree.flatten(result), keras.tree.flatten([args, kwargs]), self.site.names)
        self.bare[call.layer, call.index] = keras.tree.flatten(result)
        result = _masks.as_keras_2(layer, args[0], result) if self.site.masks_of_keras_2 and args else result
        self.results[call.layer, call.index] = keras.tree.flatten(result)

    def _refused(self, name: str, args: list[Any], error: Exception) -> str:
        """Why a layer could not be called; of an input without a width that may be the one that words give."""
        import keras

        said = f"layer {name} ({self.parts[name].kind}) does not take its input: "
        shapes = [tuple(getattr(tensor, "shape", ())) for tensor in keras.tree.flatten(args)]
        wordless = [part.name for part in self.parts.values() if _lacks_words(part.layer)]
        if wordless and any(shape[-1:] == (None,) for shape in shapes):
            return f"{said}its width hangs on the vocabulary of {wordless[0]}, which the description does not hold"
        return f"{said}{error}"

    def _structure(self, value: Any, *, named: bool = False) -> Any:
        """The nesting of the model's inputs or outputs, with a list of one as the tensor itself."""
        reference = self._reference(value)
        if reference is not None:
            if reference[:2] not in self.results:
                raise ModelError(problem=f"its output {reference[0]} is not in the graph of its layers")
            return self._named(*reference) if named else self.results[reference[0], reference[1]][reference[2]]
        if isinstance(value, dict):
            return {key: self._structure(item, named=named) for key, item in value.items()}
        if len(value) == 1:
            return self._structure(value[0], named=named)
        return [self._structure(item, named=named) for item in value]

    def _named(self, layer: str, index: int, position: int) -> Any:
        """An output of a bare operation keeps the name that the file gives it; Keras would invent one."""
        import keras

        found = self.bare if self.node is self.site.root else self.results
        tensor = found.get((layer, index), self.results[layer, index])[position]
        if self.parts[layer].kind not in _ops.OPERATION_LAYERS:
            return tensor
        return keras.layers.Identity(name=_repairs.clean_name(layer))(tensor)


def _name_apart(results: Iterable[Any], given: Iterable[Any], names: Collection[str]) -> None:
    """Give the operations between these tensors and those names that none of the file has: Keras calls ``x * 2`` after
    its class, as it does with a layer, and takes no name twice in a model."""
    pending, seen = list(results), {id(tensor) for tensor in given}
    while pending:
        tensor = pending.pop()
        if id(tensor) in seen or not hasattr(tensor, "_keras_history"):
            continue
        seen.add(id(tensor))
        maker = tensor._keras_history.operation
        while maker.name in names:
            maker.name += "_operation"
        pending += _masks.arguments(tensor)


_OPTIONAL = ("training", "mask", "name", "constants", "initial_state")
_RECURRENT = frozenset({"RNN", "SimpleRNN", "LSTM", "GRU", "Bidirectional", "ConvLSTM1D", "ConvLSTM2D", "ConvLSTM3D"})


def _is_given(value: Any) -> bool:
    return value is not None and value is not False


def _marker(value: dict[str, Any]) -> Any:
    """``{"class_name": "__tuple__", …}`` and the like, read by Keras' own reader in safe mode."""
    import keras

    return keras.saving.deserialize_keras_object(value, safe_mode=True)


def _first_calls(config: dict[str, Any], layers: list[Node]) -> dict[str, int]:
    """The number of the first call of each nested network.

    Keras 2 counted the call that built a nested network, so that the calls which the file lists start at 1.
    """
    nested = {name_of(node) for node in layers if is_network(node)}
    seen: dict[str, int] = {}
    for name, index in _references([config.get("output_layers"), [node.get("inbound_nodes") for node in layers]]):
        if name in nested:
            seen[name] = min(index, seen.get(name, index))
    return seen


def _lacks_words(layer: Any) -> bool:
    """Is it one that looks words up, and knows none?"""
    inner = getattr(layer, "_lookup_layer", layer)
    return hasattr(inner, "get_vocabulary") and not inner.get_vocabulary(include_special_tokens=False)


def _references(value: Any) -> list[tuple[str, int]]:
    if isinstance(value, dict) and value.get("class_name") == "__keras_tensor__":
        value = value["config"]["keras_history"]
    found = [(value[0], value[1])] if is_reference(value) else []
    items = value.values() if isinstance(value, dict) else value if isinstance(value, list) else []
    return found + [reference for item in items for reference in _references(item)]
