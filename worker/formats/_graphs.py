"""TensorFlow graphs as data (GraphDef): which tensors go in and come out, what they need, and running them.

A graph does not say which of its nodes are the model's inputs and outputs. Inputs are its placeholders; outputs are
the nodes that compute something nobody else uses, apart from what only training, saving and watching needs.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from worker.errors import CorruptFile, ModelError, UnsupportedOperation
from worker.formats import _graph_dangers, _graph_walk, _live
from worker.formats._format import Loaded, TensorSpec
from worker.formats._reach import reached
from worker.report import Finding, Severity, declare

if TYPE_CHECKING:
    import numpy as np

    from worker.formats._format import Arrays

INTERFACE_FOUND = declare(
    "interface-found",
    Severity.NOTE,
    "A graph does not say where it begins and ends. Taken as inputs: {inputs}. Taken as outputs: {outputs}.",
)

PLACEHOLDERS = frozenset({"Placeholder", "PlaceholderV2"})
# Where graphs of TensorFlow 1 without placeholders get their data from
FEEDS = re.compile(r"^(IteratorGetNext|QueueDequeue|ReaderRead)")
VARIABLES = frozenset({"Variable", "VariableV2", "VarHandleOp", "TemporaryVariable"})
TABLES = re.compile(r"(HashTable|LookupTable)")
STRINGS = re.compile(
    r"^(String|Regex|StaticRegex|AsString|ReduceJoin|Unicode|Substr|EncodeBase64|DecodeBase64|ParseExample"
    r"|ParseSingleExample|DecodeRaw|DecodeCSV|DecodeJpeg|DecodePng|DecodeImage)"
)
LOOPS = frozenset({"While", "StatelessWhile", "TensorListReserve", "TensorArrayV3", "Enter"})
ASSIGNMENTS = re.compile(
    r"^(Ref)?Assign(Add|Sub)?(Variable)?(Op)?$|^Scatter(Nd)?(Add|Sub|Update)$|^Resource(Scatter|Apply)"
)
# Nodes that watch, save, feed or change a model: they are no outputs, and what they alone use may be one
ASIDE = re.compile(
    r"^(NoOp|Assert|Print(V2)?|.*Summary(V2)?|Save(V2|Slices)?|Restore(V2|Slice)?|MergeV2Checkpoints|ShardedFilename"
    r"|(Resource)?(Sparse)?Apply.*|(Ref)?Assign.*|(Resource)?Scatter(Nd)?(Add|Sub|Update)|ReportUninitialized.*"
    r"|VarIsInitializedOp|IsVariableInitialized|InitializeTable.*|LookupTable(Import|Export|Insert|Size).*)$"
)
# Nodes that are no outputs, and whose operands are none either
INNER = re.compile(
    r"^(Const|ReadVariableOp|.*HashTable.*|Queue.*|FIFOQueue.*|RandomShuffleQueue.*|Iterator.*|MakeIterator.*|.*Dataset.*"
    r"|(Ref)?(NextIteration|Enter|Exit|Switch|Merge)|LoopCond|StackPush.*|TensorArray(V3)?|TensorArrayClose.*)$"
)
LARGE = 2**20  # bytes of a constant that is worth a variable
LEFT_OVER = re.compile(r"^unused_control_flow_input")  # TensorFlow's own, where it lowered a loop
ACTIVATIONS = frozenset({"Softmax", "LogSoftmax", "Sigmoid", "ArgMax"})
TRAINING = re.compile(
    r"(^|/)(gradients|train(ing)?_op|Adam|RMSProp|GradientDescent|Momentum|Adagrad|save(_\d+)?|init(_\d+)?|report_uninitialized_variables(_\d+)?)(/|$)"
)


@dataclass(frozen=True)
class Port:
    """One input or output: the tensor in the graph (``scope/x:0``), and what the model calls it."""

    tensor: str
    spec: TensorSpec


@dataclass(frozen=True)
class Graph:
    """A GraphDef with its inputs and outputs."""

    definition: Any
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]


# Reading ----------------------------------------------------------------------------------------------------------


def read(path: Path) -> Any:
    """The GraphDef in a file, binary or text; CorruptFile where there is none. Nothing is built from it."""
    from google.protobuf import text_format  # type: ignore[import-untyped]
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
    from tensorflow.core.framework import graph_pb2

    graph, content = graph_pb2.GraphDef(), path.read_bytes()
    try:
        if content[:1] == b"\x0a":
            graph.ParseFromString(content)
        else:
            text_format.Parse(content.decode("utf-8"), graph, allow_unknown_field=True)
    except (DecodeError, text_format.ParseError, UnicodeDecodeError) as error:
        raise CorruptFile(name=path.name, problem="it does not hold a TensorFlow graph") from error
    if not graph.node:
        raise CorruptFile(name=path.name, problem="its graph has no operations")
    return graph


def operations(graph: Any) -> set[str]:
    """The kinds of operations in a graph and in the functions that it has with it."""
    functions = (node.op for function in graph.library.function for node in function.node_def)
    return {node.op for node in graph.node} | set(functions)


OLD_LOOPS = frozenset({"Enter", "RefEnter", "NextIteration", "LoopCond"})


def facts(graph: Any, inputs: Iterable[TensorSpec] = ()) -> frozenset[str]:
    """What the operations tell about the model, in the words of ``FACTS``."""
    kinds = operations(graph)
    found = {
        "strings": any(map(STRINGS.match, kinds)) or any(spec.dtype == "string" for spec in inputs),
        "tables": any(map(TABLES.search, kinds)),
        "recurrent": bool(kinds & LOOPS) and any(spec.shape and spec.shape[0] is None for spec in inputs),
        "half": _computes_in_half(graph),
        "old-loops": bool(kinds & OLD_LOOPS),
        "old-lists": bool(kinds & OLD_LOOPS) and any(kind.startswith("TensorList") for kind in kinds),
    }
    return frozenset(fact for fact, there in found.items() if there)


def _computes_in_half(graph: Any) -> bool:
    return any(
        node.op != "Cast" and kind.type in _half_types()
        for node in all_nodes(graph)
        for key, kind in node.attr.items()
        if key == "T"
    )


def _half_types() -> frozenset[int]:
    from tensorflow.core.framework import types_pb2

    return frozenset({types_pb2.DT_HALF, types_pb2.DT_BFLOAT16})


def all_nodes(graph: Any) -> Iterator[Any]:
    """The nodes of a graph and of its functions."""
    yield from graph.node
    for function in graph.library.function:
        yield from function.node_def


# The interface ----------------------------------------------------------------------------------------------------


def find_interface(graph: Any) -> Graph:
    """The graph with the inputs and outputs that it seems to have; ModelError where it computes nothing."""
    known = without_unknown(graph)
    wires = _Wires(known, _static_shapes(known))
    outputs = wires.outputs()
    if not outputs:
        raise ModelError(problem="its graph has no operation whose result nobody else uses, so no output was found")
    needed = wires.upstream(outputs)
    inputs = [name for name in wires.sources if name in needed or not wires.consumers.get(name)]
    return Graph(known, _ports(wires, inputs), _ports(wires, outputs))


def note(graph: Graph) -> Finding:
    """What was taken as inputs and outputs, with the names that the graph has for them."""
    inputs, outputs = (", ".join(port.tensor for port in ports) for ports in (graph.inputs, graph.outputs))
    return INTERFACE_FOUND(inputs=inputs or "none", outputs=outputs)


def without_unknown(graph: Any) -> Any:
    """The graph without operations that this TensorFlow does not know, and without what depends on them: training
    graphs are full of them, and a model that needs one of them is refused by name."""
    from tensorflow.core.framework import graph_pb2
    from tensorflow.python.framework import op_def_registry

    own = {function.signature.name for function in graph.library.function}
    bad = {node.name for node in graph.node if node.op not in own and op_def_registry.get(node.op) is None}
    if not bad:
        return graph
    kinds = sorted({node.op for node in graph.node if node.name in bad})
    lost = set(bad)
    while more := {
        node.name for node in graph.node if node.name not in lost and lost & set(_graph_walk.operands(node))
    }:
        lost |= more
    kept = graph_pb2.GraphDef(versions=graph.versions, library=graph.library)
    kept.node.extend(node for node in graph.node if node.name not in lost)
    if not any(_computes(node) for node in kept.node):
        raise UnsupportedOperation(
            target="This TensorFlow", operation=", ".join(kinds), problem="it does not know such an operation"
        )
    return kept


def _computes(node: Any) -> bool:
    return not (ASIDE.match(node.op) or INNER.match(node.op)) and node.op not in PLACEHOLDERS | VARIABLES | {"Identity"}


def _static_shapes(graph: Any) -> Any:
    """The graph built, which is where shapes are inferred; no operation runs."""
    import tensorflow as tf

    built = tf.Graph()
    with built.as_default():
        try:
            tf.graph_util.import_graph_def(_without_devices(graph), name="")
        except ValueError as error:
            raise CorruptFile(name="The graph", problem=" ".join(str(error).split())[:200]) from error
    return built


def _without_devices(graph: Any) -> Any:
    for node in graph.node:
        node.device = ""
    return graph


class _Wires:
    """Who uses whose results, in the part of a graph that computes the model."""

    def __init__(self, graph: Any, built: Any) -> None:
        self.built = built
        self.nodes = {node.name: node for node in graph.node}
        self.operands = {name: _graph_walk.operands(node, control=False) for name, node in self.nodes.items()}
        self.consumers = _users(self.operands)
        self.followers = _users({name: _graph_walk.operands(node) for name, node in self.nodes.items()})
        placeholders = [node.name for node in graph.node if node.op in PLACEHOLDERS and not LEFT_OVER.match(node.name)]
        feeds = [node.name for node in graph.node if FEEDS.match(node.op)]
        self.sources = placeholders or feeds
        self.with_variables = self.downstream(node.name for node in graph.node if node.op in VARIABLES)

    def outputs(self) -> list[str]:
        """The results of the model: not the loss and not what is measured with labels, where there is more."""
        forward = {name for name in self.nodes if not TRAINING.search(name)}
        found = self._ends(forward)
        if labels := [name for name in self.sources if self._is_label(name, found)]:
            forward -= self.downstream(labels)
            found = self._ends(forward) or found
        if self._is_trained() and all(map(self._is_scalar, found)):  # a loss alone: what it is computed from
            found = self._ends({name for name in forward if not self._is_scalar(name)}) or found
        found = [name for name in found if not self._is_scalar(name)] or found
        return [name for name in self.nodes if name in {*found, *self._named_logits(found)}]

    def _is_trained(self) -> bool:
        return any(re.match(r"(Resource)?(Sparse)?Apply", node.op) for node in self.nodes.values())

    def _named_logits(self, ends: list[str]) -> list[str]:
        """What a last activation is applied to, where a person gave it a name at the top of the graph."""
        found = [self.operands[name][0] for name in ends if self.nodes[name].op in ACTIVATIONS]
        return [name for name in found if name not in self.sources and _named_by_hand(self.nodes[name])]

    def _ends(self, among: set[str]) -> list[str]:
        """Nodes of which nobody uses the results, and that depend on the values of an input where there is one: not on
        its size alone, as the first state of a recurrent layer does."""
        fed = self._fed() if self.sources else among
        live = {name for name in among if not ASIDE.match(self.nodes[name].op)}
        looping = self._inside_loops()
        return [
            name
            for name in self.nodes
            if name in live and name in fed and name not in self.sources and name not in looping
            if self._is_end(name, live)
        ]

    def _fed(self) -> set[str]:
        sizes = {name for name, node in self.nodes.items() if node.op in ("Shape", "ShapeN", "Size", "Rank")}
        return reached(self.sources, lambda name: [] if name in sizes else self.consumers.get(name, [])) - sizes

    def _inside_loops(self) -> set[str]:
        """Nodes between where a loop of TensorFlow 1 is entered and left."""
        leaving = {name for name, node in self.nodes.items() if node.op in ("Exit", "RefExit")}
        entered = [name for name, node in self.nodes.items() if node.op in ("Enter", "RefEnter")]
        return reached(entered, lambda name: [] if name in leaving else self.followers.get(name, [])) - leaving

    def _is_end(self, name: str, live: set[str]) -> bool:
        if INNER.match(self.nodes[name].op) or not self._outputs_of(name):
            return False
        return not any(user in live for user in self.followers.get(name, []))

    def _outputs_of(self, name: str) -> list[Any]:
        outputs: list[Any] = self.built.get_operation_by_name(name).outputs
        return [tensor for tensor in outputs if tensor.dtype.base_dtype.name not in ("resource", "variant")]

    def _is_scalar(self, name: str) -> bool:
        return all(tensor.shape.rank == 0 for tensor in self._outputs_of(name))

    def _is_label(self, name: str, ends: list[str]) -> bool:
        """Does the placeholder lead to numbers about the model only, and meet no weights on its way?"""
        reached = self.downstream([name])
        if self._is_scalar(name) or any(end in reached and not self._is_scalar(end) for end in ends):
            return False
        return not any(self._meets_weights(user, reached) for user in reached)

    def _meets_weights(self, name: str, reached: set[str]) -> bool:
        """Does a node join what came from a placeholder with weights that came from no placeholder?"""
        fed = self.downstream(self.sources)
        operands = self.operands[name]
        weights = [item for item in operands if item in self.with_variables and item not in fed]
        return bool(weights) and any(item in reached for item in operands)

    def downstream(self, names: Iterable[str]) -> set[str]:
        return reached(names, lambda name: self.consumers.get(name, []))

    def upstream(self, names: Iterable[str]) -> set[str]:
        return reached(names, lambda name: _graph_walk.operands(self.nodes[name]) if name in self.nodes else [])

    def tensors(self, name: str) -> list[Any]:
        return self._outputs_of(name)


def _named_by_hand(node: Any) -> bool:
    """Is the name none that TensorFlow makes up (``BiasAdd``, ``add_1``), and in no scope?"""
    kind = re.sub(r"V\d+$", "", node.op)
    return "/" not in node.name and not re.fullmatch(re.escape(kind) + r"(_\d+)?", node.name, re.IGNORECASE)


def _users(operands: Mapping[str, list[str]]) -> dict[str, list[str]]:
    users: dict[str, list[str]] = {}
    for name, used in operands.items():
        for operand in used:
            users.setdefault(operand, []).append(name)
    return users


def _ports(wires: _Wires, nodes: list[str]) -> tuple[Port, ...]:
    tensors = [tensor for node in nodes for tensor in wires.tensors(node)]
    names = _plain_names([tensor.name for tensor in tensors])
    return tuple(Port(tensor.name, spec_of(name, tensor)) for name, tensor in zip(names, tensors, strict=True))


def _plain_names(tensors: list[str]) -> list[str]:
    """``scope/x:0`` as ``scope_x``, which every format can hold; a number where that is there twice."""
    names: list[str] = []
    for tensor in tensors:
        name = re.sub(r"\W", "_", tensor.removesuffix(":0"))
        name = f"_{name}" if name[:1].isdigit() else name
        same = sum(name == other or re.fullmatch(re.escape(name) + r"_\d+", other) is not None for other in names)
        names.append(f"{name}_{same}" if name in names else name)
    return names


def spec_of(name: str, tensor: Any) -> TensorSpec:
    """A tensor or tf.TensorSpec as a TensorSpec under another name."""
    shape = None if tensor.shape.rank is None else tuple(tensor.shape.as_list())
    return TensorSpec(name, shape, tensor.dtype.base_dtype.name)


def part_for(graph: Any, names: Iterable[str], fed: Iterable[str] = ()) -> Any:
    """A GraphDef with what these nodes need where ``fed`` ones are given, functions included; what saves and restores
    a model is not in it."""
    from tensorflow.core.framework import graph_pb2

    needed = _graph_walk.upstream(graph, names, fed)
    part = graph_pb2.GraphDef()
    part.node.extend(node for node in graph.node if node.name in needed)
    part.library.CopyFrom(_needed_functions(part, graph.library))
    return part


# Running ----------------------------------------------------------------------------------------------------------


def loaded(graph: Graph, findings: tuple[Finding, ...] = ()) -> Loaded:
    """The graph behind the contract of ``load``. Its constants are its weights."""
    from worker.formats import _double, _graph_variables, _inner_graphs

    inputs, outputs = ([port.tensor for port in ports] for ports in (graph.inputs, graph.outputs))
    function = function_of(graph.definition, inputs, outputs)

    def run(arrays: Arrays) -> Arrays:
        results = function.call([_live.feed(arrays[port.spec.name], port.spec.dtype) for port in graph.inputs])
        return {port.spec.name: _live.fetch(result) for port, result in zip(graph.outputs, results, strict=True)}

    return _graph_variables.with_variables(
        Loaded(
            _implied_inputs(graph),
            tuple(port.spec for port in graph.outputs),
            run,
            lambda: constants(graph.definition),
            findings,
            inner=lambda arrays: _inner_graphs.of_graph(graph, arrays),
            exact=lambda arrays: _double.run(graph, arrays),
        ),
        function,
    )


def _implied_inputs(graph: Graph) -> tuple[TensorSpec, ...]:
    from worker.formats._implied_graphs import implied_by_graph_def, tensor_name

    fed = {tensor_name(port.tensor): port.spec for port in graph.inputs}
    return tuple(implied_by_graph_def(fed, graph.definition).values())


def compute_exactly() -> None:
    """Keep TensorFlow from rewriting the graphs that it runs: for the exact GELU of a graph it takes a kernel of oneDNN
    that is off by 6e-4, and says nothing."""
    import tensorflow as tf

    tf.config.optimizer.set_experimental_options({"remapping": False})


@dataclass(frozen=True)
class Function:
    """A graph as a function of TensorFlow, with what has to live as long as it does."""

    pruned: Any
    owner: Any
    variables: dict[str, Any]
    fed: list[str]  # the tensors of the graph that it takes
    given: list[str]  # those that it gives
    definition: Any

    def call(self, tensors: list[Any]) -> list[Any]:
        results = self.pruned(*tensors)
        return list(results) if isinstance(results, (list, tuple)) else [results]


def function_of(
    definition: Any, inputs: list[str], outputs: list[str], variables: dict[str, Any] | None = None
) -> Function:
    """The GraphDef between these tensors. Its large constants become variables, on which TensorFlow does not spend
    seconds when the function is first called; or those constants do that there are ``variables`` for already."""
    import tensorflow as tf

    compute_exactly()
    kept = {name.split(":")[0] for name in outputs}
    variables = large_constants(definition, kept=kept) if variables is None else variables

    def build() -> None:
        with tf.name_scope(f"larder_{uuid.uuid4().hex}"):  # no name that the graph has
            values = {f"{name}:0": variable.read_value() for name, variable in variables.items()}
        tf.graph_util.import_graph_def(without(definition, set(variables)), values, name="")

    owner = tf.compat.v1.wrap_function(build, [])
    return Function(owner.prune(inputs, outputs), owner, variables, inputs, outputs, definition)


def large_constants(
    definition: Any, least: int = LARGE, known: Collection[str] = (), kept: Iterable[str] = ()
) -> dict[str, Any]:
    """The constants of floating types with dimensions and more than ``least`` bytes as variables, by the names of their
    nodes; without those that are ``known``.

    Not those to be ``kept``, as outputs have to be, those that other nodes only wait for, and those that wait for
    others, as constants inside of a loop of TensorFlow 1 do: what is fed has no such edges. Nor what nobody uses."""
    import tensorflow as tf

    operands = {name for node in definition.node for name in node.input}
    taken = {name.removesuffix(":0") for name in operands if f"^{name.removesuffix(':0')}" not in operands}
    taken -= {*kept, *known}
    found = {}
    for node in definition.node:
        tensor = node.attr["value"].tensor if node.op == "Const" and not node.input else None
        if tensor is None or node.name not in taken or not tensor.tensor_shape.dim or tensor.ByteSize() <= least:
            continue
        if tf.dtypes.as_dtype(tensor.dtype).is_floating:
            found[node.name] = tf.Variable(tf.make_ndarray(tensor), trainable=False)
    return found


def without(definition: Any, names: set[str]) -> Any:
    """The body alone: placeholders and constants that are fed would be left over in what is built."""
    from tensorflow.core.framework import graph_pb2

    body = graph_pb2.GraphDef(versions=definition.versions, library=definition.library)
    edges = PLACEHOLDERS | {"Const"}
    body.node.extend(node for node in definition.node if node.name not in names or node.op not in edges)
    return body


def constants(graph: Any) -> Iterator[tuple[str, np.ndarray]]:
    """Constants of floating types with at least one dimension: what was a variable before the graph was frozen."""
    import tensorflow as tf

    for node in all_nodes(graph):
        value = node.attr["value"].tensor if node.op == "Const" else None
        if value is not None and tf.dtypes.as_dtype(value.dtype).is_floating and value.tensor_shape.dim:
            yield node.name, tf.make_ndarray(value)


# Changing ---------------------------------------------------------------------------------------------------------


def pruned(graph: Graph) -> Graph:
    """Without nodes and functions that no output needs, in the order in which they stood; bound to no device. The
    GraphDef itself is changed: a copy would hold all weights once more. UnsafeContent where what is left reaches
    beyond the graph."""
    graph = _with_placeholders(graph)
    definition = graph.definition
    wanted = [port.tensor.split(":")[0] for port in (*graph.inputs, *graph.outputs)]
    needed = _graph_walk.upstream(definition, wanted)
    for place in range(len(definition.node) - 1, -1, -1):
        if definition.node[place].name not in needed:
            del definition.node[place]
    for node in definition.node:
        node.device = ""
        node.attr.pop("_class", None)  # where it is to run, beside nodes that may not be there any more
    definition.library.CopyFrom(_needed_functions(definition, definition.library))
    _graph_dangers.refuse(definition)
    return graph


def _with_placeholders(graph: Graph) -> Graph:
    """The graph with placeholders for inputs that are fed in the middle of it, as the features are that an operation
    before them takes out of serialised examples. The GraphDef itself is changed."""
    kinds = {node.name: node.op for node in graph.definition.node}
    inner = [port for port in graph.inputs if kinds[port.tensor.split(":")[0]] not in PLACEHOLDERS]
    if not inner:
        return graph
    made = {port.tensor: f"{_fresh(port.spec.name, set(kinds))}:0" for port in inner}
    for node in graph.definition.node:
        operands = [made.get(_whole(operand), operand).removesuffix(":0") for operand in node.input]
        del node.input[:]
        node.input.extend(operands)
    for port in inner:
        _placeholder(graph.definition, made[port.tensor].removesuffix(":0"), port.spec)
    sides = (
        tuple(Port(made.get(port.tensor, port.tensor), port.spec) for port in side)
        for side in (graph.inputs, graph.outputs)
    )
    return Graph(graph.definition, *sides)


def _whole(operand: str) -> str:
    return operand if ":" in operand or operand.startswith("^") else f"{operand}:0"


def _placeholder(definition: Any, name: str, spec: TensorSpec) -> None:
    import tensorflow as tf

    node = definition.node.add(name=name, op="Placeholder")
    node.attr["dtype"].type = tf.dtypes.as_dtype(spec.dtype).as_datatype_enum
    node.attr["shape"].shape.CopyFrom(tf.TensorShape(spec.shape).as_proto())


def constant_node(name: str, value: Any, dtype: Any) -> Any:
    """A NodeDef that holds a value in this dtype."""
    import tensorflow as tf
    from tensorflow.core.framework import node_def_pb2

    node = node_def_pb2.NodeDef(name=name, op="Const")
    node.attr["dtype"].type = tf.dtypes.as_dtype(dtype).as_datatype_enum
    node.attr["value"].tensor.CopyFrom(tf.make_tensor_proto(value, dtype))
    return node


def _needed_functions(graph: Any, library: Any) -> Any:
    from tensorflow.core.framework import function_pb2

    functions = _graph_walk.functions_of(library)
    needed = _graph_walk.called(graph.node, functions)
    kept = function_pb2.FunctionDefLibrary()
    kept.function.extend(function for name, function in functions.items() if name in needed)
    return kept


def named(graph: Graph) -> Graph:
    """The graph with nodes at its edges that are called as its inputs and outputs are, inputs first and in their order.
    The GraphDef itself is changed."""
    names = {node.name for node in graph.definition.node}
    inputs = {port.tensor.split(":")[0]: port.spec.name for port in graph.inputs}
    wanted = {port.spec.name for port in (*graph.inputs, *graph.outputs)}
    others = {name: _fresh(name, names | wanted) for name in names & wanted if inputs.get(name) != name}
    changed = {**others, **inputs}
    for node in graph.definition.node:
        node.name = changed.get(node.name, node.name)
        operands = [renamed(operand, changed) for operand in node.input]
        del node.input[:]
        node.input.extend(operands)
    order = {port.spec.name: place for place, port in enumerate(graph.inputs)}
    graph.definition.node.sort(key=lambda node: order.get(node.name, len(order)))
    outputs = [output_node(graph.definition, renamed(port.tensor, changed), port.spec) for port in graph.outputs]
    return Graph(
        graph.definition,
        tuple(Port(f"{port.spec.name}:0", port.spec) for port in graph.inputs),
        tuple(Port(f"{name}:0", port.spec) for name, port in zip(outputs, graph.outputs, strict=True)),
    )


def _fresh(name: str, taken: set[str]) -> str:
    number = 0
    while f"{name}_{number}" in taken:
        number += 1
    return f"{name}_{number}"


def renamed(operand: str, names: Mapping[str, str]) -> str:
    """``^name`` and ``name:1`` with another name."""
    control, plain = ("^", operand[1:]) if operand.startswith("^") else ("", operand)
    name, colon, place = plain.partition(":")
    return f"{control}{names.get(name, name)}{colon}{place}"


def output_node(definition: Any, tensor: str, spec: TensorSpec) -> str:
    """The name of a new operation that hands a tensor on, under the name of the spec where nobody has it. The GraphDef
    is changed."""
    import tensorflow as tf

    taken = {node.name for node in definition.node}
    node = definition.node.add(name=spec.name if spec.name not in taken else _fresh(spec.name, taken), op="Identity")
    node.input.append(tensor.removesuffix(":0"))
    node.attr["T"].type = tf.dtypes.as_dtype(spec.dtype).as_datatype_enum
    return str(node.name)


def with_own_functions(definition: Any, suffix: str) -> Any:
    """A copy whose functions have names of their own: TensorFlow knows a function by its name, and a changed one may
    not have the name of what it was made from."""
    from tensorflow.core.framework import graph_pb2

    copy = graph_pb2.GraphDef()
    copy.CopyFrom(definition)
    names = {function.signature.name: function.signature.name + suffix for function in copy.library.function}
    for function in copy.library.function:
        function.signature.name = names[function.signature.name]
    for node in all_nodes(copy):
        node.op = names.get(node.op, node.op)
        for value in node.attr.values():
            for called in (value.func, *value.list.func):
                if called.name in names:
                    called.name = names[called.name]
    return copy


def refuse_tables(graph: Any, target: str) -> None:
    """Raise UnsupportedOperation where a graph of constants would need a table that nobody fills."""
    if any(TABLES.search(kind) for kind in operations(graph)):
        problem = "a finished graph has no place for the words in them; look them up before the model"
        raise UnsupportedOperation(target=target, operation="lookup tables", problem=problem)


def refuse_assignments(graph: Any, target: str) -> None:
    """Raise UnsupportedOperation where the model changes its own variables while it runs."""
    if kinds := sorted(kind for kind in operations(graph) if ASSIGNMENTS.match(kind)):
        problem = "the model changes its variables while it runs, and a finished graph has none"
        raise UnsupportedOperation(target=target, operation=", ".join(kinds), problem=problem)


# Writing a SavedModel ---------------------------------------------------------------------------------------------


def save(graph: Graph, folder: Path) -> None:
    """A SavedModel whose ``serving_default`` has the graph's ports under their names."""
    import tensorflow as tf

    v1 = tf.compat.v1
    with tf.Graph().as_default() as built, v1.Session() as session:
        tf.graph_util.import_graph_def(graph.definition, name="")
        sides = (
            {port.spec.name: v1.saved_model.build_tensor_info(built.get_tensor_by_name(port.tensor)) for port in ports}
            for ports in (graph.inputs, graph.outputs)
        )
        signature = v1.saved_model.build_signature_def(*sides, "tensorflow/serving/predict")
        builder = v1.saved_model.Builder(str(folder))
        builder.add_meta_graph_and_variables(session, ["serve"], {"serving_default": signature})
        builder.save()
