"""What a job hands over of the inside of an open model: its inner tensors on one input, small enough for a look."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from worker import verify
from worker.errors import LarderError, ModelError
from worker.formats._format import Loaded, TensorSpec
from worker.formats._inner import MOST
from worker.translation import translated
from worker.verify.draws import save_draws
from worker.verify.drift import LONGEST_NAME, thinned

if TYPE_CHECKING:
    from worker.verify.draws import Array, Arrays

Json = dict[str, Any]


def show(loaded: Loaded | None, arguments: Json) -> Json:
    """``{specs, inputs, draw, row, inner}`` → ``{problem}``: write the inner tensors on that row of that draw to
    ``inner``, where there are any; ``inputs`` is an .npz of draws under the names of ``specs``, the source's inputs."""
    if loaded is None:
        return {"problem": "nothing here runs it"}
    names = verify.pair([TensorSpec.from_json(spec) for spec in arguments["specs"]], loaded.inputs)
    if names is None:
        return {"problem": "its inputs do not correspond to the source's"}
    draw = verify.load_draws(Path(arguments["inputs"]))[int(arguments["draw"])]
    given = {names[name]: array for name, array in draw.items()}
    return {"problem": save(loaded, given, int(arguments["row"]), Path(arguments["inner"]))}


def save(loaded: Loaded, draw: Arrays, row: int, path: Path) -> str:
    """Write the inner tensors on one row of a draw as ``draws.save_draws`` does, each as a draw of its own, in the
    order in which they are computed. Why there are none, or ""."""
    if loaded.inner is None:
        return "the library that runs it does not show what it computes inside"
    try:
        with translated("Looking inside the model", otherwise=ModelError):
            tensors = [{name[:LONGEST_NAME]: thinned(array)} for name, array in _shown(loaded, draw, row)]
    except LarderError as error:  # the values are there all the same
        return error.message
    save_draws(path, tensors)
    return "" if tensors else "it computes nothing inside"


def _shown(loaded: Loaded, draw: Arrays, row: int) -> Iterator[tuple[str, Array]]:
    assert loaded.inner
    return islice(loaded.inner(one_row(loaded, draw, row)), MOST)


def one_row(loaded: Loaded, draw: Arrays, row: int) -> Arrays:
    """That row of the draw, where every input has rows of its own; else the whole draw."""
    counts = {len(array) if array.ndim else 0 for array in draw.values()}
    free = all(spec.shape and spec.shape[0] in (None, 1) for spec in loaded.inputs)
    if not free or len(counts) != 1 or row >= min(counts):
        return draw
    return {name: array[row : row + 1] for name, array in draw.items()}
