"""A TensorFlow function as a graph without its large weights, for converters that copy constants again and again.

The weights become inputs of the graph and are put back into the result afterwards. Only weights that products and
look-ups use directly are taken out: whatever a converter has to see the value of stays where it is.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from worker.formats import _frozen, _half, _saved_model, saved_model
from worker.formats._format import Hop, Loaded
from worker.formats._graphs import Graph, Port, constant_node

if TYPE_CHECKING:
    import numpy as np

LEAST_BYTES = 32 * 1024
# The operations that do not care whether their weights are constants, after conversion either
TAKING = frozenset(
    {"Conv2D", "Conv3D", "DepthwiseConv2dNative", "Conv2DBackpropInput", "Conv3DBackpropInputV2", "MatMul"}
    | {"BatchMatMul", "BatchMatMulV2", "BatchMatMulV3", "Einsum", "Gather", "GatherV2", "ResourceGather"}
)
PASSING = frozenset({"Identity", "ReadVariableOp", "Cast"})
# Attributes that keep calls and loops in a form of their own: for another device, for a compiler, for TensorFlow 1
KEEPING_CALLS = frozenset({"api_implements", "_XlaMustCompile", "_noinline", "_lower_using_switch_merge"})
HALVES = frozenset({"bfloat16", "float16"})
FLOAT = 1  # TensorFlow's number of float32
Read = Callable[[], "np.ndarray"]


@dataclass(frozen=True)
class Outline:
    """A graph of constants. ``weights`` reads the value of each placeholder that stands for a weight, by its node's
    name; ``tables`` are keys and values of lookup tables by shared name."""

    graph: Graph
    weights: dict[str, Read]
    tables: dict[bytes, tuple[np.ndarray, np.ndarray]] = field(default_factory=dict)


def outline(path: Path, hop: Hop) -> Outline:
    """The serving signature of a SavedModel, or the one that is asked for, with its variables as constants, and the
    large ones as inputs.

    What a variable holds is read when its value is asked for. A graph of TensorFlow 1 is folded whole first.
    """
    folder = _saved_model.folder_in(path, hop.scratch / "saved_model-source")
    proto = _saved_model.serving_graph(_saved_model.read_proto(folder))
    if hop.first is not None or not proto.HasField("object_graph_def"):
        return of_graph(_frozen.plain(path, hop), hop)
    _frozen.note_dropped(proto, hop)
    owner, function = saved_model.open_signature(path, hop.scratch, hop.signature)
    result = _of_function(owner, function, saved_model.load(path, hop.scratch, hop.signature))
    return _in_known_types(result, hop)


def of_graph(graph: Graph, hop: Hop) -> Outline:
    """A graph of constants without the large ones."""
    definition = type(graph.definition)()
    definition.CopyFrom(graph.definition)
    weights = _take_constants(definition)
    outputs = tuple(_own_node(definition, port, number) for number, port in enumerate(graph.outputs))
    return _in_known_types(Outline(Graph(definition, graph.inputs, outputs), weights), hop)


def _of_function(owner: Any, function: Any, loaded: Loaded) -> Outline:
    handles = _Handles(function)
    definition, taken = _constant(function, handles)
    variables = {name: handles.variables[name] for name in taken}
    _substitute(definition, variables)
    tables = _tables(definition, handles.resources)
    _drop_assignments(definition)
    weights = {name: partial(_value, variable, owner) for name, variable in variables.items()}
    inputs = dict(zip(function._arg_keywords, function.inputs, strict=False))  # before what was captured
    outputs = dict(zip(sorted(function.structured_outputs), function.outputs, strict=True))
    given = tuple(Port(inputs[spec.name].name, spec) for spec in loaded.inputs)
    wanted = [Port(outputs[spec.name].name, spec) for spec in loaded.outputs]
    ends = tuple(_own_node(definition, port, number) for number, port in enumerate(wanted))
    return Outline(Graph(definition, given, ends), weights | _take_constants(definition), tables)


def _value(variable: Any, owner: Any) -> np.ndarray:
    assert owner  # what the variable belongs to must outlive it
    return variable.numpy()  # type: ignore[no-any-return]


def _take_constants(graph: Any) -> dict[str, Read]:
    """Turn large constants into inputs."""
    users = _users(graph)
    large = [node for node in graph.node if node.op == "Const" and _is_large(node) and users[node.name] <= TAKING]
    return {node.name: _placeholder_for_constant(node) for node in large}


def _own_node(graph: Any, port: Port, number: int) -> Port:
    """The output as a node of its own, because two names may stand for one tensor, which may be an input too."""
    node = graph.node.add(name=f"result_{number}", op="Identity", input=[port.tensor])
    node.attr["T"].type = _type_of(port)
    return Port(f"{node.name}:0", port.spec)


def _type_of(port: Port) -> int:
    import tensorflow as tf

    return int(tf.dtypes.as_dtype(port.spec.dtype).as_datatype_enum)


# Types that runtimes do not compute in ----------------------------------------------------------------------------


def _in_known_types(result: Outline, hop: Hop) -> Outline:
    """ONNX has bfloat16, but hardly any runtime computes in it: float32 takes its place, with casts at the edges."""
    if not _mentions_bfloat16(result.graph.definition):
        return result
    graph = _half.in_single(result.graph, hop)
    inputs = tuple(_cast_input(graph.definition, port) for port in graph.inputs)
    nodes = {node.name: node for node in graph.definition.node}
    for port in graph.outputs:
        if port.spec.dtype in HALVES:
            _become(nodes[port.tensor.split(":")[0]], "Cast", SrcT=FLOAT, DstT=_type_of(port))
    return replace(result, graph=replace(graph, inputs=inputs))


def _mentions_bfloat16(graph: Any) -> bool:
    import tensorflow as tf

    wanted = tf.bfloat16.as_datatype_enum
    return any(value.type == wanted for node in graph.node for value in node.attr.values())


def _cast_input(graph: Any, port: Port) -> Port:
    """A placeholder of the declared type before the one of float32, which becomes the cast between them."""
    if port.spec.dtype not in HALVES:
        return port
    name = port.tensor.split(":")[0]
    node = next(node for node in graph.node if node.name == name)
    declared = graph.node.add(name=f"{name}_declared", op="Placeholder")
    declared.attr["dtype"].type = _type_of(port)
    declared.attr["shape"].CopyFrom(node.attr["shape"])
    _become(node, "Cast", SrcT=_type_of(port), DstT=FLOAT)
    node.input.append(declared.name)
    return Port(f"{declared.name}:0", port.spec)


# Variables --------------------------------------------------------------------------------------------------------


class _Handles:
    """What a function captured, by the name of the placeholder that stands for it: variables and other resources."""

    def __init__(self, function: Any) -> None:
        by_handle = {id(variable.handle): variable for variable in function.graph.variables}
        captures = [(inner.name.split(":")[0], outer) for outer, inner in function.graph.captures]
        self.variables = {name: by_handle[id(outer)] for name, outer in captures if id(outer) in by_handle}
        self.resources = {name: outer for name, outer in captures if name not in self.variables}


def _constant(function: Any, handles: _Handles) -> tuple[Any, list[str]]:
    """The graph with all calls inlined and variables as constants, and the names of those that were left out."""
    from tensorflow.python.framework import convert_to_constants

    graph = _inlined(function)
    users = _users(graph)
    large = [name for name, variable in handles.variables.items() if _variable_bytes(variable) >= LEAST_BYTES]
    taken = [name for name in large if users.get(name, {"unknown"}) <= TAKING]

    class Data(convert_to_constants._FunctionConverterDataInEager):  # type: ignore[misc]
        """As TensorFlow's own, on a graph that is inlined already."""

        def __init__(self) -> None:
            self._func = function
            convert_to_constants._ConverterData.__init__(self, graph, variable_names_denylist=taken)
            self._build_tensor_data()

    constant, _ = convert_to_constants._replace_variables_by_constants(converter_data=Data())
    return constant, taken


def _inlined(function: Any) -> Any:
    """The function's graph without calls, also of functions that are marked for a compiler and would stay calls."""
    import tensorflow as tf
    from tensorflow.core.protobuf import config_pb2, meta_graph_pb2, rewriter_config_pb2
    from tensorflow.python.grappler import tf_optimizer

    graph = function.graph.as_graph_def()
    for owner in (
        *graph.node,
        *graph.library.function,
        *(node for item in graph.library.function for node in item.node_def),
    ):
        for name in KEEPING_CALLS & set(owner.attr):
            del owner.attr[name]
    config = config_pb2.ConfigProto()
    config.graph_options.rewrite_options.min_graph_nodes = -1
    config.graph_options.rewrite_options.optimizers.append("function")
    config.graph_options.rewrite_options.function_optimization = rewriter_config_pb2.RewriterConfig.AGGRESSIVE
    with tf.Graph().as_default():
        meta = tf.compat.v1.train.export_meta_graph(graph_def=graph)
    fetched = meta_graph_pb2.CollectionDef()
    fetched.node_list.value.extend(tensor.name for tensor in (*function.inputs, *function.outputs))
    meta.collection_def["train_op"].CopyFrom(fetched)
    return tf_optimizer.OptimizeGraph(config, meta)


def _variable_bytes(variable: Any) -> int:
    return int(variable.shape.num_elements() or 0) * int(variable.dtype.size)


def _users(graph: Any) -> dict[str, set[str]]:
    """Which kinds of operations use each node's value, through those that only hand it on; an output counts as one."""
    direct: dict[str, list[Any]] = {}
    for node in graph.node:
        for name in node.input:
            if not name.startswith("^"):
                direct.setdefault(name.split(":")[0], []).append(node)
    found: dict[str, set[str]] = {}
    for node in reversed(_sorted(graph)):
        users = direct.get(node.name, [])
        found[node.name] = {"output"} if not users else set().union(*(_kinds(user, found) for user in users))
    return found


def _kinds(user: Any, found: dict[str, set[str]]) -> set[str]:
    return found.get(user.name, {"unknown"}) if user.op in PASSING else {user.op}


def _sorted(graph: Any) -> list[Any]:
    """The nodes, each after those that it uses."""
    nodes = {node.name: node for node in graph.node}
    order: list[Any] = []
    seen: set[str] = set()
    for start in graph.node:
        waiting = [(start, False)]
        while waiting:
            node, done = waiting.pop()
            if done:
                order.append(node)
            elif node.name not in seen:
                seen.add(node.name)
                waiting.append((node, True))
                used = (nodes.get(name.removeprefix("^").split(":")[0]) for name in node.input)
                waiting.extend((item, False) for item in used if item is not None)
    return order


def _substitute(graph: Any, variables: dict[str, Any]) -> None:
    """Turn the handles of variables into inputs of their values, and what reads them into what hands them on."""
    carried = {name: variable.dtype.as_datatype_enum for name, variable in variables.items()}
    for node in _sorted(graph):
        source = node.input[0].split(":")[0] if node.input else ""
        if node.name in variables:
            _become_placeholder(node, carried[node.name], variables[node.name].shape.as_proto())
        elif source in carried and node.op == "Identity":
            carried[node.name] = carried[source]
            _become(node, "Identity", T=carried[source])
        elif source in carried and node.op == "ReadVariableOp":
            _become(node, "Identity", T=carried[source])
        elif source in carried and node.op == "ResourceGather":
            _become_gather(graph, node)


def _become(node: Any, operation: str, **types: int) -> None:
    node.op = operation
    for name in list(node.attr):
        del node.attr[name]
    for name, value in types.items():
        node.attr[name].type = value


def _become_placeholder(node: Any, dtype: int, shape: Any) -> None:
    del node.input[:]
    _become(node, "Placeholder", dtype=dtype)
    node.attr["shape"].shape.CopyFrom(shape)


def _become_gather(graph: Any, node: Any) -> None:
    batch = node.attr["batch_dims"].i
    _become(node, "GatherV2", Tparams=node.attr["dtype"].type, Tindices=node.attr["Tindices"].type, Taxis=3)
    node.attr["batch_dims"].i = batch
    axis = constant_node(f"{node.name}/gather_axis", batch, "int32")
    graph.node.append(axis)
    node.input.append(axis.name)


def _is_large(node: Any) -> bool:
    return len(node.attr["value"].tensor.tensor_content) >= LEAST_BYTES


def _placeholder_for_constant(node: Any) -> Read:
    import tensorflow as tf

    tensor = tf.make_ndarray(node.attr["value"].tensor)
    shape = node.attr["value"].tensor.tensor_shape
    kept = type(shape).FromString(shape.SerializeToString())
    _become_placeholder(node, node.attr["dtype"].type, kept)
    return partial(_itself, tensor)


def _itself(array: np.ndarray) -> np.ndarray:
    return array


# Tables and assignments -------------------------------------------------------------------------------------------


def _tables(graph: Any, resources: dict[str, Any]) -> dict[bytes, tuple[np.ndarray, np.ndarray]]:
    """Turn the placeholders of lookup tables into tables, and read what is in them."""
    kinds = {
        node.input[0].split(":")[0]: (node.attr["Tin"].type, node.attr["Tout"].type)
        for node in graph.node
        if node.op == "LookupTableFindV2"
    }
    found = {}
    for node in reversed(_sorted(graph)):
        if node.name in kinds and node.op == "Identity":
            kinds[node.input[0].split(":")[0]] = kinds[node.name]
        elif node.name in kinds and node.name in resources:
            key, value = kinds[node.name]
            _become(node, "HashTableV2", key_dtype=key, value_dtype=value)
            node.attr["shared_name"].s = node.name.encode()
            found[node.name.encode()] = _export(resources[node.name], key, value)
    return found


def _export(handle: Any, key: int, value: int) -> tuple[np.ndarray, np.ndarray]:
    import tensorflow as tf

    kinds = {"Tkeys": tf.dtypes.as_dtype(key), "Tvalues": tf.dtypes.as_dtype(value)}
    keys, values = tf.raw_ops.LookupTableExportV2(table_handle=handle, **kinds)
    return keys.numpy(), values.numpy()


def _drop_assignments(graph: Any) -> None:
    """Counters that a model moves on while it runs: a finished graph has no place for them."""
    gone = {node.name for node in graph.node if node.op.startswith("Assign") and node.op.endswith("VariableOp")}
    for index in reversed(range(len(graph.node))):
        if graph.node[index].name in gone:
            del graph.node[index]
            continue
        inputs = [name for name in graph.node[index].input if name.removeprefix("^") not in gone]
        del graph.node[index].input[:]
        graph.node[index].input.extend(inputs)
