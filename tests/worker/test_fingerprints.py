"""What a fingerprint survives, what it does not, how large it is, and that one model has one in every format."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from worker.fingerprints import BLOCK, fingerprint, normalisations, of_model
from worker.formats._format import Scales
from worker.verify.prints import MOST_PRINTS, Print, Weights, folded_axes, in_order, is_rounded, is_vector

RANDOM = np.random.default_rng(11)


def of(array: Any, step: float = 0.0) -> Print:
    """As it comes out of a job: through JSON."""
    return Print.from_json(json.loads(json.dumps(fingerprint("layer/kernel", np.asarray(array), step))))


def drawn(*shape: int) -> Any:
    return RANDOM.normal(size=shape).astype("float32")


KERNEL = drawn(3, 3, 5, 7)


def test_it_works() -> None:
    told = fingerprint("conv/kernel", KERNEL)
    assert (told["name"], told["dtype"], told["shape"], told["count"]) == ("conv/kernel", "float32", [3, 3, 5, 7], 315)
    assert len(told["quantiles"]) == 33
    assert told["largest"] == float(np.abs(KERNEL).max())
    assert of(KERNEL).values == of(KERNEL.transpose(3, 0, 1, 2)).values


def test_it_is_small() -> None:
    assert len(json.dumps(fingerprint("a/dense/kernel", drawn(300, 200)))) < 1_500
    assert len(json.dumps(fingerprint("a/conv/kernel", drawn(3, 3, 64, 128)))) < 2_500
    assert len(json.dumps(fingerprint("a/conv/bias", drawn(1000)))) < 1_200


@pytest.mark.parametrize("axes", [(3, 0, 1, 2), (3, 2, 0, 1), (2, 3, 1, 0)])
def test_a_transpose_keeps_it(axes: tuple[int, ...]) -> None:
    turned = of(KERNEL.transpose(axes))
    assert turned.sha256 != of(KERNEL).sha256
    assert turned.values == of(KERNEL).values
    assert in_order(of(KERNEL), turned)


@pytest.mark.parametrize("shape", [(9, 5, 7), (3, 15, 7), (3, 3, 35), (1, 3, 3, 1, 35)])
def test_a_reshape_keeps_it(shape: tuple[int, ...]) -> None:
    assert in_order(of(KERNEL), of(KERNEL.reshape(shape)))
    assert in_order(of(KERNEL.reshape(shape)), of(KERNEL.transpose(3, 2, 0, 1).copy().reshape(7, 5, 9)))


@pytest.mark.parametrize("change", [lambda a: a[::-1], lambda a: a[..., ::-1], lambda a: np.sort(a, axis=2)])
def test_another_order_is_seen(change: Callable[[Any], Any]) -> None:
    changed = of(change(KERNEL).copy())
    assert changed.values == of(KERNEL).values
    assert not in_order(of(KERNEL), changed)
    assert not is_rounded(of(KERNEL), changed)
    assert not folded_axes(of(KERNEL), changed, turned=True)


def test_another_order_shows_where_neighbours_were_joined() -> None:
    kernel = drawn(8, 2, 4)
    joined = kernel.reshape(8, 8)
    assert in_order(of(kernel), of(joined.T))
    assert not in_order(of(kernel), of(joined[:, ::-1].copy()))
    assert not in_order(of(kernel), of(joined[::-1].copy()))


def test_the_two_zeros_are_one() -> None:
    assert of(np.array([0.0, 1.0], "float32")).values == of(np.array([-0.0, 1.0], "float32")).values
    assert of([np.float32("nan"), 1.0]).values == of(np.array([1.0, -np.float32("nan")])).values


def test_what_was_widened_exactly_is_the_same() -> None:
    half = drawn(20, 3).astype("float16")
    assert of(half).values == of(half.astype("float32")).values
    assert of(half).values != of(drawn(20, 3)).values


@pytest.mark.parametrize("dtype", ["float16", "float64", "int8", "int32", "bool", "complex64", "uint8"])
def test_every_dtype_has_one(dtype: str) -> None:
    assert of(np.ones((2, 3), dtype)).count == 6


@pytest.mark.parametrize("shape", [(), (0,), (1,), (0, 3), (1, 1, 1), (2, 1, 2, 1, 2, 1, 2, 1, 2, 2, 2, 2)])
def test_every_shape_has_one(shape: tuple[int, ...]) -> None:
    assert of(np.ones(shape, "float32")).shape == shape


@settings(deadline=None, max_examples=50)
@given(arrays.arrays("float32", arrays.array_shapes(max_dims=5, max_side=5), elements=st.floats(width=32)))
def test_no_numbers_are_too_odd(array: Any) -> None:
    told = of(array)
    assert dataclasses.astuple(told) == dataclasses.astuple(of(array))
    assert in_order(told, of(array.T))


def test_parts_are_put_together_as_a_whole_is() -> None:
    """A tensor is looked at in blocks; what comes out does not depend on where they end."""
    large = drawn(3, BLOCK // 64, 70)
    expected = np.asarray(large, "float64").mean(axis=(0, 1))
    told, turned = of(large), of(large.transpose(2, 0, 1))
    assert {axis.digest for axis in told.axes} == {axis.digest for axis in turned.axes}
    assert [axis.length for axis in told.axes] == list(large.shape)
    assert told.axes[2].mean == pytest.approx(of(expected).axes[0].mean, rel=1e-5)


def test_joined_tensors_add_up() -> None:
    one, other = drawn(4, 6), drawn(4, 6)
    totals = [of(array).total for array in (one, other, np.concatenate([one, other]))]
    assert None not in totals
    assert (totals[0] + totals[1]) % 2**64 == totals[2]  # type: ignore[operator]


@pytest.mark.parametrize("dtype", ["float16", "int8"])
def test_rounding_is_told_from_another_tensor(dtype: str) -> None:
    step = float(np.abs(KERNEL).max()) / 127
    rounded = KERNEL.astype("float16") if dtype == "float16" else np.round(KERNEL / step).astype("float32") * step
    told = of(rounded.transpose(3, 0, 1, 2), 0.0 if dtype == "float16" else step)
    assert is_rounded(of(KERNEL), told)
    assert not is_rounded(of(drawn(3, 3, 5, 7)), told)
    assert not is_rounded(of(KERNEL[::-1].copy()), told)
    assert not is_rounded(of(KERNEL * 1.05), told)


@pytest.mark.parametrize("axis", [0, 2, 3])
def test_scaled_channels_are_told_from_changed_ones(axis: int) -> None:
    shape = [1] * 4
    shape[axis] = -1
    scales = RANDOM.uniform(0.1, 4, KERNEL.shape[axis]).astype("float32").reshape(shape)
    noise = (0.01 * drawn(3, 3, 5, 7)).astype("float32")
    assert folded_axes(of(KERNEL), of((KERNEL * scales).transpose(3, 2, 0, 1)), turned=False)
    assert not folded_axes(of(KERNEL), of(KERNEL * -scales), turned=False)
    assert folded_axes(of(KERNEL), of(KERNEL * -scales), turned=True)
    for changed in (KERNEL + noise, KERNEL[::-1], KERNEL[:, :, ::-1, ::-1], np.zeros_like(KERNEL)):
        assert not folded_axes(of(KERNEL), of((changed * scales).astype("float32").copy()), turned=True)


def norm(**vectors: Any) -> list[dict[str, Any]]:
    return list(normalisations([(f"net/norm/{name}", array) for name, array in vectors.items()], Scales()))


def test_a_normalisation_is_told_as_what_becomes_of_it() -> None:
    gamma, beta, mean, variance = drawn(9), drawn(9), drawn(9), np.abs(drawn(9)) + 0.5
    (found,) = norm(gamma=gamma, beta=beta, moving_mean=mean, moving_variance=variance)
    weights = Weights.from_json(json.loads(json.dumps({"tensors": [], "normalisations": [found], "factors": []})))
    scale = gamma / np.sqrt(variance + np.float32(1e-3))
    forms = [form for form in weights.norms[0].forms if is_vector(form.scale, of(scale))]
    assert len(forms) == 1
    assert any(is_vector(shift, of(beta - mean * scale), forms[0].slack) for shift in forms[0].shifts)
    assert not any(is_vector(shift, of(beta + mean * scale), forms[0].slack) for shift in forms[0].shifts)
    assert weights.norms[0].members == tuple(
        f"net/norm/{name}" for name in ("gamma", "beta", "moving_mean", "moving_variance")
    )


def test_vectors_that_do_not_belong_together_are_no_normalisation() -> None:
    assert norm(gamma=drawn(3), beta=drawn(3)) == []
    assert norm(gamma=drawn(3), moving_mean=drawn(4), moving_variance=drawn(3)) == []
    apart = [("a/moving_mean", drawn(3)), ("b/moving_variance", drawn(3))]
    assert list(normalisations(apart, Scales())) == []


def test_a_name_or_a_place_changes_nothing_of_a_models_own() -> None:
    kernel, bias = drawn(4, 5), drawn(5)
    one = of_model([("kernel", kernel), ("bias", bias), ("count", np.int64(3))])
    assert one == of_model([("b", bias), ("a", kernel.T), ("rate", np.float32(1.0))])
    assert one != of_model([("kernel", kernel), ("bias", bias + 1)])
    assert one != of_model([("kernel", kernel), ("bias", bias), ("bias", bias)])
    assert of_model([("count", np.int64(3))]) == ""


@pytest.mark.parametrize(
    "forge",
    [
        lambda told: told.update(quantiles=[0.0] * 10_000),
        lambda told: told.update(largest=float("inf")),
        lambda told: told.update(total="no number"),
        lambda told: told.update(total="f" * 17),
        lambda told: told.update(total="-1"),
        lambda told: told.update(axes=[{}]),
        lambda told: told.pop("values"),
        lambda told: told.update(shape="long"),
    ],
)
def test_what_is_none_is_refused(forge: Callable[[dict[str, Any]], Any]) -> None:
    told = fingerprint("kernel", KERNEL)
    forge(told)
    with pytest.raises((ValueError, KeyError, TypeError)):
        Print.from_json(told)


@pytest.mark.parametrize("kind", ["tensors", "normalisations"])
def test_more_than_a_model_has_are_refused_unread(kind: str) -> None:
    with pytest.raises(ValueError, match="more weight tensors"):
        Weights.from_json({"tensors": [], "normalisations": []} | {kind: [None] * (MOST_PRINTS + 1), "factors": []})
