"""The record of epochs, also one that no training wrote."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest

from graftonnx.errors import GraftError
from graftonnx.training.history import LARGEST, MOST_EPOCHS, Epoch, read_metrics, write_curves, write_metrics

EPOCH = Epoch(**{**dict.fromkeys(Epoch.model_fields, 0.5), "epoch": 1})
TIMES = ("train_seconds", "seconds")


def changed(path: Path, field: str, value: str) -> Path:
    """Write a record with another value in one field."""
    row = {**EPOCH.model_dump(), field: value}
    path.write_text(f"{','.join(row)}\n{','.join(map(str, row.values()))}\n")
    return path


def test_a_record_is_read_as_it_was_written(tmp_path: Path) -> None:
    write_metrics(tmp_path / "metrics.csv", [EPOCH])
    assert read_metrics(tmp_path / "metrics.csv") == [EPOCH]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *(("epoch", value) for value in ("1" + "0" * 400, "1" + "0" * 15, "-5", "9" * 5000)),
        *((field, value) for field in list(Epoch.model_fields)[1:] for value in ("1e308", "-1e308", "inf")),
        *((field, value) for field in TIMES for value in ("0", "-1")),
    ],
    ids=lambda value: value[:8],
)
def test_numbers_that_no_chart_can_draw_are_refused(field: str, value: str, tmp_path: Path) -> None:
    with pytest.raises(GraftError, match=r"cannot read '.*metrics\.csv': it is not a record of epochs"):
        read_metrics(changed(tmp_path / "metrics.csv", field, value))


def test_the_largest_numbers_are_drawn_without_a_warning(tmp_path: Path) -> None:
    numbers = [dict.fromkeys(Epoch.model_fields, value) for value in (LARGEST, -LARGEST, 0)]
    times = dict.fromkeys(TIMES, LARGEST)
    epochs = [
        Epoch(**{**row, **times, "epoch": place * MOST_EPOCHS // 2}) for place, row in enumerate(numbers)
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        write_curves(tmp_path / "curves.png", epochs)
    assert (tmp_path / "curves.png").stat().st_size > 0
