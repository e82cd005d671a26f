"""Files where they lie: large members of an archive are read in place, not unpacked first.

A stored member of a ZIP is a run of bytes of the archive, so its arrays can be mapped into memory as they are. Mapped
bytes belong to the page cache, which the kernel takes back whenever it needs room.
"""

from __future__ import annotations

import io
import math
import struct
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path, PurePosixPath
from typing import IO, TYPE_CHECKING, Any

from worker import archive
from worker.errors import CorruptFile
from worker.formats._files import files_below, is_junk, require_one, unpacked

if TYPE_CHECKING:
    import numpy as np

MIB = 1024 * 1024
BLOCK = 8 * MIB
IN_PLACE = 16 * MIB  # smaller members are unpacked: every library can open those
MAPPED = MIB  # smaller arrays are read: a map for each would cost more


@dataclass(frozen=True)
class Region:
    """``size`` bytes of ``path`` from ``start`` on: a whole file, or a stored member of an archive. ``name``: in it."""

    path: Path
    start: int
    size: int
    name: str

    @classmethod
    def whole(cls, path: Path, name: str = "") -> Region:
        return cls(path, 0, path.stat().st_size, name or path.name)

    @classmethod
    def of(cls, source: Path | Region) -> Region:
        return cls.whole(source) if isinstance(source, Path) else source

    @property
    def is_whole(self) -> bool:
        return self.start == 0 and self.size == self.path.stat().st_size

    def open(self) -> IO[bytes]:
        """A readable, seekable file of these bytes alone."""
        return io.BufferedReader(_Window(self), MIB)

    def part(self, start: int, size: int, name: str) -> Region:
        """A region of this region; CorruptFile where it reaches beyond the end."""
        if start < 0 or size < 0 or start + size > self.size:
            raise CorruptFile(name=self.name, problem=f"{name} reaches beyond its end")
        return Region(self.path, self.start + start, size, name)

    def array(self, start: int, dtype: np.dtype[Any], shape: tuple[int, ...]) -> np.ndarray:
        """The numbers from ``start`` on in C order: mapped where they are many, else read."""
        import numpy as np

        size = math.prod(shape) * dtype.itemsize
        region = self.part(start, size, "an array")
        if size >= MAPPED:
            return np.asarray(np.memmap(self.path, dtype, "r", region.start, shape))
        with self.path.open("rb") as file:
            file.seek(region.start)
            return np.frombuffer(file.read(size), dtype).reshape(shape)

    def head(self, size: int) -> bytes:
        """The first bytes, at most ``size`` of them."""
        with self.open() as file:
            return file.read(size)

    def blocks(self) -> Iterator[bytes]:
        """All bytes, a few mebibytes at a time."""
        with self.open() as file:
            while block := file.read(BLOCK):
                yield block


class _Window(io.RawIOBase):
    """What ``Region.open`` reads from."""

    def __init__(self, region: Region) -> None:
        self._file = region.path.open("rb", buffering=0)
        self._start, self._size, self._at = region.start, region.size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = max(0, offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence])
        return self._at

    def readinto(self, buffer: Any) -> int:
        wanted = max(0, min(len(buffer), self._size - self._at))
        self._file.seek(self._start + self._at)
        count = self._file.readinto(memoryview(buffer)[:wanted]) or 0
        self._at += count
        return count

    def close(self) -> None:
        self._file.close()
        super().close()


def members_of(path: Path, scratch: Path) -> list[Region]:
    """The plain files of an archive, outer ones first: large stored ones in place, all others unpacked, once.

    The checksums of those in place are left to ``check_members``, for that reads all of them.
    """
    large = _large_members(path) if archive.container_of(path) == "zip" else {}
    if not large:
        folder = unpacked(path, scratch)
        return [Region.whole(item, str(item.relative_to(folder))) for item in files_below(folder, lambda name: True)]
    found = [large.get(entry.member.name) or _unpacked(entry, path, scratch) for entry in archive.entries(path)]
    wanted = [item for item in found if not is_junk(PurePosixPath(item.name))]
    return sorted(wanted, key=lambda item: (len(PurePosixPath(item.name).parts), item.name))


def the_only_member(found: list[Region], name: str, what: str) -> Region:
    """The one member, or a sentence that says how many there are instead."""
    require_one([item.name for item in found], name, what)
    return found[0]


def _unpacked(entry: archive.Entry, path: Path, scratch: Path) -> Region:
    target = scratch / f"{path.name}.small" / entry.member.name
    if not target.exists():
        archive.write_out(entry, target, path.name)
    return Region.whole(target, entry.member.name)


def _large_members(path: Path) -> dict[str, Region]:
    return {name: region for name, (region, _) in _located(path).items()}


def check_members(path: Path) -> None:
    """CorruptFile where the checksum of a large stored member is wrong; done once for a file, when it is inspected."""
    if archive.container_of(path) != "zip":
        return
    for name, (region, checksum) in _located(path).items():
        if _checksum(region) != checksum:
            raise CorruptFile(name=path.name, problem=f"the checksum of {name} is wrong")


def _located(path: Path) -> dict[str, tuple[Region, int]]:
    """The large stored members by name, each with the checksum that it should have."""
    status = path.stat()
    return _found_in(path.absolute(), (status.st_mtime_ns, status.st_size))


@cache
def _found_in(path: Path, _: tuple[int, ...]) -> dict[str, tuple[Region, int]]:
    archive.members(path, path.name)  # refuses what must not be opened
    with archive.reading(path.name), zipfile.ZipFile(path) as package, path.open("rb") as raw:
        infos = [info for info in package.infolist() if info.file_size >= IN_PLACE and not info.compress_type]
        return {info.filename: (stored_region(Region.whole(path), raw, info), info.CRC) for info in infos}


def stored_region(package: Region, raw: IO[bytes], info: zipfile.ZipInfo) -> Region:
    """Where a stored member of a ZIP lies (APPNOTE 4.3.7: 30 bytes, the name, the extra field, then the data)."""
    raw.seek(info.header_offset)
    header = raw.read(30)
    if len(header) < 30 or info.compress_size != info.file_size:
        raise CorruptFile(name=package.name, problem=f"the header of {info.filename} is damaged")
    name, extra = struct.unpack("<HH", header[26:30])
    return package.part(info.header_offset + 30 + name + extra, info.file_size, info.filename)


def _checksum(region: Region) -> int:
    value = 0
    for block in region.blocks():
        value = zlib.crc32(block, value)
    return value
