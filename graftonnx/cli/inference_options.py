"""Options that mean the same in every command that runs a network."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from graftonnx.cli import console
from graftonnx.cli.parameters import MOST_THREADS, Choice, Convention, FloatRange, IntRange
from graftonnx.providers import PROVIDERS
from graftonnx.providers.settings import Settings

if TYPE_CHECKING:
    from graftonnx.runtime import Session

F = TypeVar("F", bound=Callable[..., Any])


class KeyValue(click.ParamType[tuple[str, str]]):
    """`use_tf32=1`."""

    name = "KEY=VALUE"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, str]:
        """Return both parts."""
        key, sign, text = str(value).partition("=")
        if not key or not sign:
            self.fail(f"{value!r} is no option; give KEY=VALUE, as use_tf32=1.", param, ctx)
        return key, text


def preprocess_option(function: F) -> F:
    """Add `--preprocess`."""
    return click.option(
        "--preprocess",
        type=Convention(),
        help="What the input expects, for a file that was not made by graftonnx: imagenet, inception, caffe, "
        "unit, raw, or numbers as bgr,scale=255,mean=104:117:123,std=1.",
    )(function)


def provider_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add `--provider` and what it is told; the command gets `provider` and `settings`."""

    @functools.wraps(function)
    def command(
        *args: Any,
        provider_option: tuple[tuple[str, str], ...],
        cache: Path | None,
        min_coverage: float,
        **kwargs: Any,
    ) -> Any:
        size = kwargs.get("batch_size")
        settings = Settings(
            options=dict(provider_option),
            cache=cache,
            batches=(1, size) if size else (),
            min_coverage=min_coverage / 100,
        )
        return function(*args, settings=settings, **kwargs)

    for option in (
        click.option(
            "--min-coverage",
            type=FloatRange(0, 100),
            default=0,
            metavar="PERCENT",
            help="Fail unless so many of the network's nodes run on the provider.",
        ),
        click.option(
            "--cache",
            type=click.Path(file_okay=False, path_type=Path),
            metavar="DIR",
            help="Where TensorRT, OpenVINO, Core ML or MIGraphX keeps what it compiles.",
        ),
        click.option(
            "--provider-option",
            type=KeyValue(),
            multiple=True,
            help="An option of the provider by ONNX Runtime's name, as use_tf32=1 or "
            "gpu_mem_limit=2147483648; with a dot a session's, as ep.context_enable=1. May be repeated.",
        ),
        click.option(
            "--provider",
            type=Choice(PROVIDERS),
            default="auto",
            show_default=True,
            help="Where to run; auto takes CUDA where it works.",
        ),
    ):
        command = option(command)
    return command


def run_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add `--mirror`, `--batch-size` and `--workers` to what :func:`provider_options` adds."""
    for option in (
        click.option(
            "--mirror",
            is_flag=True,
            help="Average the answers to each image and to its mirror image: more often right where both "
            "mean the same, in twice the time.",
        ),
        click.option(
            "--workers",
            type=IntRange(0, MOST_THREADS),
            default=0,
            show_default=True,
            help="Threads that decode images; 0: one per core.",
        ),
        click.option(
            "--batch-size", type=IntRange(min=1), default=32, show_default=True, help="Images at once."
        ),
    ):
        function = option(function)
    return provider_options(function)


def note_fallback(session: Session) -> None:
    """Tell a person with a GPU why it is not used, and on any other provider what runs there."""
    if session.fallback:
        console.note(f"Note: running on the CPU: {session.fallback}")
    elif session.provider != "cpu":
        tf32 = session.provider_options.get("use_tf32")
        stated = "" if tf32 is None else f"; TF32 {'on' if tf32 == '1' else 'off'}"
        console.note(f"Note: {session.coverage}{stated}.")
