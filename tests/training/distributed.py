"""What the processes of the distributed tests run, under torchrun: one run after the other.

    torchrun --nproc-per-node 2 distributed.py RUNS.json
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from graftonnx.errors import GraftError
from graftonnx.training import TrainConfig, train
from graftonnx.training.world import Followed


def main(runs: Path) -> None:
    """Train each run; what is refused leaves its sentence beside the run folder."""
    work: dict[str, Any] = json.loads(runs.read_text())
    for name, config in work["configs"].items():
        folder = runs.parent / name
        try:
            result = train(work["source"], work["data"], folder, TrainConfig(**config))
        except GraftError as error:
            folder.with_suffix(".error").write_text(error.message)
        except Followed:
            pass
        else:
            with (runs.parent / "results.jsonl").open("a") as file:
                file.write(json.dumps([name, result.val_accuracy]) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
