"""Intake without execution: what attacks is refused or needs consent, what is honest passes, and nothing is opened."""

from __future__ import annotations

import io
import json
import pickle
import random
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from bench.intake import ASKED, chosen, examine
from tests.attacks import attacks, graphs
from tests.attacks._attack import (
    CONSENT,
    FINE,
    NEVER_OPENED,
    REFUSE,
    Attack,
    dense,
    keras,
    layer,
    model,
    plain_weights,
    zipped,
)
from tests.formats.corpus import entries
from worker import intake, pipeline
from worker.errors import LarderError, UnsafeContent
from worker.formats import _keras_files, _regions, _strict_json
from worker.formats._format import Summary
from worker.formats._screen import _keras, _said, _table, screen
from worker.report import Finding, Severity, needing_consent, refusals
from worker.sandbox.client import Zygote
from worker.sandbox.limits import Limits

CASES = list(attacks())


def look(attack: Attack, folder: Path) -> tuple[str, str]:
    """The worst that is said of a file, and what is said; as an upload goes, but without a job."""
    path = folder / "upload"
    path.write_bytes(attack.make())
    try:
        item, _ = intake.recognise(intake.take_sample(path, attack.name))
        findings = screen(path, item.slug, folder / "scratch", attack.name)
    except LarderError as error:
        return REFUSE, error.message
    return worst(findings), " ".join(finding.sentence for finding in findings)


def worst(findings: list[Finding]) -> str:
    return REFUSE if refusals(findings) else CONSENT if needing_consent(findings) else FINE


def test_it_works(tmp_path: Path) -> None:
    path = tmp_path / "model.keras"
    path.write_bytes(keras(model(dense(), layer("system", "os", name="bad"))))
    (finding,) = screen(path, "keras", tmp_path / "scratch")
    assert finding.severity is Severity.REFUSE
    assert finding.sentence == (
        "config.json names os.system, which is no part of a model: it can start programs, run code, or read and write "
        "files. Expected: layers and other classes that Keras itself has, or classes of your own package with "
        "custom_objects.py. Save the model again with the library that made it, and upload that file."
    )


@pytest.mark.parametrize("attack", CASES, ids=[case.slug for case in CASES])
def test_every_attack_is_told(attack: Attack, tmp_path: Path) -> None:
    """Those that are pickles are never opened, whatever they hold: tests/worker/test_pickle.py."""
    found, said = look(attack, tmp_path)
    assert attack.expected in (found, NEVER_OPENED), said
    assert said or found == FINE


@pytest.mark.parametrize("slug", ["yaml-deep", "config-deep"])
def test_depth_is_bounded_where_a_library_raised_the_limit_of_recursion(slug: str, tmp_path: Path) -> None:
    attack, before = next(each for each in CASES if each.slug == slug), sys.getrecursionlimit()
    sys.setrecursionlimit(50_000)
    try:
        assert look(attack, tmp_path)[0] == REFUSE
    finally:
        sys.setrecursionlimit(before)


def test_no_two_attacks_are_called_the_same() -> None:
    assert len({case.slug for case in CASES}) == len(CASES)


def inspected(content: bytes, zygote: Zygote, folder: Path) -> pipeline.Inspection:
    path = folder / "upload"
    path.write_bytes(content)
    (folder / "job").mkdir(mode=0o700)
    return pipeline.inspect(zygote, path, "keras", folder / "job", Limits(), name="model.keras")


def test_a_refused_file_is_not_opened(zygote: Zygote, tmp_path: Path) -> None:
    """Its error is the first reason, and all reasons are findings."""
    bad = (layer("system", "os", name="bad"), layer("StringLookup", name="words", vocabulary="/etc/passwd"))
    seen = inspected(keras(model(dense(), *bad)), zygote, tmp_path)
    assert isinstance(seen.error, UnsafeContent)
    assert "Expected: " in seen.error.message
    assert len(refusals(seen.findings)) == 2
    assert (seen.summary, seen.weights) == (Summary(), "")


def test_a_file_that_needs_consent_is_described(zygote: Zygote, tmp_path: Path) -> None:
    seen = inspected(keras(model(dense(), layer("Gate", None, "Custom>Gate", name="gate"))), zygote, tmp_path)
    assert [(item.code, item.data["names"]) for item in needing_consent(seen.findings)] == [("custom-class", "Gate")]
    assert refusals(seen.findings) == []
    assert seen.summary.custom_objects == ("Gate",)


def test_code_in_the_settings_of_training_is_a_note(tmp_path: Path) -> None:
    """Nothing needs it, so that nobody has to agree to it."""
    code = {"class_name": "__lambda__", "config": {"code": "4wAAAAA="}}
    path = tmp_path / "model.keras"
    path.write_bytes(keras(model(dense(), compile_config={"loss": code, "optimizer": "adam"})))
    assert [item.code for item in screen(path, "keras", tmp_path / "scratch")] == ["training-code"]


def test_the_archive_that_was_screened_is_the_one_that_is_opened(tmp_path: Path) -> None:
    """A tar whose last file is a ZIP ends as a ZIP does, and is none."""
    path, inner = tmp_path / "model.keras", model(dense(name="other"))
    files = {"config.json": json.dumps(model(dense())).encode(), "model.weights.h5": plain_weights()}
    with tarfile.open(path, "w") as archive:
        for name, content in {**files, "last.keras": keras(inner)}.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    assert zipfile.is_zipfile(path)
    stored = _keras_files.read_keras(path, tmp_path / "scratch")
    assert "dense" in [layer["config"]["name"] for layer in stored.architecture.root["config"]["layers"]]


PADDING = {"padding.bin": bytes(_regions.IN_PLACE)}  # a stored member of that size is read where it lies


def screened(content: bytes, slug: str, folder: Path) -> list[Finding]:
    path = folder / "upload"
    path.write_bytes(content)
    return screen(path, slug, folder / "scratch")


def test_what_is_large_is_looked_at_as_well(tmp_path: Path) -> None:
    inner = keras(model(layer("TFSMLayer", filepath="/etc/x", name="bad")), more=PADDING)
    (finding,) = refusals(screened(keras(model(dense()), more={"inner.keras": inner}), "keras", tmp_path))[:1]
    assert "TFSMLayer" in finding.sentence


def test_a_large_pickle_beside_a_model_is_looked_at(tmp_path: Path) -> None:
    harmful = b"\x80\x02cos\nsystem\nU\x04trueR."
    held = pickle.dumps(bytes(_regions.IN_PLACE), 2)[:-1] + harmful[2:]
    assert refusals(screened(keras(model(dense()), more={"notes.pkl": held}), "keras", tmp_path))


def test_weights_of_a_graph_may_lie_in_the_archive(tmp_path: Path) -> None:
    """As Larder packs a folder: what does not shrink is stored."""
    files = dict(graphs._saved())
    shard = next(name for name in files if ".data-" in name)
    files[shard] += bytes(_regions.IN_PLACE)
    assert screened(zipped(files), "saved_model", tmp_path) == []


def test_notes_hide_no_refusal() -> None:
    """However many there are, and of whatever kind."""
    notes = [_said.FORMULA(layer=str(number), formula="x * 2") for number in range(50)]
    found = _said.few(iter([*notes, _said.refuse("config.json", "names os.system", "layers")]))
    assert len(found) == _said.MOST_FINDINGS + 1
    assert len(refusals(found)) == 1


def test_a_model_inside_of_a_pickle_is_screened(tmp_path: Path) -> None:
    """The archive in the pickle is looked at as if it stood alone; the pickle is read by its opcodes."""
    path = tmp_path / "model.pkl"
    path.write_bytes(pickle.dumps({"model": keras(model(dense(), layer("TFSMLayer", filepath="/etc/x", name="bad")))}))
    found = refusals(screen(path, "pickle", tmp_path / "scratch"))
    assert any("TFSMLayer (bad), which runs whatever SavedModel lies at a path" in item.sentence for item in found)


def test_packed_lists_of_variables_are_read() -> None:
    """Blocks that Snappy packed, as some writers do: a literal, and copies that overlap what they make."""
    assert _table._unpacked(b"\x0a\x04ab\x12\x02\x00") == b"ab" + b"abababab"[:5]
    with pytest.raises(ValueError, match="longer than it says"):
        _table._unpacked(b"\xff\xff\xff\xff\x0f\x00a")


def test_the_names_that_pass_are_those_of_keras() -> None:
    """Generated, not listed: what is exported and made from a description."""
    assert {
        "Dense",
        "Adam",
        "MeanSquaredError",
        "L2",
        "FeatureSpace",
        "LSTMCell",
        "CuDNNLSTM",
        "GetItem",
    } <= _keras.names()
    assert not {"load_model", "get_file", "Callback", "system"} & _keras.names()
    assert {"relu", "mse", "glorot_uniform"} <= _keras.functions()


@pytest.mark.parametrize("text", ["[1, 2.5, true, null]", '"{\\"a\\": 1}"', '\ufeff{"a": {"b": []}}', '{"größe": 1}'])
def test_honest_json_is_read(text: str) -> None:
    assert _strict_json.parsed(text.encode()) is not None


def test_honest_files_of_all_releases_pass(shared: Path) -> None:
    """A sample of the corpus; ``scripts/bench intake`` goes through all of it."""
    found = chosen(entries(shared / "corpus"), None, 120, random.SystemRandom().randrange(10**6))
    outcomes = [examine(entry) for entry in found]
    assert {item.entry.id: item.refused for item in outcomes if item.is_wrong} == {}


def test_a_refusal_that_is_asked_for_is_not_wrong() -> None:
    assert ASKED.search("deliberately broken upstream: expect a clear refusal")
    assert not ASKED.search("the ordinary model")


def test_every_reader_of_keras_files_is_screened() -> None:
    """A new one has to say here what its files are made of: JSON, YAML, HDF5, arrays, checkpoints, pickles, graphs."""
    assert set(_keras_files.READERS) <= {
        *("keras", "h5", "weights_h5", "json_npz", "json_pickle", "json_safetensors", "checkpoint", "tfjs_layers"),
        *("saved_model", "pickle", "data_pickle"),
    }
