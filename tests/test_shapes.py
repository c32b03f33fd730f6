from __future__ import annotations

import pytest

from graftonnx.shapes import convolved_extent, downscaling, edging, spelled


@pytest.mark.parametrize(
    ("extent", "kernel", "stride", "pads", "expected"),
    [(224, 3, 2, 0, 111), (227, 7, 2, 0, 111), (32, 3, 1, 2, 32), (5, 5, 1, 0, 1)],
)
def test_a_convolution_gives_the_extent_of_the_papers_formula(
    extent: int, kernel: int, stride: int, pads: int, expected: int
) -> None:
    assert convolved_extent(extent, kernel, stride, pads) == expected


@pytest.mark.parametrize("source", range(1, 61))
def test_a_downscaling_window_gives_exactly_the_target_and_covers_every_pixel(source: int) -> None:
    found = {target: downscaling(source, target) for target in range(1, source + 1)}
    for target, window in found.items():
        if window is not None:
            kernel, stride, begin, end = window
            assert convolved_extent(source, kernel, stride, begin + end) == target
            assert stride <= kernel <= 2 * stride + 2
            assert 0 <= begin <= end < kernel
    assert found[source] == (1, 1, 0, 0)


@pytest.mark.parametrize(("source", "target", "window"), [(56, 28, (2, 2, 0, 0)), (55, 27, (3, 2, 0, 0))])
def test_halving_takes_the_smallest_window(source: int, target: int, window: tuple[int, ...]) -> None:
    assert downscaling(source, target) == window


@pytest.mark.parametrize(("source", "target"), [(7, 8), (4, 0), (35, 28)])
def test_there_is_no_window_that_enlarges_or_is_uneven(source: int, target: int) -> None:
    assert downscaling(source, target) is None


@pytest.mark.parametrize(
    ("source", "target", "pads"),
    [(7, 7, (0, 0)), (55, 56, (0, 1)), (25, 27, (1, 1)), (12, 15, (1, 2)), (4, 5, (0, 1))],
)
def test_a_few_pixels_more_are_padding(source: int, target: int, pads: tuple[int, int]) -> None:
    assert edging(source, target) == pads
    assert convolved_extent(source, 1, 1, sum(pads)) == target


@pytest.mark.parametrize(("source", "target"), [(56, 55), (3, 4), (7, 9), (100, 104), (14, 28)])
def test_fewer_or_many_more_pixels_are_not(source: int, target: int) -> None:
    assert edging(source, target) is None


def test_an_unknown_leading_extent_is_spelled_as_the_batch() -> None:
    assert spelled((None, 64, None, 7)) == "[N, 64, ?, 7]"
    assert spelled(None) == "[unknown]"
