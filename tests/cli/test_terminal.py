"""In a terminal, in a pipe: usage, colours, exit codes, broken pipes."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
import sys
from pathlib import Path

import click
import pytest
from builders import plain_cnn, residual_cnn, saved
from click.testing import CliRunner
from PIL import Image

from graftonnx.cli import exit_codes, graftonnx, usage
from graftonnx.cli.group import COMMANDS
from graftonnx.cli.usage import EXAMPLES

COLOUR = re.compile(r"\x1b\[[0-9;]*(?:3[0-8]|9[0-7])[0-9;]*m")
PROGRAM = [sys.executable, "-m", "graftonnx"]


def in_terminal(*arguments: str, **environment: str) -> tuple[int, str]:
    """Run graftonnx in a terminal of its own; return the exit code and everything it prints."""
    ours, its = pty.openpty()
    base = {k: v for k, v in os.environ.items() if k not in ("NO_COLOR", "FORCE_COLOR", "TERM")}
    process = subprocess.Popen(
        [*PROGRAM, *arguments],
        stdin=its,
        stdout=its,
        stderr=its,
        env={**base, "TERM": "xterm", **environment},
    )
    os.close(its)
    printed = b""
    try:
        while piece := os.read(ours, 4096):
            printed += piece
    except OSError:  # how Linux says that the other end is closed
        pass
    os.close(ours)
    return process.wait(), printed.decode().replace("\r\n", "\n")


def needing_arguments() -> list[str]:
    return [name for name in COMMANDS if name not in ("doctor", "zoo")]


def test_fuse_alone_explains_itself_in_a_terminal() -> None:
    code, printed = in_terminal("fuse")
    assert code == 2
    assert printed == (
        "graftonnx fuse: Join networks A, B, ... into one trainable ONNX file.\n\n"
        "Usage: graftonnx fuse [OPTIONS] A [B ...]\n"
        "Example: graftonnx fuse a.onnx b.onnx -o fused.onnx --classes 10\n\n"
        "Try 'graftonnx fuse --help' for all options.\n"
    ).replace("graftonnx fuse", "python -m graftonnx fuse").replace("Example: python -m", "Example:")


@pytest.mark.parametrize("name", [*needing_arguments(), "zoo export"])
def test_every_command_alone_explains_itself_in_a_terminal(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(usage, "_watched", lambda: True)
    result = CliRunner().invoke(graftonnx, name.split())
    assert (result.exit_code, result.stdout) == (2, "")
    assert f"Example: {EXAMPLES[name.split()[0]]}\n" in result.stderr
    assert "Error" not in result.stderr


@pytest.mark.parametrize("name", needing_arguments())
def test_in_a_pipe_it_is_the_plain_usage_error(name: str) -> None:
    result = CliRunner().invoke(graftonnx, [name])
    assert (result.exit_code, result.stdout) == (2, "")
    assert "\nError: Missing " in result.stderr


@pytest.mark.parametrize("example", [line for line in EXAMPLES.values() if line.startswith("graftonnx ")])
def test_examples_are_taken_by_their_commands(example: str) -> None:
    _, name, *arguments = example.split()
    command = graftonnx.get_command(click.Context(graftonnx), name)
    assert command is not None
    if isinstance(command, click.Group):
        command = command.commands[arguments.pop(0)]
    command.make_context(name, arguments)


def test_no_color_and_dumb_terminals_are_honoured() -> None:
    assert COLOUR.search(in_terminal("train", "--help")[1])
    assert not COLOUR.search(in_terminal("train", "--help", NO_COLOR="1")[1])
    assert "\x1b" not in in_terminal("train", "--help", TERM="dumb")[1]


@pytest.fixture
def parents(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saved(residual_cnn(depth=3), tmp_path / "a.onnx")
    saved(plain_cnn((8, 16, 32), seed=1), tmp_path / "b.onnx")
    monkeypatch.chdir(tmp_path)


@pytest.mark.usefixtures("parents")
@pytest.mark.parametrize("options", [[], ["--json"]])
def test_a_reader_that_leaves_ends_the_command_without_a_word(options: list[str]) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [*PROGRAM, "match", "a.onnx", "b.onnx", *options], stdout=writing, stderr=subprocess.PIPE, text=True
    )
    os.close(writing)
    assert (done.returncode, done.stderr) == (exit_codes.BROKEN_PIPE, "")


def without(stream: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run graftonnx with a stream as a shell redirects it: `>&-` closes stdout."""
    script = f'exec "$@" {stream}'
    return subprocess.run(["sh", "-c", script, "sh", *PROGRAM, *arguments], capture_output=True, text=True)


@pytest.mark.usefixtures("parents")
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
@pytest.mark.parametrize(
    "line",
    ["inspect a.onnx", "match a.onnx b.onnx --json", "zoo list --json", "schema eval", "completion bash"],
)
def test_a_full_disk_behind_stdout_is_a_sentence(line: str) -> None:
    done = without("> /dev/full", *line.split())
    assert (done.returncode, done.stderr) == (
        1,
        "Error: cannot print the result: No space left on device.\n",
    )


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
@pytest.mark.parametrize("line", ["--help", "--version", "fuse --help", "zoo list --help"])
def test_a_full_disk_behind_a_help_page_is_a_sentence(line: str) -> None:
    done = without("> /dev/full", *line.split())
    assert (done.returncode, done.stderr) == (1, "Error: cannot go on: No space left on device.\n")


@pytest.mark.usefixtures("parents")
@pytest.mark.parametrize("options", ["", "--format csv", "--format jsonl", "--json"])
def test_stdout_that_is_closed_is_a_sentence(options: str) -> None:
    Image.new("RGB", (32, 32)).save("x.png")
    done = without(">&-", "predict", "a.onnx", "x.png", "--preprocess", "unit", *options.split())
    assert (done.returncode, done.stderr.splitlines()[-1]) == (
        1,
        "Error: cannot print the result: standard output is closed. Send it to a file or a pipe.",
    )


@pytest.mark.usefixtures("parents")
def test_stdin_that_is_closed_is_a_sentence() -> None:
    done = without("<&-", "predict", "a.onnx", "-", "--preprocess", "unit")
    assert (done.returncode, done.stderr) == (
        1,
        "Error: cannot read names from standard input: it is closed. Give it a file or a pipe.\n",
    )


@pytest.mark.usefixtures("parents")
def test_without_stderr_a_result_is_printed_as_always() -> None:
    done = without("2>&-", "inspect", "a.onnx", "--json")
    assert (done.returncode, json.loads(done.stdout)["name"]) == (0, "a.onnx")
    assert without("2>&-", "fuse").returncode == exit_codes.USAGE


@pytest.mark.usefixtures("parents")
def test_a_file_does_not_take_the_place_of_a_stream_that_is_closed() -> None:
    code = (
        "import os, sys; from graftonnx import cli; cli.graftonnx = lambda: None;"
        "cli.sys.exit = lambda code: os.fdopen(os.open('x', os.O_CREAT | os.O_WRONLY), 'w').write("
        "str(os.open('y', os.O_CREAT)));"
        "cli.main()"
    )
    subprocess.run(["sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh", sys.executable, "-c", code], check=False)
    assert Path("x").read_text() > "3"


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (PermissionError(13, "Permission denied", "x\n.onnx"), "cannot go on: 'x .onnx': Permission denied."),
        (OSError(5, "Input/output error"), "cannot go on: Input/output error."),
        (OSError("it hangs."), "cannot go on: it hangs."),
        (TimeoutError(), "cannot go on: TimeoutError."),
    ],
)
def test_what_the_system_refuses_is_a_sentence_wherever_it_happens(
    error: OSError, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise error

    monkeypatch.setattr("graftonnx.model.load", refuse)
    result = CliRunner().invoke(graftonnx, ["inspect", "a.onnx"])
    assert (result.exit_code, result.stderr) == (1, f"Error: {message}\n")
    assert CliRunner().invoke(graftonnx, ["--debug", "inspect", "a.onnx"]).exception is error


def test_an_error_of_ours_in_the_program_is_shown_as_one(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: object, **kwargs: object) -> None:
        raise LookupError("x")

    monkeypatch.setattr("graftonnx.model.load", fail)
    assert isinstance(CliRunner().invoke(graftonnx, ["inspect", "a.onnx"]).exception, LookupError)


def test_ctrl_c_before_the_first_checkpoint_says_that_nothing_was_saved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*args: object, **kwargs: object) -> None:
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr("graftonnx.training.trainer.train", interrupt)
    arguments = ["train", "fused.onnx", "--data", "images", "-o", str(tmp_path / "run")]
    result = CliRunner().invoke(graftonnx, arguments)
    assert (result.exit_code, result.stderr) == (130, "Interrupted; nothing was saved yet.\n")


@pytest.mark.usefixtures("parents")
def test_ctrl_c_is_a_word_and_130(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*args: object, **kwargs: object) -> None:
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr("graftonnx.model.load", interrupt)
    result = CliRunner().invoke(graftonnx, ["match", "a.onnx", "b.onnx", "-o", "plan.yaml"])
    assert (result.exit_code, result.stdout, result.stderr) == (130, "", "Interrupted.\n")
    assert not Path("plan.yaml").exists()


@pytest.mark.usefixtures("parents")
@pytest.mark.parametrize(
    ("code", "line"),
    [
        (0, "match a.onnx b.onnx"),
        (1, "match a.onnx missing.onnx"),
        (2, "match a.onnx"),
        (3, "predict a.onnx a.onnx --preprocess unit"),
    ],
)
def test_exit_codes_as_documented(code: int, line: str) -> None:
    result = CliRunner().invoke(graftonnx, line.split())
    assert result.exit_code == code, result.output
    assert f"\n| {code} |" in (exit_codes.__doc__ or "")
