"""What happened in each epoch: `metrics.csv` and `curves.png`."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, TypeAlias

from pydantic import Field, ValidationError

from graftonnx import plotting
from graftonnx.errors import GraftError
from graftonnx.files import atomic, write_text
from graftonnx.metadata import Record
from graftonnx.reading import read_text

MOST_EPOCHS = 1_000_000_000
"""Of a training, however many its steps ask for."""

LARGEST = 3.5e38
"""Of the numbers in a record, which are computed in 32 bits; a chart has room for such numbers."""

Number: TypeAlias = Annotated[float, Field(ge=-LARGEST, le=LARGEST)]
Duration: TypeAlias = Annotated[float, Field(gt=0, le=LARGEST)]


class Epoch(Record):
    """One row of `metrics.csv`: an epoch that validated, with those since the last one that did.

    Attributes:
        epoch: Counted from 1.
        train_loss: Mean over the steps, with label smoothing, in nats.
        train_accuracy: Share of the augmented training images that were right.
        val_loss: Mean cross-entropy, in nats.
        val_accuracy: Share of the validation images that were right.
        lr_branches: Learning rate at the end of the epoch; with layer decay that of the last layers.
        lr_skips: Likewise.
        lr_head: Likewise.
        train_seconds: Time of the steps.
        seconds: That and the time of the validation.
        images_per_second: Training images per second of `train_seconds`.
    """

    epoch: int = Field(ge=0, le=MOST_EPOCHS)
    train_loss: Number
    train_accuracy: Number
    val_loss: Number
    val_accuracy: Number
    lr_branches: Number
    lr_skips: Number
    lr_head: Number
    train_seconds: Duration
    seconds: Duration
    images_per_second: Number

    def __str__(self) -> str:
        return (
            f"epoch {self.epoch}: train loss {self.train_loss:.4f}, val loss {self.val_loss:.4f}, "
            f"val accuracy {self.val_accuracy:.2%}, {self.images_per_second:.0f} images/s"
        )


def best_of(epochs: Sequence[Epoch]) -> Epoch:
    """Return the epoch with the highest validation accuracy; among equals that of the lowest loss."""
    return max(epochs, key=lambda row: (row.val_accuracy, -row.val_loss))


def write_metrics(path: Path, epochs: Sequence[Epoch]) -> None:
    """Write `metrics.csv`, one row per epoch."""
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(Epoch.model_fields), lineterminator="\n")
    writer.writeheader()
    for row in epochs:
        fields = row.model_dump()
        writer.writerow({k: f"{v:.6g}" if isinstance(v, float) else v for k, v in fields.items()})
    write_text(path, text.getvalue())


def read_metrics(path: Path) -> list[Epoch]:
    """Read `metrics.csv`; empty where there is none yet.

    Raises:
        GraftError: If it is not what :func:`write_metrics` wrote.
    """
    if not path.is_file():
        return []
    try:
        return [Epoch.model_validate(row) for row in csv.DictReader(io.StringIO(read_text(path)))]
    except (OSError, ValidationError, UnicodeDecodeError, csv.Error) as error:
        raise GraftError(f"cannot read '{path}': it is not a record of epochs. Train again.") from error


def write_curves(path: Path, epochs: Sequence[Epoch]) -> None:
    """Draw losses, accuracies and learning rates over the epochs into a PNG."""
    with plotting.figure(12, 3.6) as figure:
        loss, accuracy, rate = figure.subplots(1, 3)
        x = [row.epoch for row in epochs]
        best = best_of(epochs)
        loss.plot(
            x, [row.train_loss for row in epochs], marker=".", label="train (smoothed labels, augmented)"
        )
        loss.plot(x, [row.val_loss for row in epochs], marker=".", label="validation")
        loss.set_ylabel("cross-entropy, nats")
        accuracy.plot(x, [100 * row.train_accuracy for row in epochs], marker=".", label="train (augmented)")
        accuracy.plot(x, [100 * row.val_accuracy for row in epochs], marker=".", label="validation")
        accuracy.plot(best.epoch, 100 * best.val_accuracy, "k*", label=f"best: {best.val_accuracy:.2%}")
        accuracy.set_ylabel("accuracy, %")
        rate.plot(x, [row.lr_branches for row in epochs], marker=".", label="branches")
        rate.plot(x, [row.lr_skips for row in epochs], marker=".", label="skips")
        rate.plot(x, [row.lr_head for row in epochs], marker=".", linestyle="--", label="head")
        rate.set_ylabel("learning rate at the end of the epoch")
        for axes in (loss, accuracy, rate):
            axes.set_xlabel("epoch")
            axes.xaxis.get_major_locator().set_params(integer=True)
            axes.grid(alpha=0.3)
            axes.legend(fontsize="small")
        with atomic(path) as temporary:
            figure.savefig(temporary, format="png")
