"""A folder is one model where only one can be meant, and is refused with the candidates' names where not."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.worker import files
from tests.worker.opcodes import HARMLESS
from worker import archive, intake
from worker.bundle import Bundle, gather
from worker.errors import LarderError, UnreadablePath

CODE = b"raise SystemExit('nobody runs this here')\n"
NOISE = {"expected.npz": files.RECORDED_NPZ, "README.md": b"# notes", "history.csv": b"1,2\n", ".DS_Store": b"x"}
PAIR = {"architecture.json": files.ARCHITECTURE.encode(), "w.npz": files.NPZ}
GRAPH = {"saved_model.pb": files.GRAPH, "assets/words.txt": b"a", **files.VARIABLES}
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
    ],
)
@pytest.mark.parametrize("noise", [{}, NOISE], ids=["alone", "among others"])
def test_one_model(tmp_path: Path, contents: Mapping[str, bytes], noise: Mapping[str, bytes], slug: str) -> None:
    assert slug_of(gathered(tmp_path, {**contents, **noise})) == slug


@pytest.mark.parametrize(
    ("contents", "code", "words"),
    [
        ({"a.keras": files.KERAS, "b.h5": files.WHOLE_H5}, "ambiguous-format", "a.keras, b.h5"),
        ({**PAIR, "model.keras": files.KERAS}, "ambiguous-format", "model.keras, architecture.json with w.npz"),
        ({**PAIR, "w2.npz": files.NPZ}, "ambiguous-format", "architecture.json, w.npz, w2.npz"),
        ({"a/saved_model.pb": b"1", "b/saved_model.pb": b"2"}, "ambiguous-format", "saved_model.pb, saved_model.pb"),
        ({"m.json": files.ARCHITECTURE.encode(), "notes.txt": b"x"}, "incomplete-model", "the file with its weights"),
        ({"m.json": files.ARCHITECTURE.encode(), **NOISE}, "incomplete-model", "m.json"),
        ({"w.npz": files.NPZ, **NOISE}, "incomplete-model", "the architecture (.json) is missing"),
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
