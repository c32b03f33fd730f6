"""Operators whose official cases are few: the module gives the numbers of ONNX Runtime."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
import torch
from conversion.small_models import model
from numpy.typing import NDArray
from onnx import helper

from graftonnx.conversion import to_torch
from graftonnx.errors import UnsupportedOpError
from graftonnx.parity import compare_module
from graftonnx.runtime import open_session

RANDOM = np.random.default_rng(0)
X = RANDOM.standard_normal((2, 3, 17, 13)).astype(np.float32)
CORNERS = RANDOM.uniform(-3, 20, (9, 2))
ROIS = np.concatenate([CORNERS, CORNERS + RANDOM.uniform(0.2, 12, (9, 2))], 1).astype(np.float32)
SAMPLES = RANDOM.integers(0, 2, 9)
SAMPLE_ROIS = np.concatenate([SAMPLES[:, None], ROIS], 1).astype(np.float32)
BOXES = RANDOM.uniform(0, 1, (2, 60, 4)).astype(np.float32)
SCORES = RANDOM.uniform(0, 1, (2, 3, 60)).astype(np.float32).round(2)
LIMITS = (np.array([10]), np.array([0.3], np.float32), np.array([0.2], np.float32))
GRID = RANDOM.uniform(-1.4, 1.4, (2, 5, 6, 2)).astype(np.float32)
SIGNAL = RANDOM.standard_normal((2, 50, 1)).astype(np.float32)
FRAME = RANDOM.standard_normal(16).astype(np.float32)
ROWS = RANDOM.integers(0, 2, (5, 9, 2)).astype(np.float32)
TWICE = np.array([[0, 1], [1, 2], [0, 1], [-1, -3]])
DEFORMED = (
    X,
    RANDOM.standard_normal((6, 1, 3, 2)).astype(np.float32),
    RANDOM.standard_normal((2, 36, 8, 7)).astype(np.float32),
    RANDOM.standard_normal(6).astype(np.float32),
    RANDOM.standard_normal((2, 18, 8, 7)).astype(np.float32),
)
Q, K, V = (RANDOM.standard_normal((2, s, 24)).astype(np.float32) for s in (5, 7, 7))

CASES: dict[str, tuple[str, tuple[Any, ...], dict[str, Any]]] = {
    "roi_align_adaptive": ("RoiAlign", (X, ROIS, SAMPLES), {"output_height": 4, "spatial_scale": 0.7}),
    "roi_align_fixed": ("RoiAlign", (X, ROIS, SAMPLES), {"output_width": 3, "sampling_ratio": 3}),
    "roi_align_max": ("RoiAlign", (X, ROIS, SAMPLES), {"mode": "max", "sampling_ratio": 1}),
    "roi_align_unshifted": (
        "RoiAlign", (X, ROIS, SAMPLES), {"coordinate_transformation_mode": "output_half_pixel"}
    ),
    "max_roi_pool": ("MaxRoiPool", (X, SAMPLE_ROIS), {"pooled_shape": [3, 4], "spatial_scale": 0.8}),
    "max_roi_pool_of_small_boxes": ("MaxRoiPool", (X, SAMPLE_ROIS), {"pooled_shape": [7, 7]}),
    "suppression_of_corners": ("NonMaxSuppression", (BOXES, SCORES, *LIMITS), {}),
    "suppression_of_centres": ("NonMaxSuppression", (BOXES, SCORES, *LIMITS), {"center_point_box": 1}),
    "suppression_without_limits": ("NonMaxSuppression", (BOXES, SCORES), {}),
    "grid_cubic_reflection": ("GridSample", (X, GRID), {"mode": "cubic", "padding_mode": "reflection"}),
    "grid_linear_border": ("GridSample", (X, GRID), {"padding_mode": "border", "align_corners": 1}),
    "deform_conv": (
        "DeformConv", DEFORMED,
        {"group": 3, "offset_group": 3, "strides": [2, 2], "pads": [0, 1, 1, 1], "dilations": [1, 2]},
    ),
    "stft": ("STFT", (SIGNAL, np.array(7), FRAME, np.array(16)), {}),
    "dft_longer": ("DFT", (SIGNAL, np.array(60)), {"axis": 1, "onesided": 1}),
    "lrn_of_all_channels": ("LRN", (X,), {"size": 5}),
    "lrn_of_all_channels_but_one": ("LRN", (X.transpose(0, 2, 1, 3).copy(),), {"size": 31}),
    "lrn_of_more_than_all_channels": ("LRN", (X,), {"size": 1_000_001}),
    "top_k_smallest": ("TopK", (SCORES, np.array([2])), {"largest": 0, "axis": 1}),
    "top_k_of_equals": ("TopK", (ROWS, np.array([4])), {"axis": 1}),
    "unique_rows": ("Unique", (ROWS,), {"axis": 1}),
    "unique_rows_as_they_come": ("Unique", (ROWS,), {"axis": 1, "sorted": 0}),
    "slice_from_before_the_first": (
        "Slice", (X, np.array([-99, 9]), np.array([-(2**63), -99]), np.array([2, 3]), np.array([-1, -2])), {}
    ),
    "slice_from_and_to_the_smallest_integer": (
        "Slice", (X, np.array([-(2**63), 1]), np.array([3, -(2**63)]), np.array([2, 3]), np.array([1, 2])), {}
    ),
    "slice_backwards_to_the_largest_integer": (
        "Slice", (X, np.array([5]), np.array([2**63 - 1]), np.array([3]), np.array([-1])), {}
    ),
    "wrapping_what_is_left": ("Pad", (X, np.array([0, 1, -3, 2, 0, 0, 4, -5])), {"mode": "wrap"}),
    "transposed_same_of_small_windows": (
        "ConvTranspose", (X, X[:1, :, :2, :1].transpose(1, 0, 2, 3).copy()),
        {"auto_pad": "SAME_UPPER", "strides": [3, 2]},
    ),
    "gather_one_of_a_list": ("Gather", (X[0, 0, 0], np.array(-2)), {}),
    "one_hot": (
        "OneHot", (RANDOM.integers(-6, 6, (3, 4)), np.array(5), np.array([2, 3], np.float32)), {"axis": 1}
    ),
    "mel": (
        "MelWeightMatrix",
        (np.array(40), np.array(512), np.array(16000), np.array(20, np.float32), np.array(7600, np.float32)),
        {},
    ),
    **{
        f"scatter_nd_{how}": ("ScatterND", (X, TWICE, X.reshape(6, 17, 13)[:4]), {"reduction": how})
        for how in ("add", "mul", "max", "min")
    },
    **{
        f"scatter_elements_{how}": (
            "ScatterElements", (X, RANDOM.integers(-3, 3, (2, 3, 4, 5)), X[:, :, :4, :5]),
            {"axis": 1, "reduction": how},
        )
        for how in ("add", "mul", "max", "min")
    },
}  # fmt: skip
"""Name -> operator, inputs, attributes."""

OUTPUTS = {"TopK": 2, "Unique": 4}
OPSETS = {
    "Pad": 19,
    "DFT": 17,
    "STFT": 17,
    "GridSample": 20,
    "DeformConv": 22,
    "Attention": 23,
    "AffineGrid": 20,
}
TOLERANCE = {"rtol": 1e-4, "atol": 5e-5}
"""ONNX Runtime transforms lengths that are no power of two with an error of this size."""


def node_model(operator: str, inputs: tuple[NDArray[Any], ...], **attributes: Any) -> onnx.ModelProto:
    names = [f"input_{i}" for i in range(len(inputs))]
    outputs = [f"output_{i}" for i in range(OUTPUTS.get(operator, 1))]
    values = [
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape)
        for name, array in zip(names, inputs, strict=True)
    ]
    node = helper.make_node(operator, names, outputs, **attributes)
    results = [helper.make_empty_tensor_value_info(name) for name in outputs]
    graph = helper.make_graph([node], "g", values, results)
    opset = helper.make_opsetid("", OPSETS.get(operator, 18))
    return helper.make_model(graph, opset_imports=[opset], ir_version=9)


@pytest.mark.parametrize("name", CASES)
def test_the_numbers_are_those_of_onnx_runtime(name: str) -> None:
    operator, inputs, attributes = CASES[name]
    proto = node_model(operator, inputs, **attributes)
    expected = open_session(proto, provider="cpu").run(*inputs)
    found = to_torch(proto)(*(torch.from_numpy(array) for array in inputs))
    results = found if isinstance(found, tuple) else (found,)
    assert [(r.numpy().dtype, r.shape) for r in results] == [(e.dtype, e.shape) for e in expected]
    for result, array in zip(results, expected, strict=True):
        torch.testing.assert_close(result, torch.from_numpy(array), **TOLERANCE)


@pytest.mark.parametrize("causal", [0, 1])
def test_attention_is_that_of_its_definition(causal: int) -> None:
    settings = {"q_num_heads": 4, "kv_num_heads": 2, "is_causal": causal}
    heads = [torch.from_numpy(x).unflatten(2, (n, -1)).transpose(1, 2)
             for x, n in ((Q, 4), (K[..., :12], 2), (V[..., :12], 2))]  # fmt: skip
    q, k, v = heads[0], heads[1].repeat_interleave(2, 1), heads[2].repeat_interleave(2, 1)
    products = q @ k.transpose(2, 3) / np.sqrt(6)
    hidden = torch.ones(5, 7).triu(1).bool() if causal else torch.zeros(5, 7).bool()
    expected = (products.masked_fill(hidden, -torch.inf).softmax(-1) @ v).transpose(1, 2).flatten(2)
    inputs = (Q, K[..., :12].copy(), V[..., :12].copy())
    found = to_torch(node_model("Attention", inputs, **settings))(*map(torch.from_numpy, inputs))
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("bounds", [(-99, -(2**63)), (9, -99), (5, 2**63 - 1)])
def test_a_constant_is_cut_backwards_as_onnx_runtime_does(bounds: tuple[int, int]) -> None:
    weights = {
        "c": X[0, 0, 0],
        "s": np.array(bounds[:1]),
        "e": np.array(bounds[1:]),
        "a": np.array([0]),
        "t": np.array([-1]),
    }
    proto = model("k = Slice(c, s, e, a, t) y = Concat<axis=0>(x, k)", weights, inputs="float[2] x")
    compare_module(proto, to_torch(proto), X[0, 0, 0, :2], rtol=0)


@pytest.mark.parametrize(
    "node",
    [
        'MaxPool<kernel_shape=[3, 3], dilations=[2, 1], auto_pad="SAME_LOWER">',
        'AveragePool<kernel_shape=[3, 3], dilations=[2, 1], auto_pad="SAME_UPPER">',
        'AveragePool<kernel_shape=[3, 3], strides=[3, 3], auto_pad="SAME_UPPER", ceil_mode=1>',
        'LpPool<kernel_shape=[2, 3], strides=[3, 3], auto_pad="SAME_UPPER">',
        'LpPool<kernel_shape=[3, 3], dilations=[2, 1], auto_pad="SAME_UPPER">',
        "MaxPool<kernel_shape=[2, 3], pads=[0, 0, 0, 3]>",
        "AveragePool<kernel_shape=[2, 3], pads=[0, 0, 0, 1000003]>",
        "LpPool<kernel_shape=[2, 3], pads=[2, 0, 0, 0]>",
    ],
)
def test_pads_that_onnx_runtime_computes_otherwise_or_refuses_are_refused(node: str) -> None:
    with pytest.raises(UnsupportedOpError, match="ONNX Runtime"):
        to_torch(model(f"y = {node}(x)", opset=19))


@pytest.mark.parametrize("operator", ["MaxPool", "AveragePool", "LpPool"])
def test_a_window_that_is_larger_than_any_plane_is_refused(operator: str) -> None:
    node = f'{operator}<kernel_shape=[1000003, 2], auto_pad="SAME_UPPER">'
    with pytest.raises(UnsupportedOpError, match=r"the window \[1000003, 2\] has 2,000,006 elements"):
        to_torch(model(f"y = {node}(x)"))


def tokens(**attributes: Any) -> onnx.ModelProto:
    """A network that counts the runs [1], [2] and [1, 2] of tokens."""
    known = {"mode": "TF", "min_gram_length": 1, "max_gram_length": 2, "max_skip_count": 1} | attributes
    grams = {"ngram_counts": [0, 2], "ngram_indexes": [0, 1, 2], "pool_int64s": [1, 2, 1, 2]}
    x = np.array([[1, 2, 1, 1, 2, 2]], np.int64)
    return node_model("TfIdfVectorizer", (x,), **grams | known)


def test_tokens_that_lie_apart_are_counted_as_far_as_they_reach() -> None:
    """Lengths and gaps that no row of tokens has are not tried one by one."""
    x = np.array([[1, 2, 1, 1, 2, 2]], np.int64)
    assert compare_module(tokens(max_skip_count=4), to_torch(tokens(max_skip_count=4)), x) == 0
    endless = to_torch(tokens(max_gram_length=(1 << 31) - 1, max_skip_count=1 << 16))
    assert endless(torch.from_numpy(x)).tolist() == [[3, 3, 7]]


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        ({"ngram_counts": [0, 1 << 40]}, "does not divide its pool"),
        ({"ngram_counts": [0, 1]}, "does not divide its pool"),
        ({"ngram_counts": [2, 0]}, "does not divide its pool"),
        ({"ngram_counts": [-2, 2]}, "does not divide its pool"),
        ({"ngram_indexes": [0, 1, -3]}, "names column -3"),
    ],
)
def test_tokens_that_are_listed_wrongly_are_refused(attributes: dict[str, Any], message: str) -> None:
    with pytest.raises(UnsupportedOpError, match=message):
        to_torch(tokens(**attributes))


def test_a_list_of_numbers_that_are_no_integers_is_refused() -> None:
    proto = model("f = Cast<to=1>(s) y = Reshape(x, f)", inputs="float[2, 3] x, int64[2] s")
    with pytest.raises(UnsupportedOpError, match="is of type float32, expected integers"):
        to_torch(proto)


def test_a_grid_with_an_axis_of_one_element_is_refused_where_corners_are_aligned() -> None:
    proto = node_model("AffineGrid", (X[:1, 0, :2, :3].copy(), np.array([1, 1, 1, 4])), align_corners=1)
    size = onnx.numpy_helper.from_array(np.array([1, 1, 1, 4]), "input_1")
    proto.graph.initializer.append(size)
    with pytest.raises(UnsupportedOpError, match=r"size \[1, 1, 1, 4\] has an axis of one element"):
        to_torch(proto)
