"""TensorFlow Lite: recognised, written from signatures of every era, refused by the operation's name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.formats.models import load, pack
from worker import archive, intake
from worker.errors import BadSamples, ConverterFailed, CorruptFile, NotRunnable, UnsupportedOperation
from worker.formats import _frozen, _quantised, _tflite_run, _tflite_weights, _tflite_write, get, matches
from worker.formats._draws import GUESSES, make_inputs
from worker.formats._format import Hop, Loaded, Sample
from worker.verify import measure

TFLITE, SAVED_MODEL = get("tflite"), get("saved_model")
CORPUS = Path(__file__).resolve().parents[3] / "shared" / "corpus"
OLD = ["thirdparty/half_plus_two_cpu", "thirdparty/regression_saved_model", "tf1.4/tf1_convnet"]


def export(model: object, folder: Path) -> Path:
    """The model as a SavedModel archive, written by the format itself."""
    from worker.formats.saved_model import write

    target = folder / "model.zip"
    write(model, target, Hop(folder))
    return target


def convert(source: Path, folder: Path) -> Path:
    target = folder / "model.tflite"
    TFLITE.converts_from["saved_model"].run(source, target, Hop(folder))
    return target


def assert_same_values(source: Path, result: Path, folder: Path) -> None:
    assert SAVED_MODEL.load
    assert TFLITE.load
    before, after = SAVED_MODEL.load(source, folder), TFLITE.load(result, folder)
    assert [spec.name for spec in after.inputs] == sorted(spec.name for spec in before.inputs)
    for draw in make_inputs(before.inputs, seed=7):
        wanted, found = before.run(draw), after.run(draw)
        assert wanted.keys() == found.keys()
        for name in wanted:
            np.testing.assert_allclose(found[name], wanted[name], rtol=1e-5, atol=1e-6)


def test_it_works(tmp_path: Path) -> None:
    import keras

    left, right = keras.Input((5,), name="left"), keras.Input((3,), name="right")
    merged = keras.layers.Concatenate()([keras.layers.Dense(4, "relu")(left), right])
    outputs = [keras.layers.Dense(2, "softmax", name="kind")(merged), keras.layers.Dense(1, name="score")(merged)]
    source = export(keras.Model([left, right], outputs), tmp_path)
    result = convert(source, tmp_path)
    assert_same_values(source, result, tmp_path)
    summary = TFLITE.inspect(result, tmp_path)
    assert [item.name for item in summary.signatures] == ["serving_default"]
    assert summary.inputs[0].shape is not None
    assert summary.inputs[0].shape[0] is None  # the batch stays free
    assert TFLITE.sniff(Sample("model.tflite", 0, result.read_bytes()[:64]))


def written_by_tensorflow_1(folder: Path) -> Path:
    """A SavedModel with one reference variable and one resource variable."""
    import tensorflow as tf

    v1 = tf.compat.v1
    with tf.Graph().as_default(), v1.Session() as session:
        x = v1.placeholder("float32", (None, 3), "x")
        scale = v1.get_variable("scale", initializer=[2.0, -1.0, 0.5], use_resource=False)
        shift = v1.get_variable("shift", initializer=[1.0, -1.0, 3.0], use_resource=True)
        y = tf.nn.relu(x * scale + shift)
        session.run(v1.global_variables_initializer())
        v1.saved_model.simple_save(session, str(folder / "sm"), {"x": x}, {"y": y})
    archive.pack(folder / "sm", folder / "old.zip")
    return folder / "old.zip"


@pytest.mark.parametrize("kind", ["written here", *(kind for kind in OLD if (CORPUS / kind).exists())])
def test_variables_of_tensorflow_1_are_folded(kind: str, tmp_path: Path) -> None:
    packed = CORPUS.joinpath(kind).glob("saved_model*.zip")
    source = written_by_tensorflow_1(tmp_path) if kind == "written here" else next(packed)
    assert_same_values(source, convert(source, tmp_path), tmp_path)


def test_signatures_that_are_not_carried_over_are_named(tmp_path: Path) -> None:
    import tensorflow as tf

    module = tf.Module()
    module.scale = tf.Variable(2.0)
    taken = tf.TensorSpec([None, 3], name="x")
    entry = tf.function(lambda x: {"y": x * module.scale}).get_concrete_function(taken)
    other = tf.function(lambda x: {"y": x / module.scale}).get_concrete_function(taken)
    signatures = {"serving_default": entry, "same": entry, "classify": other}
    tf.saved_model.save(module, str(tmp_path / "sm"), signatures)
    archive.pack(tmp_path / "sm", tmp_path / "model.zip")
    hop = Hop(tmp_path)
    TFLITE.converts_from["saved_model"].run(tmp_path / "model.zip", tmp_path / "model.tflite", hop)
    assert [finding.code for finding in hop.findings] == ["signatures-dropped"]
    assert hop.findings[0].data == {"kept": "serving_default", "names": "classify"}
    assert TFLITE.inspect(tmp_path / "model.tflite", tmp_path).distinct_signatures == ("serving_default",)


def test_an_operation_that_it_does_not_have_is_named(tmp_path: Path) -> None:
    import keras

    model = keras.Sequential([keras.Input((6, 6, 6, 1)), keras.layers.MaxPooling3D(name="shrink")])
    with pytest.raises(UnsupportedOperation, match=r"MaxPool3D \(layer shrink"):
        convert(export(model, tmp_path), tmp_path)


def converted(source: Path, folder: Path, precision: str, samples: Path | None = None) -> tuple[Path, list[str]]:
    hop = Hop(folder, {"precision": precision}, samples=samples, seed=7)
    target = folder / f"{precision}.tflite"
    TFLITE.converts_from["saved_model"].run(source, target, hop)
    return target, [finding.code for finding in hop.findings]


def assert_within_its_tolerance(source: Path, result: Path, folder: Path, precision: str) -> Loaded:
    assert TFLITE.tolerance_for
    before, after = load("saved_model", source, folder), load("tflite", result, folder)
    for draw in make_inputs(before.inputs, seed=3, guess=GUESSES[2]):
        wanted, found = before.run(draw), after.run(draw)
        for name in wanted:
            assert not measure(wanted[name], found[name], TFLITE.tolerance_for({"precision": precision})).problem
    return after


@pytest.mark.parametrize(
    ("precision", "codes"),
    [("float16", []), ("dynamic", []), ("int8", ["calibrated-on-draws"]), ("int16x8", ["calibrated-on-draws"])],
)
def test_every_precision_keeps_its_own_tolerance_and_floats_at_the_edges(
    precision: str, codes: list[str], made_file: Callable[[str, str], Path], tmp_path: Path
) -> None:
    source = made_file("conv", "saved_model")
    result, found = converted(source, tmp_path, precision)
    assert found == codes
    after = assert_within_its_tolerance(source, result, tmp_path, precision)
    assert {spec.dtype for spec in (*after.inputs, *after.outputs)} == {"float32"}
    widths = {"float16": "float16", "int8": "int8", "int16x8": "int8"}
    assert widths.get(precision, "float32") in TFLITE.inspect(result, tmp_path).dtypes


def test_the_loosest_tolerance_still_refuses_garbage() -> None:
    assert TFLITE.tolerance_for
    random = np.random.default_rng(1)
    wanted = random.normal(size=(3, 10))
    for wrong in (np.zeros_like(wanted), random.normal(size=wanted.shape), wanted[:, ::-1], -wanted):
        assert measure(wanted, wrong, TFLITE.tolerance_for({"precision": "int8"})).problem


def test_ranges_are_measured_on_samples_where_there_are_some(
    made_file: Callable[[str, str], Path], tmp_path: Path
) -> None:
    np.savez(tmp_path / "mine.npz", features=np.random.default_rng(1).normal(size=(9, 6)).astype("float32"))
    _, codes = converted(made_file("dense", "saved_model"), tmp_path, "int8", tmp_path / "mine.npz")
    assert codes == ["calibrated-on-samples"]
    np.savez(tmp_path / "far.npz", features=np.random.default_rng(1).uniform(5000, 9000, (9, 6)).astype("float32"))
    _, codes = converted(made_file("dense", "saved_model"), tmp_path, "int8", tmp_path / "far.npz")
    assert codes == ["calibrated-on-samples", "samples-out-of-range"]
    np.savez(tmp_path / "holes.npz", features=np.full((9, 6), np.nan, "float32"))
    with pytest.raises(BadSamples, match="54 of the 54 numbers of features"):
        converted(made_file("dense", "saved_model"), tmp_path, "int8", tmp_path / "holes.npz")


@pytest.mark.parametrize("precision", ["float32", "int8"])
def test_recurrent_layers_take_one_row_at_a_time(
    precision: str, made_file: Callable[[str, str], Path], tmp_path: Path
) -> None:
    """The converter has no lists of a free size, and where it measures ranges in loops it ends the process."""
    source = made_file("recurrent", "saved_model")
    result, codes = converted(source, tmp_path, precision)
    assert codes == (["batch-fixed"] if precision == "float32" else ["partly-quantised", "batch-fixed"])
    after = assert_within_its_tolerance(source, result, tmp_path, precision)
    assert after.inputs[0].shape == (1, 7)
    assert "recurrent" in TFLITE.changes


def test_half_precision_is_computed_in_single(tmp_path: Path) -> None:
    import keras

    layers = [keras.layers.Dense(4, "relu", dtype="mixed_float16"), keras.layers.Dense(2, dtype="mixed_float16")]
    source = export(keras.Sequential([keras.Input((6,), name="x"), *layers]), tmp_path)
    assert "half" in SAVED_MODEL.inspect(source, tmp_path / "i").traits
    result, codes = converted(source, tmp_path, "float32")
    assert codes == ["computed-in-single"]
    before, after = load("saved_model", source, tmp_path), load("tflite", result, tmp_path)
    assert [spec.dtype for spec in after.outputs] == ["float16"]  # as the model declares it
    draw = make_inputs(before.inputs, seed=3)[1]
    wanted, found = next(iter(before.run(draw).values())), next(iter(after.run(draw).values()))
    np.testing.assert_allclose(found, wanted, atol=4e-3)


def test_what_only_tensorflow_has_needs_flex_and_is_not_run(tmp_path: Path) -> None:
    import tensorflow as tf

    module = tf.Module()
    spec = tf.TensorSpec([None, 3, 3], name="x")
    entry = tf.function(lambda x: {"y": tf.linalg.det(x)}, input_signature=[spec])
    tf.saved_model.save(module, str(tmp_path / "sm"), signatures=entry)
    archive.pack(tmp_path / "sm", tmp_path / "model.zip")
    result, codes = converted(tmp_path / "model.zip", tmp_path, "float32")
    assert codes == ["needs-flex"]
    assert [spec.name for spec in TFLITE.inspect(result, tmp_path).inputs] == ["x"]
    with pytest.raises(NotRunnable, match="MatrixDeterminant"):
        load("tflite", result, tmp_path)


def test_variables_without_values_are_never_let_through(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the converter makes by itself of a model of Keras 3: it reads memory that nobody set, and says nothing."""
    import keras
    import tensorflow as tf

    model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(3)])
    tf.saved_model.save(model, str(tmp_path / "sm"))
    content = tf.lite.TFLiteConverter.from_saved_model(str(tmp_path / "sm")).convert()
    monkeypatch.setattr(_tflite_write._Job, "convert", lambda job: content)
    with pytest.raises(ConverterFailed, match="READ_VARIABLE"):
        convert(export(model, tmp_path), tmp_path)
    assert not (tmp_path / "model.tflite").exists()


def test_a_result_that_answers_differently_each_time_is_refused(
    made_file: Callable[[str, str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As one does that reads memory which nobody set: by luck the first answer may be right."""
    opened = _tflite_run.load
    noise = iter((0.0, 1e-3))

    def unsteady(path: Path) -> Loaded:
        loaded, further = opened(path), np.float32(next(noise))
        return replace(loaded, run=lambda draw: {name: value + further for name, value in loaded.run(draw).items()})

    monkeypatch.setattr(_tflite_run, "load", unsteady)
    with pytest.raises(ConverterFailed, match="two runs of the result"):
        convert(made_file("dense", "saved_model"), tmp_path)


def test_activations_with_gradients_of_their_own(tmp_path: Path) -> None:
    """What swish captures for its gradient cannot be saved again, and is of no use in a finished graph."""
    import keras

    layer = keras.layers.Conv2DTranspose(2, 3, strides=2, activation="swish")
    source = export(keras.Sequential([keras.Input((4, 4, 2), name="x"), layer]), tmp_path)
    assert_same_values(source, convert(source, tmp_path), tmp_path)


@pytest.mark.parametrize("precision", ["float32", "int8"])
def test_images_of_any_size_for_convolutions_that_need_some(precision: str, tmp_path: Path) -> None:
    """LiteRT opens it for one pixel, which is too small."""
    import keras

    layers = [keras.layers.Conv2D(3, 3, strides=2), keras.layers.GlobalAveragePooling2D()]
    source = export(keras.Sequential([keras.Input((None, None, 2), name="x"), *layers]), tmp_path)
    result, _ = converted(source, tmp_path, precision)
    assert_within_its_tolerance(source, result, tmp_path, precision)


def test_large_weights_stay_outside_the_graph(made_file: Callable[[str, str], Path], tmp_path: Path) -> None:
    """Variables while it is converted, since the graph is copied many times; constants in the result."""
    import keras

    model = keras.Sequential([keras.Input((600,), name="x"), keras.layers.Dense(600, name="y")])
    source = export(model, tmp_path)
    _, module = _frozen.built(_frozen.plain(source, Hop(tmp_path)), variables=True)
    assert [tuple(variable.shape) for variable in module.kept.values()] == [(600, 600)]
    result = convert(source, tmp_path)
    assert_within_its_tolerance(source, result, tmp_path, "float32")
    assert TFLITE.inspect(result, tmp_path).parameters == 600 * 600  # a bias of zeros is left out


@pytest.mark.filterwarnings("ignore:.*tf.lite.Interpreter is deprecated:UserWarning")
def test_whole_numbers_at_the_edges_are_scaled(tmp_path: Path) -> None:
    """As older converters and most boards want them: floats that are fed become whole numbers by the tensor's scale."""
    import tensorflow as tf

    x = tf.TensorSpec([1, 4], name="x")
    function = tf.function(lambda x: {"y": tf.nn.relu(x)}, input_signature=[x]).get_concrete_function()
    converter = tf.lite.TFLiteConverter.from_concrete_functions([function], tf.Module())
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: iter([{"x": np.linspace(-1, 1, 4, dtype="float32")[None]}] * 4)
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = converter.inference_output_type = tf.int8
    (tmp_path / "board.tflite").write_bytes(converter.convert())
    loaded = load("tflite", tmp_path / "board.tflite", tmp_path)
    assert loaded.inputs[0].dtype == "int8"
    y = loaded.run({"x": np.array([[-1, 0, 0.5, 1], [1, 1, -1, 0]], "float32")})["y"]
    assert y.shape == (2, 4)
    assert y[0, 0] == y[0, 1] < y[0, 2] < y[0, 3] == y[1, 0]


def test_a_scale_that_is_no_number_tells_no_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """The quantiser writes one for a kernel that holds something that is not a number."""
    scales = _quantised.Scales([float("nan")], [0.0])
    monkeypatch.setattr(_tflite_weights, "_scales", lambda tensor: scales)
    monkeypatch.setattr(_tflite_weights, "_stored", lambda content: [("kernel", None, "int8", None)])
    assert _tflite_weights.steps(Path(__file__)) == {}


def test_an_archive_with_one_file(tmp_path: Path, made_file: Callable[[str, str], Path]) -> None:
    result, _ = converted(made_file("dense", "saved_model"), tmp_path, "float32")
    path = pack(tmp_path / "one.zip", files___model__tflite=result)
    assert [item.slug for item in matches(intake.take_sample(path, "one.zip"))] == ["tflite"]
    assert load("tflite", path, tmp_path / "s").outputs == load("tflite", result, tmp_path).outputs


def test_lookup_tables_are_refused_by_name(tmp_path: Path) -> None:
    import keras

    words = keras.layers.StringLookup(vocabulary=["red", "green"], output_mode="one_hot")
    model = keras.Sequential([keras.Input((1,), dtype="string"), words, keras.layers.Dense(2)])
    source = export(model, tmp_path)
    with pytest.raises(UnsupportedOperation, match="lookup tables"):
        convert(source, tmp_path)


def test_a_damaged_file_is_told(tmp_path: Path) -> None:
    file = tmp_path / "model.tflite"
    file.write_bytes(b"\x1c\0\0\0TFL3" + bytes(64))
    with pytest.raises(CorruptFile):
        TFLITE.inspect(file, tmp_path)
