"""The weights of an OpenVINO graph: its constants that are numbers with a point."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from worker.formats._quantised import wide

if TYPE_CHECKING:
    import numpy as np

FLOATS = frozenset({"f16", "f32", "f64", "bf16"})


def weights(model: Any) -> Iterator[tuple[str, np.ndarray]]:
    """Those of the graph, and of the bodies of its loops and branches."""
    for number, node in enumerate(_operations(model)):
        kind = node.get_element_type().get_type_name() if node.get_type_name() == "Constant" else ""
        if kind in FLOATS:
            yield f"{number}/{node.get_friendly_name()}", _values(node, kind)


def _operations(model: Any) -> Iterator[Any]:
    for node in model.get_ordered_ops():
        yield node
        for body in _bodies(node):
            yield from _operations(body)


def _bodies(node: Any) -> Iterator[Any]:
    kind = node.get_type_name()
    if kind in ("TensorIterator", "Loop"):
        yield node.get_function()
    elif kind == "If":
        yield from (node.get_function(0), node.get_function(1))


def _values(node: Any, kind: str) -> np.ndarray:
    import numpy as np

    if kind == "bf16":
        return wide(np.frombuffer(node.data.tobytes(), "<u2")).reshape(tuple(node.get_output_shape(0)))
    values: np.ndarray = node.data
    return values
