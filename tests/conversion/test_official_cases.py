"""Every official ONNX case whose operators have converters is right, or a gap with a reason."""

from __future__ import annotations

from fnmatch import fnmatch

import pytest
from conversion.official import cases, failure, is_covered

from graftonnx.errors import GraftError

GAPS = {
    "test_div_uint64": "PyTorch has no division of uint64",
    "test_mod_uint64": "PyTorch has no division of uint64",
    "test_pow_types_float32_uint64": "PyTorch has no arithmetic for uint64",
    "test_*_string*": "PyTorch has no strings",
    "test_affine_grid_*_expanded": "ranks depend on values",
    "test_maxunpool_export_with_output_shape": "ONNX Runtime counts the indices in another shape",
}
"""Pattern of case names -> why they are refused. A case that matches and passes fails the suite."""

COVERED = [name for name, case in cases().items() if is_covered(case)]
UNCOVERED = [name for name in cases() if name not in set(COVERED)]


def reason(name: str) -> str | None:
    return next((why for pattern, why in GAPS.items() if fnmatch(name, pattern)), None)


@pytest.mark.parametrize("name", [name for name in COVERED if reason(name) is None])
def test_an_official_case_gives_the_numbers_of_the_standard(name: str) -> None:
    assert failure(cases()[name]) is None


@pytest.mark.parametrize("name", [name for name in COVERED if reason(name) is not None])
def test_a_gap_is_refused_with_a_sentence(name: str) -> None:
    with pytest.raises(GraftError, match=r"^(cannot convert '|the )"):
        failure(cases()[name])


@pytest.mark.parametrize("name", UNCOVERED)
def test_a_case_of_other_operators_is_refused_with_a_sentence(name: str) -> None:
    with pytest.raises(GraftError, match=r"^(cannot convert '|the )"):
        failure(cases()[name])


@pytest.mark.parametrize("pattern", GAPS)
def test_a_gap_matches_a_case(pattern: str) -> None:
    assert any(fnmatch(name, pattern) for name in COVERED)


def test_most_official_cases_are_covered() -> None:
    right = [name for name in COVERED if reason(name) is None]
    assert len(right) >= 1000
