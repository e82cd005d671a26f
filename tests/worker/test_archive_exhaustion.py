"""Small archives made to take memory or time at will: refused at once, for the web process looks at them."""

from __future__ import annotations

import bz2
import io
import lzma
import struct
import sys
import tarfile
import time
import zipfile
import zlib
from pathlib import Path
from typing import Any

import pytest

from worker import archive, intake
from worker.errors import ArchiveBomb, CorruptFile, NotAModel, UnsafeContent

END = bytes(1024)
MIB = 1024 * 1024


def header(name: str, size: int, kind: bytes = tarfile.REGTYPE) -> bytes:
    info = tarfile.TarInfo(name)
    info.size, info.type = size, kind
    return info.tobuf(tarfile.GNU_FORMAT, "utf-8", "surrogateescape")


def block(content: bytes) -> bytes:
    return content + bytes(-len(content) % 512)


def long_name(name: str) -> bytes:
    content = name.encode() + b"\0"
    return header("long", len(content), tarfile.GNUTYPE_LONGNAME) + block(content)


def attributes(content: bytes, kind: bytes = tarfile.XHDTYPE) -> bytes:
    return header("pax", len(content), kind) + block(content)


def attribute(key: str, value: str) -> bytes:
    """One record: its length counts its own digits."""
    rest = f" {key}={value}\n".encode()
    length = len(rest) + 1
    while len(str(length)) + len(rest) != length:
        length += 1
    return str(length).encode() + rest


def tar(tmp_path: Path, *parts: bytes) -> Path:
    path = tmp_path / "a.tar"
    path.write_bytes(b"".join([header("first", 0), *parts, header("last", 0), END]))
    return path


@pytest.mark.parametrize(
    "content",
    [
        b"9" * 60_000,
        attribute("comment", "9" * 60_000),
        b"3 a" * 20_000 + b"=",
        attribute("GNU.sparse.major", "1") + attribute("GNU.sparse.minor", "0"),
        bytes(70_000),
    ],
    ids=["digits", "digits in a value", "overlapping", "holes", "long"],
)
def test_attributes_that_take_long_to_parse(tmp_path: Path, content: bytes) -> None:
    """CVE-2024-6232: a megabyte of digits took `tarfile` most of an hour, with everything else standing still."""
    path = tar(tmp_path, attributes(content))
    started = time.process_time()
    with pytest.raises(CorruptFile):
        archive.members(path)
    assert time.process_time() - started < 1


def test_honest_attributes_are_read(tmp_path: Path) -> None:
    """As `git archive` and GNU tar write them: for all entries, and for one."""
    common = attributes(attribute("comment", "8d1c" * 10), tarfile.XGLTYPE)
    own = attributes(attribute("mtime", "1700000000.123456789") + attribute("path", "modèle/" + "a" * 200))
    names = [member.name for member in archive.members(tar(tmp_path, common, own))]
    assert names == ["first", "modèle/" + "a" * 200]


def test_too_many_attributes_for_all_entries(tmp_path: Path) -> None:
    content = b"".join(attribute(f"key{number}", "") for number in range(archive.MAX_DEFAULTS + 1))
    with pytest.raises(CorruptFile, match="too many attributes"):
        archive.members(tar(tmp_path, attributes(content, tarfile.XGLTYPE)))


@pytest.mark.parametrize("limit", [1000, 5000])  # some libraries raise it for the whole process
def test_nothing_but_headers(tmp_path: Path, limit: int) -> None:
    path, before = tar(tmp_path, *[long_name("a")] * 1200), sys.getrecursionlimit()
    sys.setrecursionlimit(limit)
    try:
        with pytest.raises(CorruptFile, match="nested too deeply"):
            archive.members(path)
    finally:
        sys.setrecursionlimit(before)


def test_names_that_are_no_text(tmp_path: Path) -> None:
    """A lone surrogate would break the page and the database row that show the name."""
    (name,) = [member.name for member in archive.members(tar(tmp_path, header("m\udcff/x", 0))) if "m" in member.name]
    assert name == "m\N{REPLACEMENT CHARACTER}/x"


@pytest.mark.parametrize("first", ["a/b", "a"])
def test_folders_are_still_told_from_files(tmp_path: Path, first: str) -> None:
    second = "a" if first == "a/b" else "a/b"
    path = tar(tmp_path, header(first, 0), header("a.b", 0), header(second, 0))
    with pytest.raises(UnsafeContent, match="as a file and as a folder"):
        archive.members(path)


def test_xz_that_asks_for_gigabytes(tmp_path: Path) -> None:
    """The size of the dictionary is one byte of the header: 38 means 2 GiB."""
    path = tmp_path / "a.tar.xz"
    content = bytearray(lzma.compress(header("x", 0) + END, check=lzma.CHECK_NONE))
    assert content[14:16] == b"\x21\x01"  # LZMA2 and the length of its properties
    content[16] = 38
    content[20:24] = struct.pack("<L", zlib.crc32(content[12:20]))
    path.write_bytes(content)
    with pytest.raises(NotAModel, match="a compressed file"):
        intake.recognise(intake.take_sample(path, path.name))


@pytest.mark.parametrize("module", [lzma, bz2])
def test_several_streams(module: Any, tmp_path: Path) -> None:
    """As `xz -T`, `pbzip2` and `cat a.xz b.xz` write it."""
    content = header("x", 3 * MIB) + bytes(3 * MIB) + END
    path = tmp_path / "a.tar.xz"
    path.write_bytes(b"".join(module.compress(content[at : at + 300]) + bytes(4) for at in range(0, 3000, 300)))
    path.write_bytes(path.read_bytes() + module.compress(content[3000:]))
    archive.unpack(path, tmp_path / "out")
    assert (tmp_path / "out" / "x").read_bytes() == bytes(3 * MIB)


def test_zip_packed_with_lzma(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_LZMA) as package:
        package.writestr("config.json", "{}")
    with pytest.raises(UnsafeContent, match="pack it with Deflate"):
        archive.members(path)


@pytest.mark.parametrize("lies", ["plain", "locator"])
def test_zip64_that_hides_the_size_of_its_directory(tmp_path: Path, lies: str) -> None:
    """`zipfile` believes the ZIP64 record whatever the plain one says, and finds it without the locator's help."""
    count = 120_000
    directory = struct.pack("<4s4B4HL2L5H2L", b"PK\1\2", 20, 3, 20, *[0] * 8, 1, *[0] * 6) + b"a"
    decoy = struct.pack("<4sQ2H2L4Q", b"PK\6\6", 44, 45, 45, 0, 0, 1, 1, 47, 0)
    size = len(directory) * count
    record = struct.pack("<4sQ2H2L4Q", b"PK\6\6", 44, 45, 45, 0, 0, count, count, size, len(decoy))
    at = 0 if lies == "locator" else len(decoy) + size
    locator = struct.pack("<4sLQL", b"PK\6\7", 0, at, 1)
    told = 47 if lies == "plain" else 0xFFFFFFFF
    end = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 1, 1, told, len(decoy), 0)
    path = tmp_path / "a.zip"
    path.write_bytes(b"".join([decoy, directory * count, record, locator, end]))
    with pytest.raises(ArchiveBomb, match="10,000 files"):
        archive._check_directory(path, "a.zip", archive.BOUNDS)


def test_texts_of_an_archive_are_bounded_together(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    text = b'{"' + b"a" * (intake.HEAD - 2)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as package:
        for number in range(300):
            package.writestr(f"{number}.json", text)
    texts = intake.take_sample(path, path.name).texts
    assert sum(map(len, texts.values())) == intake.TEXTS


def test_the_stream_of_a_tar_is_read_once(tmp_path: Path) -> None:
    """Entries stay readable though none is kept."""
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as package:
        for number in range(20):
            info = tarfile.TarInfo(f"é{number}/{'long' * 40}")
            info.size = number
            package.addfile(info, io.BytesIO(b"x" * number))
    archive.unpack(path, tmp_path / "out")
    assert sorted(item.stat().st_size for item in (tmp_path / "out").rglob("*") if item.is_file()) == [*range(20)]
