"""Mutated plans, labels, images and data sets, and command lines that read them."""

from __future__ import annotations

import copy
import functools
import io
import json
import random
import struct
import tarfile
import zipfile
import zlib
from typing import Any

import numpy as np
import seeds
from mutation import WORDS, damaged
from PIL import Image
from running import Case

FORMATS = ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "PPM")
NUMBERS = (
    0,
    1,
    -1,
    2,
    3,
    1 << 31,
    (1 << 63) - 1,
    1 << 64,
    10**400,
    0.5,
    -0.0,
    float("nan"),
    float("inf"),
    1e308,
)
PIECES = (
    "!!python/object/apply:os.system [true]", "&a [*a, *a]", "*missing", "<<: *a", "? [a, b]\n: c",
    "- " * 500, "[" * 2_000,
    "{" * 2_000, "'", '"', "\t", "\0", "%YAML 9.9\n---\n", "---\n", "...\n", "!!binary aGk=",
    "!!set {a, b}", "~", "0x1F", "1_000",
    "2001-01-01", "1e999", ".nan", "-.inf", "0o17", "yes", "\ufeff", "\x85", "\u2028", "|\n  text\n",
    ">-\n  text\n", "# " * 99,
)  # fmt: skip
"""YAML that parsers, or readers of their results, stumble over."""

BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join([f'*{before}'] * 9)}]\n"
    for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)
"""A billion strings in a few lines."""


def prepare() -> None:
    """Make everything that the inputs begin with."""
    network(), parents(), plan(), images(), data_sets()


@functools.cache
def network() -> bytes:
    """Return the classifier that images are given to, encoded."""
    return seeds.plain_cnn(widths=(4,), size=8).SerializeToString()


@functools.cache
def parents() -> dict[str, bytes]:
    """Return two networks to fuse."""
    return {"a.onnx": network(), "b.onnx": seeds.networks()[0]}


@functools.cache
def plan() -> str:
    """Return a plan for them."""
    import onnx

    from graftonnx.matching import match
    from graftonnx.model import from_proto

    return match(
        *[from_proto(onnx.load_from_string(content), name) for name, content in parents().items()]
    ).to_yaml()


@functools.cache
def images() -> dict[str, bytes]:
    """Return an image in every format, by its extension."""
    pixels = np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8)
    found = {}
    for kind in FORMATS:
        for mode in ("RGB", "L", "P", "RGBA", "1", "I;16", "CMYK"):
            content = io.BytesIO()
            try:
                Image.fromarray(pixels).convert(mode).save(content, kind)
            except (OSError, ValueError):
                continue  # the format has no such mode
            found[f"{mode.replace(';', '')}.{kind.lower()}"] = content.getvalue()
    return found


@functools.cache
def data_sets() -> dict[str, bytes]:
    """Return data sets of four labelled images, each in one file."""
    png = images()["RGB.png"]
    names = [f"{label}/{index}.png" for label in ("cat", "dog", "elk", "fox") for index in (0, 1)]
    zipped, tarred, arrays = io.BytesIO(), io.BytesIO(), io.BytesIO()
    with zipfile.ZipFile(zipped, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in names:
            archive.writestr(name, png)
    with tarfile.open(fileobj=tarred, mode="w") as archive:
        for name in names:
            info = tarfile.TarInfo(name)
            info.size = len(png)
            archive.addfile(info, io.BytesIO(png))
    np.savez(arrays, images=np.zeros((8, 8, 8, 3), np.uint8), labels=np.arange(8) % 4)
    table = "image,label\n" + "".join(
        f"{name.replace('/', '-')},{name.partition('/')[0]}\n" for name in names
    )
    return {"data.zip": zipped.getvalue(), "data.tar": tarred.getvalue(), "data.npz": arrays.getvalue()} | {
        "data.csv": table.encode()
    }


def case(rng: random.Random) -> Case:
    """Return a command that reads a mutated file which is no network."""
    return rng.choices((_plan, _image, _data, _labels), weights=(40, 45, 10, 5))[0](rng)


def _plan(rng: random.Random) -> Case:
    text = mutated_text(plan(), rng) if rng.random() < 0.5 else _mutated_plan(rng)
    files = {"plan.yaml": text, **parents()}
    if rng.random() < 0.7:
        return Case(["fuse", "a.onnx", "b.onnx", "--plan", "plan.yaml", "--dry-run", "-o", "f.onnx"], files)
    if rng.random() < 0.5:
        return Case(["fuse", "a.onnx", "b.onnx", "--plan", "plan.yaml", "-o", "f.onnx"], files, {"f.onnx"})
    return Case(["view", "plan.yaml", "a.onnx", "b.onnx", "-o", "page.html"], files, {"page.html"})


def _mutated_plan(rng: random.Random) -> bytes:
    """Return a plan of which fields hold something else."""
    from graftonnx import documents

    data = copy.deepcopy(documents.load(plan()))
    for _ in range(rng.choice((1, 1, 2, 3))):
        _change(data, rng)
    try:
        return json.dumps(data).encode() if rng.random() < 0.5 else documents.dump(data).encode()
    except (ValueError, TypeError, AttributeError, UnicodeEncodeError):
        return json.dumps(data, default=str).encode()


def _change(data: Any, rng: random.Random) -> None:
    """Change one place in nested lists and dictionaries."""
    here = data
    while True:
        keys = list(here) if isinstance(here, dict) else list(range(len(here)))
        if not keys:
            return
        key = rng.choice(keys)
        if isinstance(here[key], (dict, list)) and here[key] and rng.random() < 0.8:
            here = here[key]
            continue
        kind = rng.randrange(6)
        if kind == 0:
            del here[key]
        elif kind == 1:
            here[key] = rng.choice(NUMBERS)
        elif kind == 2:
            here[key] = rng.choice((None, True, [], {}, [[]], "", [1] * 300, {"a": 1}))
        elif kind == 3:
            here[key] = rng.choice(WORDS)
        elif isinstance(here, dict):
            here[rng.choice((*WORDS, *map(str, keys)))] = copy.deepcopy(here[key])
        else:
            here.append(copy.deepcopy(here[key]))
        return


def mutated_text(text: str, rng: random.Random) -> bytes:
    """Return a text in which tokens, lines or bytes are others."""
    if rng.random() < 0.03:
        return BOMB.encode()
    lines = text.split("\n")
    for _ in range(rng.choice((1, 1, 2, 4))):
        at = rng.randrange(len(lines))
        kind = rng.randrange(7)
        if kind == 0:
            del lines[at]
            lines = lines or [""]
        elif kind == 1:
            lines.insert(at, rng.choice(lines))
        elif kind == 2:
            lines[at] = " " * rng.randrange(5) + lines[at].strip()
        elif kind == 3:
            words = lines[at].split(" ")
            words[rng.randrange(len(words))] = rng.choice((*PIECES, *WORDS, *map(str, NUMBERS)))
            lines[at] = " ".join(words)
        elif kind == 4:
            lines[at] += rng.choice(PIECES)
        elif kind == 5:
            lines.insert(at, rng.choice(PIECES))
        else:
            key, colon, _ = lines[at].partition(":")
            lines[at] = f"{key}{colon} {rng.choice((*PIECES, *WORDS))}"
    content = "\n".join(lines).encode(errors="surrogatepass")
    return damaged(content, rng) if rng.random() < 0.1 else content


def _image(rng: random.Random) -> Case:
    name, content = rng.choice(sorted(images().items()))
    content = mutated_image(content, rng)
    suffix = (
        name.rpartition(".")[2] if rng.random() < 0.9 else rng.choice(("png", "jpg", "webp", "tif", "avif"))
    )
    files = {"net.onnx": network(), f"image.{suffix}": content}
    extra: list[str] = rng.choice(([], ["--json"], ["-o", "answers.csv"]))
    return Case(
        ["predict", "net.onnx", f"image.{suffix}", "--preprocess", "unit", "--workers", "1", *extra],
        files,
        {"answers.csv"},
    )


def mutated_image(content: bytes, rng: random.Random) -> bytes:
    """Return an image whose bytes, or whose extents, are others."""
    if content[:8] == b"\x89PNG\r\n\x1a\n" and rng.random() < 0.4:
        return _mutated_png(content, rng)
    if rng.random() < 0.15:
        # Extents are numbers of two or four bytes near the beginning, in every format.
        data = bytearray(content)
        at = rng.randrange(min(len(data), 200))
        size = rng.choice(
            (
                struct.pack(">I", 60_000),
                struct.pack("<I", 60_000),
                b"\xff\xff",
                b"\x7f\xff\xff\xff",
                b"\0\0\0\0",
            )
        )
        data[at : at + len(size)] = size
        return bytes(data)
    return damaged(content, rng)


def _mutated_png(content: bytes, rng: random.Random) -> bytes:
    """Return a PNG with a changed chunk whose checksum is right."""
    chunks, at = [], 8
    while at < len(content):
        (length,) = struct.unpack_from(">I", content, at)
        chunks.append((content[at + 4 : at + 8], content[at + 8 : at + 8 + length]))
        at += 12 + length
    index = rng.randrange(len(chunks))
    kind, body = chunks[index]
    if kind == b"IHDR" and rng.random() < 0.7:
        extents = rng.choice(
            ((60_000, 60_000), (1 << 30, 1), (0, 0), ((1 << 31) - 1,) * 2, (13_000, 13_000), (1, 8))
        )
        body = struct.pack(">II", *extents) + body[8:]
    elif kind == b"IDAT" and rng.random() < 0.4:
        body = zlib.compress(bytes(rng.choice((0, 7, 1 << 22))))
    else:
        body = damaged(body, rng)
    chunks[index] = (kind, body)
    if rng.random() < 0.2:
        chunks.insert(
            1,
            (
                rng.choice((b"tEXt", b"iCCP", b"eXIf", b"zTXt", b"gAMA", b"acTL")),
                rng.randbytes(rng.randrange(40)),
            ),
        )
    if rng.random() < 0.05:
        chunks.insert(1, (b"zTXt", b"a\0\0" + zlib.compress(bytes(1 << 24))))
    parts = [struct.pack(">I", len(b)) + k + b + struct.pack(">I", zlib.crc32(k + b)) for k, b in chunks]
    return content[:8] + b"".join(parts)


def _data(rng: random.Random) -> Case:
    name, content = rng.choice(sorted(data_sets().items()))
    changed = mutated_text(content.decode(), rng) if name.endswith("csv") else damaged(content, rng)
    files = {"net.onnx": network(), name: changed}
    if name.endswith("csv"):
        files |= {
            f"{label}-{index}.png": images()["RGB.png"]
            for label in ("cat", "dog", "elk", "fox")
            for index in (0, 1)
        }
    return Case(["eval", "net.onnx", "--data", name, "--preprocess", "unit", "--workers", "1"], files)


def _labels(rng: random.Random) -> Case:
    content = mutated_text("cat\ndog\nelk\nfox\n", rng)
    files = {"net.onnx": network(), "labels.txt": content, "image.png": images()["RGB.png"]}
    return Case(
        [
            "predict",
            "net.onnx",
            "image.png",
            "--preprocess",
            "unit",
            "--workers",
            "1",
            "--labels",
            "labels.txt",
        ],
        files,
    )
