"""Inputs and answers on their way from one job to another: one .npz of plain arrays."""

from __future__ import annotations

import os
import struct
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from worker.errors import NoResult

Array = npt.NDArray[Any]
Arrays = dict[str, Array]


MOST_ENTRIES = 20_000  # draws times outputs
MOST_DIRECTORY = 4 * 2**20  # bytes that say which entries there are: 200 for each of so many
RAW = {"float32": "<f4", "int32": "<i4", "bool": "u1"}
END = struct.Struct("<4s4H2LH")  # the last record of a ZIP: magic, disks, entries (twice), directory's size, offset, …
END_64 = b"PK\x06\x07"  # of the record before it, in ZIPs with more than that can say


def save_draws(path: Path, draws: Sequence[Mapping[str, Array]]) -> None:
    """Write the draws as one .npz, in order, under "number/name"; one that holds nothing, of a model without inputs,
    under "number/"."""
    named = {f"{number}/{name}": array for number, draw in enumerate(draws) for name, array in draw.items()}
    named |= {f"{number}/": np.zeros(0) for number, draw in enumerate(draws) if not draw}
    with path.open("wb") as file:
        np.savez(file, allow_pickle=False, **named)


def load_raw(path: Path, dtype: str, shape: Sequence[int]) -> Array:
    """One array whose numbers stand in a file row by row, little-endian; ValueError where they are others."""
    stored = np.fromfile(path, RAW[dtype]).reshape([int(size) for size in shape])
    return stored.astype(bool) if dtype == "bool" else stored.astype(dtype, copy=False)


def nudged(draw: Mapping[str, Array]) -> Arrays:
    """The same inputs, each number moved by the rounding of its own precision, up or down by chance."""
    random = np.random.default_rng(len(draw))
    return {
        name: array * (1 + np.finfo(array.dtype).eps * random.choice([-1, 1], array.shape)).astype(array.dtype)
        if array.dtype.kind == "f"
        else array
        for name, array in draw.items()
    }


def load_draws(path: Path, limit: int = 2**31) -> list[Arrays]:
    """Read what ``save_draws`` wrote. The file comes from a job, so it may hold anything: NoResult where it does."""
    draws: dict[int, Arrays] = {}
    try:
        _check_plain(path, limit)
        with np.load(path, allow_pickle=False) as stored:
            for key in stored.files:
                number, _, name = key.partition("/")
                draw = draws.setdefault(int(number), {})
                if name:
                    draw[name] = stored[key]
    except Exception as error:  # also RecursionError, TokenError, …: NumPy reads a header as Python text
        raise NoResult(status=f"values that cannot be read ({type(error).__name__})") from error
    return [draws[number] for number in sorted(draws)]


def _check_plain(path: Path, limit: int) -> None:
    """Arrays as ``np.savez`` stores them: not compressed, so they cannot grow, not more than ``limit`` bytes, and not
    more entries than any model gives. Nothing is unpacked for that, and no long directory is read."""
    _check_directory(path)
    with zipfile.ZipFile(path) as package:
        infos = package.infolist()
    if len(infos) > MOST_ENTRIES:
        raise ValueError("too many arrays")
    if sum(info.file_size for info in infos) > limit or any(info.compress_type for info in infos):
        raise ValueError("not plain arrays")


def _check_directory(path: Path) -> None:
    """The last record of the ZIP, which ``np.savez`` writes without a comment: it says how long the directory is that
    ``zipfile`` would read at once, whatever it says of the number of entries."""
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - END.size - 20))
        last = file.read()
    magic, _, _, _, entries, length, _, comment = END.unpack(last[-END.size :])
    if magic != b"PK\x05\x06" or comment or last[: -END.size].startswith(END_64):
        raise ValueError("not plain arrays")
    if entries > MOST_ENTRIES or length > MOST_DIRECTORY:
        raise ValueError("too many arrays")
