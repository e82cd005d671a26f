"""Every direction between all formats on the canonical models, as a table: `scripts/bench matrix [KIND …]`."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from tests.formats.matrix import KINDS, Cell, Matrix, line, reasons, table
from worker.sandbox.client import Zygote


def go(kinds: list[str]) -> list[Cell]:
    """Every direction of these models; each table as soon as it is known."""
    found: list[Cell] = []
    with Zygote() as zygote, tempfile.TemporaryDirectory(prefix="larder-matrix-") as root:
        matrix = Matrix(zygote, Path(root))
        for kind in kinds:
            cells = matrix.started(kind) + matrix.convert(matrix.directions(kind))
            print(f"\n{kind}", *table(cells), sep="\n")
            found += cells
    return found


def main() -> int:
    cells = go(sys.argv[1:] or list(KINDS))
    print()
    for reason, directions in reasons(cells).items():
        print(f"not possible, said before: {reason} ({len(directions)})")
    failed = [cell for cell in cells if not cell.is_right]
    print(*map(line, failed), sep="\n")
    worked = sum(cell.said == "ok" for cell in cells)
    unseen = [cell for cell in cells if cell.said.startswith("unseen")]
    print(*map(line, unseen), sep="\n")
    said = len(cells) - worked - len(failed) - len(unseen)
    parts = [f"{worked} work", f"{len(unseen)} agree without a proof", f"{said} said before that they do not"]
    print(f"{len(cells)} directions: {', '.join(parts)}, {len(failed)} failed")
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
