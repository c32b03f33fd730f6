"""The README's commands and code do what it prints."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from graftonnx.cli import graftonnx
from graftonnx.metadata import PRESETS

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def console(command: str) -> tuple[list[str], str]:
    """Return the arguments and the printed output of the first `$ graftonnx <command>` in the README."""
    found = re.search(
        rf"^\$ graftonnx ({command} (?:.*\\\n)*.*)\n((?:(?!\$ |```).*\n)*)", README, re.MULTILINE
    )
    assert found is not None
    return shlex.split(found[1].replace("\\\n", " ")), found[2]


@pytest.fixture
def clone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that looks like a clone, as the current directory, with the digits in `digits/`."""
    (tmp_path / "models").symlink_to(ROOT / "models")
    script = ROOT / "tools" / "write_digits"
    subprocess.run([sys.executable, script, tmp_path / "digits"], check=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def words(text: str) -> list[str]:
    return text.split()


def facts(text: str) -> list[str]:
    """Return what a table of names and values tells, without the values."""
    return [line[:20].strip() for line in text.splitlines() if line[:1].strip()]


def test_the_first_two_commands_print_what_the_readme_shows(clone: Path) -> None:
    arguments, printed = console("fuse")
    fused = CliRunner().invoke(graftonnx, arguments)
    assert fused.exit_code == 0, fused.output
    assert words(fused.stdout) == words(printed)

    arguments, printed = console("train")
    arguments[arguments.index("--data") + 1] = "digits"
    trained = CliRunner().invoke(graftonnx, [*arguments, "--epochs", "1", "--precision", "fp32"])
    assert trained.exit_code == 0, trained.output
    assert facts(trained.stdout) == facts(printed)


def test_the_python_examples_run(clone: Path) -> None:
    fusing = (ROOT / "graftonnx" / "FUSING.md").read_text(encoding="utf-8")
    (api,), (hook,) = (
        re.findall(r"```python\n(import .*?)```", page, re.DOTALL) for page in (README, fusing)
    )
    names: dict[str, Any] = {}
    exec(compile(api, "README.md", "exec"), names)
    assert (clone / "fused.onnx").stat().st_size > 100_000
    assert "Sigmoid" not in {node.op_type for node in names["fused"].view.nodes}
    exec(compile(hook, "README.md", "exec"), names)
    assert "Sigmoid" in {node.op_type for node in names["fused"].view.nodes}


def test_no_placeholder_is_left() -> None:
    assert re.findall(r"<!-- (?:fuse|train|demo|natural) -->|@@", README) == []


PAGES = [
    "README.md",
    "graftonnx/FUSING.md",
    "graftonnx/training/TRAINING.md",
    "graftonnx/exporting/DEPLOYING.md",
    "tools/DEVELOPING.md",
    "graftonnx/API.md",
]


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("name", PAGES)
def test_every_link_between_pages_leads_to_a_file_and_a_heading(name: str) -> None:
    page = ROOT / name
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if link.startswith("https://"):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


def test_the_tutorial_inspects_and_refuses_as_it_shows(clone: Path) -> None:
    (clone / "a.onnx").symlink_to(ROOT / "models" / "custom16-mnist.onnx")
    (clone / "b.onnx").symlink_to(ROOT / "models" / "squeezenet-cifar100.onnx")
    arguments, printed = console("inspect")
    inspected = CliRunner().invoke(graftonnx, arguments)
    assert words(inspected.stdout)[: len(words(printed)) - 1] == words(printed)[:-1]
    (clone / "notes.txt").write_text("hi\n")
    shown = re.findall(r"^\$ graftonnx (.*-o x\.onnx.*)\n(Error: .*)$", README, re.MULTILINE)
    assert shown
    for line, error in shown:
        refused = CliRunner().invoke(graftonnx, shlex.split(line))
        assert refused.exit_code != 0
        assert words(refused.stderr)[-len(words(error)) :] == words(error)
        assert not (clone / "x.onnx").exists()


@pytest.mark.parametrize("name", ["tools/demo", "tools/test", "tools/check", "tools/fix", "tools/setup"])
def test_every_script_that_the_readme_names_is_there(name: str) -> None:
    assert name in README
    assert (ROOT / name).stat().st_mode & 0o111


def test_the_table_of_presets_has_their_numbers() -> None:
    page = (ROOT / "graftonnx" / "FUSING.md").read_text(encoding="utf-8")
    for name, preset in PRESETS.items():
        numbers = (" : ".join(f"{value:g}" for value in values) for values in (preset.mean, preset.std))
        row = (f"`{name}`", preset.order.upper(), f"{preset.scale:g}", *numbers)
        assert f"| {' | '.join(row)} |" in page
