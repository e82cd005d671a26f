"""The model inside of a pickle: found among its values, taken out as a file where it is one, and read as that.

Four things are looked for: a whole file (.keras, HDF5, SavedModel) among the bytes; the state of a model object of
Keras 2.2 and 2.3; an architecture beside its weights. Nothing of the pickle is called for it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path, PurePosixPath
from typing import Any

from worker import archive
from worker.errors import AmbiguousFormat, CorruptFile, LarderError, ModelError
from worker.foreign import human_size
from worker.formats import _keras_files, _pickles, _pickles_objects, _pickles_weights
from worker.formats._architecture import Architecture
from worker.formats._keras_files import Stored
from worker.formats._opcodes import Unreadable
from worker.formats._pickles_machine import Budget, Machine
from worker.formats._pickles_objects import is_model_object
from worker.formats._pickles_plain import NPY_MAGIC, is_object_array
from worker.formats._pickles_values import (
    Opaque,
    Table,
    chunks_of,
    head_of,
    is_bytes_like,
    size_of,
    text_of,
    walk,
)
from worker.formats._pickles_weights import (
    Given,
    Stacked,
    architecture_of,
    fill_in_vocabularies,
    is_state,
    weights_of,
)
from worker.formats._regions import Region, the_only_member

WEIGHTS_SUFFIXES = (".npy", ".pkl", ".pickle", ".joblib", ".dill", ".cloudpickle", ".p")
SMALLEST = 100  # bytes of a file that can be a model
MOST_PARTS = 100  # values of a container that is looked at as a model in parts
CALLED = ("weights", "model_weights", "params")
MAX_TAKEN = 16  # files that are taken out of one pickle
HDF5_MAGIC = b"\x89HDF\r\n\x1a\n"
MAGICS = (b"PK\x03\x04", b"\x1f\x8b", b"BZh", b"\xfd7zXZ\x00", HDF5_MAGIC)
SUFFIXES = {"keras": ".keras", "h5": ".h5", "saved_model": ".zip"}
WORDS = {"keras": "a .keras file", "h5": "an HDF5 model", "saved_model": "a SavedModel"}


@dataclass(frozen=True, eq=False)
class Found:
    """One model in a pickle: what it is in words, the format it has as a file ("" for none), and how to read it."""

    words: str
    stored: Callable[[Path], Stored]
    slug: str = ""
    path: Path | None = None
    size: int = 0
    digest: str = ""
    imports: tuple[str, ...] = ()  # of pickles inside of it


def the_model(path: Path, scratch: Path) -> Found:
    """The one model in the pickle; ModelError where there is none, AmbiguousFormat where there are several."""
    found = models(path, scratch)
    if not found:
        raise ModelError(problem="no model is stored inside this pickle, only what its code would build")
    if len(found) > 1:
        raise AmbiguousFormat(name=path.name, found=" or ".join(item.words for item in found[:4]))
    return found[0]


def stored(path: Path, scratch: Path) -> Stored:
    """The Keras side of the model in the pickle."""
    found = the_model(path, scratch)
    return found.stored(scratch)


def models(path: Path, scratch: Path) -> list[Found]:
    """Every model in the pickle; files among its bytes are taken out into ``scratch``, each once."""
    return _models(_pickles.read(path, scratch), scratch.absolute())


@cache
def _models(contents: _pickles.Contents, scratch: Path) -> list[Found]:
    found: dict[str, Found] = {}
    for item in _candidates(contents, scratch):
        found.setdefault(item.digest or str(id(item)), item)
        if len(found) >= MAX_TAKEN:
            break
    whole = [item for item in found.values() if item.slug]
    return whole or list(found.values())  # a description beside a whole file is of the same model


def _candidates(contents: _pickles.Contents, scratch: Path) -> Iterator[Found]:
    name = contents.path.name
    inside: set[int] = set()  # of a model object: what it consists of is no model of its own
    for node in walk(contents.roots):
        if id(node) in inside:
            continue
        if is_model_object(node):
            inside.update(id(item) for item in walk(node) if isinstance(item, (Table, Opaque, list, tuple)))
            yield _live_object(node)
        elif is_bytes_like(node):
            yield from _file_in(node, scratch / "inside")
        elif is_state(node):
            yield from _model_object(node, scratch / "inside", name)
        elif isinstance(node, (Table, Opaque, list, tuple)):
            yield from _parts(node, name)


# A whole file among the bytes -----------------------------------------------------------------------------------


def _file_in(node: Any, folder: Path) -> Iterator[Found]:
    if size_of(node) < SMALLEST or not _starts_like_a_file(head_of(node)):
        return
    path, digest = _take_out(node, folder)
    slug = _slug_of(path)
    if slug is None:
        path.unlink()
        return
    path = path.rename(path.with_name(f"{digest[:16]}{SUFFIXES[slug]}"))
    size = path.stat().st_size
    yield Found(f"{WORDS[slug]} ({human_size(size)})", partial(_read_file, slug, path), slug, path, size, digest)


def _starts_like_a_file(head: bytes) -> bool:
    return head.startswith(MAGICS) or head[257:262] == b"ustar"


def _take_out(node: Any, folder: Path) -> tuple[Path, str]:
    """The bytes as a file, copied piece by piece, and their SHA-256."""
    folder.mkdir(parents=True, exist_ok=True)
    target, digest = folder / "taken", hashlib.sha256()
    with target.open("wb") as file:
        for block in chunks_of(node):
            digest.update(block)
            file.write(block)
    return target, digest.hexdigest()


def _slug_of(path: Path) -> str | None:
    """Which format the file has; None where it is no model that can be read. Decided by its bytes."""
    with path.open("rb") as file:
        if file.read(8) == HDF5_MAGIC:
            return "h5"
    try:
        if archive.container_of(path) == "file":
            return None
        names = [member.name.rsplit("/", 1)[-1] for member in archive.members(path)]
    except LarderError:
        return None
    if "config.json" in names and "model.weights.h5" in names:
        return "keras"
    return "saved_model" if {"saved_model.pb", "saved_model.pbtxt"} & set(names) else None


def _read_file(slug: str, path: Path, scratch: Path) -> Stored:
    return _keras_files.READERS[slug](path, scratch / f"inside-{path.stem}")


# A model object -------------------------------------------------------------------------------------------------


def _live_object(node: Opaque) -> Found:
    def read(_: Path) -> Stored:
        return Stored(_pickles_objects.architecture(node), lambda: _pickles_objects.rows(node))

    return Found("a Keras model object", read)


# The state of a model object ------------------------------------------------------------------------------------


def _model_object(state: Table, folder: Path, name: str) -> Iterator[Found]:
    budget = Budget()

    def inner(value: Any) -> Any:
        return _inner_pickle(value, folder, budget)

    def read(_: Path) -> Stored:
        architecture = _pickles_weights.state_architecture(state, name)
        training = _pickles_weights.state_training(state, inner, keras_3=not architecture.legacy)
        return Stored(architecture, lambda: _pickles_weights.state_rows(state, inner), training=training)

    imports = _inner_imports(state, inner, budget)
    yield Found("the state of a Keras model object", read, imports=imports)


def _inner_imports(state: Table, inner: Callable[[Any], Any], budget: Budget) -> tuple[str, ...]:
    """What the pickles inside of the state would import: opening the outer one opens them too."""
    for node in walk(state):
        if is_bytes_like(node) and head_of(node, 2)[:1] == b"\x80":
            try:
                inner(node)
            except LarderError:
                continue
    return tuple(budget.imports)


def _inner_pickle(value: Any, folder: Path, budget: Budget) -> Any:
    """What a pickle inside of the pickle holds; a file of its own, because spans point into files."""
    if not is_bytes_like(value):
        raise ModelError(problem="a weight in this pickle has no values")
    path, digest = _take_out(value, folder)
    path = path.rename(path.with_name(f"{digest[:16]}.pkl"))
    with path.open("rb") as file:
        try:
            return Machine(path, file, budget, depth=1).run()
        except Unreadable as error:
            raise ModelError(problem=f"a weight in this pickle cannot be read ({error})") from error


# An architecture beside its weights -----------------------------------------------------------------------------


def _parts(node: Any, name: str) -> Iterator[Found]:
    """Every architecture of a container with the weights that stand in the same container."""
    pairs = node.pairs if isinstance(node, (Table, Opaque)) else list(enumerate(node))
    if not 1 < len(pairs) < MOST_PARTS:
        return
    given = _likeliest([(text_of(key) or "", found) for key, value in pairs if (found := weights_of(value))])
    for architecture in _described(pairs, name) if given else ():
        for label, weights in given:
            words = f"an architecture beside its weights{f' ({label})' if label else ''}"
            yield Found(words, partial(_pair, architecture, weights))


def _pair(architecture: Architecture, weights: Given, _: Path) -> Stored:
    if not weights.is_one_array:
        fill_in_vocabularies(architecture, weights.source)
    return Stored(architecture, weights)


def _described(pairs: Sequence[tuple[Any, Any]], name: str) -> list[Architecture]:
    return [found for _, value in pairs if (found := architecture_of(value, name))]


def _likeliest(given: list[tuple[str, Given]]) -> list[tuple[str, Given]]:
    """Lists of weights by their name, where several things beside an architecture could be weights."""
    named = [item for item in given if item[0] in CALLED]
    lists = [item for item in given if not item[1].is_one_array]
    return named or lists or given


# An architecture in one file, its weights in a pickle beside it --------------------------------------------------


def read_json_pickle(path: Path, scratch: Path) -> Stored:
    """An archive with an architecture and the lists of ``get_weights`` in a pickle, or as a NumPy array of objects."""
    architecture, members = _keras_files._architecture_in(path, scratch)
    wanted = [item for item in members if item.name.lower().endswith(WEIGHTS_SUFFIXES)]
    found = _as_file(the_only_member(wanted, path.name, "the pickle with weights"), scratch)
    given = _weights_in(found, scratch)
    return _pair(architecture, given, scratch)


def _as_file(region: Region, scratch: Path) -> Path:
    """The member itself; one that lies inside of the archive is copied, because pickles are read from files."""
    if region.is_whole:
        return region.path
    target = scratch / f"member{PurePosixPath(region.name).suffix}"
    with target.open("wb") as file:
        file.writelines(region.blocks())
    return target


def _weights_in(path: Path, scratch: Path) -> Given:
    with path.open("rb") as file:
        head = file.read(512)
    if head.startswith(NPY_MAGIC) and not is_object_array(head):
        array = _plain_array(path)
        return Given(lambda: Stacked([("", array)]), None, is_one_array=True)
    contents = _pickles.read(path, scratch / path.name)
    if contents.problem:
        raise CorruptFile(name=path.name, problem=f"it is no whole pickle ({contents.problem})")
    given = [found for root in contents.roots for node in walk(root) if (found := weights_of(node))]
    if not given:
        raise ModelError(problem=f"{path.name} holds no lists of arrays, as get_weights gives them")
    return given[0]


def _plain_array(path: Path) -> Any:
    import numpy as np

    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise CorruptFile(name=path.name, problem=f"it is not a readable .npy file ({error})") from error
