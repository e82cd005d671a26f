"""What the lookup tables of a model hold: vocabularies, which are no weights and decide as much. A digest for each."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any

LOOKUPS = frozenset({"LookupTableFind", "LookupTableFindV2"})


def in_layers(model: Any) -> list[Any]:
    """The tables of the lookup layers of a Keras model, which are no variables to be found."""
    layers = model._flatten_layers(include_self=False, recursive=True)
    tables = [getattr(layer, "lookup_table", None) for layer in layers]
    return [table for table in tables if table is not None]


def of_layers(model: Any) -> tuple[str, ...]:
    """Of the layers of a Keras model, of either library."""
    return _digests(table.export for table in in_layers(model) if hasattr(table, "export"))


def of_signature(function: Any) -> tuple[str, ...]:
    """Of those that a signature of a SavedModel looks things up in.

    They have to be read by the very types with which the graph does: TensorFlow ends the process where it is asked for
    others. So nothing is told where the graph has tables of several kinds."""
    import tensorflow as tf

    kinds = {(node.attr["Tin"].type, node.attr["Tout"].type) for node in _nodes(function) if node.op in LOOKUPS}
    if len(kinds) != 1:
        return ()
    key, value = kinds.pop()
    handles = [
        tensor for tensor in function.captured_inputs if tensor.dtype == tf.resource and not _is_variable(tensor)
    ]
    return _digests(
        partial(tf.raw_ops.LookupTableExportV2, table_handle=each, Tkeys=key, Tvalues=value) for each in handles
    )


def _nodes(function: Any) -> Iterator[Any]:
    graph = function.graph.as_graph_def()
    yield from graph.node
    for inner in graph.library.function:
        yield from inner.node_def


def _is_variable(handle: Any) -> bool:
    data = getattr(handle, "_handle_data", None)
    return data is not None and data.is_set and bool(data.shape_and_type)


def _digests(exports: Iterable[Callable[[], Any]]) -> tuple[str, ...]:
    """Sorted, since nobody says which is which. None where one of them cannot be read."""
    import tensorflow as tf

    try:
        return tuple(sorted(_digest(*export()) for export in exports))
    except (tf.errors.OpError, ValueError, TypeError):
        return ()


def _digest(keys: Any, values: Any) -> str:
    """Of the pairs in the order of their keys; a table has none."""
    pairs = sorted(zip(_texts(keys), _texts(values), strict=True))
    found = hashlib.sha256()
    for pair in pairs:
        for text in pair:
            found.update(len(text).to_bytes(8, "big") + text)
    return found.hexdigest()


def _texts(tensor: Any) -> list[bytes]:
    import numpy as np

    values = np.asarray(tensor).ravel().tolist()
    return [value if isinstance(value, bytes) else repr(value).encode() for value in values]
