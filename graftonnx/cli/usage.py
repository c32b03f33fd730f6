"""What a command says that was called without arguments: how it goes, with one example."""

from __future__ import annotations

import sys
from typing import NoReturn

import click

from graftonnx.cli import console
from graftonnx.cli.exit_codes import USAGE

EXAMPLES = {
    "inspect": "graftonnx inspect squeezenet.onnx",
    "check": "graftonnx check squeezenet.onnx",
    "view": "graftonnx view fused.onnx",
    "match": "graftonnx match a.onnx b.onnx -o plan.yaml",
    "fuse": "graftonnx fuse a.onnx b.onnx -o fused.onnx --classes 10",
    "train": "graftonnx train fused.onnx --data photos -o run",
    "report": "graftonnx report run",
    "compare": "graftonnx compare fused.onnx --data photos -o compared",
    "export": "graftonnx export run -o deploy.onnx",
    "bundle": "graftonnx bundle run -o bundle",
    "verify": "graftonnx verify bundle",
    "eval": "graftonnx eval run --data photos",
    "predict": "graftonnx predict deploy.onnx photo.jpg more",
    "bench": "graftonnx bench fused.onnx --against a.onnx b.onnx",
    "zoo": "graftonnx zoo export squeezenet1_1 -o squeezenet.onnx",
    "completion": 'eval "$(graftonnx completion bash)"',
    "schema": "graftonnx schema predict",
}
"""A call of every command that needs arguments."""


def with_example(name: str, command: click.Command) -> click.Command:
    """Return the command with an example at the end of its help."""
    if name in EXAMPLES:
        command.epilog = f"Example: {EXAMPLES[name]}"
        if isinstance(command, click.Group):
            for inner in command.commands.values():
                if EXAMPLES[name].startswith(f"graftonnx {name} {inner.name} "):
                    inner.epilog = command.epilog
    return command


def explain(error: click.UsageError, args: list[str]) -> None:
    """Explain a command to a person who typed its name alone, and end the program; else amend the error.

    Args:
        error: What the command missed, or could not take.
        args: All that was typed behind `graftonnx`.
    """
    context = error.ctx
    vars(error).update(message=error.message + _repetition(error, args))  # click has it typed as final
    if context is None or context.parent is None or not _watched():
        return
    if _path(context) == args:
        _end(context)


def _repetition(error: click.UsageError, args: list[str]) -> str:
    """Return how to give an option several values, to one who wrote them behind one name; else nothing."""
    if error.ctx is None or not error.message.startswith("Got unexpected extra argument"):
        return ""
    for option in error.ctx.command.params:
        if not (
            isinstance(option, click.Option) and option.multiple and isinstance(option.type, click.Choice)
        ):
            continue
        for name, first, second in zip(args, args[1:], args[2:], strict=False):
            if name in option.opts and {first, second} <= set(option.type.choices):
                return f". Repeat the option: {name} {first} {name} {second}."
    return ""


def _watched() -> bool:
    """Return whether a person reads what is printed to stderr."""
    return sys.stderr is not None and sys.stderr.isatty()


def _path(context: click.Context | None) -> list[str]:
    """Return the names of a command and the groups that it is in."""
    if context is None or context.parent is None:
        return []
    return [*_path(context.parent), context.info_name or ""]


def _end(context: click.Context) -> NoReturn:
    command = context.command
    console.warn(f"{context.command_path}: {command.get_short_help_str(limit=200)}\n")
    pieces = " ".join(command.collect_usage_pieces(context))
    console.warn(f"Usage: {context.command_path} {pieces}")
    if command.epilog:
        console.warn(command.epilog)
    console.warn(f"\nTry '{context.command_path} --help' for all options.")
    sys.exit(USAGE)
