"""A frozen TensorFlow graph as TensorFlow.js wants it, and back: its operations rewritten, its constants apart."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from worker.errors import CorruptFile, ModelError, UnsupportedOperation
from worker.formats._graphs import all_nodes, constant_node, renamed, with_own_functions
from worker.formats._tfjs import narrowed
from worker.formats._tfjs_ops import OPERATIONS

if TYPE_CHECKING:
    import numpy as np

LABEL = "TF.js graph model"
FIRST_PASSES = ("pruning", "constfold", "arithmetic", "dependency", "pruning", "constfold", "arithmetic", "dependency")
FUSING_PASSES = ("remap", "constfold", "arithmetic", "dependency")
FUSED = frozenset({"Conv2D", "MatMul"})  # what remapping fuses with a bias and an activation, on a CPU alone
LOOPS = frozenset({"Enter", "Exit", "NextIteration", "LoopCond", "Switch", "Merge"})  # of TensorFlow 1
CALLING = frozenset({"While", "StatelessWhile", "If", "StatelessIf"})
ACTIVATIONS = frozenset({"Relu", "Relu6", "Elu", "LeakyRelu", "Sigmoid", "Tanh", "Softmax"})
# What the kernels of TensorFlow.js take behind a contraction; TensorFlow's own passes fuse more
FUSES = frozenset({b"BiasAdd", b"Relu", b"Relu6", b"Elu", b"LeakyRelu", b"Sigmoid", b"NoOp"})
EMPTIED = ("tensor_content", *(f"{kind}_val" for kind in ("half", "float", "double", "int", "string", "scomplex")))
EMPTIED += tuple(f"{kind}_val" for kind in ("int64", "bool", "resource_handle", "variant", "uint32", "uint64"))


# To TensorFlow.js -------------------------------------------------------------------------------------------------


def prepared(graph: Any, signature: Any) -> Any:
    """The GraphDef after the official converter's optimisation; UnsupportedOperation for what TF.js cannot run."""
    _rewrite_erfc(graph)
    _refuse(graph)
    plain = _optimised(graph, signature, FIRST_PASSES)
    _refuse(plain)
    for node in plain.node:
        if node.op in FUSED:
            node.device = "/device:CPU:0"
    fused = _optimised(plain, signature, FUSING_PASSES)
    chosen = plain if unknown(fused) else _spelled(fused, lambda node: not FUSES.issuperset(_fused(node)))
    for node in all_nodes(chosen):
        node.device = ""
        if node.op in CALLING:  # TensorFlow.js takes what a node only waits for as one more argument
            node.input[:] = [name for name in node.input if not name.startswith("^")]
    for function in chosen.library.function:
        _keep_list_items(function)
    return chosen


def unknown(graph: Any) -> set[str]:
    """The operations of a graph that TensorFlow.js does not have."""
    return {node.op for node in all_nodes(graph) if node.op not in OPERATIONS}


def _refuse(graph: Any) -> None:
    if found := unknown(graph):
        problem = "TensorFlow.js has no such operation; keep the SavedModel, or replace the layer that makes it"
        raise UnsupportedOperation(target=LABEL, operation=", ".join(sorted(found)), problem=problem)
    if loops := {node.op for node in graph.node} & LOOPS:
        problem = "it has the loops of TensorFlow 1, which TensorFlow.js does not run"
        raise UnsupportedOperation(target=LABEL, operation=", ".join(sorted(loops)), problem=problem)


def _keep_list_items(function: Any) -> None:
    """Let the body of a loop hand on the very tensor that it puts into a list.

    When a body ends, TensorFlow.js throws away every tensor that is none of its outputs, also those that a list
    refers to; and a copy of an output is no output.
    """
    nodes = {node.name: node for node in function.node_def}
    items = [node for node in function.node_def if node.op == "TensorListSetItem"]
    for node in items:
        node.input[2] = _origin(node.input[2], nodes)
    wanted = {node.input[2] for node in items}
    for key, reference in list(function.ret.items()):
        if _origin(reference, nodes) in wanted:
            function.ret[key] = _origin(reference, nodes)
    if lost := wanted - set(function.ret.values()):
        problem = f"a loop collects {min(lost)}, which TensorFlow.js loses when a round of the loop ends"
        raise UnsupportedOperation(target=LABEL, operation="TensorListSetItem", problem=problem)


def _origin(reference: str, nodes: Mapping[str, Any]) -> str:
    """What an Identity passes on, and what that passes on."""
    node = nodes.get(reference.split(":")[0])
    while node is not None and node.op == "Identity":
        reference = node.input[0]
        node = nodes.get(reference.split(":")[0])
    return reference


def _rewrite_erfc(graph: Any) -> None:
    """Exact GELU computes ``erfc(x)``, which TensorFlow.js writes as ``1 - erf(x)``."""
    for node in [item for item in graph.node if item.op == "Erfc"]:
        kind = node.attr["T"].type
        inner = graph.node.add(name=f"{node.name}/erf", op="Erf", input=list(node.input))
        inner.attr["T"].type = kind
        one = constant_node(f"{node.name}/one", 1.0, kind)
        graph.node.append(one)
        node.op = "Sub"
        node.input[:] = [one.name, inner.name]


def _optimised(graph: Any, signature: Any, passes: tuple[str, ...]) -> Any:
    """The graph after Grappler's passes, seen from the outputs of the signature."""
    from tensorflow.core.protobuf import config_pb2, meta_graph_pb2, rewriter_config_pb2
    from tensorflow.python.grappler import tf_optimizer

    meta = meta_graph_pb2.MetaGraphDef()
    meta.graph_def.CopyFrom(graph)
    meta.signature_def["serving_default"].CopyFrom(signature)
    kept = meta.collection_def["train_op"].node_list.value
    kept.extend(output.name.split(":")[0] for output in signature.outputs.values())
    config = config_pb2.ConfigProto()
    options = config.graph_options.rewrite_options
    options.optimizers[:] = passes
    options.min_graph_nodes = -1  # small graphs too
    # What is to run twice is there twice
    options.meta_optimizer_iterations = rewriter_config_pb2.RewriterConfig.ONE
    return tf_optimizer.OptimizeGraph(config, meta)


def dtypes_of(graph: Any) -> list[str]:
    """The dtype of every constant."""
    import tensorflow as tf

    return [tf.as_dtype(node.attr["dtype"].type).name for node in graph.node if node.op == "Const"]


def take_constants(graph: Any) -> list[tuple[str, np.ndarray]]:
    """The values of the graph's constants by name, taken out of it; their dtypes and shapes stay in it.

    Constants inside of functions get the name of their function in front, since all weights are in one list."""
    from tensorflow import make_ndarray

    for function in graph.library.function:
        _prefix_constants(function)
    taken = []
    for node in all_nodes(graph):
        if node.op == "Const":
            tensor = node.attr["value"].tensor
            taken.append((node.name, narrowed(make_ndarray(tensor), node.name)))
            for field in EMPTIED:
                tensor.ClearField(field)
    return taken


def _prefix_constants(function: Any) -> None:
    prefix = function.signature.name.lstrip("_")
    constants = [node.name for node in function.node_def if node.op == "Const"]
    _rename_nodes(function, {name: f"{prefix}/{name}" for name in constants})


def _rename_nodes(function: Any, names: Mapping[str, str]) -> None:
    for node in function.node_def:
        node.name = renamed(node.name, names)
        node.input[:] = [renamed(name, names) for name in node.input]
    for key, reference in list(function.ret.items()):
        function.ret[key] = renamed(reference, names)


# From TensorFlow.js -----------------------------------------------------------------------------------------------


def parsed(topology: Mapping[str, Any]) -> Any:
    """The GraphDef in a topology; CorruptFile where it is none."""
    from google.protobuf import json_format  # type: ignore[import-untyped]
    from tensorflow.core.framework import graph_pb2

    try:
        return json_format.ParseDict(dict(topology), graph_pb2.GraphDef(), ignore_unknown_fields=True)
    except (json_format.ParseError, ValueError, TypeError) as error:
        raise CorruptFile(name="model.json", problem=f"its topology is no graph ({str(error)[:200]})") from error


def with_unique_functions(graph: Any) -> Any:
    """The graph with names of its own for its functions: TensorFlow keeps one list of them for a whole process."""
    unique = with_own_functions(graph, f"_{uuid.uuid4().hex}")
    for function in unique.library.function:
        # The official converter puts the name of the function in front, and no name of a node may begin like that
        odd = [node.name for node in function.node_def if node.name.startswith("_")]
        _rename_nodes(function, {name: name.lstrip("_") for name in odd})
    return unique


def put_constants(graph: Any, arrays: Mapping[str, np.ndarray]) -> None:
    """Give every constant its value back, in the dtype that the graph declares."""
    import tensorflow as tf

    for node in all_nodes(graph):
        if node.op == "Const":
            if node.name not in arrays:
                raise CorruptFile(name="model.json", problem=f"its manifest has no values for {node.name}")
            dtype = tf.as_dtype(node.attr["dtype"].type or node.attr["value"].tensor.dtype)
            array = arrays[node.name]
            node.attr["value"].tensor.CopyFrom(tf.make_tensor_proto(array, dtype, array.shape))


def as_tensorflow(graph: Any) -> Any:
    """The graph in TensorFlow's own operations: what only TensorFlow.js has is spelled out, and what was fused for it
    is taken apart, since converters to other formats know the single operations."""
    plain = _spelled(graph, lambda node: node.op in SPELLED)
    _join_erfc(plain)
    return plain


def _join_erfc(graph: Any) -> None:
    """``1 - erf(x)`` as ``erfc(x)``: exact where the one is nearly 1, and what converters know the exact GELU by."""
    import tensorflow as tf

    nodes = {node.name: node for node in graph.node}
    for node in graph.node:
        one, error = (nodes.get(name) for name in node.input[:2]) if node.op == "Sub" else (None, None)
        if one is None or error is None or (one.op, error.op) != ("Const", "Erf"):
            continue
        value = tf.make_ndarray(one.attr["value"].tensor)
        if value.shape == () and value == 1:
            node.op = "Erfc"
            node.input[:] = error.input[:1]


def _spelled(graph: Any, wanted: Callable[[Any], bool]) -> Any:
    """The graph with these of the operations in ``SPELLED`` taken apart."""
    from tensorflow.core.framework import graph_pb2

    plain = graph_pb2.GraphDef(versions=graph.versions, library=graph.library)
    for node in graph.node:
        if wanted(node):
            SPELLED[node.op](plain, node)
        else:
            plain.node.add().CopyFrom(node)
    return plain


def _fused(node: Any) -> list[bytes]:
    return list(node.attr["fused_ops"].list.s) if "fused_ops" in node.attr else []


def _spell_prelu(graph: Any, node: Any) -> None:
    _add_prelu(graph, node.name, node.input[0], node.input[1])


def _add_prelu(graph: Any, name: str, source: str, alpha: str) -> None:
    """``relu(x) - alpha * relu(-x)``."""
    _add(graph, f"{name}/positive", "Relu", source)
    _add(graph, f"{name}/minus", "Neg", source)
    _add(graph, f"{name}/negative", "Relu", f"{name}/minus")
    _add(graph, f"{name}/scaled", "Mul", alpha, f"{name}/negative")
    _add(graph, name, "Sub", f"{name}/positive", f"{name}/scaled")


def _add(graph: Any, name: str, op: str, *inputs: str) -> Any:
    from tensorflow import float32

    node = graph.node.add(name=name, op=op, input=inputs)
    node.attr["T"].type = float32.as_datatype_enum
    return node


PLAIN = {"FusedDepthwiseConv2dNative": "DepthwiseConv2dNative", "_FusedConv2D": "Conv2D", "_FusedMatMul": "MatMul"}


def _spell_fused(graph: Any, node: Any) -> None:
    """A contraction, then what was fused into it, one operation after the other; the last one has the name."""
    from tensorflow.python.framework import op_def_registry

    steps = [step.decode() for step in _fused(node) if step != b"NoOp"]
    arguments = list(node.input[2:])
    first = graph.node.add()
    first.CopyFrom(node)
    first.op, first.name = PLAIN[node.op], f"{node.name}/plain" if steps else node.name
    first.input[:] = node.input[:2]
    known = {item.name for item in op_def_registry.get(first.op).attr}
    for name in set(first.attr) - known:
        del first.attr[name]
    last = first.name
    for number, step in enumerate(steps, 1):
        name = node.name if number == len(steps) else f"{node.name}/{step}"
        _add_step(graph, name, step, last, arguments, node)
        last = name


def _add_step(graph: Any, name: str, step: str, source: str, arguments: list[str], fused: Any) -> None:
    if step == "Prelu":
        _add_prelu(graph, name, source, arguments.pop(0))
    elif step == "BiasAdd":
        node = _add(graph, name, step, source, arguments.pop(0))
        if "data_format" in fused.attr:
            node.attr["data_format"].CopyFrom(fused.attr["data_format"])
    elif step in ACTIVATIONS:
        node = _add(graph, name, step, source)
        if step == "LeakyRelu":
            node.attr["alpha"].f = fused.attr["leakyrelu_alpha"].f
    elif step == "FusedBatchNorm":
        _add_normalisation(graph, name, [source, *(arguments.pop(0) for _ in range(4))], fused)
    else:
        raise ModelError(problem=f"it fuses {step} into {fused.op}, which TensorFlow does not have")


def _add_normalisation(graph: Any, name: str, inputs: list[str], fused: Any) -> None:
    """With the statistics that were learned: what is fused never trains."""
    node = _add(graph, name, "FusedBatchNormV3", *inputs)
    node.attr["U"].type = node.attr["T"].type
    node.attr["epsilon"].f = fused.attr["epsilon"].f
    node.attr["is_training"].b = False
    if "data_format" in fused.attr:
        node.attr["data_format"].CopyFrom(fused.attr["data_format"])


SPELLED: dict[str, Callable[[Any, Any], None]] = {
    "Prelu": _spell_prelu,
    "FusedDepthwiseConv2dNative": _spell_fused,
    "_FusedConv2D": _spell_fused,
    "_FusedMatMul": _spell_fused,
}
