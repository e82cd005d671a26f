"""What did somebody send? Decided from bytes and names alone: nothing is parsed by a library, run, or unpacked to disk.

The web process does this, so only the standard library is used, memory is constant and every read is bounded.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import IO

from worker import formats
from worker.archive import Entry, container_of, entries, reading
from worker.errors import (
    AmbiguousFormat,
    CorruptFile,
    EmptyFile,
    IncompleteModel,
    LarderError,
    NotAModel,
    UnknownFormat,
)
from worker.foreign import lfs_pointer, name_foreign
from worker.formats._format import HDF5_MARKERS, JSON_MARKERS, Format, Member, Sample
from worker.halves import SHARD, missing_half
from worker.report import Finding, Severity, declare
from worker.visible import one_line, shortened

MIB = 1024 * 1024
HEAD = 64 * 1024
SCAN_HEAD = 64 * MIB  # Keras writes the architecture before the weights, so the markers stand near the start
SCAN_TAIL = 16 * MIB
HDF5_MAGIC = b"\x89HDF\r\n\x1a\n"
TEXTS = 16 * MIB  # of all texts together: an archive may hold ten thousand
LONGEST_NAME = 80  # characters of a name in an archive, where it is said
POINTER_SIZE = 1024  # a Git-LFS pointer is never larger
# Graphs with variables of TensorFlow 2, of TensorFlow 1, and the object graph that a TensorFlow 2 SavedModel restores
VARIABLE_MARKERS = (b"VarHandleOp", b"VariableV2", b"_CHECKPOINTABLE_OBJECT_GRAPH")
ARCHIVE_SUFFIXES = (".zip", ".tar", ".tgz", ".tar.gz", ".tar.bz2", ".tar.xz")
TELLING = re.compile(
    r"(\.json|\.ya?ml|\.npz|\.npy|\.h5|\.safetensors|\.index|\.meta|\.onnx|\.xml|saved_model\.pb(txt)?|keras_metadata\.pb)$"
)
YAML_KEYS = (re.compile(rb"^class_name:\s*\S", re.MULTILINE), re.compile(rb"^config:", re.MULTILINE))

suffix_misleads = declare(
    "suffix-misleads",
    Severity.NOTE,
    "The name ends in {suffix}, but the content is {label}. Other programs look for it under a name in {right}.",
)


# The sample -----------------------------------------------------------------------------------------------------


def take_sample(path: Path, name: str) -> Sample:
    """The Sample of a file; an archive can raise CorruptFile, ArchiveBomb, PathTraversal or UnsafeContent."""
    gathered = _Gathered(name)
    if container_of(path) == "file":
        return gathered.sample_file(path)
    return gathered.sample_archive(path)


@dataclass
class _Gathered:
    """What one pass over the bytes has shown so far."""

    name: str
    texts: dict[str, str] = field(default_factory=dict)
    json_keys: dict[str, frozenset[str]] = field(default_factory=dict)
    hdf5: dict[str, frozenset[str]] = field(default_factory=dict)
    with_variables: set[str] = field(default_factory=set)
    room_for_text: int = TEXTS

    def sample_file(self, path: Path) -> Sample:
        size = path.stat().st_size
        with path.open("rb") as file:
            head = file.read(HEAD)
            self._note_text(self.name, head, size)
            if head.startswith(HDF5_MAGIC):
                self.hdf5[""] = _markers(_windows(file, size), HDF5_MARKERS)
            elif _is_json(head):
                self._note_keys(self.name, _windows(file, size))
        return Sample(self.name, size, head, texts=self.texts, json_keys=self.json_keys, hdf5=self.hdf5)

    def sample_archive(self, path: Path) -> Sample:
        with path.open("rb") as file:
            head = file.read(HEAD)
        members = []
        for entry in entries(path, self.name):
            members.append(entry.member)
            with reading(self.name):
                self._note_entry(entry)
        return Sample(
            name=self.name,
            size=path.stat().st_size,
            head=head,
            container=container_of(path),
            members=tuple(members),
            texts=self.texts,
            json_keys=self.json_keys,
            hdf5=self.hdf5,
            with_variables=frozenset(self.with_variables),
        )

    def _note_entry(self, entry: Entry) -> None:
        member = entry.member
        with entry.open() as file:
            head = file.read(HEAD)
            self._note_text(member.name, head, member.size)
            if head.startswith(HDF5_MAGIC):
                self.hdf5[member.name] = _markers(_blocks(file, SCAN_HEAD, head), HDF5_MARKERS)
            elif _is_json(head):
                self._note_keys(member.name, _blocks(file, SCAN_HEAD, head))
            elif _base(member) in ("saved_model.pb", "saved_model.pbtxt") and _markers(
                _blocks(file, SCAN_HEAD, head), VARIABLE_MARKERS
            ):
                self.with_variables.add(member.name)

    def _note_text(self, name: str, head: bytes, size: int) -> None:
        telling = _is_json(head) or _is_yaml_architecture(head) or (size <= POINTER_SIZE and lfs_pointer(head))
        if telling and self.room_for_text >= len(head):
            self.room_for_text -= len(head)
            self.texts[name] = _unwrapped(head.decode("utf-8", "replace").lstrip("\ufeff"))

    def _note_keys(self, name: str, blocks: Iterator[bytes]) -> None:
        if name in self.texts:
            self.json_keys[name] = frozenset(key.strip('"') for key in _markers(blocks, JSON_MARKERS))


def _is_json(head: bytes) -> bool:
    return head.lstrip(b"\xef\xbb\xbf \t\r\n").startswith((b"{", b"[", b'"{'))


def _unwrapped(text: str) -> str:
    """What ``json.dump(model.to_json())`` wrote is a JSON text inside a JSON text; here, as if it stood alone."""
    return text.lstrip()[1:].replace('\\"', '"') if text.lstrip().startswith('"{') else text


def _is_yaml_architecture(head: bytes) -> bool:
    """What ``model.to_yaml()`` of Keras 1 and 2 wrote: a mapping with these two keys at its outermost level."""
    return all(key.search(head) for key in YAML_KEYS)


def _windows(file: IO[bytes], size: int) -> Iterator[bytes]:
    """The parts of a plain file in which the markers can stand."""
    file.seek(0)
    yield from _blocks(file, SCAN_HEAD)
    if size > SCAN_HEAD:
        file.seek(max(SCAN_HEAD, size - SCAN_TAIL))
        yield from _blocks(file, SCAN_TAIL)


def _blocks(file: IO[bytes], limit: int, start: bytes = b"") -> Iterator[bytes]:
    yield start
    limit -= len(start)
    while limit > 0 and (block := file.read(min(MIB, limit))):
        limit -= len(block)
        yield block


def _markers(blocks: Iterable[bytes], wanted: tuple[bytes, ...]) -> frozenset[str]:
    """Which of the strings occur, also across the edges of blocks."""
    overlap = max(map(len, wanted)) - 1
    found: set[bytes] = set()
    tail = b""
    for block in blocks:
        window = tail + block
        found |= {marker for marker in wanted if marker not in found and marker in window}
        tail = window[-overlap:]
    return frozenset(marker.decode() for marker in found)


# The answer -----------------------------------------------------------------------------------------------------


def recognise(sample: Sample) -> tuple[Format, str]:
    """The one Format of the sample, and what that was decided from; or the UploadError that says what it is instead."""
    _refuse_nothing(sample)
    _refuse_pointers(sample)
    found = formats.matches(sample)
    if len(found) > 1:
        raise AmbiguousFormat(name=sample.name, found=" or ".join(item.label for item in found))
    if not found:
        raise _refusal(sample)
    if found[0].slug == "saved_model":
        _check_saved_model(sample)
    return found[0], _evidence(sample)


def suffix_finding(sample: Sample, item: Format) -> Finding | None:
    """A note where the name promises something else than the bytes hold; an archive of a model's files is fine."""
    name = sample.name.lower()
    right = item.suffixes + (ARCHIVE_SUFFIXES if sample.container != "file" else ())
    suffix = PurePosixPath(name).suffix
    if not suffix or name.endswith(right):
        return None
    return suffix_misleads(suffix=suffix, label=item.label, right=item.suffixes[0])


def _refuse_nothing(sample: Sample) -> None:
    if sample.size == 0:
        raise EmptyFile(name=sample.name)
    if sample.container != "file" and not any(member.size for member in sample.members):
        problem = "every file in the archive has 0 bytes" if sample.members else "the archive holds no files"
        raise CorruptFile(name=sample.name, problem=problem)


def _refuse_pointers(sample: Sample) -> None:
    """A pointer in place of the file itself, or of one file of an archive."""
    for name, text in sample.texts.items():
        if pointer := lfs_pointer(text.encode()):
            inside = "" if sample.container == "file" else f"an archive in which {name} is "
            advice = "Run `git lfs pull` where you cloned the repository, and upload the file that it fetches."
            raise NotAModel(name=sample.name, found=inside + pointer, advice=advice)


def _refusal(sample: Sample) -> LarderError:
    """Why a sample that no format accepts is refused, as exactly as the bytes allow."""
    if incomplete := missing_half(sample):
        found, missing, advice = incomplete
        return IncompleteModel(name=sample.name, found=found, missing=missing, advice=advice)
    if foreign := name_foreign(sample):
        return NotAModel(name=sample.name, found=foreign.found, advice=foreign.advice)
    expected = ", ".join(item.label for item in formats.formats().values())
    if sample.container != "file":
        return NotAModel(name=sample.name, found=_listing(sample), advice=f"Expected the files of one of: {expected}.")
    return UnknownFormat(name=sample.name, found=_first_bytes(sample), expected=expected)


def _first_bytes(sample: Sample) -> str:
    return f"the bytes {sample.head[:8].hex(' ')}"


def _evidence(sample: Sample) -> str:
    """What the answer was decided from, as a noun phrase."""
    if sample.container != "file":
        return _listing(sample)
    if markers := sample.hdf5.get(""):
        return f"an HDF5 file with {_and(sorted(markers)[:3])}"
    return f"a file that starts with {_first_bytes(sample)}"


def _listing(sample: Sample) -> str:
    kind = {"zip": "a ZIP archive", "tar": "a tar archive"}[sample.container]
    telling = [member.name for member in sample.members if TELLING.search(member.name)]
    shown = telling[:3] or [member.name for member in sample.members[:3]]
    return f"{kind} with {_and([shortened(one_line(name), LONGEST_NAME) for name in shown])}"


def _and(words: list[str]) -> str:
    return " and ".join(filter(None, (", ".join(words[:-1]), words[-1]))) if words else "nothing"


def _base(member: Member) -> str:
    return PurePosixPath(member.name).name


# Whole SavedModels ----------------------------------------------------------------------------------------------


def _check_saved_model(sample: Sample) -> None:
    """One graph, and all files of its variables; a graph of constants alone needs none."""
    graphs = [member.name for member in sample.members if _base(member) in ("saved_model.pb", "saved_model.pbtxt")]
    if len(graphs) > 1:
        raise AmbiguousFormat(name=sample.name, found=_and(graphs[:4]))
    for graph in graphs:
        if missing := _missing_variables(sample, graph):
            advice = (
                "Pack the folder again with everything in it, saved_model.pb and variables/, and upload that archive."
            )
            raise IncompleteModel(name=sample.name, found=f"a SavedModel ({graph})", missing=missing, advice=advice)


def _missing_variables(sample: Sample, graph: str) -> str:
    prefix = graph[: -len(PurePosixPath(graph).name)] + "variables/variables."
    parts = [member.name for member in sample.members if member.name.startswith(prefix)]
    shards = [match for part in parts if (match := SHARD.search(part))]
    if not parts:
        return "its variables/ folder" if graph in sample.with_variables else ""
    if prefix + "index" not in parts:
        return "variables/variables.index"
    expected = int(shards[0][2]) if shards else 1
    return "" if len(shards) == expected else f"part of variables/ ({len(shards)} of {expected} data files are there)"
