"""What somebody sent is recognised by its bytes, and whatever is no model is called what it is."""

from __future__ import annotations

import gzip
import io
import tarfile
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.worker import files
from tests.worker.opcodes import HARMLESS
from worker import formats, intake
from worker.errors import LarderError, UploadError
from worker.formats._format import Sample


def take(tmp_path: Path, name: str, content: bytes) -> Sample:
    path = tmp_path / "stored"  # as in the store: the name is what people gave, the path says nothing
    path.write_bytes(content)
    return intake.take_sample(path, name)


def recognise(tmp_path: Path, name: str, content: bytes) -> str:
    return intake.recognise(take(tmp_path, name, content))[0].slug


def refusal(tmp_path: Path, name: str, content: bytes) -> LarderError:
    with pytest.raises(UploadError) as caught:
        recognise(tmp_path, name, content)
    return caught.value


def tarred(entries: Mapping[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, content in entries.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def below(prefix: str, entries: Mapping[str, bytes | str]) -> dict[str, bytes | str]:
    return {f"{prefix}{name}": content for name, content in entries.items()}


def test_it_works(tmp_path: Path) -> None:
    found, because = intake.recognise(take(tmp_path, "model.keras", files.KERAS))
    assert found.slug == "keras"
    assert because == "a ZIP archive with metadata.json, config.json and model.weights.h5"


SAVED = {"saved_model.pb": files.GRAPH, **files.VARIABLES}


@pytest.mark.parametrize(
    ("name", "content", "slug"),
    [
        ("a.keras", files.KERAS, "keras"),
        ("a.h5", files.KERAS, "keras"),
        ("a.h5", files.WHOLE_H5, "h5"),
        ("a.keras", files.WHOLE_H5, "h5"),
        ("a", files.WHOLE_H5, "h5"),
        ("a.zip", files.SAVED_MODEL, "saved_model"),
        ("a.zip", files.zipped(below("deep/down/", SAVED)), "saved_model"),
        ("a.tar.gz", tarred(SAVED), "saved_model"),
        ("a.tgz", tarred(below("./m/", SAVED)), "saved_model"),  # type: ignore[arg-type]
        ("a.zip", files.zipped({"saved_model.pb": files.CONSTANT_GRAPH}), "saved_model"),
        ("a.zip", files.zipped({"architecture.json": files.ARCHITECTURE, "weights.npz": files.NPZ}), "json_npz"),
        ("a.zip", files.zipped({"my.json": files.ARCHITECTURE, "my.weights.h5": files.WEIGHTS_3}), "weights_h5"),
        ("a.zip", files.zipped({"m/my.json": files.ARCHITECTURE, "m/w.h5": files.WEIGHTS_2}), "weights_h5"),
        ("a.keras", HARMLESS, "pickle"),
        ("a.joblib", gzip.compress(HARMLESS), "pickle"),
    ],
)
def test_bytes_decide(tmp_path: Path, name: str, content: bytes, slug: str) -> None:
    assert recognise(tmp_path, name, content) == slug


@pytest.mark.parametrize(
    ("name", "content", "code", "words"),
    [
        ("a.keras", b"", "empty-file", "a.keras is empty"),
        ("a.zip", files.zipped({}), "corrupt-file", "holds no files"),
        ("a.zip", files.zipped({"config.json": b"", "model.weights.h5": b""}), "corrupt-file", "0 bytes"),
        ("a.keras", files.HTML, "not-a-model", "a.keras is an HTML page"),
        ("a.keras", files.lfs_pointer(), "not-a-model", f"a Git-LFS pointer to sha256 {'ab' * 32} (98.0 MB)"),
        ("a.keras", files.KERAS[:-100], "corrupt-file", "the ZIP archive is cut off"),
        (
            "a.json",
            files.ARCHITECTURE.encode(),
            "incomplete-model",
            "an architecture in JSON, but the file with its weights",
        ),
        (
            "a.zip",
            files.zipped({"a.json": files.ARCHITECTURE}),
            "incomplete-model",
            "the file with its weights is missing",
        ),
        ("w.npz", files.NPZ, "incomplete-model", "2 NumPy arrays, but the architecture (.json) is missing"),
        ("w.npy", files.NPY, "incomplete-model", "one NumPy array, but the architecture"),
        (
            "w.weights.h5",
            files.WEIGHTS_3,
            "incomplete-model",
            "weights in HDF5, but the architecture (.json) is missing",
        ),
        ("w.h5", files.WEIGHTS_2, "incomplete-model", "weights in HDF5"),
        ("w.zip", files.zipped({"w.weights.h5": files.WEIGHTS_3}), "incomplete-model", "weights in HDF5"),
        (
            "s.zip",
            files.zipped({"m/saved_model.pb": files.GRAPH}),
            "incomplete-model",
            "its variables/ folder is missing",
        ),
        ("s.zip", files.zipped(files.VARIABLES), "incomplete-model", "saved_model.pb is missing"),
        ("saved_model.pb", files.GRAPH, "incomplete-model", "the folder around it (variables/, assets/)"),
        (
            "s.zip",
            files.zipped({"saved_model.pb": files.GRAPH, "variables/variables.index": b"i"}),
            "incomplete-model",
            "part of variables/ (0 of 1 data files are there)",
        ),
        (
            "s.zip",
            files.zipped({"saved_model.pb": files.GRAPH, "variables/variables.data-00000-of-00001": b"d"}),
            "incomplete-model",
            "variables/variables.index is missing",
        ),
        (
            "c.zip",
            files.zipped({"checkpoint": b"x", "ckpt-1.index": b"i", "ckpt-1.data-00000-of-00001": b"d"}),
            "incomplete-model",
            "a TensorFlow checkpoint, which holds only weights",
        ),
        (
            "two.zip",
            files.zipped({**below("a/", SAVED), **below("b/", SAVED)}),
            "ambiguous-format",
            "a/saved_model.pb and b/saved_model.pb",
        ),
        (
            "s.zip",
            files.zipped({"saved_model.pb": files.GRAPH, "variables/variables.index": files.lfs_pointer()}),
            "not-a-model",
            "an archive in which variables/variables.index is a Git-LFS pointer",
        ),
        (
            "m.yaml",
            files.YAML_ARCHITECTURE.encode(),
            "incomplete-model",
            "an architecture in YAML, but the file with its",
        ),
        ("model.json", files.TFJS.encode(), "incomplete-model", "the model.json of a TensorFlow.js model"),
        ("m.xml", files.OPENVINO, "incomplete-model", "the .bin file with its weights is missing"),
        ("c.index", b"\x00\x01i", "incomplete-model", "the index of a TensorFlow checkpoint, but its .data file is"),
        ("c.data-00000-of-00001", b"\x00\x01d", "incomplete-model", "the data of a TensorFlow checkpoint"),
        ("c.meta", b"\x0a\x01\x02", "incomplete-model", "the graph of a TensorFlow 1 checkpoint"),
        ("a.h5", files.hdf5("temperature"), "not-a-model", "an HDF5 file without a Keras model in it"),
        ("a.bin", b"\x17\x2a\x00\xff\x00\x01", "unknown-format", "the bytes 17 2a 00 ff"),
        ("a.zip", files.zipped({"notes.txt": "hello"}), "not-a-model", "a ZIP archive with notes.txt"),
    ],
)
def test_bad_input_is_named(tmp_path: Path, name: str, content: bytes, code: str, words: str) -> None:
    error = refusal(tmp_path, name, content)
    assert error.code == code
    assert words in error.message
    assert name in error.message


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (b"GGUF\x03\0\0\0", "a GGUF model"),
        (files.zipped({"m/data.pkl": HARMLESS, "m/version": "3"}), "a PyTorch file"),
        (
            files.zipped({"export.meta": b"g", "checkpoint": b"c", "export-00000-of-00001": b"v"}),
            "a session bundle, which TensorFlow wrote before SavedModel",
        ),
        (files.HDF5 + bytes(100), "an HDF5 file without a Keras model in it"),
        (b"%PDF-1.7\n", "a PDF document"),
        (b"\x89PNG\r\n\x1a\n" + bytes(9), "an image"),
        (b"\xff\xd8\xff\xe0" + bytes(9), "an image"),
        (b"sepal,petal\n5.1,3.5\n", "a table of text (CSV)"),
        (b"import keras\n\nmodel = 1\n", "Python source code"),
        (b'{"cells": [], "nbformat": 4}', "a Jupyter notebook"),
        (b'{"error": "Not Found"}', "JSON without a Keras architecture"),
        (b"7z\xbc\xaf\x27\x1c" + bytes(9), "a 7z archive"),
        (gzip.compress(b"some text"), "a compressed file"),
        (files.zipped({"[Content_Types].xml": "<x/>", "word/document.xml": "<x/>"}), "an Office document"),
        ("Grüße, ".encode() * 2000, "a text file"),
    ],
)
def test_foreign_files_are_called_what_they_are(tmp_path: Path, content: bytes, found: str) -> None:
    error = refusal(tmp_path, "file.bin", content)
    assert error.code == "not-a-model"
    assert f"file.bin is {found}, not a model that Larder reads. " in error.message


@pytest.mark.parametrize("slug", formats.formats())
def test_the_archive_of_one_format_is_no_other(tmp_path: Path, slug: str) -> None:
    """Each sniffer refuses every other format's sample."""
    samples = {
        "keras": files.KERAS,
        "h5": files.WHOLE_H5,
        "saved_model": files.SAVED_MODEL,
        "json_npz": files.zipped({"architecture.json": files.ARCHITECTURE, "weights.npz": files.NPZ}),
        "weights_h5": files.zipped({"architecture.json": files.ARCHITECTURE, "w.weights.h5": files.WEIGHTS_3}),
        "pickle": HARMLESS,
    }
    accepted = [name for name, content in samples.items() if formats.get(slug).sniff(take(tmp_path, "file", content))]
    assert accepted == ([slug] if slug in samples else [])


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("a.keras", files.WHOLE_H5, "The name ends in .keras, but the content is HDF5 model."),
        ("a.h5", files.KERAS, "The name ends in .h5, but the content is Keras."),
        ("a.keras", HARMLESS, "The name ends in .keras, but the content is Pickle."),
    ],
)
def test_a_misleading_suffix_is_noted(tmp_path: Path, name: str, content: bytes, sentence: str) -> None:
    sample = take(tmp_path, name, content)
    finding = intake.suffix_finding(sample, intake.recognise(sample)[0])
    assert finding is not None
    assert finding.sentence.startswith(sentence)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.keras", files.KERAS),
        ("A.KERAS", files.KERAS),
        ("a.zip", files.KERAS),
        ("a", files.KERAS),
        ("m.pkl", HARMLESS),
    ],
)
def test_a_fitting_suffix_is_not(tmp_path: Path, name: str, content: bytes) -> None:
    sample = take(tmp_path, name, content)
    assert intake.suffix_finding(sample, intake.recognise(sample)[0]) is None


def test_markers_are_found_across_blocks(tmp_path: Path) -> None:
    content = files.HDF5 + bytes(intake.MIB - len(files.HDF5) - 6) + b"model_config" + bytes(100)
    assert take(tmp_path, "a.h5", content).hdf5[""] == {"model_config"}


def test_a_huge_file_is_scanned_at_both_ends_only(tmp_path: Path) -> None:
    path = tmp_path / "big.h5"
    with path.open("wb") as file:  # sparse: 8 GiB that are not there
        file.write(files.HDF5)
        file.seek(4 * 2**30)
        file.write(b"training_config")
        file.seek(8 * 2**30)
        file.write(b"model_config")
    assert intake.take_sample(path, "big.h5").hdf5[""] == {"model_config"}


def test_texts_are_those_that_look_like_json(tmp_path: Path) -> None:
    content = files.zipped({"a.json": '\ufeff {"x": 1}', "b.txt": "no", "c.json": "[1]" + " " * 70_000, "d": b"\xff{"})
    texts = take(tmp_path, "a.zip", content).texts
    assert set(texts) == {"a.json", "c.json"}
    assert len(texts["c.json"]) == intake.HEAD


def test_texts_are_also_architectures_in_yaml(tmp_path: Path) -> None:
    content = files.zipped({"m/a.yaml": files.YAML_ARCHITECTURE, "other.yaml": "class_name_of: 1\nconfig: 2\n"})
    assert list(take(tmp_path, "a.zip", content).texts) == ["m/a.yaml"]


@pytest.mark.parametrize("packed", [False, True])
def test_keys_are_found_far_from_the_start(tmp_path: Path, packed: bool) -> None:
    text = f'{{"modelTopology": {{"node": "{"x" * 300_000}"}}, "weightsManifest": []}}'
    sample = take(tmp_path, "model.json", files.zipped({"m/model.json": text}) if packed else text.encode())
    assert list(sample.json_keys.values()) == [{"modelTopology", "weightsManifest"}]


def test_a_refusal_escapes_hostile_names(tmp_path: Path) -> None:
    error = refusal(tmp_path, "a.zip", files.zipped({"../\x1b[2Jevil" + "x" * 300: b"x"}))
    assert "\x1b" not in error.message
    assert len(error.message) < 300


def test_the_corpus_is_recognised(shared: Path) -> None:
    """Every kind of file that this Larder knows, written by ten releases of TensorFlow; with pickles as pickles."""
    slugs = {"model.keras": {"keras", "h5"}, "model.h5": {"h5"}, "model.pkl": {"pickle"}}
    graphs = ("savedmodel_keras.zip", "savedmodel_export.tar.gz", "saved_model.zip")
    slugs |= {name: {"saved_model"} for name in graphs}
    wrong = []
    for path in (path for name in slugs for path in sorted((shared / "corpus").glob(f"*/*/{name}"))):
        found = intake.recognise(intake.take_sample(path, path.name))[0].slug
        wrong += [(str(path), found)] if found not in slugs[path.name] else []
    assert wrong == []
