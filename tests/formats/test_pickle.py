"""Pickles of models: the model inside is found as data, taken out, and is the model that went in; nothing is opened."""

from __future__ import annotations

import copyreg
import io
import json
import os
import pickle as standard
import random
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.formats.corpus import CORPUS, Entry
from tests.formats.models import MODELS as MODELS_MADE
from tests.formats.models import assert_same, convert, load, made
from tests.worker import opcodes
from worker import formats, intake, routes
from worker.errors import AmbiguousFormat, CustomCode, LambdaRefused, ModelError, NoRoute
from worker.formats import pickle, saved_model
from worker.formats._format import Hop

MADE = Callable[[str, str], Path]
SEED = int(os.environ.get("LARDER_CORPUS_SEED") or random.SystemRandom().randrange(10**6))
PICKLED = ("pickle_model", "joblib_model", "cloudpickle_model")


def pickled(folder: Path, value: Any, protocol: int = 4) -> Path:
    path = folder / "model.pkl"
    path.write_bytes(value if isinstance(value, bytes) else standard.dumps(value, protocol))
    return path


def codes(path: Path, scratch: Path) -> list[str]:
    return [finding.code for finding in pickle.findings(path, scratch)]


def test_it_works(made_file: MADE, tmp_path: Path) -> None:
    """What pickling a model of Keras 3 writes becomes the .keras file that it wraps."""
    source = made_file("several", "keras")
    path = pickled(tmp_path, opcodes.keras_pickle(source.read_bytes()))
    assert intake.recognise(intake.take_sample(path, path.name))[0].slug == "pickle"
    summary = pickle.inspect(path, tmp_path)
    assert summary.traits >= {"model-inside", "keras-config", "weights"}
    assert [spec.name for spec in summary.inputs] == ["left", "right", "kind"]
    assert summary.imports == ("builtins.getattr", "keras.src.models.functional.Functional", "_io.BytesIO")
    assert "pickle-model-inside" in codes(path, tmp_path)
    result, _ = convert("pickle", "keras", path, tmp_path / "a")
    assert_same(load("keras", source, tmp_path / "b"), load("pickle", path, tmp_path / "c"))
    assert_same(load("keras", source, tmp_path / "d"), load("keras", result, tmp_path / "e"))


def test_a_model_that_was_really_pickled(tmp_path: Path) -> None:
    import keras

    model = made("dense")
    model.save(tmp_path / "dense.keras")
    path = pickled(tmp_path, {"net": [model], "scale": 2.0})
    assert_same(load("keras", tmp_path / "dense.keras", tmp_path / "a"), load("pickle", path, tmp_path / "b"))
    assert keras.__version__ in pickle.inspect(path, tmp_path).producer.values()


@pytest.mark.parametrize("slug", ["h5", "saved_model"])
def test_other_files_inside(slug: str, made_file: MADE, tmp_path: Path) -> None:
    """An HDF5 file in a __getstate__ of one's own, a SavedModel in an array of bytes."""
    source = made_file("dense", slug)
    path = pickled(tmp_path, {"model_str": np.frombuffer(source.read_bytes(), "u1"), "history": [0.5]})
    assert_same(load(slug, source, tmp_path / "a"), load("pickle", path, tmp_path / "b"))
    hop = Hop(tmp_path / "c")
    hop.scratch.mkdir()
    target = tmp_path / "result.zip"
    routes.converter("pickle", "saved_model").run(path, target, hop)
    assert_same(load("keras", made_file("dense", "keras"), tmp_path / "d"), load("saved_model", target, tmp_path / "e"))


def test_a_saved_model_of_operations_stays_one(tmp_path: Path) -> None:
    """No layers are in it, so it becomes what holds operations, and nothing else."""
    import tensorflow as tf

    module = tf.Module()
    module.weight = tf.Variable([2.0])
    module.serve = tf.function(lambda x: {"y": x * module.weight}, input_signature=[tf.TensorSpec([None, 1], name="x")])
    tf.saved_model.save(module, str(tmp_path / "module"), signatures={"serving_default": module.serve})
    shutil.make_archive(str(tmp_path / "module"), "zip", tmp_path / "module")
    path = pickled(tmp_path, {"served": (tmp_path / "module.zip").read_bytes()})
    summary = pickle.inspect(path, tmp_path)
    assert summary.traits & {"model-inside", "keras-config", "weights"} == {"model-inside", "weights"}
    with pytest.raises(NoRoute, match="graph of operations"):
        routes.find_route("pickle", "keras", summary)
    assert routes.find_route("pickle", "saved_model", summary) == ("pickle", "saved_model")
    routes.converter("pickle", "saved_model").run(path, tmp_path / "out.zip", Hop(tmp_path))
    found = saved_model.load(tmp_path / "out.zip", tmp_path / "a").run({"x": np.ones((2, 1), "f4")})
    np.testing.assert_array_equal(found["y"], [[2.0], [2.0]])


@pytest.mark.parametrize("layout", ["json and weights", "config and weights", "rows", "named rows"])
def test_an_architecture_beside_its_weights(layout: str, tmp_path: Path) -> None:
    model = made("several")
    model.save(tmp_path / "several.keras")
    rows = {layer.name: layer.get_weights() for layer in model.layers}
    held = {
        "json and weights": {"model": model.to_json(), "weights": model.get_weights(), "loss": [0.5, 0.25]},
        "config and weights": (model.get_config(), model.get_weights()),
        "rows": (json.loads(model.to_json()), list(rows.values())),
        "named rows": {"architecture": model.to_json().encode(), "weights": rows},
    }[layout]
    path = pickled(tmp_path, held)
    assert_same(load("keras", tmp_path / "several.keras", tmp_path / "a"), load("pickle", path, tmp_path / "b"))


def test_the_state_of_a_model_object_of_keras_2(tmp_path: Path) -> None:
    """Its arrays are pickles of their own, and opening the pickle opens them: what they name is told."""
    import tf_keras

    model = tf_keras.Sequential([tf_keras.layers.Dense(3, input_shape=(2,), name="one")], name="old")
    model.save(tmp_path / "old.h5")
    names = [weight.name for weight in model.layers[0].weights]
    arrays = dict(zip(names, (standard.dumps(item, 2) for item in model.get_weights()), strict=True))
    group = {
        "weight_names": [name.encode() for name in names],
        **arrays,
        **{f"_{name}_pickled": True for name in names},
    }
    state = {
        "keras_version": b"2.3.1",
        "model_config": json.dumps({"class_name": "Sequential", "config": model.get_config()}).encode(),
        "model_weights": {"layer_names": [b"one"], "one": group},
    }
    path = pickled(tmp_path, {"object": state}, 2)
    assert_same(load("h5", tmp_path / "old.h5", tmp_path / "a"), load("pickle", path, tmp_path / "b"))
    assert "numpy._core.multiarray._reconstruct" in pickle.inspect(path, tmp_path).imports


class ObjectPickler(standard.Pickler):
    """Keras objects by their attributes, as cloudpickle wrote them before Keras 3.5; functions and locks as nothing."""

    def reducer_override(self, value: Any) -> Any:
        kind = type(value)
        if kind.__module__.startswith("keras.") and hasattr(value, "__dict__") and not isinstance(value, (type, tuple)):
            items = iter(value) if isinstance(value, list) else None
            pairs = iter(value.items()) if isinstance(value, dict) else None
            return copyreg.__newobj__, (kind,), dict(vars(value)), items, pairs  # type: ignore[attr-defined]
        try:
            standard.dumps(value)
        except RecursionError:
            return NotImplemented
        except Exception:  # whatever cannot be pickled
            return str, ("",)
        return NotImplemented


@pytest.mark.parametrize("kind", MODELS_MADE)
def test_a_model_object_by_its_attributes(kind: str, made_file: MADE, tmp_path: Path) -> None:
    """The layers, their calls and their variables are in it, and the model is described from them."""
    import keras

    source = made_file(kind, "keras")
    buffer = io.BytesIO()
    ObjectPickler(buffer).dump({"net": keras.saving.load_model(source)})
    path = pickled(tmp_path, buffer.getvalue())
    assert_same(load("keras", source, tmp_path / "a"), load("pickle", path, tmp_path / "b"))


def test_arrays_alone_become_safetensors(tmp_path: Path) -> None:
    held = {"dense": [np.arange(6, dtype="f4").reshape(2, 3), np.ones(3, "f4")]}
    path = pickled(tmp_path, held)
    summary = pickle.inspect(path, tmp_path)
    assert (summary.parameters, summary.dtypes) == (9, ("float32",))
    assert "pickle-arrays-inside" in codes(path, tmp_path)
    assert routes.find_route("pickle", "safetensors", summary) == ("pickle", "safetensors")
    with pytest.raises(NoRoute):
        routes.find_route("pickle", "keras", summary)
    routes.converter("pickle", "safetensors").run(path, tmp_path / "out.safetensors", Hop(tmp_path))
    found = dict(load("safetensors", tmp_path / "out.safetensors", tmp_path).weights())
    assert list(found) == ["dense/0", "dense/1"]
    np.testing.assert_array_equal(found["dense/0"], held["dense"][0])
    assert [name for name, _ in pickle.load(path, tmp_path).weights()] == ["dense/0", "dense/1"]


def test_the_weights_of_a_model_inside_become_safetensors(made_file: MADE, tmp_path: Path) -> None:
    path = pickled(tmp_path, opcodes.keras_pickle(made_file("dense", "keras").read_bytes()))
    routes.converter("pickle", "safetensors").run(path, tmp_path / "out.safetensors", Hop(tmp_path))
    names = [name for name, _ in load("safetensors", tmp_path / "out.safetensors", tmp_path).weights()]
    assert "probs/kernel" in names


def test_a_pickle_of_neither_says_so(tmp_path: Path) -> None:
    path = pickled(tmp_path, opcodes.OS_SYSTEM)
    assert pickle.inspect(path, tmp_path).traits == frozenset()
    with pytest.raises(ModelError, match="only what its code would build"):
        load("pickle", path, tmp_path)
    with pytest.raises(NoRoute):
        routes.find_route("pickle", "keras", pickle.inspect(path, tmp_path))


def test_two_models_are_ambiguous_and_named(made_file: MADE, tmp_path: Path) -> None:
    held = [made_file("dense", "keras").read_bytes(), made_file("conv", "h5").read_bytes()]
    path = pickled(tmp_path, held)
    assert "pickle-models-inside" in codes(path, tmp_path)
    with pytest.raises(AmbiguousFormat, match=r"\.keras file.*HDF5 model"):
        load("pickle", path, tmp_path)


def with_config(folder: Path, source: Path, old: str, new: str) -> Path:
    """A pickle of the .keras file with a text in its config replaced."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(source) as given, zipfile.ZipFile(buffer, "w") as archive:
        for name in given.namelist():
            content = given.read(name)
            archive.writestr(name, content.replace(old.encode(), new.encode()) if name == "config.json" else content)
    return pickled(folder, opcodes.keras_pickle(buffer.getvalue()))


def test_what_is_refused_elsewhere_is_refused_inside(made_file: MADE, tmp_path: Path) -> None:
    source = made_file("dense", "keras")
    (tmp_path / "a").mkdir()
    path = with_config(tmp_path / "a", source, '"class_name": "Dense"', '"class_name": "Lambda"')
    with pytest.raises(LambdaRefused):
        load("pickle", path, tmp_path / "a")
    (tmp_path / "b").mkdir()
    path = with_config(tmp_path / "b", source, '"keras.layers", "class_name": "Dense"', '"mine", "class_name": "MyOwn"')
    with pytest.raises(CustomCode, match="MyOwn"):
        load("pickle", path, tmp_path / "b")


def test_code_that_a_pickle_carries_is_named(made_file: MADE, tmp_path: Path) -> None:
    body = opcodes.keras_pickle(made_file("dense", "keras").read_bytes())[2:-1]
    code = opcodes.call("cloudpickle.cloudpickle", "_make_function", "x")
    path = pickled(tmp_path, opcodes.protocol(4, b"](" + body + code + b"e"))
    assert {"pickle-carries-code", "pickle-model-inside"} <= set(codes(path, tmp_path))


def test_a_damaged_model_inside_is_told(made_file: MADE, tmp_path: Path) -> None:
    path = with_config(tmp_path, made_file("dense", "keras"), '"config"', '"konfig"')
    assert "pickle-model-unreadable" in codes(path, tmp_path)
    assert "model-inside" in pickle.inspect(path, tmp_path).traits


def drawn() -> list[Any]:
    """One pickled model of every version and library; of the versions up to 2.16, each that there is."""
    if not CORPUS.exists():
        return []
    strata: dict[tuple[str, str], list[Entry]] = {}
    for data in json.loads((CORPUS / "manifest.json").read_text(encoding="utf-8"))["entries"]:
        if data["format"] in PICKLED and not data["custom_objects"]:
            strata.setdefault((data["tag"], data["format"]), []).append(Entry(CORPUS, data))
    generator = random.Random(SEED)  # noqa: S311 - which files to look at is no secret
    return [pytest.param(generator.choice(strata[key]), id="-".join(key)) for key in sorted(strata)]


@pytest.mark.parametrize("entry", drawn())
def test_it_computes_what_its_writer_recorded(entry: Entry, tmp_path: Path) -> None:
    print(f"LARDER_CORPUS_SEED={SEED} {entry.id}")
    assert intake.recognise(intake.take_sample(entry.path, entry.path.name))[0].slug == "pickle"
    loaded = load("pickle", entry.path, tmp_path)
    answers = loaded.run(entry.inputs([spec.name for spec in loaded.inputs]))
    assert entry.difference(answers) == ""


def test_every_target_of_keras_can_be_reached() -> None:
    reached = {slug for slug, item in formats.formats().items() if "pickle" in item.converts_from}
    assert reached >= {"keras", "h5", "json_npz", "weights_h5", "data_pickle"}
    assert all(
        formats.get(slug).converts_from["pickle"].requires == {"model-inside", "keras-config"} for slug in reached
    )
