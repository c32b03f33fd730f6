"""The line of progress: what it tells while an epoch runs, and that it is quiet where nobody watches."""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from rich.progress import Progress
from training.fused import save_fused, save_images

from graftonnx.training import TrainConfig, progress, train, trainer

CONFIG = TrainConfig(epochs=2, batch_size=8, precision="fp32", layout="contiguous", device="cpu")


def test_shows_epoch_loss_speed_and_the_best_accuracy_so_far(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    screen = io.StringIO()

    class Shown(Progress):
        def __init__(self, *columns: Any, **options: Any) -> None:
            console = Console(file=screen, force_terminal=True, width=160, color_system=None)
            super().__init__(*columns, **{**options, "console": console, "disable": False})

        def update(self, *arguments: Any, **changes: Any) -> None:
            super().update(*arguments, **{**changes, "refresh": True})

    monkeypatch.setattr(progress, "Progress", Shown)
    train(save_fused(tmp_path / "fused.onnx"), save_images(tmp_path / "data"), tmp_path / "run", CONFIG)
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", screen.getvalue())
    lines = [line for line in re.split(r"[\r\n]", text) if line.startswith("epoch")]
    first = next(line for line in lines if "1/4" in line)
    assert re.search(r"^epoch 1/2 .* 1/4 .*loss \d\.\d{3}, \d+ images/s *$", first)
    second = next(line for line in lines if line.startswith("epoch 2/2"))
    assert re.search(r"loss \d\.\d{3}, \d+ images/s, validation \d+\.\d% *$", second)


def test_is_quiet_where_nobody_watches(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    trainer.train(
        save_fused(tmp_path / "fused.onnx"),
        save_images(tmp_path / "data"),
        tmp_path / "run",
        CONFIG,
        progress=True,
    )
    assert capfd.readouterr() == ("", "")
