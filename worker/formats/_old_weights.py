"""Weights in the layouts of Keras 1, of Theano and of cuDNN, rearranged into those of today's layers.

Keras 1 kept an array for every gate of a recurrent layer; Theano turned the kernels of convolutions around before using
them; cuDNN keeps kernels transposed and two biases. The rules are those of Keras 2 itself
(``preprocess_weights_for_loading`` and ``convert_kernel`` in ``keras/engine/topology.py``, later
``keras/saving/legacy/hdf5_format.py``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from worker.errors import ModelError
from worker.formats import _tensors, _weights
from worker.formats._rebuild import Part
from worker.report import Finding, Severity, declare

if TYPE_CHECKING:
    import numpy as np

    Arrays = list[np.ndarray]

REARRANGED = declare(
    "repaired-weight-layout",
    Severity.NOTE,
    "The weights of {layer} are laid out as {source} wrote them, and were rearranged.",
)
UNKNOWN_BACKEND = declare(
    "unknown-backend",
    Severity.WARNING,
    "Keras 1 wrote this file and does not say on which backend. Theano turned the kernels of convolutions around, and "
    "TensorFlow did not; they were read as TensorFlow's. Compare with an output that you know.",
)
_CONVOLUTIONS = frozenset({"Conv1D", "Conv2D", "Conv3D", "Conv2DTranspose", "ConvLSTM2D"})
_GATES = {"LSTM": (0, 2, 1, 3), "ConvLSTM2D": (0, 2, 1, 3), "GRU": (0, 1, 2)}  # Keras 1 wrote i, c, f, o


@dataclass
class _Era:
    """Who wrote the weights, and what was found out on the way."""

    keras_1: bool
    theano: bool
    findings: list[Finding] = field(default_factory=list)

    def note(self, layer: Any, source: str) -> None:
        finding = REARRANGED(layer=layer.name, source=source)
        self.findings.extend([finding] if finding not in self.findings else [])


def modernised(weights: Any, part: Part, keras_1: bool, backend: str) -> tuple[Any, list[Finding]]:
    """The weights of a file for a rebuilt model, each row in today's layout, and what was rearranged."""
    if not isinstance(weights, _weights.Rows):
        return weights, []
    era = _Era(keras_1, backend == "theano")
    layers = dict(zip([name for name, _ in weights.filled], weights.targets(part), strict=False))
    rows = [(name, _row(layers.get(name), arrays, era)) for name, arrays in weights.rows]
    if era.keras_1 and not backend and any(_kind(inner.layer) in _CONVOLUTIONS for inner in part.parts):
        era.findings.append(UNKNOWN_BACKEND())
    return _weights.Rows(rows), era.findings


def _row(part: Part | None, arrays: list[Any], era: _Era) -> list[Any]:
    """The named arrays of one layer; the very same where nothing is to be done."""
    if part is None or not arrays:
        return arrays
    if part.parts:
        return _nested(part, arrays, era)
    if not _may_differ(part.layer, era):
        return arrays
    before = [_tensors.value_of(array) for _, array in arrays]
    after = _layer(part.layer, list(before), era)
    if len(after) == len(before) and all(one is two for one, two in zip(before, after, strict=True)):
        return arrays
    names = [name for name, _ in arrays] if len(after) == len(arrays) else [""] * len(after)
    return list(zip(names, after, strict=True))


def _nested(part: Part, arrays: list[Any], era: _Era) -> list[Any]:
    """A model inside a model is one row: what can be trained first, layer by layer, then the rest."""
    weighted = [inner for inner in _leaves(part) if _weights.variables_of(inner)]
    if not any(_may_differ(inner.layer, era) for inner in weighted):
        return arrays
    if len(arrays) != sum(len(_weights.variables_of(inner)) for inner in weighted):
        raise ModelError(
            problem=f"the weights of {part.name}, a model inside the model, are laid out in an unknown way"
        )
    result, taken = list(arrays), 0
    for trainable in (True, False):
        for inner in weighted:
            count = sum(bool(item.trainable) is trainable for item in _weights.variables_of(inner))
            chunk = slice(taken, taken + count)
            if count and trainable:
                result[chunk] = _row(inner, arrays[chunk], era)
            taken += count
    return result


def _leaves(part: Part) -> Iterator[Part]:
    for inner in part.parts:
        yield from _leaves(inner) if inner.parts else [inner]


def _may_differ(layer: Any, era: _Era) -> bool:
    """Was there ever another layout for such a layer?"""
    kind = _kind(layer)
    if kind == "Bidirectional":
        return _may_differ(layer.forward_layer, era)
    if kind == "TimeDistributed":
        return _may_differ(layer.layer, era)
    return kind in {"LSTM", "GRU"} or (kind in _CONVOLUTIONS and (era.keras_1 or era.theano))


def _kind(layer: Any) -> str:
    return type(layer).__name__


def _layer(layer: Any, arrays: Arrays, era: _Era) -> Arrays:
    """The arrays of one layer in today's layout."""
    kind = _kind(layer)
    if kind == "Bidirectional":
        half = len(arrays) // 2
        return [
            *_layer(layer.forward_layer, arrays[:half], era),
            *_layer(layer.backward_layer, arrays[half:], era),
        ]
    if kind == "TimeDistributed":
        return _layer(layer.layer, arrays, era)
    steps: list[Callable[[Any, Arrays, _Era], Arrays]] = [join_gates, turn_axes, flip_kernels, leave_cudnn]
    for step in steps:
        arrays = step(layer, arrays, era)
    return arrays


def join_gates(layer: Any, arrays: Arrays, era: _Era) -> Arrays:
    """Keras 1 kept W, U and b for each gate; they stand side by side since Keras 2."""
    import numpy as np

    order = _GATES.get(_kind(layer))
    if order is None or len(arrays) != 3 * len(order):
        return arrays
    era.note(layer, "Keras 1")
    return [np.concatenate([arrays[3 * gate + part] for gate in order], axis=-1) for part in range(3)]


def turn_axes(layer: Any, arrays: Arrays, era: _Era) -> Arrays:
    """Kernels of Keras 1: channels first where the images are, one axis more for sequences."""
    import numpy as np

    kind = _kind(layer)
    if not era.keras_1 or kind not in _CONVOLUTIONS or kind == "ConvLSTM2D":
        return arrays
    axes = _axes_of_keras_1(kind, arrays[0].shape, layer)
    if axes is None:
        return arrays
    era.note(layer, "Keras 1")
    kernel = np.transpose(arrays[0], axes)
    return [kernel[:, 0] if kind == "Conv1D" else kernel, *arrays[1:]]


def _axes_of_keras_1(kind: str, shape: tuple[int, ...], layer: Any) -> tuple[int, ...] | None:
    """How the axes of a kernel of Keras 1 have to be turned; None where they are right."""
    if kind == "Conv1D":
        first = shape[:2] == (layer.kernel_size[0], 1) and shape[3] == layer.filters
        return (0, 1, 2, 3) if first else (2, 3, 1, 0)
    if kind == "Conv2DTranspose":
        return (0, 1, 3, 2) if layer.data_format == "channels_last" else (2, 3, 0, 1)
    if layer.data_format == "channels_last":
        return None
    return (2, 3, 1, 0) if kind == "Conv2D" else (2, 3, 4, 1, 0)


def flip_kernels(layer: Any, arrays: Arrays, era: _Era) -> Arrays:
    """Theano convolves in the word's own sense, with the kernel turned around in every direction of space."""
    if not era.theano or _kind(layer) not in _CONVOLUTIONS:
        return arrays
    era.note(layer, "Keras on Theano")
    kernels = 2 if _kind(layer) == "ConvLSTM2D" else 1
    return [_flipped(array) if place < kernels else array for place, array in enumerate(arrays)]


def _flipped(kernel: np.ndarray) -> np.ndarray:
    space = tuple(slice(None, None, -1) for _ in range(kernel.ndim - 2))
    return kernel[space].copy()


def leave_cudnn(layer: Any, arrays: Arrays, era: _Era) -> Arrays:
    """cuDNN keeps every gate's kernels transposed and a bias for the input beside one for the state."""
    import numpy as np

    gates = {"LSTM": 4, "GRU": 3}.get(_kind(layer))
    if gates is None or len(arrays) != 3 or arrays[2].shape != (2 * gates * arrays[1].shape[0],):
        return arrays
    era.note(layer, "cuDNN")
    kernel = np.hstack([item.T.reshape(item.shape, order="F") for item in np.hsplit(arrays[0], gates)])
    recurrent = np.hstack([item.T for item in np.hsplit(arrays[1], gates)])
    bias = arrays[2].reshape(2, -1)
    return [kernel, recurrent, bias.sum(axis=0) if gates == 4 else bias]
