"""Descriptions of Keras models that name code, files of the machine, or more than any machine has."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from tests.attacks._attack import (
    CONSENT,
    FINE,
    REFUSE,
    Attack,
    dense,
    h5,
    keras,
    layer,
    model,
    old,
    old_model,
    zipped,
)

CODE = {"class_name": "__lambda__", "config": {"code": "4wAAAAA=", "defaults": None, "closure": None}}
LAMBDA = layer("Lambda", name="magic", function=CODE)
NPZ_NAME = "model_weights.npz"


def attacks() -> Iterator[Attack]:
    for slug, config in REFUSED.items():
        yield _keras(slug, config, REFUSE)
    for slug, config in CONSENTED.items():
        yield _keras(slug, config, CONSENT)
    for slug, config in HONEST.items():
        yield _keras(slug, config, FINE)
    for slug, config in OLD_REFUSED.items():
        yield _h5(slug, config, REFUSE)
    for slug, config in OLD_CONSENTED.items():
        yield _h5(slug, config, CONSENT)
    for slug, text in YAML.items():
        yield Attack(f"yaml-{slug}", "model.zip", lambda text=text: _yaml(text), REFUSE)  # type: ignore[misc]


def _keras(slug: str, config: Any, expected: str) -> Attack:
    return Attack(f"config-{slug}", "model.keras", lambda: keras(config), expected)


def _h5(slug: str, config: Any, expected: str) -> Attack:
    return Attack(f"config-{slug}", "model.h5", lambda: h5(config), expected)


def _with(**config: Any) -> dict[str, Any]:
    return model(dense(**config))


def _nested(inner: Any, levels: int = 3) -> Any:
    """The layer inside models inside models."""
    for number in range(levels):
        config = {"name": f"inner_{number}", "layers": [inner]}
        inner = {"module": "keras", "class_name": "Sequential", "config": config, "registered_name": None}
    return inner


def _function(name: str, module: str = "builtins") -> dict[str, Any]:
    return {"module": module, "class_name": "function", "config": name, "registered_name": "function"}


def _called(name: str, module: str | None, registered: str | None = None) -> dict[str, Any]:
    return model(dense(), layer(name, module, registered, name="bad"))


def _deep_list(levels: int) -> str:
    return json.dumps(model(dense())).replace('"linear"', "[" * levels + "]" * levels)


TEXT = json.dumps(model(dense()))
REFUSED: dict[str, Any] = {
    "system": _called("system", "os"),
    "posix-system": _called("system", "posix", "Custom>system"),
    "registered-as-dense": _called("Popen", "subprocess", "Dense"),
    "dense-of-os": _called("Dense", "os"),
    "load-model": _called("load_model", "keras.saving"),
    "get-file": _called("get_file", "keras.utils"),
    "unsafe-switch": _called("enable_unsafe_deserialization", "keras.config"),
    "func-load": _called("func_load", "keras.src.utils.python_utils"),
    "numpy": _called("fromfile", "numpy"),
    "tensorflow-file": _called("read_file", "tensorflow.io"),
    "keras-backdoor": _called("os", "keras.src.utils.file_utils"),
    "dotted-class": _called("layers.os.system", "keras.src"),
    "class-is-list": model(dense(), {"module": "os", "class_name": ["system"], "config": {}, "registered_name": None}),
    "module-is-list": model(dense(), {"module": ["os"], "class_name": "Dense", "config": {"units": 1}}),
    "as-activation": _with(activation=_function("system", "os")),
    "function-of-utils": model({**_function("get_file", "keras.utils"), "name": "x", "inbound_nodes": []}),
    "function-of-config": model({**_function("enable_unsafe_deserialization", "keras.config"), "name": "x"}),
    "function-of-saving": _with(activation=_function("load_model", "keras.saving")),
    "function-of-helpers": _with(activation=_function("func_load", "keras.src.utils.python_utils")),
    "as-builtin": _with(activation=_function("eval")),
    "as-initializer": _with(kernel_initializer=layer("system", "os", command="true")),
    "as-regularizer": _with(kernel_regularizer=layer("eval", "builtins", source="1")),
    "as-constraint": _with(bias_constraint=layer("import_module", "importlib", name="os")),
    "as-dtype": _with(dtype=layer("run", "subprocess", args=["true"])),
    "as-build-config": model({**dense(), "build_config": layer("system", "os")}),
    "as-loss": model(dense(), compile_config={"loss": _function("system", "os"), "optimizer": "adam"}),
    "as-metric": model(dense(), compile_config={"loss": "mse", "metrics": [[layer("system", "os")]]}),
    "as-optimizer": model(dense(), compile_config={"optimizer": layer("Popen", "subprocess", args=["true"])}),
    "in-inbound-nodes": model({**dense(), "inbound_nodes": [{"args": [layer("system", "os")], "kwargs": {}}]}),
    "in-wrapper": model(layer("TimeDistributed", name="w", layer=layer("system", "os", name="bad"))),
    "deep-inside": model(_nested(layer("system", "os", name="bad"), 6), dense()),
    "saved-model-layer": model(layer("TFSMLayer", filepath="/etc/larder", name="bad")),
    "saved-model-layer-wrapped": model(
        layer("TimeDistributed", name="w", layer=layer("TFSMLayer", "keras.src.export.tfsm_layer", filepath="../x"))
    ),
    "vocabulary": model(layer("StringLookup", name="bad", vocabulary="/etc/passwd")),
    "integer-vocabulary": model(layer("IntegerLookup", name="bad", vocabulary="../../neighbour.txt")),
    "text-vocabulary": model(_nested(layer("TextVectorization", name="bad", vocabulary="assets/../../x.txt"))),
    "idf-weights": model(layer("TextVectorization", name="bad", idf_weights="/etc/passwd", output_mode="tf_idf")),
    "vocabulary-file": model(layer("IndexLookup", name="bad", vocabulary_file="/etc/passwd")),
    "tokenizer": model(layer("TextVectorization", name="bad", vocabulary={"file": "/etc/passwd"})),
    "units": model(layer("Dense", name="dense", units=10**12)),
    "units-negative": model(layer("Dense", name="dense", units=-5)),
    "filters": model(layer("Conv2D", name="c", filters=2**40, kernel_size=3)),
    "embedding": model(layer("Embedding", name="e", input_dim=10**11, output_dim=64)),
    "repeat": model(layer("RepeatVector", name="r", n=10**12), dense()),
    "padding": model(layer("ZeroPadding2D", name="p", padding=[10**9, 10**9]), dense()),
    "tensor-shape": model(dense(), layer("Reshape", name="r", target_shape=[10**9, 10**9])),
    "nan": TEXT.replace('"units": 2', '"units": NaN'),
    "infinity": TEXT.replace('"units": 2', '"units": -Infinity'),
    "overflow": TEXT.replace('"units": 2', '"units": 1e999'),
    "long-number": TEXT.replace('"units": 2', '"units": ' + "9" * 5000),
    "key-twice": TEXT.replace('"units": 2', '"units": 2, "units": 3'),
    "class-twice": TEXT.replace('"class_name": "Dense"', '"class_name": "Dense", "class_name": "system"'),
    "deep": _deep_list(900),
    "very-deep": _deep_list(200_000),
    "escaped-keys": json.dumps(_called("system", "os")).replace("class_name", "class\\u005fname"),
    "utf-16": json.dumps(_called("system", "os")).encode("utf-16"),
    "utf-32": json.dumps(model(dense())).encode("utf-32"),
    "utf-7": b"+AHs-" + json.dumps(model(dense())).encode(),
    "in-a-text": json.dumps(json.dumps(_called("system", "os"))),
    "surrogate": TEXT.replace('"model"', '"\\ud800"', 1),
}
CONSENTED: dict[str, Any] = {
    "lambda": model(LAMBDA),
    "lambda-wrapped": model(layer("TimeDistributed", name="w", layer=LAMBDA)),
    "lambda-in-bidirectional": model(
        layer("Bidirectional", name="w", layer=layer("LSTM", units=2), backward_layer=LAMBDA)
    ),
    "lambda-nested": model(_nested(LAMBDA, 5)),
    "lambda-renamed": model(layer("Lambda", "keras.src.layers.core.lambda_layer", "Custom>Dense", function=CODE)),
    "lambda-as-activation": _with(activation=CODE),
    "lambda-as-initializer": _with(kernel_initializer=CODE),
    "lambda-as-regularizer": _with(bias_regularizer=CODE),
    "lambda-as-constraint": _with(kernel_constraint=CODE),
    "lambda-as-dtype": _with(dtype=CODE),
    "lambda-in-arguments": model({**dense(), "inbound_nodes": [{"args": [CODE], "kwargs": {}}]}),
    "custom-class": _called("Gate", "my_package.layers", "my_package>Gate"),
    "custom-class-of-main": _called("Gate", "__main__", "Custom>Gate"),
    "custom-class-of-tests": _called("Gate", "tests.layers", "Custom>Gate"),
    "custom-class-of-tools": _called("Gate", "tools.gates", "Custom>Gate"),
    "custom-class-without-module": _called("Gate", None, "Custom>Gate"),
    "custom-activation": _with(activation=_function("my_swish")),
    "custom-wrapped": model(layer("TimeDistributed", name="w", layer=layer("Gate", None, "Custom>Gate"))),
    "custom-initializer": _with(kernel_initializer=layer("MyInit", None, "Custom>MyInit")),
}
HONEST: dict[str, Any] = {
    "honest": model(dense()),
    "honest-regularised": _with(kernel_regularizer=layer("L2", "keras.regularizers", l2=0.1)),
    "honest-policy": _with(dtype=layer("DTypePolicy", "keras", name="mixed_float16")),
    "honest-activation": _with(activation=_function("relu")),
    "honest-function": _with(activation=_function("softsign", "keras.activations")),
    "honest-operation": _with(activation=_function("relu", "keras.ops")),
    "honest-names": model(dense("os.system"), dense("Lambda")),
    "honest-vocabulary": model(layer("StringLookup", name="words", vocabulary=["/etc/passwd", "os.system"])),
    "honest-compiled": model(
        dense(),
        compile_config={
            "optimizer": layer("Adam", "keras.optimizers", learning_rate=0.001),
            "loss": {"module": "keras.losses", "class_name": "MeanSquaredError", "config": {}, "registered_name": None},
            "metrics": ["accuracy"],
        },
    ),
}
OLD_LAMBDA = old("Lambda", name="magic", function=["4wAAAAA=\n", None, None], function_type="lambda", module="os")
OLD_REFUSED: dict[str, Any] = {
    "old-file-operation": old_model(old("TFOpLambda", name="bad", function="io.write_file")),
    "old-raw-operation": old_model(old("TFOpLambda", name="bad", function="raw_ops.ReadFile")),
    "old-python-operation": old_model(old("TFOpLambda", name="bad", function="numpy_function")),
    "old-graph-operation": old_model(
        old("TensorFlowOpLayer", name="bad", node_def='{"name": "w", "op": "WriteFile"}', constants={})
    ),
    "old-graph-operation-text": old_model(
        old("TensorFlowOpLayer", name="bad", node_def='name: "w" op: "ReadFile"', constants={})
    ),
    "old-vocabulary": old_model(old("StringLookup", name="bad", vocabulary="/etc/passwd")),
    "old-module": old_model({"class_name": "Dense", "module": "os", "config": {"units": 2, "name": "dense"}}),
    "old-units": old_model(old("Dense", name="dense", units=10**12)),
    "old-nan": json.dumps(old_model(old("Dense", name="dense", units=2))).replace('"units": 2', '"units": NaN'),
    "old-key-twice": json.dumps(old_model(old("Dense", name="d", units=2))).replace('"units"', '"units": 9, "units"'),
}
OLD_CONSENTED: dict[str, Any] = {
    "old-lambda": old_model(OLD_LAMBDA),
    "old-lambda-wrapped": old_model(old("TimeDistributed", name="w", layer=OLD_LAMBDA)),
    "old-lambda-nested": old_model(old_model(old_model(OLD_LAMBDA))),
    "old-custom": old_model(old("Gate", name="g")),
    "old-custom-activation": old_model(old("Dense", name="dense", units=2, activation="my_swish")),
}
SEQUENTIAL = "backend: tensorflow\nclass_name: Sequential\nkeras_version: 2.2.4-tf\nconfig:\n  name: m\n  layers:\n"
DENSE = "  - class_name: Dense\n    config: {name: dense, units: 2, batch_input_shape: [null, 4]}\n"
YAML = {
    "python": SEQUENTIAL + "  - !!python/object/apply:os.system ['true']\n",
    "python-name": SEQUENTIAL + "  - !!python/name:os.system\n",
    "python-module": SEQUENTIAL + "  - !!python/object/new:subprocess.Popen [['true']]\n",
    "anchors": SEQUENTIAL.replace("config:\n", "a: &a [1,1,1,1,1,1,1,1,1]\n" + "".join(
        f"{new}: &{new} [{','.join([f'*{before}'] * 9)}]\n" for before, new in zip("abcdefgh", "bcdefghi", strict=True)
    ) + "config:\n") + DENSE,
    "cycle": SEQUENTIAL + "  - &a\n    class_name: Dense\n    config: {name: d, units: 2, more: *a}\n",
    "key-twice": SEQUENTIAL + DENSE.replace("units: 2", "units: 2, units: 3"),
    "deep": SEQUENTIAL + "  - " + "[" * 2000 + "]" * 2000 + "\n",
    "nan": SEQUENTIAL + DENSE.replace("units: 2", "units: .nan"),
    "two-documents": SEQUENTIAL + DENSE + "---\nclass_name: x\nconfig: {}\n",
    "system": SEQUENTIAL + DENSE + "  - class_name: system\n    module: os\n    config: {name: x}\n",
}  # fmt: skip


def _yaml(text: str) -> bytes:
    import io

    import numpy as np

    buffer = io.BytesIO()
    np.savez(buffer, np.ones((4, 2), "float32"), np.ones(2, "float32"))
    return zipped({"architecture.yaml": text, NPZ_NAME: buffer.getvalue()})
