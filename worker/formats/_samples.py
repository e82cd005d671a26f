"""People's own inputs to try a model on: an .npz, matched to the model's inputs by name or by place."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from worker.errors import BadSamples
from worker.formats._format import TensorSpec

if TYPE_CHECKING:
    import numpy.typing as npt

    from worker.formats._format import Arrays

    Array = npt.NDArray[Any]


def read_samples(path: Path, specs: Sequence[TensorSpec]) -> Arrays:
    """One array for each of ``specs`` by its name; BadSamples says what does not fit."""
    import numpy as np

    try:
        with path.open("rb") as file:  # np.load leaves one of its own open where it fails
            stored = np.load(file, allow_pickle=False)
            if not isinstance(stored, np.lib.npyio.NpzFile):
                raise BadSamples(name=path.name, problem="it is not an .npz archive")
            keys = _keys(path.name, specs, stored.files)
            return {spec.name: _fitted(path.name, spec, stored[keys[spec.name]]) for spec in specs}
    except (ValueError, OSError, EOFError, AttributeError, zipfile.BadZipFile) as error:
        raise BadSamples(name=path.name, problem=f"it cannot be read as plain arrays ({error})") from error


def _keys(file: str, specs: Sequence[TensorSpec], stored: Sequence[str]) -> Mapping[str, str]:
    """Which stored array belongs to which input: by the input's name, or input_0…, or arr_0… as np.savez counts."""
    schemes = (
        {spec.name: spec.name for spec in specs},
        {spec.name: f"input_{place}" for place, spec in enumerate(specs)},
        {spec.name: f"arr_{place}" for place, spec in enumerate(specs)},
    )
    for scheme in schemes:
        if set(scheme.values()) <= set(stored):
            return scheme
    asked = ", ".join(spec.name for spec in specs)
    raise BadSamples(
        name=file, problem=f"it has {', '.join(stored) or 'nothing'}; the model asks for {asked} (or input_0…)"
    )


def _fitted(file: str, spec: TensorSpec, array: Array) -> Array:
    """The array in the input's dtype; BadSamples where shape or kind do not fit."""
    import numpy as np

    if spec.shape is not None and not _fits(array.shape, spec.shape):
        wanted = "×".join("?" if size is None else str(size) for size in spec.shape)
        given = "×".join(map(str, array.shape))
        raise BadSamples(name=file, problem=f"{spec.name} is {given}, and the model takes {wanted}")
    if spec.dtype == "string":
        return np.char.encode(array, "utf-8") if array.dtype.kind == "U" else array
    target = np.dtype("float32" if spec.dtype == "bfloat16" else spec.dtype)
    if not np.can_cast(array.dtype, target, "same_kind"):
        raise BadSamples(name=file, problem=f"{spec.name} is {array.dtype}, and the model takes {spec.dtype}")
    return array.astype(target)


def _fits(shape: Sequence[int], wanted: Sequence[int | None]) -> bool:
    return len(shape) == len(wanted) and all(b is None or a == b for a, b in zip(shape, wanted, strict=True))
