"""Names chosen by strangers: nothing in them is obeyed, computed or hidden."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
from pathlib import Path

import onnx
import pytest
from builders import residual_cnn, saved
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from graftonnx.cli import graftonnx
from graftonnx.printable import cell, markdown_code, markdown_text, printable, printable_json

ESCAPE = "\x1b]0;owned\x07\x1b[2J"
BIDI = "photo\u202egpj.exe"
HIDDEN = "ca\u200bt"
MARKUP = "[bold]x[/nothing] :smile:"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (ESCAPE, r"\x1b]0;owned\x07\x1b[2J"),
        (BIDI, r"photo\u202egpj.exe"),
        (HIDDEN, r"ca\u200bt"),
        ("\x9b31m", r"\x9b31m"),
        ("a\rb", r"a\rb"),
        ("\U000e0041", r"\U000e0041"),
        ("\udcff", r"\udcff"),
        ("été 猫 😀\tx\n", "été 猫 😀\tx\n"),
    ],
)
def test_what_a_terminal_obeys_or_hides_is_spelled_out(text: str, shown: str) -> None:
    assert printable(text) == shown


@given(st.text(st.characters(codec=None)))
def test_json_says_the_same_without_such_characters(text: str) -> None:
    written = printable_json(json.dumps({"name": text}, ensure_ascii=False))
    assert json.loads(written) == {"name": text}
    assert printable(written) == written


@given(st.text())
def test_a_line_of_markdown_has_no_tag_link_code_or_end_of_cell(text: str) -> None:
    plain = markdown_text(text).replace("\\\\", "")
    for sign in "[]`|":
        assert plain.count(sign) == plain.count(f"\\{sign}")
    assert "<" not in plain
    assert "\n" not in plain


@given(st.text())
def test_code_in_markdown_ends_neither_itself_nor_a_cell(text: str) -> None:
    code = markdown_code(text)
    assert (code[0], code[-1], code.count("`")) == ("`", "`", 2)
    assert code.count("|") == code.count("\\|")
    assert "\n" not in code


@pytest.mark.parametrize("name", ["=1+1", "+1", "-1", "@x", "\tx", "\rx"])
def test_no_cell_begins_a_formula(name: str) -> None:
    assert cell(name) == f"'{name}"


@pytest.fixture
def hostile(tmp_path: Path) -> Path:
    """A network whose values, and whose file, have such names."""
    model = residual_cnn(depth=3)
    names = {name: f"{ESCAPE}{MARKUP}{name}" for node in model.graph.node for name in node.output}
    kept = {value.name for value in model.graph.output}
    for node in model.graph.node:
        for values in (node.input, node.output):
            values[:] = [names[name] if name in names and name not in kept else name for name in values]
    onnx.checker.check_model(model)
    return saved(model, tmp_path / f"{BIDI}{ESCAPE.replace('/', '')}.onnx")


@pytest.mark.parametrize("command", [["inspect"], ["inspect", "--json"], ["match"], ["check"]])
def test_names_in_a_network_are_text_wherever_a_command_prints_them(
    hostile: Path, command: list[str]
) -> None:
    pair = [str(hostile)] * (2 if command[0] == "match" else 1)
    result = CliRunner().invoke(graftonnx, [command[0], *pair, *command[1:]])
    assert (result.exit_code, type(result.exception)) == (0, type(None)), result.output
    assert printable(result.output) == result.output
    if command == ["inspect"]:
        assert "[bold]x[/nothing] :smile:" in result.output
        assert r"photo\u202egpj.exe" in result.output


def test_names_in_an_error_message_are_text(tmp_path: Path) -> None:
    missing = tmp_path / f"{ESCAPE}{BIDI}.onnx"
    for arguments in (["inspect", str(missing)], ["predict", str(missing), "x"], ["eval", str(missing)]):
        result = CliRunner().invoke(graftonnx, arguments)
        assert result.exit_code in (1, 2)
        assert printable(result.output) == result.output
        assert "Error" in result.output


def test_a_name_that_is_not_utf_8_ends_no_command(tmp_path: Path) -> None:
    folder = str(tmp_path).encode() + b"/\xff\x1b.onnx"
    done = subprocess.run([sys.executable, "-m", "graftonnx", "inspect", folder], capture_output=True)
    assert done.returncode in (1, 2)
    assert b"Traceback" not in done.stderr
    assert b"\x1b" not in done.stderr


def test_every_table_of_a_run_has_no_formula(tmp_path: Path) -> None:
    from graftonnx.training.report.writing import _write_table

    _write_table(tmp_path / "t.csv", ("true", "=cmd|'/c calc'!A1"), [("@SUM(1)", -1.5), ("cat", 2)])
    rows = list(csv.reader(io.StringIO((tmp_path / "t.csv").read_text())))
    assert rows == [["true", "'=cmd|'/c calc'!A1"], ["'@SUM(1)", "-1.5"], ["cat", "2"]]
