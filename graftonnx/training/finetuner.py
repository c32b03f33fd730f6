"""The network as Lightning trains it: loss, optimiser, schedule, and random numbers that know their step."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Self

import lightning.pytorch as pl
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.fx import GraphModule
from torch.optim.swa_utils import AveragedModel

from graftonnx.errors import GraftError
from graftonnx.training.augment import augment
from graftonnx.training.branches import answering_alone
from graftonnx.training.config import TrainConfig
from graftonnx.training.data import Batch
from graftonnx.training.groups import freeze, levels, parameter_groups, release
from graftonnx.training.mixing import mix
from graftonnx.training.optimisers import make_optimiser, make_schedule
from graftonnx.training.speed import Mode
from graftonnx.training.strategies import shard
from graftonnx.training.world import ALONE, World

CHECK_EVERY = 10
"""Steps between two looks at the loss; each look waits for the device."""


class Finetuner(pl.LightningModule):
    """A network, the settings it is trained with, and the sums of the running epoch.

    Every random number of a step (augmentation, dropout) comes from the seed and the number of the step, so
    that a run that was interrupted anywhere gives the same weights as one that was not.
    """

    def __init__(
        self,
        network: GraphModule,
        config: TrainConfig,
        mode: Mode,
        size: tuple[int, int],
        total_steps: int,
        classes: int,
        class_weights: Tensor | None = None,
        world: World = ALONE,
        skip_rates: Mapping[str, float] = MappingProxyType({}),
    ) -> None:
        super().__init__()
        self.network = network.to(memory_format=mode.memory_format)  # type: ignore[call-overload]
        self.mode = mode
        self.size = size
        self.settings = config
        self.total_steps = total_steps
        self.classes = classes
        self.world = world
        self.skip_rates = skip_rates
        self.class_weights: Tensor | None
        self.register_buffer("class_weights", class_weights, persistent=False)
        self._frozen_norms = self._held_norms = freeze(network, config)
        self._levels = levels(network)
        alone = answering_alone(network) if config.branch_loss else None
        taught = network if alone is None else alone
        self._compiled = (torch.compile(taught) if mode.compiled else taught,)  # no second submodule
        self.average = averaged(network, config.ema) if config.ema else None
        self.train_sums = Sums()
        self.val_sums = Sums()
        self.train()

    @property
    def result(self) -> nn.Module:
        """The network whose weights are validated and kept: their moving average, where there is one."""
        return self.network if self.average is None else self.average.module

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits [N, K] of images [N, 3, H, W] in 0..1; below them those of single branches."""
        return self._logits(self._compiled[0], images)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return the loss of a batch."""
        seed = _mix(self.settings.seed, batch.step)
        torch.manual_seed(seed + 1)
        generator = torch.Generator().manual_seed(seed)
        images = augment(planes(batch.pixels), self.size, self.settings.augment, generator, self.world)
        images, targets = self._mixed(images, batch)
        logits, *alone = self(images).split(len(images))
        loss = self._loss(logits, targets)
        self.train_sums.add(loss.detach(), logits.detach(), batch.labels)
        if alone:
            own = torch.stack([self._loss(answer, targets) for answer in alone])
            loss = loss + self.settings.branch_loss * own.mean()
        if batch.step % CHECK_EVERY == 0 and not math.isfinite(loss.item()):
            raise diverged(f"the loss is {loss.item()} in epoch {self.current_epoch + 1}")
        return loss

    def _loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Return the mean loss of logits [N, K]."""
        loss = F.cross_entropy(
            logits, targets, weight=self.class_weights, label_smoothing=self.settings.label_smoothing
        )
        if self.class_weights is not None and targets.dim() == 1:
            loss = loss * self.world.share(self.class_weights[targets].sum())  # a mean by the weights of all
        return loss

    def _mixed(self, images: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return images and targets: labels [N], or class probabilities [N, K] where images are mixed."""
        config = self.settings
        if not (config.mixup or config.cutmix):
            return images, batch.labels
        targets = F.one_hot(batch.labels, self.classes).float()
        random = np.random.default_rng([config.seed, batch.step, 1, self.world.rank])
        return mix(images, targets, config.mixup, config.cutmix, random)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Add a batch to the validation sums; in float32, which is what the exported file computes in."""
        with torch.autocast(self.device.type, enabled=False):
            logits = self._logits(self.result, planes(batch.pixels))
        self.val_sums.add(F.cross_entropy(logits, batch.labels), logits, batch.labels)

    def on_validation_epoch_start(self) -> None:
        """Forget the last epoch's validation."""
        self.val_sums = Sums()

    def _logits(self, network: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
        return network(images.contiguous(memory_format=self.mode.memory_format)).float()

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Clip the gradients; Lightning's own clipping refuses the fused optimiser."""
        if self.settings.clip:
            weights = [w for group in optimizer.param_groups for w in group["params"]]
            nn.utils.clip_grad_norm_(weights, self.settings.clip)

    def configure_model(self) -> None:
        """Share the weights out, where Lightning has made a mesh of processes for that."""
        if self.device_mesh is not None:
            shard(self.network, self.device_mesh["data_parallel"])

    def configure_optimizers(self) -> Any:
        """Return the optimiser with its groups, and the schedule that all their rates follow."""
        groups = parameter_groups(self.network, self._levels, self.settings, self.skip_rates)
        optimiser = make_optimiser(groups, self.settings)
        schedule = make_schedule(optimiser, self.settings, self.total_steps)
        return {"optimizer": optimiser, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def on_train_start(self) -> None:
        """Hold back what is not due: a run that goes on in the middle of an epoch starts here."""
        self._release()

    def on_train_epoch_start(self) -> None:
        """Release the weights that are due in this epoch."""
        self._release()

    def _release(self) -> None:
        if self.settings.unfreeze:
            held = release(self.network, self._levels, self.settings.unfreeze, self.current_epoch)
            self._held_norms = [*self._frozen_norms, *held]
            self.train()

    def optimizer_step(self, *arguments: Any, **options: Any) -> None:
        """Move the weights, and their average after them."""
        super().optimizer_step(*arguments, **options)
        if self.average is not None:
            self.average.update_parameters(self.network)

    def train(self, mode: bool = True) -> Self:
        """Switch to training mode; frozen batch norms keep their statistics."""
        super().train(mode)
        for norm in self._held_norms:
            norm.eval()
        return self

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the sums of an epoch that is not over."""
        checkpoint["train_sums"] = self.train_sums.over(self.world).state()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take the sums up again, in one of the processes."""
        if "train_sums" in checkpoint:
            sums = Sums(*checkpoint["train_sums"])
            self.train_sums = sums if self.world.leads else Sums(seconds=sums.seconds)


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

    def over(self, world: World) -> Sums:
        """Return the sums over all processes, with the time of this one."""
        loss, hits, images = world.sums(float(self._loss), int(self._hits), self.images)
        return Sums(loss, int(hits), int(images), self.seconds)

    def state(self) -> tuple[float, int, int, float]:
        """Return plain numbers that the constructor takes."""
        return float(self._loss), int(self._hits), self.images, self.seconds


def planes(pixels: Tensor) -> Tensor:
    """Turn pixels [N, H, W, 3] in 0..255 into a network's input [N, 3, H, W] in 0..1."""
    return pixels.permute(0, 3, 1, 2).float() / 255


def averaged(network: nn.Module, decay: float) -> AveragedModel:
    """Return a moving average of a network's weights and statistics, which rises to `decay` over the steps.

    The n-th step's decay is `(1 + n) / (10 + n)` at most, as in TensorFlow's `ExponentialMovingAverage`: the
    start is forgotten in short runs as well.
    """

    def move(averages: Any, weights: Any, steps: Tensor | int) -> None:
        n = int(steps)
        if averages[0].is_floating_point():
            torch._foreach_lerp_(averages, weights, 1 - min(decay, (1 + n) / (10 + n)))
        else:
            torch._foreach_copy_(averages, weights)

    average = AveragedModel(network, multi_avg_fn=torch.no_grad()(move), use_buffers=True)
    return average.requires_grad_(False)


def diverged(what: str) -> GraftError:
    """Return the error of a run whose numbers are no longer finite."""
    return GraftError(
        f"training stopped: {what}. Lower --lr-branches, --lr-skips and --lr-head, or pass --precision fp32."
    )


def _mix(seed: int, step: int) -> int:
    """Return a seed for one step."""
    return int(np.random.SeedSequence([seed, step]).generate_state(1, np.uint32)[0])
