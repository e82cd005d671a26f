"""Models of which no two runs agree, by their rounding or by chance: they are recognised, and called no fault."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.formats.conftest import LIBRARIES
from worker import archive, pipeline
from worker.report import Report, Verdict
from worker.sandbox.client import Zygote
from worker.sandbox.limits import Limits

pytestmark = [pytest.mark.filterwarnings(rule) for rule in LIBRARIES]


def variance(x: Any, w: Any) -> Any:
    """The small difference of two large numbers: in float32, nothing but rounding is left of it."""
    import tensorflow as tf

    found = 300.0 + 0.01 * (x @ w)
    return tf.reduce_mean(found * found, 1) - tf.reduce_mean(found, 1) ** 2


def likely(x: Any, w: Any) -> Any:
    """Mostly the same one of a few tokens, and sometimes another."""
    import tensorflow as tf

    return tf.random.categorical(5.0 * (x @ w), 1)


@pytest.mark.parametrize(
    ("compute", "target", "reason"),
    [
        (variance, "openvino", "Rounding alone moves the answers of the source"),
        (likely, "frozen_graph", "The source answers the same input differently"),
        (likely, "tflite", "The source answers the same input differently"),
    ],
)
def test_what_no_two_runs_agree_on_is_no_fault(
    compute: Callable[[Any, Any], Any], target: str, reason: str, zygote: Zygote, tmp_path: Path
) -> None:
    report = converted(compute, target, zygote, tmp_path)
    assert (report.verdict, report.reason[: len(reason)]) == (Verdict.NOT_PROVABLE, reason)


def converted(compute: Callable[[Any, Any], Any], target: str, zygote: Zygote, folder: Path) -> Report:
    path = saved(compute, folder)
    summary = pipeline.inspect(zygote, path, "saved_model", folder / "inspected", Limits()).summary
    source = pipeline.Source(path, "saved_model", summary)
    return pipeline.convert(zygote, source, target, {}, folder / "converted", Limits()).report


def saved(compute: Callable[[Any, Any], Any], folder: Path) -> Path:
    import tensorflow as tf

    module = tf.Module()
    module.w = tf.Variable(np.random.default_rng(3).normal(size=(4, 9)).astype("float32"))
    specs = [tf.TensorSpec((None, 4), tf.float32, name="x")]
    module.call = tf.function(lambda x: {"y": compute(x, module.w)}, input_signature=specs)
    tf.saved_model.save(module, str(folder / "model"), signatures=module.call)
    archive.pack(folder / "model", folder / "model.zip")
    for name in ("inspected", "converted"):
        (folder / name).mkdir()
    return folder / "model.zip"
