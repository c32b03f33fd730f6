"""`graftonnx train`: fine-tune a fused network on labelled images."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from graftonnx.cli import console
from graftonnx.cli.exit_codes import INTERRUPTED
from graftonnx.cli.help import grouped
from graftonnx.cli.parameters import DATA_HELP, IntRange, any_file, json_option, quiet_option
from graftonnx.cli.training_options import config_of, panels, training_options

if TYPE_CHECKING:
    from graftonnx.training.config import TrainConfig, TrainResult

WITH_RESUME = {"resume_from", "data", "logger", "devices", "nodes", "quiet", "as_json"}
"""Parameters that may stand beside --resume; all others come from the run."""

FEW = 8
"""Processes that a resumed run starts on any machine, as many as it began with."""


RUN_PANEL = [
    "--data",
    "--output",
    "--resume",
    "--force",
    "--compare",
    "--seeds",
    "--json",
    "--quiet",
    "--help",
]


@grouped({"Run": RUN_PANEL, **panels()})
@click.argument("source", required=False, type=click.Path(path_type=Path), metavar="FUSED.onnx")
@click.option("--data", metavar="DATA", shell_complete=any_file, help=DATA_HELP)
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Run folder to make.")
@click.option(
    "--resume",
    "resume_from",
    type=click.Path(path_type=Path),
    metavar="RUN",
    help="Go on with an interrupted run.",
)
@click.option("--force", is_flag=True, help="Replace the run in the output folder.")
@click.option("--compare", is_flag=True, help="Train its parts alike as well, as `graftonnx compare`.")
@click.option("--seeds", type=IntRange(min=1), metavar="N", help="Runs of each with --compare.  [3]")
@training_options
@json_option
@quiet_option
@click.pass_context
def command(
    ctx: click.Context,
    /,
    source: Path | None,
    data: str | None,
    output: Path | None,
    resume_from: Path | None,
    force: bool,
    compare: bool,
    seeds: int | None,
    as_json: bool,
    **settings: Any,
) -> None:
    """Fine-tune a fused network on labelled images.

    The run folder gets model.onnx (the best epoch, confirmed by ONNX Runtime), report.html with everything
    to look at, its tables and pictures, config.yaml, split.json, data.json (images of each class, bad images,
    leaks), tensorboard/ and checkpoints/.
    """
    if resume_from is not None:
        _check_alone(ctx)
    elif source is None or data is None or output is None:
        missing = [
            name
            for name, value in (("FUSED.onnx", source), ("--data", data), ("-o", output))
            if value is None
        ]
        raise click.UsageError(f"Missing {', '.join(missing)}. Give them, or --resume RUN.")
    elif compare:
        from graftonnx.cli.compare_command import run

        run(source, data, output, config_of(settings), seeds=seeds or 3, force=force, as_json=as_json)
        return
    if seeds is not None:
        raise click.UsageError("--seeds is for --compare; a run has one --seed.")
    config = config_of(settings)
    _launch_others(resume_from, output, config, settings)
    from graftonnx.training import Interrupted, resume, train
    from graftonnx.training.memory import keep_freed_pages
    from graftonnx.training.run import RunFolder
    from graftonnx.training.world import leads, one_voice

    keep_freed_pages()
    progress = not console.is_quiet()
    try:
        with one_voice():
            if resume_from is not None:
                result = resume(
                    resume_from,
                    data=data,
                    logger=settings["logger"],
                    progress=progress,
                    note=console.note,
                )
            else:
                assert source is not None
                assert data is not None
                assert output is not None
                result = train(
                    source, data, output, config, force=force, progress=progress, note=console.note
                )
    except Interrupted as stop:
        console.warn(f"Interrupted in epoch {stop.epoch}; everything is saved. Go on with:")
        console.warn(f"  graftonnx train {RunFolder(stop.run).resuming}")
        sys.exit(128 + stop.signal)
    except KeyboardInterrupt:
        folder = output if resume_from is None else resume_from
        if folder is None or RunFolder(folder).last.exists():
            raise
        console.warn("Interrupted; nothing was saved yet.")
        sys.exit(INTERRUPTED)
    if not leads():
        return
    if as_json:
        console.print_json(result)
    else:
        _print(result)


def _launch_others(
    resumed: Path | None, output: Path | None, config: TrainConfig, settings: dict[str, Any]
) -> None:
    """Where several processes are to train, start them, and exit when they have ended.

    A resumed run takes as many as it began with, unless told otherwise.
    """
    if "TORCHELASTIC_RUN_ID" in os.environ:  # this is one of them
        return
    if resumed is not None:
        from graftonnx.training.run import RunFolder

        given = {name: settings[name] for name in ("devices", "nodes") if settings[name] is not None}
        config = RunFolder(resumed).read().config.model_copy(update=given)
        _check_devices(config.devices, given)
    if (config.devices, config.nodes) == (1, 1):
        return
    from graftonnx.training.launching import launch
    from graftonnx.training.world import World

    World(size=config.devices * config.nodes).check_batch(config.batch_size, is_resumed=resumed is not None)
    run = resumed or output
    assert run is not None
    sys.exit(launch(sys.argv[1:], config.devices, config.nodes, run))


def _check_devices(devices: int, given: dict[str, Any]) -> None:
    """Refuse to start far more processes than there are cores because a run's record says so."""
    cores = os.cpu_count() or 1
    if "devices" not in given and devices > max(cores, FEW):
        raise click.UsageError(
            f"the run took {devices} processes on each node, and this machine has {cores} cores. "
            "Say how many with --devices."
        )


def _check_alone(ctx: click.Context) -> None:
    """Refuse parameters that a resumed run has already."""
    for parameter in ctx.command.params:
        given = ctx.get_parameter_source(parameter.name or "") is ParameterSource.COMMANDLINE
        if given and parameter.name not in WITH_RESUME:
            name = parameter.opts[0] if isinstance(parameter, click.Option) else "FUSED.onnx"
            raise click.UsageError(f"{name} cannot be given with --resume: a resumed run keeps its settings.")


def _print(result: TrainResult) -> None:
    """Print the result as a table of names and values."""
    from rich.table import Table

    table = Table(box=None, show_header=False, pad_edge=False)
    for name, value in result.summary():
        table.add_row(name, value)
    console.print_table(table)
