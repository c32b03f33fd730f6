"""Resize gives the numbers of ONNX Runtime in every mode, or is refused."""

from __future__ import annotations

import functools
import itertools

import numpy as np
import onnx
import pytest
import torch
from conversion.small_models import model, random
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from graftonnx.conversion import resampling, to_torch
from graftonnx.errors import UnsupportedOpError
from graftonnx.parity import compare_module
from graftonnx.runtime import Session, open_session

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


@functools.cache
def resizer(nodes: str, kind: str, opset: int) -> Session:
    proto = model(nodes, {"e": np.zeros(0, np.float32)}, inputs=f"float[H, W] x, {kind}[2] s", opset=opset)
    return open_session(proto, provider="cpu")


def grid(extent: int) -> NDArray[np.float32]:
    return np.random.default_rng(extent).permutation(extent**2).reshape(extent, extent).astype(np.float32)


@pytest.mark.parametrize("coordinates", [*COORDINATES, "tf_half_pixel_for_nn"])
@pytest.mark.parametrize("nearest", NEAREST)
@settings(max_examples=40)
@given(extent=st.integers(1, 64), size=st.integers(1, 64))
@example(extent=14, size=4)
@example(extent=7, size=2)
@example(extent=3, size=1)
@example(extent=22, size=13)
@example(extent=1, size=41)
def test_the_nearest_neighbour_is_that_of_onnx_runtime(
    coordinates: str, nearest: str, extent: int, size: int
) -> None:
    opset = 11 if coordinates == "tf_half_pixel_for_nn" else 19
    how = f'coordinate_transformation_mode="{coordinates}", nearest_mode="{nearest}"'
    session = resizer(f"y = Resize<{how}>(x, e, e, s)", "int64", opset)
    expected = session.run(grid(extent), np.array([size, size]))[0]
    found = resampling.resize_to(
        torch.from_numpy(grid(extent)),
        [0, 1],
        [size, size],
        None,
        coordinates=coordinates,
        nearest=nearest,
    )
    np.testing.assert_array_equal(found.numpy(), expected)


@pytest.mark.parametrize(("extent", "size"), [(14, 4), (14, 8), (14, 16), (20, 12), (8, 24), (1, 41), (9, 3)])
@pytest.mark.parametrize("shape", ["N, 3, 1, W", "1, 3, 1, {}"])
@pytest.mark.parametrize("by", ["sizes", "scales"])
def test_the_floor_of_asymmetric_places(extent: int, size: int, shape: str, by: str) -> None:
    factor = np.array([1, 1, 2, size / extent], np.float32)
    inputs, weights = (
        ("x, , , s", {"s": np.array([1, 3, 2, size])}) if by == "sizes" else ("x, , s", {"s": factor})
    )
    proto = model(
        f'y = Resize<coordinate_transformation_mode="asymmetric", nearest_mode="floor">({inputs})',
        weights,
        inputs=f"float[{shape.format(extent)}] x",
        opset=13,
    )
    compare_module(proto, to_torch(proto), random(1, 3, 1, extent), rtol=0)


@pytest.mark.parametrize("factor", [0.3, 0.5, 4 / 7, 0.75, 1.5, 1.6, 3.0, 41.0])
@pytest.mark.parametrize(("op_type", "opset"), [("Upsample", 7), ("Upsample", 9), ("Resize", 10)])
def test_the_first_nearest_neighbour(op_type: str, opset: int, factor: float) -> None:
    if op_type == "Upsample":
        factor = max(factor, 1 / factor)
    scales = np.array([1, 1, factor, 1.25], np.float32)
    text = f"scales=[{', '.join(map(str, scales))}]"
    node = f"y = Upsample<{text}>(x)" if opset == 7 else f"y = {op_type}(x, s)"
    proto = model(node, {} if opset == 7 else {"s": scales}, inputs="float[N, 3, H, W] x", opset=opset)
    compare_module(proto, to_torch(proto), random(1, 3, 14, 12), rtol=0)


@pytest.mark.parametrize("mode", ["linear", "cubic"])
def test_an_image_that_keeps_its_extents_is_not_resampled(mode: str) -> None:
    factors = {"s": np.array([1, 1, 1.1, 1.05], np.float32)}
    proto = model(f'y = Resize<mode="{mode}">(x, , s)', factors)
    compare_module(proto, to_torch(proto), random(1, 3, 8, 8), rtol=0)


@pytest.mark.parametrize("mode", ["nearest", "linear"])
def test_a_region_does_not_change_the_new_extents(mode: str) -> None:
    roi = np.array([0, 0, 0.1, 0.2, 1, 1, 0.7, 1.1], np.float32)
    proto = model(
        f'y = Resize<mode="{mode}", coordinate_transformation_mode="tf_crop_and_resize">(x, r, s)',
        {"r": roi, "s": np.array([1, 1, 1.75, 3], np.float32)},
    )
    compare_module(proto, to_torch(proto), random(1, 3, 8, 8), rtol=RTOL)


def test_integers_are_cut_off() -> None:
    x = np.arange(15, dtype=np.int32).reshape(1, 1, 3, 5) * 7 - 50
    proto = model(
        'y = Resize<mode="linear">(x, , , s)', {"s": np.array([1, 1, 7, 4])}, inputs="int32[1, 1, 3, 5] x"
    )
    proto.graph.output[0].type.tensor_type.elem_type = onnx.TensorProto.INT32
    compare_module(proto, to_torch(proto), x, rtol=0)


def test_corners_that_onnx_runtime_puts_elsewhere_are_where_onnx_says() -> None:
    """8 elements times 1.7: ONNX counts 13.6 of them, ONNX Runtime 13."""
    proto = model(
        'y = Resize<mode="linear", coordinate_transformation_mode="align_corners">(x, , s)',
        {"s": np.array([1, 1, 1, 1.7], np.float32)},
    )
    x = np.tile(np.arange(8, dtype=np.float32), (1, 3, 8, 1))
    expected = np.arange(13) * 7 / (np.float32(1.7) * 8 - 1)
    found = to_torch(proto)(torch.from_numpy(x))[0, 0, 0].numpy()
    np.testing.assert_allclose(found, expected, rtol=RTOL, atol=1e-5)


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
