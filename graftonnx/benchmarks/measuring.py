"""Measure networks in turns, and what they need in processes of their own."""

from __future__ import annotations

import contextlib
import functools
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from graftonnx.benchmarks import memory
from graftonnx.benchmarks.card import Card, find_card
from graftonnx.benchmarks.contenders import Arrays, Contender, Io, Running, Step, line_up, open_all, step
from graftonnx.benchmarks.inputs import image_layout, picture_inputs, pictures, random_inputs, shapes
from graftonnx.benchmarks.record import Benchmark, Figures, Ratio
from graftonnx.benchmarks.timing import Times, interleave
from graftonnx.classifier import model_file
from graftonnx.errors import ModelError
from graftonnx.images import Pixels
from graftonnx.machine import cores
from graftonnx.providers import Provider
from graftonnx.providers.nvidia import installed
from graftonnx.providers.settings import Settings
from graftonnx.runtime import Session, version

ENOUGH_FOR_P99 = 100
"""Runs below which the slowest of a hundred cannot be told."""


def benchmark(
    files: Sequence[str | Path],
    *,
    against: Sequence[str | Path] = (),
    batches: Sequence[int] = (1, 8, 32),
    provider: Provider = "auto",
    settings: Settings | None = None,
    threads: int = 0,
    streams: int = 1,
    io: Io = "arrays",
    warm_up: int = 10,
    rounds: int = 200,
    seconds: float = 20.0,
    data: str | Path | None = None,
    input_size: tuple[int, ...] = (),
    measure_memory: bool = True,
    on_round: Callable[[], object] = lambda: None,
) -> Benchmark:
    """Measure networks in ONNX Runtime, all in turns in one run.

    Args:
        files: ONNX files or run folders.
        against: Networks that the files are compared with; several are run one after the other, and at once
            in threads, as two models in one program would be.
        batches: Batch sizes.
        provider: As in :func:`graftonnx.runtime.open_session`.
        settings: How the provider runs them.
        threads: CPU threads within an operator; 0 lets ONNX Runtime choose.
        streams: Runs of the same contender at the same time.
        io: How inputs and outputs are handed over.
        warm_up: Rounds that are not counted, for each batch size.
        rounds: Rounds that are, at most.
        seconds: Time for each batch size, after which no other round begins.
        data: Labelled images to feed; by default random numbers.
        input_size: Dynamic extents of the inputs, other than the batch: height and width.
        measure_memory: Whether each contender also runs in a process of its own.
        on_round: Called after each round.

    Raises:
        ModelError: If a file cannot be read or run so.
        RuntimeProviderError: If the provider cannot be used here.
        DataError: If the data cannot be read.
    """
    sizes = tuple(sorted(set(batches)))
    if not files or not sizes or min(sizes) < 1 or streams < 1:
        raise ValueError("expected at least one file, one batch size of 1 or more, and one stream")
    if streams > 1 and settings is not None and settings.cuda_graph:
        raise ValueError("a session with CUDA graphs runs in one thread only; expected one stream")
    running = Running(
        provider=provider,
        settings=replace(settings or Settings(), batches=sizes),
        threads=threads,
        cores=cores(),
        io=io,
    )
    contenders = line_up(*([model_file(file) for file in group] for group in (files, against)))
    sessions = {contender.name: open_all(contender, running) for contender in contenders}
    first = sessions[contenders[0].name][0]
    running = replace(running, provider=first.provider)
    card = find_card(first.provider, first.provider_options)
    images = _images(data, sessions, sizes, input_size) if data is not None else None
    figures: list[Figures] = []
    ratios: list[Ratio] = []
    timed = functools.partial(interleave, warm_up=warm_up, rounds=rounds, seconds=seconds, on_round=on_round)
    for batch in sizes:
        feeds = {
            name: [_feed(session, batch, input_size, images) for session in opened]
            for name, opened in sessions.items()
        }
        times, joules = _turns(contenders, sessions, feeds, io, streams, card, timed)
        figures.extend(_figures(name, batch, found, joules[name]) for name, found in times.items())
        ratios.extend(_ratios(times, contenders, bool(against), batch, len(files)))
    if measure_memory:
        figures = _with_memory(figures, contenders, running, sizes, input_size)
    return Benchmark(
        contenders={contender.name: tuple(map(str, contender.files)) for contender in contenders},
        coverage={
            name: tuple(str(session.coverage) for session in opened) for name, opened in sessions.items()
        },
        provider=first.provider,
        fallback=first.fallback,
        options=first.provider_options,
        threads=threads,
        streams=streams,
        io=io,
        rounds=rounds,
        warm_up=warm_up,
        data=None if data is None else str(data),
        cores=running.cores,
        versions={"graftonnx": installed("graftonnx") or "unknown", "onnxruntime": version()},
        figures=tuple(figures),
        ratios=tuple(ratios),
    )


def _turns(
    contenders: Sequence[Contender],
    sessions: Mapping[str, list[Session]],
    feeds: Mapping[str, list[Arrays]],
    io: Io,
    streams: int,
    card: Card | None,
    timed: Callable[[Mapping[str, Sequence[Step]]], dict[str, Times]],
) -> tuple[dict[str, Times], dict[str, float | None]]:
    """Return what the contenders took in turns, and the joules of a run of each."""
    with contextlib.ExitStack() as stack:
        steps = {
            each.name: [step(each, sessions[each.name], feeds[each.name], io, stack) for _ in range(streams)]
            for each in contenders
        }
        times = timed(steps)
        return times, {name: card.energy(run) if card else None for name, (run, *_) in steps.items()}


def _images(
    data: str | Path, sessions: dict[str, list[Session]], batches: Sequence[int], input_size: tuple[int, ...]
) -> Pixels:
    """Return images enough for the largest batch, as large as the largest input."""
    layouts = [
        layout
        for opened in sessions.values()
        for session in opened
        for shape in shapes(session, batches[0], input_size)
        if (layout := image_layout(shape)) is not None
    ]
    if not layouts:
        name = next(iter(sessions))
        raise ModelError(f"cannot feed images to '{name}': it takes none. Leave --data out.")
    return pictures(data, max(batches), (max(h for _, h, _ in layouts), max(w for _, _, w in layouts)))


def _feed(session: Session, batch: int, input_size: tuple[int, ...], images: Pixels | None) -> Arrays:
    wanted = shapes(session, batch, input_size)
    return random_inputs(session, wanted) if images is None else picture_inputs(session, wanted, images)


def _figures(name: str, batch: int, times: Times, joules: float | None) -> Figures:
    return Figures(
        contender=name,
        batch=batch,
        runs=times.runs,
        p50=times.percentile(50),
        p90=times.percentile(90),
        p99=times.percentile(99) if times.runs >= ENOUGH_FOR_P99 else None,
        mean=statistics.fmean(times.latencies),
        images_per_second=batch * times.runs / sum(times.turns),
        cpu_seconds=times.cpu_of_a_run,
        joules=None if joules is None else joules / batch,
    )


def _ratios(
    times: dict[str, Times], contenders: Sequence[Contender], has_rivals: bool, batch: int, files: int
) -> list[Ratio]:
    """Return each file against each rival; without rivals each other file against the first."""
    names = [contender.name for contender in contenders]
    rivals, ours = (names[files:], names[:files]) if has_rivals else (names[:1], names[1:])
    return [_ratio(times, name, rival, batch) for name in ours for rival in rivals]


def _ratio(times: dict[str, Times], name: str, rival: str, batch: int) -> Ratio:
    ours, theirs = times[name], times[rival]
    rounds = [a / b for a, b in zip(ours.turns, theirs.turns, strict=True)]
    low, median, high = statistics.quantiles(rounds, n=4) if len(rounds) > 1 else rounds * 3
    cpu = statistics.median(a / b for a, b in zip(ours.cpu, theirs.cpu, strict=True) if b)
    return Ratio(contender=name, rival=rival, batch=batch, median=median, low=low, high=high, cpu=cpu)


def _with_memory(
    figures: Sequence[Figures],
    contenders: Sequence[Contender],
    running: Running,
    batches: tuple[int, ...],
    input_size: tuple[int, ...],
) -> list[Figures]:
    """Return the figures with what each contender needs in a process of its own."""
    answers = {each.name: memory.measure(each, running, batches, input_size) for each in contenders}
    return [
        found.model_copy(
            update={
                "memory": answers[found.contender].peaks[batches.index(found.batch)],
                "memory_before": answers[found.contender].before,
                "device_memory": answers[found.contender].device[batches.index(found.batch)],
            }
        )
        for found in figures
    ]
