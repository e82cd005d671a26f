"""A TensorFlow function as an ONNX model, by tf2onnx on a graph without the large weights.

tf2onnx copies every constant dozens of times: 100 MB of weights took it 6 GB and half a minute. The graph alone takes
about a second; the weights are written into the file afterwards.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from worker.errors import ConverterFailed, UnsupportedOperation
from worker.formats._format import TensorSpec
from worker.formats._graphs import all_nodes
from worker.formats._onnx_operations import handlers
from worker.formats._onnx_outline import Outline
from worker.formats._onnx_weights import Weight, fold
from worker.translation import first_line

LABEL = "ONNX"
NATIVE_OPSET = 18  # the newest that tf2onnx writes; onnx itself rewrites the graph for newer ones
UNKNOWN = re.compile(
    r"Tensorflow op \[[^:\]]+: (\w+)\] is not supported|No Op registered for (\w+)"
    r"|Could not find an implementation for (\w+)\(|Only (lookup tables) of type|(tables) from text to text"
)
CALL = re.compile(r"(Stateful)?PartitionedCall(_\d+)?$|Func$")
ADVICE = "ONNX has no such operation; keep the SavedModel, or take that layer out of the model and do it before"


NO_SPEC = TensorSpec("", None, "")


@dataclass(frozen=True)
class Converted:
    """An ONNX model whose large weights are still apart."""

    model: Any
    weights: list[Weight]


def convert(source: Outline, opset: int) -> Converted:
    """The outline in ONNX, with the inputs and outputs in the order of the signature."""
    given = [port.spec.name for port in source.graph.inputs]
    with _reporting(source.graph.definition):
        model = _run_tf2onnx(source, min(opset, NATIVE_OPSET))
        weights = _weights(model, source)
        folded = fold(model.graph, weights)
        _declare_bfloat16(model.graph, _specs(source))
        declare_shapes([*model.graph.input, *model.graph.output], _specs(source))
        _declare_inputs(model.graph, [*given, *folded], folded)
        model = at_opset(model, opset)
        check(model)
        _declare_inputs(model.graph, given, {})
    return Converted(model, list(folded.values()))


def _run_tf2onnx(source: Outline, opset: int) -> Any:
    """The steps of ``tf2onnx.convert`` on a graph that is at hand, with every failure raised instead of logged."""
    import tensorflow as tf
    from tf2onnx import optimizer, tf_loader, tfonnx

    ports = (*source.graph.inputs, *source.graph.outputs)
    given = [*(port.tensor for port in source.graph.inputs), *(f"{name}:0" for name in source.weights)]
    wanted = [port.tensor for port in source.graph.outputs]
    with tf.Graph().as_default(), tf.device("/cpu:0"):
        optimised = tf_loader.tf_optimize(given, wanted, source.graph.definition)
    for node in all_nodes(optimised):
        node.attr.pop("_input_shapes", None)  # what a pass of TensorFlow noted there; tf2onnx fails on it
    with tf.Graph().as_default() as imported:
        tf.import_graph_def(optimised, name="")
        converted = tfonnx.process_tf_graph(
            imported,
            opset=opset,
            input_names=given,
            output_names=wanted,
            tensors_to_rename={port.tensor: port.spec.name for port in ports},
            custom_op_handlers=handlers(source.tables),
            initialized_tables={},
        )
        return optimizer.optimize_graph(converted, catch_errors=False).make_model("Larder")


def _specs(source: Outline) -> dict[str, TensorSpec]:
    return {port.spec.name: port.spec for port in (*source.graph.inputs, *source.graph.outputs)}


def _weights(model: Any, source: Outline) -> dict[str, Weight]:
    """The inputs that stand for weights, each with the function that reads it."""
    readers = {f"{name}:0": read for name, read in source.weights.items()}
    found = {}
    for item in model.graph.input:
        if item.name in readers:
            kind = item.type.tensor_type
            shape = tuple(int(size.dim_value) for size in kind.shape.dim)
            found[item.name] = Weight(item.name, shape, int(kind.elem_type), readers[item.name])
    return found


def _declare_inputs(graph: Any, names: list[str], weights: Mapping[str, Weight]) -> None:
    """Exactly these inputs, in this order: tf2onnx has been seen to leave constants behind as further ones."""
    import onnx

    known = {item.name: item for item in graph.input}
    made = {
        name: onnx.helper.make_tensor_value_info(name, weight.dtype, weight.shape) for name, weight in weights.items()
    }
    chosen = [made.get(name) or known[name] for name in names]
    del graph.input[:]
    graph.input.extend(chosen)


def declare_shapes(items: Sequence[Any], specs: Mapping[str, TensorSpec]) -> None:
    """What the signature knows of the shapes, where tf2onnx has lost it."""
    for item in items:
        shape, kind = specs[item.name].shape if item.name in specs else None, item.type.tensor_type
        if shape is None or (kind.HasField("shape") and len(kind.shape.dim) != len(shape)):
            continue
        if not kind.HasField("shape"):
            kind.shape.SetInParent()
            for _ in shape:
                kind.shape.dim.add()
        for place, (size, length) in enumerate(zip(kind.shape.dim, shape, strict=True)):
            if length is not None:
                size.dim_value = length
            elif not size.dim_param:
                size.dim_param = f"{item.name}_{place}"


def _declare_bfloat16(graph: Any, specs: Mapping[str, TensorSpec]) -> None:
    """tf2onnx takes bfloat16 for float16; only the casts at the edges have it here."""
    import onnx

    halves = {item.name for item in (*graph.input, *graph.output) if specs.get(item.name, NO_SPEC).dtype == "bfloat16"}
    for item in (*graph.input, *graph.output):
        if item.name in halves:
            item.type.tensor_type.elem_type = onnx.TensorProto.BFLOAT16
    for node in graph.node:
        if node.op_type == "Cast" and node.output[0] in halves:
            node.attribute[0].i = onnx.TensorProto.BFLOAT16


def at_opset(model: Any, opset: int) -> Any:
    import onnx

    if opset <= NATIVE_OPSET:
        return model
    newer = onnx.version_converter.convert_version(model, opset)
    newer.ir_version = max(model.ir_version, _IR_VERSION[opset])
    return newer


_IR_VERSION = {19: 9, 20: 9, 21: 10}


def check(model: Any) -> None:
    """By ONNX' own rules with shapes inferred, and by ONNX Runtime, which knows more of what it cannot run."""
    import onnx

    from worker.formats._onnx_file import session

    if all(item.type.tensor_type.HasField("shape") for item in (*model.graph.input, *model.graph.output)):
        onnx.checker.check_model(model, full_check=True)  # which cannot check tensors of an unknown rank
    session(model.SerializeToString(), optimise=False)


@contextmanager
def _reporting(graph: Any) -> Iterator[None]:
    """What the libraries raise, with the operation's and the layer's name where they tell it."""
    layers = {node.op: layer_of(node.name) for node in reversed(graph.node)}
    try:
        yield
    except (ConverterFailed, UnsupportedOperation, MemoryError):
        raise
    except Exception as error:  # tf2onnx raises ValueError for everything, onnxruntime classes of its own
        raise refusal(str(error), layers) from error


def refusal(text: str, layers: Mapping[str, str]) -> ConverterFailed | UnsupportedOperation:
    """The error that a converter's message means; ``layers`` are the layers of TensorFlow's operations."""
    found = next((name for match in UNKNOWN.finditer(text) for name in match.groups() if name), None)
    if not found:
        problem = first_line(text) or "no reason was given"
        return ConverterFailed(target=LABEL, doing="Converting to ONNX", problem=problem)
    where = f" It is in {layers[found]}" if layers.get(found) else ""
    return UnsupportedOperation(target=LABEL, operation=found, problem=f"{ADVICE}.{where}".rstrip("."))


def layer_of(name: str) -> str:
    """The layer that a node of TensorFlow's graph belongs to, from its scoped name; empty where it has none."""
    scopes = [part for part in name.split("/")[:-1] if not CALL.match(part)]
    return "/".join(scopes[1:] or scopes)  # the first one is the model
