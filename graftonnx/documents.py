"""YAML documents for people: numbers on one line, and comments that stay when a document is written anew."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.error import YAMLError as YAMLError
from ruamel.yaml.scalarstring import DoubleQuotedScalarString

from graftonnx.parsing import LONGEST, parse

WIDTH = 120
"""Of a line, in characters."""

ENOUGH = LONGEST + 1
"""Characters of a file that are read: so many show that it is too long for :func:`load`."""

MOST_KEPT = 30_000
"""Values in a document whose comments are kept: that takes forty times as long as to read it."""

_BREAKS = re.compile("[\x85\u2028\u2029]")
"""Ends of a line that are written as they are, and lost, unless the text is in double quotes."""

Keys = Sequence[tuple[str, ...]]


def load(text: str) -> Any:
    """Return the content of a document as plain dictionaries, lists and scalars.

    Raises:
        YAMLError: If it is not YAML, makes anything else, or is larger than a document for people.
    """
    return parse(text)


def dump(data: Any, header: str = "") -> str:
    """Return plain data as a document.

    Args:
        data: Dictionaries, lists and scalars.
        header: A comment for the top.
    """
    return _written(_document(data), header)


def dump_over(data: Any, text: str, identity: Keys) -> str | None:
    """Return plain data as a document that keeps the comments of another.

    Args:
        data: Dictionaries, lists and scalars.
        text: The other document. Comments stay with the fields that both have.
        identity: Fields by which the items of a list are known again.

    Returns:
        The document; None if the other one is no mapping, has more than `MOST_KEPT` values, or shares parts
        (`&name`, `*name`) that now differ.
    """
    try:
        parse(text, MOST_KEPT)
        old = _round_trip().load(text)
    except (YAMLError, ValueError, RecursionError):
        return None
    if not isinstance(old, CommentedMap):
        return None
    written = _written(_rewritten(old, _document(data), identity))
    return written if load(written) == data else None


def _round_trip() -> YAML:
    yaml = YAML()
    yaml.width = WIDTH
    return yaml


def _written(document: Any, header: str = "") -> str:
    if header:
        document.yaml_set_start_comment(header)
    stream = io.StringIO()
    _round_trip().dump(document, stream)
    return stream.getvalue()


def _document(data: Any) -> Any:
    """Return plain data as a document; lists of numbers stand on one line."""
    if isinstance(data, str):
        return DoubleQuotedScalarString(data) if _BREAKS.search(data) else data
    if isinstance(data, dict):
        return CommentedMap((_document(key), _document(value)) for key, value in data.items())
    if not isinstance(data, list):
        return data
    items = CommentedSeq(_document(item) for item in data)
    if all(isinstance(item, (int, float)) for item in data):
        items.fa.set_flow_style()
    return items


def _rewritten(old: Any, new: Any, identity: Keys) -> Any:
    """Return what `new` says, in the words of `old` where both say the same."""
    if isinstance(old, CommentedMap) and isinstance(new, CommentedMap):
        for key in [key for key in old if key not in new]:
            del old[key]
        for key, value in new.items():
            old[key] = _rewritten(old.get(key), value, identity)
        return old
    if isinstance(old, CommentedSeq) and isinstance(new, CommentedSeq):
        known = {_known_by(item, identity): index for index, item in enumerate(old)}
        for index, item in enumerate(new):
            before = known.get(_known_by(item, identity)) if _known_by(item, identity) else None
            if before is not None:
                new[index] = _rewritten(old[before], item, identity)
                if before in old.ca.items:
                    new.ca.items[index] = old.ca.items[before]
        new.ca.comment = old.ca.comment
    return old if old == new else new


def _known_by(item: Any, identity: Keys) -> tuple[Any, ...]:
    """Return what tells an item of a list from others; nothing for a number."""
    if not isinstance(item, CommentedMap):
        return ()
    return next((tuple(str(item[key]) for key in keys) for keys in identity if set(keys) <= item.keys()), ())
