"""A skip that reads larger numbers than it adds to learns slower."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from training.fused import fused_model, save_images

from graftonnx.conversion import onnx_name, to_torch
from graftonnx.runtime import open_session, with_outputs
from graftonnx.training import TrainConfig, resume, train
from graftonnx.training.scales import skip_rates

SETTINGS = TrainConfig(epochs=2, batch_size=8, precision="fp32", layout="contiguous", device="cpu")
PIXELS = np.random.default_rng(0).integers(0, 256, (19, 16, 16, 3), np.uint8)


def louder(factor: float) -> onnx.ModelProto:
    """Return the fused network with one branch's first convolution, and so its taps, multiplied."""
    model = fused_model()
    for tensor in model.graph.initializer:
        if tensor.name in ("b/conv:0", "b/conv:0;bias"):
            array = numpy_helper.to_array(tensor) * np.float32(factor)
            tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
    return model


def measured(model: onnx.ModelProto, config: TrainConfig = SETTINGS) -> dict[str, float]:
    rates = skip_rates(to_torch(model), PIXELS, config)
    return {onnx_name(key): rate for key, rate in rates.items()}


def test_the_factor_is_the_ratio_of_root_mean_squares_at_most_one() -> None:
    model = louder(50)
    images = np.float32(PIXELS.transpose(0, 3, 1, 2)) / np.float32(255)
    expected = {}
    for source, target in ("ba", "ab"):
        names = [f"{source}/r1", f"{target}/sum"]
        session = open_session(with_outputs(model, names), provider="cpu", threads=1, optimise=False)
        read, total = (float(np.mean(np.square(v))) for v in session.run(images, outputs=names))
        expected[f"skips/0/{target}/weight"] = min(1.0, (total / read) ** 0.5)
    assert measured(model) == pytest.approx(expected, rel=1e-3)
    assert expected["skips/0/a/weight"] < 0.5
    assert expected["skips/0/b/weight"] == 1


def test_where_steps_grow_with_the_gradient_it_is_squared() -> None:
    plain, squared = measured(louder(50)), measured(louder(50), TrainConfig(optimizer="sgd"))
    assert squared == pytest.approx({name: rate**2 for name, rate in plain.items()}, rel=1e-3)


def test_a_silent_source_learns_at_the_full_rate() -> None:
    assert measured(louder(0))["skips/0/a/weight"] == 1


def test_the_network_is_left_as_it_was() -> None:
    network = to_torch(louder(50)).train()
    before = {key: value.clone() for key, value in network.state_dict().items()}
    skip_rates(network, PIXELS, SETTINGS)
    assert network.training
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())


class TestARun:
    @pytest.fixture
    def source(self, tmp_path: Path) -> Path:
        onnx.save(louder(50), tmp_path / "f.onnx")
        return tmp_path / "f.onnx"

    def test_moves_a_loud_skip_by_the_scaled_rate(self, source: Path, tmp_path: Path) -> None:
        data = save_images(tmp_path / "data")
        settings = SETTINGS.model_copy(update={"epochs": 1, "weight_decay": 0.0, "clip": 0.0})
        moved = {}
        for rates in ("scaled", "equal"):
            config = settings.model_copy(update={"skip_rates": rates})
            run = train(source, data, tmp_path / rates, config)
            before, after = (
                {t.name: numpy_helper.to_array(t) for t in onnx.load(path).graph.initializer}
                for path in (source, run.model)
            )
            name = "skips/0/a/weight"
            moved[rates] = np.abs(after[name] - before[name]).mean()
        rate = measured(louder(50))["skips/0/a/weight"]
        assert moved["scaled"] / moved["equal"] == pytest.approx(rate, rel=0.3)

    def test_goes_on_at_the_rates_it_began_with(self, source: Path, tmp_path: Path) -> None:
        train(source, save_images(tmp_path / "data"), tmp_path / "run", SETTINGS)
        text = (tmp_path / "run" / "config.yaml").read_text()
        assert "skip_rates: scaled" in text
        assert "skips/0/a/weight" in text.split("\nskip_rates:")[1]
        (tmp_path / "run" / "model.onnx").unlink()
        resume(tmp_path / "run")
        assert (tmp_path / "run" / "config.yaml").read_text() == text

    def test_with_equal_rates_nothing_is_measured(self, source: Path, tmp_path: Path) -> None:
        config = SETTINGS.model_copy(update={"skip_rates": "equal", "epochs": 1})
        train(source, save_images(tmp_path / "data"), tmp_path / "run", config)
        assert "\nskip_rates: {}\n" in (tmp_path / "run" / "config.yaml").read_text()
