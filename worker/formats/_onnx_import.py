"""An ONNX model as a TensorFlow function: every node is written with TensorFlow operations, in its order.

What depends on constants alone is computed at once, so that shapes stay known. Large weights become variables.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from worker.errors import ConverterFailed, LarderError, UnsupportedOperation
from worker.formats import (
    _onnx_control,
    _onnx_elementwise,
    _onnx_file,
    _onnx_neural,
    _onnx_quantized,
    _onnx_recurrent,
    _onnx_reductions,
    _onnx_shapes,
)
from worker.formats._format import Hop
from worker.formats._onnx_calls import TARGET, Call, Operator
from worker.formats.saved_model import RENAMED_INPUT
from worker.translation import first_line

if TYPE_CHECKING:
    import numpy as np

LEAST_VARIABLE = 1024  # elements; smaller ones stay constants, which converters can look at
Values = dict[str, Any]


@cache
def operators() -> dict[str, Operator]:
    """Every operator that can be written, by its name."""
    parts = (_onnx_elementwise, _onnx_shapes, _onnx_neural, _onnx_reductions, _onnx_recurrent, _onnx_quantized)
    found: dict[str, Operator] = {}
    for part in (*parts, _onnx_control):
        found |= part.operators()
    return found


def module_of(file: Path, hop: Hop) -> Any:
    """A tf.Module whose ``serve`` is the model, with its inputs and outputs under their names."""
    model = _prepared(_onnx_file.read(file))
    _refuse_unknown(model)
    _fuse_erfc(model.graph)
    return _Importer(model, file.parent).module(hop)


def _prepared(model: Any) -> Any:
    """With the model's own functions, and those operators that ONNX defines by others, written out."""
    from onnx import inliner

    if model.functions:
        model = inliner.inline_local_functions(model)
    chosen = [(domain, name) for domain, name in _unknown(model) if _is_defined_by_others(domain, name)]
    if chosen:
        model = inliner.inline_selected_functions(_typed(model), chosen, False, inline_schema_functions=True)
    return model


def _fuse_erfc(graph: Any) -> None:
    """1 - erf(x) as erfc(x): exact where the one is nearly 1, and what converters know the exact GELU by."""
    errors = {node.output[0]: node.input[0] for node in graph.node if node.op_type == "Erf"}
    stored = {item.name: item for item in graph.initializer}
    for node in graph.node:
        if node.op_type == "Sub" and node.input[1] in errors and _is_one(stored.get(node.input[0])):
            node.op_type = "Erfc"
            node.input[:] = [errors[node.input[1]]]


def _is_one(tensor: Any) -> bool:
    import onnx

    return tensor is not None and len(tensor.dims) == 0 and float(onnx.numpy_helper.to_array(tensor)) == 1.0


def _typed(model: Any) -> Any:
    """With the type of every tensor: some operators are written out in a way that depends on them."""
    import onnx

    typed = onnx.shape_inference.infer_shapes(model)
    for node in typed.graph.node:
        _set_defaults(node)
    for tensor in typed.graph.initializer:
        typed.graph.value_info.append(
            onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims))
        )
    return typed


def _set_defaults(node: Any) -> None:
    """Write down the attributes that are left out, which nobody does when an operator is written out."""
    import onnx

    if node.op_type in operators() or not onnx.defs.has(node.op_type, node.domain):
        return
    given = {item.name for item in node.attribute}
    for name, attribute in onnx.defs.get_schema(node.op_type, node.domain).attributes.items():
        if name not in given and attribute.default_value.name:
            node.attribute.append(attribute.default_value)


def _unknown(model: Any) -> list[tuple[str, str]]:
    named = _onnx_file.operations(model)
    return sorted(item for item in named if item[0] not in _onnx_file.STANDARD_DOMAINS or item[1] not in operators())


def _is_defined_by_others(domain: str, name: str) -> bool:
    import onnx

    if not onnx.defs.has(name, domain):
        return False
    schema = onnx.defs.get_schema(name, domain)
    return any(getattr(schema, kind) for kind in ("has_function", "has_context_dependent_function"))


def _refuse_unknown(model: Any) -> None:
    if unknown := _unknown(model):
        names = ", ".join(f"{domain}.{name}".lstrip(".") for domain, name in unknown)
        problem = "Larder has no TensorFlow operations for them; the file can still become what needs no TensorFlow"
        raise UnsupportedOperation(target=TARGET, operation=f"the ONNX operators {names}", problem=problem)


@dataclass
class _Importer:
    """One model on its way: its constants, its variables, and what has been computed so far."""

    model: Any
    folder: Path
    owner: Any = None
    variables: list[Any] = field(default_factory=list)
    tables: dict[str, Any] = field(default_factory=dict)

    def module(self, hop: Hop) -> Any:
        import tensorflow as tf

        inputs, outputs = _onnx_file.inputs_of(self.model.graph), _onnx_file.outputs_of(self.model.graph)
        stored = self._stored(self.model.graph)
        names = _arguments([item.name for item in inputs], hop)

        def serve(*tensors: Any) -> dict[str, Any]:
            given = {item.name: tensor for item, tensor in zip(inputs, tensors, strict=True)}
            values = self.run(self.model.graph, {**stored, **given})
            return {item.name: tf.identity(tf.convert_to_tensor(values[item.name])) for item in outputs}

        specs = [tf.TensorSpec(item.shape, item.dtype, name=name) for item, name in zip(inputs, names, strict=True)]
        self.owner = tf.Module()
        self.owner.kept = self.variables
        self.owner.serve = tf.function(serve, input_signature=specs, autograph=False)
        self.owner.serve.get_concrete_function()  # traced now, where its errors are understood
        self.owner.tables = list(self.tables.values())
        return self.owner

    def _stored(self, graph: Any) -> Values:
        """The initializers: NumPy arrays, and variables for the large ones of floating types."""
        found: Values = {}
        for tensor in graph.initializer:
            array = _onnx_file.array(tensor, self.folder)
            found[tensor.name] = self._variable(tensor.name, array) if _is_weight(array) else array
        return found

    def _variable(self, name: str, array: np.ndarray) -> Any:
        import tensorflow as tf

        with tf.init_scope():
            variable = tf.Variable(array, name=re.sub(r"[^\w./-]", "_", name) or "weight")
        self.variables.append(variable)
        return variable

    def run(self, graph: Any, values: Values) -> Values:
        """Write the nodes one by one; ``values`` are what is known before them, by name."""
        values = dict(values)
        for node in graph.node:
            results = self._call(node, values)
            values.update(zip(node.output, results, strict=False))
        return values

    def _call(self, node: Any, values: Values) -> list[Any]:
        call = self._described(node, values)
        try:
            return _listed(self._computed(call))
        except LarderError:
            raise
        except Exception as error:  # TensorFlow raises whatever a shape or a type brings about
            doing = f"Writing the ONNX operator {node.op_type}{f' ({node.name})' if node.name else ''} in TensorFlow"
            problem = first_line(str(error)) or type(error).__name__
            raise ConverterFailed(target=TARGET, doing=doing, problem=problem) from error

    def _described(self, node: Any, values: Values) -> Call:
        import onnx

        versions = {item.domain: int(item.version) for item in self.model.opset_import}
        domain = "" if node.domain == "ai.onnx" else node.domain
        return Call(
            operator=node.op_type,
            inputs=[_read(values[name]) if name else None for name in node.input],
            attributes={item.name: onnx.helper.get_attribute_value(item) for item in node.attribute},
            opset=versions.get(domain, versions.get("ai.onnx", 1)),
            wanted=_wanted(node),
            body=lambda graph, given: self._body(graph, given, values),
            name=node.name,
            result=node.output[0],
            tables=self.tables,
        )

    def _body(self, graph: Any, given: list[Any], values: Values) -> list[Any]:
        """Run a graph inside the graph: it sees what is around it."""
        inputs = {item.name: value for item, value in zip(graph.input, given, strict=False)}
        found = self.run(graph, {**values, **self._constants(graph), **inputs})
        return [found[item.name] for item in graph.output]

    def _constants(self, graph: Any) -> Values:
        return {tensor.name: _onnx_file.array(tensor, self.folder) for tensor in graph.initializer}

    def _computed(self, call: Call) -> Any:
        """Write the node; at once where all its inputs are constants."""
        import numpy as np
        import tensorflow as tf

        function = operators()[call.operator]
        if call.operator in _onnx_control.NOT_FOLDED or not all(
            item is None or isinstance(item, np.ndarray) for item in call.inputs
        ):
            return _known_shapes(call, function)
        with tf.init_scope():
            return [_fixed(item) for item in _listed(function(call))]


def _known_shapes(call: Call, function: Callable[[Call], Any]) -> Any:
    """The size of a tensor is a constant where it is known."""
    import numpy as np

    shape = getattr(call[0], "shape", None)
    if call.operator == "Shape" and shape is not None and shape.rank is not None and None not in shape.as_list():
        return np.asarray(shape.as_list(), np.int64)[call.get("start", 0) : call.get("end")]
    return function(call)


def _fixed(value: Any) -> Any:
    """A computed constant as an array; text stays a tensor."""
    import numpy as np

    array = np.asarray(value)
    return value if array.dtype == object else array


def _listed(results: Any) -> list[Any]:
    return list(results) if isinstance(results, (list, tuple)) else [results]


def _read(value: Any) -> Any:
    """The value of a variable; anything else as it is."""
    import tensorflow as tf

    return tf.convert_to_tensor(value) if isinstance(value, tf.Variable) else value


def _wanted(node: Any) -> int:
    """How many outputs are named: those that are left out at the end do not count."""
    named = [place for place, name in enumerate(node.output, 1) if name]
    return max(named, default=0)


def _is_weight(array: np.ndarray) -> bool:
    return array.dtype.kind in "fV" and array.size >= LEAST_VARIABLE


def _arguments(names: list[str], hop: Hop) -> list[str]:
    """Names that a function's arguments can have, all different."""
    found: list[str] = []
    for name in names:
        clean = re.sub(r"\W", "_", name) or "input"
        clean = f"_{clean}" if clean[0].isdigit() else clean
        clean = clean if clean not in found else f"{clean}_{len(found)}"
        if clean != name:
            hop.add(RENAMED_INPUT(name=name, new=clean))
        found.append(clean)
    return found
