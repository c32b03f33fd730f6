"""Parameter types and options that several commands share."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from graftonnx.cli import console
from graftonnx.spelling import did_you_mean

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

    from graftonnx.metadata import Preprocess
    from graftonnx.network import Network

F = TypeVar("F", bound=Callable[..., Any])

DATA_HELP = "Labelled images: folder, archive, table, .npz, Parquet, shards or hf:NAME (see TRAINING.md)."
"""The help of `--data`."""

MOST = (1 << 31) - 1
"""The largest whole number that an option takes, unless it says another."""

MOST_THREADS = 1 << 10

LETTERS = "abcdefghijklmnopqrstuvwxyz"
LARGEST_SIDE = 1 << 15
"""Height and width of an image."""

ORDERS = ("rgb", "bgr", "grey")

_PREPROCESS = re.compile(r"([a-z])=(.+)")


def any_file(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Let the shell complete a parameter that may be a file, for `shell_complete`."""
    from click.shell_completion import CompletionItem

    return [CompletionItem(incomplete, type="file")]


class Choice(click.Choice[str]):
    """One of a few names; another one is answered with the nearest."""

    def get_invalid_choice_message(self, value: Any, ctx: click.Context | None) -> str:
        """Return the message for a value that is none of them."""
        return super().get_invalid_choice_message(value, ctx) + did_you_mean(str(value), self.choices)


def number_from_one(text: str) -> int | None:
    """Return a number from 1 to `MOST` that ASCII digits spell; None for any other text."""
    if re.fullmatch(r"[0-9]{1,10}", text) is None:
        return None
    number = int(text)
    return number if 1 <= number <= MOST else None


class IntRange(click.IntRange):
    """Whole numbers in a range; without an upper end, up to `most`."""

    most = MOST

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Return the number."""
        number = super().convert(value, param, ctx)
        if self.max is None and number > self.most:
            self.fail(f"{number} is too large; at most {self.most} is allowed.", param, ctx)
        return number


class Seed(IntRange):
    """What random numbers begin with, from 0 on."""

    most = (1 << 63) - 1

    def __init__(self) -> None:
        super().__init__(min=0)


class FloatRange(click.FloatRange):
    """Finite numbers in a range."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return the number."""
        number = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value} is not a finite number.", param, ctx)
        return number


class ImageSize(click.ParamType[tuple[int, int]]):
    """`100` for a square, `48x192` for height x width, in pixels."""

    name = "N|HxW"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, int]:
        """Return height and width."""
        found = re.fullmatch(r"([0-9]{1,9})(?:x([0-9]{1,9}))?", str(value))
        if found is None:
            self.fail(f"{value!r} is not a size; give N, or HEIGHTxWIDTH.", param, ctx)
        size = int(found[1]), int(found[2] or found[1])
        if not 1 <= min(size) <= max(size) <= LARGEST_SIDE:
            self.fail(f"{value!r} is not a size; both sides must be 1 to {LARGEST_SIDE} pixels.", param, ctx)
        return size


def parse_preprocess(text: str) -> Preprocess:
    """Read a preset's name, or numbers: `bgr,scale=255,mean=103.9:116.8:123.7,std=1`.

    Raises:
        click.BadParameter: Naming the part that cannot be read.
    """
    from pydantic import ValidationError

    from graftonnx.metadata import PRESETS, Preprocess

    if text in PRESETS:
        return PRESETS[text]
    fields: dict[str, Any] = {}
    for part in text.split(","):
        key, _, value = part.partition("=")
        if part in ORDERS:
            fields["order"] = part
        elif key == "scale" and value:
            fields[key] = value
        elif key in ("mean", "std") and value:
            fields[key] = value.split(":")
        else:
            raise click.BadParameter(
                f"{part!r} is neither a preset ({', '.join(PRESETS)}) "
                f"nor rgb, bgr, grey, scale=, mean= or std=.{did_you_mean(part, (*PRESETS, *ORDERS))}"
            )
    try:
        return Preprocess.model_validate(fields)
    except ValidationError as error:
        first = error.errors()[0]
        raise click.BadParameter(f"{first['loc'][0]}: {first['msg']} (found {first['input']!r}).") from error


class Convention(click.ParamType["Preprocess"]):
    """What the input of a network expects, see :func:`parse_preprocess`."""

    name = "convention"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Preprocess:
        """Return the convention."""
        if not isinstance(value, str):
            return value  # type: ignore[no-any-return] # click converts its own results again
        try:
            return parse_preprocess(value)
        except click.BadParameter as error:
            self.fail(error.message, param, ctx)


def split_parents(arguments: Sequence[str], given: Sequence[str]) -> tuple[list[Path], dict[str, Preprocess]]:
    """Part the positional arguments into files and `<branch>=<preprocessing>`.

    So `--preprocess a=imagenet b=inception` works as well as two options.

    Raises:
        click.BadParameter: For a branch without a parent, or preprocessing that cannot be read.
    """
    files = [Path(text) for text in arguments if not _is_preprocess(text)]
    conventions: dict[str, Preprocess] = {}
    for text in (*given, *(text for text in arguments if _is_preprocess(text))):
        found = _PREPROCESS.fullmatch(text)
        if found is None:
            raise click.BadParameter(f"--preprocess {text!r}: expected <branch>=<convention>, as a=imagenet.")
        if found[1] not in LETTERS[: len(files)]:
            raise click.BadParameter(
                f"--preprocess {text!r}: there is no branch {found[1]!r}; "
                f"the parents are {', '.join(LETTERS[: len(files)])} in the order given."
            )
        conventions[found[1]] = parse_preprocess(found[2])
    return files, conventions


def load_parents(
    paths: Sequence[Path],
    sizes: Sequence[tuple[int, ...] | None],
    conventions: dict[str, Preprocess],
    *,
    dequantize: bool,
) -> list[Network]:
    """Load the parents, each with its preprocessing where one is given, at its size.

    A parent that cannot run at that size keeps its own, with a note: its branch resizes the image.
    """
    from graftonnx.errors import ModelError
    from graftonnx.model import load, resize

    networks = []
    for letter, path, size in zip(LETTERS, paths, sizes, strict=False):
        network = load(path, preprocess=conventions.get(letter), dequantize=dequantize)
        if size is not None:
            try:
                network = resize(network, size)
            except ModelError as error:
                own = "x".join(map(str, network.input_shape[1:]))
                console.note(f"note: {letter} ({path.name}) keeps {own}: {error.message}")
        networks.append(network)
    return networks


def _is_preprocess(text: str) -> bool:
    return _PREPROCESS.fullmatch(text) is not None and not os.path.exists(text)


input_size_option = click.option(
    "--input-size", type=ImageSize(), help="Run every parent at this size.  [default: each at its own]"
)
inputs_option = click.option(
    "--inputs",
    type=Choice(["shared", "separate"]),
    help="shared: one image, which every branch resizes for itself; separate: one input for each parent, of "
    "its own size and channels, in 0..1.  [default: shared, or as --plan says]",
)
preprocess_option = click.option(
    "--preprocess",
    multiple=True,
    metavar="BRANCH=CONVENTION",
    help="What a parent was trained on: imagenet, inception, caffe, unit, raw, or numbers as "
    "bgr,scale=255,mean=104:117:123,std=1.  [default: what the file says, else a guess]",
)
dequantize_option = click.option(
    "--dequantize",
    is_flag=True,
    help="Turn quantised (int8) networks into float ones; else they are refused.",
)
element_option = click.option(
    "--input",
    "element",
    type=Choice(["float", "uint8"]),
    default="float",
    show_default=True,
    help="float: RGB in 0..1; uint8: 8-bit pixels as cameras give them, normalised inside.",
)
layout_option = click.option(
    "--layout", type=Choice(["nchw", "nhwc"]), default="nchw", show_default=True, help="Of the input."
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
quiet_option = click.option(
    "-q",
    "--quiet",
    is_flag=True,
    expose_value=False,
    callback=console.set_quiet,
    help="No progress and no remarks.",
)
force_option = click.option("--force", is_flag=True, help="Replace existing files.")
