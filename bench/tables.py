"""What a benchmark found, as a Markdown table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def table(rows: Sequence[Mapping[str, Any]], digits: int) -> str:
    """Return a table of what is not a list, with so many digits after the point."""
    names = [name for name, value in rows[0].items() if not isinstance(value, list)]
    lines = [f"| {' | '.join(names)} |", "|---" * len(names) + "|"]
    for row in rows:
        cells = [f"{row[name]:.{digits}f}" if isinstance(row[name], float) else str(row[name]) for name in names]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)
