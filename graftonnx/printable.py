"""Text from anywhere, fit for a terminal, a spreadsheet and Markdown.

Names in files, folders and archives are chosen by strangers. A terminal obeys escape sequences in them, and
bidirectional or invisible characters make one name look like another.
"""

from __future__ import annotations

import re

_UNFIT = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f"  # control characters but for tab and line feed
    "\u00ad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"  # invisible, bidirectional
    "\ud800-\udfff\U000e0000-\U000e007f]"  # no characters; tags
)

_FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""Beginnings of a cell that a spreadsheet takes for a formula."""


def printable(text: str) -> str:
    r"""Return text as a terminal may print it: what is not seen, or is obeyed, becomes `\x1b`, `\u202e`."""
    return _UNFIT.sub(lambda found: found[0].encode("unicode_escape").decode("ascii"), text)


def printable_json(text: str) -> str:
    r"""Return JSON that says the same, with such characters as `\u001b`."""
    return _UNFIT.sub(lambda found: _json_escape(found[0]), text)


def cell(text: str) -> str:
    """Return a cell of a CSV file with an apostrophe in front where a spreadsheet would compute it.

    Source: OWASP, "CSV Injection".
    """
    return f"'{text}" if text.startswith(_FORMULA) else text


def markdown_text(text: str) -> str:
    """Return text for one line of Markdown: it ends no cell of a table, makes no link, tag or code."""
    line = printable(re.sub(r"\s+", " ", text)).replace("&", "&amp;").replace("<", "&lt;")
    return re.sub(r"([\\`\[\]|])", r"\\\1", line)


def markdown_code(text: str) -> str:
    """Return text between backticks, on one line, that ends neither the code nor a cell of a table."""
    line = printable(re.sub(r"\s+", " ", text)).replace("`", "'").replace("|", r"\|")
    return f"`{line}`"


def _json_escape(character: str) -> str:
    units = character.encode("utf-16-be", "surrogatepass").hex()
    return "".join(f"\\u{units[at : at + 4]}" for at in range(0, len(units), 4))
