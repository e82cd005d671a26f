"""Formats of their own for tests of routes and of the pipeline: real Format objects over plain files, no library.

A toy model is a JSON file ``{"inputs": [[name, shape, dtype]…], "outputs": […], "weights": [[…]…], "factor": 2.0}``;
every output is the first input times ``factor``, plus the sum of the weights.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from worker import formats
from worker.formats._format import Converter, Format, Hop, Loaded, Option, Summary, TensorSpec
from worker.report import Finding, Severity
from worker.verify import Arrays

SUMMARY = Summary(traits=frozenset({"keras-config", "weights"}))
MODEL: dict[str, Any] = {
    "inputs": [["x", [None, 4], "float32"]],
    "outputs": [["y", [None, 4], "float32"]],
    "weights": [[1.0, 2.0], [3.0]],
    "factor": 2.0,
}


def toy(label: str, sources: Mapping[str, Converter] | None = None, **more: Any) -> Format:
    """A toy format that is converted to from ``sources``."""
    fields: dict[str, Any] = {"keeps": frozenset({"architecture", "weights"}), "load": load, "exact": True, **more}
    return Format(label, (".toy",), lambda sample: False, inspect, converts_from=sources or {}, **fields)


def install(monkeypatch: pytest.MonkeyPatch, known: Mapping[str, Format]) -> None:
    """Make these the only formats there are."""
    registry = {slug: dataclasses.replace(item, slug=slug) for slug, item in sorted(known.items())}
    monkeypatch.setattr(formats, "formats", lambda: registry)


def inspect(path: Path, scratch: Path) -> Summary:
    return SUMMARY


def load(path: Path, scratch: Path) -> Loaded:
    model = json.loads(path.read_text(encoding="utf-8"))
    if error := model.get("error"):
        raise ValueError(error)
    inputs = tuple(TensorSpec(name, tuple(shape), dtype) for name, shape, dtype in model["inputs"])
    outputs = tuple(TensorSpec(name, tuple(shape), dtype) for name, shape, dtype in model["outputs"])

    def run(arrays: Arrays) -> Arrays:
        first = arrays[inputs[0].name]
        if "only_size" in model and first.shape[-1] != model["only_size"]:
            raise ValueError("the size does not fit")
        total = sum(sum(row) for row in model["weights"])
        return {spec.name: (first * model["factor"] + total).astype(spec.dtype) for spec in outputs}

    def weights() -> Iterator[tuple[str, Any]]:
        yield from ((f"w{number}", np.array(row, "float32")) for number, row in enumerate(model["weights"]))

    return Loaded(inputs, outputs, run, weights, (Finding("toy-loaded", Severity.NOTE, "Loaded."),))


def copying(change: Callable[[dict[str, Any]], dict[str, Any]] = dict) -> Converter:
    """A converter that copies the model, changed."""

    def run(source: Path, target: Path, hop: Hop) -> None:
        model = json.loads(source.read_text(encoding="utf-8"))
        hop.add(Finding("toy-copied", Severity.NOTE, f"Copied with {dict(hop.options)}."))
        target.write_text(json.dumps(change(model)), encoding="utf-8")

    return Converter(run)


def write(path: Path, **changes: Any) -> Path:
    path.write_text(json.dumps({**MODEL, **changes}), encoding="utf-8")
    return path


LEVEL = Option("level", int, 3, "How much.", choices=(1, 2, 3))
