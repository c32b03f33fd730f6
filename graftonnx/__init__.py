"""Fuse pretrained ONNX networks, fine-tune them as one, deploy one ONNX file.

    a, b = graftonnx.load("a.onnx"), graftonnx.load("b.onnx")
    plan = graftonnx.match(a, b, max_skips=6)
    fused = graftonnx.fuse(a, b, plan=plan, classes=8)
    module = graftonnx.to_torch(fused)
    graftonnx.save(graftonnx.write_back(module), "fused.onnx")

Names are loaded when they are first used: importing the package imports none of torch, onnx, onnxruntime.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from graftonnx.comparison import Comparison, compare
    from graftonnx.conversion import to_torch, write_back
    from graftonnx.drawing import explain_plan, view
    from graftonnx.errors import (
        DataError,
        GraftError,
        ModelError,
        ParityError,
        PlanError,
        RuntimeProviderError,
        UnsupportedOpError,
    )
    from graftonnx.evaluation import evaluate
    from graftonnx.exporting import export
    from graftonnx.fusion import fuse
    from graftonnx.matching import match
    from graftonnx.model import Network, load, save
    from graftonnx.parity import compare_module
    from graftonnx.plan import Plan, Rejection, Skip
    from graftonnx.taps import Tap
    from graftonnx.training import TrainConfig, resume, train

_HOME = {
    "Comparison": "comparison",
    "DataError": "errors",
    "GraftError": "errors",
    "ModelError": "errors",
    "Network": "model",
    "ParityError": "errors",
    "Plan": "plan",
    "PlanError": "errors",
    "Rejection": "plan",
    "RuntimeProviderError": "errors",
    "Skip": "plan",
    "Tap": "taps",
    "TrainConfig": "training",
    "UnsupportedOpError": "errors",
    "compare": "comparison",
    "compare_module": "parity",
    "evaluate": "evaluation",
    "explain_plan": "drawing",
    "export": "exporting",
    "fuse": "fusion",
    "load": "model",
    "match": "matching",
    "resume": "training",
    "save": "model",
    "to_torch": "conversion",
    "train": "training",
    "view": "drawing",
    "write_back": "conversion",
}

__all__ = [
    "Comparison",
    "DataError",
    "GraftError",
    "ModelError",
    "Network",
    "ParityError",
    "Plan",
    "PlanError",
    "Rejection",
    "RuntimeProviderError",
    "Skip",
    "Tap",
    "TrainConfig",
    "UnsupportedOpError",
    "compare",
    "compare_module",
    "evaluate",
    "explain_plan",
    "export",
    "fuse",
    "load",
    "match",
    "resume",
    "save",
    "to_torch",
    "train",
    "view",
    "write_back",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'graftonnx' has no attribute '{name}'")
    return getattr(importlib.import_module(f"graftonnx.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
