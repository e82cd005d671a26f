"""Small named repairs of layer configs that older Keras releases wrote, each with its Finding.

A repair changes how a layer is spelled, never what it computes: an argument is only dropped where its value says what
Keras 3 does anyway. Nothing here imports TensorFlow or Keras.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from worker.errors import ModelError
from worker.report import Finding, Severity, declare

ANY = object()  # every value of the argument is neutral for what the model computes

# (class or "*", argument) -> the values that change nothing. Keyed by class, since a name means different things.
_REMOVED: dict[tuple[str, str], tuple[Any, ...]] = {
    ("DepthwiseConv1D", "groups"): (ANY,),
    ("DepthwiseConv2D", "groups"): (ANY,),
    ("SeparableConv1D", "groups"): (1,),
    ("SeparableConv2D", "groups"): (1,),
    ("Conv1DTranspose", "groups"): (1,),
    ("Conv2DTranspose", "groups"): (1,),
    ("Conv3DTranspose", "groups"): (1,),
    ("*", "time_major"): (False,),
    ("*", "implementation"): (ANY,),
    ("*", "input_length"): (ANY,),
    ("*", "input_dim"): (ANY,),  # of Keras 1, which says the shape of the input beside it
    ("*", "ragged"): (False,),
    ("*", "sparse"): (False,),
    ("Embedding", "sparse"): (ANY,),
    ("BatchNormalization", "fused"): (ANY,),
    ("BatchNormalization", "virtual_batch_size"): (None,),
    ("BatchNormalization", "renorm"): (False,),
    ("BatchNormalization", "renorm_clipping"): (ANY,),
    ("BatchNormalization", "renorm_momentum"): (ANY,),
    ("MultiHeadAttention", "query_shape"): (ANY,),
    ("MultiHeadAttention", "key_shape"): (ANY,),
    ("MultiHeadAttention", "value_shape"): (ANY,),
    ("Attention", "causal"): (False,),
    ("AdditiveAttention", "causal"): (False,),
    ("SeparableConv1D", "kernel_initializer"): (ANY,),
    ("SeparableConv2D", "kernel_initializer"): (ANY,),
    ("SeparableConv1D", "kernel_regularizer"): (ANY,),
    ("SeparableConv2D", "kernel_regularizer"): (ANY,),
    ("SeparableConv1D", "kernel_constraint"): (ANY,),
    ("SeparableConv2D", "kernel_constraint"): (ANY,),
    ("DepthwiseConv1D", "kernel_initializer"): (ANY,),
    ("DepthwiseConv2D", "kernel_initializer"): (ANY,),
    ("DepthwiseConv1D", "kernel_regularizer"): (ANY,),
    ("DepthwiseConv2D", "kernel_regularizer"): (ANY,),
    ("DepthwiseConv1D", "kernel_constraint"): (ANY,),
    ("DepthwiseConv2D", "kernel_constraint"): (ANY,),
    ("*", "vocabulary_size"): (ANY,),
    ("*", "trainable"): (ANY,),  # only layers without weights do not take it
    ("*", "rng_type"): (ANY,),  # how augmentation draws, which is for training only
    ("*", "input_spec"): (ANY,),
    ("*", "has_input_vocabulary"): (ANY,),
    ("*", "optional"): (False,),
    ("*", "epsilon"): (0.01,),  # Discretization's sketch, used by adapt() only
    ("*", "pad_to_max_tokens"): (False,),
    ("*", "experimental_autocast"): (ANY,),
    ("*", "autocast"): (True,),
}
_SHAPES = ("batch_input_shape", "batch_shape", "input_shape", "input_dtype")  # said by the model's own input
_RENAMED_ARGUMENTS = {
    ("LeakyReLU", "alpha"): "negative_slope",
    ("Discretization", "bins"): "bin_boundaries",
    ("CategoryEncoding", "max_tokens"): "num_tokens",
}
RENAMED_CLASSES = {
    "BatchNormalizationV1": "BatchNormalization",
    "BatchNormalizationV2": "BatchNormalization",
    "SyncBatchNormalization": "BatchNormalization",
    "LayerNormalizationV2": "LayerNormalization",
    "DenseFeaturesV2": "DenseFeatures",
    "UnifiedLSTM": "LSTM",
    "UnifiedGRU": "GRU",
    "GRUV2": "GRU",
    "LSTMV2": "LSTM",
    "CuDNNLSTM": "LSTM",
    "CuDNNGRU": "GRU",
    "Convolution1D": "Conv1D",
    "Convolution2D": "Conv2D",
    "Convolution3D": "Conv3D",
    "AtrousConvolution1D": "Conv1D",
    "AtrousConvolution2D": "Conv2D",
    "Deconvolution2D": "Conv2DTranspose",
    "SeparableConvolution2D": "SeparableConv2D",
    "TimeDistributedDense": "Dense",
}
CUDNN = frozenset({"CuDNNLSTM", "CuDNNGRU"})
# Arguments in the words of Keras 1, and what they have been called since Keras 2. Only where the layer takes no such
# argument today: an Embedding still has its output_dim.
_KERAS_1 = {
    "output_dim": "units",
    "nb_filter": "filters",
    "filter_length": "kernel_size",
    "border_mode": "padding",
    "subsample": "strides",
    "subsample_length": "strides",
    "stride": "strides",
    "atrous_rate": "dilation_rate",
    "dim_ordering": "data_format",
    "pool_length": "pool_size",
    "length": "size",
    "bias": "use_bias",
    "p": "rate",
    "sigma": "stddev",
    "inner_activation": "recurrent_activation",
    "dropout_W": "dropout",
    "dropout_U": "recurrent_dropout",
}
_KERAS_1_SIZES = (("nb_row", "nb_col"), ("kernel_dim1", "kernel_dim2", "kernel_dim3"))
_DATA_FORMATS = {"tf": "channels_last", "th": "channels_first", "default": "channels_last"}
# How weights start, are held and are punished matters to training from the beginning alone.
_KERAS_1_TRAINING = re.compile(
    r"((inner|gamma|beta|forget_bias|depthwise|pointwise)_)?init|[WUb]_(regularizer|constraint)|activity_regularizer"
    r"|(gamma|beta|depthwise|pointwise)_(regularizer|constraint)|consume_less|weights|create_input_layer"
)
_AS_GRAPH = "a format that holds a graph (SavedModel, ONNX, TensorFlow Lite) can be made from it"
_MERGES = {"sum": "Add", "mul": "Multiply", "ave": "Average", "max": "Maximum", "concat": "Concatenate"}
_RENAMED_VALUES = {
    ("output_mode", "binary"): "multi_hot",
    ("output_mode", "tf-idf"): "tf_idf",
}
# Keras 2's hard_sigmoid in the words of Keras 3, whose own of that name has another slope (x / 6 instead of 0.2 x).
HARD_SIGMOID = {
    "module": "keras.layers",
    "class_name": "Pipeline",
    "config": {
        "layers": [
            {
                "module": "keras.layers",
                "class_name": "Rescaling",
                "config": {"scale": 0.2, "offset": 0.5},
                "registered_name": None,
            },
            {
                "module": "keras.layers",
                "class_name": "ReLU",
                "config": {"max_value": 1.0},
                "registered_name": None,
            },
        ],
        "name": "hard_sigmoid_of_keras_2",
    },
    "registered_name": None,
}

REMOVED = {
    argument: declare(
        f"repaired-{argument.replace('_', '-')}",
        Severity.NOTE,
        "{layer} has no argument "
        + argument
        + " any more. Its value here ({value}) changes nothing, so it was left out.",
    )
    for argument in sorted({argument for _, argument in _REMOVED})
}
REMOVED_OTHER = declare(
    "repaired-argument",
    Severity.NOTE,
    "{layer} has no argument {argument} any more. It was switched off ({value}), so it was left out.",
)
RENAMED_ARGUMENT = declare(
    "repaired-renamed-argument",
    Severity.NOTE,
    "{layer} now calls its argument {argument} {new}; the value is the same.",
)
RENAMED_CLASS = declare("repaired-class", Severity.NOTE, "The layer class {layer} is called {new} now.")
HARD_SIGMOID_KEPT = declare(
    "repaired-hard-sigmoid",
    Severity.NOTE,
    "hard_sigmoid was 0.2x + 0.5 when this file was written and is x/6 + 0.5 in Keras 3. The old one was kept, spelled "
    "as Rescaling and ReLU.",
)
RESET_AFTER = declare(
    "repaired-reset-after",
    Severity.NOTE,
    "The GRU was written before reset_after existed, so reset_after=False was made explicit.",
)
AXIS = declare("repaired-axis", Severity.NOTE, "{layer} takes its axis as one number now: {value} became {new}.")
POLICY = declare("repaired-dtype-policy", Severity.NOTE, "The dtype policy {value} is given by its name now.")
THRESHOLDED = declare(
    "repaired-thresholded-relu",
    Severity.NOTE,
    "ThresholdedReLU is gone; ReLU with threshold {value} computes the same.",
)
KERAS_1 = declare(
    "repaired-keras-1",
    Severity.NOTE,
    "{layer} was described in the words of Keras 1, which were replaced: {arguments}.",
)
TRAINING_LEFT_OUT = declare(
    "repaired-training-argument",
    Severity.NOTE,
    "{layer} has arguments of Keras 1 about how weights start or are held while training ({arguments}), which were "
    "left out; the weights themselves are in the file.",
)
MERGE = declare("repaired-merge", Severity.NOTE, "Merge with mode {value} is the layer {new} now.")
CAUSAL = declare(
    "repaired-causal-attention",
    Severity.NOTE,
    "{layer} was made with causal=True; that is use_causal_mask=True at its call now.",
)
CUDNN_LAYER = declare(
    "repaired-cudnn",
    Severity.NOTE,
    "{layer} only ran on GPUs. {new} with the same weights computes the same everywhere.",
)
BINS = declare(
    "repaired-discretization",
    Severity.NOTE,
    "Discretization had the dtype {value}, to which Keras 3 cuts off its inputs where it makes a graph. It takes"
    " float32 now, and gives the same bins.",
)
RENAMED_LAYER = declare(
    "renamed", Severity.WARNING, "Keras 3 takes no slash in a name: {name} is called {new} in the result."
)


@dataclass
class Draft:
    """A layer while it is being repaired."""

    kind: str
    config: dict[str, Any]
    legacy: bool = True
    call: dict[str, Any] = field(default_factory=dict)  # arguments that are given when the layer is called
    findings: list[Finding] = field(default_factory=list)


def clean_name(name: str) -> str:
    """A layer's name as Keras 3 allows it."""
    return name.replace("/", "_")


def repair(draft: Draft, accepted: Callable[[str], frozenset[str]]) -> None:
    """Make the draft acceptable to Keras 3. ``accepted`` gives the arguments of a class; unknown ones are dropped where
    they say nothing, and refused with the field's name where they do."""
    name_policy(draft)
    if draft.legacy:
        for change in (replace_merge, name_cudnn, rename_class, replace_thresholded_relu):
            change(draft)
        read_keras_1(draft, accepted(draft.kind))
        for change in (spell_out_reset_after, keep_hard_sigmoid):
            change(draft)
        for change in (refuse_other_statistics, refuse_time_first, move_causal):
            change(draft)
        for change in (rename_arguments, use_one_axis, simplify_initializers, free_vocabulary_dtype, free_bins):
            change(draft)
    drop_arguments(draft, accepted(draft.kind))


def replace_merge(draft: Draft) -> None:
    """Keras 1 had one layer for all ways to put tensors together."""
    if draft.kind != "Merge":
        return
    mode = draft.config.get("mode")
    if draft.config.get("layers") or not isinstance(mode, str) or mode not in _MERGES:
        raise ModelError(problem=f"its Merge layer (mode {mode!r}) has no equal in Keras 3")
    draft.kind = _MERGES[mode]
    draft.findings.append(MERGE(value=mode, new=draft.kind))
    axis = {"axis": draft.config.get("concat_axis", -1)} if mode == "concat" else {}
    draft.config = {"name": draft.config.get("name"), **axis}


def name_cudnn(draft: Draft) -> None:
    """Their arguments are those of today's layers, whose defaults compute what cuDNN did."""
    if draft.kind in CUDNN:
        draft.findings.append(CUDNN_LAYER(layer=draft.kind, new=RENAMED_CLASSES[draft.kind]))
        if draft.kind == "CuDNNGRU":
            draft.config["reset_after"] = True


def read_keras_1(draft: Draft, accepted: frozenset[str]) -> None:
    """Arguments of Keras 1 in today's words; a layer of later releases has none of them."""
    said = []
    for names in _KERAS_1_SIZES:
        if set(names) <= set(draft.config) - accepted:
            draft.config["kernel_size"] = [draft.config.pop(name) for name in names]
            said.append(f"{', '.join(names)} → kernel_size")
    for old in sorted(set(draft.config) & set(_KERAS_1) - accepted):
        draft.config[_KERAS_1[old]] = draft.config.pop(old)
        said.append(f"{old} → {_KERAS_1[old]}")
    if said:
        draft.findings.append(KERAS_1(layer=draft.kind, arguments=", ".join(said)))
        _name_data_format(draft)
    leave_out_training(draft, accepted)


def _name_data_format(draft: Draft) -> None:
    value = draft.config.get("data_format")
    if value in _DATA_FORMATS:
        draft.config["data_format"] = _DATA_FORMATS[value]


def leave_out_training(draft: Draft, accepted: frozenset[str]) -> None:
    unknown = sorted(key for key in set(draft.config) - accepted if _KERAS_1_TRAINING.fullmatch(key))
    for key in unknown:
        del draft.config[key]
    if draft.kind == "Embedding" and "dropout" in draft.config:
        unknown += ["dropout"] if draft.config.pop("dropout") else []
    if isinstance(draft.config.get("activity_regularizer"), dict) and "name" in draft.config["activity_regularizer"]:
        del draft.config["activity_regularizer"]
        unknown.append("activity_regularizer")
    if unknown:
        draft.findings.append(TRAINING_LEFT_OUT(layer=draft.kind, arguments=", ".join(unknown)))


def refuse_other_statistics(draft: Draft) -> None:
    """A BatchNormalization that normalises in a way of its own: the numbers would be others, so nothing is guessed."""
    if draft.kind != "BatchNormalization":
        return
    if draft.config.pop("mode", 0) not in (0, None):
        raise ModelError(problem="its BatchNormalization has a mode other than 0, which only Keras 1 had")
    if draft.config.get("renorm"):
        raise ModelError(
            problem=f"its BatchNormalization was trained with renorm=True, which Keras 3 does not have; {_AS_GRAPH}"
        )


def refuse_time_first(draft: Draft) -> None:
    if draft.config.get("time_major"):
        raise ModelError(
            problem=f"its {draft.kind} reads the time before the batch (time_major=True), which Keras 3 does not have; "
            + _AS_GRAPH
        )


def move_causal(draft: Draft) -> None:
    if draft.kind in {"Attention", "AdditiveAttention"} and draft.config.pop("causal", False):
        draft.call["use_causal_mask"] = True
        draft.findings.append(CAUSAL(layer=draft.kind))


def rename_class(draft: Draft) -> None:
    new = RENAMED_CLASSES.get(draft.kind)
    if new and not draft.kind.startswith("CuDNN"):
        draft.findings.append(RENAMED_CLASS(layer=draft.kind, new=new))
    draft.kind = new or draft.kind


def name_policy(draft: Draft) -> None:
    """``{"class_name": "Policy", "config": {"name": "mixed_float16"}}`` becomes ``"mixed_float16"``."""
    value = draft.config.get("dtype")
    if isinstance(value, dict) and value.get("class_name") in {"Policy", "PolicyV1", "DTypePolicy"}:
        draft.config["dtype"] = value["config"]["name"]
        if value["class_name"] != "DTypePolicy":
            draft.findings.append(POLICY(value=value["config"]["name"]))


def spell_out_reset_after(draft: Draft) -> None:
    if draft.kind in {"GRU", "GRUCell"} and "reset_after" not in draft.config:
        draft.config["reset_after"] = False
        draft.findings.append(RESET_AFTER())


def keep_hard_sigmoid(draft: Draft) -> None:
    for key in [key for key in draft.config if key.endswith("activation")]:
        if _function_name(draft.config[key]) == "hard_sigmoid":
            draft.config[key] = HARD_SIGMOID
            draft.findings.append(HARD_SIGMOID_KEPT())


def _function_name(value: Any) -> Any:
    """A function is a text, or an object around one in files of Keras 2.12 and later."""
    return value.get("config") if isinstance(value, dict) and value.get("class_name") == "function" else value


def replace_thresholded_relu(draft: Draft) -> None:
    if draft.kind == "ThresholdedReLU":
        theta = draft.config.pop("theta", 1.0)
        draft.kind, draft.config["threshold"] = "ReLU", theta
        draft.findings.append(THRESHOLDED(value=theta))


def rename_arguments(draft: Draft) -> None:
    for (kind, old), new in _RENAMED_ARGUMENTS.items():
        if draft.kind == kind and old in draft.config:
            draft.config.setdefault(new, draft.config.pop(old))
            draft.findings.append(RENAMED_ARGUMENT(layer=kind, argument=old, new=new))
    for key in set(draft.config) & {"output_mode"}:
        draft.config[key] = _RENAMED_VALUES.get((key, str(draft.config[key])), draft.config[key])


def use_one_axis(draft: Draft) -> None:
    axis = draft.config.get("axis")
    if draft.kind == "BatchNormalization" and isinstance(axis, list):
        if len(axis) != 1:
            raise ModelError(problem=f"BatchNormalization over the axes {axis} does not exist in Keras 3")
        draft.config["axis"] = axis[0]
        draft.findings.append(AXIS(layer=draft.kind, value=axis, new=axis[0]))


def simplify_initializers(draft: Draft) -> None:
    """Initializers of old releases carry a dtype and other words that today's do not take."""
    for key, value in draft.config.items():
        if key.endswith("_initializer") and isinstance(value, dict) and isinstance(value.get("config"), dict):
            inner = {name: item for name, item in value["config"].items() if name != "dtype" and item is not None}
            if inner.get("distribution") == "normal":
                inner["distribution"] = "truncated_normal"
            draft.config[key] = {"class_name": value["class_name"], "config": inner}


def free_vocabulary_dtype(draft: Draft) -> None:
    """Layers that read text took "string" as their dtype; today the input says that."""
    if draft.config.get("dtype") == "string":
        del draft.config["dtype"]


def free_bins(draft: Draft) -> None:
    """Keras 2 said with the dtype what the bins are counted in. To Keras 3 it is what the inputs are turned into,
    though only in graphs: whatever lies within one whole number would fall into one bin."""
    dtype = draft.config.get("dtype")
    whole = isinstance(dtype, str) and dtype.startswith(("int", "uint"))
    if draft.kind == "Discretization" and whole and draft.config.get("output_mode", "int") == "int":
        draft.config["dtype"] = "float32"
        draft.findings.append(BINS(value=dtype))


def drop_arguments(draft: Draft, accepted: frozenset[str]) -> None:
    for key in _SHAPES:
        draft.config.pop(key, None)
    for key in sorted(set(draft.config) - accepted):
        draft.findings.append(_dropped(draft.kind, key, draft.config.pop(key)))


def _dropped(kind: str, argument: str, value: Any) -> Finding:
    neutral = _REMOVED.get((kind, argument), _REMOVED.get(("*", argument), ()))
    if neutral and (neutral[0] is ANY or value in neutral):
        shown = value if isinstance(value, (str, int, float, bool, type(None))) else "…"
        return REMOVED[argument](layer=kind, value=shown)
    if value is None or value is False:
        return REMOVED_OTHER(layer=kind, argument=argument, value=value)
    raise ModelError(problem=f"{kind} does not know the argument {argument}={value!r} any more, and it is not neutral")
