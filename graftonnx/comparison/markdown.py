"""A comparison for people: `compare.md`."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from graftonnx.comparison.record import Comparison, Contest, Standing
from graftonnx.comparison.verdict import figures, spelled
from graftonnx.printable import markdown_text

COLUMNS = ("network", "accuracy", "parameters", "MACs", "file", "one image", "training")
BAR = r"(?<!\\)\|"
"""A bar that would end a cell."""

PARTS = {"val": "validation", "test": "test"}


def markdown(comparison: Comparison) -> str:
    """Return the whole report: verdict, networks, tests, and how it was done."""
    contests = [_tests(comparison, contest) for contest in comparison.contests]
    return "\n".join(
        (
            f"# Did fusion help? {markdown_text(comparison.request.source.name)} on "
            f"{markdown_text(Path(comparison.request.data).name)}\n",
            f"{comparison.verdict}\n",
            *table(COLUMNS, map(marked_row, comparison.networks)),
            "",
            *table(
                ("network", "against", "difference", "McNemar, by seed: network only / rival only right"),
                contests,
            ),
            "",
            f"{conditions(comparison)}\n",
        )
    )


def row(standing: Standing) -> tuple[str, ...]:
    """Return a network's cells under `COLUMNS`."""
    accuracy = standing.accuracy
    interval = f"{100 * accuracy.low:.2f}, {100 * accuracy.high:.2f}"
    return (
        f"{standing.name}: {standing.description}",
        f"{accuracy.value:.2%} [{interval if accuracy.low < accuracy.high else 'no spread'}]",
        f"{standing.parameters:,}",
        f"{standing.macs / 1e6:,.0f} M",
        f"{standing.bytes / 1e6:.1f} MB",
        f"{1e3 * standing.latency:.2f} ms",
        f"{standing.train_seconds:.0f} s",
    )


def marked_row(standing: Standing) -> tuple[str, ...]:
    """Return a network's cells for a table in Markdown."""
    name, *cells = row(standing)
    return markdown_text(name), *cells


def conditions(comparison: Comparison) -> str:
    """Return in words what was measured, and how."""
    images = "/".join(map(str, sorted(set(comparison.images))))
    config = comparison.config
    chooses = comparison.part == "val" and config.val_every < config.epochs
    chosen = "; they also chose each run's best epoch" if chooses else ""
    drawn = ", drawn anew by each seed" if comparison.redrawn else ""
    epochs = "1 epoch" if config.epochs == 1 else f"{config.epochs} epochs"
    return (
        f"Accuracy in ONNX Runtime on {images} {PARTS[comparison.part]} images{drawn}{chosen}. "
        f"{markdown_text(comparison.basis)} All runs: {epochs}, batch {config.batch_size}, seeds "
        f"{', '.join(map(str, comparison.seeds))}, {comparison.device}, {comparison.precision} "
        f"{comparison.layout}. One image: median in ONNX Runtime, batch 1, networks taking turns. The better "
        f"branch alone, {comparison.better_parent}, was chosen by these accuracies, which favours it."
    )


def _tests(comparison: Comparison, contest: Contest) -> tuple[str, ...]:
    rival = comparison.network(contest.rival)
    tests = "; ".join(f"{t.fused_only} / {t.rival_only}, {spelled(t.p)}" for t in contest.by_images)
    described = markdown_text(f"{rival.name}: {rival.description}")
    return markdown_text(contest.network), described, figures(contest), tests


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Return the lines of a table."""
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return [f"| {' | '.join(re.sub(BAR, chr(92) * 2 + '|', cell) for cell in line)} |" for line in lines]
