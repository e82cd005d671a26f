"""Files that real releases wrote, with the outputs those releases computed: every format of every version, at random.

Each goes the whole way, through the sandbox: recognised, inspected, converted, and the result computes what the writer
recorded. The sample is drawn anew each time and its seed is printed; LARDER_CORPUS_SEED=7 draws the same one again;
`scripts/bench corpus` takes all of them. Without the corpus beside the checkout there is nothing to collect; the other
tests make their own files.
"""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from typing import Any

import pytest

from bench.corpus import examine, refused, stratified
from tests.formats.corpus import Entry, entries
from worker.sandbox.client import Zygote

SEED = int(os.environ.get("LARDER_CORPUS_SEED") or random.SystemRandom().randrange(10**6))


def drawn() -> list[Any]:
    """One entry for every version and format."""
    return [pytest.param(entry, id=f"{entry.tag}-{entry.format}") for entry in stratified(entries(), 1, SEED)]


@pytest.fixture(scope="module")
def counting() -> Iterator[Zygote]:
    """One that counts what its jobs are refused: a library that needs another system call fails here, by its name."""
    with Zygote(counted=True) as own:
        yield own


@pytest.mark.parametrize("entry", drawn())
def test_it_becomes_a_file_that_computes_what_its_writer_recorded(entry: Entry, counting: Zygote) -> None:
    print(f"LARDER_CORPUS_SEED={SEED} {entry.id}")
    assert counting.denied is not None
    counting.denied.clear()
    outcome = examine(entry, counting)
    assert refused(counting) == set()
    assert outcome.is_right or outcome.codes[:1] in [[code] for code in entry.refusals], outcome.problems
