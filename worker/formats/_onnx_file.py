"""Reading ONNX files: the graph's description without running it, and ONNX Runtime for running it.

An archive with one .onnx file holds its weights beside the graph. Nothing outside the archive is ever opened.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from worker.archive import container_of
from worker.errors import CorruptFile, IncompleteModel, ModelError, UnsafeContent, UnsupportedOperation
from worker.formats._files import files_below, the_only, unpacked
from worker.formats._format import Sample, TensorSpec
from worker.translation import first_line

if TYPE_CHECKING:
    import numpy as np

LABEL = "ONNX"
SUFFIX = ".onnx"
STANDARD_DOMAINS = frozenset({"", "ai.onnx", "ai.onnx.ml", "ai.onnx.training", "ai.onnx.preview.training"})
FLOAT, BFLOAT16 = 1, 16  # ONNX' numbers of element types
# ModelProto begins with ir_version, then what made it, in the order of the field numbers; some exporters write the
# operator sets or the graph first. https://github.com/onnx/onnx/blob/main/onnx/onnx.proto
MODEL = re.compile(rb"\x08[\x01-\x14](?=[\x12\x1a\x22\x28\x32\x3a\x42\x72])")
DOCUMENTATION, GRAPH, OPERATOR_SETS = 6, 7, 8
FIELDS = {1: 0, 2: 2, 3: 2, 4: 2, 5: 0, 6: 2, 7: 2, 8: 2, 14: 2, 20: 2, 25: 2, 26: 2}  # number: wire type


# Recognising ------------------------------------------------------------------------------------------------------


def looks_like_model(head: bytes, size: int) -> bool:
    """Does this begin as an ONNX model of so many bytes does? Walks the fields as far as the bytes go.

    A SavedModel and a GraphDef are protocol buffers too; neither has a graph in field 7 after a version in field 1.
    """
    if not MODEL.match(head):
        return False
    last = 0
    for number, kind, end in _fields(head):
        if FIELDS.get(number) != kind or end > size:
            return False
        last = number
        if number in (GRAPH, OPERATOR_SETS):
            return True
    return last == DOCUMENTATION  # of any length: what comes after it is beyond what was looked at


def _fields(data: bytes) -> Iterator[tuple[int, int, int]]:
    """(field number, wire type, where it ends) of each field that begins in the bytes."""
    place = 0
    while place < len(data):
        tag, place = _varint(data, place)
        value, place = _varint(data, place)
        place += value if tag & 7 == 2 else 0
        yield tag >> 3, tag & 7, place if value or tag & 7 != 2 else 2**63  # an empty one tells nothing


def _varint(data: bytes, place: int) -> tuple[int, int]:
    value = shift = 0
    while place < len(data) and shift < 64:
        byte = data[place]
        value |= (byte & 0x7F) << shift
        place, shift = place + 1, shift + 7
        if byte < 0x80:
            break
    return value, place


def sniff(sample: Sample) -> bool:
    """A file that begins as a model does, or an archive with exactly one .onnx file in it."""
    if sample.container == "file":
        return looks_like_model(sample.head, sample.size)
    names = [PurePosixPath(member.name).name for member in sample.members]
    return sum(name.endswith(SUFFIX) and not name.startswith("._") for name in names) == 1


# The model --------------------------------------------------------------------------------------------------------


def model_in(path: Path, scratch: Path) -> Path:
    """The .onnx file itself; that of an archive with its weights beside it."""
    if container_of(path) == "file":
        return path
    root = unpacked(path, scratch)
    return the_only(files_below(root, lambda name: name.endswith(SUFFIX)), root, path.name, f"one {SUFFIX} file")


def read(file: Path) -> Any:
    """The ModelProto, without weights that are kept beside it; the places of those are checked."""
    import onnx
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

    try:
        model = onnx.load_model(str(file), load_external_data=False)
    except (DecodeError, ValueError) as error:
        raise CorruptFile(name=file.name, problem="it is not an ONNX model's protocol buffer") from error
    if not model.HasField("graph"):
        raise CorruptFile(name=file.name, problem="it holds no graph")
    _check_places(model, file)
    return model


def _check_places(model: Any, file: Path) -> None:
    """Every file that weights are kept in lies beside the model: no other path, whatever the file says (CWE-22)."""
    for location in sorted({_location(tensor) for tensor in _external(model)}):
        parts = PurePosixPath(location).parts
        if not location or location.startswith("/") or "\\" in location or ".." in parts or ":" in location:
            raise UnsafeContent(name=file.name, reason=f"it keeps weights outside its own folder ({location[:80]})")
        if not (file.parent / location).is_file():
            raise IncompleteModel(
                name=file.name,
                found="an ONNX graph",
                missing=f"the file with its weights ({location[:80]})",
                advice="Pack both files into one ZIP archive.",
            )


def _external(model: Any) -> Iterator[Any]:
    import onnx

    return (item for item in tensors(model) if item.data_location == onnx.TensorProto.EXTERNAL)


def _location(tensor: Any) -> str:
    return next((str(entry.value) for entry in tensor.external_data if entry.key == "location"), "")


def tensors(model: Any) -> Iterator[Any]:
    """Every tensor that is stored in the model: of its graph, of the bodies of loops and branches, of functions."""
    yield from _graph_tensors(model.graph)
    for function in model.functions:
        yield from _node_tensors(function.node)


def _graph_tensors(graph: Any) -> Iterator[Any]:
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield from (sparse.values, sparse.indices)
    yield from _node_tensors(graph.node)


def _node_tensors(nodes: Any) -> Iterator[Any]:
    for attribute in (attribute for node in nodes for attribute in node.attribute):
        yield from filter(None, [attribute.t if attribute.HasField("t") else None])
        yield from attribute.tensors
        for graph in [attribute.g] if attribute.HasField("g") else attribute.graphs:
            yield from _graph_tensors(graph)


def array(tensor: Any, folder: Path) -> np.ndarray:
    """The values of a tensor; those that are kept beside the model are read from its checked folder."""
    import onnx

    return onnx.numpy_helper.to_array(tensor, str(folder))


def operations(model: Any) -> set[tuple[str, str]]:
    """(domain, operator) of every node, in bodies and functions too."""
    found: set[tuple[str, str]] = set()
    waiting = [model.graph.node, *(function.node for function in model.functions)]
    while waiting:
        for node in waiting.pop():
            found.add((node.domain, node.op_type))
            waiting.extend(item.g.node for item in node.attribute if item.HasField("g"))
            waiting.extend(graph.node for item in node.attribute for graph in item.graphs)
    return found


def foreign_operations(model: Any) -> list[str]:
    """Operators of domains that ONNX does not define and the file does not bring itself, as ``domain.Name``."""
    own = {(function.domain, function.name) for function in model.functions}
    named = operations(model) - own
    return sorted(f"{domain}.{name}" for domain, name in named if domain not in STANDARD_DOMAINS)


# The interface ----------------------------------------------------------------------------------------------------


def inputs_of(graph: Any) -> tuple[TensorSpec, ...]:
    """What has to be given: older files list the weights among the inputs as well."""
    stored = {item.name for item in graph.initializer}
    return tuple(spec(item) for item in graph.input if item.name not in stored)


def outputs_of(graph: Any) -> tuple[TensorSpec, ...]:
    return tuple(map(spec, graph.output))


def spec(item: Any) -> TensorSpec:
    """A ValueInfoProto; a dimension with a name, or with none, is free."""
    kind = item.type.tensor_type
    if not item.type.HasField("tensor_type"):
        return TensorSpec(item.name, None, item.type.WhichOneof("value") or "unknown")
    shape = None
    if kind.HasField("shape"):
        shape = tuple(int(size.dim_value) if size.HasField("dim_value") else None for size in kind.shape.dim)
        shape = tuple(None if size is not None and size <= 0 else size for size in shape)
    return TensorSpec(item.name, shape, dtype_name(kind.elem_type))


def dtype_name(number: int) -> str:
    """TensorFlow's name of one of ONNX' element types."""
    import onnx

    name = str(onnx.TensorProto.DataType.Name(number)).lower()
    return {"float": "float32", "double": "float64"}.get(name, name)


# Running ----------------------------------------------------------------------------------------------------------


def session(model: bytes | str, optimise: bool = True) -> Any:
    """The model in ONNX Runtime on one thread of the CPU; ModelError with its reason where it does not load."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    if not optimise:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def session_beside(file: Path, model: Any, changed: bytes) -> Any:
    """``changed``, made of the file's model: of the bytes alone, or in its folder where weights lie that the file does
    not hold itself."""
    if next(_external(model), None) is None:
        return session(changed)
    with tempfile.NamedTemporaryFile(dir=file.parent, suffix=SUFFIX) as beside:  # no name that the archive has already
        beside.write(changed)
        beside.flush()
        return session(beside.name)


def open_session(file: Path, model: Any) -> Any:
    """The checked file in ONNX Runtime."""
    if foreign := foreign_operations(model):
        problem = "these operators are not ONNX' own, and the library that defines them is not here"
        raise UnsupportedOperation(target="ONNX Runtime", operation=", ".join(foreign[:5]), problem=problem)
    try:
        return session(with_single_edges(model) or str(file))
    except Exception as error:  # onnxruntime's own exception classes share no base but this
        raise ModelError(problem=f"ONNX Runtime says: {first_line(str(error))}") from error


def with_single_edges(model: Any) -> bytes | None:
    """NumPy has no bfloat16, so ONNX Runtime neither takes nor gives it: float32 outside, and casts at the edges. None
    where that changes nothing."""
    edges = [item for item in (*model.graph.input, *model.graph.output) if item.type.tensor_type.elem_type == BFLOAT16]
    if not edges or next(_external(model), None):
        return None
    changed = type(model)()
    changed.CopyFrom(model)
    inside = {item.name: f"{item.name}/inside" for item in edges}
    for node in changed.graph.node:
        node.input[:] = [inside.get(name, name) for name in node.input]
        node.output[:] = [inside.get(name, name) for name in node.output]
    before = [
        _cast(item, item.name, inside[item.name], BFLOAT16) for item in changed.graph.input if item.name in inside
    ]
    after = [_cast(item, inside[item.name], item.name, FLOAT) for item in changed.graph.output if item.name in inside]
    nodes = [*before, *changed.graph.node, *after]
    del changed.graph.node[:]
    changed.graph.node.extend(nodes)
    return bytes(changed.SerializeToString())


def _cast(item: Any, source: str, target: str, to: int) -> Any:
    import onnx

    item.type.tensor_type.elem_type = FLOAT
    return onnx.helper.make_node("Cast", [source], [target], to=to)


def feed(array: np.ndarray, dtype: str) -> np.ndarray:
    import numpy as np

    if dtype == "string":
        array = np.asarray(array)
        return np.char.decode(array, "utf-8").astype(object) if array.dtype.kind == "S" else array.astype(object)
    return np.asarray(array).astype(_numpy(dtype))


def _numpy(dtype: str) -> Any:
    import numpy as np

    return np.dtype("float32" if dtype == "bfloat16" else dtype)


def fetch(value: Any) -> np.ndarray:
    import numpy as np

    array = np.asarray(value)
    return np.char.encode(array.astype("U"), "utf-8") if array.dtype.kind in "OU" else array
