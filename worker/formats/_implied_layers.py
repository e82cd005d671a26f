"""What the layers of a Keras model, of either library, imply of its inputs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from worker.formats._implied import Fed, Implied, numbers_between, some_words, together

# Layers that hand values on as they are, on their way to what says something about them.
_PASSING = (
    *("InputLayer", "Identity", "Dropout", "SpatialDropout1D", "SpatialDropout2D", "Masking", "Cast", "GetItem"),
    *("Reshape", "Flatten", "Permute", "RepeatVector", "Concatenate", "ExpandDims", "Squeeze", "SlicingOpLambda"),
    *("Cropping1D", "Cropping2D", "ZeroPadding1D", "ZeroPadding2D", "Resizing", "CenterCrop"),
)
_PASSING_OPERATIONS = ("cast", "expand_dims", "squeeze", "reshape", "concat", "identity", "convert_to_tensor")
_STEPS: dict[str, Callable[[Fed, Any], Fed | None]] = {
    "Multiply": Fed.times,
    "Divide": Fed.over,
    "TrueDivide": Fed.over,
    "Add": Fed.plus,
    "Subtract": lambda fed, value: None if value is None else fed.plus(-_number(value)),
    "math.multiply": Fed.times,
    "math.divide": Fed.over,
    "math.truediv": Fed.over,
    "math.add": Fed.plus,
    "math.subtract": lambda fed, value: None if value is None else fed.plus(-_number(value)),
    "__operators__.add": Fed.plus,
    "nn.bias_add": Fed.plus,
}
MOST_STEPS = 1000  # of a walk; a model where an input goes more ways than that says nothing about it


def implied_by_layers(tensor: Any) -> Implied:
    """Of the input whose symbolic tensor this is. A model without such tensors says nothing."""
    return together(_facts(tensor))


def _facts(tensor: Any) -> Iterator[Implied]:
    pending: list[tuple[Any, Fed]] = [(tensor, Fed.unchanged())]
    seen: set[tuple[int, int]] = set()
    while pending and len(seen) < MOST_STEPS:
        current, fed = pending.pop(0)
        for node in _consumers(current):
            layer = getattr(node, "operation", None) or getattr(node, "layer", None)
            if layer is None or (id(node), id(current)) in seen:
                continue
            seen.add((id(node), id(current)))
            yield from _said_by(layer, fed)
            after = _after(layer, node, fed)
            if after is None:
                yield fed.implied()
            else:
                pending += [(item, after) for item in _onward(layer, node, current)]


def _consumers(tensor: Any) -> list[Any]:
    history = getattr(tensor, "_keras_history", None)
    source = getattr(history, "operation", None) or getattr(history, "layer", None)
    nodes = getattr(source, "_outbound_nodes", [])
    return [node for node in nodes if any(item is tensor for item in _tensors(node, "input"))]


def _tensors(node: Any, side: str) -> list[Any]:
    """A node's inputs or outputs: a flat list in Keras 3, any nesting in Keras 2."""
    found = getattr(node, f"{side}_tensors", None)
    return _flat(getattr(node, f"{side}s", []) if found is None else found)


def _flat(items: Any) -> list[Any]:
    if isinstance(items, dict):
        return [item for key in sorted(items) for item in _flat(items[key])]
    if isinstance(items, (list, tuple)):
        return [item for part in items for item in _flat(part)]
    return [items]


def _said_by(layer: Any, fed: Fed) -> Iterator[Implied]:
    """What this very layer tells; of indices, words and padding only where the values come as they were given."""
    if not fed.is_unchanged:
        return
    kind = type(layer).__name__
    if kind == "Embedding":
        yield Implied(limit=int(layer.input_dim), padding=0.0 if getattr(layer, "mask_zero", False) else None)
    elif kind == "CategoryEncoding" and layer.num_tokens:
        yield Implied(limit=int(layer.num_tokens))
    elif kind == "OneHot" and hasattr(layer, "num_classes"):
        yield Implied(limit=int(layer.num_classes))
    elif kind in ("StringLookup", "IntegerLookup", "TextVectorization"):
        yield _vocabulary(layer)
    elif kind == "Masking":
        yield Implied(padding=float(layer.mask_value))
    elif kind == "Discretization":
        yield _bins(layer)


def _vocabulary(layer: Any) -> Implied:
    try:
        return some_words(list(layer.get_vocabulary()))
    except Exception:  # a table that was not filled: nothing is known, and running the model will say why
        return Implied()


def _bins(layer: Any) -> Implied:
    import numpy as np

    edges = np.asarray(layer.bin_boundaries or [0.0], float)
    margin = max(float(np.ptp(edges)) / 10, 1e-3)
    return numbers_between(edges.min() - margin, edges.max() + margin)


def _after(layer: Any, node: Any, fed: Fed) -> Fed | None:
    """The values behind the layer; None where it computes something else of them."""
    kind = type(layer).__name__
    if kind == "Rescaling":
        scaled = fed.times(_number(layer.scale))
        return scaled.plus(_number(layer.offset)) if scaled else None
    if kind == "Normalization":
        return _normalised(layer, fed)
    if kind in _PASSING or (getattr(layer, "inputs", None) and hasattr(layer, "layers")):
        return fed
    name = str(getattr(layer, "symbol", kind)) if "OpLambda" in kind else kind
    if name in _STEPS:
        value = _other_operand(node)
        return None if value is None else _STEPS[name](fed, value)
    return fed if name in _PASSING_OPERATIONS else None


def _normalised(layer: Any, fed: Fed) -> Fed | None:
    import numpy as np

    mean, variance = getattr(layer, "mean", None), getattr(layer, "variance", None)
    if mean is None or variance is None or getattr(layer, "invert", False):
        return None
    deviation = np.maximum(np.sqrt(_number(variance)), 1e-7)
    shifted = fed.plus(-_number(mean))
    return shifted.over(deviation) if shifted else None


def _number(value: Any) -> Any:
    """The value of a number, an array, a tensor or a variable of either library."""
    import numpy as np

    return np.asarray(value, float)


def _other_operand(node: Any) -> Any:
    """The one plain value that an operation is called with besides the tensor; None where there is none or several."""
    arguments = getattr(node, "arguments", None)
    given = (arguments.args, arguments.kwargs) if arguments else (node.call_args, node.call_kwargs)
    tensors = [id(item) for item in _tensors(node, "input")]
    plain = [item for item in [*_flat(given[0]), *_flat(given[1])] if id(item) not in tensors]
    plain = [item for item in plain if item is not None and not isinstance(item, (str, bool))]
    try:
        return _number(plain[0]) if len(plain) == 1 and len(tensors) == 1 else None
    except (TypeError, ValueError):
        return None


def _onward(layer: Any, node: Any, tensor: Any) -> list[Any]:
    if getattr(layer, "inputs", None) and hasattr(layer, "layers"):
        position = next(index for index, item in enumerate(_tensors(node, "input")) if item is tensor)
        return [layer.inputs[position]]
    return _tensors(node, "output")
