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
import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from graftonnx.benchmarks import Benchmark, benchmark
    from graftonnx.bundling import bundle, verify
    from graftonnx.classifier import open_classifier
    from graftonnx.comparison import Comparison, compare
    from graftonnx.conversion import to_torch, write_back
    from graftonnx.diagnosis import Diagnosis, diagnose
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
    from graftonnx.model import load, save
    from graftonnx.network import Network
    from graftonnx.parity import compare_module
    from graftonnx.plan import Plan, Rejection, Skip
    from graftonnx.prediction import predict, write_predictions
    from graftonnx.taps import Tap
    from graftonnx.training import TrainConfig, resume, train

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # ONNX Runtime sends events unless it is told not to

_HOME = {
    "Benchmark": "benchmarks",
    "Comparison": "comparison",
    "DataError": "errors",
    "Diagnosis": "diagnosis",
    "GraftError": "errors",
    "ModelError": "errors",
    "Network": "network",
    "ParityError": "errors",
    "Plan": "plan",
    "PlanError": "errors",
    "Rejection": "plan",
    "RuntimeProviderError": "errors",
    "Skip": "plan",
    "Tap": "taps",
    "TrainConfig": "training",
    "UnsupportedOpError": "errors",
    "benchmark": "benchmarks",
    "bundle": "bundling",
    "compare": "comparison",
    "compare_module": "parity",
    "diagnose": "diagnosis",
    "evaluate": "evaluation",
    "explain_plan": "drawing",
    "export": "exporting",
    "fuse": "fusion",
    "load": "model",
    "match": "matching",
    "open_classifier": "classifier",
    "predict": "prediction",
    "resume": "training",
    "save": "model",
    "to_torch": "conversion",
    "train": "training",
    "verify": "bundling",
    "view": "drawing",
    "write_back": "conversion",
    "write_predictions": "prediction",
}

__all__ = [
    "Benchmark",
    "Comparison",
    "DataError",
    "Diagnosis",
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
    "benchmark",
    "bundle",
    "compare",
    "compare_module",
    "diagnose",
    "evaluate",
    "explain_plan",
    "export",
    "fuse",
    "load",
    "match",
    "open_classifier",
    "predict",
    "resume",
    "save",
    "to_torch",
    "train",
    "verify",
    "view",
    "write_back",
    "write_predictions",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'graftonnx' has no attribute '{name}'")
    return getattr(importlib.import_module(f"graftonnx.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
