"""Parity accepts equal networks, and names the first value in which two differ."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from conversion.small_models import model, random

from graftonnx.conversion import to_torch
from graftonnx.errors import ParityError
from graftonnx.parity import compare_module, farthest, first_difference

WEIGHTS = {"w1": random(4, 3, 3, 3), "w2": random(2, 4, 3, 3, seed=1)}
NETWORK = model("h = Conv(x, w1) i = Relu(h) y = Conv<strides=[2,2]>(i, w2)", WEIGHTS)


def test_equal_networks_agree_to_rounding() -> None:
    assert compare_module(NETWORK, to_torch(NETWORK), random(2, 3, 8, 8)) < 1e-5  # float32


def test_the_first_value_that_differs_is_named_with_its_node_and_numbers() -> None:
    module = to_torch(NETWORK)
    (second,) = (p for p in module.parameters() if p.shape == (2, 4, 3, 3))
    with torch.no_grad():
        second.add_(1)
    pattern = (
        r"^ONNX Runtime and PyTorch disagree by more than 0\.0001: output 'y' at \[.*\] ONNX Runtime has "
        r"[-\d.e]+, PyTorch [-\d.e]+ \(.*\)\. The first value that differs is 'y' of 'y' \(Conv, "
        r"strides=\[2, 2\]\) with inputs 'i', 'w2' \[2, 4, 3, 3\]: at \["
    )
    with pytest.raises(ParityError, match=pattern):
        compare_module(NETWORK, module, random(2, 3, 8, 8))


def test_a_difference_is_found_where_it_begins() -> None:
    module = to_torch(NETWORK)
    (first,) = (p for p in module.parameters() if p.shape == (4, 3, 3, 3))
    with torch.no_grad():
        first.mul_(1.5)
    found = first_difference(NETWORK, module, random(1, 3, 8, 8))
    assert found is not None
    assert found[0] == "h"


def test_the_mode_of_the_module_is_kept() -> None:
    module = to_torch(NETWORK).train()
    compare_module(NETWORK, module, random(1, 3, 8, 8))
    assert module.training


@pytest.mark.parametrize(
    ("a", "b", "relative"),
    [
        ([1.0, np.nan], [1.0, np.nan], None),
        ([np.inf, 1.0], [np.inf, 1.0], None),
        ([2.0, 4.0], [2.0, 5.0], 0.25),
        ([1.0, np.nan], [1.0, 1.0], np.inf),
        ([0.0, 0.0], [0.0, 1.0], np.inf),
        ([1.0], [1.0, 1.0], np.inf),
    ],
)
def test_distance_is_relative_to_the_largest_number(
    a: list[float], b: list[float], relative: float | None
) -> None:
    found = farthest(np.array(a), np.array(b))
    assert (found and found.relative) == relative
