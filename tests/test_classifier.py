"""Images in, probabilities out, from every kind of file."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import click
import numpy as np
import onnx
import pytest
from builders import plain_cnn
from lookalikes import COLOURS, RGB, UNIT, colour_network, fused_metadata, model, write_image
from onnx import helper

from graftonnx.classifier import FILES, Classifier, model_file, open_classifier, softmax
from graftonnx.cli import parameters
from graftonnx.cli.inference_options import PROVIDERS as OFFERED_PROVIDERS
from graftonnx.cli.inference_options import preprocess_option
from graftonnx.errors import ModelError
from graftonnx.exporting import export
from graftonnx.feeds import preprocessed
from graftonnx.images import as_input
from graftonnx.metadata import LARGEST_SIDE, PRESETS, InputConvention, Metadata, Preprocess
from graftonnx.providers import PROVIDERS

PIXELS = np.array([RGB[name] for name in COLOURS], np.uint8).reshape(3, 1, 1, 3).repeat(8, 1).repeat(8, 2)
EXPECTED = softmax(np.eye(3, dtype=np.float32) * 10)


def save(proto: onnx.ModelProto, path: Path) -> Path:
    onnx.save(proto, path)
    return path


@pytest.fixture
def classifier(tmp_path: Path) -> Classifier:
    return open_classifier(save(colour_network(), tmp_path / "m.onnx"), provider="cpu")


def test_a_classifier_knows_its_size_classes_and_labels(classifier: Classifier) -> None:
    assert (classifier.size, classifier.classes, classifier.labels) == ((8, 8), 3, COLOURS)


def test_logits_become_probabilities(classifier: Classifier) -> None:
    np.testing.assert_allclose(classifier.probabilities(PIXELS), EXPECTED, rtol=1e-6)  # one rounding


def test_a_file_that_gives_probabilities_is_not_softmaxed_again(tmp_path: Path) -> None:
    export(save(colour_network(), tmp_path / "m.onnx"), tmp_path / "d.onnx")
    classifier = open_classifier(tmp_path / "d.onnx", provider="cpu")
    np.testing.assert_allclose(classifier.probabilities(PIXELS), EXPECTED, rtol=1e-5)  # float32 softmax


def test_a_run_folder_is_its_model(tmp_path: Path) -> None:
    save(colour_network(), tmp_path / "model.onnx")
    assert model_file(tmp_path) == tmp_path / "model.onnx"


@pytest.mark.parametrize("count", [1, 2, 3])
def test_a_fixed_batch_is_filled_up(tmp_path: Path, count: int) -> None:
    classifier = open_classifier(save(colour_network(batch="2"), tmp_path / "m.onnx"), provider="cpu")
    assert classifier.batch == 2
    found = classifier.probabilities(PIXELS[:count])
    np.testing.assert_allclose(found, EXPECTED[:count], rtol=1e-6)  # one rounding


def test_a_foreign_file_gets_the_preprocessing_that_is_given(tmp_path: Path) -> None:
    """The channels are swapped: red images light the third logit."""
    proto = onnx.parser.parse_model(
        """<ir_version: 8, opset_import: ["": 13]> g (float[1, 3, 8, 8] x) => (float[1, 3] y)
        <float[4, 3, 1, 1] w = {1, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0},
         float[4, 3] v = {1, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0}>
        { c = Conv(x, w)  r = Relu(c)  p = GlobalAveragePool(r)  f = Flatten(p)  g = Gemm(f, v)
          y = Softmax(g) }"""
    )
    path = save(proto, tmp_path / "foreign.onnx")
    convention = Preprocess(order="bgr", scale=10.0)
    classifier = open_classifier(path, provider="cpu", preprocess=convention)
    found = classifier.probabilities(PIXELS)
    np.testing.assert_allclose(found, EXPECTED[:, ::-1], rtol=1e-5)  # float32 softmax


def test_the_mirror_image_is_averaged_in(tmp_path: Path) -> None:
    """The network looks for an edge from dark to light, left to right; a mirrored one is the opposite."""
    proto = onnx.parser.parse_model(
        """<ir_version: 8, opset_import: ["": 13]> g (float[N, 3, 8, 8] x) => (float[N, 2] y)
        <float[2, 3, 1, 2] w = {-1, 1, -1, 1, -1, 1, 1, -1, 1, -1, 1, -1},
         float[2, 2] v = {8, 0, 0, 8}>
        { c = Conv(x, w)  r = Relu(c)  p = GlobalAveragePool(r)  f = Flatten(p)  y = Gemm(f, v) }"""
    )
    path = save(proto, tmp_path / "edges.onnx")
    images = np.zeros((2, 8, 8, 3), np.uint8)
    images[0, :, 4:] = 255
    images[1, :, ::2] = 255
    plain = open_classifier(path, provider="cpu", preprocess=Preprocess())
    mirror = open_classifier(path, provider="cpu", preprocess=Preprocess(), mirror=True)
    expected = (plain.probabilities(images) + plain.probabilities(images[:, :, ::-1])) / 2
    np.testing.assert_array_equal(mirror.probabilities(images), expected)
    assert plain.probabilities(images)[0].argmax() == 0
    np.testing.assert_allclose(mirror.probabilities(images)[0], 0.5, rtol=1e-6)  # one rounding


def test_preprocessing_is_order_scale_mean_std_in_this_order() -> None:
    x = np.random.default_rng(0).random((2, 3, 4, 4), dtype=np.float32)
    caffe = PRESETS["caffe"]
    expected = x[:, ::-1] * 255 - np.float32(caffe.mean).reshape(1, 3, 1, 1)
    np.testing.assert_allclose(preprocessed(x, caffe), expected, rtol=1e-5, atol=1e-4)  # values to 150
    imagenet = PRESETS["imagenet"]
    mean, std = (np.float32(v).reshape(1, 3, 1, 1) for v in (imagenet.mean, imagenet.std))
    np.testing.assert_allclose(preprocessed(x, imagenet), (x - mean) / std, rtol=1e-5, atol=1e-6)
    assert preprocessed(x, Preprocess()) is x


def test_one_channel_gets_the_luma() -> None:
    x = np.zeros((1, 3, 2, 2), np.float32)
    x[:, 1] = 1
    grey = preprocessed(as_input(x, (1, 2, 2)), Preprocess(order="grey", scale=2.0))
    assert grey.shape == (1, 1, 2, 2)
    np.testing.assert_allclose(grey, 2 * 0.587, rtol=1e-6)  # one rounding


@pytest.mark.parametrize("what", ["mean", "std"])
def test_numbers_that_are_not_one_each_channel_are_refused(tmp_path: Path, what: str) -> None:
    told = Metadata(input=InputConvention(preprocess=Preprocess.model_validate({what: (0.5, 0.5)})))
    path = save(colour_network(told), tmp_path / "m.onnx")
    message = rf"^cannot use 'm.onnx': its preprocessing has 2 numbers in {what}, its input 3 channels\."
    with pytest.raises(ModelError, match=message):
        open_classifier(path, provider="cpu")


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("parents", ["a"] * 27, r"graftonnx\.parents' is damaged: it has 27 entries, expected at most 26\."),
        (
            "parents",
            ["a", "b", "a"],
            r"graftonnx\.parents' is damaged: 2 parents are branch 'a', expected one",
        ),
        ("parents", ["aa"], r"graftonnx\.parents\.0\.branch' is damaged: String should match"),
        ("parents", [""], r"graftonnx\.parents\.0\.branch' is damaged: String should match"),
        (
            "parents",
            [0] * 40_000,
            r"graftonnx\.parents\.0\.branch' is damaged: Input should be a valid string",
        ),
        ("labels", [0] * 100_000, r"graftonnx\.labels\.0' is damaged: Input should be a valid string"),
        ("input", dict.fromkeys(map(str, range(100_000))), "' is damaged: 100,000 of its values are wrong"),
    ],
    ids=["many", "equal", "long", "empty", "wrong parents", "wrong labels", "wrong fields"],
)
def test_metadata_of_many_or_wrong_values_is_refused_at_once(
    tmp_path: Path, key: str, value: list[str] | dict[str, None], message: str
) -> None:
    first = fused_metadata(3).parents[0].model_dump(mode="json")
    if key == "parents":
        value = [{**first, "branch": branch} for branch in value]
    proto = colour_network()
    entries = {entry.key: entry.value for entry in proto.metadata_props}
    helper.set_model_props(proto, {**entries, f"graftonnx.{key}": json.dumps(value)})
    path = save(proto, tmp_path / "m.onnx")
    started = time.process_time()
    with pytest.raises(ModelError, match=message):
        open_classifier(path, provider="cpu")
    assert time.process_time() - started < 2


@pytest.mark.parametrize("labels", [("red",), (*COLOURS, "grey")], ids=["too few", "too many"])
def test_labels_of_another_number_than_the_classes_are_refused(
    tmp_path: Path, labels: tuple[str, ...]
) -> None:
    path = save(colour_network(UNIT.model_copy(update={"labels": labels})), tmp_path / "m.onnx")
    message = (
        rf"^cannot use 'm.onnx': labels in its metadata: {len(labels)}, expected 3, one for each class\. "
        r"Give it others: graftonnx export --labels FILE\.$"
    )
    with pytest.raises(ModelError, match=message):
        open_classifier(path, provider="cpu")
    assert open_classifier(path, provider="cpu", labels=COLOURS).labels == COLOURS
    export(path, tmp_path / "d.onnx", labels=COLOURS)
    assert open_classifier(tmp_path / "d.onnx", provider="cpu").labels == COLOURS


@pytest.mark.parametrize(
    ("size", "message"),
    [
        (
            [20_000, 20_000],
            r"the bytes of its value 'input' \[1, 3, 20000, 20000\] are 4,800,000,000; the limit",
        ),
        ([60_000, 8], r"input\.size\.0' is damaged: Input should be less than or equal to 32768\."),
        ([8, 0], r"input\.size\.1' is damaged: Input should be greater than or equal to 1\."),
        ([-5, 7], r"input\.size\.0' is damaged: Input should be greater than or equal to 1\."),
    ],
)
def test_a_size_that_no_image_has_is_refused(tmp_path: Path, size: list[int], message: str) -> None:
    proto = colour_network()
    for dim, name in zip(proto.graph.input[0].type.tensor_type.shape.dim[2:], "HW", strict=True):
        dim.dim_param = name
    entry = next(entry for entry in proto.metadata_props if entry.key == "graftonnx.input")
    entry.value = json.dumps({"size": size})
    with pytest.raises(ModelError, match=message):
        open_classifier(save(proto, tmp_path / "m.onnx"), provider="cpu")


def test_the_command_line_takes_the_sizes_that_files_may_have() -> None:
    assert parameters.LARGEST_SIDE == LARGEST_SIDE


def test_predictions_come_in_the_order_of_the_files_whatever_the_batch(
    classifier: Classifier, tmp_path: Path
) -> None:
    names = [COLOURS[k % 3] for k in range(11)]
    paths = [write_image(tmp_path / f"{k}.png", RGB[name]) for k, name in enumerate(names)]
    paths.insert(4, tmp_path / "absent.png")
    found = list(classifier.predict(iter(paths), batch_size=3, workers=2))
    assert [p.path for p in found] == paths
    assert found[4].probabilities is None
    assert found[4].error == (
        f"cannot decode '{tmp_path / 'absent.png'}': No such file or directory. Remove it, or save it anew."
    )
    rest = [p.probabilities for p in found if p.probabilities is not None]
    assert [COLOURS[int(p.argmax())] for p in rest] == names


def test_only_a_few_batches_are_read_ahead(classifier: Classifier, tmp_path: Path) -> None:
    path = write_image(tmp_path / "a.png", RGB["red"])
    taken: list[int] = []

    def endless() -> Iterator[Path]:
        for k in range(10_000):
            taken.append(k)
            yield path

    predictions = classifier.predict(endless(), batch_size=4, workers=2)
    next(predictions)
    predictions.close()
    assert len(taken) <= 3 * 4 + 4 * FILES


class TestRefusals:
    def test_a_run_folder_without_a_model(self, tmp_path: Path) -> None:
        with pytest.raises(
            ModelError, match=r"cannot read '.*': the folder holds no 'model.onnx'\. Give the"
        ):
            open_classifier(tmp_path)

    def test_a_file_that_says_nothing_of_its_input(self, tmp_path: Path) -> None:
        path = save(plain_cnn((4, 8)), tmp_path / "m.onnx")
        with pytest.raises(
            ModelError, match=r"it does not say how its input is to be preprocessed\. Give --"
        ):
            open_classifier(path, provider="cpu")

    def test_a_network_without_a_fixed_size(self, tmp_path: Path) -> None:
        proto = model(
            """g (float[batch, 3, H, W] input) => (float[batch, 3] logits)
            { p = GlobalAveragePool(input)  logits = Flatten(p) }""",
            {},
            UNIT,
        )
        with pytest.raises(
            ModelError, match=r"its input is \['batch', 3, 'H', 'W'\]; expected a fixed height and width"
        ):
            open_classifier(save(proto, tmp_path / "m.onnx"), provider="cpu")

    def test_a_network_that_gives_no_numbers(self, tmp_path: Path) -> None:
        proto = model(
            """g (float[batch, 3, 8, 8] input) => (float[batch, 3] logits)
            { p = GlobalAveragePool(input) f = Flatten(p) logits = Mul(f, w) }""",
            {"w": np.float32(np.nan)},
            Metadata(input=InputConvention()),
        )
        classifier = open_classifier(save(proto, tmp_path / "m.onnx"), provider="cpu")
        with pytest.raises(
            ModelError, match=r"cannot classify with 'm.onnx': it gives numbers that are not fi"
        ):
            classifier.probabilities(PIXELS)


def test_the_command_line_offers_every_preset_and_provider() -> None:
    """They are repeated there, so that --help imports neither onnx nor onnxruntime."""
    (option,) = click.command()(preprocess_option(lambda: None)).params
    assert isinstance(option, click.Option)
    assert f": {', '.join(PRESETS)}, or numbers" in str(option.help)
    assert PROVIDERS == OFFERED_PROVIDERS
