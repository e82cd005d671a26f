"""One use of an ONNX operator, as the functions that write it with TensorFlow see it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from worker.errors import UnsupportedOperation

if TYPE_CHECKING:
    import numpy as np

Operator = Callable[["Call"], Any]
TARGET = "TensorFlow"


@dataclass
class Call:
    """A node with its inputs: tensors, or NumPy arrays where they are constants, None where one was left out.

    ``opset`` is the version of the operators of the node's domain; ``wanted`` how many outputs are used;
    ``result`` the name of the first one. ``body`` runs a graph among the attributes, see ``_onnx_import``. ``tables``
    are the lookup tables of the whole model, by the name of their result.
    """

    operator: str
    inputs: list[Any]
    attributes: dict[str, Any]
    opset: int
    wanted: int
    body: Callable[[Any, list[Any]], list[Any]] | None = None
    name: str = ""
    result: str = ""
    tables: dict[str, Any] = field(default_factory=dict)

    def __getitem__(self, place: int) -> Any:
        """The input at a place; None where it was left out."""
        return self.inputs[place] if place < len(self.inputs) else None

    def get(self, name: str, default: Any = None) -> Any:
        """The attribute, text as str."""
        value = self.attributes.get(name, default)
        return value.decode() if isinstance(value, bytes) else value

    def static(self, place: int) -> np.ndarray | None:
        """The value of an input where it is known before the graph runs."""
        import numpy as np
        import tensorflow as tf

        value = self[place]
        if value is None or isinstance(value, np.ndarray):
            return value
        found = tf.get_static_value(value)
        return None if found is None else np.asarray(found)

    def known(self, place: int) -> list[int]:
        """The input as a list of integers; UnsupportedOperation where only running the graph would tell it."""
        value = self.static(place)
        if value is None:
            raise self.refused("its arguments are computed by the graph, and TensorFlow needs them before")
        return [int(item) for item in value.reshape(-1)]

    def axes(self, place: int) -> list[int] | None:
        """``axes``: an attribute in older operators, an input in newer ones; None where there are none."""
        if self[place] is not None:
            return self.known(place)
        given = self.get("axes")
        return None if given is None else [int(item) for item in given]

    def refused(self, problem: str) -> UnsupportedOperation:
        where = f" ({self.name})" if self.name else ""
        operation = f"the ONNX operator {self.operator}{where}"
        return UnsupportedOperation(target=TARGET, operation=operation, problem=problem)


def rank(tensor: Any) -> int:
    """The number of dimensions, which every operator that has axes has to know."""
    if tensor.shape is None or len(tensor.shape) is None:
        raise ValueError("the rank of a tensor is not known")
    return len(tensor.shape)


def sizes(tensor: Any) -> list[Any]:
    """The dimensions: integers where they are known, else scalar int32 tensors."""
    import tensorflow as tf

    dynamic = tf.shape(tensor)
    return [dynamic[place] if size is None else int(size) for place, size in enumerate(tensor.shape)]
