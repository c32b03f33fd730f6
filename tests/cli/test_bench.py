"""`graftonnx bench` as a user meets it."""

from __future__ import annotations

import json
from pathlib import Path

import onnx
import pytest
from click.testing import CliRunner, Result
from lookalikes import colour_folder, colour_network
from PIL import Image
from simulated import pretend, pretend_driver_only

from graftonnx.cli import graftonnx
from graftonnx.providers import driver


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run folder and two networks, relative to the working directory."""
    monkeypatch.chdir(tmp_path)
    Path("run").mkdir()
    onnx.save(colour_network(), "run/model.onnx")
    onnx.save(colour_network(), "a.onnx")
    onnx.save(colour_network(size=16), "b.onnx")


def bench(*args: str, memory: bool = False) -> Result:
    options = ["--provider", "cpu", "--rounds", "4", *([] if memory else ["--no-memory"])]
    return CliRunner().invoke(graftonnx, ["bench", *args, *options])


def rows(result: Result) -> list[list[str]]:
    lines = (line for line in result.stdout.splitlines() if line.startswith("│"))
    return [[cell.strip() for cell in line.split("│")[1:-1]] for line in lines]


def test_a_network_against_its_parents_in_a_table() -> None:
    result = bench("run", "--against", "a.onnx", "b.onnx", "--batch", "1,2")
    assert (result.exit_code, result.stderr) == (0, ""), result.output
    assert [row[:2] for row in rows(result)] == [
        [name, batch]
        for name in ("model.onnx", "a.onnx then b.onnx", "a.onnx and b.onnx in 2 threads")
        for batch in ("1", "2")
    ]
    assert all(row[2].endswith(" ms") and row[4] == "-" for row in rows(result))
    ratios = [line for line in result.stdout.splitlines() if line.startswith("batch ")]
    assert len(ratios) == 4
    assert ratios[0].startswith("batch 1: model.onnx takes ")
    assert "x the time of a.onnx then b.onnx (middle half of the rounds " in ratios[0]


@pytest.mark.parametrize("order", [("a.onnx", "--against", "b.onnx"), ("--against=b.onnx", "--", "a.onnx")])
def test_one_rival_runs_alone(order: tuple[str, ...]) -> None:
    result = CliRunner().invoke(
        graftonnx, ["bench", "--no-memory", "--provider", "cpu", "--rounds", "2", "--json", *order]
    )
    assert result.exit_code == 0, result.output
    assert list(json.loads(result.stdout)["contenders"]) == ["a.onnx", "b.onnx"]


def test_json_has_everything_with_memory_and_streams() -> None:
    result = bench("a.onnx", "--batch", "2", "--json", "--streams", "2", "--threads", "1", memory=True)
    assert (result.exit_code, result.stderr) == (0, ""), result.output
    record = json.loads(result.stdout)
    (figures,) = record["figures"]
    assert (record["streams"], record["threads"], record["provider"]) == (2, 1, "cpu")
    assert figures["runs"] == 4 * 2 * 4
    assert figures["memory"] > figures["memory_before"] > 0
    assert record["coverage"] == {"a.onnx": ["3 of 3 nodes on CPU"]}


def test_real_images_are_fed() -> None:
    colour_folder(Path("data"), {"red": 1, "green": 1})
    result = bench("a.onnx", "b.onnx", "--batch", "3", "--data", "data", "--io", "bound", "--json")
    assert result.exit_code == 0, result.output
    record = json.loads(result.stdout)
    assert (record["data"], record["io"]) == ("data", "bound")
    assert [ratio["rival"] for ratio in record["ratios"]] == ["a.onnx"]


def test_the_chart_is_written_and_not_replaced_unasked() -> None:
    result = bench("a.onnx", "--batch", "1", "--chart", "c.png")
    assert (result.exit_code, result.stderr) == (0, "Wrote c.png.\n")
    with Image.open("c.png") as image:
        assert image.format == "PNG"
    again = bench("a.onnx", "--batch", "1", "--chart", "c.png")
    assert (again.exit_code, again.stdout) == (1, "")
    assert "cannot write 'c.png': it exists. Choose another" in again.stderr
    assert bench("a.onnx", "--batch", "1", "--chart", "c.png", "--force", "-q").stderr == ""


@pytest.mark.skipif(driver() is not None, reason="an NVIDIA driver is here: CUDA may work")
def test_a_gpu_that_cannot_be_used_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend_driver_only(monkeypatch)
    result = CliRunner().invoke(graftonnx, ["bench", "a.onnx", "--rounds", "1", "--no-memory"])
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith("on cpu, ")
    assert result.stderr.startswith("Note: running on the CPU: libcublas")


class TestRefusals:
    @pytest.mark.parametrize("sizes", ["0", "1,x", "", "-1", "1,,2"])
    def test_batch_sizes_are_numbers(self, sizes: str) -> None:
        result = bench("a.onnx", "--batch", sizes)
        assert result.exit_code == 2
        assert f"{sizes!r} is no list of batch sizes; give numbers from 1 on, as 1,8,32." in result.stderr

    def test_a_chart_is_a_png(self) -> None:
        result = bench("a.onnx", "--chart", "c.jpg")
        assert result.exit_code == 2
        assert "--chart 'c.jpg': it is drawn as a PNG. Give a name that ends in .png." in result.stderr

    def test_cuda_graphs_need_buffers(self) -> None:
        result = bench("a.onnx", "--cuda-graph")
        assert result.exit_code == 2
        assert "--cuda-graph replays work on the same buffers: give --io bound or resident." in result.stderr

    def test_cuda_graphs_belong_to_one_thread(self) -> None:
        result = bench("a.onnx", "--cuda-graph", "--io", "bound", "--streams", "2")
        assert result.exit_code == 2
        assert (
            "--cuda-graph and --streams exclude each other: a graph belongs to one thread. Leave one out."
            in result.stderr
        )

    def test_cuda_graphs_need_cuda(self) -> None:
        result = bench("a.onnx", "--cuda-graph", "--io", "bound")
        assert (result.exit_code, result.stdout) == (1, "")
        assert "CPU has no CUDA graphs. Leave them out; they are for cuda, tensorrt." in result.stderr

    def test_a_missing_file(self) -> None:
        result = bench("absent.onnx")
        assert (result.exit_code, result.stdout) == (1, "")
        assert "cannot read 'absent.onnx': there is no such file or run folder." in result.stderr

    def test_a_provider_that_is_not_there(self, monkeypatch: pytest.MonkeyPatch) -> None:
        pretend(monkeypatch, None)
        result = CliRunner().invoke(graftonnx, ["bench", "a.onnx", "--provider", "cuda"])
        assert (result.exit_code, result.stdout) == (1, "")
        assert "cannot run 'a.onnx' on CUDA: the NVIDIA driver is missing (" in result.stderr

    def test_images_in_a_folder_that_is_missing(self) -> None:
        result = bench("a.onnx", "--data", "absent")
        assert (result.exit_code, result.stdout) == (1, "")
        assert "cannot read images from 'absent'" in result.stderr
