"""What is printed whatever the numbers and the terminal are: JSON, and tables."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from builders import plain_cnn, saved
from click.testing import CliRunner

from graftonnx.cli import console, graftonnx


def test_numbers_that_are_not_finite_are_null_in_json(capsys: pytest.CaptureFixture[str]) -> None:
    console.print_json({"a": [float("inf"), -float("inf"), (float("nan"), 1.5)], "b": True})
    assert json.loads(capsys.readouterr().out) == {"a": [None, None, [None, 1.5]], "b": True}


def test_check_of_other_shapes_prints_json(tmp_path: Path) -> None:
    a = saved(plain_cnn((8, 16), classes=3), tmp_path / "a.onnx")
    b = saved(plain_cnn((8, 16), classes=4), tmp_path / "b.onnx")
    result = CliRunner().invoke(graftonnx, ["check", str(a), "--against", str(b), "--json"])
    assert result.exit_code == 1

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    assert json.loads(result.stdout, parse_constant=refuse)["first"]["relative"] is None


@pytest.mark.parametrize("name", ["COLUMNS", "LINES"])
@pytest.mark.parametrize("value", ["²", "٣", "9" * 5000, "", "-1", "wide"])
def test_odd_sizes_of_the_terminal_are_ignored(name: str, value: str) -> None:
    environment = {k: v for k, v in os.environ.items() if k not in ("COLUMNS", "LINES")}
    code = (
        "import os, sys; from graftonnx.cli import main; sys.argv[1:] = ['zoo', 'list']\n"
        f"try: main()\nfinally: assert {name!r} not in os.environ"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], env={**environment, name: value}, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
    assert "squeezenet1_1" in result.stdout
