"""Architectures and lists of weights among the values of a pickle, in the shapes that people give them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

from worker.errors import CorruptFile, LarderError, ModelError, WeightsMismatch
from worker.formats._architecture import Architecture, layers_of, parse
from worker.formats._optimizer import Training
from worker.formats._pickles import is_numeric, tensor, text, values
from worker.formats._pickles_values import Array, DType, Opaque, Span, Table, head_of, text_of, walk
from worker.formats._tensors import value_of
from worker.formats._weights import LOOKUPS, Flat, Rows

if TYPE_CHECKING:
    from worker.formats._architecture import Node
    from worker.formats._rebuild import Part
    from worker.formats._tensors import Named, Stored
    from worker.formats._weights import Pairs

SPECIAL_WORDS = ("", "[UNK]")  # Keras adds them itself
MAX_OF_VARIABLE = 40  # values that a variable is made from
MAX_NODES = 1_000_000
MAX_DEPTH = 100


@dataclass(frozen=True)
class Given:
    """Weights that are read when they are wanted, and the value that holds them.

    ``is_one_array``: any array of numbers could be meant as these.
    """

    read: Callable[[], Flat | Rows]
    source: Any
    is_one_array: bool = False

    def __call__(self) -> Flat | Rows:
        return self.read()


# The architecture -----------------------------------------------------------------------------------------------


def architecture_of(value: Any, name: str) -> Architecture | None:
    """A text of ``to_json``, or the dictionary that ``get_config`` gives; None where it is neither."""
    try:
        if isinstance(value, (str, bytes, Span)):
            return _described_in(value, name)
        return _described_by(value) if isinstance(value, Table) else None
    except LarderError:
        return None


def _described_in(value: Any, name: str) -> Architecture | None:
    head = head_of(value, 4096).lstrip()
    if not head.startswith(b"{") or b'"class_name"' not in head or b'"config"' not in head:
        return None
    whole = text(value)
    return parse(whole, name) if whole is not None else None


def _described_by(table: Table) -> Architecture | None:
    """A node with its class, or the bare config of a model, which is Sequential where it names no inputs."""
    named = table.named() or {}
    if isinstance(text_of(named.get("class_name")), str) and "config" in named:
        return parse(json.dumps(plain(table, [MAX_NODES])), "the config")
    if isinstance(named.get("layers"), (list, tuple)) and "name" in named and named["layers"]:
        kind = "Functional" if "input_layers" in named else "Sequential"
        root = {"class_name": kind, "config": plain(table, [MAX_NODES])}
        return parse(json.dumps(_marked(root)), "the config")
    return None


def _marked(root: dict[str, Any]) -> dict[str, Any]:
    """A bare config says in its layers which Keras wrote it: Keras 3 gives each a module."""
    layers = [layer for layer in root["config"]["layers"] if isinstance(layer, dict)]
    modern = any(str(layer.get("module", "")).startswith("keras") for layer in layers)
    return {**root, "module": "keras"} if modern else root


def plain(value: Any, left: list[int], depth: int = 0) -> Any:
    """As JSON gives it; ModelError where it holds what JSON cannot, or too much."""
    left[0] -= 1
    if left[0] < 0 or depth > MAX_DEPTH:
        raise ModelError(problem="the config in this pickle is too large or too deep")
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, (list, tuple)):
        return [plain(item, left, depth + 1) for item in value]
    if isinstance(value, Opaque) and (value.items or value.pairs):  # a list or dictionary of a class of its own
        return plain(value.items or Table(value.pairs), left, depth + 1)
    if isinstance(value, Table):
        named = value.named()
        if named is not None:
            return {key: plain(item, left, depth + 1) for key, item in named.items()}
    if _is_array(value):
        return values(value).tolist()
    return _text(value)


def _text(value: Any) -> str:
    found = text(value)
    if found is None:
        raise ModelError(problem="the config in this pickle holds objects, not only text and numbers")
    return found


# The weights ----------------------------------------------------------------------------------------------------


def weights_of(value: Any) -> Given | None:
    """All shapes of ``get_weights``: of the model, of each of its layers, by their names; None for anything else."""
    value = _listed(value)
    if isinstance(value, Array):
        return _one_array(value) if is_numeric(value) and value.shape else None
    if isinstance(value, Table):
        return _named_weights(value)
    if not isinstance(value, (list, tuple)) or not value:
        return None
    _, arrays = _split(value)
    if arrays and all(map(_is_array, arrays)):
        return Given(lambda: Flat([("", tensor(item)) for item in arrays]), value)
    lists = [_arrays_in(_listed(item)) for item in value]
    if any(item is None for item in lists) or not any(lists):
        return None
    return Given(lambda: Rows([("", _read(item or [])) for item in lists]), value)


def _one_array(value: Array) -> Given:
    return Given(lambda: Stacked([("", tensor(value))]), value, is_one_array=True)


def _is_array(value: Any) -> bool:
    return isinstance(value, Array) and is_numeric(value)


def _arrays_in(value: Any) -> list[tuple[str, Array]] | None:
    """The arrays of one layer; None where it holds anything else. Several of one shape may have become one array."""
    if _is_array(value) and value.shape == (0,):
        return []  # a layer without weights, which became an empty array
    if isinstance(value, Table):
        named = value.named() or {}
        return [*named.items()] if len(named) == len(value.pairs) and all(map(_is_array, named.values())) else None
    if not isinstance(value, (list, tuple)):
        return None
    if _words_in(value):
        return []  # a table of words, which is no variable
    items = [_listed(item) for item in value]
    return [("", item) for item in items] if all(map(_is_array, items)) else None


def _named_weights(table: Table) -> Given | None:
    """Arrays by the names of variables, or lists of arrays by the names of layers."""
    named = table.named()
    if not named or len(named) != len(table.pairs):
        return None
    if all(_is_array(item) for item in named.values()):
        return Given(lambda: Flat(_read([*named.items()])), table)
    lists = {name: _arrays_in(_listed(item)) for name, item in named.items()}
    if any(item is None for item in lists.values()) or not any(lists.values()):
        return None
    return Given(lambda: Rows([(name, _read(item or [])) for name, item in lists.items()]), table)


# Vocabularies, which Keras 2 counted among the weights ------------------------------------------------------------


def fill_in_vocabularies(architecture: Architecture, value: Any) -> None:
    """Put the words that are among the weights into the description, where every reader looks for them."""
    rows = _listed(value)
    layers = layers_of(architecture.root)
    if not isinstance(rows, (list, tuple)):
        return
    flat, _ = _split(rows)
    if flat:
        known, layers = flat, [layer for layer in layers if _is_lookup(layer)]
    else:
        known = [_words_in(row) for row in rows]
    if len(layers) != len(known):  # a Sequential does not count its input among its layers
        layers = [layer for layer in layers if layer.get("class_name") != "InputLayer"]
    for layer, words in zip(layers, known, strict=False) if len(layers) == len(known) else ():
        if words and _is_lookup(layer):
            layer["config"]["vocabulary"] = words


def _is_lookup(layer: Node) -> bool:
    return str(layer.get("class_name")).split(">")[-1] in LOOKUPS and isinstance(layer.get("config"), dict)


def _split(items: Sequence[Any]) -> tuple[list[list[str]], list[Any]]:
    """The tables of words of a flat list, and what else is in it. A table's numbers stand right behind its words."""
    tables, rest = [], []
    last: Any = None
    for item in items:
        if _words(item):
            tables.append(item)
            last = item
        elif last is not None and _is_array(item) and item.shape == last.shape and item.dtype.code == "i8":
            tables[-1] = [last, item]
            last = None
        else:
            rest.append(_listed(item))
            last = None
    return [_words_in(table if isinstance(table, list) else [table]) for table in tables], rest


def _words_in(row: Any) -> list[str]:
    """The words of one layer in the order of their numbers, which TensorFlow 2.3 kept beside them."""
    items = row if isinstance(row, (list, tuple)) else ()
    words = next((found for item in items if (found := _words(item))), [])
    numbers = next((values(item) for item in items if _is_array(item) and item.shape == (len(words),)), None)
    if words and numbers is not None:
        words = [word for _, word in sorted(zip(numbers.tolist(), words, strict=True))]
    return [word for word in words if word not in SPECIAL_WORDS]


def _words(value: Any) -> list[str]:
    if not isinstance(value, Array) or value.dtype is None:
        return []
    given = value.data if value.holds_objects else values(value).tolist() if value.dtype.code[:1] in ("S", "U") else []
    texts = [item.decode("utf-8", "replace") if isinstance(item, bytes) else item for item in given]
    return texts if all(isinstance(item, str) for item in texts) else []


def _read(pairs: Sequence[tuple[str, Array]]) -> list[Named]:
    return [(name, tensor(array)) for name, array in pairs]


def _listed(value: Any) -> Any:
    """An array of objects as the nested list that it was made from; numbers that became objects as numbers again."""
    if isinstance(value, Opaque):
        return value.items or _array_of(value)
    if not isinstance(value, Array) or not value.holds_objects:
        return value
    items = list(value.data)
    if items and all(isinstance(item, (int, float)) for item in items):
        return _numbers(value)
    for size in reversed(value.shape[1:]):
        items = [items[start : start + size] for start in range(0, len(items), size)] if size else items
    return items


def _array_of(value: Opaque) -> Any:
    """The one array that a variable or a tensor of some library is made from; the call itself where it is no such."""
    nodes = list(islice(walk(value), MAX_OF_VARIABLE))
    found = [item for item in nodes if _is_array(item)]
    return found[0] if len(found) == 1 and len(nodes) < MAX_OF_VARIABLE else value


def _numbers(array: Array) -> Any:
    """A NumPy array of Python's numbers, as an array of a numeric type."""
    import numpy as np

    flat = np.asarray(array.data, "<f8")
    return Array(DType("f8", "<"), array.shape, array.fortran, flat.tobytes())


class Stacked(Flat):
    """One array of numbers: NumPy makes one of a list whose arrays all have one shape.

    Its first axis counts the weights, or the layers and then the weights of each.
    """

    def match(self, part: Part) -> Pairs:
        """The first reading whose shapes fit."""
        refusals = []
        for arrays in self._readings():
            try:
                return Flat(arrays).match(part)
            except WeightsMismatch as error:
                refusals.append(error)
        raise refusals[0]

    def _readings(self) -> Iterator[list[Named]]:
        whole = value_of(self.arrays[0][1])
        yield [("", item) for item in whole]
        if whole.ndim > 1:
            yield [("", item) for row in whole for item in row]
        yield [("", whole)]


# The state of a model object of Keras 2.2 and 2.3 ---------------------------------------------------------------


def is_state(value: Any) -> bool:
    """The dictionary that those releases pickle a model as: laid out like their HDF5 files."""
    described = isinstance(value, Table) and value.get("model_config") is not None
    return described and isinstance(value.get("model_weights"), Table)


def state_architecture(state: Table, name: str) -> Architecture:
    """The architecture in such a state; CorruptFile where there is none."""
    version = text_of(state.get("keras_version")) or "2"
    whole = text(state.get("model_config"))
    if whole is None:
        raise CorruptFile(name=name, problem="the model's description in it is no text")
    return parse(whole, name, version)


def state_rows(state: Table, inner: Callable[[Any], Any]) -> Rows:
    """The weights of such a state. ``inner`` reads the arrays, which it keeps as pickles inside of the pickle."""
    groups = state.get("model_weights")
    rows = []
    for layer in _names(groups, "layer_names"):
        group = groups.get(layer)
        arrays = [(name, _entry(group, name, inner)) for name in _names(group, "weight_names")]
        rows.append((layer, arrays))
    return Rows(rows)


def state_training(state: Table, inner: Callable[[Any], Any], *, keras_3: bool) -> Training:
    """The settings of ``compile()`` and the state of the optimizer in it."""
    settings, group = text(state.get("training_config")), state.get("optimizer_weights")
    try:
        found = json.loads(settings) if settings else {}
    except (ValueError, RecursionError):
        found = {}
    config = {"optimizer": found.get("optimizer_config"), **found} if isinstance(found, dict) and found else {}
    if not isinstance(group, Table):
        return Training(config, None, keras_3)
    names = _names(group, "weight_names")
    return Training(config, lambda: [(name, value_of(_entry(group, name, inner))) for name in names], keras_3)


def _names(group: Any, attribute: str) -> list[str]:
    listed = _listed(group.get(attribute)) if isinstance(group, Table) else None
    names = [text_of(item) for item in listed] if isinstance(listed, (list, tuple)) else []
    return [name for name in names if name is not None]


def _entry(group: Table, name: str, inner: Callable[[Any], Any]) -> Stored:
    found = group.get(name)
    if group.get(f"_{name}_pickled") is True:
        found = inner(found)
    if not _is_array(found):
        raise ModelError(problem=f"the weight {name} is not in this pickle")
    return tensor(found)
