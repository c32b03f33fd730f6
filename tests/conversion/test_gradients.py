"""Finite differences agree with the gradients of the functions that PyTorch does not have."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from graftonnx.conversion import (
    attending,
    formulas,
    indexing,
    reductions,
    regions,
    scattering,
    sorting,
    spectra,
    warping,
    windows,
)

PLACES = torch.tensor([0, -1]).reshape(1, 1, 2, 1).expand(2, 3, 2, 4)
SPOTS = torch.arange(6).reshape(2, 3, 1, 1) * 4 + 1
BOXES = torch.tensor([[0.3, 0.4, 3.1, 4.2], [1.1, 0.2, 2.7, 3.3]], dtype=torch.float64)
SOFT = {"causal": True, "scale": None, "softcap": 2.0, "precision": None}

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
    "gather_nd": lambda x: scattering.gather_nd(x, torch.tensor([[[0], [-1]], [[2], [1]]]), 1),
    "scatter_nd": lambda x: scattering.scatter_nd(x, torch.tensor([[0, 1], [-1, 2]]), 2 * x[0, :2], "none"),
    "scatter_nd_add": lambda x: scattering.scatter_nd(x, torch.tensor([[0, 1], [0, 1]]), x[0, :2], "add"),
    "scatter_nd_mul": lambda x: scattering.scatter_nd(x, torch.tensor([[0, 1], [0, 1]]), x[1, :2], "mul"),
    "scatter_elements_max": lambda x: scattering.scatter_elements(x, PLACES, x[:, :, :2] + 0.3, 2, "max"),
    "tensor_scatter": lambda x: scattering.tensor_scatter(x, 2 * x[:, :, :2], torch.tensor([3, 4]), 2, True),
    "compress": lambda x: scattering.compress(x, torch.tensor([True, False, True]), 1),
    "reverse_sequence": lambda x: scattering.reverse_sequence(x, torch.tensor([2, 4]), 0, 2),
    "top_k": lambda x: sorting.top_k(x, [2], 2, True)[0],
    "unique": lambda x: sorting.unique(x, 1, True)[0],
    "cum_prod": lambda x: reductions.cum_prod(x, [2], True, True),
    "grid_sample": lambda x: warping.grid_sample(
        x, x[..., :2].reshape(2, 5, 3, 2), "bilinear", "border", False
    ),
    "columns_to_image": lambda x: warping.columns_to_image(
        x.reshape(2, 12, 5), [5, 2], [2, 2], [1, 3], [0, 0, 1, 0], [1, 1]
    ),
    "unpool": lambda x: warping.unpool(x[:, :, :1, :1], SPOTS, [2, 2], [2, 2], [0] * 4),
    "deform_conv": lambda x: warping.deform_conv(
        x, x[:, :, :1, :1], x[:, :2] / 5 + 0.4, x[:, 0, 0, 0], x[:, :1], [1, 1], [0] * 4, [1, 1], 1, 1
    ),
    "roi_align": lambda x: regions.roi_align(x, BOXES, torch.tensor([0, 1]), 2, 2, 2, 1.0, False, True),
    "roi_align_max": lambda x: regions.roi_align(x, BOXES, torch.tensor([0, 1]), 2, 2, 1, 1.0, True, True),
    "max_roi_pool": lambda x: regions.max_roi_pool(x, F.pad(BOXES, (1, 0)), 2, 2, 1.0),
    "dft": lambda x: spectra.dft(x[..., :1], [6], [2], False, True),
    "stft": lambda x: spectra.stft(x[:, 0, :, :1], [1], x[0, 0, :3, 0], None, False),
    "attention": lambda x: attending.attention(x, x, x, x[:1, :1, :, :1] * x[:1, :1, :1], 0, None, **SOFT)[0],
    "plain_attention": lambda x: attending.plain_attention(x, x[:, :1], x[:, 1:2], True, None),
    "rotary_embedding": lambda x: attending.rotary_embedding(
        x, x[:, 0, :, :1], x[:, 1, :, :1], None, True, None, 2
    ),
    "linear_attention": lambda x: attending.linear_attention(
        x[:, 0], x[:, 1], x[:, 2], None, x[:, 0] / 9, x[:, 1, :, :1], 2, 2, 0.0
    )[0],
    "causal_conv": lambda x: attending.causal_conv(x[:, 0], x[0, 0, :, None, :3], None, None, True)[0],
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_gradient(name: str) -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 3, 5, 4, dtype=torch.float64, generator=generator, requires_grad=True)
    assert torch.autograd.gradcheck(FUNCTIONS[name], x)
