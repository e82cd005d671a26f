"""Living Keras models from files: Keras 3 as it is, older files rebuilt, or tf-keras as an independent reader.

A job converts a file and runs it, so what was opened is kept for the rest of the process.
"""

from __future__ import annotations

import dataclasses
import json
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from worker.errors import LarderError, ModelError
from worker.formats import (
    _lambda_witness,
    _live,
    _old_weights,
    _optimizer,
    _outline,
    _plan,
    _rebuild,
    _registry,
    _stream,
    _tf_keras,
    _weights,
)
from worker.formats._architecture import Architecture, input_shape_of, lambdas, objects, refuse_unsafe
from worker.formats._files import named
from worker.formats._format import Converter, Hop, Loaded, Summary
from worker.formats._keras_files import READERS, Stored
from worker.formats._regions import check_members
from worker.formats._repairs import CUDNN
from worker.formats._weights import LOOKUPS
from worker.report import Finding, Severity, declare

# Pickles may hold a SavedModel as it is, or arrays without a model: their own converters know. A SavedModel that is
# written anew would lose its layers, and TensorFlow runs those of any release as they are.
OTHERWISE = {("pickle", "saved_model"), ("pickle", "safetensors"), ("saved_model", "saved_model")}
REBUILT = declare(
    "rebuilt",
    Severity.NOTE,
    "Keras {version} wrote this file. The model was rebuilt from its own description for Keras 3.",
)
READ_BY_TF_KERAS = declare(
    "read-by-tf-keras",
    Severity.NOTE,
    "Keras 3 has no equal for this model ({problem}), so the graph was taken from tf-keras, which still reads it.",
)

UNWITNESSED = declare(
    "unwitnessed",
    Severity.WARNING,
    "tf-keras could not read this model with formulas for its Lambda layers, so there is nothing independent that the "
    "result could be compared with.",
)

# For the snippets that put the weights in themselves, as ``_refresh_statistics`` does here
REFRESHING = """
# Normalization layers compute with values that setting their weights does not refresh.
pending = [model]
while pending:
    layer = pending.pop()
    pending += getattr(layer, "layers", [])
    if isinstance(layer, keras.layers.Normalization) and layer.input_mean is None:
        layer.finalize_state()
"""


@dataclass(frozen=True)
class Opened:
    """A Keras 3 model with its weights, and what had to be said about it."""

    model: Any
    findings: tuple[Finding, ...]
    part: _rebuild.Part | None = None  # its layers in the order of the file


Writer = Callable[[Any, Path, Hop], None]
Opener = Callable[[str, Path, Path], Opened]


def read(slug: str, path: Path, scratch: Path) -> Stored:
    """What the file holds, before any library sees it."""
    status = path.stat()
    return _read(slug, path.absolute(), scratch / f"{slug}-source", (status.st_mtime_ns, status.st_size, status.st_ino))


@cache
def _read(slug: str, path: Path, scratch: Path, _: tuple[int, ...]) -> Stored:
    return READERS[slug](path, scratch)


def open_model(slug: str, path: Path, scratch: Path) -> Opened:
    """The model as a Keras 3 object. Lambdas and unknown classes are refused before anything is built."""
    return _open(read(slug, path, scratch))


def open_trained(slug: str, path: Path, scratch: Path) -> Opened:
    """``open_model``, compiled as the file says and with the optimizer's state, for targets that hold both."""
    return _trained(slug, path, scratch, state=True)


def open_compiled(slug: str, path: Path, scratch: Path) -> Opened:
    """``open_model``, compiled as the file says, for targets that hold the settings alone."""
    return _trained(slug, path, scratch, state=False)


def _trained(slug: str, path: Path, scratch: Path, *, state: bool) -> Opened:
    opened, training = open_model(slug, path, scratch), read(slug, path, scratch).training
    if opened.part is None or not training.traits:
        return opened
    lost = {finding.code for finding in training.dropped()}
    findings = [finding for finding in opened.findings if finding.code not in lost]
    return Opened(
        opened.model,
        (*findings, *_optimizer.restore(opened.model, opened.part, training, state=state)),
        opened.part,
    )


@cache
def _open(stored: Stored) -> Opened:
    refuse_unsafe(stored.architecture)
    if stored.architecture.legacy or lambdas(stored.architecture):
        return _rebuilt(stored)
    try:
        loaded = _load_as_is(stored)
        model = _ready(with_interface(loaded, stored.architecture))
        return Opened(model, stored.findings, _weights.part_of(loaded))
    except LarderError:
        raise
    except Exception as error:  # Keras raises whatever its loaders meet; our own reader may still know the way
        return _second_try(stored, error)


def _second_try(stored: Stored, error: Exception) -> Opened:
    try:
        return _rebuilt(stored)
    except LarderError as refusal:
        if refusal.code != ModelError.code:
            raise
        raise ModelError(problem=_first_line(error)) from refusal


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0][:300]}" if lines else type(error).__name__


def _load_as_is(stored: Stored) -> Any:
    """Keras 3's own loader on what Keras 3 wrote: not compiled, in safe mode."""
    import keras

    _registry.refuse_unknown(stored.architecture, _rebuild.LEGACY_NAMES)
    if plan := _plan.remembered(stored):
        return plan.awake()
    if stored.own_file is not None:
        return keras.saving.load_model(str(stored.own_file), compile=False, safe_mode=True)
    model = _plan.deserialized(stored.architecture.root)
    weights = stored.weights()
    if isinstance(weights, _weights.Tree) and stored.weights_file is not None:
        model.load_weights(str(named(stored.weights_file, stored.weights_file.parent, ".weights.h5")))
    else:
        weights.fill(_weights.part_of(model))
    return model


def _rebuilt(stored: Stored) -> Opened:
    rebuilt = _rebuild.rebuild(stored.architecture)
    model = with_interface(rebuilt.model, stored.architecture)
    weights, rearranged = _modern_weights(stored, rebuilt.part)
    weights.fill(rebuilt.part)
    _restore_vocabularies(model, stored)
    return Opened(_ready(model), (*stored.findings, *_said(stored), *rebuilt.findings, *rearranged), rebuilt.part)


def _modern_weights(stored: Stored, part: _rebuild.Part) -> tuple[Any, list[Finding]]:
    architecture = stored.architecture
    return _old_weights.modernised(stored.weights(), part, architecture.of_keras_1, architecture.backend)


def _said(stored: Stored) -> tuple[Finding, ...]:
    return (REBUILT(version=stored.architecture.version or "2 or older"),)


def _restore_vocabularies(model: Any, stored: Stored) -> None:
    layers = model._flatten_layers(include_self=False, recursive=True)
    empty = [layer for layer in layers if type(layer).__name__ in LOOKUPS and layer.built and not _vocabulary(layer)]
    known = stored.vocabularies([layer.name for layer in empty]) if empty else {}
    for layer in empty:
        if known.get(layer.name):
            layer.set_vocabulary(known[layer.name])


def _ready(model: Any) -> Any:
    """Finish what filling in weights alone does not: statistics that a layer computes from them, and vocabularies."""
    _refresh_statistics(model)
    for layer in model._flatten_layers(include_self=False, recursive=True):
        if type(layer).__name__ in LOOKUPS:
            _keep_vocabulary(layer)
    return model


def with_interface(model: Any, architecture: Architecture) -> Any:
    """A model of people's own class says nowhere what its input is, but its file says what it was built with."""
    import keras

    shape = None if getattr(model, "inputs", None) else input_shape_of(architecture.root)
    if shape is not None:
        tensor = keras.Input(batch_shape=tuple(shape), name="inputs")
        model = keras.Model(tensor, model(tensor), name=f"{model.name}_with_input")
    _live.require_interface(model)
    return model


def _refresh_statistics(model: Any) -> None:
    """A Normalization computes with values that it derives from its weights, in both libraries."""
    for layer in model._flatten_layers(include_self=False, recursive=True):
        if type(layer).__name__ == "Normalization" and layer.input_mean is None:
            layer.finalize_state()


def _keep_vocabulary(layer: Any) -> None:
    """Put a learnt vocabulary into the layer's config: JSON and HDF5 have no other place for it."""
    inner = getattr(layer, "_lookup_layer", layer)
    vocabulary = _vocabulary(layer)
    if not vocabulary:
        raise ModelError(problem=f"the vocabulary of layer {layer.name} is not in the file")
    if inner.input_vocabulary is None:
        inner.input_vocabulary = vocabulary
        layer._list_vocabulary = vocabulary


def _vocabulary(layer: Any) -> list[Any]:
    """What the layer knows, without the tokens it adds itself; empty where it has learnt nothing."""
    try:
        return list(getattr(layer, "_lookup_layer", layer).get_vocabulary(include_special_tokens=False))
    except Exception:  # an empty table raises in several ways
        return []


def load(slug: str) -> Callable[[Path, Path], Loaded]:
    """``Format.load`` of a Keras format. Files of Keras 2 are run by tf-keras where it can read them, so that a rebuilt
    model is compared with an independent reader."""

    def load_file(path: Path, scratch: Path) -> Loaded:
        stored = read(slug, path, scratch)
        refuse_unsafe(stored.architecture)
        plan = _plan.of_large(slug, path, stored)
        if plan is not None and not stored.architecture.legacy:
            return _plan.loaded(plan, lambda: _live.loaded(_open(stored).model))
        independent = _independent(stored) if stored.architecture.legacy else None
        if independent is not None:
            return _live.loaded(independent)
        model = _open(stored).model
        own = dataclasses.replace(_live.loaded(model), described=lambda: _described(model))
        alone = stored.architecture.legacy and lambdas(stored.architecture)
        return dataclasses.replace(own, findings=(UNWITNESSED(),)) if alone else own

    return load_file


def _described(model: Any) -> str:
    try:
        return _plan.description(model)
    except Exception:  # a class of people's own that cannot say what it is
        return ""


@cache
def _independent(stored: Stored) -> Any:
    """The model as tf-keras reads it, or None. It is given no byte code: formulas stand for Lambda layers, once these
    could be rebuilt."""
    refuse_unsafe(stored.architecture)
    if lambdas(stored.architecture):
        return _attempt(_tf_keras_parts, stored) if _opens(stored) else None
    _registry.refuse_unknown(stored.architecture, _rebuild.LEGACY_NAMES | _registry.tf_keras_classes())
    return _attempt(_tf_keras_own, stored) or _attempt(_tf_keras_parts, stored)


def _opens(stored: Stored) -> bool:
    """Can it be rebuilt? LambdaRefused and its like stay what they are."""
    try:
        _open(stored)
    except ModelError as error:
        if not _has_no_equal(error):
            raise
        return False
    return True


def _attempt(reader: Callable[[Stored], Any], stored: Stored) -> Any:
    try:
        model = reader(stored)
        _live.require_interface(model)
    except Exception:  # whatever an old loader meets: there may be another way
        return None
    return model


def _tf_keras_own(stored: Stored) -> Any:
    import tf_keras

    if stored.own_file is None or stored.own_file.is_dir():
        raise ModelError(problem="there is no file of its own")
    if any(node["class_name"] in CUDNN for node in objects(stored.architecture.root)):
        raise ModelError(problem="its layers would want a GPU")
    with _tf_keras.reading(stored.architecture.root):
        return tf_keras.models.load_model(str(stored.own_file), compile=False)


def _tf_keras_parts(stored: Stored) -> Any:
    """Built by tf-keras from the description, with weights from our reader of the file's layout."""
    import tf_keras

    root, formulas = _lambda_witness.without_byte_code(stored.architecture)
    described = _spelled_out(dataclasses.replace(stored.architecture, root=root))
    with _tf_keras.reading(described):
        model = tf_keras.models.model_from_json(json.dumps(described), custom_objects=formulas)
    part = _weights.part_of(model)
    _modern_weights(stored, part)[0].fill(part)
    _refresh_statistics(model)
    return model


def _spelled_out(architecture: Architecture) -> dict[str, Any]:
    """The description as the last Keras 2 reads it: no module paths, defaults of older releases made explicit."""
    root = {"class_name": architecture.root["class_name"], "config": _plain(architecture.root["config"])}
    if root["class_name"] == "Sequential" and isinstance(root["config"], list):
        root["config"] = {"name": "sequential", "layers": root["config"]}
    return root


def _plain(value: Any) -> Any:
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if not isinstance(value, dict):
        return value
    plain = {
        key: _plain(item) for key, item in value.items() if key not in {"module", "registered_name", "build_config"}
    }
    if plain.get("class_name") in {"GRU", "GRUCell", "CuDNNGRU"} and isinstance(plain.get("config"), dict):
        plain["config"].setdefault("reset_after", plain["class_name"] == "CuDNNGRU")
    if plain.get("class_name") in CUDNN:
        plain["class_name"] = plain["class_name"].removeprefix("CuDNN")
    if plain.get("class_name") == "Sequential" and isinstance(plain.get("config"), list):
        plain["config"] = {"name": "sequential", "layers": plain["config"]}
    return plain


def converters(write: Writer, target: str, opener: Opener = open_model) -> dict[str, Converter]:
    """A converter from every Keras source: open it as a Keras 3 model, then write.

    From the target itself, too: what an older Keras wrote, and no newer one opens, is written anew.
    """
    needs = {"saved_model": frozenset({"keras-config"}), "pickle": frozenset({"model-inside", "keras-config"})}
    return {
        source: Converter(_converting(source, target, write, opener), needs.get(source, frozenset()))
        for source in READERS
        if (source, target) not in OTHERWISE
    }


def open_any(slug: str, path: Path, scratch: Path) -> Opened:
    """The model in Keras 3, else as tf-keras reads it: for targets that only want its graph."""
    try:
        return open_model(slug, path, scratch)
    except ModelError as error:
        stored = read(slug, path, scratch)
        model = _independent(stored) if _has_no_equal(error) and stored.architecture.legacy else None
        if model is None:
            raise
        return Opened(model, (*stored.findings, READ_BY_TF_KERAS(problem=str(error.details.get("problem", ""))[:200])))


def _has_no_equal(error: ModelError) -> bool:
    """Is this about what Keras 3 lacks? Refusals of code, and of weights that do not fit, stay refusals."""
    return error.code == ModelError.code


def _converting(source: str, slug: str, write: Writer, opener: Opener) -> Callable[[Path, Path, Hop], None]:
    def convert(path: Path, target: Path, hop: Hop) -> None:
        if _streamed(source, slug, path, target, hop):
            return
        opened = opener(source, path, hop.scratch)
        hop.add(*opened.findings)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Keras warns that .h5 is old, and the like: not about this model
            write(opened.model, target, hop)

    return convert


def _streamed(source: str, slug: str, path: Path, target: Path, hop: Hop) -> bool:
    """Large weights are copied array by array, where nothing that has to be kept needs a living model."""
    if not _plan.is_large(source, path):
        return False
    stored = read(source, path, hop.scratch)
    plan = _plan.of_large(source, path, stored)
    if plan is None or not _stream.converts(plan, slug) or stored.training.traits & _stream.TRAINING[slug]:
        return False
    hop.add(*stored.findings, *(_said(stored) if stored.architecture.legacy else ()))
    _stream.write(slug, plan, target, hop)
    return True


def inspect(slug: str) -> Callable[[Path, Path], Summary]:
    """``Format.inspect`` of a Keras format: nothing of the weights is read, nothing of the model runs."""

    def inspect_file(path: Path, scratch: Path) -> Summary:
        check_members(path)
        stored = read(slug, path, scratch)
        return _outline.summarise(stored.architecture, stored.training.traits)

    return inspect_file
