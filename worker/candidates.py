"""Which models a set of files could be: folders, files that name each other, checkpoints, pairs, and single files.

The files are given as a tree of names; where on disk each one lies does not matter. Bytes are read within bounds, and
nothing is parsed by a library.
"""

from __future__ import annotations

import json
import mmap
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path, PurePosixPath

from worker import formats
from worker.errors import AmbiguousFormat, IncompleteModel
from worker.formats._format import Sample
from worker.halves import BOTH, OPENVINO, SHARD, TENSORFLOW_JS, architecture_in, is_pickle, weights_in, weights_name
from worker.intake import take_sample

Tree = Mapping[PurePosixPath, Path]

GRAPHS = ("saved_model.pb", "saved_model.pbtxt")
GRAPH_FILES = (*GRAPHS, "keras_metadata.pb", "fingerprint.pb")
GRAPH_FOLDERS = ("variables", "assets", "assets.extra")
KERAS_FILES = ("config.json", "metadata.json", "model.weights.h5")
MODEL_SUFFIXES = (
    *(".keras", ".h5", ".hdf5", ".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".json", ".yaml", ".yml"),
    *(".npz", ".npy", ".safetensors", ".pkl", ".pickle", ".joblib", ".cloudpickle", ".dill", ".p"),
    *(".pb", ".pbtxt", ".tflite", ".lite", ".onnx", ".xml", ".mlmodel", ".index", ".meta", ".ckpt"),
)
# A model; one with pickled weights; weights without an architecture; a graph whose variables are elsewhere
STRONG, PICKLED, ALONE, DRAWN = range(4)
VARIABLES = re.compile(rb"VarHandleOp|VariableV2|\x12\x08Variable|op: \"Variable\"")
SHARD_OF = re.compile(r"(.+?)(\.data)?-\d{5}-of-\d{5}")
# A list of texts and nothing else, so that no stretch of bytes is gone over twice
PATHS = re.compile(rb'"paths"\s*:\s*(\[\s*(?:"[^"\\]*(?:\\.[^"\\]*)*"\s*(?:,\s*)?)*\])', re.DOTALL)
LOCATION = re.compile(rb"\x0a\x08location\x12([\x01-\x7f])", re.DOTALL)  # onnx.TensorProto.external_data
NAMED = re.compile(r'^model_checkpoint_path:\s*"([^"]+)"', re.MULTILINE)
JSON_STARTS = (b"{", b'"{')
BLANK = b"\xef\xbb\xbf \t\r\n"
MOST_READ = 64 * 1024 * 1024
MOST_NAMED = 100_000  # files that one file names, or times that it names one
LONGEST_LIST = 16 * 1024 * 1024  # bytes of a list of names
MOST_FOLDERS = 8  # of one kind; two are one too many already
MOST_PAIRS = 10_000
TOGETHER = "Choose all files of the model together, or the folder that holds them."


@dataclass(frozen=True)
class Candidate:
    """One model: its files under the names they get in an archive, or one file as it is.

    ``missing`` says which part is not there, ``advice`` what to do then. Of candidates of different rank only those of
    the lowest can be meant.
    """

    label: str
    files: tuple[tuple[str, Path], ...]
    whole: bool = False
    rank: int = STRONG
    missing: str = ""
    advice: str = TOGETHER


def find(tree: Tree) -> list[Candidate]:
    """Every model that the files could be; a file that is part of one is not looked at for another."""
    rest = dict(tree)
    found: list[Candidate] = []
    for look in (_saved_models, _keras_folders, _core_ml, _tensorflow_js, _openvino, _onnx, _graph_checkpoints):
        seen = list(look(rest))
        taken = {path for candidate in seen for _, path in candidate.files}
        rest = {name: path for name, path in rest.items() if path not in taken}
        found += seen
    return [*found, *_loose(rest)]


def choose(found: list[Candidate], name: str) -> Candidate | None:
    """The only one that can be meant; None where there is none. Raises AmbiguousFormat and IncompleteModel."""
    whole = [item for item in found if not item.missing]
    meant = [item for item in whole if item.rank == min(other.rank for other in whole)]
    if len(meant) > 1:
        raise AmbiguousFormat(name=name, found=", ".join(item.label for item in meant[:4]))
    if not meant and found:
        half = found[0]
        raise IncompleteModel(name=name, found=half.label, missing=half.missing, advice=half.advice)
    return meant[0] if meant else None


def looks_like_a_part(name: PurePosixPath) -> bool:
    """Is this the name of a model, or of a part of one?"""
    return name.name.lower().endswith(MODEL_SUFFIXES) or bool(SHARD.search(name.name))


def belongs(name: PurePosixPath, root: PurePosixPath) -> bool:
    """Is this file a part of the SavedModel or the unpacked Keras folder at ``root``?"""
    parts = name.relative_to(root).parts if name.is_relative_to(root) else ("",)
    return parts[0] in GRAPH_FOLDERS or (len(parts) == 1 and parts[0] in (*GRAPH_FILES, *KERAS_FILES))


# Folders --------------------------------------------------------------------------------------------------------


def _saved_models(tree: Tree) -> Iterator[Candidate]:
    for name in islice((name for name in tree if name.name in GRAPHS), MOST_FOLDERS):
        inside = _below(tree, name.parent, belongs)
        yield Candidate(str(name), (*inside, *_flat_variables(tree, name.parent)))


def _flat_variables(tree: Tree, root: PurePosixPath) -> Iterator[tuple[str, Path]]:
    """The variables where somebody chose them beside the graph, without their folder."""
    for name, path in tree.items():
        if name.parent == root and name.name.startswith("variables.") and (root / "variables" / name.name) not in tree:
            yield f"variables/{name.name}", path


def _keras_folders(tree: Tree) -> Iterator[Candidate]:
    roots = (name for name in tree if name.name == "config.json" and name.parent / "model.weights.h5" in tree)
    for name in islice(roots, MOST_FOLDERS):
        yield Candidate(str(name), _below(tree, name.parent, belongs))


def _core_ml(tree: Tree) -> Iterator[Candidate]:
    """A ``.mlpackage``: Manifest.json with the list of its files, and all of them below it."""
    lists = (name for name in tree if name.name == "Manifest.json" and "itemInfoEntries" in _keys(tree[name]))
    for name in islice(lists, MOST_FOLDERS):
        package = name.parent.name if name.parent.name.endswith(".mlpackage") else "model.mlpackage"
        inside = _below(tree, name.parent, PurePosixPath.is_relative_to)
        yield Candidate(str(name), tuple((f"{package}/{part}", path) for part, path in inside))


def _tensorflow_js(tree: Tree) -> Iterator[Candidate]:
    """A JSON text with the graph or the layers, and the files of weights that it names."""
    for name in [name for name in tree if name.suffix == ".json" and _keys(tree[name]) & TENSORFLOW_JS]:
        yield _with_named(tree, name, "model.json", _paths_in(tree[name]))


def _below(
    tree: Tree, root: PurePosixPath, wanted: Callable[[PurePosixPath, PurePosixPath], bool]
) -> tuple[tuple[str, Path], ...]:
    return tuple((str(name.relative_to(root)), path) for name, path in tree.items() if wanted(name, root))


# Files that name others -----------------------------------------------------------------------------------------


def _openvino(tree: Tree) -> Iterator[Candidate]:
    graphs = [name for name in tree if name.suffix == ".xml" and OPENVINO.match(_head(tree[name]))]
    for name in graphs:
        yield _with_named(tree, name, name.name, (f"{name.stem}.bin",))


def _onnx(tree: Tree) -> Iterator[Candidate]:
    """A graph whose weights are kept in files beside it; one that holds them itself is a file like any other."""
    for name in [name for name in tree if name.suffix == ".onnx"]:
        if beside := external_files(tree[name]):
            yield _with_named(tree, name, name.name, beside)


def external_files(path: Path) -> tuple[str, ...]:
    """The files in which an ONNX graph keeps its weights, as it names them."""
    with path.open("rb") as file:
        if not file.read(1):
            return ()
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            matches = islice(LOCATION.finditer(data), MOST_NAMED)
            found = {data[match.end() : match.end() + match[1][0]] for match in matches}
    return tuple(sorted(name.decode("utf-8", "replace") for name in found))


def _paths_in(path: Path) -> tuple[str, ...]:
    """The files of weights that a TensorFlow.js text names."""
    found: dict[str, None] = {}
    with path.open("rb") as file:
        for match in PATHS.finditer(file.read(MOST_READ)):
            if len(match[1]) > LONGEST_LIST or len(found) > MOST_NAMED:
                break
            try:
                found |= dict.fromkeys(json.loads(match[1]))
            except ValueError:
                continue
    return tuple(found)


def _with_named(tree: Tree, name: PurePosixPath, inside: str, named: tuple[str, ...]) -> Candidate:
    """The file and those that it names, which lie beside it or below."""
    there = [other for other in named if name.parent / other in tree and ".." not in PurePosixPath(other).parts]
    absent = [other for other in named if other not in there]
    files = ((inside, tree[name]), *((other, tree[name.parent / other]) for other in there))
    missing = ", ".join(absent[:3]) + (f" and {len(absent) - 3} more" if len(absent) > 3 else "")
    if not named:
        missing = "the list of its files of weights"
    return Candidate(str(name), files, missing=missing)


# Checkpoints ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Checkpoint:
    """The files of one checkpoint; ``graph`` is its .meta file, or the text of the graph beside it."""

    prefix: PurePosixPath
    files: tuple[PurePosixPath, ...]
    graph: PurePosixPath | None = None
    missing: str = ""

    def candidate(self, tree: Tree, *more: tuple[str, Path], label: str = "") -> Candidate:
        graph = (self.graph,) if self.graph else ()
        listed = [name for name in (*graph, *self.files, self.prefix.parent / "checkpoint") if name in tree]
        files = (*more, *((name.name, tree[name]) for name in listed))
        return Candidate(label or str(self.prefix), files, missing=self.missing)


def _graph_checkpoints(tree: Tree) -> Iterator[Candidate]:
    """Checkpoints of TensorFlow 1, which have their graph beside them."""
    for found in _latest(tree, [item for item in _checkpoints(tree) if item.graph]):
        yield found.candidate(tree)


def _checkpoints(tree: Tree) -> list[_Checkpoint]:
    shards: dict[PurePosixPath, list[PurePosixPath]] = {}
    for name in tree:
        if found := SHARD_OF.fullmatch(name.name):
            shards.setdefault(name.parent / found[1], []).append(name)
    prefixes = [name.with_suffix("") for name in tree if name.suffix in (".index", ".meta")]
    return [_checkpoint(tree, prefix, shards.get(prefix, [])) for prefix in dict.fromkeys(prefixes)]


def _checkpoint(tree: Tree, prefix: PurePosixPath, shards: list[PurePosixPath]) -> _Checkpoint:
    """The files that share a prefix: an index with its shards (version 2), or one file or shards alone (version 1)."""
    index, meta, text = (prefix.parent / f"{prefix.name}{suffix}" for suffix in (".index", ".meta", ""))
    parts = tuple(name for name in (index, text, *sorted(shards)) if name in tree)
    drawn = prefix.parent / "graph.pbtxt"
    graph = meta if meta in tree else drawn if drawn in tree else None
    return _Checkpoint(
        prefix,
        parts,
        graph,
        _missing_part(index, shards, tree) if parts else "the checkpoint itself (.index and .data)",
    )


def _missing_part(index: PurePosixPath, shards: list[PurePosixPath], tree: Tree) -> str:
    if index not in tree:
        return ""
    expected = int(shards[0].name[-5:]) if shards else 1
    return "" if len(shards) == expected else f"a part of its data ({len(shards)} of {expected} .data files are there)"


def _latest(tree: Tree, found: list[_Checkpoint]) -> list[_Checkpoint]:
    """Of several checkpoints of one folder the one that its file ``checkpoint`` names; all where it names none."""
    named = {name.parent / latest for name in tree if name.name == "checkpoint" and (latest := _named_in(tree[name]))}
    decided = {item.prefix.parent for item in found if item.prefix in named}
    return [item for item in found if item.prefix in named or item.prefix.parent not in decided]


def _named_in(path: Path) -> str:
    """What the text file ``checkpoint`` calls the newest one. Its path is of another machine, so the name counts."""
    stated = NAMED.search(_head(path).decode("utf-8", "replace"))
    return PurePosixPath(stated[1].replace("\\", "/")).name if stated else ""


# Single files and pairs -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Weights:
    """One file of weights and what it is called in a bundle. Is it a pickle? Does a format take it by itself?"""

    path: Path
    name: str
    pickled: bool
    alone: bool


@dataclass(frozen=True)
class _Loose:
    """The files that are no part of a folder, sorted by what they are."""

    architectures: tuple[Path, ...]
    weights: tuple[_Weights, ...]
    wholes: tuple[Path, ...]
    checkpoints: tuple[_Checkpoint, ...]


def _loose(tree: Tree) -> Iterator[Candidate]:
    parts = _sorted(tree)
    for path in parts.wholes:
        yield Candidate(path.name, ((path.name, path),), whole=True, rank=DRAWN if _lacks_variables(path) else STRONG)
    yield from islice(_pairs(tree, parts), MOST_PAIRS) if parts.architectures else _lonely(tree, parts)


def _lacks_variables(path: Path) -> bool:
    """Is this the bare graph that TensorFlow 1 writes beside its checkpoints?"""
    if not path.name.endswith((".pb", ".pbtxt")):
        return False
    with path.open("rb") as file:
        return bool(VARIABLES.search(file.read(MOST_READ)))


def _sorted(tree: Tree) -> _Loose:
    samples = {path: take_sample(path, name.name) for name, path in tree.items() if _is_loose(name)}
    matched = {path: bool(formats.matches(sample)) for path, sample in samples.items()}
    names = {path: weights_name(sample) for path, sample in samples.items()}
    return _Loose(
        architectures=_one_form(samples),
        weights=tuple(
            _Weights(path, name, is_pickle(samples[path]), matched[path]) for path, name in names.items() if name
        ),
        wholes=tuple(path for path in samples if matched[path] and not names[path]),
        checkpoints=tuple(_latest(tree, [item for item in _checkpoints(tree) if not item.graph])),
    )


def _is_loose(name: PurePosixPath) -> bool:
    """Can this be a model, weights or an architecture by itself? Texts and nameless kinds are looked at, too."""
    if name.suffix in (".index", ".meta") or SHARD.search(name.name) or name.name == "checkpoint":
        return False
    return looks_like_a_part(name) or name.suffix in ("", ".txt")


def _one_form(samples: Mapping[Path, Sample]) -> tuple[Path, ...]:
    """Keras 2 wrote the same architecture as JSON and as YAML; the JSON is taken where there are both."""
    found = {path: architecture_in(sample) for path, sample in samples.items() if sample.container == "file"}
    texts = [path for path, kind in found.items() if "JSON" in kind]
    return tuple(texts or [path for path, kind in found.items() if kind])


def _pairs(tree: Tree, parts: _Loose) -> Iterator[Candidate]:
    """Each architecture with each of the weights; plain weights before pickled ones."""
    plain = [item for item in parts.weights if not item.pickled]
    pickled = [] if plain or parts.checkpoints else parts.weights
    if not (plain or pickled or parts.checkpoints):
        yield _half(parts.architectures[0], "the file with its weights")
    for path in parts.architectures:
        inside = f"architecture{'.json' if _head(path).lstrip(BLANK).startswith(JSON_STARTS) else '.yaml'}"
        for item in (*plain, *pickled):
            label, rank = f"{path.name} with {item.path.name}", PICKLED if item.pickled else STRONG
            yield Candidate(label, ((inside, path), (item.name, item.path)), rank=rank)
        for found in parts.checkpoints:
            yield found.candidate(tree, (inside, path), label=f"{path.name} with {found.prefix.name}")


def _lonely(tree: Tree, parts: _Loose) -> Iterator[Candidate]:
    """Weights without an architecture: whole where a format takes them by themselves, else half a model."""
    for item in parts.weights:
        if item.alone:
            yield Candidate(item.path.name, ((item.path.name, item.path),), whole=True, rank=ALONE)
        else:
            yield _half(item.path, "the architecture (.json)")
    for found in parts.checkpoints:
        label = f"a TensorFlow checkpoint, which holds only weights ({found.prefix.name})"
        missing = found.missing or "the architecture (.json)"
        yield Candidate(label, found.candidate(tree).files, missing=missing, advice=BOTH)


def _half(path: Path, missing: str) -> Candidate:
    sample = take_sample(path, path.name)
    found = architecture_in(sample) or weights_in(sample)
    return Candidate(f"{found} ({path.name})", ((path.name, path),), missing=missing, advice=BOTH)


def _head(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(64 * 1024)


def _keys(path: Path) -> frozenset[str]:
    return next(iter(take_sample(path, path.name).json_keys.values()), frozenset())
