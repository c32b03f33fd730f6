"""Small tables for notebooks: what `_repr_html_` of the library's objects returns."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

MOST_ROWS = 100
"""Rows that are shown of a longer table."""


def table(rows: Iterable[Sequence[object]], *, headings: Sequence[str] = (), caption: str = "") -> str:
    """Return a table as HTML; every cell is escaped.

    Args:
        rows: The cells.
        headings: Of the columns; without any, the first cell of each row is its heading.
        caption: What stands above the table.
    """
    rows = list(rows)
    body = "".join(_row(row, head=not headings) for row in rows[:MOST_ROWS])
    head = "".join(f"<th>{escape(heading)}</th>" for heading in headings)
    more = f"<p>… and {len(rows) - MOST_ROWS} more</p>" if len(rows) > MOST_ROWS else ""
    return (
        f"<table>{f'<caption>{escape(caption)}</caption>' if caption else ''}"
        f"{f'<thead><tr>{head}</tr></thead>' if head else ''}<tbody>{body}</tbody></table>{more}"
    )


def _row(cells: Sequence[object], *, head: bool) -> str:
    first, *others = (escape(str(cell)) for cell in cells)
    leading = f"<th>{first}</th>" if head else f"<td>{first}</td>"
    return f"<tr>{leading}{''.join(f'<td>{cell}</td>' for cell in others)}</tr>"
