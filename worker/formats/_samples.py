"""People's own inputs to try a model on: arrays, a table or pictures, matched to the model's inputs.

What a file is, its first bytes say: an .npz or .npy of NumPy, a ZIP or a folder of pictures, one picture, or else a
table as text. It comes from a stranger, so it is read here, in a job, and only as much of it as is used.
"""

from __future__ import annotations

import math
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from worker.errors import BadSamples
from worker.formats import _sample_pictures, _sample_tables
from worker.formats._format import TensorSpec
from worker.report import Finding, Severity, declare

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from worker.formats._format import Arrays

    Array = npt.NDArray[Any]

MOST_ROWS = 256  # that a model is run on
MOST_BYTES = 256 * 1024 * 1024  # of one array, as far as it is used
NUMPY, ZIPPED = b"\x93NUMPY", b"PK"
SMALL, LARGE = 1.5, 16.0  # samples within the first lie between 0 and 1, or -1 and 1; beyond the second they do not

CUT = declare(
    "samples-cut",
    Severity.NOTE,
    "There are {given} rows of samples; the first {used} of them were used, which is enough.",
)
TOO_SMALL = declare(
    "samples-too-small",
    Severity.WARNING,
    "The samples of {name} lie between {low:.3g} and {high:.3g}, and the model scales {wanted_low:.3g} to"
    " {wanted_high:.3g} itself. They seem to be scaled already: give them as they come, or it sees almost nothing.",
)
TOO_LARGE = declare(
    "samples-too-large",
    Severity.WARNING,
    "The samples of {name} lie between {low:.3g} and {high:.3g}, and the model does not scale its inputs itself. If"
    " they were scaled for training, to 0 to 1 for example, do the same to the samples.",
)
OUTSIDE = declare(
    "samples-out-of-range",
    Severity.WARNING,
    "The samples of {name} lie between {low:.3g} and {high:.3g}, far from the {wanted_low:.3g} to {wanted_high:.3g}"
    " that the model normalises. Check that they are of the same kind, and in the same unit, as for training.",
)
NOT_FINITE = declare(
    "samples-not-finite",
    Severity.WARNING,
    "{count} of the {total} numbers in the samples of {name} are infinite or not a number. A model that computes with"
    " them answers with the same, whatever its weights are, so they show few faults; int8 and int16x8 cannot be"
    " made with them.",
)


@dataclass(frozen=True)
class Samples:
    """One array for each input by its name, and what is to be known about them."""

    arrays: Arrays
    findings: tuple[Finding, ...]


def read_samples(path: Path, specs: Sequence[TensorSpec]) -> Arrays:
    """One array for each of ``specs`` by its name; BadSamples says what does not fit."""
    return open_samples(path, specs).arrays


def open_samples(path: Path, specs: Sequence[TensorSpec], all_finite: bool = False) -> Samples:
    """The samples of a file or a folder; BadSamples says what was found, what was expected and what to do.

    ``all_finite``: are ranges measured on them, so that every number has to be one?"""
    reader = _Reader(path.name, tuple(specs))
    try:
        arrays = reader.read(path)
    except (ValueError, OSError, EOFError, KeyError, AttributeError, RuntimeError, zipfile.BadZipFile) as error:
        problem = f"it cannot be read as plain arrays ({' '.join(str(error).split())[:200]})"
        raise BadSamples(name=path.name, problem=problem) from error
    findings = [*reader.findings, *(found for spec in specs for found in _findings(spec, arrays[spec.name]))]
    lost = next((finding for finding in findings if finding.code == NOT_FINITE.code), None)
    if lost and all_finite:
        found = "{count} of the {total} numbers of {name} are infinite or not a number".format(**lost.data)
        raise BadSamples(name=path.name, problem=f"{found}, and no range can be measured on these; leave such rows out")
    return Samples(arrays, tuple(findings))


class _Reader:
    """Reads one file for one model, and says on the way what is to be known."""

    def __init__(self, file: str, specs: tuple[TensorSpec, ...]) -> None:
        self.file, self.specs = file, specs
        self.findings: list[Finding] = []

    def read(self, path: Path) -> Arrays:
        if path.is_dir():
            return self._pictures(_sample_pictures.of_folder(path))
        with path.open("rb") as file:
            head = file.read(16)
            file.seek(0)
            if head.startswith(NUMPY):
                return self._single(file)
            if head.startswith(ZIPPED):
                with zipfile.ZipFile(file) as package:
                    return self._package(package)
            if _sample_pictures.is_picture(head):
                return self._pictures([(path.name, lambda: _sample_pictures.limited(file))])
        return self._table(path)

    def _package(self, package: zipfile.ZipFile) -> Arrays:
        names = [name.removesuffix(".npy") for name in package.namelist() if name.endswith(".npy")]
        pictures = [] if names else _sample_pictures.of_package(package)
        if pictures:
            return self._pictures(pictures)
        if not names and package.namelist():
            self._refuse("it is an archive with neither arrays (.npy) nor pictures (PNG, JPEG) in it")
        keys = _keys(self.file, self.specs, names)
        return {spec.name: self._member(package, spec, keys[spec.name]) for spec in self.specs}

    def _member(self, package: zipfile.ZipFile, spec: TensorSpec, key: str) -> Array:
        with package.open(f"{key}.npy") as file:
            return self._fitted(spec, self._array(file, spec))

    def _single(self, file: IO[bytes]) -> Arrays:
        if len(self.specs) != 1:
            asked = ", ".join(spec.name for spec in self.specs)
            self._refuse(f"it is one array, and the model asks for {asked}; give an .npz with an array for each")
        (spec,) = self.specs
        return {spec.name: self._fitted(spec, self._array(file, spec))}

    def _array(self, file: IO[bytes], spec: TensorSpec) -> Array:
        """The first rows of a stored array, and no more of the file than that."""
        import numpy as np

        shape, fortran, dtype = _header(file)
        if dtype.hasobject:
            self._refuse(f"it cannot be read as plain arrays (Object arrays cannot be loaded: {spec.name})")
        cut = not fortran and bool(shape) and shape[0] > MOST_ROWS and bool(spec.shape) and spec.shape[0] is None  # type: ignore[index]
        used = (MOST_ROWS, *shape[1:]) if cut else shape
        size = math.prod(used) * dtype.itemsize
        if size > MOST_BYTES:
            self._refuse(
                f"{spec.name} takes {size:,} bytes, more than the {MOST_BYTES:,} that are read; give fewer rows"
            )
        content = file.read(size)
        if len(content) != size:
            raise ValueError(f"it breaks off: {len(content)} of {size} bytes are there")
        if cut:
            self._say_cut(shape[0])
        return np.frombuffer(content, dtype).reshape(used, order="F" if fortran else "C")

    def _table(self, path: Path) -> Arrays:
        columns, rows = _sample_tables.read(path, self.specs, MOST_ROWS)
        if rows > MOST_ROWS:
            self._say_cut(rows)
        return {spec.name: self._fitted(spec, columns[spec.name]) for spec in self.specs}

    def _pictures(self, pictures: Sequence[_sample_pictures.Picture]) -> Arrays:
        if len(pictures) > MOST_ROWS:
            self._say_cut(len(pictures))
        if len(self.specs) != 1:
            asked = ", ".join(spec.name for spec in self.specs)
            self._refuse(f"pictures are for models with one input, and this one asks for {asked}; give an .npz")
        (spec,) = self.specs
        array, finding = _sample_pictures.array_of(self.file, pictures[:MOST_ROWS], spec, MOST_BYTES)
        self.findings.append(finding)
        return {spec.name: self._fitted(spec, array)}

    def _fitted(self, spec: TensorSpec, array: Array) -> Array:
        """The array in the input's dtype; BadSamples where shape, kind or range do not fit."""
        import numpy as np

        if spec.shape is not None and not _fits(array.shape, spec.shape):
            wanted = "×".join("?" if size is None else str(size) for size in spec.shape)
            self._refuse(
                f"{spec.name} is {'×'.join(map(str, array.shape)) or 'a single value'}, and the model takes {wanted}"
            )
        if 0 in array.shape:
            self._refuse(f"{spec.name} holds no values; give at least one row")
        if spec.dtype == "string":
            return self._text(spec, array)
        target = np.dtype("float32" if spec.dtype == "bfloat16" else spec.dtype)
        if not np.can_cast(array.dtype, target, "same_kind") and not _is_lossless(array, target):
            self._refuse(f"{spec.name} is {array.dtype}, and the model takes {spec.dtype}")
        if spec.limit and array.dtype.kind in "iuf" and not (array.min() >= 0 and array.max() < spec.limit):
            found = f"whole numbers from {array.min():g} to {array.max():g}"
            self._refuse(
                f"{spec.name} holds {found}, and the model looks them up in a table from 0 to {spec.limit - 1}"
            )
        return array.astype(target)

    def _text(self, spec: TensorSpec, array: Array) -> Array:
        import numpy as np

        if array.dtype.kind not in "US":
            self._refuse(f"{spec.name} is {array.dtype}, and the model takes text")
        return np.char.encode(array, "utf-8") if array.dtype.kind == "U" else array

    def _say_cut(self, given: int) -> None:
        finding = CUT(given=given, used=MOST_ROWS)
        if finding not in self.findings:
            self.findings.append(finding)

    def _refuse(self, problem: str) -> None:
        raise BadSamples(name=self.file, problem=problem)


def told(arrays: Arrays) -> list[dict[str, Any]]:
    """What was read, for each input: name, shape, dtype and between which of its finite numbers it lies. JSON."""
    return [{"name": name, "shape": list(array.shape), **_range(array)} for name, array in arrays.items()]


def _range(array: Array) -> dict[str, Any]:
    import numpy as np

    if array.dtype.kind not in "iufb":
        return {"dtype": "string", "low": None, "high": None, "finite": True}
    finite = array[np.isfinite(array)] if array.dtype.kind == "f" else array
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (None, None)
    return {"dtype": array.dtype.name, "low": low, "high": high, "finite": finite.size == array.size}


def _header(file: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Shape, order and dtype of a stored array."""
    import numpy as np

    version = np.lib.format.read_magic(file)
    readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    if version not in readers:
        raise ValueError(f"version {version[0]}.{version[1]} of NumPy's format; save it with text as plain strings")
    try:
        shape, fortran, dtype = readers[version](file)
    except (SyntaxError, RecursionError, MemoryError, TypeError) as error:  # the header is read as Python text
        raise ValueError("its header is no header") from error
    if any(size < 0 for size in shape):
        raise ValueError("its header is no header")
    return shape, fortran, dtype


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


def _fits(shape: Sequence[int], wanted: Sequence[int | None]) -> bool:
    return len(shape) == len(wanted) and all(b is None or a == b for a, b in zip(shape, wanted, strict=True))


def _is_lossless(array: Array, target: np.dtype[Any]) -> bool:
    """Are these whole numbers that the narrower or unsigned type holds all the same?"""
    import numpy as np

    if array.dtype.kind not in "iub" or target.kind not in "iu":
        return False
    limits = np.iinfo(target)
    return bool(limits.min <= int(array.min()) and int(array.max()) <= limits.max)


def _findings(spec: TensorSpec, array: Array) -> Iterator[Finding]:
    """Are the samples numbers, and do these lie where the layers of the model expect them?"""
    import numpy as np

    if array.dtype.kind != "f" or "float" not in spec.dtype:
        return
    finite = array[np.isfinite(array)]
    if finite.size < array.size:
        yield NOT_FINITE(name=spec.name, count=array.size - finite.size, total=array.size)
    if finite.size and not spec.limit:
        yield from _range_findings(spec, array.ndim, float(finite.min()), float(finite.max()))


def _range_findings(spec: TensorSpec, rank: int, low: float, high: float) -> Iterator[Finding]:
    facts: dict[str, Any] = {"name": spec.name, "low": low, "high": high}
    if not spec.high:
        if rank >= 4 and low >= 0 and LARGE < high <= 255:
            yield TOO_LARGE(**facts)
        return
    wanted = {"wanted_low": min(spec.low), "wanted_high": max(spec.high)}
    # a step of the route may have them in fewer digits, and nothing is said twice
    facts |= {name: float(f"{value:.5g}") for name, value in wanted.items()}
    width = facts["wanted_high"] - facts["wanted_low"]
    if facts["wanted_high"] > LARGE and low >= -SMALL and high <= SMALL:
        yield TOO_SMALL(**facts)
    elif low > facts["wanted_high"] + 2 * width or high < facts["wanted_low"] - 2 * width:
        yield OUTSIDE(**facts)
