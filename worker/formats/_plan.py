"""A model without its weights, beside the arrays of its file: what is copied and compared when a model is large.

The model is built in a scope in which Keras makes no values, its variables are matched with the arrays of the file, and
nothing is read until somebody asks for it. Files that need a living model (vocabularies, an optimizer, custom
classes, arrays that do not match) have no plan.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from worker.formats import _checkpoint, _live, _masks, _rebuild, _registry, _tensors, _weights
from worker.formats._architecture import refuse_unsafe
from worker.formats._format import Loaded
from worker.formats._keras_files import Stored
from worker.formats._rebuild import Part
from worker.formats._tensors import Tensor
from worker.report import Finding

if TYPE_CHECKING:
    import numpy as np

    from worker.formats._format import Arrays
    from worker.formats._tensors import Stored as Array
    from worker.formats._weights import Pairs

# Above this, weights are copied array by array, and a result is judged by its description and its bytes, not by values
LARGE = 512 * 1024 * 1024
SOURCES = frozenset(
    {"keras", "h5", "weights_h5", "json_npz", "json_safetensors", "pickle", "json_pickle", "data_pickle"}
)


@dataclass(frozen=True)
class Plan:
    """``model`` has shapes but no values; ``tensors`` are the arrays of the file for its variables, by their id."""

    model: Any
    tensors: dict[int, Tensor]
    findings: tuple[Finding, ...]
    waiting: list[Any]  # variables without a value, also those that no file keeps

    def tensor(self, variable: Any) -> Tensor:
        return self.tensors[id(variable)]

    def awake(self) -> Any:
        """The model itself, alive: each array is read once, and no other value is ever made for its variable.

        Keras' own loader first draws random weights, and holds the whole file in memory while it replaces them.
        """
        while self.waiting:
            variable = self.waiting.pop()
            if id(variable) in self.tensors:
                variable._initializer = _reader(self.tensors[id(variable)])
            variable._deferred_initialize()
        return self.model

    @property
    def nbytes(self) -> int:
        return sum(tensor.nbytes for tensor in self.tensors.values())


def _reader(tensor: Tensor) -> Callable[..., np.ndarray]:
    """The array as an initializer: a copy, for TensorFlow may write to the memory that it is given."""
    import numpy as np

    return lambda shape, dtype=None: np.array(tensor.read())


def living(variable: Any) -> Tensor:
    """The array of a variable of a living model."""
    import numpy as np

    dtype = _tensors.dtype_of(str(variable.dtype))
    return Tensor(tuple(variable.shape), dtype, lambda: np.asarray(variable))


@contextmanager
def hollow() -> Iterator[list[Any]]:
    """What is built in here has shapes but no values. Gives the list of its variables, which is filled at the end."""
    import keras
    from keras.src.backend.common import global_state

    mine: list[Any] = []
    others = global_state.get_global_attribute("uninitialized_variables", [])
    global_state.set_global_attribute("uninitialized_variables", [])
    try:
        with keras.StatelessScope(initialize_variables=False):
            yield mine
    finally:  # the next ordinary scope would make values for everything that still waits for some
        mine += global_state.get_global_attribute("uninitialized_variables", [])
        global_state.set_global_attribute("uninitialized_variables", others)


def of_large(slug: str, path: Path, stored: Stored) -> Plan | None:
    """The plan of a file whose weights are large, where it can have one; ``stored`` is what ``path`` holds."""
    if stored not in _large:
        plan = make(stored) if is_large(slug, path) else None
        _large[stored] = plan if plan and plan.nbytes > LARGE else None
    return _large[stored]


def remembered(stored: Stored) -> Plan | None:
    """What ``of_large`` has said about it before."""
    return _large.get(stored)


def is_large(slug: str, path: Path) -> bool:
    """Can there be large weights in it? They do not deflate, so the size of the file bounds theirs."""
    return slug in SOURCES and path.stat().st_size > LARGE


_large: dict[Stored, Plan | None] = {}


def make(stored: Stored) -> Plan | None:
    """The plan of a file of any size, or None where only a living model knows what belongs where."""
    refuse_unsafe(stored.architecture)
    try:
        return _matched(stored)
    except Exception:  # Keras raises whatever its loaders meet; the living way says it in words
        return None


def _matched(stored: Stored) -> Plan | None:
    weights = stored.weights()
    if isinstance(weights, _checkpoint.Objects):
        return None
    with hollow() as waiting:
        model, part, findings = _built(stored)
    _live.require_interface(model)
    if not all(map(_is_plain, [model, *model._flatten_layers()])):
        return None
    pairs = weights.match(part) if stored.architecture.legacy else _placed(model, part, weights)
    tensors = {id(variable): _tensors.converted(array, str(variable.dtype)) for variable, array in pairs}
    stored_apart = [variable for _, variable in layout(model)]
    complete = all(id(variable) in tensors for variable in (*model.weights, *stored_apart))
    return Plan(model, tensors, findings, waiting) if complete else None


def _built(stored: Stored) -> tuple[Any, Part, tuple[Finding, ...]]:
    """The model, its layers in the order of the file, and what was said about it."""
    if stored.architecture.legacy:
        rebuilt = _rebuild.rebuild(stored.architecture)
        return rebuilt.model, rebuilt.part, tuple(rebuilt.findings)
    _registry.refuse_unknown(stored.architecture, _rebuild.LEGACY_NAMES)
    model = deserialized(stored.architecture.root)
    return model, _weights.part_of(model), ()


def deserialized(root: dict[str, Any]) -> Any:
    """A model from its description, by Keras' reader of either form that Keras 3 writes: .h5 has the old one."""
    import copy

    import keras

    plain = copy.deepcopy({key: value for key, value in root.items() if key != "compile_config"})
    if "module" in plain:
        return keras.saving.deserialize_keras_object(plain, safe_mode=True)
    from keras.src.legacy.saving import saving_options, saving_utils
    from keras.src.saving.serialization_lib import SafeModeScope

    with saving_options.keras_option_scope(use_legacy_config=True), SafeModeScope(True):
        return saving_utils.model_from_config(plain)


def _is_plain(layer: Any) -> bool:
    """Is all that the layer keeps in its variables, and stored by Keras' own code?"""
    return type(layer).__module__.startswith("keras.") and type(layer).__name__ not in _weights.LOOKUPS


def _placed(model: Any, part: Part, weights: Any) -> Pairs:
    """What Keras 3 itself would put where, by its own order and its own walk: no value is run to prove a guess.

    Raises ValueError or KeyError where the file is laid out in any other way.
    """
    if isinstance(weights, _weights.Tree):
        return _in_tree(model, weights)
    if isinstance(weights, _weights.Rows):
        return _in_rows(model, weights)
    if isinstance(weights, _weights.Flat):
        return _fitting(zip(model.weights, (array for _, array in weights.arrays), strict=True))
    return list(weights.match(part))


def _in_tree(model: Any, weights: _weights.Tree) -> Pairs:
    with _tensors.opened(weights.region) as file:
        group = file[weights.group]
        places = layout(model)
        return _fitting((variable, _tensors.dataset(weights.region, group[place])) for place, variable in places)


def _in_rows(model: Any, weights: _weights.Rows) -> Pairs:
    from keras.src.legacy.saving.legacy_h5_format import _legacy_weights

    layers = [(layer.name, _legacy_weights(layer)) for layer in model.layers]
    filled = [(name, variables) for name, variables in layers if variables]
    rows = [(name, arrays) for name, arrays in weights.rows if arrays]
    if [name for name, _ in filled] != [name for name, _ in rows]:
        raise ValueError("other layers")
    each = zip(filled, rows, strict=True)
    return [
        pair
        for (_, variables), (_, arrays) in each
        for pair in _fitting(zip(variables, (array for _, array in arrays), strict=True))
    ]


def _fitting(pairs: Iterable[tuple[Any, Array]]) -> Pairs:
    found = list(pairs)
    if any(tuple(variable.shape) != tuple(array.shape) for variable, array in found):
        raise ValueError("other shapes")
    return found


def layout(model: Any) -> list[tuple[str, Any]]:
    """Where Keras 3 keeps each variable in its HDF5 files: (path of the dataset, variable)."""
    from keras.src.saving import saving_lib

    class Places(saving_lib.H5IOStore):  # type: ignore[misc]
        """Takes note of what is stored where, and stores nothing."""

        def __init__(self) -> None:
            self.found: list[tuple[str, Any]] = []
            self.path = ""

        def __bool__(self) -> bool:
            return True

        def make(self, path: str, metadata: Any = None) -> Any:
            self.path = f"{path}/vars".lstrip("/")
            return self

        def __setitem__(self, key: str, value: Any) -> None:
            self.found.append((f"{self.path}/{key}", value))

    places = Places()
    saving_lib._save_state(model, places, None, "", set())
    return places.found


# Describing -----------------------------------------------------------------------------------------------------


def loaded(plan: Plan, living_model: Callable[[], Loaded]) -> Loaded:
    """The contract of ``Format.load``: the weights come from the file, and the model only lives once it has to run."""

    def run(arrays: Arrays) -> Arrays:
        return living_model().run(arrays)

    def weights() -> Iterator[tuple[str, np.ndarray]]:
        for variable in plan.model.weights:
            tensor = plan.tensor(variable)
            if not _tensors.is_counter(tensor):
                yield str(variable.path), tensor.read()

    inputs, outputs = _live.input_specs(plan.model), _live.output_specs(plan.model)
    return Loaded(inputs, outputs, run, weights, architecture=description(plan.model))


def description(model: Any) -> str:
    """A digest of what Keras says of the model in words: equal for two files of the same layers and connections."""
    import keras

    root = keras.saving.serialize_keras_object(model)
    _masks.leave_out(model, root)
    text = json.dumps(_plain(root), sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


_BESIDE = frozenset({"compile_config", "build_config", "shared_object_id"})


def _plain(value: Any) -> Any:
    """Without what a file may or may not say of the same layer: how it was compiled, and with which shapes built."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items() if key not in _BESIDE}
    return [_plain(item) for item in value] if isinstance(value, (list, tuple)) else value
