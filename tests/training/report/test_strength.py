"""What skips carry, against what ONNX Runtime says of every tensor in question."""

from __future__ import annotations

from collections import Counter

import numpy as np
import onnx
import onnx_graphsurgeon as gs
import pytest
from builders import plain_cnn, residual_cnn
from training.fused import fused_model

from graftonnx.fusion import fuse
from graftonnx.model import from_proto
from graftonnx.network import Network
from graftonnx.runtime import open_session, with_outputs
from graftonnx.training.report.strength import Strength, add_norms, find_probes, strengths


@pytest.fixture
def parents() -> list[Network]:
    return [
        from_proto(residual_cnn(depth=3), "a.onnx"),
        from_proto(plain_cnn((8, 16, 32), seed=1), "b.onnx"),
        from_proto(plain_cnn((8, 12, 16), seed=2), "c.onnx"),
    ]


@pytest.fixture
def images() -> np.ndarray:
    return np.random.default_rng(2).random((6, 3, 16, 16), np.float32)


def measured(model: onnx.ModelProto, images: np.ndarray, batch: int = 6) -> tuple[Strength, ...]:
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    probes = find_probes(copy)
    names = add_norms(copy, probes)
    session = open_session(copy, provider="cpu", threads=1)
    sums = [
        session.run(images[start : start + batch], outputs=names) for start in range(0, len(images), batch)
    ]
    return strengths(probes, np.array(sums, np.float64).sum(0), len(images))


@pytest.mark.parametrize("count", [2, 3])
def test_a_share_is_the_norm_of_what_is_added_over_that_of_the_target(
    parents: list[Network], images: np.ndarray, count: int
) -> None:
    model = fuse(*parents[:count], classes=5, skip_init="paper", prove=False).proto
    found = measured(model, images)
    assert len(found) >= 2 * (count - 1)
    totals = {node.input[0]: node for node in model.graph.node if node.name.endswith("/add")}
    places: Counter[str] = Counter()
    for skip in found:
        places[skip.target] += 1
        names = (totals[skip.target].input[places[skip.target]], skip.target)
        session = open_session(with_outputs(model, names), provider="cpu", threads=1)
        added, target = session.run(images, outputs=names)
        expected = np.linalg.norm(added) / np.linalg.norm(target)
        assert skip.share == pytest.approx(expected, rel=1e-5)  # float32 sums
        assert skip.onto == pytest.approx(np.linalg.norm(target) / np.sqrt(len(images)), rel=1e-5)


def test_batches_add_up(parents: list[Network], images: np.ndarray) -> None:
    model = fuse(*parents[:2], classes=5, skip_init="paper", prove=False).proto
    for one, other in zip(measured(model, images), measured(model, images, batch=4), strict=True):
        assert one.share == pytest.approx(other.share, rel=1e-5)


def test_zero_projections_carry_nothing(parents: list[Network], images: np.ndarray) -> None:
    model = fuse(*parents[:2], classes=5, prove=False).proto
    assert [skip.share for skip in measured(model, images)] == [0.0] * len(find_probes(model))


def test_depth_rises_with_the_exchanges_of_a_branch(parents: list[Network]) -> None:
    probes = find_probes(fuse(*parents[:2], classes=5, prove=False).proto)
    for branch in "ab":
        depths = [probe.depth for probe in probes if probe.skip.target.startswith(f"{branch}/")]
        assert len(depths) >= 2
        assert depths == sorted(depths)
        assert depths[0] < depths[-1]
        assert depths[0] > 0
        assert depths[-1] <= 1


def test_depth_counts_the_weight_layers_of_its_branch_only(parents: list[Network]) -> None:
    probes = find_probes(fuse(*parents[:2], classes=5, prove=False).proto)
    # b has three convs in a row: r0, r1 and the feature.
    depths = {probe.skip.target: probe.depth for probe in probes}
    assert depths["b/r0"] == pytest.approx(1 / 3)
    assert depths["b/r1"] == pytest.approx(2 / 3)


def test_a_sum_that_a_hook_has_renamed_is_left_out(parents: list[Network]) -> None:
    def rename(graph: gs.Graph) -> None:
        (total,) = (node for node in graph.nodes if node.name == "skips/0/b/add")
        total.outputs[0].name = "mine"

    whole = find_probes(fuse(*parents[:2], classes=5, prove=False).proto)
    part = find_probes(fuse(*parents[:2], classes=5, prove=False, hook=rename).proto)
    assert len(part) == len(whole) - 1
    assert {probe.skip for probe in whole} - {probe.skip for probe in part} == {
        probe.skip for probe in whole if probe.exchange == 0 and probe.skip.target.startswith("b/")
    }


def test_a_target_that_is_always_zero_has_no_share() -> None:
    dead = Strength(exchange=0, source="b/x", target="a/x", depth=0.5, added=1.0, onto=0.0)
    assert dead.share is None


def test_a_file_without_a_plan_has_no_probes() -> None:
    assert find_probes(fused_model()) == ()
