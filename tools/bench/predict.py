#!/usr/bin/env python3
"""Classify many images: what it takes, and what is left of it after five kills.

    .venv/bin/python tools/bench/predict.py [--model RUN|FILE.onnx] [--images N] [--format csv]

Writes N JPEG files of 200 x 300 pixels (a tenth of them drawn, the others hard links, one of them damaged);
classifies a tenth of them, and all; then starts again, kills the command (SIGKILL) five times at random
moments, lets it finish, and compares the two files byte by byte. CPU time and the maximum resident set are
those of the command's process, as the system counts them.
"""

from __future__ import annotations

import argparse
import filecmp
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

ROOT = Path(__file__).parents[2]
KILLS = 5
SOME_UNREADABLE = 3


def main() -> None:
    """Parse the arguments; make the images; measure; kill."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", type=Path, default=ROOT / "models" / "squeezenet-cifar100.onnx")
    parser.add_argument("--preprocess", help="what the model expects, if it does not say so")
    parser.add_argument("--images", type=int, default=20_000)
    parser.add_argument("--format", default="csv", choices=["csv", "json", "jsonl", "parquet"])
    given = parser.parse_args()
    command = [sys.executable, "-m", "graftonnx", "predict", str(given.model.resolve()), "-q", "--top", "3"]
    if given.preprocess:
        command += ["--preprocess", given.preprocess]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_images(folder, given.images)
        whole, killed = (folder / f"{stem}.{given.format}" for stem in ("whole", "killed"))
        seconds = 0.0
        for what, images in (("tenth", folder / "images" / "0"), ("all", folder / "images")):
            output = whole if what == "all" else folder / f"tenth.{given.format}"
            seconds = measure([*command, str(images), "-o", str(output)])
        kill_and_resume([*command, str(folder / "images"), "-o", str(killed)], seconds)
        same = filecmp.cmp(whole, killed, shallow=False)
        found = "the same" if same else "ANOTHER"
        print(f"after {KILLS} kills the file is {found}: {whole.stat().st_size:,} bytes")
        raise SystemExit(not same)


def write_images(folder: Path, count: int) -> None:
    """Write the images in ten folders below `images`; the last one is damaged."""
    rng = np.random.default_rng(0)
    places = [folder / "images" / str(tenth) for tenth in range(10)]
    for place in places:
        place.mkdir(parents=True)
    for k in range(count // 10):
        noise = Image.fromarray(rng.integers(0, 256, (8, 12, 3), np.uint8))
        noise.resize((300, 200), Image.Resampling.BICUBIC).save(places[0] / f"{k}.jpg")
        for place in places[1:]:
            os.link(places[0] / f"{k}.jpg", place / f"{k}.jpg")
    damaged = places[-1] / f"{count // 10 - 1}.jpg"
    damaged.unlink()
    damaged.write_bytes(b"no image")


def measure(command: list[str]) -> float:
    """Run the command and print what it took; return the seconds."""
    begin = time.perf_counter()
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - begin
    if os.waitstatus_to_exitcode(status) not in (0, SOME_UNREADABLE):
        raise SystemExit(f"failed: {' '.join(command)}")
    print(
        f"{Path(command[-1]).stem}: {seconds:.1f} s, CPU {usage.ru_utime + usage.ru_stime:.1f} s, "
        f"maximum resident set {usage.ru_maxrss / 1024:.0f} MiB",
        flush=True,
    )
    return seconds


def kill_and_resume(command: list[str], seconds: float) -> None:
    """Kill the command at random moments of its first `seconds`, then let it finish."""
    rng = random.Random(0)
    for _ in range(KILLS):
        process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        time.sleep(rng.uniform(0.02, 0.25) * seconds)
        process.kill()
        process.wait()
    subprocess.run(command, stderr=subprocess.DEVNULL, check=False)


if __name__ == "__main__":
    main()
