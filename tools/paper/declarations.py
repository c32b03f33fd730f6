"""What the files in `rows/`, `parents/` and `studies/` may say.

A parent is a file that comes pretrained, or a network of `graftonnx zoo` that is trained here. A row is two
parents and the images that the hybrid is retrained on. A study asks what single options change. Options are
those of the graftonnx commands, by their long names; what a budget says is added to them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Self, TypeVar

from pydantic import Field, ValidationError, model_validator

from graftonnx import documents
from graftonnx.errors import GraftError
from graftonnx.metadata import Record
from graftonnx.spelling import did_you_mean

T = TypeVar("T")
R = TypeVar("R", bound=Record)

HERE = Path(__file__).resolve().parent

Value = str | int | float

Options = dict[str, Value]
"""Of a command: `{"epochs": 3}` is `--epochs 3`."""


class Training(Record):
    """How a parent is trained within a budget.

    Attributes:
        export: Options of `graftonnx zoo export`: width, input size, seed of the first weights.
        train: Options of `graftonnx train`.
        note: What differs from the paper.
    """

    export: Options = Field(default_factory=dict)
    train: Options = Field(default_factory=dict)
    note: str = ""


class Parent(Record):
    """One of the two networks of a row.

    Attributes:
        title: For the tables.
        file: In the folder of models: a name, or `archive.zip/name`; None for a network that is trained here.
        preprocess: Its input convention, where the file does not say it.
        network: Its name in `graftonnx zoo list`.
        data: What it is trained on, as :data:`places.DATA` calls it.
        budgets: How it is trained, by budget.
        note: What differs from the paper.
    """

    title: str
    file: str | None = None
    preprocess: str | None = None
    network: str | None = None
    data: str | None = None
    budgets: dict[str, Training] = Field(default_factory=dict)
    note: str = ""

    @model_validator(mode="after")
    def _check(self) -> Self:
        trained = (self.network, self.data)
        if (self.file is None) == (None in trained) or (self.file and any(trained)):
            raise ValueError("give 'file' alone, or 'network', 'data' and 'budgets'")
        return self


class Reported(Record):
    """What the paper says, in per cent.

    Attributes:
        tables: Of the paper, that the row stands in.
        hybrid: Accuracy of the hybrid.
        a: Of transfer learning with the first parent alone, where Table 3 has it.
        b: Likewise with the second.
    """

    tables: tuple[int, ...]
    hybrid: float
    a: float | None = None
    b: float | None = None


class Budget(Record):
    """How a row is run within a budget.

    Attributes:
        fuse: Options of `graftonnx fuse`.
        train: Options of `graftonnx compare`; `split-file: fixed` stands for a file that holds the same fifth
            of each class back from all seeds.
        seeds: Runs of each network, unless the command line says otherwise.
        variants: More fused networks beside the default one and the paper's, as in a :class:`Study`, but for
            `calibrate`.
        compared: Whether the fused network has rivals; without, it is trained alone, once, by
            `graftonnx train`: how far it comes where time does not suffice for all.
        note: What differs from the paper.
    """

    fuse: Options = Field(default_factory=dict)
    train: Options = Field(default_factory=dict)
    seeds: int = Field(default=3, ge=1)
    variants: dict[str, Options] = Field(default_factory=dict)
    compared: bool = True
    note: str = ""


class Row(Record):
    """One experiment of the paper.

    Attributes:
        title: For the tables.
        paper: What the paper says.
        a: Name of the first parent: `parents/<name>.yaml`.
        b: Of the second.
        data: What the hybrid is retrained on, as :data:`places.DATA` calls it.
        budgets: How it is run, by budget.
    """

    title: str
    paper: Reported
    a: str
    b: str
    data: str
    budgets: dict[str, Budget]


class Change(Record):
    """What is changed in a study for all of its networks.

    Attributes:
        fuse: Options of `graftonnx fuse`.
        train: Options of `graftonnx compare`.
    """

    fuse: Options = Field(default_factory=dict)
    train: Options = Field(default_factory=dict)


class Study(Record):
    """What single options change, all else equal.

    Attributes:
        title: For the tables.
        a: Name of the first parent: `parents/<name>.yaml`.
        b: Of the second.
        data: What the hybrids are trained on, as :data:`places.DATA` calls it.
        budget: Of the parents.
        seeds: Runs of each network, unless the command line says otherwise.
        fuse: Options of `graftonnx fuse`.
        train: Options of `graftonnx compare`, as in a :class:`Budget`.
        variants: By name, what is changed in `fuse` for one more fused network beside the default one; they
            share the parents' and the concatenation's runs. `calibrate: images` stands for a folder of
            unlabelled images of the data set, `plan: NAME` for the default network's plan with one thing
            changed, as :data:`plans.EDITS` says, `weights: small` for the default network with skips that
            begin as :func:`beginnings.drawn` says.
        changes: By name, what is changed for the fused network and its parts, which are all trained anew.
    """

    title: str
    a: str
    b: str
    data: str
    budget: str = "quick"
    seeds: int = Field(default=3, ge=1)
    fuse: Options = Field(default_factory=dict)
    train: Options = Field(default_factory=dict)
    variants: dict[str, Options] = Field(default_factory=dict)
    changes: dict[str, Change] = Field(default_factory=dict)


def rows() -> list[str]:
    """Return the names of all rows, in the order of the paper's tables."""
    named = [(path.stem, read_row(path.stem)) for path in (HERE / "rows").glob("*.yaml")]
    return [name for name, row in sorted(named, key=lambda item: (item[1].paper.tables, item[0]))]


def studies() -> list[str]:
    """Return the names of all studies."""
    return sorted(path.stem for path in (HERE / "studies").glob("*.yaml"))


def read_row(name: str) -> Row:
    """Read `rows/<name>.yaml`.

    Raises:
        GraftError: If there is no such row, or the file does not say what a row must.
    """
    return _read(Row, "rows", name)


def read_parent(name: str) -> Parent:
    """Read `parents/<name>.yaml`; raises as :func:`read_row`."""
    return _read(Parent, "parents", name)


def read_study(name: str) -> Study:
    """Read `studies/<name>.yaml`; raises as :func:`read_row`."""
    return _read(Study, "studies", name)


def _read(kind: type[R], folder: str, name: str) -> R:
    path = HERE / folder / f"{name}.yaml"
    known = sorted(file.stem for file in path.parent.glob("*.yaml"))
    if name not in known:
        raise GraftError(
            f"there is no '{name}' in {folder}/.{did_you_mean(name, known)} Choose from {', '.join(known)}."
        )
    try:
        return kind.model_validate(documents.load(path.read_text(encoding="utf-8")))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise GraftError(f"cannot use '{path.name}': {where}: {first['msg']}.") from error
    except documents.YAMLError as error:
        raise GraftError(f"cannot use '{path.name}': it is not YAML: {error}") from error


def budget_of(budgets: dict[str, T], budget: str, name: str) -> T:
    """Return what a row or parent says for a budget.

    Raises:
        GraftError: If it does not say anything.
    """
    if budget not in budgets:
        raise GraftError(f"'{name}' has no budget '{budget}'. Choose from {', '.join(budgets)}.")
    return budgets[budget]
