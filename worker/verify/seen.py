"""What two models showed in their jobs, and the terms on which they are compared."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from worker.formats._format import TensorSpec, Tolerance
from worker.verify.draws import Arrays
from worker.verify.prints import Weights
from worker.verify.sensitivity import Row

Numbered = Mapping[int, Arrays]  # answers by the place of the draw
Digest = tuple[str, tuple[int, ...], str]  # dtype, shape, sha256 of the bytes
Shape = tuple[int | None, ...] | None
COARSE = 1e-3  # about the rounding of a float16


@dataclass(frozen=True)
class Seen:
    """What one model showed in its job: its interface, its weights, and its answers, one dict for each draw.

    ``architecture``: a digest of its layers and their connections, where it is too large to be run for a proof.
    ``repeated``: the answers of a second fresh job to some of the draws.
    ``exact``: the answers in float64, where they were asked for; ``nudged``: those to inputs that lie an ulp beside.
    ``prints``: the fingerprints of its weights, where the format need not keep them bit for bit.
    ``faults``: how far a fault in each weight tensor that was tried moved the outputs, of ``variables`` that there are.
    ``further``: its other signatures, of those that compute something else.
    ``layers``: the same digest of any model that Keras 3 built.
    ``names``: of the weights, in their order; none where that is not told.
    ``tables``: a digest of what each of its lookup tables holds, where that is told.
    ``far``: so many of the last draws were numbers far beyond the others.
    ``unsteady``: why one model answers one input differently: "random", "stateful"; "" where it does not.
    """

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    weights: tuple[Digest, ...]
    values: list[Arrays]
    architecture: str = ""
    repeated: Numbered = field(default_factory=dict)
    exact: list[Arrays] = field(default_factory=list)
    nudged: list[Arrays] = field(default_factory=list)
    unsteady: str = ""
    prints: Weights = field(default_factory=Weights)
    faults: tuple[Row, ...] = ()
    variables: int = 0
    names: tuple[str, ...] = ()
    layers: str = ""
    further: tuple[str, ...] = ()
    tables: tuple[str, ...] = ()
    far: int = 0

    def on(self, numbers: Iterable[int]) -> Seen:
        """The same with the answers to these draws alone; IndexError for one that there is not."""
        chosen = list(numbers)
        exact, nudged = ([held[number] for number in chosen] if held else [] for held in (self.exact, self.nudged))
        far = sum(number >= len(self.values) - self.far for number in chosen)
        values = [self.values[number] for number in chosen]
        return replace(self, values=values, exact=exact, nudged=nudged, far=far)


@dataclass(frozen=True)
class Again:
    """What a result showed in a further fresh job, in its own runtime or in another: its interface, and its answers to
    some of the draws."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    values: Numbered

    def seen(self) -> Seen:
        """The same as a model without weights, its answers in the order of their draws."""
        return Seen(self.inputs, self.outputs, (), [self.values[number] for number in sorted(self.values)])


@dataclass(frozen=True)
class Asked:
    """What a source answers when it is asked again: why not the same each time, if so (as ``Seen.unsteady``); in
    float64, and to inputs an ulp beside. No answers where its library cannot give them."""

    unsteady: str = ""
    exact: list[Arrays] = field(default_factory=list)
    nudged: list[Arrays] = field(default_factory=list)

    def of(self, source: Seen) -> Seen:
        return replace(source, unsteady=self.unsteady, exact=self.exact, nudged=self.nudged)


@dataclass(frozen=True)
class Terms:
    """How a pair is judged: how far values may lie apart, whether weights must come back bit for bit, whether the
    result is weights alone, with nothing to run, which dtypes its format holds as another, and whether it takes one row
    at a time, as was said when it was made, and why only the rebuilt model itself was there to compare with.
    ``absolute`` counts the tolerance's absolute part in full, where nobody can tell how much of a gap is rounding; else
    it shrinks with the output. ``given``: somebody else made the result. ``in_order``: people go by the order of inputs
    and outputs in both, as with Keras; a signature has names alone. ``named``: weights have the names that they have in
    the layers of the source. ``explained``: the result is proven to be the source with numbers rounded, so a larger gap
    of values is what rounding costs. ``rangeless``: it has no ranges of inner values, which could be wrong ones.
    ``shaky``: without rounding, the same conversion lies within what the source rounds, which is beyond all bounds."""

    tolerance: Tolerance
    exact_weights: bool
    weights_alone: bool = False
    narrows: Mapping[str, str] = field(default_factory=dict)
    one_row: bool = False
    unwitnessed: str = ""
    absolute: bool = False
    given: bool = False
    in_order: bool = False
    named: bool = False
    explained: bool = False
    rangeless: bool = False
    shaky: bool = False

    @property
    def is_coarse(self) -> bool:
        """Is more allowed than rounding can explain, so that people have to be told how much it is?"""
        return self.tolerance.rtol > COARSE
