"""What a row leaves: one JSON file, which says where it comes from."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import declarations as declared
from experiment import MadeParent, Outcome, Place
from places import ROOT

from graftonnx import costs, machine
from graftonnx.comparison import Comparison
from graftonnx.files import write_text
from graftonnx.graph import GraphView
from graftonnx.reading import sha256
from graftonnx.weights import read

SOURCES = (
    "graftonnx",
    "models",
    "tools/paper/*.py",
    "tools/paper/run",
    "tools/paper/rows",
    "tools/paper/parents",
)
"""What a result depends on."""


def origin() -> dict[str, Any]:
    """Return the commit that runs, and whether the files differ from it."""
    changed = bool(_git("status", "--porcelain", "--", *SOURCES))
    return {"commit": _git("rev-parse", "HEAD"), "changed": changed}


def write(outcome: Outcome, name: str, place: Place, source: dict[str, Any]) -> Path:
    """Write `NAME-BUDGET.json`; no path of this machine is in it.

    Args:
        outcome: What the row has to show.
        name: Of the row.
        place: Where it was run.
        source: The :func:`origin` when it began.
    """
    command = f"tools/paper/run {name} --budget {place.budget}"
    found: dict[str, Any] = {"alone": outcome.alone}
    device = outcome.alone["device"] if outcome.alone else ""
    if outcome.comparison:
        command += f" --seeds {len(outcome.comparison.seeds)}"
        found, device = {"comparison": figures(outcome.comparison)}, outcome.comparison.device
    record: dict[str, Any] = {
        "row": name,
        "title": outcome.row.title,
        "budget": place.budget,
        "notes": [note for note in (outcome.budget.note, *(p.note for p in outcome.parents)) if note],
        "paper": outcome.row.paper.model_dump(mode="json"),
        "data": outcome.row.data,
        "fuse": outcome.budget.fuse,
        "train": outcome.budget.train,
        "parents": [
            _parent(*each) for each in zip("ab", (outcome.row.a, outcome.row.b), outcome.parents, strict=True)
        ],
        **found,
        "deployed": outcome.deployed,
        "command": command,
        **source,
        "machine": machine_of(device),
    }
    return save(record, f"{name}-{place.budget}", place.output / "results")


def figures(comparison: Comparison) -> dict[str, Any]:
    """Return a comparison without the paths of this machine."""
    return comparison.model_dump(mode="json", exclude={"request": True, "config": {"split_file"}})


def save(record: dict[str, Any], name: str, folder: Path) -> Path:
    """Write a result as JSON."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.json"
    write_text(path, json.dumps(record, indent=1) + "\n")
    return path


def _parent(branch: str, name: str, made: MadeParent) -> dict[str, Any]:
    content: declared.Parent = made.declared
    return {
        "branch": branch,
        "name": name,
        "title": content.title,
        "sha256": sha256(made.path),
        "parameters": costs.parameters(GraphView(read(made.path)[0].graph)),
        "trained_on": content.data,
        "accuracy": made.accuracy,
    }


def machine_of(device: str) -> dict[str, Any]:
    """Return what the machine is."""
    import torch

    found = {"cpu": machine.processor(), "cores": machine.cores(), "threads": torch.get_num_threads()}
    return found | {"gpu": torch.cuda.get_device_name()} if device == "cuda" else found


def _git(*words: str) -> str:
    """Return what git says of this clone; nothing where there is none."""
    environment = {**os.environ, "GIT_OPTIONAL_LOCKS": "0"}
    done = subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, env=environment)
    return done.stdout.strip() if done.returncode == 0 else ""
