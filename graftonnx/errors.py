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


class UnsupportedOpError(ModelError):
    """An operator, or a mode of one, has no exact counterpart in PyTorch."""


class PlanError(GraftError):
    """A plan does not fit its parents."""


class DataError(GraftError):
    """Images or labels cannot be used."""


class ParityError(GraftError):
    """Two sides that must give the same numbers do not."""


class RuntimeProviderError(GraftError):
    """The execution provider that was asked for cannot run here."""
