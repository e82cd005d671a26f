"""Large weights are copied array by array: with the same result as through a living model, and judged without one."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from tests.formats.models import MODELS, convert, inputs_of, load, stir, tensors
from tests.worker.local_jobs import LocalJobs
from worker import formats, pipeline
from worker.errors import CorruptFile
from worker.formats import _plan, _regions, _sources, _stream
from worker.formats._regions import Region
from worker.report import Verdict
from worker.sandbox.limits import Limits

SOURCES = ("keras", "h5", "json_npz", "weights_h5", "json_safetensors")
Made = Callable[[str, str], Path]


@pytest.fixture
def everything_is_large(monkeypatch: pytest.MonkeyPatch, made_file: Made) -> Iterator[Made]:
    """The threshold at nothing, and members of archives read in place, whatever their size; files are made before."""

    def made(kind: str, slug: str) -> Path:
        with monkeypatch.context() as usual:
            usual.setattr(_plan, "LARGE", 2**40)
            return made_file(kind, slug)

    monkeypatch.setattr(_plan, "LARGE", 0)
    monkeypatch.setattr(_regions, "IN_PLACE", 0)
    monkeypatch.setattr(_regions, "MAPPED", 64)
    yield made
    _sources._read.cache_clear()
    _plan._large.clear()


@pytest.fixture
def no_living_model(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> Any:
        raise AssertionError("the weights went through a living model")

    monkeypatch.setattr(_sources, "_open", refuse)


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("source", SOURCES)
def test_it_works(source: str, kind: str, everything_is_large: Made, tmp_path: Path) -> None:
    """For every target: the same weights in the same places of the same layers."""
    path = everything_is_large(kind, source)
    before = load(source, path, tmp_path / "source")
    for target in SOURCES:
        if target != source:
            result, _ = convert(source, target, path, tmp_path / target)
            after = load(target, result, tmp_path / target / "again")
            assert after.architecture == before.architecture != ""
            assert list(tensors(after)) == list(tensors(before))


@pytest.mark.parametrize("kind", MODELS)
def test_stock_keras_computes_the_same(kind: str, everything_is_large: Made, tmp_path: Path) -> None:
    source = load("json_npz", everything_is_large(kind, "json_npz"), tmp_path / "source")
    arrays = inputs_of(source)
    wanted = list(source.run(arrays).values())
    for target in ("keras", "h5"):
        result, _ = convert("json_npz", target, everything_is_large(kind, "json_npz"), tmp_path / target)
        np.testing.assert_equal(_stock(result, arrays, source.inputs), wanted)


def _stock(path: Path, arrays: dict[str, np.ndarray], inputs: Any) -> list[np.ndarray]:
    import keras

    model = keras.saving.load_model(path, compile=False)
    given = [arrays[spec.name] for spec in inputs]
    results = model(given if len(given) > 1 else given[0], training=False)
    return [np.asarray(item) for item in (results if isinstance(results, (list, tuple)) else [results])]


@pytest.mark.usefixtures("no_living_model")
def test_no_weight_goes_through_a_living_model(everything_is_large: Made, tmp_path: Path) -> None:
    path = everything_is_large("several", "h5")
    for target in (*SOURCES, "safetensors"):
        if target != "h5":
            result, _ = convert("h5", target, path, tmp_path / target)
            assert list(load(target, result, tmp_path / target / "again").weights())


@pytest.mark.parametrize("target", ["keras", "h5", "weights_h5"])
def test_the_files_are_those_that_keras_writes(
    target: str, everything_is_large: Made, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Group by group and attribute by attribute, against what the living model of the same file is saved as."""
    path = everything_is_large("several", "json_npz")
    copied, _ = convert("json_npz", target, path, tmp_path / "copied")
    monkeypatch.setattr(_plan, "LARGE", 2**40)
    saved, _ = convert("json_npz", target, path, tmp_path / "saved")
    assert _contents(copied) == _contents(saved)


def _contents(path: Path) -> dict[str, Any]:
    if path.suffix == ".h5":
        return _groups(path)
    with zipfile.ZipFile(path) as archive:
        weights = path.with_suffix(".h5")
        weights.write_bytes(archive.read("model.weights.h5"))
        config = json.loads(archive.read("config.json" if path.suffix == ".keras" else "architecture.json"))
    return {"config": _without_identities(config), **_groups(weights)}


def _without_identities(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_identities(item) for key, item in value.items() if key != "shared_object_id"}
    return [_without_identities(item) for item in value] if isinstance(value, list) else value


def _groups(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = {}

    def note(name: str, item: Any) -> None:
        found[name] = {key: np.asarray(value).tolist() for key, value in item.attrs.items() if key != "model_config"}
        if isinstance(item, h5py.Dataset):
            found[name] |= {"dtype": str(item.dtype), "bytes": item[()].tobytes()}

    with h5py.File(path) as file:
        note("/", file)
        file.visititems(note)
        if "model_config" in file.attrs:
            found["config"] = _without_identities(json.loads(file.attrs["model_config"]))
    return found


def test_an_old_file_is_copied_too(everything_is_large: Made, tmp_path: Path) -> None:
    import tf_keras

    layers = tf_keras.layers
    model = tf_keras.Sequential([layers.Bidirectional(layers.LSTM(2), input_shape=(3, 4)), layers.Dense(4)])
    stir(model)
    with pytest.warns(UserWarning, match="HDF5"):
        model.save(tmp_path / "old.h5")
    result, codes = convert("h5", "keras", tmp_path / "old.h5", tmp_path / "a")
    assert "rebuilt" in codes
    inputs = np.ones((2, 3, 4), "float32")
    np.testing.assert_allclose(_stock(result, {"x": inputs}, [_named("x")])[0], model(inputs), rtol=1e-5)


def _named(name: str) -> Any:
    from worker.formats._format import TensorSpec

    return TensorSpec(name, None, "float32")


def test_what_needs_a_living_model_has_no_plan(everything_is_large: Made, tmp_path: Path) -> None:
    import keras

    words = keras.layers.TextVectorization(output_mode="count", vocabulary=["a", "b"])
    model = keras.Sequential([keras.Input((1,), dtype="string"), words, keras.layers.Dense(2)])
    model.save(tmp_path / "text.keras")
    assert _plan.make(_sources.read("keras", tmp_path / "text.keras", tmp_path)) is None
    result, _ = convert("keras", "json_npz", tmp_path / "text.keras", tmp_path / "a")
    assert len(list(load("json_npz", result, tmp_path / "b").weights())) == 2


def test_an_optimizer_is_not_lost_for_the_size_of_a_file(everything_is_large: Made, tmp_path: Path) -> None:
    """A target that keeps it is written through a living model; one that does not is told about."""
    import keras

    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(2)])
    model.compile("adam", "mse")
    model.fit(np.ones((2, 2)), np.ones((2, 2)), verbose=0)
    model.save(tmp_path / "trained.keras")
    _, codes = convert("keras", "json_npz", tmp_path / "trained.keras", tmp_path / "a")
    assert {"compile-dropped", "optimizer-dropped"} <= set(codes)
    stored = _sources.read("keras", tmp_path / "trained.keras", tmp_path)
    assert stored.training.traits & _stream.TRAINING["keras"]


def test_nothing_is_made_of_what_is_hollow() -> None:
    """The next ordinary scope of Keras makes values for all that still waits for some; a large model would wake up."""
    import keras

    with _plan.hollow():
        model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(4)])
    keras.Sequential([keras.Input((4,)), keras.layers.Dense(4)])
    with keras.StatelessScope():
        pass
    assert [variable._value for variable in model.weights] == [None, None]


def test_swapped_layers_are_no_plan(everything_is_large: Made, tmp_path: Path) -> None:
    """Rows that are not in the order in which Keras itself would read them prove nothing."""
    path = tmp_path / "swapped.h5"
    path.write_bytes(everything_is_large("dense", "h5").read_bytes())
    with h5py.File(path, "r+") as file:
        group = file["model_weights"]
        group.attrs["layer_names"] = list(group.attrs["layer_names"])[::-1]
    assert _plan.make(_sources.read("h5", path, tmp_path)) is None


# Judged ----------------------------------------------------------------------------------------------------------


def converted(source: Path, slug: str, target: str, folder: Path, jobs: LocalJobs) -> pipeline.Result:
    folder.mkdir()
    summary = formats.get(slug).inspect(source, folder)
    return pipeline.convert(jobs, pipeline.Source(source, slug, summary), target, {}, folder, Limits())


@pytest.mark.parametrize("target", ["keras", "h5", "json_safetensors", "safetensors"])
@pytest.mark.usefixtures("no_living_model")
def test_a_large_result_is_verified_without_running(target: str, everything_is_large: Made, tmp_path: Path) -> None:
    path = everything_is_large("recurrent", "json_npz")
    result = converted(path, "json_npz", target, tmp_path / "work", LocalJobs())
    assert result.report.verdict is Verdict.VERIFIED
    assert "bit for bit" in result.report.reason
    assert not list((tmp_path / "work").rglob("outputs.npz"))


def test_a_large_result_with_another_weight_differs(everything_is_large: Made, tmp_path: Path) -> None:
    def spoil(step: str, folder: Path, _: dict[str, Any]) -> None:
        if step == "convert":
            with h5py.File(folder / "result.h5", "r+") as file:
                file["model_weights/probs/probs/bias"][0] += 1

    path = everything_is_large("dense", "json_npz")
    result = converted(path, "json_npz", "h5", tmp_path / "work", LocalJobs(after=spoil))
    assert result.report.verdict is Verdict.DIFFERS


def test_values_are_compared_where_the_target_is_no_copy(everything_is_large: Made, tmp_path: Path) -> None:
    path = everything_is_large("dense", "json_npz")
    result = converted(path, "json_npz", "saved_model", tmp_path / "work", LocalJobs())
    assert result.report.verdict is Verdict.VERIFIED
    assert {"values", "load-back"} <= {check.name for check in result.report.checks}


# In place ----------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("everything_is_large")
def test_a_damaged_member_is_found(made_file: Made, tmp_path: Path) -> None:
    path = tmp_path / "damaged.zip"
    content = bytearray(made_file("dense", "json_safetensors").read_bytes())
    content[-400] ^= 1
    path.write_bytes(content)
    with pytest.raises(CorruptFile, match="checksum"):
        formats.get("json_safetensors").inspect(path, tmp_path)


@pytest.mark.usefixtures("everything_is_large")
def test_a_damaged_member_beside_those_in_place_is_found(made_file: Made, tmp_path: Path) -> None:
    path = tmp_path / "damaged.zip"
    with zipfile.ZipFile(made_file("dense", "json_safetensors")) as source, zipfile.ZipFile(path, "w") as target:
        target.writestr("weights.safetensors", source.read("weights.safetensors"))
        target.writestr("architecture.json", source.read("architecture.json"), zipfile.ZIP_DEFLATED)
        place = target.getinfo("architecture.json").header_offset
    content = bytearray(path.read_bytes())
    content[place + 80] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(CorruptFile, match="archive cannot be read"):
        formats.get("json_safetensors").inspect(path, tmp_path)


def test_an_array_that_reaches_beyond_the_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(bytes(100))
    region = Region.whole(path)
    with pytest.raises(CorruptFile, match="beyond its end"):
        region.array(8, np.dtype("float32"), (24,))
    with pytest.raises(CorruptFile, match="beyond its end"):
        region.part(10, 20, "inner").array(16, np.dtype("float64"), ())


def test_compressed_arrays_are_read_as_well(everything_is_large: Made, tmp_path: Path) -> None:
    """HDF5 in chunks and .npz with deflate: no map of their bytes is what the numbers are."""
    original = everything_is_large("dense", "h5")
    path = tmp_path / "chunked.h5"
    with h5py.File(original) as source, h5py.File(path, "w") as target:
        for key, value in source.attrs.items():
            target.attrs[key] = value
        source.copy("model_weights", target)
        kernel = target["model_weights/probs/probs/kernel"][()]
        del target["model_weights/probs/probs/kernel"]
        target.create_dataset("model_weights/probs/probs/kernel", data=kernel, chunks=(2, 2), compression="gzip")
    assert list(tensors(load("h5", path, tmp_path / "a"))) == list(tensors(load("h5", original, tmp_path / "b")))
