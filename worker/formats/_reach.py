"""Following the edges of a graph, whatever its nodes are."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from typing import TypeVar

T = TypeVar("T", bound=Hashable)


def reached(start: Iterable[T], following: Callable[[T], Iterable[T]]) -> set[T]:
    """These, what follows each of them, and so on."""
    pending, seen = list(start), set()
    while pending:
        item = pending.pop()
        if item not in seen:
            seen.add(item)
            pending += following(item)
    return seen
