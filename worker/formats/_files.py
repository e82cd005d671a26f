"""Finding the files of a model inside an archive that somebody packed their own way."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path, PurePath

from worker import archive
from worker.errors import AmbiguousFormat, IncompleteModel


def unpacked(path: Path, scratch: Path) -> Path:
    """The archive's files in a folder of the scratch space, unpacked once."""
    folder = scratch / f"{path.name}.files"
    if not folder.exists():
        folder.mkdir(parents=True)
        archive.unpack(path, folder)
    return folder


def named(path: Path, scratch: Path, suffix: str) -> Path:
    """The file under a name that a library accepts: itself, or else a copy, because a job may not make links."""
    if path.name.endswith(suffix):
        return path
    target = scratch / f"own{suffix}"
    if not target.exists():
        scratch.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
    return target


def files_below(folder: Path, wanted: Callable[[str], bool]) -> list[Path]:
    """Files by their name, outer ones first; what macOS and editors add does not count."""
    found = [
        item
        for item in folder.rglob("*")
        if item.is_file() and wanted(item.name) and not is_junk(item.relative_to(folder))
    ]
    return sorted(found, key=lambda item: (len(item.parts), str(item)))


def is_junk(inside: PurePath) -> bool:
    """Did macOS put this file, by its path inside an archive, beside the others?"""
    return "__MACOSX" in inside.parts or inside.name.startswith("._")


def the_only(found: list[Path], folder: Path, name: str, what: str) -> Path:
    """The one file, or a sentence that says how many there are instead."""
    require_one([str(item.relative_to(folder)) for item in found], name, what)
    return found[0]


def require_one(found: Sequence[str], name: str, what: str) -> None:
    """IncompleteModel where nothing was found in the archive, AmbiguousFormat with the names where several were."""
    if not found:
        advice = "Pack all files of one model into one archive."
        raise IncompleteModel(name=name, found="an archive", missing=what, advice=advice)
    if len(found) > 1:
        raise AmbiguousFormat(name=name, found=" and ".join(found[:3]))
