"""A pickle that can only be data: proven opcode by opcode, read back, and refused as soon as anything else is in it."""

from __future__ import annotations

import pickle as standard
import pickletools
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.formats.models import assert_same, convert, load, made, pack
from tests.worker.opcodes import OS_SYSTEM
from worker import formats, intake
from worker.errors import CorruptFile, PickledCode
from worker.formats import data_pickle
from worker.formats._format import Hop

MADE = Callable[[str, str], Path]
# What the documentation of pickletools says of opcodes that can do more than make plain data
CALLING = {
    *("GLOBAL", "STACK_GLOBAL", "INST", "OBJ", "NEWOBJ", "NEWOBJ_EX", "REDUCE", "BUILD", "EXT1", "EXT2", "EXT4"),
    *("PERSID", "BINPERSID", "NEXT_BUFFER", "READONLY_BUFFER"),
}


def written(made_file: MADE, folder: Path, kind: str = "dense") -> Path:
    path, _ = convert("h5", "data_pickle", made_file(kind, "h5"), folder)
    return path


def test_it_works(made_file: MADE, tmp_path: Path) -> None:
    path = written(made_file, tmp_path / "a", "several")
    sample = intake.take_sample(path, path.name)
    assert [item.slug for item in formats.matches(sample)] == ["data_pickle"]
    assert_same(load("keras", made_file("several", "keras"), tmp_path / "b"), load("data_pickle", path, tmp_path / "c"))
    inputs = formats.get("data_pickle").inspect(path, tmp_path).inputs
    assert [spec.name for spec in inputs] == ["left", "right", "kind"]


def test_its_opcodes_make_plain_data_and_nothing_else(made_file: MADE, tmp_path: Path) -> None:
    content = written(made_file, tmp_path).read_bytes()
    names = {op.name for op, _, _ in pickletools.genops(content)}
    assert names & CALLING == set()
    assert names <= data_pickle.ALLOWED
    assert data_pickle.ALLOWED.isdisjoint(CALLING)


def test_python_reads_it_as_plain_data(made_file: MADE, tmp_path: Path) -> None:
    """The one pickle that the tests open: it has just been proven to hold nothing that runs."""
    content = standard.loads(written(made_file, tmp_path).read_bytes())  # noqa: S301
    assert {key: type(value) for key, value in content.items()} == {
        "format": str,
        "version": int,
        "keras_version": str,
        "sha256": str,
        "keras_archive": bytes,
    }
    again = tmp_path / "again.pkl"  # with frames and memo, as Python itself writes it
    again.write_bytes(standard.dumps(content))
    assert data_pickle.sniff(intake.take_sample(again, "again.pkl"))
    assert data_pickle.take_out(again, tmp_path / "x").read_bytes() == content["keras_archive"]


def test_a_keras_file_is_wrapped_as_it_is(made_file: MADE, tmp_path: Path) -> None:
    source = made_file("dense", "keras")
    path, codes = convert("keras", "data_pickle", source, tmp_path / "a")
    assert data_pickle.take_out(path, tmp_path).read_bytes() == source.read_bytes()
    assert codes == []


def test_an_older_keras_file_is_rebuilt_first(tmp_path: Path) -> None:
    import tf_keras

    model = tf_keras.Sequential([tf_keras.layers.Dense(3, input_shape=(2,))], name="old")
    model.save(tmp_path / "old.keras")
    path, codes = convert("keras", "data_pickle", tmp_path / "old.keras", tmp_path / "a")
    assert "rebuilt" in codes
    assert_same(load("keras", tmp_path / "old.keras", tmp_path / "b"), load("data_pickle", path, tmp_path / "c"))


def test_an_unpacked_keras_folder_is_wrapped_as_a_keras_file(made_file: MADE, tmp_path: Path) -> None:
    import zipfile

    with zipfile.ZipFile(made_file("dense", "keras")) as archive:
        files = {f"deep/{name}": archive.read(name) for name in archive.namelist()}
    folder = pack(
        tmp_path / "folder.zip", **{name.replace("/", "___").replace(".", "__"): files[name] for name in files}
    )
    path, _ = convert("keras", "data_pickle", folder, tmp_path / "a")
    assert_same(load("keras", folder, tmp_path / "b"), load("data_pickle", path, tmp_path / "c"))


@pytest.mark.parametrize("place", ["behind", "instead"])
def test_any_other_opcode_is_refused(place: str, made_file: MADE, tmp_path: Path) -> None:
    content = written(made_file, tmp_path).read_bytes()
    path = tmp_path / "evil.pkl"
    path.write_bytes(content + OS_SYSTEM if place == "behind" else content[:-1] + OS_SYSTEM[2:])
    assert data_pickle.sniff(intake.take_sample(path, "evil.pkl"))
    for reader in (formats.get("data_pickle").inspect, formats.get("data_pickle").load):
        assert reader
        with pytest.raises(PickledCode):
            reader(path, tmp_path)


def test_changed_bytes_are_noticed(made_file: MADE, tmp_path: Path) -> None:
    content = bytearray(written(made_file, tmp_path).read_bytes())
    content[len(content) // 2] ^= 1
    path = tmp_path / "changed.pkl"
    path.write_bytes(content)
    with pytest.raises(CorruptFile, match="SHA-256"):
        data_pickle.take_out(path, tmp_path / "x")
    path.write_bytes(content[:-2])
    with pytest.raises(CorruptFile):
        data_pickle.take_out(path, tmp_path / "x")


def test_an_ordinary_pickle_is_not_one(tmp_path: Path) -> None:
    path = tmp_path / "other.pkl"
    for held in ({"format": "something"}, ["larder-data-pickle"], {"a": 1, "format": "larder-data-pickle"}):
        path.write_bytes(standard.dumps(held))
        assert [item.slug for item in formats.matches(intake.take_sample(path, "other.pkl"))] == ["pickle"]


def test_the_state_of_the_optimizer_is_kept(tmp_path: Path) -> None:
    model = made("dense")
    model.compile("adam", "mse")
    model.save(tmp_path / "trained.keras")
    path, codes = convert("keras", "data_pickle", tmp_path / "trained.keras", tmp_path / "a")
    assert codes == []
    assert data_pickle.take_out(path, tmp_path).read_bytes() == (tmp_path / "trained.keras").read_bytes()


def test_writing_is_the_same_twice(made_file: MADE, tmp_path: Path) -> None:
    for name in ("one", "two"):
        data_pickle.wrap_keras(made_file("dense", "keras"), tmp_path / name, Hop(tmp_path))
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
