"""Similarity on images, and projections fitted to them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from builders import plain_cnn, residual_cnn, token_net
from data.pictures import closed_to_all
from onnx import numpy_helper
from PIL import Image

from graftonnx.calibration import LEAST_IMAGES, Calibration, read_images
from graftonnx.errors import DataError
from graftonnx.fusion import LSQ_SHARE, fuse
from graftonnx.graph import sort_nodes
from graftonnx.images import Pixels, to_input
from graftonnx.matching import candidates, match
from graftonnx.model import from_proto
from graftonnx.network import Network
from graftonnx.plan import Projection, Skip
from graftonnx.runtime import open_session, with_outputs


@pytest.fixture(scope="module")
def pixels() -> Pixels:
    """Images with structure: smooth colours, of which each image has others."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (64, 4, 4, 3)).astype(np.uint8)
    return coarse.repeat(4, axis=1).repeat(4, axis=2)


def network(model: onnx.ModelProto, name: str = "a") -> Network:
    return from_proto(model, name, preprocess="unit")


def test_a_network_is_most_like_itself(pixels: Pixels) -> None:
    twin = network(residual_cnn(depth=3))
    found = Calibration({"a": twin, "b": twin}, pixels).similarity()["a", "b"]
    assert found.shape == (6, 6)
    np.testing.assert_allclose(np.diag(found), 1.0, atol=1e-6)
    assert (found <= 1).all()
    assert found[0, -1] < 0.99


def test_similarity_is_that_of_the_definition(pixels: Pixels) -> None:
    a, b = network(plain_cnn((8, 16, 16))), network(token_net(depth=3, seed=1), "b")
    found = Calibration({"a": a, "b": b}, pixels[:16]).similarity()["a", "b"]
    for i, first in enumerate(candidates(a)):
        for j, second in enumerate(candidates(b)):
            x, y = (features(n, t.name, pixels[:16]) for n, t in ((a, first), (b, second)))
            expected = hsic(x, y) / np.sqrt(hsic(x, x) * hsic(y, y))
            assert found[i, j] == pytest.approx(np.clip(expected, 0, 1), abs=1e-4)


def features(parent: Network, name: str, pixels: Pixels) -> np.ndarray:
    session = open_session(with_outputs(parent.proto, [name]), provider="cpu")
    (values,) = session.run(to_input(pixels), outputs=[name])
    return values.reshape(len(values), -1).astype(np.float64)


def hsic(x: np.ndarray, y: np.ndarray) -> float:
    """Song et al., Feature Selection via Dependence Maximization (2012), equation 5."""
    m = len(x)
    k, l = (v @ v.T * (1 - np.eye(m)) for v in (x, y))  # noqa: E741 # as the paper calls it
    one = np.ones(m)
    middle = one @ k @ one * (one @ l @ one) / ((m - 1) * (m - 2))
    return float(np.trace(k @ l) + middle - 2 / (m - 2) * one @ k @ l @ one) / (m * (m - 3))


def test_similarity_decides_which_taps_are_exchanged(pixels: Pixels) -> None:
    a, b = network(plain_cnn((8, 8, 8, 8), strides=(1,) * 4)), network(residual_cnn(depth=2, seed=3), "b")
    wanted = np.zeros((3, 4))
    wanted[1, 2] = 1.0
    (first, _) = match(a, b, similarity={("a", "b"): wanted}).skips
    assert first.target == f"a/{candidates(a)[1].name}"
    assert first.source == f"b/{candidates(b)[2].name}"


@pytest.mark.parametrize("other", [residual_cnn(depth=2), token_net(depth=3)], ids=["maps", "tokens"])
def test_a_fitted_projection_rebuilds_what_can_be_rebuilt(other: onnx.ModelProto, pixels: Pixels) -> None:
    parents = {"a": network(other), "b": network(other, "b")}
    calibration = Calibration(parents, pixels)
    plan = match(*parents.values(), max_skips=1)
    for matrix in calibration.projections(plan).values():
        # Equal networks: what comes closest to the target is the source itself.
        source = plan.skips[0].source.partition("/")[2]
        values = features_of(parents["b"], source, pixels)
        error = np.linalg.norm(values @ matrix.T - values) / np.linalg.norm(values)
        assert error < 0.02


def features_of(parent: Network, name: str, pixels: Pixels) -> np.ndarray:
    """Return [positions, C] of a tap, class tokens left out."""
    layout = next(tap.layout for tap in candidates(parent) if tap.name == name)
    session = open_session(with_outputs(parent.proto, [name]), provider="cpu")
    (values,) = session.run(to_input(pixels), outputs=[name])
    if layout.kind == "tokens":
        return values[:, layout.prefix :].reshape(-1, layout.channels)
    return np.moveaxis(values, 1, -1).reshape(-1, layout.channels)


def test_skips_begin_with_a_share_of_the_fit(pixels: Pixels) -> None:
    a, b = network(plain_cnn((24, 48, 48))), network(token_net(depth=2, seed=1), "b")
    calibration = Calibration({"a": a, "b": b}, pixels)
    plan = match(a, b, policy="all")
    fused = fuse(a, b, plan=plan, skip_init="lsq", calibration=calibration)
    fitted = calibration.projections(plan)
    tensors = {tensor.name: numpy_helper.to_array(tensor) for tensor in fused.proto.graph.initializer}
    assert plan.skips
    for index, exchange in enumerate(plan.exchanges):
        for skip in exchange:
            weight = tensors[f"skips/{index}/{skip.target[0]}/weight"]
            whole = weight.sum(tuple(range(2, weight.ndim)))
            np.testing.assert_allclose(whole, LSQ_SHARE * fitted[skip], rtol=1e-3, atol=1e-6)


def test_least_squares_needs_images() -> None:
    parents = network(plain_cnn()), network(plain_cnn(seed=1), "b")
    with pytest.raises(ValueError, match="needs a calibration"):
        fuse(*parents, skip_init="lsq")


def test_images_are_read_from_all_folders_below(tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    for index in range(LEAST_IMAGES + 5):
        Image.new("RGB", (8, 8), (index, 0, 0)).save(tmp_path / ("x" if index % 2 else "") / f"{index}.png")
    assert read_images(tmp_path, (6, 4)).shape == (LEAST_IMAGES, 6, 4, 3)
    with pytest.raises(DataError, match=r"it holds 18 images, expected 32 or more\."):
        read_images(tmp_path / "x", (6, 4))
    with pytest.raises(DataError, match=r"'.*absent': there is no such folder\."):
        read_images(tmp_path / "absent", (6, 4))


def test_a_folder_that_cannot_be_read_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "x").mkdir()
    closed_to_all(monkeypatch, tmp_path / "x")
    with pytest.raises(DataError, match=r"cannot read the folder '.*/x': Permission denied\."):
        read_images(tmp_path, (6, 4))


def test_images_cannot_calibrate_networks_for_sound(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"the networks take signals of 1 extents, and images have height"):
        read_images(tmp_path, (24,))


def test_maps_that_are_wider_and_lower_are_resized(pixels: Pixels) -> None:
    wide, high = plain_cnn((8, 8)), plain_cnn((8, 8))
    for model, strides in ((wide, [2, 1]), (high, [1, 2])):
        conv = next(node for node in model.graph.node if node.name == "node_r1.conv")
        next(item for item in conv.attribute if item.name == "strides").ints[:] = strides
    parents = {"a": network(after(wide)), "b": network(after(high), "b")}
    resize = Projection(kind="resize")
    skips = (
        Skip(source="a/r1", target="b/r1", projection=resize),
        Skip(source="b/r1", target="a/r1", projection=resize),
    )
    plan = match(*parents.values(), max_skips=0).model_copy(update={"skips": skips})
    fitted = Calibration(parents, pixels).projections(plan)
    assert {weight.shape for weight in fitted.values()} == {(8, 8)}


def after(model: onnx.ModelProto) -> onnx.ModelProto:
    """Put another block behind the last one, so that this is a tap."""
    model.graph.initializer.append(numpy_helper.from_array(np.ones((8, 8, 1, 1), np.float32), "more"))
    pool = next(node for node in model.graph.node if node.op_type == "GlobalAveragePool")
    pool.input[0] = "last"
    model.graph.node.extend(
        [
            onnx.helper.make_node("Conv", ["r1", "more"], ["last.conv"], name="last.conv"),
            onnx.helper.make_node("Relu", ["last.conv"], ["last"], name="last"),
        ]
    )
    nodes = sort_nodes(model.graph.node)
    copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del model.graph.node[:]
    model.graph.node.extend(copies)
    return model


def test_numbers_that_are_not_finite_are_named(pixels: Pixels) -> None:
    model = plain_cnn((8, 12, 16))
    model.graph.initializer[0].CopyFrom(
        numpy_helper.from_array(np.full((8, 3, 3, 3), np.nan, np.float32), model.graph.initializer[0].name)
    )
    parents = {"a": network(model), "b": network(plain_cnn((8, 12, 16)), "b")}
    with pytest.raises(DataError, match="a/r0"):
        Calibration(parents, pixels).similarity()


def test_a_calibration_is_for_its_networks_only(pixels: Pixels) -> None:
    a, b = network(plain_cnn()), network(plain_cnn(seed=1), "b")
    calibration = Calibration({"a": a, "b": b}, pixels)
    with pytest.raises(ValueError, match="is of other networks than the parents"):
        fuse(b, a, calibration=calibration)
    with pytest.raises(ValueError, match="15 images given; 16 or more are needed"):
        Calibration({"a": a, "b": b}, pixels[:15])
