"""Networks with several inputs: trained, confirmed and used with one image for all of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from builders import plain_cnn, residual_cnn
from hypothesis import example, given, settings
from hypothesis import strategies as st
from training.fused import save_images

from graftonnx import images
from graftonnx.classifier import open_classifier, same_picture
from graftonnx.conversion import to_torch, write_back
from graftonnx.evaluation import evaluate, select
from graftonnx.exporting import export
from graftonnx.fusion import fuse
from graftonnx.model import from_proto, save
from graftonnx.network import Network
from graftonnx.renormalisation import restore_norms
from graftonnx.runtime import open_session
from graftonnx.training import TrainConfig, resume, train
from graftonnx.training.inputs import as_input, share_image

SHAPES = [(3, 16, 16), (1, 24, 20)]
CONFIG = TrainConfig(
    epochs=2, batch_size=8, lr_branches=1e-3, precision="fp32", layout="contiguous", device="cpu"
)


@pytest.fixture(scope="module")
def fused() -> Network:
    a = from_proto(residual_cnn(), "a.onnx")
    b = from_proto(plain_cnn((8, 16), seed=1, channels=1), "b.onnx", input_size=(24, 20))
    return fuse(a, b, classes=2, inputs="separate")


@given(
    before=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    after=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    channels=st.sampled_from([1, 3]),
)
@example(before=(5, 4), after=(3, 1), channels=3)
@example(before=(2, 1), after=(1, 1), channels=1)
@settings(deadline=None, max_examples=30)
def test_both_sides_stretch_alike(before: tuple[int, int], after: tuple[int, int], channels: int) -> None:
    planes = np.random.default_rng(0).random((2, 3, *before), np.float32)
    ours = as_input(torch.from_numpy(planes), (channels, *after)).numpy()
    theirs = images.as_input(planes, (channels, *after))
    assert ours.shape == theirs.shape == (2, channels, *after)
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-5)  # PyTorch places its filter in float32


def test_a_network_gets_one_image_in_the_place_of_several(fused: Network) -> None:
    plain, shared = to_torch(fused).eval(), share_image(to_torch(fused), SHAPES).eval()
    image = torch.rand(3, 3, 24, 20)
    with torch.inference_mode():
        expected = plain(*(as_input(image, shape) for shape in SHAPES))
        torch.testing.assert_close(shared(image), expected)
    assert list(shared.state_dict()) == list(plain.state_dict())
    assert write_back(shared).SerializeToString() == fused.proto.SerializeToString()


def test_one_rgb_image_stays_as_it_is() -> None:
    network = to_torch(fuse(from_proto(residual_cnn(), "a.onnx"), classes=2))
    assert "as_input" not in share_image(network, [(3, 16, 16)]).code


def test_a_run_its_evaluation_and_its_export_agree(fused: Network, tmp_path: Path) -> None:
    data = save_images(tmp_path / "data")
    save(fused, tmp_path / "fused.onnx")
    result = train(tmp_path / "fused.onnx", data, tmp_path / "run", CONFIG)
    assert result.val_accuracy == result.val_accuracy_torch
    trained = onnx.load(result.model)
    assert [value.name for value in trained.graph.input] == ["input_a", "input_b"]
    before = {tensor.name: tensor for tensor in fused.proto.graph.initializer}
    moved = [tensor.name for tensor in trained.graph.initializer if tensor != before[tensor.name]]
    assert {"a/stem.conv.weight", "b/r0.conv.weight", "head/logits/weight"} <= set(moved)
    export(tmp_path / "run", tmp_path / "deploy.onnx")
    for source in (tmp_path / "run", tmp_path / "deploy.onnx"):
        found = evaluate(
            open_classifier(source, provider="cpu"),
            select(data, None, source=source, split_file=tmp_path / "run" / "split.json"),
        )
        assert found.top1 == result.val_accuracy
        assert found.loss == pytest.approx(result.val_loss, rel=1e-4)  # of the same pixels
    assert resume(tmp_path / "run").val_accuracy == result.val_accuracy
    assert (tmp_path / "run" / "report.html").is_file()


def test_folded_norms_are_put_back(fused: Network) -> None:
    model = fused.proto
    widths = {tensor.name: tensor.dims[0] for tensor in model.graph.initializer if tensor.dims}
    for number, node in enumerate(n for n in model.graph.node if n.op_type == "Conv" and len(n.input) == 2):
        bias = np.zeros(widths[node.input[1]], np.float32)
        model.graph.initializer.append(onnx.numpy_helper.from_array(bias, f"zeros{number}"))
        node.input.append(f"zeros{number}")
    pixels = np.random.default_rng(0).integers(0, 256, (6, 24, 20, 3), np.uint8)
    restored, count = restore_norms(model, pixels)
    assert count > 0
    before, after = (
        session.run(*same_picture(session, images.to_input(pixels)))[0]
        for session in map(open_session, (model, restored))
    )
    np.testing.assert_allclose(after, before, rtol=0, atol=1e-5)
