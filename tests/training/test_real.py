"""Real parents on real photographs."""

from __future__ import annotations

import zipfile
from collections import Counter
from pathlib import Path

import pytest

import graftonnx
from graftonnx.training import TrainConfig, train

PER_CLASS = 20


@pytest.fixture
def photographs(shared: Path, tmp_path: Path) -> Path:
    """The first images of each class of Natural Images."""
    counts: Counter[str] = Counter()
    with zipfile.ZipFile(shared / "data" / "natural_images" / "natural_images_104.zip") as archive:
        for name in sorted(name for name in archive.namelist() if name.endswith(".jpg")):
            folder = name.split("/")[-2]
            counts[folder] += 1
            if counts[folder] <= PER_CLASS:
                archive.extract(name, tmp_path)
    return tmp_path / "natural_images"


@pytest.mark.shared
@pytest.mark.slow
def test_two_squeezenets_learn_eight_classes_from_a_handful_of_photographs(
    shared: Path, photographs: Path, tmp_path: Path
) -> None:
    names = ("squeezenet1.0_torch_dynamo_opset18.onnx", "squeezenet1.1_caffe2_opset7.onnx")
    parents = [
        graftonnx.load(shared / "models" / name, input_size=(100, 100), preprocess="caffe") for name in names
    ]
    graftonnx.save(graftonnx.fuse(*parents, classes=8), tmp_path / "fused.onnx")
    config = TrainConfig(epochs=2, batch_size=16, device="cpu", precision="fp32", layout="contiguous")
    result = train(tmp_path / "fused.onnx", photographs, tmp_path / "run", config)
    assert result.val_accuracy >= 0.5  # chance is 0.125; sixteen steps
    assert result.val_accuracy == result.val_accuracy_torch
    assert result.labels[:2] == ("airplane", "car")
