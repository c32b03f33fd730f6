"""YAML documents for people: numbers on one line, and comments that stay when a document is written anew."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.error import MarkedYAMLError
from ruamel.yaml.error import YAMLError as YAMLError
from ruamel.yaml.nodes import MappingNode, Node, SequenceNode

WIDTH = 120
"""Of a line, in characters."""

LONGEST = 1 << 25
"""Characters of a document."""

DEEPEST = 64
"""Lists and mappings inside each other."""

MOST_VALUES = 2_000_000
"""Values in a document, where a part that has a name counts as often as it is used."""

Keys = Sequence[tuple[str, ...]]


def load(text: str) -> Any:
    """Return the content of a document as plain dictionaries, lists and scalars.

    Raises:
        YAMLError: If it is not YAML, makes anything else, or is larger than a document for people.
    """
    if len(text) > LONGEST:
        raise YAMLError(f"it has {len(text):,} characters, at most {LONGEST:,} are read")
    try:
        _check_size(YAML(typ="safe", pure=True).compose(text))
        return YAML(typ="safe", pure=True).load(text)
    except RecursionError as error:
        raise YAMLError("it is nested too deep") from error
    except MarkedYAMLError as error:
        raise YAMLError(_complaint(error)) from error
    except (ValueError, TypeError, LookupError, AttributeError) as error:  # impossible dates, endless numbers
        raise YAMLError(str(error)) from error


def _complaint(error: MarkedYAMLError) -> str:
    """Return a parser's error in one line: `line 35: expected ',' or ']', but got ':', while parsing ...`."""
    where = "" if error.problem_mark is None else f"line {error.problem_mark.line + 1}: "
    during = "" if error.context is None else f", {error.context}"
    if error.context_mark is not None:
        during += f" that begins in line {error.context_mark.line + 1}"
    return f"{where}{error.problem}{during}"


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
        The document; None if the other one is no mapping, or shares parts (`&name`, `*name`) that now differ.
    """
    try:
        load(text)
        old = _round_trip().load(text)
    except (YAMLError, ValueError, RecursionError):
        return None
    if not isinstance(old, CommentedMap):
        return None
    written = _written(_rewritten(old, _document(data), identity))
    return written if load(written) == data else None


def _check_size(root: Node | None) -> None:
    """Refuse a document that names (`*name`) make too large or endless, or that is nested too deep."""
    sizes: dict[int, int] = {}

    def size(node: Node, depth: int) -> int:
        if depth > DEEPEST:
            raise YAMLError(f"it is nested deeper than {DEEPEST} levels")
        if id(node) not in sizes:
            sizes[id(node)] = 1 + sum(size(part, depth + 1) for part in _parts(node))
        if sizes[id(node)] > MOST_VALUES:
            raise YAMLError(f"it holds more than {MOST_VALUES:,} values")
        return sizes[id(node)]

    if root is not None:
        size(root, 0)


def _parts(node: Node) -> Iterator[Node]:
    """Yield the nodes in a node."""
    if isinstance(node, SequenceNode):
        yield from node.value
    elif isinstance(node, MappingNode):
        for key, value in node.value:
            yield key
            yield value


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
    if isinstance(data, dict):
        return CommentedMap((key, _document(value)) for key, value in data.items())
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
