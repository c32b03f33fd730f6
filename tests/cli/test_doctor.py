"""`graftonnx doctor` as a user meets it."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from simulated import FakeDriver, install, pretend, pretend_torch

from graftonnx.cli import graftonnx
from graftonnx.providers import CATALOGUE, nvidia


def examined(*, exit_code: int = 0) -> dict[str, Any]:
    result = CliRunner().invoke(graftonnx, ["doctor", "--json"])
    assert (result.exit_code, result.stderr) == (exit_code, "")
    record: dict[str, Any] = json.loads(result.stdout)
    return record


def reason(record: dict[str, Any], provider: str) -> str:
    (finding,) = (found for found in record["providers"] if found["provider"] == provider)
    assert finding["works"] == (not finding["reason"])
    return str(finding["reason"])


def test_the_cpu_works_and_every_other_provider_has_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, None)
    record = examined()
    assert record["works"]
    assert [found["provider"] for found in record["providers"]] == list(CATALOGUE)
    assert reason(record, "cpu") == ""
    assert reason(record, "cuda").startswith(f"the NVIDIA driver is missing ({nvidia.DRIVER} cannot be")
    assert reason(record, "openvino").endswith("&& pip install onnxruntime-openvino.")
    assert (record["driver_cuda"], record["devices"], record["remarks"]) == (None, [], [])
    assert record["packages"]["onnxruntime-gpu"]


def test_a_person_gets_a_table(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, None)
    result = CliRunner().invoke(graftonnx, ["doctor"])
    assert (result.exit_code, result.stderr) == (0, "")
    rows = [
        [cell.strip() for cell in line.split("│")[1:-1]]
        for line in result.stdout.splitlines()
        if line.startswith("│")
    ]
    assert ["cpu", "yes", ""] in rows
    assert any(row[:2] == ["cuda", "no"] and "the NVIDIA driver is missing" in row[2] for row in rows)
    assert "not in the installed ONNX Runtime: " in result.stdout
    assert "none of NVIDIA's" in result.stdout


def test_a_gpu_whose_libraries_are_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, FakeDriver(version=13010))
    record = examined()
    assert record["driver_cuda"] == "13.1"
    assert record["devices"][0]["name"] == "NVIDIA Simulated"
    assert 'pip install "onnxruntime-gpu[cuda,cudnn]"' in reason(record, "cuda")
    printed = CliRunner().invoke(graftonnx, ["doctor"]).stdout
    assert "NVIDIA Simulated, 8.0 GiB, compute capability 9.0" in printed


def test_two_packages_of_onnx_runtime_are_remarked_although_the_cpu_works(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    install(monkeypatch, tmp_path, "onnxruntime", "1.20.0")
    record = examined()
    assert reason(record, "cpu") == ""
    assert record["remarks"] == [
        "onnxruntime and onnxruntime-gpu are installed together and overwrite each other's files. Keep one: "
        "pip uninstall -y onnxruntime onnxruntime-gpu && pip install onnxruntime-gpu."
    ]
    assert "onnxruntime and onnxruntime-gpu are both installed" in reason(record, "cuda")


def test_a_torch_for_another_cuda_is_remarked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pretend_torch(monkeypatch, tmp_path, "11.8")
    record = examined()
    assert record["torch_cuda"] == "11.8"
    (remark,) = record["remarks"]
    assert remark.startswith("torch 2.7.0 is built for CUDA 11.8, ONNX Runtime for CUDA ")


def test_an_onnx_runtime_that_cannot_be_imported_is_the_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    record = examined(exit_code=1)
    assert not record["works"]
    assert reason(record, "cpu") == (
        "onnxruntime cannot be imported (import of onnxruntime halted; None in sys.modules). "
        "Repair it with: pip install --force-reinstall onnxruntime-gpu."
    )
    assert CliRunner().invoke(graftonnx, ["doctor"]).exit_code == 1


def test_a_provider_that_computes_nonsense_does_not_work(monkeypatch: pytest.MonkeyPatch) -> None:
    import graftonnx.diagnosis

    monkeypatch.setattr(graftonnx.diagnosis, "_TINY", graftonnx.diagnosis._TINY.replace("{1, ", "{2, "))
    assert reason(examined(exit_code=1), "cpu") == "a convolution gave 10, expected 9. Reinstall it."


def test_it_answers_without_pytorch_and_at_once() -> None:
    """Two seconds of processor time, so that a busy machine fails nothing."""
    code = (
        "import sys, time; from click.testing import CliRunner; from graftonnx.cli import graftonnx;"
        "CliRunner().invoke(graftonnx, ['doctor']); print('torch' in sys.modules, time.process_time() < 2)"
    )
    start = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False True\n"
    assert time.perf_counter() - start < 20
