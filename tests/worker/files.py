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
YAML_ARCHITECTURE = (
    "backend: tensorflow\nclass_name: Sequential\nconfig:\n  layers: []\n  name: m\nkeras_version: 2.2.4-tf\n"
)
OBJECTS = b"\x93NUMPY\x01\x00v\x00{'descr': '|O', 'fortran_order': False, 'shape': (2,), }".ljust(127) + b"\n\x80\x04]."
SAFETENSORS = b"\x40\0\0\0\0\0\0\0" + b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}'.ljust(64) + bytes(4)
OPENVINO = b'<?xml version="1.0"?>\n<net name="Model0" version="11">\n</net>\n'
LAYERS = {"class_name": "Sequential", "config": {"name": "m", "layers": []}}
TFJS = json.dumps(
    {
        "format": "layers-model",
        "modelTopology": {"model_config": LAYERS},
        "weightsManifest": [{"paths": ["group1-shard1of2.bin", "group1-shard2of2"], "weights": []}],
    }
)
MANIFEST = json.dumps(
    {"fileFormatVersion": "1.0.0", "itemInfoEntries": {"1": {"path": "com.apple.CoreML/model.mlmodel"}}}
)
ONNX_BESIDE = b"\x08\x08\x12\x07pytorch:\x10j\x12\x0a\x08location\x12\x0amodel.data\x70\x01"
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
CHECKPOINT = {
    "checkpoint": b'model_checkpoint_path: "ckpt-2"\nall_model_checkpoint_paths: "ckpt-2"\n',
    "ckpt-2.index": b"index",
    "ckpt-2.data-00000-of-00001": b"data",
}
CONSTANT_GRAPH = b"\x08\x01\x12\x0a...Placeholder..."
SAVED_MODEL = zipped({"saved_model.pb": GRAPH, **VARIABLES})
