"""What a step takes is known before the first one, and running out of memory gets a sentence."""

from __future__ import annotations

import gc
import platform
import subprocess
import sys
import weakref

import pytest
import torch
from training.fused import fused_model

from graftonnx.conversion import to_torch
from graftonnx.errors import GraftError
from graftonnx.training import TrainConfig
from graftonnx.training.memory import check_room, free_bytes, memory_errors, step_bytes
from graftonnx.training.speed import Mode

FP32 = Mode("fp32", "contiguous")


def test_activations_grow_with_the_batch_and_weights_do_not() -> None:
    network = to_torch(fused_model())
    few, more, most = (step_bytes(network, (16, 16), n, FP32, TrainConfig()) for n in (8, 16, 24))
    assert more - few == pytest.approx(most - more, abs=2)
    # a/c1, a/n1 and their like: 8x8x8 floats each; more than two, less than twelve of them are kept
    assert 2 * 8 * 8 * 8 * 4 * 8 < more - few < 12 * 8 * 8 * 8 * 4 * 8


def test_optimiser_and_average_count() -> None:
    network = to_torch(fused_model())
    weights = sum(w.numel() for w in network.parameters() if w.requires_grad)
    adam, sgd, averaged = (
        step_bytes(network, (16, 16), 8, FP32, TrainConfig(**changes))
        for changes in ({}, {"optimizer": "sgd"}, {"ema": 0.9})
    )
    assert adam - sgd == 4 * weights
    assert averaged - adam >= 4 * weights


def test_too_large_a_step_is_refused_with_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("graftonnx.training.memory.free_bytes", lambda device: 2**30)
    check_room(2**30, "cpu", 32)
    with pytest.raises(GraftError) as caught:
        check_room(3 * 2**30, "cpu", 32)
    assert str(caught.value) == (
        "cannot train with 32 images per batch: a step takes about 3.0 GiB, 1.0 GiB are free on the cpu. "
        "Pass --batch-size 16 --accumulate 2 for the same steps, or a smaller --input-size to fuse."
    )


def test_this_machine_says_how_much_is_free() -> None:
    free = free_bytes("cpu")
    assert free is None or free > 2**20


@pytest.mark.parametrize(
    "error",
    [MemoryError(), torch.OutOfMemoryError("CUDA out of memory"), RuntimeError("can't allocate memory")],
)
def test_running_out_becomes_a_sentence(error: BaseException) -> None:
    with (
        pytest.raises(GraftError, match=r"memory ran out with 1 images per batch\. Free memory"),
        memory_errors(1),
    ):
        raise error


def test_other_errors_stay_what_they_are() -> None:
    with pytest.raises(RuntimeError, match="shape"), memory_errors(1):
        raise RuntimeError("shape mismatch")


def test_the_allocator_of_the_cpu_is_understood() -> None:
    """A real allocation beyond a limit, in a process of its own."""
    code = (
        "import resource, torch\n"
        "from graftonnx.training.memory import memory_errors\n"
        "resource.setrlimit(resource.RLIMIT_AS, (2**33, 2**33))\n"
        "with memory_errors(4):\n"
        "    torch.empty(2**36)\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "GraftError: training stopped: memory ran out with 4 images per batch." in result.stderr


ALLOCATE = """
import resource
import sys
import weakref
import torch
from graftonnx.training.memory import keep_freed_pages
if sys.argv[1] == "keep":
    keep_freed_pages()
blocks = [torch.ones(40 << 20, dtype=torch.uint8) for _ in range(4)]
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    del blocks
    blocks = [torch.ones(40 << 20, dtype=torch.uint8) for _ in range(4)]
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc only")
def test_what_a_step_frees_is_there_for_the_next_one() -> None:
    def faults(how: str) -> int:
        return int(subprocess.check_output([sys.executable, "-c", ALLOCATE, how]))

    assert 4 * faults("keep") < faults("default")


def test_what_a_step_takes_is_computed_without_keeping_the_network() -> None:
    network = to_torch(fused_model())
    step_bytes(network, (16, 16), 8, FP32, TrainConfig())
    weight = weakref.ref(next(network.parameters()))
    del network
    gc.collect()
    assert weight() is None
