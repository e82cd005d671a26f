"""Weights as the eras stored them, put into a model that was built from the file's architecture.

Four layouts: rows (a list of named arrays for each layer: HDF5 of Keras 1 and 2), flat (all arrays in the order of
``get_weights``: .npz, SavedModel), tree (groups by attribute: HDF5 of Keras 2.12 and later) and labelled (a name for
each array, in no order: safetensors). ``match`` says which array belongs to which variable and reads none of them;
``fill`` puts them in. Every array must fit a variable by shape, by its own name where the file gives names, and every
variable must get exactly one array. Shapes alone are no proof: a Bidirectional takes its two halves the wrong way
round without any complaint.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from worker.errors import ModelError, WeightsMismatch
from worker.formats import _tensors
from worker.formats._rebuild import Part
from worker.formats._regions import Region
from worker.formats._tensors import opened, refuse_links, value_of

if TYPE_CHECKING:
    from worker.formats._tensors import Named, Stored

    Pairs = list[tuple[Any, Stored]]  # (variable, its array)

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


def last_name(path: str) -> str:
    """``dw/depthwise_kernel:0`` and ``dw/kernel`` both name a kernel."""
    return re.split(r"[/.]", path.split(":")[0])[-1].removeprefix("depthwise_")


def variable_path(variable: Any) -> str:
    return str(getattr(variable, "path", None) or variable.name)


def assign(part: Part, arrays: Sequence[Named], orders: list[list[Any]] | None = None) -> None:
    """Put the arrays into the weights of a part; WeightsMismatch where no known order fits."""
    put(paired(part, arrays, orders))


def put(pairs: Pairs) -> None:
    """Read each array and give it to its variable."""
    for variable, array in pairs:
        variable.assign(value_of(_tensors.converted(array, str(variable.dtype))) if _is_raw(array) else value_of(array))


def _is_raw(array: Stored) -> bool:
    """Bytes without a type, which is how NumPy and HDF5 keep bfloat16."""
    return array.dtype.kind == "V"


def paired(part: Part, arrays: Sequence[Named], orders: list[list[Any]] | None = None) -> Pairs:
    """Which array belongs to which weight of a part; WeightsMismatch where no known order fits."""
    candidates = [_pair(order, arrays) for order in orders or _orders(part)]
    fitting = [pairs for pairs in candidates if pairs is not None]
    if not fitting:
        raise WeightsMismatch(problem=_difference(part, arrays))
    return [(variable, array) for variable, (_, array) in max(fitting, key=_agreement)]


def _pair(order: list[Any], arrays: Sequence[Named]) -> list[tuple[Any, Named]] | None:
    """Variables beside arrays where every shape fits; counters are left out where only one side has them."""
    if len(order) != len(arrays):
        order = without_counters(order)
        arrays = [item for item in arrays if _is_weight(str(item[1].dtype))]
    same = len(order) == len(arrays)
    if not same or any(tuple(one.shape) != tuple(two.shape) for one, (_, two) in zip(order, arrays, strict=True)):
        return None
    return list(zip(order, arrays, strict=True))


def without_counters(variables: Sequence[Any]) -> list[Any]:
    return [variable for variable in variables if _is_weight(str(variable.dtype))]


def _is_weight(dtype: str) -> bool:
    """Counters and random states are whole numbers; the weights of a layer are not. ``|V2`` is a bfloat16."""
    return "float" in dtype or "complex" in dtype or dtype.startswith("|V")


def _agreement(pairs: list[tuple[Any, Named]]) -> int:
    """How many arrays carry the name of the variable they would go to."""
    return sum(last_name(variable_path(variable)) == last_name(name) for variable, (name, _) in pairs)


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

    @property
    def filled(self) -> list[tuple[str, list[Named]]]:
        return [row for row in self.rows if row[1]]

    def fill(self, part: Part) -> None:
        put(self.match(part))

    def targets(self, part: Part) -> list[Part]:
        """The layers of the filled rows: by name, by order where the names are of another copy of the model."""
        named = {inner.name: inner for inner in part.parts}
        if all(name in named for name, _ in self.filled):
            return [named[name] for name, _ in self.filled]
        return [inner for inner in part.parts if variables_of(inner)]

    def match(self, part: Part) -> Pairs:
        filled, targets = self.filled, self.targets(part)
        missing = [inner.name for inner in part.parts if variables_of(inner) and inner not in targets]
        if len(targets) != len(filled) or missing:
            problem = (
                f"it has {len(targets) + len(missing)} layers with weights, the file has weights for {len(filled)}"
            )
            raise WeightsMismatch(problem=problem)
        each = zip(targets, filled, strict=True)
        return [pair for target, (_, arrays) in each for pair in paired(target, arrays)]


@dataclass(frozen=True)
class Flat:
    """All arrays in the order of ``get_weights`` of the release that wrote them; names are "" where there are none."""

    arrays: list[Named]

    def fill(self, part: Part) -> None:
        put(self.match(part))

    def match(self, part: Part) -> Pairs:
        natural = variables_of(part)
        collapsed = [variable for inner in part.parts for variable in _orders(inner)[0]]
        return paired(part, self.arrays, [natural, _unique(collapsed), _orders(part)[0]])


@dataclass(frozen=True)
class Tree:
    """HDF5 groups named by attributes and class names, with vocabularies beside them in the archive."""

    region: Region
    group: str = "/"
    assets: Mapping[str, str] = field(default_factory=dict)  # path below assets/ -> text

    def fill(self, part: Part) -> None:
        walk = self._walk(part)
        put(walk.pairs)
        for layer, words in walk.vocabularies:
            layer.set_vocabulary(words)

    def match(self, part: Part) -> Pairs:
        return self._walk(part).pairs

    def _walk(self, part: Part) -> _Walk:
        walk = _Walk(self.region, self.assets)
        with opened(self.region) as file:
            walk.part(part, file[self.group])
        done = {id(variable) for variable, _ in walk.pairs}
        left = [item for item in without_counters(variables_of(part)) if id(item) not in done]
        if left:
            raise WeightsMismatch(problem=f"the file has no weights for {variable_path(left[0])}")
        return walk


@dataclass
class _Walk:
    """One pass over the groups of a tree, and what it has found so far."""

    source: Region
    assets: Mapping[str, str]
    pairs: Pairs = field(default_factory=list)
    vocabularies: list[tuple[Any, list[str]]] = field(default_factory=list)

    def part(self, part: Part, group: Any) -> None:
        parts = part.parts or part_of(part.layer).parts
        container = next((key for key in _CONTAINERS if key in group), None) if parts else None
        if container is None:
            self._own(part, group)
        for key in group:
            if key not in ("vars", container) and _holds_arrays(group[key]) and _is_called(part, key, container):
                self._attribute(part, key, group[key])
        if container is not None:
            self._layers(parts, group[container])

    def _layers(self, parts: Sequence[Part], container: Any) -> None:
        """The numbered groups, for the layers that no attribute of their model has named."""
        done = {id(variable) for variable, _ in self.pairs}
        left = [part for part in parts if not _is_done(part, done)]
        pairs = _keys(left, container)
        _require_all(left, pairs)
        for inner, key in pairs:
            self.part(inner, container[key])

    def _own(self, part: Part, group: Any) -> None:
        held = group.get("vars")
        keys = sorted(held, key=int) if held is not None else []
        if keys:
            arrays: list[Named] = [("", _tensors.dataset(self.source, held[key])) for key in keys]
            own = Part(part.name, part.kind, part.layer)
            self.pairs += paired(own, arrays, [_own_variables(part.layer)])
        text = self.assets.get(f"{group.name.strip('/')}/{VOCABULARY}")
        if text is not None and part.kind in LOOKUPS:
            self.vocabularies.append((part.layer, text.split("\n")))

    def _attribute(self, part: Part, key: str, group: Any) -> None:
        """Descend into what the layer itself calls by the group's name."""
        names = (key, f"_{key}", key.lstrip("_"))
        found = next((item for item in (getattr(part.layer, name, None) for name in names) if item is not None), None)
        if found is None:
            raise WeightsMismatch(problem=f"{part.name} has nothing called {key}")
        if isinstance(found, (list, tuple)):
            for inner, inner_key in _keys([part_of(item) for item in found], group):
                self.part(inner, group[inner_key])
        else:
            self.part(part_of(found), group)


@dataclass(frozen=True)
class Labelled:
    """Arrays by name, in an order that may be only that of the alphabet."""

    arrays: list[Named]

    def fill(self, part: Part) -> None:
        put(self.match(part))

    def match(self, part: Part) -> Pairs:
        """By whole names, by how names end, by the numbers in names, by shapes: the first of these that is a proof."""
        variables = variables_of(part)
        if len(variables) != len(self.arrays):
            variables = without_counters(variables)
        ways = (_by_path, _by_ending, _by_number, _by_shape)
        found = (way(variables, self.arrays) for way in ways) if len(variables) == len(self.arrays) else ()
        best = next((pairs for pairs in found if pairs is not None), None)
        if best is None:
            raise WeightsMismatch(problem=_unproven(part, variables, self.arrays))
        return best


def _by_path(variables: list[Any], arrays: list[Named]) -> Pairs | None:
    named = dict(arrays)
    paths = unique_paths(variables)
    pairs = [(variable, named[path]) for variable, path in zip(variables, paths, strict=True) if path in named]
    return pairs if len(pairs) == len(variables) and all(map(_fits, pairs)) else None


def unique_paths(variables: Sequence[Any]) -> list[str]:
    """The path of each variable; the second one of a path has ``#2`` behind it."""
    seen: Counter[str] = Counter()
    paths = []
    for variable in variables:
        path = variable_path(variable)
        seen[path] += 1
        paths.append(path if seen[path] == 1 else f"{path}#{seen[path]}")
    return paths


def _by_ending(variables: list[Any], arrays: list[Named]) -> Pairs | None:
    """Each variable's array is the only one of its shape whose name shares the most last words with it."""
    words = [(_words(name), array) for name, array in arrays]
    pairs: Pairs = []
    for variable in variables:
        mine = _words(variable_path(variable))
        scores = [(_shared(mine, theirs) if _fits((variable, array)) else 0, array) for theirs, array in words]
        most = max((score for score, _ in scores), default=0)
        best = [array for score, array in scores if score == most]
        if not most or len(best) != 1:
            return None
        pairs.append((variable, best[0]))
    return pairs if len({id(array) for _, array in pairs}) == len(pairs) else None


def _words(name: str) -> list[str]:
    """``0:model.dense/kernel:0`` as ``model``, ``dense``, ``kernel``."""
    plain = re.sub(r":\d+$", "", re.sub(r"^\d+:", "", name))
    return [word for word in re.split(r"[/.]", plain) if word]


def _shared(one: list[str], two: list[str]) -> int:
    count = 0
    for a, b in zip(reversed(one), reversed(two), strict=False):
        if a != b:
            break
        count += 1
    return count


def _by_number(variables: list[Any], arrays: list[Named]) -> Pairs | None:
    """Names that count: ``0``, ``1``, …; ``arr_0``; ``3:dense/kernel``."""
    numbers = [_number_in(name) for name, _ in arrays]
    if sorted(number for number in numbers if number is not None) not in (_count(arrays, 0), _count(arrays, 1)):
        return None
    ordered = [array for _, (_, array) in sorted(zip(numbers, arrays, strict=True), key=lambda item: item[0] or 0)]
    pairs = list(zip(variables, ordered, strict=True))
    return pairs if all(map(_fits, pairs)) else None


def _number_in(name: str) -> int | None:
    found = re.match(r"(\d+):", name) or re.fullmatch(r"\D*(\d+)", name)
    return int(found[1]) if found else None


def _count(arrays: list[Named], first: int) -> list[int]:
    return list(range(first, first + len(arrays)))


def _by_shape(variables: list[Any], arrays: list[Named]) -> Pairs | None:
    """Where no two weights have the same shape, a shape is as good as a name."""
    shaped = {tuple(array.shape): array for _, array in arrays}
    wanted = [tuple(variable.shape) for variable in variables]
    if len(shaped) != len(arrays) or set(wanted) != set(shaped):
        return None
    return [(variable, shaped[shape]) for variable, shape in zip(variables, wanted, strict=True)]


def _fits(pair: tuple[Any, Stored]) -> bool:
    return tuple(pair[0].shape) == tuple(pair[1].shape)


def _unproven(part: Part, variables: list[Any], arrays: list[Named]) -> str:
    """Why labelled arrays do not go into a model: too few, other shapes, or names that could mean several weights."""
    if len(variables) != len(arrays):
        return _difference(part, arrays)
    wanted = Counter(tuple(item.shape) for item in variables)
    left = Counter(tuple(array.shape) for _, array in arrays) - wanted
    if left:
        return f"the file has an array of the shape {next(iter(left))}, and no weight of that shape is left for it"
    names = ", ".join(name for name, _ in arrays[:3])
    return f"several weights have the same shape, and the names in the file ({names}, …) do not say which is which"


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
            same = [same[_number(key)] for key in keys if _number(key) < len(same)]
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


def _is_done(part: Part, done: set[int]) -> bool:
    variables = variables_of(part)
    return bool(variables) and all(id(variable) in done for variable in variables)


def _is_called(part: Part, key: str, container: str | None) -> bool:
    """Is this the name of an attribute? Beside numbered groups only those are that the layer itself has."""
    return container is None or (hasattr(part.layer, key) and key not in ("optimizer", "metrics"))


def _holds_arrays(group: Any) -> bool:
    if not hasattr(group, "keys"):
        return True
    return any(_holds_arrays(group[key]) for key in group)


def read_hdf5(source: Path | Region, assets: Mapping[str, str] | None = None) -> Rows | Tree:
    """The weights in an HDF5 file of either layout, of a whole model too; ModelError where there are none."""
    import h5py

    region = Region.of(source)
    name = Path(region.name).name
    with opened(region) as file:
        refuse_links(file, name)
        group = file.get("model_weights", file)
        if "layer_names" in group.attrs or "layer_names0" in group.attrs:
            return Rows([(name, list(_row(region, group[name]))) for name in names_in(group, "layer_names")])
        if "vars" in group or any(key in group for key in _CONTAINERS):
            return Tree(region, group.name, assets or {})
        first = [key for key in group if isinstance(group[key], h5py.Group)]
    raise ModelError(problem=f"{name} holds no weights of a Keras model (groups: {', '.join(first[:5]) or 'none'})")


def names_in(group: Any, attribute: str) -> list[str]:
    """A list of names from an attribute; long ones are split into ``<attribute>0``, ``<attribute>1``, …"""
    if attribute in group.attrs:
        return [text_of(item) for item in group.attrs[attribute]]
    names: list[str] = []
    number = 0
    while f"{attribute}{number}" in group.attrs:
        names += [text_of(item) for item in group.attrs[f"{attribute}{number}"]]
        number += 1
    return names


def text_of(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def _row(region: Region, group: Any) -> Iterator[Named]:
    for name in names_in(group, "weight_names"):
        yield name, _tensors.dataset(region, group[name])


def read_npz(source: Path | Region) -> Flat:
    """The arrays of an .npz: ``arr_0, arr_1, …`` by their numbers, other names in the order of the file."""
    arrays: list[Named] = list(_tensors.npz_arrays(Region.of(source)))
    if all(re.fullmatch(r"arr_\d+", name) for name, _ in arrays):
        arrays = sorted(arrays, key=lambda item: _number(item[0]))
    return Flat([("" if name.startswith("arr_") else name, array) for name, array in arrays])
