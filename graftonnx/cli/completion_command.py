"""`graftonnx completion`: let a shell complete commands, options, choices and files."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from graftonnx.cli import console
from graftonnx.cli.parameters import Choice

PROGRAM = "graftonnx"
VARIABLE = "_GRAFTONNX_COMPLETE"
"""By which the script asks the program; click derives the same name from the program's."""


@click.command()
@click.argument("shell", type=Choice(["bash", "zsh", "fish"]))
@click.pass_context
def command(ctx: click.Context, shell: str) -> None:
    """Print the script that lets a shell complete commands, options, choices and files.

    \b
    bash, in ~/.bashrc:  eval "$(graftonnx completion bash)"
    zsh, in ~/.zshrc:    eval "$(graftonnx completion zsh)"
    fish:                graftonnx completion fish > ~/.config/fish/completions/graftonnx.fish
    """  # noqa: D301 # click reads \b as: leave these lines as they are
    kind = get_completion_class(shell)
    assert kind is not None
    console.say(kind(ctx.find_root().command, {}, PROGRAM, VARIABLE).source().rstrip())
