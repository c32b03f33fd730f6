"""YAML text -> plain dictionaries, lists and scalars, within limits that are checked while it is read.

libyaml's parser is taken where PyYAML was built with it; scalars mean what they do in YAML 1.2, as in what
:mod:`graftonnx.documents` writes.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import yaml
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError
from ruamel.yaml.nodes import ScalarNode

LONGEST = 1 << 22
"""Characters of a document."""

DEEPEST = 64
"""Lists and mappings inside each other."""

MOST_VALUES = 300_000
"""Values in a document, where a part that has a name counts as often as it is used."""

Parser: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""What finds the events of a document."""

MERGE = "<<"
"""The key of what is merged into a mapping."""

_CORE = "tag:yaml.org,2002:"
SCALARS = frozenset(f"{_CORE}{name}" for name in ("int", "float", "bool", "null", "timestamp"))
"""Tags of scalars that are no texts."""

TAGS = {
    "scalar": {f"{_CORE}str", *SCALARS},
    "list": {f"{_CORE}seq"},
    "mapping": {f"{_CORE}map"},
}
"""What may be said of a value, by what it is."""


class Part(NamedTuple):
    """A part of a document that has a name (`&name`).

    Attributes:
        value: Its content.
        size: Values in it, itself included.
        height: Lists and mappings inside each other, itself included.
    """

    value: Any
    size: int
    height: int


def parse(text: str, most: int = MOST_VALUES) -> Any:
    """Return the content of a document.

    Args:
        text: The document.
        most: The largest number of values.

    Raises:
        YAMLError: If it is not YAML, makes anything else, or is larger than a document for people.
    """
    if len(text) > LONGEST:
        raise YAMLError(f"it has more than {LONGEST:,} characters, the most that are read")
    try:
        return _Document(text, most).read()
    except yaml.MarkedYAMLError as error:
        raise YAMLError(_complaint(error)) from error
    except yaml.YAMLError as error:
        raise YAMLError(" ".join(str(error).split())) from error
    except (ValueError, TypeError, LookupError, AttributeError) as error:  # impossible dates, endless numbers
        raise YAMLError(str(error)) from error


class _Document:
    """A document that is being read."""

    def __init__(self, text: str, most: int) -> None:
        plain = YAML(typ="safe", pure=True)
        self._resolver, self._constructor = plain.resolver, plain.constructor
        self._events: Iterator[Any] = iter(yaml.parse(text, Loader=Parser))
        self._most = most
        self._size = 0
        self._parts: dict[str, Part | None] = {}

    def read(self) -> Any:
        """Return the content; None for an empty document."""
        next(self._events)  # of the stream
        if isinstance(next(self._events), yaml.StreamEndEvent):
            return None
        content, _ = self._value(next(self._events), 0)
        next(self._events)  # of the document
        more = next(self._events)
        if not isinstance(more, yaml.StreamEndEvent):
            raise YAMLError(f"{_line(more)}: expected a single document, but found another")
        return content

    def _value(self, event: Any, depth: int) -> tuple[Any, int]:
        """Return the value that begins with an event, and its height in lists and mappings."""
        if isinstance(event, yaml.AliasEvent):
            return self._named(event, depth)
        before = self._size
        self._count(1)
        if event.anchor is not None:
            self._parts[event.anchor] = None
        if isinstance(event, yaml.ScalarEvent):
            value, height = self._scalar(event), 0
        elif depth >= DEEPEST:
            raise YAMLError(f"it is nested deeper than {DEEPEST} levels")
        elif isinstance(event, yaml.SequenceStartEvent):
            value, height = self._list(event, depth)
        else:
            value, height = self._mapping(event, depth)
        if event.anchor is not None:
            self._parts[event.anchor] = Part(value, self._size - before, height)
        return value, height

    def _count(self, values: int) -> None:
        self._size += values
        if self._size > self._most:
            raise YAMLError(f"it holds more than {self._most:,} values")

    def _named(self, event: Any, depth: int) -> tuple[Any, int]:
        """Return a part that has a name."""
        if event.anchor not in self._parts:
            raise YAMLError(f"{_line(event)}: found undefined alias '*{event.anchor}'")
        part = self._parts[event.anchor]
        if part is None:
            raise YAMLError(f"{_line(event)}: '*{event.anchor}' is recursive")
        self._count(part.size)
        if depth + part.height > DEEPEST:
            raise YAMLError(f"it is nested deeper than {DEEPEST} levels")
        return part.value, part.height

    def _list(self, event: Any, depth: int) -> tuple[list[Any], int]:
        _check_tag(event, "list")
        items, height = [], 0
        while not isinstance(part := next(self._events), yaml.SequenceEndEvent):
            value, levels = self._value(part, depth + 1)
            items.append(value)
            height = max(height, levels)
        return items, height + 1

    def _mapping(self, event: Any, depth: int) -> tuple[dict[str, Any], int]:
        _check_tag(event, "mapping")
        own: dict[str, Any] = {}
        merged: dict[str, Any] = {}
        height = 0
        while not isinstance(part := next(self._events), yaml.MappingEndEvent):
            key = self._key(part)
            value, levels = self._value(next(self._events), depth + 1)
            height = max(height, levels)
            if key == MERGE and _is_plain(part):
                _merge(merged, value, part)
            elif key in own:
                raise YAMLError(
                    f'{_line(part)}: found duplicate key "{key}", while constructing a mapping that begins '
                    f"in {_line(event)}"
                )
            else:
                own[key] = value
        return {**merged, **own}, height + 1

    def _key(self, event: Any) -> str:
        """Return a key. Only texts are: others can be made to take the same place in a dictionary."""
        key = None
        if isinstance(event, (yaml.ScalarEvent, yaml.AliasEvent)):
            key, _ = self._value(event, DEEPEST)
        if not isinstance(key, str):
            raise YAMLError(f"{_line(event)}: expected a text as key, while constructing a mapping")
        return key

    def _scalar(self, event: Any) -> Any:
        """Return a scalar: a text in quotes, otherwise what YAML 1.2 takes it for."""
        if event.tag is None and not event.implicit[0]:
            return event.value
        _check_tag(event, "scalar")
        tag = event.tag or str(self._resolver.resolve(ScalarNode, event.value, (True, False)))
        if tag not in SCALARS:
            return event.value
        node = ScalarNode(tag, event.value, event.start_mark, event.end_mark)
        return self._constructor.yaml_constructors[tag](self._constructor, node)


def _is_plain(event: Any) -> bool:
    """Return whether a scalar has neither quotes nor a tag."""
    return isinstance(event, yaml.ScalarEvent) and event.implicit[0]


def _merge(merged: dict[str, Any], value: Any, event: Any) -> None:
    """Add what `<<` names to a mapping; what is there already stays.

    Raises:
        YAMLError: If it is neither a mapping nor a list of them.
    """
    for part in value if isinstance(value, list) else [value]:
        if not isinstance(part, dict):
            raise YAMLError(f"{_line(event)}: expected a mapping, or a list of them, for merging")
        for key, content in part.items():
            merged.setdefault(key, content)


def _check_tag(event: Any, kind: str) -> None:
    """Refuse a tag (`!name`) that makes anything but what stands there.

    Raises:
        YAMLError: If it does.
    """
    if event.tag is not None and event.tag not in TAGS[kind]:
        raise YAMLError(
            f"{_line(event)}: could not determine a constructor for the tag '{event.tag}' of a {kind}"
        )


def _line(event: Any) -> str:
    return f"line {event.start_mark.line + 1}"


def _complaint(error: yaml.MarkedYAMLError) -> str:
    """Return a parser's error in one line: `line 35: expected ',' or ']', but got ':', while parsing ...`."""
    where = "" if error.problem_mark is None else f"line {error.problem_mark.line + 1}: "
    during = "" if error.context is None else f", {error.context}"
    if error.context_mark is not None:
        during += f" that begins in line {error.context_mark.line + 1}"
    return f"{where}{error.problem}{during}"
