"""Architecture as JSON or YAML beside pickled weights: ``np.save`` of lists of ``get_weights``, or a pickle of them.

Only read, as data: the arrays are taken out of the pickle without opening it.
"""

from __future__ import annotations

from worker.formats import _sniff, _sources
from worker.formats._format import Format, Sample
from worker.formats._pickles_models import WEIGHTS_SUFFIXES


def sniff(sample: Sample) -> bool:
    """An architecture, and a file that can only be pickled weights by its name: of archives, only names are known."""
    if not _sniff.holds_architecture(sample) or _sniff.holds_npz(sample) or _sniff.holds_weights_hdf5(sample):
        return False
    return any(member.name.lower().endswith(WEIGHTS_SUFFIXES) for member in sample.members)


FORMAT = Format(
    label="JSON + pickled weights",
    suffixes=(".zip",),
    sniff=sniff,
    inspect=_sources.inspect("json_pickle"),
    load=_sources.load("json_pickle"),
    keeps=frozenset({"architecture", "weights", "training"}),
    exact=True,
    needs=("tensorflow", "keras", "tf_keras"),
    no_way_in="a pickle is a program that runs when it is opened, so Larder makes none. "
    "JSON + NumPy holds the same without one.",
)
