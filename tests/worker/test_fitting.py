"""Samples are read in a job against what inspection found, before any conversion needs them."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.worker.files import zipped
from tests.worker.local_jobs import LocalJobs
from worker import fitting
from worker.errors import BadSamples, NoResult
from worker.fitting import Fit, Given
from worker.formats._format import TensorSpec
from worker.sandbox.client import Zygote
from worker.sandbox.limits import Limits

X = TensorSpec("x", (None, 2), "float32")
SCALED = TensorSpec("image", (None, 2, 2, 1), "float32", low=(0.0,), high=(255.0,))


def fit(folder: Path, arrays: Any, *specs: TensorSpec, jobs: LocalJobs | None = None) -> Fit:
    path = folder / "soup.npz"
    np.savez(path, **arrays)
    (folder / "work").mkdir()
    return fitting.fit(jobs or LocalJobs(), path, specs or (X,), folder / "work", Limits())


def test_it_works(tmp_path: Path) -> None:
    jobs = LocalJobs()
    found = fit(tmp_path, {"x": np.array([[1.0, -1.5], [2, 3]])}, jobs=jobs)
    assert found == Fit((Given("x", (2, 2), "float32", -1.5, 3.0),))
    assert (found.rows, found.inputs[0].said) == (2, "x, 2×2 of float32, -1.5 to 3")
    assert Fit.from_json(json.loads(json.dumps(found.to_json()))) == found
    assert jobs.asked == [("fit", ["soup.npz"])]  # and no model


def test_in_a_real_job(zygote: Zygote, tmp_path: Path) -> None:
    """By the link that the worker makes, so that messages call the samples as people do."""
    stored, work = tmp_path / "3f9a", tmp_path / "work"
    with stored.open("wb") as file:
        np.savez(file, x=np.ones((3, 2)))
    (work / "samples").mkdir(parents=True)
    link = work / "samples" / "soup.npz"
    link.symlink_to(stored)
    assert fitting.fit(zygote, link, (X,), work, Limits()).rows == 3


def test_what_does_not_fit_is_said(tmp_path: Path) -> None:
    with pytest.raises(BadSamples, match=r"The samples in soup.npz do not fit the model: x is 2×3, .* takes \?×2"):
        fit(tmp_path, {"x": np.zeros((2, 3))})


def test_what_the_layers_imply_is_compared(tmp_path: Path) -> None:
    found = fit(tmp_path, {"image": np.full((3, 2, 2, 1), 0.5)}, SCALED)
    assert [finding.code for finding in found.findings] == ["samples-too-small"]


def test_text_has_no_range(tmp_path: Path) -> None:
    found = fit(tmp_path, {"words": np.array([["ü"]])}, TensorSpec("words", (None, 1), "string"))
    assert found.inputs[0].said == "words, 1×1 of string"


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ([[1, np.nan]], "all 1, and some that are not finite"),
        ([[np.inf, np.nan]], "no finite numbers"),
        ([[0.25, 0.25]], "all 0.25"),
    ],
)
def test_numbers_that_are_not_finite(tmp_path: Path, values: Any, said: str) -> None:
    assert fit(tmp_path, {"x": np.array(values)}).inputs[0].range_said == said


def test_pictures_in_a_zip(tmp_path: Path) -> None:
    import tensorflow as tf

    picture = tf.io.encode_png(np.full((2, 2, 1), 255, "uint8")).numpy()
    path = tmp_path / "pictures.zip"
    path.write_bytes(zipped({"a.png": picture, "b.png": picture}))
    (tmp_path / "work").mkdir()
    found = fitting.fit(LocalJobs(), path, (SCALED,), tmp_path / "work", Limits())
    assert found.rows == 2
    assert [finding.code for finding in found.findings] == ["samples-pictures"]


@pytest.mark.parametrize(
    "change",
    [
        {"inputs": None},
        {"inputs": [{"name": "x"}]},
        {"inputs": [{"name": "x", "shape": [1], "dtype": "int8", "low": "nan", "high": 1, "finite": True}]},
        {"findings": [{"code": "x"}]},
    ],
)
def test_a_senseless_answer_is_no_result(tmp_path: Path, change: dict[str, Any]) -> None:
    jobs = LocalJobs(after=lambda step, folder, value: value.update(change))
    with pytest.raises(NoResult):
        fit(tmp_path, {"x": np.zeros((2, 2))}, jobs=jobs)


def test_a_table(tmp_path: Path) -> None:
    path = tmp_path / "soup.csv"
    path.write_text("x[0],x[1]\n1,2\n3,4\n")
    (tmp_path / "work").mkdir()
    assert fitting.fit(LocalJobs(), path, (X,), tmp_path / "work", Limits()).rows == 2


def test_a_single_array(tmp_path: Path) -> None:
    content = io.BytesIO()
    np.save(content, np.ones((5, 2), "int64"))
    path = tmp_path / "soup.npy"
    path.write_bytes(content.getvalue())
    (tmp_path / "work").mkdir()
    assert (
        fitting.fit(LocalJobs(), path, (X,), tmp_path / "work", Limits()).inputs[0].said == "x, 5×2 of float32, all 1"
    )
