"""A run that is killed, or whose disk is full, loses nothing that was saved."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import random
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import onnx
import torch
from training.fused import save_fused, save_images, weights_of

from graftonnx.training import TrainConfig, resume, train

KILLS = int(os.environ.get("GRAFTONNX_KILLS", "20"))
"""Times that a run is killed."""

CONFIG = TrainConfig(
    epochs=6, batch_size=4, precision="fp32", layout="contiguous", device="cpu", mixup=0.2, ema=0.9,
    save_every=0.0, seed=3,
)  # fmt: skip
"""Saves after every step, with everything that has a state."""


def go(source: Path, data: Path, run: Path) -> None:
    """Begin a run, or go on with it."""
    torch.set_num_threads(1)
    if (run / "config.yaml").is_file():
        resume(run)
    else:
        train(source, data, run, CONFIG, force=True)


def test_killed_at_random_moments_and_resumed_the_weights_are_the_same(tmp_path: Path) -> None:
    source, data = save_fused(tmp_path / "fused.onnx"), save_images(tmp_path / "data", count=40)
    go(source, data, tmp_path / "whole")
    forks = multiprocessing.get_context("forkserver")
    forks.set_forkserver_preload(["graftonnx.training.trainer"])
    chance, killed, run = random.Random(0), 0, tmp_path / "run"
    checkpoint = run / "checkpoints" / "last.ckpt"
    while killed < KILLS:
        process = forks.Process(target=go, args=(source, data, run))
        process.start()
        before = _changed(checkpoint)
        if killed % 5:  # every fifth dies anywhere, the others after a step of theirs was saved
            while _changed(checkpoint) == before and process.is_alive():
                time.sleep(0.001)
        process.join(chance.uniform(0, 0.03))
        assert process.exitcode is None, "the run ended before it could be killed often enough"
        process.kill()
        process.join()
        killed += 1
    go(source, data, run)
    whole, resumed = (weights_of(onnx.load(path / "model.onnx")) for path in (tmp_path / "whole", run))
    assert {name for name in whole if not np.array_equal(whole[name], resumed[name])} == set()
    assert not list(run.rglob("*.part"))


def _changed(path: Path) -> int:
    """Return when a file was last replaced, or 0 where there is none."""
    try:
        return path.stat().st_mtime_ns
    except FileNotFoundError:
        return 0


def start(*arguments: object) -> subprocess.Popen[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "graftonnx", "train", *map(str, arguments), "-q"]
    return subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=environment
    )


def test_a_full_disk_gets_a_sentence_and_the_run_goes_on_after_it(tmp_path: Path, small_disk: Path) -> None:
    source, data = save_fused(tmp_path / "fused.onnx"), save_images(tmp_path / "data")
    run, ballast = small_disk / "run", small_disk / "ballast"
    process = start(source, "--data", data, "-o", run, "--epochs", "60", "--save-every", "0")
    while not (run / "checkpoints" / "last.ckpt").is_file():
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.02)
    with contextlib.suppress(OSError), ballast.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))
    words = process.communicate()[1]
    assert process.returncode == 1, words
    assert words.startswith("Error: cannot write '")
    assert "Traceback" not in words
    ballast.unlink()
    assert (run / "checkpoints" / "last.ckpt").is_file()
    assert not list(run.rglob("*.part"))
    again = start("--resume", run)
    assert again.communicate()[1] == ""
    assert again.returncode == 0
    onnx.checker.check_model(onnx.load(run / "model.onnx"))
