"""Lambda layers that are not understood: run where somebody agreed to that, in jobs, and by Keras 3 alone."""

from __future__ import annotations

import json
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.formats.byte_code import BYTE_CODE, stored
from worker import custom_code, pipeline
from worker.custom_code import Consent
from worker.errors import CustomCode, Forbidden, LambdaRefused, ModelError
from worker.formats import _agreed, _bare, _saved_model, _sources, _tf_keras
from worker.sandbox.client import Zygote
from worker.sandbox.limits import Limits

LIMITS = Limits(wall_seconds=120)
INPUT = np.array([[1.0, 2.0], [3.0, -4.0]], "float32")


@pytest.fixture
def agreed(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a job with consent; for the code of these tests alone."""
    monkeypatch.setitem(_agreed._state, "allowed", True)
    _sources._open.cache_clear()


def unread(tmp_path: Path, function: Callable[..., Any], name: str = "soup.keras", **arguments: Any) -> Path:
    """A file of Keras 3 with this for a Lambda layer."""
    import keras

    given = keras.Input((2,), name="x")
    made = keras.layers.Lambda(function, name="sauce", output_shape=(2,), arguments=arguments)(given)
    keras.Model(given, made).save(tmp_path / name)
    return tmp_path / name


def opened(path: Path, scratch: Path, slug: str = "keras") -> Any:
    return _sources.open_model(slug, path, scratch).model


def test_it_works(tmp_path: Path, agreed: None) -> None:
    path = unread(tmp_path, lambda x, by=1.0: (lambda y: y * by)(x) + 1.0, by=3.0)
    found = _sources.open_model("keras", path, tmp_path)
    assert found.model.predict(INPUT, verbose=0) == pytest.approx(INPUT * 3 + 1)
    [said] = [finding for finding in found.findings if finding.code == "lambda-run"]
    assert said.data == {"layer": "sauce", "problem": "a function inside of it"}


def test_without_consent_nothing_of_it_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import keras

    path = unread(tmp_path, lambda x: (lambda y: y * 2.0)(x))
    monkeypatch.setattr(keras.src.utils.python_utils, "func_load", _not_here)
    with pytest.raises(LambdaRefused, match=r"\(sauce\)"):
        opened(path, tmp_path)


def _not_here(*_: Any, **__: Any) -> None:
    raise AssertionError("byte code was run")


def test_what_is_understood_is_not_run_with_consent_either(
    tmp_path: Path, agreed: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    import keras

    path = unread(tmp_path, lambda x: x * 2.0)
    monkeypatch.setattr(keras.src.utils.python_utils, "func_load", _not_here)
    assert opened(path, tmp_path).predict(INPUT, verbose=0) == pytest.approx(INPUT * 2)


def test_names_that_scripts_have_are_there(tmp_path: Path, agreed: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """TensorFlow, the backend of Keras, NumPy, and what came in custom_objects.py."""
    module = types.ModuleType("custom_objects")
    module.double = lambda x: x * 2.0  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "custom_objects", module)
    source = "f = lambda x: (lambda y: tf.abs(y) + K.sum(y * np.float32(0)) + double(keras.ops.relu(y)))(x)"
    own: dict[str, Any] = {}
    exec(source, {"tf": None, "K": None, "np": None, "double": None, "keras": None}, own)  # noqa: S102
    layer = _agreed.layer("sauce", {"function": [stored(own["f"]), None, None], "function_type": "lambda"}, None)
    assert np.asarray(layer(INPUT)) == pytest.approx(np.abs(INPUT) + 2 * np.maximum(INPUT, 0))
    assert layer.function.__code__.co_filename == "<lambda>"


def test_a_function_by_its_name_comes_from_the_upload(tmp_path: Path, agreed: None) -> None:
    import keras

    config = {"function": "stir", "function_type": "function", "module": "__main__"}
    with pytest.raises(LambdaRefused, match="cannot be had"):
        _agreed.layer("sauce", config, None)
    with keras.saving.custom_object_scope({"stir": lambda x: x + 1.0}):
        assert np.asarray(_agreed.layer("sauce", config, None)(INPUT)) == pytest.approx(INPUT + 1)


@pytest.mark.parametrize("version", BYTE_CODE)
def test_byte_code_of_another_python_does_not_run(version: str, agreed: None) -> None:
    """It may look like some of this one, and compute something else."""
    config = {"function": [BYTE_CODE[version], [0.5], None], "arguments": {"scale": 3}, "function_type": "lambda"}
    if version == f"{sys.version_info.major}.{sys.version_info.minor}":
        assert callable(_agreed.layer("f", config, None).function)
    else:
        with pytest.raises(LambdaRefused, match="another release of Python"):
            _agreed.layer("f", config, None)


def test_a_file_of_keras_2(tmp_path: Path, agreed: None) -> None:
    """Byte code as Keras 2 stored it; tf-keras, which would run it, never sees it."""
    import tf_keras

    given = tf_keras.Input((2,), name="x")
    made = tf_keras.layers.Lambda(lambda x: (lambda y: y * 5.0)(x), name="sauce")(given)
    tf_keras.Model(given, made).save(tmp_path / "soup.h5")
    loaded = _sources.load("h5")(tmp_path / "soup.h5", tmp_path)
    assert loaded.run({"x": INPUT})["sauce"] == pytest.approx(INPUT * 5)
    with pytest.raises(ModelError, match="tf-keras would run"):
        _bare.tf_keras("h5", tmp_path / "soup.h5", tmp_path)


@pytest.mark.filterwarnings("ignore:The object being serialized includes a `lambda`")
def test_byte_code_elsewhere_stays_where_it_is(tmp_path: Path, agreed: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Consent is to Lambda layers; whatever else holds code is refused, and by Keras where not before."""
    import keras

    given = keras.Input((2,))
    model = keras.Model(given, keras.layers.Dense(2, activation=lambda x: (lambda y: y)(x))(given))
    model.save(tmp_path / "soup.keras")
    monkeypatch.setattr(keras.src.utils.python_utils, "func_load", _not_here)
    with pytest.raises(ModelError):
        opened(tmp_path / "soup.keras", tmp_path)


def test_tf_keras_is_given_no_byte_code_that_is_understood(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever brings a file to be compared may have put any Lambda layer into it."""
    import tf_keras

    given = tf_keras.Input((2,), name="x")
    tf_keras.Model(given, tf_keras.layers.Lambda(lambda x: x * 2.0, name="sauce")(given)).save(tmp_path / "soup.h5")
    monkeypatch.setattr(tf_keras.src.utils.generic_utils, "func_load", _not_here)
    with pytest.raises(ModelError, match="tf-keras would run"):
        _bare.tf_keras("h5", tmp_path / "soup.h5", tmp_path)


@pytest.mark.parametrize("in_object_graph", [False, True])
def test_tf_keras_is_given_no_saved_model_with_byte_code_anywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, in_object_graph: bool
) -> None:
    """It makes every object anew from what is said about that object, which the root need not name."""
    import tf_keras
    from tensorflow.core.protobuf import saved_model_pb2
    from tf_keras.protobuf import saved_metadata_pb2

    hidden = {"class_name": "Lambda", "config": {"name": "sauce"}}
    said = [{"class_name": "Sequential", "config": {"layers": []}}, hidden]
    saved, metadata = saved_model_pb2.SavedModel(), saved_metadata_pb2.SavedMetadata()
    nodes = saved.meta_graphs.add().object_graph_def.nodes
    for each in map(json.dumps, said):
        if in_object_graph:
            nodes.add().user_object.metadata = each
        else:
            metadata.nodes.add(node_path="root", metadata=each)
    (tmp_path / "saved_model.pb").write_bytes(saved.SerializeToString())
    if not in_object_graph:
        (tmp_path / "keras_metadata.pb").write_bytes(metadata.SerializeToString())
    asked: list[object] = []
    monkeypatch.setattr(tf_keras.models, "load_model", lambda *given, **_: asked.append(given))
    assert (_saved_model._living_tables(tmp_path), asked) == ({}, [])


def test_tf_keras_reads_nothing_with_byte_code() -> None:
    inner = {"class_name": "Dense", "config": {"activation": {"class_name": "__lambda__"}}}
    for node in ({"class_name": "Custom>Lambda"}, inner):
        with pytest.raises(ModelError), _tf_keras.reading({"config": [node]}):
            pass
    with _tf_keras.reading({"class_name": "Dense", "config": {}}):
        pass


# In jobs ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def convert(zygote: Zygote, tmp_path: Path) -> Callable[..., pipeline.Result]:
    """Inspect and convert with or without consent."""
    places = (tmp_path / f"job-{number}" for number in range(10))

    def made() -> Path:
        folder = next(places)
        folder.mkdir()
        return folder

    def run(path: Path, target: str, consent: Consent | None) -> pipeline.Result:
        seen = pipeline.inspect(zygote, path, "keras", made(), LIMITS, consent=consent)
        if seen.error:
            raise seen.error
        source = pipeline.Source(path, "keras", seen.summary)
        return pipeline.convert(zygote, source, target, {}, made(), LIMITS, consent=consent)

    return run


@pytest.mark.parametrize("target", ["saved_model", "keras"])
def test_a_conversion_says_whose_word_it_was(
    convert: Callable[..., pipeline.Result], tmp_path: Path, target: str
) -> None:
    path = unread(tmp_path, lambda x: (lambda y: y * 3.0)(x))
    report = convert(path, target, Consent("bob")).report
    assert report.verdict == "verified"
    found = {finding.code: finding.data for finding in report.findings}
    assert found["code-ran"] == {"by": "bob", "names": "sauce"}
    assert ("code-needed" in found) == (target == "keras")
    with pytest.raises(LambdaRefused):
        convert(path, target, None)


def test_code_that_reaches_out_is_stopped(convert: Callable[..., pipeline.Result], tmp_path: Path) -> None:
    """Consent is to compute, and not to more than that; the layer itself computes well."""
    path = unread(tmp_path, lambda x: [x * 2.0, (lambda: __import__("os").system("true"))()][0])
    with pytest.raises(Forbidden, match="start a program"):
        convert(path, "saved_model", Consent("bob"))


def test_classes_of_the_upload(convert: Callable[..., pipeline.Result], tmp_path: Path) -> None:
    """Only its text counts: what Python may have compiled beside it is not looked at, and it is not written."""
    import keras

    text = (
        "import keras\n\n@keras.saving.register_keras_serializable('own')\nclass Sauce(keras.layers.Layer):\n"
        "    def call(self, inputs):\n        return inputs * 4.0\n"
    )
    own: dict[str, Any] = {"__name__": "custom_objects"}
    exec(text, own)  # noqa: S102
    given = keras.Input((2,), name="x")
    keras.Model(given, own["Sauce"](name="sauce")(given)).save(tmp_path / "soup.keras")
    keras.saving.get_custom_objects().pop("own>Sauce")
    (tmp_path / "stored-without-a-suffix").write_text(text, encoding="utf-8")
    consent = Consent("bob", tmp_path / "stored-without-a-suffix")
    report = convert(tmp_path / "soup.keras", "saved_model", consent).report
    assert report.verdict == "verified"
    assert next(each.data for each in report.findings if each.code == "code-ran") == {"by": "bob", "names": "Sauce"}
    with pytest.raises(CustomCode, match="Sauce"):
        convert(tmp_path / "soup.keras", "saved_model", Consent("bob"))


def test_half_a_wall_is_none() -> None:
    with pytest.raises(ModelError, match="parts of this one are missing: landlock"):
        custom_code.check_walls("landlock")
    custom_code.check_walls("")
