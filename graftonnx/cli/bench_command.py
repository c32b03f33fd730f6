"""`graftonnx bench`: how fast networks are in ONNX Runtime, and what they need."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from graftonnx.cli import console
from graftonnx.cli.inference_options import provider_options
from graftonnx.cli.parameters import (
    DATA_HELP,
    MOST_THREADS,
    Choice,
    FloatRange,
    ImageSize,
    IntRange,
    any_file,
    force_option,
    json_option,
    number_from_one,
    quiet_option,
)
from graftonnx.cli.progress import progress

if TYPE_CHECKING:
    from graftonnx.benchmarks import Benchmark
    from graftonnx.benchmarks.contenders import Io
    from graftonnx.benchmarks.record import Figures
    from graftonnx.providers import Provider
    from graftonnx.providers.settings import Settings

AGAINST = "--against"


class BatchSizes(click.ParamType[tuple[int, ...]]):
    """`1,8,32`."""

    name = "N,N,..."

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, ...]:
        """Return the numbers."""
        if isinstance(value, tuple):
            return value
        parts = str(value).split(",")
        sizes = tuple(size for part in parts if (size := number_from_one(part)) is not None)
        if len(sizes) < len(parts):
            self.fail(f"{value!r} is no list of batch sizes; give numbers from 1 on, as 1,8,32.", param, ctx)
        return sizes


class AgainstCommand(click.Command):
    """A command whose `--against` takes all the files up to the next option."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Repeat `--against` in front of each of its files."""
        spelled: list[str] = []
        rivals = False
        for arg in args:
            if arg.startswith("-"):
                rivals = arg.partition("=")[0] == AGAINST
            elif rivals and spelled[-1] != AGAINST:
                spelled.append(AGAINST)
            spelled.append(arg)
        return super().parse_args(ctx, spelled)


@click.command(cls=AgainstCommand)
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="RUN|FILE.onnx...")
@click.option(
    AGAINST,
    multiple=True,
    type=click.Path(path_type=Path),
    metavar="FILE...",
    help="Compare with these, all up to the next option: one after the other, and at once in threads.",
)
@click.option(
    "--batch", "batches", type=BatchSizes(), default="1,8,32", show_default=True, help="Batch sizes."
)
@click.option(
    "--threads",
    type=IntRange(0, MOST_THREADS),
    default=0,
    help="CPU threads within an operator.  [default: ONNX Runtime's choice]",
)
@click.option(
    "--streams",
    type=IntRange(1, MOST_THREADS),
    default=1,
    show_default=True,
    help="Threads that run the same network at the same time.",
)
@click.option(
    "--io",
    type=Choice(["arrays", "bound", "resident"]),
    default="arrays",
    show_default=True,
    help="arrays: handed over anew for each run; bound: copied to and from preallocated buffers on the "
    "device; resident: nothing is copied.",
)
@click.option("--cuda-graph", is_flag=True, help="Record each batch size's work once and replay it.")
@click.option("--warm-up", type=IntRange(min=0), default=10, show_default=True, help="Rounds not counted.")
@click.option("--rounds", type=IntRange(min=1), default=200, show_default=True, help="Rounds at most.")
@click.option(
    "--seconds",
    type=FloatRange(min=0),
    default=20,
    show_default=True,
    help="For each batch size; no other round begins after them.",
)
@click.option(
    "--data", metavar="DATA", shell_complete=any_file, help=f"{DATA_HELP}  [default: random numbers]"
)
@click.option("--input-size", type=ImageSize(), help="Height and width, for networks that take any.")
@click.option(
    "--memory/--no-memory", default=True, help="Run each in a process of its own for its peak memory."
)
@click.option(
    "--chart",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE.png",
    help="Draw latency, throughput and memory.",
)
@force_option
@provider_options
@json_option
@quiet_option
def command(
    files: tuple[Path, ...],
    against: tuple[Path, ...],
    batches: tuple[int, ...],
    threads: int,
    streams: int,
    io: Io,
    cuda_graph: bool,
    warm_up: int,
    rounds: int,
    seconds: float,
    data: str | None,
    input_size: tuple[int, int] | None,
    memory: bool,
    chart: Path | None,
    force: bool,
    provider: Provider,
    settings: Settings,
    as_json: bool,
) -> None:
    """Measure latency, throughput, CPU time, memory and energy of networks in ONNX Runtime.

    All networks take turns in one run. With --against, the parents of a fused network say, they are compared
    with other networks' own sessions, run one after the other and at once in threads.
    """
    if chart is not None and chart.suffix.lower() != ".png":
        raise click.UsageError(f"--chart '{chart}': it is drawn as a PNG. Give a name that ends in .png.")
    if cuda_graph and io == "arrays":
        raise click.UsageError("--cuda-graph replays work on the same buffers: give --io bound or resident.")
    if cuda_graph and streams > 1:
        raise click.UsageError(
            "--cuda-graph and --streams exclude each other: a graph belongs to one thread. Leave one out."
        )
    from dataclasses import replace

    from graftonnx.benchmarks import benchmark
    from graftonnx.files import check_writable

    if chart is not None:
        check_writable(chart, force=force)
    with progress("Measuring", len(set(batches)) * (warm_up + rounds)) as advance:
        result = benchmark(
            files,
            against=against,
            batches=batches,
            provider=provider,
            settings=replace(settings, cuda_graph=cuda_graph),
            threads=threads,
            streams=streams,
            io=io,
            warm_up=warm_up,
            rounds=rounds,
            seconds=seconds,
            data=data,
            input_size=input_size or (),
            measure_memory=memory,
            on_round=advance,
        )
    if result.fallback:
        console.note(f"Note: running on the CPU: {result.fallback}")
    if as_json:
        console.print_json(result)
    else:
        _print(result)
    if chart is not None:
        from graftonnx.benchmarks.chart import draw

        draw(chart, result)
        console.note(f"Wrote {chart}.")


def _print(result: Benchmark) -> None:
    """Print a row for each network and batch size, then the ratios."""
    from rich.table import Table

    has_energy = any(found.joules is not None for found in result.figures)
    has_device = any(found.device_memory is not None for found in result.figures)
    table = Table("network", title=_title(result), title_justify="left")
    headings = ["batch", "p50", "p90", "p99", "images/s", "CPU time", "peak memory"]
    headings += ["GPU memory"] * has_device + ["energy/image"] * has_energy
    for heading in headings:
        table.add_column(heading, justify="right", no_wrap=True)
    for name in result.contenders:
        for found in (figures for figures in result.figures if figures.contender == name):
            cells = _cells(found)
            cells += [_mebibytes(found.device_memory)] * has_device
            cells += ["-" if found.joules is None else f"{1000 * found.joules:.3g} mJ"] * has_energy
            table.add_row(name, *cells)
        table.add_section()
    console.print_table(table)
    if result.provider != "cpu":
        for name, lines in result.coverage.items():
            console.say(f"{name}: {' | '.join(lines)}")
    for ratio in result.ratios:
        console.say(
            f"batch {ratio.batch}: {ratio.contender} takes {ratio.median:.2f}x the time of {ratio.rival} "
            f"(middle half of the rounds {ratio.low:.2f}x to {ratio.high:.2f}x; CPU time {ratio.cpu:.2f}x)"
        )


def _title(result: Benchmark) -> str:
    count = f"{result.threads} thread{'s' * (result.threads > 1)}"
    threads = count if result.threads else "ONNX Runtime's choice of threads"
    streams = f", {result.streams} streams" if result.streams > 1 else ""
    tf32 = {"0": ", TF32 off", "1": ", TF32 on"}.get(result.options.get("use_tf32", ""), "")
    return f"on {result.provider}, {result.cores} cores, {threads}{streams}, {result.io}{tf32}"


def _cells(found: Figures) -> list[str]:
    p99 = "-" if found.p99 is None else _milliseconds(found.p99)
    return [
        str(found.batch),
        _milliseconds(found.p50),
        _milliseconds(found.p90),
        p99,
        f"{found.images_per_second:,.1f}",
        _milliseconds(found.cpu_seconds),
        _with_growth(found),
    ]


def _with_growth(found: Figures) -> str:
    """Return the peak, and which part of it is not Python and the libraries: `180 MiB (+81)`."""
    if found.memory is None or found.memory_before is None:
        return "-"
    return f"{_mebibytes(found.memory)} (+{(found.memory - found.memory_before) / 2**20:,.0f})"


def _milliseconds(seconds: float) -> str:
    return f"{1000 * seconds:.2f} ms"


def _mebibytes(size: int | None) -> str:
    return "-" if size is None else f"{size / 2**20:,.0f} MiB"
