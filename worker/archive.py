"""Archives that people send: listed, read and unpacked within bounds; and packed, the same files to the same bytes.

Only plain files come out. Links, devices, absolute names, names that climb out with "..", names given twice and
archives that grow beyond the bounds are refused before anything is written (CWE-22, CWE-59, CWE-409).
"""

from __future__ import annotations

import bz2
import errno
import gzip
import io
import lzma
import os
import re
import shutil
import stat
import struct
import tarfile
import unicodedata
import zipfile
import zlib
from bisect import bisect_left, insort
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal, cast

from worker.errors import ArchiveBomb, CorruptFile, PathTraversal, UnsafeContent
from worker.formats._format import Member

Container = Literal["file", "zip", "tar"]
MIB = 1024 * 1024
BLOCK = 256 * 1024
ZIP_MAGIC = (b"PK\x03\x04", b"PK\x05\x06")
ZIP_TIME = (1980, 1, 1, 0, 0, 0)  # the earliest that a ZIP can say; fixed, so that packing is reproducible
STORED_SUFFIXES = (".h5", ".hdf5", ".npz", ".npy", ".keras", ".zip", ".safetensors")  # weights do not deflate
SAMPLE, WORTH = 64 * 1024, 0.8  # bytes of a file to look at, and what of them deflating has to leave at most
# U+2044, U+2215, U+29F8, U+FF0F and their mirror images look like what separates folders
SLASHES = frozenset("\u2044\u2215\u29f8\uff0f\u2216\u29f5\u29f9\uff3c\ufe68")
DEVICES = re.compile(r"^(con|prn|aux|nul|com\d|lpt\d)(\.|$)", re.IGNORECASE)  # names of devices on Windows
JUNK = ("__MACOSX/", ".DS_Store", "Thumbs.db")  # what desktops add; "__MACOSX/._config.json" is no second model


@dataclass(frozen=True)
class Bounds:
    """What an archive may hold. The ratio counts only above ``free_bytes``: a small file of zeros is harmless."""

    entries: int = 10_000
    total_bytes: int = 16 * 1024 * MIB
    ratio: int = 200
    free_bytes: int = 64 * MIB
    name_chars: int = 1_000


BOUNDS = Bounds()


@dataclass(frozen=True)
class Entry:
    """One file of an archive; ``open`` works until the next entry is asked for."""

    member: Member
    open: Callable[[], IO[bytes]]


def container_of(path: Path) -> Container:
    """Whether the bytes are a ZIP, a tar (also inside gzip, bzip2 or xz), or one plain file."""
    with path.open("rb") as file:
        head = file.read(4)
    if head in ZIP_MAGIC:
        return "zip"
    return "tar" if _starts_like_tar(path) else "file"


def suffix_of(path: Path, suffixes: Sequence[str]) -> str:
    """Which of a format's suffixes names this file: the first, unless it became an archive, which has one of its own.

    ONNX is one file, or an archive of two where the weights stand beside the graph.
    """
    return ".zip" if ".zip" in suffixes and container_of(path) == "zip" else suffixes[0]


def members(path: Path, name: str = "", bounds: Bounds = BOUNDS) -> list[Member]:
    """The files in the archive, without directories; ``name`` is what messages call it."""
    return [entry.member for entry in entries(path, name, bounds)]


def entries(path: Path, name: str = "", bounds: Bounds = BOUNDS) -> Iterator[Entry]:
    """Each file in the archive in order, checked; raises PathTraversal, UnsafeContent, ArchiveBomb or CorruptFile."""
    name = name or path.name
    walk = _zip_entries if container_of(path) == "zip" else _tar_entries
    seen = _Seen(name, bounds)
    with reading(name):
        for entry in walk(path, name, bounds):
            seen.add(entry.member.name)
            if not _is_junk(entry.member.name):
                yield entry


def unpack(path: Path, folder: Path, name: str = "", bounds: Bounds = BOUNDS) -> None:
    """Write every file of the archive below ``folder``, which must not hold any of them yet."""
    name = name or path.name
    for entry in entries(path, name, bounds):
        write_out(entry, folder / entry.member.name, name)


def write_out(entry: Entry, target: Path, name: str) -> None:
    """One file of the archive ``name``, written to where nothing is yet; CorruptFile where it is damaged."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with reading(name), entry.open() as source, target.open("xb") as file:
        _copy(source, file, entry.member.size)


def pack(folder: Path, target: Path) -> None:
    """One ZIP of all plain files below ``folder``, the same bytes for the same files."""
    inside = sorted(path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
    pack_files([(path.relative_to(folder).as_posix(), path) for path in inside], target)


def pack_files(files: Sequence[tuple[str, Path]], target: Path) -> None:
    """One ZIP of (name inside, file) pairs: sorted by name, with fixed times and modes."""
    with zipfile.ZipFile(target, "w", allowZip64=True) as archive:
        for inside, path in sorted(files):
            info = zipfile.ZipInfo(inside, ZIP_TIME)
            info.external_attr = (stat.S_IFREG | 0o644) << 16
            info.compress_type = _compression(inside, path)
            info.file_size = path.stat().st_size
            with path.open("rb") as source, archive.open(info, "w") as file:
                shutil.copyfileobj(source, file, BLOCK)


def _compression(inside: str, path: Path) -> int:
    stored = inside.endswith(STORED_SUFFIXES) or path.stat().st_size > 64 * MIB or not _deflates(path)
    return zipfile.ZIP_STORED if stored else zipfile.ZIP_DEFLATED


def _deflates(path: Path) -> bool:
    """Is a sample of the file much smaller when deflated? Trained weights shrink by some percent, and take seconds."""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size // 2 - SAMPLE // 2))
        sample = file.read(SAMPLE)
    return len(zlib.compress(sample, 1)) < WORTH * len(sample)


def _is_junk(name: str) -> bool:
    return name.startswith(JUNK[0]) or name.rsplit("/", 1)[-1] in JUNK[1:]


class _Seen:
    """The names so far: refuses the same name twice, also where it only looks the same or is so on another system, and
    a file that another entry uses as its folder.

    Only the files' names are kept: their folders may be five hundred times as many, and as long.
    """

    def __init__(self, archive: str, bounds: Bounds) -> None:
        self.archive = archive
        self.bounds = bounds
        self.files: set[str] = set()
        self.alike: dict[str, str] = {}
        self.ordered: list[str] = []

    def add(self, name: str) -> None:
        if name in self.files:
            raise UnsafeContent(name=self.archive, reason=f"it holds {_short(name)} twice; pack every file once")
        other = self.alike.setdefault(_looks(name), name)
        if other != name:
            found = f"it holds {_short(other)} and {_short(name)}, which some systems take for one file"
            raise UnsafeContent(name=self.archive, reason=f"{found}; give them names that differ in more than that")
        if self._is_folder(name) or any(name[:end] in self.files for end, char in enumerate(name) if char == "/"):
            raise UnsafeContent(name=self.archive, reason=f"it holds {_short(name)} as a file and as a folder")
        self.files.add(name)
        insort(self.ordered, name)
        if len(self.files) > self.bounds.entries:
            raise ArchiveBomb(name=self.archive, limit=f"{self.bounds.entries:,} files")

    def _is_folder(self, name: str) -> bool:
        first = bisect_left(self.ordered, f"{name}/")
        return any(other.startswith(f"{name}/") for other in self.ordered[first : first + 1])


def _safe_name(raw: str, archive: str, bounds: Bounds) -> str:
    """The entry's name without "./"; PathTraversal where it is absolute, climbs, or cannot be a name."""
    parts = [part for part in raw.split("/") if part not in ("", ".")]
    climbs = raw.startswith("/") or "\\" in raw or ".." in parts or (len(raw) > 1 and raw[1] == ":")
    if climbs or not parts or "\0" in raw:
        raise PathTraversal(name=archive, entry=_short(raw))
    if why := next(filter(None, map(_misleads, parts)), ""):
        raise UnsafeContent(
            name=archive, reason=f"it holds a name that {why} ({_short(raw)}); give that file a plain name"
        )
    name = "/".join(parts)
    if len(name) > bounds.name_chars or len(max(parts, key=len).encode("utf-8", "replace")) > 255:
        raise UnsafeContent(name=archive, reason=f"it holds a name of {len(name):,} characters")
    return name


def _looks(name: str) -> str:
    """What a name is where case, the way to write an accent, and wide letters make no difference (UAX #15, NFKC)."""
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold())


def _misleads(part: str) -> str:
    """Why people or systems take a part of a name for something else; "" where none does."""
    kinds = {unicodedata.category(char) for char in part}
    if kinds & {"Cc", "Cf", "Cs", "Zl", "Zp"}:
        return "has characters in it that cannot be seen, or that turn the text around"
    if SLASHES & set(part):
        return "has a letter in it that looks like a slash"
    if ":" in part or part != part.rstrip(". ") or DEVICES.match(part):
        return "is none on some systems"
    return ""


def _short(name: str) -> str:
    """A name fit for a sentence: no control characters, no lone surrogates, not endless."""
    shown = "".join(char if char.isprintable() else "?" for char in name)
    return shown if len(shown) <= 80 else f"{shown[:77]}…"


def _check_growth(archive: str, unpacked: int, packed: int, bounds: Bounds) -> None:
    if unpacked > bounds.total_bytes:
        raise ArchiveBomb(name=archive, limit=f"{bounds.total_bytes / 1024**3:g} GiB")
    if unpacked > bounds.free_bytes and unpacked > packed * bounds.ratio:
        raise ArchiveBomb(name=archive, limit=f"{bounds.ratio} times its size")


class _TwoReadings(zipfile.BadZipFile):
    """Two programs would see other files in one archive."""


@contextmanager
def reading(archive: str) -> Iterator[None]:
    """What the archive libraries raise, as CorruptFile with a sentence."""
    try:
        yield
    except _TwoReadings as error:
        raise UnsafeContent(name=archive, reason=f"{error}; pack its files again") from error
    except (zipfile.BadZipFile, NotImplementedError) as error:
        raise CorruptFile(name=archive, problem=f"the ZIP archive cannot be read ({_said(error)})") from error
    except (EOFError, struct.error) as error:
        raise CorruptFile(name=archive, problem="the archive ends too early") from error
    except (tarfile.TarError, zlib.error, lzma.LZMAError, ValueError) as error:
        raise CorruptFile(name=archive, problem=f"the archive cannot be read ({_said(error)})") from error
    except OSError as error:
        if error.errno not in (None, errno.EINVAL):  # a real fault of the disk is nobody's damaged file
            raise
        raise CorruptFile(name=archive, problem=f"the archive cannot be read ({_said(error)})") from error


def _said(error: Exception) -> str:
    return _short(str(error).strip().split("\n")[0]) or type(error).__name__


def _copy(source: IO[bytes], target: IO[bytes], size: int) -> None:
    """Copy exactly ``size`` bytes: an entry that gives fewer is cut off, one that gives more lied about its size."""
    left = size
    while block := source.read(min(BLOCK, left + 1)):
        left -= len(block)
        if left < 0:
            raise zipfile.BadZipFile("an entry is longer than it says")
        target.write(block)
    if left:
        raise EOFError


# ZIP ------------------------------------------------------------------------------------------------------------


def _zip_entries(path: Path, archive: str, bounds: Bounds) -> Iterator[Entry]:
    _check_directory(path, archive, bounds)
    with zipfile.ZipFile(path) as package, path.open("rb") as raw:
        infos = package.infolist()
        if len(infos) > bounds.entries:
            raise ArchiveBomb(name=archive, limit=f"{bounds.entries:,} files")
        _check_growth(archive, sum(info.file_size for info in infos), path.stat().st_size, bounds)
        checked = [(_zip_member(info, archive, bounds), info) for info in infos if not _is_folder(info)]
        places = [(info.header_offset, _check_local_header(raw, info)) for info in infos]
        _check_cover(places, package.start_dir)
        for member, info in checked:
            yield Entry(member, lambda info=info: package.open(info))  # type: ignore[misc]


def _is_folder(info: zipfile.ZipInfo) -> bool:
    if not info.orig_filename.endswith("/"):
        return False
    if info.file_size:
        raise _TwoReadings(f"the folder {_short(info.orig_filename)} holds bytes, so that some would make it a file")
    return True


def _check_cover(places: list[tuple[int, int]], directory: int) -> None:
    """Each byte belongs to one entry: nothing is there twice, and no entry that the directory does not list.

    Bytes before the first one are a program that unpacks itself, or a picture; no reader takes them for an entry."""
    reached = min((start for start, _ in places), default=directory)
    for start, end in sorted(places):
        if start < reached:
            raise _TwoReadings("two entries are the same bytes of the archive")
        if start > reached:
            raise _TwoReadings("bytes between two entries belong to none that the directory lists")
        reached = end
    if reached > directory:
        raise _TwoReadings("an entry reaches into the directory")
    if reached < directory:
        raise _TwoReadings("bytes before the directory belong to no entry that it lists")


def _zip_member(info: zipfile.ZipInfo, archive: str, bounds: Bounds) -> Member:
    name = _safe_name(info.orig_filename, archive, bounds)
    mode = stat.S_IFMT(info.external_attr >> 16)
    if mode not in (0, stat.S_IFREG):
        raise UnsafeContent(
            name=archive, reason=f"it holds a link or device ({_short(name)}); only plain files are taken"
        )
    if info.compress_type == zipfile.ZIP_LZMA:  # its decoder takes as much memory as the archive asks for
        raise UnsafeContent(name=archive, reason=f"it is packed with LZMA ({_short(name)}); pack it with Deflate")
    if info.flag_bits & 0x1:
        raise UnsafeContent(name=archive, reason=f"it is encrypted ({_short(name)}); upload it without a password")
    return Member(name, info.file_size)


def _check_directory(path: Path, archive: str, bounds: Bounds) -> None:
    """Look at the size of the ZIP's directory before ``zipfile`` reads all of it into memory (APPNOTE 4.3.16)."""
    with path.open("rb") as file:
        file.seek(0, os.SEEK_END)
        start = max(0, file.tell() - 65_557)  # the record of 22 bytes and the longest comment
        file.seek(start)
        tail = file.read()
        at = tail.rfind(b"PK\x05\x06")
        if at < 0 or len(tail) - at < 22:
            raise CorruptFile(name=archive, problem="the ZIP archive is cut off: its directory at the end is missing")
        size = struct.unpack("<L", tail[at + 12 : at + 16])[0]
        sizes = [*_zip64_directory_sizes(file, start + at), *([] if size == 0xFFFFFFFF else [size])]
    if not sizes:
        raise CorruptFile(name=archive, problem="its ZIP64 directory is missing")
    if max(sizes) > bounds.entries * 512:
        raise ArchiveBomb(name=archive, limit=f"{bounds.entries:,} files")


def _zip64_directory_sizes(file: IO[bytes], record: int) -> Iterator[int]:
    """What ZIP64 says, where it says something: ``zipfile`` believes it even where the plain record has a size.

    Some versions look for its record where the locator points to, others right before the locator: it is read at both.
    """
    if record < 20:
        return
    file.seek(record - 20)
    signature, _, offset, _ = struct.unpack("<4sLQL", file.read(20))
    if signature != b"PK\x06\x07":
        return
    for place in {offset, max(0, record - 76)}:
        file.seek(place)
        found = file.read(56)
        if found.startswith(b"PK\x06\x06"):
            yield int(struct.unpack("<Q", found[40:48])[0])


def _check_local_header(raw: IO[bytes], info: zipfile.ZipInfo) -> int:
    """Two readers must see the same file: the header before the data says what the directory says. Where it ends."""
    raw.seek(info.header_offset)
    fields = struct.unpack("<4sHHHHHLLLHH", raw.read(30))
    flags, method, crc, packed, size = fields[2], fields[3], fields[6], fields[7], fields[8]
    if fields[0] != b"PK\x03\x04":
        raise zipfile.BadZipFile("an entry does not start where the directory says")
    name, extra = raw.read(fields[9]), raw.read(fields[10])
    if name.decode("utf-8" if flags & UTF_8 else "cp437", "replace") != info.orig_filename:
        raise _TwoReadings("an entry and the directory disagree about its name")
    if method != info.compress_type or (flags ^ info.flag_bits) & SAME_FLAGS:
        raise _TwoReadings("an entry and the directory disagree about how it is packed")
    wide = _wide_sizes(extra, size, packed)
    later = bool(flags & TOLD_LATER)
    blank = later and not crc and {packed, size} <= {0, FULL}
    if not blank and (crc, *reversed(wide)) != (info.CRC, info.compress_size, info.file_size):
        raise zipfile.BadZipFile("an entry and the directory disagree about its size or checksum")
    _check_other_name(extra + info.extra, info.orig_filename)
    return _end_of(raw, info, raw.tell() + info.compress_size) if later else raw.tell() + info.compress_size


UTF_8, TOLD_LATER, ENCRYPTED = 0x800, 0x8, 0x1
SAME_FLAGS = UTF_8 | TOLD_LATER | ENCRYPTED
FULL = 0xFFFFFFFF
OTHER_NAME = 0x7075  # Info-ZIP's Unicode Path: CRC-32 of the name, and the one that is meant instead


def _fields_of(extra: bytes) -> Iterator[tuple[int, bytes]]:
    """The parts of an extra field (APPNOTE 4.5)."""
    place = 0
    while place + 4 <= len(extra):
        kind, size = struct.unpack("<HH", extra[place : place + 4])
        yield kind, extra[place + 4 : place + 4 + size]
        place += 4 + size


def _wide_sizes(extra: bytes, size: int, packed: int) -> tuple[int, int]:
    """Size and packed size of ZIP64, where the plain ones are full."""
    data = next((data for kind, data in _fields_of(extra) if kind == 1), b"")
    numbers = [int(number) for number in struct.unpack(f"<{len(data) // 8}Q", data[: len(data) // 8 * 8])]
    first = numbers.pop(0) if size == FULL and numbers else size
    return first, numbers.pop(0) if packed == FULL and numbers else packed


def _check_other_name(extra: bytes, name: str) -> None:
    """Info-ZIP writes a name that the plain one had no letters for; any other would be a name that nobody looked at."""
    for kind, data in _fields_of(extra):
        other = data[5:].decode("utf-8", "replace")
        if kind == OTHER_NAME and other != name and (_is_plain(name) or _is_plain(other)):
            raise _TwoReadings(f"an entry has two names ({_short(name)} and {_short(other)})")


def _is_plain(name: str) -> bool:
    return name.isascii() and "?" not in name and "#U" not in name


def _end_of(raw: IO[bytes], info: zipfile.ZipInfo, end: int) -> int:
    """Where the record behind the data ends that tells its sizes: 12 or 20 bytes, with or without a signature."""
    raw.seek(end)
    record = raw.read(24)
    signed = record.startswith(b"PK\x07\x08")
    body = record[4:] if signed else record
    for form in ("<LLL", "<LQQ"):
        size = struct.calcsize(form)
        if len(body) >= size and struct.unpack(form, body[:size]) == (info.CRC, info.compress_size, info.file_size):
            return end + size + 4 * signed
    raise _TwoReadings("what follows an entry and the directory disagree about its size or checksum")


# tar ------------------------------------------------------------------------------------------------------------

OPENERS: dict[bytes, Callable[[Path], Any]] = {
    b"\x1f\x8b": gzip.GzipFile,
    b"BZh": lambda path: io.BufferedReader(_Streams(path, b"BZh", bz2.BZ2Decompressor), BLOCK),
    b"\xfd7zXZ\x00": lambda path: io.BufferedReader(_Streams(path, b"\xfd7zXZ\x00", _xz_decoder), BLOCK),
}
XZ_MEMORY = 256 * MIB  # `xz -9` needs 65 MiB; a header may ask for 4 GiB
MAX_HEADER = 64 * 1024  # of a name or of attributes; those of one file in Linux are never longer
MAX_DEFAULTS = 1000  # attributes for all following entries; `git archive` writes one
MAX_IN_A_ROW = 100  # extended headers before one entry; programs write four at the most
DIGITS = re.compile(rb"\d{100}")
LONG_HEADERS = (
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
)


def _open_stream(path: Path) -> IO[bytes]:
    """The file's bytes, decompressed where they are gzip, bzip2 or xz."""
    with path.open("rb") as file:
        head = file.read(6)
    opener = next((opener for magic, opener in OPENERS.items() if head.startswith(magic)), None)
    return cast("IO[bytes]", opener(path)) if opener else path.open("rb")


def _starts_like_tar(path: Path) -> bool:
    """A tar has no magic at its start: its first 512 bytes are a header with a checksum."""
    try:
        with _open_stream(path) as stream:
            block = stream.read(512)
        tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
    except (tarfile.TarError, OSError, EOFError, zlib.error, lzma.LZMAError):
        return False
    return True


class _Streams(io.RawIOBase):
    """What a file of bzip2 or xz holds, in one stream after the other. ValueError where something else follows, which a
    reader that begins at the end would take for the file; LZMAError where xz would need more than ``XZ_MEMORY``."""

    def __init__(self, path: Path, magic: bytes, decoder: Callable[[], Any]) -> None:
        self._file, self._magic, self._new_decoder = path.open("rb"), magic, decoder
        self._decoder = decoder()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        block = self._read(len(buffer))
        buffer[: len(block)] = block
        return len(block)

    def _read(self, size: int) -> bytes:
        block = b""
        while not block and (not self._decoder.eof or self._next_stream()):
            packed = self._file.read(BLOCK) if self._decoder.needs_input else b""
            if self._decoder.needs_input and not packed:
                raise EOFError
            block = bytes(self._decoder.decompress(packed, size))
        return block

    def _next_stream(self) -> bool:
        """Go on with the stream that follows; False at the end of the file, which zeros may fill up."""
        rest = self._decoder.unused_data.lstrip(b"\0")
        while not rest and (block := self._file.read(BLOCK)):
            rest = block.lstrip(b"\0")
        if not rest:
            return False
        self._file.seek(-len(rest), os.SEEK_CUR)
        if self._file.read(len(self._magic)) != self._magic:
            raise ValueError("something else follows behind its end")
        self._file.seek(-len(self._magic), os.SEEK_CUR)
        self._decoder = self._new_decoder()
        return True

    def close(self) -> None:
        self._file.close()
        super().close()


def _xz_decoder() -> lzma.LZMADecompressor:
    return lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=XZ_MEMORY)


class _Header(tarfile.TarInfo):
    """A tar header without what lets a small file take memory and time at will (CWE-400).

    ``tarfile`` reads an extended header into memory whole, and looks through it in a time that grows with the square of
    its length (CVE-2024-6232 and what that left).
    """

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> _Header:
        info = super().frombuf(buf, encoding, errors)
        if info.type in LONG_HEADERS and info.size > MAX_HEADER:
            raise tarfile.ReadError("an extended header is longer than 64 KiB")
        if info.type == tarfile.GNUTYPE_SPARSE:
            raise tarfile.ReadError("a file is stored with holes")
        return info

    def _proc_member(self, package: Any) -> Any:
        """``tarfile`` reads each header for the next entry from within the last one: one call deeper every time."""
        package.in_a_row = getattr(package, "in_a_row", 0) + 1 if self.type in LONG_HEADERS else 0
        if package.in_a_row > MAX_IN_A_ROW:
            raise tarfile.ReadError("it is nested too deeply: header follows header, and no entry")
        return super()._proc_member(package)  # type: ignore[misc]

    def _proc_pax(self, package: Any) -> Any:
        """Check the attributes before ``tarfile`` parses them."""
        stream = package.fileobj
        block = stream.read(-(-self.size // 512) * 512)
        _check_attributes(block[: self.size])
        package.fileobj = _Again(package, block)
        found = super()._proc_pax(package)  # type: ignore[misc]
        if len(package.pax_headers) > MAX_DEFAULTS:
            raise tarfile.ReadError("it holds too many attributes")
        return found


class _Again:
    """Gives a block that was read already once more, and then the place back to the stream that it came from."""

    def __init__(self, package: Any, block: bytes) -> None:
        self._package, self._stream, self._block = package, package.fileobj, block

    def read(self, size: int) -> bytes:
        self._package.fileobj = self._stream
        return self._block


def _check_attributes(data: bytes) -> None:
    """``LENGTH KEY=VALUE`` and a line feed, one after the other; the length counts all of it (POSIX pax)."""
    if b"GNU.sparse." in data:
        raise tarfile.ReadError("a file is stored with holes")
    if DIGITS.search(data):
        raise tarfile.ReadError("an extended header is not as it should be")
    place = 0
    while place < len(data):
        digits, _, _ = data[place : place + 10].partition(b" ")
        length = int(digits) if digits.isdigit() else 0
        record = data[place : place + length]
        if length < 5 or not record.endswith(b"\n") or b"=" not in record:
            raise tarfile.ReadError("an extended header is not as it should be")
        place += length


class _Metered(io.RawIOBase):
    """Counts what comes out of a decompressor and stops it at the bounds."""

    def __init__(self, stream: IO[bytes], archive: str, packed: int, bounds: Bounds) -> None:
        self.stream = stream
        self.archive = archive
        self.packed = packed
        self.bounds = bounds
        self.count = 0

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        block = self.stream.read(BLOCK if size < 0 else size)
        self.count += len(block)
        _check_growth(self.archive, self.count, self.packed, self.bounds)
        return block


def _tar_entries(path: Path, archive: str, bounds: Bounds) -> Iterator[Entry]:
    with _open_stream(path) as stream:
        metered = _Metered(stream, archive, path.stat().st_size, bounds)
        # A name that is not UTF-8 gets replacement characters: lone surrogates fit neither databases nor pages.
        with tarfile.open(fileobj=metered, mode="r|", tarinfo=_Header, encoding="utf-8", errors="replace") as package:
            for info in _bounded(package, archive, bounds):
                if not info.isdir():
                    member = _tar_member(info, archive, bounds)
                    yield Entry(member, lambda info=info: _opened(package, info))  # type: ignore[misc]
            _check_end(package.fileobj, archive)


def _check_end(stream: Any, archive: str) -> None:
    """Behind the end of a tar are zeros: some readers would go on with what else is there."""
    while block := stream.read(BLOCK):
        if block.strip(b"\0"):
            raise UnsafeContent(name=archive, reason="files follow behind its end; pack all files into one archive")


def _bounded(package: tarfile.TarFile, archive: str, bounds: Bounds) -> Iterable[tarfile.TarInfo]:
    count = 0
    while info := package.next():
        count += 1
        if count > bounds.entries:
            raise ArchiveBomb(name=archive, limit=f"{bounds.entries:,} files")
        yield info
        package.members.clear()  # type: ignore[attr-defined]  # it would keep every entry with its attributes


def _tar_member(info: tarfile.TarInfo, archive: str, bounds: Bounds) -> Member:
    name = _safe_name(info.name, archive, bounds)
    if not info.isreg() or info.issparse():
        raise UnsafeContent(
            name=archive, reason=f"it holds a link or device ({_short(name)}); only plain files are taken"
        )
    return Member(name, info.size)


def _opened(package: tarfile.TarFile, info: tarfile.TarInfo) -> IO[bytes]:
    file = package.extractfile(info)
    if file is None:
        raise tarfile.ReadError("an entry has no content")
    return file
