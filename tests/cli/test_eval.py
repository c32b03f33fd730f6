"""`graftonnx eval` as a user meets it."""

from __future__ import annotations

import json
from pathlib import Path

import onnx
import pytest
from click.testing import CliRunner
from data.pictures import write_zip
from lookalikes import RGB, colour_folder, colour_network, model, write_image

from graftonnx import providers
from graftonnx.cli import graftonnx
from graftonnx.data.opening import open_data
from graftonnx.data.splits import split as split_data
from graftonnx.metadata import InputConvention, Metadata


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run folder and a data folder, relative to the working directory."""
    monkeypatch.chdir(tmp_path)
    Path("run").mkdir()
    onnx.save(colour_network(), "run/model.onnx")
    data = colour_folder(Path("data"), {"red": 5, "green": 4, "blue": 3}, {"red": 2})
    split = split_data(open_data(data), 0.5, seed=0)
    Path("run/split.json").write_text(split.to_json())
    return tmp_path


def call(*args: str) -> str:
    result = CliRunner().invoke(graftonnx, ["eval", *args])
    assert result.exit_code == 0, result.output
    assert result.stderr == ""
    return result.stdout


@pytest.mark.usefixtures("place")
def test_eval_prints_the_accuracy_and_the_confusion_matrix() -> None:
    first, *table = call("run", "--data", "data", "--split", "all").splitlines()
    assert first == ("run: top-1 83.33%, loss 1.6668 (12 images of data, on cpu)")
    assert "Rows: true class; columns: predicted class" in table[0]
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in table if line.startswith("│")]
    assert rows == [
        ["red", "5", "60.0%", "100.0%", "3", "2", "·"],
        ["green", "4", "100.0%", "66.7%", "·", "4", "·"],
        ["blue", "3", "100.0%", "100.0%", "·", "·", "3"],
    ]


@pytest.mark.usefixtures("place")
def test_eval_takes_the_images_that_validated_the_run() -> None:
    record = json.loads(call("run", "--data", "data", "--json"))
    assert (record["split"], record["images"]) == ("val", 6)
    everything = json.loads(call("run", "--data", "data", "--split", "all", "--json"))
    train = json.loads(call("run", "--data", "data", "--split", "train", "--json"))
    assert everything["images"] == 12 == record["images"] + train["images"]
    assert everything["top1"] == 10 / 12
    assert everything["confusion"] == [[3, 2, 0], [0, 4, 0], [0, 0, 3]]
    assert everything["classes"][0] == {"name": "red", "images": 5, "recall": 0.6, "precision": 1.0}


@pytest.mark.usefixtures("place")
def test_the_answer_says_that_mirror_images_were_averaged_in() -> None:
    first = call("run", "--data", "data", "--split", "all", "--mirror").splitlines()[0]
    assert first == (
        "run: top-1 83.33%, loss 1.6668 (12 images of data, on cpu, each with its mirror image)"
    )  # of one colour each: the same mirrored
    plain, mirrored = (
        json.loads(call("run", "--data", "data", "--json", *option)) for option in ((), ("--mirror",))
    )
    assert (plain["mirror"], mirrored["mirror"]) == (False, True)


@pytest.mark.usefixtures("place")
def test_an_archive_gives_the_same_as_its_folder() -> None:
    files = {
        path.relative_to("data").as_posix(): path.read_bytes() for path in sorted(Path("data").rglob("*.png"))
    }
    write_zip(Path("data.zip"), files)
    folder = json.loads(call("run", "--data", "data", "--json"))
    archive = json.loads(call("run", "--data", "data.zip", "--json"))
    assert archive == {**folder, "data": "data.zip"}


@pytest.mark.usefixtures("place")
def test_bad_images_end_the_evaluation_or_are_counted() -> None:
    Path("data/red/0.png").write_bytes(b"no image")
    result = CliRunner().invoke(graftonnx, ["eval", "run", "--data", "data", "--split", "all"])
    assert (result.exit_code, result.stdout) == (1, "")
    assert "cannot decode an image of 'data': 'red/0.png' (" in result.stderr
    result = CliRunner().invoke(
        graftonnx, ["eval", "run", "--data", "data", "--split", "all", "--on-bad-image", "skip", "--json"]
    )
    assert result.exit_code == 0
    assert result.stderr.startswith("1 image cannot be decoded, left out: 'red/0.png' (")
    record = json.loads(result.stdout)
    assert (record["images"], [image["name"] for image in record["bad_images"]]) == (11, ["red/0.png"])


@pytest.mark.usefixtures("place")
def test_the_exported_file_gives_the_same_with_the_split_of_the_run() -> None:
    result = CliRunner().invoke(graftonnx, ["export", "run", "-o", "deploy.onnx"])
    assert result.exit_code == 0, result.output
    options = ["--data", "data", "--json"]
    run = json.loads(call("run", *options))
    deployed = json.loads(call("deploy.onnx", "--split-file", "run/split.json", *options))
    assert deployed["confusion"] == run["confusion"]
    assert deployed["loss"] == pytest.approx(run["loss"], abs=1e-6)  # probabilities are float32


@pytest.mark.usefixtures("place")
@pytest.mark.parametrize(("quiet", "notes"), [((), 1), (("-q",), 0)])
def test_accuracy_on_training_images_is_not_reported_unsaid(quiet: tuple[str, ...], notes: int) -> None:
    onnx.save(colour_network(), "alone.onnx")
    result = CliRunner().invoke(graftonnx, ["eval", "alone.onnx", "--data", "data", *quiet])
    assert "(12 images of data, on cpu)" in result.stdout
    note = "Note: nothing says which images validated; these are all, with those that trained.\n"
    assert result.stderr == note * notes


@pytest.mark.usefixtures("place")
@pytest.mark.parametrize("size", ["1", "5", "100"])
def test_the_batch_size_changes_nothing(size: str) -> None:
    record = json.loads(call("run", "--data", "data", "--split", "all", "--batch-size", size, "--json"))
    assert record["confusion"] == [[3, 2, 0], [0, 4, 0], [0, 0, 3]]


def test_many_classes_show_the_most_confused_pairs(tmp_path: Path) -> None:
    """Thirty classes; every image is taken for class 0."""
    import numpy as np

    names = tuple(f"class[{k}]" for k in range(30))
    proto = model(
        """g (float[batch, 3, 8, 8] input) => (float[batch, 30] logits)
        { p = GlobalAveragePool(input)  f = Flatten(p)  logits = Gemm(f, weight, bias) }""",
        {"weight": np.zeros((3, 30), np.float32), "bias": -np.arange(30, dtype=np.float32)},
        Metadata(input=InputConvention(), labels=names),
    )
    onnx.save(proto, tmp_path / "m.onnx")
    for k, name in enumerate(names):
        for i in range(1 + (k == 7)):
            write_image(tmp_path / "data" / name / f"{i}.png", RGB["red"])
    output = call(str(tmp_path / "m.onnx"), "--data", str(tmp_path / "data"), "--split", "all")
    assert "top-1 3.23%, top-5 16.13%" in output
    lines = [[cell.strip() for cell in row.split("│")[1:-1]] for row in output.splitlines()]
    assert ["class[7]", "class[0]", "2"] in lines
    assert ["class[1]", "1", "0.0%", "-"] in lines
    assert "Lowest recall of 30 classes" in output


class TestRefusals:
    """Exit code 1, one sentence on stderr, nothing on stdout."""

    def refused(self, *args: str) -> str:
        result = CliRunner().invoke(graftonnx, ["eval", *args])
        assert (result.exit_code, result.stdout) == (1, ""), result.output
        assert result.stderr.count("\n") == 1
        return result.stderr

    @pytest.mark.usefixtures("place")
    def test_classes_that_the_network_does_not_know(self) -> None:
        colour_folder(Path("data2"), {"red": 1})
        write_image(Path("data2/yellow/1.png"), (255, 255, 0))
        assert self.refused("run", "--data", "data2", "--split", "all") == (
            "Error: cannot evaluate 'model.onnx' on 'data2': the network does not know class 'yellow'; it "
            "knows classes 'red', 'green', 'blue'. Rename the folders, or evaluate on the data it was "
            "trained for.\n"
        )

    @pytest.mark.usefixtures("place")
    def test_a_data_folder_that_is_missing(self) -> None:
        assert "cannot read images from 'absent': there is no such file or folder." in self.refused(
            "run", "--data", "absent"
        )

    @pytest.mark.usefixtures("place")
    def test_a_network_that_is_missing(self) -> None:
        assert "cannot read 'absent.onnx': there is no such file or run folder." in self.refused(
            "absent.onnx", "--data", "data"
        )

    @pytest.mark.usefixtures("place")
    @pytest.mark.skipif(providers.driver() is not None, reason="an NVIDIA driver is here")
    def test_cuda_without_a_driver(self) -> None:
        message = self.refused("run", "--data", "data", "--provider", "cuda")
        assert message.startswith("Error: cannot run 'model.onnx' on CUDA: the NVIDIA driver is missing (")

    @pytest.mark.usefixtures("place")
    def test_usage_errors_exit_with_2(self) -> None:
        result = CliRunner().invoke(graftonnx, ["eval", "run"])
        assert result.exit_code == 2
        assert "Missing option '--data'" in result.stderr
