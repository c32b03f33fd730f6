"""What a person sees while it runs: one line of progress on stderr, and none of the trainer's small talk."""

from __future__ import annotations

import logging
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import lightning.pytorch as pl
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from graftonnx.training.finetuner import Finetuner, Sums

LOGGERS = ("lightning.pytorch", "lightning.fabric")

NOISE = (
    # Lightning 2.6 with PyTorch 2.13: its own use of a type that PyTorch renames.
    r"`isinstance\(treespec, LeafSpec\)` is deprecated",
    # Frozen batch norms are in evaluation mode on purpose.
    r"Found \d+ module\(s\) in eval mode at the start of training",
    # Its own probe of SLURM and of MPI, on machines that have the launcher but do not use it.
    r"The `srun` command is available on your system",
    # Its wrapper passes the argument on under PyTorch's old name; the new one does the same for us.
    r"`broadcast_buffers` is deprecated",
)
"""Warnings of Lightning about what we do on purpose."""


def bars(*, visible: bool) -> Progress:
    """Return progress bars on stderr; invisible ones where nobody watches."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[figures]}"),
        console=Console(stderr=True),
        refresh_per_second=4,
        transient=True,
        disable=not (visible and sys.stderr is not None and sys.stderr.isatty()),
    )


@contextmanager
def counting(progress: Progress, what: str, total: int) -> Iterator[Callable[[], None]]:
    """Show a bar for `total` things; yield the function to call after each."""
    task = progress.add_task(what, total=total, figures="")
    try:
        yield lambda: progress.advance(task)
    finally:
        progress.remove_task(task)


@contextmanager
def silence() -> Iterator[None]:
    """Keep Lightning's remarks and tips off the terminal; its warnings stay, but for those in `NOISE`."""
    levels = {name: logging.getLogger(name).level for name in LOGGERS}
    for name in levels:
        logging.getLogger(name).setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings():
            for message in NOISE:
                warnings.filterwarnings("ignore", message=message)
            yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)


class EpochBar(pl.Callback):
    """Shows the running epoch: its steps, then its validation."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._task = progress.add_task("", total=None, visible=False, figures="")
        self._start, self._images = time.monotonic(), 0
        self._accuracy: float | None = None

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start to count images per second; an epoch that is resumed in its middle starts no more."""
        self.on_train_epoch_start(trainer, pl_module)

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start to count images per second."""
        assert isinstance(pl_module, Finetuner)
        self._start, self._images = time.monotonic(), pl_module.train_sums.images

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Move on by a step."""
        assert isinstance(pl_module, Finetuner)
        if self._progress.disable:
            return
        if batch_idx % 10 == 0:
            self._progress.update(self._task, figures=self._figures(pl_module.train_sums))
        self._progress.update(
            self._task,
            description=f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}",
            completed=batch_idx + 1,
            total=trainer.num_training_batches,
            visible=True,
        )

    def on_validation_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Move on by a validation batch."""
        total = trainer.num_val_batches[0]
        self._progress.update(self._task, description="validation", completed=batch_idx + 1, total=total)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Remember the accuracy, to show it during the next epoch."""
        assert isinstance(pl_module, Finetuner)
        self._accuracy = max(self._accuracy or 0.0, pl_module.val_sums.accuracy)

    def _figures(self, sums: Sums) -> str:
        """Return loss and speed of the epoch so far, and the best validation accuracy since the start."""
        rate = (sums.images - self._images) / max(time.monotonic() - self._start, 1e-9)
        best = "" if self._accuracy is None else f", validation {self._accuracy:.1%}"
        return f"loss {sums.loss:.3f}, {rate:.0f} images/s{best}"

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Take the bar away."""
        self._progress.update(self._task, visible=False)
