"""What a training run is asked to do, and what came out of it. No PyTorch here."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from graftonnx import notebook
from graftonnx.metadata import Record

Augment = Literal["none", "flip", "shift", "flip-shift", "standard", "strong"]
SkipRates = Literal["scaled", "equal"]
ClassWeights = Literal["none", "balanced"]
Device = Literal["cpu", "cuda"]
Freeze = Literal["none", "norms", "branches"]
Layout = Literal["contiguous", "channels_last"]
Logger = Literal["none", "wandb", "mlflow"]
OnBadImage = Literal["error", "skip"]
Optimizer = Literal["adamw", "nadam", "sgd"]
Precision = Literal["fp32", "bf16"]
Recipe = Literal["quick", "balanced", "best"]
Schedule = Literal["cosine", "onecycle", "constant"]
Strategy = Literal["ddp", "fsdp"]

RECIPES: dict[Recipe, dict[str, Any]] = {
    "quick": {"epochs": 3, "min_steps": 60, "augment": "flip"},
    "balanced": {},
    "best": {"epochs": 24, "min_steps": 600},
}
"""What each recipe changes in the defaults of :class:`TrainConfig`; tools/RECIPES.md says why."""

RATES: dict[Optimizer, dict[str, float]] = {
    "adamw": {"lr_branches": 1e-4, "lr_skips": 1e-4, "lr_head": 3e-3},
    "nadam": {"lr_branches": 1e-4, "lr_skips": 1e-4, "lr_head": 3e-3},
    "sgd": {"lr_branches": 1e-2, "lr_skips": 1e-2, "lr_head": 1e-1},
}
"""Peak learning rates that suit each optimiser."""


MOST = {
    "epochs": 1_000_000,
    "min_steps": 1_000_000_000,
    "batch_size": 1 << 20,
    "accumulate": 1 << 20,
    "devices": 1 << 10,
    "nodes": 1 << 14,
    "workers": 1 << 10,
    "seed": (1 << 63) - 1,
}
"""The largest values of settings that ask for memory, threads, processes or time."""


class TrainConfig(Record):
    """The settings of a training run; what is not given comes from the recipe, then from the optimiser.

    Attributes:
        recipe: `balanced` is made of the defaults below; `quick` and `best` change some (:data:`RECIPES`).
        epochs: Passes over the training images.
        min_steps: Optimiser steps at least: where the epochs have fewer, there are more epochs. Epochs that
            are given are taken as they are, and this is 0 then.
        batch_size: Images per batch, over all devices; `auto` measures and takes the smallest that is nearly
            as fast as the fastest.
        accumulate: Batches whose gradients are added up for one optimiser step.
        val_fraction: Share of each class that validates, where the data comes without a `val/` folder.
        split_file: A `split.json` that says which images train and validate, instead of `val_fraction`.
        shots: Most training images of each class; 0 takes all.
        on_bad_image: Whether images that cannot be decoded end the run or are left out.
        cache_limit: Most that the decoded images may take, in memory or on the disk, in GiB.
        optimizer: AdamW ([arXiv 1711.05101](https://arxiv.org/abs/1711.05101)), NAdam with the same decay, or
            SGD with Nesterov momentum 0.9.
        lr_branches: Peak learning rate of the parents' weights.
        lr_skips: Peak learning rate of the exchanges between branches. Ten times AdamW's default lets them
            overwrite what the branches know before the head can read it.
        skip_rates: `scaled`: an exchange that reads larger numbers than it adds to learns slower by their
            ratio (:mod:`graftonnx.training.scales`); `equal`: all learn at `lr_skips`.
        lr_head: Peak learning rate of the head.
        layer_decay: Factor of a branch's learning rate from each twelfth of its depth to the one in front;
            1 is the same rate everywhere.
        weight_decay: Decay of weight matrices and kernels; biases and norms never decay.
        schedule: What the rates do after the warm-up: fall along a cosine, stay, or `onecycle`, whose
            momentum moves against the rate ([arXiv 1708.07120](https://arxiv.org/abs/1708.07120)).
        warmup: Share of all steps over which the learning rates rise.
        freeze: `branches` keeps the parents' weights and statistics as they are, `norms` those of their batch
            norms.
        restore_norm: Whether batch norms are put back where the parents' exporters folded them into a Conv;
            at the start the network computes the same.
        unfreeze: Epochs over which frozen branches are released, from the head backwards; 0: none is frozen.
        label_smoothing: Share of the target that is spread over all classes.
        branch_loss: Weight of the mean loss of the branches' own answers beside the network's
            (:mod:`graftonnx.training.branches`); 0: none. Without it the branch that learns fastest takes the
            head over. A head that joins the branches in another way than side by side or by adding them does
            without; so does `fsdp`.
        class_weights: `balanced` weighs each class by the inverse of its share of the training images.
        augment: `flip` mirrors at random; `shift` moves by up to an eighth; `flip-shift` does both, which
            suits images of a few dozen pixels; `standard` mirrors, crops and resizes, and changes colours
            slightly; `strong` mirrors, crops, resizes and adds RandAugment
            ([arXiv 1909.13719](https://arxiv.org/abs/1909.13719)).
        mixup: Parameter of mixup's Beta distribution ([arXiv 1710.09412](https://arxiv.org/abs/1710.09412));
            0: none.
        cutmix: The same for CutMix ([arXiv 1905.04899](https://arxiv.org/abs/1905.04899)). With both, each
            batch takes one of them.
        ema: Decay, per step, of an exponential moving average of the weights, which is what validates and
            what is kept; 0: none.
        clip: Largest norm of the gradient of all weights together; 0: none.
        patience: Epochs without a better validation accuracy after which training stops; 0: it never does.
        val_every: Epochs from one validation to the next; the last epoch always validates. With as many
            as there are, the last weights are kept, not those that do best on the validation images.
        save_every: Seconds after which everything is saved, also in the middle of an epoch.
        precision: `auto` measures a few steps and takes the fastest.
        layout: Order of a feature map's elements in memory; `auto` measures as well.
        compile: Whether the network is compiled (`torch.compile`); `auto` does where a GPU trains.
        device: `auto` takes CUDA where there is a GPU.
        devices: Processes that train together on each node, with a GPU each where a GPU trains.
        nodes: Machines that train together.
        strategy: `ddp` keeps the whole network in each process; `fsdp` shares weights, gradients and the
            optimiser's state out among them (FSDP2).
        workers: Threads that decode images; 0 means one per core.
        logger: A tracker that gets the figures of each epoch; TensorBoard's files are always written.
        seed: Of the split, the order of the images, augmentation and dropout.
    """

    recipe: Recipe = "balanced"
    epochs: int = Field(default=8, ge=1, le=MOST["epochs"])
    min_steps: int = Field(default=200, ge=0, le=MOST["min_steps"])
    batch_size: int | Literal["auto"] = Field(default=32)
    accumulate: int = Field(default=1, ge=1, le=MOST["accumulate"])
    val_fraction: float = Field(default=0.2, gt=0, lt=1)
    split_file: Path | None = None
    shots: int = Field(default=0, ge=0)
    on_bad_image: OnBadImage = "error"
    cache_limit: float = Field(default=64.0, gt=0)
    optimizer: Optimizer = "adamw"
    lr_branches: float = Field(default=RATES["adamw"]["lr_branches"], ge=0)
    lr_skips: float = Field(default=RATES["adamw"]["lr_skips"], ge=0)
    lr_head: float = Field(default=RATES["adamw"]["lr_head"], ge=0)
    skip_rates: SkipRates = "scaled"
    layer_decay: float = Field(default=1.0, gt=0, le=1)
    weight_decay: float = Field(default=0.02, ge=0)
    schedule: Schedule = "cosine"
    warmup: float = Field(default=0.1, ge=0, lt=1)
    freeze: Freeze = "none"
    restore_norm: bool = False
    unfreeze: int = Field(default=0, ge=0)
    label_smoothing: float = Field(default=0.1, ge=0, lt=1)
    branch_loss: float = Field(default=1.0, ge=0)
    class_weights: ClassWeights = "none"
    augment: Augment = "standard"
    mixup: float = Field(default=0.0, ge=0)
    cutmix: float = Field(default=0.0, ge=0)
    ema: float = Field(default=0.0, ge=0, lt=1)
    clip: float = Field(default=1.0, ge=0)
    patience: int = Field(default=0, ge=0)
    val_every: int = Field(default=1, ge=1)
    save_every: float = Field(default=300.0, ge=0)
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    layout: Literal["auto", "contiguous", "channels_last"] = "auto"
    compile: Literal["auto", "yes", "no"] = "auto"
    device: Literal["auto", "cpu", "cuda"] = "auto"
    devices: int = Field(default=1, ge=1, le=MOST["devices"])
    nodes: int = Field(default=1, ge=1, le=MOST["nodes"])
    strategy: Strategy = "ddp"
    workers: int = Field(default=0, ge=0, le=MOST["workers"])
    logger: Logger = "none"
    seed: int = Field(default=0, ge=0, le=MOST["seed"])

    @model_validator(mode="before")
    @classmethod
    def _fill(cls, given: Any) -> Any:
        """Fill in what the recipe and the optimiser say and the caller does not."""
        if not isinstance(given, dict):
            return given
        filled = {**_said_of(given.get("recipe", "balanced"), RECIPES), **given}
        if "epochs" in given and "min_steps" not in given:
            filled["min_steps"] = 0
        if filled.get("strategy") == "fsdp":
            filled.setdefault("branch_loss", 0.0)
        return {**_said_of(filled.get("optimizer", "adamw"), RATES), **filled}

    @model_validator(mode="after")
    def _check(self) -> TrainConfig:
        if self.batch_size != "auto" and not 1 <= self.batch_size <= MOST["batch_size"]:
            raise ValueError(
                f"batch_size (={self.batch_size}) must be from 1 to {MOST['batch_size']:,}, or 'auto'"
            )
        if self.unfreeze and self.freeze == "branches":
            raise ValueError("unfreeze releases the branches that freeze='branches' keeps: give one of them")
        if self.strategy == "fsdp":
            taken = {
                "ema": self.ema,
                "unfreeze": self.unfreeze,
                "compile": self.compile == "yes",
                "branch_loss": self.branch_loss,
            }
            for name in (name for name, value in taken.items() if value):
                raise ValueError(f"{name} cannot be had with strategy='fsdp': take 'ddp', or leave it away")
        return self


def _said_of(name: object, table: Mapping[Any, dict[str, Any]]) -> dict[str, Any]:
    """Return what a table says of a name; nothing of what is none."""
    return table.get(name, {}) if isinstance(name, str) else {}


class TrainResult(Record):
    """What a finished run has to show.

    Attributes:
        run: The run folder.
        model: The trained ONNX file.
        labels: Class names in the order of the logits.
        epochs: Epochs that were run, over all resumptions.
        best_epoch: The epoch whose weights are in `model`, counted from 1.
        val_images: Number of validation images.
        val_accuracy: Share of them that ONNX Runtime, running `model`, gets right.
        val_accuracy_torch: The same by the PyTorch module; the two agree within 0.1 %.
        val_loss: Mean cross-entropy of the best epoch, in nats.
        seconds: Time spent in epochs, validation included, over all resumptions.
        images_per_second: Training images per second of training, validation excluded.
        device: Where it ran.
        precision: What it ran in.
        layout: Order of a feature map's elements in memory.
    """

    run: Path
    model: Path
    labels: tuple[str, ...]
    epochs: int
    best_epoch: int
    val_images: int
    val_accuracy: float
    val_accuracy_torch: float
    val_loss: float
    seconds: float
    images_per_second: float
    device: Device
    precision: Precision
    layout: Layout

    def summary(self) -> tuple[tuple[str, str], ...]:
        """Return names and values for people."""
        return (
            ("model", str(self.model)),
            ("validation accuracy", f"{self.val_accuracy:.2%} of {self.val_images} images (ONNX Runtime)"),
            ("", f"{self.val_accuracy_torch:.2%} (PyTorch)"),
            ("best epoch", f"{self.best_epoch} of {self.epochs}"),
            ("time", f"{self.seconds:.0f} s, {self.images_per_second:.0f} training images/s"),
            ("trained on", f"{self.device}, {self.precision}, {self.layout}"),
        )

    def _repr_html_(self) -> str:
        """Return the summary as a table, for notebooks."""
        return notebook.table(self.summary(), caption=str(self.run))
