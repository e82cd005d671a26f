"""Running the commands, with the tests' warm zygote; and small models that are written without any library."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from django.core.management import call_command

from models_app.management.commands import _batch
from worker.sandbox.client import Walls, Zygote

FIELDS = ["source", "format", "target", "route", "verdict", "checks", "findings", "error", "seconds", "output"]
DOUBLER = """
import keras


@keras.saving.register_keras_serializable(package="Kitchen")
class Doubler(keras.layers.Layer):
    def call(self, inputs):
        return inputs * 2
"""


@dataclass(frozen=True)
class Ran:
    """What a command printed, and the status it ended with."""

    text: str
    status: int

    @property
    def rows(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.text.splitlines()]


def run(name: str, *arguments: object) -> Ran:
    out = io.StringIO()
    status = 0
    try:
        call_command(name, *map(str, arguments), stdout=out)
    except SystemExit as ended:
        status = int(ended.code or 0)
    return Ran(out.getvalue(), status)


def borrow(zygote: Zygote, patch: pytest.MonkeyPatch) -> None:
    """Let the commands use the zygote that is warm already, and leave it running."""

    @contextmanager
    def lend(walls: Walls) -> Iterator[Zygote]:
        yield zygote

    patch.setattr(_batch, "Zygote", lend)


def write_pair(folder: Path, *, custom: bool = False, columns: int = 2) -> Path:
    """``architecture.json`` and ``weights.npz`` of a small Keras 3 model: a Dense layer, perhaps a Doubler."""
    layers = [
        _layer("InputLayer", {"batch_shape": [None, 3], "dtype": "float32", "name": "x"}),
        _layer("Dense", {"name": "y", "units": 2, "activation": "linear", "use_bias": True}),
    ]
    if custom:
        layers.append({**_layer("Doubler", {"name": "twice"}, "Kitchen"), "registered_name": "Kitchen>Doubler"})
    model = _layer("Sequential", {"name": "small", "layers": layers, "build_input_shape": [None, 3]}, "keras")
    folder.mkdir(parents=True)
    (folder / "architecture.json").write_text(json.dumps(model), encoding="utf-8")
    np.savez(folder / "weights.npz", np.arange(3.0 * columns, dtype="f4").reshape(3, columns), np.ones(columns, "f4"))
    return folder


def _layer(name: str, config: dict[str, Any], module: str = "keras.layers") -> dict[str, Any]:
    return {"module": module, "class_name": name, "config": config, "registered_name": None}


def codes(rows: Sequence[dict[str, Any]]) -> list[str | None]:
    return [row["error"] and row["error"]["code"] for row in rows]
