"""What one attack is, and the honest files that the attacks are made of."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

REFUSE, CONSENT, FINE = "refuse", "needs-consent", ""
NEVER_OPENED = "read by its opcodes"  # a pickle: what becomes of it is for its own tests


@dataclass(frozen=True)
class Attack:
    """A file that does harm where its reader is careless: its name, its bytes, and the worst to be said of it."""

    slug: str
    name: str
    make: Callable[[], bytes]
    expected: str


def dense(name: str = "dense", **config: Any) -> Any:
    """A layer as Keras 3 describes it."""
    return layer("Dense", **{"name": name, "units": 2, "activation": "linear", **config})


def layer(kind: str, module: str | None = "keras.layers", registered: str | None = None, /, **config: Any) -> Any:
    return {"module": module, "class_name": kind, "config": config, "registered_name": registered}


def model(*layers: Any, **root: Any) -> dict[str, Any]:
    """A Sequential of Keras 3 with four numbers going in."""
    first = layer("InputLayer", batch_shape=[None, 4], dtype="float32", sparse=False, name="x")
    built = {"name": "model", "trainable": True, "layers": [first, *layers], "build_input_shape": [None, 4]}
    return {"module": "keras", "class_name": "Sequential", "config": built, "registered_name": None, **root}


def plain_weights(fill: Callable[[Any], None] | None = None, before: int = 0) -> bytes:
    """The weights of ``model(dense())`` as Keras 3 writes them; ``fill`` may add to them. ``before``: the bytes of a
    block of anything that they stand behind."""
    import h5py
    import numpy as np

    buffer = io.BytesIO()
    with h5py.File(buffer, "w", userblock_size=before or None) as file:
        held = file.create_group("layers/dense/vars")
        held["0"], held["1"] = np.ones((4, 2), "float32"), np.ones(2, "float32")
        if fill:
            fill(file)
    return buffer.getvalue()


def keras(config: Any, weights: bytes | None = None, more: Mapping[str, bytes] | None = None) -> bytes:
    """A .keras archive; a text goes in as it is."""
    text = config if isinstance(config, (str, bytes)) else json.dumps(config)
    files: dict[str, bytes | str] = {"metadata.json": '{"keras_version": "3.8.0"}', "config.json": text}
    return zipped({**files, "model.weights.h5": weights or plain_weights(), **(more or {})})


def h5(config: Any, fill: Callable[[Any], None] | None = None) -> bytes:
    """A whole model in HDF5, as Keras 2 wrote it."""
    import h5py
    import numpy as np

    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        file.attrs["keras_version"], file.attrs["backend"] = "2.15.0", "tensorflow"
        file.attrs["model_config"] = config if isinstance(config, str) else json.dumps(config)
        group = file.create_group("model_weights")
        group.attrs["layer_names"], group.attrs["keras_version"] = [b"dense"], "2.15.0"
        inner = group.create_group("dense")
        inner.attrs["weight_names"] = [b"dense/kernel:0", b"dense/bias:0"]
        inner["dense/kernel:0"], inner["dense/bias:0"] = np.ones((4, 2), "float32"), np.ones(2, "float32")
        if fill:
            fill(file)
    return buffer.getvalue()


def old_model(*layers: Any) -> dict[str, Any]:
    """A Sequential of Keras 2."""
    first = {"class_name": "InputLayer", "config": {"batch_input_shape": [None, 4], "dtype": "float32", "name": "x"}}
    return {"class_name": "Sequential", "config": {"name": "model", "layers": [first, *layers]}}


def old(kind: str, /, **config: Any) -> dict[str, Any]:
    return {"class_name": kind, "config": config}


def zipped(files: Mapping[str, bytes | str], compression: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()
