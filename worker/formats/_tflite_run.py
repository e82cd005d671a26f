"""Running a TensorFlow Lite file in LiteRT."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from worker.errors import CorruptFile, ModelError, NotRunnable
from worker.formats import _tflite_file
from worker.formats._format import Loaded, TensorSpec, no_weights
from worker.formats._live import fetch
from worker.translation import first_line, translated

if TYPE_CHECKING:
    import numpy as np

    from worker.formats._format import Arrays


def load(path: Path) -> Loaded:
    """The first signature, or else the bare graph. NotRunnable where it needs operations of an application or of
    TensorFlow itself."""
    interpreter = open_interpreter(path)
    if interpreter.get_signature_list():
        return _signature(interpreter)
    return _bare(interpreter)


def open_interpreter(path: Path) -> Any:
    """LiteRT with the file's tensors in place; CorruptFile and NotRunnable as ``load`` raises them."""
    from ai_edge_litert.interpreter import Interpreter

    declared = _tflite_file.read(path)
    if declared.flex:
        operations = ", ".join(declared.flex[:5])
        raise NotRunnable(problem=f"it needs the Flex delegate for {operations}, which LiteRT does not bring")
    try:
        interpreter = Interpreter(model_path=str(path), num_threads=1)
        interpreter.allocate_tensors()
    except (ValueError, RuntimeError) as error:
        if declared.custom and "custom op" in str(error):
            names = ", ".join(declared.custom)
            raise NotRunnable(problem=f"it needs {names}, operations that only its own application has") from error
        problem = first_line(str(error)) or type(error).__name__
        raise CorruptFile(name=path.name, problem=f"LiteRT cannot read it ({problem})") from error
    return interpreter


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


def _signature(interpreter: Any) -> Loaded:
    names = interpreter.get_signature_list()
    runner = interpreter.get_signature_runner(_tflite_file.choose(names))
    details, results = runner.get_input_details(), runner.get_output_details()
    inputs = tuple(_spec(details[name], name) for name in _ordered(details, interpreter.get_input_details()))
    outputs = tuple(_spec(results[name], name) for name in _ordered(results, interpreter.get_output_details()))

    def run(arrays: Arrays) -> Arrays:
        with translated("Running the model", otherwise=ModelError):
            answers = runner(**{spec.name: _array(arrays[spec.name], details[spec.name]) for spec in inputs})
        return {spec.name: fetch(answers[spec.name]) for spec in outputs}

    return Loaded(inputs, outputs, _row_by_row(inputs, run), no_weights)


def _ordered(named: Mapping[str, Any], tensors: list[dict[str, Any]]) -> list[str]:
    """The names of a signature, which has no order, in the order of the graph's tensors."""
    places = {item["index"]: place for place, item in enumerate(tensors)}
    return sorted(named, key=lambda name: (places.get(named[name]["index"], len(places)), name))


def _bare(interpreter: Any) -> Loaded:
    inputs, outputs = interpreter.get_input_details(), interpreter.get_output_details()
    specs = tuple(map(_spec, inputs))

    def run(arrays: Arrays) -> Arrays:
        with translated("Running the model", otherwise=ModelError):
            for item in inputs:
                interpreter.resize_tensor_input(item["index"], arrays[item["name"]].shape)
            interpreter.allocate_tensors()
            for item in inputs:
                interpreter.set_tensor(item["index"], _array(arrays[item["name"]], item))
            interpreter.invoke()
        return {item["name"]: fetch(interpreter.get_tensor(item["index"])) for item in outputs}

    return Loaded(specs, tuple(map(_spec, outputs)), _row_by_row(specs, run), no_weights)


def _row_by_row(specs: tuple[TensorSpec, ...], run: Callable[[Arrays], Arrays]) -> Callable[[Arrays], Arrays]:
    """A graph for one row, given several, runs once for each of them. Its tensors could be made larger, but what the
    converter worked out for one row would stay as it was."""
    single = [spec.name for spec in specs if spec.shape and spec.shape[0] == 1]

    def run_rows(arrays: Arrays) -> Arrays:
        import numpy as np

        counts = {len(arrays[name]) for name in single}
        rows = counts.pop() if len(counts) == 1 else 1
        if rows == 1:
            return run(arrays)
        answers = [run(_row(arrays, single, row)) for row in range(rows)]
        return {name: np.concatenate([answer[name] for answer in answers]) for name in answers[0]}

    return run_rows


def _row(arrays: Arrays, single: list[str], row: int) -> Arrays:
    return {name: array[row : row + 1] if name in single else array for name, array in arrays.items()}


def _array(array: np.ndarray, details: Mapping[str, Any]) -> np.ndarray:
    """The array in the tensor's type; numbers with a point become whole ones by the tensor's own scale."""
    import numpy as np

    array, dtype = np.asarray(array), _dtype(details["dtype"])
    if dtype == "string":
        return array.astype(object)
    scale, zero = details.get("quantization", (0.0, 0))
    if scale and array.dtype.kind == "f" and np.dtype(dtype).kind in "iu":
        limits = np.iinfo(dtype)
        array = np.clip(np.round(array / scale) + zero, limits.min, limits.max)
    return array.astype(dtype)
