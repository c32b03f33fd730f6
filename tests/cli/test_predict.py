"""`graftonnx predict` as a user meets it."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import CliRunner, Result
from lookalikes import RGB, colour_network, write_image
from PIL import Image

from graftonnx.classifier import Classifier, Floats
from graftonnx.cli import graftonnx
from graftonnx.images import Pixels
from graftonnx.metadata import InputConvention, Metadata


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A network and three images, relative to the working directory."""
    monkeypatch.chdir(tmp_path)
    onnx.save(colour_network(), "m.onnx")
    write_image(Path("pictures/2.png"), RGB["green"])
    write_image(Path("pictures/10.png"), RGB["blue"])
    write_image(Path("rose.png"), RGB["red"])
    return tmp_path


def predict(*args: str) -> Result:
    return CliRunner().invoke(graftonnx, ["predict", *args])


def test_predict_prints_a_table_in_the_order_of_its_arguments() -> None:
    result = predict("m.onnx", "rose.png", "pictures")
    assert result.exit_code == 0, result.output
    rows = [
        [cell.strip() for cell in line.split("│")[1:-1]]
        for line in result.stdout.splitlines()
        if line.startswith("│")
    ]
    assert rows == [
        ["rose.png", "red", "100.0%"],
        ["pictures/2.png", "green", "100.0%"],
        ["pictures/10.png", "blue", "100.0%"],
    ]
    assert result.stderr == ""


def test_csv_on_stdout_has_a_line_for_each_image() -> None:
    result = predict("m.onnx", "pictures/*.png", "--format", "csv", "--top", "2", "--batch-size", "1")
    rows = list(csv.reader(io.StringIO(result.stdout)))
    assert rows[0] == ["image", "label_1", "probability_1", "label_2", "probability_2", "error"]
    assert [row[:2] for row in rows[1:]] == [["pictures/2.png", "green"], ["pictures/10.png", "blue"]]
    assert [row[2] for row in rows[1:]] == ["0.999909", "0.999909"]


def test_json_on_stdout() -> None:
    (record,) = json.loads(predict("m.onnx", "rose.png", "--format", "json", "--top", "9").stdout)
    assert record["image"] == "rose.png"
    assert [c["label"] for c in record["classes"]] == ["red", "green", "blue"]
    assert sum(c["probability"] for c in record["classes"]) == pytest.approx(1, abs=1e-5)  # six decimals


def test_json_is_asked_for_as_in_every_other_command() -> None:
    asked, named = (predict("m.onnx", "rose.png", *option) for option in (["--json"], ["--format", "json"]))
    assert asked.stdout == named.stdout
    assert predict("m.onnx", "rose.png", "--json", "--format", "json").stdout == named.stdout


@pytest.mark.parametrize("name", ["out.csv", "out.JSON"])
def test_a_file_gets_the_format_of_its_name(name: str) -> None:
    result = predict("m.onnx", "pictures", "-o", name)
    assert (result.exit_code, result.stdout) == (0, "")
    assert result.stderr == f"Wrote {name}: 2 images.\n"
    text = Path(name).read_text()
    labels = (
        [row["label_1"] for row in csv.DictReader(io.StringIO(text))]
        if name == "out.csv"
        else [row["classes"][0]["label"] for row in json.loads(text)]
    )
    assert labels == ["green", "blue"]


def test_without_labels_there_are_indices() -> None:
    onnx.save(colour_network(Metadata(input=InputConvention())), "m.onnx")
    rows = list(csv.reader(io.StringIO(predict("m.onnx", "pictures", "--format", "csv").stdout)))
    assert [row[1] for row in rows[1:]] == ["1", "2"]


def test_a_label_is_never_taken_for_markup() -> None:
    metadata = Metadata(input=InputConvention(), labels=("[red]", "[/]", "blue"))
    onnx.save(colour_network(metadata), "m.onnx")
    assert "[red]" in predict("m.onnx", "rose.png").stdout


def test_a_table_has_no_rows_for_what_is_unreadable() -> None:
    Path("bad.png").write_bytes(b"no image")
    result = predict("m.onnx", "bad.png", "rose.png")
    assert result.exit_code == 3
    assert "bad.png" not in result.stdout
    assert "rose.png" in result.stdout


def test_of_many_unreadable_images_the_first_are_named() -> None:
    for k in range(30):
        Path(f"bad{k}.png").write_bytes(b"no image")
    lines = predict("m.onnx", "bad*.png", "-o", "out.csv").stderr.splitlines()
    assert lines[0] == "Wrote out.csv: 30 images."
    assert lines[1].startswith("cannot decode 'bad0.png': ")
    assert lines[-2:] == ["... and 10 more", "30 of 30 images could not be read."]
    assert len(lines) == 23


@pytest.mark.parametrize(
    ("names", "options"), [("rose.png\npictures/2.png\n", ()), ("rose.png\0pictures/2.png\0", ("-0",))]
)
def test_names_come_on_standard_input(names: str, options: tuple[str, ...]) -> None:
    command = ["predict", "m.onnx", "pictures/10.png", "-", "--format", "jsonl", *options]
    result = CliRunner().invoke(graftonnx, command, input=names)
    assert result.exit_code == 0, result.output
    assert [json.loads(line)["image"] for line in result.stdout.splitlines()] == [
        "pictures/10.png", "rose.png", "pictures/2.png",
    ]  # fmt: skip


def test_an_unknown_name_on_standard_input_is_an_unreadable_image() -> None:
    result = CliRunner().invoke(
        graftonnx, ["predict", "m.onnx", "-", "--json"], input="absent.png\nrose.png\n"
    )
    assert result.exit_code == 3
    first, second = json.loads(result.stdout)
    assert (first["classes"], "No such file" in first["error"]) == ([], True)
    assert (second["classes"][0]["label"], second["error"]) == ("red", None)


def test_labels_come_from_a_file() -> None:
    Path("labels.txt").write_text("rouge\nvert\nbleu\n")
    rows = predict("m.onnx", "rose.png", "--labels", "labels.txt", "--format", "csv").stdout.splitlines()
    assert rows[1].startswith("rose.png,rouge,")
    Path("labels.txt").write_text("rouge\nvert\n")
    refused = predict("m.onnx", "rose.png", "--labels", "labels.txt")
    assert (refused.exit_code, refused.stderr) == (
        1,
        "Error: cannot label 'm.onnx': 2 labels given, it has 3 classes. Give one each class.\n",
    )


def test_ctrl_c_says_how_to_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    probabilities = Classifier.probabilities
    batches: list[Pixels] = []

    def interrupted(self: Classifier, images: Pixels) -> Floats:
        batches.append(images)
        if len(batches) == 2:
            raise KeyboardInterrupt
        return probabilities(self, images)

    monkeypatch.setattr(Classifier, "probabilities", interrupted)
    command = ("m.onnx", "rose.png", "pictures", "-o", "out.csv", "--batch-size", "1")
    result = predict(*command)
    assert (result.exit_code, result.stderr) == (
        130,
        "Interrupted. What is answered is in out.csv.part; the same command goes on from there.\n",
    )
    assert predict(*command).stderr == "Wrote out.csv: 3 images (1 of them before it was interrupted).\n"


class TestKilled:
    """`kill -9` at any moment, again and again, and the same command once more."""

    @pytest.fixture
    def names(self) -> bytes:
        """The names of 400 different images, of which one cannot be read."""
        rng = np.random.default_rng(0)
        for k in range(400):
            Image.fromarray(rng.integers(0, 256, (8, 8, 3), np.uint8)).save(f"{k}.png")
        Path("123.png").write_bytes(b"no image")
        return b"".join(b"%d.png\n" % k for k in range(400))

    def test_the_output_becomes_the_same(self, names: bytes) -> None:
        command = [sys.executable, "-m", "graftonnx", "predict", "m.onnx", "-", "-q", "--top", "3"]
        command += ["--batch-size", "8", "-o"]
        whole = subprocess.run([*command, "whole.csv"], input=names, capture_output=True, check=False)
        assert whole.returncode == 3
        part, held = Path("out.csv.part"), []
        for least in (40, 120, 320):
            process = subprocess.Popen([*command, "out.csv"], stdin=subprocess.PIPE)
            assert process.stdin is not None
            with process, process.stdin as names_to_come:  # still open: the command waits for more
                names_to_come.write(names)
                names_to_come.flush()
                while answered(part) < least:
                    assert process.poll() is None
                    time.sleep(0.0005)
                process.kill()
                process.wait()
            held.append(answered(part))
        assert 0 < held[0] < held[-1]
        resumed = subprocess.run([*command, "out.csv"], input=names, capture_output=True, check=False)
        assert (resumed.returncode, resumed.stderr) == (3, whole.stderr)
        assert Path("out.csv").read_bytes() == Path("whole.csv").read_bytes()
        assert not part.exists()


def answered(part: Path) -> int:
    """Return the number of answers in a journal."""
    return part.read_bytes().count(b"\n") - 1 if part.exists() else 0


def test_unreadable_images_are_named_at_the_end_and_the_rest_is_classified() -> None:
    Path("pictures/3.jpg").write_bytes(b"no image")
    Path("pictures/4.png").write_bytes(Path("rose.png").read_bytes()[:40])
    result = predict("m.onnx", "pictures", "--format", "csv")
    assert result.exit_code == 3
    rows = list(csv.reader(io.StringIO(result.stdout)))
    assert [(row[0], bool(row[1]), bool(row[-1])) for row in rows[1:]] == [
        ("pictures/2.png", True, False),
        ("pictures/3.jpg", False, True),
        ("pictures/4.png", False, True),
        ("pictures/10.png", True, False),
    ]
    first, second, last = result.stderr.splitlines()
    assert first == (
        "cannot decode 'pictures/3.jpg': it is not an image that Pillow can read. Remove it, or save it anew."
    )
    assert second.startswith("cannot decode 'pictures/4.png': ")
    assert last == "2 of 4 images could not be read."


def test_an_output_file_with_unreadable_images_is_written_too() -> None:
    Path("bad.png").write_bytes(b"no image")
    result = predict("m.onnx", "rose.png", "bad.png", "-o", "out.csv", "-q")
    assert result.exit_code == 3
    assert result.stderr.endswith("1 of 2 images could not be read.\n")
    assert Path("out.csv").read_text().splitlines()[1:] == [
        "rose.png,red,0.999909,",
        "bad.png,,,\"cannot decode 'bad.png': it is not an image that Pillow can read. Remove it, or save it "
        'anew."',
    ]


class TestRefusals:
    @pytest.mark.parametrize(
        ("args", "message"),
        [
            (("m.onnx", "absent.png"), "cannot classify 'absent.png': there is no such file or folder."),
            (("m.onnx", "*.jpg"), "cannot classify '*.jpg': no file matches this pattern."),
            (("absent.onnx", "rose.png"), "cannot read 'absent.onnx': there is no such file or run folder."),
            (
                ("rose.png", "rose.png"),
                "cannot read 'rose.png': it is not an ONNX file, or it is truncated (75 bytes). Download or "
                "export it again.",
            ),
            (
                ("m.onnx", "rose.png", "-o", "absent/out.csv"),
                "cannot write 'absent/out.csv': the folder 'absent' does not exist. Create it first.",
            ),
        ],
    )
    def test_failures_exit_with_1(self, args: tuple[str, ...], message: str) -> None:
        result = predict(*args)
        assert (result.exit_code, result.stdout, result.stderr) == (1, "", f"Error: {message}\n")

    def test_an_existing_file_needs_force(self) -> None:
        Path("out.csv").write_text("old")
        result = predict("m.onnx", "rose.png", "-o", "out.csv")
        assert result.exit_code == 1
        assert "cannot write 'out.csv': it exists. Choose another -o, or pass --force." in result.stderr
        assert Path("out.csv").read_text() == "old"
        assert predict("m.onnx", "rose.png", "-o", "out.csv", "--force").exit_code == 0

    @pytest.mark.parametrize(
        ("args", "message"),
        [
            (("m.onnx",), "Missing argument 'IMAGE|DIR|GLOB|-...'."),
            (("m.onnx", "rose.png", "-o", "out.txt"), "Cannot tell the format from 'out.txt': give --format"),
            (
                ("m.onnx", "rose.png", "-o", "out.csv", "--format", "table"),
                "A table is for the screen: with -o give --format csv, json, jsonl or parquet.",
            ),
            (
                ("m.onnx", "rose.png", "--json", "--format", "csv"),
                "--json and --format csv exclude each other.",
            ),
            (("m.onnx", "rose.png", "--top", "0"), "Invalid value for '--top'"),
            (("m.onnx", "rose.png", "--format", "parquet"), "Parquet is for files: give -o FILE.parquet."),
            (("m.onnx", "-", "-"), "Standard input can be read once: give - once."),
            (("m.onnx", "rose.png", "-0"), "-0 is about names on standard input: give - as well."),
        ],
    )
    def test_usage_errors_exit_with_2(self, args: tuple[str, ...], message: str) -> None:
        result = predict(*args)
        assert result.exit_code == 2
        assert message in result.stderr
