"""What a training run is asked to do, and what came out of it. No PyTorch here."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from graftonnx.metadata import Record

Augment = Literal["none", "flip", "standard"]
Precision = Literal["fp32", "bf16"]
Layout = Literal["contiguous", "channels_last"]
Logger = Literal["none", "wandb", "mlflow"]
Device = Literal["cpu", "cuda"]


class TrainConfig(Record):
    """The settings of a training run.

    Attributes:
        epochs: Passes over the training images.
        batch_size: Images per optimiser step.
        val_fraction: Share of each class that validates, where the data comes without a `val/` folder.
        lr_branches: Peak learning rate of the parents' weights.
        lr_skips: Peak learning rate of the exchanges between branches. Ten times the default lets them
            overwrite what the branches know before the head can read it.
        lr_head: Peak learning rate of the head.
        weight_decay: AdamW's decay of weight matrices and kernels; biases and norms never decay.
        label_smoothing: Share of the target that is spread over all classes.
        augment: `flip` mirrors at random; `standard` adds random resized crops and slight colour changes.
        freeze: `branches` keeps the parents' weights and statistics as they are.
        warmup: Share of all steps over which the learning rates rise; they fall along a cosine after it.
        clip: Largest norm of the gradient of all weights together.
        precision: `auto` measures a few steps and takes the fastest.
        layout: Order of a feature map's elements in memory; `auto` measures as well.
        device: `auto` takes CUDA where there is a GPU.
        workers: Threads that decode images; 0 means one per core.
        logger: A tracker that gets the figures of each epoch as well; TensorBoard's files are always written.
        seed: Of the split, the order of the images, augmentation and dropout.
    """

    epochs: int = Field(default=8, ge=1)
    batch_size: int = Field(default=32, ge=1)
    val_fraction: float = Field(default=0.2, gt=0, lt=1)
    lr_branches: float = Field(default=1e-4, ge=0)
    lr_skips: float = Field(default=1e-4, ge=0)
    lr_head: float = Field(default=1e-3, ge=0)
    weight_decay: float = Field(default=0.02, ge=0)
    label_smoothing: float = Field(default=0.1, ge=0, lt=1)
    augment: Augment = "standard"
    freeze: Literal["none", "branches"] = "none"
    warmup: float = Field(default=0.1, ge=0, lt=1)
    clip: float = Field(default=1.0, gt=0)
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    layout: Literal["auto", "contiguous", "channels_last"] = "auto"
    device: Literal["auto", "cpu", "cuda"] = "auto"
    workers: int = Field(default=0, ge=0)
    logger: Logger = "none"
    seed: int = Field(default=0, ge=0)


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
