"""The shape of a format: plain data and plain functions, no base class.

Nothing here imports TensorFlow, NumPy or h5py: the web process reads labels, suffixes and sniffers from it.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from worker.formats._likeness import Likeness, Measured
from worker.report import Finding

if TYPE_CHECKING:
    import numpy as np

    Arrays = dict[str, np.ndarray]
    Node = dict[str, Any]  # of a Keras architecture, see ``_architecture``


# What ``Sample.hdf5`` looks for in the bytes of an HDF5 file: names of the attributes and groups that Keras writes.
HDF5_MARKERS = (
    b"model_config",  # a whole model: the architecture is in the file
    b"model_weights",
    b"training_config",
    b"optimizer_weights",
    b"layer_names",  # weights as Keras 1 and 2 lay them out
    b"weight_names",
    b"keras_version",
    b"_layer_checkpoint_dependencies",  # weights as Keras 2.12 and later lay them out
    b"vars",
)
# What ``Sample.json_keys`` looks for in JSON: what tells apart the texts of several formats, wherever it stands.
JSON_MARKERS = (
    b'"modelTopology"',  # TensorFlow.js, whose keys may stand megabytes apart
    b'"weightsManifest"',
    b'"layers-model"',
    b'"graph-model"',
    b'"class_name"',  # a Keras architecture
    b'"config"',
    b'"itemInfoEntries"',  # the list of a Core ML package's files
    b'"nbformat"',
)


@dataclass(frozen=True)
class Member:
    """One file inside an archive."""

    name: str
    size: int  # bytes, unpacked


@dataclass(frozen=True)
class Sample:
    """What recognising looks at: bytes and names, nothing that was run or unpacked to disk.

    ``members`` is empty for a plain file. ``texts`` holds the first 64 KiB of members (or of the file, under its own
    name) that look like JSON or like an architecture in YAML, and small Git-LFS pointers. ``json_keys`` gives, for each
    of them that is JSON, which of ``JSON_MARKERS`` occur in its first 64 MiB, without their quotes. ``hdf5`` gives, for
    each HDF5 file ("" is the file itself), which of ``HDF5_MARKERS`` occur in it.
    """

    name: str
    size: int
    head: bytes  # the first 64 KiB
    container: str = "file"  # file, zip, tar
    members: tuple[Member, ...] = ()
    texts: Mapping[str, str] = field(default_factory=dict)
    json_keys: Mapping[str, frozenset[str]] = field(default_factory=dict)
    hdf5: Mapping[str, frozenset[str]] = field(default_factory=dict)
    with_variables: frozenset[str] = frozenset()  # the saved_model.pb members that mention variables


MOST_SIGNATURES = 64  # that are listed; nobody was seen with more than twenty
MOST_REFUSALS, LONGEST_REFUSAL = 64, 500  # what a job says about a stranger's file is kept, so it is bounded


def _number(value: Any) -> int | None:
    """A number that came from a job as what it should be; ValueError and TypeError for anything else."""
    return None if value is None else int(value)


MOST_BOUNDS, MOST_WORDS, LONGEST_WORD = 4096, 64, 200  # of what a job says that inputs should be like


def _bounds(numbers: Any) -> tuple[float, ...]:
    """Finite numbers that came from a job; ValueError for any other, and for more than anybody needs."""
    bounds = tuple(map(float, numbers or ()))
    if len(bounds) > MOST_BOUNDS or not all(map(math.isfinite, bounds)):
        raise ValueError("not the bounds of an input")
    return bounds


@dataclass(frozen=True)
class TensorSpec:
    """An input or output: None in ``shape`` is a free dimension, ``shape`` None an unknown rank.

    The rest is what the layers behind an input imply of its values, where that is known:
    ``limit`` is the exclusive upper bound of an integer (the size of an embedding).
    ``low`` and ``high`` bound a number: one each for all, or as many as the last dimension has (0 to 255 where the
    model rescales images itself, two standard deviations around the mean where it normalises).
    ``words`` are some of the words, or whole numbers as text, that are in the model's vocabulary.
    ``padding`` is the value behind the end of a row that is shorter than the others, for a model that masks it.
    """

    name: str
    shape: tuple[int | None, ...] | None
    dtype: str
    limit: int | None = None
    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()
    words: tuple[str, ...] = ()
    padding: float | None = None

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> TensorSpec:
        shape, padding = data["shape"], data.get("padding")
        return cls(
            name=str(data["name"]),
            shape=None if shape is None else tuple(map(_number, shape)),
            dtype=str(data["dtype"]),
            limit=_number(data.get("limit")),
            low=_bounds(data.get("low")),
            high=_bounds(data.get("high")),
            words=tuple(str(word)[:LONGEST_WORD] for word in list(data.get("words") or ())[:MOST_WORDS]),
            padding=None if padding is None else _bounds([padding])[0],
        )


@dataclass(frozen=True)
class LayerRow:
    """One row of the layer table."""

    name: str
    kind: str
    shape: str
    dtype: str
    parameters: int

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> LayerRow:
        name, kind, shape, dtype = (str(data[name]) for name in ("name", "kind", "shape", "dtype"))
        return cls(name, kind, shape, dtype, int(data["parameters"]))


@dataclass(frozen=True)
class Signature:
    """One way to call a model that has several: its name, what it takes and gives, and the facts (``FACTS``) about the
    operations behind it. ``same_as`` is the signature of which it is only another name."""

    name: str
    inputs: tuple[TensorSpec, ...] = ()
    outputs: tuple[TensorSpec, ...] = ()
    traits: frozenset[str] = frozenset()
    same_as: str = ""

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Signature:
        return cls(
            name=str(data["name"]),
            inputs=tuple(map(TensorSpec.from_json, data.get("inputs", ()))),
            outputs=tuple(map(TensorSpec.from_json, data.get("outputs", ()))),
            traits=frozenset(map(str, data.get("traits", ()))),
            same_as=str(data.get("same_as", "")),
        )


@dataclass(frozen=True)
class Summary:
    """What a file holds. ``traits`` are the facts that routes ask for, see ``TRAITS``.

    ``signatures``: the one first that ``inputs``, ``outputs`` and ``traits`` are of, where the file has any.
    ``refusals`` says of each format that these very layers cannot become why not (``Format.refusal``), by its slug.
    """

    inputs: tuple[TensorSpec, ...] = ()
    outputs: tuple[TensorSpec, ...] = ()
    layers: tuple[LayerRow, ...] = ()
    parameters: int | None = None
    dtypes: tuple[str, ...] = ()
    custom_objects: tuple[str, ...] = ()
    lambdas: tuple[str, ...] = ()  # Lambda layers whose Python code is not understood
    producer: Mapping[str, str] = field(default_factory=dict)  # {"keras": "3.15.1", "tensorflow": …}
    signatures: tuple[Signature, ...] = ()
    imports: tuple[str, ...] = ()  # what a pickle would import
    traits: frozenset[str] = frozenset()
    refusals: Mapping[str, str] = field(default_factory=dict)

    @property
    def code(self) -> tuple[str, ...]:
        """Whose Python code has to run before the model can be opened: classes, functions and Lambda layers."""
        return (*self.custom_objects, *self.lambdas)

    @property
    def weight_bytes(self) -> int:
        """About how much the weights take: parameters times the widest of their floating types, four bytes at least."""
        return (self.parameters or 0) * (8 if "float64" in self.dtypes else 4)

    @property
    def computes_in_half(self) -> bool:
        """Does a layer compute in float16 or bfloat16, whatever the weights are kept in?"""
        return any("float16" in layer.dtype for layer in self.layers)

    @property
    def distinct_signatures(self) -> tuple[str, ...]:
        """The names of the signatures, the usual one first, without further names of the same."""
        return tuple(item.name for item in self.signatures if not item.same_as)

    def of_signature(self, name: str) -> Summary:
        """What the file holds for who calls this signature: layers are those of the usual one alone, which is "" too.
        The same where the file has no such signature."""
        found = next((item for item in self.signatures[1:] if item.name == name and not item.same_as), None)
        if found is None:
            return self
        traits = self.traits.difference(FACTS, {"keras-config"}) | found.traits
        return dataclasses.replace(
            self, inputs=found.inputs, outputs=found.outputs, layers=(), traits=traits, refusals={}
        )

    def to_json(self) -> dict[str, Any]:
        signatures = [{**dataclasses.asdict(item), "traits": sorted(item.traits)} for item in self.signatures]
        return {**dataclasses.asdict(self), "traits": sorted(self.traits), "signatures": signatures}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Summary:
        return cls(
            inputs=tuple(map(TensorSpec.from_json, data.get("inputs", ()))),
            outputs=tuple(map(TensorSpec.from_json, data.get("outputs", ()))),
            layers=tuple(map(LayerRow.from_json, data.get("layers", ()))),
            parameters=_number(data.get("parameters")),
            dtypes=tuple(map(str, data.get("dtypes", ()))),
            custom_objects=tuple(map(str, data.get("custom_objects", ()))),
            lambdas=tuple(map(str, data.get("lambdas", ()))),
            producer={str(name): str(version) for name, version in data.get("producer", {}).items()},
            signatures=tuple(map(Signature.from_json, _mappings(data.get("signatures", ()))[:MOST_SIGNATURES])),
            imports=tuple(map(str, data.get("imports", ()))),
            traits=frozenset(map(str, data.get("traits", ()))),
            refusals=_sentences(data.get("refusals", {})),
        )


def _mappings(rows: Any) -> list[Mapping[str, Any]]:
    """Those rows that are some: of signatures, nothing but names in any order was kept before."""
    return [row for row in rows if isinstance(row, Mapping)]


def _sentences(data: Mapping[str, Any]) -> dict[str, str]:
    """Slugs of formats with the reasons against them, none longer than people read."""
    few = list(data.items())[:MOST_REFUSALS]
    return {str(slug)[:LONGEST_REFUSAL]: str(said)[:LONGEST_REFUSAL] for slug, said in few}


# What a converter may require of its source, and the sentence for a source that does not have it.
TRAITS = {
    "keras-config": "it holds a graph of operations, not Keras layers, and layers cannot be read back from a graph.",
    "weights": "it holds no weights.",
    "model-inside": "no model is stored inside it, only what its code would build.",
    "arrays-inside": "no arrays are stored inside it.",
    "variables": "its weights are constants among the other numbers of a graph, and have no names of their own.",
    "no-loops": "it has loops, which cannot be read back from a TensorFlow Lite file.",
}
# What else inspection may find out: facts for which a format has a sentence in ``refuses`` or ``changes``.
FACTS = {
    "optimizer": "the state of the optimizer is in the file",
    "compiled": "the settings of compile() are in the file",
    "strings": "it works on text",
    "tables": "it looks things up in tables",
    "recurrent": "it has recurrent layers with a free batch size",
    "preprocessing": "it prepares its own inputs",
    "half": "it computes in float16 or bfloat16",
    "old-loops": "its loops are those of TensorFlow 1 (Switch, Merge)",
    "old-lists": "its loops are those of TensorFlow 1, around lists of TensorFlow 2",
}


# What a format can keep of a model, in the words of the pages, and the trait without which a model does not have it.
KEPT = {
    "architecture": ("the layers", "keras-config"),
    "weights": ("the weights", "weights"),
    "training": ("training mode", "keras-config"),
    "compile": ("the settings of compile()", "compiled"),
    "optimizer": ("the state of the optimizer", "optimizer"),
    "signatures": ("all signatures but one", "signatures"),
}


@dataclass(frozen=True)
class Tolerance:
    """How far a value may lie from the source's: absolute, plus relative to the largest magnitude of the output."""

    rtol: float
    atol: float


@dataclass(frozen=True)
class Variable:
    """A weight tensor of an open model that can be given other values, to try out whether a fault in it would show.

    ``name`` is unique in the model; ``layer`` is what people call the place that it belongs to.
    """

    name: str
    layer: str
    read: Callable[[], np.ndarray]
    assign: Callable[[np.ndarray], None]


def no_variables() -> Sequence[Variable]:
    """Those of a model whose weights cannot be changed while it is open."""
    return ()


def no_steps() -> Mapping[str, float]:
    """Those of weights that are stored as numbers with a point: their dtype tells how they were rounded."""
    return {}


@dataclass(frozen=True)
class Scales:
    """Numbers that are no weights, and that converters multiply weights with.

    epsilons: of its normalisations. factors: that layers multiply their inputs with, as Rescaling does.
    """

    epsilons: tuple[float, ...] = ()
    factors: tuple[float, ...] = ()


@dataclass(frozen=True)
class Loaded:
    """A model that was opened in a job. Arrays are NumPy; string tensors are arrays of dtype ``S`` or ``U``.

    ``run`` takes one array for each of ``inputs`` by name and returns one for each of ``outputs`` by name.
    ``weights`` yields (name, array) for every variable, in the file's own order, without optimizer variables.
    ``architecture`` is a digest of the layers and their connections where the model is too large to be run for a proof:
    two files with the same one and the same weights are the same model.
    ``steps`` says of weights that are stored as whole numbers how far two of those lie apart, by their names.
    ``variables`` are the weights that can be changed while the model is open.
    ``inner`` yields (name, array) for the inner tensors that one call computes, in their order; None where it cannot.
    ``exact`` is ``run`` in float64, with float64 outputs; None where the library cannot compute in it.
    ``scales`` are numbers that converters multiply weights with, as far as the model tells them.
    ``traced`` gives ``run`` as one graph, which is how a model is run for speed; None where ``run`` calls one anyway.
    ``further`` are the names of the file's other signatures, of those that compute something else than this one.
    ``tables`` gives a digest of what each of its lookup tables holds; none for those of which that is not known.
    ``described`` gives a digest of the layers and their connections for a model that Keras 3 built; "" for others.
    """

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    run: Callable[[Arrays], Arrays]
    weights: Callable[[], Iterator[tuple[str, np.ndarray]]]
    findings: tuple[Finding, ...] = ()
    architecture: str = ""
    steps: Callable[[], Mapping[str, float]] = no_steps
    variables: Callable[[], Sequence[Variable]] = no_variables
    inner: Callable[[Arrays], Iterator[tuple[str, np.ndarray]]] | None = None
    exact: Callable[[Arrays], Arrays] | None = None
    scales: Scales = Scales()
    traced: Callable[[], Callable[[Arrays], Arrays]] | None = None
    described: Callable[[], str] = str
    further: tuple[str, ...] = ()
    tables: Callable[[], tuple[str, ...]] = tuple


def no_weights() -> Iterator[tuple[str, np.ndarray]]:
    """Those of a finished graph, whose constants are folded and rearranged while converting: the values alone tell
    whether they are right."""
    yield from ()


def no_rounding(options: Mapping[str, Any]) -> None:
    """Of a format that has no option to round more or less."""


WRITTEN = "handing over the result"  # what a job says when its conversion is done, before it runs the source


def unheard(text: str) -> None:
    """Nobody listens."""


@dataclass
class Hop:
    """What one converter call is given besides its two paths, and where it leaves its findings."""

    scratch: Path
    options: Mapping[str, Any] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)
    samples: Path | None = None  # people's own inputs, where they gave some
    seed: int = 0  # of whatever is drawn while converting; it belongs to the source file
    signature: str = ""  # of a source that has several; "" is the usual one
    first: int | None = None  # operations of the graph after which it ends; None for all of it
    say: Callable[[str], None] = unheard  # what the job is doing

    def add(self, *findings: Finding) -> None:
        self.findings.extend(finding for finding in findings if finding not in self.findings)


@dataclass(frozen=True)
class Option:
    """A typed option of a target format."""

    name: str
    kind: type
    default: Any
    help: str
    choices: tuple[Any, ...] = ()


@dataclass(frozen=True)
class Converter:
    """Writes the target file from the source file. ``requires`` names traits (``TRAITS``) of the source."""

    run: Callable[[Path, Path, Hop], None]
    requires: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Room:
    """How large a model a format and its converter can take.

    limit: bytes of weights that a file of the format can hold; None where it has no bound.
    memory: bytes of memory that writing it takes for each byte of weights, measured.
    """

    limit: int | None = None
    memory: float = 3.0


@dataclass(frozen=True)
class Format:
    """One format. ``slug`` is the module's name and is filled in by discovery.

    suffixes: a hint and a download name, never proof; the first one names results.
    sniff: does this Sample hold this format? Pure.
    inspect: reads the structure, runs nothing of the model.
    load: opens the model for running; None means that it cannot be run here.
    load_signature: ``load`` for another signature than the usual one, by its name. Conversions from a format that has
        it can be asked for one; its converters find the name in ``Hop.signature``.
    weights: (name, array) of every weight, read without opening the model, where there is no ``load``.
    findings: what a person should know about this very file, read without opening it.
    keeps: which of ``KEPT`` the format can hold, and "graph"; pages say what a route drops.
    refuses: facts about a model (``FACTS``) that keep it from becoming this format, each with a sentence that says why.
    changes: facts about a model that become something else in this format, each with the sentence that says what.
    refusal: why layers cannot become this format, in a sentence, or "". Asked at inspection with their description and
        with the Keras 3 model of it, which has shapes but no values, or None where that cannot be built. Says only what
        is certain.
    tolerance_for: the tolerance under the given options, where it depends on them.
    unrounded: the options of the same conversion without rounding; None where these options round nothing.
    alike: is the second of two files the first one with numbers rounded? Reads both, and runs the first one alone, on
        what ranges were measured on, where that is told.
    narrows: dtypes of inputs and outputs that the format does not have, each with the one that it holds instead.
    exact: weights come back bit for bit.
    """

    label: str
    suffixes: tuple[str, ...]
    sniff: Callable[[Sample], bool]
    inspect: Callable[[Path, Path], Summary]  # (file, scratch folder)
    load: Callable[[Path, Path], Loaded] | None = None  # (file, scratch folder)
    load_signature: Callable[[Path, Path, str], Loaded] | None = None  # (file, scratch folder, name)
    weights: Callable[[Path, Path], Iterator[tuple[str, np.ndarray]]] | None = None  # (file, scratch folder)
    findings: Callable[[Path, Path], tuple[Finding, ...]] | None = None  # (file, scratch folder)
    converts_from: Mapping[str, Converter] = field(default_factory=dict)
    converts_to: Mapping[str, Converter] = field(default_factory=dict)
    tolerance: Tolerance = Tolerance(rtol=1e-5, atol=1e-6)
    tolerance_for: Callable[[Mapping[str, Any]], Tolerance] | None = None
    unrounded: Callable[[Mapping[str, Any]], dict[str, Any] | None] = no_rounding
    alike: Callable[[Path, Path, Measured | None], Likeness] | None = None
    keeps: frozenset[str] = frozenset()
    refuses: Mapping[str, str] = field(default_factory=dict)
    changes: Mapping[str, str] = field(default_factory=dict)
    refusal: Callable[[Node, Any], str] | None = None
    room: Room = Room()
    narrows: Mapping[str, str] = field(default_factory=dict)
    exact: bool = False
    options: tuple[Option, ...] = ()
    snippet: str = ""  # "{file}" is replaced by the download's name
    snippet_language: str = "python"  # or javascript
    needs: tuple[str, ...] = ()  # import names
    no_way_in: str = ""  # why nothing converts to it, in a sentence, where nothing does
    no_way_out: str = ""  # why it converts to nothing
    slug: str = ""

    def tolerance_with(self, options: Mapping[str, Any]) -> Tolerance:
        """How far a result that was made with these options may lie from its source."""
        return self.tolerance_for(options) if self.tolerance_for else self.tolerance
