"""Files that real releases wrote, with the outputs those releases computed: every format of every version, at random.

The sample is drawn anew each time and its seed is printed; LARDER_CORPUS_SEED=7 draws the same one again. Without the
corpus beside the checkout there is nothing to collect; the other tests make their own files.
"""

from __future__ import annotations

import json
import os
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.formats.models import load
from worker import archive, intake
from worker.errors import CustomCode, LambdaRefused, ModelError
from worker.formats._format import Loaded
from worker.formats._saved_model import choose_signature

CORPUS = Path(__file__).resolve().parents[3] / "shared" / "corpus"
SLUGS = {
    "h5": "h5",
    "hdf5_named_keras": "h5",
    "keras_v3": "keras",
    "json+npz": "json_npz",
    "weights_h5": "weights_h5",
    "weights_h5_legacy": "weights_h5",
    **{f"savedmodel_{kind}": "saved_model" for kind in ("keras", "keras_experimental", "tf", "export", "tf_module")},
    **{f"savedmodel_{kind}": "saved_model" for kind in ("tf1", "tf1_estimator")},
}
SEED = int(os.environ.get("LARDER_CORPUS_SEED") or random.SystemRandom().randrange(10**6))
# What nobody can open: byte code, code that is not in the file, a vocabulary that the format does not hold, and
# (thirdparty_counter) reference variables.
REFUSED = ("lambda", "multi_lambda", "custom_layer", "subclassed", "counter")
WITHOUT_VOCABULARY = {"h5", "weights_h5"}


def drawn() -> list[Any]:
    """One entry for every version and format, of those that hold a whole model."""
    if not CORPUS.exists():
        return []
    strata: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for entry in json.loads((CORPUS / "manifest.json").read_text(encoding="utf-8"))["entries"]:
        if entry["format"] in SLUGS and is_whole(entry):
            strata.setdefault((entry["tag"], entry["format"]), []).append(entry)
    generator = random.Random(SEED)  # noqa: S311 - which files to look at is no secret
    return [pytest.param(generator.choice(strata[key]), id="-".join(key)) for key in sorted(strata)]


def is_whole(entry: dict[str, Any]) -> bool:
    weights_only = entry["format"] in {"json+npz", "weights_h5", "weights_h5_legacy"}
    return not weights_only or "architecture.json" in (entry.get("companions") or [])


def artifact(entry: dict[str, Any], folder: Path) -> Path:
    """The entry as people upload it: companions in one archive."""
    source = CORPUS / str(entry["file"])
    companions = [name for name in entry.get("companions") or [] if name != "expected.npz"]
    if not companions:
        return source
    files = [(source.name, source), *((name, source.parent / name) for name in companions)]
    archive.pack_files(files, folder / "pair.zip")
    return folder / "pair.zip"


def roles(entry: dict[str, Any], side: str, names: list[str]) -> dict[str, str]:
    """The model's names beside the keys of expected.npz: by name, by the recorded order, else by position."""
    signatures: dict[str, Any] = entry.get("signatures") or {}
    chosen = choose_signature(list(signatures)) if signatures else ""
    order = signatures.get(chosen, {}).get("input_order" if side == "inputs" else "output_order") or {}
    tensors = [tensor for tensor in entry[side] if tensor.get("signature", chosen) == chosen]
    named = {tensor["name"]: tensor["key"] for tensor in tensors}
    found = {}
    for position, name in enumerate(names):
        found[name] = named.get(name) or tensors[order.get(name, position)]["key"]
    return found


def assert_recorded(entry: dict[str, Any], loaded: Loaded) -> None:
    recorded = np.load(CORPUS / entry["expected"])
    inputs = roles(entry, "inputs", [spec.name for spec in loaded.inputs])
    answers = loaded.run({name: fed(recorded, key) for name, key in inputs.items()})
    outputs = roles(entry, "outputs", list(answers))
    tolerance = entry["tolerance"]
    for name, key in outputs.items():
        wanted = recorded[key]
        if wanted.dtype.kind in "SU":
            assert (answers[name].astype("U") == wanted.astype("U")).all()
        else:
            np.testing.assert_allclose(answers[name], wanted, rtol=tolerance["rtol"], atol=tolerance["atol"])


def fed(recorded: Any, key: str) -> Any:
    """Serialised examples are recorded as rows of bytes with their lengths."""
    if f"{key}_lengths" not in recorded.files:
        return recorded[key]
    rows = zip(recorded[key], recorded[f"{key}_lengths"], strict=True)
    return np.array([bytes(row[:length].astype("u1")) for row, length in rows], dtype=object)


@pytest.mark.parametrize("entry", drawn())
def test_it_computes_what_its_writer_recorded(entry: dict[str, Any], tmp_path: Path) -> None:
    print(f"LARDER_CORPUS_SEED={SEED} {entry['id']}")
    path = artifact(entry, tmp_path)
    slug = SLUGS[entry["format"]]
    assert intake.recognise(intake.take_sample(path, path.name))[0].slug == slug
    kind = entry["model_kind"]
    if slug != "saved_model" and any(word in kind for word in REFUSED):
        with pytest.raises((CustomCode, LambdaRefused)):
            load(slug, path, tmp_path)
    elif (kind == "preprocessing_text" and slug in WITHOUT_VOCABULARY) or kind == "thirdparty_counter":
        with pytest.raises(ModelError, match=r"vocabulary|reference variables"):
            load(slug, path, tmp_path)
    else:
        assert_recorded(entry, load(slug, path, tmp_path))
