"""Surgery, proven by structure, numbers and identity."""

from __future__ import annotations

import dataclasses
import glob
import itertools
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from builders import Builder, plain_cnn, residual_cnn, saved
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import helper, numpy_helper

from graftonnx.errors import ModelError, ParityError, PlanError
from graftonnx.fusion import check, fuse
from graftonnx.graph import GraphView
from graftonnx.matching import match
from graftonnx.metadata import PRESETS, Preprocess, is_preprocessing, read_metadata
from graftonnx.model import from_proto, load, resize
from graftonnx.network import Network
from graftonnx.plan import Plan, Projection, Skip
from graftonnx.runtime import open_session, with_outputs

LIGHT = sorted(glob.glob(str(Path(onnx.__file__).parent / "backend/test/data/light/*.onnx")))


@pytest.fixture
def a() -> Network:
    return from_proto(residual_cnn(depth=3), "a.onnx")


@pytest.fixture
def b() -> Network:
    return from_proto(plain_cnn((8, 16, 32), seed=1, size=16), "b.onnx")


def run(model: onnx.ModelProto, image: np.ndarray, *names: str) -> list[np.ndarray]:
    session = open_session(with_outputs(model, names), provider="cpu", threads=1, optimise=False)
    return session.run(image, outputs=names or None)


@pytest.fixture
def image() -> np.ndarray:
    return np.random.default_rng(2).random((2, 3, 16, 16), np.float32)


def test_a_fused_network_has_one_image_and_one_logit_each_class(a: Network, b: Network) -> None:
    fused = fuse(a, b, classes=5)
    graph = fused.proto.graph
    assert [value.name for value in graph.input] == ["input"]
    assert [value.name for value in graph.output] == ["logits"]
    assert fused.view.shapes["input"] == (None, 3, 16, 16)
    assert fused.view.shapes["logits"] == (None, 5)


def test_every_value_belongs_to_a_branch_a_skip_or_the_head(a: Network, b: Network) -> None:
    model = fuse(a, b, classes=5).proto
    made = {name for node in model.graph.node for name in node.output} - {"logits"}
    assert {name.split("/")[0] for name in made} == {"a", "b", "preprocess", "skips", "head"}
    assert {t.name.split("/")[0] for t in model.graph.initializer} == {
        "a",
        "b",
        "preprocess",
        "skips",
        "head",
    }


def test_each_exchange_adds_one_conv_and_one_add_in_both_directions(a: Network, b: Network) -> None:
    plan = match(a, b, max_skips=2)
    plain, fused = fuse(a, b, classes=5, max_skips=0), fuse(a, b, classes=5, plan=plan)
    added = len(fused.view.nodes) - len(plain.view.nodes)
    changes = sum(skip.projection.kind in ("pool", "resize") for skip in plan.skips)
    assert added == 2 * len(plan.skips) + changes


def test_zero_projections_leave_both_branches_exactly_their_parents(
    a: Network, b: Network, image: np.ndarray
) -> None:
    fused = fuse(a, b, classes=5, prove=False)
    for parent, network in zip(fused.metadata.parents, (a, b), strict=True):
        preprocessed, feature = run(fused.proto, image, parent.input_value, parent.feature)
        np.testing.assert_array_equal(feature, run(network.proto, preprocessed, network.head.feature)[0])


def test_the_papers_plain_addition_adds_the_partners_block_output(image: np.ndarray) -> None:
    a, b = (from_proto(residual_cnn(seed=seed), f"{seed}.onnx", preprocess="unit") for seed in (0, 1))
    skips = (
        Skip(source="b/stem", target="a/stem", projection=Projection(kind="equal")),
        Skip(source="a/stem", target="b/stem", projection=Projection(kind="equal")),
    )
    plan = match(a, b, max_skips=0).model_copy(update={"skips": skips})
    fused = fuse(a, b, classes=5, plan=plan, skip_init="paper")
    own, other, sum_a, sum_b = run(fused.proto, image, "a/stem", "b/stem", "skips/0/a/sum", "skips/0/b/sum")
    np.testing.assert_array_equal(sum_a, own + other)
    np.testing.assert_array_equal(sum_b, own + other)
    readers = {node.name for node in fused.view.consumers["skips/0/a/sum"]}
    assert readers == {"a/node_s0.inner.conv", "a/node_s0.sum"}


def test_a_strided_projection_and_a_resize_give_the_targets_shape(image: np.ndarray) -> None:
    a = from_proto(plain_cnn((8, 16, 16)), "a.onnx")
    b = from_proto(plain_cnn((8, 12, 12), strides=(2, 1, 1)), "b.onnx")
    plan = match(a, b, max_skips=0)
    skips = (
        Skip(
            source="a/r0",
            target="b/r0",
            projection=Projection(kind="conv", kernel=(2, 2), stride=(2, 2)),
        ),
        Skip(source="b/r1", target="a/r1", projection=Projection(kind="resize")),
    )
    fused = fuse(a, b, classes=3, plan=plan.model_copy(update={"skips": skips}), skip_init="paper")
    assert fused.view.shapes["skips/0/b/sum"] == (None, 8, 8, 8)
    assert fused.view.shapes["skips/1/a/sum"] == (None, 16, 8, 8)


def test_the_same_seed_gives_the_same_bytes(a: Network, b: Network) -> None:
    def content(seed: int) -> bytes:
        return fuse(a, b, classes=5, seed=seed, prove=False).proto.SerializeToString(deterministic=True)

    assert content(3) == content(3)
    assert content(3) != content(4)


def test_the_parents_are_not_modified(a: Network, b: Network) -> None:
    before = a.skeleton.SerializeToString(), b.skeleton.SerializeToString()
    fuse(a, b, classes=5)
    assert (a.skeleton.SerializeToString(), b.skeleton.SerializeToString()) == before


def test_one_parent_alone_gets_a_new_head(a: Network) -> None:
    fused = fuse(a, classes=7)
    assert fused.head.classes == 7
    assert [parent.branch for parent in fused.metadata.parents] == ["a"]
    assert not any(name.startswith("skips/") for name in fused.view.initializers)


def test_the_file_explains_itself(a: Network, b: Network) -> None:
    fused = fuse(a, b, labels=["cat", "dog"])
    metadata = read_metadata(fused.proto)
    assert metadata.labels == ("cat", "dog")
    assert [parent.name for parent in metadata.parents] == ["a.onnx", "b.onnx"]
    assert metadata.input is not None
    assert metadata.input.preprocess == PRESETS["unit"]
    assert Plan.model_validate_json(metadata.plan or "").skips == match(a, b).skips


@pytest.mark.parametrize(
    "convention",
    [
        Preprocess(),
        PRESETS["imagenet"],
        PRESETS["inception"],
        PRESETS["caffe"],
        PRESETS["raw"],
        Preprocess(order="bgr", scale=2, mean=(1, 2, 3), std=(4, 5, 6)),
    ],
    ids=lambda c: f"{c.order}-{c.scale:g}",
)
def test_preprocessing_is_what_numpy_computes(convention: Preprocess, image: np.ndarray) -> None:
    network = from_proto(plain_cnn(), "a.onnx", preprocess=convention)
    found = run(fuse(network, classes=3).proto, image, "a/image")[0]
    channels = image[:, ::-1] if convention.order == "bgr" else image
    mean, std = (np.reshape(v, (1, -1, 1, 1)) for v in (convention.mean, convention.std))
    np.testing.assert_allclose(found, (channels * convention.scale - mean) / std, rtol=1e-5, atol=1e-5)


def test_a_grey_parent_sees_the_luma_of_the_image(image: np.ndarray) -> None:
    fused = fuse(from_proto(plain_cnn(channels=1), "a.onnx"), classes=3)
    luma = np.einsum("nchw,c->nhw", image, [0.299, 0.587, 0.114])[:, None]
    np.testing.assert_allclose(run(fused.proto, image, "a/image")[0], luma, rtol=1e-5)


def test_parents_of_different_sizes_share_the_larger_image() -> None:
    a, b = from_proto(plain_cnn(size=16), "a"), from_proto(plain_cnn(size=20), "b")
    fused = fuse(a, b, classes=3)
    assert fused.input_shape == (3, 20, 20)
    assert fused.view.shapes["a/image"] == (None, 3, 16, 16)


def edited(plan: Plan, **changes: Any) -> Plan:
    first = plan.skips[0].model_copy(update=changes)
    return plan.model_copy(update={"skips": (first, *plan.skips[1:])})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"source": "b/gone"}, "branch 'b' has no value 'gone' before its feature"),
        ({"source": "c/stem"}, "there is no branch 'c'; the branches are a, b"),
        ({"source": "a/s0"}, "stays inside one branch"),
        ({"projection": Projection(kind="conv", stride=(3, 3))}, "gives [8, 6, 6] (C, H, W), the target has"),
    ],
)
def test_a_plan_that_does_not_fit_is_refused_naming_the_skip(
    a: Network, b: Network, changes: dict[str, Any], message: str
) -> None:
    plan = match(a, b)
    assert plan.skips[0].target.startswith("a/")
    with pytest.raises(PlanError) as caught:
        fuse(a, b, classes=5, plan=edited(plan, **changes))
    assert message in caught.value.message
    assert caught.value.message.startswith(f"skip '{changes.get('source', plan.skips[0].source)}' -> ")


def test_a_skip_that_stands_twice_is_refused(a: Network, b: Network) -> None:
    plan = match(a, b)
    doubled = plan.model_copy(update={"skips": (*plan.skips, plan.skips[0])})
    with pytest.raises(PlanError, match=r"skip '.*' -> '.*' stands twice in the plan\. Remove one\."):
        fuse(a, b, classes=5, plan=doubled)


def test_skips_with_too_many_weights_are_refused_before_any_is_made(a: Network, b: Network) -> None:
    plan = match(a, b)
    skip = next(skip for skip in plan.skips if skip.projection.kind == "equal")
    window = Projection(kind="conv", kernel=(9001, 9001), pads=(4500,) * 4)
    plan = plan.model_copy(update={"skips": (skip.model_copy(update={"projection": window}),)})
    message = r"with it the skips have [\d,]+ weights, at most 268,435,456 are allowed\. Make their kernels"
    with pytest.raises(PlanError, match=message):
        fuse(a, b, classes=5, plan=plan)


def test_a_fused_network_can_be_fused_again(a: Network, b: Network) -> None:
    once = fuse(a, b, classes=5)
    twice = fuse(from_proto(once.proto, "once.onnx"), b, classes=5)
    names = [tensor.name for tensor in twice.proto.graph.initializer]
    assert len(names) == len(set(names))
    assert "a/skips/0/a/weight" in names
    assert all(is_preprocessing(name) for name in names if name.endswith(("/scale", "/offset")))


def test_a_parent_whose_names_look_like_ours_keeps_its_own_numbers(image: np.ndarray) -> None:
    net = Builder()
    seven = net.weight("preprocess/a/scale", 1)
    value = net.node("Mul", ["image", seven], "preprocess/a/mul/output")
    value = net.block(value, "skips/0/a/sum", 3, 8)
    value = net.block(value, "input", 8, 8)
    value = net.node("GlobalAveragePool", [value], "head/features")
    value = net.node("Flatten", [value], "flat", axis=1)
    net.node("Gemm", [value, net.weight("head/logits/weight", 4, 8)], "logits", transB=1)
    parent = from_proto(net.model("logits", ["batch", 4]), "odd.onnx", preprocess="imagenet")
    fused = fuse(parent, from_proto(residual_cnn(), "b.onnx"), classes=3)
    mean, std = (np.reshape(v, (1, -1, 1, 1)) for v in (parent.preprocess.mean, parent.preprocess.std))
    found = run(fused.proto, image, "a/image")[0]
    np.testing.assert_allclose(found, (parent.preprocess.scale * image - mean) / std, rtol=1e-5, atol=1e-6)


def test_a_plan_with_a_cycle_is_refused_naming_the_skip(a: Network) -> None:
    other = from_proto(residual_cnn(depth=3, seed=1), "b.onnx")
    skips = (
        Skip(source="b/s1", target="a/stem", projection=Projection(kind="equal")),
        Skip(source="a/s0", target="b/s0", projection=Projection(kind="equal")),
    )
    plan = match(a, other, max_skips=0).model_copy(update={"skips": skips})
    with pytest.raises(PlanError, match=r"skip 'a/s0' -> 'b/s0' closes a cycle"):
        fuse(a, other, classes=5, plan=plan)


@pytest.mark.parametrize("kind", ["equal", "resize"])
def test_a_window_that_its_projection_does_not_use_is_refused(a: Network, kind: str) -> None:
    other = from_proto(residual_cnn(depth=3, seed=1), "b.onnx")
    skip = Skip(source="b/s0", target="a/s0", projection=Projection(kind=kind, kernel=(3, 3)))
    plan = match(a, other, max_skips=0).model_copy(update={"skips": (skip,)})
    with pytest.raises(PlanError, match=rf"a projection of kind '{kind}' has a kernel and a stride of ones"):
        fuse(a, other, classes=5, plan=plan)


def test_a_plan_for_other_sizes_is_refused(a: Network, b: Network) -> None:
    plan = match(a, b)
    with pytest.raises(PlanError, match=r"the plan runs parent 'a' at 16x16, but .* loaded at 24x24"):
        fuse(from_proto(residual_cnn(), "a.onnx", input_size=(24, 24)), b, classes=5, plan=plan)


def test_preprocessing_that_does_not_fit_the_channels_is_refused(a: Network, b: Network) -> None:
    odd = dataclasses.replace(a, preprocess=Preprocess(mean=(1.0, 2.0)))
    with pytest.raises(
        ModelError,
        match=r"cannot use parent 'a' .*: its preprocessing has 2 numbers in mean, its input 3 channels",
    ):
        fuse(odd, b, classes=5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"classes": 1}, r"classes \(=1\) must be at least 2"),
        ({"skip_init": "zeros"}, r"skip_init \(='zeros'\) is not one of 'zero', 'paper'"),
        ({"heads": "mean"}, r"heads \(='mean'\) is not one of 'concat', 'sum', 'attention'"),
        ({"features": "scores"}, r"features \(='scores'\) is not one of 'penultimate', 'logits'"),
        ({"norm": "batch"}, r"norm \(='batch'\) is not one of 'rms', 'none'"),
        ({"hidden": -1}, r"hidden \(=-1\) must be 0 or more"),
        ({"dropout": 2.0}, r"dropout \(=2.0\) in 0 <= p < 1"),
        ({"classes": 3, "labels": ["x", "y"]}, r"classes \(=3\) differs from the number of labels \(=2\)"),
    ],
)
def test_senseless_classes_are_refused(a: Network, b: Network, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        fuse(a, b, **options)


def test_the_proof_notices_a_branch_that_differs_from_its_parent(a: Network, b: Network) -> None:
    fused = fuse(a, b, classes=5)
    other = from_proto(residual_cnn(depth=3, seed=9), "other.onnx")
    with pytest.raises(ParityError, match=r"branch 'a' differs from its parent 'other.onnx' by up to"):
        check(fused, {"a": other, "b": b}, identical=True)


def test_the_proof_notices_numbers_that_are_not_finite(b: Network) -> None:
    model = residual_cnn()
    weight = model.graph.initializer[0]
    weight.CopyFrom(numpy_helper.from_array(np.full(tuple(weight.dims), np.inf, np.float32), weight.name))
    with pytest.raises(
        ParityError, match=r"not finite with a batch of 1; branch 'a' is not from 'a/s1' on\."
    ):
        fuse(from_proto(model, "a.onnx"), b, classes=5)


def test_the_proof_notices_a_parent_that_mixes_the_rows_of_a_batch(b: Network) -> None:
    net = Builder()
    value = net.block("image", "r0", 3, 8)
    mean = net.node("ReduceMean", [value], "over_batch", axes=[0], keepdims=1)
    value = net.block(net.node("Add", [value, mean], "mixed"), "r1", 8, 8)
    value = net.node("GlobalAveragePool", [value], "pooled")
    value = net.node("Flatten", [value], "flat", axis=1)
    net.node("Gemm", [value, net.weight("fc", 4, 8)], "scores", transB=1)
    mixing = from_proto(net.model("scores", ["batch", 4]), "mixing.onnx")
    with pytest.raises(ParityError, match=r"the first row of the output changes by .* with the batch"):
        fuse(mixing, b, classes=5)


widths = st.lists(st.integers(1, 12), min_size=2, max_size=5)


@st.composite
def networks(draw: st.DrawFn) -> onnx.ModelProto:
    """A random chain of plain, residual and parallel blocks with random strides, then pool and Gemm."""
    net = Builder(draw(st.integers(0, 99)))
    size = draw(st.integers(12, 24))
    value, inner = net.block("image", "stem", 3, 8), 8
    for index in range(draw(st.integers(1, 4))):
        kind = draw(st.sampled_from(["plain", "residual", "parallel"]))
        outer = draw(st.integers(1, 12))
        if kind == "plain":
            value = net.block(value, f"p{index}", inner, outer, stride=draw(st.integers(1, 2)))
            inner = outer
        elif kind == "residual":
            side = net.conv(net.block(value, f"i{index}", inner, outer), f"o{index}", outer, inner)
            value = net.node("Relu", [net.node("Add", [side, value], f"sum{index}")], f"s{index}")
        else:
            left = net.block(value, f"l{index}", inner, outer)
            right = net.block(value, f"r{index}", inner, 4)
            value, inner = net.node("Concat", [left, right], f"c{index}", axis=1), outer + 4
    value = net.node("GlobalAveragePool", [value], "pooled")
    value = net.node("Flatten", [value], "flat", axis=1)
    net.node("Gemm", [value, net.weight("fc", 4, inner)], "scores", transB=1)
    return net.model("scores", ["batch", 4], image=["batch", 3, size, size])


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    networks(),
    networks(),
    st.fixed_dictionaries(
        {
            "skip_init": st.sampled_from(["zero", "paper"]),
            "max_skips": st.integers(0, 6),
            "heads": st.sampled_from(["concat", "sum", "attention"]),
            "features": st.sampled_from(["penultimate", "logits"]),
            "hidden": st.sampled_from([0, 8]),
        }
    ),
)
def test_random_pairs_fuse_and_pass_every_proof(
    one: onnx.ModelProto, two: onnx.ModelProto, options: dict[str, Any]
) -> None:
    fused = fuse(from_proto(one, "a"), from_proto(two, "b"), classes=3, **options)
    assert len(GraphView(fused.proto.graph).nodes) == len(fused.proto.graph.node)


def shrunk(file: str) -> Network:
    """Load a network at 96x96, or at its own size where its reshapes hold no other."""
    network = load(file)
    try:
        return resize(network, (96, 96))
    except ModelError:
        assert "shufflenet" in file
        return network


@pytest.mark.parametrize("file", LIGHT[2:3] + LIGHT[5:7], ids=lambda f: Path(f).stem)
def test_shipped_topologies_fuse_with_a_small_network(file: str, b: Network) -> None:
    fused = fuse(shrunk(file), b, classes=8)
    assert fused.metadata.plan is not None
    assert '"source"' in fused.metadata.plan


@pytest.mark.slow
@pytest.mark.parametrize(
    ("one", "two"),
    list(itertools.combinations_with_replacement(LIGHT, 2)),
    ids=lambda f: Path(f).stem.removeprefix("light_"),
)
def test_all_pairs_of_the_shipped_topologies_fuse_and_pass_every_proof(one: str, two: str) -> None:
    fuse(shrunk(one), shrunk(two), classes=8)


def test_an_auxiliary_output_may_be_the_feature_or_a_tap(b: Network) -> None:
    model, shape = residual_cnn(), ["batch", 8, 16, 16]
    for name in ("s1", "s0", "stem.conv"):
        model.graph.output.append(helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape))
    plain = fuse(from_proto(residual_cnn(), "a.onnx"), b, classes=3)
    fused = fuse(from_proto(model, "a.onnx"), b, classes=3)
    assert fused.metadata.plan == plain.metadata.plan
    assert fused.skeleton.graph.node == plain.skeleton.graph.node


@pytest.mark.parametrize("batch", [1, 4])
def test_a_parent_of_a_fixed_batch_is_compared_with_its_file(b: Network, batch: int, tmp_path: Path) -> None:
    fused = fuse(load(saved(plain_cnn(batch=batch), tmp_path / "a.onnx")), b, classes=3)
    assert "branch a equals a.onnx bit for bit" in fused.notes
