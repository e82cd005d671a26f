"""Samples as a table in text: a column for each input, or for each value of the only one; a line for each row."""

from __future__ import annotations

import csv
import itertools
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from worker.errors import BadSamples
from worker.formats._format import TensorSpec

if TYPE_CHECKING:
    import numpy.typing as npt

    Array = npt.NDArray[Any]

MOST_TEXT = 64 * 1024 * 1024  # bytes
MOST_COLUMNS = 100_000
DELIMITERS = ",;\t"
YES_NO = {"true": "1", "false": "0", "yes": "1", "no": "0"}

Row = tuple[int, list[str]]  # the number of its line, and its cells


def read(path: Path, specs: Sequence[TensorSpec], most: int) -> tuple[dict[str, Array], int]:
    """An array for each input, with ``most`` rows at most, and how many rows there are; BadSamples where it is none."""
    return _Table(path.name, specs).arrays(path, most)


class _Table:
    def __init__(self, file: str, specs: Sequence[TensorSpec]) -> None:
        self.file, self.specs = file, specs

    def arrays(self, path: Path, most: int) -> tuple[dict[str, Array], int]:
        rows = self._rows(path)
        first = next(rows, None)
        if first is None:
            self._refuse("it is empty; give one line for each row")
        columns = self._columns(first[1])
        body = rows if self._is_header(first[1]) else itertools.chain([first], rows)
        kept = list(itertools.islice(body, most))
        if not kept:
            self._refuse("it has a line of names and no values; give one line for each row")
        total = len(kept) + sum(1 for _ in body)
        return {spec.name: self._array(spec, columns[spec.name], len(first[1]), kept) for spec in self.specs}, total

    def _rows(self, path: Path) -> Iterator[Row]:
        """The lines that are not empty, with the delimiter that the first line has most of."""
        size = path.stat().st_size
        if size > MOST_TEXT:
            self._refuse(f"it has {size:,} bytes, more than the {MOST_TEXT:,} of a table; give fewer rows, or an .npz")
        try:
            with path.open(encoding="utf-8-sig", newline="") as file:
                line = file.readline(MOST_TEXT)
                file.seek(0)
                reader = csv.reader(file, delimiter=max(DELIMITERS, key=line.count), strict=True)
                for cells in reader:
                    if any(cell.strip() for cell in cells):
                        yield reader.line_num, cells
        except UnicodeDecodeError:
            self._refuse("it is none of .npz, .npy, PNG, JPEG, a ZIP of pictures, or a table as UTF-8 text (.csv)")
        except csv.Error as error:
            self._refuse(f"it is no table ({error}); put text with commas or line breaks into double quotes")

    def _columns(self, first: Sequence[str]) -> Mapping[str, list[int]]:
        """Which columns belong to which input: those with its name, ``name[0]``, ``name_0`` and so on; else all."""
        if len(first) > MOST_COLUMNS:
            self._refuse(f"it has {len(first):,} columns; give an .npz")
        found = self._named(first)
        if all(found.values()):
            return found
        if len(self.specs) > 1:
            asked = ", ".join(spec.name for spec in self.specs)
            self._refuse(f"its first line is {_shown(first)}; the model has {asked}, so the first line must name them")
        return {self.specs[0].name: list(range(len(first)))}

    def _named(self, first: Sequence[str]) -> dict[str, list[int]]:
        names = [cell.strip() for cell in first]
        found = {}
        for spec in self.specs:
            pattern = re.compile(rf"{re.escape(spec.name)}(?:[_.]?(\d{{1,6}})|\[(\d{{1,6}})\])?")
            places = [(match, at) for at, name in enumerate(names) if (match := pattern.fullmatch(name))]
            found[spec.name] = [at for _, at in sorted((int(match[1] or match[2] or 0), at) for match, at in places)]
        return found

    def _is_header(self, first: Sequence[str]) -> bool:
        """Does it name the inputs, or hold words where the model takes numbers?"""
        if all(self._named(first).values()):
            return True
        is_text = any(spec.dtype == "string" for spec in self.specs)
        return not is_text and not any(_is_number(cell) for cell in first)

    def _array(self, spec: TensorSpec, columns: Sequence[int], width: int, rows: Sequence[Row]) -> Array:
        import numpy as np

        cells = []
        for line, row in rows:
            if len(row) != width:
                hint = "; put text with commas into double quotes" if spec.dtype == "string" else ""
                self._refuse(f"line {line} has {len(row)} columns, and the first line has {width}{hint}")
            cells.append([row[at] for at in columns])
        values = np.array(cells) if spec.dtype == "string" else self._numbers(spec, cells, rows)
        return values.reshape(self._shape(spec, len(rows), len(columns)))

    def _numbers(self, spec: TensorSpec, cells: Sequence[Sequence[str]], rows: Sequence[Row]) -> Array:
        import numpy as np

        whole = np.dtype("float32" if spec.dtype == "bfloat16" else spec.dtype).kind in "iub"
        values = []
        for (line, _), row in zip(rows, cells, strict=True):
            try:
                values.append([_number(cell, whole) for cell in row])
            except ValueError as error:
                self._refuse(f"line {line} has {str(error)[:60]} where {spec.name} takes {spec.dtype}")
        array = np.array(values, "int64" if whole else "float64")
        return array.astype(bool) if spec.dtype == "bool" else array

    def _shape(self, spec: TensorSpec, rows: int, columns: int) -> tuple[int, ...]:
        """The values of a line in the shape of a row; one free dimension is what remains."""
        if spec.shape is None or len(spec.shape) < 1:
            return rows, columns
        inner = spec.shape[1:]
        known = math.prod(size for size in inner if size is not None)
        free = sum(size is None for size in inner)
        if free > 1 or (columns % known if free and known else columns != known):
            wanted = "×".join("?" if size is None else str(size) for size in inner) or "one value"
            self._refuse(f"it has {columns} columns for {spec.name}, and a row of it is {wanted}")
        return rows, *(columns // known if size is None else size for size in inner)

    def _refuse(self, problem: str) -> NoReturn:
        raise BadSamples(name=self.file, problem=problem)


def _number(cell: str, whole: bool) -> float:
    text = YES_NO.get(cell.strip().lower(), cell.strip())
    try:
        value = int(text) if whole and re.fullmatch(r"[+-]?\d{1,19}", text) else float(text)
    except ValueError:
        raise ValueError(f"{cell.strip()!r}" if cell.strip() else "an empty cell") from None
    if whole and (value != value or value in (math.inf, -math.inf) or value != int(value)):
        raise ValueError(repr(cell.strip()))
    if whole and not -(2**63) <= value < 2**63:
        raise ValueError(repr(cell.strip()))
    return value


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return not cell.strip()
    return True


def _shown(cells: Sequence[str]) -> str:
    few = ", ".join(cell.strip()[:30] for cell in cells[:6])
    return f"{few}, …" if len(cells) > 6 else few
