"""Operations of TensorFlow that tf2onnx does not know, written with operations that ONNX has.

Each function builds what takes the place of one node in tf2onnx' graph.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

    Tables = dict[bytes, tuple[np.ndarray, np.ndarray]]


def _rewrite(build: Callable[[_Builder], str]) -> tuple[Callable[..., None], list[Any]]:
    """A handler in tf2onnx' form from a function that builds the result and returns its name."""

    def handle(graph: Any, node: Any, name: str, arguments: list[Any]) -> None:
        builder = _Builder(graph, node)
        output, dtype, shape = node.output[0], graph.get_dtype(node.output[0]), graph.get_shape(node.output[0])
        graph.remove_node(node.name)
        result = build(builder)
        graph.make_node("Identity", [result], outputs=[output], name=name, dtypes=[dtype], shapes=[shape])

    return handle, []


class _Builder:
    """One node that is being replaced: its inputs, and a way to make nodes after them."""

    def __init__(self, graph: Any, node: Any) -> None:
        self.graph = graph
        self.node = node
        self.inputs = list(node.input)
        self.dtype = graph.get_dtype(node.input[0])
        self.result_dtype = graph.get_dtype(node.output[0])

    def table_name(self) -> bytes:
        """The shared name of the lookup table at the first input."""
        table = self.graph.get_node_by_output(self.inputs[0])
        while table.type == "Identity":
            table = table.inputs[0]
        return bytes(table.get_attr_value("shared_name"))

    def make(self, operation: str, *inputs: str, domain: str = "", **attributes: Any) -> str:
        return str(self.graph.make_node(operation, list(inputs), attr=attributes, domain=domain).output[0])

    def constant(self, value: Any, dtype: Any = None) -> str:
        """A constant of the type of the first input, or of ``dtype``."""
        import numpy as np
        import onnx
        from tf2onnx import utils

        kind = dtype or onnx.helper.tensor_dtype_to_np_dtype(self.dtype)
        return str(self.graph.make_const(utils.make_name("constant"), np.asarray(value, kind)).output[0])

    def value(self, place: int) -> np.ndarray:
        """The constant at an input."""
        return self.graph.get_node_by_output(self.inputs[place]).get_tensor_value(as_list=False)  # type: ignore[no-any-return]


def _erfc(at: _Builder) -> str:
    """1 - erf(x): what the exact GELU of Keras becomes in TensorFlow."""
    return at.make("Sub", at.constant(1), at.make("Erf", at.inputs[0]))


def _gelu(at: _Builder) -> str:
    """x Φ(x) of TensorFlow Lite, exact by the error function, or approximated by tanh."""
    x, one, half = at.inputs[0], at.constant(1), at.constant(0.5)
    if at.node.get_attr_value("approximate", 0):
        cube = at.make("Mul", at.make("Mul", x, x), at.make("Mul", x, at.constant(0.044715)))
        curve = at.make("Tanh", at.make("Mul", at.make("Add", x, cube), at.constant((2 / math.pi) ** 0.5)))
    else:
        curve = at.make("Erf", at.make("Mul", x, at.constant(0.5**0.5)))
    return at.make("Mul", at.make("Mul", x, half), at.make("Add", one, curve))


def _expm1(at: _Builder) -> str:
    """exp(x) - 1 as tanh(x/2) (exp(x) + 1), which stays exact near zero."""
    half = at.make("Tanh", at.make("Mul", at.inputs[0], at.constant(0.5)))
    return at.make("Mul", half, at.make("Add", at.make("Exp", at.inputs[0]), at.constant(1)))


def _bucketize(at: _Builder) -> str:
    """How many of the sorted boundaries are not above x: the Discretization layer."""
    import numpy as np
    import onnx

    boundaries = at.constant(list(at.node.get_attr_value("boundaries")), np.float32)
    x = at.make("Cast", at.inputs[0], to=onnx.TensorProto.FLOAT)
    x = at.make("Unsqueeze", x, at.constant([-1], np.int64))
    reached = at.make("Cast", at.make("GreaterOrEqual", x, boundaries), to=onnx.TensorProto.INT32)
    return at.make("ReduceSum", reached, at.constant([-1], np.int64), keepdims=0)


def _dense_bincount(at: _Builder) -> str:
    """How often, or whether, each number below ``size`` stands in each row: the CategoryEncoding layer."""
    import numpy as np
    import onnx

    size = at.make("Cast", at.inputs[1], to=onnx.TensorProto.INT64)
    depth = at.make("Reshape", size, at.constant([1], np.int64))
    on_off = at.constant([0, 1], np.float32)
    hot = at.make("OneHot", at.make("Cast", at.inputs[0], to=onnx.TensorProto.INT64), depth, on_off, axis=-1)
    axis = at.constant([-2], np.int64)
    binary = bool(at.node.get_attr_value("binary_output", 0))
    counted = _reduce_max(at, hot) if binary else at.make("ReduceSum", hot, axis, keepdims=0)
    return at.make("Cast", counted, to=at.result_dtype)


def _reduce_max(at: _Builder, x: str) -> str:
    """The axes of ReduceMax are an attribute up to opset 17, an input from 18."""
    import numpy as np

    if at.graph.opset >= 18:
        return at.make("ReduceMax", x, at.constant([-2], np.int64), keepdims=0)
    return at.make("ReduceMax", x, axes=[-2], keepdims=0)


def _lookup(tables: Tables) -> Callable[[_Builder], str]:
    """A table of text and numbers is a CategoryMapper of ai.onnx.ml; one of numbers is compared and gathered."""

    def build(at: _Builder) -> str:
        keys, values = tables[at.table_name()]
        default = at.value(2)
        if keys.dtype.kind == values.dtype.kind:
            return _find_number(at, keys, values, default)
        if keys.dtype.kind == "i":
            attributes = {"cats_int64s": keys, "cats_strings": values, "default_string": default.item()}
        else:
            attributes = {"cats_int64s": values, "cats_strings": keys, "default_int64": int(default)}
        return at.make("CategoryMapper", at.inputs[1], domain="ai.onnx.ml", **attributes)

    return build


def _find_number(at: _Builder, keys: np.ndarray, values: np.ndarray, default: np.ndarray) -> str:
    """Compare with every key: the place of the one that is equal, or the default where none is."""
    import numpy as np
    import onnx

    if keys.dtype.kind not in "iu":
        raise NotImplementedError("tables from text to text")
    last = at.constant([-1], np.int64)
    equal = at.make("Equal", at.make("Unsqueeze", at.inputs[1], last), at.constant(keys, keys.dtype))
    numbers = at.make("Cast", equal, to=onnx.TensorProto.INT32)
    place = at.make("ArgMax", numbers, axis=-1, keepdims=0)
    found = at.make("Cast", at.make("ReduceSum", numbers, last, keepdims=0), to=onnx.TensorProto.BOOL)
    picked = at.make("Gather", at.constant(values, values.dtype), place)
    return at.make("Where", found, picked, at.constant(default, values.dtype))


def handlers(tables: Tables) -> dict[str, Any]:
    """``custom_op_handlers`` for a graph with these lookup tables."""
    found = {
        "Erfc": _erfc,
        "TFL_GELU": _gelu,
        "Expm1": _expm1,
        "Bucketize": _bucketize,
        "DenseBincount": _dense_bincount,
    }
    return {name: _rewrite(build) for name, build in {**found, "LookupTableFindV2": _lookup(tables)}.items()}
