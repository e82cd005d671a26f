"""Archives that two readers see differently, that name what they should not, or that grow."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import struct
import tarfile
import zipfile
from collections.abc import Callable, Iterator

from tests.attacks._attack import FINE, REFUSE, Attack, dense, keras, model, plain_weights, zipped

CONFIG = json.dumps(model(dense()))


def attacks() -> Iterator[Attack]:
    for slug, make in ZIPS.items():
        yield Attack(f"zip-{slug}", "model.keras", make, REFUSE)
    for slug, make in TARS.items():
        yield Attack(f"tar-{slug}", "model.tar", make, REFUSE)
    yield Attack("zip-honest", "model.keras", lambda: keras(model(dense())), FINE)
    yield Attack("zip-honest-accents", "model.keras", lambda: _with("notes/größe-模型.txt"), FINE)


def _with(name: str, content: bytes = b"x") -> bytes:
    return keras(model(dense()), more={name: content})


def _patched(find: bytes, put: bytes, which: int) -> bytes:
    """The honest file with one occurrence of some bytes changed."""
    data, place = bytearray(keras(model(dense()))), -1
    for _ in range(which + 1):
        place = data.index(find, place + 1)
    data[place : place + len(find)] = put
    return bytes(data)


def _central(data: bytes, name: bytes) -> int:
    """Where the directory's record of a member is."""
    place = data.index(b"PK\x01\x02")
    while data[place + 46 : place + 46 + len(name)] != name:
        place = data.index(b"PK\x01\x02", place + 4)
    return place


def _change(name: bytes, offset: int, put: bytes, local: bool = False) -> bytes:
    data = bytearray(keras(model(dense())))
    place = data.index(name) - 30 if local else _central(bytes(data), name)
    data[place + offset : place + offset + len(put)] = put
    return bytes(data)


def _overlapping() -> bytes:
    """Two members of other names that are the same bytes of the archive."""
    data = keras(model(dense()), more={"other.weights.h5": plain_weights()})
    changed = bytearray(data)
    at, of = _central(data, b"other.weights.h5"), _central(data, b"model.weights.h5")
    changed[at + 42 : at + 46] = changed[of + 42 : of + 46]
    return bytes(changed)


def _inside_another() -> bytes:
    """A member that lies inside the data of another one (as in zbsm.zip)."""
    inner = io.BytesIO()
    with zipfile.ZipFile(inner, "w") as archive:
        archive.writestr("b.txt", b"inner" * 100)
    data = keras(model(dense()), more={"a.bin": inner.getvalue(), "b.txt": b"inner" * 100})
    changed = bytearray(data)
    at = _central(data, b"b.txt")
    inside = data.index(b"PK\x03\x04", data.index(b"a.bin") + 1)
    changed[at + 42 : at + 46] = struct.pack("<L", inside)
    return bytes(changed)


def _hidden() -> bytes:
    """A member that the directory does not list: readers that stream see it, others do not."""
    data = keras(model(dense()), more={"hidden.py": b"import os"})
    at = _central(data, b"hidden.py")
    name, extra, comment = struct.unpack("<HHH", data[at + 28 : at + 34])
    length = 46 + name + extra + comment
    end = data.rindex(b"PK\x05\x06")
    left = bytearray(data[:at] + data[at + length :])
    end -= length
    count, size = struct.unpack("<HL", left[end + 10 : end + 16])
    left[end + 8 : end + 16] = struct.pack("<HHL", count - 1, count - 1, size - length)
    return bytes(left)


def _two_directories() -> bytes:
    """An end record in the comment of the end record: readers disagree on which one counts."""
    data = keras(model(dense()))
    end = data.rindex(b"PK\x05\x06")
    again = data[end:]
    return data[: end + 20] + struct.pack("<H", len(again)) + again


def _zip64_lie() -> bytes:
    """A size in the extra field of the header that is not the directory's."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("metadata.json", '{"keras_version": "3.8.0"}')
        archive.writestr("config.json", CONFIG)
        with archive.open("model.weights.h5", "w", force_zip64=True) as file:
            file.write(plain_weights())
    data = bytearray(buffer.getvalue())
    at = bytes(data).index(b"model.weights.h5") + len(b"model.weights.h5")
    data[at + 4 : at + 20] = struct.pack("<QQ", 2**60, 2**60)
    return bytes(data)


def _unicode_path() -> bytes:
    """Info-ZIP's extra field that gives the member another name."""
    info = zipfile.ZipInfo("weights.txt")
    other = b"../../outside.txt"
    info.extra = struct.pack("<HHBL", 0x7075, 5 + len(other), 1, 0) + other
    buffer = io.BytesIO(keras(model(dense())))
    with zipfile.ZipFile(buffer, "a") as archive:
        archive.writestr(info, b"x")
    return buffer.getvalue()


def _folder_with_data() -> bytes:
    """A folder that holds bytes: some readers write a file."""
    data = bytearray(keras(model(dense()), more={"folder_": b"hidden code" * 10}))
    while (at := bytes(data).find(b"folder_")) >= 0:
        data[at : at + 7] = b"folder/"
    return bytes(data)


def _deep(levels: int) -> bytes:
    inner = keras(model(dense()))
    for _ in range(levels):
        inner = zipped({"inner.zip": inner})
    return inner


def _nested_bomb() -> bytes:
    """Each layer within the ratio, all of them together far beyond it."""
    zeros = zipped({"zeros.bin": bytes(60 * 1024 * 1024)}, zipfile.ZIP_DEFLATED)
    more = {f"part-{number}.zip": zeros for number in range(40)}
    return keras(model(dense()), more={"assets/all.zip": zipped(more, zipfile.ZIP_DEFLATED)})


def _bomb_beside() -> bytes:
    """A packed member that says it is small and is not (its header and the directory agree)."""
    data = keras(model(dense()))
    buffer = io.BytesIO(data)
    with zipfile.ZipFile(buffer, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("assets/zeros.txt", bytes(8_000_000))
    grown = bytearray(buffer.getvalue())
    for at in (bytes(grown).index(b"assets/zeros.txt") - 8, _central(bytes(grown), b"assets/zeros.txt") + 24):
        grown[at : at + 4] = struct.pack("<L", 10)
    return bytes(grown)


ZIPS: dict[str, Callable[[], bytes]] = {
    "name-differs": lambda: _patched(b"config.json", b"config.jsom", 0),
    "method-differs": lambda: _change(b"config.json", 8, b"\x08\0", local=True),
    "sizes-later-lie": lambda: _change(b"config.json", 6, b"\x08\0", local=True),
    "overlapping": _overlapping,
    "inside-another": _inside_another,
    "hidden-member": _hidden,
    "two-directories": _two_directories,
    "zip64-lie": _zip64_lie,
    "unicode-path": _unicode_path,
    "folder-with-data": _folder_with_data,
    "right-to-left": lambda: _with("assets/\u202egnp.exe"),
    "zero-width": lambda: _with("config\u200b.json"),
    "normalised-twice": lambda: keras(model(dense()), more={"a/é.txt": b"1", "a/e\u0301.txt": b"2"}),
    "full-width-twice": lambda: _with("ｃonfig.json", CONFIG.encode()),
    "case-twice": lambda: _with("Config.JSON", CONFIG.encode()),
    "control-character": lambda: _with("assets/a\nb.txt"),
    "nul": lambda: _patched(b"metadata.json", b"metadata\0json", 1),
    "stream-name": lambda: _with("config.json:stream"),
    "device-name": lambda: _with("assets/CON"),
    "trailing-dot": lambda: _with("config.json."),
    "division-slash": lambda: _with("..\u2215..\u2215outside.txt"),
    "encrypted": lambda: _change(b"config.json", 8, b"\x01\0"),
    "strongly-encrypted": lambda: _change(b"config.json", 8, b"\x41\0"),
    "unknown-method": lambda: _change(b"config.json", 10, b"\x63\0"),
    "device": lambda: _change(b"config.json", 38, struct.pack("<L", 0o020666 << 16)),
    "beyond-the-end": lambda: _change(b"config.json", 42, struct.pack("<L", 0x7FFFFFF0)),
    "thirty-deep": lambda: keras(model(dense()), more={"assets/a.zip": _deep(30)}),
    "nested-bomb": _nested_bomb,
    "longer-than-said": _bomb_beside,
}


def _tar(*entries: tuple[str, bytes | dict[str, object]]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name, content in entries:
            info = tarfile.TarInfo(name)
            for key, value in content.items() if isinstance(content, dict) else ():
                setattr(info, key, value)
            data = content if isinstance(content, bytes) else b""
            info.size = info.size or len(data)
            archive.addfile(info, io.BytesIO(data) if data else None)
    return buffer.getvalue()


def _model_tar(*more: tuple[str, bytes | dict[str, object]]) -> bytes:
    files = [("metadata.json", b"{}"), ("config.json", CONFIG.encode()), ("model.weights.h5", plain_weights())]
    return _tar(*files, *more)


def _huge_size() -> bytes:
    """A base-256 size of 2^60 in the last header."""
    data = bytearray(_model_tar(("last.bin", b"x")))
    at = bytes(data).index(b"last.bin")
    data[at + 124 : at + 136] = b"\x80" + bytes(3) + (2**60).to_bytes(8, "big")
    data[at + 148 : at + 156] = b" " * 8
    total = sum(data[at : at + 512])
    data[at + 148 : at + 156] = b"%06o\0 " % total
    return bytes(data)


TARS: dict[str, Callable[[], bytes]] = {
    "hard-link": lambda: _model_tar(("b.json", {"type": tarfile.LNKTYPE, "linkname": "/etc/passwd"})),
    "fifo": lambda: _model_tar(("pipe", {"type": tarfile.FIFOTYPE})),
    "device": lambda: _model_tar(("zero", {"type": tarfile.CHRTYPE, "devmajor": 1, "devminor": 5})),
    "pax-path": lambda: _model_tar(("a.txt", {"pax_headers": {"path": "../../outside.txt"}})),
    "pax-size": lambda: _model_tar(("a.txt", {"pax_headers": {"size": str(2**50)}})),
    "pax-negative": lambda: _model_tar(("a.txt", {"pax_headers": {"size": "-512"}})),
    "pax-link": lambda: _model_tar(("a.txt", {"type": tarfile.SYMTYPE, "pax_headers": {"linkpath": "/etc/passwd"}})),
    "sparse": lambda: _model_tar(
        ("a.txt", {"pax_headers": {"GNU.sparse.major": "1", "GNU.sparse.realsize": str(2**50)}})
    ),
    "huge-size": _huge_size,
    "twice": lambda: _model_tar(("config.json", b"{}")),
    "case-twice": lambda: _model_tar(("CONFIG.json", b"{}")),
    "right-to-left": lambda: _model_tar(("assets/\u202egnp.exe", b"x")),
    "normalised-twice": lambda: _model_tar(("a/é.txt", b"1"), ("a/e\u0301.txt", b"2")),
    "unknown-kind": lambda: _model_tar(("a.txt", {"type": b"Z"})),
    "appended": lambda: _model_tar() + _tar(("config.json", b"{}")),
    "zip-behind-gzip": lambda: gzip.compress(_model_tar()) + keras(model(dense())),
    "zip-behind-bzip2": lambda: bz2.compress(_model_tar()) + keras(model(dense())),
    "zip-behind-xz": lambda: lzma.compress(_model_tar()) + keras(model(dense())),
    "zip-behind-zeros": lambda: lzma.compress(_model_tar()) + bytes(300_000) + keras(model(dense())),
}
