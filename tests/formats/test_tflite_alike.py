"""A quantised TensorFlow Lite file beside the same conversion without rounding: what is the same is found to be, and
what is not is named. And layers of it that stay in float32."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.formats import models
from worker import pipeline
from worker.errors import BadOption
from worker.formats import _tflite_float, get, saved_model
from worker.formats._format import Hop
from worker.formats._likeness import Likeness, Measured
from worker.formats._tflite_alike import alike
from worker.formats._tflite_float import _packed
from worker.report import Verdict
from worker.sandbox.client import Zygote
from worker.sandbox.limits import Limits
from worker.verify.unrounded import MOST_CUT

HALF = 0.5001  # of a step
KINDS = {2: "<i4", 4: "<i8"}  # of biases
Change = Callable[[Any], None]


def written(source: Path, folder: Path, **options: str) -> tuple[Path, Hop]:
    folder.mkdir(exist_ok=True)
    hop, target = Hop(folder, options, seed=7), folder / f"{'-'.join(options.values())}.tflite"
    get("tflite").converts_from["saved_model"].run(source, target, hop)
    return target, hop


@pytest.fixture(scope="module")
def conv(made_file: Callable[[str, str], Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The convolutional model in every precision."""
    folder = tmp_path_factory.mktemp("precisions")
    source = made_file("conv", "saved_model")
    names = ("float32", "float16", "dynamic", "int8", "int16x8")
    return {"source": source, **{name: written(source, folder, precision=name)[0] for name in names}}


@pytest.mark.parametrize("precision", ["float16", "dynamic", "int8", "int16x8"])
def test_a_quantised_file_is_the_other_one_rounded(precision: str, conv: dict[str, Path]) -> None:
    found = alike(conv["float32"], conv[precision])
    assert found.problem == ""
    assert found.operations >= 5
    assert max(item.steps for item in found.furthest) < HALF
    assert (found.rounded > 0) is (precision != "dynamic")  # its tensors are too small for that
    assert Likeness.from_json({**vars(found), "furthest": [vars(item) for item in found.furthest]}) == found


def test_loops_are_compared_by_what_they_repeat(made_file: Callable[[str, str], Path], tmp_path: Path) -> None:
    """float16 hands its weights into the loop, where float32 has them inside."""
    source = made_file("recurrent", "saved_model")
    fine, coarse = (written(source, tmp_path, precision=name)[0] for name in ("float32", "float16"))
    found = alike(fine, coarse)
    assert (found.problem, found.rounded > 0) == ("", True)
    assert max(item.steps for item in found.furthest) < HALF


def test_a_mask_beyond_the_largest_half_is_cut_off_there(tmp_path: Path) -> None:
    """Attention adds -1e9 to what is masked, and float16 ends at 65504; a number of another sign is a fault."""
    import keras

    x = keras.Input((7, 16), name="x")
    model = keras.Model(x, keras.layers.MultiHeadAttention(2, 8)(x, x, use_causal_mask=True))
    source = models.write("saved_model", model, tmp_path / "source")
    fine, coarse = (written(source, tmp_path, precision=name)[0] for name in ("float32", "float16"))
    found = alike(fine, coarse)
    assert (found.problem, found.ranges) == ("", 1)
    assert max(item.steps for item in found.furthest) < HALF
    assert alike(fine, changed(coarse, tmp_path, other_mask)).furthest[0].steps > 1


def other_mask(model: Any) -> None:
    (mask,) = (
        tensor
        for graph in model.subgraphs
        for tensor in graph.tensors
        if (data := model.buffers[tensor.buffer].data) is not None and bytes(data) == np.float16(-65504).tobytes()
    )
    model.buffers[mask.buffer].data = np.frombuffer(np.float16(65504).tobytes(), "u1")


def changed(file: Path, folder: Path, change: Change) -> Path:
    from tensorflow.lite.python import schema_py_generated as schema

    model = schema.ModelT.InitFromObj(schema.Model.GetRootAsModel(file.read_bytes(), 0))
    change(model)
    target = folder / "changed.tflite"
    target.write_bytes(_packed(model))
    return target


def one_number(model: Any) -> None:
    """Two steps in one weight."""
    graph = model.subgraphs[0]
    kernel = next(item for item in graph.tensors if item.type == 9 and model.buffers[item.buffer].data is not None)
    data = np.array(model.buffers[kernel.buffer].data)
    data[0] = data[0] - 2 if data[0] > 100 else data[0] + 2
    model.buffers[kernel.buffer].data = data


def one_scale(model: Any) -> None:
    """What the whole numbers of a kernel stand for, by a fiftieth."""
    graph = model.subgraphs[0]
    kernel = next(item for item in graph.tensors if item.type == 9 and model.buffers[item.buffer].data is not None)
    kernel.quantization.scale = np.array(kernel.quantization.scale, "float32") * np.float32(1.02)


def no_activation(model: Any) -> None:
    fused = (item.builtinOptions for item in model.subgraphs[0].operators)
    options = next(item for item in fused if getattr(item, "fusedActivationFunction", 0))
    options.fusedActivationFunction = 0


def one_less(model: Any) -> None:
    """The operation in the middle is left out."""
    graph = model.subgraphs[0]
    place = len(graph.operators) // 2
    gone = graph.operators.pop(place)
    for item in graph.operators[place:]:
        item.inputs = [int(gone.inputs[0]) if number == gone.outputs[0] else int(number) for number in item.inputs]


@pytest.mark.parametrize("change", [one_number, one_scale])
def test_a_number_that_was_changed_lies_further_off_than_rounding(
    change: Change, conv: dict[str, Path], tmp_path: Path
) -> None:
    assert alike(conv["float32"], changed(conv["int8"], tmp_path, change)).furthest[0].steps > 1


def kernel_of_zeros(model: Any) -> None:
    """Its scale so wide that every number of it lies within half a step of zero, and its bias in steps as wide."""
    kernel, bias = kernel_of(model), bias_of(model)
    whole = whole_numbers(model, bias)
    for tensor in (kernel, bias):
        tensor.quantization.scale = np.array(tensor.quantization.scale, "float32") * np.float32(1000)
    model.buffers[kernel.buffer].data = np.zeros_like(held(model, kernel))
    model.buffers[bias.buffer].data = np.rint(whole / 1000).astype(whole.dtype).view("uint8")


def negative_kernel(model: Any) -> None:
    """And the bias with it."""
    for tensor in (kernel_of(model), bias_of(model)):
        tensor.quantization.scale = -np.array(tensor.quantization.scale, "float32")
        model.buffers[tensor.buffer].data = (-whole_numbers(model, tensor)).view("uint8")


def half_a_bias(model: Any) -> None:
    """Half the whole number at twice the scale, which no kernel reads."""
    bias = bias_of(model)
    whole, scales = whole_numbers(model, bias).copy(), np.array(bias.quantization.scale, "float32")
    whole[1], scales[1] = whole[1] // 2, scales[1] * 2
    model.buffers[bias.buffer].data, bias.quantization.scale = whole.view("uint8"), scales


def kernel_of(model: Any) -> Any:
    kernels = (item for item in model.subgraphs[0].tensors if item.type == 9 and len(shape_of(item)) == 4)
    return next(item for item in kernels if held(model, item) is not None)


def bias_of(model: Any) -> Any:
    biases = (item for item in model.subgraphs[0].tensors if item.type in KINDS and shape_of(item) == [6])
    return next(item for item in biases if held(model, item) is not None)


def shape_of(tensor: Any) -> list[int]:
    return [] if tensor.shape is None else list(tensor.shape)


def whole_numbers(model: Any, tensor: Any) -> np.ndarray:
    return np.array(held(model, tensor), "uint8").view(KINDS.get(tensor.type, "i1"))


def held(model: Any, tensor: Any) -> Any:
    return model.buffers[tensor.buffer].data


@pytest.mark.parametrize("precision", ["int8", "int16x8"])
@pytest.mark.parametrize("change", [kernel_of_zeros, negative_kernel, half_a_bias])
def test_a_scale_hides_nothing(change: Change, precision: str, tiny: dict[str, Path], tmp_path: Path) -> None:
    assert alike(tiny["float32"], changed(tiny[precision], tmp_path, change)).furthest[0].steps > 100


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A convolution with channels of nothing and of nearly nothing, whose scales the converter makes wider for their
    biases; and constants whose scale is that of what they are put beside."""
    import tensorflow as tf

    random = np.random.default_rng(0)
    kernel = random.normal(size=(3, 3, 3, 6)).astype("float32") * np.array([1, 1, 1e-5, 1e-7, 1e-9, 0], "float32")

    def network(x: Any) -> Any:
        x = tf.image.resize(tf.nn.relu(tf.nn.conv2d(x, kernel, 1, "SAME") + np.arange(6, dtype="float32")), (4, 4))
        beside = tf.constant([[0.1, 0.2]])
        values = tf.concat([2 * tf.math.top_k(tf.reduce_mean(x, [1, 2]), 4)[0], beside], 1)
        return tf.reverse_sequence(tf.maximum(values, 0.01), [3], seq_axis=1)

    folder, signature = tmp_path_factory.mktemp("tiny"), [tf.TensorSpec((1, 8, 8, 3), tf.float32)]
    traced = tf.function(network, signature, autograph=False)
    return {name: _converted(traced, name, folder) for name in ("float32", "int8", "int16x8")}


def _converted(network: Any, precision: str, folder: Path) -> Path:
    import tensorflow as tf

    converter = tf.lite.TFLiteConverter.from_concrete_functions([network.get_concrete_function()], network)
    if precision != "float32":
        random, sets = np.random.default_rng(1), tf.lite.OpsSet
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.representative_dataset = lambda: ([random.normal(size=(1, 8, 8, 3)).astype("f4")] for _ in range(9))
        whole = sets.EXPERIMENTAL_TFLITE_BUILTINS_ACTIVATIONS_INT16_WEIGHTS_INT8
        wanted = [sets.TFLITE_BUILTINS_INT8] if precision == "int8" else [whole, sets.TFLITE_BUILTINS]
        converter.target_spec.supported_ops = wanted
    target = folder / f"{precision}.tflite"
    with warnings.catch_warnings(action="ignore"):  # it asks for ranges that it has measured
        target.write_bytes(converter.convert())
    return target


@pytest.mark.parametrize("precision", ["int8", "int16x8"])
def test_ranges_hold_what_they_were_measured_on(precision: str, conv: dict[str, Path]) -> None:
    found = alike(conv["float32"], conv[precision], measured(conv))
    assert len(found.cut_off) >= 5
    assert found.cut_off[0].share <= MOST_CUT


@pytest.mark.parametrize("factor", [0.8, 0.5])
def test_a_range_that_is_too_narrow_is_found(factor: float, conv: dict[str, Path], tmp_path: Path) -> None:
    """Nothing else tells: all of the graph stores and reads the tensor by the same scale."""

    def narrow(model: Any) -> None:
        scales = model.subgraphs[0].tensors[model.subgraphs[0].operators[1].outputs[0]].quantization
        scales.scale = np.array(scales.scale, "float32") * np.float32(factor)

    wrong = changed(conv["int8"], tmp_path, narrow)
    found = alike(conv["float32"], wrong, measured(conv))
    assert found.problem == ""
    assert found.cut_off[0].share > 0.5 * (1 - factor)


def measured(conv: dict[str, Path]) -> Measured:
    return Measured(saved_model.load(conv["source"], conv["float32"].parent).inputs, seed=7)


@pytest.mark.parametrize("precision", ["int8", "int16x8"])
def test_scales_that_converters_make_wider_are_theirs(precision: str, tiny: dict[str, Path]) -> None:
    found = alike(tiny["float32"], tiny[precision])
    assert (found.problem, found.rounded > 1) == ("", True)
    assert found.furthest[0].steps < HALF


@pytest.mark.parametrize("kind", ["RESIZE_BILINEAR", "TOPK_V2", "REVERSE_SEQUENCE"])
def test_what_hands_numbers_on_keeps_what_they_stand_for(kind: str, tiny: dict[str, Path], tmp_path: Path) -> None:
    from tensorflow.lite.python import schema_py_generated as schema

    code = getattr(schema.BuiltinOperator, kind)

    def widen(model: Any) -> None:
        graph, codes = model.subgraphs[0], [item.builtinCode for item in model.operatorCodes]
        made = next(item for item in graph.operators if codes[item.opcodeIndex] == code)
        scales = graph.tensors[made.outputs[0]].quantization
        scales.scale = np.array(scales.scale, "float32") * np.float32(1.5)

    assert kind in alike(tiny["float32"], changed(tiny["int8"], tmp_path, widen)).problem


@pytest.mark.parametrize("change", [no_activation, one_less])
def test_another_graph_is_told(change: Change, conv: dict[str, Path], tmp_path: Path) -> None:
    assert alike(conv["float32"], changed(conv["int8"], tmp_path, change)).problem


def test_outputs_that_changed_places_are_told(made_file: Callable[[str, str], Path], tmp_path: Path) -> None:
    source = made_file("several", "saved_model")
    fine, coarse = (written(source, tmp_path, precision=name)[0] for name in ("float32", "int8"))
    assert alike(fine, coarse).problem == ""

    def swap(model: Any) -> None:
        one, other = model.signatureDefs[0].outputs
        one.tensorIndex, other.tensorIndex = other.tensorIndex, one.tensorIndex

    assert alike(fine, changed(coarse, tmp_path, swap)).problem


def test_int8_of_a_network_that_was_never_trained_is_verified(
    zygote: Zygote, made_file: Callable[[str, str], Path], tmp_path: Path
) -> None:
    """Its values prove nothing, for eight bits move them further than faults would."""
    path = made_file("conv", "keras")
    (tmp_path / "i").mkdir()
    summary = pipeline.inspect(zygote, path, "keras", tmp_path / "i", Limits()).summary
    source, folder = pipeline.Source(path, "keras", summary), tmp_path / "c"
    folder.mkdir()
    report = pipeline.convert(zygote, source, "tflite", {"precision": "int8"}, folder, Limits()).report
    checks = {check.name: check for check in report.checks}
    assert report.verdict is Verdict.VERIFIED
    assert "no number by more than half a step" in checks["weights"].sentence
    assert checks["unrounded"].passed is True
    assert checks["sensitivity"].sentence.startswith("In the same conversion without rounding")
    assert [layer["name"] for layer in checks["drift"].data["layers"]][-1] == "pooled"


# Layers that stay in float32 ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("precision", ["int8", "int16x8"])
def test_layers_stay_in_float32(precision: str, conv: dict[str, Path], tmp_path: Path) -> None:
    result, hop = written(conv["source"], tmp_path, precision=precision, keep_float="separable_conv2d, pooled")
    assert [item.sentence for item in hop.findings if item.code == "kept-float"] == [
        "As it was asked for, these layers stay in float32: separable_conv2d, pooled."
    ]
    found = alike(conv["float32"], result)
    assert found.problem == ""
    assert any("separable_conv2d" in name for name in found.floating)
    assert 0 < found.rounded < alike(conv["float32"], conv[precision]).rounded
    assert result.stat().st_size > conv[precision].stat().st_size


def test_a_number_stands_for_those_that_lose_most(conv: dict[str, Path], tmp_path: Path) -> None:
    """Layers that lose nothing may stay rounded; which those are hangs on the weights."""
    result, hop = written(conv["source"], tmp_path, precision="int16x8", keep_float="99")
    assert [item.code for item in hop.findings].count("kept-float") == 1
    found = alike(conv["float32"], result)
    assert found.problem == ""
    assert len(found.floating) > len(alike(conv["float32"], conv["int16x8"]).floating)


@pytest.mark.parametrize(
    ("precision", "wish", "said"),
    [
        ("int8", "nonsense", "no layer 'nonsense' computes in whole numbers; these do: .*separable_conv2d"),
        ("int8", "0", "a number from 1 on"),
        ("float16", "pooled", "it is for int8 and int16x8; in float16 all layers compute in float32"),
    ],
)
def test_layers_that_cannot_stay_are_refused(
    precision: str, wish: str, said: str, conv: dict[str, Path], tmp_path: Path
) -> None:
    with pytest.raises(BadOption, match=said):
        written(conv["source"], tmp_path, precision=precision, keep_float=wish)


def about_kept(hop: Hop) -> dict[str, dict[str, Any]]:
    return {item.code: item.data for item in hop.findings if item.code.startswith("kept-float")}


def test_layers_that_win_nothing_say_so(conv: dict[str, Path], tmp_path: Path) -> None:
    """Sixteen bits lose so little that the QUANTIZE before such a layer takes what it wins."""
    result, hop = written(conv["source"], tmp_path, precision="int16x8", keep_float="pooled")
    said = about_kept(hop)["kept-float-wins-nothing"]
    assert said["kept"] > 0.95 * said["plain"] > 0
    assert said["names"] == "pooled"
    assert (said["rows"], said["size"]) == (24, result.stat().st_size)
    assert said["plain_size"] == conv["int16x8"].stat().st_size


def test_layers_that_win_something_do_not(conv: dict[str, Path], tmp_path: Path) -> None:
    _, hop = written(conv["source"], tmp_path, precision="int8", keep_float="99")
    assert about_kept(hop).keys() == {"kept-float"}


def test_where_no_layer_loses_anything_none_is_kept(
    conv: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_tflite_float, "_losses", lambda *of: {})
    _, hop = written(conv["source"], tmp_path, precision="int8", keep_float="3")
    assert about_kept(hop)["kept-float-none"]["plain"] > 0
    assert "kept-float" not in about_kept(hop)
