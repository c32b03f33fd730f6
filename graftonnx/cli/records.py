"""What the commands print with --json, as types; `graftonnx schema COMMAND` prints them as JSON schemas."""

from __future__ import annotations

from typing import Any, Literal, NotRequired, get_type_hints

from pydantic import create_model
from typing_extensions import TypedDict

from graftonnx.diagnosis import Diagnosis
from graftonnx.errors import Refusal
from graftonnx.evaluation import ClassScore, Part
from graftonnx.exporting.fidelity import Fidelity
from graftonnx.metadata import HeadRecord, Parent, Preprocess
from graftonnx.plan import Plan
from graftonnx.prediction.answers import Candidate

Shape = list[int | Literal["batch"] | None]
"""None where an extent is not known."""


class Input(TypedDict):
    """The first input of a network."""

    name: str
    shape: Shape
    preprocess: Preprocess
    preprocess_reason: str


class Output(TypedDict):
    """The output of a network."""

    name: str
    classes: int


class Feature(TypedDict):
    """The tensor in front of a network's head."""

    name: str
    shape: Shape


class TapRecord(TypedDict):
    """A value that can be exchanged; `stride` is in input pixels, `depth` 0..1."""

    name: str
    op: str
    shape: list[int]
    stride: list[float]
    depth: float
    spine: bool


class Inspection(TypedDict):
    """What `inspect` tells."""

    name: str
    sha256: str
    producer: str
    opset: int
    ir_version: int
    input: Input
    inputs: dict[str, Shape]
    output: Output | None
    nodes: int
    parameters: int
    macs: int
    feature: Feature
    taps: list[TapRecord]
    parents: list[Parent]
    head: HeadRecord | None
    labels: list[str]
    notes: list[str]


class FirstDifference(TypedDict):
    """Where two runs differ first: the two numbers, and their distance as a share of the largest one.

    None stands for a number that is not finite; where the shapes differ, the numbers are those of elements.
    """

    value: str
    node: str
    index: list[int]
    relative: float | None
    numbers: list[float | None]


class Check(TypedDict):
    """What `check` tells; `unsupported` stands alone, nothing is compared then."""

    file: str
    equal: bool
    unsupported: NotRequired[list[Refusal]]
    inputs: NotRequired[list[list[int]]]
    values: NotRequired[int]
    worst: NotRequired[float]
    first: NotRequired[FirstDifference]


class Fused(TypedDict):
    """What `fuse` tells; with --dry-run it is the plan alone."""

    output: str
    bytes: int
    input: Shape
    inputs: dict[str, Shape]
    classes: int
    parameters: int
    macs: int
    parents_macs: int
    exchanges: int
    head: HeadRecord
    proofs: list[str]
    plan: Plan


class Page(TypedDict):
    """What `view` and `report` tell: where the page is."""

    path: str


class BundledModel(TypedDict):
    """A network in a bundle; `seconds` for one image."""

    precision: str
    bytes: int
    seconds: float
    top1: float | None
    fidelity: Fidelity | None


class BundleRecord(TypedDict):
    """What `bundle` tells."""

    path: str
    name: str
    files: int
    split: Part | None
    models: list[BundledModel]


class UnreadableImage(TypedDict):
    """An image that cannot be decoded, and why."""

    name: str
    reason: str


class EvaluationRecord(TypedDict):
    """What `eval` tells; `confusion[i][j]` counts images of class i that were taken for class j."""

    model: str
    data: str
    split: Part
    images: int
    bad_images: list[UnreadableImage]
    top1: float
    top5: float
    loss: float
    provider: str
    mirror: bool
    classes: list[ClassScore]
    confusion: list[list[int]]


class Prediction(TypedDict):
    """What `predict` says of an image: the likeliest classes, the likeliest first, or why it has none."""

    image: str
    classes: list[Candidate]
    error: str | None


class ZooEntry(TypedDict):
    """A network that `zoo export` can write."""

    name: str
    summary: str
    parameters: int
    input_size: int
    smallest_input: int
    classes: int
    preprocess: str
    source: str


Zoo = list[ZooEntry]
Predictions = list[Prediction]
_FIELDS: dict[str, Any] = {name: (kind, ...) for name, kind in get_type_hints(Diagnosis).items()}
Doctor = create_model("Doctor", works=(bool, ...), **_FIELDS)
"""What `doctor` tells."""
