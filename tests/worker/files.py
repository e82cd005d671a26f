"""Small files of every kind that people upload, made without any library: only their outside is real."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Mapping

HDF5 = b"\x89HDF\r\n\x1a\n"
ARCHITECTURE = json.dumps(
    {"class_name": "Sequential", "config": {"name": "m", "layers": []}, "keras_version": "2.15.0"}
)
HTML = b"<!DOCTYPE html>\n<html><title>Sign in</title></html>"
NPY = b"\x93NUMPY\x01\x00v\x00{'descr': '<f4', 'fortran_order': False, 'shape': (0,), }".ljust(127) + b"\n"


def lfs_pointer(size: int = 98_000_000) -> bytes:
    return f"version https://git-lfs.github.com/spec/v1\noid sha256:{'ab' * 32}\nsize {size}\n".encode()


def hdf5(*markers: str) -> bytes:
    return HDF5 + bytes(500) + b"\0".join(marker.encode() for marker in markers) + bytes(500)


def zipped(files: Mapping[str, bytes | str]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()


WEIGHTS_3 = hdf5("layers", "vars")
WEIGHTS_2 = hdf5("layer_names", "weight_names", "keras_version")
WHOLE_H5 = hdf5("model_config", "model_weights", "layer_names", "weight_names", "keras_version")
KERAS = zipped({"metadata.json": "{}", "config.json": ARCHITECTURE, "model.weights.h5": WEIGHTS_3})
NPZ = zipped({"arr_0.npy": NPY, "arr_1.npy": NPY})
RECORDED_NPZ = zipped({"input_0.npy": NPY, "output_0.npy": NPY})
VARIABLES = {"variables/variables.index": b"index", "variables/variables.data-00000-of-00001": b"data"}
GRAPH = b"\x08\x01\x12\x0a...VarHandleOp..."
CONSTANT_GRAPH = b"\x08\x01\x12\x0a...Placeholder..."
SAVED_MODEL = zipped({"saved_model.pb": GRAPH, **VARIABLES})
