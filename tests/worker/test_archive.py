"""Archives: what is inside is listed, unpacked within bounds, and packed to the same bytes every time."""

from __future__ import annotations

import io
import os
import stat
import tarfile
import zipfile
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from worker import archive
from worker.archive import Bounds
from worker.errors import ArchiveBomb, CorruptFile, LarderError, PathTraversal, UnsafeContent

FILES = {"config.json": b"{}", "assets/words.txt": b"cat\n", "model.weights.h5": b"\x89HDF" * 100}
OUTSIDE = ["../evil", "/etc/evil", "a/../../evil", "..\\evil", "C:evil", "a/\0b"]


def zip_of(path: Path, files: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", method) as package:
        for name, content in files.items():
            package.writestr(name, content)
    return path


@pytest.mark.parametrize(
    ("packed", "suffixes", "suffix"),
    [
        (True, (".onnx", ".zip"), ".zip"),
        (False, (".onnx", ".zip"), ".onnx"),
        (True, (".keras",), ".keras"),
        (True, (".zip", ".tar.gz"), ".zip"),
    ],
)
def test_the_file_decides_which_suffix_it_gets(
    packed: bool, suffixes: tuple[str, ...], suffix: str, tmp_path: Path
) -> None:
    path = tmp_path / "result.onnx"
    zip_of(path, FILES) if packed else path.write_bytes(b"\x08\x08")
    assert archive.suffix_of(path, suffixes) == suffix


def tar_of(path: Path, files: dict[str, bytes], mode: str = "w:gz") -> Path:
    with tarfile.open(path, mode) as package:  # type: ignore[call-overload]
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            package.addfile(info, io.BytesIO(content))
    return path


def tar_entry(path: Path, **fields: object) -> Path:
    with tarfile.open(path, "w") as package:
        info = tarfile.TarInfo("model/link")
        for name, value in fields.items():
            setattr(info, name, value)
        package.addfile(info)
    return path


def unpacked(path: Path, folder: Path) -> dict[str, bytes]:
    archive.unpack(path, folder)
    return {
        item.relative_to(folder).as_posix(): item.read_bytes() for item in sorted(folder.rglob("*")) if item.is_file()
    }


def test_it_works(tmp_path: Path) -> None:
    path = zip_of(tmp_path / "a.zip", FILES)
    assert archive.container_of(path) == "zip"
    assert {member.name: member.size for member in archive.members(path)} == {k: len(v) for k, v in FILES.items()}
    assert unpacked(path, tmp_path / "out") == FILES


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz"])
def test_every_kind_of_tar(tmp_path: Path, mode: str) -> None:
    path = tar_of(tmp_path / "a.tar", {f"./{name}": content for name, content in FILES.items()}, mode)
    assert archive.container_of(path) == "tar"
    assert unpacked(path, tmp_path / "out") == FILES


@pytest.mark.parametrize("content", [b"", b"\0" * 2048, b"plain", b"\x1f\x8b broken", b"BZh9", b"\x89HDF\r\n\x1a\n"])
def test_other_bytes_are_a_plain_file(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "file"
    path.write_bytes(content)
    assert archive.container_of(path) == "file"


@pytest.mark.parametrize("name", OUTSIDE)
def test_zip_entries_stay_inside(tmp_path: Path, name: str) -> None:
    path = zip_of(tmp_path / "a.zip", {"config.json": b"{}"})
    path.write_bytes(_renamed(tmp_path, name))
    with pytest.raises(PathTraversal) as caught:
        archive.unpack(path, tmp_path / "out" / "deep")
    assert "points outside the archive" in caught.value.message
    assert not (tmp_path / "out").exists()


def _renamed(tmp_path: Path, name: str) -> bytes:
    """A ZIP whose only entry has a name that ``zipfile`` would clean up on writing."""
    placeholder = "x" * len(name)
    content = zip_of(tmp_path / "b.zip", {placeholder: b"evil"}).read_bytes()
    return content.replace(placeholder.encode(), name.encode())


@pytest.mark.parametrize("name", ["../evil", "/etc/evil", "a/../../evil"])
def test_tar_entries_stay_inside(tmp_path: Path, name: str) -> None:
    path = tar_of(tmp_path / "a.tar.gz", {name: b"evil"})
    with pytest.raises(PathTraversal):
        archive.unpack(path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE, tarfile.BLKTYPE])
def test_links_and_devices_in_a_tar_are_refused(tmp_path: Path, kind: bytes) -> None:
    path = tar_entry(tmp_path / "a.tar", type=kind, linkname="/etc/passwd")
    with pytest.raises(UnsafeContent, match="only plain files"):
        archive.members(path)


def test_links_in_a_zip_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as package:
        info = zipfile.ZipInfo("model/link")
        info.external_attr = (stat.S_IFLNK | 0o777) << 16
        package.writestr(info, "/etc/passwd")
    with pytest.raises(UnsafeContent, match="only plain files"):
        archive.members(path)


def test_a_name_given_twice_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as package:
        package.writestr("config.json", "{}")
        with pytest.warns(UserWarning, match="Duplicate name"):
            package.writestr("config.json", '{"evil": 1}')
    with pytest.raises(UnsafeContent, match="twice"):
        archive.members(path)


@pytest.mark.parametrize("names", [["a", "a/b"], ["a/b", "a"]])
def test_a_file_cannot_be_a_folder_too(tmp_path: Path, names: list[str]) -> None:
    path = tar_of(tmp_path / "a.tar", dict.fromkeys(names, b"x"), "w")
    with pytest.raises(UnsafeContent, match="as a file and as a folder"):
        archive.members(path)


def test_what_desktops_add_is_left_out(tmp_path: Path) -> None:
    path = zip_of(tmp_path / "a.zip", {"m/config.json": b"{}", "__MACOSX/m/._config.json": b"x", "m/.DS_Store": b"x"})
    assert [member.name for member in archive.members(path)] == ["m/config.json"]
    assert unpacked(path, tmp_path / "out") == {"m/config.json": b"{}"}


SMALL = Bounds(entries=5, total_bytes=2**16, ratio=10, free_bytes=2**14, name_chars=50)


@pytest.mark.parametrize("make", [zip_of, tar_of])
@pytest.mark.parametrize(
    ("files", "limit"),
    [
        ({f"{number}": b"" for number in range(6)}, "5 files"),
        ({"a": os.urandom(2**17)}, "more than 6.10352e-05 GiB"),
        ({"a": b"\0" * 40_000}, "10 times its size"),
    ],
    ids=["entries", "size", "ratio"],
)
def test_bombs_are_refused(tmp_path: Path, make: type, files: dict[str, bytes], limit: str) -> None:
    path = make(tmp_path / "bomb", files)
    with pytest.raises(ArchiveBomb) as caught:
        archive.unpack(path, tmp_path / "out", bounds=SMALL)
    assert limit in caught.value.message


def test_a_long_name_is_refused(tmp_path: Path) -> None:
    path = zip_of(tmp_path / "a.zip", {"x/" * 30 + "y": b""})
    with pytest.raises(UnsafeContent, match="a name of 61 characters"):
        archive.members(path, bounds=SMALL)


def test_a_tar_header_cannot_fill_the_memory(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    info = tarfile.TarInfo("pax")
    info.type, info.size = tarfile.XHDTYPE, 2**33
    path.write_bytes(info.tobuf(tarfile.GNU_FORMAT) + b"\0" * 10_240)
    with pytest.raises(CorruptFile, match="extended header"):
        archive.members(path)


def test_an_encrypted_zip_is_refused(tmp_path: Path) -> None:
    content = bytearray(zip_of(tmp_path / "a.zip", {"a": b"x"}, zipfile.ZIP_STORED).read_bytes())
    content[6] |= 1
    content[content.rfind(b"PK\x01\x02") + 8] |= 1
    (tmp_path / "a.zip").write_bytes(content)
    with pytest.raises(UnsafeContent, match="encrypted"):
        archive.members(tmp_path / "a.zip")


def test_two_readers_must_see_the_same(tmp_path: Path) -> None:
    """A header that disagrees with the directory is how one tool is shown other bytes than the next."""
    content = bytearray(zip_of(tmp_path / "a.zip", {"a": b"xyz"}, zipfile.ZIP_STORED).read_bytes())
    content[22] += 1  # the size in the local header
    (tmp_path / "a.zip").write_bytes(content)
    with pytest.raises(CorruptFile, match="disagree"):
        archive.members(tmp_path / "a.zip")


@pytest.mark.parametrize("share", [0.3, 0.6, 0.9, 0.99])
@pytest.mark.parametrize("make", [zip_of, tar_of])
def test_a_truncated_archive_says_so(tmp_path: Path, make: type, share: float) -> None:
    path = make(tmp_path / "a", {"a.bin": os.urandom(5_000), "b.bin": os.urandom(5_000)})
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(CorruptFile) as caught:
        archive.unpack(path, tmp_path / "out")
    assert "Compare its size with the original" in caught.value.message


def test_a_changed_byte_is_noticed(tmp_path: Path) -> None:
    path = zip_of(tmp_path / "a.zip", {"a": b"abc" * 50}, zipfile.ZIP_STORED)
    path.write_bytes(path.read_bytes().replace(b"abcabc", b"abcabd", 1))
    with pytest.raises(CorruptFile, match="CRC"):
        archive.unpack(path, tmp_path / "out")


def test_messages_call_the_archive_by_its_name(tmp_path: Path) -> None:
    path = tmp_path / "3f9a"
    path.write_bytes(b"PK\x03\x04 cut off")
    with pytest.raises(CorruptFile, match=r"^my model\.keras is damaged"):
        archive.members(path, "my model.keras")


def test_packing_is_reproducible(tmp_path: Path) -> None:
    for number, order in enumerate([sorted(FILES), sorted(FILES, reverse=True)]):
        folder = tmp_path / str(number)
        for name in order:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(FILES[name])
            os.utime(folder / name, (number * 1e6, number * 1e6))
        archive.pack(folder, tmp_path / f"{number}.zip")
    assert (tmp_path / "0.zip").read_bytes() == (tmp_path / "1.zip").read_bytes()
    assert unpacked(tmp_path / "0.zip", tmp_path / "out") == FILES


def test_packing_leaves_links_out(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text("{}", encoding="utf-8")
    (folder / "passwd").symlink_to("/etc/passwd")
    archive.pack(folder, tmp_path / "a.zip")
    assert [member.name for member in archive.members(tmp_path / "a.zip")] == ["config.json"]


NAMES = st.text(
    st.characters(codec="utf-8", exclude_characters="/\\\0:", exclude_categories=["Cc", "Cf", "Zl", "Zp"]),
    min_size=1,
    max_size=20,
).filter(lambda name: not archive._misleads(name))
ALIKE = archive._looks


@settings(deadline=None, max_examples=40)
@given(
    st.lists(
        st.tuples(NAMES, st.binary(max_size=3_000)), min_size=1, max_size=6, unique_by=lambda pair: ALIKE(pair[0])
    ).map(dict)
)
def test_what_is_packed_comes_out(tmp_path_factory: pytest.TempPathFactory, files: dict[str, bytes]) -> None:
    folder = tmp_path_factory.mktemp("pack")
    sources = []
    for number, (name, content) in enumerate(files.items()):
        (folder / str(number)).write_bytes(content)
        sources.append((f"m/{name}", folder / str(number)))
    archive.pack_files(sources, folder / "a.zip")
    kept = {f"m/{name}": content for name, content in files.items() if not _is_desktops(name)}
    assert unpacked(folder / "a.zip", folder / "out") == kept


def _is_desktops(name: str) -> bool:
    return name in (".DS_Store", "Thumbs.db")


@settings(deadline=None, max_examples=150)
@given(
    st.sampled_from(["zip", "tar", "gz"]), st.lists(st.tuples(st.integers(0, 2_000), st.integers(0, 255)), max_size=12)
)
def test_damage_of_any_kind_is_a_known_error(
    tmp_path_factory: pytest.TempPathFactory, kind: str, changes: list[tuple[int, int]]
) -> None:
    """Whatever bytes are changed, either it is unpacked or a LarderError says why not; nothing lands outside."""
    folder = tmp_path_factory.mktemp("damage")
    made = {"zip": lambda: zip_of(folder / "a", FILES), "tar": lambda: tar_of(folder / "a", FILES, "w"), "gz": None}[
        kind
    ]
    path = made() if made else tar_of(folder / "a", FILES, "w:gz")
    content = bytearray(path.read_bytes())
    for place, value in changes:
        content[place % len(content)] = value
    path.write_bytes(content)
    if archive.container_of(path) != "file":
        with suppress(LarderError):
            archive.unpack(path, folder / "out")
    assert {item.name for item in folder.iterdir()} <= {"a", "out"}
