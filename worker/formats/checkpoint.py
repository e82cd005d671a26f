"""Architecture as JSON or YAML beside a TensorFlow checkpoint: ``tf.train.Checkpoint``, or Keras 2's ``save_weights``.

Only read: ``.weights.h5`` holds the same, and every release of Keras reads it.
"""

from __future__ import annotations

from worker.formats import _sniff, _sources
from worker.formats._format import Format, Sample


def sniff(sample: Sample) -> bool:
    return _sniff.holds_architecture(sample) and _sniff.holds_checkpoint(sample)


FORMAT = Format(
    label="JSON + TensorFlow checkpoint",
    suffixes=(".zip",),
    sniff=sniff,
    inspect=_sources.inspect("checkpoint"),
    load=_sources.load("checkpoint"),
    keeps=frozenset({"architecture", "weights", "training"}),
    exact=True,
    needs=("tensorflow", "keras", "tf_keras"),
    no_way_in="checkpoints are read, not written: JSON + weights.h5 holds the same, and Keras itself reads it.",
)
