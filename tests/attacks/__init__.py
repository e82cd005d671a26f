"""Files that attack the reader of models, each harmless in effect: the ones that this project thought of itself.

More of them, of other kinds, lie in the folder that ``scripts/bench hostile`` is given."""

from __future__ import annotations

from collections.abc import Iterator

from tests.attacks import archives, arrays, configs, graphs, hdf5
from tests.attacks._attack import Attack


def attacks() -> Iterator[Attack]:
    for kind in (archives, hdf5, configs, graphs, arrays):
        yield from kind.attacks()
