"""TensorFlow.js layers model: Keras layers as JSON with weights in shards, run and trained in browsers and in Node.

Specification: https://github.com/tensorflow/tfjs/tree/master/tfjs-layers
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from worker.errors import UnsupportedOperation
from worker.formats import _live, _sources, _tfjs, _tfjs_layers
from worker.formats._architecture import Node
from worker.formats._format import Format, Hop, Room, Sample

LABEL = _tfjs_layers.LABEL


def sniff(sample: Sample) -> bool:
    """A model.json whose topology is made of layers."""
    return _tfjs.is_graph(sample) is False


def write(model: Any, target: Path, hop: Hop) -> None:
    """Spell a Keras 3 model as Keras 2 did, which TensorFlow.js reads, and put its weights beside it by name."""
    import keras

    spelling = _tfjs_layers.Spelling()
    spelled = spelling.model(model)
    arrays = [(name, read()) for name, read in spelling.weights]
    hop.add(*spelling.findings, *_tfjs.note_rounded(array.dtype.name for _, array in arrays))
    hop.add(*_tfjs.note_int32((*_live.input_specs(model), *_live.output_specs(model))))
    root = {
        "format": "layers-model",
        "generatedBy": f"keras v{keras.__version__}",
        "convertedBy": _tfjs.WRITER,
        "modelTopology": _tfjs_layers.topology(spelled),
    }
    weights = ((name, _tfjs.narrowed(array, name)) for name, array in arrays)
    _tfjs.write(root, weights, target, hop.scratch)


def refusal(root: Node, model: Any) -> str:
    """What ``write`` would refuse of these layers, by spelling them without their values."""
    try:
        if model is None:
            _tfjs_layers.refuse_strange(root)
        else:
            _tfjs_layers.Spelling().model(model)
    except UnsupportedOperation as error:
        return error.message
    return ""


FORMAT = Format(
    label=LABEL,
    suffixes=(".zip",),
    sniff=sniff,
    inspect=_sources.inspect("tfjs_layers"),
    load=_sources.load("tfjs_layers"),  # the content is judged by it, not the kernels of TensorFlow.js
    converts_from=_sources.converters(write, "tfjs_layers"),
    keeps=frozenset({"architecture", "weights", "training"}),
    refuses={
        "strings": "TensorFlow.js has no layers for text; prepare the text before the model.",
        "tables": "TensorFlow.js has no layers that look words up; do that before the model.",
    },
    changes={"half": "TensorFlow.js has no float16: it computes in float32."},
    refusal=refusal,
    room=Room(memory=4.0),
    narrows={
        **dict.fromkeys(("int64", "uint8"), "int32"),
        **dict.fromkeys(("float16", "bfloat16", "float64"), "float32"),
    },
    snippet="""// npm install @tensorflow/tfjs-core @tensorflow/tfjs-layers @tensorflow/tfjs-backend-cpu
// Unpack "{file}" into the folder "model", and serve it beside the page.
import "@tensorflow/tfjs-backend-cpu";
import { loadLayersModel } from "@tensorflow/tfjs-layers";

const model = await loadLayersModel("model/model.json");
model.summary();
""",
    snippet_language="javascript",
    needs=("tensorflow", "keras", "tf_keras", "h5py"),
)
