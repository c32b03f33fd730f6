"""A miniature of tools/fuzz: hostile inputs of fixed seeds, and what the fuzzers themselves promise."""

from __future__ import annotations

import collections
import random
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tools" / "fuzz"))

import command_lines
import extremes
import files
from mutation import mutated
from outcomes import FINDING, OK, REFUSED, Outcome, judged
from running import Case, Make, invoke, made
from seeds import networks


def outcomes(make: Make, seed: int, count: int, root: Path, monkeypatch: pytest.MonkeyPatch) -> list[Outcome]:
    """Run some inputs in this process."""
    monkeypatch.setattr(command_lines, "quick", True)
    monkeypatch.chdir(root)  # which each case leaves
    found = []
    for index in range(count):
        folder = root / str(index)
        folder.mkdir()
        found.append(invoke(made(make, seed, index), folder))
    return found


@pytest.mark.parametrize(
    ("make", "count"),
    [(command_lines.model_case, 150), (files.case, 50), (extremes.case, 100)],
    ids=["models", "inputs", "operators"],
)
def test_hostile_inputs_give_a_result_or_one_sentence(
    make: Make, count: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = outcomes(make, 2024, count, tmp_path, monkeypatch)
    bad = [f"{index}: {o.reason}\n{o.text}" for index, o in enumerate(found) if o.kind == FINDING]
    assert not bad, "\n\n".join(bad)
    kinds = collections.Counter(o.kind for o in found)
    assert kinds[OK] > count // 50
    assert kinds[REFUSED] > count // 3


def test_an_input_follows_from_its_seed_and_number() -> None:
    assert made(files.case, 1, 7) == made(files.case, 1, 7)
    assert made(files.case, 1, 7) != made(files.case, 2, 7)


def test_mutations_change_a_network() -> None:
    content = networks()[0]
    changed = {mutated(content, random.Random(seed)) for seed in range(50)}
    assert len(changed - {content}) > 40


CASE = Case(["fuse", "a.onnx"], {"a.onnx": b""}, {"fused.onnx"})


@pytest.mark.parametrize(
    ("status", "left", "reason"),
    [
        (KeyError("x"), set(), "KeyError at"),
        (RecursionError(), set(), "RecursionError at"),
        (7, set(), "exit code 7"),
        (0, {"stray.part"}, "files are left behind by fuse"),
        (1, {"fused.onnx"}, "exit code 1"),
    ],
)
def test_what_is_neither_result_nor_sentence_is_a_finding(
    status: int | BaseException, left: set[str], reason: str
) -> None:
    if isinstance(status, BaseException):
        try:
            raise status
        except type(status):
            pass
    outcome = judged(CASE, status, "", "", left, set(), [])
    assert outcome.kind == FINDING
    assert outcome.reason.startswith(reason)


@pytest.mark.parametrize(
    ("message", "fault"),
    [
        ("", "empty"),
        ("no end", "no sentence"),
        ("a\nb.", "more than a line"),
        ("\x1b[31mred.", "unprintable"),
        ("bad <class 'x'>.", "internals"),
        ("x" * 9_000 + ".", "too long"),
    ],
)
def test_a_message_that_is_no_sentence_is_a_finding(message: str, fault: str) -> None:
    import click

    outcome = judged(CASE, click.ClickException(message), "", "", set(), set(), [])
    assert (outcome.kind, fault in outcome.reason) == (FINDING, True)


def test_a_sentence_is_no_finding() -> None:
    import click

    refused = click.ClickException("cannot read 'a.onnx': it is not an ONNX file. Export it again.")
    assert judged(CASE, refused, "", "", set(), set(), []).kind == REFUSED
    assert judged(CASE, 0, "done", "", {"fused.onnx"}, set(), []).kind == OK
