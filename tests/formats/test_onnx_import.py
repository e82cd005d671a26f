"""ONNX operators as TensorFlow operations: every case is run by ONNX Runtime and by what was imported."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from worker.errors import UnsupportedOperation
from worker.formats import _onnx_import
from worker.formats._format import Hop
from worker.formats._onnx_file import session

RANDOM = np.random.default_rng(11)


def real(*shape: int) -> np.ndarray:
    return RANDOM.normal(size=shape).astype("float32")


def arr(dtype: str, value: Any) -> np.ndarray:
    return np.array(value, dtype)


def whole(*numbers: Any) -> np.ndarray:
    return np.array(numbers, "int64")


@dataclass
class Case:
    """One node. ``given`` are inputs of the model, ``fixed`` its constants; ``inputs`` is their order."""

    operator: str
    given: dict[str, np.ndarray]
    fixed: dict[str, np.ndarray] = field(default_factory=dict)
    attributes: dict[str, Any] = field(default_factory=dict)
    opset: int = 18
    outputs: int = 1
    inputs: tuple[str, ...] = ()
    free: bool = False  # the first dimension of the first input

    def __str__(self) -> str:
        settings = (f"{name}={value}" for name, value in self.attributes.items())
        return "-".join([self.operator, str(self.opset), *settings])


def _model(case: Case) -> Any:
    from onnx import helper, numpy_helper

    names = case.inputs or (*case.given, *case.fixed)
    results = [f"result{number}" for number in range(case.outputs)]
    node = helper.make_node(case.operator, list(names), results, name="node", **case.attributes)
    inputs = [_info(name, value, case.free and number == 0) for number, (name, value) in enumerate(case.given.items())]
    outputs = [helper.make_empty_tensor_value_info(name) for name in results]
    stored = [numpy_helper.from_array(value, name) for name, value in case.fixed.items()]
    graph = helper.make_graph([node], "case", inputs, outputs, stored)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", case.opset)], ir_version=8)


def _info(name: str, value: np.ndarray, free: bool) -> Any:
    from onnx import helper

    shape: list[Any] = list(value.shape)
    if free:
        shape[0] = "batch"
    return helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(value.dtype), shape)


def _wanted(model: Any, given: dict[str, np.ndarray]) -> list[np.ndarray]:
    return list(session(model.SerializeToString(), optimise=False).run(None, given))


def _imported(model: Any, given: dict[str, np.ndarray], folder: Path) -> list[np.ndarray]:
    file = folder / "model.onnx"
    file.write_bytes(model.SerializeToString())
    module = _onnx_import.module_of(file, Hop(folder))
    found = module.serve(*given.values())
    return [found[item.name].numpy() for item in model.graph.output]


def check(model: Any, given: dict[str, np.ndarray], folder: Path) -> None:
    wanted, found = _wanted(model, given), _imported(model, given, folder)
    for one, other in zip(wanted, found, strict=True):
        assert other.shape == one.shape
        assert other.dtype == one.dtype
        np.testing.assert_allclose(other, one, rtol=1e-4, atol=1e-5)


X = real(2, 3, 4)
IMAGE = real(2, 4, 7, 6)
POSITIVE = np.abs(X) + 0.1
UNARY = (
    dict.fromkeys(["Abs", "Neg", "Exp", "Sign", "Sin", "Cos", "Tan", "Atan", "Sinh", "Cosh", "Tanh", "Asinh"], X)
    | dict.fromkeys(["Floor", "Ceil", "Round", "Erf", "Reciprocal", "Sigmoid", "Relu", "Softplus", "Softsign"], X)
    | dict.fromkeys(["Identity", "LeakyRelu", "Elu", "Selu", "Celu", "Mish", "HardSigmoid", "HardSwish", "IsNaN"], X)
    | dict.fromkeys(["ThresholdedRelu", "Shrink", "Softmax", "LogSoftmax", "Hardmax", "IsInf"], X)
    | dict.fromkeys(["Log", "Sqrt"], POSITIVE)
    | {"Acosh": POSITIVE + 1, "Atanh": X / 10, "Asin": X / 10, "Acos": X / 10, "Not": X > 0}
)
COMPARED = ["Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Add", "Sub", "Mul", "Div", "PRelu"]
PADDED = {"kernel_shape": [3, 2], "strides": [2, 1], "pads": [1, 0, 1, 1]}
SEQUENCE = real(5, 2, 3)

ELEMENTWISE = [
    *(Case(name, {"x": value}) for name, value in UNARY.items()),
    *(Case(name, {"x": X, "y": real(3, 1)}) for name in COMPARED),
    *(Case(name, {"x": X, "y": real(2, 3, 4), "z": real(4)}) for name in ("Sum", "Max", "Min", "Mean")),
    *(Case(name, {"x": X > 0, "y": real(4) > 0}) for name in ("And", "Or", "Xor")),
    Case("Pow", {"x": POSITIVE}, {"y": np.array(2.5, "float32")}),
    Case("Pow", {"x": X}, {"y": whole(3)}),
    Case("Div", {"x": whole(7, -7, 9), "y": whole(2, 2, -4)}),
    Case("Mod", {"x": whole(7, -7, 9), "y": whole(2, 2, -4)}),
    Case("Mod", {"x": X, "y": real(4)}, attributes={"fmod": 1}),
    Case("Softmax", {"x": X}, attributes={"axis": 1}),
    Case("Softmax", {"x": X}, attributes={"axis": 1}, opset=11),
    Case("LogSoftmax", {"x": X}, attributes={"axis": 0}, opset=11),
    Case("Gelu", {"x": X}, opset=20),
    Case("Gelu", {"x": X}, attributes={"approximate": "tanh"}, opset=20),
    Case("Elu", {"x": X}, attributes={"alpha": 0.5}),
    Case("Clip", {"x": X}, {"low": arr("float32", -0.5), "high": arr("float32", 0.5)}),
    Case("Clip", {"x": X}, {"high": arr("float32", 0.5)}, inputs=("x", "", "high")),
    Case("Clip", {"x": X}, attributes={"min": 0.0, "max": 6.0}, opset=10),
    Case("Where", {"c": X > 0, "x": X, "y": real(4)}),
    Case("Cast", {"x": X}, attributes={"to": 7}),
    Case("Cast", {"x": X}, attributes={"to": 10}),
    Case("Dropout", {"x": X}),
    Case("Dropout", {"x": X}, outputs=2),
    Case("Trilu", {"x": X}, {"k": whole(1)[0]}, attributes={"upper": 0}),
]
SHAPES = [
    Case("Reshape", {"x": X}, {"shape": whole(0, -1)}, free=True),
    Case("Reshape", {"x": X, "shape": whole(4, 0, 2)}, free=True),
    Case("Flatten", {"x": X}, attributes={"axis": 2}, free=True),
    Case("Flatten", {"x": X}, attributes={"axis": -1}),
    Case("Transpose", {"x": X}, attributes={"perm": [1, 2, 0]}),
    Case("Transpose", {"x": X}),
    Case("Squeeze", {"x": real(1, 3, 1)}, {"axes": whole(-1)}),
    Case("Squeeze", {"x": real(1, 3, 1)}, attributes={"axes": [0]}, opset=11),
    Case("Unsqueeze", {"x": X}, {"axes": whole(0, -1)}),
    Case("Unsqueeze", {"x": X}, attributes={"axes": [1, 2]}, opset=11),
    Case("Concat", {"x": X, "y": real(2, 1, 4)}, attributes={"axis": 1}),
    Case("Split", {"x": X}, {"split": whole(1, 3)}, attributes={"axis": 2}, outputs=2),
    Case("Split", {"x": X}, attributes={"axis": 2, "num_outputs": 3}, outputs=3),
    Case("Split", {"x": X}, attributes={"axis": 2, "split": [3, 1]}, opset=11, outputs=2),
    Case("Slice", {"x": X}, {"s": whole(1, -3), "e": whole(9999, -1), "a": whole(1, 2)}, free=True),
    Case("Slice", {"x": X}, {"s": whole(-1), "e": whole(-9223372036854775807), "a": whole(2), "t": whole(-2)}),
    Case("Slice", {"x": X}, attributes={"starts": [1], "ends": [3], "axes": [1]}, opset=9),
    Case("Slice", {"x": X, "s": whole(1), "e": whole(3)}, {"a": whole(2)}),
    Case("Shape", {"x": X}, free=True),
    Case("Shape", {"x": X}, attributes={"start": 1}),
    Case("Size", {"x": X}),
    Case("Gather", {"x": X}, {"i": whole(0, -1)}, attributes={"axis": 2}),
    Case("Gather", {"x": X}, {"i": whole(1)[0]}, attributes={"axis": 1}),
    Case("Gather", {"x": X, "i": whole([0, -1], [1, 0])}, attributes={"axis": 1}),
    Case("GatherElements", {"x": X, "i": whole([[0, -1, 1, 0]], [[1, 1, 0, 0]])}, attributes={"axis": 1}),
    Case("GatherND", {"x": X, "i": whole([0, 1], [1, 2])}),
    Case("GatherND", {"x": X, "i": whole([1], [2])}, attributes={"batch_dims": 1}),
    Case("ScatterND", {"x": X, "i": whole([0, 1], [1, 2]), "u": real(2, 4)}),
    Case("Expand", {"x": real(3, 1)}, {"shape": whole(2, 1, 4)}, free=True),
    Case("Expand", {"x": real(3, 1) > 0, "shape": whole(2, 1, 4)}),
    Case("Tile", {"x": X}, {"n": whole(1, 2, 3)}),
    Case("Pad", {"x": X}, {"p": whole(0, 1, 0, 0, 2, -1), "v": arr("float32", 7)}, free=True),
    Case("Pad", {"x": X}, {"p": whole(1, 2), "a": whole(-1)}, inputs=("x", "p", "", "a")),
    Case("Pad", {"x": X}, {"p": whole(0, 1, 2, 0, 2, 3)}, attributes={"mode": "edge"}),
    Case("Pad", {"x": X}, {"p": whole(0, 1, 2, 0, 2, 3)}, attributes={"mode": "reflect"}),
    Case("Pad", {"x": X}, attributes={"pads": [0, 1, 0, 0, 0, 2], "value": 1.5}, opset=10),
    Case("Pad", {"x": X, "p": whole(0, 1, 0, 0, 2, 1)}),
    Case("ConstantOfShape", {"n": whole(2, 3)}),
    Case("Range", {name: np.array(number, "float32") for name, number in (("a", 1), ("b", 7), ("c", 2))}),
    Case("OneHot", {"i": whole([0, -1], [2, 9])}, {"d": whole(3), "v": np.array([1, 5], "float32")}),
    Case("OneHot", {"i": whole([0, 1], [2, 2])}, {"d": whole(3), "v": np.array([0, 1], "float32")}, {"axis": 0}),
    Case("EyeLike", {"x": real(3, 4)}, attributes={"k": 1}),
    Case("DepthToSpace", {"x": real(1, 8, 2, 3)}, attributes={"blocksize": 2}),
    Case("DepthToSpace", {"x": real(1, 8, 2, 3)}, attributes={"blocksize": 2, "mode": "CRD"}),
    Case("SpaceToDepth", {"x": real(1, 2, 4, 6)}, attributes={"blocksize": 2}),
    Case("NonZero", {"x": np.array([[1, 0], [0, 2]], "float32")}),
    Case("ReverseSequence", {"x": real(4, 3, 2), "n": whole(4, 2, 1)}),
]
NEURAL = [
    Case("Conv", {"x": IMAGE}, {"w": real(5, 4, 3, 2), "b": real(5)}, PADDED, free=True),
    Case("Conv", {"x": IMAGE}, {"w": real(5, 4, 3, 3)}, {"strides": [2, 2], "auto_pad": "SAME_LOWER"}),
    Case("Conv", {"x": IMAGE}, {"w": real(5, 4, 3, 3)}, {"strides": [2, 2], "auto_pad": "SAME_UPPER"}),
    Case("Conv", {"x": IMAGE}, {"w": real(6, 2, 3, 3)}, {"group": 2, "pads": [1, 1, 1, 1]}),
    Case("Conv", {"x": IMAGE}, {"w": real(8, 1, 3, 3), "b": real(8)}, {"group": 4, "strides": [2, 2]}),
    Case("Conv", {"x": IMAGE}, {"w": real(4, 1, 3, 3)}, {"group": 4, "strides": [2, 1], "pads": [1, 1, 1, 1]}),
    Case("Conv", {"x": real(2, 3, 9)}, {"w": real(4, 3, 3)}, {"dilations": [2], "pads": [4, 0]}),
    Case("Conv", {"x": real(2, 3, 9)}, {"w": real(3, 1, 3)}, {"group": 3, "strides": [2]}),
    Case("Conv", {"x": real(1, 2, 5, 5, 5)}, {"w": real(3, 2, 2, 3, 2)}, {"strides": [1, 2, 1]}),
    Case("ConvTranspose", {"x": IMAGE}, {"w": real(4, 3, 3, 2), "b": real(3)}, {"strides": [2, 3]}, free=True),
    Case(
        "ConvTranspose",
        {"x": IMAGE},
        {"w": real(4, 3, 3, 3)},
        {"strides": [2, 2], "pads": [1, 1, 1, 1], "output_padding": [1, 1]},
    ),
    Case("ConvTranspose", {"x": IMAGE}, {"w": real(4, 3, 3, 3)}, {"dilations": [2, 2], "group": 2}),
    Case("ConvTranspose", {"x": IMAGE}, {"w": real(4, 3, 3, 3)}, {"strides": [2, 2], "auto_pad": "SAME_UPPER"}),
    Case("ConvTranspose", {"x": IMAGE}, {"w": real(4, 3, 3, 3)}, {"strides": [2, 2], "output_shape": [15, 14]}),
    Case("ConvTranspose", {"x": real(2, 3, 5)}, {"w": real(3, 2, 4)}, {"strides": [2], "pads": [1, 2]}),
    Case("MaxPool", {"x": IMAGE}, attributes=PADDED, free=True),
    Case("MaxPool", {"x": IMAGE}, attributes={"kernel_shape": [3, 3], "strides": [2, 2], "ceil_mode": 1}),
    Case("MaxPool", {"x": IMAGE}, attributes={"kernel_shape": [2, 2], "dilations": [2, 2], "strides": [2, 1]}),
    Case("MaxPool", {"x": IMAGE}, attributes={"kernel_shape": [3, 3], "strides": [2, 2], "auto_pad": "SAME_LOWER"}),
    Case("AveragePool", {"x": IMAGE}, attributes=PADDED),
    Case("AveragePool", {"x": IMAGE}, attributes={**PADDED, "count_include_pad": 1}),
    Case("AveragePool", {"x": IMAGE}, attributes={"kernel_shape": [3, 3], "strides": [2, 2], "auto_pad": "SAME_UPPER"}),
    Case(
        "AveragePool", {"x": real(1, 2, 8)}, attributes={"kernel_shape": [3], "strides": [2], "ceil_mode": 1}, opset=19
    ),
    Case("GlobalAveragePool", {"x": IMAGE}),
    Case("GlobalMaxPool", {"x": IMAGE}),
    Case("BatchNormalization", {"x": IMAGE}, {"s": real(4), "b": real(4), "m": real(4), "v": np.abs(real(4)) + 1}),
    Case("InstanceNormalization", {"x": IMAGE}, {"s": real(4), "b": real(4)}),
    Case("LayerNormalization", {"x": X}, {"s": real(4), "b": real(4)}),
    Case("LayerNormalization", {"x": X}, {"s": real(3, 4)}, {"axis": 1, "epsilon": 0.01}, outputs=3),
    Case("GroupNormalization", {"x": IMAGE}, {"s": real(4), "b": real(4)}, {"num_groups": 2}, opset=21),
    Case("LpNormalization", {"x": X}, attributes={"axis": 1}),
    Case("LRN", {"x": IMAGE}, attributes={"size": 3}),
    Case("MeanVarianceNormalization", {"x": IMAGE}),
    Case("Gemm", {"x": real(2, 3)}, {"w": real(4, 3), "b": real(4)}, {"transB": 1, "alpha": 0.5, "beta": 2.0}),
    Case("Gemm", {"x": real(3, 2)}, {"w": real(3, 4)}, {"transA": 1}),
    Case("MatMul", {"x": real(2, 1, 3, 4), "y": real(5, 4, 2)}),
    Case("MatMul", {"x": real(4), "y": real(2, 4, 3)}),
    Case("MatMul", {"x": real(2, 3, 4), "y": real(4)}),
    Case("Einsum", {"x": real(2, 3), "y": real(3, 4)}, attributes={"equation": "ij, jk -> ki"}),
]
REDUCE = ["ReduceMean", "ReduceMax", "ReduceMin", "ReduceProd", "ReduceL1", "ReduceL2", "ReduceSumSquare", "ReduceSum"]
REDUCTIONS = [
    *(Case(name, {"x": X}, {"axes": whole(-1, 0)}, {"keepdims": 0}) for name in REDUCE),
    *(
        Case(name, {"x": POSITIVE}, attributes={"axes": [1]}, opset=11)
        for name in (*REDUCE, "ReduceLogSum", "ReduceLogSumExp")
    ),
    Case("ReduceSum", {"x": X}, opset=13),
    Case("ReduceSum", {"x": X}, attributes={"noop_with_empty_axes": 1}, opset=13),
    Case("ArgMax", {"x": X}, attributes={"axis": -1, "keepdims": 0}),
    Case("ArgMin", {"x": np.array([[1, 0, 0]], "float32")}, attributes={"axis": 1, "select_last_index": 1}),
    Case("TopK", {"x": X}, {"k": whole(2)}, {"axis": 1}, outputs=2),
    Case("TopK", {"x": X}, {"k": whole(2)}, {"largest": 0}, outputs=2),
    Case("CumSum", {"x": X}, {"axis": whole(1)[0]}, {"exclusive": 1, "reverse": 1}),
]


def _resized(scales: bool = True, opset: int = 18, **attributes: Any) -> Case:
    fixed = {"s": np.array([1, 1, 2, 1.5], "float32")} if scales else {"n": whole(2, 4, 5, 11)}
    return Case(
        "Resize", {"x": IMAGE}, fixed, attributes, opset, inputs=("x", "", "s") if scales else ("x", "", "", "n")
    )


RESIZING = [
    *(_resized(mode=mode) for mode in ("nearest", "linear", "cubic")),
    *(_resized(False, mode=mode) for mode in ("nearest", "linear", "cubic")),
    *(
        _resized(False, mode="linear", coordinate_transformation_mode=mode)
        for mode in ("align_corners", "asymmetric", "pytorch_half_pixel")
    ),
    *(
        _resized(mode="nearest", nearest_mode=mode, coordinate_transformation_mode="asymmetric")
        for mode in ("floor", "ceil", "round_prefer_ceil")
    ),
    _resized(False, mode="cubic", exclude_outside=1, cubic_coeff_a=-0.5),
    Case("Upsample", {"x": IMAGE}, {"s": np.array([1, 1, 2, 2], "float32")}, {"mode": "nearest"}, opset=9),
    Case("Resize", {"x": IMAGE}, {"s": np.array([1, 1, 2, 3], "float32")}, {"mode": "nearest"}, opset=10),
    Case("Resize", {"x": IMAGE}, {"n": whole(9, 3)}, {"mode": "linear", "axes": [2, 3]}, inputs=("x", "", "", "n")),
]


def _weights(gates: int, directions: int, hidden: int = 4) -> dict[str, np.ndarray]:
    rows = gates * hidden
    return {"w": real(directions, rows, 3), "r": real(directions, rows, hidden), "b": real(directions, 2 * rows)}


LENGTHS = {"n": np.array([5, 3], "int32")}
RECURRENT = [
    *(
        Case(
            name, {"x": SEQUENCE}, _weights(gates, 2), {"hidden_size": 4, "direction": "bidirectional"}, outputs=outputs
        )
        for name, gates, outputs in (("LSTM", 4, 3), ("GRU", 3, 2), ("RNN", 1, 2))
    ),
    *(
        Case(
            name,
            {"x": SEQUENCE, **LENGTHS},
            _weights(gates, 1),
            {"hidden_size": 4, "direction": way},
            18,
            2,
            ("x", "w", "r", "b", "n"),
        )
        for name, gates in (("LSTM", 4), ("GRU", 3), ("RNN", 1))
        for way in ("forward", "reverse")
    ),
    Case("GRU", {"x": SEQUENCE}, _weights(3, 1), {"hidden_size": 4, "linear_before_reset": 1}, outputs=2),
    Case(
        "LSTM",
        {"x": SEQUENCE, "h": real(1, 2, 4), "c": real(1, 2, 4)},
        _weights(4, 1),
        {"hidden_size": 4},
        18,
        3,
        ("x", "w", "r", "b", "", "h", "c"),
    ),
    Case("LSTM", {"x": SEQUENCE}, _weights(4, 1), {"hidden_size": 4}, outputs=3, free=True),  # a loop
    Case("RNN", {"x": SEQUENCE}, _weights(1, 1), {"hidden_size": 4, "activations": ["Relu"], "clip": 0.5}, outputs=2),
]
BYTES = RANDOM.integers(0, 255, (3, 4)).astype("uint8")
QUANTIZED = [
    Case("QuantizeLinear", {"x": X}, {"s": arr("float32", 0.02), "z": arr("uint8", 100)}),
    Case(
        "QuantizeLinear", {"x": X}, {"s": arr("float32", [0.01, 0.1, 0.5]), "z": arr("int8", [0, 1, -3])}, {"axis": 1}
    ),
    Case("DequantizeLinear", {"x": BYTES}, {"s": arr("float32", 0.02), "z": arr("uint8", 100)}),
    Case("DequantizeLinear", {"x": BYTES}, {"s": arr("float32", [1, 2, 3]), "z": arr("uint8", [1, 2, 3])}, {"axis": 0}),
    Case("DynamicQuantizeLinear", {"x": X}, outputs=3),
    Case("MatMulInteger", {"x": BYTES}, {"w": arr("int8", [[1, -2], [3, 4], [5, 6], [7, -8]]), "a": arr("uint8", 3)}),
    Case(
        "QLinearMatMul",
        {"x": BYTES},
        {
            "xs": arr("float32", 0.1),
            "xz": arr("uint8", 120),
            "w": BYTES.T.copy(),
            "ws": arr("float32", 0.2),
            "wz": arr("uint8", 9),
            "ys": arr("float32", 9),
            "yz": arr("uint8", 128),
        },
    ),
    Case(
        "QLinearConv",
        {"x": RANDOM.integers(0, 255, (1, 2, 5, 5)).astype("uint8")},
        {
            "xs": arr("float32", 0.1),
            "xz": arr("uint8", 120),
            "w": RANDOM.integers(-99, 99, (3, 2, 3, 3)).astype("int8"),
            "ws": arr("float32", [0.1, 0.2, 0.3]),
            "wz": arr("int8", [0, 0, 0]),
            "ys": arr("float32", 5),
            "yz": arr("uint8", 128),
            "b": arr("int32", [1, 200, -300]),
        },
    ),
    Case(
        "ConvInteger",
        {"x": RANDOM.integers(0, 255, (1, 2, 5, 5)).astype("uint8")},
        {"w": RANDOM.integers(0, 99, (3, 2, 3, 3)).astype("uint8"), "a": arr("uint8", 7)},
    ),
]
CASES = [*ELEMENTWISE, *SHAPES, *NEURAL, *REDUCTIONS, *RESIZING, *RECURRENT, *QUANTIZED]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_operator(case: Case, tmp_path: Path) -> None:
    check(_model(case), case.given, tmp_path)


# Whole models -----------------------------------------------------------------------------------------------------


def graph_of(nodes: list[Any], inputs: list[Any], outputs: list[Any], **fixed: np.ndarray) -> Any:
    from onnx import helper, numpy_helper

    stored = [numpy_helper.from_array(value, name) for name, value in fixed.items()]
    return helper.make_graph(nodes, "graph", inputs, outputs, stored)


def value(name: str, dtype: int = 1, *shape: Any) -> Any:
    from onnx import helper

    return helper.make_tensor_value_info(name, dtype, shape)


def model_of(graph: Any, opset: int = 18, **extra: Any) -> Any:
    from onnx import helper

    opsets = [helper.make_opsetid("", opset), helper.make_opsetid("own", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8, **extra)


def test_branches(tmp_path: Path) -> None:
    from onnx import helper

    sides = [
        graph_of([helper.make_node(name, ["x", "k"], [f"{name}_y"])], [], [value(f"{name}_y", 1, "n")], k=real(1))
        for name in ("Add", "Mul")
    ]
    nodes = [
        helper.make_node("ReduceSum", ["x"], ["total"], keepdims=0),
        helper.make_node("Greater", ["total", "zero"], ["positive"]),
        helper.make_node("If", ["positive"], ["y"], then_branch=sides[0], else_branch=sides[1]),
    ]
    model = model_of(graph_of(nodes, [value("x", 1, "n")], [value("y", 1, "n")], zero=arr("float32", 0)))
    for sign in (1, -1):
        check(model, {"x": sign * np.ones(3, "float32")}, tmp_path)


def test_loops_that_stop_collect_and_grow(tmp_path: Path) -> None:
    from onnx import helper

    body = graph_of(
        [
            helper.make_node("Concat", ["state", "x"], ["longer"], axis=0),
            helper.make_node("ReduceSum", ["longer"], ["sum"], keepdims=0),
            helper.make_node("Less", ["sum", "limit"], ["again"]),
        ],
        [value("number", 7), value("going", 9), value("state", 1, "m")],
        [value("again", 9), value("longer", 1, "m"), value("sum", 1)],
    )
    loop = helper.make_node("Loop", ["most", "", "x"], ["y", "sums"], body=body)
    outputs = [value("y", 1, "m"), value("sums", 1, "k")]
    fixed = {"most": np.array(9), "limit": np.array(10, "float32")}
    check(model_of(graph_of([loop], [value("x", 1, "n")], outputs, **fixed)), {"x": np.ones(3, "float32")}, tmp_path)


def test_scans(tmp_path: Path) -> None:
    from onnx import helper

    body = graph_of(
        [helper.make_node("Add", ["state", "item"], ["next"]), helper.make_node("Mul", ["next", "item"], ["out"])],
        [value("state", 1, 2), value("item", 1, 2)],
        [value("next", 1, 2), value("out", 1, 2)],
    )
    scan = helper.make_node("Scan", ["start", "x"], ["last", "all"], body=body, num_scan_inputs=1)
    outputs = [value("last", 1, 2), value("all", 1, "n", 2)]
    check(model_of(graph_of([scan], [value("x", 1, "n", 2)], outputs, start=real(2))), {"x": real(4, 2)}, tmp_path)


def test_sizes_that_depend_on_the_batch_stay_right(tmp_path: Path) -> None:
    """``view(batch, -1)`` as PyTorch writes it."""
    from onnx import helper

    nodes = [
        helper.make_node("Shape", ["x"], ["shape"]),
        helper.make_node("Gather", ["shape", "zero"], ["batch"], axis=0),
        helper.make_node("Unsqueeze", ["batch", "axes"], ["first"]),
        helper.make_node("Concat", ["first", "rest"], ["wanted"], axis=0),
        helper.make_node("Reshape", ["x", "wanted"], ["flat"]),
        helper.make_node("MatMul", ["flat", "w"], ["y"]),
    ]
    fixed = {"zero": np.array(0), "axes": whole(0), "rest": whole(-1), "w": real(12, 200)}
    graph = graph_of(nodes, [value("x", 1, "n", 3, 4)], [value("y", 1, "n", 200)], **fixed)
    check(model_of(graph), {"x": real(5, 3, 4)}, tmp_path)


def test_functions_of_the_model_and_operators_that_others_define_are_written_out(tmp_path: Path) -> None:
    from onnx import helper

    double = helper.make_function(
        "own", "Double", ["a"], ["b"], [helper.make_node("Add", ["a", "a"], ["b"])], [helper.make_opsetid("", 18)]
    )
    nodes = [
        helper.make_node("Double", ["x"], ["two"], domain="own"),
        helper.make_node("CenterCropPad", ["two", "shape"], ["cut"], axes=[1]),
        helper.make_node("HannWindow", ["length"], ["window"]),
        helper.make_node("Mul", ["cut", "window"], ["y"]),
    ]
    graph = graph_of(nodes, [value("x", 1, 3, 4)], [value("y", 1, 3, 2)], shape=whole(2), length=np.array(2))
    check(model_of(graph, functions=[double]), {"x": real(3, 4)}, tmp_path)


def test_unknown_operators_are_all_named_before_anything_is_written(tmp_path: Path) -> None:
    from onnx import helper

    nodes = [
        helper.make_node("Det", ["x"], ["a"]),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("Mystery", ["b"], ["y"], domain="own"),
    ]
    file = tmp_path / "model.onnx"
    file.write_bytes(model_of(graph_of(nodes, [value("x", 1, 2, 2)], [value("y", 1)])).SerializeToString())
    with pytest.raises(UnsupportedOperation, match=r"Det, own\.Mystery"):
        _onnx_import.module_of(file, Hop(tmp_path))


def test_names_that_no_argument_can_have_are_changed_and_told(tmp_path: Path) -> None:
    from onnx import helper

    graph = graph_of([helper.make_node("Sub", ["0", "x:0"], ["y/1"])], [value("0"), value("x:0")], [value("y/1")])
    file, hop = tmp_path / "model.onnx", Hop(tmp_path)
    file.write_bytes(model_of(graph).SerializeToString())
    module = _onnx_import.module_of(file, hop)
    assert [finding.code for finding in hop.findings] == ["renamed-input", "renamed-input"]
    found = module.serve(np.array(5, "float32"), np.array(3, "float32"))
    assert float(found["y/1"]) == 2
