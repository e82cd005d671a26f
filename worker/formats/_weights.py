"""Weights as the eras stored them, put into a model that was built from the file's architecture.

Three layouts: rows (a list of named arrays for each layer: HDF5 of Keras 1 and 2), flat (all arrays in the order of
``get_weights``: .npz, SavedModel) and tree (groups by attribute: HDF5 of Keras 2.12 and later). Every array must fit
a variable by shape, by its own name where the file gives names, and every variable must get exactly one array.
Shapes alone are no proof: a Bidirectional takes its two halves the wrong way round without any complaint.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from worker.errors import CorruptFile, ModelError, PickledCode, WeightsMismatch
from worker.formats._rebuild import Part

if TYPE_CHECKING:
    import numpy as np

    Named = tuple[str, np.ndarray]

VOCABULARY = "vocabulary.txt"
_CONTAINERS = ("_layer_checkpoint_dependencies", "layers")
LOOKUPS = frozenset({"TextVectorization", "StringLookup", "IntegerLookup"})


def part_of(model: Any) -> Part:
    """The layers of a living model of either library, in its own order."""
    layers = getattr(model, "layers", None)
    parts = [part_of(layer) for layer in layers] if isinstance(layers, list) else []
    return Part(model.name, type(model).__name__, model, parts)


def variables_of(part: Part) -> list[Any]:
    """Every weight below a part, layer by layer in the file's order."""
    if part.parts:
        return _unique(variable for inner in part.parts for variable in variables_of(inner))
    return list(getattr(part.layer, "weights", ()))


def _unique(variables: Iterable[Any]) -> list[Any]:
    """A layer that is used twice has its weights once."""
    return list({id(variable): variable for variable in variables}.values())


def _orders(part: Part) -> list[list[Any]]:
    """The orders in which releases wrote the weights of a part, the likelier one first."""
    natural = variables_of(part)
    split = [item for item in natural if item.trainable] + [item for item in natural if not item.trainable]
    return [split, natural] if part.parts else [natural, split]


def _last_name(path: str) -> str:
    """``dw/depthwise_kernel:0`` and ``dw/kernel`` both name a kernel."""
    return re.split(r"[/.]", path.split(":")[0])[-1].removeprefix("depthwise_")


def variable_path(variable: Any) -> str:
    return str(getattr(variable, "path", None) or variable.name)


def assign(part: Part, arrays: Sequence[Named], orders: list[list[Any]] | None = None) -> None:
    """Put the arrays into the weights of a part; WeightsMismatch where no known order fits."""
    candidates = [_pair(order, arrays) for order in orders or _orders(part)]
    fitting = [pairs for pairs in candidates if pairs is not None]
    if not fitting:
        raise WeightsMismatch(problem=_difference(part, arrays))
    best = max(fitting, key=_agreement)
    for variable, (_, array) in best:
        variable.assign(array)


def _pair(order: list[Any], arrays: Sequence[Named]) -> list[tuple[Any, Named]] | None:
    """Variables beside arrays where every shape fits; counters are left out where only one side has them."""
    if len(order) != len(arrays):
        order = [item for item in order if _is_weight(str(item.dtype))]
        arrays = [item for item in arrays if _is_weight(str(item[1].dtype))]
    same = len(order) == len(arrays)
    if not same or any(tuple(one.shape) != tuple(two.shape) for one, (_, two) in zip(order, arrays, strict=True)):
        return None
    return list(zip(order, arrays, strict=True))


def _is_weight(dtype: str) -> bool:
    """Counters and random states are whole numbers; the weights of a layer are not."""
    return "float" in dtype or "complex" in dtype


def _agreement(pairs: list[tuple[Any, Named]]) -> int:
    """How many arrays carry the name of the variable they would go to."""
    return sum(_last_name(variable_path(variable)) == _last_name(name) for variable, (name, _) in pairs)


def _difference(part: Part, arrays: Sequence[Named]) -> str:
    wanted = [tuple(item.shape) for item in variables_of(part)]
    given = [tuple(array.shape) for _, array in arrays]
    first = next((index for index, (a, b) in enumerate(zip(wanted, given, strict=False)) if a != b), None)
    where = part.name if not part.parts else f"the model {part.name}"
    if first is None or len(wanted) != len(given):
        return f"{where} has {len(wanted)} weights, the file has {len(given)}"
    return f"weight {first} of {where} has the shape {wanted[first]}, the file's has {given[first]}"


@dataclass(frozen=True)
class Rows:
    """Named arrays for each layer, in the order of the file."""

    rows: list[tuple[str, list[Named]]]

    def fill(self, part: Part) -> None:
        """By the names of the layers; by their order where the names are of another copy of the model."""
        filled = [row for row in self.rows if row[1]]
        named = {inner.name: inner for inner in part.parts}
        if all(name in named for name, _ in filled):
            targets = [named[name] for name, _ in filled]
        else:
            targets = [inner for inner in part.parts if variables_of(inner)]
        missing = [inner.name for inner in part.parts if variables_of(inner) and inner not in targets]
        if len(targets) != len(filled) or missing:
            problem = (
                f"it has {len(targets) + len(missing)} layers with weights, the file has weights for {len(filled)}"
            )
            raise WeightsMismatch(problem=problem)
        for target, (_, arrays) in zip(targets, filled, strict=True):
            assign(target, arrays)


@dataclass(frozen=True)
class Flat:
    """All arrays in the order of ``get_weights`` of the release that wrote them; names are "" where there are none."""

    arrays: list[Named]

    def fill(self, part: Part) -> None:
        natural = variables_of(part)
        collapsed = [variable for inner in part.parts for variable in _orders(inner)[0]]
        assign(part, self.arrays, [natural, _unique(collapsed), _orders(part)[0]])


@dataclass(frozen=True)
class Tree:
    """HDF5 groups named by attributes and class names, with vocabularies beside them in the archive."""

    path: Path
    group: str = "/"
    assets: Mapping[str, str] = field(default_factory=dict)  # path below assets/ -> text

    def fill(self, part: Part) -> None:
        import h5py

        done: set[int] = set()
        with h5py.File(self.path) as file:
            self._fill(part, file[self.group], done)
        left = [item for item in variables_of(part) if id(item) not in done and _is_weight(str(item.dtype))]
        if left:
            raise WeightsMismatch(problem=f"the file has no weights for {variable_path(left[0])}")

    def _fill(self, part: Part, group: Any, done: set[int]) -> None:
        container = next((group[key] for key in _CONTAINERS if key in group), None)
        if part.parts and container is not None:
            pairs = _keys(part.parts, container)
            _require_all(part.parts, pairs)
            for inner, key in pairs:
                self._fill(inner, container[key], done)
            return
        self._own(part, group, done)
        for key in group:
            if key != "vars" and _holds_arrays(group[key]):
                self._attribute(part, key, group[key], done)

    def _own(self, part: Part, group: Any, done: set[int]) -> None:
        held = group.get("vars")
        arrays = [("", held[key][()]) for key in sorted(held, key=int)] if held is not None else []
        if arrays:
            variables = _own_variables(part.layer)
            assign(Part(part.name, part.kind, part.layer), arrays, [variables])
            done.update(map(id, variables))
        text = self.assets.get(f"{group.name.strip('/')}/{VOCABULARY}")
        if text is not None and part.kind in LOOKUPS:
            part.layer.set_vocabulary(text.split("\n"))

    def _attribute(self, part: Part, key: str, group: Any, done: set[int]) -> None:
        """Descend into what the layer itself calls by the group's name."""
        names = (key, f"_{key}", key.lstrip("_"))
        found = next((item for item in (getattr(part.layer, name, None) for name in names) if item is not None), None)
        if found is None:
            raise WeightsMismatch(problem=f"{part.name} has nothing called {key}")
        if isinstance(found, (list, tuple)):
            for inner, inner_key in _keys([part_of(item) for item in found], group):
                self._fill(inner, group[inner_key], done)
        else:
            self._fill(part_of(found), group, done)


def _own_variables(layer: Any) -> list[Any]:
    """What a layer holds itself, without its inner layers: trainable ones first, as every release stored them."""
    if hasattr(layer, "_trainable_variables"):
        return [*layer._trainable_variables, *layer._non_trainable_variables]
    return [*layer._trainable_weights, *layer._non_trainable_weights]


def _keys(parts: Sequence[Part], group: Any) -> list[tuple[Part, str]]:
    """Which group belongs to which layer: the k-th group of a class to the k-th layer of that class.

    Keras numbers the groups of a class itself, with gaps in some releases, so only their order counts; and a group
    called ``dense_1`` has nothing to do with a layer of that name.
    """
    pairs: list[tuple[Part, str]] = []
    for kind in dict.fromkeys(part.kind for part in parts):
        same = [part for part in parts if part.kind == kind]
        keys = sorted((key for key in group if _is_numbered(key, _snake(kind.split(">")[-1]))), key=_number)
        if len(keys) != len(same):  # groups without weights were left out, so the numbers count the layers
            same, keys = [same[_number(key)] for key in keys if _number(key) < len(same)], keys
        pairs += [pair for pair in zip(same, keys, strict=False) if _is_filled(pair[0])]
    return pairs


def _require_all(parts: Sequence[Part], pairs: list[tuple[Part, str]]) -> None:
    weighted = [part for part in parts if _is_filled(part)]
    if len(pairs) != len(weighted):
        problem = f"it has {len(weighted)} layers with weights, the file has groups for {len(pairs)}"
        raise WeightsMismatch(problem=problem)


def _is_filled(part: Part) -> bool:
    return bool(variables_of(part)) or part.kind in LOOKUPS


def _snake(name: str) -> str:
    """``GlobalAveragePooling1D`` as Keras writes it: ``global_average_pooling1d``."""
    name = re.sub(r"\W+", "", name)
    name = re.sub(r"(.)([A-Z][a-z]+)", r"\1_\2", name)
    return re.sub(r"([a-z])([A-Z])", r"\1_\2", name).lower()


def _is_numbered(key: str, stem: str) -> bool:
    return re.fullmatch(re.escape(stem) + r"(_\d+)?", key) is not None


def _number(key: str) -> int:
    found = re.search(r"_(\d+)$", key)
    return int(found[1]) if found else 0


def _holds_arrays(group: Any) -> bool:
    if not hasattr(group, "keys"):
        return True
    return any(_holds_arrays(group[key]) for key in group)


def read_hdf5(path: Path, assets: Mapping[str, str] | None = None) -> Rows | Tree:
    """The weights in an HDF5 file of either layout, of a whole model too; ModelError where there are none."""
    import h5py

    with opened(path) as file:
        refuse_links(file, path.name)
        group = file.get("model_weights", file)
        if "layer_names" in group.attrs or "layer_names0" in group.attrs:
            return Rows([(name, list(_row(group[name]))) for name in names_in(group, "layer_names")])
        if "vars" in group or any(key in group for key in _CONTAINERS):
            return Tree(path, group.name, assets or {})
        first = [key for key in group if isinstance(group[key], h5py.Group)]
    raise ModelError(
        problem=f"{path.name} holds no weights of a Keras model (groups: {', '.join(first[:5]) or 'none'})"
    )


def opened(path: Path) -> Any:
    """The HDF5 file, or CorruptFile."""
    import h5py

    try:
        return h5py.File(path)
    except OSError as error:
        raise CorruptFile(name=path.name, problem=f"HDF5 cannot open it ({error})") from error


def refuse_links(file: Any, name: str) -> None:
    """Links to other files and data kept elsewhere have no place in a model: they would read the worker's own disk."""
    import h5py

    pending = [file]
    while pending:
        group = pending.pop()
        for key in group:
            if isinstance(group.get(key, getlink=True), (h5py.ExternalLink, h5py.SoftLink)):
                raise ModelError(problem=f"{name} holds a link ({key}) to somewhere else")
            item = group[key]
            if isinstance(item, h5py.Group):
                pending.append(item)
            elif item.external or item.is_virtual:
                raise ModelError(problem=f"{name} keeps the data of {key} in another file")


def names_in(group: Any, attribute: str) -> list[str]:
    """A list of names from an attribute; long ones are split into ``<attribute>0``, ``<attribute>1``, …"""
    if attribute in group.attrs:
        return [_text(item) for item in group.attrs[attribute]]
    names: list[str] = []
    number = 0
    while f"{attribute}{number}" in group.attrs:
        names += [_text(item) for item in group.attrs[f"{attribute}{number}"]]
        number += 1
    return names


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def _row(group: Any) -> Iterator[Named]:
    for name in names_in(group, "weight_names"):
        yield name, group[name][()]


def read_npz(path: Path) -> Flat:
    """The arrays of an .npz: ``arr_0, arr_1, …`` by their numbers, other names in the order of the file."""
    import zipfile

    import numpy as np

    try:
        with np.load(path, allow_pickle=False) as archive:
            names = archive.files
            if all(re.fullmatch(r"arr_\d+", name) for name in names):
                names = sorted(names, key=_number)
            return Flat([("" if name.startswith("arr_") else name, archive[name]) for name in names])
    except ValueError as error:
        if "allow_pickle" in str(error):
            raise PickledCode(name=path.name) from error
        raise CorruptFile(name=path.name, problem=f"it is not a readable .npz file ({error})") from error
    except (OSError, EOFError, KeyError, zipfile.BadZipFile) as error:
        raise CorruptFile(name=path.name, problem=f"it is not a readable .npz file ({error})") from error
