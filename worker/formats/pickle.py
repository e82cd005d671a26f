"""Pickle: read as the program that it is and never unpickled; the model or the arrays inside are taken out as data."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

from worker import archive
from worker.errors import LarderError, ModelError, UnsafeContent
from worker.formats import (
    _outline,
    _pickles,
    _pickles_models,
    _saved_model,
    _sources,
    _stream,
    data_pickle,
    safetensors,
    saved_model,
)
from worker.formats._dangers import CODE_CARRIERS, WHY, severity_of
from worker.formats._format import Converter, Format, Hop, Loaded, Sample, Summary
from worker.formats._opcodes import Op, Unreadable, read_ops
from worker.formats._pickles_models import Found
from worker.formats._pickles_plain import expand_head, is_object_array
from worker.report import Finding, FindingKind, Severity, declare

FIRST_OPS = 50
MAX_LISTED = 50  # findings; the Summary lists every name
DOTTED = re.compile(rb"^[A-Za-z_][\w.]*$")
# What a pickle of protocol 0 or 1 can start with: a container, a name to import, or a mark for one of them
STARTS = ("MARK", "EMPTY_LIST", "EMPTY_DICT", "EMPTY_TUPLE", "GLOBAL")
NAMING = ("GLOBAL", "INST")
CALLS = ("REDUCE", "INST", "OBJ")  # by then something has run, whether or not the rest is pickle
SUFFIXES = (".pkl", ".pickle", ".joblib", ".cloudpickle", ".dill", ".p")
WHOLE = frozenset({"model-inside", "keras-config", "weights"})

SENTENCE = "Opening this pickle would import {import_name}: {why}."
IMPORTS: dict[Severity, FindingKind] = {
    Severity.DANGER: declare("pickle-import-dangerous", Severity.DANGER, SENTENCE),
    Severity.WARNING: declare("pickle-import-unknown", Severity.WARNING, SENTENCE),
    Severity.NOTE: declare("pickle-import", Severity.NOTE, SENTENCE),
}
more_imports = declare(
    "pickle-imports-more",
    Severity.WARNING,
    "Opening this pickle would import {count} further names; the summary has all.",
)
model_inside = declare(
    "pickle-model-inside",
    Severity.NOTE,
    "The model was taken out of this pickle as data: {words}{digest}. Nothing of the pickle was run.",
)
models_inside = declare(
    "pickle-models-inside",
    Severity.WARNING,
    "{count} models are stored inside this pickle ({words}); which one is meant, it does not say.",
)
model_unreadable = declare(
    "pickle-model-unreadable", Severity.WARNING, "There is a model inside this pickle ({words}), but {problem}"
)
arrays_inside = declare(
    "pickle-arrays-inside",
    Severity.NOTE,
    "{count} arrays are stored inside this pickle, and no description of the model that they belong to. Upload it "
    "together with the architecture JSON, in one archive, to get the model back.",
)
carries_code = declare(
    "pickle-carries-code",
    Severity.WARNING,
    "This pickle carries Python code of its own ({names}), which is never looked at: what it would do is not in the "
    "result.",
)
breaks_off = declare(
    "pickle-breaks-off",
    Severity.WARNING,
    "From byte {position} on this is not plain pickle ({problem}): names after that were searched for, and some may "
    "be missing from the list.",
)
too_much = declare(
    "pickle-too-much",
    Severity.WARNING,
    "This pickle holds more values than Larder keeps of one: its imports are all listed, but a model or arrays among "
    "the values may have been missed.",
)
several = declare(
    "pickle-several",
    Severity.WARNING,
    "{count} pickles stand one after the other in this file; all of them are listed.",
)


# Recognising ----------------------------------------------------------------------------------------------------


def sniff(sample: Sample) -> bool:
    """Pickle opcodes at the start, plain or compressed, or a NumPy array of objects, which is a pickle inside."""
    if sample.container != "file" or data_pickle.sniff(sample):
        return False
    head = sample.head
    return is_object_array(head) or _opens_like_pickle(head) or _opens_like_pickle(expand_head(head))


def _opens_like_pickle(head: bytes) -> bool:
    if len(head) < 2:
        return False
    ops, whole = _first_ops(head)
    if head[0] == 0x80:
        return 2 <= head[1] <= 5 and len(ops) >= 2
    has_run = any(op.name in NAMING for op in ops) and any(op.name in CALLS for op in ops)
    enough = whole or has_run or len(ops) >= FIRST_OPS
    return enough and ops[0].name in STARTS and _names_are_names(ops)


def _first_ops(head: bytes) -> tuple[list[Op], bool]:
    """The first opcodes, and whether they came to a STOP."""
    ops: list[Op] = []
    try:
        for op in read_ops(BytesIO(head)):
            ops.append(op)
            if len(ops) >= FIRST_OPS:
                break
    except Unreadable:
        return ops, False
    return ops, bool(ops) and ops[-1].name == "STOP"


def _names_are_names(ops: list[Op]) -> bool:
    """Plain text can look like opcodes; what it would import then is no name."""
    named = [op.argument for op in ops if op.name in NAMING]
    return all(DOTTED.match(part) for argument in named for part in argument.split(b"\n"))


# Reading --------------------------------------------------------------------------------------------------------


def inspect(path: Path, scratch: Path) -> Summary:
    """The model inside and the names that opening the pickle would import; nothing is imported or run."""
    found = _pickles_models.models(path, scratch)
    base = _summary_of(found, scratch) if found else _summary_of_arrays(path, scratch)
    return dataclasses.replace(base, imports=tuple(_imports(path, scratch)))


def _summary_of(found: list[Found], scratch: Path) -> Summary:
    """Of the one model; of several, and of one that cannot be read, only that it is there: loading says the rest."""
    if len(found) > 1:
        return Summary(traits=WHOLE)
    try:
        inner = _inner_summary(found[0], scratch)
    except LarderError:
        return Summary(traits=WHOLE)
    return dataclasses.replace(inner, traits=inner.traits | {"model-inside"})


def _inner_summary(found: Found, scratch: Path) -> Summary:
    if found.slug == "saved_model" and found.path:
        return saved_model.inspect(found.path, scratch)
    stored = found.stored(scratch)
    return _outline.summarise(stored.architecture, stored.training.traits)


def _summary_of_arrays(path: Path, scratch: Path) -> Summary:
    shapes = _arrays(path, scratch)
    if not shapes:
        return Summary()
    count = sum(size for _, size in shapes)
    return Summary(
        parameters=count,
        dtypes=tuple(sorted({kind for kind, _ in shapes})),
        traits=frozenset({"arrays-inside", "weights"}),
    )


def _arrays(path: Path, scratch: Path) -> list[tuple[str, int]]:
    """The type and the number of values of each array; none where there are too many to list."""
    try:
        found = list(_pickles.arrays_in(_pickles.read(path, scratch)))
    except ModelError:
        return []
    return [(_pickles.dtype_of(array).name, _pickles.count_of(array)) for _, array in found]


def _imports(path: Path, scratch: Path) -> list[str]:
    """The names, in order, also of the pickles that stand inside of this one."""
    own = _pickles.read(path, scratch).imports
    inner = [name for item in _pickles_models.models(path, scratch) for name in item.imports]
    return list(dict.fromkeys([*own, *inner]))


# What is to be known about it -----------------------------------------------------------------------------------


def findings(path: Path, scratch: Path) -> tuple[Finding, ...]:
    """What is inside, one finding for each import, the dangerous ones first, and what else is to be known."""
    contents, names = _pickles.read(path, scratch), _imports(path, scratch)
    rest = []
    if code := [name for name in names if name in CODE_CARRIERS]:
        rest.append(carries_code(names=", ".join(code[:3])))
    if contents.cut:
        rest.append(too_much())
    if contents.pickles > 1:
        rest.append(several(count=contents.pickles))
    if contents.problem:
        rest.append(breaks_off(position=contents.position, problem=contents.problem))
    return (*_import_findings(names), *_inside(path, scratch), *rest)


def _inside(path: Path, scratch: Path) -> Iterator[Finding]:
    found = _pickles_models.models(path, scratch)
    if len(found) > 1:
        yield models_inside(count=len(found), words=" and ".join(item.words for item in found[:4]))
    elif found:
        yield _told(found[0], scratch)
    elif arrays := _arrays(path, scratch):
        yield arrays_inside(count=len(arrays))


def _told(found: Found, scratch: Path) -> Finding:
    try:
        _inner_summary(found, scratch)
    except LarderError as error:
        return model_unreadable(words=found.words, problem=error.message)
    digest = f", whose SHA-256 starts with {found.digest[:16]}" if found.digest else ""
    return model_inside(words=found.words, digest=digest)


def _import_findings(names: list[str]) -> Iterator[Finding]:
    order = list(IMPORTS)
    ranked = sorted(names, key=lambda name: order.index(severity_of(name)))
    for name in ranked[:MAX_LISTED]:
        severity = severity_of(name)
        yield IMPORTS[severity](import_name=name, why=WHY[severity])
    if len(ranked) > MAX_LISTED:
        yield more_imports(count=len(ranked) - MAX_LISTED)


# Opening --------------------------------------------------------------------------------------------------------


def load(path: Path, scratch: Path, signature: str = "") -> Loaded:
    """The model inside, ready to run; of a pickle of arrays alone, only those. ``signature`` names another one than the
    usual of a SavedModel inside."""
    if not _pickles_models.models(path, scratch) and _arrays(path, scratch):
        _refuse_attack(path, scratch)
        return Loaded((), (), lambda arrays: {}, lambda: _pickles.arrays(path, scratch))
    found = _pickles_models.the_model(path, scratch)
    if found.slug == "saved_model" and found.path:
        return saved_model.load(found.path, scratch, signature)
    return _sources.load("pickle")(path, scratch)


def write_saved_model(path: Path, target: Path, hop: Hop) -> None:
    """The SavedModel inside as it is, with all its signatures; a model of layers is made into one."""
    found = _pickles_models.the_model(path, hop.scratch)
    if found.slug != "saved_model" or found.path is None:
        return LAYERS_TO_GRAPH(path, target, hop)
    archive.pack(_saved_model.folder_in(found.path, hop.scratch / "inside-saved-model"), target)
    return None


def write_safetensors(path: Path, target: Path, hop: Hop) -> None:
    """The weights of the model inside by their paths; without a model, every array under its place in the pickle."""
    if _pickles_models.models(path, hop.scratch):
        return MODEL_TO_WEIGHTS(path, target, hop)
    _refuse_attack(path, hop.scratch)
    contents = _pickles.read(path, hop.scratch)
    tensors = [(name, _pickles.tensor(array)) for name, array in _pickles.arrays_in(contents)]
    _stream.write_safetensors(tensors, {"names": "places in a pickle"}, target)
    return None


def _refuse_attack(path: Path, scratch: Path) -> None:
    """Numbers beside a call that does harm are the wrapping of that call: nobody saves weights in this way, and nobody
    should take them. A whole model is worth taking out; what it computes can be looked at."""
    dangers = [name for name in _imports(path, scratch) if severity_of(name) is Severity.DANGER]
    if dangers:
        reason = f"it holds no model, but arrays and a call of {dangers[0][:80]}: {WHY[Severity.DANGER]}"
        raise UnsafeContent(name=path.name, reason=reason)


LAYERS_TO_GRAPH = _sources._converting("pickle", "saved_model", saved_model.write, _sources.open_any)
MODEL_TO_WEIGHTS = _sources._converting("pickle", "safetensors", safetensors.write, _sources.open_model)
FORMAT = Format(
    label="Pickle",
    suffixes=SUFFIXES,
    sniff=sniff,
    inspect=inspect,
    load=load,
    load_signature=load,
    findings=findings,
    converts_to={
        "saved_model": Converter(write_saved_model, frozenset({"model-inside"})),
        "safetensors": Converter(write_safetensors, frozenset({"weights"})),
    },
    needs=("tensorflow", "keras", "tf_keras", "h5py"),
    no_way_in="a pickle is a program that runs when it is opened, so Larder makes none. "
    "Every other format keeps the model without that.",
    exact=True,
)
