"""Every setting acts, and does what it says."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from training.fused import fused_model

from graftonnx.conversion import onnx_name, to_torch
from graftonnx.training import TrainConfig
from graftonnx.training.config import RATES, RECIPES
from graftonnx.training.data import Images, TrainBatches, ValBatches, class_weights
from graftonnx.training.finetuner import Finetuner, averaged
from graftonnx.training.groups import LEVELS, freeze, levels, parameter_groups
from graftonnx.training.optimisers import make_optimiser, make_schedule
from graftonnx.training.progress import silence
from graftonnx.training.speed import Mode, choose_batch_size

BASE: dict[str, Any] = {
    "epochs": 2, "batch_size": 4, "augment": "none", "lr_branches": 1e-2, "lr_skips": 1e-2, "lr_head": 1e-2,
    "precision": "fp32", "layout": "contiguous", "device": "cpu", "label_smoothing": 0.0, "warmup": 0.0,
}  # fmt: skip


def images(size: int = 16, count: int = 12) -> Images:
    random = np.random.default_rng(0)
    pixels = random.integers(0, 256, (count, size, size, 3), np.uint8)
    return Images(pixels, np.array([0, 1, 1] * (count // 3), np.int64))


def fitted(**changes: Any) -> Finetuner:
    """Train the tiny network for two epochs of three steps."""
    config = TrainConfig(**{**BASE, **changes})
    network = to_torch(fused_model())
    size = 19 if config.augment in ("standard", "strong") else 16
    batches = TrainBatches(images(size), config.batch_size, config.seed)  # type: ignore[arg-type]
    balance = class_weights(images().labels, 2) if config.class_weights == "balanced" else None
    steps = config.epochs * -(-len(batches) // config.accumulate)
    tuner = Finetuner(network, config, Mode("fp32", "contiguous"), (16, 16), steps, 2, balance)
    with silence(), torch.random.fork_rng():
        trainer = pl.Trainer(
            accelerator="cpu", max_epochs=config.epochs, logger=False, enable_checkpointing=False,
            enable_progress_bar=False, enable_model_summary=False, num_sanity_val_steps=0,
            accumulate_grad_batches=config.accumulate,
        )  # fmt: skip
        trainer.fit(tuner, batches, ValBatches(images(), 4))
    return tuner


def weights(tuner: Finetuner) -> dict[str, torch.Tensor]:
    return {onnx_name(key): value for key, value in tuner.result.state_dict().items()}


@pytest.fixture(scope="module")
def plain() -> dict[str, torch.Tensor]:
    return weights(fitted())


def moved(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> set[str]:
    return {name for name in one if not torch.equal(one[name], other[name])}


@pytest.mark.parametrize(
    "changes",
    [
        {"optimizer": "sgd"}, {"optimizer": "nadam"}, {"schedule": "onecycle"}, {"schedule": "constant"},
        {"layer_decay": 0.5}, {"weight_decay": 0.5}, {"clip": 1e-3}, {"ema": 0.9}, {"mixup": 0.5},
        {"cutmix": 0.5}, {"class_weights": "balanced"}, {"label_smoothing": 0.3}, {"accumulate": 3},
        {"unfreeze": 2}, {"freeze": "norms"}, {"freeze": "branches"}, {"augment": "flip"},
        {"augment": "shift"}, {"augment": "flip-shift"}, {"augment": "standard"}, {"augment": "strong"},
        {"warmup": 0.5}, {"seed": 1}, {"batch_size": 6}, {"lr_branches": 1e-3},
        {"lr_skips": 1e-3}, {"lr_head": 1e-3}, {"epochs": 1},
    ],
    ids=lambda changes: ",".join(f"{k}={v}" for k, v in changes.items()),
)  # fmt: skip
def test_each_setting_leads_to_other_weights(changes: dict[str, Any], plain: dict[str, torch.Tensor]) -> None:
    assert moved(plain, weights(fitted(**changes)))


def test_the_same_settings_lead_to_the_same_weights(plain: dict[str, torch.Tensor]) -> None:
    assert moved(plain, weights(fitted())) == set()


def test_frozen_norms_keep_scales_and_statistics() -> None:
    start = {onnx_name(k): v for k, v in to_torch(fused_model()).state_dict().items()}
    changed = moved(start, weights(fitted(freeze="norms")))
    assert not {name for name in changed if name.startswith("a/bn1.")}
    assert {"a/conv1.weight", "b/conv:0"} <= changed


def test_branches_are_released_from_the_head_backwards() -> None:
    network = to_torch(fused_model())
    freeze(network, TrainConfig())
    named = {onnx_name(key): level for key, level in levels(network).items()}
    assert named["a/conv1.weight"] < named["a/bn1.weight"] == LEVELS - 1
    tuner = Finetuner(
        network, TrainConfig(**{**BASE, "unfreeze": 2}), Mode("fp32", "contiguous"), (16, 16), 6, 2
    )
    with at_epoch(tuner, 0):
        assert learning(tuner) == set()
        assert not network.get_submodule("a/bn1").training
    with at_epoch(tuner, 1):
        assert learning(tuner) == {"a/bn1.weight", "a/bn1.bias", "b/conv:0", "b/conv:0;bias"}
        assert network.get_submodule("a/bn1").training
    with at_epoch(tuner, 2):
        assert learning(tuner) == set(named)


@contextmanager
def at_epoch(tuner: Finetuner, epoch: int) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Finetuner, "current_epoch", epoch)
        tuner.on_train_epoch_start()
        yield


def learning(tuner: Finetuner) -> set[str]:
    return {
        onnx_name(key)
        for key, weight in tuner.network.named_parameters()
        if weight.requires_grad and onnx_name(key).startswith(("a/", "b/"))
    }


def test_accumulated_batches_make_the_step_of_one_large_batch() -> None:
    """Without batch statistics, dropout and clipping; one epoch of one step."""
    same = {"epochs": 1, "freeze": "norms", "clip": 0, "optimizer": "sgd"}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.nn.functional, "dropout", lambda x, *_, **__: x)
        one = weights(fitted(batch_size=12, **same))
        parts = weights(fitted(batch_size=4, accumulate=3, **same))
    for name in one:
        torch.testing.assert_close(parts[name], one[name], rtol=1e-4, atol=1e-6)


def test_the_average_follows_its_formula() -> None:
    tuner = fitted(ema=0.9, epochs=1)
    assert tuner.average is not None
    raw = {onnx_name(k): v for k, v in tuner.network.state_dict().items()}
    assert moved(raw, weights(tuner)) >= {"a/conv1.weight", "head/logits/weight", "a/bn1.running_mean"}
    network = torch.nn.Linear(1, 1)
    average = averaged(network, 0.9)
    expected = None
    for step in range(5):
        with torch.no_grad():
            network.weight.fill_(float(step))
        average.update_parameters(network)
        decay = min(0.9, (1 + step) / (10 + step))
        expected = float(step) if expected is None else decay * expected + (1 - decay) * step
    assert float(average.module.weight.detach()) == pytest.approx(expected)


def test_rates_fall_with_the_distance_from_the_head() -> None:
    config = TrainConfig(**{**BASE, "layer_decay": 0.5})
    network = to_torch(fused_model())
    freeze(network, config)
    depths = levels(network)
    groups = parameter_groups(network, depths, config)
    of = {id(weight): group["lr"] for group in groups for weight in group["params"]}
    for key, level in depths.items():
        assert of[id(network.get_parameter(key))] == pytest.approx(1e-2 * 0.5 ** (LEVELS - 1 - level))
    assert {group["lr"] for group in groups if group["name"] != "branches"} == {1e-2}


@pytest.mark.parametrize("optimizer", list(RATES))
@pytest.mark.parametrize("schedule", ["cosine", "onecycle", "constant"])
def test_schedules_reach_their_peak_once_and_do_what_they_say(optimizer: Any, schedule: Any) -> None:
    config = TrainConfig(optimizer=optimizer, schedule=schedule, warmup=0.25)
    weight = torch.nn.Parameter(torch.ones(2))
    groups = [{"params": [weight], "lr": 0.5, "weight_decay": 0.0}]
    optimiser = make_optimiser(groups, config)
    steps = make_schedule(optimiser, config, 40)
    rates = []
    for _ in range(40):
        rates.append(optimiser.param_groups[0]["lr"])
        weight.grad = torch.zeros(2)
        optimiser.step()
        steps.step()
    assert max(rates) == pytest.approx(0.5, rel=1e-3)
    assert rates[0] < 0.1
    assert rates[-1] == pytest.approx(0.5) if schedule == "constant" else rates[-1] < 0.02


def test_rare_classes_weigh_more() -> None:
    found = class_weights(np.array([0, 0, 0, 1]), 2)
    assert found.tolist() == pytest.approx([2 / 3, 2.0])


def test_recipes_change_only_settings_that_exist() -> None:
    for name, changes in RECIPES.items():
        config = TrainConfig(recipe=name)
        assert {key: getattr(config, key) for key in changes} == changes
    given = TrainConfig(recipe="best", epochs=2)
    assert given.min_steps == 0
    assert TrainConfig(epochs=2, min_steps=9).min_steps == 9
    assert given.epochs == 2
    assert TrainConfig(**given.model_dump()) == given


def test_the_smallest_batch_that_is_nearly_as_fast_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = {16: 1.6, 32: 2.0, 64: 3.9, 128: 9.0}
    monkeypatch.setattr("graftonnx.training.speed._measure", lambda steps: {n: seconds[n] for n in steps})
    network = to_torch(fused_model())
    mode = Mode("fp32", "contiguous")
    fits = lambda n: n <= 128  # noqa: E731
    found, measured = choose_batch_size(network, (16, 16), mode, "cpu", 10_000, fits)
    assert found == 32
    assert measured["batch of 64"] == pytest.approx(3.9 / 64)
    assert choose_batch_size(network, (16, 16), mode, "cpu", 300, fits) == (16, {})
    assert choose_batch_size(network, (16, 16), mode, "cpu", 5, fits) == (5, {})


def test_a_copy_of_the_network_is_not_kept_twice() -> None:
    tuner = Finetuner(
        to_torch(fused_model()), TrainConfig(**BASE), Mode("fp32", "contiguous"), (16, 16), 6, 2
    )
    keys = set(tuner.state_dict())
    assert {key.split(".", 1)[0] for key in keys} == {"network"}
    assert copy.deepcopy(tuner.network).state_dict().keys() == tuner.network.state_dict().keys()
