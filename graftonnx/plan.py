"""The decision as data: which taps are exchanged, through which projections, and why others are not.

A plan file is YAML with this schema; unknown fields are refused:

    version: 1
    input_size: [100, 100]          # height and width of the fused network's image, in pixels
    inputs: shared                  # or separate: an input for each branch, of its parent's size
    parents:
      a: {name: a.onnx, sha256: …, input_size: [100, 100], preprocess: {order: rgb, …}, preprocess_reason: …}
      b: …
    skips:                          # both directions of an exchange are two entries
    - source: b/fire3/concat        # <branch>/<value in the parent>
      target: a/relu_7
      projection: {kind: conv, kernel: [1, 1], stride: [1, 1], pads: [0, 0, 0, 0]}
      score: 0.83
    rejections:                     # ignored when a plan is read
    - {a: a/relu_3, b: b/pool1, score: 0.0, reason: …}
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import FailFast, Field, ValidationError, model_validator

from graftonnx import documents, files, notebook, reading
from graftonnx.errors import ModelError, PlanError
from graftonnx.metadata import GUESSED, MOST_ERRORS, BranchName, InputKind, Preprocess, Record, first_error
from graftonnx.spelling import did_you_mean

VERSION = 1
"""The version of the schema that this code writes and reads."""

MOST_SKIPS = 1 << 12
"""Of a plan: more than 26 networks exchange, each with each, in both directions at six places."""

Extent = Annotated[int, Field(ge=1, le=1 << 24)]
Size = Annotated[tuple[Extent, ...], Field(min_length=1, max_length=3)]
Window = Size
Padding = Annotated[int, Field(ge=0)]
TapName = Annotated[str, Field(pattern=r"^[a-z]/.+")]


class Projection(Record):
    """How a source tap becomes what its target can add: `[N, C, *grid] -> [N, C', *grid']`.

    Attributes:
        kind: `equal` (the shapes agree: nothing, or a 1x1 Conv), `conv` (one Conv with this window), `pool`
            (the mean over this window, without what is padded, then a 1x1 Conv) or `resize` (a 1x1 Conv and a
            linear Resize to the target's size, in the order that takes less time).
        kernel: Of the window, along each dimension of the grid: (height, width) in an image network.
        stride: Likewise.
        pads: At the beginning of each dimension, then at the end of each: (top, left, bottom, right).
    """

    kind: Literal["equal", "conv", "pool", "resize"]
    kernel: Window = (1, 1)
    stride: Window = (1, 1)
    pads: Annotated[tuple[Padding, ...], Field(min_length=2, max_length=6)] = (0, 0, 0, 0)

    @model_validator(mode="after")
    def _agrees(self) -> Self:
        """Refuse a window whose parts are for different numbers of dimensions."""
        dimensions = len(self.kernel)
        if len(self.stride) != dimensions or len(self.pads) != 2 * dimensions:
            raise ValueError(
                f"its kernel has {dimensions} numbers, its stride {len(self.stride)} and its pads "
                f"{len(self.pads)}; expected one, one and two for each dimension"
            )
        if self.kind == "pool" and any(p >= k for p, k in zip(self.pads, self.kernel * 2, strict=True)):
            raise ValueError(
                f"it pools windows of {list(self.kernel)} with pads of {list(self.pads)}; expected pads that "
                "are smaller than the window"
            )
        return self

    def __str__(self) -> str:
        """Return the projection for people: `equal`, `conv 3x3/2`, `pool 2x2/2 + conv`."""
        if self.kind == "equal":
            return "equal"
        window = "x".join(map(str, self.kernel))
        if set(self.stride) != {1}:
            window += f"/{self.stride[0]}" if len(set(self.stride)) == 1 else f"/{self.stride}"
        chains = {"conv": f"conv {window}", "pool": f"pool {window} + conv", "resize": "conv + resize"}
        return chains[self.kind]


class Skip(Record):
    """One connection: what `source` holds, projected, is added to `target`.

    `source` and `target` are `<branch>/<value>`. `score` is what the matching gave the pair, 0..1.
    """

    source: TapName
    target: TapName
    projection: Projection
    score: float | None = None


class Rejection(Record):
    """A pair of taps that is not exchanged, and why."""

    a: str
    b: str
    score: float
    reason: str


class PlannedParent(Record):
    """A parent as the plan saw it.

    `sha256` is that of :func:`graftonnx.weights.digest`; `preprocess_reason` says how we know.
    """

    name: str
    sha256: str = ""
    input_size: Size
    preprocess: Preprocess
    preprocess_reason: str = ""

    @property
    def is_guessed(self) -> bool:
        """Whether nobody said what the parent's input expects, and its file does not either."""
        return self.preprocess_reason.startswith(GUESSED)


class Plan(Record):
    """What to splice; see the module's docstring for the file format.

    Attributes:
        version: Of the schema.
        input_size: Extents of the shared input; of separate ones the largest along each dimension.
        inputs: Whether the branches share one input.
        parents: By branch letter.
        skips: What is connected.
        rejections: Why other pairs are not.
    """

    version: Literal[1] = 1
    input_size: Size
    inputs: InputKind = "shared"
    parents: dict[BranchName, PlannedParent]
    skips: Annotated[tuple[Skip, ...], FailFast(), Field(max_length=MOST_SKIPS)] = ()
    rejections: Annotated[tuple[Rejection, ...], FailFast()] = ()

    @property
    def exchanges(self) -> list[tuple[Skip, ...]]:
        """The skips, the two directions of one pair of taps together."""
        pairs: dict[frozenset[str], list[Skip]] = {}
        for skip in self.skips:
            pairs.setdefault(frozenset((skip.source, skip.target)), []).append(skip)
        return [tuple(pair) for pair in pairs.values()]

    def check_order(self, digests: Sequence[str]) -> None:
        """Refuse the files of the plan in another order than its own.

        Args:
            digests: SHA-256 of each file, in the order given.

        Raises:
            PlanError: If they are the plan's, but not in its order.
        """
        parents = [self.parents[letter] for letter in sorted(self.parents)]
        known = [parent.sha256 for parent in parents]
        if known != list(digests) and sorted(known) == sorted(digests):
            names = " ".join(parent.name for parent in parents)
            raise PlanError(
                f"the plan has {parents[0].name} first. Give the files in its order: {names}."
                if known[0] != digests[0]
                else f"the plan has its parents in another order. Give the files in that: {names}."
            )

    def _repr_html_(self) -> str:
        """Return the exchanges as a table, for notebooks."""
        names = ", ".join(f"{letter}: {parent.name}" for letter, parent in self.parents.items())
        return notebook.table(
            (
                (skip.source, skip.target, skip.projection, "" if skip.score is None else f"{skip.score:.2f}")
                for skip in self.skips
            ),
            headings=("from", "into", "through", "score"),
            caption=f"{len(self.exchanges)} exchanges ({names})",
        )

    def to_yaml(self) -> str:
        """Return the plan as a YAML document that :func:`from_yaml` reads back."""
        return documents.dump(self.model_dump(mode="json"), header=HEADER)

    def to_yaml_over(self, text: str) -> str:
        """Return the plan as a YAML document that keeps the comments of another.

        Args:
            text: The other one. Comments stay with the fields and skips that both have.
        """
        return documents.dump_over(self.model_dump(mode="json"), text, _IDENTITY) or self.to_yaml()


def from_yaml(text: str) -> Plan:
    """Read a plan.

    Raises:
        PlanError: If it is not YAML, or breaks the schema; the field is named.
    """
    try:
        data = documents.load(text)
    except (documents.YAMLError, RecursionError) as error:
        raise PlanError(f"it is not YAML: {' '.join(str(error).split())}.") from error
    if not isinstance(data, dict):
        raise PlanError("it is not a plan: expected a mapping with version, input_size, parents and skips.")
    if type(data.get("version")) is not int or data["version"] != VERSION:
        raise PlanError(f"its version is {data.get('version')!r}; this graftonnx reads version {VERSION}.")
    try:
        return Plan.model_validate(data)
    except ValidationError as error:
        if error.error_count() > MOST_ERRORS:
            raise PlanError(
                f"{first_error(error)[1]}. Compare it with one that `graftonnx match` wrote."
            ) from error
        # A misspelt field is two errors: one that is missing, and one that does not exist.
        complaints = sorted(error.errors(), key=lambda found: found["type"] != "extra_forbidden")
        raise PlanError(_complaint(dict(complaints[0]), data)) from error


def from_metadata(text: str | None) -> Plan:
    """Read the plan that a fused file holds, as JSON.

    Raises:
        ModelError: If it is none.
    """
    try:
        return Plan.model_validate_json(text or "")
    except ValidationError as error:
        raise ModelError(
            f"its metadata 'graftonnx.plan' is damaged: {first_error(error)[1]}. Fuse again."
        ) from error


LONGEST_FOUND = 200
"""Letters of a wrong value that a message shows."""

_MEANINGS = {
    "extra_forbidden": "there is no such field; take it out",
    "missing": "it is missing",
    "too_long": "it has {actual_length:,} entries, expected at most {max_length:,}; take some out",
    "string_pattern_mismatch": "expected <branch>/<value>, as a/relu_3 (for a parent: its letter)",
    "greater_than_equal": "expected at least {ge}",
    "less_than_equal": "expected at most {le}",
}


def _complaint(error: dict[str, Any], data: dict[str, Any]) -> str:
    """Say which field of a plan is wrong, in which skip, what was found and what was expected."""
    where = ".".join(str(part) for part in error["loc"])
    location = error["loc"]
    skip = ""
    if len(location) > 1 and location[0] == "skips" and isinstance(data["skips"][location[1]], dict):
        ends = data["skips"][location[1]]
        skip = f" of skip '{ends.get('source')}' -> '{ends.get('target')}'"
    meaning = _MEANINGS.get(error["type"], error["msg"]).format(**error.get("ctx", {}))
    found = "" if error["type"] == "missing" else f" (found {_shortened(error['input'])})"
    return f"field '{where}'{skip}: {meaning}{found}.{_meant(error)}"


def _shortened(value: object) -> str:
    """Return a value as Python writes it, its beginning where that is long."""
    text = repr(value)
    return text if len(text) <= LONGEST_FOUND else f"{text[:LONGEST_FOUND]}..."


def _meant(error: dict[str, Any]) -> str:
    """Return the nearest names where a field, or one of a few values, is misspelt."""
    if error["type"] == "extra_forbidden":
        records = (Plan, PlannedParent, Preprocess, Skip, Projection, Rejection)
        return did_you_mean(
            str(error["loc"][-1]), [name for record in records for name in record.model_fields]
        )
    if error["type"] == "literal_error":
        return did_you_mean(str(error["input"]), re.findall(r"'([^']+)'", error["ctx"]["expected"]))
    return ""


def read_plan(path: Path) -> Plan:
    """Read a plan file.

    Raises:
        PlanError: If it cannot be read or is not a plan.
    """
    try:
        text = reading.read_text(path, longest=documents.ENOUGH)
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not a text file"
        raise PlanError(f"cannot read plan '{path}': {reason}.{reading.beside(path)}") from error
    try:
        return from_yaml(text)
    except PlanError as error:
        raise error.at(f"cannot read plan '{path}'") from error


def write_plan(plan: Plan, path: Path, *, force: bool = False) -> None:
    """Write a plan file atomically; the comments of the plan that it replaces stay.

    Raises:
        GraftError: If the target exists and `force` is false, or cannot be written.
    """
    files.check_writable(path, force=force)
    try:
        text = plan.to_yaml_over(reading.read_text(path, longest=documents.ENOUGH))
    except (OSError, UnicodeDecodeError):
        text = plan.to_yaml()
    files.write_text(path, text)


_IDENTITY = (("source", "target"), ("a", "b"))
"""By which fields a skip and a rejection are known again."""

HEADER = """\
Exchanges between networks: a plan of graftonnx. Edit it and give it to `graftonnx fuse --plan`.
input_size: height and width of the shared image. inputs: shared, or separate: one for each branch, of its
size; input_size is then the largest of them. parents: each branch's file, size and input convention, which
may be guessed: preprocess_reason says why; set preprocess where it is wrong.
skips: what `source` (branch/value) holds, projected, is added to `target`; two of them make an exchange.
projection: equal | conv | pool (mean, then 1x1 conv) | resize (1x1 conv and resize). conv and pool have a
window: kernel, stride, pads (top, left, bottom, right).
score: what the matching gave the pair. rejections: pairs that are not exchanged, and why; not read.
"""
"""The comment at the top of a plan file: every field in words."""
