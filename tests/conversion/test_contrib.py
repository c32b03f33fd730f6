"""ONNX Runtime's own operators give ONNX Runtime's numbers; the signatures are those that it registers."""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np
import onnx
import onnxruntime.capi.onnxruntime_pybind11_state as ort
import pytest
import torch
from conversion.small_models import random
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from graftonnx.conversion import registry, to_torch
from graftonnx.conversion.evaluation import run_module
from graftonnx.conversion.registry import Entry
from graftonnx.errors import UnsupportedOpError
from graftonnx.parity import compare_module
from graftonnx.runtime import open_session

Array = NDArray[Any]
OURS = [e for e in registry.entries() if e.domain == "com.microsoft"]
SCHEMAS = {s.name: s for s in ort.get_all_operator_schema() if s.domain == "com.microsoft"}
NEWER = {"transBatchA", "transBatchB"}
"""Attributes of FusedMatMul that its older name TransposeMatMul lacks."""


def node_model(
    op_type: str,
    *operands: Array | None,
    held: int = 1,
    outputs: tuple[str, ...] = ("y",),
    kind: type[np.generic] = np.float32,
    domain: str = "com.microsoft",
    **attributes: Any,
) -> tuple[onnx.ModelProto, list[Array]]:
    """Return a model of one node, and its inputs: the first `held` operands; the others are in the file."""
    names = ["" if a is None else f"v{i}" for i, a in enumerate(operands)]
    given = [(n, a) for n, a in zip(names, operands, strict=True) if a is not None]
    node = helper.make_node(op_type, names, list(outputs), "n", domain=domain, **attributes)
    element = helper.np_dtype_to_tensor_dtype(np.dtype(kind))
    graph = helper.make_graph(
        [node],
        "g",
        [
            helper.make_tensor_value_info(n, helper.np_dtype_to_tensor_dtype(a.dtype), a.shape)
            for n, a in given[:held]
        ],
        [helper.make_tensor_value_info(n, element, None) for n in outputs if n],
        [numpy_helper.from_array(a, n) for n, a in given[held:]],
    )
    opsets = [helper.make_opsetid("", 16), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8), [a for _, a in given[:held]]


@pytest.mark.parametrize("entry", OURS, ids=[e.op_type for e in OURS])
def test_attributes_are_those_that_the_runtime_registers(entry: Entry) -> None:
    schema = SCHEMAS[entry.op_type]
    parameters = inspect.signature(entry.convert).parameters
    assert entry.attributes - NEWER == set(schema.attributes) - NEWER
    for name, attribute in schema.attributes.items():
        default = parameters[name].default
        proto = onnx.AttributeProto.FromString(attribute._default_value)
        if attribute.required:
            assert default is inspect.Parameter.empty
        elif proto.type:
            value = helper.get_attribute_value(proto)
            assert default == (value.decode() if isinstance(value, bytes) else pytest.approx(value))


@pytest.mark.parametrize("entry", OURS, ids=[e.op_type for e in OURS])
def test_inputs_are_as_many_as_the_runtime_registers(entry: Entry) -> None:
    inputs = len(SCHEMAS[entry.op_type].inputs)
    variadic = entry.inputs == float("inf")
    assert variadic or entry.inputs == inputs


X = random(2, 3, 6, 5)
W = random(4, 3, 3, 3, seed=1)
TOKENS = random(2, 5, 8)
GAMMA, BETA, BIAS = random(8, seed=2), random(8, seed=3), random(8, seed=4)
VISIBLE = np.array([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]], np.int32)
IDS = np.array([[1, 0, 2, 4, 3], [3, 3, 1, 0, 2]], np.int32)

FLOAT: dict[str, tuple[onnx.ModelProto, list[Array]]] = {
    "conv": node_model("FusedConv", X, W, random(4), pads=[1, 0, 1, 2], strides=[2, 1]),
    "conv_relu": node_model("FusedConv", X, W, activation="Relu"),
    "conv_leaky": node_model("FusedConv", X, W, activation="LeakyRelu", activation_params=[0.3]),
    "conv_clip": node_model("FusedConv", X, W, activation="Clip", activation_params=[0.0, 2.0]),
    "conv_hard_sigmoid": node_model(
        "FusedConv", X, W, activation="HardSigmoid", activation_params=[0.1, 0.4]
    ),
    "conv_sigmoid": node_model("FusedConv", X, W, activation="Sigmoid"),
    "conv_tanh": node_model("FusedConv", X, W, activation="Tanh"),
    "conv_sum_relu": node_model("FusedConv", X, W, random(4), random(2, 4, 4, 3), activation="Relu"),
    "gemm_relu": node_model("FusedGemm", random(2, 3), random(4, 3), random(4), transB=1, activation="Relu"),
    "gemm_leaky": node_model(
        "FusedGemm", random(2, 3), random(3, 4), activation="LeakyRelu", activation_alpha=0.3, alpha=0.5
    ),
    "matmul": node_model("FusedMatMul", random(2, 3, 4), random(2, 5, 4), held=2, transB=1, alpha=0.25),
    "matmul_trans_a": node_model("FusedMatMul", random(2, 4, 3), random(4, 5), transA=1),
    "gelu": node_model("Gelu", TOKENS),
    "bias_gelu": node_model("BiasGelu", TOKENS, BIAS),
    "fast_gelu": node_model("FastGelu", TOKENS, BIAS),
    "fast_gelu_alone": node_model("FastGelu", TOKENS),
    "quick_gelu": node_model("QuickGelu", TOKENS, alpha=1.5),
    "layer_norm": node_model("LayerNormalization", TOKENS, GAMMA, BETA, domain=""),
    "rms_norm": node_model("SimplifiedLayerNormalization", TOKENS, GAMMA, domain="", epsilon=1e-3),
    "skip_layer_norm": node_model(
        "SkipLayerNormalization", TOKENS, random(2, 5, 8, seed=9), GAMMA, BETA, BIAS, held=2,
        outputs=("y", "", "", "sum"),
    ),
    "skip_rms_norm": node_model(
        "SkipSimplifiedLayerNormalization", TOKENS, random(2, 5, 8, seed=9), GAMMA, held=2, epsilon=1e-5
    ),
    "embeddings": node_model(
        "EmbedLayerNormalization", IDS, IDS % 2, random(5, 8), random(6, 8, seed=1), random(2, 8, seed=2),
        GAMMA, BETA, held=2, outputs=("y", "", "sum"),
    ),
    "embeddings_by_position": node_model(
        "EmbedLayerNormalization", IDS, None, random(5, 8), random(6, 8, seed=1), None, GAMMA, BETA, None,
        IDS[:, ::-1].copy(), outputs=("y", "", "sum"),
    ),
    "attention": node_model("Attention", TOKENS, random(8, 24), random(24), num_heads=2),
    "attention_causal": node_model(
        "Attention", TOKENS, random(8, 24), random(24), num_heads=4, unidirectional=1, scale=0.3
    ),
    "attention_masked": node_model("Attention", TOKENS, random(8, 24), random(24), VISIBLE, num_heads=2),
    "attention_biased": node_model(
        "Attention", TOKENS, random(8, 24), random(24), None, None, random(1, 2, 5, 5), num_heads=2
    ),
    "heads": node_model(
        "MultiHeadAttention", TOKENS, random(2, 7, 8, seed=5), random(2, 7, 8, seed=6), held=3, num_heads=2
    ),
    "heads_biased": node_model(
        "MultiHeadAttention", TOKENS, random(2, 5, 8, seed=5), random(2, 5, 8, seed=6), random(24), VISIBLE,
        held=3, num_heads=2,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", FLOAT)
def test_a_float_operator_equals_onnx_runtime(name: str) -> None:
    model, inputs = FLOAT[name]
    assert compare_module(model, to_torch(model), *inputs) < 1e-5  # sums in another order


@pytest.mark.parametrize("name", [name for name, (model, _) in FLOAT.items() if model.graph.initializer])
def test_a_float_operator_trains(name: str) -> None:
    model, inputs = FLOAT[name]
    module = to_torch(model)
    result = module(*(torch.from_numpy(a) for a in inputs))
    (result if isinstance(result, torch.Tensor) else result[0]).square().sum().backward()
    held = [t.name for t in model.graph.initializer if t.data_type == onnx.TensorProto.FLOAT]
    assert len(list(module.parameters())) == len(held)
    assert all(p.grad is not None and p.grad.isfinite().all() for p in module.parameters())


def integers(*shape: int, seed: int = 0, kind: type[np.generic] = np.uint8) -> Array:
    low, high = np.iinfo(kind).min, np.iinfo(kind).max
    return np.random.default_rng(seed).integers(low, high + 1, shape).astype(kind)


def halved(*shape: int) -> Array:
    """Return int8 weights of half their range: processors without VNNI add products of others wrongly.

    ONNX Runtime then adds two of them in 16 bits, which saturate.
    """
    return integers(*shape, kind=np.int8) // 2


def one(value: float, kind: type[np.generic] = np.float32) -> Array:
    return np.array(value, kind)


def grid(scale: float, zero: int, kind: type[np.generic]) -> tuple[Array, Array]:
    return one(scale), one(zero, kind)


U, S = np.uint8, np.int8
XQ = integers(2, 3, 6, 5)
A = grid(0.02, 120, U)
B = grid(0.03, 100, U)
C = grid(0.05, 130, U)
NEGATIVE = grid(0.03, -20, S)

QUANTISED: dict[str, tuple[onnx.ModelProto, list[Array]]] = {
    "add": node_model("QLinearAdd", XQ, *A, integers(2, 3, 6, 5, seed=1), *B, *C, kind=U),
    "add_broadcast": node_model("QLinearAdd", XQ, *A, integers(5, seed=1), *B, *C, kind=U),
    "add_int8": node_model(
        "QLinearAdd", integers(2, 9, kind=S), *NEGATIVE, integers(2, 9, seed=1, kind=S), *NEGATIVE,
        *grid(0.05, 7, S), kind=S,
    ),
    "mul": node_model("QLinearMul", XQ, *A, integers(2, 3, 6, 5, seed=1), *B, *grid(0.04, 90, U), kind=U),
    "sigmoid": node_model("QLinearSigmoid", XQ, *A, *grid(1 / 256, 0, U), kind=U),
    "sigmoid_int8": node_model(
        "QLinearSigmoid", integers(3, 9, kind=S), *NEGATIVE, *grid(1 / 256, -128, S), kind=S
    ),
    "leaky": node_model("QLinearLeakyRelu", XQ, *A, *C, kind=U, alpha=0.2),
    "softmax": node_model("QLinearSoftmax", integers(3, 9), *A, *grid(1 / 256, 0, U), kind=U, opset=13),
    "average": node_model(
        "QLinearAveragePool", XQ, *A, *B, kind=U, kernel_shape=[3, 2], pads=[1, 0, 1, 1], strides=[2, 1]
    ),
    "average_last": node_model(
        "QLinearAveragePool", XQ, *A, *B, kind=U, kernel_shape=[2, 2], channels_last=1
    ),
    "global_average": node_model("QLinearGlobalAveragePool", XQ, *A, *B, kind=U),
    "global_average_last": node_model("QLinearGlobalAveragePool", XQ, *A, *B, kind=U, channels_last=1),
    "concat": node_model(
        "QLinearConcat", *C, XQ, *A, integers(2, 2, 6, 5, seed=1), *B, held=0, kind=U, axis=1
    ),
    "where": node_model(
        "QLinearWhere", XQ > 100, XQ, *A, integers(2, 3, 6, 5, seed=1), *B, *C, held=2, kind=U
    ),
    "dynamic_matmul": node_model(
        "DynamicQuantizeMatMul", random(3, 6), integers(6, 4), one(0.02), one(117, U), random(4)
    ),
    "dynamic_matmul_columns": node_model(
        "DynamicQuantizeMatMul", random(3, 6), halved(6, 4), np.abs(random(4)),
        np.array([0, -3, 5, 1], S),
    ),
    "matmul_to_float": node_model(
        "MatMulIntegerToFloat", integers(3, 6), integers(6, 4, seed=1), one(0.02), one(0.03), one(7, U),
        one(100, U), random(4),
    ),
    "gemm": node_model(
        "QGemm", integers(3, 6), *A, halved(4, 6), one(0.01), one(0, S),
        integers(4, kind=np.int16).astype(np.int32), *C, kind=U, transB=1,
    ),
    "gemm_to_float": node_model(
        "QGemm", integers(3, 6), *A, halved(6, 4), np.abs(random(4)), np.zeros(4, S)
    ),
    "max_last": node_model("NhwcMaxPool", integers(1, 6, 5, 3), kind=U, kernel_shape=[2, 2], strides=[2, 1]),
    "conv_last": node_model(
        "QLinearConv", integers(1, 6, 5, 3), *A, integers(4, 3, 3, 3, seed=2), *B, one(0.9), one(100, U),
        kind=U, channels_last=1,
    ),
    "quantize_16": node_model("QuantizeLinear", random(3, 4), *grid(0.001, 300, np.uint16), kind=np.uint16),
    "dequantize_16": node_model("DequantizeLinear", integers(3, 4, kind=np.int16), *grid(0.1, -5, np.int16)),
}  # fmt: skip


def test_bias_softmax_adds_before_it_normalises() -> None:
    """ONNX Runtime writes this operator for GPUs only, and has no other kernel."""
    data, bias = random(2, 3, 4, 5), random(2, 1, 1, 5, seed=1)
    model, inputs = node_model("BiasSoftmax", data, bias, held=2, axis=3, is_inner_broadcast=1)
    (found,) = run_module(to_torch(model), *inputs)
    powers = np.exp(data + bias)
    np.testing.assert_allclose(found, powers / powers.sum(-1, keepdims=True), rtol=1e-5)  # float32


ONE_STEP = {"add", "mul", "leaky", "average", "average_last", "global_average", "global_average_last"}
"""ONNX Runtime multiplies by ratios of steps that it rounds first: halves may fall to the other side."""


@pytest.mark.parametrize("name", QUANTISED)
def test_a_quantised_operator_equals_onnx_runtime(name: str) -> None:
    model, inputs = QUANTISED[name]
    (expected,) = open_session(model, provider="cpu").run(*inputs)
    (found,) = run_module(to_torch(model), *inputs)
    assert (found.dtype, found.shape) == (expected.dtype, expected.shape)
    if expected.dtype == np.float32:
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)  # sums in another order
    else:
        distance = np.abs(found.astype(int) - expected.astype(int))
        assert distance.max() <= (name in ONE_STEP)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (node_model("FusedConv", X, W, activation="Elu")[0], r"activation is 'Elu' with 0 parameters"),
        (
            node_model("Attention", TOKENS, random(8, 24), None, np.array([3, 5], np.int32), num_heads=2)[0],
            r"mask_index is no mask of each token",
        ),
        (
            node_model("MultiHeadAttention", random(2, 5, 2, 3, 4), num_heads=2)[0],
            r"query, key and value are packed",
        ),
        (
            node_model("Conv", X, W, domain="com.microsoft.nchwc")[0],
            r"domain com\.microsoft\.nchwc, opset 1\): its layout of channels is that of one machine",
        ),
        (node_model("MatMulNBits", X)[0], r"there is no converter for this operator"),
    ],
)
def test_what_has_no_exact_form_is_refused(model: onnx.ModelProto, message: str) -> None:
    with pytest.raises(UnsupportedOpError, match=message):
        to_torch(model)
