"""Misspelt words on the command line are answered with the nearest."""

from __future__ import annotations

import re
from pathlib import Path

import click
import pytest
from builders import plain_cnn, saved
from click.testing import CliRunner
from lookalikes import colour_folder

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


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("inspect network.onx", " Did you mean 'network.onnx'?"),
        ("inspect Netwrk.onnx", " Did you mean 'network.onnx'?"),
        ("inspect other.onnx", ""),
        ("inspect no/network.onnx", ""),
        ("predict netwrok.onnx images", " Did you mean 'network.onnx'?"),
        ("fuse network.onnx -o f.onnx --plan paln.yaml", " Did you mean 'plan.yaml'?"),
        ("fuse network.onnx -o f.onnx --labels label.txt", " Did you mean 'labels.txt'?"),
        ("fuse network.onnx network.onnx -o f.onnx --calibrate image", " Did you mean 'images'?"),
        ("eval network.onnx --data imgaes --preprocess unit", " Did you mean 'images'?"),
        (
            "eval network.onnx --data images --preprocess unit --split-file splt.json",
            " Did you mean 'split.json'?",
        ),
    ],
)
def test_a_missing_file_is_a_sentence_with_the_file_that_was_meant(
    typed: str, meant: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    saved(plain_cnn((8, 16), classes=2), tmp_path / "network.onnx")
    colour_folder(tmp_path / "images", {"red": 1, "green": 1})
    for name in ("plan.yaml", "labels.txt", "split.json"):
        (tmp_path / name).touch()
    result = CliRunner().invoke(graftonnx, typed.split())
    assert (result.exit_code, result.stdout) == (1, "")
    sentence = result.stderr.splitlines()[-1]
    assert sentence.startswith("Error: cannot ")
    assert re.search(r"[Nn]o such (file|folder)", sentence)
    assert f".{meant}" in sentence
    assert ("Did you mean" in sentence) == bool(meant)
