"""Keep what a run has learnt: the last state, to go on from, and the best weights.

A checkpoint is written beside its target, flushed and renamed: whenever the machine dies, the previous one is
whole. Weights that are not finite are never written.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.plugins.io import TorchCheckpointIO
from safetensors import SafetensorError
from safetensors.torch import load, save_file
from torch import nn

from graftonnx.errors import GraftError
from graftonnx.files import atomic
from graftonnx.models import pickles
from graftonnx.reading import opened
from graftonnx.training.config import TrainConfig
from graftonnx.training.data import Batch, TrainBatches
from graftonnx.training.finetuner import Finetuner, Sums, diverged
from graftonnx.training.history import Epoch, best_of, write_metrics
from graftonnx.training.interrupt import StopRequest
from graftonnx.training.run import RunFolder
from graftonnx.training.strategies import full_state
from graftonnx.training.world import ALONE, World

DAMAGES = (*pickles.DAMAGES, RuntimeError, OSError)
"""What a file that is no checkpoint makes of the reading of it."""

MISFITS = (LookupError, ValueError, TypeError, AttributeError, AssertionError, RuntimeError)
"""What a checkpoint makes of Lightning that is whole, but of another network or program."""


class AtomicCheckpoints(TorchCheckpointIO):
    """Lightning's checkpoint files, written so that a reader sees the old one or the new one."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None
    ) -> None:
        """Write `checkpoint` to `path`."""
        with written(Path(path)) as temporary:
            torch.save(checkpoint, temporary)

    def load_checkpoint(self, path: str | Path, *args: Any, **options: Any) -> dict[str, Any]:
        """Read a checkpoint, tensors and plain values only.

        Raises:
            GraftError: If it is damaged, or would run code.
        """
        try:
            pickles.check(Path(path))
            return dict(super().load_checkpoint(path, *args, **{**options, "weights_only": True}))
        except DAMAGES as error:
            raise damaged(Path(path), error) from error


def save_weights(state: dict[str, torch.Tensor], path: Path) -> None:
    """Write a network's weights and statistics as safetensors."""
    whole = {key: value.detach().cpu().contiguous() for key, value in state.items()}
    with written(path) as temporary:
        save_file(whole, temporary)


def load_weights(network: nn.Module, path: Path) -> None:
    """Load what :func:`save_weights` wrote into a network.

    Raises:
        GraftError: If it is damaged, or of another network.
    """
    try:
        with opened(path, path.stat().st_size) as file:
            network.load_state_dict(load(file.read()))  # `load_file` keeps two objects for each tensor
    except (SafetensorError, RuntimeError, OSError, TypeError, ValueError) as error:
        raise damaged(path, error) from error


def damaged(path: Path, error: Exception) -> GraftError:
    """Return the error for a checkpoint that cannot be read."""
    more = "it is damaged, or holds more than tensors and plain values, which could run code"
    reason = _first_line(error) if isinstance(error, (RuntimeError, OSError, ValueError)) else more
    return GraftError(f"cannot read '{path}': {reason}. Train again: nothing can go on from it.")


@contextlib.contextmanager
def written(path: Path) -> Iterator[Path]:
    """Do what :func:`graftonnx.files.atomic` does, for libraries that report a full disk in their own ways.

    Raises:
        GraftError: If the file system refuses; what was at `path` is still there.
    """
    try:
        with atomic(path) as temporary:
            yield temporary
    except (RuntimeError, SafetensorError, GraftError) as error:
        reason = (
            error.message
            if isinstance(error, GraftError)
            else f"cannot write '{path}': {_first_line(error)}."
        )
        raise GraftError(f"{reason} {_what_is_left(RunFolder(path.parent.parent))}") from error


def _what_is_left(run: RunFolder) -> str:
    """Return what there is of a run that cannot write its checkpoint, and what to do."""
    if not run.config.is_file():
        return "The run that was in this folder is gone: train again."
    if not run.last.is_file():
        return f"No checkpoint was written yet: make room, then begin again with {run.resuming}."
    return f"The checkpoint before it is whole: make room, then go on with {run.resuming}."


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".:")


class Stopped(BaseException):
    """Leaves Lightning's loop after an interruption has been saved."""


class Keeper(pl.Callback):
    """Records every epoch, saves the last state and the best weights, and obeys requests to stop."""

    def __init__(
        self,
        run: RunFolder,
        batches: TrainBatches,
        config: TrainConfig,
        request: StopRequest,
        note: Callable[[str], object],
        world: World = ALONE,
    ) -> None:
        self._run = run
        self._batches = batches
        self._config = config
        self._request = request
        self._note = note
        self._world = world
        self._parent = os.getppid()
        self._saved = self._mark = time.monotonic()
        self._train_seconds = 0.0
        self._is_restored = False
        self.has_begun = False
        self.epochs: list[Epoch] = []

    def state_dict(self) -> dict[str, Any]:
        """Return the record of the epochs and the place in the data, for the checkpoint.

        Lightning restores a loader only where it goes on in the middle of an epoch.
        """
        return {
            "epochs": [row.model_dump() for row in self.epochs],
            "batches": self._batches.state_dict(),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up the record and the place of a checkpoint."""
        self._batches.load_state_dict(state_dict["batches"])
        self.epochs = [Epoch.model_validate(row) for row in state_dict["epochs"]]
        self._is_restored = True

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Refuse a checkpoint without a record of the epochs.

        Raises:
            LookupError: Then.
        """
        if trainer.ckpt_path is not None and not self._is_restored:
            raise LookupError("it has no record of the epochs")

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the clocks; a run that had ended early is not taken further."""
        self.has_begun = True
        if self._request.signal is None:
            self._request.listen()  # Lightning's own handler makes the processes wait for each other
        self._saved = self._mark = time.monotonic()
        trainer.should_stop = self._exhausted()
        self._plan_validation(trainer)

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start an epoch; this is not called where one is resumed in its middle."""
        assert isinstance(pl_module, Finetuner)
        recorded = self.epochs[-1].epoch if self.epochs else 0
        if recorded == trainer.current_epoch:
            pl_module.train_sums = Sums()
        self._mark = time.monotonic()
        self._plan_validation(trainer)

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Batch,
        batch_idx: int,
    ) -> None:
        """Save now and then, and stop if asked to."""
        if trainer.is_last_batch:
            return  # the end of the epoch saves, with its validation
        if (batch_idx + 1) % self._config.accumulate:
            return  # gradients of a step that is not complete are in no checkpoint
        due = time.monotonic() - self._saved > self._config.save_every
        due, stop = self._agreed(due)
        if due or stop:
            self._add_time(pl_module)
            self._save_last(trainer, pl_module)
        if stop:
            raise Stopped

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Stop the clock of the steps."""
        self._add_time(pl_module)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Record the epoch, save, and stop if asked to."""
        assert isinstance(pl_module, Finetuner)
        if not self._validates(trainer):
            self._add_time(pl_module)
            self._save_last(trainer, pl_module)
            if self._agreed()[1]:
                raise Stopped
            return
        row = self._row(trainer, pl_module)
        self.epochs.append(row)
        if best_of(self.epochs) is row:
            state = full_state(pl_module.result)
            _check_finite(state)
            if self._world.leads:
                save_weights(state, self._run.best)
        self._save_last(trainer, pl_module)
        if self._world.leads:
            write_metrics(self._run.metrics, self.epochs)
        self._note(str(row))
        _, stop = self._agreed()
        if stop:
            raise Stopped
        if self._exhausted():
            self._note(f"no better epoch for {self._config.patience}: training ends here")
            trainer.should_stop = True

    def _validates(self, trainer: pl.Trainer) -> bool:
        """Return whether the running epoch ends with a validation; counted from the last one, which does."""
        return (self._config.epochs - trainer.current_epoch - 1) % self._config.val_every == 0

    def _plan_validation(self, trainer: pl.Trainer) -> None:
        trainer.check_val_every_n_epoch = 1 if self._validates(trainer) else trainer.current_epoch + 2

    def _agreed(self, due: bool = False) -> tuple[bool, bool]:
        """Return whether the last state is to be saved and whether to stop; all processes agree.

        They also stop when the process is gone that started them and watched over them.
        """
        orphaned = self._world.size > 1 and os.getppid() != self._parent
        save, number = self._world.largest(due, self._request.signal or orphaned * signal.SIGTERM)
        if number:
            self._request.signal = int(number)
        return bool(save), bool(number)

    def _exhausted(self) -> bool:
        """Return whether there was no better epoch for as long as the settings allow."""
        patience = self._config.patience
        return (
            bool(self.epochs and patience) and self.epochs[-1].epoch - best_of(self.epochs).epoch >= patience
        )

    def _add_time(self, pl_module: pl.LightningModule) -> None:
        assert isinstance(pl_module, Finetuner)
        now = time.monotonic()
        pl_module.train_sums.seconds += now - self._mark
        self._mark = now

    def _save_last(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        _check_finite(full_state(pl_module))
        trainer.save_checkpoint(self._run.last)
        self._saved = time.monotonic()

    def _row(self, trainer: pl.Trainer, finetuner: Finetuner) -> Epoch:
        """Return the record of the epoch that has just ended.

        Raises:
            GraftError: If a loss is not a finite number.
        """
        train, val = (sums.over(self._world) for sums in (finetuner.train_sums, finetuner.val_sums))
        number = trainer.current_epoch + 1
        for name, loss in (("training", train.loss), ("validation", val.loss)):
            if not torch.tensor(loss).isfinite():
                raise diverged(f"the {name} loss of epoch {number} is {loss}")
        groups = trainer.optimizers[0].param_groups  # the last layers of the branches come first
        rates = {group["name"]: group["lr"] for group in reversed(groups)}
        return Epoch(
            epoch=number,
            train_loss=train.loss,
            train_accuracy=train.accuracy,
            val_loss=val.loss,
            val_accuracy=val.accuracy,
            lr_branches=rates.get("branches", 0.0),
            lr_skips=rates.get("skips", 0.0),
            lr_head=rates.get("head", 0.0),
            train_seconds=train.seconds,
            seconds=train.seconds + time.monotonic() - self._mark,
            images_per_second=train.images / train.seconds,
        )


def _check_finite(state: dict[str, torch.Tensor]) -> None:
    """Raise if a weight or a statistic is not finite."""
    for name, value in state.items():
        if value.is_floating_point() and not bool(value.isfinite().all()):
            raise diverged(f"'{name.removeprefix('network.')}' is no longer finite")
