"""Every format whose files can be opened for changing, by slug."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from bench import _graph_files, _layer_files, _tensorflow_files
from bench._mutations import File

OPENERS: dict[str, Callable[[Path, Path], File]] = {
    "coreml": _graph_files.open_coreml,
    "data_pickle": _layer_files.open_data_pickle,
    "frozen_graph": _tensorflow_files.open_frozen_graph,
    "h5": _layer_files.open_h5,
    "json_npz": _layer_files.open_json_npz,
    "json_safetensors": _layer_files.open_json_safetensors,
    "keras": _layer_files.open_keras,
    "onnx": _graph_files.open_onnx,
    "openvino": _graph_files.open_openvino,
    "safetensors": _layer_files.open_safetensors,
    "saved_model": _tensorflow_files.open_saved_model,
    "tfjs_graph": _tensorflow_files.open_tfjs_graph,
    "tfjs_layers": _layer_files.open_tfjs_layers,
    "tflite": _graph_files.open_tflite,
    "weights_h5": _layer_files.open_weights_h5,
}
