"""A folder is one model where only one can be meant, and is refused with the candidates' names where not."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

import pytest

from tests.worker import files
from tests.worker.opcodes import HARMLESS
from worker import archive, intake
from worker.bundle import Bundle, gather
from worker.candidates import MOST_PAIRS, choose, find
from worker.errors import LarderError, UnreadablePath

CODE = b"raise SystemExit('nobody runs this here')\n"
NOISE = {"expected.npz": files.RECORDED_NPZ, "README.md": b"# notes", "history.csv": b"1,2\n", ".DS_Store": b"x"}
PAIR = {"architecture.json": files.ARCHITECTURE.encode(), "w.npz": files.NPZ}
GRAPH = {"saved_model.pb": files.GRAPH, "assets/words.txt": b"a", **files.VARIABLES}
JSON, YAML = files.ARCHITECTURE.encode(), files.YAML_ARCHITECTURE.encode()
ZIPPED_CHECKPOINT = files.zipped(files.CHECKPOINT)
TF1 = {"model.ckpt-9.meta": b"graph", "model.ckpt-9.index": b"i", "model.ckpt-9.data-00000-of-00001": b"d"}
SHARDS = {"group1-shard1of2.bin": b"1", "group1-shard2of2": b"2"}
CORE_ML = {"Manifest.json": files.MANIFEST.encode(), "Data/com.apple.CoreML/model.mlmodel": b"\x08\x07"}
UNPACKED = {"config.json": files.ARCHITECTURE.encode(), "metadata.json": b"{}", "model.weights.h5": files.WEIGHTS_3}


def folder_of(path: Path, contents: Mapping[str, bytes]) -> Path:
    for name, content in contents.items():
        target = path / "given" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)
    return path / "given"


def gathered(path: Path, contents: Mapping[str, bytes]) -> Bundle:
    (path / "scratch").mkdir()
    return gather(folder_of(path, contents), path / "scratch")


def archived(path: Path, contents: Mapping[str, bytes]) -> Bundle:
    (path / "scratch").mkdir()
    (path / "given.zip").write_bytes(files.zipped(contents))
    return gather(path / "given.zip", path / "scratch")


def slug_of(bundle: Bundle) -> str:
    return intake.recognise(intake.take_sample(bundle.path, bundle.name))[0].slug


def test_it_works(tmp_path: Path) -> None:
    bundle = gathered(tmp_path, {**PAIR, **NOISE, "custom_objects.py": CODE})
    assert bundle.name == "given"
    assert bundle.code == tmp_path / "given" / "custom_objects.py"
    assert [member.name for member in archive.members(bundle.path)] == ["architecture.json", "weights.npz"]
    assert slug_of(bundle) == "json_npz"


@pytest.mark.parametrize(
    ("contents", "slug"),
    [
        ({"model.keras": files.KERAS}, "keras"),
        ({"model.keras": files.KERAS, "custom_objects.py": CODE}, "keras"),
        ({"model.keras": files.KERAS, "model.pkl": HARMLESS}, "keras"),
        ({"model.pkl": HARMLESS}, "pickle"),
        ({"deep/down/model.h5": files.WHOLE_H5}, "h5"),
        ({"m.json": files.ARCHITECTURE.encode(), "m.weights.h5": files.WEIGHTS_3}, "weights_h5"),
        ({"m.json": files.ARCHITECTURE.encode(), "old.h5": files.WEIGHTS_2}, "weights_h5"),
        ({"m.json": files.ARCHITECTURE.encode(), "w.npz": files.NPZ, "metadata.json": b"{}"}, "json_npz"),
        (GRAPH, "saved_model"),
        ({f"export/1/{name}": content for name, content in GRAPH.items()}, "saved_model"),
        (UNPACKED, "keras"),
        ({f"model/{name}": content for name, content in UNPACKED.items()}, "keras"),
        ({"m.yaml": YAML, "w.npz": files.NPZ}, "json_npz"),
        ({"m.json": JSON, "m.yaml": YAML, "w.npz": files.NPZ}, "json_npz"),
        ({"m.json": JSON, "w.safetensors": files.SAFETENSORS}, "json_safetensors"),
        ({"m.json": JSON, "model_weights.npy": files.OBJECTS}, "json_pickle"),
        ({"m.json": JSON, "weights.joblib": HARMLESS}, "json_pickle"),
        ({"m.json": JSON, "w.npz": files.NPZ, "tokenizer.pkl": HARMLESS}, "json_npz"),
        ({"m.json": JSON, **files.CHECKPOINT}, "checkpoint"),
        ({"m.yaml": YAML, **files.CHECKPOINT}, "checkpoint"),
        ({"m.json": JSON, "checkpoint.zip": ZIPPED_CHECKPOINT}, "checkpoint"),
        ({"m.json": JSON, **files.CHECKPOINT, "ckpt-1.index": b"i", "ckpt-1.data-00000-of-00001": b"d"}, "checkpoint"),
        ({"arch.txt": JSON, "w.npz": files.NPZ}, "json_npz"),
        ({"m.json": json.dumps(files.ARCHITECTURE).encode(), "w.npz": files.NPZ}, "json_npz"),
        ({"m.json": JSON, "weights": files.WEIGHTS_3}, "weights_h5"),
        ({name.rpartition("/")[2]: content for name, content in GRAPH.items()}, "saved_model"),
        (TF1, "tf1_checkpoint"),
        ({"old.ckpt": b"values", "old.ckpt.meta": b"graph"}, "tf1_checkpoint"),
        ({"graph.pbtxt": b'node {\n  name: "v"\n  op: "VariableV2"\n}\n', **TF1}, "tf1_checkpoint"),
        (
            {"web/model.json": files.TFJS.encode(), **{f"web/{name}": data for name, data in SHARDS.items()}},
            "tfjs_layers",
        ),
        ({"model.xml": files.OPENVINO, "model.bin": b"weights"}, "openvino"),
        ({"m.onnx": files.ONNX_BESIDE, "model.data": b"weights"}, "onnx"),
        ({f"m.mlpackage/{name}": content for name, content in CORE_ML.items()}, "coreml"),
        (CORE_ML, "coreml"),
    ],
)
@pytest.mark.parametrize("noise", [{}, NOISE], ids=["alone", "among others"])
@pytest.mark.parametrize("packed", [False, True], ids=["folder", "archive"])
def test_one_model(
    tmp_path: Path, contents: Mapping[str, bytes], noise: Mapping[str, bytes], slug: str, packed: bool
) -> None:
    """A dropped folder and an archive of it mean the same."""
    together = {**contents, **noise}
    assert slug_of(archived(tmp_path, together) if packed else gathered(tmp_path, together)) == slug


@pytest.mark.parametrize(
    ("contents", "code", "words"),
    [
        ({"a.keras": files.KERAS, "b.h5": files.WHOLE_H5}, "ambiguous-format", "a.keras, b.h5"),
        ({**PAIR, "model.keras": files.KERAS}, "ambiguous-format", "model.keras, architecture.json with w.npz"),
        (
            {**PAIR, "w2.npz": files.NPZ},
            "ambiguous-format",
            "architecture.json with w.npz, architecture.json with w2.npz",
        ),
        (
            {"a/saved_model.pb": b"1", "b/saved_model.pb": b"2"},
            "ambiguous-format",
            "a/saved_model.pb, b/saved_model.pb",
        ),
        ({"m.json": files.ARCHITECTURE.encode(), "notes.txt": b"x"}, "incomplete-model", "the file with its weights"),
        ({"m.json": files.ARCHITECTURE.encode(), **NOISE}, "incomplete-model", "m.json"),
        ({"w.npz": files.NPZ, **NOISE}, "incomplete-model", "the architecture (.json) is missing"),
        (
            {"m.json": JSON, "a.pkl": HARMLESS, "b.pkl": HARMLESS},
            "ambiguous-format",
            "m.json with a.pkl, m.json with b.pkl",
        ),
        ({"m.json": JSON, "w.npz": files.NPZ, **files.CHECKPOINT}, "ambiguous-format", "m.json with ckpt-2"),
        ({"m.yaml": YAML, "notes.txt": b"x"}, "incomplete-model", "an architecture in YAML"),
        (files.CHECKPOINT, "incomplete-model", "a TensorFlow checkpoint, which holds only weights (ckpt-2)"),
        ({"m.json": JSON, "c.index": b"i", "c.data-00000-of-00002": b"d"}, "incomplete-model", "(1 of 2 .data files"),
        (
            {"c.meta": b"graph", "notes.txt": b"x"},
            "incomplete-model",
            "the checkpoint itself (.index and .data) is missing",
        ),
        ({"model.json": files.TFJS.encode(), "group1-shard2of2": b"2"}, "incomplete-model", "group1-shard1of2.bin is"),
        ({"model.xml": files.OPENVINO, "notes.txt": b"x"}, "incomplete-model", "model.bin is missing"),
        ({"m.onnx": files.ONNX_BESIDE, "notes.txt": b"x"}, "incomplete-model", "model.data is missing"),
        ({"notes.txt": b"x", "more.txt": b"y"}, "not-a-model", "a folder without a model in it"),
        ({".hidden": b"x"}, "not-a-model", "an empty folder"),
        ({"model.keras": files.KERAS[:-50], "README.md": b"x"}, "corrupt-file", "model.keras is damaged"),
    ],
)
def test_what_is_not_one_model_is_said(tmp_path: Path, contents: Mapping[str, bytes], code: str, words: str) -> None:
    with pytest.raises(LarderError) as caught:
        slug_of(gathered(tmp_path, contents))
    assert caught.value.code == code
    assert words in caught.value.message


def test_a_file_is_taken_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "model.keras"
    path.write_bytes(files.KERAS)
    (tmp_path / "custom_objects.py").write_bytes(CODE)
    assert gather(path, tmp_path) == Bundle(path, "model.keras", None)


def test_a_folder_of_links_is_a_model_too(tmp_path: Path) -> None:
    """As in the cache of a hub's client."""
    blobs = folder_of(tmp_path, UNPACKED)
    (tmp_path / "snapshot").mkdir()
    for name in UNPACKED:
        (tmp_path / "snapshot" / name).symlink_to(blobs / name)
    (tmp_path / "scratch").mkdir()
    assert slug_of(gather(tmp_path / "snapshot", tmp_path / "scratch")) == "keras"


def test_what_is_left_out_is_said(tmp_path: Path) -> None:
    bundle = gathered(tmp_path, {"model.keras": files.KERAS, "custom_objects.py": CODE, "README.md": b"x"})
    assert [finding.sentence for finding in bundle.findings] == ["Not a part of the model, and left out: README.md."]
    assert gather(tmp_path / "given" / "model.keras", tmp_path).findings == ()


def test_what_is_no_file_is_said(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path, reason in ((tmp_path / "no", "there is no such file or folder"), (tmp_path / "pipe", "not a plain file")):
        with pytest.raises(UnreadablePath, match=reason):
            gather(path, tmp_path)


def test_an_archive_of_one_model_stays_as_it_is(tmp_path: Path) -> None:
    for name, contents in {"pair.zip": PAIR, "saved.zip": GRAPH, "keras.zip": UNPACKED, "tf1.zip": TF1}.items():
        path, scratch = tmp_path / name, tmp_path / f"{name}.scratch"
        path.write_bytes(files.zipped({**contents, "README.md": b"x"}))
        scratch.mkdir()
        assert gather(path, scratch) == Bundle(path, name)


def test_the_only_model_of_an_archive_is_taken_out(tmp_path: Path) -> None:
    bundle = archived(tmp_path, {"m/model.h5": files.WHOLE_H5, "m/expected.npz": files.RECORDED_NPZ})
    assert (bundle.name, slug_of(bundle), bundle.left_out) == ("model.h5", "h5", ("m/expected.npz",))


@pytest.mark.parametrize("name", ["w.npz", "saved_model.tar.gz", "torch.pt"])
def test_what_is_known_by_its_members_is_not_unpacked(tmp_path: Path, name: str) -> None:
    contents = {
        "w.npz": files.NPZ,
        "saved_model.tar.gz": files.SAVED_MODEL,
        "torch.pt": files.zipped({"m/data.pkl": HARMLESS, "m/version": "3"}),
    }
    (tmp_path / name).write_bytes(contents[name])
    assert gather(tmp_path / name, tmp_path / "no such folder") == Bundle(tmp_path / name, name)


def test_archives_inside_are_opened_within_bounds(tmp_path: Path) -> None:
    bomb = files.zipped({"../../evil.index": b"x"})
    with pytest.raises(LarderError) as caught:
        gathered(tmp_path, {"m.json": JSON, "checkpoint.zip": bomb})
    assert caught.value.code == "path-traversal"


def test_a_path_in_a_text_leads_nowhere_else(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"s")
    beside = files.ONNX_BESIDE.replace(b"\x0amodel.data", b"\x09../secret")
    with pytest.raises(LarderError) as caught:
        gathered(tmp_path, {"m.onnx": beside, "notes.txt": b"x"})
    assert caught.value.code == "incomplete-model"


@pytest.mark.parametrize("names", ["d{0}/saved_model.pb", "d/m{0}.index", "d/m{0}.meta"])
def test_thousands_of_models_are_refused_as_several(tmp_path: Path, names: str) -> None:
    (tmp_path / "file").write_bytes(b"x")
    found = find({PurePosixPath(names.format(number)): tmp_path / "file" for number in range(10_000)})
    with pytest.raises(LarderError) as caught:
        choose(found, "many")
    assert caught.value.code in ("ambiguous-format", "incomplete-model")


def test_many_parts_are_not_all_paired(tmp_path: Path) -> None:
    content = {f"{number}.json": JSON for number in range(150)} | {f"{number}.npz": files.NPZ for number in range(150)}
    folder = folder_of(tmp_path, content)
    found = find({PurePosixPath(path.name): path for path in folder.iterdir()})
    assert len(found) == MOST_PAIRS
    with pytest.raises(LarderError, match=r"\.json with"):
        choose(found, "many")


def test_a_text_that_starts_lists_without_end_is_gone_over_once(tmp_path: Path) -> None:
    text = files.TFJS.encode().replace(b"{", b'{"paths":[' * 1_000_000, 1)
    with pytest.raises(LarderError, match=r"group1-shard1of2\.bin"):
        gathered(tmp_path, {"model.json": text, "notes.txt": b"x"})


def test_a_lonely_graph_names_its_other_half(tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(files.ONNX_BESIDE)
    with pytest.raises(LarderError, match=r"an ONNX graph, but model\.data is missing"):
        gather(tmp_path / "m.onnx", tmp_path)


@pytest.mark.parametrize("folder", ["", "soup/"])
@pytest.mark.parametrize("inside", [UNPACKED, PAIR, {"model.keras": files.KERAS}], ids=["unpacked", "pair", "whole"])
def test_code_in_an_archive_is_found_beside_the_model(tmp_path: Path, folder: str, inside: dict[str, bytes]) -> None:
    bundle = archived(
        tmp_path, {f"{folder}{name}": each for name, each in {**inside, "custom_objects.py": CODE}.items()}
    )
    assert bundle.code is not None
    assert (bundle.code.read_bytes(), bundle.code_name) == (CODE, f"{folder}custom_objects.py")
    assert bundle.left_out == ()
