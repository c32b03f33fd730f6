"""What each process of the distributed tests does, under torchrun: one run after the other.

torchrun --nproc-per-node 2 distributed.py RUNS.json
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import torch

from graftonnx.errors import GraftError
from graftonnx.training import Interrupted, TrainConfig, finetuner, resume, train
from graftonnx.training.world import Followed


def main(file: Path) -> None:
    """Train every run, and write what this process says about it beside the run folder."""
    work: dict[str, Any] = json.loads(file.read_text())
    rank = os.environ["RANK"]
    for name, settings in work["runs"].items():
        folder = file.parent / name
        report = {"notes": [], "error": None, "accuracy": None, "signal": None}
        arguments = (work["source"], work["data"], folder, TrainConfig(**settings))
        try:
            if name in work["interrupted"]:
                report["signal"] = interrupted(*arguments)
            if name in work["left"]:
                continue
            note = report["notes"].append  # type: ignore[union-attr]
            result = resume(folder) if report["signal"] else train(*arguments, note=note)
            report["accuracy"] = result.val_accuracy
        except GraftError as error:
            report["error"] = error.message
        except Followed:
            report["error"] = "followed"
        finally:
            (file.parent / f"{name}.{rank}.json").write_text(json.dumps(report))


def interrupted(*arguments: Any) -> int | None:
    """Train until the second process hears SIGTERM in the second epoch; return the signal of the end."""
    original, steps = finetuner.augment, iter(range(10**6))

    def augment(*arguments: Any) -> torch.Tensor:
        if next(steps) == 5 and os.environ["RANK"] == "1":
            os.kill(os.getpid(), signal.SIGTERM)
        return original(*arguments)

    finetuner.augment = augment
    try:
        train(*arguments)
    except Interrupted as stop:
        return stop.signal
    finally:
        finetuner.augment = original
    return None


if __name__ == "__main__":
    main(Path(sys.argv[1]))
