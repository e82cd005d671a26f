"""OpenVINO IR: a graph in XML and its weights in a binary file, run by OpenVINO on Intel's processors.

Specification: https://docs.openvino.ai/2025/documentation/openvino-ir-format.html.
"""

from __future__ import annotations

import math
import re
import shutil
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from worker import archive
from worker.errors import ConverterFailed, CorruptFile, LarderError, ModelError, UnsupportedOperation
from worker.formats import _inner_runtimes, _onnx_file, _openvino_weights, _saved_model, onnx, saved_model
from worker.formats._files import files_below, the_only, unpacked
from worker.formats._format import (
    Converter,
    Format,
    Hop,
    LayerRow,
    Loaded,
    Option,
    Room,
    Sample,
    Summary,
    TensorSpec,
    Tolerance,
)
from worker.formats._frozen import Wish, built, note_dropped, plain
from worker.translation import first_line

if TYPE_CHECKING:
    import numpy as np

    from worker.formats._format import Arrays

LABEL = "OpenVINO IR"
EXACT, HALF = Tolerance(rtol=1e-5, atol=1e-6), Tolerance(rtol=1e-2, atol=1e-3)
# One thread, and float32 computed as float32: without the hint OpenVINO takes bfloat16 where the processor has it
PROPERTIES = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}
DTYPES = {"f16": "float16", "f32": "float32", "f64": "float64", "bf16": "bfloat16", "boolean": "bool"}
DTYPES |= {f"{kind}{bits}": f"{name}{bits}" for kind, name in (("i", "int"), ("u", "uint")) for bits in (8, 16, 32, 64)}
# How OpenVINO names the operations that it cannot read, and those that its extensions could
REFUSED = re.compile(
    r"No conversion rule found for operations: ([\w., ]+)|conversion extension\(s\): ([\w, ]+)"
    r"|Conversion is failed for: ([\w., -]+)"
)


# Reading ----------------------------------------------------------------------------------------------------------


def sniff(sample: Sample) -> bool:
    """An archive with exactly one .xml file, and a .bin file of the same name beside it."""
    paths = [PurePosixPath(member.name) for member in sample.members]
    graphs = [path for path in paths if path.suffix == ".xml" and not path.name.startswith("._")]
    return len(graphs) == 1 and graphs[0].with_suffix(".bin") in paths


def inspect(path: Path, scratch: Path) -> Summary:
    """The interface, the kinds of operations and the sizes; the graph is read, nothing is compiled."""
    model = _read(path, scratch)
    stored = [node for node in model.get_ops() if node.get_type_name() == "Constant"]
    floating = [node for node in stored if "f" in node.get_element_type().get_type_name()]
    kinds = Counter(node.get_type_name() for node in model.get_ops())
    return Summary(
        inputs=tuple(map(_spec, model.inputs)),
        outputs=tuple(map(_spec, model.outputs)),
        layers=tuple(LayerRow(kind, f"{count} ×", "", "", 0) for kind, count in sorted(kinds.items())),
        parameters=sum(node.get_output_size() and math.prod(node.get_output_shape(0)) for node in floating),
        dtypes=tuple(sorted({_dtype(node.get_element_type()) for node in floating})),
        producer={"openvino": _written_by(model)},
        traits=frozenset({"weights"}),
    )


def _written_by(model: Any) -> str:
    return str(model.get_rt_info("Runtime_version").astype(str)) if model.has_rt_info("Runtime_version") else "?"


def _read(path: Path, scratch: Path) -> Any:
    root = unpacked(path, scratch)
    return _parse(the_only(files_below(root, lambda name: name.endswith(".xml")), root, path.name, "one .xml file"))


def _library() -> Any:
    """OpenVINO without its telemetry, which starts a process and calls its makers as soon as OpenVINO is imported; it
    does without where that package is missing."""
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    import openvino

    return openvino


def _parse(graph: Path) -> Any:
    """The graph of the IR."""
    try:
        return _library().Core().read_model(str(graph))
    except RuntimeError as error:
        raise CorruptFile(name=graph.name, problem=f"OpenVINO cannot read it ({_reason(error)})") from error


def read_foreign(source: Path) -> Any:
    """A file or folder of another format as OpenVINO reads it by itself."""
    try:
        return _library().Core().read_model(str(source))
    except RuntimeError as error:
        raise ModelError(problem=f"OpenVINO says: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    """The last line that says something: before it stand the places in OpenVINO's source."""
    lines = [
        line for line in str(error).splitlines() if line.strip() and not line.startswith(("Exception from", "Check"))
    ]
    return first_line(lines[-1]) if lines else type(error).__name__


def _spec(port: Any) -> TensorSpec:
    shape = port.get_partial_shape()
    known = None if shape.rank.is_dynamic else tuple(None if size.is_dynamic else size.get_length() for size in shape)
    return TensorSpec(_name(port), known, _dtype(port.get_element_type()))


def _name(port: Any) -> str:
    """The node's own name where it is one of the tensor's: several outputs may share one tensor and its names."""
    names, own = port.get_names(), port.get_node().get_friendly_name()
    return str(own if own in names or not names else sorted(names)[0])


def _dtype(kind: Any) -> str:
    name = str(kind.get_type_name())
    return DTYPES.get(name, name)


def load(path: Path, scratch: Path) -> Loaded:
    """The graph, compiled for the CPU."""
    return compiled(_read(path, scratch))


def compiled(model: Any) -> Loaded:
    """A graph of OpenVINO's, wherever it was read from, compiled for the CPU."""
    try:
        program = _library().Core().compile_model(model, "CPU", PROPERTIES)
    except RuntimeError as error:
        raise ModelError(problem=f"OpenVINO says: {_reason(error)}") from error
    inputs, outputs = tuple(map(_spec, model.inputs)), tuple(map(_spec, model.outputs))

    def fed(arrays: Arrays) -> list[np.ndarray]:
        return [_onnx_file.feed(arrays[item.name], item.dtype) for item in inputs]

    def run(arrays: Arrays) -> Arrays:
        results = program(fed(arrays))
        return {item.name: _onnx_file.fetch(results[place]) for place, item in enumerate(outputs)}

    def inner(arrays: Arrays) -> Iterator[tuple[str, np.ndarray]]:
        return _inner_runtimes.of_openvino(_library(), model, PROPERTIES, fed(arrays))

    return Loaded(inputs, outputs, run, lambda: _openvino_weights.weights(model), inner=inner)


# Writing ----------------------------------------------------------------------------------------------------------


def from_saved_model(source: Path, target: Path, hop: Hop) -> None:
    """Straight from the SavedModel, which OpenVINO reads itself, loops included; where it does not, through ONNX."""
    loaded = saved_model.load(source, hop.scratch, hop.signature)
    folder = _saved_model.folder_in(source, hop.scratch / "saved_model-source")
    graph = _saved_model.serving_graph(_saved_model.read_proto(folder))
    try:
        folder = _with_one_signature(source, hop) if hop.signature or hop.first is not None else folder
        model = _import(folder, [spec.name for spec in loaded.inputs], [spec.name for spec in loaded.outputs])
    except LarderError as refusal:
        _through_onnx(source, target, hop, refusal)
        return
    note_dropped(graph, hop)
    _write(model, target, hop)


def _with_one_signature(source: Path, hop: Hop) -> Path:
    """The folder of a SavedModel whose serving signature is the one that is asked for: OpenVINO reads no other."""
    import tensorflow as tf

    function, module = built(plain(source, replace(hop, findings=[]), Wish(loops=True)), variables=True)
    folder = hop.scratch / "openvino-source"
    shutil.rmtree(folder, ignore_errors=True)
    options = tf.saved_model.SaveOptions(experimental_custom_gradients=False)
    tf.saved_model.save(module, str(folder), {"serving_default": function}, options)
    return folder


def _through_onnx(source: Path, target: Path, hop: Hop, refusal: LarderError) -> None:
    """ONNX writes some operations with others that OpenVINO knows; what it refuses is told as OpenVINO told it."""
    between = hop.scratch / "between.onnx"
    through = replace(hop, options={})
    try:
        onnx.from_saved_model(source, between, through)
        from_onnx(between, target, hop)
    except LarderError:
        raise refusal from None


def from_onnx(source: Path, target: Path, hop: Hop) -> None:
    """As OpenVINO reads ONNX; what it does not read there, its loops for one, as TensorFlow operations."""
    file = _onnx_file.model_in(source, hop.scratch)
    graph = _onnx_file.read(file).graph
    inputs, outputs = _onnx_file.inputs_of(graph), _onnx_file.outputs_of(graph)
    names = [spec.name for spec in inputs], [spec.name for spec in outputs]
    try:
        model = _import(file if file.suffix == _onnx_file.SUFFIX else _named(file, hop), *names)
    except LarderError as refusal:
        model = _through_tensorflow(file, names, hop, refusal)
    _write(model, target, hop)


def _through_tensorflow(file: Path, names: tuple[list[str], list[str]], hop: Hop, refusal: LarderError) -> Any:
    through = Hop(hop.scratch)
    try:
        onnx.to_saved_model(file, hop.scratch / "between.zip", through)
        return _import(hop.scratch / onnx.SAVED_MODEL, *names)
    except LarderError:
        raise refusal from None


def _named(file: Path, hop: Hop) -> Path:
    copy = hop.scratch / "source.onnx"
    shutil.copyfile(file, copy)
    return copy


def _import(source: Path, inputs: list[str], outputs: list[str]) -> Any:
    """The source as OpenVINO's graph with exactly these names; an error where it has others."""
    try:
        model = _library().Core().read_model(str(source))
    except RuntimeError as error:
        raise _refusal(error) from error
    if any(port.get_partial_shape().rank.is_dynamic for port in model.inputs):
        problem = "OpenVINO has to know how many dimensions an input has"
        raise UnsupportedOperation(target=LABEL, operation="inputs of any rank", problem=problem)
    if not (_give_names(model.inputs, inputs) and _give_names(model.outputs, outputs)):
        problem = "OpenVINO read other inputs or outputs than the signature has"
        raise ConverterFailed(target=LABEL, doing="Converting to OpenVINO", problem=problem)
    return _in_order(model, inputs, outputs)


def _in_order(model: Any, inputs: list[str], outputs: list[str]) -> Any:
    """The graph with its inputs and outputs in the order of the signature."""
    parameters = {node.get_friendly_name(): node for node in model.get_parameters()}
    results = {node.get_friendly_name(): node for node in model.get_results()}
    ends = [results[name] for name in outputs], model.get_sinks(), [parameters[name] for name in inputs]
    return _library().Model(*ends, model.get_friendly_name())


def _give_names(ports: list[Any], names: list[str]) -> bool:
    """Name every port as the signature does; False where they do not correspond one to one."""
    left = list(ports)
    for name in names:
        port = next((item for item in left if name in item.get_names()), None)
        if port is None:
            return False
        left.remove(port)
        port.get_node().set_friendly_name(name)
    return not left


def _refusal(error: Exception) -> ConverterFailed | UnsupportedOperation:
    found = next((name for match in REFUSED.finditer(str(error)) for name in match.groups() if name), "")
    if found:
        problem = "OpenVINO has no such operation; keep the SavedModel, or take that layer out of the model"
        return UnsupportedOperation(target=LABEL, operation=found.strip(" ."), problem=problem)
    return ConverterFailed(target=LABEL, doing="Converting to OpenVINO", problem=_reason(error))


def _write(model: Any, target: Path, hop: Hop) -> None:
    """``save_model`` halves the precision of the weights unless it is told not to."""
    folder = hop.scratch / "result-openvino"
    folder.mkdir()
    half = hop.options.get("precision", "float32") == "float16"
    _library().save_model(model, str(folder / "model.xml"), compress_to_fp16=half)
    archive.pack(folder, target)


def _tolerance(options: Mapping[str, Any]) -> Tolerance:
    return HALF if options.get("precision") == "float16" else EXACT


FORMAT = Format(
    label=LABEL,
    suffixes=(".zip",),
    sniff=sniff,
    inspect=inspect,
    load=load,
    converts_from={"saved_model": Converter(from_saved_model), "onnx": Converter(from_onnx)},
    keeps=frozenset({"weights", "graph"}),
    tolerance=EXACT,
    tolerance_for=_tolerance,
    refuses={"strings": "OpenVINO has no operations on text; turn it into numbers before the model."},
    room=Room(memory=4.0),
    options=(
        Option(
            "precision", str, "float32", "How the weights are stored: float16 halves the file.", ("float32", "float16")
        ),
    ),
    snippet="""import tempfile
import zipfile

import openvino

folder = tempfile.mkdtemp()
with zipfile.ZipFile("{file}") as archive:
    archive.extractall(folder)
model = openvino.Core().read_model(folder + "/model.xml")
compiled = openvino.Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
print(compiled.inputs, compiled.outputs)
""",
    needs=("openvino", "tensorflow", "tf2onnx", "onnx"),
    no_way_out="it holds a finished graph for one runtime, which is not turned back into a model.",
)
