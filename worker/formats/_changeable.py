"""Open models whose weights can be given other values, to try out whether a fault in them would show."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

from worker.formats._format import Loaded, Variable

if TYPE_CHECKING:
    from worker.formats._format import Arrays

    Run = Callable[[Arrays], Arrays]

# What TensorFlow puts around the names of layers: calls before them, and after them how a variable is read
_CALLS = re.compile(r"^((Stateful)?PartitionedCall(_\d+)?/)+")
_READS = re.compile(r"(/(ReadVariableOp|resource|read)(_\d+)?)+$")
# Constants that only give a list in a loop its size, or its first values before they are replaced
_FILLS = re.compile(r"(TensorArray|TensorList|/zeros|/ones|Fill)[^/;]*(;|$)")


class Changeable:
    """A model that is opened in a second way, in which its weights can be changed, as soon as somebody asks for them.

    Opening it that way costs time or memory that a plain run does not need; from then on it is run in that way.
    """

    def __init__(self, run: Run, reopen: Callable[[], tuple[Run, Sequence[Variable]]]) -> None:
        self._run, self._reopen = run, reopen
        self._variables: Sequence[Variable] | None = None

    def run(self, arrays: Arrays) -> Arrays:
        return self._run(arrays)

    def variables(self) -> Sequence[Variable]:
        if self._variables is None:
            self._run, self._variables = self._reopen()
        return self._variables


def layer_of(name: str) -> str:
    """The place that a tensor's name speaks of: ``model/dense`` of ``StatefulPartitionedCall/model/dense/MatMul``."""
    plain = name.split(";")[0].removesuffix(":0")
    plain = _READS.sub("", _CALLS.sub("", plain)) or plain
    return plain.rpartition("/")[0] or plain


def is_fill(name: str) -> bool:
    """Is it a constant that TensorFlow made to fill something, and no weight?"""
    return bool(_FILLS.search(name.removesuffix(":0")))


def unique(names: Iterable[str]) -> list[str]:
    """The names, with a number where one is there twice."""
    taken: set[str] = set()
    found = []
    for name in names:
        number, fresh = 0, name
        while fresh in taken:
            number += 1
            fresh = f"{name}_{number}"
        taken.add(fresh)
        found.append(fresh)
    return found


def changeable(loaded: Loaded, reopen: Callable[[], tuple[Run, Sequence[Variable]]]) -> Loaded:
    """The model with the variables that it has once it is opened in the second way."""
    opened = Changeable(loaded.run, reopen)
    return dataclasses.replace(loaded, run=opened.run, variables=opened.variables)
