"""The benchmark for machines with a GPU, on a machine without one."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from graftonnx.providers.obstacles import obstacle

ROOT = Path(__file__).parent.parent
PAIR = ("models/custom16-mnist.onnx", "models/squeezenet-cifar100.onnx")


def run(*args: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "tools/bench/gpu.py", *args]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT)


@pytest.mark.skipif(obstacle("cuda") is None, reason="CUDA works here")
def test_without_a_gpu_it_says_why_in_one_sentence() -> None:
    done = run()
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"There is no cuda to measure here: {obstacle('cuda')}\n"


def test_what_it_would_measure_it_measures_on_the_cpu() -> None:
    done = run("--provider", "cpu", "--rounds", "2", "--batch", "1,2", "--max-skips", "2", *PAIR)
    assert done.returncode == 0, done.stderr
    assert "## custom16-mnist x squeezenet-cifar100\n" in done.stdout
    assert re.search(r"^- float32: (\d+) of \1 nodes on CPU$", done.stdout, re.MULTILINE)
    parity = dict(re.findall(r"^- (\w+): outputs differ .* by (\S+) at most", done.stdout, re.MULTILINE))
    assert float(parity["float32"]) == 0
    assert 0 < float(parity["float16"]) < 0.1
    rows = re.findall(r"^\| (\w+) \| (\w+) \| (\d) \| .* ms \| .* ms \| .*x \|$", done.stdout, re.MULTILINE)
    assert rows == [
        (precision, io, batch)
        for precision in ("float32", "float16")
        for io in ("arrays", "resident")
        for batch in ("1", "2")
    ]
