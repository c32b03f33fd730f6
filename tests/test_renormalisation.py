"""Batch norms put back behind folded Convs: the function stays, and they are folded away again."""

from __future__ import annotations

from collections import Counter

import numpy as np
import onnx
import pytest
from training.fused import fused_model, weights_of

from graftonnx.errors import ModelError
from graftonnx.folding import fold_operators
from graftonnx.images import to_input
from graftonnx.renormalisation import folded_convolutions, restore_norms
from graftonnx.runtime import open_session

PIXELS = np.random.default_rng(0).integers(0, 256, (20, 16, 16, 3), np.uint8)


def logits(model: onnx.ModelProto) -> np.ndarray:
    return open_session(model).run(to_input(PIXELS))[0]


def test_only_convs_of_branches_with_a_bias_and_without_a_norm_are_found() -> None:
    assert [node.output[0] for node in folded_convolutions(fused_model())] == ["b/c1"]


def test_the_function_stays_and_the_file_is_valid() -> None:
    model = fused_model()
    before = model.SerializeToString()
    restored, count = restore_norms(model, PIXELS)
    assert count == 1
    assert model.SerializeToString() == before
    onnx.checker.check_model(restored, full_check=True)
    assert Counter(node.op_type for node in restored.graph.node)["BatchNormalization"] == 2
    np.testing.assert_allclose(logits(restored), logits(model), rtol=0, atol=2e-6)


def test_statistics_are_those_of_the_conv_on_the_images() -> None:
    restored, _ = restore_norms(fused_model(), PIXELS)
    probe = onnx.ModelProto()
    probe.CopyFrom(restored)
    probe.graph.output.append(
        onnx.helper.make_tensor_value_info("b/c1/convolved", onnx.TensorProto.FLOAT, None)
    )
    found = open_session(probe).run(to_input(PIXELS))[1].astype(np.float64)
    weights = weights_of(restored)
    np.testing.assert_allclose(weights["b/c1/norm/mean"], found.mean((0, 2, 3)), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(weights["b/c1/norm/variance"], found.var((0, 2, 3)), rtol=1e-4)


def test_export_folds_them_away_again() -> None:
    model = fused_model()
    restored, _ = restore_norms(model, PIXELS)
    folded, _ = fold_operators(restored)
    assert "BatchNormalization" not in {node.op_type for node in folded.graph.node}
    np.testing.assert_allclose(logits(folded), logits(model), rtol=0, atol=5e-6)


def test_a_network_with_all_its_norms_is_left_alone() -> None:
    restored, _ = restore_norms(fused_model(), PIXELS)
    again, count = restore_norms(restored, PIXELS)
    assert count == 0
    assert again is restored


def test_values_that_are_not_finite_are_refused() -> None:
    model = fused_model()
    weight = next(tensor for tensor in model.graph.initializer if tensor.name == "b/conv:0;bias")
    weight.CopyFrom(onnx.numpy_helper.from_array(np.full(8, np.inf, np.float32), weight.name))
    with pytest.raises(ModelError, match="cannot restore the norms: 'b/c1' is not finite"):
        restore_norms(model, PIXELS)
