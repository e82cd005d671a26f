"""How every benchmark ends: a table, then one line with the figure and its bar."""

from __future__ import annotations

from collections.abc import Sequence


def show(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print columns: the first to the left, the others to the right."""
    widths = [max(len(row[column]) for row in (header, *rows)) for column in range(len(header))]
    for row in (header, *rows):
        cells = [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        print("  ".join(cells).rstrip())


def conclude(*figures: tuple[str, float, float, str]) -> int:
    """Print (what, figure, bar, unit) of each in one line; the exit status: 1 where one is over its bar."""
    short = any(figure > bar for _, figure, bar, _ in figures)
    parts = [f"{what} {figure:.2f} {unit} (bar {bar:g} {unit})" for what, figure, bar, unit in figures]
    print(f"{'; '.join(parts)}: {'falls short' if short else 'holds'}")
    return int(short)
