"""Files that hold a graph of operations, opened for changing: ONNX, TensorFlow Lite, OpenVINO and Core ML."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np

from bench._layer_files import _ending, read_zip, write_zip
from bench._mutations import EPSILON_FACTORS, Array, Change, File
from bench._settings import changed_settings, float_constants, other_values, similar, whole_constants

ACTIVATIONS = frozenset(
    {
        *("relu", "relu6", "sigmoid", "tanh", "softmax", "elu", "selu", "leakyrelu", "gelu", "erf", "clip", "clamp"),
        *("softplus", "swish", "logistic", "silu"),
    }
)
SAME_SHAPE = frozenset(
    {"add", "addv2", "biasadd", "mul", "multiply", "batchnormalization", "layernormalization", "mvn"}
)
LARGEST_EPSILON = 2e-3


def is_activation(kind: str) -> bool:
    return kind.lower().replace("_", "") in ACTIVATIONS


def keeps_shape(kind: str) -> bool:
    return kind.lower().replace("_", "") in SAME_SHAPE


def constant_epsilons(tensors: dict[str, Array]) -> Iterator[Change]:
    """Constants of one small positive number: what is added below a root."""
    for name, array in tensors.items():
        if array.size and 0 < array.min() == array.max() <= LARGEST_EPSILON:
            for factor in EPSILON_FACTORS:
                new = (array * factor).astype(array.dtype)
                yield Change(f"{name} × {factor}", partial(tensors.__setitem__, name, new))


# ONNX -----------------------------------------------------------------------------------------------------------


def open_onnx(path: Path, scratch: Path) -> File:
    import onnx
    from onnx import numpy_helper

    model = onnx.load(path)
    stored = {proto.name: proto for proto in _onnx_stored(model.graph)}
    tensors = {name: numpy_helper.to_array(proto).copy() for name, proto in stored.items()}

    def write(target: Path) -> None:
        for name, array in tensors.items():
            stored[name].CopyFrom(numpy_helper.from_array(array, name))
        target.write_bytes(model.SerializeToString())

    nodes = list(_onnx_nodes(model.graph))
    structure = {
        "outputs swapped": list(_onnx_outputs(model.graph)),
        "activation dropped": [_onnx_identity(node, stored) for node in nodes if is_activation(node.op_type)],
        "epsilon changed": [*_onnx_epsilons(nodes), *constant_epsilons(tensors)],
        "layer bypassed": [_onnx_identity(node, stored) for node in nodes if keeps_shape(node.op_type)],
        "setting changed": [*_onnx_settings(nodes), *_onnx_whole(model.graph), *float_constants(tensors)],
        "operation exchanged": list(_onnx_exchanges(model.graph)),
        "inputs swapped": list(_onnx_swapped(model.graph.input, model.graph)),
    }
    return File(tensors, structure, write)


ONNX_PLAIN = (1, 2, 3, 6, 7, 8)  # attributes that are numbers, words or lists of them
ONNX_SHAPING = ("to", "axis", "perm", "kernel_shape")


def _onnx_settings(nodes: list[Any]) -> Iterator[Change]:
    """Other values of attributes, and attributes that are left out."""
    from onnx import helper

    for node in nodes:
        for attribute in node.attribute:
            if attribute.type in ONNX_PLAIN and attribute.name != "to":
                label = f"{node.op_type} {node.output[0]}.{attribute.name}"
                for new in _onnx_others(helper.get_attribute_value(attribute)):
                    proto = helper.make_attribute(attribute.name, new)
                    yield Change(f"{label} → {new}", partial(attribute.CopyFrom, proto))
    yield from _onnx_left_out(nodes)


def _onnx_others(value: Any) -> list[Any]:
    if isinstance(value, bytes):
        return list(other_values(value.decode()))
    if isinstance(value, list) and value and isinstance(value[0], bytes):
        words = [word.decode() for word in value]
        return [[new, *words[1:]] for new in other_values(words[0])]
    return list(other_values(value))


def _onnx_left_out(nodes: list[Any]) -> Iterator[Change]:
    for node in nodes:
        for place, attribute in enumerate(node.attribute):
            if attribute.type in ONNX_PLAIN and attribute.name not in ONNX_SHAPING:
                yield Change(
                    f"{node.op_type} {node.output[0]} without {attribute.name}",
                    partial(node.attribute.__delitem__, place),
                )


def _onnx_whole(graph: Any) -> Iterator[Change]:
    from onnx import numpy_helper

    for inner in _onnx_graphs(graph):
        stored = {proto.name: proto for proto in inner.initializer if proto.data_type in (6, 7)}
        for node in inner.node:
            for attribute in node.attribute:
                if node.op_type == "Constant" and attribute.name == "value" and attribute.t.data_type in (6, 7):
                    stored[node.output[0]] = attribute.t
        arrays = {name: numpy_helper.to_array(proto) for name, proto in stored.items()}

        def put(name: str, new: Array, stored: dict[str, Any] = stored) -> None:
            stored[name].CopyFrom(numpy_helper.from_array(new, name))

        yield from whole_constants(arrays, put)


def _onnx_exchanges(graph: Any) -> Iterator[Change]:
    for inner in _onnx_graphs(graph):
        for node in inner.node:
            for other in similar(node.op_type):
                yield Change(f"{node.op_type} {node.output[0]} → {other}", partial(setattr, node, "op_type", other))
            if node.op_type == "Relu":
                yield Change(f"Relu {node.output[0]} up to 6", partial(_onnx_clip, inner, node))


def _onnx_clip(graph: Any, node: Any) -> None:
    from onnx import numpy_helper

    for bound in (0.0, 6.0):
        name = f"{node.output[0]} {bound}"
        graph.initializer.append(numpy_helper.from_array(np.array(bound, "float32"), name))
        node.input.append(name)
    node.op_type = "Clip"


def _onnx_swapped(ends: Any, graph: Any) -> Iterator[Change]:
    """Two inputs trade their names, and all that use them stay as they are."""
    if len(ends) > 1:
        one, other = ends[0].name, ends[1].name
        trade = {one: other, other: one}

        def apply() -> None:
            for node in graph.node:
                node.input[:] = [trade.get(name, name) for name in node.input]

        yield Change(f"{one} ↔ {other}", apply)


def _onnx_graphs(graph: Any) -> Iterator[Any]:
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from _onnx_graphs(attribute.g)


def _onnx_nodes(graph: Any) -> Iterator[Any]:
    for inner in _onnx_graphs(graph):
        yield from inner.node


def _onnx_stored(graph: Any) -> Iterator[Any]:
    """The float tensors: initializers, and the values of Constant nodes under the names of their outputs."""
    for inner in _onnx_graphs(graph):
        yield from (proto for proto in inner.initializer if proto.data_type in (1, 10, 11))
        for node in inner.node:
            for attribute in node.attribute:
                if node.op_type == "Constant" and attribute.name == "value" and attribute.t.data_type in (1, 10, 11):
                    attribute.t.name = node.output[0]
                    yield attribute.t


def _onnx_identity(node: Any, stored: dict[str, Any]) -> Change:
    def apply() -> None:
        data = next((name for name in node.input if name not in stored), node.input[0])
        node.op_type, node.domain = "Identity", ""
        del node.attribute[:], node.input[:], node.output[1:]
        node.input.append(data)

    return Change(f"{node.op_type} {node.output[0]}", apply)


def _onnx_epsilons(nodes: list[Any]) -> Iterator[Change]:
    for node in nodes:
        for attribute in node.attribute:
            if attribute.name == "epsilon":
                for factor in EPSILON_FACTORS:
                    new = attribute.f * factor
                    yield Change(f"{node.output[0]} × {factor}", partial(setattr, attribute, "f", new))


def _onnx_outputs(graph: Any) -> Iterator[Change]:
    if len(graph.output) < 2:
        return
    one, other = graph.output[0].name, graph.output[1].name
    trade = {one: other, other: one}

    def apply() -> None:
        for node in graph.node:
            for names in (node.input, node.output):
                names[:] = [trade.get(name, name) for name in names]

    yield Change(f"{one} ↔ {other}", apply)


# TensorFlow Lite ------------------------------------------------------------------------------------------------

TFLITE_DTYPES = {0: "float32", 1: "float16", 9: "int8", 10: "float64"}
TFLITE_BIASES = {2: "int32", 4: "int64"}  # those that stand for other numbers; the others are shapes and places


def open_tflite(path: Path, scratch: Path) -> File:
    from tensorflow.lite.python import schema_py_generated as schema

    model = schema.ModelT.InitFromObj(schema.Model.GetRootAsModel(path.read_bytes(), 0))
    tensors = dict(_tflite_constants(model))

    def write(target: Path) -> None:
        for name, array in tensors.items():
            number = int(name.split()[0])
            model.buffers[number].data = np.frombuffer(np.ascontiguousarray(array).tobytes(), "uint8")
        target.write_bytes(_tflite_packed(model))

    kinds = {value: name for name, value in vars(schema.BuiltinOperator).items() if isinstance(value, int)}
    named = [(graph, item, kinds[_tflite_code(model, item)]) for graph in model.subgraphs for item in graph.operators]
    structure = {
        "outputs swapped": list(_tflite_outputs(model)),
        "activation dropped": [*_tflite_fused(named), *_tflite_bypasses(model, named, is_activation)],
        "epsilon changed": list(constant_epsilons(tensors)),
        "layer bypassed": list(_tflite_bypasses(model, named, keeps_shape)),
        "setting changed": [
            *_tflite_settings(named),
            *_tflite_whole(model),
            *_tflite_scales(model),
            *float_constants(tensors),
        ],
        "operation exchanged": list(_tflite_exchanges(model, named, kinds)),
        "inputs swapped": list(_tflite_inputs(model)),
    }
    return File(tensors, structure, write)


GRAPHS_INSIDE = frozenset({"condSubgraphIndex", "bodySubgraphIndex", "thenSubgraphIndex", "elseSubgraphIndex"})


def _tflite_settings(named: list[tuple[Any, Any, str]]) -> Iterator[Change]:
    for graph, item, kind in named:
        if item.builtinOptions is not None:
            label = f"{kind} {graph.tensors[item.outputs[0]].name.decode()[:40]}"
            plain = {name: _plain_setting(value) for name, value in vars(item.builtinOptions).items()}
            yield from changed_settings(label, plain, partial(setattr, item.builtinOptions), GRAPHS_INSIDE)


def _plain_setting(value: Any) -> Any:
    return value.tolist() if hasattr(value, "tolist") else value


def _tflite_whole(model: Any) -> Iterator[Change]:
    places: dict[str, int] = {}
    arrays: dict[str, Array] = {}
    for graph in model.subgraphs:
        for tensor in graph.tensors:
            data = model.buffers[tensor.buffer].data
            if tensor.type in TFLITE_BIASES and data is not None and len(data) and not _tflite_is_scaled(tensor):
                name = f"{tensor.buffer} {tensor.name.decode()[:40]}"
                places[name] = tensor.buffer
                arrays[name] = np.frombuffer(bytes(data), TFLITE_BIASES[tensor.type])

    def put(name: str, new: Array) -> None:
        model.buffers[places[name]].data = np.frombuffer(new.tobytes(), "uint8")

    return whole_constants(arrays, put)


def _tflite_scales(model: Any) -> Iterator[Change]:
    """What whole numbers stand for: of constants and of what is computed."""
    for graph in model.subgraphs:
        for tensor in graph.tensors:
            if _tflite_is_scaled(tensor):
                found, name = tensor.quantization, tensor.name.decode()[:40]
                for factor in (0.8, 0.5, 1.5, 3.0):
                    new = np.asarray(found.scale) * np.float32(factor)
                    yield Change(f"scales of {name} × {factor}", partial(setattr, found, "scale", new))
                if len(found.scale) > 1:
                    turned = np.asarray(found.scale)[::-1].copy()
                    yield Change(f"scales of {name} reversed", partial(setattr, found, "scale", turned))
                if tensor.type == 9 and np.any(found.zeroPoint):
                    moved = np.asarray(found.zeroPoint) // 2
                    yield Change(f"zero of {name} halved", partial(setattr, found, "zeroPoint", moved))


def _tflite_exchanges(model: Any, named: list[tuple[Any, Any, str]], kinds: dict[int, str]) -> Iterator[Change]:
    from tensorflow.lite.python import schema_py_generated as schema

    numbers = {name: number for number, name in kinds.items()}
    for graph, item, kind in named:
        for other in similar(kind):
            label = f"{kind} {graph.tensors[item.outputs[0]].name.decode()[:40]} → {other}"
            yield Change(label, partial(_tflite_exchange, schema, model, item, numbers[other]))


def _tflite_exchange(schema: Any, model: Any, item: Any, number: int) -> None:
    code = schema.OperatorCodeT()
    code.builtinCode, code.deprecatedBuiltinCode, code.version = number, min(number, 127), 1
    model.operatorCodes.append(code)
    item.opcodeIndex = len(model.operatorCodes) - 1


def _tflite_inputs(model: Any) -> Iterator[Change]:
    for signature in model.signatureDefs or ():
        inputs = signature.inputs
        if len(inputs) > 1:
            yield Change("inputs of the signature", partial(_swap_attribute, inputs[0], inputs[1], "tensorIndex"))


def _tflite_packed(model: Any) -> bytes:
    import flatbuffers  # type: ignore[import-untyped]

    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def _tflite_code(model: Any, item: Any) -> int:
    code = model.operatorCodes[item.opcodeIndex]
    return max(int(code.builtinCode), int(code.deprecatedBuiltinCode))


def _tflite_constants(model: Any) -> Iterator[tuple[str, Array]]:
    """By the number of the buffer and the name of the tensor; tensors may share a buffer."""
    seen = set()
    for graph in model.subgraphs:
        for tensor in graph.tensors:
            types = TFLITE_DTYPES | (TFLITE_BIASES if _tflite_is_scaled(tensor) else {})
            data, dtype = model.buffers[tensor.buffer].data, types.get(tensor.type)
            if data is None or dtype is None or tensor.buffer in seen or not len(data):
                continue
            seen.add(tensor.buffer)
            shape = () if tensor.shape is None else tuple(tensor.shape)
            yield f"{tensor.buffer} {tensor.name.decode()}", np.frombuffer(bytes(data), dtype).reshape(shape).copy()


def _tflite_is_scaled(tensor: Any) -> bool:
    found = tensor.quantization
    return found is not None and found.scale is not None and len(found.scale) > 0


def _tflite_fused(named: list[tuple[Any, Any, str]]) -> Iterator[Change]:
    for _, item, kind in named:
        options = item.builtinOptions
        if getattr(options, "fusedActivationFunction", 0) and kind != "LSTM":
            yield Change(f"fused in {kind}", partial(setattr, options, "fusedActivationFunction", 0))


def _tflite_bypasses(model: Any, named: list[tuple[Any, Any, str]], wanted: Any) -> Iterator[Change]:
    for graph, item, kind in named:
        if wanted(kind):
            name = graph.tensors[item.outputs[0]].name.decode()
            yield Change(f"{kind} {name}", partial(_tflite_lead_around, model, graph, item))


def _tflite_lead_around(model: Any, graph: Any, item: Any) -> None:
    given = [place for place in item.inputs if model.buffers[graph.tensors[place].buffer].data is None]
    old, new = int(item.outputs[0]), int((given or list(item.inputs))[0])
    graph.operators.remove(item)
    for other in graph.operators:
        other.inputs = [new if place == old else int(place) for place in other.inputs]
    graph.outputs = [new if place == old else int(place) for place in graph.outputs]
    for signature in model.signatureDefs or ():
        for tensor in signature.outputs:
            if model.subgraphs[signature.subgraphIndex] is graph and tensor.tensorIndex == old:
                tensor.tensorIndex = new


def _tflite_outputs(model: Any) -> Iterator[Change]:
    for signature in model.signatureDefs or ():
        outputs = signature.outputs
        if len(outputs) > 1:
            yield Change("outputs of the signature", partial(_swap_attribute, outputs[0], outputs[1], "tensorIndex"))


def _swap_attribute(one: Any, other: Any, name: str) -> None:
    first, second = getattr(one, name), getattr(other, name)
    setattr(one, name, second)
    setattr(other, name, first)


# OpenVINO -------------------------------------------------------------------------------------------------------

IR_DTYPES = {"f32": "<f4", "f16": "<f2", "f64": "<f8"}


def open_openvino(path: Path, scratch: Path) -> File:
    members = read_zip(path)
    graph, store = _ending(members, ".xml"), _ending(members, ".bin")
    root = ElementTree.fromstring(members[graph])  # noqa: S314 - Larder wrote it
    data = bytearray(members[store])
    places = {f"{layer.get('id')} {layer.get('name')}": found for layer, found in _ir_constants(root)}
    tensors = {name: _ir_read(data, found) for name, found in places.items()}

    def write(target: Path) -> None:
        for name, array in tensors.items():
            at = int(places[name].get("offset", ""))
            data[at : at + array.nbytes] = array.tobytes()
        text = ElementTree.tostring(root, encoding="utf-8", xml_declaration=True)
        write_zip({**members, graph: text, store: bytes(data)}, target)

    structure = {
        "outputs swapped": list(_ir_outputs(root)),
        "activation dropped": [_ir_bypass(root, layer) for layer in root.iter("layer") if is_activation(_kind(layer))],
        "epsilon changed": [*_ir_epsilons(root), *constant_epsilons(tensors)],
        "layer bypassed": [_ir_bypass(root, layer) for layer in root.iter("layer") if keeps_shape(_kind(layer))],
        "setting changed": [*_ir_settings(root), *_ir_whole(root, data), *float_constants(tensors)],
        "operation exchanged": list(_ir_exchanges(root)),
    }
    return File(tensors, structure, write)


IR_PLACES = frozenset(
    {"element_type", "shape", "offset", "size", "destination_type", "output_type", "index_element_type"}
)


def _ir_settings(root: ElementTree.Element) -> Iterator[Change]:
    for layer in root.iter("layer"):
        data = layer.find("data")
        if data is not None and _kind(layer) not in ("Const", "Parameter"):
            plain = {name: _ir_value(text) for name, text in data.attrib.items()}
            label = f"{_kind(layer)} {layer.get('name', '')[-30:]}"
            yield from changed_settings(label, plain, partial(_ir_put, data), IR_PLACES)


def _ir_value(text: str) -> Any:
    if text in ("true", "false"):
        return text == "true"
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        return text


def _ir_put(data: ElementTree.Element, name: str, new: Any) -> None:
    data.set(
        name,
        ", ".join(map(str, new)) if isinstance(new, list) else str(new).lower() if isinstance(new, bool) else str(new),
    )


def _ir_whole(root: ElementTree.Element, content: bytearray) -> Iterator[Change]:
    arrays, places = {}, {}
    for layer in root.iter("layer"):
        data = layer.find("data")
        if _kind(layer) == "Const" and data is not None and data.get("element_type") in ("i32", "i64"):
            at, size = int(data.get("offset", "")), int(data.get("size", ""))
            name = f"{layer.get('id')} {layer.get('name', '')[-30:]}"
            places[name] = at
            arrays[name] = np.frombuffer(
                bytes(content[at : at + size]), "<i8" if data.get("element_type") == "i64" else "<i4"
            )

    def put(name: str, new: Array) -> None:
        content[places[name] : places[name] + new.nbytes] = new.tobytes()

    return whole_constants(arrays, put)


def _ir_exchanges(root: ElementTree.Element) -> Iterator[Change]:
    for layer in root.iter("layer"):
        for other in similar(_kind(layer)):
            label = f"{_kind(layer)} {layer.get('name', '')[-30:]} → {other}"
            yield Change(label, partial(layer.set, "type", other))


def _kind(layer: ElementTree.Element) -> str:
    return layer.get("type", "")


def _ir_constants(root: ElementTree.Element) -> Iterator[tuple[ElementTree.Element, ElementTree.Element]]:
    """Constants that lie apart in the data, each place once."""
    seen = set()
    constants = [(layer, layer.find("data")) for layer in root.iter("layer") if _kind(layer) == "Const"]
    for layer, data in constants:
        if data is not None and data.get("element_type") in IR_DTYPES and data.get("offset") not in seen:
            seen.add(data.get("offset"))
            yield layer, data


def _ir_read(content: bytearray, found: ElementTree.Element) -> Array:
    at, size = int(found.get("offset", "")), int(found.get("size", ""))
    shape = [int(part) for part in found.get("shape", "").split(",") if part.strip()]
    return np.frombuffer(bytes(content[at : at + size]), IR_DTYPES[found.get("element_type", "")]).reshape(shape).copy()


def _ir_owner(root: ElementTree.Element, layer: ElementTree.Element) -> ElementTree.Element:
    """The net or body that the layer is in."""
    parents = [item for item in root.iter() if item.find("layers") is not None]
    return next(item for item in parents if layer in list(item.find("layers") or ()))


def _ir_bypass(root: ElementTree.Element, layer: ElementTree.Element) -> Change:
    """Hand the layer's first computed input to whatever used its output; the name of the output goes along."""

    def apply() -> None:
        net = _ir_owner(root, layer)
        edges, layers = net.find("edges"), {item.get("id"): item for item in net.iter("layer")}
        assert edges is not None
        inward = [edge for edge in edges if edge.get("to-layer") == layer.get("id")]
        source = next((e for e in inward if _kind(layers[e.get("from-layer")]) != "Const"), inward[0])
        for edge in edges:
            if edge.get("from-layer") == layer.get("id"):
                edge.set("from-layer", source.get("from-layer", ""))
                edge.set("from-port", source.get("from-port", ""))
        for edge in inward:
            edges.remove(edge)
        found = net.find("layers")
        assert found is not None
        found.remove(layer)

    return Change(f"{_kind(layer)} {layer.get('name')}", apply)


def _ir_epsilons(root: ElementTree.Element) -> Iterator[Change]:
    for data in root.iter("data"):
        for key in ("eps", "epsilon"):
            if data.get(key):
                for factor in EPSILON_FACTORS:
                    new = repr(float(data.get(key, "")) * factor)
                    yield Change(f"{key} = {new}", partial(data.set, key, new))


def _ir_outputs(root: ElementTree.Element) -> Iterator[Change]:
    """Two results take each other's source, and the names of the sources go with the results."""
    results = [layer for layer in root.findall("layers/layer") if _kind(layer) == "Result"]
    if len(results) > 1:
        yield Change("results", partial(_ir_swap, root, results[0], results[1]))


def _ir_swap(root: ElementTree.Element, one: ElementTree.Element, other: ElementTree.Element) -> None:
    edges = {edge.get("to-layer"): edge for edge in root.findall("edges/edge")}
    ports = [_ir_port(root, edges[item.get("id")]) for item in (one, other)]
    _swap_attribute_of(edges[one.get("id")], edges[other.get("id")], "to-layer")
    _swap_attribute_of(ports[0], ports[1], "names")


def _ir_port(root: ElementTree.Element, edge: ElementTree.Element) -> ElementTree.Element:
    layer = next(item for item in root.findall("layers/layer") if item.get("id") == edge.get("from-layer"))
    return next(port for port in layer.findall("output/port") if port.get("id") == edge.get("from-port"))


def _swap_attribute_of(one: ElementTree.Element, other: ElementTree.Element, key: str) -> None:
    first, second = one.get(key, ""), other.get(key, "")
    one.set(key, second)
    other.set(key, first)


# Core ML --------------------------------------------------------------------------------------------------------

MIL_DTYPES = {10: "<f2", 11: "<f4", 12: "<f8"}
METADATA = struct.Struct("<IIQQ")  # a mark, the type, the size and the place of the data


def open_coreml(path: Path, scratch: Path) -> File:
    from coremltools.proto import Model_pb2

    members = read_zip(path)
    name = _ending(members, ".mlmodel")
    store = next((item for item in members if item.endswith("weight.bin")), "")
    spec = Model_pb2.Model.FromString(members[name])
    data = bytearray(members.get(store, b""))
    blocks = [block for item in spec.mlProgram.functions.values() for block in item.block_specializations.values()]
    values = {item.outputs[0].name: value for block in blocks for item, value in _mil_constants(block)}
    tensors = {key: _mil_read(value, data) for key, value in values.items()}

    def write(target: Path) -> None:
        for key, array in tensors.items():
            _mil_write(values[key], array, data)
        apart = {store: bytes(data)} if store else {}
        write_zip({**members, name: spec.SerializeToString(), **apart}, target)

    operations = [item for block in blocks for item in block.operations]
    structure = {
        "outputs swapped": [change for block in blocks for change in _mil_outputs(block)],
        "activation dropped": [_mil_identity(item) for item in operations if is_activation(item.type)],
        "epsilon changed": list(constant_epsilons(tensors)),
        "layer bypassed": [_mil_identity(item) for item in operations if keeps_shape(item.type)],
    }
    return File(tensors, structure, write)


def _mil_constants(block: Any) -> Iterator[tuple[Any, Any]]:
    for item in block.operations:
        value = item.attributes["val"] if item.type == "const" else None
        if value is None or value.type.tensorType.dataType not in MIL_DTYPES:
            continue
        if value.HasField("blobFileValue") or len(value.immediateValue.tensor.floats.values):
            yield item, value


def _mil_read(value: Any, data: bytearray) -> Array:
    kind = value.type.tensorType
    shape = [int(size.constant.size) for size in kind.dimensions]
    if not value.HasField("blobFileValue"):
        return np.array(value.immediateValue.tensor.floats.values, "float32").reshape(shape)
    _, _, size, at = METADATA.unpack_from(data, value.blobFileValue.offset)
    return np.frombuffer(bytes(data[at : at + size]), MIL_DTYPES[kind.dataType]).reshape(shape).copy()


def _mil_write(value: Any, array: Array, data: bytearray) -> None:
    if not value.HasField("blobFileValue"):
        value.immediateValue.tensor.floats.values[:] = array.reshape(-1).tolist()
        return
    _, _, size, at = METADATA.unpack_from(data, value.blobFileValue.offset)
    data[at : at + size] = array.tobytes()


def _mil_identity(item: Any) -> Change:
    def apply() -> None:
        data = item.inputs["x"].arguments[0].name
        for key in list(item.inputs):
            del item.inputs[key]
        item.inputs["x"].arguments.add().name = data
        item.type = "identity"

    return Change(f"{item.type} {item.outputs[0].name}", apply)


def _mil_outputs(block: Any) -> Iterator[Change]:
    if len(block.outputs) < 2:
        return
    trade = {block.outputs[0]: block.outputs[1], block.outputs[1]: block.outputs[0]}

    def apply() -> None:
        for item in block.operations:
            for named in [*item.outputs, *(given for value in item.inputs.values() for given in value.arguments)]:
                if named.name in trade:
                    named.name = trade[named.name]

    yield Change(" ↔ ".join(block.outputs[:2]), apply)
