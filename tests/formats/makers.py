"""The canonical models in the formats that Larder only takes in, written as people write them."""

from __future__ import annotations

import pickle  # only ever to write
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from worker import archive, formats


def pickled(model: Any, folder: Path) -> Path:
    """``pickle.dump(model, file)``."""
    target = folder / "model.pkl"
    target.write_bytes(pickle.dumps(model))
    return target


def object_array(model: Any, folder: Path) -> Path:
    """``np.save`` of a list of lists, beside ``model.to_json()``."""
    rows = np.empty(len(model.layers), dtype=object)
    rows[:] = [layer.get_weights() for layer in model.layers]
    np.save(folder / "weights.npy", rows)
    return _with_architecture(model, [folder / "weights.npy"], folder / "object_array.zip")


def checkpoint(model: Any, folder: Path) -> Path:
    """``tf.train.Checkpoint(model=model).write(prefix)``, beside ``model.to_json()``."""
    import tensorflow as tf

    tf.train.Checkpoint(model=model).write(str(folder / "ckpt"))
    return _with_architecture(model, sorted(folder.glob("ckpt.*")), folder / "checkpoint.zip")


def tf1_checkpoint(model: Any, folder: Path) -> Path:
    """A TensorFlow 1 graph of its own, since no Keras 3 model lives in one: the same for every model."""
    import tensorflow as tf

    v1 = tf.compat.v1
    with tf.Graph().as_default(), v1.Session() as session:
        x = v1.placeholder("float32", (None, 4), name="x")
        kernel = v1.get_variable("kernel", initializer=np.linspace(-1, 1, 12, dtype="float32").reshape(4, 3))
        tf.nn.softmax(x @ kernel, name="y")
        session.run(v1.global_variables_initializer())
        v1.train.Saver().save(session, str(folder / "model.ckpt"))
    files = [(path.name, path) for path in sorted(folder.glob("model.ckpt*"))]
    archive.pack_files(files, folder / "tf1.zip")
    return folder / "tf1.zip"


def _with_architecture(model: Any, files: list[Path], target: Path) -> Path:
    text = target.with_suffix(".json")
    text.write_text(model.to_json(), encoding="utf-8")
    archive.pack_files([("architecture.json", text), *((path.name, path) for path in files)], target)
    return target


MAKERS: dict[str, Callable[[Any, Path], Path]] = {
    "pickle": pickled,
    "json_pickle": object_array,
    "checkpoint": checkpoint,
    "tf1_checkpoint": tf1_checkpoint,
}


def write_all(model: Any, folder: Path) -> dict[str, Path]:
    """The model in every format that no route leads to, by slug."""
    made = {}
    for slug, make in MAKERS.items():
        if slug in formats.formats():
            (folder / slug).mkdir(parents=True)
            made[slug] = make(model, folder / slug)
    return made
