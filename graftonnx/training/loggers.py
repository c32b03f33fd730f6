"""Where the figures of an epoch go: TensorBoard's files in the run folder, and a tracker if one is given."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import lightning.pytorch as pl
from lightning.pytorch.loggers import Logger as TrackerLogger
from lightning.pytorch.loggers import MLFlowLogger, WandbLogger
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.record_writer import RecordWriter

from graftonnx.errors import GraftError
from graftonnx.training.checkpoints import Keeper
from graftonnx.training.config import Logger, TrainConfig
from graftonnx.training.history import Epoch
from graftonnx.training.run import RunFolder

PROJECT = "graftonnx"
"""The project (W&B) or experiment (MLflow) that runs go to, unless the tracker's own variable names one."""

FIGURES = {
    "accuracy/train": "train_accuracy",
    "accuracy/val": "val_accuracy",
    "loss/train": "train_loss",
    "loss/val": "val_loss",
    "lr/branches": "lr_branches",
    "lr/head": "lr_head",
    "lr/skips": "lr_skips",
    "speed/images_per_second": "images_per_second",
}
"""What a logger calls the fields of an epoch."""


def check_logger(logger: Logger) -> None:
    """Refuse a tracker whose package is not installed.

    Raises:
        GraftError: With the command that installs it.
    """
    if logger != "none" and importlib.util.find_spec(logger) is None:
        raise GraftError(
            f"cannot log to {logger}: the package '{logger}' is not installed. "
            f"Install it with: pip install {logger}"
        )


def open_tracker(config: TrainConfig, run: Path) -> TrackerLogger | None:
    """Return the tracker that the settings ask for, or None.

    Where it stands is for its own settings to say: `wandb login`, `WANDB_MODE`, `MLFLOW_TRACKING_URI`, ...

    Raises:
        GraftError: If its package is missing, or it cannot be reached.
    """
    check_logger(config.logger)
    if config.logger == "none":
        return None
    name = run.resolve().name
    logger: TrackerLogger
    try:
        if config.logger == "wandb":
            project = os.environ.get("WANDB_PROJECT", PROJECT)
            logger = WandbLogger(name=name, project=project, save_dir=run)
        else:
            logger = _mlflow(name)
        logger.log_hyperparams(config.model_dump(mode="json"))
    except Exception as error:
        raise GraftError(
            f"cannot log to {config.logger}: {' '.join(str(error).split())} Mend that, or leave out --logger."
        ) from error
    return logger


def open_events(folder: Path) -> RecordWriter:
    """Begin an event file of TensorBoard.

    TensorBoard's own writer works in a thread, whose errors nobody can catch.
    """
    folder.mkdir(parents=True, exist_ok=True)
    writer = RecordWriter((folder / "events.out.tfevents.graftonnx").open("wb"))
    try:
        writer.write(Event(wall_time=time.time(), file_version="brain.Event:2").SerializeToString())
    except OSError:
        writer.close()
        raise
    return writer


class EpochLog(pl.Callback):
    """Hands every epoch on, after the keeper has recorded it.

    The first time it writes all epochs of the record, in place of what an interrupted run had logged, so that
    a resumed run looks like one that was never interrupted. A logger that fails is dropped with a note.
    """

    def __init__(
        self, run: RunFolder, config: TrainConfig, keeper: Keeper, note: Callable[[str], object]
    ) -> None:
        self._run = run
        self._keeper = keeper
        self._note = note
        self._written = 0
        self._events: RecordWriter | None = None
        self._tracker = open_tracker(config, run.path)
        self._broken = False

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write the epoch that has just ended."""
        self._write()

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Close the loggers."""
        self._close("success")

    def on_exception(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException
    ) -> None:
        """Write what was recorded before the run stopped, and close the loggers."""
        self._close("failed")

    def _write(self) -> None:
        rows = self._keeper.epochs[self._written :]
        if self._broken or not rows:
            return
        try:
            self._write_rows(rows)
        except Exception as error:
            self._broken = True
            self._note(f"Note: logging stopped ({type(error).__name__}: {error}); training goes on.")

    def _write_rows(self, rows: Sequence[Epoch]) -> None:
        if self._events is None:
            for file in self._run.event_files:
                file.unlink()
            self._events = open_events(self._run.events)
        for row in rows:
            figures = {name: float(getattr(row, field)) for name, field in FIGURES.items()}
            values = [Summary.Value(tag=name, simple_value=value) for name, value in figures.items()]
            event = Event(wall_time=time.time(), step=row.epoch, summary=Summary(value=values))
            self._events.write(event.SerializeToString())
            if self._tracker is not None:
                self._tracker.log_metrics(figures, row.epoch)
        self._events.flush()
        self._written += len(rows)

    def _close(self, status: str) -> None:
        self._write()
        if self._events is not None:
            with contextlib.suppress(OSError):  # a full disk, of which the checkpoints speak
                self._events.close()
        if self._tracker is not None:
            self._tracker.finalize(status)
        if isinstance(self._tracker, WandbLogger):
            self._tracker.experiment.finish()  # or the next run of this process would go into the same one


def _mlflow(name: str) -> MLFlowLogger:
    import mlflow

    return MLFlowLogger(
        experiment_name=os.environ.get("MLFLOW_EXPERIMENT_NAME", PROJECT),
        run_name=name,
        tracking_uri=mlflow.get_tracking_uri(),
    )
