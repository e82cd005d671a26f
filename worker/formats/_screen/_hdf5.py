"""HDF5 files, walked without reading any numbers: nothing elsewhere, no code of others, no more than the bytes hold.

https://support.hdfgroup.org/documentation/hdf5/latest/_f_m_t3.html. The structure alone is walked, so
that the size of a file does not matter; only packed blocks are looked into, for HDF5 unpacks those without any bound.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterator
from typing import Any

from worker.errors import CorruptFile
from worker.formats import _strict_json, _tensors
from worker.formats._regions import Region
from worker.formats._screen import _keras, _said
from worker.report import Finding

MOST_OBJECTS = 200_000
DEEPEST = 200  # groups in each other
MOST_ATTRIBUTES = 10_000  # of one object
FREE = 64 * 1024 * 1024  # bytes that a file may grow to whatever it holds
RATIO = 1000  # how much longer unpacked numbers may be: zeros shrink to a thousandth
KNOWN_FILTERS = {1: "gzip", 2: "shuffle", 3: "fletcher32", 4: "szip", 5: "nbit", 6: "scaleoffset", 32000: "lzf"}
GZIP = 1
SMALL = 32 * 1024  # bytes of a packed block that cannot become more than 32 MiB
DESCRIPTIONS = ("model_config", "training_config")
EXPECTED = "groups and arrays of numbers or texts that lie in the file itself"
LESS = "Take it out before saving, and upload that file."


def screen(region: Region, place: str, stored: int) -> Iterator[Finding]:
    """What a file holds that no model needs."""
    try:
        with _tensors.opened(region) as file:
            yield from _Walk(place, region.size, stored).of(file)
    except (OSError, RuntimeError, KeyError, ValueError, TypeError, UnicodeDecodeError) as error:
        said = " ".join(str(error).split())[:120]
        raise CorruptFile(name=place, problem=f"HDF5 cannot follow it ({said})") from error


class _Walk:
    """One walk over a file. ``grown`` counts the bytes that its arrays would have in memory."""

    def __init__(self, place: str, size: int, stored: int) -> None:
        self.place, self.size, self.stored = place, size, stored
        self.grown = 0

    def of(self, file: Any) -> Iterator[Finding]:
        import h5py

        pending, seen = [("", file, 0)], set()
        while pending:
            name, item, depth = pending.pop()
            address = h5py.h5o.get_info(item.id).addr
            if address in seen:  # a group may lie in itself
                continue
            seen.add(address)
            yield from self._attributes(name, item)
            if isinstance(item, h5py.Group):
                yield from self._links(name, item)
                inside = self._inside(name, item)
                pending.extend((f"{name}/{key}", found, depth + 1) for key, found in inside)
            elif isinstance(item, h5py.Dataset):
                yield from self._dataset(name, item)
            if depth > DEEPEST or len(seen) + len(pending) > MOST_OBJECTS:
                yield self._refuse("has groups without end", f"at most {DEEPEST} groups in each other")
                return
        if self.grown > FREE and self.grown > RATIO * self.size:
            found = f"declares {self.grown:,} bytes in all its arrays, and has {self.size:,}"
            yield self._refuse(found, "arrays whose numbers are in the file")

    def _inside(self, name: str, group: Any) -> Iterator[tuple[str, Any]]:
        import h5py

        for key in group:
            if isinstance(group.get(key, getlink=True), h5py.HardLink):
                yield key, group[key]

    def _links(self, name: str, group: Any) -> Iterator[Finding]:
        import h5py

        for key in group:
            link = group.get(key, getlink=True)
            if isinstance(link, h5py.ExternalLink):
                to = _said.short(link.filename)
                yield self._refuse(f"has a link at {_said.short(f'{name}/{key}')} into another file ({to})")
            elif not isinstance(link, h5py.HardLink):
                to = _said.short(getattr(link, "path", "?"))
                yield self._refuse(f"has a link at {_said.short(f'{name}/{key}')} to another place ({to})")

    # Arrays --------------------------------------------------------------------------------------------------------

    def _dataset(self, name: str, item: Any) -> Iterator[Finding]:
        where = _said.short(name)
        settings = item.id.get_create_plist()
        if item.external or item.is_virtual:
            yield self._refuse(f"keeps the data of {where} in other files")
        if problem := _kind_problem(item.id.get_type(), item.dtype):
            yield self._refuse(f"holds {problem} at {where}")
        packers = _filters(settings)
        if unknown := [code for code in packers if code not in KNOWN_FILTERS]:
            yield self._refuse(
                f"packs {where} with a filter (number {unknown[0]}) that is a plugin of HDF5",
                f"{', '.join(sorted(KNOWN_FILTERS.values()))}, or nothing",
                "Save it with gzip or without packing, and upload that file.",
            )
            return
        if packers.count(GZIP) > 1:
            yield self._refuse(f"packs {where} with gzip inside of gzip", "numbers that are packed once")
        declared, held = int(item.size or 0) * item.dtype.itemsize, item.id.get_storage_size()
        self.grown += declared
        if declared > FREE and declared > RATIO * held:
            found = f"declares {declared:,} bytes at {where}, and holds {held:,} of them"
            yield self._refuse(found, "arrays whose numbers are in the file")
        elif packers.count(GZIP) == 1:
            yield from self._blocks(where, item)

    def _blocks(self, where: str, item: Any) -> Iterator[Finding]:
        """HDF5 unpacks a block as far as it goes, whatever size the file declares for it."""
        most = item.dtype.itemsize
        for edge in item.chunks:
            most *= edge
        large: list[tuple[int, ...]] = []
        item.id.chunk_iter(lambda block: large.append(block.chunk_offset) if block.size > SMALL else None)
        for place in large:
            if _unpacks_beyond(item.id.read_direct_chunk(place)[1], most):
                yield self._refuse(
                    f"has a packed block in {where} that is longer than the {most:,} bytes it declares",
                    "blocks as long as they say",
                )
                return

    # Attributes ----------------------------------------------------------------------------------------------------

    def _attributes(self, name: str, item: Any) -> Iterator[Finding]:
        import h5py

        where = _said.short(name or "/")
        if h5py.h5a.get_num_attrs(item.id) > MOST_ATTRIBUTES:
            count = h5py.h5a.get_num_attrs(item.id)
            yield self._refuse(f"has {count:,} attributes at {where}", f"at most {MOST_ATTRIBUTES:,}")
            return
        for key in item.attrs:
            found = item.attrs.get_id(key)
            if problem := _kind_problem(found.get_type(), found.dtype):
                yield self._refuse(f"has an attribute {_said.short(key)} of {problem} at {where}")
            elif math.prod(found.shape) * found.dtype.itemsize > self.size:
                yield self._refuse(f"declares an attribute {_said.short(key)} longer than the file")
            elif key in DESCRIPTIONS and not name:
                yield from self._description(key, item.attrs[key])

    def _description(self, key: str, text: Any) -> Iterator[Finding]:
        try:
            value = _strict_json.parsed(text if isinstance(text, (str, bytes)) else str(text))
        except _strict_json.Bad as bad:
            yield self._refuse(f"has a {key} that {bad}", _strict_json.EXPECTED, _said.AGAIN)
            return
        described = _keras.Described(self.place, self.stored)
        yield from (_keras.screen if key == DESCRIPTIONS[0] else _keras.training)(value, described)

    def _refuse(self, found: str, expected: str = EXPECTED, advice: str = LESS) -> Finding:
        return _said.refuse(self.place, found, expected, advice)


def _filters(settings: Any) -> list[int]:
    return [settings.get_filter(number)[0] for number in range(settings.get_nfilters())]


def _kind_problem(kind: Any, dtype: Any) -> str:
    """What a type holds besides numbers and texts; "" where it holds those alone."""
    import h5py

    if isinstance(kind, h5py.h5t.TypeVlenID):
        return "rows of any length (objects)"
    if isinstance(kind, h5py.h5t.TypeReferenceID):
        return "references to other places (objects)"
    if isinstance(kind, h5py.h5t.TypeArrayID):
        return _kind_problem(kind.get_super(), dtype)
    if isinstance(kind, h5py.h5t.TypeCompoundID):
        members = (kind.get_member_type(number) for number in range(kind.get_nmembers()))
        return next(filter(None, (_kind_problem(member, dtype) for member in members)), "")
    return ""


def _unpacks_beyond(packed: bytes, most: int) -> bool:
    """Does the stream go on behind so many bytes? Never more than that is kept."""
    decoder, count, pending = zlib.decompressobj(), 0, packed
    try:
        while pending and not decoder.eof:
            count += len(decoder.decompress(pending, 1024 * 1024))
            pending = decoder.unconsumed_tail
            if count > most + 4:  # a checksum may follow
                return True
    except zlib.error:
        return False  # HDF5 says what is wrong with it
    return False
