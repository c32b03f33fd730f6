"""What every command prints with --json is what `graftonnx schema` says."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
import torch
from builders import plain_cnn, residual_cnn, saved
from click.testing import CliRunner
from training.fused import save_fused, save_images

from graftonnx.cli import graftonnx
from graftonnx.cli.group import COMMANDS
from graftonnx.cli.schema_command import PRINTED, printed

FAST = "--epochs 1 --batch-size 8 --precision fp32 --layout contiguous --device cpu"
SILENT = ("completion", "schema")
"""Commands that print no result, but text for another program."""


@pytest.fixture(scope="module", autouse=True)
def work(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with parents, a fused network, images and a run, and the current directory."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("work")
        patch.chdir(folder)
        saved(residual_cnn(depth=3), folder / "a.onnx")
        saved(plain_cnn((8, 16, 32), seed=1), folder / "b.onnx")
        save_fused(folder / "fused.onnx")
        save_images(folder / "data")
        (folder / "trained.json").write_text(stdout(f"train fused.onnx --data data -o run {FAST} --json -q"))
        yield folder
    torch.set_num_threads(threads)


def stdout(line: str, *, exit_code: int = 0) -> str:
    result = CliRunner().invoke(graftonnx, line.split())
    assert result.exit_code == exit_code, result.output
    return result.stdout


def check(name: str, text: str) -> Any:
    """Read a result by its type; what the type does not know of would be lost, and is missed."""
    adapter = printed(name)
    found = json.loads(text)
    assert adapter.dump_python(adapter.validate_json(text), mode="json") == found
    return found


@pytest.mark.parametrize(
    "line",
    [
        "inspect a.onnx",
        "inspect fused.onnx",
        "check a.onnx",
        "view a.onnx",
        "match a.onnx b.onnx",
        "fuse a.onnx b.onnx -o f.onnx",
        "fuse a.onnx b.onnx --dry-run",
        "report run",
        "export run -o deploy.onnx",
        "export run -o bf16.onnx --precision bf16 --accept-loss",
        "eval run --data data",
        "predict run data --top 2",
        "bench run --batch 1 --rounds 1 --warm-up 0 --no-memory",
        "doctor",
        "zoo list",
        "zoo export squeezenet1_1 --width 0.1 --input-size 32 -o zoo.onnx",
    ],
)
def test_a_result_is_of_the_documented_type(line: str) -> None:
    name = line.split()[0] if not line.startswith("zoo") else " ".join(line.split()[:2])
    check(name, stdout(f"{line} --json"))


def test_a_finished_run(work: Path) -> None:
    assert check("train", (work / "trained.json").read_text())["epochs"] == 1


def test_a_bundle_and_its_verification(work: Path) -> None:
    assert check("bundle", stdout("bundle run -o bundle --json"))["name"] == "bundle"
    assert check("verify", stdout("verify bundle --json"))["files"] > 5


def test_networks_that_differ() -> None:
    found = check("check", stdout("check a.onnx --against b.onnx --json", exit_code=1))
    assert not found["equal"]
    assert len(found["first"]["numbers"]) == 2


def commands() -> dict[str, click.Command]:
    """Return every command, those inside groups with both names."""
    found = {}
    for name in COMMANDS:
        command = graftonnx.get_command(click.Context(graftonnx), name)
        assert command is not None
        if isinstance(command, click.Group):
            found |= {f"{name} {inner}": each for inner, each in command.commands.items()}
        else:
            found[name] = command
    return found


def test_every_command_takes_json_and_has_a_schema() -> None:
    takes = [name for name, each in commands().items() if any("--json" in p.opts for p in each.params)]
    assert takes == [name for name in commands() if name not in SILENT]
    assert takes == list(PRINTED)


def test_schema_prints_a_json_schema() -> None:
    schema = json.loads(stdout("schema zoo export"))
    assert schema["properties"]["parameters"]["type"] == "integer"
    assert "path" in schema["required"]


def test_schema_of_a_command_that_is_none() -> None:
    result = CliRunner().invoke(graftonnx, ["schema", "zoo", "lst"])
    assert (result.exit_code, result.stdout) == (2, "")
    assert "Did you mean 'zoo list'?" in result.stderr
