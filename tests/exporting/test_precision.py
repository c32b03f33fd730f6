"""fp16, bf16 and int8: half or a quarter of the file, and nothing written that answers differently."""

from __future__ import annotations

import logging
from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
import pytest
from builders import residual_cnn
from lookalikes import RGB, colour_folder, model, write_image
from onnx import TensorProto, numpy_helper

from graftonnx.errors import DataError, ParityError, UnsupportedOpError
from graftonnx.exporting import export
from graftonnx.metadata import InputConvention, Metadata, Precision, read_metadata
from graftonnx.runtime import open_session

COLOURS = Metadata(input=InputConvention(), labels=tuple(sorted(RGB)))


def colour_cnn(noise: float = 0.0) -> onnx.ModelProto:
    """Return a network of four layers that tells colours.

    Args:
        noise: A fourth channel of this many times the brightness comes out of the first layer, and is left
            out by the second: it takes the range of values for itself.
    """
    first = np.concatenate([np.eye(3), noise * np.ones((1, 3))]).astype(np.float32)
    return model(
        """colours (float[batch, 3, 8, 8] input) => (float[batch, 3] logits)
        { c = Conv(input, first)  r = Relu(c)  d = Conv(r, second)  s = Relu(d)  e = Conv(s, third)
          p = GlobalAveragePool(e)  f = Flatten(p)  logits = Gemm<transB = 1>(f, last) }""",
        {
            "first": first.reshape(4, 3, 1, 1),
            "second": np.eye(3, 4, dtype=np.float32).reshape(3, 4, 1, 1),
            "third": np.eye(3, dtype=np.float32).reshape(3, 3, 1, 1),
            "last": 10 * np.eye(3, dtype=np.float32)[[2, 1, 0]],
        },
        COLOURS,
    )


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Three colours, each in 12 shades that differ little from the other colours."""
    for name, colour in RGB.items():
        for shade in range(12):
            pixel = tuple(140 + shade * 4 if value else 136 for value in colour)
            write_image(tmp_path / "data" / name / f"{shade}.png", pixel)
    return tmp_path / "data"


def save(proto: onnx.ModelProto, path: Path) -> Path:
    onnx.save(proto, path)
    return path


def large_cnn(folder: Path) -> Path:
    """Write a network with more than a kilobyte in its weights."""
    proto = residual_cnn(classes=3)
    proto.opset_import[0].version = 13
    return save(proto, folder / "m.onnx")


class TestBfloat16:
    def test_weights_are_stored_in_two_bytes_and_computed_with_in_four(self, tmp_path: Path) -> None:
        source = large_cnn(tmp_path)
        export(source, tmp_path / "f.onnx", preprocess="unit")
        written = export(source, tmp_path / "b.onnx", preprocess="unit", precision="bf16")
        assert written.bytes < 0.7 * (tmp_path / "f.onnx").stat().st_size
        whole, stored = onnx.load(tmp_path / "f.onnx"), onnx.load(tmp_path / "b.onnx")
        assert read_metadata(stored).precision == "bf16"
        for tensor in whole.graph.initializer:
            array = numpy_helper.to_array(tensor)
            if array.nbytes > 1024:
                tensor.CopyFrom(
                    numpy_helper.from_array(array.astype(ml_dtypes.bfloat16).astype(np.float32), tensor.name)
                )
        x = np.random.default_rng(0).random((2, 3, 16, 16), dtype=np.float32)
        (expected,) = open_session(whole, provider="cpu").run(x)
        np.testing.assert_array_equal(open_session(tmp_path / "b.onnx", provider="cpu").run(x)[0], expected)

    def test_an_opset_without_it_is_refused(self, tmp_path: Path) -> None:
        source = large_cnn(tmp_path)
        with pytest.raises(
            UnsupportedOpError, match=r"bfloat16 needs opset 13 or newer\. Choose a newer --op"
        ):
            export(source, tmp_path / "b.onnx", preprocess="unit", precision="bf16", opset=12)


class TestFloat16:
    def test_layers_whose_values_leave_the_range_stay_float32(self, data: Path, tmp_path: Path) -> None:
        source = save(colour_cnn(noise=1e5), tmp_path / "m.onnx")
        written = export(source, tmp_path / "d.onnx", precision="fp16", data=data)
        assert written.kept
        assert written.fidelity is not None
        assert (written.fidelity.agreement, written.fidelity.accuracy) == (1, 1)
        half = onnx.load(tmp_path / "d.onnx")
        assert {t.name: t.data_type for t in half.graph.initializer}["last"] == TensorProto.FLOAT16

    def test_random_images_do_where_none_are_given(self, tmp_path: Path) -> None:
        source = save(colour_cnn(), tmp_path / "m.onnx")
        fidelity = export(source, tmp_path / "d.onnx", precision="fp16").fidelity
        assert fidelity is not None
        assert (fidelity.pictures, fidelity.random, fidelity.accuracy) == ("random images", True, None)
        assert 0 < fidelity.mean_difference < fidelity.max_difference < 0.01


class TestInt8:
    def test_weights_and_values_become_bytes(
        self, data: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        source = save(colour_cnn(), tmp_path / "m.onnx")
        written = export(source, tmp_path / "d.onnx", precision="int8", calibrate=data)
        assert written.kept == ()
        assert written.fidelity is not None
        assert (written.fidelity.images, written.fidelity.agreement) == (36, 1)
        small = onnx.load(tmp_path / "d.onnx")
        kinds = {node.op_type for node in small.graph.node}
        assert {"QuantizeLinear", "DequantizeLinear"} <= kinds
        assert "Relu" not in kinds
        tensors = {t.name: t for t in small.graph.initializer}
        assert tensors["second_quantized"].data_type == TensorProto.INT8
        assert list(tensors["second_scale"].dims) == [3]
        assert np.abs(numpy_helper.to_array(tensors["second_quantized"])).max() <= 64
        assert {entry.key.split(".")[0] for entry in small.metadata_props} == {"graftonnx"}
        assert not [record for record in caplog.records if record.levelno >= logging.WARNING]

    def test_a_resize_that_names_its_axes_keeps_its_sizes(self, data: Path, tmp_path: Path) -> None:
        eye = np.eye(3, dtype=np.float32)
        proto = model(
            """colours (float[batch, 3, 8, 8] input) => (float[batch, 3] logits)
            { c = Conv(input, first)  d = Resize<axes = [2, 3], mode = "linear">(c, , , sizes)
              e = Conv(d, second)  p = GlobalAveragePool(e)  f = Flatten(p)  logits = MatMul(f, last) }""",
            {
                "first": eye.reshape(3, 3, 1, 1),
                "second": eye.reshape(3, 3, 1, 1),
                "sizes": np.array([4, 4]),
                "last": 10 * eye[[2, 1, 0]],
            },
            COLOURS,
        )
        source = save(proto, tmp_path / "m.onnx")
        written = export(source, tmp_path / "d.onnx", precision="int8", data=data)
        assert written.fidelity is not None
        assert (written.fidelity.agreement, written.fidelity.accuracy) == (1, 1)

    def test_layers_that_do_harm_stay_float(self, data: Path, tmp_path: Path) -> None:
        """In 8 bits, the steps of a range 300 times too wide swallow the colours."""
        source = save(colour_cnn(noise=300), tmp_path / "m.onnx")
        written = export(source, tmp_path / "d.onnx", precision="int8", data=data)
        assert written.kept
        assert written.fidelity is not None
        assert written.fidelity.agreement >= 0.99
        assert written.fidelity.accuracy_before == 1

    def test_images_without_labels_do_for_calibration(self, data: Path, tmp_path: Path) -> None:
        source = save(colour_cnn(), tmp_path / "m.onnx")
        written = export(source, tmp_path / "d.onnx", precision="int8", calibrate=data / "red")
        assert written.fidelity is not None
        assert (written.fidelity.images, written.fidelity.accuracy) == (12, None)

    def test_equal_input_gives_equal_bytes(self, data: Path, tmp_path: Path) -> None:
        source = save(colour_cnn(), tmp_path / "m.onnx")
        for name in ("one", "two"):
            export(source, tmp_path / f"{name}.onnx", precision="int8", calibrate=data)
        assert (tmp_path / "one.onnx").read_bytes() == (tmp_path / "two.onnx").read_bytes()

    def test_without_images_it_is_refused(self, tmp_path: Path) -> None:
        source = save(colour_cnn(), tmp_path / "m.onnx")
        with pytest.raises(DataError, match=r"cannot quantise without images: give --calibrate, or --data\."):
            export(source, tmp_path / "d.onnx", precision="int8")

    def test_an_opset_without_scales_for_channels_is_refused(self, data: Path, tmp_path: Path) -> None:
        source = save(colour_cnn(), tmp_path / "m.onnx")
        with pytest.raises(UnsupportedOpError, match=r"int8 needs opset 13 or newer\."):
            export(source, tmp_path / "d.onnx", precision="int8", calibrate=data, opset=11)


class TestTooMuchLoss:
    """Colours that differ by less than bfloat16 can tell: 8 bits of 1 and 1 + 2^-10."""

    @pytest.fixture
    def source(self, tmp_path: Path) -> Path:
        fine = np.ones((3, 300), np.float32)
        fine[:, :3] += np.eye(3, dtype=np.float32)[[2, 1, 0]] * np.float32(2**-10)
        spread = np.zeros((300, 3, 1, 1), np.float32)
        spread[:3, :, 0, 0] = np.eye(3)
        text = """colours (float[batch, 3, 8, 8] input) => (float[batch, 3] logits)
        { c = Conv(input, spread)  p = GlobalAveragePool(c)  f = Flatten(p)
          logits = Gemm<transB = 1>(f, fine) }"""
        return save(model(text, {"spread": spread, "fine": fine}, COLOURS), tmp_path / "m.onnx")

    def test_nothing_is_written(self, source: Path, data: Path, tmp_path: Path) -> None:
        with pytest.raises(
            ParityError,
            match=r"cannot export '.*m.onnx' in bf16: 12 of 36 images of .*data get the same answer, "
            r"expected at least 36 \(99.0%\)\. Nothing is written\. Choose another --precision, give other "
            r"images, or pass",
        ):
            export(source, tmp_path / "d.onnx", precision="bf16", data=data)
        assert not (tmp_path / "d.onnx").exists()

    def test_int8_is_not_float_in_disguise(self, source: Path, data: Path, tmp_path: Path) -> None:
        """With all layers kept in float the answers would be right."""
        with pytest.raises(
            ParityError, match=r"in int8: .* images of .*data get the same answer, expected at least 36"
        ):
            export(source, tmp_path / "d.onnx", precision="int8", data=data)
        written = export(source, tmp_path / "d.onnx", precision="int8", data=data, accept_loss=True)
        assert len(written.kept) <= 1
        kinds = {tensor.data_type for tensor in onnx.load(tmp_path / "d.onnx").graph.initializer}
        assert TensorProto.INT8 in kinds

    def test_unless_it_is_accepted(self, source: Path, data: Path, tmp_path: Path) -> None:
        written = export(source, tmp_path / "d.onnx", precision="bf16", data=data, accept_loss=True)
        assert written.fidelity is not None
        assert (written.fidelity.accuracy_before, written.fidelity.accuracy) == (1, pytest.approx(1 / 3))
        assert (tmp_path / "d.onnx").exists()


@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16", "int8"])
def test_weights_beyond_the_limit_of_protobuf_lie_beside_the_file(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, precision: Precision
) -> None:
    """The limit is lowered to what the test network exceeds."""
    source = large_cnn(tmp_path)
    options = {"precision": precision, "preprocess": "unit", "calibrate": data, "accept_loss": True}
    export(source, tmp_path / "whole.onnx", **options)
    monkeypatch.setattr("graftonnx.weights.PROTOBUF_LIMIT", 2000)
    written = export(source, tmp_path / "parted.onnx", **options)
    assert (tmp_path / "parted.onnx.data").stat().st_size > 1000
    assert written.bytes > (tmp_path / "parted.onnx").stat().st_size
    x = np.random.default_rng(0).random((2, 3, 16, 16), dtype=np.float32)
    found, expected = (
        open_session(tmp_path / f"{n}.onnx", provider="cpu").run(x)[0] for n in ("parted", "whole")
    )
    np.testing.assert_array_equal(found, expected)


def test_float32_is_measured_on_images_where_they_are_given(tmp_path: Path) -> None:
    data = colour_folder(tmp_path / "data", dict.fromkeys(RGB, 4), wrong={"red": 1})
    written = export(save(colour_cnn(), tmp_path / "m.onnx"), tmp_path / "d.onnx", data=data)
    assert written.fidelity is not None
    assert (written.fidelity.agreement, written.fidelity.max_difference < 1e-6) == (1, True)
    assert written.fidelity.accuracy == written.fidelity.accuracy_before == pytest.approx(12 / 13, abs=0.02)
