"""A finished run of a small fused pair, with exchanges and mistakes."""

from __future__ import annotations

from pathlib import Path

import pytest
from builders import plain_cnn, residual_cnn
from training.fused import save_images

from graftonnx.fusion import fuse
from graftonnx.model import from_proto, save
from graftonnx.training import TrainConfig, train
from graftonnx.training.run import RunFolder

CONFIG = TrainConfig(
    epochs=2,
    batch_size=8,
    augment="none",
    branch_loss=0.0,
    skip_rates="equal",
    precision="fp32",
    layout="contiguous",
    device="cpu",
    workers=1,
)
ODD = "<img src=x onerror=alert(1)> & \"blue\" 'green' $x_$"
"""A class name that must not become part of a page."""


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three classes; a few images of the second lie in the first."""
    folder = save_images(tmp_path_factory.mktemp("images") / "data", classes=3)
    for i in range(4):
        (folder / "green" / f"{i}.png").rename(folder / "blue" / f"green{i}.png")
    (folder / "blue").rename(folder / ODD)
    return folder


@pytest.fixture(scope="session")
def finished(images: Path, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A run whose images stay where they are; treat it as read-only."""
    folder = tmp_path_factory.mktemp("run")
    parents = [
        from_proto(residual_cnn(depth=3), "a.onnx"),
        from_proto(plain_cnn((8, 16, 32), seed=1), "b.onnx"),
    ]
    save(fuse(*parents, classes=3, norm="none", skip_init="paper", prove=False), folder / "fused.onnx")
    return RunFolder(train(folder / "fused.onnx", images, folder / "run", CONFIG).run)
