"""One model as people have it on disk: a file, or a folder whose files belong together, made into one file.

A folder may hold more than the model (recorded inputs and outputs, notes, code); it is taken where only one model can
be meant, and refused with the candidates' names where several could.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from worker import archive, formats
from worker.errors import AmbiguousFormat, IncompleteModel, NotAModel, UnreadablePath
from worker.formats._format import Sample
from worker.intake import BOTH, is_architecture, take_sample, weights_in
from worker.report import Finding, Severity, declare

CODE = "custom_objects.py"
GRAPHS = ("saved_model.pb", "saved_model.pbtxt")
GRAPH_FILES = (*GRAPHS, "keras_metadata.pb", "fingerprint.pb")
GRAPH_FOLDERS = ("variables", "assets", "assets.extra")
KERAS_FILES = ("config.json", "metadata.json", "model.weights.h5")
MODEL_SUFFIXES = (
    *(".keras", ".h5", ".hdf5", ".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".json", ".npz", ".npy"),
    *(".pkl", ".pickle", ".joblib", ".cloudpickle", ".dill"),
)
RECORDED = ("input", "output")  # what the arrays of recorded inputs and outputs are called, as no weights are
MAX_FILES = 10_000
MAX_NAMES = 8  # of files that were left out, in the sentence about them
LEFT_OUT = declare("left-out", Severity.NOTE, "Not a part of the model, and left out: {names}.")


@dataclass(frozen=True)
class Bundle:
    """One file to recognise, what messages call it, and the code that was found beside it.

    ``packed``: it was made here of a folder's files, so its name is the folder's and promises no format.
    ``left_out``: the files of the folder that are no part of it, by their paths in the folder.
    """

    path: Path
    name: str
    code: Path | None = None
    packed: bool = False
    left_out: tuple[str, ...] = ()

    @property
    def findings(self) -> tuple[Finding, ...]:
        """What is to be said about the choice of the files."""
        if not self.left_out:
            return ()
        more = len(self.left_out) - MAX_NAMES
        names = ", ".join(self.left_out[:MAX_NAMES]) + (f" and {more} more" if more > 0 else "")
        return (LEFT_OUT(names=names),)


def gather(given: Path, scratch: Path) -> Bundle:
    """The model that a path names; a folder's files are packed into an archive in ``scratch``."""
    if given.is_dir():
        return _gather_folder(given, scratch)
    if not given.is_file():
        reason = "it is not a plain file" if given.exists() else "there is no such file or folder"
        raise UnreadablePath(name=given.name or str(given), reason=reason)
    if not os.access(given, os.R_OK):
        raise UnreadablePath(name=given.name, reason="this user may not read it")
    return Bundle(given, given.name)


@dataclass(frozen=True)
class _Candidate:
    """One model in the folder: its files under the names they get in an archive, or one file as it is."""

    label: str
    files: tuple[tuple[str, Path], ...]
    whole: bool = False
    pickle: bool = False


def _gather_folder(folder: Path, scratch: Path) -> Bundle:
    files = _files(folder)
    found = _choose(folder, list(_candidates(files)))
    code = next((path for path in (folder / CODE, *folder.glob(f"*/{CODE}")) if path.is_file()), None)
    taken = {path for _, path in found.files} | {code}
    left_out = tuple(path.relative_to(folder).as_posix() for path in files if path not in taken)
    if found.whole:
        path = found.files[0][1]
        return Bundle(path, path.name, code, left_out=left_out)
    target = scratch / "bundle.zip"
    archive.pack_files(found.files, target)
    return Bundle(target, folder.resolve().name, code, packed=True, left_out=left_out)


def _files(folder: Path) -> list[Path]:
    """The files of the folder that nobody's desktop put there; also links to files, of which whole caches consist."""
    found = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    kept = [path for path in found if not any(part.startswith((".", "__")) for part in path.relative_to(folder).parts)]
    if not kept:
        raise NotAModel(
            name=folder.resolve().name, found="an empty folder", advice="Give the folder that holds the model."
        )
    if len(kept) > MAX_FILES:
        found_text = f"a folder with {len(kept):,} files"
        raise NotAModel(
            name=folder.resolve().name, found=found_text, advice="Give the folder that holds just the model."
        )
    return kept


def _choose(folder: Path, candidates: list[_Candidate]) -> _Candidate:
    """The only candidate; a pickle counts only where nothing else is there."""
    name = folder.resolve().name
    meant = [item for item in candidates if not item.pickle] or candidates
    if len(meant) > 1:
        raise AmbiguousFormat(name=name, found=", ".join(item.label for item in meant[:4]))
    if not meant:
        raise NotAModel(
            name=name, found="a folder without a model in it", advice="Give a model file, or the folder of one."
        )
    return meant[0]


def _candidates(files: Sequence[Path]) -> Iterable[_Candidate]:
    """Folders that are one model, then what the other files are, each by itself or in a pair."""
    roots = [path.parent for path in files if path.name in GRAPHS]
    roots += [
        path.parent for path in files if path.name == "config.json" and (path.parent / "model.weights.h5") in files
    ]
    for root in dict.fromkeys(roots):
        yield _folder_candidate(root, files)
    rest = [path for path in files if not any(_belongs(path, root) for root in roots)]
    if len(rest) == 1 and not roots:
        yield _Candidate(rest[0].name, ((rest[0].name, rest[0]),), whole=True)
    else:
        loose = [path for path in rest if path.name.lower().endswith(MODEL_SUFFIXES)]
        yield from _loose_candidates(loose, alone=not roots)


def _belongs(path: Path, root: Path) -> bool:
    """Is this file a part of the SavedModel or the unpacked Keras folder at ``root``?"""
    if not path.is_relative_to(root):
        return False
    parts = path.relative_to(root).parts
    return parts[0] in (*GRAPH_FOLDERS, *GRAPH_FILES, *KERAS_FILES)


def _folder_candidate(root: Path, files: Sequence[Path]) -> _Candidate:
    parts = tuple((path.relative_to(root).as_posix(), path) for path in files if _belongs(path, root))
    return _Candidate(next(path.name for _, path in parts if path.name in (*GRAPHS, "config.json")), parts)


def _loose_candidates(files: Sequence[Path], alone: bool) -> Iterable[_Candidate]:
    samples = {path: take_sample(path, path.name) for path in files}
    matched = {path: formats.matches(sample) for path, sample in samples.items()}
    for path, found in matched.items():
        if found:
            yield _Candidate(path.name, ((path.name, path),), whole=True, pickle=found[0].slug == "pickle")
    loose = {path: sample for path, sample in samples.items() if not matched[path]}
    yield from _pairs(loose, alone and not any(matched.values()))


def _pairs(samples: dict[Path, Sample], alone: bool) -> Iterable[_Candidate]:
    """An architecture and its weights. Half of one is worth an error only where it is ``alone``."""
    architectures = [path for path, sample in samples.items() if sample.container == "file" and is_architecture(sample)]
    weights = [path for path, sample in samples.items() if weights_in(sample) and not _is_recording(sample)]
    if len(architectures) == 1 and len(weights) == 1:
        inside = "weights.npz" if weights[0].suffix == ".npz" else "model.weights.h5"
        parts = (("architecture.json", architectures[0]), (inside, weights[0]))
        yield _Candidate(f"{architectures[0].name} with {weights[0].name}", parts)
    elif architectures and weights:
        names = [path.name for path in (*architectures, *weights)]
        raise AmbiguousFormat(name=architectures[0].parent.name, found=", ".join(names[:4]))
    elif alone and len(samples) == 1:
        yield from (_Candidate(path.name, ((path.name, path),), whole=True) for path in samples)
    elif alone and architectures:
        raise _half(architectures[0], "an architecture in JSON", "the file with its weights")
    elif alone and weights:
        raise _half(weights[0], "weights", "the architecture (.json)")


def _half(path: Path, found: str, missing: str) -> IncompleteModel:
    return IncompleteModel(
        name=path.parent.resolve().name, found=f"{found} ({path.name})", missing=missing, advice=BOTH
    )


def _is_recording(sample: Sample) -> bool:
    """Are these recorded inputs and outputs, and no weights?"""
    return any(member.name.startswith(RECORDED) for member in sample.members)
