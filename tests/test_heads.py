"""What joins the branches and decides: each kind against NumPy, what it joins, and heads that users bring."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_graphsurgeon as gs
import pytest
import torch
from builders import Builder, grid_cnn, plain_cnn, residual_cnn, token_net, windowed_net
from onnx import TensorProto, helper, numpy_helper

from graftonnx import heads
from graftonnx.conversion import onnx_name, to_torch, write_back
from graftonnx.errors import ModelError, UnsupportedOpError
from graftonnx.fusion import fuse
from graftonnx.heads import HeadDesign, build_head
from graftonnx.metadata import FeatureKind, HeadKind, HeadRecord, NormKind, read_metadata
from graftonnx.model import from_proto, load, resize
from graftonnx.network import Network
from graftonnx.normalise.opset import OPSET
from graftonnx.runtime import open_session, with_outputs
from graftonnx.training.groups import group_of

WIDTHS = {"a": 8, "b": 32}
KINDS: tuple[HeadKind, ...] = ("concat", "sum", "attention")


@pytest.fixture
def a() -> Network:
    return from_proto(residual_cnn(depth=2), "a.onnx")


@pytest.fixture
def b() -> Network:
    return from_proto(plain_cnn((8, 16, 32), seed=1), "b.onnx")


@pytest.fixture
def image() -> np.ndarray:
    return np.random.default_rng(2).random((5, 3, 16, 16), np.float32)


def run(model: onnx.ModelProto, image: np.ndarray, *names: str) -> list[np.ndarray]:
    session = open_session(with_outputs(model, names), provider="cpu", threads=1, optimise=False)
    return session.run(image, outputs=names or None)


def arrays(model: onnx.ModelProto) -> dict[str, np.ndarray]:
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}


def with_weight(model: onnx.ModelProto, name: str, array: np.ndarray) -> onnx.ModelProto:
    tensor = next(tensor for tensor in model.graph.initializer if tensor.name == name)
    tensor.CopyFrom(numpy_helper.from_array(array, name))
    return model


def dense(x: np.ndarray, weights: dict[str, np.ndarray], name: str) -> np.ndarray:
    return x @ weights[f"{name}/weight"].T + weights[f"{name}/bias"]


def normalised(vector: np.ndarray, weights: dict[str, np.ndarray], name: str) -> np.ndarray:
    return vector / np.sqrt((vector**2).mean(axis=1, keepdims=True) + 1e-5) * weights[f"{name}/weight"]


def joined(kind: HeadKind, vectors: dict[str, np.ndarray], weights: dict[str, np.ndarray]) -> np.ndarray:
    """Compute z as the module's docstring says."""
    if kind == "concat":
        return np.concatenate(list(vectors.values()), axis=1)
    projected = [dense(x, weights, f"head/{letter}/project") for letter, x in vectors.items()]
    if kind == "sum" or len(projected) == 1:
        return sum(projected[1:], start=projected[0])
    scores = np.exp([np.tanh(u) @ weights["head/attention/weight"] for u in projected])
    return np.sum(np.stack(projected) * scores / scores.sum(axis=0), axis=0)


class TestSize:
    @pytest.mark.parametrize(
        "sizes", [{"hidden": 10**15}, {"classes": 10**24}, {"hidden": 0, "classes": 10**15}]
    )
    @pytest.mark.parametrize("kind", KINDS)
    def test_a_head_that_no_memory_holds_is_refused_before_it_is_built(
        self, a: Network, b: Network, kind: HeadKind, sizes: dict[str, Any]
    ) -> None:
        hidden, classes = sizes.get("hidden", 256), sizes.get("classes", 4)
        said = (
            rf"cannot build the head: {hidden} hidden units and {classes} classes over features of 8 \+ 32 "
        )
        with pytest.raises(ModelError, match=said + r"channels need [\d,]+ weights, at most 268,435,456 are"):
            fuse(a, b, heads=kind, hidden=hidden, classes=classes)

    @pytest.mark.parametrize("hidden", [0, 12])
    @pytest.mark.parametrize("kind", KINDS)
    def test_the_limit_is_of_what_would_be_built(
        self, a: Network, b: Network, kind: HeadKind, hidden: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        weights = arrays(fuse(a, b, heads=kind, hidden=hidden, classes=3).proto)
        large = {
            name: array for name, array in weights.items() if name.startswith("head/") and array.ndim == 2
        }
        count = sum(array.size for name, array in large.items() if name != "head/attention/weight")
        monkeypatch.setattr(heads, "MOST_WEIGHTS", count)
        assert fuse(a, b, heads=kind, hidden=hidden, classes=3, prove=False).head.classes == 3
        monkeypatch.setattr(heads, "MOST_WEIGHTS", count - 1)
        with pytest.raises(ModelError, match=f"need {count:,} weights"):
            fuse(a, b, heads=kind, hidden=hidden, classes=3)


class TestKinds:
    @pytest.mark.parametrize("norm", ["rms", "none"])
    @pytest.mark.parametrize("hidden", [0, 6])
    @pytest.mark.parametrize("kind", KINDS)
    def test_each_computes_its_formula(
        self, a: Network, b: Network, image: np.ndarray, kind: HeadKind, hidden: int, norm: NormKind
    ) -> None:
        model = fuse(a, b, classes=3, heads=kind, hidden=hidden, norm=norm).proto
        if norm == "rms":
            random = np.random.default_rng(3).standard_normal(WIDTHS["b"]).astype(np.float32)
            model = with_weight(model, "head/b/norm/weight", random)
        if kind == "attention":
            width = hidden or min(WIDTHS.values())
            random = np.random.default_rng(0).standard_normal((width, 1)).astype(np.float32)
            model = with_weight(model, "head/attention/weight", random)
        weights = arrays(model)
        logits, *pooled = run(model, image, "logits", "head/a/pooled", "head/b/pooled")
        vectors = dict(zip("ab", pooled, strict=True))
        if norm == "rms":
            vectors["b"] = normalised(vectors["b"], weights, "head/b/norm")  # a has too few channels
        z = joined(kind, vectors, weights)
        if hidden:
            z = np.maximum(dense(z, weights, "head/hidden"), 0)
        np.testing.assert_allclose(logits, dense(z, weights, "head/logits"), rtol=1e-4, atol=1e-5)

    def test_attention_starts_as_the_plain_mean_and_learns_weights_for_each_image(
        self, a: Network, b: Network, image: np.ndarray
    ) -> None:
        model = fuse(a, b, classes=3, heads="attention", hidden=6).proto
        (shares,) = run(model, image, "head/attention/shares")
        np.testing.assert_array_equal(shares, np.full((5, 1, 2), 0.5, np.float32))
        model = with_weight(model, "head/attention/weight", np.full((6, 1), 9, np.float32))
        (shares,) = run(model, image, "head/attention/shares")
        np.testing.assert_allclose(shares.sum(axis=2), 1, rtol=1e-6)
        assert len(np.unique(shares[:, 0, 0])) == 5

    @pytest.mark.parametrize("kind", KINDS)
    @pytest.mark.parametrize("count", [1, 3, 4])
    def test_any_number_of_branches_of_any_widths_is_joined(self, kind: HeadKind, count: int) -> None:
        widths = [5, 7, 2, 9][:count]
        parents = [from_proto(plain_cnn((4, width)), "n.onnx") for width in widths]
        sources = {
            letter: (parent, gs.Variable(f"{letter}/f", np.float32, ("batch", width, 8, 8)))
            for letter, parent, width in zip("abcd", parents, widths, strict=False)
        }
        logits = gs.Variable("logits", np.float32, ("batch", 3))
        nodes = build_head(sources, HeadDesign(3, kind, hidden=0), np.random.default_rng(0), logits)
        inputs = [variable for _, variable in sources.values()]
        model = gs.export_onnx(gs.Graph(nodes, inputs, [logits], opset=OPSET), ir_version=10)
        random = np.random.default_rng(1)
        maps = {
            letter: random.random((2, width, 8, 8), np.float32)
            for letter, width in zip(sources, widths, strict=True)
        }
        feeds = {f"{letter}/f": array for letter, array in maps.items()}
        found = onnx.reference.ReferenceEvaluator(model).run(None, feeds)[0]
        z = joined(kind, {letter: array.mean(axis=(2, 3)) for letter, array in maps.items()}, arrays(model))
        np.testing.assert_allclose(found, dense(z, arrays(model), "head/logits"), rtol=1e-4, atol=1e-5)

    @pytest.mark.parametrize("kind", KINDS)
    def test_every_weight_of_the_head_learns(
        self, a: Network, b: Network, image: np.ndarray, kind: HeadKind
    ) -> None:
        fused = fuse(a, b, classes=3, heads=kind, hidden=6, dropout=0)
        wanted = {
            name
            for name, array in arrays(fused.proto).items()
            if name.startswith("head/") and array.dtype == np.float32 and array.ndim
        }
        module = to_torch(fused)
        target = torch.tensor([0, 1, 2, 0, 1])
        torch.nn.functional.cross_entropy(module(torch.from_numpy(image)), target).backward()
        moved = {
            onnx_name(key)
            for key, weight in module.named_parameters()
            if group_of(key) == "head" and weight.grad is not None and weight.grad.abs().max() > 0
        }
        assert moved == wanted
        assert len(wanted) == {"concat": 5, "sum": 9, "attention": 10}[kind]  # with the gain of b's norm

    @pytest.mark.parametrize("kind", KINDS)
    def test_the_batch_stays_dynamic_without_shape_arithmetic(
        self, a: Network, b: Network, image: np.ndarray, kind: HeadKind
    ) -> None:
        fused = fuse(a, b, classes=3, heads=kind)
        inside = [node for node in fused.view.nodes if node.name.startswith("head/")]
        assert not {"Shape", "Reshape", "Expand", "Gather"} & {node.op_type for node in inside}
        exported = torch.export.export(
            to_torch(fused).eval(),
            (torch.from_numpy(image),),
            dynamic_shapes=({0: torch.export.Dim("batch", min=2)},),
        )
        two = exported.module()(torch.from_numpy(image[:2])).detach().numpy()
        np.testing.assert_allclose(two, run(fused.proto, image)[0][:2], rtol=1e-4, atol=1e-5)

    @pytest.mark.parametrize("kind", KINDS)
    def test_a_fused_network_is_cut_in_front_of_its_head_when_it_is_fused_again(
        self, a: Network, b: Network, tmp_path: Path, kind: HeadKind
    ) -> None:
        once = fuse(a, b, classes=3, heads=kind, hidden=6)
        twice = fuse(from_proto(once.proto, "once.onnx"), b, classes=3)
        assert twice.metadata.parents[0].features == {"concat": 40, "sum": 6, "attention": 6}[kind]

    @pytest.mark.parametrize("kind", KINDS)
    def test_the_same_seed_gives_the_same_bytes(self, a: Network, b: Network, kind: HeadKind) -> None:
        one, two = (fuse(a, b, classes=3, heads=kind, prove=False).proto for _ in range(2))
        assert one == two

    def test_the_file_says_which_head_it_has(self, a: Network, b: Network) -> None:
        fused = fuse(a, b, classes=3, heads="sum", features="logits", hidden=6, dropout=0.5)
        record = read_metadata(fused.proto).head
        assert record == HeadRecord(kind="sum", features="logits", hidden=6, dropout=0.5)
        assert str(record) == "sum of logits features, hidden layer of 6, dropout 0.5"


def classifier(
    end: Callable[[Builder, str], str], shape: Sequence[int | str] = ("batch", 4), opset: int = 13
) -> Network:
    """Return a network of two blocks whose head is made by `end` from the value in front of it."""
    net = Builder()
    value = net.block(net.block("image", "r0", 3, 8), "r1", 8, 6, stride=2)
    return from_proto(net.model(end(net, value), shape, opset=opset), "a.onnx")


def dense_end(net: Builder, value: str) -> str:
    flat = net.node("Flatten", [net.node("GlobalAveragePool", [value], "pooled")], "flat", axis=1)
    scores = net.node("Gemm", [flat, net.weight("fc", 4, 6), net.weight("bias", 4)], "scores", transB=1)
    return net.node("Softmax", [scores], "probabilities", axis=1)


def log_end(net: Builder, value: str) -> str:
    flat = net.node("Flatten", [net.node("GlobalAveragePool", [value], "pooled")], "flat", axis=1)
    scores = net.node("Gemm", [flat, net.weight("fc", 4, 6), net.weight("bias", 4)], "scores", transB=1)
    return net.node("LogSoftmax", [scores], "logs", axis=1)


def conv_end(net: Builder, value: str) -> str:
    conv = net.conv(value, "maps", 6, 4, kernel=1)
    pooled = net.node("GlobalAveragePool", [conv], "scores")
    return net.node("Flatten", [net.node("Softmax", [pooled], "shares", axis=1)], "flat", axis=1)


def last_axis_end(net: Builder, value: str) -> str:
    pooled = net.node("GlobalAveragePool", [net.conv(value, "maps", 6, 4, kernel=1)], "pooled")
    turned = net.node("Transpose", [pooled], "scores", perm=[0, 2, 3, 1])
    return net.node("Flatten", [net.node("Softmax", [turned], "shares", axis=3)], "flat", axis=1)


class TestFeatures:
    @pytest.mark.parametrize(
        ("end", "opset", "scores"),
        [
            (dense_end, 13, "scores"),
            (dense_end, 9, "scores"),
            (log_end, 13, "logs"),
            (conv_end, 13, "scores"),
            (conv_end, 9, "scores"),
            (last_axis_end, 13, "scores"),
        ],
    )
    def test_logits_are_what_stands_in_front_of_the_softmax(
        self, end: Callable[..., str], opset: int, scores: str, image: np.ndarray
    ) -> None:
        parent = classifier(end, opset=opset)
        fused = fuse(parent, classes=3, features="logits", hidden=0)
        (record,) = fused.metadata.parents
        assert (record.feature, record.features) == (f"a/{scores}", 4)
        assert fused.notes[-1].startswith("branch a equals a.onnx")
        assert not any(node.op_type == "Softmax" for node in fused.view.nodes)
        pixels, vector = run(fused.proto, image, "a/image", "head/features")
        own = run(parent.proto, pixels)[0].reshape(5, 4)
        shares = np.exp(own) if end is log_end else own
        np.testing.assert_allclose(
            np.exp(vector) / np.exp(vector).sum(axis=1, keepdims=True), shares, rtol=1e-5
        )

    def test_the_branches_keep_their_own_heads_weights(self, a: Network, b: Network) -> None:
        plain, stacked = (fuse(a, b, classes=3, features=features) for features in ("penultimate", "logits"))
        added = set(arrays(stacked.proto)) - set(arrays(plain.proto))
        assert {"a/fc.weight", "b/fc.weight", "b/fc.bias"} <= added
        assert stacked.metadata.parents[0].parameters == plain.metadata.parents[0].parameters + 8 * 4

    def test_skips_stay_where_they_are(self, a: Network, b: Network) -> None:
        plain, stacked = (fuse(a, b, classes=3, features=features) for features in ("penultimate", "logits"))
        assert plain.metadata.plan == stacked.metadata.plan

    def test_a_parent_whose_head_is_cut_off_has_no_logits(self, a: Network, b: Network) -> None:
        with pytest.raises(ModelError, match=r"'a\.onnx' has no class scores at 24x24: its own head"):
            fuse(resize(a, (24, 24)), b, classes=3, features="logits")

    @pytest.mark.parametrize(
        ("model", "axes"),
        [
            (plain_cnn((8, 12)), (2, 3)),
            (grid_cnn((24,)), (2,)),
            (grid_cnn((8, 12, 10)), (2, 3, 4)),
            (token_net(), (1,)),
            (windowed_net(), (1, 2)),
        ],
        ids=["image", "sound", "video", "tokens", "channels last"],
    )
    def test_positions_and_tokens_are_averaged(self, model: onnx.ModelProto, axes: tuple[int, ...]) -> None:
        alone = fuse(from_proto(model, "a.onnx"), classes=3, hidden=0)
        (parent,) = alone.metadata.parents
        joined = alone.proto.graph.node[-1].input[0]
        session = open_session(with_outputs(alone.proto, [parent.feature, joined]), provider="cpu")
        x = np.random.default_rng(0).random((2, *alone.input_shape), np.float32)
        feature, pooled = session.run(x, outputs=[parent.feature, joined])
        np.testing.assert_allclose(pooled, feature.mean(axis=axes), rtol=1e-4, atol=1e-6)
        assert pooled.shape == (2, parent.features)


def head_model(
    widths: Sequence[int | str] = (8, 32),
    classes: int = 3,
    *,
    opset: int = 18,
    element: int = TensorProto.FLOAT,
    batch: int | str = "batch",
    end: str = "",
) -> onnx.ModelProto:
    """A head of one dense layer for each input, whose sum is the output `y`."""
    random = np.random.default_rng(3)
    kind = helper.tensor_dtype_to_np_dtype(element)
    nodes, weights, terms = [], [], []
    for index, width in enumerate(widths):
        name = f"w{index}"
        array = random.standard_normal((width if isinstance(width, int) else 40, classes)).astype(kind)
        weights.append(numpy_helper.from_array(array, name))
        nodes.append(helper.make_node("MatMul", [f"x{index}", name], [f"t{index}"]))
        terms.append(f"t{index}")
    nodes.append(helper.make_node("Sum", terms, ["y" if not end else "total"], name="total"))
    if end:
        nodes.append(helper.make_node(end, ["total"], ["y"], name="end", axis=1))
    graph = helper.make_graph(
        nodes,
        "head",
        [helper.make_tensor_value_info(f"x{i}", element, [batch, w]) for i, w in enumerate(widths)],
        [helper.make_tensor_value_info("y", element, [batch, classes])],
        weights,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def saved(model: onnx.ModelProto, folder: Path) -> Path:
    onnx.save(model, folder / "head.onnx")
    return folder / "head.onnx"


class TestOwnHead:
    def test_one_input_for_each_branch(
        self, a: Network, b: Network, image: np.ndarray, tmp_path: Path
    ) -> None:
        own = head_model()
        fused = fuse(a, b, head_file=saved(own, tmp_path))
        logits, *pooled = run(fused.proto, image, "logits", "head/a/pooled", "head/b/pooled")
        expected = sum(x @ arrays(own)[f"w{i}"] for i, x in enumerate(pooled))
        np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-5)
        assert fused.head.classes == 3

    def test_one_input_for_all_of_them(
        self, a: Network, b: Network, image: np.ndarray, tmp_path: Path
    ) -> None:
        own = head_model([40])
        model = fuse(a, b, head_file=saved(own, tmp_path)).proto
        logits, *pooled = run(model, image, "logits", "head/a/pooled", "head/b/pooled")
        expected = np.concatenate(pooled, axis=1) @ arrays(own)["w0"]
        np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-5)

    def test_the_number_of_classes_may_follow_from_the_weights_alone(
        self, a: Network, tmp_path: Path
    ) -> None:
        own = head_model([8], 5)
        own.graph.output[0].type.tensor_type.shape.dim[1].dim_param = "k"
        assert fuse(a, head_file=saved(own, tmp_path)).head.classes == 5

    def test_one_parent_alone(self, a: Network, tmp_path: Path) -> None:
        fused = fuse(a, head_file=saved(head_model([8]), tmp_path))
        assert fused.view.shapes["logits"] == (None, 3)

    @pytest.mark.parametrize(
        "variant",
        [{"opset": 7}, {"opset": 11}, {"opset": 21}, {"batch": 1}, {"element": TensorProto.FLOAT16}],
        ids=str,
    )
    def test_any_opset_a_fixed_batch_and_halves_are_brought_to_the_form_inside(
        self, a: Network, b: Network, image: np.ndarray, tmp_path: Path, variant: dict[str, Any]
    ) -> None:
        own = head_model(**variant)
        fused = fuse(a, b, head_file=saved(own, tmp_path))
        assert [entry.version for entry in fused.skeleton.opset_import] == [OPSET]
        logits, *pooled = run(fused.proto, image, "logits", "head/a/pooled", "head/b/pooled")
        expected = sum(x @ arrays(own)[f"w{i}"].astype(np.float32) for i, x in enumerate(pooled))
        np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-5)

    def test_its_weights_are_trained_and_written_back(
        self, a: Network, b: Network, image: np.ndarray, tmp_path: Path
    ) -> None:
        module = to_torch(fuse(a, b, head_file=saved(head_model(), tmp_path)))
        module(torch.from_numpy(image)).square().sum().backward()
        heads = {
            onnx_name(key): weight for key, weight in module.named_parameters() if group_of(key) == "head"
        }
        assert set(heads) == {"head/file/w0", "head/file/w1"}
        with torch.no_grad():
            for weight in heads.values():
                assert weight.grad is not None
                weight -= weight.grad
        after = arrays(write_back(module))
        assert not np.allclose(after["head/file/w0"], arrays(head_model())["w0"])

    def test_its_names_never_meet_ours(
        self, a: Network, b: Network, image: np.ndarray, tmp_path: Path
    ) -> None:
        own = head_model()
        taken = ["head/a/pooled", "logits", "input", "a/image", "head/features"]
        for old, new in zip(["x0", "y", "w0", "t0", "x1"], taken, strict=True):
            for node in own.graph.node:
                node.input[:] = [new if name == old else name for name in node.input]
                node.output[:] = [new if name == old else name for name in node.output]
            for value in (*own.graph.input, *own.graph.output, *own.graph.initializer):
                value.name = new if value.name == old else value.name
        model = fuse(a, b, head_file=saved(own, tmp_path)).proto
        logits, *pooled = run(model, image, "logits", "head/a/pooled", "head/b/pooled")
        weights = arrays(head_model())
        expected = sum(x @ weights[f"w{i}"] for i, x in enumerate(pooled))
        np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-5)

    def test_bodies_of_control_flow_read_its_weights_and_inputs(
        self, a: Network, b: Network, image: np.ndarray, tmp_path: Path
    ) -> None:
        own = head_model()
        body = [
            helper.make_graph(
                [helper.make_node("MatMul", ["x1", "w1"], ["inner"], name="inner")],
                "then",
                [],
                [helper.make_tensor_value_info("inner", TensorProto.FLOAT, None)],
            )
            for _ in range(2)
        ]
        own.graph.initializer.append(numpy_helper.from_array(np.array(True), "yes"))
        own.graph.node[1].CopyFrom(
            helper.make_node("If", ["yes"], ["t1"], name="if", then_branch=body[0], else_branch=body[1])
        )
        model = fuse(a, b, head_file=saved(own, tmp_path)).proto
        logits, *pooled = run(model, image, "logits", "head/a/pooled", "head/b/pooled")
        expected = sum(x @ arrays(own)[f"w{i}"] for i, x in enumerate(pooled))
        np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-5)

    def test_the_file_names_it(self, a: Network, b: Network, tmp_path: Path) -> None:
        fused = fuse(a, b, head_file=saved(head_model(), tmp_path))
        record = fused.metadata.head
        assert record is not None
        assert (record.kind, record.file, record.hidden) == ("file", "head.onnx", None)
        assert len(record.sha256 or "") == 64
        assert str(record) == "head.onnx over penultimate features"

    @pytest.mark.parametrize(
        ("own", "options", "message"),
        [
            (
                head_model([9, 32]),
                {},
                "its input 'x0' is float [N, 9]; expected float [N, 8], the features of branch a.",
            ),
            (head_model([32, 8]), {}, "its input 'x0' is float [N, 32]; expected float [N, 8]"),
            (head_model([8, 32]), {"features": "logits"}, "expected float [N, 4], the features of branch a."),
            (head_model([12]), {}, "expected float [N, 40], the features of all branches together."),
            (
                head_model([8, 8, 24]),
                {},
                "its inputs are 'x0', 'x1', 'x2'; expected [N, 8] of branch a, [N, 32] of branch b, or one "
                "[N, 40] for all together.",
            ),
            (head_model(), {"classes": 5}, "its output 'y' is [N, 3]; expected [N, 5]: one score for each"),
            (head_model(), {"labels": ["x", "y"]}, "its output 'y' is [N, 3]; expected [N, 2]"),
            (head_model(element=TensorProto.DOUBLE), {}, "its input 'x0' is double [N, 8]; expected float"),
            (head_model(end="Softmax"), {}, "its output 'y' comes from Softmax node 'end'; training needs"),
        ],
    )
    def test_a_head_that_does_not_fit_is_refused_in_one_sentence(
        self,
        a: Network,
        b: Network,
        tmp_path: Path,
        own: onnx.ModelProto,
        options: dict[str, Any],
        message: str,
    ) -> None:
        with pytest.raises(ModelError) as caught:
            fuse(a, b, head_file=saved(own, tmp_path), **options)
        assert message in caught.value.message
        assert "cannot use head '" in caught.value.message

    def test_a_batch_that_is_baked_in_is_refused(self, a: Network, b: Network, tmp_path: Path) -> None:
        own = head_model(batch=1)
        own.graph.initializer.append(numpy_helper.from_array(np.array([1, 3], np.int64), "shape"))
        own.graph.node[-1].output[0] = "total"
        own.graph.node.append(helper.make_node("Reshape", ["total", "shape"], ["y"]))
        with pytest.raises(ModelError, match=r"its output 'y' is \[1, 3\]; expected \[N, 3\]"):
            fuse(a, b, head_file=saved(own, tmp_path))

    def test_open_shapes_are_taken_as_they_must_be(self, a: Network, b: Network, tmp_path: Path) -> None:
        own = head_model()
        own.graph.input[1].type.tensor_type.shape.dim[1].dim_param = "C"
        own.graph.output[0].type.tensor_type.shape.dim[1].dim_param = "classes"
        assert fuse(a, b, classes=3, head_file=saved(own, tmp_path)).view.shapes["logits"] == (None, 3)

    def test_a_head_that_is_not_valid_is_refused(self, a: Network, b: Network, tmp_path: Path) -> None:
        own = head_model()
        own.graph.node[0].input[1] = "nobody"
        with pytest.raises(ModelError, match=r"cannot read '.*head.onnx': its node 't0' .* reads 'nobody'"):
            fuse(a, b, head_file=saved(own, tmp_path))

    def test_several_outputs_and_unknown_operators_are_refused(
        self, a: Network, b: Network, tmp_path: Path
    ) -> None:
        own = head_model()
        own.graph.output.append(helper.make_tensor_value_info("t0", TensorProto.FLOAT, ["N", 3]))
        with pytest.raises(ModelError, match=r"it has 2 outputs \(y, t0\); expected one, \[N, classes\]\."):
            fuse(a, b, head_file=saved(own, tmp_path))
        own = head_model()
        own.graph.node[0].op_type = "Guess"
        with pytest.raises(
            UnsupportedOpError, match=r"cannot use head '.*head\.onnx': node 't0' is operator"
        ):
            fuse(a, b, head_file=saved(own, tmp_path))

    def test_a_file_that_is_no_network_is_refused(self, a: Network, tmp_path: Path) -> None:
        (tmp_path / "head.onnx").write_text("no network")
        with pytest.raises(ModelError, match="it is not an ONNX file, or it is truncated"):
            fuse(a, head_file=tmp_path / "head.onnx")


@pytest.mark.shared
@pytest.mark.parametrize("features", ["penultimate", "logits"])
def test_real_networks_are_joined_by_attention(shared_models: Path, features: FeatureKind) -> None:
    a = load(shared_models / "squeezenet1.1_caffe2_opset7.onnx")
    b = load(shared_models / "mobilenet_v2_1.0_tflite_tf2onnx_opset13.onnx")
    fused = fuse(a, b, classes=8, heads="attention", features=features)
    assert [note.split(" ", 2)[0] for note in fused.notes[2:]] == ["branch", "branch"]
