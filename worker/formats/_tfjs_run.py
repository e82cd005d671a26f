"""A TensorFlow.js model and draws as files for TensorFlow.js itself, see ``worker/tfjs/run.js``. It runs nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from worker.errors import NotRunnable
from worker.formats import _tfjs, tfjs_graph
from worker.formats._format import Summary

if TYPE_CHECKING:
    import numpy as np

Json = dict[str, Any]
KINDS = {"f": "float32", "i": "int32", "u": "int32", "b": "bool"}  # of NumPy's dtypes, as TensorFlow.js has them
NOT_TRIED = ("string", "complex")


def refuse_strange(summary: Summary) -> None:
    """NotRunnable for a model that takes or gives what is not handed over."""
    dtypes = sorted({spec.dtype for spec in (*summary.inputs, *summary.outputs)})
    if found := [dtype for dtype in dtypes if dtype.startswith(NOT_TRIED)]:
        raise NotRunnable(problem=f"not tried on inputs or outputs of {' and '.join(found)}")


def handed_over(
    slug: str, path: Path, scratch: Path, summary: Summary, draws: Sequence[Mapping[str, np.ndarray]]
) -> Json:
    """The draws, under the names of the model's inputs, as files in the current folder, and what is to be run."""
    package = _tfjs.read(path, scratch / f"{slug}-source")
    inputs, outputs = tfjs_graph.tensors(package.root) if slug == "tfjs_graph" else ({}, {})
    written = [
        [
            _written(array, inputs.get(name, name), f"input-{number}-{place}.bin")
            for place, (name, array) in enumerate(draw.items())
        ]
        for number, draw in enumerate(draws)
    ]
    named = [{"name": spec.name, "tensor": outputs.get(spec.name, spec.name)} for spec in summary.outputs]
    return {"model": str(package.file), "inputs": written, "outputs": named}


def _written(array: np.ndarray, name: str, file: str) -> Json:
    import numpy as np

    dtype = KINDS[array.dtype.kind]
    Path(file).write_bytes(array.astype(np.dtype(dtype).newbyteorder("<"), "C").tobytes())
    return {"name": name, "dtype": dtype, "shape": list(array.shape), "file": file}
