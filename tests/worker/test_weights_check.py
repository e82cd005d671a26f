"""What became of each weight in a finished graph: found, named, or certainly changed; never a false alarm."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from worker.fingerprints import of_weights
from worker.formats._format import Scales, Tolerance
from worker.report import Check
from worker.verify import Seen, Terms, weights
from worker.verify.prints import Print, Weights
from worker.verify.weights import APART, MOST_NAMES, Tries, compare, weights_check

RANDOM = np.random.default_rng(21)
TERMS = Terms(Tolerance(1e-5, 1e-6), exact_weights=False)


def drawn(*shape: int) -> Any:
    return RANDOM.normal(size=shape).astype("float32")


UNTOLD = Scales()


def told(tensors: Mapping[str, Any], steps: Mapping[str, float] | None = None, scales: Scales = UNTOLD) -> Weights:
    """As it comes out of a job."""
    return Weights.from_json(json.loads(json.dumps(of_weights(tensors.items(), steps or {}, scales))))


MODEL = {"a/kernel": drawn(3, 3, 4, 8), "a/bias": drawn(8), "b/kernel": drawn(8, 5), "b/bias": drawn(5)}


def changed(**tensors: Any) -> Check:
    """The model against itself with some tensors of the result replaced, or left out."""
    after: dict[str, Any] = MODEL | {name.replace("_", "/"): array for name, array in tensors.items()}
    return compare(told(MODEL), told({name: array for name, array in after.items() if array is not None}))


def test_it_works() -> None:
    after = {"1": MODEL["b/bias"], "2": MODEL["a/kernel"].transpose(3, 0, 1, 2), "3": MODEL["b/kernel"].T}
    check = compare(told(MODEL), told(after | {"4": MODEL["a/bias"].reshape(1, 8, 1, 1), "5": drawn(2)}))
    assert (check.name, check.passed) == ("weights", True)
    assert check.sentence == "All 4 weight tensors are accounted for: 2 bit for bit, 2 transposed or reshaped."
    assert check.data == {"tensors": 4, "exact": 2, "rearranged": 2, "unmatched": [], "extra": 1}


def test_the_check_is_part_of_the_judgement() -> None:
    seen = Seen((), (), (), [], prints=told(MODEL))
    assert weights_check(seen, seen, TERMS).passed
    assert weights_check(seen, replace(seen, prints=Weights()), TERMS) == Check("weights", None, APART)
    assert weights_check(replace(seen, prints=Weights()), seen, TERMS).passed is None


@pytest.mark.parametrize(
    "fault",
    [
        lambda array: array * np.float32(1.02) + np.float32(0.01),
        lambda array: array + 0.01 * drawn(*array.shape),
    ],
)
def test_a_changed_kernel_is_certain(fault: Any) -> None:
    check = changed(a_kernel=fault(MODEL["a/kernel"]))
    assert check.passed is False
    assert check.sentence == "The weights differ: a/kernel is there with other values."


def with_other(array: Any, *places: Any) -> Any:
    """The array with a large number in each of these places."""
    wrong = array.copy()
    for place in places:
        wrong[place] = 25.0
    return wrong


@pytest.mark.parametrize(
    ("shape", "places"),
    [((1000, 8), [(17, 3)]), ((40,), [3]), ((3, 3, 8, 16), [(slice(None), slice(None), slice(None), 5)])],
)
def test_a_few_other_numbers_in_a_tensor_are_certain(shape: tuple[int, ...], places: list[Any]) -> None:
    model = {"a/table": drawn(*shape), "b/table": drawn(*shape)}
    wrong = {"x": with_other(model["a/table"], *places).T, "y": model["b/table"]}
    check = compare(told(model), told(wrong))
    assert check.passed is False
    assert check.sentence == "The weights differ: a/table is there with other values."


def test_tensors_of_a_few_different_numbers_are_not_taken_for_each_other() -> None:
    grid = np.array([-1.0, -0.5, 0.0, 0.5, 1.0], "float32")
    model = {name: np.random.default_rng(seed).choice(grid, (20, 30)) for seed, name in enumerate("ab")}
    assert compare(told(model), told({"c": np.random.default_rng(7).choice(grid, (20, 30))})).passed is None


def test_the_rows_of_a_table_keep_their_order() -> None:
    table = drawn(1000, 8)
    swapped = table.copy()
    swapped[[17, 18]] = table[[18, 17]]
    assert compare(told({"embedding/embeddings": table}), told({"x": swapped})).passed is False
    assert (
        compare(told({"lstm/kernel": table}), told({"x": swapped})).passed is None
    )  # gates may follow each other anew


@pytest.mark.parametrize(
    "tensors",
    [
        {"a_kernel": None},
        {"a_kernel": np.zeros_like(MODEL["a/kernel"])},
        {"a_kernel": -MODEL["a/kernel"]},
        {"a_kernel": MODEL["a/kernel"][::-1].copy()},
        {"a_kernel": drawn(3, 3, 4, 8)},
        {"a_bias": MODEL["a/bias"] * 3},
        {"b_bias": MODEL["b/bias"][::-1].copy()},
    ],
)
def test_what_is_not_found_is_named(tensors: dict[str, Any]) -> None:
    check = changed(**tensors)
    (name,) = (name.replace("_", "/") for name in tensors)
    assert check.passed is None
    assert check.data["unmatched"] == [name]
    assert f"The values must prove {name}, which is not there as such." in check.sentence


def test_one_tensor_does_not_stand_for_two() -> None:
    check = compare(told({"a": drawn(4, 4), "b": drawn(4, 4)}), told({"a": drawn(4, 4)}))
    assert check.data["unmatched"] == ["a", "b"]


def test_twins_may_be_stored_once() -> None:
    kernel = drawn(4, 4)
    check = compare(told({"a": kernel, "b": kernel}), told({"a": kernel}))
    assert (check.passed, check.data["exact"], check.data["shared"]) == (True, 1, 1)
    assert compare(told({"a": kernel, "b": kernel}), told({"a": kernel + 1})).passed is None


def test_zeros_and_ones_may_be_left_out() -> None:
    before = MODEL | {"c/bias": np.zeros(3, "float32"), "c/gamma": np.ones(3, "float32")}
    check = compare(told(before), told(MODEL))
    assert (check.passed, check.data["neutral"]) == (True, 2)


@pytest.mark.parametrize("value", [0.5, -1.0])
def test_another_single_number_is_not_left_out(value: float) -> None:
    before = MODEL | {"c/bias": np.full(3, value, "float32"), "d/bias": np.full(1, value, "float32")}
    assert compare(told(before), told(MODEL)).data["unmatched"] == ["c/bias", "d/bias"]


def test_a_bias_of_zeros_that_became_something_is_named() -> None:
    before = MODEL | {"c/bias": np.zeros(3, "float32")}
    assert compare(told(before), told(MODEL | {"c/bias": drawn(3)})).data["unmatched"] == ["c/bias"]


@pytest.mark.parametrize("dtype", ["float16", "int8"])
def test_rounded_weights(dtype: str) -> None:
    after, steps = {}, {}
    for name, array in MODEL.items():
        steps[name] = float(np.abs(array).max()) / 127 if dtype == "int8" else 0.0
        after[name] = (
            np.round(array / steps[name]).astype("float32") * steps[name] if steps[name] else array.astype(dtype)
        )
    check = compare(told(MODEL), told(after, steps))
    assert (check.passed, check.data["rounded"]) == (True, 4)
    assert "4 rounded" in check.sentence
    worse = compare(told(MODEL), told(after | {"a/kernel": after["a/kernel"] * 1.1}, steps))
    assert worse.passed is None


def folded(model: dict[str, Any], epsilon: float = 1e-3) -> dict[str, Any]:
    """What converters make of a convolution, its bias and the BatchNormalization after it."""
    scale = model["n/gamma"] / np.sqrt(model["n/moving_variance"] + np.float32(epsilon))
    shift = model["n/beta"] + (model.get("c/bias", 0) - model["n/moving_mean"]) * scale
    return {"kernel": (model["c/kernel"] * scale).astype("float32"), "bias": shift.astype("float32")}


def normalised(bias: bool = False) -> dict[str, Any]:
    model = {"c/kernel": drawn(3, 3, 4, 8), "n/gamma": drawn(8), "n/beta": drawn(8), "n/moving_mean": drawn(8)}
    model = ({"c/kernel": model.pop("c/kernel"), "c/bias": drawn(8)} if bias else {}) | model
    return model | {"n/moving_variance": np.abs(drawn(8)) + 0.1}


@pytest.mark.parametrize("epsilon", [1e-3, 1.001e-5, 1e-5])
def test_a_folded_normalisation_is_proven(epsilon: float) -> None:
    model = normalised()
    check = compare(told(model), told(folded(model, epsilon)))
    assert (check.passed, check.data["folded"], check.data["extra"]) == (True, 5, 0)


def test_a_bias_that_went_into_the_shift_is_proven() -> None:
    """Also where two branches stand side by side: both convolutions, then both normalisations."""
    model, other = normalised(bias=True), {f"2/{name}": array for name, array in normalised(bias=True).items()}
    both = dict(sorted((model | other).items(), key=lambda item: "/n/" in f"/{item[0]}"))
    after = folded(model) | {f"2/{name}": array for name, array in folded(normalise_names(other)).items()}
    check = compare(told(both), told(after))
    assert (check.passed, check.data["folded"]) == (True, 12)
    assert compare(told(both), told(after | {"bias": after["bias"] + model["c/bias"]})).passed is None


def normalise_names(model: dict[str, Any]) -> dict[str, Any]:
    return {name.removeprefix("2/"): array for name, array in model.items()}


@pytest.mark.parametrize("member", ["n/gamma", "n/beta", "n/moving_mean", "n/moving_variance"])
def test_a_fault_in_a_normalisation_is_not_accounted_for(member: str) -> None:
    model = normalised()
    wrong = model | {member: model[member] * 1.01}
    assert compare(told(model), told(folded(wrong))).passed is None


def test_an_epsilon_that_nobody_uses_is_not_accounted_for() -> None:
    model = normalised()
    assert compare(told(model), told(folded(model, 0.3))).passed is None


def nearly_neutral() -> dict[str, Any]:
    """A normalisation that leaves a kernel nearly as it was."""
    model = normalised()
    sizes = {"n/gamma": 1 + drawn(8) / 100, "n/moving_variance": 1 + np.abs(drawn(8)) / 100}
    return model | {name: array.astype("float32") for name, array in sizes.items()}


def test_an_epsilon_of_its_own_is_no_fault_of_the_kernel() -> None:
    """Such a kernel is scaled by a number that nobody knows, unless the model tells its epsilon."""
    model = nearly_neutral()
    after = told(folded(model, 7e-3))
    assert compare(told(model), after).passed is None
    assert compare(told(model, scales=Scales((7e-3,))), after).passed is True


def test_a_kernel_with_its_sign_turned_is_not_accounted_for_where_no_scale_is_negative() -> None:
    model = nearly_neutral()
    wrong = folded(model | {"c/kernel": -model["c/kernel"]}, 7e-3)
    assert compare(told(model, scales=Scales((7e-3,))), told(wrong)).passed is None


@pytest.mark.parametrize("norm", [False, True], ids=["alone", "normalised"])
def test_a_factor_of_the_inputs_goes_into_the_kernel(norm: bool) -> None:
    """As a Rescaling before a convolution does. Any other number is a fault."""
    model = normalised() if norm else {"c/kernel": drawn(3, 3, 4, 8), "c/bias": drawn(8)}
    before = told(model, scales=Scales((1e-3,), (1 / 255,)))
    after = folded(model) if norm else {"kernel": model["c/kernel"], "bias": model["c/bias"]}
    for factor, passed in ((1 / 255, True), (1 / 250, None)):
        scaled = {"kernel": (after["kernel"] * np.float32(factor)).astype("float32"), "bias": after["bias"]}
        assert compare(before, told(scaled)).passed is passed


def test_a_negative_scale_elsewhere_turns_no_other_kernel() -> None:
    model, other = nearly_neutral(), {f"2/{name}": array for name, array in normalised().items()}
    other["2/n/gamma"] = -np.abs(other["2/n/gamma"])
    after = folded(model) | {f"2/{name}": array for name, array in folded(normalise_names(other)).items()}
    assert compare(told(model | other), told(after)).passed is True
    assert compare(told(model | other), told(after | {"kernel": -after["kernel"]})).passed is not True


@pytest.mark.parametrize("epsilon", [3e-4, 0.004])
@pytest.mark.parametrize("fresh", [False, True], ids=["trained", "fresh"])
def test_a_kernel_that_an_unknown_epsilon_scaled_is_no_fault(epsilon: float, fresh: bool) -> None:
    """It is nearly its own, and nothing else has its shape: only the values can tell whether that is right."""
    model = normalised() | {"n/moving_mean": np.zeros(8, "float32"), "n/moving_variance": np.ones(8, "float32")}
    gamma, beta = (np.ones(8, "float32"), np.zeros(8, "float32")) if fresh else (np.linspace(0.95, 1.05, 8), drawn(8))
    model |= {"n/gamma": gamma.astype("float32"), "n/beta": beta}
    assert compare(told(model), told(folded(model, epsilon))).passed is None


def test_a_kernel_folded_with_a_fault_is_not_accounted_for() -> None:
    model = normalised()
    for wrong in (
        drawn(3, 3, 4, 8) * 0.01 + model["c/kernel"],
        model["c/kernel"][:, ::-1],
        model["c/kernel"][..., ::-1],
    ):
        after = folded(model | {"c/kernel": wrong})
        assert compare(told(model), told(after)).passed is None


def test_gates_may_be_cut_apart_and_put_together() -> None:
    whole = {"kernel": drawn(6, 20)}
    parts = {str(number): part for number, part in enumerate(np.split(whole["kernel"], 4, axis=1))}
    assert compare(told(whole), told(parts | {"x": drawn(6, 5)})).data["split"] == 1
    joined = compare(told(parts), told(whole | {"x": drawn(20)}))
    assert (joined.passed, joined.data["joined"]) == (True, 4)
    assert compare(told(whole), told(parts | {"0": drawn(6, 5)})).passed is None


def test_many_names_are_not_all_said() -> None:
    model = {f"layer {number}": drawn(number + 2, 3) for number in range(MOST_NAMES + 5)}
    check = compare(told(model), told({"other": drawn(99)}))
    assert check.passed is None
    assert len(check.data["unmatched"]) == MOST_NAMES
    assert "layer 0, layer 1, layer 2 and 22 more" in check.sentence


def test_honest_rounding_raises_no_alarm() -> None:
    """Kernels of equal shapes that lie near each other, as those of an ensemble do, stored as float16."""
    base = drawn(5, 6)
    model = {f"{number}/kernel": base + 0.02 * drawn(5, 6) for number in range(6)}
    for dtype in ("float32", "float16"):
        check = compare(told(model), told({name: array.astype(dtype) for name, array in reversed(model.items())}))
        assert (check.passed, check.data["unmatched"]) == (True, [])


def test_any_two_models_are_compared_without_an_error() -> None:
    odd = {
        "text": np.array([b"a", b"b"]),
        "none": np.zeros((0, 3)),
        "nan": np.full((2, 2), np.nan),
        "one": np.float32(2),
    }
    odd |= {"inf": np.array([[np.inf, 1.0]]), "whole": np.arange(6), "large": np.full((2, 2), 3e38, "float32")}
    assert compare(told(odd), told(odd)).passed
    assert compare(told(odd), told(MODEL)).passed is None
    assert compare(told(MODEL), told(odd)).passed is None


def test_tensors_of_one_size_are_not_each_held_against_all(monkeypatch: pytest.MonkeyPatch) -> None:
    pairs: list[tuple[Print, Print]] = []

    def counted(*pair: Print) -> bool:
        pairs.append((pair[0], pair[1]))
        return True

    monkeypatch.setattr(weights, "in_order", counted)
    model = {f"{number}/kernel": drawn(3, 4) + number for number in range(60)}
    turned = {name: kernel.T.copy() for name, kernel in reversed(model.items())}
    assert compare(told(model), told(turned)).data["rearranged"] == 60
    assert len(pairs) == 60


def test_a_pass_ends_when_it_has_looked_at_enough_pairs() -> None:
    prints = told({f"{number}/kernel": drawn(2, 2) for number in range(5)}).prints
    tries = Tries(7)
    assert [len(list(tries.of(prints))) for _ in range(3)] == [5, 2, 0]


def test_one_tensor_may_be_scale_and_shift_of_a_normalisation() -> None:
    model = normalised()
    scale = model["n/gamma"] / np.sqrt(model["n/moving_variance"] + np.float32(1e-3))
    model["n/beta"] = (scale * (1 + model["n/moving_mean"])).astype("float32")
    check = compare(told(model), told({"kernel": model["c/kernel"], "both": scale.astype("float32")}))
    assert (check.passed, check.data["folded"]) == (True, 4)
