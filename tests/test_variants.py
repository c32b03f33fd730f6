"""Branches and concatenations cut out of a fused file are what `fuse` makes without exchanges."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_graphsurgeon as gs
import pytest
from builders import Builder, plain_cnn, residual_cnn, token_net
from onnx import TensorProto, helper, numpy_helper

from graftonnx import heads
from graftonnx.costs import parameters
from graftonnx.errors import ModelError
from graftonnx.exporting import export
from graftonnx.fusion import fuse
from graftonnx.hooks import Hook
from graftonnx.matching import match
from graftonnx.metadata import HeadKind, Metadata, read_metadata, write_metadata
from graftonnx.model import from_proto, load, save
from graftonnx.network import Network
from graftonnx.plan import Plan, Projection, Skip
from graftonnx.runtime import open_session, with_outputs
from graftonnx.variants import read_fused, variant

HEADS: tuple[HeadKind, ...] = ("concat", "sum", "attention")


@pytest.fixture
def a() -> Network:
    return from_proto(residual_cnn(depth=2), "a.onnx")


@pytest.fixture
def b() -> Network:
    return from_proto(plain_cnn((8, 16, 32), seed=1), "b.onnx")


def reread(fused: Network, folder: Path) -> Network:
    save(fused, folder / "fused.onnx", force=True)
    return read_fused(folder / "fused.onnx")


def content(model: onnx.ModelProto, letter: str = "") -> tuple[list[Any], dict[str, bytes]]:
    """Return nodes and weights; branch `letter` is called a."""

    def renamed(name: str) -> str:
        return "/".join("a" if part == letter else part for part in name.split("/"))

    nodes = [
        (
            node.op_type,
            *map(renamed, (*node.input, *node.output)),
            Counter(a.SerializeToString() for a in node.attribute),
        )
        for node in model.graph.node
    ]
    weights = {renamed(t.name): numpy_helper.to_array(t).tobytes() for t in model.graph.initializer}
    return nodes, weights


@pytest.mark.parametrize(
    "options",
    [
        *({"heads": kind} for kind in HEADS),
        {"features": "logits"},
        {"hidden": 0},
        {"dropout": 0.0, "hidden": 5},
        {"skip_init": "paper"},
    ],
    ids=str,
)
class TestAFreshFile:
    def test_a_branch_alone_is_its_parent_alone_bit_for_bit(
        self, a: Network, b: Network, tmp_path: Path, options: dict[str, Any]
    ) -> None:
        fused = reread(fuse(a, b, classes=5, **options), tmp_path)
        alone = {key: value for key, value in options.items() if key != "skip_init"}
        for letter, parent in (("a", a), ("b", b)):
            cut = variant(fused, letter, exchanges=False, seed=3).proto
            assert content(cut, letter) == content(fuse(parent, classes=5, seed=3, **alone).proto)

    def test_without_exchanges_it_is_the_concatenation_bit_for_bit(
        self, a: Network, b: Network, tmp_path: Path, options: dict[str, Any]
    ) -> None:
        fused = reread(fuse(a, b, classes=5, **options), tmp_path)
        joined = fuse(a, b, classes=5, seed=3, max_skips=0, **options)
        assert content(variant(fused, "ab", exchanges=False, seed=3).proto) == content(joined.proto)

    def test_with_all_of_it_it_is_the_fused_network_of_that_seed(
        self, a: Network, b: Network, tmp_path: Path, options: dict[str, Any]
    ) -> None:
        nodes, weights = content(fuse(a, b, classes=5, seed=3, **options).proto)
        fused = reread(fuse(a, b, classes=5, seed=3, **options), tmp_path)
        found, kept = content(variant(fused, "ab", exchanges=True, seed=3).proto)
        assert sorted(map(str, found)) == sorted(map(str, nodes))
        assert kept == weights


def test_three_branches_of_other_shapes_and_tokens(a: Network, b: Network, tmp_path: Path) -> None:
    c = from_proto(token_net(), "c.onnx")
    fused = reread(fuse(a, b, c, classes=5, labels=list("vwxyz")), tmp_path)
    for letter, parent in (("a", a), ("b", b), ("c", c)):
        cut = variant(fused, letter, exchanges=False, seed=0)
        assert content(cut.proto, letter) == content(fuse(parent, classes=5).proto)
        assert [p.branch for p in cut.metadata.parents] == [letter]
        assert cut.metadata.labels == tuple("vwxyz")


def test_an_exchange_into_a_feature_goes_on_to_the_head(a: Network, b: Network, tmp_path: Path) -> None:
    skip = Skip(source="a/s1", target="b/r2", projection=Projection(kind="resize"))
    plan = match(a, b, max_skips=0).model_copy(update={"skips": (skip,)})
    fused = reread(fuse(a, b, classes=5, plan=plan), tmp_path)
    kept = variant(fused, "ab", exchanges=True, seed=0)
    assert "skips/0/b/sum" in kept.view.producer["head/b/pool/output"].input
    cut = variant(fused, "b", exchanges=False, seed=0)
    assert content(cut.proto, "b") == content(fuse(b, classes=5).proto)


def test_a_branch_of_another_size_keeps_its_resize(a: Network, tmp_path: Path) -> None:
    small = from_proto(plain_cnn((8, 16), size=8), "small.onnx")
    fused = reread(fuse(a, small, classes=5), tmp_path)
    cut = variant(fused, "b", exchanges=False, seed=0)
    assert cut.input_shape == (3, 16, 16)
    assert "preprocess/b/resize/output" in cut.view.producer


class TestATrainedFile:
    @pytest.fixture
    def trained(self, a: Network, b: Network, tmp_path: Path) -> Network:
        """A fused file in which every weight has moved."""
        model, rng = fuse(a, b, classes=5).proto, np.random.default_rng(0)
        for tensor in model.graph.initializer:
            if tensor.data_type == TensorProto.FLOAT:
                array = numpy_helper.to_array(tensor)
                moved = (array + 0.1 * rng.standard_normal(array.shape)).astype(np.float32)
                tensor.CopyFrom(numpy_helper.from_array(moved, tensor.name))
        (tmp_path / "trained.onnx").write_bytes(model.SerializeToString())
        return read_fused(tmp_path / "trained.onnx")

    def test_branches_and_exchanges_keep_what_they_learnt_and_heads_begin_anew(
        self, trained: Network
    ) -> None:
        _, before = content(trained.proto)
        _, after = content(variant(trained, "ab", exchanges=True, seed=0).proto)
        assert before.keys() == after.keys()
        assert {name for name in before if before[name] != after[name]} == {
            "head/hidden/weight", "head/hidden/bias", "head/logits/weight", "head/logits/bias",
            "head/dropout_ratio", "head/b/norm/weight", "head/b/norm/two", "head/b/norm/epsilon",
        }  # fmt: skip

    def test_without_exchanges_a_feature_is_what_the_branch_alone_computes(self, trained: Network) -> None:
        image = np.random.default_rng(0).random((3, 3, 16, 16), np.float32)
        for parent in trained.metadata.parents:
            values = [
                computed(variant(trained, letters, exchanges=kept, seed=0), image, parent.feature)
                for letters, kept in ((parent.branch, False), ("ab", False), ("ab", True))
            ]
            assert np.array_equal(values[0], values[1])
            assert not np.array_equal(values[0], values[2])


def computed(network: Network, image: np.ndarray, name: str) -> np.ndarray:
    session = open_session(with_outputs(network.proto, [name]), provider="cpu", threads=1, optimise=False)
    return session.run(image, outputs=[name])[0]


def test_parameters_are_those_of_the_parts(a: Network, b: Network, tmp_path: Path) -> None:
    fused = reread(fuse(a, b, classes=5, hidden=7), tmp_path)

    def count(letters: str, *, exchanges: bool) -> int:
        view = variant(fused, letters, exchanges=exchanges, seed=0).view
        return parameters(view)

    branches = {parent.branch: parent for parent in fused.metadata.parents}
    skips = sum(
        int(np.prod(tensor.dims))
        for name, tensor in fused.view.initializers.items()
        if name.startswith("skips/") and name.endswith("/weight")
    )

    def norm(width: int) -> int:
        return width + 2 if width >= heads.LEAST_NORMALISED else 0  # the gain, 2 and epsilon

    def head(*widths: int) -> int:
        return sum(map(norm, widths)) + 7 * sum(widths) + 7 + 5 * 7 + 5 + 1  # and the dropout's ratio

    preprocessing = 3 + 3
    for letter, parent in branches.items():
        assert count(letter, exchanges=False) == (preprocessing + parent.parameters + head(parent.features))
    widths = [parent.features for parent in branches.values()]
    both = sum(preprocessing + parent.parameters for parent in branches.values()) + head(*widths)
    assert count("ab", exchanges=False) == both
    assert count("ab", exchanges=True) == both + skips


def test_a_file_that_says_nothing_of_a_norm_has_none(a: Network, b: Network, tmp_path: Path) -> None:
    fused = fuse(a, b, classes=5, norm="none")
    entry = next(entry for entry in fused.skeleton.metadata_props if entry.key == "graftonnx.head")
    record = json.loads(entry.value)
    del record["norm"]
    entry.value = json.dumps(record)
    alone = variant(reread(fused, tmp_path), "b", exchanges=False, seed=0)
    assert not any("norm" in node.name for node in alone.view.nodes if node.name.startswith("head/"))
    assert "normalised" not in str(alone.metadata.head)


def test_the_file_says_what_is_left(a: Network, b: Network, tmp_path: Path) -> None:
    whole = fuse(a, b, classes=5)
    for key in ("a/author", "b/author", "licence"):
        whole.skeleton.metadata_props.add(key=key, value=key)
    fused = reread(whole, tmp_path)
    save(variant(fused, "b", exchanges=False, seed=0), tmp_path / "b.onnx")
    model = onnx.load(tmp_path / "b.onnx")
    metadata = read_metadata(model)
    plan = Plan.model_validate_json(metadata.plan or "")
    assert [p.branch for p in metadata.parents] == ["b"] == list(plan.parents)
    assert plan.skips == ()
    assert metadata.head == fused.metadata.head
    others = [p.key for p in model.metadata_props if not p.key.startswith("graftonnx.")]
    assert others == ["b/author", "licence"]


class TestRefuses:
    def refused(self, model: onnx.ModelProto, folder: Path) -> str:
        (folder / "fused.onnx").write_bytes(model.SerializeToString())
        with pytest.raises(ModelError) as raised:
            read_fused(folder / "fused.onnx")
        assert raised.value.message.startswith(f"cannot take '{folder / 'fused.onnx'}' apart: ")
        return raised.value.message.split("apart: ", 1)[1]

    def test_what_was_not_fused(self, a: Network, tmp_path: Path) -> None:
        expected = "it does not say which networks it was fused from. Fuse it with `graftonnx fuse`."
        assert self.refused(plain_cnn(), tmp_path) == expected

    def test_one_parent(self, a: Network, tmp_path: Path) -> None:
        assert self.refused(fuse(a).proto, tmp_path).startswith("it has one branch only")

    def test_no_exchanges(self, a: Network, b: Network, tmp_path: Path) -> None:
        assert self.refused(fuse(a, b, max_skips=0).proto, tmp_path).startswith("it has no exchanges")

    def test_a_head_of_its_user(self, a: Network, b: Network, tmp_path: Path) -> None:
        net = Builder()
        net.node("Gemm", ["x", net.weight("w", 40, 5)], "y")
        graph = helper.make_graph(
            net.nodes,
            "head",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 40])],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 5])],
            net.initializers,
        )
        own = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
        (tmp_path / "own.onnx").write_bytes(own.SerializeToString())
        found = self.refused(fuse(a, b, head_file=tmp_path / "own.onnx").proto, tmp_path)
        assert found == (
            "its head is 'own.onnx', made for all branches together; one branch alone cannot have a head of "
            "that kind. Fuse it with --heads concat, sum or attention."
        )

    def test_what_is_exported(self, a: Network, b: Network, tmp_path: Path) -> None:
        save(fuse(a, b, classes=5), tmp_path / "whole.onnx")
        export(tmp_path / "whole.onnx", tmp_path / "deploy.onnx")
        found = self.refused(onnx.load(tmp_path / "deploy.onnx"), tmp_path)
        assert found.startswith("its output is behind a softmax.")

    @pytest.mark.parametrize(
        ("changes", "sentence"),
        [
            ({"plan": "{}"}, "its metadata 'graftonnx.plan' is damaged"),
            ({"activation": "softmax"}, "its output is behind a softmax"),
        ],
    )
    def test_damaged_metadata(
        self, a: Network, b: Network, tmp_path: Path, changes: dict[str, str], sentence: str
    ) -> None:
        model = fuse(a, b, classes=5).proto
        write_metadata(model, Metadata.model_validate({**dict(read_metadata(model)), **changes}))
        assert self.refused(model, tmp_path).startswith(sentence)

    def hooked(self, hook: Hook, a: Network, b: Network, folder: Path) -> str:
        return self.refused(fuse(a, b, classes=5, hook=hook).proto, folder)

    def test_a_changed_head(self, a: Network, b: Network, tmp_path: Path) -> None:
        def softer(graph: gs.Graph) -> None:
            next(node for node in graph.nodes if node.name == "head/relu").op = "Softplus"

        assert self.hooked(softer, a, b, tmp_path).startswith("a hook has changed its head")

    def test_a_renamed_feature(self, a: Network, b: Network, tmp_path: Path) -> None:
        def renamed(graph: gs.Graph) -> None:
            graph.tensors()["b/r2"].name = "b/changed"

        assert "a hook has removed 'b/r2'" in self.hooked(renamed, a, b, tmp_path)

    def test_a_changed_exchange(self, a: Network, b: Network, tmp_path: Path) -> None:
        def swapped(graph: gs.Graph) -> None:
            node = next(node for node in graph.nodes if node.name == "skips/0/a/add")
            node.inputs = node.inputs[::-1]

        assert "a hook has changed the exchange that adds to" in self.hooked(swapped, a, b, tmp_path)

    def test_branches_that_a_hook_has_joined(self, a: Network, b: Network, tmp_path: Path) -> None:
        def joined(graph: gs.Graph) -> None:
            """Scale the feature of a by the mean of that of b."""
            tensors = graph.tensors()
            feature, other = tensors["a/s1"], tensors["b/r2"]
            mean, scaled = gs.Variable("mine/mean", np.float32), gs.Variable("a/s1", np.float32)
            feature.name = "a/s1/before"
            readers = list(feature.outputs)
            graph.nodes.append(gs.Node("ReduceMean", "mine/mean", {"keepdims": 1}, [other], [mean]))
            graph.nodes.append(gs.Node("Mul", "mine/mul", {}, [feature, mean], [scaled]))
            for reader in readers:
                reader.inputs = [scaled if tensor is feature else tensor for tensor in reader.inputs]

        model = fuse(a, b, classes=5, hook=joined, prove=False).proto
        assert self.refused(model, tmp_path) == (
            "because of a hook, 'a/s1' needs 'mine/mean', which is of no exchange. Fuse without that hook."
        )


@pytest.mark.shared
def test_real_parents_come_out_as_they_went_in(shared_models: Path, tmp_path: Path) -> None:
    names = ("squeezenet1.1_caffe2_opset7.onnx", "mobilenet_v2_1.0_tflite_tf2onnx_opset13.onnx")
    parents = [load(shared_models / name, input_size=(100, 100)) for name in names]
    fused = reread(fuse(*parents, classes=8), tmp_path)
    for letter, parent in zip("ab", parents, strict=True):
        cut = variant(fused, letter, exchanges=False, seed=0).proto
        assert content(cut, letter) == content(fuse(parent, classes=8, prove=False).proto)
