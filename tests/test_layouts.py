"""Where channels and positions lie, in every kind of network."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from builders import grid_cnn, plain_cnn, token_net, windowed_net

from graftonnx.conversion import to_torch
from graftonnx.fusion import fuse
from graftonnx.layouts import Layout
from graftonnx.matching import match
from graftonnx.model import from_proto
from graftonnx.network import Network
from graftonnx.parity import compare_module
from graftonnx.taps import find_taps


def layouts(model: onnx.ModelProto) -> dict[str, Layout]:
    return from_proto(model, "net").layouts


def taps(model: onnx.ModelProto) -> dict[str, str]:
    return {tap.name: str(tap.layout) for tap in find_taps(from_proto(model, "net"))}


@pytest.mark.parametrize("prefix", [0, 1, 5])
def test_tokens_know_their_grid_and_the_class_tokens_in_front(prefix: int) -> None:
    found = layouts(token_net(prefix=prefix))
    assert found["t0"] == Layout("tokens", 12, (4, 4), prefix)
    assert found["embed"] == Layout("channels_first", 12, (4, 4))
    assert found["t0.hidden"].channels == 24


def test_token_networks_are_tapped_at_their_residual_sums() -> None:
    assert taps(token_net(depth=3)) == {"t0": "[N, 1+4x4, 12]", "t1": "[N, 1+4x4, 12]"}


def test_windows_are_no_batch() -> None:
    found = layouts(windowed_net())
    assert found["w0"] == Layout("channels_last", 12, (4, 4))
    assert "w0.windows" not in found
    assert "w0.inside" not in found
    assert taps(windowed_net()) == {"w0": "[N, 4, 4, 12]"}


@pytest.mark.parametrize("extents", [(24,), (8, 12, 10)])
def test_sound_and_video_have_grids_of_one_and_three_dimensions(extents: tuple[int, ...]) -> None:
    found = taps(grid_cnn(extents))
    assert list(found) == ["r0", "r1"]
    halves = [extent // 2 for extent in extents]
    assert found["r1"] == f"[N, 8, {', '.join(map(str, halves))}]"


NETWORKS = {
    "maps": lambda seed: plain_cnn((8, 12, 16), seed=seed),
    "tokens": lambda seed: token_net(seed=seed),
    "more tokens": lambda seed: token_net(patch=2, prefix=2, width=10, depth=3, seed=seed),
    "windows": lambda seed: windowed_net(seed=seed),
}


def pair(a: str, b: str) -> tuple[Network, Network]:
    return from_proto(NETWORKS[a](0), "a"), from_proto(NETWORKS[b](1), "b")


@pytest.mark.parametrize("a", NETWORKS)
@pytest.mark.parametrize("b", NETWORKS)
def test_networks_of_all_families_exchange_taps(a: str, b: str) -> None:
    parents = pair(a, b)
    plan = match(*parents, policy="all")
    assert plan.exchanges
    fused = fuse(*parents, plan=plan)  # proves that both branches are what they were, bit for bit
    assert "branch b equals b as it was loaded, bit for bit" in fused.notes
    trained = fuse(*parents, plan=plan, skip_init="paper")
    module = to_torch(trained)
    x = np.random.default_rng(0).random((3, *trained.input_shape), np.float32)
    compare_module(trained.proto, module, x)
    assert "skips/0/a/sum" in trained.view.producer


@pytest.mark.parametrize("extents", [((24,), (24,)), ((24,), (30,)), ((8, 12, 10), (8, 10, 12))])
def test_sound_and_video_are_fused(extents: tuple[tuple[int, ...], tuple[int, ...]]) -> None:
    parents = [
        from_proto(grid_cnn(e, seed=seed), name)
        for seed, (name, e) in enumerate(zip("ab", extents, strict=True))
    ]
    fused = fuse(*parents)
    assert fused.input_shape == (2, *np.max(extents, axis=0))
    x = np.random.default_rng(0).random((3, *fused.input_shape), np.float32)
    compare_module(fused.proto, to_torch(fused), x)


def test_a_skip_between_tokens_of_equal_places_is_one_product() -> None:
    parents = pair("tokens", "tokens")
    fused = fuse(*parents)
    kinds = [node.op_type for node in fused.view.nodes if node.name.startswith("skips")]
    assert sorted(kinds) == ["Add", "Add", "MatMul", "MatMul"]
