"""Finite differences agree with the gradients of the functions that PyTorch does not have."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from graftonnx.conversion import formulas, indexing, reductions, windows

FUNCTIONS: dict[str, Callable[..., Tensor]] = {
    "prelu": lambda x: formulas.prelu(x, torch.full((3, 1, 1), 0.3, dtype=x.dtype)),
    "selu": lambda x: formulas.selu(x, 1.6, 1.05),
    "hard_sigmoid": lambda x: formulas.hard_sigmoid(x, 0.2, 0.5),
    "swish": lambda x: formulas.swish(x, 0.7),
    "instance_norm": lambda x: formulas.instance_norm(x, x.new_ones(3), x.new_zeros(3), 1e-5),
    "layer_norm": lambda x: formulas.layer_norm(x, 2, x.new_ones(5, 4), None, 1e-5)[0],
    "rms_norm": lambda x: formulas.rms_norm(x, 3, x.new_ones(4), 1e-5),
    "batch_norm_training": lambda x: formulas.batch_norm_training(
        x, x.new_ones(3), x.new_zeros(3), x.new_zeros(3), x.new_ones(3), 1e-5, 0.9
    )[0],
    "local_response_norm": lambda x: formulas.local_response_norm(x, 2, 0.1, 0.75, 1.0),
    "mean_variance_norm": lambda x: formulas.mean_variance_norm(x, [0, 2, 3]),
    "lp_normalize": lambda x: formulas.lp_normalize(x, 1, 2),
    "softmax_from": lambda x: formulas.softmax_from(x, 1, False),
    "log_softmax_from": lambda x: formulas.softmax_from(x, 2, True),
    "average_valid": lambda x: windows.average_valid(x, [2, 2], [2, 2], [1, 1], [1, 0, 0, 1], True, False),
    "average_same": lambda x: windows.average_same(x, [3, 2], [2, 2], [1, 1], True, False),
    "lp_pool": lambda x: windows.lp_pool(x, 3, [2, 2], [1, 1], [1, 1]),
    "pad_ceil": lambda x: windows.pad_ceil(x, [3, 3], [2, 2], [1, 1], [0, 1, 1, 0], 0.0),
    "cum_sum": lambda x: reductions.cum_sum(x, [2], True, True),
    "reduce_l2": lambda x: reductions.reduce_l2(x, [1, 3], False),
    "reduce_prod": lambda x: reductions.reduce_prod(x, [1, 2], True),
    "reduce_log_sum_exp": lambda x: reductions.reduce_log_sum_exp(x, [1], True),
    "gather": lambda x: indexing.gather(x, torch.tensor([[0, -1], [2, 0]]), 1),
    "slice_backwards": lambda x: indexing.slice_backwards(x, [3, 4], [0, -10], [3, 2], [-1, -2]),
    "pad_reflect": lambda x: indexing.pad_by_index(x, [2, 1, 1, 2], "reflect"),
    "pad_wrap": lambda x: indexing.pad_by_index(x, [2, 1, -1, 2], "wrap"),
    "depth_to_space": lambda x: indexing.depth_to_space(torch.cat([x, x[:, :1]], 1), 2),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_gradient(name: str) -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 3, 5, 4, dtype=torch.float64, generator=generator, requires_grad=True)
    assert torch.autograd.gradcheck(FUNCTIONS[name], x)
