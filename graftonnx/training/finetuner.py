"""The network as Lightning trains it: loss, optimiser, schedule, and random numbers that know their step."""

from __future__ import annotations

import math
from typing import Any, Self

import lightning.pytorch as pl
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from graftonnx.errors import GraftError
from graftonnx.training.augment import augment
from graftonnx.training.config import TrainConfig
from graftonnx.training.data import Batch
from graftonnx.training.groups import freeze, parameter_groups
from graftonnx.training.speed import Mode

FLOOR = 0.01
"""Share of the peak learning rate at the end of the cosine."""

CHECK_EVERY = 10
"""Steps between two looks at the loss; each look waits for the device."""


class Finetuner(pl.LightningModule):
    """A network, the settings it is trained with, and the sums of the running epoch.

    Every random number of a step (augmentation, dropout) comes from the seed and the number of the step, so
    that a run that was interrupted anywhere gives the same weights as one that was not.
    """

    def __init__(
        self, network: nn.Module, config: TrainConfig, mode: Mode, size: tuple[int, int], total_steps: int
    ) -> None:
        super().__init__()
        self.network = network.to(memory_format=mode.memory_format)  # type: ignore[call-overload]
        self.mode = mode
        self.size = size
        self.settings = config
        self.total_steps = total_steps
        self._frozen_norms = freeze(network, config)
        self.train_sums = Sums()
        self.val_sums = Sums()
        self.train()

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits [N, K] of images [N, 3, H, W] in 0..1."""
        logits: Tensor = self.network(images.contiguous(memory_format=self.mode.memory_format))
        return logits.float()

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return the loss of a batch."""
        generator = torch.Generator().manual_seed(_mix(self.settings.seed, batch.step))
        torch.manual_seed(_mix(self.settings.seed, batch.step) + 1)
        images = augment(planes(batch.pixels), self.size, self.settings.augment, generator)
        logits = self(images)
        loss = F.cross_entropy(logits, batch.labels, label_smoothing=self.settings.label_smoothing)
        self.train_sums.add(loss.detach(), logits.detach(), batch.labels)
        if batch.step % CHECK_EVERY == 0 and not math.isfinite(loss.item()):
            raise diverged(f"the loss is {loss.item()} in epoch {self.current_epoch + 1}")
        return loss

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Add a batch to the validation sums; in float32, which is what the exported file computes in."""
        with torch.autocast(self.device.type, enabled=False):
            logits = self(planes(batch.pixels))
        self.val_sums.add(F.cross_entropy(logits, batch.labels), logits, batch.labels)

    def on_validation_epoch_start(self) -> None:
        """Forget the last epoch's validation."""
        self.val_sums = Sums()

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Clip the gradients; Lightning's own clipping refuses the fused optimiser."""
        weights = [w for group in optimizer.param_groups for w in group["params"]]
        nn.utils.clip_grad_norm_(weights, self.settings.clip)

    def configure_optimizers(self) -> Any:
        """Return AdamW with its groups, and the schedule that all their rates follow."""
        optimizer = torch.optim.AdamW(parameter_groups(self.network, self.settings), fused=True)
        warmup = round(self.settings.warmup * self.total_steps)
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: warmup_cosine(step, self.total_steps, warmup)
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def train(self, mode: bool = True) -> Self:
        """Switch to training mode; frozen batch norms keep their statistics."""
        super().train(mode)
        for norm in self._frozen_norms:
            norm.eval()
        return self

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the sums of an epoch that is not over."""
        checkpoint["train_sums"] = self.train_sums.state()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take the sums up again."""
        if "train_sums" in checkpoint:
            self.train_sums = Sums(*checkpoint["train_sums"])


class Sums:
    """Loss and hits, added up on the device; nothing waits for it until they are read."""

    def __init__(self, loss: float = 0.0, hits: int = 0, images: int = 0, seconds: float = 0.0) -> None:
        self._loss: Tensor | float = loss
        self._hits: Tensor | int = hits
        self.images = images
        self.seconds = seconds

    def add(self, loss: Tensor, logits: Tensor, labels: Tensor) -> None:
        """Add a batch: its mean loss, logits [N, K] and labels [N]."""
        self._loss = self._loss + loss.double() * len(labels)
        self._hits = self._hits + (logits.argmax(1) == labels).sum()
        self.images += len(labels)

    @property
    def loss(self) -> float:
        """The mean loss per image, in nats."""
        return float(self._loss) / max(self.images, 1)

    @property
    def accuracy(self) -> float:
        """The share of images that were right."""
        return int(self._hits) / max(self.images, 1)

    def state(self) -> tuple[float, int, int, float]:
        """Return plain numbers that the constructor takes."""
        return float(self._loss), int(self._hits), self.images, self.seconds


def planes(pixels: Tensor) -> Tensor:
    """Turn pixels [N, H, W, 3] in 0..255 into a network's input [N, 3, H, W] in 0..1."""
    return pixels.permute(0, 3, 1, 2).float() / 255


def warmup_cosine(step: int, total: int, warmup: int) -> float:
    """Return the factor of the learning rates at `step`: linear up to 1, then a cosine down to `FLOOR`."""
    if step < warmup:
        return (step + 1) / (warmup + 1)
    progress = min((step - warmup) / max(total - warmup, 1), 1.0)
    return FLOOR + (1 - FLOOR) * 0.5 * (1 + math.cos(math.pi * progress))


def diverged(what: str) -> GraftError:
    """Return the error of a run whose numbers are no longer finite."""
    return GraftError(
        f"training stopped: {what}. Lower --lr-branches, --lr-skips and --lr-head, or pass --precision fp32."
    )


def _mix(seed: int, step: int) -> int:
    """Return a seed for one step."""
    return int(np.random.SeedSequence([seed, step]).generate_state(1, np.uint32)[0])
