"""Fine-tune a fused network on labelled images: ONNX in, ONNX out, PyTorch only in between."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from graftonnx import plotting
from graftonnx.training.config import TrainConfig, TrainResult

if TYPE_CHECKING:
    from graftonnx.training.interrupt import Interrupted
    from graftonnx.training.trainer import resume, train

__all__ = ["Interrupted", "TrainConfig", "TrainResult", "resume", "train"]


def __getattr__(name: str) -> Any:
    """Import PyTorch and Lightning only when something is trained: the command's help needs the defaults."""
    if name == "Interrupted":
        from graftonnx.training.interrupt import Interrupted

        return Interrupted
    if name in ("train", "resume"):
        plotting.load()  # Lightning imports it
        from graftonnx.training import trainer

        return getattr(trainer, name)
    raise AttributeError(f"module 'graftonnx.training' has no attribute '{name}'")
