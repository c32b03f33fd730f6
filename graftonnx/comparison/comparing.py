"""A comparison from the fused file to the verdict."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Literal

from graftonnx.comparison.answers import Answers, ask, average, check_test_images
from graftonnx.comparison.expenses import latencies, size
from graftonnx.comparison.judging import Table, accuracy, better_parent, contest, is_redrawn, overlap, shares
from graftonnx.comparison.markdown import markdown
from graftonnx.comparison.others import read_others
from graftonnx.comparison.record import AVERAGE, CONCATENATED, FUSED, Comparison, Request, Standing
from graftonnx.comparison.runs import Folder, Note, Runs, parts, seconds, train_all
from graftonnx.comparison.verdict import verdict
from graftonnx.data.opening import absolute, open_data
from graftonnx.errors import GraftError
from graftonnx.files import write_text
from graftonnx.training.config import TrainConfig
from graftonnx.training.source import labels_for, open_source
from graftonnx.training.world import is_launched
from graftonnx.variants import read_fused

_log = logging.getLogger(__name__)


def compare(
    source: str | Path,
    data: str | Path,
    output: str | Path,
    config: TrainConfig | None = None,
    *,
    others: Sequence[str | Path] = (),
    seeds: int = 3,
    force: bool = False,
    progress: bool = False,
    note: Note = _log.info,
) -> Comparison:
    """Fine-tune a fused network and its parts alike, and test whether fusing helped.

    Called again after an interruption, it goes on: finished runs are reused, others resumed. More seeds and
    more `others` may be asked for then.

    Args:
        source: What :func:`graftonnx.fuse` wrote, or the `model.onnx` of a run.
        data: As in :func:`graftonnx.train`.
        output: The folder for the runs, `compare.json` and `compare.md`.
        config: The settings of every run; its seed is the first one.
        others: The same parents fused in other ways: files with the same head. They are trained likewise, and
            go by their names.
        seeds: Number of runs of each network.
        force: Whether a comparison that is in `output` may be replaced.
        progress: As in :func:`graftonnx.train`.
        note: Likewise.

    Returns:
        The comparison, as in `compare.json`.

    Raises:
        ModelError: If the fused network cannot be taken apart; see :func:`graftonnx.variants.read_fused`; or
            `others` have other parents, another head, or no names of their own.
        DataError: If the images cannot be used.
        GraftError: If `output` cannot be written or holds other runs, several processes are to train, or
            training diverges.
        Interrupted: On SIGINT or SIGTERM, after everything has been saved.
    """
    if seeds < 1:
        raise ValueError(f"seeds (={seeds}) must be at least 1")
    config, source = config or TrainConfig(), Path(source)
    if is_launched() or (config.devices, config.nodes) != (1, 1):
        raise GraftError(
            f"cannot compare '{source}' in several processes: its runs train in one. Leave out torchrun, "
            "devices and nodes."
        )
    fused, images = read_fused(source), open_data(data)
    labels_for(open_source(source), images.classes, images.where)
    if config.on_bad_image == "error":
        check_test_images(images, workers=config.workers)
    further = read_others([Path(other) for other in others], fused, source)
    request = Request(
        source=source.resolve(),
        source_sha256=fused.sha256,
        data=absolute(images.where),
        config=config,
        others=tuple(other for other, _ in further),
    )
    files = {FUSED: fused, **{other.name: network for other, network in further}}
    numbers = range(config.seed, config.seed + seeds)
    folder = Folder(Path(output))
    with folder.opened(request, force=force):
        runs = train_all(folder, request, files, numbers, progress=progress, note=note)
        comparison = _judged(runs, request, len(images.train))
        write_text(folder.json, json.dumps(comparison.model_dump(mode="json"), indent=2) + "\n")
        write_text(folder.markdown, markdown(comparison))
    return comparison


def _judged(runs: Runs, request: Request, images: int) -> Comparison:
    """Ask all networks about the same images, and compare their answers and what they cost.

    Args:
        runs: What was trained.
        request: What was asked for.
        images: Number of images that train, or that seeds draw training and validation images from.
    """
    first = runs.first
    part: Literal["val", "test"] = "test" if first.images["test"] else "val"
    table = _asked(runs, request.data, part)
    correction = overlap(table, images)
    better = better_parent(table, runs.members[AVERAGE])
    named = [other.name for other in request.others]
    pairs = [
        *((FUSED, rival) for rival in (better, AVERAGE, CONCATENATED, *named)),
        *((name, CONCATENATED) for name in named),
    ]
    contests = tuple(
        contest(table, rival, runs.seeds, correction, network=network) for network, rival in pairs
    )
    called = {
        better: f"branch {better} alone",
        AVERAGE: "the average of the branches alone",
        CONCATENATED: "the same features without skips",
    }
    return Comparison(
        request=request,
        config=first.config,
        seeds=tuple(runs.seeds),
        part=part,
        images=tuple(len(one.images) for one in table[FUSED]),
        redrawn=is_redrawn(table),
        overlap=correction,
        basis=_basis(len(runs.seeds), correction),
        device=first.device,
        precision=first.precision,
        layout=first.layout,
        networks=_standings(runs, table, correction),
        better_parent=better,
        contests=contests,
        verdict=verdict([one for one in contests if one.network == FUSED and one.rival in called], called),
    )


def _asked(runs: Runs, data: str, part: Literal["val", "test"]) -> Table:
    """Return the answers of all networks."""
    alone = runs.members[AVERAGE]
    table: dict[str, list[Answers]] = {name: [] for name in runs.members}
    for seed in runs.seeds:
        trained = {name: runs.folder.run(name, seed) for name in runs.members if name != AVERAGE}
        given = ask(trained, data, part)
        given[AVERAGE] = average([given[name] for name in alone])
        for name, answers in given.items():
            table[name].append(answers)
    return table


def _standings(runs: Runs, table: Table, correction: float) -> tuple[Standing, ...]:
    """Return how every network fares, and what it costs."""
    described = {part.name: part.description for part in parts(runs.parents, runs.others)}
    described[AVERAGE] = "the mean of their probabilities"
    models = {name: [run.model for run in runs.of(name, runs.seeds[0])] for name in runs.members}
    times = latencies(models, runs.first.device)
    standings = []
    for name, files in models.items():
        sizes = [size(path) for path in files]
        standings.append(
            Standing(
                name=name,
                description=described[name],
                accuracies=tuple(shares(table[name])),
                accuracy=accuracy(table[name], correction),
                parameters=sum(each.parameters for each in sizes),
                macs=sum(each.macs for each in sizes),
                bytes=sum(each.bytes for each in sizes),
                latency=times[name],
                train_seconds=fmean(sum(map(seconds, runs.of(name, seed))) for seed in runs.seeds),
            )
        )
    return tuple(standings)


def _basis(seeds: int, correction: float) -> str:
    """Return in words how intervals and p are made."""
    if seeds == 1:
        return (
            "One seed: 95 % intervals and p are over its images (Wilson; Bonett and Price; McNemar's exact "
            "test) and say nothing of other runs."
        )
    corrected = (
        f", corrected for splits that overlap (Nadeau and Bengio, ratio {correction:.2f})"
        if correction
        else ", given these images"
    )
    return (
        f"95 % intervals and p are over {seeds} seeds (Student's t, paired for differences){corrected}; "
        "McNemar's exact test is over the images of one seed."
    )
