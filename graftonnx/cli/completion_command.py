"""`graftonnx completion`: let a shell complete commands, options, choices and files."""

from __future__ import annotations

import click

from graftonnx.cli import console
from graftonnx.cli.completion_scripts import SCRIPTS
from graftonnx.cli.parameters import Choice


@click.command()
@click.argument("shell", type=Choice(list(SCRIPTS)))
def command(shell: str) -> None:
    """Print the script that lets a shell complete commands, options, choices and files.

    \b
    bash, in ~/.bashrc:  eval "$(graftonnx completion bash)"
    zsh, in ~/.zshrc:    eval "$(graftonnx completion zsh)"
    fish:                graftonnx completion fish > ~/.config/fish/completions/graftonnx.fish
    """  # noqa: D301 # click reads \b as: leave these lines as they are
    console.say(SCRIPTS[shell].rstrip())
