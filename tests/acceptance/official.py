"""What people have besides Larder: the official loaders, used to open what was downloaded. Nothing of ours is imported.

Run as a program in a process of its own: ``python official.py EXPECTED.npz FORMAT=FILE …`` prints one line of JSON, for
each format the largest difference over every recorded output, as a multiple of what is allowed.
"""

from __future__ import annotations

import json
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

RTOL, ATOL = 1e-4, 1e-5  # those of the corpus


def unzipped(file: Path) -> Path:
    folder = Path(tempfile.mkdtemp())
    with zipfile.ZipFile(file) as archive:
        archive.extractall(folder)
    return folder


def run_keras(model: Any, inputs: list[np.ndarray]) -> list[np.ndarray]:
    import keras

    results = model(inputs if len(inputs) > 1 else inputs[0], training=False)
    return [np.asarray(item) for item in keras.tree.flatten(results)]


def open_keras(file: Path) -> Any:
    import keras

    return keras.saving.load_model(str(file), compile=False)


def open_json_npz(file: Path) -> Any:
    import keras

    folder = unzipped(file)
    model = keras.models.model_from_json((folder / "architecture.json").read_text())
    with np.load(folder / "weights.npz", allow_pickle=False) as arrays:
        model.set_weights([arrays[f"arr_{number}"] for number in range(len(arrays.files))])
    return model


def open_weights_h5(file: Path) -> Any:
    import keras

    folder = unzipped(file)
    model = keras.models.model_from_json((folder / "architecture.json").read_text())
    model.load_weights(str(folder / "model.weights.h5"))
    return model


def run_saved_model(file: Path, inputs: list[np.ndarray]) -> list[np.ndarray]:
    """By name: a signature's maps have another order in every process. The corpus names its own in the order of the
    alphabet."""
    import tensorflow as tf

    loaded = tf.saved_model.load(str(next(unzipped(file).rglob("saved_model.pb")).parent))
    signature = loaded.signatures["serving_default"]
    specs = signature.structured_input_signature[1]
    results = signature(**{n: tf.constant(a, specs[n].dtype) for n, a in zip(sorted(specs), inputs, strict=True)})
    return [results[name].numpy() for name in sorted(results)]


def run_tflite(file: Path, inputs: list[np.ndarray]) -> list[np.ndarray]:
    from ai_edge_litert.interpreter import Interpreter

    runner = Interpreter(model_path=str(file)).get_signature_runner()
    details = runner.get_input_details()
    results = runner(**{n: a.astype(details[n]["dtype"]) for n, a in zip(details, inputs, strict=True)})
    return list(results.values())


OPENERS = {"keras": open_keras, "h5": open_keras, "json_npz": open_json_npz, "weights_h5": open_weights_h5}
RUNNERS = {"saved_model": run_saved_model, "tflite": run_tflite}


def outputs(slug: str, file: Path, inputs: list[np.ndarray]) -> list[np.ndarray]:
    """What the file computes, by the loader that its users have."""
    if slug in RUNNERS:
        return RUNNERS[slug](file, inputs)
    return run_keras(OPENERS[slug](file), inputs)


def excess(slug: str, file: Path, expected: Path) -> float:
    """The largest difference as a multiple of the tolerance; at most 1 is equal."""
    with np.load(expected, allow_pickle=False) as recorded:
        arrays = dict(recorded)
    inputs = [arrays[f"input_{number}"] for number in range(sum(key.startswith("input_") for key in arrays))]
    wanted = [arrays[key] for key in sorted(arrays) if key.startswith("output_") and "epoch" not in key]
    found = outputs(slug, file, inputs)
    if [item.shape for item in found] != [item.shape for item in wanted]:
        return float("inf")
    return max(
        float(np.max(np.abs(got - want) / (ATOL + RTOL * np.abs(want))))
        for got, want in zip(found, wanted, strict=True)
    )


if __name__ == "__main__":
    asked = dict(argument.split("=", 1) for argument in sys.argv[2:])
    print(json.dumps({slug: excess(slug, Path(file), Path(sys.argv[1])) for slug, file in asked.items()}))
