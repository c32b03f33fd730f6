"""Two processes train as one does."""

from __future__ import annotations

import csv
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.elastic.multiprocessing.errors import ProcessFailure
from training.fused import save_fused, save_images, weights_of

from graftonnx.errors import GraftError
from graftonnx.training import TrainConfig, launching, resume, train, world
from graftonnx.training.synchronised import SyncedDropout, batch_norm
from graftonnx.training.world import World, join

HERE = Path(__file__).parent

BASE: dict[str, Any] = {
    "epochs": 2, "batch_size": 8, "lr_branches": 1e-2, "lr_skips": 1e-2, "lr_head": 1e-2,
    "precision": "fp32", "layout": "contiguous", "device": "cpu",
}  # fmt: skip

RUNS: dict[str, dict[str, Any]] = {
    "ddp": {},
    "fsdp": {"strategy": "fsdp"},
    "without-batch-norm": {"freeze": "norms"},
    "interrupted": {},
    "interrupted-fsdp": {"strategy": "fsdp"},
    "left": {"strategy": "fsdp"},
    "gradual": {"unfreeze": 2, "ema": 0.9, "class_weights": "balanced", "accumulate": 2},
    "indivisible": {"batch_size": 7},
}
"""The settings of each run; the tiny network has a batch norm and a dropout, and the images are cropped."""

INTERRUPTED = ["interrupted", "interrupted-fsdp", "left"]
"""Runs in which one process hears SIGTERM; two processes go on with them, but for the one that is left."""

ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo", "PYTHONWARNINGS": "ignore"}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes of 20 and 13 images."""
    folder = save_images(tmp_path_factory.mktemp("images") / "data")
    for number in range(7):
        (folder / "blue" / f"{number}.png").unlink()
    return folder


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_fused(tmp_path_factory.mktemp("network") / "fused.onnx")


@pytest.fixture(scope="module")
def runs(source: Path, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of all runs of two processes."""
    folder = tmp_path_factory.mktemp("runs")
    work = {
        "source": str(source),
        "data": str(data),
        "interrupted": INTERRUPTED,
        "left": ["left"],
        "runs": {name: {**BASE, **changes} for name, changes in RUNS.items()},
    }
    (folder / "runs.json").write_text(json.dumps(work))
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    meeting = ["--rdzv-backend", "c10d", "--rdzv-endpoint", "localhost:0", "--local-addr", "localhost"]
    done = subprocess.run(
        [*torchrun, *meeting, str(HERE / "distributed.py"), str(folder / "runs.json")],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    return folder


def reports(runs: Path, name: str) -> list[dict[str, Any]]:
    """What each process said about a run."""
    return [json.loads((runs / f"{name}.{rank}.json").read_text()) for rank in range(2)]


def files(run: Path) -> list[str]:
    """What is in a run folder; TensorBoard puts the time into its file's name."""
    names = (path.relative_to(run).as_posix() for path in run.rglob("*"))
    return sorted(re.sub(r"events\.out.*", "events", name) for name in names)


def curve(run: Path) -> np.ndarray:
    """Losses and accuracies of each epoch."""
    rows = csv.DictReader((run / "metrics.csv").read_text().splitlines())
    names = ("train_loss", "train_accuracy", "val_loss", "val_accuracy")
    return np.array([[float(row[name]) for name in names] for row in rows])


@pytest.mark.slow
class TestTwoProcesses:
    @pytest.mark.parametrize("name", [name for name in RUNS if name not in ("left", "indivisible")])
    def test_give_the_curve_the_accuracy_and_the_weights_of_one(
        self, name: str, runs: Path, source: Path, data: Path, tmp_path: Path
    ) -> None:
        """Losses within 1e-4, of which they need a hundredth; weights within what their rounding allows."""
        settings = {**BASE, **RUNS[name], "strategy": "ddp"}
        one = train(source, data, tmp_path / "run", TrainConfig(**settings))
        np.testing.assert_allclose(curve(runs / name), curve(one.run), rtol=0, atol=1e-4)
        assert [report["accuracy"] for report in reports(runs, name)] == [one.val_accuracy] * 2
        ours, theirs = (weights_of(onnx.load(file)) for file in (runs / name / "model.onnx", one.model))
        for key in theirs:
            np.testing.assert_allclose(ours[key], theirs[key], rtol=1e-3, atol=1e-4, err_msg=key)

    def test_leave_the_files_of_one_and_no_others(
        self, runs: Path, source: Path, data: Path, tmp_path: Path
    ) -> None:
        one = train(source, data, tmp_path / "run", TrainConfig(**{**BASE, "epochs": 1})).run
        for name in ("ddp", "fsdp"):
            assert files(runs / name) == files(one)

    def test_have_one_that_speaks(self, runs: Path) -> None:
        leader, follower = reports(runs, "ddp")
        epochs = [note.split(":")[0] for note in leader["notes"] if note.startswith("epoch")]
        assert epochs == ["epoch 1", "epoch 2"]
        assert "devices 2" in leader["notes"][0]
        assert follower["notes"] == []

    @pytest.mark.parametrize("name", INTERRUPTED)
    def test_stop_together_when_one_hears_a_signal(self, name: str, runs: Path) -> None:
        assert [report["signal"] for report in reports(runs, name)] == [signal.SIGTERM] * 2

    def test_leave_a_checkpoint_of_shared_weights_with_which_one_goes_on(self, runs: Path) -> None:
        result = resume(runs / "left")
        np.testing.assert_allclose(curve(result.run), curve(runs / "fsdp"), rtol=0, atol=1e-4)

    def test_refuse_a_batch_that_does_not_divide(self, runs: Path) -> None:
        leader, follower = reports(runs, "indivisible")
        assert leader["error"] == (
            "cannot share 7 images per batch out among 2 processes: each takes the same number. "
            "Pass --batch-size 6 or 8."
        )
        assert follower["error"] == "followed"
        assert not (runs / "indivisible").exists()


@pytest.mark.slow
def test_a_killed_process_ends_the_command_with_a_sentence_and_one_process_goes_on(
    source: Path, data: Path, tmp_path: Path
) -> None:
    settings = {**BASE, "epochs": 40}
    options = [f"--{name.replace('_', '-')}={value}" for name, value in settings.items()]
    command = [sys.executable, "-m", "graftonnx", "train", source, "--data", data, "-o", tmp_path / "run"]
    process = subprocess.Popen(
        [*map(str, command), *options, "-q", "--devices=2"],
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    wait_for(tmp_path / "run" / "metrics.csv", process)
    os.kill(worker(process.pid, rank=1), signal.SIGKILL)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (1, "")
    assert err == (
        "Error: training stopped: process 1 of 2, counted from 0, was killed by SIGKILL (memory may have run "
        f"out). Go on with: graftonnx train --resume {tmp_path / 'run'}\n"
    )
    done = curve(tmp_path / "run")
    result = resume(tmp_path / "run")
    assert len(done) < result.epochs == 40
    whole = train(source, data, tmp_path / "whole", TrainConfig(**settings))
    np.testing.assert_allclose(curve(result.run), curve(whole.run), rtol=0, atol=1e-3)


@pytest.mark.slow
def test_a_run_that_cannot_go_on_is_refused_in_one_sentence(source: Path, data: Path, tmp_path: Path) -> None:
    train(source, data, tmp_path / "run", TrainConfig(**{**BASE, "epochs": 1}))
    (tmp_path / "run" / "split.json").write_text("{}")
    done = subprocess.run(
        [sys.executable, "-m", "graftonnx", "train", "--resume", str(tmp_path / "run"), "--devices=2"],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("Error: cannot read the split '")
    assert done.stderr.count("\n") == 1


def wait_for(file: Path, process: subprocess.Popen[str]) -> None:
    """Wait until a running command has written a file."""
    for _ in range(6000):
        if file.is_file():
            return
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)
    raise AssertionError(f"no {file}")


def worker(parent: int, rank: int) -> int:
    """Return the child of a process that has a rank."""
    children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
    mark = f"\0RANK={rank}\0".encode()
    return next(int(child) for child in children if mark in Path(f"/proc/{child}/environ").read_bytes())


@pytest.fixture
def connected() -> Iterator[World]:
    """A process group of this process alone, which synchronised layers need."""
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield World()
    dist.destroy_process_group()


@pytest.mark.parametrize("shape", [(6, 5), (6, 5, 7), (4, 5, 3, 2)])
def test_a_synchronised_norm_is_a_batch_norm(shape: tuple[int, ...], connected: World) -> None:
    norm = nn.BatchNorm2d(5, momentum=0.3) if len(shape) == 4 else nn.BatchNorm1d(5, momentum=0.3)
    nn.init.normal_(norm.weight)
    inputs = [
        (3 + 2 * torch.randn(shape, generator=torch.Generator().manual_seed(0))).requires_grad_()
        for _ in "ab"
    ]
    mean, var = torch.zeros(5), torch.ones(5)
    outputs = [
        norm(inputs[0]),
        batch_norm(inputs[1], mean, var, norm.weight, norm.bias, 0.3, norm.eps, connected),
    ]
    for output in outputs:
        torch.autograd.backward((output * torch.linspace(0, 1, output.numel()).view(shape)).sum())
    # float32 in another order of summation
    torch.testing.assert_close(outputs[1], outputs[0], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(inputs[1].grad, inputs[0].grad, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(mean, norm.running_mean)
    torch.testing.assert_close(var, norm.running_var)


def test_a_synchronised_dropout_takes_its_rows_of_the_whole_mask() -> None:
    torch.manual_seed(3)
    whole = nn.Dropout(0.4)(torch.ones(6, 5))
    for rank in range(2):
        torch.manual_seed(3)
        dropout = SyncedDropout(0.4, World(rank, 2))
        assert torch.equal(dropout(torch.ones(3, 5)), whole[rank::2])
    assert torch.equal(dropout.eval()(torch.ones(3, 5)), torch.ones(3, 5))


class TestJoining:
    def test_one_process_is_a_world(self) -> None:
        assert join("auto") == World(0, 1, 0, 1)

    def test_one_process_cannot_be_two(self) -> None:
        with pytest.raises(
            GraftError, match=r"cannot train on 2 devices from one process: start it with torch"
        ):
            join("cpu", devices=2)

    def test_other_processes_than_wanted_are_refused(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for name, value in {
            "TORCHELASTIC_RUN_ID": "x", "RANK": "1", "WORLD_SIZE": "4",
            "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2",
        }.items():  # fmt: skip
            monkeypatch.setenv(name, value)
        with pytest.raises(
            GraftError,
            match=r"cannot train on 3 devices: torchrun has started .* for 2 nodes with 2 devices each\.",
        ):
            join("cpu", devices=3)

    @pytest.mark.parametrize(
        ("name", "value", "expected"),
        [
            ("RANK", "x", "is 'x', expected a whole number from 0 to 3"),
            ("RANK", "4", "is '4', expected a whole number from 0 to 3"),
            ("RANK", "-1", "is '-1', expected a whole number from 0 to 3"),
            ("RANK", None, "is missing, expected a whole number from 0 to 3"),
            ("WORLD_SIZE", "0", "is '0', expected a whole number from 1 to "),
            ("WORLD_SIZE", "9" * 5000, "expected a whole number from 1 to "),
            ("LOCAL_WORLD_SIZE", "0", "is '0', expected a whole number from 1 to 4"),
            ("LOCAL_WORLD_SIZE", "5", "is '5', expected a whole number from 1 to 4"),
            ("LOCAL_RANK", "2", "is '2', expected a whole number from 0 to 1"),
            ("LOCAL_RANK", "\u00b2", "is '\u00b2', expected a whole number from 0 to 1"),
        ],
    )
    def test_variables_must_hold_numbers_that_fit(
        self, monkeypatch: pytest.MonkeyPatch, name: str, value: str | None, expected: str
    ) -> None:
        good = {"RANK": "1", "WORLD_SIZE": "4", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2"}
        for variable, text in {"TORCHELASTIC_RUN_ID": "x", **good, name: value}.items():
            if text is None:
                monkeypatch.delenv(variable, raising=False)
            else:
                monkeypatch.setenv(variable, text)
        with pytest.raises(GraftError, match=rf"the environment variable {name} .*{expected}"):
            join("cpu")

    @pytest.mark.parametrize(("batch", "hint"), [(9, "8 or 12"), (3, "4")])
    def test_a_batch_must_divide(self, batch: int, hint: str) -> None:
        World(size=4).check_batch(8)
        World(size=4).check_batch("auto")
        with pytest.raises(
            GraftError, match=rf"cannot share {batch} images .* 4 processes.* --batch-size {hint}\."
        ):
            World(size=4).check_batch(batch)


class TestLaunching:
    def test_nodes_must_know_where_to_meet(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.delenv("MASTER_ADDR", raising=False)
        with pytest.raises(GraftError, match=r"cannot train on 2 nodes: .* MASTER_ADDR"):
            launching._config(devices=1, nodes=2)
        monkeypatch.setenv("MASTER_ADDR", "10.0.0.1")
        config = launching._config(devices=3, nodes=2)
        assert (config.rdzv_endpoint, config.min_nodes, config.nproc_per_node) == ("10.0.0.1:29400", 2, 3)

    @pytest.mark.parametrize(
        ("codes", "first"),
        [
            ([143, -15, -15], 0),
            ([world.BEREFT, -9, world.BEREFT], 1),
            ([world.BEREFT, 1, -15], 1),
            ([1, -9, -15], 0),
            ([1, -9, -11], 2),
            ([-9, 1, 1], 0),
            ([-15, world.BEREFT, -6], 2),
        ],
    )
    def test_the_process_that_failed_first_is_named(self, codes: list[int], first: int) -> None:
        failures = {rank: ProcessFailure(rank, 1, code, "") for rank, code in enumerate(codes)}
        assert launching._first(failures)[0] == first

    def test_a_death_before_the_first_checkpoint_is_told_as_one(self, tmp_path: Path) -> None:
        sentence = launching._sentence(0, 2, ProcessFailure(0, 1, 7, ""), tmp_path)
        assert sentence == (
            "training stopped: process 0 of 2, counted from 0, ended with exit code 7. "
            "Nothing was saved yet: start again."
        )


@pytest.mark.parametrize("change", [{"ema": 0.9}, {"unfreeze": 1}, {"compile": "yes"}])
def test_what_shared_weights_do_not_allow_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(change))} cannot be had with strategy='fsdp'"):
        TrainConfig(strategy="fsdp", **change)
