"""One model as people have it on disk: a file, or a folder whose files belong together, made into one file.

A folder may hold more than the model (recorded inputs and outputs, notes, code); it is taken where only one model can
be meant, and refused with the candidates' names where several could.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from worker import archive, candidates, formats
from worker.candidates import Candidate, Tree
from worker.errors import IncompleteModel, NotAModel, UnreadablePath
from worker.foreign import name_foreign
from worker.formats._format import Sample
from worker.halves import is_npz
from worker.intake import ARCHIVE_SUFFIXES, take_sample
from worker.report import Finding, Severity, declare

CODE = "custom_objects.py"
MAX_FILES = 10_000
MAX_NAMES = 8  # of files that were left out, in the sentence about them
MAX_NESTED = 4  # archives inside the folder or archive that are opened
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
    code_name: str = ""  # the code's path in the folder

    @property
    def findings(self) -> tuple[Finding, ...]:
        """What is to be said about the choice of the files."""
        if not self.left_out:
            return ()
        more = len(self.left_out) - MAX_NAMES
        names = ", ".join(self.left_out[:MAX_NAMES]) + (f" and {more} more" if more > 0 else "")
        return (LEFT_OUT(names=names),)


def gather(given: Path, scratch: Path, name: str = "") -> Bundle:
    """The model that a path names, which may be a file, a folder or an archive of either.

    The files of a model are packed into an archive in ``scratch``. ``name`` is what messages call it.
    """
    name = name or given.resolve().name
    if given.is_dir():
        return _chosen(_listed(given, name), scratch, name)
    if not given.is_file():
        reason = "it is not a plain file" if given.exists() else "there is no such file or folder"
        raise UnreadablePath(name=name or str(given), reason=reason)
    if not os.access(given, os.R_OK):
        raise UnreadablePath(name=name, reason="this user may not read it")
    if archive.container_of(given) != "file":
        return _of_archive(given, scratch, name)
    _refuse_lonely_graph(given, name)
    return Bundle(given, name)


def _refuse_lonely_graph(path: Path, name: str) -> None:
    """An ONNX graph that keeps its weights in files beside it is half a model."""
    if name.lower().endswith(".onnx") and (beside := candidates.external_files(path)):
        found, missing = "an ONNX graph", ", ".join(beside[:3])
        raise IncompleteModel(name=name, found=found, missing=missing, advice=candidates.TOGETHER)


def _of_archive(path: Path, scratch: Path, name: str) -> Bundle:
    """The archive itself where it is one model and nothing else, or else the model among the files inside."""
    sample = take_sample(path, name)
    if _is_one_thing(sample):
        return _with_code(Bundle(path, name), sample, scratch)
    folder = scratch / "opened"
    archive.unpack(path, folder, name)
    tree = _tree(folder)
    opened = _opened(tree, scratch)
    found = candidates.choose(candidates.find(opened), name)
    if found is None or (tree == opened and _covers(found, tree) and len(formats.matches(sample)) == 1):
        return _with_code(Bundle(path, name), sample, scratch)
    return _packed(found, opened, scratch, name)


def _with_code(bundle: Bundle, sample: Sample, scratch: Path) -> Bundle:
    """The same with the code that lies in the archive, beside the model or in its folder."""
    code_name = next((member.name for member in sample.members if _is_code(PurePosixPath(member.name))), "")
    if not code_name:
        return bundle
    for entry in archive.entries(bundle.path, bundle.name):
        if entry.member.name == code_name:
            with entry.open() as file, (scratch / CODE).open("wb") as target:
                shutil.copyfileobj(file, target)
    return replace(bundle, code=scratch / CODE, code_name=code_name)


def _is_code(name: PurePosixPath) -> bool:
    return name.name == CODE and len(name.parts) <= 2


def _is_one_thing(sample: Sample) -> bool:
    """Can this be told without unpacking it? An array archive, a whole SavedModel or Keras folder, no model at all."""
    if is_npz(sample):
        return True
    names = [PurePosixPath(member.name) for member in sample.members]
    roots = [name.parent for name in names if name.name in (*candidates.GRAPHS, "config.json")]
    parts = [name for name in names if candidates.looks_like_a_part(name)]
    matched = [item.slug for item in formats.matches(sample)]
    if matched in (["saved_model"], ["keras"]):
        few = len(roots) <= candidates.MOST_FOLDERS
        return few and all(any(candidates.belongs(name, root) for root in roots) for name in parts)
    return not matched and (name_foreign(sample) is not None or not sample.members)


def _covers(found: Candidate, tree: Tree) -> bool:
    """Is nothing in the tree a model or a part of one, but what was chosen, and that in the folders it belongs to?"""
    taken = {path: inside for inside, path in found.files}
    others = [name for name, path in tree.items() if path not in taken and candidates.looks_like_a_part(name)]
    moved = [name for name, path in tree.items() if "/" in taken.get(path, "") and not str(name).endswith(taken[path])]
    return not (found.whole or others or moved)


def _chosen(tree: Tree, scratch: Path, name: str) -> Bundle:
    """The one model of a folder."""
    opened = _opened(tree, scratch)
    found = candidates.choose(candidates.find(opened), name) or _only_file(opened)
    if found is None:
        advice = "Give a model file, or the folder of one."
        raise NotAModel(name=name, found="a folder without a model in it", advice=advice)
    return _packed(found, opened, scratch, name)


def _only_file(tree: Tree) -> Candidate | None:
    """The one file that could be a model by its name, so that recognising says what it is instead."""
    parts = [name for name in tree if candidates.looks_like_a_part(name)] or list(tree)
    return Candidate(parts[0].name, ((parts[0].name, tree[parts[0]]),), whole=True) if len(parts) == 1 else None


def _packed(found: Candidate, tree: Tree, scratch: Path, name: str) -> Bundle:
    code_name = next(filter(_is_code, tree), PurePosixPath())
    code = tree.get(code_name)
    taken = {path for _, path in found.files} | {code}
    left_out = tuple(str(place) for place, path in tree.items() if path not in taken)
    if found.whole:
        (inside, path), *_ = found.files
        return Bundle(path, inside, code, left_out=left_out, code_name=str(code_name))
    target = scratch / "bundle.zip"
    archive.pack_files(found.files, target)
    return Bundle(target, name, code, packed=True, left_out=left_out, code_name=str(code_name))


# The files ------------------------------------------------------------------------------------------------------


def _listed(folder: Path, name: str) -> Tree:
    """The files of a folder, if there are any, and not too many."""
    tree = _tree(folder)
    if not tree:
        raise NotAModel(name=name, found="an empty folder", advice="Give the folder that holds the model.")
    if len(tree) > MAX_FILES:
        found = f"a folder with {len(tree):,} files"
        raise NotAModel(name=name, found=found, advice="Give the folder that holds just the model.")
    return tree


def _tree(folder: Path) -> Tree:
    """The files that nobody's desktop put there; also links to files, of which whole caches consist."""
    found = {PurePosixPath(path.relative_to(folder).as_posix()): path for path in sorted(folder.rglob("*"))}
    return {name: path for name, path in found.items() if path.is_file() and not _is_hidden(name)}


def _is_hidden(name: PurePosixPath) -> bool:
    return any(part.startswith((".", "__")) for part in name.parts)


def _opened(tree: Tree, scratch: Path) -> Tree:
    """The tree with the files of the archives in it that are no model by themselves, such as a zipped checkpoint."""
    nested = [name for name, path in tree.items() if _is_plain_archive(name, path)]
    if not nested or len(nested) > MAX_NESTED:
        return tree
    opened = dict(tree)
    for number, name in enumerate(nested):
        folder = scratch / f"nested-{number}"
        archive.unpack(opened.pop(name), folder, name.name)
        opened |= {name / inside: path for inside, path in _tree(folder).items()}
    return opened


def _is_plain_archive(name: PurePosixPath, path: Path) -> bool:
    if not name.name.lower().endswith(ARCHIVE_SUFFIXES) or archive.container_of(path) == "file":
        return False
    sample = take_sample(path, name.name)
    return not is_npz(sample) and not formats.matches(sample) and name_foreign(sample) is None
