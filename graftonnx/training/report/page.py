"""One page that tells a run from its folder: `report.html`."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup
from PIL import Image

from graftonnx import pages
from graftonnx.costs import macs, parameters
from graftonnx.decoders import UNREADABLE, open_image
from graftonnx.errors import GraftError
from graftonnx.evaluation import Evaluation
from graftonnx.graph import GraphView
from graftonnx.images import LARGEST_FILE
from graftonnx.metadata import Metadata, read_metadata
from graftonnx.pages import DASH, TIMES, percent, short
from graftonnx.reading import read_bytes, read_text
from graftonnx.training.config import TrainConfig
from graftonnx.training.history import Epoch, best_of, read_metrics
from graftonnx.training.report.charts import Line, line_chart, merged
from graftonnx.training.report.pictures import BLUE, by_branch, grid_size, picture_box
from graftonnx.training.report.validation import Findings, Mistake, damaged, read_findings
from graftonnx.training.run import RunFolder, RunRecord
from graftonnx.weights import read

MOST_CELLS = 25
"""Classes up to which the confusion matrix is a table; with more it is a picture, and the worst pairs."""

MOST_ROWS = 25
"""Rows of a table that are shown at once; the others unfold."""

COLOURS = ("c1", "c2", "c3", "c4")
"""Classes of the style sheet, for lines."""


def render_page(run: RunFolder, record: RunRecord, notes: Sequence[str] = ()) -> str:
    """Return the report of a run as HTML.

    Args:
        run: The run folder; whatever is missing in it is left out.
        record: Its settings.
        notes: Remarks for a person that stand at the top.

    Raises:
        GraftError: If a file in the folder is not what a run wrote.
    """
    epochs = read_metrics(run.metrics)
    findings = read_findings(run.findings)
    if findings is not None and findings.labels != record.labels:
        raise damaged(run.findings)
    network = _network(run)
    return pages.render(
        "graftonnx.training.report",
        "report.html",
        title=run.path.resolve().name,
        record=record,
        notes=notes,
        headlines=_headlines(record, epochs, findings, network),
        charts=_charts(epochs),
        epochs=epochs,
        best=best_of(epochs) if epochs else None,
        evaluation=findings and findings.evaluation,
        shares=findings and _row_shares(findings.evaluation),
        heatmap=findings and _heatmap(findings.evaluation),
        worst=findings and _worst_first(findings.evaluation),
        mistakes=_mistakes(run, record, findings),
        strengths=findings.strengths if findings else (),
        strength_chart=_strength_chart(findings),
        network=network,
        parts=[part for part, count in record.images.items() if count],
        classes=_class_counts(run, record),
        settings=_settings(record),
        facts=_facts(record),
        most_cells=MOST_CELLS,
        most_rows=MOST_ROWS,
    )


def duration(seconds: float) -> str:
    """Return a time in the two largest units: 4 min 12 s."""
    whole = round(seconds)
    if whole < 60:
        return f"{seconds:.0f} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def _headlines(
    record: RunRecord, epochs: Sequence[Epoch], findings: Findings | None, network: Mapping[str, Any] | None
) -> list[tuple[str, str, str]]:
    """Return name, figure and remark of what matters most."""
    shown = []
    if findings is not None:
        evaluation = findings.evaluation
        right = int(evaluation.confusion.trace())
        where = f"{right:,} of {evaluation.images:,} right, in ONNX Runtime"
        shown.append(("Validation accuracy", percent(evaluation.top1), where))
        top5 = f", top-5 {percent(evaluation.top5)}" if len(record.labels) > 5 else ""
        shown.append(("Validation loss", f"{evaluation.loss:.4f}", f"nats{top5}"))
    if epochs:
        seconds, steps = sum(row.seconds for row in epochs), sum(row.train_seconds for row in epochs)
        images = sum(row.train_seconds * row.images_per_second for row in epochs)
        best = best_of(epochs)
        shown.append(
            ("Best epoch", f"{best.epoch}", f"of {epochs[-1].epoch} run, {record.config.epochs} planned")
        )
        shown.append(("Training time", duration(seconds), f"{images / steps:,.0f} training images/s"))
    if network is not None:
        shown.append(("Parameters", short(network["parameters"]), f"{network['bytes'] / 1e6:.1f} MB"))
        shown.append(("MACs", short(network["macs"]), f"one image of {_size(record.input_size)} pixels"))
    return shown


def _charts(epochs: Sequence[Epoch]) -> list[tuple[str, Markup]]:
    """Return the curves: title and picture."""
    if not epochs:
        return []
    best = best_of(epochs)

    def lines(*columns: tuple[str, str, str]) -> list[Line]:
        return [
            Line(name, [(float(row.epoch), float(getattr(row, field))) for row in epochs], colour)
            for field, name, colour in columns
        ]

    loss = lines(("train_loss", "training", "c2"), ("val_loss", "validation", "c1"))
    accuracy = lines(("train_accuracy", "training", "c2"), ("val_accuracy", "validation", "c1"))
    rates = lines(("lr_branches", "branches", "c1"), ("lr_skips", "skips", "c2"), ("lr_head", "head", "c3"))
    return [
        (
            "Accuracy",
            line_chart(
                accuracy,
                summary=f"Accuracy by epoch; the best, {percent(best.val_accuracy)}, in epoch {best.epoch}",
                x_label="epoch",
                spelled=lambda y: f"{100 * y:.4g}%",
                mark=(best.epoch, best.val_accuracy),
            ),
        ),
        (
            "Cross-entropy, nats",
            line_chart(
                loss, summary="Loss by epoch", x_label="epoch", spelled=lambda y: f"{y:.3g}", floor=0.0
            ),
        ),
        (
            "Learning rate at the end of the epoch",
            line_chart(
                merged(rates),
                summary="Learning rates by epoch",
                x_label="epoch",
                spelled=lambda y: f"{y:.2g}",
                floor=0.0,
            ),
        ),
    ]


def _row_shares(evaluation: Evaluation) -> Any:
    """Return the confusion matrix as shares of its rows, [K, K]."""
    return evaluation.confusion / np.maximum(evaluation.confusion.sum(1, keepdims=True), 1)


def _heatmap(evaluation: Evaluation) -> str | None:
    """Return the matrix of many classes as a picture, a pixel for each cell, opaque where the share is 1."""
    if len(evaluation.labels) <= MOST_CELLS:
        return None
    colour = [int(BLUE[i : i + 2], 16) for i in (1, 3, 5)]
    pixels = np.zeros((*evaluation.confusion.shape, 4), np.uint8)
    pixels[..., :3] = colour
    pixels[..., 3] = (255 * np.sqrt(_row_shares(evaluation))).round()
    return _data_url(Image.fromarray(pixels, "RGBA"), "png")


def _worst_first(evaluation: Evaluation) -> list[Any]:
    """Return the scores of all classes that have images, lowest recall first."""
    seen = [score for score in evaluation.scores if score.recall is not None]
    return sorted(seen, key=lambda score: score.recall or 0.0)


def _mistakes(
    run: RunFolder, record: RunRecord, findings: Findings | None
) -> list[tuple[Mistake, str | None]]:
    """Return the mistakes, each with its picture, cut from the grid; None where the grid is gone."""
    found = findings.mistakes if findings else ()
    if not found or not run.mistakes.is_file():
        return [(mistake, None) for mistake in found]
    sheet = _read_grid(run.mistakes, grid_size(len(found)))
    return [
        (mistake, _data_url(sheet.crop(picture_box(place, record.input_size)), "jpeg"))
        for place, mistake in enumerate(found)
    ]


def _read_grid(path: Path, size: tuple[int, int]) -> Image.Image:
    """Return `mistakes.png`, of that width and height, in RGB.

    Raises:
        GraftError: If it is no such picture.
    """
    try:
        sheet = open_image(read_bytes(path, LARGEST_FILE))
        if (sheet.format, sheet.size) != ("PNG", size):
            raise ValueError(f"a {sheet.format} of {sheet.size} pixels, expected a PNG of {size}")
        return sheet.convert("RGB")
    except UNREADABLE as error:
        raise damaged(path) from error


def _strength_chart(findings: Findings | None) -> Markup | None:
    if findings is None or not by_branch(findings.strengths):
        return None
    lines = [
        Line(f"into {branch}", points, COLOURS[index % len(COLOURS)])
        for index, (branch, points) in enumerate(by_branch(findings.strengths))
    ]
    return line_chart(
        lines,
        summary="Norm of what each skip adds, relative to its target, by depth of the target",
        x_label="depth of the target in its branch",
        spelled=lambda y: f"{100 * y:.4g}%",
        x_range=(0.0, 1.0),
        floor=0.0,
    )


def _network(run: RunFolder) -> dict[str, Any] | None:
    """Return what the trained network is made of and what each part costs."""
    if not run.model.is_file():
        return None
    model, _ = read(run.model)
    metadata = read_metadata(model)
    view = GraphView(model.graph)
    parts: dict[str, list[int]] = {}
    for position, made in enumerate(view.made):
        parts.setdefault(_part(made[0], metadata), []).append(position)
    order = sorted(parts, key=lambda name: (not name.startswith("branch"), name == "preprocessing", name))
    return {
        "parents": metadata.parents,
        "head": metadata.head,
        "parameters": parameters(view),
        "macs": macs(view),
        "bytes": run.model.stat().st_size,
        "parts": [(name, parameters(view, parts[name]), macs(view, parts[name])) for name in order],
    }


def _part(value: str, metadata: Metadata) -> str:
    """Return the part of a network that a value belongs to."""
    first = value.split("/")[0]
    if first in {parent.branch for parent in metadata.parents}:
        return f"branch {first}"
    return {"skips": "skips", "preprocess": "preprocessing"}.get(first, "head")


def _class_counts(run: RunFolder, record: RunRecord) -> list[tuple[str, list[int]]]:
    """Return for each class its images in each part of the split that has any."""
    if not run.split.is_file():
        return []
    parts = [part for part, count in record.images.items() if count]
    try:
        split = json.loads(read_text(run.split))
        return [(name, [len(split[part].get(name, ())) for part in parts]) for name in record.labels]
    except (OSError, ValueError, KeyError, AttributeError, TypeError, RecursionError) as error:
        raise GraftError(
            f"cannot read '{run.split}': it is not a split that graftonnx wrote. Bring the file back."
        ) from error


def _settings(record: RunRecord) -> list[tuple[str, str, bool]]:
    """Return name and value of every setting, and whether it is not the default."""
    defaults = TrainConfig().model_dump(mode="json")
    given = record.config.model_dump(mode="json")
    return [(name, _spelled(value), value != defaults[name]) for name, value in given.items()]


def _facts(record: RunRecord) -> list[tuple[str, str]]:
    """Return everything else that the record holds and no other table shows."""
    shown = {"config", "versions", "labels", "images"}
    facts = [(k, v) for k, v in record.model_dump(mode="json").items() if k not in shown]
    return [(name.replace("_", " "), _spelled(value)) for name, value in facts]


def _spelled(value: Any) -> str:
    """Return a value of the record for people."""
    if isinstance(value, dict):
        return ", ".join(f"{key} {_spelled(inner)}" for key, inner in value.items()) or DASH
    if isinstance(value, (list, tuple)):
        return TIMES.join(_spelled(inner) for inner in value) or DASH
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _size(size: tuple[int, int]) -> str:
    return f"{size[0]}{TIMES}{size[1]}"


def _data_url(image: Image.Image, kind: str) -> str:
    """Return a picture as an address that holds it."""
    content = io.BytesIO()
    image.save(content, format=kind, quality=88)
    return f"data:image/{kind};base64,{base64.b64encode(content.getvalue()).decode()}"
