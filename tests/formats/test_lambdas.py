"""Lambda layers: byte code of every Python from 3.6 to 3.13 read as the same formula, nothing run, the same values."""

from __future__ import annotations

import base64
import builtins
import json
import marshal
import os
import random
import struct
import warnings
import zipfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.formats.byte_code import BYTE_CODE, SOURCE, stored
from tests.formats.corpus import Entry, entries
from tests.formats.models import assert_same, convert, load, stir
from worker import intake
from worker.errors import LambdaRefused
from worker.formats import _bytecode, _lambda_names, _lambdas
from worker.formats._architecture import lambdas, parse
from worker.formats._marshalled import MOST_BYTES, MOST_OBJECTS, NotUnderstood
from worker.formats._rebuild import rebuild

SEED = int(os.environ.get("LARDER_CORPUS_SEED") or random.SystemRandom().randrange(10**6))
FORMULA = (
    "(K.sum(K.cast((tf.reshape(pair[0][:, 1:] - pair[1], [-1, 3, 4, 5]) * scale) > offset, 'float32'), axis=-1) ** 2)"
    " / (-(tf.reshape(pair[0][:, 1:] - pair[1], [-1, 3, 4, 5]) * scale)[..., 0])"
)
tf: Any = None  # names that the functions below are written with; they are read, never called
K: Any = None
BuildModel = Callable[[Any], Any]


def config_of(function: Callable[..., Any], **more: Any) -> dict[str, Any]:
    """The config of a Lambda layer of Keras 2."""
    return {"function": [stored(function), function.__defaults__, None], "function_type": "lambda", **more}


def text_of(function: Callable[..., Any], **more: Any) -> str:
    return _lambdas.reading("f", config_of(function, **more)).text


def code_of(source: str) -> Any:
    """The code object of the function ``f`` in a source, which is compiled and never run."""
    inner = [item for item in compile(source, "x", "exec").co_consts if hasattr(item, "co_code")]
    return inner[0]


# Every version --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", BYTE_CODE)
def test_it_works(version: str) -> None:
    config = {"function": [BYTE_CODE[version], [0.5], None], "arguments": {"scale": 3}, "function_type": "lambda"}
    reading = _lambdas.reading("f", config)
    assert reading.text == f"{FORMULA} with scale = 3, offset = 0.5"


def test_it_is_what_this_python_says_too() -> None:
    assert _bytecode.read(marshal.dumps(code_of(SOURCE))).is_same(_bytecode.read(base64.b64decode(BYTE_CODE["3.11"])))


@pytest.mark.parametrize("sign", ["<", "<=", "==", "!=", ">", ">="])
def test_comparisons_are_told_apart(sign: str) -> None:
    """3.11 and 3.12 number them in two ways, behind the same instruction."""
    assert _lambdas._Words(_bytecode.read(marshal.dumps(code_of(f"f = lambda x: x {sign} 2")))).of(2) == f"x {sign} 2"


@pytest.mark.parametrize("version", ["3.8", "3.11", "3.12", "3.13"])
def test_two_readings_that_disagree_are_refused(version: str, monkeypatch: pytest.MonkeyPatch) -> None:
    data = base64.b64decode(BYTE_CODE[version])
    layout = "3.8" if version == "3.8" else "3.11"
    known = _bytecode._DIALECTS[layout]
    swapped = [
        _bytecode._Dialect("?", {**item.actions, **_turned(item.actions)}, item.caches, item.comparison_shift,
                           item.marks, item.empty_last)
        for item in known
    ]  # fmt: skip
    monkeypatch.setitem(_bytecode._DIALECTS, layout, (*known, *swapped))
    with pytest.raises(NotUnderstood, match="one release"):
        _bytecode.read(data)


def _turned(actions: Any) -> dict[int, str]:
    """An interpreter that negates with the instruction of another sign."""
    return {number: "unary:+" for number, action in actions.items() if action == "unary:-"}


def test_the_first_tf_keras_wrote_the_bytes_as_characters() -> None:
    data = marshal.dumps(code_of("f = lambda x: x * 2.0"))
    config = {"function": [data.decode("raw_unicode_escape"), None, None], "function_type": "lambda"}
    assert _lambdas.reading("f", config).text == "x * 2.0"


def test_a_function_by_its_name() -> None:
    relu = {"module": "builtins", "class_name": "function", "config": "relu", "registered_name": "function"}
    assert _lambdas.reading("f", {"function": relu}).text == "activations.relu(x)"
    for name, module in (("system", "os"), ("my_relu", "builtins"), ("relu", "evil"), ("square", None)):
        with pytest.raises(LambdaRefused, match=name):
            _lambdas.reading("f", {"function": {**relu, "config": name, "module": module}})


# What stays refused ---------------------------------------------------------------------------------------------

factor = 2.0


def with_a_closure() -> Callable[[Any], Any]:
    factor = 3.0
    return lambda x: x * factor


def generator(x: Any) -> Iterator[Any]:
    yield x


HOSTILE: list[tuple[Callable[..., Any], str]] = [
    (lambda x: os.system("touch /tmp/pwned") or x, "condition|os"),  # noqa: S605, S607
    (lambda x: (os.system("touch /tmp/pwned"), x)[1], "name os"),  # noqa: S605, S607
    (lambda x: __import__("os").system("id"), "__import__"),
    (lambda x: getattr(getattr(x, "__class__"), "__mro__"), "getattr"),  # noqa: B009
    (lambda x: x.__class__.__mro__[1].__subclasses__(), "__class__"),
    (lambda x: tf.io.write_file("/tmp/pwned", "x"), r"tf\.io"),
    (lambda x: tf.py_function(open, [x], "float32"), r"tf\.py_function"),
    (lambda x: tf.math.__loader__.exec_module(x), r"__loader__"),
    (lambda x: K.variable(x), r"K\.variable"),
    (lambda x: exec("1", {"x": x}), "exec|instruction"),  # noqa: S102
    (lambda x: eval("x"), "eval"),  # noqa: S307
    (lambda x: open("/etc/passwd").read(), "open"),  # noqa: SIM115
    (lambda x: print(x), "print"),
    (lambda x: tf, "result|name"),
    (lambda x: x * factor, "factor"),
    (lambda x: x if factor else -x, "condition"),
    (lambda x: [y for y in x], "inside|condition|loop"),  # noqa: C416
    (lambda x: (lambda y: y)(x), "inside"),
    (lambda *x: x[0], "star"),
    (lambda **x: x["a"], "star"),
    (lambda: 1, "without an argument"),
    (lambda x: tf.add(*x), "star"),
    (lambda x: f"{x}", "instruction"),
    (lambda x: {"a": x}, "instruction"),
    (lambda x, y: x + y, "argument y"),
    (lambda x, training=None: x, "training"),
    (lambda x, mask: x, "mask"),
    (lambda x: x is None, "is or in"),
    (lambda x: tf.nn.relu, "result"),
    (lambda x: tf.reshape(tf, [1]), "as a value"),
    (lambda x: x(1), "call"),
    (generator, "generator"),
    (with_a_closure(), "factor"),
]


@pytest.mark.parametrize(("function", "problem"), HOSTILE)
def test_what_is_not_understood_is_refused_by_name(
    function: Callable[..., Any], problem: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("exec", "eval", "compile", "__import__"):
        monkeypatch.setattr(builtins, name, _never(getattr(builtins, name)))
    with pytest.raises(LambdaRefused, match=problem):
        _lambdas.compute(_lambdas.reading("f", config_of(function)), object())


def _never(original: Any) -> Any:
    """Imports inside functions go on; a name that a file gives does not get here."""

    def guard(*args: Any, **kwargs: Any) -> Any:
        assert args[0] not in ("os", "subprocess")
        return original(*args, **kwargs)

    return guard


def test_imports_are_names_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    source = "def f(x):\n    import tensorflow as t\n    from keras import backend as b\n    return t.abs(b.relu(x))"
    data = base64.b64encode(marshal.dumps(code_of(source))).decode()
    assert _lambdas.reading("f", {"function": [data, None, None]}).text == "tensorflow.abs(keras.backend.relu(x))"
    source = "def f(x):\n    import os\n    os.system('id')\n    return x"
    data = base64.b64encode(marshal.dumps(code_of(source))).decode()
    with pytest.raises(LambdaRefused, match="os"):
        _lambdas.reading("f", {"function": [data, None, None]})


@pytest.mark.parametrize(
    "config",
    [
        {"mask": [1]},
        {"arguments": {"y": 1}},
        {"function": [stored(lambda x: x), None, [1.0]]},
        {"function": [stored(lambda x, y: x), [{"class_name": "Evil", "config": {}}], None]},
        {"function": [stored(lambda x, y: x), [[[0] * 100] * 100], None]},
        {"function": [stored(lambda x, y: x), [{"class_name": "__tuple__", "config": {}}], None]},
        {"function": [stored(lambda x, y: x), [{"class_name": "__tuple__", "config": {"value": 5}}], None]},
        {"function": [stored(lambda x, y: x), [{"class_name": "__tuple__", "config": {"value": "abc"}}], None]},
        {"function": [stored(lambda x, y: x), [json.loads("[" * 950 + "]" * 950)], None]},
        {"function": {"class_name": "Evil", "config": {}}},
        {"function": "x" * 3 * MOST_BYTES},
        {"function": None},
        {},
    ],
)
def test_what_a_config_asks_for_beside_is_refused(config: dict[str, Any]) -> None:
    whole = {**config_of(lambda x: x), **config} if config else {}
    with pytest.raises(LambdaRefused):
        _lambdas.reading("f", whole)


# Bounds ---------------------------------------------------------------------------------------------------------


def test_every_cut_of_the_bytes_is_refused_in_words() -> None:
    data = base64.b64decode(BYTE_CODE["3.12"])
    for end in range(len(data)):
        with pytest.raises(NotUnderstood):
            _bytecode.read(data[:end])


def test_any_changed_byte_is_read_or_refused() -> None:
    """Never another exception, and never a name that is not in the table."""
    generator = random.Random(SEED)  # noqa: S311 - which byte to change is no secret
    for version in BYTE_CODE:
        data = base64.b64decode(BYTE_CODE[version])
        for _ in range(400):
            place = generator.randrange(len(data))
            changed = data[:place] + bytes([generator.randrange(256)]) + data[place + 1 :]
            config = {"function": [base64.b64encode(changed).decode(), [0.5], None], "arguments": {"scale": 3}}
            with suppress(LambdaRefused):
                assert len(_lambdas.reading("f", config).text) <= _lambdas.LONGEST_TEXT


@pytest.mark.parametrize("count", [0, 1, 4])
def test_a_slice_has_two_or_three_parts(count: int) -> None:
    good = marshal.dumps(code_of("f = lambda x: (x, x[1:2:3])"))
    changed = good.replace(b"\x85\x03", bytes([0x85, count])).replace(b"f\x02", b"f\x01")
    with pytest.raises(NotUnderstood, match="damaged"):
        _bytecode.read(changed)


def code_with(constants: bytes) -> bytes:
    """A marshalled function of 3.8 whose constants are these bytes, which ``return``s the first."""
    head = b"\xe3" + struct.pack("<6i", 1, 0, 0, 1, 1, 0x43)
    text = b"z\x01x"
    return head + b"s\x04\x00\x00\x00d\x00S\x00" + constants + b")\x00)\x01" + text + b")\x00)\x00" + text * 2 + (
        b"\x01\x00\x00\x00s\x00\x00\x00\x00"
    )  # fmt: skip


def test_names_are_names() -> None:
    """They are shown to people: no text of the file's own, and none without an end."""
    good = marshal.dumps(code_of("f = lambda abcdef: abcdef * 2"))
    for name in (b"<b>hi!", b"a\nb cd", b"a;b;cd"):
        with pytest.raises(NotUnderstood, match="damaged"):
            _bytecode.read(good.replace(b"abcdef", name))


def test_references_to_references_do_not_grow() -> None:
    references = [b"r" + struct.pack("<i", place) for place in range(61)]
    doubled = b"\xa9\x01N" + b"".join(b"\xa9\x02" + 2 * reference for reference in references[1:])
    with pytest.raises(NotUnderstood, match="more values"):
        _bytecode.read(code_with(b")\x3d" + doubled))


def test_long_texts_weigh_what_they_are() -> None:
    """16 KB of references to one text stood for megabytes."""
    text = b"\xf3" + struct.pack("<i", 9000) + b"\x00" * 9000
    references = (b"r" + struct.pack("<i", 1)) * 900
    with pytest.raises(NotUnderstood, match="more values"):
        _bytecode.read(code_with(b")\x01(" + struct.pack("<i", 901) + text + references))


def test_a_constant_is_looked_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """However often it is loaded."""
    shown: list[Any] = []

    def show(value: Any) -> str:
        shown.append(value)
        return repr(value)

    monkeypatch.setattr(_bytecode, "repr", show, raising=False)
    table = (1.5,) * 500
    source = "def f(x):\n" + f"    x = tf.add(x, {table})\n" * 20 + "    return x"
    _bytecode.read(marshal.dumps(code_of(source)))
    assert 1 <= shown.count(table) <= 3  # by the releases that can be meant


@pytest.mark.parametrize(
    ("constants", "problem"),
    [
        (b")\x01" * 40 + b"N", "nested"),
        (b"(" + struct.pack("<i", MOST_OBJECTS + 1) + b"N" * (MOST_OBJECTS + 1), "more values"),
        (b"(" + struct.pack("<i", 2**31 - 1), "damaged"),
        (b")\x01l" + struct.pack("<i", 2**20) + b"\x01" * 64, "64 bits"),
        (b")\x01r" + struct.pack("<i", 0), "damaged"),  # the function itself
        (b")\x01r" + struct.pack("<i", -5), "damaged"),
        (b")\x01{0", "kind"),
        (b")\x01" + b"\xe3" + b"\x00" * 40, "inside"),
    ],
)
def test_sizes_are_bounded(constants: bytes, problem: str) -> None:
    with pytest.raises(NotUnderstood, match=problem):
        _bytecode.read(code_with(constants))


def test_more_code_than_a_layer_has_is_refused() -> None:
    with pytest.raises(NotUnderstood, match="longer"):
        _bytecode.read(b"\xe3" + b"\x00" * MOST_BYTES)
    chain = marshal.dumps(code_of("f = lambda x: " + " + ".join(f"x * {number}.5" for number in range(200))))
    with pytest.raises(NotUnderstood, match=r"more (parts|instructions)"):
        _bytecode.read(chain)


def test_what_is_shared_stays_shared() -> None:
    """A hundred squarings are a hundred operations, not 2^100; as a text they come to an end."""
    source = "def f(x):\n" + "    x = x + x\n" * 100 + "    return x"
    formula = _bytecode.read(marshal.dumps(code_of(source)))
    assert len(formula.steps) == 101
    assert len(_lambdas.Reading("f", formula).text) <= _lambdas.LONGEST_TEXT


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x * (10**9) ** 9,
        lambda x: tf.tile(x, [1, 10**9]),
        lambda x: tf.one_hot(tf.cast(x, tf.int32), 10**9),
        lambda x: K.repeat_elements(x, 10**8, axis=1),
        lambda x: tf.pad(x, [[0, 0], [0, 10**9]]),
        lambda x: tf.cast(x, "string"),
        lambda x: tf.cast(x, tf.int32) / 2,
        lambda x: x[x],
        lambda x: x["a"],
        lambda x: x + "a",
        lambda x: tf.add(x, x, x, x),
        lambda x: tf.add(x, z=x),
        lambda x: tf.concat([x, x], axis=5),
        lambda x: x[0],  # a list of one tensor, as files do not tell
        lambda x: tf.matmul(x, x, transpose_b=1),
        lambda x: tf.constant(2.5, tf.int32) * x,
        lambda x: x * tf.cast(2.5, tf.float16),
        lambda x: x * tf.cast(2.5, "bool"),
        lambda x: x * tf.cast(True, tf.float32),
        lambda x: x * tf.cast(300, tf.uint8),
        lambda x: tf.cast(x, tf.int32) - [0.5, 1.0, 2.0],
        lambda x: tf.cast(x, tf.uint8) - [300, 1, 2],
        lambda x: keras.ops.softmax(x, axis=None),  # type: ignore[name-defined]  # noqa: F821
        lambda x: keras.activations.softmax(x, axis=None),  # type: ignore[name-defined]  # noqa: F821
        lambda x: K.relu(x, max_value=-1.0),
        lambda x: K.relu(x, alpha=-2.0, max_value=1.0),
    ],
)
def test_what_does_not_fit_the_tensors_is_refused(function: Callable[..., Any]) -> None:
    import keras

    block = _lambdas.Block(_lambdas.reading("f", config_of(function)), "f", None)
    with pytest.raises(LambdaRefused, match=r"\(f\)"):
        block(keras.Input((3,)))


# The same values ------------------------------------------------------------------------------------------------


def arithmetic(keras: Any) -> Any:
    x = keras.Input((3, 4), name="x")
    y = keras.layers.Lambda(lambda x: 1.0 / (x**2 + 3) - x[:, ::-1] // 0.5 * 2 ** (-x % 1.5), name="sum")(x)
    return keras.Model(x, keras.layers.Lambda(lambda x: (x - [1.0, 2.0, 3.0, 4.0]) * 0.5, name="less")(y))


def siamese(keras: Any) -> Any:
    """The distance that countless notebooks have."""
    a, b = keras.Input((5,), name="a"), keras.Input((5,), name="b")
    twin = keras.Sequential([keras.layers.Dense(4)], name="twin")
    return keras.Model([a, b], keras.layers.Lambda(distance, output_shape=(1,), name="distance")([twin(a), twin(b)]))


distance = lambda pair: tf.sqrt(tf.maximum(tf.reduce_sum(tf.square(pair[0] - pair[1]), axis=1, keepdims=True), 1e-7))  # noqa: E731


def masked(keras: Any) -> Any:
    """The mask of an embedding ends at what computes, and goes on through what does not."""
    x = keras.Input((5,), name="x", dtype="int32")
    y = keras.layers.Embedding(9, 3, mask_zero=True)(x)
    doubled, same = keras.layers.Lambda(lambda x: x * 2.0)(y), keras.layers.Lambda(lambda x: x)(y)
    return keras.Model(x, keras.layers.Add(name="out")([keras.layers.LSTM(2)(doubled), keras.layers.LSTM(2)(same)]))


def stacked(keras: Any) -> Any:
    """Inside of a stack that says its input, of one that does not, of a TimeDistributed; called twice."""
    layers = keras.layers
    x = keras.Input((4, 6), name="x")
    inner = keras.Sequential([layers.Lambda(lambda x: x[:, 1:] / 2.0), layers.Dense(3)], name="inner")
    steps = layers.TimeDistributed(layers.Lambda(lambda x: tf.nn.softmax(x)), name="steps")
    twice = layers.Lambda(lambda x, by: x * by, arguments={"by": 3}, name="twice")
    return keras.Model(x, [twice(inner(x)), twice(steps(x)), layers.Lambda(lambda x: [x[:, 0], -x])(x)[1]])


SAME: list[tuple[Callable[..., Any], str]] = [
    (lambda x: tf.image.resize(x, (7, 5)), "uint8"),
    (lambda x: tf.image.resize(x, (7, 5)), "int32"),
    (lambda x: tf.image.resize(x, (7, 5)), "float16"),
    (lambda x: tf.image.resize(x, (7, 5)), "float64"),
    (lambda x: tf.image.resize(x, (4, 4)), "uint8"),
    (lambda x: tf.image.resize(x, (7, 5), method="nearest"), "uint8"),
    (lambda x: x * tf.cast(tf.cast(2.7, tf.int32), tf.float32), "float32"),
    (lambda x: x * tf.cast(tf.cast(-2.7, tf.int32), tf.float32), "float32"),
    (lambda x: x * tf.cast(0.1, tf.float64), "float64"),
    (lambda x: x * tf.constant(0.1, tf.float64), "float64"),
    (lambda x: x * tf.cast(tf.cast([0.5, 1.9, -2.7], tf.int32), tf.float32), "float32"),
    (lambda x: x * tf.cast(tf.cast(0.29 * 100, tf.int32), tf.float32), "float32"),
    (lambda x: tf.clip_by_value(x, 1.0, -1.0), "float32"),
    (lambda x: K.clip(x, 1.0, -1.0), "float32"),
    (lambda x: K.argmax(x, axis=None), "float32"),
    (lambda x: K.argmin(x), "float32"),
    (lambda x: tf.argmax(x), "float32"),
    (lambda x: tf.nn.softmax(x, axis=None), "float32"),
    (lambda x: K.relu(x, max_value=1.0), "float32"),
]


@pytest.mark.parametrize(("function", "dtype"), SAME)
def test_it_computes_what_tensorflow_computes(
    function: Callable[..., Any], dtype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import keras
    import tensorflow
    import tf_keras

    monkeypatch.setitem(globals(), "tf", tensorflow)
    monkeypatch.setitem(globals(), "K", tf_keras.backend)
    x = tensorflow.constant((np.random.default_rng(3).normal(3.0, 3.0, (2, 4, 4, 3)) ** 2).astype(dtype))
    wanted = tf_keras.layers.Lambda(function, dtype=dtype if "float" in dtype else "float32")(x)
    given = keras.Input((4, 4, 3), dtype=dtype)
    found = keras.Model(given, _lambdas.Block(_lambdas.reading("f", config_of(function)), "f", None)(given))(x)
    assert (found.dtype, found.shape) == (wanted.dtype, wanted.shape)
    np.testing.assert_allclose(found, wanted, rtol=1e-6)


@pytest.mark.parametrize(
    ("function", "fits"),
    [
        (lambda x: tf.image.resize(x, (8, 8)), False),
        (lambda x: tf.image.resize(x, (6, 6), "nearest"), False),
        (lambda x: tf.image.resize(x, (8, 12), "nearest"), True),
        (lambda x: tf.image.resize(x, (4, 4)), True),
        (lambda x: K.cast(x == 0, "float32"), False),
        (lambda x: K.cast(x != x[:, ::-1], "float32"), False),
        (lambda x: K.cast(tf.equal(x, 0), "float32"), True),
    ],
)
def test_what_tensorflow_1_did_in_another_way_is_refused(function: Callable[..., Any], fits: bool) -> None:
    import keras

    x = keras.Input((4, 4, 3))
    assert _lambdas.compute(_lambdas.reading("f", config_of(function)), x).dtype == "float32"
    reading = _lambdas.reading("f", config_of(function), of_tf_1=True)
    if fits:
        assert _lambdas.compute(reading, x).dtype == "float32"
    else:
        with pytest.raises(LambdaRefused, match="TensorFlow 1 and 2"):
            _lambdas.compute(reading, x)


@pytest.mark.parametrize(
    ("version", "may_be"),
    [
        ("", True),
        ("1.2.2", True),
        ("2.2.4-tf", True),
        ("2.3.1", True),
        ("2.3.0-tf", False),
        ("2.4.0", False),
        ("2.15.0", False),
        ("3.0.0", False),
    ],
)
def test_which_files_may_be_of_tensorflow_1(version: str, may_be: bool) -> None:
    config = {**config_of(lambda x: tf.image.resize(x, (8, 8))), "name": "f", "batch_input_shape": [None, 4, 4, 3]}
    root = {"class_name": "Sequential", "config": [{"class_name": "Lambda", "config": config}]}
    architecture = parse(json.dumps(root), "x.json", version)
    assert architecture.may_be_of_tf_1 is may_be
    if may_be:
        with pytest.raises(LambdaRefused, match="TensorFlow 1 and 2"):
            rebuild(architecture)


BUILDS: list[BuildModel] = [arithmetic, siamese, masked, stacked]


@pytest.mark.filterwarnings("ignore:Layer .* was passed an input with a mask")  # as the Lambda layer itself would be
@pytest.mark.parametrize("library", ["tf_keras", "keras"])
@pytest.mark.parametrize("build", BUILDS, ids=lambda build: build.__name__)
def test_it_computes_what_the_layer_computes(build: BuildModel, library: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The library that wrote the file runs its own Lambda layers here; what was read of them is compared."""
    from importlib import import_module

    monkeypatch.setitem(globals(), "tf", import_module("tensorflow"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = build(import_module(library))
    stir(model)
    architecture = parse(model.to_json(), "model.json", "2.15.0" if library == "tf_keras" else "")
    rebuilt = rebuild(architecture).model
    rebuilt.set_weights(model.get_weights())
    given = [_draw(tensor) for tensor in model.inputs]
    wanted, found = (_listed(item(given if len(given) > 1 else given[0])) for item in (model, rebuilt))
    for one, two in zip(wanted, found, strict=True):
        assert one.dtype == two.dtype
        np.testing.assert_allclose(two, one, rtol=1e-6, atol=1e-6)


def _draw(tensor: Any) -> Any:
    generator = np.random.default_rng(4)
    shape = (2, *tensor.shape[1:])
    if "int" in str(tensor.dtype):
        return generator.integers(1, 9, shape).astype("int32") * np.array([1, 1, 0, 1, 0], "int32")
    return generator.normal(size=shape).astype("float32")


def _listed(value: Any) -> list[Any]:
    return [np.asarray(item) for item in (value if isinstance(value, (list, tuple)) else [value])]


@pytest.mark.parametrize(
    ("function", "numbers"),
    [
        (lambda x: x / 127.5 - 1, (1 / 127.5, -1.0)),
        (lambda x: x * 2.0, (2.0, 0.0)),
        (lambda x: x + 3, (1.0, 3.0)),
        (lambda x, by=4.0: x * by, (4.0, 0.0)),
        (lambda x: x, None),
        (lambda x: x / 0, None),
        (lambda x: x * 0.0 - 1, None),
        (lambda x: (x + 1) * 2, None),  # the rounding would be another
        (lambda x: 1 - x, None),
        (lambda x: x * x, None),
        (lambda x: x * True, None),
    ],
)
def test_scale_and_offset_are_a_layer_of_keras(function: Callable[..., Any], numbers: Any) -> None:
    assert _lambdas.scaling(_lambdas.reading("f", config_of(function))) == numbers


def test_a_shape_that_is_declared_is_looked_at() -> None:
    import keras

    x = keras.Input((3,))
    for shape, fits in (([3], True), ([None], True), ([4], False), ([3, 1], False)):
        reading = _lambdas.reading("f", config_of(lambda x: x + 1, output_shape=shape, output_shape_type="raw"))
        block = _lambdas.Block(reading, "f", None)
        if fits:
            assert block(x).shape == (None, 3)
        else:
            with pytest.raises(LambdaRefused, match="declares"):
                block(x)


def test_the_result_is_a_model_of_plain_keras(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No custom object, no byte code, no other switch: the file opens as it stands, and gives the same."""
    import keras
    import tensorflow

    monkeypatch.setitem(globals(), "tf", tensorflow)
    model = siamese(keras)
    model.save(tmp_path / "lambda.keras")
    source = load("keras", tmp_path / "lambda.keras", tmp_path / "a")
    for target in ("data_pickle", "json_npz", "saved_model"):
        result, codes = convert("keras", target, tmp_path / "lambda.keras", tmp_path / target)
        assert "lambda-read" in codes
        assert b"__lambda__" not in result.read_bytes() + _members(result)
        assert_same(source, load(target, result, tmp_path / f"{target}-load"))
    given = [np.ones((2, 5), "float32"), np.zeros((2, 5), "float32")]
    with zipfile.ZipFile(tmp_path / "json_npz" / "result.zip") as archive:
        name = next(name for name in archive.namelist() if name.endswith(".json"))
        again = keras.models.model_from_json(archive.read(name).decode())
    assert not lambdas(parse(again.to_json(), "x.json"))
    again.set_weights(model.get_weights())
    np.testing.assert_allclose(again(given), model(given), rtol=1e-6)


def _members(path: Path) -> bytes:
    if not zipfile.is_zipfile(path):
        return b""
    with zipfile.ZipFile(path) as archive:
        return b"".join(archive.read(name) for name in archive.namelist())


@pytest.mark.parametrize(("library", "slug"), [("tf_keras", "h5"), ("tf_keras", "keras"), ("keras", "h5")])
def test_no_library_is_given_the_byte_code(
    library: str, slug: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """tf-keras reads files of its time as a witness, and would run what is in them: it gets a text without."""
    from importlib import import_module

    import tf_keras
    from keras.src.utils import python_utils
    from tf_keras.src.utils import generic_utils

    monkeypatch.setitem(globals(), "tf", import_module("tensorflow"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        siamese(import_module(library)).save(tmp_path / f"model.{slug}")
    asked: list[Any] = []
    for owner, name in [(python_utils, "func_load"), (generic_utils, "func_load"), (tf_keras.models, "load_model")]:
        monkeypatch.setattr(owner, name, lambda *args, **kwargs: asked.append(args))
    described: list[str] = []
    from_json = tf_keras.models.model_from_json

    def told(text: str, **kwargs: Any) -> Any:
        described.append(text)
        return from_json(text, **kwargs)

    monkeypatch.setattr(tf_keras.models, "model_from_json", told)
    loaded = load(slug, tmp_path / f"model.{slug}", tmp_path)
    assert loaded.run({"a": np.ones((2, 5), "float32"), "b": np.ones((2, 5), "float32")})
    assert asked == []
    assert len(described) == (library == "tf_keras")
    assert not any(word in text for text in described for word in (stored(distance)[:40], "Lambda", "__lambda__"))


def test_byte_code_beside_the_layers_is_refused() -> None:
    code = {"class_name": "__lambda__", "config": {"code": stored(lambda x: x), "defaults": None, "closure": None}}
    dense = {"class_name": "Dense", "config": {"name": "d", "units": 2, "batch_input_shape": [None, 3]}}
    dense["config"]["activation"] = code  # type: ignore[index]
    with pytest.raises(LambdaRefused, match="without a name"):
        rebuild(parse(json.dumps({"class_name": "Sequential", "config": [dense]}), "x.json", "2.2.0"))


def test_every_function_of_the_table_is_one_of_ours() -> None:
    assert all(callable(item) for item in _lambda_names.FUNCTIONS.values())
    owners = {name.partition(".")[0] for name in _lambda_names.FUNCTIONS if "." in name}
    assert owners <= {"tf", "K", "ops", "np", "math", "activations"}


# Files of others ------------------------------------------------------------------------------------------------


def drawn() -> list[Any]:
    """One file of every format and, of each, of any version whose Lambda layers are stored as byte code."""
    strata: dict[str, list[Entry]] = {}
    for entry in entries():
        if "lambda" in entry.kind and not entry.format.startswith(("savedmodel", "tflite", "frozen")):
            strata.setdefault(entry.format, []).append(entry)
    generator = random.Random(SEED)  # noqa: S311 - which files to look at is no secret
    return [pytest.param(generator.choice(strata[key]), id=key) for key in sorted(strata)]


@pytest.mark.parametrize("entry", drawn())
def test_it_computes_what_its_writer_recorded(entry: Entry, tmp_path: Path) -> None:
    print(f"LARDER_CORPUS_SEED={SEED} {entry.id}")
    (tmp_path / "bundle").mkdir()
    bundle = entry.gather(tmp_path / "bundle")
    slug = intake.recognise(intake.take_sample(bundle.path, bundle.name))[0].slug
    loaded = load(slug, bundle.path, tmp_path)
    assert entry.difference(loaded.run(entry.inputs([spec.name for spec in loaded.inputs]))) == ""
