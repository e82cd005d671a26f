"""Arrays that have not been read yet, and where the readers of files find them.

A Tensor knows its shape and type and reads itself when it is asked, so that a model of any size can be described,
matched and copied one array at a time. A NumPy array serves wherever a Tensor does.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from worker.errors import CorruptFile, ModelError, PickledCode
from worker.formats._regions import BLOCK, Region, stored_region

if TYPE_CHECKING:
    import zipfile

    import numpy as np


@dataclass(frozen=True)
class Tensor:
    """One array at rest. ``read`` gives it: mapped where the file holds it as it is in memory, else a copy."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    read: Callable[[], np.ndarray]

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize


if TYPE_CHECKING:
    Stored = Tensor | np.ndarray
    Named = tuple[str, Stored]


def value_of(tensor: Stored) -> np.ndarray:
    """The numbers themselves."""
    return tensor.read() if isinstance(tensor, Tensor) else tensor


def is_counter(tensor: Stored) -> bool:
    """A lone whole number counts steps; no layer computes with it."""
    return not tensor.shape and tensor.dtype.kind in "iu"


def lazy(array: np.ndarray) -> Tensor:
    return Tensor(tuple(array.shape), array.dtype, lambda: array)


def converted(tensor: Stored, dtype: str) -> Tensor:
    """The tensor as the variable of a model wants it; bytes without a type are what NumPy makes of bfloat16."""
    wanted = dtype_of(dtype)
    item = tensor if isinstance(tensor, Tensor) else lazy(tensor)
    if item.dtype == wanted:
        return item
    if item.dtype.kind == "V" and item.dtype.itemsize == wanted.itemsize and wanted.kind == "V":
        return Tensor(item.shape, wanted, lambda: item.read().view(wanted))
    return Tensor(item.shape, wanted, lambda: item.read().astype(wanted))


def dtype_of(name: str) -> np.dtype[Any]:
    """NumPy's type of this name, also for the types that only ``ml_dtypes`` knows."""
    import ml_dtypes
    import numpy as np

    own = getattr(ml_dtypes, name, None)
    return np.dtype(name if own is None else own)


def blocks(tensor: Stored) -> Iterator[memoryview]:
    """The bytes in C order, little-endian, a few mebibytes at a time."""
    import numpy as np

    array = np.ascontiguousarray(value_of(tensor))
    array = array.astype(array.dtype.newbyteorder("<")) if array.dtype.byteorder == ">" else array
    flat = array.reshape(-1).view(np.uint8).data
    for start in range(0, len(flat), BLOCK):
        yield flat[start : start + BLOCK]


# HDF5 -----------------------------------------------------------------------------------------------------------


def opened(source: Path | Region) -> Any:
    """The HDF5 file, or CorruptFile. Close it: h5py crashes at exit over files of Python that are still open."""
    import h5py

    region = Region.of(source)
    try:
        return h5py.File(region.path if region.is_whole else region.open())
    except OSError as error:
        raise CorruptFile(name=Path(region.name).name, problem=f"HDF5 cannot open it ({error})") from error


def dataset(region: Region, item: Any) -> Tensor:
    """A dataset of an open HDF5 file, which may be closed before the tensor is read."""
    place = _place(item)
    if place is None:
        return Tensor(tuple(item.shape), item.dtype, partial(_read_dataset, region, item.name))
    return Tensor(tuple(item.shape), item.dtype, partial(region.array, place, item.dtype, tuple(item.shape)))


def _place(item: Any) -> int | None:
    """Where the file holds the numbers as they are in memory; None where HDF5 has to unpack or convert them."""
    import h5py

    plain = (
        item.dtype.kind in "fiucbV"
        and item.dtype.names is None
        and item.id.get_type().get_class() != h5py.h5t.REFERENCE
    )
    contiguous = item.id.get_create_plist().get_layout() == h5py.h5d.CONTIGUOUS
    same = plain and item.dtype.isnative and item.id.get_type().equal(h5py.h5t.py_create(item.dtype))
    if not (contiguous and same) or item.file.userblock_size or item.external or item.is_virtual:
        return None
    place = item.id.get_offset()
    return None if place is None else int(place)


def _read_dataset(region: Region, name: str) -> np.ndarray:
    import numpy as np

    with opened(region) as file:
        return np.asarray(file[name][()])


# NumPy ----------------------------------------------------------------------------------------------------------


def npz_arrays(region: Region) -> list[tuple[str, Tensor]]:
    """The arrays of an .npz by name, in the order of the file; CorruptFile, or PickledCode for arrays of objects."""
    import zipfile

    try:
        with region.open() as raw, zipfile.ZipFile(raw) as package:
            return [
                (info.filename.removesuffix(".npy"), _npy_member(region, raw, package, info))
                for info in package.infolist()
            ]
    except (OSError, EOFError, KeyError, ValueError, NotImplementedError, RuntimeError, zipfile.BadZipFile) as error:
        name = Path(region.name).name
        raise CorruptFile(name=name, problem=f"it is not a readable .npz file ({error})") from error


def _npy_member(region: Region, raw: Any, package: zipfile.ZipFile, info: zipfile.ZipInfo) -> Tensor:
    with package.open(info) as file:
        shape, fortran, dtype, start = _npy_header(file, region.name)
    size = math.prod(shape) * dtype.itemsize
    if start + size != info.file_size:
        raise ValueError(f"{info.filename} has {info.file_size} bytes, and {start + size} are declared")
    if info.compress_type or fortran or dtype.kind in "SU":
        return Tensor(shape, dtype, partial(_read_npy, region, info.filename))
    inside = stored_region(region, raw, info)
    return Tensor(shape, dtype, partial(inside.array, start, dtype, shape))


def _npy_header(file: Any, name: str) -> tuple[tuple[int, ...], bool, np.dtype[Any], int]:
    """Shape, whether the order is Fortran's, type, and where the data starts. NumPy bounds the header's length."""
    from numpy.lib import format as npy

    version = npy.read_magic(file)
    read = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}.get(version)
    if read is None:
        raise ValueError(f"version {version} of .npy is not known")
    shape, fortran, dtype = read(file)
    if dtype.hasobject:
        raise PickledCode(name=Path(name).name)
    return shape, fortran and len(shape) > 1, dtype, file.tell()


def check_npy(file: Any, size: int, name: str) -> bool:
    """Does an .npy of so many bytes hold objects? CorruptFile where its header promises other numbers than follow."""
    from numpy.lib import format as npy

    try:
        version = npy.read_magic(file)
        read = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}[version]
        shape, _, dtype = read(file)
    except (EOFError, KeyError, ValueError, TypeError, SyntaxError, RecursionError, MemoryError) as error:
        said = " ".join(str(error).split())[:120]
        raise CorruptFile(name=name, problem=f"its header is not that of an .npy file ({said})") from error
    if not all(type(edge) is int and edge >= 0 for edge in shape):
        raise CorruptFile(name=name, problem=f"its header declares the shape {shape}"[:200])
    declared = math.prod(shape) * dtype.itemsize
    if not dtype.hasobject and file.tell() + declared != size:
        raise CorruptFile(
            name=name, problem=f"its header declares {declared:,} bytes, and {size - file.tell():,} follow"
        )
    return bool(dtype.hasobject)


def _read_npy(region: Region, name: str) -> np.ndarray:
    import zipfile

    import numpy as np

    with region.open() as raw, zipfile.ZipFile(raw) as package, package.open(name) as file:
        return np.asarray(np.lib.format.read_array(file, allow_pickle=False))


# Links ----------------------------------------------------------------------------------------------------------


def refuse_links(file: Any, name: str) -> None:
    """Links to other files and data kept elsewhere have no place in a model: they would read the worker's own disk."""
    import h5py

    pending, seen = [file], set()
    while pending:
        group = pending.pop()
        place = h5py.h5o.get_info(group.id).addr
        if place in seen:  # a group may lie in itself
            continue
        seen.add(place)
        for key in group:
            if isinstance(group.get(key, getlink=True), (h5py.ExternalLink, h5py.SoftLink)):
                raise ModelError(problem=f"{name} holds a link ({key}) to somewhere else")
            item = group[key]
            if isinstance(item, h5py.Group):
                pending.append(item)
            elif isinstance(item, h5py.Dataset) and (item.external or item.is_virtual):
                raise ModelError(problem=f"{name} keeps the data of {key} in another file")
