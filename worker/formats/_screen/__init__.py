"""Intake without execution: one walk through a file and whatever lies in it, with static readers alone.

Nothing is run, built or unpickled. What is found are Findings: *refuse*, *needs consent*, or a note.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import count, takewhile
from pathlib import Path, PurePosixPath
from typing import IO

from worker import archive
from worker.errors import LarderError, UnsafeContent
from worker.formats import _graphs as graph_files
from worker.formats import (
    _onnx_file,
    _pickles,
    _pickles_models,
    _safetensors,
    _saved_model,
    _strict_json,
    _tensors,
    _tfjs,
)
from worker.formats._architecture import YAML_SUFFIXES, parse
from worker.formats._dangers import WHY, severity_of
from worker.formats._regions import Region, members_of
from worker.formats._screen import _graphs, _hdf5, _keras, _onnx, _said, _tflite, _xml
from worker.report import Finding, Severity

HDF5, NPY, TFLITE = b"\x89HDF\r\n\x1a\n", b"\x93NUMPY", b"TFL3"
DESCRIPTIONS = ("config.json", "model.json", "architecture.json", "model_config.json")  # whatever they begin with
TELLING = (b'class_name"', b'class_name\\"', b'"modelTopology"')
ESCAPED = b"\\u00"  # as which any of those can be written
PICKLES = (".pkl", ".pickle", ".joblib", ".dill", ".cloudpickle", ".p")
# What is read from a file of its own, however large it is
AS_FILES = (*_saved_model.GRAPHS, _saved_model.KERAS_METADATA, ".index", _onnx_file.SUFFIX, *PICKLES)
DEEPEST = 4  # archives in each other
GROWTH, FREE = 200, 256 * 1024 * 1024  # how much all archives together may unpack to: times the file, and anyway
BESIDE = "arrays of numbers and texts; no program that runs when it is opened"


def screen(path: Path, slug: str, scratch: Path, name: str = "") -> list[Finding]:
    """What is to be said about a file of this format before anything opens it; refusals first.

    ``name`` is what messages call it. Raises CorruptFile, ArchiveBomb, PathTraversal or UnsafeContent where it cannot
    even be walked through.
    """
    walk = _Walk(scratch, path.stat().st_size)
    found = _said.few(walk.of(Region.whole(path, name or path.name), slug))
    return sorted(found, key=lambda item: item.severity is not Severity.REFUSE)


@dataclass
class _Walk:
    """One walk. ``scratch`` is shared with those who read the file afterwards, ``size`` is the file's, ``grown`` what
    the archives in it hold."""

    scratch: Path
    size: int
    grown: int = 0
    archives: int = 0
    stored: int = field(init=False)  # bytes that could be weights: all of them

    def __post_init__(self) -> None:
        self.stored = self.size

    def of(self, region: Region, slug: str = "", depth: int = 0) -> Iterator[Finding]:
        """One file: an archive, or what its bytes say it is."""
        if region.is_whole and archive.container_of(region.path) != "file" and slug != "pickle":
            yield from self._archive(region, depth)
            return
        place = PurePosixPath(region.name).name
        reader = self._reader(region, slug)
        if reader:
            yield from reader(region, place)
        if _has_hdf5_behind(region):
            yield from self._hdf5(region, place)

    def _archive(self, region: Region, depth: int) -> Iterator[Finding]:
        place = PurePosixPath(region.name).name
        if depth >= DEEPEST:
            yield _said.refuse(
                place, f"lies in {depth} archives in each other", f"at most {DEEPEST}", "Unpack it first."
            )
            return
        self.grown += sum(member.size for member in archive.members(region.path, place))
        self.stored = max(self.stored, self.grown)
        if self.grown > max(FREE, GROWTH * self.size):
            found = f"unpacks to more than {GROWTH} times the whole file, together with the archives around it"
            yield _said.refuse(place, found, "archives of a model's files", "Unpack it first.")
            return
        self.archives += 1
        # The file itself is unpacked where its readers look for it, and not once more for them
        folder = self.scratch / "screen" / str(self.archives) if depth else self.scratch
        members = [_with_its_own_file(member, folder) for member in members_of(region.path, folder)]
        yield from self._members(members)
        for member in members:
            yield from self.of(member, depth=depth + 1)

    def _members(self, members: list[Region]) -> Iterator[Finding]:
        """What several files of an archive make up together."""
        by_name = {member.name: member for member in members}
        for member in members:
            path = PurePosixPath(member.name)
            if path.name in _saved_model.GRAPHS and member.is_whole:
                shards = _shards(members, path.parent / "variables" / "variables")
                yield from _graphs.saved_model(member.path.parent, path.name, self.stored, shards)
            elif path.suffix == ".index" and member.is_whole and path.parent.name != "variables":
                shards = _shards(members, path.with_suffix(""))
                yield from _graphs.checkpoint(member.path.with_suffix(""), path.name, shards)
            elif path.suffix == ".xml" and (weights := by_name.get(str(path.with_suffix(".bin")))):
                yield from _xml.screen(member, weights.size, path.name)

    # Single files --------------------------------------------------------------------------------------------------

    def _reader(self, region: Region, slug: str) -> Callable[[Region, str], Iterator[Finding]] | None:
        head, name = region.head(64), region.name.lower()
        kinds: tuple[tuple[bool, Callable[[Region, str], Iterator[Finding]]], ...] = (
            (head.startswith(HDF5), self._hdf5),
            (head.startswith(NPY), self._npy),
            (head[4:8] == TFLITE, self._tflite),
            (name.endswith(".safetensors"), self._safetensors),
            (name.endswith(YAML_SUFFIXES), self._yaml),
            (slug == "frozen_graph", self._frozen),
            (slug == "pickle" or name.endswith(PICKLES) or _is_pickle(head), self._pickle),
            (_is_json(head) or PurePosixPath(name).name in DESCRIPTIONS, self._json),
            (slug == "onnx" or name.endswith(_onnx_file.SUFFIX), self._onnx),
        )
        return next((reader for fits, reader in kinds if fits), None)

    def _hdf5(self, region: Region, place: str) -> Iterator[Finding]:
        yield from _hdf5.screen(region, place, self.stored)

    def _npy(self, region: Region, place: str) -> Iterator[Finding]:
        with region.open() as file:
            objects = _tensors.check_npy(file, region.size, place)
        yield from self._pickle(region, place) if objects else ()

    def _tflite(self, region: Region, place: str) -> Iterator[Finding]:
        with region.open() as file:
            yield from _tflite.screen(file.read(), place)

    def _safetensors(self, region: Region, place: str) -> Iterator[Finding]:
        _safetensors.read(region)
        yield from ()

    def _frozen(self, region: Region, place: str) -> Iterator[Finding]:
        if graph_files.read(region.path).node:
            yield from _graphs.frozen(region.path, place)

    def _onnx(self, region: Region, place: str) -> Iterator[Finding]:
        if region.is_whole:
            yield from _onnx.screen(region.path, place)

    def _yaml(self, region: Region, place: str) -> Iterator[Finding]:
        text = region.head(_strict_json.LONGEST)
        if b"class_name" in text:
            yield from _keras.screen(parse(text, region.name).root, _keras.Described(place, self.stored))

    def _json(self, region: Region, place: str) -> Iterator[Finding]:
        """Of all JSON, descriptions of models are what somebody reads."""
        text = region.head(_strict_json.LONGEST + 1)
        known = place in DESCRIPTIONS or any(word in text for word in TELLING)
        if not known and ESCAPED not in text:
            return
        try:
            value = _strict_json.parsed(text)
        except _strict_json.Bad as bad:
            yield from [_said.refuse(place, str(bad), _strict_json.EXPECTED)] if known else []
            return
        described = _keras.Described(place, self.stored)
        if isinstance(value, dict) and "weightsManifest" in value and region.is_whole:
            yield from self._manifest(region, place)
            topology = value.get("modelTopology")
            value = topology.get("model_config", topology) if isinstance(topology, dict) else None
        yield from _keras.screen(value, described)

    def _manifest(self, region: Region, place: str) -> Iterator[Finding]:
        """The shards of a TensorFlow.js model: inside of it, each once, and as long as the weights that they hold."""
        try:
            _tfjs.check(region.path)
        except UnsafeContent as error:
            yield _said.refuse(place, str(error.details["reason"]), "shards beside model.json, as long as the weights")

    def _pickle(self, region: Region, place: str) -> Iterator[Finding]:
        """A pickle is read by its opcodes. What it calls is told by its own format where it is all there is; beside a
        model, it is a program that nobody asked for. A model inside of it is looked at as if it stood alone."""
        if not region.is_whole:
            return
        if self.archives:
            yield from self._calls(region.path, place)
        else:
            yield from self._inside_of_pickle(region.path, place)

    def _calls(self, path: Path, place: str) -> Iterator[Finding]:
        for name in _pickles.read(path, self.scratch / "screen" / "pickles").imports:
            if severity_of(name) is Severity.DANGER:
                said = f"is a pickle that calls {_said.short(name)}: {WHY[Severity.DANGER]}"
                yield _said.refuse(place, said, BESIDE, "Take it out of the archive, and upload that.")

    def _inside_of_pickle(self, path: Path, place: str) -> Iterator[Finding]:
        for found in _pickles_models.models(path, self.scratch):
            if found.path:
                yield from self.of(Region.whole(found.path, place), found.slug, depth=1)
            else:
                with suppress(LarderError):  # which its format tells
                    root = found.stored(self.scratch).architecture.root
                    yield from _keras.screen(root, _keras.Described(place, self.stored))


def _shards(members: list[Region], prefix: PurePosixPath) -> list[int]:
    """The sizes of the files with a checkpoint's numbers, which may lie in the archive and nowhere else."""
    return [member.size for member in members if member.name.startswith(f"{prefix}.data-")]


def _with_its_own_file(member: Region, folder: Path) -> Region:
    """The same, unpacked beside the small members where its reader needs a file; what holds weights stays in place."""
    head = member.head(4)
    needed = member.name.lower().endswith(AS_FILES) or _is_pickle(head) or _is_zip(member.name, head)
    if member.is_whole or not needed:
        return member
    target = folder / f"{member.path.name}.small" / member.name
    target.parent.mkdir(parents=True, exist_ok=True)
    with target.open("xb") as file:
        file.writelines(member.blocks())
    return Region.whole(target, member.name)


def _is_zip(name: str, head: bytes) -> bool:
    """Arrays of NumPy are read in place, and never as anything else."""
    return head in archive.ZIP_MAGIC and not name.endswith(".npz")


def _is_json(head: bytes) -> bool:
    return head.lstrip(b"\xef\xbb\xbf \t\r\n").startswith((b"{", b"[", b'"{'))


def _has_hdf5_behind(region: Region) -> bool:
    """HDF5 is also found behind a block of anything, of 512 bytes or twice, four times … as many."""
    places = takewhile(lambda place: place < region.size, (512 << power for power in count()))
    with region.open() as file:
        return any(_at(file, place, len(HDF5)) == HDF5 for place in places)


def _at(file: IO[bytes], place: int, size: int) -> bytes:
    file.seek(place)
    return file.read(size)


def _is_pickle(head: bytes) -> bool:
    return head[:1] == b"\x80" and head[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05")
