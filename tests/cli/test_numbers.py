"""Numbers of any size on the command line: what cannot be used ends in a sentence."""

from __future__ import annotations

import click
import pytest
from click.testing import CliRunner
from click.types import FloatParamType, IntParamType

from graftonnx.cli import graftonnx
from graftonnx.cli.group import COMMANDS
from graftonnx.cli.parameters import FloatRange, ImageSize, IntRange, Seed, number_from_one
from graftonnx.models.registry import ENTRIES, ChoiceError, build

HUGE = "9" * 23


def numeric() -> list[tuple[str, str, IntParamType | FloatParamType]]:
    """Return every option that takes a number, with its command and type."""
    found = []
    for name in COMMANDS:
        command = graftonnx.get_command(click.Context(graftonnx), name)
        assert command is not None
        inner = [command]
        if isinstance(command, click.Group):
            inner = list(command.commands.values())
        found += [
            (f"{name} {one.name}" if one is not command else name, param.opts[-1], param.type)
            for one in inner
            for param in one.params
            if isinstance(param.type, IntParamType | FloatParamType)
        ]
    return found


@pytest.mark.parametrize(("command", "option", "kind"), numeric(), ids=lambda value: str(value)[:20])
def test_every_number_is_of_a_bounded_type(
    command: str, option: str, kind: IntParamType | FloatParamType
) -> None:
    assert isinstance(kind, IntRange | FloatRange)
    for text in ("nan", "inf", "-inf") if isinstance(kind, FloatRange) else ("-1", HUGE):
        with pytest.raises(click.BadParameter):
            kind.convert(text, None, None)


@pytest.mark.parametrize(
    "line",
    [
        "check a.onnx --against a.onnx --tolerance nan",
        "check a.onnx --against a.onnx --tolerance inf",
        "bench a.onnx --seconds nan",
        "bench a.onnx --min-coverage nan",
        "eval a.onnx --data d --min-coverage nan",
        "fuse a.onnx b.onnx -o f.onnx --dropout nan",
        "train f.onnx --data d -o r --weight-decay nan",
        "train f.onnx --data d -o r --save-every inf",
        "zoo export custom16 -o z.onnx --width nan",
    ],
)
def test_a_number_must_be_finite(line: str) -> None:
    result = CliRunner().invoke(graftonnx, line.split())
    assert result.exit_code == 2
    option, value = line.split()[-2:]
    assert f"Invalid value for '{option}': {value} is not a finite number.\n" in result.stderr


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (f"zoo export custom16 -o z.onnx --seed {HUGE}", "is too large; at most 9223372036854775807"),
        (f"zoo export custom16 -o z.onnx --classes {HUGE}", "is too large; at most 2147483647"),
        (f"zoo export custom16 -o z.onnx --input-size {HUGE}", "is not in the range 1<=x<=32768"),
        ("zoo export custom16 -o z.onnx --width 1e300", "weights, at most 268,435,456 are allowed"),
        ("zoo export custom16 -o z.onnx --width 1000", "weights, at most 268,435,456 are allowed"),
        ("zoo export custom16 -o z.onnx --classes 2000000000", "weights, at most 268,435,456 are allowed"),
        ("check a.onnx --seed -1", "-1 is not in the range x>=0"),
        (f"bench a.onnx --threads {HUGE}", "is not in the range 0<=x<=1024"),
        (f"bench a.onnx --batch 1,{'9' * 5000}", "is no list of batch sizes"),
        (f"export a.onnx -o e.onnx --batch {'9' * 5000}", "is no number of images"),
        (f"train f.onnx --data d -o r --batch-size {'9' * 5000}", "is not a batch size"),
        (f"check a.onnx --input-size {'9' * 5000}", "is not a size"),
        (f"match a.onnx b.onnx --max-flops {'9' * 400}", "is not a finite number"),
    ],
    ids=lambda text: text[:45],
)
def test_a_number_out_of_bounds_is_refused(line: str, words: str) -> None:
    result = CliRunner().invoke(graftonnx, line.split())
    assert result.exit_code == 2
    assert isinstance(result.exception, SystemExit)
    assert words in result.stderr


def test_the_largest_seed_is_taken() -> None:
    assert Seed().convert(str(2**63 - 1), None, None) == 2**63 - 1
    build("custom16", width=0.1, seed=2**63 - 1)


@pytest.mark.parametrize("name", [entry.name for entry in ENTRIES])
def test_weights_are_counted_before_a_network_is_built(name: str) -> None:
    with pytest.raises(ChoiceError, match=r"it has at least [\d,]+ weights, at most"):
        build(name, classes=1 << 40)


@pytest.mark.parametrize(("text", "number"), [("08", 8), ("0", None), ("²", None), ("٣", None), ("", None)])
def test_numbers_are_of_ascii_digits(text: str, number: int | None) -> None:
    assert number_from_one(text) == number
    if number is None:
        with pytest.raises(click.BadParameter):
            ImageSize().convert(text, None, None)
