"""Small tables for notebooks: what `_repr_html_` of the library's objects returns."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

from graftonnx.printable import printable

MOST_ROWS = 100
"""Rows that are shown of a longer table."""


def table(rows: Iterable[Sequence[object]], *, headings: Sequence[str] = (), caption: str = "") -> str:
    """Return a table as HTML; every cell is escaped.

    Args:
        rows: The cells; what is not seen in one, or turns what is around it, is spelt out.
        headings: Of the columns; without any, the first cell of each row is its heading.
        caption: What stands above the table.
    """
    rows = list(rows)
    body = "".join(_row(row, head=not headings) for row in rows[:MOST_ROWS])
    head = "".join(f"<th>{_escaped(heading)}</th>" for heading in headings)
    more = f"<p>… and {len(rows) - MOST_ROWS} more</p>" if len(rows) > MOST_ROWS else ""
    return (
        f"<table>{f'<caption>{_escaped(caption)}</caption>' if caption else ''}"
        f"{f'<thead><tr>{head}</tr></thead>' if head else ''}<tbody>{body}</tbody></table>{more}"
    )


def _escaped(cell: object) -> str:
    return escape(printable(str(cell)))


def _row(cells: Sequence[object], *, head: bool) -> str:
    first, *others = map(_escaped, cells)
    leading = f"<th>{first}</th>" if head else f"<td>{first}</td>"
    return f"<tr>{leading}{''.join(f'<td>{cell}</td>' for cell in others)}</tr>"
