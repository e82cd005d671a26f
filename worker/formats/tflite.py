"""TensorFlow Lite: one flatbuffer with a finished graph, run by LiteRT on phones, boards and servers.

Specification: https://ai.google.dev/edge/litert (schema ``TFL3``).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from worker.errors import ConverterFailed, CorruptFile, UnsupportedOperation
from worker.formats._format import Converter, Format, Hop, Loaded, Sample, Summary, TensorSpec
from worker.formats._frozen import frozen
from worker.formats._live import fetch

if TYPE_CHECKING:
    import numpy as np

    from worker.formats._format import Arrays

LABEL = "TensorFlow Lite"
IDENTIFIER = b"TFL3"
# The operations that the converter names when it has no TensorFlow Lite operation for them
REFUSED = re.compile(r"'tf\.(\w+)' op|^\s*tf\.(\w+)\(", re.MULTILINE)


def sniff(sample: Sample) -> bool:
    """A flatbuffer carries its identifier after the offset of its root."""
    return sample.head[4:8] == IDENTIFIER


def inspect(path: Path, scratch: Path) -> Summary:
    """Inputs, outputs and signatures as the flatbuffer declares them; no tensor is allocated."""
    interpreter = _interpreter(path)
    return Summary(
        inputs=tuple(map(_spec, interpreter.get_input_details())),
        outputs=tuple(map(_spec, interpreter.get_output_details())),
        dtypes=tuple(sorted({_dtype(item["dtype"]) for item in interpreter.get_tensor_details()})),
        signatures=tuple(sorted(interpreter.get_signature_list())),
        traits=frozenset({"weights"}),
    )


def _interpreter(path: Path) -> Any:
    from ai_edge_litert.interpreter import Interpreter

    try:
        return Interpreter(model_path=str(path), num_threads=1)
    except (ValueError, RuntimeError) as error:
        raise CorruptFile(name=path.name, problem=f"LiteRT cannot read it ({_first_line(error)})") from error


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:300]


def _spec(details: dict[str, Any], name: str = "") -> TensorSpec:
    """-1 in ``shape_signature`` is a free dimension; where it is empty, the shape is fixed."""
    signature = details.get("shape_signature", ())
    shape = signature if len(signature) else details["shape"]
    return TensorSpec(
        name or details["name"], tuple(None if size < 0 else int(size) for size in shape), _dtype(details["dtype"])
    )


def _dtype(kind: Any) -> str:
    import numpy as np

    dtype = np.dtype(kind)
    return "string" if dtype.kind in "SOU" else dtype.name


def load(path: Path, scratch: Path) -> Loaded:
    """The first signature, or else the bare graph, in LiteRT."""
    interpreter = _interpreter(path)
    if interpreter.get_signature_list():
        return _signature(interpreter)
    return _bare(interpreter)


def _signature(interpreter: Any) -> Loaded:
    names = interpreter.get_signature_list()
    runner = interpreter.get_signature_runner("serving_default" if "serving_default" in names else min(names))
    inputs = tuple(_spec(item, name) for name, item in sorted(runner.get_input_details().items()))
    outputs = tuple(_spec(item, name) for name, item in sorted(runner.get_output_details().items()))

    def run(arrays: Arrays) -> Arrays:
        results = runner(**{spec.name: _array(arrays[spec.name], spec) for spec in inputs})
        return {spec.name: fetch(results[spec.name]) for spec in outputs}

    return Loaded(inputs, outputs, run, _no_weights)


def _bare(interpreter: Any) -> Loaded:
    inputs, outputs = interpreter.get_input_details(), interpreter.get_output_details()

    def run(arrays: Arrays) -> Arrays:
        for item in inputs:
            interpreter.resize_tensor_input(item["index"], arrays[item["name"]].shape)
        interpreter.allocate_tensors()
        for item in inputs:
            interpreter.set_tensor(item["index"], _array(arrays[item["name"]], _spec(item)))
        interpreter.invoke()
        return {item["name"]: fetch(interpreter.get_tensor(item["index"])) for item in outputs}

    return Loaded(tuple(map(_spec, inputs)), tuple(map(_spec, outputs)), run, _no_weights)


def _array(array: np.ndarray, spec: TensorSpec) -> np.ndarray:
    import numpy as np

    return np.asarray(array).astype(object if spec.dtype == "string" else spec.dtype)


def _no_weights() -> Iterator[tuple[str, np.ndarray]]:
    """Constants are folded and reordered while converting; the values alone tell whether they are right."""
    yield from ()


def from_saved_model(source: Path, target: Path, hop: Hop) -> None:
    """Convert the signature after its variables were folded. ``from_saved_model`` of the converter itself leaves
    variables uninitialised in what Keras 3 exported, and says nothing."""
    import tensorflow as tf

    function, module = frozen(source, hop)
    converter = tf.lite.TFLiteConverter.from_concrete_functions([function], module)
    try:
        target.write_bytes(converter.convert())
    except Exception as error:  # MLIR reports everything through one private exception type
        raise _refusal(error) from error


def _refusal(error: Exception) -> ConverterFailed | UnsupportedOperation:
    found = {first or second for first, second in REFUSED.findall(str(error))}
    if not found:
        return ConverterFailed(target=LABEL, doing="Converting to TensorFlow Lite", problem=_first_line(error))
    problem = "TensorFlow Lite has no such operation for these shapes; keep the SavedModel, or fix the free dimensions"
    return UnsupportedOperation(target=LABEL, operation=", ".join(sorted(found)), problem=problem)


FORMAT = Format(
    label=LABEL,
    suffixes=(".tflite",),
    sniff=sniff,
    inspect=inspect,
    load=load,
    converts_from={"saved_model": Converter(from_saved_model)},
    keeps=frozenset({"weights", "graph"}),
    snippet="""from ai_edge_litert.interpreter import Interpreter

interpreter = Interpreter("{file}")
signature = interpreter.get_signature_runner()
print(signature.get_input_details(), signature.get_output_details())
""",
    needs=("tensorflow", "ai_edge_litert"),
    no_way_out="it holds a finished graph for one runtime, which is not turned back into a model.",
)
