"""A Keras model that is open in this job, of either library, as a ``Loaded``: named inputs, named outputs, weights."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from worker.errors import ModelError
from worker.formats._format import LayerRow, Loaded, Scales, TensorSpec
from worker.formats._implied_layers import implied_by_layers
from worker.formats._repairs import clean_name

if TYPE_CHECKING:
    import numpy as np

    from worker.formats._format import Arrays


def loaded(model: Any) -> Loaded:
    """The model behind the contract that every format's ``load`` keeps."""
    from worker.formats import _inner_live, _live_variables, _tables

    inputs, outputs = input_specs(model), output_specs(model)

    def run(arrays: Arrays) -> Arrays:
        return call(model, [feed(arrays[spec.name], spec.dtype) for spec in inputs])

    def exact(arrays: Arrays) -> Arrays:
        from worker.formats import _double

        return _double.of_function(_traced(model, inputs), [spec.name for spec in inputs], arrays)

    def traced() -> Callable[[Arrays], Arrays]:
        function = _traced(model, inputs)
        return lambda arrays: _fetched(function(*(feed(arrays[spec.name], spec.dtype) for spec in inputs)))

    found = Loaded(inputs, outputs, run, lambda: weights_of(model), inner=_inner_live.of_model(model, run))
    found = dataclasses.replace(found, exact=exact, traced=traced, scales=scales_of(model))
    found = dataclasses.replace(found, tables=lambda: _tables.of_layers(model))
    return _live_variables.with_variables(found, model)


def scales_of(model: Any) -> Scales:
    """What its layers add to a variance before they divide by its root, and what they multiply their inputs with."""
    layers = list(model._flatten_layers(include_self=True, recursive=True))
    rescaling = [layer for layer in layers if type(layer).__name__ == "Rescaling"]
    return Scales(_numbers_of(layers, "epsilon"), _numbers_of(rescaling, "scale"))


def _numbers_of(layers: Sequence[Any], name: str) -> tuple[float, ...]:
    told = [getattr(layer, name, None) for layer in layers]
    return tuple(sorted({float(value) for value in told if isinstance(value, int | float)}))


def _traced(model: Any, inputs: tuple[TensorSpec, ...]) -> Any:
    """The call of the model as a concrete function of its inputs in order, with a dictionary of outputs."""
    import tensorflow as tf

    names = output_names(model)

    def serve(*tensors: Any) -> dict[str, Any]:
        return dict(zip(names, flatten(model(pack(model, list(tensors)), training=False)), strict=True))

    signature = [tf.TensorSpec(spec.shape, spec.dtype) for spec in inputs]
    return tf.function(serve, input_signature=signature, autograph=False).get_concrete_function()


def _fetched(results: dict[str, Any]) -> Arrays:
    return {name: fetch(result) for name, result in results.items()}


def feed(array: np.ndarray, dtype: str) -> Any:
    """The array as a tensor of the input's type; text may come as bytes, as str or as objects."""
    import numpy as np
    import tensorflow as tf

    if dtype == "string":
        return tf.constant(np.asarray(array).astype(object).tolist(), tf.string, shape=np.shape(array))
    return tf.constant(np.asarray(array), dtype=dtype)


def fetch(tensor: Any) -> np.ndarray:
    """The tensor as an array; text as bytes of one length, never as objects."""
    import numpy as np
    import tensorflow as tf

    if isinstance(tensor, tf.RaggedTensor):
        tensor = tensor.to_tensor()
    if isinstance(tensor, tf.SparseTensor):
        tensor = tf.sparse.to_dense(tensor)
    array = np.asarray(tensor)
    if array.dtype == object:
        return array.astype("S") if array.size else np.empty(array.shape, "S1")
    return array.astype("float32") if str(array.dtype) == "bfloat16" else array


def call(model: Any, tensors: list[Any]) -> Arrays:
    """Run the model on its inputs in order; outputs by name."""
    results = flatten(model(pack(model, tensors), training=False))
    return {name: fetch(result) for name, result in zip(output_names(model), results, strict=True)}


def pack(model: Any, tensors: list[Any]) -> Any:
    """The flat inputs in the nesting that the model was built with."""
    import tensorflow as tf

    structure = getattr(model, "_inputs_struct", None)
    if structure is None:
        structure = getattr(model, "_nested_inputs", None)
    if structure is None or isinstance(structure, tf.Tensor):
        return tensors[0] if len(tensors) == 1 else tensors
    template = _map_structure(structure)
    return tf.nest.pack_sequence_as(template, tensors)


def _map_structure(structure: Any) -> Any:
    """The nesting alone, since the symbolic tensors of the two libraries are no leaves of the other's."""
    if isinstance(structure, dict):
        return {key: _map_structure(value) for key, value in structure.items()}
    if isinstance(structure, (list, tuple)):
        return [_map_structure(value) for value in structure]
    return 0


def flatten(results: Any) -> list[Any]:
    """Outputs in the order in which both libraries flatten them: dictionaries sorted by key."""
    if isinstance(results, dict):
        return [item for key in sorted(results) for item in flatten(results[key])]
    if isinstance(results, (list, tuple)):
        return [item for part in results for item in flatten(part)]
    return [results]


def require_interface(model: Any) -> None:
    """Raise ModelError for a model whose inputs nobody has told yet."""
    if not getattr(model, "inputs", None):
        raise ModelError(problem="the shape of its input is not in the file")


def input_names(model: Any) -> list[str]:
    """The names of the input layers, as signatures call them."""
    require_interface(model)
    return [clean_name(str(tensor.name).removesuffix(":0")) for tensor in model.inputs]


def output_names(model: Any) -> list[str]:
    """The names of the outputs: keys of a dictionary, else the layers they come from, numbered where one is twice."""
    structure = getattr(model, "_outputs_struct", None)
    if structure is None:
        structure = getattr(model, "_nested_outputs", None)
    if isinstance(structure, dict) and not any(isinstance(item, (dict, list, tuple)) for item in structure.values()):
        return [clean_name(key) for key in sorted(structure)]
    return _numbered([clean_name(name) for name in _layer_names(model)])


def _layer_names(model: Any) -> list[str]:
    names = []
    for tensor in model.outputs:
        history = tensor._keras_history
        names.append((history.operation if hasattr(history, "operation") else history.layer).name)
    return names


def _numbered(names: list[str]) -> list[str]:
    seen: dict[str, int] = {}
    result = []
    for name in names:
        count = seen.get(name, 0)
        seen[name] = count + 1
        result.append(f"{name}_{count}" if count else name)
    return result


def input_specs(model: Any) -> tuple[TensorSpec, ...]:
    names = input_names(model)
    specs = (_spec(name, tensor) for name, tensor in zip(names, model.inputs, strict=True))
    return tuple(implied_by_layers(tensor).on(spec) for tensor, spec in zip(model.inputs, specs, strict=True))


def output_specs(model: Any) -> tuple[TensorSpec, ...]:
    require_interface(model)
    return tuple(_spec(name, tensor) for name, tensor in zip(output_names(model), model.outputs, strict=True))


def _spec(name: str, tensor: Any) -> TensorSpec:
    dtype = tensor.dtype if isinstance(tensor.dtype, str) else tensor.dtype.name
    rank = getattr(tensor.shape, "rank", len(tensor.shape) if isinstance(tensor.shape, tuple) else None)
    return TensorSpec(name, None if rank is None else tuple(tensor.shape), dtype)


def weights_of(model: Any) -> Iterator[tuple[str, np.ndarray]]:
    """Every weight by its path, without what computes nothing: text, counters, random states of Keras 2."""
    import numpy as np

    for variable in model.weights:
        array = np.asarray(variable)
        of_keras_3 = hasattr(variable, "path")  # where whole numbers may be quantised kernels
        whole = array.dtype.kind in "iu" and not (of_keras_3 and array.ndim)
        if not whole and array.dtype.kind not in "OSU":
            yield str(variable.path if of_keras_3 else variable.name), array


def layer_rows(model: Any) -> tuple[LayerRow, ...]:
    """The layer table of a built model."""
    return tuple(_row(layer) for layer in model.layers)


def _row(layer: Any) -> LayerRow:
    shape = getattr(getattr(layer, "output", None), "shape", None) if getattr(layer, "_inbound_nodes", None) else None
    dtype = getattr(layer, "dtype_policy", None)
    count = sum(int(_size(variable)) for variable in layer.weights)
    return LayerRow(layer.name, type(layer).__name__, _shown(shape), str(getattr(dtype, "name", "")), count)


def _size(variable: Any) -> int:
    size = 1
    for length in variable.shape:
        size *= int(length)
    return size


def _shown(shape: Any) -> str:
    return "" if shape is None else "(" + ", ".join("?" if item is None else str(item) for item in shape) + ")"


def parameter_count(model: Any) -> int:
    return sum(_size(variable) for variable in model.weights)
