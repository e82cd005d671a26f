"""What the layers behind an input imply of its values: how large an index may be, an image's scale, words, padding.

The walks through layers (``_implied_layers``) and through graphs (``_implied_graphs``) both say it with these.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from worker.formats._format import LONGEST_WORD, MOST_BOUNDS, MOST_WORDS, TensorSpec

if TYPE_CHECKING:
    import numpy.typing as npt

    Array = npt.NDArray[Any]

SMALL_SCALE = 1 / 16  # a single factor up to this one makes small numbers of large ones: pixels
LARGE_MEAN = 16.0  # what is subtracted without any scale is the mean of pixels from here on
TINY, HUGE = 1e-9, 1e9


@dataclass(frozen=True)
class Implied:
    """What is known about one input; see ``TensorSpec``."""

    limit: int | None = None
    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()
    words: tuple[str, ...] = ()
    padding: float | None = None

    def on(self, spec: TensorSpec) -> TensorSpec:
        """The spec with what is known, as far as it has a sense for its dtype."""
        words = self.words
        if "int" in spec.dtype:
            words = tuple(word for word in words if word.lstrip("-").isdecimal())
        elif spec.dtype != "string":
            words = ()
        low, high = (self.low, self.high) if spec.dtype not in ("string", "bool") else ((), ())
        return dataclasses.replace(spec, limit=self.limit, low=low, high=high, words=words, padding=self.padding)


def together(found: Iterable[Implied]) -> Implied:
    """One for all layers that an input goes into: the smallest limit, and the first of everything else."""
    facts = list(found)
    ranged = next((fact for fact in facts if fact.high), Implied())
    return Implied(
        limit=min((fact.limit for fact in facts if fact.limit), default=None),
        low=ranged.low,
        high=ranged.high,
        words=next((fact.words for fact in facts if fact.words), ()),
        padding=next((fact.padding for fact in facts if fact.padding is not None), None),
    )


def some_words(vocabulary: Sequence[Any]) -> Implied:
    """Of a vocabulary, spread over all of it; without the empty word and those for the unknown."""
    texts = [word.decode("utf-8", "replace") if isinstance(word, bytes) else str(word) for word in vocabulary]
    texts = [text for text in texts if text and text != "[UNK]" and len(text) <= LONGEST_WORD]
    step = max(1, -(-len(texts) // MOST_WORDS))
    return Implied(words=tuple(texts[::step]))


def numbers_between(low: Array, high: Array) -> Implied:
    """A range for all, or one for each of the last dimension; nothing where it makes no sense."""
    import numpy as np

    low, high = np.ravel(low).astype(float), np.ravel(high).astype(float)
    sane = np.isfinite(low).all() and np.isfinite(high).all() and (low < high).all() and np.abs(high).max() < HUGE
    if not sane or low.size > MOST_BOUNDS:
        return Implied()
    if np.ptp(low) == 0 and np.ptp(high) == 0:
        low, high = low[:1], high[:1]
    return Implied(low=tuple(low.tolist()), high=tuple(high.tolist()))


@dataclass(frozen=True)
class Fed:
    """An input on its way: its values times ``scale`` plus ``shift``, which are for all or for the last dimension."""

    scale: Array
    shift: Array

    @classmethod
    def unchanged(cls) -> Fed:
        import numpy as np

        return cls(np.ones(()), np.zeros(()))

    @property
    def is_unchanged(self) -> bool:
        return bool((self.scale == 1).all() and (self.shift == 0).all())

    def times(self, factor: Any) -> Fed | None:
        factor = _along_last(factor)
        return None if factor is None else _fed(self.scale, factor, self.shift)

    def plus(self, term: Any) -> Fed | None:
        import numpy as np

        term = _along_last(term)
        if term is None or 1 < term.size != self.shift.size > 1:
            return None
        return Fed(self.scale, np.asarray(self.shift + term))

    def over(self, divisor: Any) -> Fed | None:
        divisor = _along_last(divisor)
        return None if divisor is None or (divisor == 0).any() else self.times(1 / divisor)

    def implied(self) -> Implied:
        """Which values the model expects, by what it makes of them before anything else.

        One small factor makes pixels of 0 to 255 lie between 0 and 1, or -1 and 1 with a shift of -1. Several, or any
        other shift, put the mean to 0 and the deviation to 1. A large mean alone is that of pixels.
        """
        import numpy as np

        if self.is_unchanged or not ((self.scale > TINY) & (self.scale < 1 / TINY)).all():
            return Implied()
        if self.scale.size == 1 and self.shift.size == 1:
            shift, scale = self.shift.item(), self.scale.item()
            if shift in (0, -0.5, -1):
                top = {0: 1.0, -0.5: 0.5, -1: 1.0}[shift]
                span = numbers_between(np.array(0.0), np.array((top - shift) / scale))
                return span if scale <= SMALL_SCALE else Implied()
        if (self.scale == 1).all():
            large = (self.shift <= -LARGE_MEAN).all()
            return numbers_between(np.array(0.0), -2 * self.shift.min()) if large else Implied()
        mean, deviation = -self.shift / self.scale, 1 / self.scale
        return numbers_between(mean - 2 * deviation, mean + 2 * deviation)


def _fed(scale: Array, factor: Array, shift: Array) -> Fed | None:
    import numpy as np

    sizes = {array.size for array in (scale, factor, shift)} - {1}
    return Fed(np.asarray(scale * factor), np.asarray(shift * factor)) if len(sizes) < 2 else None


def _along_last(value: Any) -> Array | None:
    """A number, or one for each of the last dimension; None for anything else."""
    import numpy as np

    array = np.asarray(value)
    if array.dtype.kind not in "iuf" or array.size > MOST_BOUNDS or not array.size:
        return None
    array = array.astype(float)
    if array.size == 1:
        return array.reshape(())
    return array.reshape(-1) if array.shape[-1] == array.size else None
