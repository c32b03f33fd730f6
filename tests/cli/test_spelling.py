"""Misspelt words on the command line are answered with the nearest."""

from __future__ import annotations

import click
import pytest
from click.testing import CliRunner

from graftonnx.cli import graftonnx
from graftonnx.cli.group import COMMANDS
from graftonnx.cli.parameters import Choice


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("fuze", "'fuse'"),
        ("match a b --polcy exact", "'--policy'"),
        ("match a b --policy nera", "'near'"),
        ("fuse a b --max-flop +5%", "'--max-flops'"),
        ("fuse a b --preprocess a=imgnet", "'imagenet'"),
        ("fuse a b --preprocess a=bgrr,scale=255", "'bgr'"),
        ("train a --recipe bets", "'best'"),
        ("eval a --data b --provider cdua", "'cuda'"),
        ("predict a b --preprocess cafe", "'caffe'"),
        ("zoo export squeezenet1-2 -o x.onnx", "'squeezenet1_1'"),
        ("zoo lst", "'list'"),
    ],
)
def test_the_nearest_word_is_offered(typed: str, meant: str) -> None:
    result = CliRunner().invoke(graftonnx, typed.split())
    assert (result.exit_code, result.stdout) == (2, "")
    assert "id you mean" in result.stderr
    assert meant in result.stderr.partition("id you mean")[2]


@pytest.mark.parametrize("name", COMMANDS)
def test_every_choice_suggests(name: str) -> None:
    command = graftonnx.get_command(click.Context(graftonnx), name)
    assert command is not None
    plain = [p.name for p in command.params if type(p.type) is click.Choice]
    assert not plain, f"use graftonnx.cli.parameters.{Choice.__name__}"
