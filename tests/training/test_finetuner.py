"""The schedule, the sums of an epoch, and the choice of the best one."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional as F

from graftonnx.images import to_input
from graftonnx.training.finetuner import Sums, planes
from graftonnx.training.history import Epoch, best_of
from graftonnx.training.optimisers import FLOOR, warmup_cosine


def test_the_rate_rises_in_a_line_and_falls_along_a_cosine() -> None:
    factors = [warmup_cosine(step, total=100, warmup=10) for step in range(101)]
    assert factors[0] == pytest.approx(1 / 11)
    assert factors[9] == pytest.approx(10 / 11)
    assert factors[10] == 1
    assert factors[55] == pytest.approx((1 + FLOOR) / 2)
    assert factors[100] == pytest.approx(FLOOR)
    assert factors[10:] == sorted(factors[10:], reverse=True)


def test_without_warm_up_the_rate_starts_at_its_peak() -> None:
    assert warmup_cosine(0, total=5, warmup=0) == 1


def test_a_run_of_one_step_has_a_rate() -> None:
    assert warmup_cosine(0, total=1, warmup=1) == 0.5


def test_sums_weigh_batches_by_their_images() -> None:
    logits = [torch.randn(n, 3, generator=torch.Generator().manual_seed(n)) for n in (4, 1)]
    labels = [torch.zeros(n, dtype=torch.long) for n in (4, 1)]
    sums = Sums()
    for part, label in zip(logits, labels, strict=True):
        sums.add(F.cross_entropy(part, label), part, label)
    together = torch.cat(logits)
    # float32 means of parts against the mean of all
    assert sums.loss == pytest.approx(
        float(F.cross_entropy(together, torch.zeros(5, dtype=torch.long))), rel=1e-6
    )
    assert sums.accuracy == pytest.approx(float((together.argmax(1) == 0).float().mean()))
    again = Sums(*sums.state())
    assert (again.loss, again.accuracy, again.images) == (sums.loss, sums.accuracy, 5)


def test_pixels_become_the_same_input_as_everywhere_else() -> None:
    pixels = torch.arange(256, dtype=torch.uint8).repeat(6)[: 2 * 8 * 4 * 3 * 8].reshape(-1, 8, 4, 3)
    assert torch.equal(planes(pixels), torch.from_numpy(to_input(pixels.numpy())))


def row(epoch: int, accuracy: float, loss: float) -> Epoch:
    rest = {**dict.fromkeys(Epoch.model_fields, 0.0), "train_seconds": 1.0, "seconds": 1.0}
    return Epoch(**{**rest, "epoch": epoch, "val_accuracy": accuracy, "val_loss": loss})


def test_the_best_epoch_has_the_highest_accuracy_then_the_lowest_loss() -> None:
    rows = [row(1, 0.9, 0.1), row(2, 0.95, 0.4), row(3, 0.95, 0.3), row(4, 0.95, 0.3)]
    assert best_of(rows).epoch == 3


def test_a_loss_that_is_no_number_is_no_row() -> None:
    with pytest.raises(ValueError, match="finite"):
        row(1, 0.9, math.nan)
