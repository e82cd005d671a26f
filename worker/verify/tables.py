"""Do the lookup tables of the result hold what those of the source do? Words that are rare are in no draw."""

from __future__ import annotations

from collections import Counter

from worker.report import Check
from worker.verify.seen import Seen


def tables_check(source: Seen, result: Seen) -> Check | None:
    """None where one of the two does not tell what its tables hold: then the values have to."""
    if not source.tables or not result.tables:
        return None
    missing = Counter(source.tables) - Counter(result.tables)
    data = {"tables": len(source.tables), "missing": missing.total()}
    if missing:
        counts = f"{missing.total()} of {len(source.tables)} lookup tables of the source"
        return Check("tables", False, f"The vocabularies differ: the result has not the entries of {counts}.", data)
    return Check("tables", True, "All lookup tables hold the same entries.", data)
