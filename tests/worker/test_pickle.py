"""Pickles are recognised and read as programs; what they would import is told, and none of it happens."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import io
import json
import lzma
import pickle as standard
import sys
import zipfile
import zlib
from collections import OrderedDict, defaultdict, deque
from contextlib import suppress
from pathlib import Path
from typing import Any

import lz4.frame  # type: ignore[import-untyped]
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.worker import opcodes
from tests.worker.opcodes import (
    COMPRESSIONS,
    HARMLESS,
    INST_SYSTEM,
    OLD_SYSTEM,
    OS_SYSTEM,
    call,
    protocol,
    stack_global,
    text,
)
from worker import formats, intake
from worker.errors import ArchiveBomb, CorruptFile, LarderError, ModelError
from worker.formats import _pickles, _pickles_machine, _pickles_models, _pickles_plain, _pickles_weights, pickle
from worker.formats._format import Sample
from worker.formats._pickles_values import chunks_of
from worker.report import Finding, Severity

NPY = b"\x93NUMPY\x01\x00\x46\x00{'descr': '|O', 'fortran_order': False, 'shape': (2,), }".ljust(79) + b"\n"


def sample(content: bytes, name: str = "model.pkl") -> Sample:
    return Sample(name, len(content), content[:65_536])


def read(tmp_path: Path, content: bytes) -> tuple[tuple[str, ...], tuple[Finding, ...]]:
    path = tmp_path / "model.pkl"
    path.write_bytes(content)
    return pickle.inspect(path, tmp_path).imports, pickle.findings(path, tmp_path)


def noise(size: int) -> bytes:
    return np.random.default_rng(3).bytes(size)


def keras_archive() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("metadata.json", "{}")
        archive.writestr("config.json", json.dumps({"class_name": "Sequential", "config": {}}))
        archive.writestr("model.weights.h5", noise(3_000))
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
        lz4.frame.compress(HARMLESS),
        lz4.frame.compress(OS_SYSTEM, content_checksum=True, store_size=False),
        lz4.frame.compress(protocol(4, b"\x95" + (70_000).to_bytes(8, "little") + b"](" + b"K\x01" * 35_000 + b"e")),
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
        lz4.frame.compress(b"a text"),
        lz4.frame.compress(OS_SYSTEM)[:9],
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


def test_what_follows_broken_opcodes_is_searched(tmp_path: Path) -> None:
    """joblib writes the bytes of arrays between the opcodes; a broken pickle has run by the time it breaks."""
    content = HARMLESS[:-1] + b"\xfe" * 3_000 + call("posix", "system", "true") + b"\xff"
    imports, findings = read(tmp_path, content)
    assert imports == ("posix.system",)
    assert findings[-1].code == "pickle-breaks-off"
    assert "the byte fe is no opcode" in findings[-1].sentence


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_compressed_pickles_are_read(tmp_path: Path, compression: str) -> None:
    assert read(tmp_path, COMPRESSIONS[compression](OS_SYSTEM))[0] == ("posix.system",)


def test_parts_compressed_one_after_the_other_are_one_file(tmp_path: Path) -> None:
    assert read(tmp_path, gzip.compress(OS_SYSTEM[:9]) + gzip.compress(OS_SYSTEM[9:]))[0] == ("posix.system",)


def test_a_file_that_breaks_off_inside_of_its_compression_is_damaged(tmp_path: Path) -> None:
    with pytest.raises(CorruptFile):
        read(tmp_path, gzip.compress(OS_SYSTEM * 90)[:-20])


def test_an_array_of_objects_is_read(tmp_path: Path) -> None:
    assert read(tmp_path, NPY + OS_SYSTEM)[0] == ("posix.system",)


def test_a_compressed_bomb_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_pickles_plain, "MAX_UNPACKED", 2**20)
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


# The data in it --------------------------------------------------------------------------------------------------

PROTOCOLS = range(standard.HIGHEST_PROTOCOL + 1)


def contents(folder: Path, content: bytes) -> _pickles.Contents:
    path = folder / "data.pkl"
    path.write_bytes(content)
    return _pickles.read(path, folder)


def arrays(folder: Path, content: bytes) -> dict[str, np.ndarray]:
    contents(folder, content)
    return dict(_pickles.arrays(folder / "data.pkl", folder))


def found_in(folder: Path, content: bytes) -> list[_pickles_models.Found]:
    contents(folder, content)
    return _pickles_models.models(folder / "data.pkl", folder)


def everything(folder: Path, content: bytes) -> None:
    """All that reading a pickle can come to."""
    for found in found_in(folder, content):
        found.stored(folder).weights()
    read(folder, content)
    list(_pickles.arrays(folder / "data.pkl", folder))


@pytest.mark.parametrize("compression", COMPRESSIONS)
@pytest.mark.parametrize("number", PROTOCOLS)
def test_a_file_inside_comes_out_as_it_went_in(number: int, compression: str, tmp_path: Path) -> None:
    archive = keras_archive()
    held = {"trained": True, "steps": [("scale", None), ("net", io.BytesIO(archive) if number > 1 else archive)]}
    found = found_in(tmp_path, COMPRESSIONS[compression](standard.dumps(held, number)))
    assert [(item.slug, item.digest) for item in found] == [("keras", hashlib.sha256(archive).hexdigest())]
    assert found[0].path
    assert found[0].path.read_bytes() == archive


@pytest.mark.parametrize("number", PROTOCOLS)
def test_long_bytes_of_every_value_are_exact(number: int, tmp_path: Path) -> None:
    """Every byte in every neighbourhood, longer than what is read at once: line ends, escapes, half characters."""
    archive = keras_archive() + noise(700_000) + bytes(range(256)) * 9 + b"\\" * 5_001
    value = contents(tmp_path, standard.dumps(archive, number)).roots[0]
    assert b"".join(chunks_of(value)) == archive


def test_a_string_of_python_2_with_escapes(tmp_path: Path) -> None:
    archive = keras_archive() + b"\\x41\\" + bytes(range(256)) * 3_000
    whole = contents(tmp_path, opcodes.python_2_pickle(archive)).roots[0].get("model_str")
    assert b"".join(chunks_of(whole)) == archive


def test_an_array_of_bytes_is_a_file_too(tmp_path: Path) -> None:
    """TensorFlow 2.8 kept its SavedModels that way, joblib between the opcodes."""
    archive = keras_archive()
    assert [item.slug for item in found_in(tmp_path, standard.dumps(np.frombuffer(archive, "u1")))] == ["keras"]
    size = b"J" + len(archive).to_bytes(4, "little") + b"\x85"
    content = protocol(4, opcodes.joblib_array("u1", size, archive))
    assert [item.slug for item in found_in(tmp_path, content)] == ["keras"]


def test_two_files_are_two_models_and_one_twice_is_one(tmp_path: Path) -> None:
    one, two = keras_archive(), keras_archive() + b" "
    assert len(found_in(tmp_path, standard.dumps([one, {"same": bytes(bytearray(one))}]))) == 1
    assert len(found_in(tmp_path, standard.dumps([one, two]))) == 2


@pytest.mark.parametrize("number", PROTOCOLS)
def test_arrays_are_read_as_they_were(number: int, tmp_path: Path) -> None:
    random_values = np.random.default_rng(number)
    given = {
        "f4": random_values.normal(size=(3, 4)).astype("f4"),
        "fortran": np.asfortranarray(random_values.normal(size=(5, 2, 3))),
        "big": np.arange(6, dtype=">i4").reshape(2, 3),
        "f2": np.ones((2, 2), "f2"),
        "bool": np.array([True, False]),
        "empty": np.zeros((0, 3), "f4"),
        "strided": np.arange(24.0).reshape(4, 6)[::2, ::3],
        "swapped": np.arange(24.0).reshape(2, 3, 4).transpose(1, 2, 0),
        "scalar": np.float64(2.5),
        "long": random_values.normal(size=200_000),
    }
    found = arrays(tmp_path, standard.dumps(given, number))
    assert list(found) == list(given)
    for name, value in given.items():
        np.testing.assert_array_equal(found[name], value)


def test_numpy_1_and_numpy_2_names_are_the_same(tmp_path: Path) -> None:
    content = standard.dumps([np.arange(3.0)], 2)
    assert b"numpy._core" in content
    np.testing.assert_array_equal(arrays(tmp_path, content.replace(b"numpy._core", b"numpy.core"))["0"], np.arange(3.0))


@pytest.mark.parametrize("alignment", [True, False])
def test_joblib_arrays_between_the_opcodes(tmp_path: Path, alignment: bool) -> None:
    values = np.arange(6, dtype="<f4").reshape(2, 3)
    first = opcodes.joblib_array("f4", b"K\x02K\x03\x86", values.tobytes(), alignment=alignment)
    second = opcodes.joblib_array("f4", b"K\x02K\x03\x86", values.tobytes("F"), order="F", alignment=alignment)
    content = protocol(4, b"](" + first + second + stack_global("os", "system") + b"e")
    found = arrays(tmp_path, content)
    np.testing.assert_array_equal(found["0"], values)
    np.testing.assert_array_equal(found["1"], values)
    assert contents(tmp_path, content).problem == ""
    assert contents(tmp_path, content).imports[-1] == "os.system"


def test_an_object_array_of_joblib_is_a_pickle_between_the_opcodes(tmp_path: Path) -> None:
    inner = np.array([[np.ones(2)], [np.zeros(3)]], dtype=object)
    content = protocol(4, opcodes.joblib_array("O8", b"K\x02\x85", standard.dumps(inner, 2), alignment=False))
    assert {name: value.shape for name, value in arrays(tmp_path, content).items()} == {"0": (2,), "1": (3,)}


def test_containers_become_data(tmp_path: Path) -> None:
    counted: defaultdict[str, Any] = defaultdict(list, b=np.ones(2))
    held = [OrderedDict(a=np.ones(1)), counted, deque([np.ones(3)]), (np.ones(4), None, {1, 2})]
    for number in PROTOCOLS:
        assert list(arrays(tmp_path, standard.dumps(held, number))) == ["0/a", "1/b", "2/0", "3/0"]


def create_array() -> None:
    """Stands for dill's function of that name: a pickle holds only the name."""


class OfDill:
    """An array as dill pickles it."""

    def __reduce__(self) -> Any:
        return create_array, (*np.arange(3.0).__reduce__(), None)


def test_arrays_as_dill_writes_them(tmp_path: Path) -> None:
    content = standard.dumps([OfDill()], 2)
    ours, of_dill = f"c{__name__}\ncreate_array\n".encode(), b"cdill._dill\n_create_array\n"
    assert ours in content
    np.testing.assert_array_equal(arrays(tmp_path, content.replace(ours, of_dill))["0"], np.arange(3.0))


def test_arrays_of_wrong_sizes_are_refused(tmp_path: Path) -> None:
    content = standard.dumps(np.arange(3.0), 2).replace(b"K\x03\x85", b"K\x04\x85")
    with pytest.raises(ModelError, match="24 bytes of values, not 32"):
        arrays(tmp_path, content)


def test_an_array_that_would_be_too_large_for_anything(tmp_path: Path) -> None:
    content = standard.dumps(np.arange(3.0), 2).replace(b"K\x03\x85", b"\x8a\x08" + b"\xff" * 7 + b"\x7f\x85")
    assert arrays(tmp_path, content) == {}


# Hostile ones ----------------------------------------------------------------------------------------------------


def test_a_pickle_of_itself_ends(tmp_path: Path) -> None:
    held: list[Any] = [np.ones(2)]
    held.append(held)
    held.append({"again": held})
    assert list(arrays(tmp_path, standard.dumps(held))) == ["0"]


def test_values_shared_a_billion_times_are_refused_not_listed(tmp_path: Path) -> None:
    held: Any = [np.ones(2)]
    for _ in range(60):
        held = (held, held)
    content = standard.dumps(held)
    assert found_in(tmp_path, content) == []
    with pytest.raises(ModelError, match="too many values"):
        arrays(tmp_path, content)
    assert "numpy.ndarray" in read(tmp_path, content)[0]


def test_what_a_pickle_copies_again_and_again_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_pickles_machine, "ROOM", 10**6)
    body = b"](" + b"N" * 5_000 + b"e\x94" + b"0(" + (b"cbuiltins\nset\nh\x00\x85R" * 500) + b"l"
    assert contents(tmp_path, protocol(2, body)).imports == ("builtins.set",)
    assert "pickle-too-much" in [item.code for item in read(tmp_path, protocol(2, body))[1]]


def test_a_dictionary_of_keys_with_one_hash_is_read(tmp_path: Path) -> None:
    """Nothing of the pickle is ever hashed."""
    keys = b"".join(b"\x8a\x0a" + (number * (2**61 - 1)).to_bytes(10, "little") + b"N" for number in range(30_000))
    assert len(contents(tmp_path, protocol(2, b"}(" + keys + b"u")).roots[0].pairs) == 30_000


def test_an_architecture_beside_too_many_weights_is_told_apart_by_name(tmp_path: Path) -> None:
    text_of_it = json.dumps({"class_name": "Sequential", "config": {"name": "s", "layers": []}})
    held = {"model": text_of_it, "weights": [np.ones(2)], "history": [np.ones(9)], "x": np.ones((4, 4))}
    assert [item.words for item in found_in(tmp_path, standard.dumps(held))] == [
        "an architecture beside its weights (weights)"
    ]
    held = {"model": text_of_it, "first": [np.ones(2)], "second": [np.ones(9)]}
    assert len(found_in(tmp_path, standard.dumps(held))) == 2


@pytest.mark.parametrize(
    ("given", "kind"),
    [
        ([np.ones(2), np.ones(3)], "Flat"),
        ([[np.ones(2)], [], [np.ones(3)]], "Rows"),
        (np.array([[np.ones(2)], [np.ones(3), np.ones(1)]], dtype=object), "Rows"),
        ({"dense/kernel": np.ones((2, 3)), "dense/bias": np.ones(3)}, "Flat"),
        ({"dense": [np.ones((2, 3)), np.ones(3)], "out": []}, "Rows"),
        ({"dense": {"kernel": np.ones((2, 3)), "bias": np.ones(3)}}, "Rows"),
        (np.ones((3, 4, 4)), "Stacked"),
        (np.array([np.ones((2, 2)), np.ones((2, 2))], dtype=object), "Stacked"),
        ([1, 2, 3], None),
        (["a", np.ones(2)], None),
        ({}, None),
        ([], None),
        ([[], []], None),
    ],
)
def test_the_shapes_in_which_people_keep_weights(given: Any, kind: str | None, tmp_path: Path) -> None:
    found = _pickles_weights.weights_of(contents(tmp_path, standard.dumps(given)).roots[0])
    assert (type(found()).__name__ if found else None) == kind


def test_nothing_is_imported_for_it(tmp_path: Path) -> None:
    before = set(sys.modules)
    content = protocol(
        4, b"(" + call("this", "s") + call("antigravity", "fly") + call("keras.src.models", "Model") + b"t"
    )
    everything(tmp_path, content)
    assert {name for name in set(sys.modules) - before if name.startswith(("this", "antigravity", "keras"))} == set()


OPCODES = [name.encode("latin-1") for name in "(.012FIJKLMNPQRSTUVXabcd}eghijlopqrstu)]\x80\x81\x85\x86\x87\x88\x89"]
PIECES = st.sampled_from(
    [
        *OPCODES,
        *(
            b"\x8c\x01a",
            b"K\x01",
            b"h\x00",
            b"\x94",
            b"\x93",
            b"\x92",
            b"\x8f(\x90",
            b"\x91",
            b"C\x01a",
            b"\x95" + bytes(8),
        ),
        *(stack_global("numpy", "dtype") + text("f4") + b"\x89\x88\x87R", b"(K\x03" + text("<") + b"NNNK\x00tb"),
        *(stack_global("numpy._core.multiarray", "_reconstruct") + b")R", b"(K\x01K\x02\x85", b"\x89C\x08aaaaaaaatb"),
        *(stack_global("numpy._core.numeric", "_frombuffer"), stack_global("collections", "OrderedDict"), b"cm\nf\n"),
        *(stack_global("joblib.numpy_pickle", "NumpyArrayWrapper") + b")\x81", text("dtype"), text("shape"), b"V\\u\n"),
        *(stack_global("_codecs", "encode") + text("é") + text("latin1") + b"\x86R", b"S'\\x4\n", text("class_name")),
        *(text("config"), text("layers"), text("name"), text("model_config"), text("model_weights")),
    ]
)


@settings(deadline=None, max_examples=400)
@given(st.lists(PIECES, max_size=60))
def test_any_opcodes_are_answered(tmp_path_factory: pytest.TempPathFactory, pieces: list[bytes]) -> None:
    folder = tmp_path_factory.mktemp("ops")
    with suppress(LarderError):
        everything(folder, b"\x80\x04" + b"".join(pieces) + b".")


@settings(deadline=None, max_examples=300)
@given(st.binary(max_size=400))
@example(b"\x80\x04\x8d\xff\xff\xff\xff\xff\xff\xff\xff")
@example(b"\x8e" + b"\xff" * 7 + b"\x7f" + bytes(2_000))
@example(b"\x8e" + bytes(6) + b"\x01\x00" + bytes(2_000))
@example(b"\x8a\x05")
@example(b"\x8b\xff\xff\xff\xff")
@example(b"\x80\x04g-1\n.")
def test_any_bytes_are_answered(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    """No bytes make the reader fail in an unknown way, whether or not they were recognised."""
    pickle.sniff(sample(content))
    folder = tmp_path_factory.mktemp("bytes")
    for start in (b"", b"\x80\x04"):
        with suppress(LarderError):
            everything(folder, start + content)


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
