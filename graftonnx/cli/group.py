"""The group of commands: loads a command's module when it is called, and turns errors into sentences."""

from __future__ import annotations

import importlib
import os
import re
import sys
import warnings
from typing import TYPE_CHECKING, Any, NoReturn

import click

from graftonnx.cli import console
from graftonnx.cli.ending import Ended
from graftonnx.cli.exit_codes import INTERRUPTED
from graftonnx.cli.usage import explain, with_example
from graftonnx.errors import GraftError
from graftonnx.printable import printable
from graftonnx.spelling import did_you_mean

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

COMMANDS = {
    "inspect": "Show what is in a network: input, output, cost and taps.",
    "check": "Compare a network in PyTorch with ONNX Runtime, or with another file.",
    "view": "Draw a network, a plan, a fused file or a run.",
    "match": "Plan the exchanges between networks.",
    "fuse": "Join networks into one trainable ONNX file.",
    "train": "Fine-tune a fused network on labelled images.",
    "report": "Write the page about a training run anew.",
    "compare": "Fine-tune a fused network and its parts alike: did fusion help?",
    "export": "Write the deployable file of a trained network.",
    "bundle": "Make a folder with all that it takes to run a network elsewhere.",
    "verify": "Check a bundle: every file, every network.",
    "eval": "Measure the accuracy of a network on labelled images.",
    "predict": "Classify images.",
    "bench": "Measure latency, throughput, memory and energy of networks.",
    "doctor": "Say what works on this machine, what does not, and why.",
    "zoo": "List and export the networks of the paper.",
    "completion": "Let a shell complete commands, options and files.",
    "schema": "Say what a command's --json holds.",
}
"""Every command with its summary; `graftonnx.cli.<name>_command` holds it."""


LONGEST = 4_000
"""Characters of an error message; names in files may be longer."""

_NO_MEMORY = re.compile(
    "cannot allocate memory|failed to map segment|bad_alloc|bad allocation", re.IGNORECASE
)
"""What libraries say who do not raise MemoryError."""

TYPED = "graftonnx.typed"
"""Where a click context remembers all that was typed."""


class LazyGroup(click.Group):
    """A click group whose commands are imported only when they are called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names in the order of a user's work."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import `graftonnx.cli.<name>_command` and return its `command`."""
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"graftonnx.cli.{cmd_name}_command")
        command = module.command
        assert isinstance(command, click.Command)
        return with_example(cmd_name, command)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command; an unknown one is answered with the nearest names."""
        name = args[0]
        if name not in COMMANDS:
            ctx.fail(f"No such command '{name}'.{did_you_mean(name, COMMANDS)}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the summaries without importing a single command."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Complete the name of a command without importing a single one."""
        from click.shell_completion import CompletionItem

        names = [name for name in COMMANDS if name.startswith(incomplete)]
        items = [CompletionItem(name, help=COMMANDS[name]) for name in names]
        return [*items, *click.Command.shell_complete(self, ctx, incomplete)]

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Remember what was typed; print the help if that is asked for."""
        ctx.meta[TYPED] = list(args)
        try:
            return super().parse_args(ctx, args)
        except BrokenPipeError:
            raise
        except OSError as error:
            fail(_spelled(error))

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; an error of ours, or of the system, becomes a sentence on stderr, exit code 1."""
        try:
            return super().invoke(ctx)
        except click.ClickException as error:
            vars(error).update(message=printable(error.message))  # click has it typed as final
            if isinstance(error, click.UsageError):
                explain(error, ctx.meta[TYPED])
            raise
        except KeyboardInterrupt:
            console.warn("Interrupted.")
            sys.exit(INTERRUPTED)
        except Ended as end:
            console.warn(f"Ended by {end.signal.name}.")
            raise
        except GraftError as error:
            if ctx.params.get("debug"):
                raise
            fail(error.message)
        except (MemoryError, ImportError, OSError, RuntimeError) as error:
            if ctx.params.get("debug") or isinstance(error, BrokenPipeError):
                raise
            if _is_memory(error):
                fail(
                    "memory ran out. Free some, or raise the limit of this process; nothing is half-written."
                )
            if not isinstance(error, OSError):
                raise
            fail(_spelled(error))


def _is_memory(error: Exception) -> bool:
    """Return whether an error says that there is no more memory, for numbers or for libraries."""
    return isinstance(error, MemoryError) or _NO_MEMORY.search(str(error)) is not None


def _spelled(error: OSError) -> str:
    """Return what the system refuses, and where; stdout is rid of what it did not take."""
    console.settle()
    if error.filename is None and isinstance(error, FileNotFoundError) and not _is_somewhere():
        return "cannot go on: the current folder does not exist any more. Go to another."
    where = "" if error.filename is None else f"'{error.filename}': "
    return f"cannot go on: {where}{error.strerror or str(error) or type(error).__name__}".rstrip(".")


def _is_somewhere() -> bool:
    """Return whether the current folder still exists."""
    try:
        os.getcwd()
    except OSError:
        return False
    return True


def fail(message: str) -> NoReturn:
    """Print `Error: <message>` to stderr, in one line of bearable length, and exit with code 1."""
    text = printable(" ".join(message.split()))
    is_command = ": graftonnx " in text.rpartition(". ")[2]  # to be copied as it is
    if not is_command and not text.endswith((".", "?", "!", ")")):  # reasons that come from libraries
        text += "."
    if len(text) > LONGEST:
        text = f"{text[: LONGEST // 2]} [...] {text[-LONGEST // 2 :]}"
    raise click.ClickException(text)


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="graftonnx")
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
def graftonnx(debug: bool) -> None:
    """Fuse pretrained ONNX networks, fine-tune them as one, deploy one ONNX file."""
    # Pillow warns of tags that it skips in images that it reads all the same.
    warnings.filterwarnings("ignore", module=r"PIL\.")
