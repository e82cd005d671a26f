"""People's own samples are matched to the model's inputs, and what does not fit is said."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from worker.errors import BadSamples
from worker.formats._format import TensorSpec
from worker.formats._samples import read_samples

SPECS = (TensorSpec("left", (None, 2), "float32"), TensorSpec("right", (None,), "int32"))
LEFT, RIGHT = np.ones((3, 2), "float64"), np.array([1, 2, 3])


def saved(path: Path, arrays: dict[str, Any]) -> Path:
    np.savez(path / "samples.npz", **arrays)
    return path / "samples.npz"


def test_it_works(tmp_path: Path) -> None:
    samples = read_samples(saved(tmp_path, {"left": LEFT, "right": RIGHT}), SPECS)
    assert {name: array.dtype.name for name, array in samples.items()} == {"left": "float32", "right": "int32"}


@pytest.mark.parametrize("names", [("left", "right"), ("input_0", "input_1"), ("arr_0", "arr_1")])
def test_by_name_or_by_place(tmp_path: Path, names: tuple[str, str]) -> None:
    arrays = {names[0]: LEFT, names[1]: RIGHT, "output_0": np.zeros(3), "train_x": np.zeros(9)}
    assert np.array_equal(read_samples(saved(tmp_path, arrays), SPECS)["right"], RIGHT)


def test_text_becomes_bytes(tmp_path: Path) -> None:
    path = saved(tmp_path, {"text": np.array([["Grüße"], ["x"]])})
    samples = read_samples(path, (TensorSpec("text", (None, 1), "string"),))
    assert samples["text"].tolist() == [["Grüße".encode()], [b"x"]]


@pytest.mark.parametrize(
    ("arrays", "problem"),
    [
        ({"left": LEFT}, "it has left; the model asks for left, right (or input_0…)"),
        ({}, "it has nothing"),
        ({"left": LEFT.T, "right": RIGHT}, "left is 2×3, and the model takes ?×2"),
        ({"left": LEFT[0], "right": RIGHT}, "left is 2, and the model takes ?×2"),
        ({"left": LEFT, "right": LEFT[:, 0]}, "right is float64, and the model takes int32"),
        ({"left": np.array([["a", "b"]]), "right": RIGHT}, "left is <U1, and the model takes float32"),
        (
            {"left": np.array([[{}, {}]]), "right": RIGHT},
            "it cannot be read as plain arrays (Object arrays cannot be loaded",
        ),
    ],
)
def test_what_does_not_fit_is_said(tmp_path: Path, arrays: dict[str, Any], problem: str) -> None:
    with pytest.raises(BadSamples) as caught:
        read_samples(saved(tmp_path, arrays), SPECS)
    assert caught.value.message.startswith(f"The samples in samples.npz do not fit the model: {problem}")


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"text", b"\x93NUMPY\x01\x00v\x00" + b" " * 118])
def test_other_files_are_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "samples.npz"
    path.write_bytes(content)
    with pytest.raises(BadSamples):
        read_samples(path, SPECS)


def test_a_single_array_is_no_archive(tmp_path: Path) -> None:
    np.save(tmp_path / "one.npy", LEFT)
    with pytest.raises(BadSamples, match=r"it is not an \.npz archive"):
        read_samples(tmp_path / "one.npy", SPECS)
