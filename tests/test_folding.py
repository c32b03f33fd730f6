"""Lighter networks that compute the same."""

from __future__ import annotations

from collections import Counter

import numpy as np
import onnx
import onnx.parser
import pytest
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from graftonnx.folding import Folded, fold_operators
from graftonnx.runtime import open_session

TOLERANCE = {"rtol": 1e-5, "atol": 1e-5}
"""Activations are of order one; folding rounds each weight once, and reorders sums of about 100 terms."""


def build(body: str, **weights: NDArray[np.generic]) -> onnx.ModelProto:
    """Build `g(x [N, 4, 6, 6]) -> y` from ONNX text and NumPy weights."""
    model = onnx.parser.parse_model(
        f'<ir_version: 10, opset_import: ["": 20]> g (float[N, 4, 6, 6] x) => (float y) {{ {body} }}'
    )
    model.graph.output[0].type.tensor_type.ClearField("shape")
    model.graph.initializer.extend(numpy_helper.from_array(w, name) for name, w in weights.items())
    return model


def random(*shape: int, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def operators(model: onnx.ModelProto) -> list[str]:
    return [node.op_type for node in model.graph.node]


def check_same(before: onnx.ModelProto, after: onnx.ModelProto) -> None:
    """Both run without ONNX Runtime's own optimisations, on two images."""
    onnx.checker.check_model(after, full_check=True)
    x = random(2, 4, 6, 6, seed=9)
    (expected,) = open_session(before, provider="cpu", optimise=False).run(x)
    (found,) = open_session(after, provider="cpu", optimise=False).run(x)
    np.testing.assert_allclose(found, expected, **TOLERANCE)
    assert [o.name for o in after.graph.output] == [o.name for o in before.graph.output]


NORM = {
    "gamma": np.float32([1, 0.5, -2]),
    "beta": np.float32([0, 3, 1]),
    "mean": np.float32([0.1, -1, 2]),
    "var": np.float32([1, 0.01, 5]),
}
BATCH_NORM = "BatchNormalization (c, gamma, beta, mean, var)"


class TestBehindAConv:
    @pytest.mark.parametrize(
        ("conv", "bias"),
        [
            ("Conv <pads = [1, 1, 1, 1]> (x, w)", {}),
            ("Conv <strides = [2, 2]> (x, w, b)", {"b": random(3)}),
            ('Conv <auto_pad = "SAME_UPPER"> (x, w, b)', {"b": random(3)}),
        ],
    )
    def test_a_batch_normalisation_goes_into_the_conv(
        self, conv: str, bias: dict[str, NDArray[np.float32]]
    ) -> None:
        model = build(f"c = {conv} n = {BATCH_NORM} y = Relu(n)", w=random(3, 4, 3, 3), **bias, **NORM)
        folded, report = fold_operators(model)
        assert operators(folded) == ["Conv", "Relu"]
        assert report == Folded(scales=1)
        assert {t.name for t in folded.graph.initializer} >= {"w"}
        assert len(folded.graph.initializer) == 2
        check_same(model, folded)

    def test_a_bias_of_another_shape_is_left_to_whoever_runs_it(self) -> None:
        model = build(f"c = Conv(x, w, w) y = {BATCH_NORM}", w=random(3, 4, 3, 3), **NORM)
        folded, report = fold_operators(model)
        assert operators(folded) == ["Conv", "BatchNormalization"]
        assert report == Folded()

    def test_the_new_weights_are_the_float64_result_rounded_once(self) -> None:
        w = random(3, 4, 3, 3)
        model = build(f"c = Conv(x, w) y = {BATCH_NORM}", w=w, **NORM)
        folded, _ = fold_operators(model)
        scale = NORM["gamma"] / np.sqrt(NORM["var"].astype(np.float64) + np.float64(np.float32(1e-5)))
        expected = (w.astype(np.float64) * scale.reshape(-1, 1, 1, 1)).astype(np.float32)
        found = {t.name: numpy_helper.to_array(t) for t in folded.graph.initializer}
        np.testing.assert_array_equal(found["w"], expected)

    def test_a_chain_of_constants_goes_into_a_grouped_conv(self) -> None:
        model = build(
            "c = Conv <group = 2> (x, w) m = Mul(s, c) d = Div(m, two) a = Add(d, t) z = Sub(one, a)"
            " y = Relu(z)",
            w=random(6, 2, 3, 3),
            s=random(6, 1, 1),
            two=np.float32(2),
            t=random(1, 6, 1, 1),
            one=np.float32([1]),
        )
        folded, report = fold_operators(model)
        assert operators(folded) == ["Conv", "Relu"]
        assert report.scales == 4
        check_same(model, folded)

    @pytest.mark.parametrize(
        "body",
        [
            f"c = Conv(x, w) n = {BATCH_NORM} y = Add(n, c)",
            "c = Conv(x, w) n, a, b = BatchNormalization <training_mode = 1> (c, gamma, beta, mean, var)"
            " y = Relu(n)",
            "c = Conv(x, w) r = Relu(c) y = BatchNormalization (r, gamma, beta, mean, var)",
            "c = Conv(x, w) y = Mul(c, spatial)",
            "c = Conv(x, w) y = Mul(c, c)",
            "c = Conv(x, w) y = Div(one, c)",
        ],
        ids=["shared", "training", "apart", "spatial", "square", "reciprocal"],
    )
    def test_what_does_not_fit_exactly_stays(self, body: str) -> None:
        model = build(body, w=random(3, 4, 3, 3), spatial=random(1, 1, 4, 4), one=np.float32(1), **NORM)
        folded, report = fold_operators(model)
        assert operators(folded) == operators(model)
        assert report == Folded()

    def test_a_result_beyond_float32_stays(self) -> None:
        large = dict(NORM, gamma=np.float32([1e30, 1, 1]), var=np.float32([0, 1, 1]))
        model = build(f"c = Conv(x, w) y = {BATCH_NORM}", w=random(3, 4, 3, 3) * np.float32(1e7), **large)
        assert operators(fold_operators(model)[0]) == ["Conv", "BatchNormalization"]

    def test_two_convs_with_one_weight_each_get_their_own(self) -> None:
        model = build(
            "c = Conv(x, w) n = BatchNormalization (c, gamma, beta, mean, var) d = Conv(x, w) y = Add(n, d)",
            w=random(3, 4, 3, 3),
            **NORM,
        )
        folded, _ = fold_operators(model)
        assert operators(folded) == ["Conv", "Conv", "Add"]
        assert {t.name for t in folded.graph.initializer} == {"w", "w/folded", "w/bias"}
        check_same(model, folded)


class TestInFrontOfAConv:
    def test_preprocessing_goes_into_a_conv_that_does_not_pad(self) -> None:
        model = build(
            "g = Gather <axis = 1> (x, order) a = Mul(g, scale) b = Sub(a, mean) c = Div(b, std)"
            " d = Conv(c, w, bias) y = Relu(d)",
            w=random(3, 4, 3, 3),
            bias=random(3),
            order=np.int64([2, 1, 0, 3]),
            scale=np.float32(255),
            mean=np.float32([104, 117, 123, 90]).reshape(1, 4, 1, 1),
            std=np.float32([58, 57, 59, 60]).reshape(4, 1, 1),
        )
        folded, report = fold_operators(model)
        assert operators(folded) == ["Conv", "Relu"]
        assert report == Folded(preprocessing=4)
        check_same(model, folded)

    def test_a_shift_stays_in_front_of_padding_and_a_scale_does_not(self) -> None:
        """Padding adds zeros after the shift; folded, it would add them before."""
        model = build(
            "a = Sub(x, mean) b = Div(a, std) y = Conv <pads = [1, 1, 1, 1]> (b, w)",
            w=random(3, 4, 3, 3),
            mean=random(1, 4, 1, 1),
            std=np.float32([2]),
        )
        folded, report = fold_operators(model)
        assert operators(folded) == ["Sub", "Conv"]
        assert report.preprocessing == 1
        check_same(model, folded)

    def test_a_scale_leaves_its_shift_behind_for_a_conv_that_pads(self) -> None:
        """X * s + t becomes (x + t / s) * s, and Gather goes along."""
        model = build(
            "g = Gather <axis = 1> (x, order) a = Mul(g, s) b = Add(a, t)"
            " y = Conv <pads = [1, 1, 1, 1]> (b, w)",
            w=random(3, 4, 3, 3),
            order=np.int64([2, 0, 3, 1]),
            s=np.float32([2, -0.5, 3, 5]).reshape(1, 4, 1, 1),
            t=random(1, 4, 1, 1, seed=2),
        )
        folded, report = fold_operators(model)
        assert operators(folded) == ["Add", "Conv"]
        assert report.preprocessing == 2
        check_same(model, folded)

    def test_a_scale_of_zero_stays_where_it_is(self) -> None:
        model = build(
            "a = Mul(x, s) b = Add(a, t) y = Conv <pads = [1, 1, 1, 1]> (b, w)",
            w=random(3, 4, 3, 3),
            s=np.float32([2, 0, 3, 1]).reshape(1, 4, 1, 1),
            t=random(1, 4, 1, 1),
        )
        folded, _ = fold_operators(model)
        assert operators(folded) == ["Mul", "Add", "Conv"]
        check_same(model, folded)

    def test_each_group_gets_the_scale_of_its_own_channels(self) -> None:
        model = build(
            "a = Mul(x, s) b = Add(a, t) y = Conv <group = 2> (b, w)",
            w=random(6, 2, 3, 3),
            s=random(1, 4, 1, 1, seed=1),
            t=random(1, 4, 1, 1, seed=2),
        )
        folded, _ = fold_operators(model)
        assert operators(folded) == ["Conv"]
        check_same(model, folded)

    def test_one_channel_that_a_constant_spreads_over_three_stays(self) -> None:
        model = build(
            "g = ReduceMean(x, axes) a = Mul(g, s) y = Conv(a, w)",
            w=random(3, 4, 3, 3),
            axes=np.int64([1]),
            s=random(1, 4, 1, 1),
        )
        folded, _ = fold_operators(model)
        assert operators(folded) == ["ReduceMean", "Mul", "Conv"]
        check_same(model, folded)

    def test_what_another_node_reads_stays(self) -> None:
        model = build("a = Mul(x, s) c = Conv(a, w) y = Add(c, a)", w=random(4, 4, 1, 1), s=np.float32([3]))
        assert operators(fold_operators(model)[0]) == ["Mul", "Conv", "Add"]


class TestProjections:
    POOL = "AveragePool <kernel_shape = [2, 2], pads = [1, 1, 0, 0]"

    def test_a_pool_goes_behind_a_projection_to_fewer_channels(self) -> None:
        model = build(
            f"p = {self.POOL}> (x) c = Conv(p, w, b) y = Relu(c)", w=random(2, 4, 1, 1), b=random(2)
        )
        folded, report = fold_operators(model)
        assert operators(folded) == ["Conv", "AveragePool", "Relu"]
        assert report == Folded(pools=1)
        check_same(model, folded)

    @pytest.mark.parametrize(
        ("pool", "weight"),
        [
            ("> (x)", random(4, 4, 1, 1)),
            ("> (x)", random(2, 4, 3, 3)),
            (", strides = [2, 2]> (x)", random(2, 4, 1, 1)),
            (", count_include_pad = 1> (x)", random(2, 4, 1, 1)),
        ],
        ids=["as many channels", "a window", "strides", "padding that counts"],
    )
    def test_a_pool_stays_where_the_conv_would_work_more_or_give_something_else(
        self, pool: str, weight: NDArray[np.float32]
    ) -> None:
        model = build(f"p = {self.POOL}{pool} y = Conv(p, w, b)", w=weight, b=random(len(weight)))
        assert operators(fold_operators(model)[0]) == ["AveragePool", "Conv"]

    @pytest.mark.parametrize(
        ("window", "bias"),
        [("", True), ("<strides = [2, 2]>", True), ("<pads = [1, 1, 1, 1]>", False)],
    )
    def test_a_projection_goes_into_the_conv_behind_it(self, window: str, bias: bool) -> None:
        first = "Conv(x, w, b)" if bias else "Conv(x, w)"
        model = build(
            f"c = {first} y = Conv {window} (c, v, d)",
            w=random(4, 4, 1, 1),
            b=random(4),
            v=random(3, 4, 3, 3, seed=1),
            d=random(3, seed=2),
        )
        folded, report = fold_operators(model)
        assert operators(folded) == ["Conv"]
        assert report == Folded(products=1)
        check_same(model, folded)

    @pytest.mark.parametrize(
        ("body", "middle"),
        [
            ("c = Conv(x, w, b) y = Conv <pads = [1, 1, 1, 1]> (c, v)", 4),
            ("c = Conv(x, w) r = Relu(c) y = Conv(r, v)", 4),
            ("c = Conv(x, w) d = Conv(c, v) e = GlobalAveragePool(c) y = Add(d, e)", 4),
            ("c = Conv(x, w) y = Conv(c, v)", 1),
        ],
        ids=["padding behind a bias", "an activation", "another reader", "a bottleneck"],
    )
    def test_a_projection_stays_where_the_product_is_another_or_costs_more(
        self, body: str, middle: int
    ) -> None:
        model = build(body, w=random(middle, 4, 1, 1), b=random(middle), v=random(4, middle, 3, 3, seed=1))
        assert operators(fold_operators(model)[0]) == operators(model)


class TestDropped:
    def test_identities_and_dropouts_go_and_the_output_keeps_its_name(self) -> None:
        model = build(
            "a = Identity(x) b = Identity(a) r = Relu(b) d = Dropout(r, ratio) e = Dropout(d, ratio, off)"
            " y = Identity(e)",
            ratio=np.float32(0.5),
            off=np.bool_(False),
        )
        folded, report = fold_operators(model)
        assert operators(folded) == ["Relu"]
        assert list(folded.graph.node[0].output) == ["y"]
        assert not folded.graph.initializer
        assert report == Folded(identities=5)
        check_same(model, folded)

    def test_an_output_that_is_the_input_or_another_output_keeps_its_node(self) -> None:
        model = onnx.parser.parse_model(
            """<ir_version: 10, opset_import: ["": 20]>
            g (float[N] x) => (float[N] p, float[N] q, float[N] r)
            { p = Identity(x)  n = Neg(x)  q = Identity(n)  r = Identity(n) }"""
        )
        folded, _ = fold_operators(model)
        assert operators(folded) == ["Identity", "Neg", "Identity"]
        x = np.float32([1, -2])
        p, q, r = open_session(folded, provider="cpu").run(x)
        np.testing.assert_array_equal([p, q, r], [x, -x, -x])

    @pytest.mark.parametrize(
        "dropout", ["d = Dropout(x, ratio, on)", "d, mask = Dropout(x, ratio) m = Cast <to = 1> (mask)"]
    )
    def test_a_dropout_that_does_more_stays(self, dropout: str) -> None:
        use = "y = Add(d, m)" if "mask" in dropout else "y = Relu(d)"
        model = build(f"{dropout} {use}", ratio=np.float32(0.5), on=np.bool_(True))
        assert "Dropout" in operators(fold_operators(model)[0])

    def test_constant_parts_are_computed_once(self) -> None:
        model = build(
            "k = Constant <value = float {2.0}> () m = Mul(w, k) t = Transpose <perm = [1, 0, 2, 3]> (m)"
            " y = Conv(x, t)",
            w=random(4, 3, 3, 3),
        )
        folded, report = fold_operators(model)
        assert operators(folded) == ["Conv"]
        assert report.constants == 2
        check_same(model, folded)


ZERO = {"w": random(4, 4, 3, 3), "p": np.zeros((4, 4, 1, 1), np.float32), "z": np.zeros(4, np.float32)}
SAME = "c = Conv <pads = [1, 1, 1, 1]> (x, w) a = Relu(c)"


class TestZeroSkips:
    def test_each_of_several_zero_skips_into_one_place_counts_and_goes(self) -> None:
        skips = "s = Conv(x, p) r = Conv(x, p, z)"
        alone = build(f"{SAME} {skips} t = Sum(a, s, r) y = Relu(t)", **ZERO)
        folded, report = fold_operators(alone)
        assert report.skips == 2
        assert operators(folded) == ["Conv", "Relu", "Relu"]
        check_same(alone, folded)

    def test_a_sum_keeps_what_is_not_zero(self) -> None:
        model = build(f"{SAME} s = Conv(x, p) t = Sum(a, s, c) y = Relu(t)", **ZERO)
        folded, report = fold_operators(model)
        assert report.skips == 1
        assert "Sum" in operators(folded) or "Add" in operators(folded)
        assert operators(folded).count("Conv") == 1
        check_same(model, folded)

    @pytest.mark.parametrize(
        "skip",
        [
            "s = Conv(x, p) t = Add(a, s)",
            "s = Conv(x, p, z) t = Add(s, a)",
            "q = Conv(x, p) s = Relu(q) t = Add(a, s)",
            "s = Mul(x, nought) t = Add(a, s)",
        ],
    )
    def test_a_skip_that_stayed_zero_disappears(self, skip: str) -> None:
        model = build(f"{SAME} {skip} y = Neg(t)", nought=np.float32(0), **ZERO)
        folded, report = fold_operators(model)
        assert operators(folded) == ["Conv", "Relu", "Neg"]
        assert [t.name for t in folded.graph.initializer] == ["w"]
        assert report.skips == 1
        check_same(model, folded)

    def test_an_exchange_of_two_zero_skips_disappears(self) -> None:
        """Both sums read the original values."""
        model = build(
            f"{SAME} b = Neg(x) s = Conv(b, p) t = Conv(a, p) a2 = Add(a, s) b2 = Add(b, t) y = Sub(a2, b2)",
            **ZERO,
        )
        folded, _ = fold_operators(model)
        assert Counter(operators(folded)) == Counter(["Conv", "Relu", "Neg", "Sub"])
        check_same(model, folded)

    @pytest.mark.parametrize(
        ("skip", "change"),
        [
            ("s = Conv(x, p)", {"p": np.eye(4, dtype=np.float32).reshape(4, 4, 1, 1) * 1e-30}),
            ("s = Conv(x, p, z)", {"z": np.float32([0, 0, 0, 1])}),
        ],
    )
    def test_a_skip_that_learned_anything_stays(
        self, skip: str, change: dict[str, NDArray[np.float32]]
    ) -> None:
        model = build(f"{SAME} {skip} y = Add(a, s)", **{**ZERO, **change})
        assert operators(fold_operators(model)[0]) == ["Conv", "Relu", "Conv", "Add"]

    def test_a_zero_that_broadcasts_the_other_side_stays(self) -> None:
        model = build("m = ReduceMean(x, axes) s = Conv(x, p) y = Add(m, s)", axes=np.int64([2, 3]), **ZERO)
        folded, _ = fold_operators(model)
        assert operators(folded) == ["ReduceMean", "Conv", "Add"]
        check_same(model, folded)


def test_a_model_with_nothing_to_fold_keeps_its_nodes_and_stays_as_it_is() -> None:
    model = build("c = Conv(x, w) y = Relu(c)", w=random(3, 4, 3, 3))
    before = model.SerializeToString(deterministic=True)
    folded, report = fold_operators(model)
    assert list(folded.graph.node) == list(model.graph.node)
    assert report == Folded()
    assert model.SerializeToString(deterministic=True) == before


def test_names_with_every_character_and_a_subgraph_survive() -> None:
    """A branch inside an If reads values of the graph around it by name."""
    inner = helper.make_graph(
        [helper.make_node("Neg", ["a/x:0;0 _"], ["inner"])],
        "then",
        [],
        [helper.make_tensor_value_info("inner", onnx.TensorProto.FLOAT, None)],
    )
    other = helper.make_graph(
        [helper.make_node("Abs", ["a/x:0;0 _"], ["inner2"])],
        "else",
        [],
        [helper.make_tensor_value_info("inner2", onnx.TensorProto.FLOAT, None)],
    )
    graph = helper.make_graph(
        [
            helper.make_node("Identity", ["x"], ["a/x:0;0 _"]),
            helper.make_node("If", ["on"], ["y"], then_branch=inner, else_branch=other),
        ],
        "g",
        [
            helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["N", 4, 6, 6]),
            helper.make_tensor_value_info("on", onnx.TensorProto.BOOL, []),
        ],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, None)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    folded, _ = fold_operators(model)
    assert operators(folded) == ["If"]
    x = random(1, 4, 6, 6)
    (y,) = open_session(folded, provider="cpu").run(x, np.array(True))
    np.testing.assert_array_equal(y, -x)


WIDE = {
    "u": random(16, 4, 1, 1, seed=1),
    "v": random(32, 4, 1, 1, seed=2),
    "w": random(8, 48, 1, 1, seed=3) / 4,
    "b": random(8, seed=4),
}
PARTS = "p = Conv(x, u) q = Conv(x, v) c = Relu(p) d = Relu(q) k = Concat <axis = 1> (c, d)"


class TestConcats:
    def test_a_pointwise_conv_takes_each_part_of_a_concat_by_itself(self) -> None:
        model = build(f"{PARTS} s = Conv(k, w, b) y = Relu(s)", **WIDE)
        folded, report = fold_operators(model)
        assert Counter(operators(folded)) == Counter(Conv=4, Relu=3, Add=1)
        assert report == Folded(concats=1)
        check_same(model, folded)

    def test_so_it_does_through_a_max_pool(self) -> None:
        pool = "m = MaxPool <kernel_shape = [3, 3], strides = [2, 2], ceil_mode = 1> (k)"
        model = build(f"{PARTS} {pool} s = Conv(m, w, b) y = Relu(s)", **WIDE)
        folded, report = fold_operators(model)
        assert Counter(operators(folded)) == Counter(Conv=4, Relu=3, MaxPool=2, Add=1)
        assert report == Folded(concats=1)
        check_same(model, folded)

    def test_two_readers_and_three_parts_are_split_as_well(self) -> None:
        both = "s = Conv(k, w, b) t = Conv(k, w2) y = Mul(s, t)"
        three = "p = Conv(x, u) q = Conv(x, v) r = Relu(p) k = Concat <axis = 1> (p, q, r)"
        weights = {**WIDE, "w": random(8, 64, 1, 1) / 4, "w2": random(8, 64, 1, 1, seed=5) / 4}
        model = build(f"{three} {both}", **weights)
        folded, report = fold_operators(model)
        assert Counter(operators(folded)) == Counter(Conv=8, Relu=1, Add=4, Mul=1)
        assert report == Folded(concats=1)
        check_same(model, folded)

    @pytest.mark.parametrize(
        ("body", "change"),
        [
            ("s = Conv(k, w, b) y = Relu(s)", {"w": random(48, 48, 1, 1), "b": random(48)}),
            ("s = Conv <pads = [1, 1, 1, 1]> (k, w, b) y = Relu(s)", {"w": random(8, 48, 3, 3)}),
            ("s = Conv <group = 2> (k, w, b) y = Relu(s)", {"w": random(8, 24, 1, 1)}),
            ("s = Conv(k, w, b) t = ReduceMean(k, a) y = Add(s, t)", {"a": np.int64([1, 2, 3])}),
            ("m = MaxPool <kernel_shape = [2, 2]> (k) s = Conv(m, w, b) e = ReduceMax(m) y = Add(s, e)", {}),
        ],
        ids=["more sums than parts", "a window", "groups", "another reader", "another reader of the pool"],
    )
    def test_a_concat_that_would_not_get_cheaper_stays(
        self, body: str, change: dict[str, NDArray[np.generic]]
    ) -> None:
        model = build(f"{PARTS} {body}", **{**WIDE, **change})
        assert "Concat" in operators(fold_operators(model)[0])

    def test_parts_that_fill_no_whole_block_stay_together(self) -> None:
        weights = {**WIDE, "u": random(12, 4, 1, 1), "w": random(8, 44, 1, 1)}
        model = build(f"{PARTS} s = Conv(k, w, b) y = Relu(s)", **weights)
        assert "Concat" in operators(fold_operators(model)[0])

    def test_all_stay_where_they_are_not_to_be_split(self) -> None:
        model = build(f"{PARTS} s = Conv(k, w, b) y = Relu(s)", **WIDE)
        folded, report = fold_operators(model, split_concats=False)
        assert list(folded.graph.node) == list(model.graph.node)
        assert report == Folded()

    def test_names_that_are_taken_are_not_given_twice(self) -> None:
        model = build(f"{PARTS} s = Conv(k, w, b) y = Relu(s)", **WIDE)
        for node, name in zip(
            model.graph.node, ("s/of/d/sum", "s/of/c", "c_", "d_", "k_", "s", "y"), strict=True
        ):
            node.name = name
        folded, _ = fold_operators(model)
        names = [node.name for node in folded.graph.node]
        assert len(set(names)) == len(names)
        check_same(model, folded)


NARROW = {"p": random(12, 4, 1, 1), "v": random(3, 12, 1, 1, seed=2), "w": random(12, 4, 1, 1, seed=3)}
SUM = "a = Conv(x, w) c = Relu(a) z = Neg(x)"


class TestProjectionsIntoSums:
    """`relu(x) + P z -> V`: the projection becomes V P, as narrow as V."""

    @pytest.mark.parametrize("order", ["c, s", "s, c"])
    def test_a_projection_goes_into_the_conv_behind_the_sum(self, order: str) -> None:
        model = build(
            f"{SUM} s = Conv(z, p) t = Add({order}) v1 = Conv(t, v, b) y = Relu(v1)",
            b=random(3),
            **NARROW,
        )
        folded, report = fold_operators(model)
        assert report == Folded(products=1, sums=1)
        assert sorted(list(t.dims) for t in folded.graph.initializer if len(t.dims) == 4) == [
            [3, 4, 1, 1],
            [3, 12, 1, 1],
            [12, 4, 1, 1],
        ]
        check_same(model, folded)

    def test_so_it_does_with_a_bias_and_a_pool_behind_it(self) -> None:
        pool = "AveragePool <kernel_shape = [3, 3], pads = [1, 1, 1, 1]>"
        model = build(
            f"{SUM} s = Conv(z, p, b) q = {pool} (s) t = Add(c, q) y = Conv(t, v)",
            b=random(12),
            **NARROW,
        )
        folded, report = fold_operators(model)
        assert report == Folded(pools=1, products=1, sums=1)
        check_same(model, folded)

    @pytest.mark.parametrize(
        "body",
        [
            "s = Conv(z, p) t = Add(c, s) y0 = Conv(t, v) m = ReduceMean(t, ax) y = Add(y0, m)",
            "s = Conv(z, p) t = Add(c, s) y = Conv(t, wide)",
            "s = Conv(z, p) r = Relu(s) t = Add(c, r) y = Conv(t, v)",
            "s = Conv(z, p) m = ReduceMean(s, ax) t = Add(c, m) y = Conv(t, v)",
            "s = Conv(z, p) t = Add(c, s) y0 = Conv(t, v) e = ReduceMean(s, ax) y = Add(y0, e)",
        ],
        ids=[
            "the sum has other readers",
            "V is wide",
            "a Relu",
            "a sum that broadcasts",
            "P has other readers",
        ],
    )
    def test_a_sum_that_would_not_get_cheaper_stays(self, body: str) -> None:
        model = build(f"{SUM} {body}", ax=np.int64([1, 2, 3]), wide=random(20, 12, 1, 1), **NARROW)
        folded, report = fold_operators(model)
        assert report.sums == 0
        check_same(model, folded)
