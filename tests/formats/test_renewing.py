"""From a format to itself: a file that no current Keras opens becomes one that it opens, and computes the same.

Files of old releases come from the corpus beside the checkout, drawn anew each time; LARDER_CORPUS_SEED=7 draws the
same one again. Without it, the last release of Keras 2 writes some here.
"""

from __future__ import annotations

import os
import random
import warnings
import zipfile
from pathlib import Path
from typing import Any

import h5py
import pytest

from tests.formats.corpus import Entry, entries
from tests.formats.models import assert_same, convert, load, stir
from worker import formats, pipeline
from worker.formats._live import loaded
from worker.intake import recognise, take_sample
from worker.sandbox.client import Zygote
from worker.sandbox.limits import Limits

SEED = int(os.environ.get("LARDER_CORPUS_SEED") or random.SystemRandom().randrange(10**6))


def opened(path: Path) -> Any:
    """What anybody's Python makes of the file; None where the current Keras refuses it."""
    import keras

    try:
        return keras.saving.load_model(path)
    except Exception:  # Keras raises whatever its loaders meet
        return None


def of_keras_2(path: Path) -> Path:
    """A model that Keras 3 does not open: its transposed convolutions have no ``groups``."""
    import tf_keras

    layers = [
        tf_keras.layers.Conv2DTranspose(3, 2, strides=2, input_shape=(4, 4, 2), name="up"),
        tf_keras.layers.Flatten(),
        tf_keras.layers.Dense(2, name="out"),
    ]
    model = tf_keras.Sequential(layers)
    stir(model)
    model.compile(tf_keras.optimizers.Adam(0.01), "mse")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that .h5 is old
        model.save(path)
    return path


@pytest.mark.parametrize("slug", ["h5", "keras"])
def test_it_works(slug: str, tmp_path: Path) -> None:
    source = of_keras_2(tmp_path / f"model.{slug}")
    assert opened(source) is None
    result, codes = convert(slug, slug, source, tmp_path / "new")
    assert {"rebuilt", "repaired-groups"} <= set(codes)
    model = opened(result)
    assert model.loss is not None
    assert_same(load(slug, source, tmp_path / "before"), loaded(model))
    assert formats.get(slug).inspect(result, tmp_path / "look").producer["keras"].startswith("3.")


@pytest.mark.parametrize("pair", ["weights_h5", "json_npz", "json_safetensors"])
def test_an_architecture_of_keras_2_beside_its_weights(pair: str, tmp_path: Path) -> None:
    """The description is written anew in the words of Keras 3, whose own reader follows it."""
    import keras

    old = of_keras_2(tmp_path / "model.h5")
    source = with_the_description_in(old, convert("h5", pair, old, tmp_path / "first")[0], tmp_path / "old.zip")
    result, codes = convert(pair, pair, source, tmp_path / "new")
    assert {"rebuilt", "repaired-groups"} <= set(codes)
    assert_same(load(pair, source, tmp_path / "before"), load(pair, result, tmp_path / "after"))
    with zipfile.ZipFile(result) as file:
        assert keras.models.model_from_json(file.read("architecture.json").decode()).count_params() > 0


def with_the_description_in(old: Path, package: Path, target: Path) -> Path:
    """The package with the architecture as Keras 2 left it in an .h5."""
    with h5py.File(old) as file:
        text = str(file.attrs["model_config"])
    with zipfile.ZipFile(package) as before, zipfile.ZipFile(target, "w") as after:
        for name in before.namelist():
            after.writestr(name, text if name == "architecture.json" else before.read(name))
    return target


def drawn() -> list[Any]:
    """For each of the two suffixes the files of the corpus, in an order of their own. Lambda layers become operations,
    which an .h5 cannot hold."""
    generator = random.Random(SEED)  # noqa: S311 - which files to take is no secret
    usable = [entry for entry in entries() if not entry.refusals and not entry.code and "lambda" not in entry.kind]
    whole = [entry for entry in usable if entry.has_outputs]
    found = {suffix: [entry for entry in whole if entry.path.suffix == suffix] for suffix in (".h5", ".keras")}
    models = {suffix: [entry for entry in group if not entry.companions] for suffix, group in found.items()}
    return [pytest.param(generator.sample(group, len(group)), id=suffix) for suffix, group in models.items() if group]


@pytest.mark.parametrize("waiting", drawn())
def test_what_the_current_keras_refuses_is_written_anew(waiting: list[Entry], zygote: Zygote, tmp_path: Path) -> None:
    """The whole way, through the sandbox: the result gives the recorded outputs in plain Keras."""
    entry = next(entry for entry in waiting if entry.has_model and opened(entry.path) is None)
    print(f"LARDER_CORPUS_SEED={SEED} {entry.id}")
    slug = recognise(take_sample(entry.path, entry.path.name))[0].slug
    folders = [tmp_path / name for name in ("inspect", "convert")]
    for folder in folders:
        folder.mkdir(mode=0o700)
    inspection = pipeline.inspect(zygote, entry.path, slug, folders[0], Limits())
    source = pipeline.Source(entry.path, slug, inspection.summary)
    result = pipeline.convert(zygote, source, slug, {}, folders[1], Limits())
    assert (result.report.route, result.report.verdict) == ((slug, slug), "verified"), result.report.reason
    plain = result.path.rename(tmp_path / f"plain{formats.get(slug).suffixes[0]}")
    model = loaded(opened(plain))
    assert entry.difference(model.run(entry.inputs([spec.name for spec in model.inputs]))) == ""
