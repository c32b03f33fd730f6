"""Choosing a device and measuring modes, without changing the network."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from training.fused import fused_model

from graftonnx.conversion import to_torch
from graftonnx.errors import RuntimeProviderError
from graftonnx.training import TrainConfig
from graftonnx.training.speed import Mode, choose_device, choose_mode

SIZE = (16, 16)


@pytest.mark.parametrize(
    ("precision", "layout", "modes"),
    [
        ("auto", "auto", {"fp32 contiguous", "fp32 channels_last", "bf16 contiguous", "bf16 channels_last"}),
        ("auto", "channels_last", {"fp32 channels_last", "bf16 channels_last"}),
        ("fp32", "auto", {"fp32 contiguous", "fp32 channels_last"}),
    ],
)
def test_what_is_open_is_measured_and_the_fastest_is_taken(
    precision: Any, layout: Any, modes: set[str]
) -> None:
    config = TrainConfig(precision=precision, layout=layout, batch_size=4)
    mode, seconds = choose_mode(to_torch(fused_model()), SIZE, config, "cpu")
    assert set(seconds) == modes
    assert str(mode) == min(seconds, key=seconds.__getitem__)
    assert all(0 < value < 10 for value in seconds.values())


def test_what_is_given_is_not_measured() -> None:
    config = TrainConfig(precision="bf16", layout="channels_last")
    mode, seconds = choose_mode(to_torch(fused_model()), SIZE, config, "cpu")
    assert (mode, seconds) == (Mode("bf16", "channels_last"), {})


def test_measuring_leaves_the_network_as_it_was() -> None:
    network = to_torch(fused_model())
    before = {key: value.clone() for key, value in network.state_dict().items()}
    torch.manual_seed(4)
    state = torch.get_rng_state()
    choose_mode(network, SIZE, TrainConfig(batch_size=4), "cpu")
    after = network.state_dict()
    assert [key for key in before if not torch.equal(before[key], after[key])] == []
    assert [value.stride() for value in after.values()] == [value.stride() for value in before.values()]
    assert not network.training
    assert all(weight.grad is None for weight in network.parameters())
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_cuda_without_a_gpu_is_an_error_and_not_a_slow_run() -> None:
    with pytest.raises(
        RuntimeProviderError, match=r"cannot train on CUDA: the installed PyTorch .* Pass --device cpu\."
    ):
        choose_device("cuda")
    assert choose_device("auto") == "cpu"


def test_the_cpu_is_taken_when_asked_for() -> None:
    assert choose_device("cpu") == "cpu"
