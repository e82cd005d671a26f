"""Would a fault have shown? Faults are planted into the weights of an open model, one tensor at a time, and undone.

Runs inside a job, on a model that answers the same input the same way each time (``steady``). What is measured is how
far each fault moves the outputs: the largest |y' - y| / max |y| over one output. The judgement of it is not made here.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from worker.formats._draws import LARGE_ROW, size_of, smallest
from worker.formats._format import Loaded, TensorSpec, Variable

if TYPE_CHECKING:
    import numpy.typing as npt

    Array = npt.NDArray[Any]
    Arrays = dict[str, Array]

Json = dict[str, Any]
NOISE = 0.01  # of a tensor's root mean square
LEAST_SECONDS, LEAST_TENSORS = 0.5, 8
TOLD_TENSORS, TOLD_SECONDS = 3, 0.2  # at most, where nothing hangs on what is found
MOST_DRAWS = 5  # on which a fault is looked for before it counts as not seen; the smallest ones
GIVEN_UP = 12  # faults that a draw may fail to show before it is left out
CLEARLY = 5e-2  # moved so far that nobody asks for more, where the caller does not say what is enough
SUNK = 1e-6  # of what an output is otherwise
MOST_AGAIN = 50  # times that a draw is asked again whether the answer is the same
BEYOND = 1e6  # moved, where an answer became infinite or no answer came: any number would do
STEPS = (10.0, 100.0, 0.1, 1000.0, 0.01)  # by which inputs are scaled where those of the signature do not show enough
FIRST = 8  # unseen tensors of which a draw has to show one, to be tried on the others
BAR = 0.99  # the share of tensors whose faults have to show


@dataclass(frozen=True)
class Better:
    """Draws on which more faults show than on the ordinary ones, the answers to them, and the rows with what they
    added."""

    draws: list[Arrays]
    answers: list[Arrays]
    rows: list[Json]


# Two runs of one model --------------------------------------------------------------------------------------------


def steady(loaded: Loaded, draws: Sequence[Arrays], answers: Sequence[Arrays], allowed: float, seconds: float) -> str:
    """Does the model answer these draws as before, each once more, and again for so many seconds? "" if so; "stateful"
    where it changes its variables when it runs, else "random": some are so for a few inputs alone, or now and then.
    ``allowed`` is relative to the output's largest value: threads sum in any order. Of large draws, the first alone is
    tried."""
    both = list(zip(draws, answers, strict=True))
    small = [(draw, answer) for draw, answer in both if size_of(draw) <= LARGE_ROW] or both[:1]
    end = time.monotonic() + seconds
    for _ in range(MOST_AGAIN):
        for draw, answer in small:
            if moved(answer, loaded.run(draw)) > allowed:
                return _why_unsteady(loaded, draw)
        if time.monotonic() > end:
            break
    return ""


def _why_unsteady(loaded: Loaded, draw: Arrays) -> str:
    before = [(variable, variable.read()) for variable in loaded.variables()]
    loaded.run(draw)
    return "stateful" if any(map(_changed, before)) else "random"


def _changed(item: tuple[Variable, Array]) -> bool:
    import numpy as np

    variable, before = item
    return not np.array_equal(variable.read(), before, equal_nan=before.dtype.kind in "fc")


def moved(before: Arrays, after: Arrays) -> float:
    """How far the answer is from what it was, relative to the largest value of an output; the most over all outputs.

    Text and whole numbers count as moved by 1 where any of them differs, and an output of nothing but zeros by its
    absolute change."""
    return max((_moved(array, after[name]) for name, array in before.items()), default=0.0)


def _moved(before: Array, after: Array) -> float:
    import numpy as np

    if before.shape != after.shape:
        return BEYOND
    if before.dtype.kind not in "fc":
        return float(not np.array_equal(before, after))
    finite = np.isfinite(before)
    if not np.array_equal(finite, np.isfinite(after)):
        return BEYOND
    a, b = before[finite].astype("complex128"), after[finite].astype("complex128")
    gap, scale = float(np.abs(a - b).max(initial=0.0)), float(np.abs(a).max(initial=0.0))
    return min(gap / (scale or 1.0), BEYOND)


# Planting faults --------------------------------------------------------------------------------------------------


def try_faults(
    loaded: Loaded, draws: Sequence[Arrays], seed: int, seconds: float, *, enough: float = CLEARLY
) -> list[Json]:
    """``[{layer, tensor, count, moved, moved_gross, unread}]`` for as many weight tensors as the time allows,
    ``LEAST_TENSORS`` at least, in an order that the seed shuffles: so they are a fair sample of ``loaded.variables()``.

    ``moved_gross`` is None where the small fault showed; ``unread`` is a tensor that reaches no output. A fault that
    moves an output by ``enough`` is not tried on further draws, so what is said of it is a lower bound."""
    variables = loaded.variables()
    tried = [_Draw(draws[place]) for place in smallest(draws, MOST_DRAWS)]
    places = _until(_shuffled(len(variables), seed), max(seconds, LEAST_SECONDS), LEAST_TENSORS)
    return _rows(_Trial(loaded.run, enough, tried), variables, places, seed)


def tell_faults(
    loaded: Loaded, draws: Sequence[Arrays], answers: Sequence[Arrays], seed: int, enough: float
) -> list[Json]:
    """The same where nothing hangs on it: of a few tensors, of fewer where the model is slow. ``answers`` are what it
    said to the draws."""
    variables = loaded.variables()
    tried = [_Draw(draws[place], answers[place]) for place in smallest(draws, MOST_DRAWS)]
    places = _until(_shuffled(len(variables), seed)[:TOLD_TENSORS], TOLD_SECONDS, 1)
    return _rows(_Trial(loaded.run, enough, tried), variables, places, seed)


def _rows(trial: _Trial, variables: Sequence[Variable], places: Iterable[int], seed: int) -> list[Json]:
    return [_row(trial, variables[place], [seed, place]) for place in places]


def _shuffled(count: int, seed: int) -> list[int]:
    import numpy as np

    return [int(place) for place in np.random.default_rng([seed, count]).permutation(count)]


def _until(places: Iterable[int], seconds: float, least: int) -> Iterator[int]:
    """The places as long as there is time, and so many of them in any case."""
    end = time.monotonic() + seconds
    for number, place in enumerate(places):
        if number >= least and time.monotonic() > end:
            return
        yield place


def _row(trial: _Trial, variable: Variable, seed: Sequence[int]) -> Json:
    value = variable.read()
    moved = trial.moved_by(variable, value, small_fault(value, seed))
    gross = trial.moved_by(variable, value, gross_fault(value, seed)) if moved < trial.enough else None
    return {
        "layer": variable.layer,
        "tensor": variable.name,
        "count": int(value.size),
        "moved": moved,
        "moved_gross": gross,
        "unread": gross == moved == 0.0 and trial.ignores(variable, value, seed),
    }


def small_fault(value: Array, seed: Sequence[int]) -> Array:
    """Noise of 1 % of the root mean square; of 1 % where all values are zero. What is nowhere negative stays so, since
    a variance has to."""
    import numpy as np

    wide: type[np.float32 | np.float64] = np.float64 if value.dtype == np.float64 else np.float32
    plain = value.astype(wide, copy=False)
    size = float(np.linalg.norm(plain.ravel())) / math.sqrt(max(1, value.size))
    wrong: Array = np.random.default_rng(seed).standard_normal(value.shape, dtype=wide)
    wrong *= NOISE * (size or 1.0)  # in place: a table of embeddings may be most of the model
    wrong += plain
    if size and plain.min() >= 0:
        np.abs(wrong, out=wrong)
    return wrong.astype(value.dtype, copy=False)


def gross_fault(value: Array, seed: Sequence[int]) -> Array:
    """The sign turned; nothing but zeros where no value is negative, as in a variance; noise of a tenth where all
    values are zero."""
    import numpy as np

    if not value.any():
        return (0.1 * np.random.default_rng(seed).standard_normal(value.shape)).astype(value.dtype)
    return -value if value.min() < 0 else np.zeros_like(value)


@dataclass
class _Trial:
    """Draws with their answers as the model runs now, those first that have shown the most faults. Most are never asked
    for: the first draw shows nearly every fault that shows at all."""

    run: Callable[[Arrays], Arrays]
    enough: float
    tried: list[_Draw]

    def moved_by(self, variable: Variable, value: Array, wrong: Array) -> float:
        """How far the outputs move with ``wrong`` in the variable, which has ``value`` again afterwards."""
        most = 0.0
        for item in [self.tried[0], *(item for item in self.tried[1:] if item.is_worth_it())]:
            if item.answer is None:
                item.answer = self.run(item.given)
            found = self._with(variable, value, wrong, item)
            most = max(most, found)
            if found >= self.enough:
                item.shown += 1
                self.tried.sort(key=lambda other: -other.shown)
                break
        return most

    def ignores(self, variable: Variable, value: Array, seed: Sequence[int]) -> bool:
        """Does the tensor reach no output, whatever it holds? What is not a number gets past everything but a choice
        of the largest, and huge numbers get past that."""
        import numpy as np

        if value.dtype.kind != "f":
            return False
        noise, width = np.random.default_rng(seed).standard_normal(value.shape), np.finfo(value.dtype).max / 1e4
        worst = (np.full_like(value, np.nan), (np.sign(noise) * width).astype(value.dtype), noise.astype(value.dtype))
        pairs = [(wrong, item) for wrong in worst for item in self.tried if item.answer is not None]
        return bool(pairs) and all(self._with(variable, value, wrong, item) == 0.0 for wrong, item in pairs)

    def _with(self, variable: Variable, value: Array, wrong: Array, item: _Draw) -> float:
        assert item.answer is not None
        item.runs += 1
        variable.assign(wrong)
        try:
            return moved(item.answer, self.run(item.given))
        except Exception:  # whatever a runtime raises over such a weight: nobody would miss that
            return BEYOND
        finally:
            variable.assign(value)


@dataclass
class _Draw:
    given: Arrays
    answer: Arrays | None = None  # where it was asked for already
    runs: int = 0
    shown: int = 0

    def is_worth_it(self) -> bool:
        """A draw that has shown none of many faults only takes time."""
        return self.shown > 0 or self.runs < GIVEN_UP


# Draws that show more ---------------------------------------------------------------------------------------------


def better_draws(
    loaded: Loaded,
    draws: Sequence[Arrays],
    answers: Sequence[Arrays],
    rows: Sequence[Json],
    seed: int,
    seconds: float,
    *,
    enough: float,
    gross: bool = False,
) -> Better:
    """Scaled inputs, and pixels for images, on which faults show that moved no output by ``enough`` before. A network
    that is linear for most inputs answers the scaled ones in proportion, but its last activation does not.

    Nothing where 0.99 of the tensors are seen already. ``gross`` asks for the gross fault to be seen instead.
    ``answers`` are those to ``draws``: an output that sinks far below them says nothing.
    """
    search = _Search(loaded, ("moved", "moved_gross") if gross else ("moved",), enough, seed, seconds)
    found = Better([], [], [dict(row) for row in rows])
    for draw in _candidates(loaded.inputs, draws, seed):
        unseen = [
            row
            for row in found.rows
            if not row.get("unread") and all((row[key] or 0.0) < enough for key in search.keys)
        ]
        if len(unseen) <= (1 - BAR) * len(rows) or search.is_over():
            break
        answer = finite_answer(loaded, draw)
        if answer and not _has_sunk(answer, answers) and (shown := search.shown_by(draw, answer, unseen)):
            found.draws.append(draw)
            found.answers.append(answer)
            key = search.keys[-1]
            found.rows[:] = [{**row, key: shown.get(row["tensor"], row[key])} for row in found.rows]
    return found


class _Search:
    """What is looked for on one draw after the other, and until when."""

    def __init__(self, loaded: Loaded, keys: Sequence[str], enough: float, seed: int, seconds: float) -> None:
        self.loaded, self.keys, self.enough, self.seed = loaded, keys, enough, seed
        self.fault = gross_fault if "moved_gross" in keys else small_fault
        self.variables = {variable.name: variable for variable in loaded.variables()}
        self.end = time.monotonic() + max(seconds, LEAST_SECONDS)

    def is_over(self) -> bool:
        return time.monotonic() > self.end

    def shown_by(self, draw: Arrays, answer: Arrays, unseen: Sequence[Json]) -> dict[str, float]:
        """How far the answer moves with those faults that the draw shows. It is given up where it shows none of the
        first."""
        trial = _Trial(self.loaded.run, self.enough, [_Draw(draw, answer)])
        shown: dict[str, float] = {}
        for number, row in enumerate(unseen):
            if self.is_over() or (number >= FIRST and not shown):
                break
            far = self._moved(trial, self.variables[row["tensor"]])
            shown |= {row["tensor"]: far} if far >= self.enough else {}
        return shown

    def _moved(self, trial: _Trial, variable: Variable) -> float:
        value = variable.read()
        return trial.moved_by(variable, value, self.fault(value, [self.seed, value.size]))


def _has_sunk(answer: Arrays, answers: Sequence[Arrays]) -> bool:
    """Is an output so much smaller than otherwise that libraries cut it off? A sigmoid of -100 is one's 0, and another
    one's 1e-18, and either is right."""
    import numpy as np

    def largest(name: str, arrays: Arrays) -> float:
        array = arrays[name]
        return float(np.abs(array[np.isfinite(array)]).max(initial=0.0))

    numbers = [name for name, array in answer.items() if array.dtype.kind in "fc"]
    return any(largest(name, answer) < SUNK * max(largest(name, other) for other in answers) for name in numbers)


def finite_answer(loaded: Loaded, draw: Arrays) -> Arrays | None:
    """The answer, where there is one and it is finite."""
    import numpy as np

    try:
        answer = loaded.run(draw)
    except Exception:  # values that the model does not take
        return None
    finite = all(np.isfinite(array).all() for array in answer.values() if array.dtype.kind in "fc")
    return answer if finite else None


def _candidates(inputs: Sequence[TensorSpec], draws: Sequence[Arrays], seed: int) -> Iterator[Arrays]:
    """Pixels where an input looks like an image, and the first draw that is not all zeros, scaled."""
    import numpy as np

    images = [spec.name for spec in inputs if _is_image(spec)]
    floating = [spec.name for spec in inputs if "float" in spec.dtype and not spec.limit]
    small = (draws[place] for place in smallest(draws, MOST_DRAWS))
    first = next((draw for draw in small if any(draw[name].any() for name in floating)), None)
    if first is None:
        return
    if images:
        rng = np.random.default_rng([seed, 255])
        pixels = {name: rng.integers(0, 256, first[name].shape).astype(first[name].dtype) for name in images}
        yield {**first, **pixels}
    for step in STEPS:
        yield {**first, **{name: (first[name] * step).astype(first[name].dtype) for name in floating}}


def _is_image(spec: TensorSpec) -> bool:
    shape = spec.shape or ()
    return "float" in spec.dtype and len(shape) == 4 and (shape[-1] in (1, 3, 4) or shape[1] in (1, 3, 4))
