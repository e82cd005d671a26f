"""Core ML: a package with a program for Apple's devices, written here and run there.

Specification: https://apple.github.io/coremltools/mlmodel
"""

from __future__ import annotations

import contextlib
import io
import json
import logging
import math
import re
import shutil
import tempfile
import traceback
import uuid
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from worker import archive
from worker.errors import ConverterFailed, CorruptFile, UnsupportedOperation
from worker.formats import _coreml_weights, _graphs
from worker.formats._files import files_below, the_only, unpacked
from worker.formats._format import Converter, Format, Hop, Option, Room, Sample, Summary, TensorSpec
from worker.formats._frozen import Wish, frozen
from worker.report import Severity, declare
from worker.translation import first_line

if TYPE_CHECKING:
    import numpy as np

LABEL = "Core ML"
MANIFEST = "Manifest.json"
PACKAGE = "model.mlpackage"
AUTHOR = "com.apple.CoreML"
SPECIFICATION = "model.mlmodel"
DTYPES = {65552: "float16", 65568: "float32", 65600: "float64", 131104: "int32", 131080: "int8"}
TAKEN = frozenset({"float16", "float32", "float64", "int32", "int64", "bfloat16"})
LOOPS = frozenset({"While", "StatelessWhile", "If", "StatelessIf"})
REFUSED = re.compile(r"TF op '(\w+)'|op (?:type )?'(\w+)'")
BOUNDED = declare(
    "coreml-bounded",
    Severity.NOTE,
    "Core ML wants a bound for every free dimension: {names} take up to {most} along theirs.",
)
INT32 = declare(
    "coreml-int32",
    Severity.NOTE,
    "Core ML has whole numbers of 32 bits: it takes and gives {names} as int32.",
)
HALF = declare("coreml-half", Severity.WARNING, "The weights were rounded to float16, in which Core ML computes here.")


def sniff(sample: Sample) -> bool:
    """The list of a package's items, one of which is Core ML's."""
    listed = [text for text in sample.texts.values() if '"itemInfoEntries"' in text and "com.apple.CoreML" in text]
    return sample.container != "file" and len(listed) == 1


# Reading ----------------------------------------------------------------------------------------------------------


def inspect(path: Path, scratch: Path) -> Summary:
    """Inputs, outputs and the sizes of the constants as the specification declares them; nothing is compiled."""
    spec = read_spec(path, scratch / "coreml-source")
    metadata = spec.description.metadata
    constants = list(_constants(spec))
    return Summary(
        inputs=tuple(map(_tensor_spec, spec.description.input)),
        outputs=tuple(map(_tensor_spec, spec.description.output)),
        parameters=sum(size for size, _ in constants) if constants else None,
        dtypes=tuple(sorted({dtype for _, dtype in constants})),
        producer={_short(key): str(value) for key, value in sorted(metadata.userDefined.items()) if "version" in key},
        traits=frozenset({"weights"}),
    )


def read_spec(path: Path, scratch: Path) -> Any:
    """The specification in a packed package, as a protocol buffer."""
    return _parsed(_specification(path, scratch))


def weights(path: Path, scratch: Path) -> Iterator[tuple[str, np.ndarray]]:
    """The constants of its program that are numbers with a point."""
    file = _specification(path, scratch / "coreml-weights")
    return _coreml_weights.weights(_parsed(file), file.parent)


def _specification(path: Path, scratch: Path) -> Path:
    folder = unpacked(path, scratch)
    manifest = the_only(files_below(folder, lambda name: name == MANIFEST), folder, path.name, MANIFEST)
    try:
        listed = json.loads(manifest.read_bytes())
        item = listed["itemInfoEntries"][listed["rootModelIdentifier"]]
        file = manifest.parent / "Data" / str(item["path"])
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise CorruptFile(name=path.name, problem=f"its {MANIFEST} names no model") from error
    if not file.resolve().is_relative_to(folder.resolve()) or not file.is_file():
        raise CorruptFile(name=path.name, problem=f"its {MANIFEST} names a file that is not in the package")
    return file


def _parsed(file: Path) -> Any:
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

    with _quiet():
        from coremltools.proto import Model_pb2
    try:
        spec = Model_pb2.Model.FromString(file.read_bytes())
    except DecodeError as error:
        raise CorruptFile(name=file.name, problem="it is not a specification of Core ML") from error
    if not spec.specificationVersion or not spec.description.ListFields():
        raise CorruptFile(name=file.name, problem="it describes no model")
    return spec


def _short(key: str) -> str:
    return "coremltools" if key.startswith("com.github.apple.coremltools") else key.split(".")[-1]


def _tensor_spec(feature: Any) -> TensorSpec:
    kind = feature.type.WhichOneof("Type")
    if kind == "multiArrayType":
        array = feature.type.multiArrayType
        return TensorSpec(feature.name, _shape(array), DTYPES.get(array.dataType, "float32"))
    if kind == "imageType":
        image = feature.type.imageType
        return TensorSpec(feature.name, (1, image.height, image.width, None), "uint8")
    plain = {"int64Type": "int64", "doubleType": "float64", "stringType": "string"}
    return TensorSpec(feature.name, (), plain[kind]) if kind in plain else TensorSpec(feature.name, None, str(kind))


def _shape(array: Any) -> tuple[int | None, ...] | None:
    """A range whose ends differ is a free dimension. Outputs of a program may say nothing."""
    ranges = array.shapeRange.sizeRanges
    if ranges:
        return tuple(int(item.lowerBound) if item.lowerBound == item.upperBound else None for item in ranges)
    return tuple(int(size) for size in array.shape) or None


def _constants(spec: Any) -> Iterator[tuple[int, str]]:
    """How many numbers each floating constant of a program holds, and their dtype."""
    from coremltools.proto import MIL_pb2

    for function in spec.mlProgram.functions.values():
        for block in function.block_specializations.values():
            for operation in block.operations:
                kind = operation.attributes["val"].type.tensorType if operation.type == "const" else None
                if kind is not None and kind.dataType in (MIL_pb2.FLOAT16, MIL_pb2.FLOAT32, MIL_pb2.FLOAT64):
                    size = math.prod(int(item.constant.size) for item in kind.dimensions)
                    yield size, MIL_pb2.DataType.Name(kind.dataType).lower()


# Writing ----------------------------------------------------------------------------------------------------------


def from_saved_model(source: Path, target: Path, hop: Hop) -> None:
    """Convert the signature after its variables were folded, then give inputs and outputs their own names back."""
    function, module = frozen(source, hop, Wish(single=True, loops=True))
    inputs = [(tensor.name.split(":")[0], tensor) for tensor in function.inputs]
    outputs = sorted(function.structured_outputs.items())
    for name, tensor in inputs:
        _refuse_input(name, tensor)
    _note(inputs, outputs, hop)
    package = hop.scratch / "result-coreml" / PACKAGE
    shutil.rmtree(package.parent, ignore_errors=True)
    package.parent.mkdir(parents=True)
    with _quiet():
        _convert(function, inputs, [name for name, _ in outputs], package, hop)
    archive.pack(package.parent, target)
    shutil.rmtree(package.parent)
    assert module  # it owns the function
    _compare(inputs, [name for name, _ in outputs], read_spec(target, hop.scratch / "coreml-result"))


def _refuse_input(name: str, tensor: Any) -> None:
    problem = ""
    if tensor.dtype.name not in TAKEN:
        problem = f"it is {tensor.dtype.name}, and inputs of Core ML are numbers of 16, 32 or 64 bits"
    elif tensor.shape.rank is None:
        problem = "it may have any number of dimensions, and Core ML wants to know how many"
    elif tensor.shape.rank == 0:
        problem = "it is a single number, and inputs of Core ML have at least one dimension"
    if problem:
        raise UnsupportedOperation(target=LABEL, operation=f"the input {name}", problem=problem)


def _note(inputs: list[tuple[str, Any]], outputs: list[tuple[str, Any]], hop: Hop) -> None:
    free = [name for name, tensor in inputs if None in tensor.shape.as_list()]
    if free:
        hop.add(BOUNDED(names=", ".join(free), most=_most(hop)))
    whole = [name for name, tensor in (*inputs, *outputs) if tensor.dtype.name == "int64"]
    if whole:
        hop.add(INT32(names=", ".join(whole)))
    if hop.options.get("precision") == "float16":
        hop.add(HALF())


def _most(hop: Hop) -> int:
    return int(hop.options.get("largest", LARGEST))


def _convert(function: Any, inputs: list[tuple[str, Any]], outputs: list[str], package: Path, hop: Hop) -> None:
    import coremltools

    _register_erfc()
    coremltools.models.model._create_mlpackage = _pack_for_coremltools
    precision = coremltools.precision.FLOAT16 if hop.options.get("precision") == "float16" else None
    try:
        model = coremltools.convert(
            [function],
            source="tensorflow",
            convert_to="mlprogram",
            inputs=[_declared(name, tensor, _most(hop)) for name, tensor in inputs],
            compute_precision=precision or coremltools.precision.FLOAT32,
            skip_model_load=True,
        )
    except Exception as error:  # coremltools raises whatever its passes meet
        traceback.clear_frames(error.__traceback__)  # they hold temporary folders, which warn when they go later
        raise _refusal(error, function) from error
    spec = model.get_spec()
    for tensor, name in zip(function.outputs, outputs, strict=True):
        coremltools.utils.rename_feature(spec, _plain(tensor.name), f"{name}{AWAY}", rename_inputs=False)
    for name in outputs:
        coremltools.utils.rename_feature(spec, f"{name}{AWAY}", name, rename_inputs=False)
    pack_program(spec, Path(model.weights_dir), package)


def _pack_for_coremltools(spec: Any, weights_dir: str | None = None, package_path: str | None = None) -> str:
    """What coremltools calls to pack a program: its own way sets the rights of files, which no job may."""
    package = Path(package_path or tempfile.mkdtemp(suffix=".mlpackage"))
    pack_program(spec, Path(weights_dir) if weights_dir else None, package)
    return str(package)


def pack_program(spec: Any, weights: Path | None, package: Path) -> None:
    """The folder of a package: a list of its items, the specification, and the weights of a program."""
    data = package / "Data" / AUTHOR
    data.mkdir(parents=True)
    (data / SPECIFICATION).write_bytes(spec.SerializeToString())
    items = {str(uuid.uuid4()): _item(SPECIFICATION, "CoreML Model Specification")}
    listed = {"fileFormatVersion": "1.0.0", "itemInfoEntries": items, "rootModelIdentifier": next(iter(items))}
    if weights is not None and weights.is_dir():
        (data / "weights").mkdir()
        for file in weights.iterdir():
            shutil.copyfile(file, data / "weights" / file.name)
        items[str(uuid.uuid4())] = _item("weights", "CoreML Model Weights")
    (package / MANIFEST).write_text(json.dumps(listed, indent=4), encoding="utf-8")


def _item(name: str, description: str) -> dict[str, str]:
    return {"author": AUTHOR, "description": description, "name": name, "path": f"{AUTHOR}/{name}"}


AWAY = "__of_larder"  # a name that is nobody's, while outputs take each other's names
LARGEST = 1024


def _plain(name: str) -> str:
    return name.split(":")[0]


def _declared(name: str, tensor: Any, most: int) -> Any:
    """The input with a bound for what is free: without one coremltools silently takes batches of up to two."""
    import coremltools
    import numpy as np

    ranges = [coremltools.RangeDim(1, most, 1) if size is None else size for size in tensor.shape.as_list()]
    dtype = np.int32 if tensor.dtype.is_integer else np.float32
    return coremltools.TensorType(name=name, shape=coremltools.Shape(ranges), dtype=dtype)


def _register_erfc() -> None:
    """Exact GELU computes ``erfc(x)``, which coremltools does not know: ``1 - erf(x)``."""
    from coremltools.converters.mil import Builder, register_tf_op

    @register_tf_op(override=True)  # type: ignore[untyped-decorator]
    def Erfc(context: Any, node: Any) -> None:  # noqa: N802 - the name of the operation
        inner = Builder.erf(x=context[node.inputs[0]])
        context.add(node.name, Builder.sub(x=1.0, y=inner, name=node.name))


def _refusal(error: Exception, function: Any) -> ConverterFailed | UnsupportedOperation:
    loops = _graphs.operations(function.graph.as_graph_def()) & LOOPS
    found = sorted({first or second for first, second in REFUSED.findall(str(error))} or loops)
    if not found:
        problem = first_line(str(error)) or type(error).__name__
        return ConverterFailed(target=LABEL, doing="Converting to Core ML", problem=problem)
    problem = "coremltools has no equal for it; keep the SavedModel, or replace the layer that makes it"
    return UnsupportedOperation(target=LABEL, operation=", ".join(found), problem=problem)


def _compare(inputs: list[tuple[str, Any]], outputs: list[str], spec: Any) -> None:
    """What was written has the inputs and outputs of the source; nothing more can be shown on this machine."""
    wanted = {name: tuple(tensor.shape.as_list()) for name, tensor in inputs}
    given = {feature.name: _tensor_spec(feature).shape for feature in spec.description.input}
    if given != wanted or sorted(feature.name for feature in spec.description.output) != sorted(outputs):
        found = ", ".join([*given, *(feature.name for feature in spec.description.output)])
        problem = f"the result has another interface than the source ({found})"
        raise ConverterFailed(target=LABEL, doing="Converting to Core ML", problem=problem)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """coremltools warns of everything that it could do on a Mac, and draws progress bars."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


FORMAT = Format(
    label=LABEL,
    suffixes=(".zip",),
    sniff=sniff,
    inspect=inspect,
    weights=weights,
    load=None,
    converts_from={"saved_model": Converter(from_saved_model)},
    keeps=frozenset({"graph", "weights"}),
    refuses={
        "recurrent": "coremltools does not convert the loops of recurrent layers.",
        "old-loops": "coremltools does not convert loops.",
        "strings": "Core ML programs have no operations on text; prepare the text before the model.",
        "tables": "Core ML programs have no tables; look the words up before the model.",
    },
    changes={"half": "it computes in float32, unless the precision float16 is asked for."},
    room=Room(memory=28.0),
    options=(
        Option("precision", str, "float32", "In what Core ML computes and keeps the weights.", ("float32", "float16")),
        Option("largest", int, LARGEST, "The most that is accepted along each free dimension, such as the batch."),
    ),
    snippet="""import zipfile

import coremltools

with zipfile.ZipFile("{file}") as archive:
    archive.extractall("core-ml")
model = coremltools.models.MLModel("core-ml/model.mlpackage")  # on a Mac, model.predict runs it
print(model.input_description, model.output_description)
""",
    needs=("tensorflow", "coremltools"),
    no_way_out="it holds a finished program for Apple's devices, which is not turned back into a model.",
)
