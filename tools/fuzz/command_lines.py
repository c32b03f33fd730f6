"""Command lines for mutated files: the cheap commands often, the expensive ones seldom."""

from __future__ import annotations

import importlib
import io
import random

import numpy as np
import seeds
from mutation import mutated
from running import Case

MODEL, DATA = "model.onnx", "data.bin"


quick = False
"""Whether seeds that take seconds to make are left out; the inputs of a seed are then others."""


def prepare() -> None:
    """Import everything that the commands import, and make the seeds, before the workers are forked."""
    from graftonnx.cli.group import COMMANDS

    for name in COMMANDS:
        importlib.import_module(f"graftonnx.cli.{name}_command")
    for name in (
        "graftonnx.conversion", "graftonnx.parity", "graftonnx.fusion", "graftonnx.drawing",
        "graftonnx.exporting",
        "graftonnx.prediction", "graftonnx.runtime", "graftonnx.diagnosis", "graftonnx.matching",
        "graftonnx.training",
        "onnxruntime", "rich.table", "onnx.reference", "onnx.reference.ops._op_list",
    ):  # fmt: skip
        importlib.import_module(name)
    seeds.networks()
    seeds.operators(quick=quick)
    seeds.files()
    _image()


def model_case(rng: random.Random) -> Case:
    """Return a command that reads a mutated model."""
    kind = rng.choices(list(_COMMANDS), weights=[weight for weight, _ in _COMMANDS.values()])[0]
    arguments, others, outputs = _COMMANDS[kind][1](rng)
    given = seeds.operators(quick=quick) if kind == "check" and rng.random() < 0.6 else seeds.networks()
    if kind in ("inspect", "match") and rng.random() < 0.02:
        given = seeds.files()
    files = {MODEL: mutated(rng.choice(given), rng), **others}
    case = Case(arguments, files, outputs)
    if b"location" in files[MODEL]:
        case.files |= {DATA: bytes(4096), f"sub/{DATA}": bytes(4096)}
        case.links = {"link.bin": DATA, "out.bin": "/dev/zero"}
        case.pipes = {"pipe"}
    return case


def _inspect(rng: random.Random) -> tuple[list[str], dict[str, bytes], set[str]]:
    extra = rng.choice(([], [], ["--json"], ["--input-size", "24"], ["--dequantize"]))
    return ["inspect", MODEL, *extra], {}, set()


def _match(rng: random.Random) -> tuple[list[str], dict[str, bytes], set[str]]:
    extra: list[str] = rng.choice(([], ["-o", "plan.yaml"], ["--html", "page.html"], ["--json"]))
    return ["match", *_pair(rng), *extra], {"b.onnx": seeds.networks()[0]}, {"plan.yaml", "page.html"}


def _fuse(rng: random.Random) -> tuple[list[str], dict[str, bytes], set[str]]:
    parents = rng.choice((_pair(rng), [MODEL]))
    extra: list[str] = rng.choice(([], ["--dequantize"], ["--input-size", "20"], ["--skip-init", "paper"]))
    arguments = ["fuse", *parents, "-o", "fused.onnx", "--classes", "3", *extra]
    return arguments, {"b.onnx": seeds.networks()[1]}, {"fused.onnx", "fused.onnx.data"}


def _pair(rng: random.Random) -> list[str]:
    pair = [MODEL, "b.onnx"]
    rng.shuffle(pair)
    return pair


def _check(rng: random.Random) -> tuple[list[str], dict[str, bytes], set[str]]:
    if rng.random() < 0.1:
        return ["check", "b.onnx", "--against", MODEL], {"b.onnx": seeds.networks()[0]}, set()
    return ["check", MODEL, *rng.choice(([], ["--json"]))], {}, set()


def _view(rng: random.Random) -> tuple[list[str], dict[str, bytes], set[str]]:
    output = rng.choice(("page.html", "page.html", "figure.svg"))
    return ["view", MODEL, "-o", output], {}, {output}


def _export(rng: random.Random) -> tuple[list[str], dict[str, bytes], set[str]]:
    extra: list[str] = rng.choice(
        ([], ["--precision", "fp16", "--accept-loss"], ["--input", "uint8"], ["--opset", "13"])
    )
    return (
        ["export", MODEL, "-o", "out.onnx", "--preprocess", "unit", *extra],
        {},
        {"out.onnx", "out.onnx.data"},
    )


def _predict(rng: random.Random) -> tuple[list[str], dict[str, bytes], set[str]]:
    extra: list[str] = rng.choice(([], ["--json"], ["-o", "answers.csv"]))
    return (
        ["predict", MODEL, "image.png", "--preprocess", "unit", "--workers", "1", *extra],
        {"image.png": _image()},
        {"answers.csv"},
    )


def _head(rng: random.Random) -> tuple[list[str], dict[str, bytes], set[str]]:
    arguments = ["fuse", "b.onnx", "-o", "fused.onnx", "--classes", "4", "--head-file", MODEL]
    return arguments, {"b.onnx": seeds.networks()[0]}, {"fused.onnx", "fused.onnx.data"}


_COMMANDS = {
    "inspect": (70, _inspect),
    "match": (8, _match),
    "fuse": (5, _fuse),
    "check": (8, _check),
    "view": (3, _view),
    "export": (3, _export),
    "predict": (2, _predict),
    "head": (1, _head),
}
"""Command -> how often, and how its command line is made: arguments, other files, outputs."""


def _image(size: int = 16) -> bytes:
    from PIL import Image

    content = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 256, (size, size, 3), np.uint8)
    Image.fromarray(pixels).save(content, "PNG")
    return content.getvalue()
