"""What a run starts from: everything is checked and decided before the first step."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch.fx import GraphModule

from graftonnx.conversion import to_torch
from graftonnx.data import survey
from graftonnx.data.cache import BadImage, bad_images, decode_samples
from graftonnx.data.catalogue import Data
from graftonnx.data.opening import absolute, open_data
from graftonnx.data.splits import Split, read_split, split
from graftonnx.renormalisation import restore_norms
from graftonnx.training.branches import answering_alone
from graftonnx.training.config import Device, TrainConfig
from graftonnx.training.groups import group_of
from graftonnx.training.inputs import share_image
from graftonnx.training.loggers import check_logger
from graftonnx.training.memory import check_room, free_bytes, step_bytes
from graftonnx.training.run import RunFolder, RunRecord, versions
from graftonnx.training.scales import skip_rates
from graftonnx.training.source import Source, labels_for, open_source
from graftonnx.training.speed import Mode, choose_batch_size, choose_device, choose_mode
from graftonnx.training.world import World

Note = Callable[[str], object]
"""What to do with a remark for a person."""

NORM_IMAGES = 256
"""Training images whose statistics restored batch norms start with."""

SCALE_IMAGES = 32
"""Training images by which the skips' learning rates are measured."""


@dataclass
class Start:
    """What a run starts from, in each of the processes that train.

    Attributes:
        record: The settings, and what was decided.
        source: The network's file.
        parts: The images that train and validate.
    """

    record: RunRecord
    source: Source
    parts: Split

    @cached_property
    def images(self) -> Data:
        """The labelled images."""
        return open_data(self.record.data)

    @cached_property
    def network(self) -> GraphModule:
        """The module that is trained."""
        return self.fresh_network()

    def fresh_network(self) -> GraphModule:
        """Return another module with the weights of the file."""
        module = share_image(to_torch(self.source.model), self.source.shapes)
        return module.to(self.record.device)

    def __reduce__(self) -> Any:
        """Send no more to other processes than they need to make the rest."""
        return Start, (self.record, self.source, self.parts)


def prepare(
    run: RunFolder,
    source: Path,
    data: str | Path,
    config: TrainConfig,
    force: bool,
    world: World,
    note: Note,
) -> Start:
    """Check everything that can be checked, and decide everything that is left open."""
    run.check(source, force=force)
    world.check_batch(config.batch_size)
    check_logger(config.logger)
    opened = open_source(source)
    images = open_data(data)
    parts = _choose(images, config, note)
    labels = labels_for(opened, parts.classes, images.where)
    parts = parts.reordered(labels)
    device = choose_device(config.device)
    if config.restore_norm:
        opened = _with_norms(opened, images, parts, config, note)
    network: GraphModule = share_image(to_torch(opened.model), opened.shapes).to(device)
    config = _with_branch_loss(config, opened, network, note)
    rates: dict[str, float] = {}
    if config.skip_rates == "scaled" and any(
        group_of(key) == "skips" for key, _ in network.named_parameters()
    ):
        rates = skip_rates(network, _sample(opened, images, parts, config, SCALE_IMAGES), config)
    mode, measured = choose_mode(network, opened.size, config, device)
    config, tried, needed = _with_batch_size(
        config, network, opened.size, mode, device, len(parts.train), world
    )
    config = _with_epochs(config, len(parts.train), note)
    record = RunRecord(
        source=opened.path.resolve(),
        source_sha256=opened.sha256,
        data=absolute(images.where),
        labels=labels,
        images={"train": len(parts.train), "val": len(parts.val), "test": len(parts.test)},
        input_size=opened.size,
        config=config,
        device=device,
        precision=mode.precision,
        layout=mode.layout,
        compiled=mode.compiled,
        skip_rates=rates,
        measured={**measured, **tried},
        versions=versions(),
    )
    note(f"{_described(record)}\na step takes {_gibibytes(needed)} GiB of memory")
    start = Start(record, opened, parts)
    start.images, start.network = images, network
    return start


def _gibibytes(size: int) -> str:
    """Return a number of bytes in GiB, in words."""
    return f"about {size / 2**30:.1f}" if size >= 2**30 / 10 else "less than 0.1"


def _with_norms(source: Source, images: Data, parts: Split, config: TrainConfig, note: Note) -> Source:
    """Return the source with batch norms that fit a sample of the training images.

    Raises:
        DataError: If none of them can be decoded.
    """
    pixels = _sample(source, images, parts, config, NORM_IMAGES)
    model, added = restore_norms(source.model, pixels)
    note(f"batch norms put back: {added}, by the statistics of {len(pixels)} training images")
    return replace(source, model=model)


def _sample(source: Source, images: Data, parts: Split, config: TrainConfig, count: int) -> NDArray[np.uint8]:
    """Return some training images, spread over all classes: uint8 [N, H, W, 3].

    Raises:
        DataError: If none of them can be decoded.
    """
    count = min(len(parts.train), count)
    sample = [parts.train[i * len(parts.train) // count] for i in range(count)]
    decoded = sorted(decode_samples(images, sample, source.size, config.workers), key=lambda d: d.position)
    pixels = [image.pixels for image in decoded if image.pixels is not None]
    if not pixels:
        bad = [BadImage(sample[image.position].name, image.reason) for image in decoded]
        raise bad_images(images.where, bad, count)
    return np.stack(pixels)


def _with_branch_loss(config: TrainConfig, source: Source, network: GraphModule, note: Note) -> TrainConfig:
    """Return the settings without the branches' own loss where the head cannot be asked for their answers."""
    if not config.branch_loss or len(source.metadata.parents) < 2:
        return config
    head = source.metadata.head
    if head is not None and head.kind != "file" and answering_alone(network) is not None:
        return config
    kind = "another" if head is None else "your own" if head.kind == "file" else f"the '{head.kind}'"
    if "branch_loss" in config.model_fields_set:
        note(
            "no branch answers alone: that takes a head that joins features side by side or adds them, and "
            f"this is {kind} one; --branch-loss does nothing"
        )
    return config.model_copy(update={"branch_loss": 0.0})


def _with_batch_size(
    config: TrainConfig,
    network: GraphModule,
    size: tuple[int, int],
    mode: Mode,
    device: Device,
    images: int,
    world: World,
) -> tuple[TrainConfig, dict[str, float], int]:
    """Return the settings with a number for the batch size, what was measured for it, and the bytes it takes.

    Raises:
        GraftError: If a step does not fit.
    """
    free = free_bytes(device) or math.inf
    sharers = world.local_size if device == "cpu" else 1

    def needed(batch: int) -> int:
        return sharers * step_bytes(network, size, min(batch, images) // world.size, mode, config)

    measured: dict[str, float] = {}
    chosen = config.batch_size
    if chosen == "auto":
        chosen, measured = choose_batch_size(
            network, size, mode, device, images // world.size, lambda n: needed(n * world.size) <= free
        )
        chosen *= world.size
    wanted = needed(chosen)
    check_room(wanted, device, chosen)
    return config.model_copy(update={"batch_size": chosen}), measured, wanted


def _with_epochs(config: TrainConfig, images: int, note: Note) -> TrainConfig:
    """Return the settings with as many epochs as the least number of steps takes."""
    assert config.batch_size != "auto"
    steps = math.ceil(images / (config.batch_size * config.accumulate))
    epochs = math.ceil(config.min_steps / steps)
    if epochs <= config.epochs:
        return config
    note(
        f"{images} images are few: {epochs} epochs instead of {config.epochs}, for {config.min_steps} steps; "
        "--epochs says otherwise"
    )
    return config.model_copy(update={"epochs": epochs})


def _choose(data: Data, config: TrainConfig, note: Note) -> Split:
    """Choose the images that train and validate: as a file says, or by the seed."""
    if config.split_file is not None:
        parts = read_split(config.split_file, data)
    else:
        parts = split(data, config.val_fraction, config.seed)
    if config.shots:
        remark = survey.few(parts, config.shots)
        if remark is not None:
            note(remark)
        parts = parts.few_shot(config.shots, config.seed)
    return parts


def _described(record: RunRecord) -> str:
    """Return in one line what is about to be trained, and how fast the alternatives were."""
    times = ", ".join(f"{name} {1e3 * seconds:.1f}" for name, seconds in record.measured.items())
    why = f" (measured, ms per image: {times})" if times else ""
    settings = ", ".join(f"{name} {value}" for name, value in record.config.model_dump().items())
    return (
        f"{record.images['train']} images to train, {record.images['val']} to validate, "
        f"{len(record.labels)} classes; {record.device}, {record.precision} {record.layout}{why}\n"
        f"settings: {settings}"
    )
