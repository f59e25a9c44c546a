"""Tables on standard output: aligned columns that read the same in a terminal, a file and a pipe."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


def as_table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """The rows under their header, columns two spaces apart; numbers stand at the right of their column."""
    cells = [[_shown(cell) for cell in row] for row in rows]
    widths = [max(len(line[column]) for line in [list(header), *cells]) for column in range(len(header))]
    right = [
        bool(rows) and all(isinstance(row[column], int | float) for row in rows) for column in range(len(header))
    ]

    def line(of: Sequence[str]) -> str:
        return "  ".join(
            cell.rjust(width) if at_right else cell.ljust(width)
            for cell, width, at_right in zip(of, widths, right, strict=True)
        ).rstrip()

    return "\n".join([line(header), *(line(row) for row in cells)])


def _shown(cell: object) -> str:
    if isinstance(cell, int) and not isinstance(cell, bool):
        return f"{cell:,}"
    return "-" if cell is None else str(cell)
