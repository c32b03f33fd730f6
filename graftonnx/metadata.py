"""What an ONNX file says about itself in `metadata_props`, so that no later command asks again.

| key | value (JSON) |
|---|---|
| `graftonnx.format` | version of this table, an integer |
| `graftonnx.input` | :class:`InputConvention`: what the graph's image input, or each of them, expects |
| `graftonnx.labels` | class names, in the order of the logits |
| `graftonnx.parents` | list of :class:`Parent`, one per branch; fused files only |
| `graftonnx.plan` | the plan that was spliced in; fused files only |
| `graftonnx.head` | :class:`HeadRecord`: what decides over the branches; fused files only |
| `graftonnx.activation` | `"softmax"` if the output is already probabilities, else absent |
| `graftonnx.precision` | :data:`Precision` of an exported file; absent where that is float32 |
"""

from __future__ import annotations

import json
import re
from string import ascii_lowercase
from typing import Annotated, Literal

import onnx
from pydantic import BaseModel, ConfigDict, FailFast, Field, ValidationError, field_validator

from graftonnx.errors import ModelError

FORMAT = 1
"""The version of the metadata that this code writes; files with a newer one are refused."""


_PREPROCESSING = re.compile(r"(?:[a-z]/)*preprocess/[a-z]/")


def is_preprocessing(name: str) -> bool:
    """Return whether a name in a fused file belongs to a branch's input normalisation, which never trains.

    It starts with `preprocess/<branch>/`; in a network that was fused again, with branches before that.
    """
    return _PREPROCESSING.match(name) is not None


class Record(BaseModel):
    """A value that is stored as JSON or YAML: immutable, and strict about unknown fields."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


MOST_ERRORS = 1000
"""In a record, of which the first is told; each takes time to be told."""


def first_error(error: ValidationError) -> tuple[str, str]:
    """Return where a record is wrong first, and what is wrong there; of many errors their number only."""
    count = error.error_count()
    if count > MOST_ERRORS:
        return "", f"{count:,} of its values are wrong"
    first = error.errors()[0]
    why = first["msg"].removeprefix("Value error, ")
    if first["type"] == "too_long":
        why = "it has {actual_length:,} entries, expected at most {max_length:,}".format(**first["ctx"])
    return ".".join(map(str, first["loc"])), why


EXTREME = 1e6
"""How large a scale, mean or standard deviation may be; the last is at least one in as many."""

Factor = Annotated[float, Field(gt=0, le=EXTREME)]
Mean = Annotated[float, Field(ge=-EXTREME, le=EXTREME)]
Deviation = Annotated[float, Field(ge=1 / EXTREME, le=EXTREME)]


class Preprocess(Record):
    """From an RGB image in 0..1 to what a network was trained on: `(x[order] * scale - mean) / std`.

    `mean` and `std` are in the network's own channel order and scale: one number each channel, or one
    for all.
    """

    order: Literal["rgb", "bgr", "grey"] = "rgb"
    scale: Factor = 1.0
    mean: tuple[Mean, ...] = Field(default=(0.0,), min_length=1)
    std: tuple[Deviation, ...] = Field(default=(1.0,), min_length=1)


PRESETS: dict[str, Preprocess] = {
    "imagenet": Preprocess(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)),
    "inception": Preprocess(mean=(0.5,), std=(0.5,)),
    "caffe": Preprocess(order="bgr", scale=255.0, mean=(103.939, 116.779, 123.68)),
    "unit": Preprocess(),
    "raw": Preprocess(scale=255.0),
}
"""The input conventions that have a name."""


GUESSED = "guessed"
"""The beginning of the reason for a convention that nobody gave."""

ImageLayout = Literal["nchw", "nhwc"]
"""Whether the channels of an image input come before its height and width, or behind them."""


LARGEST_SIDE = 1 << 15
"""Height and width of an image, in pixels, that a file may ask for."""

Side = Annotated[int, Field(ge=1, le=LARGEST_SIDE)]


class InputConvention(Record):
    """What the image input of a graph expects, apart from its shape.

    For a fused file this is the `unit` preset: RGB in 0..1, or the luma of that where an input has one
    channel. Where an input is of 8-bit pixels, it is the `raw` preset. It holds for every input of a file
    that has several.

    Attributes:
        preprocess: What becomes of an RGB image in 0..1.
        layout: The order of the axes.
        size: Height and width to which a file that takes images of any size reduces them, in pixels.
    """

    preprocess: Preprocess = Preprocess()
    layout: ImageLayout = "nchw"
    size: tuple[Side, Side] | None = None


Precision = Literal["fp32", "fp16", "bf16", "int8"]
"""Of the numbers in an exported file: float32 throughout; float16 throughout; weights stored in bfloat16 and
computed with in float32; or weights and most activations in 8 bits."""


BranchName = Annotated[str, Field(pattern=r"^[a-z]$")]

MOST_PARENTS = len(ascii_lowercase)
"""Of one network: as many as there are letters for their branches."""


class Parent(Record):
    """A network that went into a fused file.

    Attributes:
        branch: The branch's letter; names of its values start with `<branch>/`.
        name: The file's name, without its folder.
        sha256: See :func:`graftonnx.weights.digest`.
        producer: What the file says made it.
        parameters: Elements of the weights that the branch kept.
        input_size: The extents at which the branch runs; for images height and width, in pixels.
        input_value: The value (in the fused graph) that holds the branch's preprocessed input.
        feature: The value (in the fused graph) that holds the branch's last feature tensor, before pooling.
        features: Its number of channels: the branch's share of the concatenated vector.
        preprocess: The branch's input convention.
        weight_type: In which the parent's file holds its weights, `float16` say; fused ones are float32.
        input: The graph input that this branch alone reads, with its channels and of size `input_size`; None
            where all branches share one.
    """

    branch: BranchName
    name: str
    sha256: str
    producer: str = ""
    parameters: int
    input_size: tuple[int, ...]
    input_value: str
    feature: str
    features: int
    preprocess: Preprocess
    weight_type: str = "float32"
    input: str | None = None


InputKind = Literal["shared", "separate"]
"""Whether the branches of a fused network share one input, or have one each."""

HeadKind = Literal["concat", "sum", "attention"]
"""How a head of ours joins the branches' features; see :mod:`graftonnx.heads`."""

FeatureKind = Literal["penultimate", "logits"]
"""What a branch hands to the head: its last feature tensor, pooled, or its own class scores."""

NormKind = Literal["rms", "none"]
"""What evens out the scales of the branches' features; see :mod:`graftonnx.heads`."""


class HeadRecord(Record):
    """The head of a fused file.

    Attributes:
        kind: How the features are joined; `file` for a head that its user brought.
        features: What the branches hand to it.
        norm: How each branch's feature is normalised in front of it; `none` in files of older versions.
        hidden: Width of the hidden layer, 0 for none; None for a user's own head.
        dropout: Share of hidden units dropped in training; likewise.
        file: Name of the user's head file, without its folder.
        sha256: Of that file's bytes.
    """

    kind: HeadKind | Literal["file"] = "concat"
    features: FeatureKind = "penultimate"
    norm: NormKind = "none"
    hidden: int | None = None
    dropout: float | None = None
    file: str | None = None
    sha256: str | None = None

    def __str__(self) -> str:
        """Return the head for people: `sum of penultimate features, hidden layer of 256, dropout 0.2`."""
        if self.kind == "file":
            return f"{self.file} over {self.features} features"
        hidden = (
            f"hidden layer of {self.hidden}, dropout {self.dropout:g}" if self.hidden else "no hidden layer"
        )
        normalised = ", normalised" if self.norm == "rms" else ""
        return f"{self.kind} of {self.features} features{normalised}, {hidden}"


class Metadata(Record):
    """The whole table of the module's docstring."""

    input: InputConvention | None = None
    labels: Annotated[tuple[str, ...], FailFast()] = ()
    parents: Annotated[tuple[Parent, ...], FailFast(), Field(max_length=MOST_PARENTS)] = ()
    plan: str | None = None
    head: HeadRecord | None = None
    activation: Literal["softmax"] | None = None
    precision: Precision | None = None

    @field_validator("parents")
    @classmethod
    def _different(cls, parents: tuple[Parent, ...]) -> tuple[Parent, ...]:
        """Refuse two parents of one branch."""
        branches = [parent.branch for parent in parents]
        for branch in branches:
            if branches.count(branch) > 1:
                raise ValueError(
                    f"{branches.count(branch)} parents are branch '{branch}', expected one for each branch"
                )
        return parents

    @property
    def branch_inputs(self) -> dict[str, str]:
        """The branch of every graph input that one branch alone reads; empty where all share one."""
        return {parent.input: parent.branch for parent in self.parents if parent.input is not None}


def read_metadata(model: onnx.ModelProto) -> Metadata:
    """Read what a file says about itself; a file that graftonnx did not write gives an empty record.

    Raises:
        ModelError: If the metadata was written by a newer graftonnx, or is damaged.
    """
    props = {
        p.key.removeprefix("graftonnx."): p.value
        for p in model.metadata_props
        if p.key.startswith("graftonnx.")
    }
    if not props:
        return Metadata()
    found = props.pop("format", str(FORMAT))
    if found not in map(str, range(FORMAT + 1)):
        raise ModelError(
            f"its graftonnx metadata has format '{found}', this version reads up to {FORMAT}. "
            "Upgrade graftonnx."
        )
    fields = {}
    for key, text in props.items():
        if key not in Metadata.model_fields:
            continue
        try:
            fields[key] = text if key == "plan" else json.loads(text)
        except (ValueError, RecursionError) as error:
            raise ModelError(f"its metadata 'graftonnx.{key}' is damaged: {error}. Fuse again.") from error
    try:
        return Metadata.model_validate(fields)
    except ValidationError as error:
        where, why = first_error(error)
        raise ModelError(
            f"its metadata '{'.'.join(filter(None, ('graftonnx', where)))}' is damaged: {why}. Fuse again."
        ) from error


def write_metadata(model: onnx.ModelProto, metadata: Metadata) -> None:
    """Replace the graftonnx part of `model.metadata_props`; other entries stay as they are."""
    others = [(p.key, p.value) for p in model.metadata_props if not p.key.startswith("graftonnx.")]
    ours = [("graftonnx.format", str(FORMAT))]
    dumped = metadata.model_dump(mode="json", exclude_none=True)
    for key, value in dumped.items():
        if value in ([], ()):
            continue
        text = value if key == "plan" else json.dumps(value, separators=(",", ":"))
        ours.append((f"graftonnx.{key}", text))
    del model.metadata_props[:]
    for key, value in others + ours:
        model.metadata_props.add(key=key, value=value)
