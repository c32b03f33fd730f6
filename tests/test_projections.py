"""Projections: any two grids, in every layout and rank, in ONNX Runtime and in PyTorch."""

from __future__ import annotations

import math
from typing import Literal, get_args

import numpy as np
import onnx
import onnx_graphsurgeon as gs
import pytest
import torch
from builders import plain_cnn
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import numpy_helper

from graftonnx import blocks
from graftonnx.blocks import SkipInit
from graftonnx.calibration import Calibration
from graftonnx.conversion import to_torch
from graftonnx.costs import macs
from graftonnx.fusion import fuse
from graftonnx.graph import GraphView
from graftonnx.images import to_input
from graftonnx.layouts import Layout
from graftonnx.matching import match
from graftonnx.model import from_proto
from graftonnx.network import Network
from graftonnx.plan import Plan, Projection, Skip
from graftonnx.projections import project, projected_shape, projection_macs, projection_parameters
from graftonnx.runtime import open_session, with_outputs

Kind = Literal["channels_first", "channels_last", "tokens"]
LARGEST = {1: 60, 2: 16, 3: 7}
"""Extents that are drawn, by the number of dimensions."""


def tensor_shape(layout: Layout) -> tuple[int, ...]:
    """Return the shape of a tensor of this layout, without the batch."""
    if layout.kind == "tokens":
        return layout.prefix + layout.positions, layout.channels
    return layout.shape if layout.kind == "channels_first" else (*layout.grid, layout.channels)


def chain(
    source: Layout, target: Layout, projection: Projection, init: SkipInit = "paper"
) -> onnx.ModelProto:
    """Return the projection alone: `source` in, what is added to the target out."""
    value = gs.Variable("source", np.float32, ("N", *tensor_shape(source)))
    rng = np.random.default_rng(0)
    nodes, result = blocks.projection(value, (source, target), projection, "skip", init, rng)
    model = gs.export_onnx(gs.Graph(nodes, [value], [result], opset=18))
    model.ir_version = 9
    return onnx.shape_inference.infer_shapes(model, strict_mode=True)


def computed(model: onnx.ModelProto, rows: np.ndarray, *, optimise: bool = False) -> np.ndarray:
    return open_session(model, provider="cpu", threads=1, optimise=optimise).run(rows)[0]


@st.composite
def ends(draw: st.DrawFn) -> tuple[Layout, Layout]:
    """Draw a source and a target with as many dimensions."""
    dimensions = draw(st.integers(1, 3))
    extents = st.tuples(*[st.integers(1, LARGEST[dimensions])] * dimensions)
    found = []
    for _ in range(2):
        kind: Kind = draw(st.sampled_from(get_args(Kind)))
        prefix = draw(st.integers(0, 2)) if kind == "tokens" else 0
        found.append(Layout(kind, draw(st.integers(1, 5)), draw(extents), prefix))
    return found[0], found[1]


@settings(max_examples=150, deadline=None)
@given(ends())
def test_any_two_grids_have_a_projection_of_the_targets_shape(pair: tuple[Layout, Layout]) -> None:
    source, target = pair
    projection = project(source, target, "all")
    assert isinstance(projection, Projection)
    assert projected_shape(projection, source, target) == target.shape
    model = chain(source, target, projection, "zero")
    rows = np.random.default_rng(0).random((2, *tensor_shape(source)), np.float32)
    found = computed(model, rows)
    assert found.shape == (2, *tensor_shape(target))
    assert not found.any()


@settings(max_examples=150, deadline=None)
@given(ends())
def test_the_cost_of_a_projection_is_that_of_its_nodes(pair: tuple[Layout, Layout]) -> None:
    source, target = pair
    projection = project(source, target, "all")
    assert isinstance(projection, Projection)
    model = chain(source, target, projection, "zero")
    (weight,) = (t for t in model.graph.initializer if t.name == "skip/weight")
    assert projection_macs(projection, source, target) == macs(GraphView(model.graph))
    assert projection_parameters(projection, source, target) == math.prod(weight.dims)


@settings(max_examples=50, deadline=None)
@given(ends())
def test_pytorch_projects_as_onnx_runtime_does(pair: tuple[Layout, Layout]) -> None:
    source, target = pair
    projection = project(source, target, "all")
    assert isinstance(projection, Projection)
    if projection.kind == "equal":
        return
    model = chain(source, target, projection)
    rows = np.random.default_rng(0).random((2, *tensor_shape(source)), np.float32)
    expected = computed(model, rows)
    found = to_torch(model)(torch.from_numpy(rows)).detach().numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
    if not contrary(source, target):
        np.testing.assert_allclose(computed(model, rows, optimise=True), expected, rtol=1e-5, atol=1e-5)


def contrary(source: Layout, target: Layout) -> bool:
    """Tell whether one extent grows and another shrinks.

    ONNX Runtime 1.31's transpose optimiser then takes the sizes away from a Resize behind a Transpose, and
    refuses its own graph.
    """
    changes = [after - before for before, after in zip(source.grid, target.grid, strict=True)]
    return min(changes) < 0 < max(changes)


@pytest.mark.parametrize(
    ("kind", "source", "target"),
    [
        ("conv", [1, 2, 3, 4], [1, 2, 3, 4, 0]),
        ("conv", [1, 2, 3, 4, 5, 6, 7, 8], [0, 1, 2, 3, 4, 5, 6, 7, 8, 0]),
        ("pool", [1, 2, 3, 4], [1.5, 3.5]),
        ("pool", [1, 2, 3, 4, 5], [1.5, 2.5, 3.5, 4.5]),
        ("pool", [1, 2, 3, 4, 5, 6, 7, 8, 9], [1.5, 3.5, 5.5, 7.5, 9]),
        ("resize", [1, 2], [1, 1.25, 1.75, 2]),
    ],
)
def test_pools_leave_out_what_is_padded_and_convs_pad_with_zeros(
    kind: str, source: list[float], target: list[float]
) -> None:
    inner, outer = (Layout("channels_first", 1, (len(values),)) for values in (source, target))
    projection = project(inner, outer)
    assert isinstance(projection, Projection)
    assert projection.kind == kind
    model = chain(inner, outer, projection)
    one = numpy_helper.from_array(np.ones((1, 1, 1), np.float32), "skip/weight")
    next(t for t in model.graph.initializer if t.name == one.name).CopyFrom(one)
    np.testing.assert_allclose(computed(model, np.array([[source]], np.float32)), [[target]])


@pytest.mark.parametrize(("inner", "outer", "first"), [(4, 40, "Resize"), (40, 4, "Conv")])
def test_a_resize_stands_where_channels_are_few(inner: int, outer: int, first: str) -> None:
    source, target = Layout("channels_first", inner, (13, 13)), Layout("channels_first", outer, (17, 17))
    projection = project(source, target)
    assert isinstance(projection, Projection)
    nodes = chain(source, target, projection).graph.node
    assert {node.op_type for node in nodes} == {"Conv", "Resize"}
    assert nodes[0].op_type == first


@pytest.mark.parametrize("size", [15, 12, 8])
def test_a_fitted_weight_is_the_best_one(size: int) -> None:
    parents = {
        "a": from_proto(plain_cnn((6, 8), strides=(1, 1)), "a", preprocess="unit"),
        "b": from_proto(plain_cnn((5, 7), strides=(1, 1), seed=1, size=size), "b", preprocess="unit"),
    }
    plan = exchange(parents, "a/r0", "b/r0")
    kinds = [skip.projection.kind for skip in plan.skips]
    assert kinds == {15: ["pool", "conv"], 12: ["resize", "resize"], 8: ["pool", "resize"]}[size]
    pixels = np.random.default_rng(0).integers(0, 256, (32, 16, 16, 3)).astype(np.uint8)
    rng = np.random.default_rng(1)
    for skip, weight in Calibration(parents, pixels).projections(plan).items():
        (source, x), (target, y) = (tap_of(parents, name, pixels) for name in (skip.source, skip.target))
        model = chain(source, target, skip.projection)

        def error(
            matrix: np.ndarray, model: onnx.ModelProto = model, x: np.ndarray = x, y: np.ndarray = y
        ) -> float:
            held = next(t for t in model.graph.initializer if t.name == "skip/weight")
            array = matrix.reshape(held.dims).astype(np.float32)
            held.CopyFrom(numpy_helper.from_array(array, held.name))
            return float(np.square(y - computed(model, x)).sum())

        least = error(weight)
        for _ in range(5):
            step = 0.05 * np.abs(weight).max() * rng.standard_normal(weight.shape)
            assert least < min(error(weight + step), error(weight - step))


def exchange(parents: dict[str, Network], first: str, second: str) -> Plan:
    """Return the plan of one exchange."""
    skips = []
    for source, target in ((first, second), (second, first)):
        inner, outer = (parents[name[0]].layouts[name[2:]] for name in (source, target))
        projection = project(inner, outer)
        assert isinstance(projection, Projection)
        skips.append(Skip(source=source, target=target, projection=projection))
    plan = match(*parents.values(), max_skips=0)
    return plan.model_copy(update={"skips": tuple(skips)})


def tap_of(parents: dict[str, Network], name: str, pixels: np.ndarray) -> tuple[Layout, np.ndarray]:
    """Return the layout of a tap `<branch>/<value>`, and its content on images resized for its network."""
    network, value = parents[name[0]], name[2:]
    plan = match(*parents.values(), max_skips=0)
    fused = fuse(*parents.values(), plan=plan, classes=2, prove=False)
    session = open_session(with_outputs(fused.proto, [name]), provider="cpu", threads=1)
    return network.layouts[value], session.run(to_input(pixels), outputs=[name])[0]
