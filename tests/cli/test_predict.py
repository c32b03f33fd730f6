"""`graftonnx predict` as a user meets it."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import onnx
import pytest
from click.testing import CliRunner, Result
from lookalikes import RGB, colour_network, write_image

from graftonnx.cli import graftonnx
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
    assert rows[0] == ["image", "label_1", "probability_1", "label_2", "probability_2"]
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


def test_unreadable_images_are_named_at_the_end_and_the_rest_is_classified() -> None:
    Path("pictures/3.jpg").write_bytes(b"no image")
    Path("pictures/4.png").write_bytes(Path("rose.png").read_bytes()[:40])
    result = predict("m.onnx", "pictures", "--format", "csv")
    assert result.exit_code == 3
    rows = list(csv.reader(io.StringIO(result.stdout)))
    assert [row[0] for row in rows[1:]] == ["pictures/2.png", "pictures/10.png"]
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
    assert Path("out.csv").read_text().splitlines()[1] == "rose.png,red,0.999909"


class TestRefusals:
    @pytest.mark.parametrize(
        ("args", "message"),
        [
            (("m.onnx", "absent.png"), "cannot classify 'absent.png': there is no such file or folder."),
            (("m.onnx", "*.jpg"), "cannot classify '*.jpg': no file matches this pattern."),
            (("absent.onnx", "rose.png"), "cannot read 'absent.onnx': there is no such file or run folder."),
            (
                ("rose.png", "rose.png"),
                "cannot load 'rose.png': it is not an ONNX file, or it is truncated.",
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
            (("m.onnx",), "Missing argument 'IMAGE|DIR|GLOB...'."),
            (("m.onnx", "rose.png", "-o", "out.txt"), "Cannot tell the format from 'out.txt': give --format"),
            (
                ("m.onnx", "rose.png", "-o", "out.csv", "--format", "table"),
                "A table is for the screen: with -o give --format csv or json.",
            ),
            (
                ("m.onnx", "rose.png", "--json", "--format", "csv"),
                "--json and --format csv exclude each other.",
            ),
            (("m.onnx", "rose.png", "--top", "0"), "Invalid value for '--top'"),
        ],
    )
    def test_usage_errors_exit_with_2(self, args: tuple[str, ...], message: str) -> None:
        result = predict(*args)
        assert result.exit_code == 2
        assert message in result.stderr
