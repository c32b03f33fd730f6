"""Classifiers of sound and of video at the door, and where they are refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from builders import Builder, saved
from click.testing import CliRunner

from graftonnx.classifier import open_classifier
from graftonnx.cli import graftonnx
from graftonnx.errors import ModelError
from graftonnx.metadata import Preprocess
from graftonnx.model import from_proto, resize
from graftonnx.runtime import open_session
from graftonnx.training.source import open_source


def cnn(
    extents: tuple[int | str, ...], *, channels: int = 2, last: bool = False, batch: int | str = "batch"
) -> onnx.ModelProto:
    """Two blocks of convolutions with as many axes as there are extents; pool, dense layer."""
    net = Builder()
    axes = len(extents)
    value, inner = "image", channels
    if last:
        value = net.node("Transpose", [value], "first", perm=[0, axes + 1, *range(1, axes + 1)])
    for index, width in enumerate((4, 8)):
        weight = net.weight(f"w{index}", width, inner, *[3] * axes)
        value = net.node(
            "Conv", [value, weight], f"c{index}", pads=[1] * 2 * axes, strides=[index + 1] * axes
        )
        value, inner = net.node("Relu", [value], f"r{index}"), width
    value = net.node("Flatten", [net.node("GlobalAveragePool", [value], "pooled")], "flat", axis=1)
    net.node("Gemm", [value, net.weight("fc", 4, 8)], "scores", transB=1)
    shape = [batch, *extents, channels] if last else [batch, channels, *extents]
    return net.model("scores", [batch, 4], image=shape)


@pytest.mark.parametrize("batch", [1, "batch"])
@pytest.mark.parametrize("extents", [(40,), (8, 12, 10)], ids=["sound", "video"])
@pytest.mark.parametrize("last", [False, True], ids=["channels first", "channels last"])
def test_sound_and_video_pass_the_door(extents: tuple[int, ...], last: bool, batch: int | str) -> None:
    model = cnn(extents, last=last, batch=batch)
    network = from_proto(model, "net")
    assert network.input_shape == (2, *extents)
    assert network.head.feature == "r1"
    assert network.view.shapes["r1"] == (None, 8, *(extent // 2 for extent in extents))
    assert (network.preprocess, network.preprocess_reason) == (Preprocess(), "raw numbers: no image")
    rows = np.random.default_rng(0).random((3, 2, *extents), np.float32)
    found = open_session(network.proto, provider="cpu", threads=1, optimise=False).run(rows)[0]
    given = np.ascontiguousarray(np.moveaxis(rows, 1, -1)) if last else rows
    session = open_session(model, provider="cpu", threads=1, optimise=False)
    expected = np.concatenate([session.run(row[None])[0] for row in given])
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_open_extents_of_sound_are_said() -> None:
    network = from_proto(cnn(("L",)), "net")
    assert network.input_shape == (2, 16_000)
    assert "extents are open: taken as 16000" in network.notes


def test_video_runs_at_another_size() -> None:
    network = from_proto(cnn((8, 12, 10)), "net", input_size=(4, 6, 6))
    assert network.input_shape == (2, 4, 6, 6)
    assert network.view.shapes["r1"] == (None, 8, 2, 3, 3)
    with pytest.raises(ModelError, match=r"shape \[N, 2, 4, 6, 6\]; it cannot run at 6x6, which has another"):
        resize(network, (6, 6))


def test_numbers_can_be_scaled_but_not_ordered() -> None:
    model = cnn((40,))
    assert from_proto(model, "net", preprocess=Preprocess(mean=(1, 2))).preprocess.mean == (1, 2)
    with pytest.raises(ModelError, match=r"orders channels as bgr, its input is no image\."):
        from_proto(model, "net", preprocess=Preprocess(order="bgr"))


def test_images_only_is_said_where_images_are_needed(tmp_path: Path) -> None:
    path = saved(cnn((40,)), tmp_path / "sound.onnx")
    with pytest.raises(ModelError, match=r"its input is \['batch', 2, 40\], expected images \[N, C, H, W\]"):
        open_classifier(path, preprocess="unit")
    with pytest.raises(ModelError, match=r"shape \['batch', 2, 40\]; only networks that take images"):
        open_source(path)


def test_inspect_shows_sound(tmp_path: Path) -> None:
    path = saved(cnn((40,)), tmp_path / "sound.onnx")
    result = CliRunner().invoke(graftonnx, ["inspect", str(path)])
    assert result.exit_code == 0, result.output
    assert "[N, 2, 40]" in result.output
    assert "(x * 1 - 0) / 1 (raw numbers: no image)" in result.output
