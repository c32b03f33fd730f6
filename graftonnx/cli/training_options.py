"""The options of commands that train: one for each field of :class:`TrainConfig`, in groups."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args

import click
from pydantic import ValidationError

from graftonnx.cli.parameters import Choice, FloatRange, IntRange, Seed, number_from_one
from graftonnx.training import config
from graftonnx.training.config import RATES, RECIPES, TrainConfig

F = TypeVar("F", bound=Callable[..., Any])
DEFAULTS = TrainConfig()
RATE = FloatRange(min=0)
SHARE = FloatRange(0, 1, max_open=True)
COUNT = IntRange(min=1)
SPLIT: click.Path = click.Path(dir_okay=False, path_type=Path)


class BatchSize(click.ParamType[int | str]):
    """A number from 1 on, or `auto`."""

    name = "N|auto"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> int | Literal["auto"]:
        """Return the number, or `auto`."""
        if value == "auto":
            return "auto"
        number = number_from_one(str(value))
        if number is None:
            self.fail(f"{value!r} is not a batch size; give a number from 1 on, or auto.", param, ctx)
        return number


def _choice(alias: object) -> Choice:
    return Choice(get_args(alias))


def _auto(alias: object) -> Choice:
    return Choice(["auto", *get_args(alias)])


SETTINGS: dict[str, tuple[tuple[str, click.ParamType[Any], str], ...]] = {
    "Recipe": (
        ("recipe", _choice(config.Recipe), "Source of the defaults."),
        ("epochs", COUNT, "Passes over the training images."),
        ("min_steps", IntRange(min=0), "Optimiser steps at least, by more epochs, without --epochs."),
        ("batch_size", BatchSize(), "Images per batch, over all devices."),
        ("accumulate", COUNT, "Batches per optimiser step."),
        ("val_every", COUNT, "Epochs from one validation to the next."),
        ("patience", IntRange(min=0), "Stop after so many epochs that are no better."),
        ("save_every", RATE, "Seconds between checkpoints within an epoch."),
        ("seed", Seed(), "Of split, order, augmentation and dropout."),
    ),
    "Learning": (
        ("optimizer", _choice(config.Optimizer), "What moves the weights."),
        ("lr_branches", RATE, "Peak learning rate of the parents' weights."),
        ("lr_skips", RATE, "Peak learning rate of the exchanges."),
        ("skip_rates", _choice(config.SkipRates), "Whether skips of large numbers learn slower."),
        ("lr_head", RATE, "Peak learning rate of the head."),
        ("layer_decay", FloatRange(0, 1, min_open=True), "Factor of the rate per twelfth of depth."),
        ("schedule", _choice(config.Schedule), "How the rates go after their rise."),
        ("warmup", SHARE, "Share of the steps over which the rates rise."),
        ("weight_decay", RATE, "Decay of kernels and matrices."),
        ("clip", RATE, "Largest norm of the gradient."),
        ("ema", SHARE, "Decay of an average of the weights."),
    ),
    "Freezing": (
        ("freeze", _choice(config.Freeze), "What of the parents stays as it is."),
        ("unfreeze", IntRange(min=0), "Release frozen branches over so many epochs."),
        ("restore_norm", click.BOOL, "Put back folded batch norms."),
    ),
    "Data": (
        ("val_fraction", FloatRange(0, 1, True, True), "Share that validates, without val/."),
        ("split_file", SPLIT, "A split.json that says what trains and validates."),
        ("shots", IntRange(min=0), "Training images of each class; 0: all."),
        ("on_bad_image", _choice(config.OnBadImage), "What an undecodable image does."),
        ("cache_limit", FloatRange(0, min_open=True), "Most that decoded images take, in GiB."),
    ),
    "Images and targets": (
        ("augment", _choice(config.Augment), "Random changes of images."),
        ("mixup", RATE, "Beta parameter of mixup."),
        ("cutmix", RATE, "Beta parameter of CutMix."),
        ("label_smoothing", SHARE, "Share of the target spread over all classes."),
        ("branch_loss", RATE, "Weight of the loss of each branch's own answer."),
        ("class_weights", _choice(config.ClassWeights), "What classes weigh."),
    ),
    "Machine": (
        ("device", _auto(config.Device), "Where to train."),
        ("precision", _auto(config.Precision), "Number format."),
        ("layout", _auto(config.Layout), "Memory order."),
        ("compile", Choice(["auto", "yes", "no"]), "Whether to use torch.compile."),
        ("devices", COUNT, "Processes per node."),
        ("nodes", COUNT, "Machines."),
        ("strategy", _choice(config.Strategy), "How devices share the work."),
        ("workers", IntRange(min=0), "Decoding threads; 0: all."),
        ("logger", _choice(config.Logger), "Where epochs are sent."),
    ),
}
"""Panel -> field, type and help of each option."""


def training_options(command: F) -> F:
    """Add an option for every setting, with its defaults in brackets; those that are not given are None."""
    for panel in reversed(SETTINGS.values()):
        for field, kind, text in reversed(panel):
            name = f"--{field.replace('_', '-')}"
            if isinstance(kind, Choice):
                text = f"{text[:-1]}: {', '.join(kind.choices)}."
            text = f"{text} [{_default(field)}]"
            shape = {"is_flag": True, "default": None} if kind is click.BOOL else {"metavar": _metavar(kind)}
            command = click.option(name, type=kind, help=text, **shape)(command)
    return command


def config_of(settings: dict[str, Any]) -> TrainConfig:
    """Return the settings of a run from the options that were given.

    Raises:
        click.UsageError: If they do not go together.
    """
    try:
        return TrainConfig(**{name: value for name, value in settings.items() if value is not None})
    except ValidationError as error:
        first = error.errors()[0]
        if first["type"] == "value_error":
            raise click.UsageError(f"{first['ctx']['error']}.") from error
        name = str(first["loc"][0]).replace("_", "-")
        raise click.BadParameter(
            f"{first['msg']} (found {first['input']}).", param_hint=f"'--{name}'"
        ) from error


def panels() -> dict[str, list[str]]:
    """Return the options of each panel of the help."""
    return {
        title: [f"--{field.replace('_', '-')}" for field, _, _ in fields]
        for title, fields in SETTINGS.items()
    }


def _metavar(kind: click.ParamType[Any]) -> str | None:
    """Return a short name for numbers, whose range the help would spell out."""
    return {IntRange: "N", Seed: "N", FloatRange: "X", Choice: "NAME"}.get(type(kind))


def _default(field: str) -> str:
    """Return a default in words, with those of other recipes and optimisers where they differ."""
    tables: tuple[dict[Any, dict[str, Any]], ...] = (RECIPES, RATES)
    own = getattr(DEFAULTS, field)
    if own is None or own is False:
        return "none" if own is None else "no"
    others = {n: t[n][field] for t in tables for n in t if t[n].get(field, own) != own}
    shown = [own, *(f"{name} {value}" for name, value in others.items())]
    return ", ".join(f"{value:g}" if isinstance(value, float) else str(value) for value in shown)
