"""Does the result compute what the source computes? How values are handed on, and the judgement of what both answered.

A verdict has parts, and each is a Check that is shown: load, names, shapes, dtypes, weights, values. A check that
could not be made has ``passed`` None, and without values nothing is called verified.
"""

from worker.verify.draws import Array, Arrays, load_draws, load_raw, nudged, save_draws
from worker.verify.interface import pair, pair_outputs
from worker.verify.judgement import (
    Judgement,
    asks_source,
    is_gross,
    judge,
    not_run,
    not_shown,
    wants_twin,
    wants_unrounded,
)
from worker.verify.prints import Weights
from worker.verify.seen import Again, Asked, Digest, Seen, Terms
from worker.verify.sensitivity import rows_from_json
from worker.verify.unrounded import Unrounded
from worker.verify.values import Difference, measure, relative
from worker.verify.weights import compare as compare_weights

__all__ = [
    "Again",
    "Array",
    "Arrays",
    "Asked",
    "Difference",
    "Digest",
    "Judgement",
    "Seen",
    "Terms",
    "Unrounded",
    "Weights",
    "asks_source",
    "compare_weights",
    "is_gross",
    "judge",
    "load_draws",
    "load_raw",
    "measure",
    "not_run",
    "not_shown",
    "nudged",
    "pair",
    "pair_outputs",
    "relative",
    "rows_from_json",
    "save_draws",
    "wants_twin",
    "wants_unrounded",
]
