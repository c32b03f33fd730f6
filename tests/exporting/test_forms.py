"""What an exported file takes: pixels or floats, channels first or last, of one batch, of one size."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from builders import plain_cnn
from lookalikes import RGB, colour_folder, colour_network, two_branches, write_image

from graftonnx.classifier import open_classifier
from graftonnx.errors import ModelError
from graftonnx.exporting import export
from graftonnx.images import as_input, to_input
from graftonnx.metadata import PRESETS, read_metadata
from graftonnx.runtime import open_session

PIXELS = np.random.default_rng(1).integers(0, 256, (3, 12, 12, 3), np.uint8)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    onnx.save(two_branches(skip=0.5), tmp_path / "model.onnx")
    return tmp_path / "model.onnx"


def logits(path: Path, *inputs: np.ndarray) -> np.ndarray:
    return open_session(path, provider="cpu").run(*inputs)[0]


def test_pixels_of_a_camera_go_in_as_they_are(source: Path, tmp_path: Path) -> None:
    written = export(source, tmp_path / "d.onnx", element="uint8", layout="nhwc", with_softmax=False)
    session = open_session(tmp_path / "d.onnx", provider="cpu")
    assert (session.input_shape, session.input_type) == (("batch", 12, 12, 3), np.uint8)
    expected = logits(source, to_input(PIXELS))
    # float32 rounding of four layers
    np.testing.assert_allclose(session.run(PIXELS)[0], expected, rtol=1e-4, atol=1e-4)
    assert written.difference < 1e-5


def test_branches_take_the_scale_of_pixels_into_their_first_conv(source: Path, tmp_path: Path) -> None:
    """All but the one that resizes the image first."""
    export(source, tmp_path / "float.onnx")
    export(source, tmp_path / "pixels.onnx", element="uint8")
    operators = [
        sorted(node.op_type for node in onnx.load(tmp_path / f"{name}.onnx").graph.node)
        for name in ("float", "pixels")
    ]
    assert sorted([*operators[0], "Cast", "Mul"]) == operators[1]


def test_the_file_says_what_it_takes_and_every_command_understands_it(source: Path, tmp_path: Path) -> None:
    export(source, tmp_path / "d.onnx", element="uint8", layout="nhwc")
    convention = read_metadata(onnx.load(tmp_path / "d.onnx")).input
    assert convention is not None
    assert (convention.preprocess, convention.layout) == (PRESETS["raw"], "nhwc")
    found = open_classifier(tmp_path / "d.onnx", provider="cpu").probabilities(PIXELS)
    expected = open_classifier(source, provider="cpu").probabilities(PIXELS)
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_the_convention_of_another_maker_goes_inside(tmp_path: Path) -> None:
    """Blue, green, red, 0..255, less a mean each."""
    onnx.save(plain_cnn(), tmp_path / "m.onnx")
    export(tmp_path / "m.onnx", tmp_path / "d.onnx", element="uint8", preprocess="caffe", with_softmax=False)
    pixels = np.random.default_rng(4).integers(0, 256, (2, 3, 16, 16), np.uint8)
    means = np.float32([103.939, 116.779, 123.68]).reshape(1, 3, 1, 1)
    expected = logits(tmp_path / "m.onnx", pixels[:, ::-1].astype(np.float32) - means)
    # float32 rounding of three layers, at pixels of about 100
    np.testing.assert_allclose(logits(tmp_path / "d.onnx", pixels), expected, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("size", [(24, 18), (7, 12), (12, 30)])
def test_images_of_another_size_are_resized_inside(
    source: Path, tmp_path: Path, size: tuple[int, int]
) -> None:
    export(source, tmp_path / "d.onnx", size=size, with_softmax=False)
    images = np.random.default_rng(2).random((2, 3, *size), dtype=np.float32)
    expected = logits(source, as_input(images, (3, 12, 12)))
    np.testing.assert_allclose(logits(tmp_path / "d.onnx", images), expected, rtol=1e-4, atol=1e-4)


def test_images_of_any_size(source: Path, tmp_path: Path) -> None:
    export(source, tmp_path / "d.onnx", size=(0, 0), element="uint8", layout="nhwc")
    session = open_session(tmp_path / "d.onnx", provider="cpu")
    assert session.input_shape == ("batch", "height", "width", 3)
    large = np.repeat(np.repeat(PIXELS, 3, axis=1), 2, axis=2)
    assert session.run(large)[0].shape == (3, 4)
    classifier = open_classifier(tmp_path / "d.onnx", provider="cpu")
    assert classifier.size == (12, 12)
    expected = open_classifier(source, provider="cpu").probabilities(PIXELS)
    np.testing.assert_allclose(classifier.probabilities(PIXELS), expected, atol=1e-5)


def test_a_fixed_batch(source: Path, tmp_path: Path) -> None:
    export(source, tmp_path / "d.onnx", batch=2)
    session = open_session(tmp_path / "d.onnx", provider="cpu")
    assert session.input_shape[0] == session.output_shape("probabilities")[0] == 2
    found = open_classifier(tmp_path / "d.onnx", provider="cpu").probabilities(PIXELS)
    expected = open_classifier(source, provider="cpu").probabilities(PIXELS)
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_a_file_of_a_fixed_form_is_not_exported_in_another(source: Path, tmp_path: Path) -> None:
    export(source, tmp_path / "two.onnx", batch=2)
    with pytest.raises(
        ModelError, match=r"its batch is fixed at 2, it cannot become 3\. Export the run inst"
    ):
        export(tmp_path / "two.onnx", tmp_path / "three.onnx", batch=3)
    export(source, tmp_path / "pixels.onnx", element="uint8")
    with pytest.raises(ModelError, match=r"it was exported with other inputs already\. Export the run"):
        export(tmp_path / "pixels.onnx", tmp_path / "three.onnx")
    export(source, tmp_path / "half.onnx", precision="bf16")
    with pytest.raises(ModelError, match=r"it was exported in bf16 already\. Export the run, or a float32"):
        export(tmp_path / "half.onnx", tmp_path / "three.onnx")
    assert not (tmp_path / "three.onnx").exists()


def test_an_older_opset_comes_with_every_form(source: Path, tmp_path: Path) -> None:
    export(source, tmp_path / "d.onnx", opset=13, element="uint8", layout="nhwc", batch=1, precision="fp16")
    model = onnx.load(tmp_path / "d.onnx")
    assert (model.opset_import[0].version, model.ir_version) == (13, 7)
    assert {t.data_type for t in model.graph.initializer if t.name.endswith("weight")} == {10}
    found = open_classifier(tmp_path / "d.onnx", provider="cpu").probabilities(PIXELS)
    expected = open_classifier(source, provider="cpu").probabilities(PIXELS)
    # float16 rounds at 5e-4
    np.testing.assert_allclose(found, expected, atol=1e-2)


def test_pictures_of_another_size_are_decoded_at_that_size(tmp_path: Path) -> None:
    """The fidelity is measured as the file will be used: red stays red at 20x20."""
    data = colour_folder(tmp_path / "data", dict.fromkeys(RGB, 4))
    write_image(data / "red" / "large.png", RGB["red"], (50, 40))
    onnx.save(colour_network(), tmp_path / "m.onnx")
    written = export(tmp_path / "m.onnx", tmp_path / "d.onnx", size=(20, 20), data=data)
    assert written.fidelity is not None
    assert (written.fidelity.images, written.fidelity.agreement, written.fidelity.accuracy) == (13, 1, 1)
