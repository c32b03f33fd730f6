"""Resize gives the numbers of ONNX Runtime in every mode, or is refused."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from conversion.small_models import model, random

from graftonnx.conversion import resampling, to_torch
from graftonnx.errors import UnsupportedOpError
from graftonnx.parity import compare_module

COORDINATES = ["half_pixel", "half_pixel_symmetric", "pytorch_half_pixel", "align_corners", "asymmetric"]
NEAREST = ["round_prefer_floor", "round_prefer_ceil", "floor", "ceil"]
SIZES = [(16, 16), (4, 4), (13, 5), (1, 1), (8, 17)]

RTOL = 1e-5
"""Float32: at most sixteen products are summed, in another order."""


@pytest.mark.parametrize(
    ("coordinates", "nearest", "size"),
    list(itertools.product(COORDINATES, NEAREST, SIZES)),
)
def test_nearest(coordinates: str, nearest: str, size: tuple[int, int]) -> None:
    proto = model(
        f'y = Resize<mode="nearest", coordinate_transformation_mode="{coordinates}",'
        f' nearest_mode="{nearest}", axes=[2, 3]>(x, , , s)',
        {"s": np.array(size, np.int64)},
        opset=19,
    )
    compare_module(proto, to_torch(proto), random(2, 3, 8, 8), rtol=0)


@pytest.mark.parametrize(
    ("mode", "coordinates", "size"), list(itertools.product(["linear", "cubic"], COORDINATES, SIZES))
)
def test_interpolation(mode: str, coordinates: str, size: tuple[int, int]) -> None:
    proto = model(
        f'y = Resize<mode="{mode}", coordinate_transformation_mode="{coordinates}", axes=[2, 3]>(x, , , s)',
        {"s": np.array(size, np.int64)},
        opset=19,
    )
    compare_module(proto, to_torch(proto), random(2, 3, 8, 8), rtol=RTOL)


@pytest.mark.parametrize("mode", ["nearest", "linear", "cubic"])
@pytest.mark.parametrize("scale", [2.0, 0.5, 1.5, 0.6, 56 / 55])
@pytest.mark.parametrize("opset", [11, 13, 18, 19])
def test_factors_as_old_exporters_write_them(mode: str, scale: float, opset: int) -> None:
    proto = model(
        f'y = Resize<mode="{mode}">(x, roi, s)',
        {"roi": np.zeros(0, np.float32), "s": np.array([1, 1, scale, scale], np.float32)},
        inputs="float[N, 3, 55, 55] x",
        opset=opset,
    )
    compare_module(proto, to_torch(proto), random(1, 3, 55, 55), rtol=RTOL)


@pytest.mark.parametrize(("op_type", "opset"), [("Upsample", 9), ("Resize", 10)])
@pytest.mark.parametrize("mode", ["nearest", "linear"])
def test_the_first_versions(op_type: str, opset: int, mode: str) -> None:
    factors = {"s": np.array([1, 1, 2, 3], np.float32)}
    proto = model(f'y = {op_type}<mode="{mode}">(x, s)', factors, opset=opset)
    compare_module(proto, to_torch(proto), random(2, 3, 8, 8), rtol=RTOL)


def test_a_size_that_is_known_when_the_model_runs() -> None:
    proto = model(
        "h = Shape(x) i = Slice(h, zero, two) j = Slice(h, two, four) k = Add(j, five)"
        " s = Concat<axis=0>(i, k)"
        ' y = Resize<mode="linear">(x, , , s)',
        {
            name: np.array([number], np.int64)
            for name, number in {"zero": 0, "two": 2, "four": 4, "five": 5}.items()
        },
        inputs="float[N, 3, H, W] x",
    )
    module = to_torch(proto)
    compare_module(proto, module, random(2, 3, 8, 6), rtol=RTOL)
    assert "tolist" not in module.code
    assert "functional.interpolate" in module.code


def test_antialiasing_shrinks_as_onnx_runtime_does() -> None:
    proto = model(
        'y = Resize<mode="linear", antialias=1, axes=[2, 3]>(x, , , s)', {"s": np.array([5, 3], np.int64)}
    )
    compare_module(proto, to_torch(proto), random(1, 3, 8, 8), rtol=RTOL)


@pytest.mark.parametrize("mode", ["linear", "cubic"])
def test_gradients_of_resampling(mode: str) -> None:
    x = torch.randn(1, 1, 4, 5, dtype=torch.float64, requires_grad=True)
    how = {"mode": mode, "coordinates": "half_pixel_symmetric"}
    assert torch.autograd.gradcheck(lambda t: resampling.resize_to(t, [2, 3], [7, 3], None, **how), x)


def test_an_unknown_mode_is_refused() -> None:
    proto = model('y = Resize<mode="lanczos">(x, , s)', {"s": np.ones(4, np.float32)})
    with pytest.raises(
        UnsupportedOpError, match=r"mode is 'lanczos', expected one of cubic, linear, nearest\.$"
    ):
        to_torch(proto)
