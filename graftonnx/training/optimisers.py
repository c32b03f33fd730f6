"""The optimisers and learning-rate schedules that a run can choose, all of them PyTorch's own."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch.optim.lr_scheduler import LambdaLR, LRScheduler, OneCycleLR

from graftonnx.training.config import TrainConfig

FLOOR = 0.01
"""Share of the peak learning rate at the end of the cosine."""

MOMENTUM = 0.9


def make_optimiser(groups: list[dict[str, Any]], config: TrainConfig) -> torch.optim.Optimizer:
    """Return the optimiser of `config` for parameter groups with their own `lr` and `weight_decay`."""
    if config.optimizer == "sgd":
        kernel = "foreach" if config.strategy == "fsdp" else "fused"  # DTensor knows no fused SGD
        return torch.optim.SGD(groups, config.lr_head, MOMENTUM, nesterov=True, **{kernel: True})
    if config.optimizer == "nadam":
        return torch.optim.NAdam(groups, decoupled_weight_decay=True, foreach=True)
    return torch.optim.AdamW(groups, fused=True)


def make_schedule(optimiser: torch.optim.Optimizer, config: TrainConfig, steps: int) -> LRScheduler:
    """Return the schedule that all rates follow over so many optimiser steps."""
    warmup = round(config.warmup * steps)
    if config.schedule == "onecycle":
        peaks = [group["lr"] for group in optimiser.param_groups]
        return OneCycleLR(
            optimiser, peaks, total_steps=steps + 2, pct_start=(max(warmup, 1) + 1) / (steps + 2)
        )
    if config.schedule == "constant":
        return LambdaLR(optimiser, lambda step: min(1.0, (step + 1) / (warmup + 1)))
    return LambdaLR(optimiser, lambda step: warmup_cosine(step, steps, warmup))


def warmup_cosine(step: int, total: int, warmup: int) -> float:
    """Return the factor of the learning rates at `step`: linear up to 1, then a cosine down to `FLOOR`."""
    if step < warmup:
        return (step + 1) / (warmup + 1)
    done = (step - warmup) / max(total - warmup, 1)
    return FLOOR + (1 - FLOOR) * 0.5 * (1 + math.cos(math.pi * min(done, 1.0)))
