"""The plain pickle in what people have: compressed by gzip, zlib, bzip2, xz or LZ4, or behind the header of an .npy."""

from __future__ import annotations

import bz2
import lzma
import re
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, Protocol

from worker.errors import ArchiveBomb, CorruptFile

MIB = 1024 * 1024
MAX_UNPACKED = 16 * 1024 * MIB
MAX_RATIO = 200
LZMA_MEMORY = 256 * MIB  # `xz -9` needs 65 MiB; a header may ask for 4 GiB
HEAD = 4096  # bytes of the content that recognising looks at
NPY_MAGIC = b"\x93NUMPY"
LZ4_MAGIC = b"\x04\x22\x4d\x18"
OLD_JOBLIB_MAGIC = b"ZF0x"  # joblib before 0.10: the length in 19 characters of hexadecimal, then zlib
OLD_JOBLIB_HEADER = 21


class Expander(Protocol):
    """What the decompressors of zlib, bz2, lzma and lz4 have in common."""

    @property
    def eof(self) -> bool: ...

    def decompress(self, data: bytes, max_length: int = ..., /) -> bytes: ...


def _lz4() -> Expander:
    from lz4.frame import LZ4FrameDecompressor  # type: ignore[import-untyped]

    found: Expander = LZ4FrameDecompressor()
    return found


EXPANDERS: dict[bytes, Callable[[], Any]] = {
    b"\x1f\x8b": lambda: zlib.decompressobj(47),  # 47: zlib and gzip, by their headers
    b"\x78\x01": lambda: zlib.decompressobj(47),
    b"\x78\x5e": lambda: zlib.decompressobj(47),
    b"\x78\x9c": lambda: zlib.decompressobj(47),
    b"\x78\xda": lambda: zlib.decompressobj(47),
    OLD_JOBLIB_MAGIC: lambda: zlib.decompressobj(47),
    b"BZh": bz2.BZ2Decompressor,
    b"\xfd7zXZ\x00": lambda: lzma.LZMADecompressor(memlimit=LZMA_MEMORY),
    b"\x5d\x00\x00": lambda: lzma.LZMADecompressor(memlimit=LZMA_MEMORY),
    LZ4_MAGIC: _lz4,
}
# lz4 raises RuntimeError for what it cannot read
BROKEN = (zlib.error, lzma.LZMAError, OSError, EOFError, RuntimeError)


def _maker(head: bytes) -> Callable[[], Expander] | None:
    return next((make for magic, make in EXPANDERS.items() if head.startswith(magic)), None)


def expand_head(head: bytes) -> bytes:
    """The start of the content, as far as the first bytes of the file tell it; b"" where they are not compressed.

    The web process asks for this, so LZ4 is read here without its library.
    """
    if head.startswith(LZ4_MAGIC):
        return _expand_lz4_head(head)
    make = _maker(head)
    try:
        return make().decompress(head[OLD_JOBLIB_HEADER:] if _is_old_joblib(head) else head, HEAD) if make else b""
    except BROKEN:
        return b""


def _is_old_joblib(head: bytes) -> bool:
    return head.startswith(OLD_JOBLIB_MAGIC)


def is_object_array(head: bytes) -> bool:
    """The .npy header says that the elements are Python objects: ``'descr': '|O'``."""
    return head.startswith(NPY_MAGIC) and re.search(rb"'descr':\s*'\|?O'", head[:512]) is not None


def header_length(head: bytes) -> int:
    """How long the .npy header before the pickle is (0 for a plain pickle); NEP 1."""
    if not head.startswith(NPY_MAGIC):
        return 0
    wide = head[6:7] > b"\x01"
    return 12 + int.from_bytes(head[8:12], "little") if wide else 10 + int.from_bytes(head[8:10], "little")


def plain(path: Path, scratch: Path) -> Path:
    """The file itself, or what it holds compressed; raises CorruptFile and ArchiveBomb."""
    with path.open("rb") as file:
        head = file.read(32)
    make = _maker(head)
    if make is None:
        return path
    target = scratch / "expanded.pkl"
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        with path.open("rb") as source, target.open("wb") as file:
            source.seek(OLD_JOBLIB_HEADER if _is_old_joblib(head) else 0)
            _expand(path, source, file, make)
    except BROKEN as error:
        raise CorruptFile(name=path.name, problem=f"what it holds cannot be decompressed ({error})") from error
    return target


def _expand(path: Path, source: IO[bytes], target: IO[bytes], make: Callable[[], Expander]) -> None:
    """Write what the file holds, within bounds; compressed parts may stand one after the other."""
    bound = min(MAX_UNPACKED, max(64 * MIB, MAX_RATIO * path.stat().st_size))
    expander, total, rest = make(), 0, b""
    while block := rest or source.read(MIB // 4):
        for part in _parts(expander, block):
            total += len(part)
            if total > bound:
                raise ArchiveBomb(name=path.name, limit=f"{bound // MIB:,} MiB")
            target.write(part)
        rest = (getattr(expander, "unused_data", b"") or b"") if expander.eof else b""
        if expander.eof and not _goes_on(rest, make):
            return
        expander = make() if expander.eof else expander
    if not expander.eof:
        raise EOFError("it ends too early")


def _goes_on(rest: bytes, make: Callable[[], Expander]) -> bool:
    """Does another part of the same kind follow?"""
    return _maker(rest) is make


def _parts(expander: Expander, block: bytes) -> Iterator[bytes]:
    """What one block gives, never more than a MiB at a time."""
    while not expander.eof and (part := expander.decompress(block, MIB)):
        yield part
        block = getattr(expander, "unconsumed_tail", b"")  # all but zlib keep the rest themselves


# LZ4 without its library ----------------------------------------------------------------------------------------
# https://github.com/lz4/lz4/blob/dev/doc/lz4_Frame_format.md and lz4_Block_format.md


def _expand_lz4_head(head: bytes) -> bytes:
    """The start of the first block of a frame."""
    flags = head[4] if len(head) > 15 else 0
    start = 7 + (8 if flags & 0x08 else 0) + (4 if flags & 0x01 else 0)
    size = int.from_bytes(head[start : start + 4], "little")
    block = head[start + 4 : start + 4 + (size & 0x7FFFFFFF)]
    return block[:HEAD] if size & 0x80000000 else _expand_lz4_block(block)


def _expand_lz4_block(block: bytes) -> bytes:
    """Literals and copies of what came before, until there is enough or the block ends."""
    found, position = bytearray(), 0
    while position < len(block) and len(found) < HEAD:
        token = block[position]
        count, position = _lz4_length(block, position + 1, token >> 4)
        found += block[position : position + count]
        position += count
        distance = int.from_bytes(block[position : position + 2], "little")
        if not 0 < distance <= len(found):
            break
        count, position = _lz4_length(block, position + 2, token & 15)
        for _ in range(min(count + 4, HEAD)):
            found.append(found[-distance])
    return bytes(found[:HEAD])


def _lz4_length(block: bytes, position: int, length: int) -> tuple[int, int]:
    """A length that goes on in further bytes where four bits were not enough, and where the next thing stands."""
    more = 255 if length == 15 else 0
    while more == 255 and position < len(block):
        more = block[position]
        length, position = length + more, position + 1
    return length, position
