"""COMMANDS.md is what the commands say of themselves."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from graftonnx.cli.group import COMMANDS

ROOT = Path(__file__).parent.parent.parent


def test_the_help_pages_are_up_to_date() -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "tools" / "help_pages", "--check"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def test_every_command_has_a_page_and_an_example_if_it_needs_arguments() -> None:
    pages = (ROOT / "graftonnx" / "cli" / "COMMANDS.md").read_text(encoding="utf-8")
    for name in COMMANDS:
        page = pages.partition(f"\n## graftonnx {name}\n")[2].partition("\n## ")[0]
        assert f"Usage: graftonnx {name} [OPTIONS]" in page
        assert "Example: " in page or name == "doctor"
