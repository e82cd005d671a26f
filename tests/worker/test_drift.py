"""Where two models part: a fault is found at its layer, whatever converters made of names, order and axes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from worker.errors import NoResult
from worker.formats._inner import MOST
from worker.verify.drift import KEPT, LONGEST_NAME, Tensors, drift_check, paired, taken, thinned, worst_row

SIZES = (7, 6, 5, 4, 3)


def chain(fault: int | None = None, names: str = "layer_{}", seed: int = 1) -> Tensors:
    """Tensors of a chain of layers, of which one may compute something else."""
    random = np.random.default_rng(seed)
    weights = [random.normal(size=sizes) for sizes in zip((8, *SIZES), SIZES, strict=False)]
    value, found = random.normal(size=(8,)), []
    for number, weight in enumerate(weights):
        value = np.tanh(value @ (-weight if number == fault else weight))
        found.append((names.format(number), value))
    return found


def named(check: Any) -> list[str]:
    return [layer["name"] for layer in check.data["layers"]]


@pytest.mark.parametrize("fault", range(len(SIZES)))
@pytest.mark.parametrize("names", ["layer_{}", "StatefulPartitionedCall/m_1/layer_{}_1/MatMul", "t{}"])
def test_a_fault_is_found_at_its_layer(fault: int, names: str) -> None:
    check = drift_check(chain(), chain(fault, names), allowed=1e-5, differs=True)
    assert check.passed is False
    assert check.data["first"] == f"layer_{fault}"
    assert f"departs is layer_{fault}: all that was compared before it agrees" in check.sentence
    assert named(check) == [f"layer_{number}" for number in range(len(SIZES))]


def test_a_small_fault_is_found_as_well() -> None:
    result = [(name, value * (1 + 3e-5 * (number > 1))) for number, (name, value) in enumerate(chain())]
    assert drift_check(chain(), result, 1e-5, differs=True).data["first"] == "layer_2"


def test_what_agrees_has_no_first_layer() -> None:
    check = drift_check(chain(), chain(), allowed=1e-5, differs=False)
    assert check.passed is True
    assert check.data["first"] is None
    assert [layer["gap"] for layer in check.data["layers"]] == [0.0] * len(SIZES)


def test_a_difference_that_grows_is_told_with_its_largest_step() -> None:
    growing = [(name, value * (1 + 0.01 * 2**number)) for number, (name, value) in enumerate(chain())]
    check = drift_check(chain(), growing, allowed=0.35, differs=False)
    assert check.passed is True
    gaps = [layer["gap"] for layer in check.data["layers"]]
    assert gaps == sorted(gaps)
    assert "from 1.00% of the largest value after layer_0 to 16.00% after layer_4" in check.sentence
    assert "the largest steps are at layer_4, layer_3, layer_2." in check.sentence


def test_where_outputs_differ_and_no_layer_does_that_is_said() -> None:
    check = drift_check(chain(), chain(), allowed=1e-5, differs=True)
    assert check.passed is None
    assert "No single layer" in check.sentence


def test_without_any_counterpart_nothing_is_said() -> None:
    assert drift_check(chain(), [("x", np.ones((2, 9)))], 1e-5, differs=True).passed is None
    assert drift_check([], [], 1e-5, differs=True).passed is None


# Pairing


def test_other_axes_are_the_same_tensor() -> None:
    image = np.random.default_rng(3).normal(size=(1, 6, 5, 4))
    pairs = paired([("conv", image)], [("x", np.zeros((6, 5, 4))), ("y", image.transpose(0, 3, 1, 2))])
    assert [(pair.result, pair.gap) for pair in pairs] == [("y", 0.0)]


def test_a_square_image_is_turned_the_right_way() -> None:
    image = np.random.default_rng(3).normal(size=(6, 6, 6))
    assert paired([("conv", image)], [("y", image.transpose(2, 0, 1))])[0].gap == 0.0


def test_what_repeats_a_tensor_has_no_part() -> None:
    source = [item for name, value in chain() for item in ((name, value), (f"dropout_{name}", value))]
    check = drift_check(source, chain(3), 1e-5, differs=True)
    assert check.data["first"] == "layer_3"
    assert named(check) == [name for name, _ in chain()]


def test_a_folded_layer_is_passed_by() -> None:
    """A BatchNorm inside of its convolution: the tensor before it is nowhere in the result, under whatever name."""
    random = np.random.default_rng(5)
    conv, after = random.normal(size=(4, 3)), random.normal(size=(4, 3))
    source = [("conv", conv), ("norm", after), *chain()]
    result = [("m/conv/Conv2D;m/norm/FusedBatchNorm", after), *chain(2)]
    check = drift_check(source, result, 1e-5, differs=True)
    assert named(check)[:2] == ["norm", "layer_0"]
    assert check.data["first"] == "layer_2"


def test_a_branch_that_departs_is_named_and_not_where_it_joins() -> None:
    random = np.random.default_rng(5)
    values = {name: random.normal(size=(4,)) for name in ("left", "right", "right_2", "right_3", "join")}
    wrong = {**values, "left": -values["left"], "join": values["join"] + 1}
    result = [(f"m/{name}_1/MatMul", value) for name, value in wrong.items()]
    assert drift_check(list(values.items()), result, 1e-5, differs=True).data["first"] == "left"


def test_a_part_of_a_name_is_no_proof() -> None:
    """Of a layer whose result is not shown, something inside has its name; all that follows agrees."""
    random = np.random.default_rng(7)
    source = [("lstm", random.normal(size=(7, 6))), *chain()]
    result = [("m/lstm_1/zeros", random.normal(size=(7, 6))), ("m/lstm_1/lstm_cell/Tanh", np.ones(9))]
    result += chain(4, "m/layer_{}_1/MatMul")
    check = drift_check(source, result, 1e-5, differs=True)
    assert check.data["first"] == "layer_4"
    assert "lstm" not in named(check)


def test_a_layer_that_became_zero_is_found() -> None:
    result = [(name, np.zeros_like(value) if name == "layer_2" else value) for name, value in chain()]
    assert drift_check(chain(), result, 1e-5, differs=True).data["first"] == "layer_2"


def test_no_number_is_a_difference() -> None:
    result = [(name, np.full_like(value, np.nan) if name == "layer_4" else value) for name, value in chain()]
    check = drift_check(chain(), result, 1e-5, differs=True)
    assert check.data["first"] == "layer_4"
    assert check.data["layers"][-1]["gap"] == 1.0  # and JSON has no word for what is no number


# Bounds


@pytest.mark.parametrize("shape", [(3, 200, 300), (500_000,), (64, 64, 64), (1, 2, 1), ()])
def test_a_thinned_tensor_is_small_and_the_same_in_any_order(shape: tuple[int, ...]) -> None:
    array = np.random.default_rng(1).normal(size=shape)
    thin = thinned(array)
    assert thin.size <= KEPT
    np.testing.assert_array_equal(thinned(array.T), thin.T)


def test_two_hundred_tensors_of_one_shape_are_told_apart() -> None:
    random = np.random.default_rng(1)
    many = [(f"block_{number}", random.normal(size=(32, 16)).astype("float32")) for number in range(200)]
    shuffled = [(f"t{number}", value.T) for number, (_, value) in enumerate(many)]
    assert [pair.gap for pair in paired(many, shuffled)] == [0.0] * 200


# The input to look at


def test_the_worst_row_of_the_worst_draw_is_taken() -> None:
    before = [{"y": np.ones((2, 3))}, {"y": np.ones((3, 3))}]
    after = [{"z": np.ones((2, 3))}, {"z": np.ones((3, 3))}]
    after[1]["z"][2, 1] = 5
    assert worst_row(before, after, {"y": "z"}) == (1, 2)
    assert worst_row(before, before, {"y": "y"}) == (0, 0)
    assert worst_row([], [], {}) == (0, 0)


def test_outputs_that_cannot_be_compared_choose_nothing() -> None:
    assert worst_row([{"y": np.ones(2)}], [{"y": np.ones(3)}], {"y": "y"}) == (0, 0)
    assert worst_row([{"y": np.array([b"a"])}], [{"y": np.array([b"b"])}], {"y": "y"}) == (0, 0)
    assert worst_row([{"y": np.array([1.0, 2.0])}], [{"y": np.array([1.0, np.nan])}], {"y": "y"}) == (0, 1)


# What a job handed over


def test_names_are_cut_and_the_order_is_kept() -> None:
    kept = taken([{"b" * 5000: np.ones(3)}, {"a": np.ones(KEPT, bool)}])
    assert [len(name) for name, _ in kept] == [LONGEST_NAME, 1]


@pytest.mark.parametrize(
    "draws",
    [
        [{"a": np.ones(1)}] * (MOST + 1),
        [{str(number): np.ones(1) for number in range(MOST + 1)}],
        [{"a": np.ones(KEPT + 1)}],
        [{"a": np.ones((0, 3))}],
        [{"a": np.array(["text"])}],
        [{"a": np.ones(1, complex)}],
        [{"a": np.zeros(2, "datetime64[s]")}],
    ],
)
def test_what_no_job_of_ours_writes_is_no_picture(draws: Any) -> None:
    with pytest.raises(NoResult):
        taken(draws)


@pytest.mark.parametrize("dtype", ["bool", "int8", "uint64", "float16", "longdouble", ">f4"])
@pytest.mark.parametrize("shape", [(), (1,), (6,), (2,) * 16])
def test_every_tensor_that_is_taken_can_be_compared(dtype: str, shape: tuple[int, ...]) -> None:
    tensors = taken([{"a": np.ones(shape, dtype)}, {"b": np.full(shape, np.nan)}, {"c": np.full(shape, -np.inf)}])
    assert drift_check(tensors, tensors[::-1], 1e-6, differs=True).name == "drift"
