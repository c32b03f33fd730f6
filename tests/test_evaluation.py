"""Counting right answers: on the right images, by name."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import onnx
import pytest
from lookalikes import COLOURS, RGB, colour_folder, colour_network, model, write_image

from graftonnx.classifier import Classifier, open_classifier
from graftonnx.data.catalogue import Data, Sample
from graftonnx.data.folders import FolderTree
from graftonnx.data.opening import open_data
from graftonnx.data.splits import split as split_data
from graftonnx.errors import DataError
from graftonnx.evaluation import Confusion, Evaluation, Selection, evaluate, match_labels, select
from graftonnx.metadata import InputConvention, Metadata


def network(path: Path, labels: tuple[str, ...] = COLOURS) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(colour_network(Metadata(input=InputConvention(), labels=labels)), path)
    return path


def classifier(path: Path, labels: tuple[str, ...] = COLOURS) -> Classifier:
    return open_classifier(network(path, labels), provider="cpu")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Five red, four green and three blue images; two of the red ones look green, one green one blue."""
    return colour_folder(tmp_path / "data", {"red": 5, "green": 4, "blue": 3}, {"red": 2, "green": 1})


@pytest.fixture
def result(data: Path, tmp_path: Path) -> Evaluation:
    selection = select(data, "all", source=network(tmp_path / "m.onnx"))
    return evaluate(classifier(tmp_path / "m.onnx"), selection, batch_size=5)


def test_the_confusion_matrix_has_true_rows_and_predicted_columns(result: Evaluation) -> None:
    assert result.labels == COLOURS
    np.testing.assert_array_equal(result.confusion, [[3, 2, 0], [0, 3, 1], [0, 0, 3]])
    assert (result.images, result.top1, result.top5, result.provider) == (12, 9 / 12, 1.0, "cpu")


def test_recall_and_precision_of_each_class(result: Evaluation) -> None:
    assert [(s.name, s.images, s.recall, s.precision) for s in result.scores] == [
        ("red", 5, 3 / 5, 1.0),
        ("green", 4, 3 / 4, 3 / 5),
        ("blue", 3, 1.0, 3 / 4),
    ]


def test_the_most_confused_pairs_come_first(result: Evaluation) -> None:
    assert result.most_confused(5) == (Confusion("red", "green", 2), Confusion("green", "blue", 1))
    assert result.most_confused(1) == (Confusion("red", "green", 2),)


def test_the_loss_is_the_mean_cross_entropy(result: Evaluation) -> None:
    """Logits are 10 for the colour that is seen and 0 for the others."""
    right = math.log(1 + 2 * math.exp(-10))
    assert result.loss == pytest.approx((9 * right + 3 * (right + 10)) / 12, rel=1e-5)  # float32 logits


def test_classes_are_matched_by_name_and_not_by_order(data: Path, tmp_path: Path) -> None:
    """The folder's classes are in natural order: blue, green, red."""
    selection = select(data, "all", source=network(tmp_path / "m.onnx"))
    assert selection.classes == ("blue", "green", "red")
    swapped = classifier(tmp_path / "swapped.onnx", ("blue", "green", "red"))
    found = evaluate(swapped, selection)
    np.testing.assert_array_equal(found.confusion, [[0, 0, 3], [0, 3, 1], [3, 2, 0]])


def test_classes_without_images_count_as_none(tmp_path: Path) -> None:
    data = colour_folder(tmp_path / "data", {"red": 2, "blue": 2})
    found = evaluate(classifier(tmp_path / "m.onnx"), select(data, "all", source=tmp_path / "m.onnx"))
    assert found.top1 == 1.0
    assert found.scores[1].recall is None
    assert found.scores[1].precision is None


def test_every_image_is_reported(data: Path, tmp_path: Path) -> None:
    seen: list[None] = []
    selection = select(data, "all", source=network(tmp_path / "m.onnx"))
    evaluate(classifier(tmp_path / "m.onnx"), selection, on_image=lambda: seen.append(None))
    assert len(seen) == 12


def test_top5_is_a_rank_among_the_probabilities(tmp_path: Path) -> None:
    """Every image gets the classes a, b, c ... l in this order; the true ones are a, e and f."""
    labels = tuple("abcdefghijkl")
    proto = model(
        """g (float[batch, 3, 8, 8] input) => (float[batch, 12] logits)
        { p = GlobalAveragePool(input)  f = Flatten(p)  logits = Gemm(f, weight, bias) }""",
        {"weight": np.zeros((3, 12), np.float32), "bias": -np.arange(12, dtype=np.float32)},
        Metadata(input=InputConvention(), labels=labels),
    )
    onnx.save(proto, tmp_path / "m.onnx")
    path = write_image(tmp_path / "data" / "x.png", RGB["red"])
    samples = tuple(Sample(path.name, label) for label in (0, 4, 5))
    ready = open_classifier(tmp_path / "m.onnx", provider="cpu")
    data = Data(str(path.parent), labels, samples, (), (), FolderTree(path.parent))
    result = evaluate(ready, Selection(data, "all", labels, samples))
    assert (result.top5_hits, result.top1) == (2, 1 / 3)


class TestSelect:
    @pytest.fixture
    def split_data(self, tmp_path: Path) -> Path:
        for part, count in (("train", 3), ("val", 2), ("test", 1)):
            colour_folder(tmp_path / "split" / part, dict.fromkeys(COLOURS, count))
        return tmp_path / "split"

    def test_a_split_folder_says_itself_what_validates(self, split_data: Path, tmp_path: Path) -> None:
        source = network(tmp_path / "m.onnx")
        counts = {
            part: len(select(split_data, part, source=source).samples)
            for part in (None, "train", "val", "test", "all")
        }
        assert counts == {None: 6, "train": 9, "val": 6, "test": 3, "all": 18}

    def test_a_run_folder_brings_exactly_the_images_that_validated_it(
        self, data: Path, tmp_path: Path
    ) -> None:
        network(tmp_path / "run" / "model.onnx")
        split = split_data(open_data(data), 0.4, seed=7)
        (tmp_path / "run" / "split.json").write_text(split.to_json())
        found = select(data, None, source=tmp_path / "run")
        assert (found.part, found.samples) == ("val", split.val)
        assert select(data, "train", source=tmp_path / "run" / "model.onnx").samples == split.train

    def test_a_split_whose_classes_are_in_another_order_keeps_its_labels(
        self, data: Path, tmp_path: Path
    ) -> None:
        network(tmp_path / "run" / "model.onnx")
        split = split_data(open_data(data), 0.4, seed=7).reordered(COLOURS)
        (tmp_path / "run" / "split.json").write_text(split.to_json())
        selection = select(data, "val", source=tmp_path / "run")
        assert selection.classes == COLOURS
        assert [Path(s.name).parent.name for s in selection.samples] == [
            COLOURS[s.label] for s in selection.samples
        ]

    def test_a_split_file_can_be_given(self, data: Path, tmp_path: Path) -> None:
        split = split_data(open_data(data), 0.4, seed=7)
        (tmp_path / "other.json").write_text(split.to_json())
        source = network(tmp_path / "m.onnx")
        found = select(data, None, source=source, split_file=tmp_path / "other.json")
        assert found.samples == split.val

    def test_without_any_split_all_images_count(self, data: Path, tmp_path: Path) -> None:
        found = select(data, None, source=network(tmp_path / "m.onnx"))
        assert (found.part, len(found.samples)) == ("all", 12)

    def test_a_folder_with_a_test_part_only_is_tested(self, tmp_path: Path) -> None:
        for part in ("train", "test"):
            colour_folder(tmp_path / "d" / part, {"red": 1, "blue": 1})
        assert select(tmp_path / "d", None, source=network(tmp_path / "m.onnx")).part == "test"

    @pytest.mark.parametrize("part", ["train", "val", "test"])
    def test_a_part_that_nobody_knows_is_refused(self, data: Path, tmp_path: Path, part: str) -> None:
        with pytest.raises(
            DataError,
            match=rf"cannot tell the {part} images of '.*data': it has no part '{part}', and no split.json "
            r"of a training run names them\. Give the run folder, or --split-file, or choose --split all",
        ):
            select(data, part, source=network(tmp_path / "m.onnx"))  # type: ignore[arg-type]

    def test_a_split_of_other_data_is_refused(self, data: Path, tmp_path: Path) -> None:
        network(tmp_path / "run" / "model.onnx")
        split = split_data(open_data(data), 0.4, seed=7)
        (tmp_path / "run" / "split.json").write_text(split.to_json())
        other = colour_folder(tmp_path / "other", {"red": 1, "green": 1})
        with pytest.raises(DataError, match=r"which is not in '.*other'\. .* Or choose --split all\."):
            select(other, None, source=tmp_path / "run")


class TestMatchLabels:
    def test_names_decide(self) -> None:
        assert match_labels(("b", "a"), ("a", "x", "b"), 3) == (2, 0)

    def test_without_labels_the_order_decides(self) -> None:
        assert match_labels(("a", "b"), (), 2) == (0, 1)

    @pytest.mark.parametrize(
        ("classes", "labels", "message"),
        [
            (
                ("cat", "ant", "fox"),
                ("cat", "dog"),
                "the network does not know classes 'ant', 'fox'; it knows classes 'cat', 'dog'. "
                "Rename the folders, or evaluate on the data it was trained for.",
            ),
            (
                ("crane", "dog"),
                ("crane", "dog", "crane"),
                "the network has more than one output for class 'crane'. Give it other labels.",
            ),
            (
                ("a", "b"),
                (),
                "the network has 3 outputs without names, and the data has 2 classes. "
                "Give the network its labels: graftonnx export --labels FILE.",
            ),
        ],
    )
    def test_what_does_not_match_is_named(
        self, classes: tuple[str, ...], labels: tuple[str, ...], message: str
    ) -> None:
        with pytest.raises(DataError) as caught:
            match_labels(classes, labels, 3)
        assert caught.value.message == message

    def test_a_long_list_is_cut(self) -> None:
        labels = tuple(f"c{k}" for k in range(1000))
        with pytest.raises(DataError, match=r"it knows classes 'c0', .*, 'c9' and 990 more\. Rename"):
            match_labels(("x",), labels, 1000)


def test_a_mismatch_names_the_network_and_the_data(data: Path, tmp_path: Path) -> None:
    selection = select(data, "all", source=network(tmp_path / "m.onnx"))
    with pytest.raises(
        DataError, match=r"^cannot evaluate 'n.onnx' on '.*data': the network does not know class 'blue'; it"
    ):
        evaluate(classifier(tmp_path / "n.onnx", ("red", "green", "yellow")), selection)


class TestBadImages:
    @pytest.fixture
    def selection(self, data: Path, tmp_path: Path) -> Selection:
        for name in ("green/1.png", "blue/0.png"):
            (data / name).write_bytes(b"no image")
        return select(data, "all", source=network(tmp_path / "m.onnx"))

    def test_are_all_found_before_the_evaluation_is_refused(
        self, selection: Selection, tmp_path: Path
    ) -> None:
        with pytest.raises(
            DataError,
            match=r"cannot decode 2 of 12 images of '.*data': 'blue/0.png' \(it is not an image that Pillow "
            r"can read\), 'green/1.png' \(.*\)\. Remove or mend what is damaged, or pass --on-bad-image skip",
        ):
            evaluate(classifier(tmp_path / "m.onnx"), selection)

    def test_do_not_count_if_they_may_be_left_out(self, selection: Selection, tmp_path: Path) -> None:
        result = evaluate(classifier(tmp_path / "m.onnx"), selection, skip_bad=True, batch_size=3)
        assert result.images == 10
        assert [image.name for image in result.bad] == ["blue/0.png", "green/1.png"]
        assert result.confusion.sum(axis=1).tolist() == [5, 3, 2]

    def test_are_refused_where_there_is_nothing_else(self, data: Path, tmp_path: Path) -> None:
        for path in data.rglob("*.png"):
            path.write_bytes(b"no image")
        selection = select(data, "all", source=network(tmp_path / "m.onnx"))
        with pytest.raises(DataError, match=r"cannot decode 12 of 12 images .* and 9 more\."):
            evaluate(classifier(tmp_path / "m.onnx"), selection, skip_bad=True)
