"""Can the whole numbers of a TensorFlow Lite file stand for all that is computed? What lies beyond a range is cut off,
which no comparison of constants sees, and values hardly where eight bits are coarse anyway."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from worker.errors import ModelError
from worker.formats import _draws
from worker.formats._likeness import CutOff, Measured
from worker.formats._samples import open_samples

if TYPE_CHECKING:
    import numpy as np

    from worker.formats._format import Arrays
    from worker.formats._tflite_alike import Walk

ENDS = {"int8": (-128, 127), "uint8": (0, 255), "int16": (-32768, 32767)}
Range = tuple[float, float]


def cut_off(fine: Path, walk: Walk, measured: Measured) -> list[CutOff]:
    """How much of the values of each computed tensor that is stored in whole numbers these cannot stand for, most
    first. Of the graph that is run alone, not of loops and branches. ``fine``: the file before it was rounded."""
    (one, inputs, _), (other, *_) = walk.fine.edges(), walk.coarse.edges()
    graph = walk.coarse.graphs[other]
    held = {number: _held(graph, number) for number in range(graph.graph.TensorsLength())}
    if one or not any(held.values()):
        return []
    rows = [{inputs[name]: array for name, array in row.items()} for row in _rows(fine, measured)]
    seen = ranges(fine.read_bytes(), rows)
    found = []
    for number, ends in held.items():
        graph_of, tensor = walk.computed.get(walk.coarse.origin(other, number), (-1, -1))
        if ends and graph_of == one and tensor in seen:
            found.append(CutOff(graph.name(number), _beyond(seen[tensor], ends)))
    return sorted(found, key=lambda item: -item.share)


def _rows(fine: Path, measured: Measured) -> list[Arrays]:
    """Those that a conversion with this seed measures its ranges on, by the names of the file's inputs; none where it
    does not run on them."""
    from worker.formats import _tflite_run
    from worker.formats._tflite_write import MOST_ROWS, ROWS

    opened = _tflite_run.load(fine)
    names = _paired([spec.name for spec in measured.inputs], [spec.name for spec in opened.inputs])

    def run(arrays: Arrays) -> Arrays:
        return opened.run({names[name]: array for name, array in arrays.items()})

    source = dataclasses.replace(opened, inputs=measured.inputs, run=run)
    try:
        if measured.samples is None:
            rows = _draws.make_rows(source, measured.seed, ROWS)
        else:
            samples = open_samples(measured.samples, source.inputs)
            rows = list(_draws.split_rows(samples.arrays, source.inputs))[:MOST_ROWS]
    except ModelError:
        return []
    return [{names[name]: array for name, array in row.items()} for row in rows]


def _paired(before: Sequence[str], after: Sequence[str]) -> dict[str, str]:
    """By name, else by place."""
    return dict(zip(before, before if set(before) == set(after) else after, strict=False))


def ranges(content: bytes, rows: Sequence[dict[int, np.ndarray]]) -> dict[int, Range]:
    """The least and the greatest number of each tensor of the first graph, over all rows."""
    from worker.formats._inner_runtimes import computed_by_tflite

    found: dict[int, Range] = {}
    for row in rows:
        for number, array in {**row, **computed_by_tflite(content, row)}.items():
            if array.size and array.dtype.kind == "f":
                low, high = found.get(number, (float("inf"), float("-inf")))
                found[number] = min(low, float(array.min())), max(high, float(array.max()))
    return found


def _held(graph: Any, number: int) -> Range | None:
    """The least and the greatest number that a computed tensor can stand for; None for floats and constants."""
    meaning, ends = graph.meaning(number), ENDS.get(graph.kind(number))
    if meaning is None or ends is None or graph.buffer(number) is not None:
        return None
    scale, zero = meaning
    return scale * (ends[0] - zero), scale * (ends[1] - zero)


def _beyond(seen: Range, held: Range) -> float:
    """How far values reach beyond what can be held, as a share of their span, which always holds zero."""
    span = max(seen[1], 0.0) - min(seen[0], 0.0)
    return max(held[0] - seen[0], seen[1] - held[1], 0.0) / span if span else 0.0
