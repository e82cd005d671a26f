"""Faults in what a file says beside its weights: a setting is another one, or an operation is a similar one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import numpy as np

from bench._mutations import Array, Change

FACTORS = (1.5, 0.5)
WORDS: Mapping[str, tuple[str, ...]] = {
    # Keras
    "relu": ("relu6", "elu", "leaky_relu"),
    "relu6": ("relu",),
    "gelu": ("silu", "relu"),
    "sigmoid": ("hard_sigmoid",),
    "hard_sigmoid": ("sigmoid",),
    "tanh": ("softsign",),
    "elu": ("selu",),
    "softplus": ("elu",),
    "silu": ("hard_silu",),
    "swish": ("hard_silu", "hard_swish"),
    "softmax": ("sigmoid",),
    "exponential": ("softplus",),
    "linear": ("relu",),
    "valid": ("same",),
    "same": ("valid",),
    "causal": ("same",),
    "nearest": ("bilinear", "linear"),
    "bilinear": ("nearest",),
    "sum": ("ave",),
    "ave": ("sum",),
    # ONNX
    "tanh approx": ("none",),
    "none": ("tanh",),
    "SAME_UPPER": ("SAME_LOWER",),
    "SAME_LOWER": ("SAME_UPPER",),
    "NOTSET": ("SAME_UPPER",),
    "linear interpolation": ("nearest",),
    "half_pixel": ("asymmetric", "align_corners"),
    "asymmetric": ("half_pixel",),
    "tf_half_pixel_for_nn": ("asymmetric",),
    "floor": ("round_prefer_floor", "ceil"),
    "round_prefer_floor": ("floor", "ceil"),
    "constant": ("edge", "reflect"),
    "forward": ("reverse",),
    "reverse": ("forward",),
    "Tanh": ("Sigmoid",),
    "Sigmoid": ("HardSigmoid",),
    # TensorFlow
    "SAME": ("VALID",),
    "VALID": ("SAME",),
    "NHWC": ("NCHW",),
    # OpenVINO
    "same_upper": ("same_lower", "valid"),
    "same_lower": ("same_upper",),
    "explicit": ("same_upper",),
    "erf": ("tanh",),
    "numpy": ("none",),
}
# Operations that take the same inputs, by their names in all the formats; one that a format has not is refused there
ALIKE: tuple[frozenset[str], ...] = tuple(
    map(
        frozenset,
        (
            {"MaxPool", "AvgPool", "AveragePool"},
            {"GlobalMaxPool", "GlobalAveragePool"},
            {"MAX_POOL_2D", "AVERAGE_POOL_2D"},
            {"MaxPooling2D", "AveragePooling2D"},
            {"MaxPooling1D", "AveragePooling1D"},
            {"GlobalMaxPooling2D", "GlobalAveragePooling2D"},
            {"GlobalMaxPooling1D", "GlobalAveragePooling1D"},
            {"Add", "Multiply", "Maximum", "Average"},
            {"Add", "AddV2", "Maximum", "Max"},
            {"ADD", "MAXIMUM"},
            {"Mul", "Maximum"},
            {"Relu", "Relu6", "Elu", "Selu", "Softplus", "Softsign"},
            {"ReLU", "Elu", "SoftPlus", "Swish", "Gelu"},
            {"RELU", "RELU6", "ELU", "RELU_N1_TO_1"},
            {"Sigmoid", "HardSigmoid", "Tanh", "Softsign"},
            {"LOGISTIC", "TANH"},
            {"Mean", "Max", "Sum"},
            {"ReduceMean", "ReduceMax", "ReduceSum", "ReduceL2"},
            {"MEAN", "REDUCE_MAX", "SUM"},
            {"Greater", "GreaterEqual", "Less"},
            {"Minimum", "Min"},
            {"Floor", "Round", "Ceil"},
            {"ResizeBilinear", "ResizeNearestNeighbor"},
            {"RESIZE_BILINEAR", "RESIZE_NEAREST_NEIGHBOR"},
            {"LSTM", "GRU"},
        ),
    )
)
TYPES = frozenset({"T", "Tshape", "Tidx", "dtype", "DstT", "SrcT", "Tperm", "Tpaddings", "Index", "out_type", "to"})


def other_words(word: str) -> tuple[str, ...]:
    """What may stand in the place of a word."""
    return WORDS.get(word, ())


def similar(kind: str) -> list[str]:
    """The operations that take the same inputs."""
    return sorted({other for group in ALIKE if kind in group for other in group} - {kind})


def other_values(value: Any) -> Iterator[Any]:
    """Plausible other values of one setting, of the same type."""
    if isinstance(value, bool):
        yield not value
    elif isinstance(value, int):
        yield from (value + 1, value - 1)
    elif isinstance(value, float):
        yield from (value * factor for factor in FACTORS) if value else (0.5,)
    elif isinstance(value, str):
        yield from other_words(value)
    elif isinstance(value, list | tuple) and value and all(type(item) is int for item in value):
        yield from _other_lists(list(value))


def _other_lists(value: list[int]) -> Iterator[list[int]]:
    if value[::-1] != value:
        yield value[::-1]
    yield [value[0] + 1, *value[1:]]
    yield [*value[:-1], value[-1] + 1]
    yield [item + 1 for item in value]


def changed_settings(
    label: str, settings: Mapping[str, Any], put: Callable[[str, Any], None], skipped: frozenset[str] = TYPES
) -> Iterator[Change]:
    """One change for each other value of each setting."""
    for name, value in settings.items():
        if name not in skipped:
            for new in other_values(value):
                yield Change(f"{label}.{name}: {value} → {new}", partial(put, name, new))


def whole_constants(tensors: Mapping[str, Array], put: Callable[[str, Array], None]) -> Iterator[Change]:
    """Axes, orders, sizes and places that a graph keeps as constants."""
    for name, array in tensors.items():
        if array.dtype.kind in "iu" and 0 < array.size <= 16:
            flat = array.ravel()
            for new in _other_lists([int(item) for item in flat]):
                wide = np.array(new).astype(array.dtype).reshape(array.shape)
                yield Change(f"{name}: {flat.tolist()} → {new}", partial(put, name, wide))


def float_constants(tensors: dict[str, Array]) -> Iterator[Change]:
    """Numbers that belong to operations: slopes, bounds, scales."""
    for name, array in tensors.items():
        if array.dtype.kind == "f" and array.size and array.min() == array.max() != 0:
            for factor in FACTORS:
                new = (array * factor).astype(array.dtype)
                yield Change(f"{name} × {factor}", partial(tensors.__setitem__, name, new))
