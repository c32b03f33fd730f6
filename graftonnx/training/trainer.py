"""A training run, from an ONNX file and images to a trained ONNX file, and how to take it up again."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import lightning.pytorch as pl
import torch
from rich.progress import Progress

from graftonnx.data import survey
from graftonnx.data.cache import Images, Loaded, load
from graftonnx.data.opening import is_there, open_data
from graftonnx.data.splits import read_split
from graftonnx.errors import DataError, GraftError
from graftonnx.model import save
from graftonnx.training.augment import stored_size
from graftonnx.training.checkpoints import (
    MISFITS,
    AtomicCheckpoints,
    Keeper,
    Stopped,
    damaged,
    load_weights,
)
from graftonnx.training.config import Logger, TrainConfig, TrainResult
from graftonnx.training.data import TrainBatches, ValBatches, class_weights
from graftonnx.training.finetuner import Finetuner
from graftonnx.training.history import Epoch, best_of, write_curves, write_metrics
from graftonnx.training.interrupt import Interrupted, stop_requests
from graftonnx.training.loggers import EpochLog
from graftonnx.training.memory import memory_errors
from graftonnx.training.outcome import export, learnt_nothing
from graftonnx.training.progress import EpochBar, bars, counting, silence
from graftonnx.training.report import write_report
from graftonnx.training.run import RunFolder, check_asked, to_resume
from graftonnx.training.sharing import share_images
from graftonnx.training.source import check_record, listed, open_source
from graftonnx.training.speed import (
    Mode,
    choose_device,
    compile_errors,
    forked_random,
)
from graftonnx.training.starting import Note, Start, prepare
from graftonnx.training.strategies import make_strategy
from graftonnx.training.synchronised import synchronise
from graftonnx.training.world import World, join, peer_errors

_log = logging.getLogger(__name__)


def train(
    source: str | Path,
    data: str | Path,
    output: str | Path,
    config: TrainConfig | None = None,
    *,
    force: bool = False,
    progress: bool = False,
    note: Note = _log.info,
) -> TrainResult:
    """Fine-tune a fused network on labelled images.

    Under `torchrun` all processes call this with the same arguments; the first decides, writes and remarks.

    Args:
        source: What :func:`graftonnx.fuse` wrote.
        data: Labelled images, as :func:`graftonnx.data.opening.open_data` takes them.
        output: The run folder to make.
        config: The settings.
        force: Whether a run that is already in `output` may be replaced.
        progress: Whether to show progress bars on stderr, if that is a terminal.
        note: Called with each remark for a person.

    Returns:
        The result; the trained network is in its `model`.

    Raises:
        ModelError: If the network cannot be read or is not a fused one.
        DataError: If the images cannot be used.
        GraftError: If `output` cannot be written, training diverges, or there are other processes than
            `config` wants.
        ParityError: If ONNX Runtime does not confirm the trained network.
        RuntimeProviderError: If CUDA is asked for and there is none.
        Interrupted: On SIGINT, SIGTERM or SIGHUP, after everything has been saved.
    """
    config = config or TrainConfig()
    run = RunFolder(Path(output))
    resuming = f"graftonnx train {to_resume(run.path, data, config.logger)}"
    world = join(config.device, config.devices, config.nodes)
    config = config.model_copy(update={"devices": world.local_size, "nodes": world.size // world.local_size})
    note = note if world.leads else _keep_silent
    with peer_errors(world, resuming):
        start = world.once(lambda: prepare(run, Path(source), data, config, force, world, note))

        def begin(loaded: Loaded) -> None:
            for remark in survey.remarks(loaded):
                note(remark)
            record = start.record
            first = start.source.model if config.restore_norm else None
            run.create(record, loaded.split.to_json(), survey.to_json(record.data, loaded), first)

        return _go(run, start, world, progress, note, begin=begin)


def resume(
    run: str | Path,
    *,
    data: str | Path | None = None,
    logger: Logger | None = None,
    progress: bool = False,
    note: Note = _log.info,
) -> TrainResult:
    """Go on with a run that was interrupted, with the settings it was started with.

    What opens a connection, data on the hub or a tracker, must be said again: the run may be a stranger's.

    The weights become those of an uninterrupted run, but for rounding where another number of processes goes
    on. A run that has ended gets its `model.onnx` again.

    Args:
        run: The run folder.
        data: Where the data is now, if it has moved or is on the hub.
        logger: Where the figures of each epoch are sent, if the run has a tracker.
        progress: As in :func:`train`.
        note: As in :func:`train`.

    Raises:
        GraftError: As :func:`train`; also if the folder holds no run, its source has changed, or it would
            open a connection that was not asked for.
    """
    folder = RunFolder(Path(run))
    record = folder.read()
    check_asked(folder.path, record, data, logger)
    if logger is not None:
        config = record.config.model_copy(update={"logger": logger})
        record = record.model_copy(update={"config": config})
    world = join(record.config.device)
    world.check_batch(record.config.batch_size, is_resumed=True)
    if world.leads:
        with folder.alone():
            folder.sweep()
    if data is not None:
        record = record.model_copy(update={"data": str(data)})
    opened = open_source(record.source)
    if opened.sha256 != record.source_sha256:
        raise GraftError(
            f"cannot resume '{run}': '{record.source}' has changed since the run began. "
            "Bring the file back, or start a new run."
        )
    check_record(folder.path, record, opened, "resume")
    if not is_there(record.data):
        raise DataError(
            f"cannot resume '{run}': its data '{record.data}' is gone. Say where it is with --data."
        )
    images = open_data(record.data)
    parts = read_split(folder.split, images)
    if parts.classes != record.labels:
        raise GraftError(
            f"cannot resume '{run}': its config.yaml says the labels {listed(record.labels)}, its split.json "
            f"{listed(parts.classes)}. Bring the files back, or start a new run."
        )
    if choose_device(record.config.device) != record.device:
        raise GraftError(
            f"cannot resume '{run}': it ran on {record.device}, which is not what this machine would take. "
            "Resume it where it began."
        )
    if record.config.restore_norm:
        opened = replace(opened, model=open_source(folder.start).model)
    start = Start(record, opened, parts)
    start.images = images
    with peer_errors(world, f"graftonnx train {folder.resuming}"):
        return _go(folder, start, world, progress, note if world.leads else _keep_silent)


def _go(
    run: RunFolder,
    start: Start,
    world: World,
    progress: bool,
    note: Note,
    *,
    begin: Callable[[Loaded], None] | None = None,
) -> TrainResult:
    """Decode the images, train from the last checkpoint if there is one, and write the best epoch.

    `begin` is called when nothing but the training itself can fail any more: it replaces an earlier run. A
    run without it is resumed: its images could be decoded before.
    """
    record = start.record
    config = record.config

    def decode() -> Loaded:
        total = len(start.parts.train) + len(start.parts.val)
        with counting(shown, "decoding images", total) as tick:
            return load(
                start.images,
                start.parts,
                stored_size(start.source.size, config.augment),
                start.source.size,
                folder=run.path,
                skip_bad=config.on_bad_image == "skip" and begin is not None,
                cache_limit=config.cache_limit,
                workers=config.workers,
                on_image=tick,
            )

    with (
        bars(visible=progress and world.leads) as shown,
        forked_random(record.device),
        run.reserved() if world.leads else nullcontext(),
    ):
        world.barrier()
        loaded = share_images(world, decode, run.path)
        if begin is not None:
            world.once(lambda: begin(loaded))
        epochs = _fit(run, start, world, loaded.train, loaded.val, shown, note)
        return world.once(lambda: _finish(run, start, world, epochs, loaded, note))


def _finish(
    run: RunFolder, start: Start, world: World, epochs: list[Epoch], loaded: Loaded, note: Note
) -> TrainResult:
    """Write the best epoch, and return what the run has to show."""
    record = start.record
    config = record.config
    write_curves(run.curves, epochs)
    network = start.network if world.size == 1 else start.fresh_network()
    load_weights(network, run.best)
    assert config.batch_size != "auto"
    outcome = export(network, record.labels, loaded.val, config.batch_size, record.device)
    save(outcome.model, run.model, force=True)
    remark = learnt_nothing(outcome.accuracy, loaded.val.labels, config)
    if remark is not None:
        note(remark)
    write_report(run, record, loaded.val, [sample.name for sample in loaded.split.val], note)
    best = best_of(epochs)
    seconds = sum(row.train_seconds for row in epochs)
    return TrainResult(
        run=run.path,
        model=run.model,
        labels=record.labels,
        epochs=epochs[-1].epoch,
        best_epoch=best.epoch,
        val_images=len(loaded.val.labels),
        val_accuracy=outcome.accuracy,
        val_accuracy_torch=outcome.accuracy_torch,
        val_loss=best.val_loss,
        seconds=sum(row.seconds for row in epochs),
        images_per_second=sum(row.train_seconds * row.images_per_second for row in epochs) / seconds,
        device=record.device,
        precision=record.precision,
        layout=record.layout,
    )


def _fit(
    run: RunFolder,
    start: Start,
    world: World,
    train_images: Images,
    val_images: Images,
    shown: Progress,
    note: Note,
) -> list[Epoch]:
    """Run Lightning's loop over what is left of the epochs, and return the record of all of them."""
    record, network = start.record, start.network
    config = record.config
    assert config.batch_size != "auto"
    if world.size > 1:
        synchronise(network, world, record.device)
    batches = TrainBatches(train_images, config.batch_size, config.seed, world)
    mode = Mode(record.precision, record.layout, record.compiled)
    steps = config.epochs * -(-len(batches) // config.accumulate)
    classes = len(record.labels)
    balance = class_weights(train_images.labels, classes) if config.class_weights == "balanced" else None
    finetuner = Finetuner(
        network, config, mode, record.input_size, steps, classes, balance, world, record.skip_rates
    )
    with silence(), stop_requests() as request, compile_errors(), memory_errors(config.batch_size):
        keeper = Keeper(run, batches, config, request, note, world)
        logs = [EpochLog(run, config, keeper, note)] if world.leads else []
        trainer = pl.Trainer(
            accelerator="gpu" if record.device == "cuda" else "cpu",
            devices=world.local_size,
            num_nodes=world.size // world.local_size,
            strategy=make_strategy(world, config),
            precision="bf16-mixed" if mode.precision == "bf16" else "32-true",
            max_epochs=config.epochs,
            accumulate_grad_batches=config.accumulate,
            callbacks=[keeper, *logs, EpochBar(shown)],
            plugins=[AtomicCheckpoints()],
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            use_distributed_sampler=False,
            default_root_dir=run.path,
        )
        checkpoint = run.last if run.last.is_file() else None
        try:
            trainer.fit(
                finetuner,
                batches,
                ValBatches(val_images, config.batch_size, world),
                ckpt_path=checkpoint,
                weights_only=True,
            )
        except MISFITS as error:
            if checkpoint is None or keeper.has_begun or isinstance(error, torch.OutOfMemoryError):
                raise
            raise damaged(checkpoint, error) from error
        except SystemExit as exit:
            raise KeyboardInterrupt from exit  # Lightning's answer to a second Ctrl-C
        except Stopped:
            epoch = trainer.current_epoch + 1
            if keeper.epochs and world.leads:
                write_curves(run.curves, keeper.epochs)
            assert request.signal is not None
            raise Interrupted(run.path, epoch, request.signal) from None
    if world.leads:
        write_metrics(run.metrics, keeper.epochs)
    return keeper.epochs


def _keep_silent(remark: str) -> None:
    """Leave the remarks to the leader."""
