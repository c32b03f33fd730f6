"""Which images are meant, how answers are written down, and how an interrupted command goes on."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pyarrow.parquet
import pytest
from builders import plain_cnn
from data.pictures import closed_to_all
from lookalikes import COLOURS, RGB, colour_network, write_image

from graftonnx.classifier import Classifier, open_classifier
from graftonnx.errors import DataError, GraftError
from graftonnx.prediction import Answer, Candidate, Written, predict, write_predictions
from graftonnx.prediction.answers import from_json, likeliest, spelled, to_record
from graftonnx.prediction.formats import Format, lines, write
from graftonnx.prediction.listing import find_images, list_images, read_names

ANSWER = Answer('a "b", c.png', (Candidate(2, "blue, dark", 0.75), Candidate(0, "red", 0.333333)))
UNREADABLE = Answer("d.png", error="cannot decode 'd.png': it is torn.")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Images in several places; the working directory is the folder."""
    for name in ("img10.png", "img2.png", "deep/er/img1.png", ".hidden.png", ".cache/a.png", "[x].png"):
        write_image(tmp_path / name, RGB["red"])
    (tmp_path / "notes.txt").write_text("no image")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.usefixtures("folder")
class TestListing:
    def test_a_folder_is_everything_visible_below_it_in_natural_order(self) -> None:
        assert find_images(".") == ["[x].png", "img2.png", "img10.png", "deep/er/img1.png"]
        assert find_images("deep") == ["deep/er/img1.png"]

    def test_arguments_keep_their_order(self) -> None:
        listing = list_images(["img10.png", "-", "deep", "img2.png"], iter(["x", "y"]))
        assert list(listing.names) == ["img10.png", "x", "y", "deep/er/img1.png", "img2.png"]
        assert listing.count is None
        assert list_images(["img10.png", "deep"]).count == 2

    def test_standard_input_is_read_when_its_turn_comes(self) -> None:
        def endless() -> Iterator[str]:
            while True:
                yield "x"

        names = list_images(["img10.png", "-"], endless()).names
        assert [next(names) for _ in range(3)] == ["img10.png", "x", "x"]

    def test_a_pattern_is_expanded_in_natural_order(self) -> None:
        assert find_images("img*.png") == ["img2.png", "img10.png"]
        assert find_images("**/img1.png") == ["deep/er/img1.png"]

    def test_a_name_with_brackets_is_a_file_first(self) -> None:
        assert find_images("[x].png") == ["[x].png"]

    def test_a_file_counts_whatever_its_name_is(self) -> None:
        assert find_images("notes.txt") == ["notes.txt"]

    @pytest.mark.parametrize(
        ("argument", "message"),
        [
            ("absent.png", r"cannot classify 'absent.png': there is no such file or folder\."),
            ("*.jpg", r"cannot classify '\*.jpg': no file matches this pattern\."),
        ],
    )
    def test_an_argument_that_means_nothing_is_refused(self, argument: str, message: str) -> None:
        with pytest.raises(DataError, match=message):
            find_images(argument)

    @pytest.mark.parametrize("argument", [".", "deep", "deep/er"])
    def test_a_folder_that_cannot_be_read_is_refused(
        self, argument: str, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        closed_to_all(monkeypatch, folder / "deep" / "er")
        with pytest.raises(
            DataError, match=r"cannot read the folder '.*er': Permission denied\. Let it be rea"
        ):
            find_images(argument)

    def test_an_empty_folder_is_refused(self, folder: Path) -> None:
        (folder / "empty").mkdir()
        with pytest.raises(DataError, match=r"cannot classify 'empty': no image file is in this folder \("):
            find_images("empty")


class Dribble(io.BytesIO):
    """A stream that gives one byte at a time."""

    def read1(self, size: int | None = -1) -> bytes:
        return self.read(1)


@pytest.mark.parametrize(
    ("content", "separator", "names"),
    [
        (b"a.png\nb c.png\r\n\n\nd.png", b"\n", ["a.png", "b c.png", "d.png"]),
        (b"a\nb.png\0 c.png\r\0", b"\0", ["a\nb.png", " c.png\r"]),
        (b"", b"\n", []),
        (b"\xff.png\n", b"\n", ["\udcff.png"]),
    ],
)
def test_names_in_a_stream(content: bytes, separator: bytes, names: list[str]) -> None:
    for stream in (io.BytesIO(content), Dribble(content)):
        assert list(read_names(stream, separator)) == names


def test_the_likeliest_classes_come_first() -> None:
    found = likeliest(np.float32([0.2, 0.5, 0.3]), ("x", "y", "z"), 2)
    assert [(c.index, c.label, c.probability) for c in found] == [(1, "y", 0.5), (2, "z", 0.3)]


def test_without_labels_the_index_is_the_label() -> None:
    assert likeliest(np.float32([0.2, 0.8]), (), 1)[0].label == "1"


def test_a_name_that_is_not_utf_8_is_spelled_out() -> None:
    assert spelled(os.fsdecode(b"caf\xe9.png")) == r"caf\xe9.png"
    assert spelled("café.png") == "café.png"


def text(style: Any, *answers: Answer, top: int = 2) -> str:
    return "".join(f"{line}\n" for line in lines(answers, style, top))


def test_csv_survives_quotes_and_commas_and_keeps_a_row_for_what_is_unreadable() -> None:
    assert list(csv.reader(io.StringIO(text("csv", ANSWER, UNREADABLE)))) == [
        ["image", "label_1", "probability_1", "label_2", "probability_2", "error"],
        ['a "b", c.png', "blue, dark", "0.750000", "red", "0.333333", ""],
        ["d.png", "", "", "", "", "cannot decode 'd.png': it is torn."],
    ]


@pytest.mark.parametrize("name", ["=1+1.png", "+a.png", "-a.png", "@a.png", "\ta.png", "\ra.png"])
def test_no_cell_of_csv_is_a_formula(name: str) -> None:
    answer = Answer(name, (Candidate(0, name, 1.0),))
    row = list(csv.reader(io.StringIO(text("csv", answer, top=1), newline="")))[1]
    assert row == [f"'{name}", f"'{name}", "1.000000", ""]


def test_json_is_laid_out_as_the_library_does() -> None:
    records = [to_record(ANSWER), to_record(UNREADABLE)]
    assert text("json", ANSWER, UNREADABLE) == f"{json.dumps(records, indent=2)}\n"
    assert json.loads(text("json")) == []


def test_json_lines_are_records() -> None:
    lines = text("jsonl", ANSWER, UNREADABLE).splitlines()
    assert json.loads(lines[0]) == {
        "image": 'a "b", c.png',
        "classes": [
            {"label": "blue, dark", "index": 2, "probability": 0.75},
            {"label": "red", "index": 0, "probability": 0.333333},
        ],
        "error": None,
    }
    assert list(map(from_json, lines)) == [ANSWER, UNREADABLE]


def test_parquet_may_be_written_to_any_name(tmp_path: Path) -> None:
    path = tmp_path / os.fsdecode(b"x\xff.parquet")
    write(iter([ANSWER]), path, "parquet", 2)
    assert pyarrow.parquet.read_table(io.BytesIO(path.read_bytes())).num_rows == 1


def test_parquet_has_typed_columns_and_nulls(tmp_path: Path) -> None:
    write([ANSWER, UNREADABLE], tmp_path / "out.parquet", "parquet", 2)
    table = pyarrow.parquet.read_table(tmp_path / "out.parquet")
    assert {field.name: str(field.type) for field in table.schema} == {
        "image": "string", "label_1": "string", "probability_1": "double", "label_2": "string",
        "probability_2": "double", "error": "string",
    }  # fmt: skip
    assert table.to_pylist() == [
        {"image": 'a "b", c.png', "label_1": "blue, dark", "probability_1": 0.75, "label_2": "red",
         "probability_2": 0.333333, "error": None},
        {"image": "d.png", "label_1": None, "probability_1": None, "label_2": None, "probability_2": None,
         "error": "cannot decode 'd.png': it is torn."},
    ]  # fmt: skip


@pytest.fixture
def classifier(tmp_path: Path) -> Classifier:
    onnx.save(colour_network(), tmp_path / "m.onnx")
    return open_classifier(tmp_path / "m.onnx", provider="cpu")


@pytest.fixture
def images(tmp_path: Path) -> list[Path]:
    """Eleven images, of which the fifth cannot be read."""
    paths = [write_image(tmp_path / f"{k}.png", RGB[COLOURS[k % 3]]) for k in range(11)]
    paths[4].write_bytes(b"no image")
    return paths


def test_predict_answers_in_order(classifier: Classifier, images: list[Path]) -> None:
    found = list(predict(classifier, iter(images), batch_size=3))
    assert [Path(answer.image) for answer in found] == images
    assert [a.candidates[0].label for a in found if not a.error] == [
        COLOURS[k % 3] for k in range(11) if k != 4
    ]


class StopError(Exception):
    """What ends a command in these tests."""


class TestResuming:
    def interrupted(
        self, classifier: Classifier, images: list[Path], output: Path, after: int, *, force: bool = False
    ) -> Path:
        """Write predictions and stop when `after` images are answered; return the journal.

        `force` is for an output that is there.
        """
        answered = 0

        def count(images: int) -> None:
            nonlocal answered
            answered += images
            if answered >= after:
                raise StopError

        with pytest.raises(StopError):
            self.again(classifier, images, output, on_images=count, force=force)
        assert output.exists() == force
        return output.with_name(f"{output.name}.part")

    def again(self, classifier: Classifier, images: list[Path], output: Path, **options: Any) -> Written:
        return write_predictions(classifier, images, output, **{"batch_size": 3, "style": "jsonl", **options})

    @pytest.fixture
    def whole(self, classifier: Classifier, images: list[Path], tmp_path: Path) -> bytes:
        (tmp_path / "whole").mkdir()
        written = self.again(classifier, images, tmp_path / "whole" / "out.jsonl")
        assert (written.images, written.unreadable, written.resumed) == (11, 1, 0)
        assert [path.name for path in (tmp_path / "whole").iterdir()] == ["out.jsonl"]
        return (tmp_path / "whole" / "out.jsonl").read_bytes()

    @pytest.mark.parametrize("torn", [0, 1, 40, 200])
    def test_the_file_becomes_the_same(
        self, classifier: Classifier, images: list[Path], tmp_path: Path, whole: bytes, torn: int
    ) -> None:
        output = tmp_path / "out.jsonl"
        part = self.interrupted(classifier, images, output, 6)
        part.write_bytes(part.read_bytes()[: -torn or None])
        written = self.again(classifier, images, output)
        assert written.resumed == (6 if torn == 0 else 3)
        assert (written.images, written.unreadable) == (11, 1)
        assert output.read_bytes() == whole
        assert not part.exists()

    def test_what_a_power_cut_leaves_is_cut_off(
        self, classifier: Classifier, images: list[Path], tmp_path: Path, whole: bytes
    ) -> None:
        output = tmp_path / "out.jsonl"
        part = self.interrupted(classifier, images, output, 6)
        part.write_bytes(part.read_bytes() + b"\0" * 4096)
        assert self.again(classifier, images, output).resumed == 6
        assert output.read_bytes() == whole

    @pytest.mark.parametrize("style", ["csv", "json", "jsonl", "parquet"])
    def test_every_format_becomes_the_same(
        self, classifier: Classifier, images: list[Path], tmp_path: Path, style: Format
    ) -> None:
        self.again(classifier, images, tmp_path / "whole", style=style)
        self.interrupted(classifier, images, tmp_path / "out", 3)
        assert self.again(classifier, images, tmp_path / "out", style=style).resumed == 3
        assert (tmp_path / "out").read_bytes() == (tmp_path / "whole").read_bytes()

    def test_a_batch_is_the_same_one_after_an_interruption(
        self, classifier: Classifier, images: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        self.interrupted(classifier, images, tmp_path / "out.jsonl", 6)
        sizes: list[int] = []
        probabilities = classifier.probabilities
        monkeypatch.setattr(
            classifier, "probabilities", lambda x: [sizes.append(len(x)), probabilities(x)][1]
        )
        self.again(classifier, images, tmp_path / "out.jsonl")
        assert sizes == [3, 2]

    def test_images_may_be_added_at_the_end(
        self, classifier: Classifier, images: list[Path], tmp_path: Path, whole: bytes
    ) -> None:
        self.interrupted(classifier, images[:7], tmp_path / "out.jsonl", 6)
        assert self.again(classifier, images, tmp_path / "out.jsonl").resumed == 6
        assert (tmp_path / "out.jsonl").read_bytes() == whole

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"top": 2}, "it was begun with another top. Give the same as then, or --force to begin anew."),
            ({"batch_size": 2}, "it was begun with another batch size. Give"),
        ],
    )
    def test_other_settings_are_refused(
        self, classifier: Classifier, images: list[Path], tmp_path: Path, change: dict[str, int], message: str
    ) -> None:
        part = self.interrupted(classifier, images, tmp_path / "out.jsonl", 6)
        before = part.read_bytes()
        with pytest.raises(DataError, match=f"cannot go on with '{part}': {message}"):
            self.again(classifier, images, tmp_path / "out.jsonl", **change)
        assert part.read_bytes() == before

    def test_answers_with_and_without_mirror_images_are_not_mixed(
        self, classifier: Classifier, images: list[Path], tmp_path: Path
    ) -> None:
        self.interrupted(classifier, images, tmp_path / "out.jsonl", 6)
        classifier.mirror = True
        with pytest.raises(
            DataError, match=r"it was begun with another use of mirror images\. Give the same"
        ):
            self.again(classifier, images, tmp_path / "out.jsonl")

    def test_another_network_is_refused(
        self, classifier: Classifier, images: list[Path], tmp_path: Path
    ) -> None:
        self.interrupted(classifier, images, tmp_path / "out.jsonl", 6)
        onnx.save(colour_network(size=9), tmp_path / "other.onnx")
        other = open_classifier(tmp_path / "other.onnx", provider="cpu")
        with pytest.raises(DataError, match="it was begun with another network"):
            self.again(other, images, tmp_path / "out.jsonl")

    def test_answers_to_pixels_of_two_conventions_are_not_mixed(
        self, images: list[Path], tmp_path: Path
    ) -> None:
        onnx.save(plain_cnn(), tmp_path / "plain.onnx")
        first, second = (
            open_classifier(tmp_path / "plain.onnx", provider="cpu", preprocess=preset)
            for preset in ("imagenet", "caffe")
        )
        self.interrupted(first, images, tmp_path / "out.jsonl", 6)
        with pytest.raises(DataError, match=r"it was begun with another preprocessing\. Give the same"):
            self.again(second, images, tmp_path / "out.jsonl")

    def test_weights_in_another_file_are_part_of_the_network(
        self, images: list[Path], tmp_path: Path
    ) -> None:
        onnx.save(
            plain_cnn(),
            tmp_path / "outside.onnx",
            save_as_external_data=True,
            location="weights.bin",
            size_threshold=0,
        )
        network = open_classifier(tmp_path / "outside.onnx", provider="cpu", preprocess="unit")
        self.interrupted(network, images, tmp_path / "out.jsonl", 6)
        content = bytearray((tmp_path / "weights.bin").read_bytes())
        content[-1] ^= 1
        (tmp_path / "weights.bin").write_bytes(content)
        with pytest.raises(DataError, match=r"it was begun with another network\. Give the same"):
            self.again(network, images, tmp_path / "out.jsonl")

    @pytest.mark.parametrize(
        "line",
        [
            '{"image": ' + "[" * 2000,
            '{"image": "\\ud800", "classes": [], "error": ""}',
            '{"image": 1, "classes": [], "error": ""}',
            '{"image": "0.png", "classes": [{"label": 1, "index": 0, "probability": 0.5}], "error": null}',
            '{"image": "0.png", "classes": [{"label": "x", "index": 0, "probability": 0.5}], "error": null}',
            '{"image": "0.png", "classes": [{"label": "x", "index": 9, "probability": 0.5}], "error": null}',
            '{"image": "0.png", "classes": [], "error": null}',
            '{"image": "0.png", "classes": "", "error": null}',
        ],
    )
    def test_an_answer_that_the_network_cannot_have_given_is_asked_for_again(
        self, classifier: Classifier, images: list[Path], tmp_path: Path, whole: bytes, line: str
    ) -> None:
        part = self.interrupted(classifier, images, tmp_path / "out.jsonl", 6)
        lines = part.read_text().splitlines()
        lines[5] = line
        part.write_text("".join(f"{line}\n" for line in lines))
        assert self.again(classifier, images, tmp_path / "out.jsonl").resumed == 3
        assert (tmp_path / "out.jsonl").read_bytes() == whole

    def test_other_images_are_refused(
        self, classifier: Classifier, images: list[Path], tmp_path: Path
    ) -> None:
        part = self.interrupted(classifier, images, tmp_path / "out.jsonl", 6)
        before = part.read_bytes()
        images[1:3] = images[2:0:-1]
        with pytest.raises(DataError, match=r"its image 2 is '.*1.png', now it is '.*2.png'\. Give the same"):
            self.again(classifier, images, tmp_path / "out.jsonl")
        with pytest.raises(DataError, match=r"its image 3 is '.*2.png', now it is missing\. Give the same"):
            self.again(classifier, [images[0], images[2]], tmp_path / "out.jsonl")
        assert part.read_bytes() == before

    def test_a_file_of_another_program_is_refused_and_stays(
        self, classifier: Classifier, images: list[Path], tmp_path: Path
    ) -> None:
        part = tmp_path / "out.jsonl.part"
        part.write_bytes(b"half a download")
        with pytest.raises(DataError, match="graftonnx predict did not write it, or it is damaged"):
            self.again(classifier, images, tmp_path / "out.jsonl")
        assert part.read_bytes() == b"half a download"

    def test_force_begins_anew(
        self, classifier: Classifier, images: list[Path], tmp_path: Path, whole: bytes
    ) -> None:
        self.interrupted(classifier, images[::-1], tmp_path / "out.jsonl", 6)
        assert self.again(classifier, images, tmp_path / "out.jsonl", force=True).resumed == 0
        assert (tmp_path / "out.jsonl").read_bytes() == whole

    @pytest.mark.parametrize("moment", [0, 4e9], ids=["past", "future"])
    def test_a_forced_command_is_resumed_without_force_whatever_the_clock_says(
        self, classifier: Classifier, images: list[Path], tmp_path: Path, whole: bytes, moment: float
    ) -> None:
        (tmp_path / "out.jsonl").write_text("old")
        os.utime(tmp_path / "out.jsonl", (moment, moment))
        self.interrupted(classifier, images, tmp_path / "out.jsonl", 6, force=True)
        assert (tmp_path / "out.jsonl").read_text() == "old"
        assert self.again(classifier, images, tmp_path / "out.jsonl").resumed == 6
        assert (tmp_path / "out.jsonl").read_bytes() == whole

    def test_a_leftover_of_a_finished_command_does_not_count(
        self, classifier: Classifier, images: list[Path], tmp_path: Path
    ) -> None:
        part = self.interrupted(classifier, images, tmp_path / "out.jsonl", 6)
        (tmp_path / "out.jsonl").write_text("finished")
        os.utime(tmp_path / "out.jsonl", (0, 0))
        with pytest.raises(GraftError, match=r"it exists\. Choose another -o, or pass --force"):
            self.again(classifier, images, tmp_path / "out.jsonl")
        assert not part.exists()

    @pytest.mark.parametrize("force", [False, True])
    def test_a_link_or_a_pipe_in_the_place_of_the_answers_so_far_is_refused(
        self, classifier: Classifier, images: list[Path], tmp_path: Path, force: bool
    ) -> None:
        (tmp_path / "mine").write_text("mine")
        (tmp_path / "link.jsonl.part").symlink_to("mine")
        os.mkfifo(tmp_path / "pipe.jsonl.part")
        for name in ("link", "pipe"):
            with pytest.raises(DataError, match=r"it is no regular file\. Remove it, or choose"):
                self.again(classifier, images, tmp_path / f"{name}.jsonl", force=force)
        assert (tmp_path / "mine").read_text() == "mine"

    def test_two_commands_cannot_write_one_file(
        self, classifier: Classifier, images: list[Path], tmp_path: Path
    ) -> None:
        def meanwhile(answered: int) -> None:
            with pytest.raises(DataError, match="another graftonnx predict is writing it"):
                self.again(classifier, images, tmp_path / "out.jsonl")

        self.again(classifier, images, tmp_path / "out.jsonl", on_images=meanwhile)

    def test_a_failure_before_the_first_answer_leaves_nothing(
        self, classifier: Classifier, images: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fail(images: object) -> None:
            raise StopError

        monkeypatch.setattr(classifier, "probabilities", fail)
        before = sorted(tmp_path.iterdir())
        with pytest.raises(StopError):
            self.again(classifier, images, tmp_path / "out.jsonl")
        assert sorted(tmp_path.iterdir()) == before

    def test_a_full_disk_keeps_what_is_answered(
        self,
        classifier: Classifier,
        images: list[Path],
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        whole: bytes,
    ) -> None:
        def full(*args: object) -> None:
            raise OSError(28, "No space left on device")

        with monkeypatch.context() as patch:
            patch.setattr("graftonnx.prediction.writing.write", full)
            with pytest.raises(GraftError, match=r"cannot write '.*out.jsonl': No space left on device\."):
                self.again(classifier, images, tmp_path / "out.jsonl")
        assert self.again(classifier, images, tmp_path / "out.jsonl").resumed == 9
        assert (tmp_path / "out.jsonl").read_bytes() == whole


def test_parquet_without_its_package_is_refused(
    classifier: Classifier, images: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pyarrow.parquet", None)
    with pytest.raises(DataError, match=r"cannot write Parquet: the package 'pyarrow' is missing\. Install"):
        write_predictions(classifier, images, tmp_path / "out.parquet", style="parquet")
    assert not list(tmp_path.glob("out*"))
