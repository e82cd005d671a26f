"""From what planted faults did to the outputs to a sentence that people can rely on."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest

from worker.report import Check
from worker.verify.sensitivity import Row, at_least, rows_from_json, sensitivity_check

ALLOWED = 1e-5
QUERY = Row("attention", "attention/query/kernel", 1.0)


def rows(seen: int, unseen: int = 0) -> list[Row]:
    shown = [Row(f"conv{number}", f"conv{number}/kernel", 1e-3) for number in range(seen)]
    return shown + [Row(f"bn{number}", f"bn{number}/gamma", 1e-6) for number in range(unseen)]


def test_it_works() -> None:
    check = sensitivity_check(rows(3), 3, ALLOWED)
    assert check.passed is True
    assert check.sentence == "A fault of 1 % in any of the 3 layers would have shown: 3 of 3 weight tensors tried."
    assert check.data["share"] == check.data["confidence"] == 1.0
    assert Check.from_json(json.loads(json.dumps(check.to_json()))) == check


def test_what_would_not_have_shown_is_named() -> None:
    check = sensitivity_check(rows(10, 2), 12, ALLOWED)
    assert check.passed is None
    assert check.sentence == "Faults of 1 % in bn0, bn1 would not have shown on these inputs: 2 of 12 tensors tried."
    assert check.data["unseen"] == [["bn0", "bn0/gamma"], ["bn1", "bn1/gamma"]]
    assert check.data["share"] == pytest.approx(10 / 12)


def test_many_names_become_a_number() -> None:
    check = sensitivity_check(rows(0, 9), 9, ALLOWED)
    assert "bn0, bn1, bn2, bn3, bn4 and 4 more layers" in check.sentence
    assert len(check.data["unseen"]) == 9


def test_a_fault_has_to_move_more_than_twice_what_is_allowed() -> None:
    assert sensitivity_check([Row("dense", "dense/kernel", 2 * ALLOWED)], 1, ALLOWED).passed is None
    assert sensitivity_check([Row("dense", "dense/kernel", 2.1 * ALLOWED)], 1, ALLOWED).passed is True
    assert sensitivity_check([Row("dense", "dense/kernel", 2.1e-5)], 1, 1e-3).passed is None


def test_one_of_a_hundred_may_stay_unseen_and_is_named() -> None:
    check = sensitivity_check(rows(99, 1), 100, ALLOWED)
    assert check.passed is True
    assert "99 of 100 weight tensors tried, all but bn0" in check.sentence
    assert sensitivity_check(rows(98, 2), 100, ALLOWED).passed is None


def test_a_sample_says_how_sure_it_is() -> None:
    check = sensitivity_check(rows(59), 320, ALLOWED)
    assert check.passed is True
    assert check.data["confidence"] == pytest.approx(0.05 ** (1 / 59))  # all seen: what would fail one time in twenty
    assert "in at least 95 % of all 320, with 95 % confidence" in check.sentence


@pytest.mark.parametrize(("seen", "tried"), [(1, 8), (7, 8), (50, 60), (299, 300), (2999, 3000)])
def test_the_bound_is_the_exact_one(seen: int, tried: int) -> None:
    bound = at_least(seen, tried)
    tail = math.fsum(
        math.comb(tried, count) * bound**count * (1 - bound) ** (tried - count) for count in range(seen, tried + 1)
    )
    assert tail == pytest.approx(0.05, rel=1e-6)
    assert at_least(0, tried) == 0.0


def test_coarse_formats_are_asked_for_gross_faults() -> None:
    slight = [Row("conv", "conv/kernel", 1e-3, 0.5), Row("out", "out/kernel", 1e-3, 0.9)]
    check = sensitivity_check(slight, 2, 1e-2, coarse=True)
    assert check.passed is True
    assert check.sentence.startswith("A gross fault (a sign turned, a statistic lost) in any of the 2 layers")
    assert sensitivity_check(slight, 2, 1e-2).passed is None
    shown = Row("conv", "conv/kernel", 1.0)  # by a small fault already, so no gross one was planted
    assert sensitivity_check([shown], 1, 1e-2, coarse=True).passed is True


def test_what_the_model_does_not_read_need_not_show() -> None:
    """The statistics that a SpectralNormalization keeps for its training, say."""
    unread = Row("dense", "dense/vector_u", 0.0, 0.0, unread=True)
    check = sensitivity_check([*rows(3), unread], 4, ALLOWED)
    assert check.passed is True
    assert check.data["idle"] == [["dense", "dense/vector_u"]]
    assert check.sentence.endswith("What the model does not read cannot show either: dense/vector_u.")
    assert sensitivity_check([*rows(3), replace(unread, unread=False)], 4, ALLOWED).passed is None


def test_one_tensor_may_be_idle_where_all_weights_are_known() -> None:
    """As the bias of an attention's keys, under whatever name a graph has for it."""
    idle = [*rows(18), Row("attention", "constant_7", 1e-9, 1e-9)]
    assert sensitivity_check(idle, 19, ALLOWED, coarse=True).passed is None
    check = sensitivity_check(idle, 19, ALLOWED, coarse=True, known=True)
    assert check.passed is True
    assert check.data["unseen"] == [["attention", "constant_7"]]
    asleep = [*rows(8), *(Row("block", f"constant_{number}", 0.0, 0.0) for number in range(2))]
    assert sensitivity_check(asleep, 10, ALLOWED, coarse=True, known=True).passed is None


def test_what_no_input_can_show_is_no_fault_of_the_inputs() -> None:
    key = Row("attention", "attention/key/bias", 1e-8)
    check = sensitivity_check([*rows(20), QUERY, key], 22, ALLOWED)
    assert check.passed is True
    assert check.data["idle"] == [["attention", "attention/key/bias"]]
    assert check.data["tried"] == check.data["total"] == 21
    assert "cancels in every softmax" in check.sentence
    assert sensitivity_check([*rows(20), Row("attention", "attention/query/bias", 1e-8)], 21, ALLOWED).passed is None


@pytest.mark.parametrize("name", ["key/bias", "other/key/bias", "attention/k_proj/bias", "attention/key/bias/bias"])
def test_a_layer_that_is_only_called_like_keys_is_not_excused(name: str) -> None:
    check = sensitivity_check([*rows(20), QUERY, Row("key", name, 1e-8)], 22, ALLOWED)
    assert check.passed is None
    assert check.data["idle"] == []
    assert check.data["unseen"] == [["key", name]]


def test_a_model_whose_weights_cannot_be_changed_proves_nothing() -> None:
    check = sensitivity_check([], 0, ALLOWED)
    assert check.passed is None
    assert "no weight of the source could be changed" in check.sentence


@pytest.mark.parametrize("moved", [float("nan"), float("inf"), -1.0, "much", None])
def test_what_a_job_says_is_looked_at(moved: object) -> None:
    with pytest.raises((ValueError, TypeError)):
        rows_from_json([{"layer": "a", "tensor": "a/b", "count": 3, "moved": moved, "moved_gross": None}])
