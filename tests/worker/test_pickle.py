"""Pickles are recognised and read as programs; what they would import is told, and none of it happens."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import sys
import zipfile
import zlib
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.worker import opcodes
from tests.worker.opcodes import HARMLESS, INST_SYSTEM, OLD_SYSTEM, OS_SYSTEM, call, protocol, stack_global, text
from worker import formats, intake
from worker.errors import ArchiveBomb, CorruptFile
from worker.formats import pickle
from worker.formats._format import Sample
from worker.report import Finding, Severity

NPY = b"\x93NUMPY\x01\x00\x46\x00{'descr': '|O', 'fortran_order': False, 'shape': (2,), }".ljust(79) + b"\n"


def sample(content: bytes, name: str = "model.pkl") -> Sample:
    return Sample(name, len(content), content[:65_536])


def read(tmp_path: Path, content: bytes) -> tuple[tuple[str, ...], tuple[Finding, ...]]:
    path = tmp_path / "model.pkl"
    path.write_bytes(content)
    return pickle.inspect(path, tmp_path).imports, pickle.findings(path, tmp_path)


def keras_archive() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("metadata.json", "{}")
        archive.writestr("config.json", json.dumps({"class_name": "Sequential", "config": {}}))
    return buffer.getvalue()


def test_it_works(tmp_path: Path) -> None:
    path = tmp_path / "model.pkl"
    path.write_bytes(OS_SYSTEM)
    taken = intake.take_sample(path, "model.pkl")
    found, because = intake.recognise(taken)
    assert found.slug == "pickle"
    assert because == "a file that starts with the bytes 80 04 8c 05 70 6f 73 69"
    imports, findings = read(tmp_path, OS_SYSTEM)
    assert imports == ("posix.system",)
    assert [(item.code, item.severity) for item in findings] == [("pickle-import-dangerous", Severity.DANGER)]
    assert "posix.system: it can start programs" in findings[0].sentence


@pytest.mark.parametrize(
    "content",
    [
        HARMLESS,
        OS_SYSTEM,
        OLD_SYSTEM,
        INST_SYSTEM,
        protocol(2, b"}q\x00."),
        b"(lp0\nI1\naI2\na.",
        b"(dp0\n.",
        b"]q\x00.",
        OLD_SYSTEM[:-1] + b"\xff broken after the call",
        zlib.compress(OS_SYSTEM),
        gzip.compress(HARMLESS),
        bz2.compress(HARMLESS),
        lzma.compress(HARMLESS),
        lzma.compress(HARMLESS, lzma.FORMAT_ALONE),
        NPY + HARMLESS,
    ],
)
def test_pickles_are_recognised(content: bytes) -> None:
    assert pickle.sniff(sample(content))
    assert [item.slug for item in formats.matches(sample(content))] == ["pickle"]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b".",
        b"plain text with a full stop.",
        b"col1,col2\n1,2\n0.5,1.0\n",
        b"c,a,b\n1,2\n.\n",
        b"import os\nos.system('true')\n",
        b"from keras import layers\n",
        b"(hello) world.",
        b"<!doctype html><html></html>",
        b'{"class_name": "Sequential", "config": {}}',
        b"version https://git-lfs.github.com/spec/v1\n",
        b"%PDF-1.7\n",
        b"\x89PNG\r\n\x1a\n",
        b"GIF89a" + bytes(50),
        b"\x89HDF\r\n\x1a\n" + bytes(100),
        b"\x80\x09 no such protocol",
        b"\x93NUMPY\x01\x00v\x00{'descr': '<f4', 'fortran_order': False, 'shape': (2,), }\n",
        gzip.compress(b"a text"),
        zlib.compress(b"a text"),
    ],
)
def test_other_bytes_are_not(content: bytes) -> None:
    assert not pickle.sniff(sample(content))


def test_an_archive_is_no_pickle() -> None:
    assert not pickle.sniff(Sample("a.zip", 10, HARMLESS, container="zip"))


@pytest.mark.parametrize(
    ("content", "imports"),
    [
        (OLD_SYSTEM, ("posix.system",)),
        (INST_SYSTEM, ("posix.system",)),
        (protocol(4, stack_global("os", "system") + b"0" + stack_global("a.b", "C")), ("os.system", "a.b.C")),
        (protocol(4, text("os") + text("system") + b"00h\x00h\x01\x93"), ("os.system",)),  # only from the memo
        (protocol(4, text("x") + text("os") + b"(" + text("y") + b"1" + text("system") + b"\x93"), ("os.system",)),
        (protocol(4, call("m", "f") + text("name") + b"\x93"), ("m.f", "?.name")),  # computed while it runs
        (protocol(2, b"\x82\x07"), ("copyreg.extension.7",)),
        (protocol(2, b"}0N") + OS_SYSTEM, ("posix.system",)),  # a second pickle after the first
        (protocol(4, text("é") + text("ü") + b"\x93"), ("é.ü",)),
    ],
)
def test_every_import_is_listed(tmp_path: Path, content: bytes, imports: tuple[str, ...]) -> None:
    assert read(tmp_path, content)[0] == imports


@pytest.mark.parametrize(
    ("name", "severity"),
    [
        ("os.system", Severity.DANGER),
        ("posix.system", Severity.DANGER),
        ("subprocess.Popen", Severity.DANGER),
        ("builtins.eval", Severity.DANGER),
        ("builtins.getattr", Severity.DANGER),
        ("__builtin__.exec", Severity.DANGER),
        ("numpy.testing._private.utils.runstring", Severity.DANGER),
        ("keras.src.utils.file_utils.os.system", Severity.DANGER),
        ("keras.src.models.sys.modules", Severity.DANGER),
        ("?.system", Severity.DANGER),
        ("builtins.dict", Severity.NOTE),
        ("numpy.dtype", Severity.NOTE),
        ("keras.src.models.functional.Functional", Severity.NOTE),
        ("collections.OrderedDict", Severity.NOTE),
        ("my_project.layers.Attention", Severity.WARNING),
        ("numpy.anything", Severity.WARNING),
    ],
)
def test_how_dangerous_an_import_is(tmp_path: Path, name: str, severity: Severity) -> None:
    module, _, attribute = name.rpartition(".")
    if module == "?":
        content = protocol(4, call("m", "f") + text(attribute) + b"\x93")
    else:
        content = protocol(4, stack_global(module, attribute))
    findings = {item.data["import_name"]: item.severity for item in read(tmp_path, content)[1]}
    assert findings[name] is severity


def test_the_dangerous_ones_come_first(tmp_path: Path) -> None:
    content = protocol(4, stack_global("numpy", "dtype") + stack_global("mine", "thing") + stack_global("os", "system"))
    assert [item.severity for item in read(tmp_path, content)[1]] == ["danger", "warning", "note"]


def test_a_long_list_is_cut_and_counted(tmp_path: Path) -> None:
    imports, findings = read(tmp_path, protocol(4, b"".join(stack_global("m", f"f{n}") for n in range(70))))
    assert len(imports) == 70
    assert len(findings) == 51
    assert findings[-1].sentence.startswith("Opening this pickle would import 20 further names")


def test_a_keras_file_inside_is_told(tmp_path: Path) -> None:
    findings = read(tmp_path, opcodes.keras_pickle(keras_archive()))[1]
    assert "pickle-holds-keras" in [item.code for item in findings]


def test_what_follows_broken_opcodes_is_searched(tmp_path: Path) -> None:
    """joblib writes the bytes of arrays between the opcodes; a broken pickle has run by the time it breaks."""
    content = HARMLESS[:-1] + b"\xfe" * 3_000 + call("posix", "system", "true") + b"\xff"
    imports, findings = read(tmp_path, content)
    assert imports == ("posix.system",)
    assert findings[-1].code == "pickle-breaks-off"
    assert "the byte fe is no opcode" in findings[-1].sentence


@pytest.mark.parametrize("compress", [zlib.compress, gzip.compress, bz2.compress, lzma.compress])
def test_compressed_pickles_are_read(tmp_path: Path, compress: type) -> None:
    assert read(tmp_path, compress(OS_SYSTEM))[0] == ("posix.system",)


def test_an_array_of_objects_is_read(tmp_path: Path) -> None:
    assert read(tmp_path, NPY + OS_SYSTEM)[0] == ("posix.system",)


def test_a_compressed_bomb_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pickle, "MAX_UNPACKED", 2**20)
    with pytest.raises(ArchiveBomb):
        read(tmp_path, zlib.compress(bytes(2**22)))


def test_a_broken_compression_is_told(tmp_path: Path) -> None:
    content = bytearray(gzip.compress(OS_SYSTEM * 50))
    content[60:80] = bytes(20)
    with pytest.raises(CorruptFile):
        read(tmp_path, bytes(content))


def test_a_deep_pickle_is_walked_flat(tmp_path: Path) -> None:
    assert read(tmp_path, protocol(2, b"(" * 200_000))[0] == ()


def test_long_arguments_are_skipped_not_read(tmp_path: Path) -> None:
    path = tmp_path / "model.pkl"
    with path.open("wb") as file:  # a sparse file: 3 GiB that are not there
        file.write(b"\x80\x04\x8e" + (3 * 2**30).to_bytes(8, "little"))
        file.seek(3 * 2**30, 1)
        file.write(stack_global("os", "system") + b".")
    assert pickle.inspect(path, tmp_path).imports == ("os.system",)


def test_reading_imports_nothing(tmp_path: Path) -> None:
    before = set(sys.modules)
    assert read(tmp_path, protocol(4, call("this", "s") + call("antigravity", "fly"))) != ((), ())
    assert {"this", "antigravity"} & (set(sys.modules) - before) == set()


@settings(deadline=None, max_examples=300)
@given(st.binary(max_size=400))
@example(b"\x80\x04\x8d\xff\xff\xff\xff\xff\xff\xff\xff")
@example(b"\x8a\x05")
@example(b"\x8b\xff\xff\xff\xff")
@example(b"\x80\x04g-1\n.")
def test_any_bytes_are_answered(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    """No bytes make the reader fail in an unknown way, whether or not they were recognised."""
    pickle.sniff(sample(content))
    folder = tmp_path_factory.mktemp("bytes")
    with suppress(CorruptFile, ArchiveBomb):
        read(folder, b"\x80\x04" + content)
        read(folder, content)


def test_hostile_pickles_of_the_corpus(shared: Path, tmp_path: Path) -> None:
    """Every pickle there names what it would import; none of them is opened."""
    folder = shared / "hostile" / "files"
    expected = {
        "pk01.pkl": "posix.system",
        "pk06.pkl": "posix.system",
        "pk08.pkl": "numpy.testing._private.utils.runstring",
        "pk09.pkl": "importlib.import_module",
        "pk10.joblib": "posix.system",
        "pk13.pkl": "keras.src.utils.file_utils.os.system",
        "pk14.pkl": "timeit.timeit",
        "pk18.pkl.gz": "posix.system",
        "jb02.joblib": "posix.system",
        "np01.npy": "posix.system",
        "rs05.pkl": "posix.system",
    }
    present = {name: read(tmp_path, (folder / name).read_bytes())[0] for name in expected if (folder / name).exists()}
    assert {name: name_ for name, name_ in expected.items() if name in present and name_ not in present[name]} == {}
