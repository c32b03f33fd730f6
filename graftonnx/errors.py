"""Everything graftonnx raises on purpose.

    GraftError
    ├── ModelError               a model file cannot be read, understood or written
    │   └── UnsupportedOpError   an operator, or a mode of one, has no exact counterpart
    ├── PlanError                a plan does not fit its parents
    ├── DataError                images or labels cannot be used
    ├── ParityError              two sides that must agree do not
    └── RuntimeProviderError     the execution provider that was asked for cannot run here

A message says what could not be done, where, what was found against what was expected, and what to do.
Inner code says what; the walker or the command adds where, once, with :meth:`GraftError.at`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self


class GraftError(Exception):
    """The base of every error that graftonnx raises on purpose."""

    @property
    def message(self) -> str:
        """The whole sentence for a person."""
        return str(self.args[0]) if self.args else type(self).__name__

    def at(self, where: str) -> Self:
        """Return an error of the same type whose message starts with `where`."""
        return type(self)(f"{where}: {self.message}")


class ModelError(GraftError):
    """A model file cannot be read, understood or written."""


@dataclass(frozen=True)
class Refusal:
    """A node that cannot be converted.

    Attributes:
        node: Its name, or that of its first output.
        op_type: Its operator.
        domain: The operator's domain, `""` for the standard's.
        opset: The version of the domain in the file.
        reason: What is missing, as a sentence.
    """

    node: str
    op_type: str
    domain: str
    opset: int
    reason: str


class UnsupportedOpError(ModelError):
    """An operator, or a mode of one, has no exact counterpart in PyTorch.

    Attributes:
        refusal: The node and the reason; None where the error concerns no single node.
    """

    refusal: Refusal | None = None


class PlanError(GraftError):
    """A plan does not fit its parents."""


class DataError(GraftError):
    """Images or labels cannot be used."""


class ParityError(GraftError):
    """Two sides that must give the same numbers do not."""


class RuntimeProviderError(GraftError):
    """The execution provider that was asked for cannot run here."""
