"""Model files that real releases wrote, with the outputs those releases computed, from the corpus beside the checkout.

Its README tells what the manifest's fields mean. Files are used in place and never copied into the project.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from worker.bundle import Bundle, gather
from worker.custom_code import Consent
from worker.formats._saved_model import choose_signature

# Formats in which the words of a TextVectorization have no place, unless the architecture happens to name them
WORDLESS = ("h5", "weights_h5", "json+npz", "json+npy_object")
WEIGHTS = ("json", "weights_", "tf_checkpoint", "pickle_weights")
CORPUS = Path(__file__).resolve().parents[3] / "shared" / "corpus"
Arrays = Mapping[str, Any]


@dataclass(frozen=True)
class Entry:
    """One model file of the corpus with what its writer recorded."""

    root: Path
    data: Mapping[str, Any]

    @property
    def id(self) -> str:
        return str(self.data["id"])

    @property
    def format(self) -> str:
        return str(self.data["format"])

    @property
    def tag(self) -> str:
        """The release that wrote it: ``tf2.8``, or ``thirdparty``."""
        return str(self.data["tag"])

    @property
    def kind(self) -> str:
        return str(self.data["model_kind"])

    @property
    def notes(self) -> str:
        """What its writer has to say about it."""
        return str(self.data.get("notes") or "")

    @property
    def has_outputs(self) -> bool:
        return bool(self.data["outputs"])

    @property
    def has_model(self) -> bool:
        """Is there more than weights?"""
        return not self.format.startswith(WEIGHTS) or bool(self.companions)

    @property
    def inputs_in_order(self) -> list[Any]:
        return [self._fed(str(tensor["key"])) for tensor in self.data["inputs"]]

    @property
    def refusals(self) -> tuple[str, ...]:
        """The codes with which it may be refused, since a part of the model is code or not in the file; else none."""
        if self.format in ("session_bundle", "tflite_dir"):  # broken upstream; an operation that is not in LiteRT
            return ("model-unreadable", "not-runnable")
        if not self.has_model:
            return ("incomplete-model", "not-a-model", "no-route", "custom-code")
        if self.kind == "preprocessing_text" and self.format in WORDLESS:
            return ("model-unreadable",)
        if self.format == "savedmodel_tf1_estimator":  # tf.Example in, which only TensorFlow parses
            return ("unsupported-operation", "no-route")
        if self.format.startswith("tflite") and self.kind == "rnn":  # operations of TensorFlow itself
            return ("not-runnable", "no-route")
        return ("converter-failed", "unsupported-operation", "differs") if self.kind == "thirdparty_counter" else ()

    @property
    def path(self) -> Path:
        return self.root / str(self.data["file"])

    @property
    def code(self) -> Path | None:
        """The source of its custom classes, where it has some."""
        name = self.data.get("custom_objects")
        return self.path.parent / str(name) if name else None

    @property
    def consent(self) -> Consent | None:
        """To run that, for who puts a file to the test."""
        return Consent("whoever made the corpus", self.code) if self.code else None

    @property
    def companions(self) -> list[Path]:
        """The other files that belong to the model."""
        return [self.path.parent / name for name in self.data.get("companions") or [] if name != "expected.npz"]

    def gather(self, scratch: Path) -> Bundle:
        """The file as a person would choose it, with its companions, as one bundle."""
        if not self.companions:
            return gather(self.path, scratch)
        folder = scratch / self.path.stem
        folder.mkdir()
        for file in (self.path, *self.companions):
            (folder / file.name).symlink_to(file)
        return gather(folder, scratch)

    def inputs(self, names: Sequence[str]) -> dict[str, Any]:
        """The recorded inputs under the names that the model has for them."""
        return {name: self._fed(key) for name, key in self._keys("inputs", names).items()}

    def difference(self, answers: Arrays) -> str:
        """How the answers differ from the recorded outputs, in words; empty where they are within the tolerance."""
        keys = self._keys("outputs", list(answers))
        problems = (self._differ(name, answers[name], self.recorded[key]) for name, key in keys.items())
        return next((problem for problem in problems if problem), "")

    def _differ(self, name: str, got: Any, wanted: Any) -> str:
        if wanted.dtype.kind in "SU":
            same = got.shape == wanted.shape and bool((got.astype("U") == wanted.astype("U")).all())
            return "" if same else f"{name}: the words differ"
        if got.shape != wanted.shape:
            return f"{name}: shape {got.shape} instead of {wanted.shape}"
        tolerance = self.data["tolerance"]
        gap = np.abs(got.astype("float64") - wanted.astype("float64"))
        allowed = tolerance["atol"] + tolerance["rtol"] * np.abs(wanted.astype("float64"))
        return "" if bool((gap <= allowed).all()) else f"{name}: differs by up to {gap.max():.3g}"

    @cached_property
    def recorded(self) -> Any:
        return np.load(self.root / self.data["expected"])

    def _keys(self, side: str, names: Sequence[str]) -> dict[str, str]:
        """The model's names beside the keys of the recording: by name, by the recorded order, else by place."""
        tensors, order = self._tensors(side)
        named = {str(tensor["name"]).split(":")[0]: str(tensor["key"]) for tensor in tensors}
        if side == "outputs" and self.data.get("expected_keys"):
            named, tensors = {}, [{"key": key} for key in self.data["expected_keys"]]
        found = {}
        for place, name in enumerate(names):
            found[name] = named.get(name) or str(tensors[order.get(name, place)]["key"])
        return found

    def _tensors(self, side: str) -> tuple[list[Mapping[str, Any]], Mapping[str, int]]:
        """The recorded tensors of the signature that is used, and the place of each name where one is recorded."""
        signatures = self.data.get("signatures") or {}
        chosen = choose_signature(list(signatures)) if signatures else ""
        tensors = [tensor for tensor in self.data[side] if tensor.get("signature", chosen) == chosen]
        order = dict(signatures.get(chosen, {}).get("input_order" if side == "inputs" else "output_order") or {})
        order |= {name.split(":")[0]: place for place, name in enumerate(self.data.get(f"graph_{side}") or [])}
        if side == "inputs" and (interpreter := self.data.get("interpreter")):
            order |= dict(zip(interpreter["input_names"], interpreter["input_order"], strict=True))
        return tensors, order

    def _fed(self, key: str) -> Any:
        """Serialised examples are recorded as rows of bytes with their lengths."""
        if f"{key}_lengths" not in self.recorded.files:
            return self.recorded[key]
        rows = zip(self.recorded[key], self.recorded[f"{key}_lengths"], strict=True)
        return np.array([bytes(row[:length].astype("u1")) for row, length in rows], dtype=object)


def entries(root: Path = CORPUS) -> list[Entry]:
    """Everything in the corpus; nothing where there is none."""
    root = root.resolve()
    manifest = root / "manifest.json"
    if not manifest.exists():
        return []
    return [Entry(root, data) for data in json.loads(manifest.read_text(encoding="utf-8"))["entries"]]
