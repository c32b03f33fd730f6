"""Validation every few epochs: fewer rows, the same weights."""

from __future__ import annotations

import csv
import signal
from pathlib import Path

import pytest
from training.fused import save_fused, save_images

from graftonnx.training import Interrupted, TrainConfig, resume, train
from graftonnx.training.checkpoints import Keeper

SETTINGS = TrainConfig(epochs=5, batch_size=8, precision="fp32", layout="contiguous", device="cpu")


def rows(run: Path) -> list[dict[str, str]]:
    with (run / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_intervals_are_counted_from_the_last_epoch(tmp_path: Path) -> None:
    source, data = save_fused(tmp_path / "f.onnx"), save_images(tmp_path / "data")
    said: list[str] = []
    settings = SETTINGS.model_copy(update={"val_every": 2})
    result = train(source, data, tmp_path / "run", settings, note=said.append)
    assert [row["epoch"] for row in rows(tmp_path / "run")] == ["1", "3", "5"]
    assert result.epochs == 5
    assert sum(remark.startswith("epoch ") for remark in said) == 3


def test_a_row_sums_up_all_epochs_since_the_last_one(tmp_path: Path) -> None:
    source, data = save_fused(tmp_path / "f.onnx"), save_images(tmp_path / "data")
    train(source, data, tmp_path / "each", SETTINGS)
    train(source, data, tmp_path / "once", SETTINGS.model_copy(update={"val_every": 9}))
    [once], each = rows(tmp_path / "once"), rows(tmp_path / "each")
    mean = sum(float(row["train_loss"]) for row in each) / len(each)
    assert float(once["train_loss"]) == pytest.approx(mean, rel=1e-4)
    for name in ("val_loss", "val_accuracy", "lr_head"):
        assert once[name] == each[-1][name]


@pytest.mark.parametrize("epoch", [0, 2])
def test_an_interruption_between_validations_changes_nothing(
    epoch: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, data = save_fused(tmp_path / "f.onnx"), save_images(tmp_path / "data")
    settings = SETTINGS.model_copy(update={"val_every": 5})
    whole = train(source, data, tmp_path / "whole", settings)
    add_time = Keeper._add_time

    def interrupted(self: Keeper, finetuner: object) -> None:
        add_time(self, finetuner)  # type: ignore[arg-type]
        if finetuner.current_epoch == epoch:  # type: ignore[attr-defined]
            self._request.signal = signal.SIGTERM

    with monkeypatch.context() as patched:
        patched.setattr(Keeper, "_add_time", interrupted)
        with pytest.raises(Interrupted):
            train(source, data, tmp_path / "cut", settings)
    resumed = resume(tmp_path / "cut")
    assert resumed.model.read_bytes() == whole.model.read_bytes()
    [cut], [row] = rows(tmp_path / "cut"), rows(tmp_path / "whole")
    for name in ("epoch", "train_loss", "val_loss", "val_accuracy"):
        assert cut[name] == row[name]
