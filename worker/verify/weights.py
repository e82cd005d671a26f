"""The weights of source and result: every tensor found once, and where values cannot be had, in its place."""

from __future__ import annotations

from collections import Counter

from worker.report import Check
from worker.verify.seen import Seen, Terms


def weights_check(source: Seen, result: Seen, terms: Terms) -> Check:
    """Every tensor of the source is found in the result exactly once, bit for bit, under whatever name."""
    if not terms.exact_weights:
        return Check(
            "weights", None, "The weights are compared through the values, because the formats store them apart."
        )
    missing, extra = Counter(source.weights), Counter(result.weights)
    missing, extra = missing - extra, extra - missing
    data = {"tensors": len(source.weights), "missing": missing.total(), "extra": extra.total()}
    if terms.weights_alone and extra and not missing:  # a graph need not use all that its checkpoint holds
        sentence = f"All {len(source.weights)} weight tensors are there, bit for bit, and {extra.total()} more."
        return Check("weights", True, sentence, data)
    if missing or extra:
        counts = (
            f"{missing.total()} of {len(source.weights)} tensors are not there bit for bit, {extra.total()} are new"
        )
        return Check("weights", False, f"The weights differ: {counts}.", data)
    return Check("weights", True, f"All {len(source.weights)} weight tensors are the same, bit for bit.", data)


def architecture_check(source: Seen, result: Seen) -> Check:
    """Values follow from layers, connections and weights; running a large model would take more than it shows."""
    if source.architecture != result.architecture:
        sentence = "The layers are described in other words, and the model is too large to compare its values."
        return Check("architecture", None, sentence)
    if source.weights != result.weights:
        return Check("architecture", False, "The weights are not in the same places of the layers.")
    sentence = "The layers and their connections are the same. The model is too large to compute values for the proof."
    return Check("architecture", True, sentence, {"sha256": source.architecture})
