"""`--provider` and what it is told, as a user meets it in every command that runs a network."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import onnx
import onnxruntime as ort
import pytest
from click.testing import CliRunner, Result
from lookalikes import RGB, colour_network, write_image
from simulated import FakeDriver, install, pretend

from graftonnx.cli import graftonnx
from graftonnx.providers import obstacles
from graftonnx.runtime import Coverage


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A network and an image, relative to the working directory."""
    monkeypatch.chdir(tmp_path)
    onnx.save(colour_network(), "m.onnx")
    write_image(Path("rose.png"), RGB["red"])


def predict(*args: str) -> Result:
    return CliRunner().invoke(graftonnx, ["predict", "m.onnx", "rose.png", *args])


def without_driver(machine: pytest.MonkeyPatch, tmp_path: Path) -> str:
    pretend(machine, None)
    return "the NVIDIA driver is missing ("


def with_libraries_of_another_cuda(machine: pytest.MonkeyPatch, tmp_path: Path) -> str:
    machine.setattr(ort, "cuda_version", "13.0", raising=False)
    machine.setattr(obstacles, "preload_cuda", lambda: ["libcublas.so.13"])
    pretend(machine, FakeDriver(), libraries="libcudart.so.12")
    return "libcublas.so.13 cannot be loaded, the libraries found here are those of CUDA 12 ("


def with_both_packages(machine: pytest.MonkeyPatch, tmp_path: Path) -> str:
    install(machine, tmp_path / "site", "onnxruntime")
    return "onnxruntime and onnxruntime-gpu are both installed and overwrite each other's files."


@pytest.mark.parametrize("provider", ["cuda", "tensorrt"])
@pytest.mark.parametrize("simulate", [without_driver, with_libraries_of_another_cuda, with_both_packages])
def test_what_cannot_run_is_one_sentence_within_two_seconds(
    simulate: Callable[[pytest.MonkeyPatch, Path], str],
    provider: str,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    sentence = simulate(monkeypatch, tmp_path)
    start = time.perf_counter()
    result = predict("--provider", provider)
    assert time.perf_counter() - start < 2
    assert (result.exit_code, result.stdout) == (1, "")
    title = {"cuda": "CUDA", "tensorrt": "TensorRT"}[provider]
    assert result.stderr.startswith(f"Error: cannot run 'm.onnx' on {title}: {sentence}")
    assert result.stderr.count("\n") == 1


def test_an_option_that_is_no_pair() -> None:
    result = predict("--provider-option", "use_tf32")
    assert result.exit_code == 2
    assert "'use_tf32' is no option; give KEY=VALUE, as use_tf32=1." in result.stderr


def test_an_option_that_would_have_no_effect() -> None:
    result = predict("--provider", "cpu", "--provider-option", "use_tf32=1")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == (
        "Error: cannot run 'm.onnx': the provider 'cpu' has no option 'use_tf32'. Leave it out, or name the "
        "provider that has it.\n"
    )


def test_an_entry_of_the_session_works_on_the_cpu() -> None:
    result = predict("--provider", "cpu", "--provider-option", "session.intra_op.allow_spinning=0")
    assert result.exit_code == 0, result.output


def test_too_little_coverage_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    """The CPU plays the part of a provider that leaves one node of three to others."""
    found = Coverage("cuda", {"CUDAExecutionProvider": {"Mul": 2}, "CPUExecutionProvider": {"Resize": 1}})
    monkeypatch.setattr("graftonnx.runtime.opening.obstacle", lambda provider: None)
    monkeypatch.setattr("graftonnx.runtime.opening.coverage", lambda inner, provider: found)
    monkeypatch.setattr("graftonnx.runtime.opening.chain", lambda *wish: [("CPUExecutionProvider", {})])
    monkeypatch.setattr("graftonnx.runtime.opening._lacks", lambda inner, provider: False)
    assert predict("--provider", "cuda", "--min-coverage", "66").exit_code == 0
    result = predict("--provider", "cuda", "--min-coverage", "67")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == (
        "Error: cannot run 'm.onnx' on CUDA: 2 of 3 nodes on CUDA; on CPU: Resize; 67.0% of them are "
        "required, 66.7% are there. Lower --min-coverage, or replace these operators.\n"
    )


def test_a_share_above_all_is_wrong_usage() -> None:
    assert predict("--min-coverage", "101").exit_code == 2
