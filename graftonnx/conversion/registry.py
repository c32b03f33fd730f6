"""Which Python function converts which operator, at which opset."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar

import onnx

from graftonnx.errors import UnsupportedOpError

Converter = Callable[..., Any]
_F = TypeVar("_F", bound=Converter)


@dataclass(frozen=True)
class Entry:
    """One converter: the function, and the first opset whose meaning of the operator it has."""

    domain: str
    op_type: str
    since: int
    convert: Converter

    @cached_property
    def attributes(self) -> frozenset[str]:
        """The names of the attributes that the function takes."""
        parameters = inspect.signature(self.convert).parameters.values()
        return frozenset(p.name for p in parameters if p.kind is inspect.Parameter.KEYWORD_ONLY)

    @cached_property
    def required(self) -> frozenset[str]:
        """The names of the attributes that have no default."""
        parameters = inspect.signature(self.convert).parameters.values()
        return frozenset(
            p.name for p in parameters if p.kind is p.KEYWORD_ONLY and p.default is inspect.Parameter.empty
        )

    @cached_property
    def inputs(self) -> float:
        """The largest number of inputs that the function takes; infinite if the last one is variadic."""
        parameters = list(inspect.signature(self.convert).parameters.values())[1:]
        if any(p.kind is inspect.Parameter.VAR_POSITIONAL for p in parameters):
            return float("inf")
        return sum(p.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD for p in parameters)


_ENTRIES: dict[tuple[str, str], list[Entry]] = {}


def op(op_type: str, *, since: int, domain: str = "") -> Callable[[_F], _F]:
    """Register a converter for `op_type` from opset `since` on, up to the next registered one.

    The function's signature is the operator's: the builder, then the inputs in ONNX order, then the
    attributes, keyword-only with ONNX's defaults. One function may be registered for several operators.

    Raises:
        ValueError: If the operator has a converter with the same `since`.
    """

    def register(function: _F) -> _F:
        entries = _ENTRIES.setdefault((domain, op_type), [])
        if any(entry.since == since for entry in entries):
            raise ValueError(f"{op_type} (since {since}, domain '{domain}') is registered twice")
        entries.append(Entry(domain, op_type, since, function))
        entries.sort(key=lambda entry: entry.since)
        return function

    return register


def entries() -> list[Entry]:
    """Return every registered converter, by domain and name, oldest first."""
    return [entry for key in sorted(_ENTRIES) for entry in _ENTRIES[key]]


def known(domain: str, op_type: str) -> bool:
    """Return whether an operator has a converter, at some opset."""
    return (domain, op_type) in _ENTRIES


def resolve(domain: str, op_type: str, opset: int) -> Entry:
    """Return the converter whose meaning is in force at `opset`.

    Raises:
        UnsupportedOpError: If there is none, or if the installed onnx does not know the operator.
    """
    domain = "" if domain == "ai.onnx" else domain
    versions = _ENTRIES.get((domain, op_type))
    if domain == "com.microsoft.nchwc":
        raise UnsupportedOpError(
            "its layout of channels is that of one machine. Optimise the model at the extended level at most."
        )
    if versions is None:
        raise UnsupportedOpError("there is no converter for this operator.")
    try:
        schema = onnx.defs.get_schema(op_type, opset, domain)
    except onnx.defs.SchemaError:
        version = opset
    else:
        version = schema.since_version
        if schema.deprecated:
            raise UnsupportedOpError(f"the operator is deprecated since opset {version}.")
    fitting = [entry for entry in versions if entry.since <= version]
    if not fitting:
        first = versions[0].since
        raise UnsupportedOpError(
            f"the meaning of version {version} of this operator has no converter, only {first} and later."
        )
    return fitting[-1]
