"""The judgement: what is equal is verified, what is not differs, and what could not be seen is not called equal."""

from __future__ import annotations

import dataclasses
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker import fingerprints, verify
from worker.errors import BadSamples, ModelError, NoResult, NotRunnable
from worker.formats._draws import DRAWS, GUESSES, Guess, make_inputs
from worker.formats._format import Scales, TensorSpec, Tolerance
from worker.report import Check, Verdict
from worker.verify import Array, Seen, Terms, Weights, measure, pair
from worker.verify.sensitivity import Row

TOLERANCE = Tolerance(rtol=1e-5, atol=1e-6)
TERMS = Terms(TOLERANCE, exact_weights=True)
X = TensorSpec("x", (None, 4), "float32")
Y = TensorSpec("y", (None, 2), "float32")
VALUES = np.array([[1.0, 2.0], [3.0, 4.0]], "float32")
SEEN = Seen((X,), (Y,), (("float32", (4, 2), "aa"), ("float32", (2,), "bb")), [{"y": VALUES}, {"y": VALUES * 2}])


ROWS = (Row("dense", "dense/kernel", 1.0, 1.0), Row("dense", "dense/bias", 1.0, 1.0))
SEEN = dataclasses.replace(SEEN, faults=ROWS, variables=2)


def with_values(*values: Array) -> Seen:
    return dataclasses.replace(SEEN, values=[{"y": value} for value in values])


def named(checks: tuple[Check, ...]) -> dict[str, bool | None]:
    return {check.name: check.passed for check in checks}


def test_it_works() -> None:
    verdict, reason, checks = verify.judge(SEEN, SEEN, TERMS)
    assert verdict is Verdict.VERIFIED
    assert named(checks) == dict.fromkeys(
        ["load", "names", "shapes", "dtypes", "weights", "sensitivity", "values"], True
    )
    assert "All 2 weight tensors are the same, bit for bit." in reason
    assert "On 2 sets of inputs the values are exactly the same." in reason


def test_what_was_not_run_is_not_said_to_run() -> None:
    other = dataclasses.replace(SEEN, inputs=(dataclasses.replace(X, shape=(None, 3, 3)),), values=[])
    verdict, _, checks = verify.judge(SEEN, other, TERMS)
    assert verdict is Verdict.DIFFERS
    assert checks[0].sentence == "The result opens in a fresh job."


def test_what_is_only_near_is_not_called_the_same() -> None:
    """Whole numbers for weights are far from exact: the verdict says how far, and how far was allowed."""
    terms = Terms(Tolerance(rtol=0.1, atol=0.0), exact_weights=False)
    arrays = [("dense/kernel", VALUES), ("dense/bias", VALUES[0])]
    prints = Weights.from_json(fingerprints.of_weights(iter(arrays), {}, Scales()))
    source = dataclasses.replace(SEEN, prints=prints)
    result = dataclasses.replace(with_values(VALUES, VALUES * 2.1), prints=prints)
    verdict, reason, _ = verify.judge(source, result, terms)
    assert verdict is Verdict.VERIFIED
    assert "computes nearly the same." in reason
    assert (
        "differ by at most 0.4, 5.0% of the largest value of its output, where 10.0% is allowed; the largest column is"
        " the same in 100.0% of 4 rows." in reason
    )


def test_where_much_is_allowed_the_weights_have_to_be_found() -> None:
    """A fault of 1 % hides in the rounding of whole numbers; then only the weights themselves can tell."""
    terms = Terms(Tolerance(rtol=0.1, atol=0.0), exact_weights=False)
    verdict, reason, _ = verify.judge(SEEN, SEEN, terms)
    assert verdict is Verdict.NOT_PROVABLE
    assert "weights" in reason


def test_values_on_which_no_fault_would_show_prove_nothing() -> None:
    terms = Terms(TOLERANCE, exact_weights=False)
    asleep = dataclasses.replace(SEEN, faults=(Row("dense", "dense/kernel", 0.0), Row("dense", "dense/bias", 1.0)))
    verdict, reason, _ = verify.judge(asleep, SEEN, terms)
    assert verdict is Verdict.NOT_PROVABLE
    assert "dense" in reason
    assert verify.judge(asleep, SEEN, TERMS)[0] is Verdict.VERIFIED  # bit for bit, in layers that Keras wrote
    assert verify.judge(asleep, SEEN, terms, twin=True)[0] is Verdict.VERIFIED


def test_outputs_in_another_order_are_another_model() -> None:
    both = (Y, TensorSpec("z", (None, 2), "float32"))
    values = [{"y": VALUES, "z": VALUES}]
    source = dataclasses.replace(SEEN, outputs=both, values=values)
    result = dataclasses.replace(source, outputs=both[::-1])
    verdict, reason, _ = verify.judge(source, result, dataclasses.replace(TERMS, in_order=True))
    assert verdict is Verdict.DIFFERS
    assert "y, z became z, y" in reason
    assert verify.judge(source, result, TERMS)[0] is Verdict.VERIFIED  # where names are all that a signature has


def test_a_signature_that_the_source_has_nothing_like_was_not_compared() -> None:
    wider = dataclasses.replace(SEEN, further=("serve",))
    verdict, reason, _ = verify.judge(SEEN, wider, TERMS)
    assert verdict is Verdict.NOT_PROVABLE
    assert reason.endswith("compared with: serve.")
    assert verify.judge(wider, wider, TERMS)[0] is Verdict.VERIFIED
    assert verify.judge(wider, SEEN, TERMS)[0] is Verdict.VERIFIED


def test_layers_in_other_words_have_to_give_the_same_bits() -> None:
    """An epsilon a hundred times too small moves the values of a small draw less than rounding may."""
    source, other = (dataclasses.replace(SEEN, layers=words) for words in ("aa", "bb"))
    nearly = with_values(VALUES * 1.000001, VALUES * 2)
    verdict, reason, checks = verify.judge(source, dataclasses.replace(nearly, layers="bb"), TERMS)
    assert verdict is Verdict.NOT_PROVABLE
    assert "to the last bit" in reason
    assert named(checks)["architecture"] is None
    assert verify.judge(source, dataclasses.replace(nearly, layers="aa"), TERMS)[0] is Verdict.VERIFIED
    assert verify.judge(source, nearly, TERMS)[0] is Verdict.VERIFIED  # tf-keras computes in an order of its own
    assert verify.judge(source, other, TERMS)[0] is Verdict.VERIFIED  # .h5 says some things otherwise


def test_words_that_somebody_else_changed_are_no_proof() -> None:
    """A bound of 6 shows where an input reaches it, and nobody knows whether one did."""
    source, other = (dataclasses.replace(SEEN, layers=words) for words in ("aa", "bb"))
    given = dataclasses.replace(TERMS, given=True)
    verdict, reason, _ = verify.judge(source, other, given)
    assert verdict is Verdict.NOT_PROVABLE
    assert "known of these inputs alone" in reason
    assert verify.judge(source, dataclasses.replace(other, layers="aa"), given)[0] is not Verdict.DIFFERS


@pytest.mark.parametrize("kind", ["random", "stateful"])
def test_a_source_that_changes_its_mind_is_told_and_not_failed(kind: str) -> None:
    source = dataclasses.replace(SEEN, unsteady=kind)
    verdict, reason, _ = verify.judge(source, with_values(VALUES + 1, VALUES), TERMS)
    assert verdict is Verdict.NOT_PROVABLE
    assert ("random" in reason) == (kind == "random")


def test_a_result_that_changes_its_mind_differs() -> None:
    result = dataclasses.replace(SEEN, repeated={0: {"y": VALUES * 3}})
    verdict, reason, _ = verify.judge(SEEN, result, TERMS)
    assert verdict is Verdict.DIFFERS
    assert "Two fresh runs" in reason


def test_what_float64_explains_is_rounding() -> None:
    """The source itself lies 1e-4 from its answers in float64: twice that is no fault, ten times that is one."""
    source = dataclasses.replace(SEEN, exact=[{"y": VALUES * 1.0001}, {"y": VALUES * 2.0002}])
    near, far = (with_values(VALUES * share, VALUES * 2 * share) for share in (1.0002, 1.001))
    assert verify.judge(SEEN, near, TERMS)[0] is Verdict.DIFFERS
    assert verify.asks_source(verify.judge(SEEN, near, TERMS)[2])
    assert verify.judge(source, near, TERMS)[0] is Verdict.VERIFIED
    assert verify.judge(source, far, TERMS)[0] is Verdict.DIFFERS


@pytest.mark.parametrize("kind", ["exact", "nudged"])
def test_a_source_that_rounds_beyond_all_bounds_proves_nothing(kind: str) -> None:
    """A difference of two large numbers, or fifty layers that double every difference: no library gives the same."""
    others = [{"y": VALUES * 1.1}, {"y": VALUES * 2.2}]
    source = dataclasses.replace(SEEN, exact=others) if kind == "exact" else dataclasses.replace(SEEN, nudged=others)
    near, far = (with_values(VALUES * share, VALUES * 2 * share) for share in (0.8, 3.0))
    assert verify.asks_source(verify.judge(SEEN, near, TERMS)[2])
    verdict, reason, _ = verify.judge(source, near, TERMS)
    assert verdict is Verdict.NOT_PROVABLE
    assert reason.startswith("Rounding alone moves the answers of the source")
    assert verify.judge(source, far, TERMS)[0] is Verdict.DIFFERS
    other = with_values(VALUES * np.nan, VALUES * 2)
    assert verify.judge(source, other, TERMS)[0] is Verdict.DIFFERS
    assert not verify.asks_source(verify.judge(SEEN, other, TERMS)[2])


def test_nor_does_one_that_rounds_to_zero() -> None:
    """What is left of a difference of large numbers may be nothing at all, which no other answer is relative to."""
    seen = dataclasses.replace(SEEN, values=[{"y": VALUES * 0}, {"y": VALUES}])
    source = dataclasses.replace(seen, exact=[{"y": VALUES * 0.1}, {"y": VALUES * 1.1}])
    near, far = (with_values(VALUES * share, VALUES) for share in (0.2, 3.0))
    assert verify.asks_source(verify.judge(seen, near, TERMS)[2])
    assert verify.judge(source, near, TERMS)[0] is Verdict.NOT_PROVABLE
    assert verify.judge(source, far, TERMS)[0] is Verdict.DIFFERS
    assert verify.judge(seen, near, TERMS)[0] is Verdict.DIFFERS


def test_a_source_of_few_bits_hides_no_fault() -> None:
    """A bfloat16 rounds by a hundredth and more; a softmax that was taken twice lies further off than that."""
    terms = Terms(Tolerance(2.0**-5, 0.0), exact_weights=True)
    source = dataclasses.replace(SEEN, exact=[{"y": VALUES * 1.01}, {"y": VALUES * 2.02}])
    assert verify.judge(source, with_values(VALUES * 3, VALUES * 6), terms)[0] is Verdict.DIFFERS


def test_whole_numbers_that_rounding_decides_prove_nothing() -> None:
    """The number of a class, or a rounded value: where the source changes one of four, so may the result."""
    whole, spec = np.array([[1, 2], [3, 4]]), TensorSpec("y", (None, 2), "int64")
    seen = dataclasses.replace(SEEN, outputs=(spec,), values=[{"y": whole}])
    source = dataclasses.replace(seen, exact=[{"y": whole + np.array([[0, 0], [0, 1]])}])
    result = dataclasses.replace(seen, values=[{"y": whole + np.array([[1, 0], [0, 0]])}])
    assert verify.asks_source(verify.judge(seen, result, TERMS)[2])
    assert verify.judge(seen, result, TERMS)[0] is Verdict.DIFFERS
    assert verify.judge(source, result, TERMS)[0] is Verdict.NOT_PROVABLE


def test_a_result_that_changes_its_mind_is_asked_of_the_source() -> None:
    """It may be random now and then, and was not when it was asked first."""
    result = dataclasses.replace(with_values(VALUES, VALUES * 3), repeated={0: {"y": VALUES * 3}})
    assert verify.asks_source(verify.judge(SEEN, result, TERMS)[2])


def test_inputs_an_ulp_beside_are_others_by_rounding_alone() -> None:
    draw = {"x": np.array([0.0, 1.0, -3e6], "float32"), "n": np.array([3, 4])}
    found = verify.nudged(draw)
    assert found["x"].dtype == np.float32
    assert found["x"][0] == 0
    gaps = np.abs(found["x"][1:] / draw["x"][1:] - 1)
    assert (gaps < 1.3e-7).all()
    assert (gaps > 0).all()
    assert found["n"] is draw["n"]


def test_small_outputs_are_not_forgiven_an_absolute_gap() -> None:
    """A softmax over many classes lives at 1e-3 and below."""
    source, result = (dataclasses.replace(SEEN, values=[{"y": VALUES * 1e-6 * share}]) for share in (1, 1.01))
    assert verify.judge(source, result, TERMS)[0] is Verdict.DIFFERS


def test_everything_said_survives_json() -> None:
    values = [{"y": np.array([[np.nan, np.inf]], "float32")}]
    seen = dataclasses.replace(SEEN, values=values)
    _, _, checks = verify.judge(seen, seen, TERMS)
    json.dumps([check.to_json() for check in checks], allow_nan=False)


@pytest.mark.parametrize(
    ("result", "failed", "words"),
    [
        (with_values(VALUES, VALUES * 2 + 1e-3), "values", "y: they differ by up to 0.001, and 8.1e-05 is allowed"),
        (with_values(VALUES, VALUES[:1]), "values", "the shape is 1×2 instead of 2×2"),
        (with_values(VALUES, np.full((2, 2), np.nan, "float32")), "values", "not-a-number or infinity"),
        (with_values(VALUES, -VALUES * 2), "values", "they differ by up to 16"),
        (dataclasses.replace(SEEN, weights=SEEN.weights[:1]), "weights", "1 of 2 tensors are not there"),
        (dataclasses.replace(SEEN, weights=(SEEN.weights[0],) * 2), "weights", "1 of 2 tensors are not there"),
        (dataclasses.replace(SEEN, weights=(*SEEN.weights, SEEN.weights[0])), "weights", "1 is new"),
        (dataclasses.replace(SEEN, inputs=(X, X)), "names", "do not correspond: x, y became x, x, y"),
        (dataclasses.replace(SEEN, outputs=(TensorSpec("y", (None, 3), "float32"),)), "shapes", "y was ?×2 and is ?×3"),
        (dataclasses.replace(SEEN, inputs=(TensorSpec("x", (1, 4), "float32"),)), "shapes", "x was ?×4 and is 1×4"),
        (
            dataclasses.replace(SEEN, inputs=(TensorSpec("x", (None, 4), "int32"),)),
            "dtypes",
            "x was float32 and is int32",
        ),
    ],
)
def test_a_difference_is_found_and_named(result: Seen, failed: str, words: str) -> None:
    verdict, reason, checks = verify.judge(SEEN, result, TERMS)
    assert verdict is Verdict.DIFFERS
    assert named(checks)[failed] is False
    assert words in reason


def test_rounding_is_no_difference() -> None:
    verdict, reason, checks = verify.judge(SEEN, with_values(VALUES + 1e-6, VALUES * 2), TERMS)
    assert verdict is Verdict.VERIFIED
    output = checks[-1].data["outputs"][0]
    assert 0 < output["max_abs"] < 2e-6
    assert output["top1"] == 1.0
    assert output["cosine"] == pytest.approx(1.0)
    assert "differ by at most" in reason


def test_a_small_output_is_judged_by_its_own_scale() -> None:
    """A softmax over a thousand classes lives at 1e-3: an absolute bound alone would let anything pass."""
    small = np.array([[1e-3, 2e-3]])
    assert measure(small, small * 1.01, Tolerance(rtol=1e-4, atol=1e-9)).problem
    assert not measure(small, small * 1.00001, Tolerance(rtol=1e-4, atol=1e-9)).problem


@pytest.mark.parametrize(
    ("reference", "got", "same"),
    [
        (np.array([b"a", b"b"]), np.array([b"a", b"b"]), True),
        (np.array([b"a", b"b"]), np.array([b"a", b"bb"]), False),
        (np.array([1, 2]), np.array([1, 2]), True),
        (np.array([1, 2]), np.array([1, 3]), False),
        (np.array([1, 2]), np.array([1.0, 2.0]), True),
        (np.array([True]), np.array([False]), False),
        (np.array([b"1"]), np.array([1]), False),
        (np.array([1 + 1j]), np.array([1 + 1j]), True),
        (np.array([1 + 1j]), np.array([1 - 1j]), False),
        (np.array([np.inf, 1.0]), np.array([np.inf, 1.0]), True),
        (np.array([np.inf, 1.0]), np.array([-np.inf, 1.0]), False),
        (np.array([np.nan, 1.0]), np.array([np.nan, 1.0]), True),
        (np.array([np.nan, 1.0]), np.array([1.0, np.nan]), False),
        (np.array([1.0]), np.array([np.inf]), False),
        (np.zeros((0, 3)), np.zeros((0, 3)), True),
        (np.zeros(3), np.zeros(3), True),
    ],
)
def test_what_counts_as_equal(reference: Array, got: Array, same: bool) -> None:
    assert (measure(reference, got, TOLERANCE).problem == "") is same


def test_top1_counts_rows() -> None:
    assert measure(np.eye(4), np.eye(4)[[0, 1, 2, 2]], Tolerance(0, 10)).top1 == 0.75


def test_renamed_outputs_are_matched_by_place() -> None:
    result = dataclasses.replace(SEEN, outputs=(TensorSpec("output_0", (None, 2), "float32"),))
    result = dataclasses.replace(result, values=[{"output_0": draw["y"]} for draw in SEEN.values])
    verdict, _, checks = verify.judge(SEEN, result, TERMS)
    assert verdict is Verdict.VERIFIED
    assert checks[1].sentence == "Renamed, and matched by place: y is now output_0."


@pytest.mark.parametrize(
    ("result", "pairs"),
    [
        ((X, Y), {"x": "x", "y": "y"}),
        ((Y, X), {"x": "x", "y": "y"}),
        ((TensorSpec("a", (None, 4), "float32"), TensorSpec("b", (None, 2), "float32")), {"x": "a", "y": "b"}),
        ((TensorSpec("a", None, "float32"), TensorSpec("b", (None, None), "float32")), {"x": "a", "y": "b"}),
        ((TensorSpec("b", (None, 2), "float32"), TensorSpec("a", (None, 4), "float32")), None),
        ((TensorSpec("a", (None, 4), "int32"), TensorSpec("b", (None, 2), "float32")), None),
        ((X,), None),
    ],
)
def test_pairing(result: tuple[TensorSpec, ...], pairs: dict[str, str] | None) -> None:
    assert pair((X, Y), result) == pairs


@pytest.mark.parametrize("name", ["y", "other"])
@pytest.mark.parametrize(
    ("found", "verdict"),
    [((None, 6, 2), Verdict.VERIFIED), ((None, 3, 2), Verdict.DIFFERS), ((4, 6, 2), Verdict.DIFFERS)],
)
def test_a_size_that_a_converter_works_out_is_no_other_shape(
    name: str, found: tuple[int | None, ...], verdict: Verdict
) -> None:
    """ONNX files often leave open what their operations settle; a size that varies stays one that is lost."""
    answers = [np.ones((4, 6, 2), "float32"), np.ones((1, 6, 2), "float32")]
    shown = [{"y": answer} for answer in answers]
    source = dataclasses.replace(SEEN, values=shown, outputs=(TensorSpec("y", (None, None, 2), "float32"),))
    result = dataclasses.replace(
        source, values=[{name: answer} for answer in answers], outputs=(TensorSpec(name, found, "float32"),)
    )
    assert verify.judge(source, result, TERMS)[0] is verdict


def test_weights_may_be_left_to_the_values() -> None:
    result = dataclasses.replace(SEEN, weights=())
    verdict, _, checks = verify.judge(SEEN, result, Terms(TOLERANCE, exact_weights=False))
    assert verdict is Verdict.VERIFIED
    assert named(checks)["weights"] is None


def test_without_values_nothing_is_verified() -> None:
    empty = dataclasses.replace(SEEN, values=[])
    assert verify.judge(empty, empty, TERMS)[0] is Verdict.NOT_PROVABLE
    assert verify.not_run(ModelError(problem="no"))[0] is Verdict.NOT_PROVABLE


def test_a_result_that_does_not_open_differs() -> None:
    verdict, reason, checks = verify.not_shown(ModelError(problem="its head is missing"))
    assert verdict is Verdict.DIFFERS
    assert named(checks) == {"load": False}
    assert "its head is missing" in reason


def test_a_result_that_nothing_here_can_run_is_not_provable() -> None:
    verdict, reason, checks = verify.not_shown(NotRunnable(problem="it runs on a phone"))
    assert verdict is Verdict.NOT_PROVABLE
    assert reason == "The result was not run: it runs on a phone."
    assert named(checks) == {"values": None}


# Inputs


@pytest.mark.parametrize("guess", GUESSES)
def test_inputs_follow_the_signature(guess: Guess) -> None:
    specs = (
        TensorSpec("image", (None, None, None, 3), "float32"),
        TensorSpec("token", (None, 7), "int32", limit=5),
        TensorSpec("count", (None,), "int64"),
        TensorSpec("pixel", (2, 3), "uint8"),
        TensorSpec("word", (None, 1), "string"),
        TensorSpec("flag", (None,), "bool"),
        TensorSpec("scalar", (), "float64"),
        TensorSpec("half", (None, 2), "bfloat16"),
        TensorSpec("wave", (None,), "complex64"),
        TensorSpec("unknown", None, "float32"),
    )
    draws = make_inputs(specs, 1, guess)
    large = guess.size == 224  # rows of which the second draw holds two and the later ones one
    assert [draw["image"].shape[0] for draw in draws] == [1, 2, 1, 1] if large else [batch for _, batch in DRAWS]
    assert all(draw["token"].min() >= 0 and draw["token"].max() < 5 for draw in draws)
    assert all(draw["count"].max() < guess.high for draw in draws)
    assert [draws[0][spec.name].dtype.kind for spec in specs] == list("fiiuSbffcf")
    assert draws[0]["pixel"].shape == (2, 3)
    assert draws[0]["scalar"].shape == ()
    assert not draws[-1]["image"].any()
    assert draws[-1]["word"].tolist() == [[b""]] * (1 if large else 3)


def test_the_same_seed_gives_the_same_inputs() -> None:
    one, two, other = (make_inputs((X,), seed)[1]["x"] for seed in (7, 7, 8))
    assert np.array_equal(one, two)
    assert not np.array_equal(one, other)


def test_draws_differ() -> None:
    draws = make_inputs((X,), 7)
    assert not np.array_equal(draws[1]["x"], draws[2]["x"])


def test_an_input_nobody_can_make_is_named() -> None:
    with pytest.raises(BadSamples, match=r"values of dtype resource \(table\)"):
        make_inputs((TensorSpec("table", (), "resource"),), 1)


@given(
    st.lists(st.sampled_from(["float32", "int64", "string", "bool", "complex64"]), max_size=4), st.integers(0, 2**32)
)
def test_draws_come_back_from_the_file(tmp_path_factory: pytest.TempPathFactory, dtypes: list[str], seed: int) -> None:
    specs = [TensorSpec(f"in/{number}:0", (None, 2), dtype) for number, dtype in enumerate(dtypes)]
    path = tmp_path_factory.mktemp("draws") / "inputs.npz"
    draws = make_inputs(specs, seed)
    verify.save_draws(path, draws)
    loaded = verify.load_draws(path)
    assert len(loaded) == len(draws)  # also of a model that takes nothing
    for before, after in zip(draws, loaded, strict=False):
        assert before.keys() == after.keys()
        assert all(np.array_equal(before[name], after[name]) for name in before)


def object_array(path: Path) -> None:
    _save(path, np.array([{}], dtype=object))


def compressed(path: Path) -> None:
    _save(path, np.zeros(10), save=np.savez_compressed)


def large(path: Path) -> None:
    _save(path, np.zeros(10_000))


def odd_key(path: Path) -> None:
    _save(path, np.zeros(1), key="y")


def _save(path: Path, array: Array, key: str = "0/y", save: Any = np.savez) -> None:
    save(path, **{key: array})


def no_zip(path: Path) -> None:
    path.write_bytes(b"PK\x03\x04 nothing")


def huge_shape(path: Path) -> None:
    header = b"{'descr': '<f8', 'fortran_order': False, 'shape': (4000000000000000000,), }".ljust(117) + b"\n"
    with zipfile.ZipFile(path, "w") as package:
        package.writestr("0/y.npy", b"\x93NUMPY\x01\x00v\x00" + header)


def odd_header(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as package:
        package.writestr("0/y.npy", b"\x93NUMPY\x01\x00v\x00" + b"{'descr': (".ljust(117) + b"\n")


def many_entries(path: Path) -> None:
    verify.save_draws(path, [{"y": np.zeros(0)}] * 101)


def long_directory(path: Path) -> None:
    """Names that are nothing but long: the directory is read as a whole."""
    verify.save_draws(path, [{"y" * 60_000 + str(number): np.zeros(0) for number in range(80)}])


def said_to_be_few(path: Path) -> None:
    """The directory holds more entries than the last record says."""
    many_entries(path)
    content = bytearray(path.read_bytes())
    content[-14:-10] = (1).to_bytes(2, "little") * 2
    path.write_bytes(content)


def hidden_behind_a_comment(path: Path) -> None:
    _save(path, np.zeros(1))
    with zipfile.ZipFile(path, "a") as package:
        package.comment = b"what is read from the end of the file is not this record"


def of_64_bits(path: Path) -> None:
    """A record before the last one that ``zipfile`` believes more."""
    _save(path, np.zeros(1))
    content = path.read_bytes()
    path.write_bytes(content[:-22] + b"PK\x06\x07" + bytes(16) + content[-22:])


@pytest.mark.parametrize("forge", [many_entries, long_directory, said_to_be_few, hidden_behind_a_comment, of_64_bits])
def test_no_long_directory_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, forge: Any) -> None:
    path = tmp_path / "outputs.npz"
    forge(path)
    monkeypatch.setattr("worker.verify.draws.MOST_ENTRIES", 100)
    monkeypatch.setattr(np, "load", lambda *args, **more: pytest.fail("it was unpacked"))
    if forge is not said_to_be_few:  # how long the directory is bounds what is read of it
        monkeypatch.setattr(zipfile, "ZipFile", lambda *args: pytest.fail("its directory was read"))
    with pytest.raises(NoResult):
        verify.load_draws(path)


@pytest.mark.parametrize("forge", [object_array, compressed, large, odd_key, no_zip, huge_shape, odd_header])
def test_values_from_a_job_are_not_trusted(tmp_path: Path, forge: Any) -> None:
    path = tmp_path / "outputs.npz"
    forge(path)
    with pytest.raises(NoResult):
        verify.load_draws(path, limit=5_000)


@pytest.mark.parametrize(
    ("spec", "guess", "most"),
    [
        (TensorSpec("ids", (None, 8), "float32", limit=30), GUESSES[0], 30),
        (TensorSpec("ids", (None, 8), "float32"), next(guess for guess in GUESSES if guess.whole), 2),
    ],
)
def test_indices_that_are_declared_as_floats_are_whole(spec: TensorSpec, guess: Guess, most: int) -> None:
    for draw in make_inputs([spec], seed=3, guess=guess):
        assert draw["ids"].dtype == np.float32
        assert np.array_equal(draw["ids"], np.floor(draw["ids"]))
        assert 0 <= draw["ids"].min() <= draw["ids"].max() < most


def test_weights_alone_are_proven_by_their_bytes() -> None:
    terms = Terms(TOLERANCE, exact_weights=True, weights_alone=True)
    verdict, reason, checks = verify.judge(SEEN, Seen((), (), SEEN.weights, []), terms)
    assert verdict is Verdict.VERIFIED
    assert named(checks) == {"load": True, "weights": True}
    assert "All 2 weight tensors are the same, bit for bit." in reason
    more = Seen((), (), (*SEEN.weights, ("float32", (), "cc")), [])
    assert verify.judge(SEEN, more, terms)[0] is Verdict.VERIFIED
    assert verify.judge(SEEN, Seen((), (), SEEN.weights[:1], []), terms)[0] is Verdict.DIFFERS


def test_weights_alone_that_are_not_comparable_prove_nothing() -> None:
    terms = Terms(TOLERANCE, exact_weights=False, weights_alone=True)
    assert verify.judge(SEEN, Seen((), (), SEEN.weights, []), terms)[0] is Verdict.NOT_PROVABLE


def test_a_model_is_not_its_own_judge() -> None:
    terms = dataclasses.replace(TERMS, unwitnessed="Nothing independent was there.")
    verdict, reason, checks = verify.judge(SEEN, SEEN, terms)
    assert (verdict, reason) == (Verdict.NOT_PROVABLE, "Nothing independent was there.")
    assert named(checks)["values"]
    alone = dataclasses.replace(terms, weights_alone=True)  # whose bytes are those of the file
    assert verify.judge(SEEN, Seen((), (), SEEN.weights, []), alone)[0] is Verdict.VERIFIED


LARGE = dataclasses.replace(SEEN, values=[], architecture="same layers")


def test_a_large_model_is_proven_by_its_description_and_its_bytes() -> None:
    verdict, reason, checks = verify.judge(LARGE, LARGE, TERMS)
    assert verdict is Verdict.VERIFIED
    assert named(checks) == {
        "load": True,
        "names": True,
        "shapes": True,
        "dtypes": True,
        "weights": True,
        "architecture": True,
    }
    assert "bit for bit" in reason


@pytest.mark.parametrize(
    ("result", "terms", "verdict"),
    [
        (dataclasses.replace(LARGE, architecture="others"), TERMS, Verdict.NOT_PROVABLE),
        (dataclasses.replace(LARGE, architecture=""), TERMS, Verdict.NOT_PROVABLE),
        (dataclasses.replace(LARGE, weights=SEEN.weights[:1]), TERMS, Verdict.DIFFERS),
        (LARGE, Terms(TOLERANCE, exact_weights=False), Verdict.NOT_PROVABLE),
    ],
)
def test_a_description_alone_proves_nothing(result: Seen, terms: Terms, verdict: Verdict) -> None:
    assert verify.judge(LARGE, result, terms)[0] is verdict


def test_values_that_are_there_are_compared_whatever_the_description_says() -> None:
    both = dataclasses.replace(SEEN, architecture="same layers")
    assert verify.judge(both, dataclasses.replace(both, values=[{"y": VALUES + 1}] * 2), TERMS)[0] is Verdict.DIFFERS


# What draws of the usual size do not reach ------------------------------------------------------------------------

FAR = dataclasses.replace(with_values(VALUES, VALUES * 100), far=1)


def test_a_bound_that_only_large_numbers_reach_is_a_difference() -> None:
    bounded = with_values(VALUES, np.minimum(VALUES * 100, 250.0))
    verdict, reason, _ = verify.judge(FAR, bounded, TERMS)
    assert verdict is Verdict.DIFFERS
    assert "y: on inputs up to 100 times as large, they differ by up to 1.5e+02" in reason


def test_rounding_of_large_numbers_is_none() -> None:
    near = with_values(VALUES, VALUES * 100.5)
    assert verify.judge(FAR, near, TERMS)[0] is Verdict.VERIFIED
    assert verify.judge(dataclasses.replace(FAR, far=0), near, TERMS)[0] is Verdict.DIFFERS


def test_what_float64_explains_of_large_numbers_widens_nothing_else() -> None:
    source = dataclasses.replace(FAR, exact=[{"y": VALUES}, {"y": VALUES * 102}])
    assert verify.judge(source, with_values(VALUES, VALUES * 105), TERMS)[0] is Verdict.VERIFIED
    assert verify.judge(source, with_values(VALUES * 1.001, VALUES * 100), TERMS)[0] is Verdict.DIFFERS
    assert verify.asks_source(verify.judge(FAR, with_values(VALUES, VALUES * 105), TERMS)[2])


def test_what_was_far_stays_so_where_a_few_draws_are_chosen() -> None:
    assert [FAR.on(chosen).far for chosen in ([0], [1], [0, 1])] == [0, 1, 1]


@pytest.mark.parametrize(
    ("before", "after", "passed"), [("ab", "ba", True), ("ab", "abc", True), ("ab", "ac", False), ("aa", "ab", False)]
)
def test_what_lookup_tables_hold(before: str, after: str, passed: bool) -> None:
    source, result = (dataclasses.replace(SEEN, tables=tuple(sorted(held))) for held in (before, after))
    assert named(verify.judge(source, result, TERMS)[2])["tables"] is passed


def test_tables_that_are_not_told_are_not_compared() -> None:
    source = dataclasses.replace(SEEN, tables=("a",))
    assert "tables" not in named(verify.judge(source, SEEN, TERMS)[2])
