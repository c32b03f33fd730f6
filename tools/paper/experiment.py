"""From raw data to what a row has to show, by graftonnx's commands; what is finished is not done again.

| in the output folder | what it is |
|---|---|
| `parents/NAME-KEY/` | a parent: first weights, run, `NAME.onnx`, `accuracy.json` |
| `rows/NAME-BUDGET-KEY/` | `fused.onnx`, `paper.onnx`, `compared/` or `alone/`, `deploy.onnx`, its figures |
| `results/NAME-BUDGET.json` | the result |

A key stands for everything that a folder was made from. So rows that need the same parent share it, and a
row that is changed starts again.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import declarations as declared
from beginnings import drawn
from commands import call, options
from places import data_set, fingerprint, fixed_split, pretrained
from plans import edited
from pydantic_core import to_jsonable_python

from graftonnx import Plan
from graftonnx.comparison import Comparison
from graftonnx.comparison.expenses import size
from graftonnx.data.opening import open_data
from graftonnx.files import write_bytes, write_text
from graftonnx.metadata import read_metadata
from graftonnx.plan import write_plan
from graftonnx.reading import sha256
from graftonnx.training.history import read_metrics
from graftonnx.training.run import RunFolder
from graftonnx.weights import read

PAPER: declared.Options = {"skip-init": "paper"}
"""How the paper fuses: equal shapes are added, others go through a convolution first."""

LINEAR: declared.Options = {"hidden": 0, "dropout": 0, "norm": "none"}
"""The head of a parent that is trained here: one dense layer, as in the paper."""


@dataclass(frozen=True)
class Place:
    """Where things are, and how much work is wanted.

    Attributes:
        shared: The folder with `data/` and `models/`.
        output: The folder for everything that is made.
        budget: Its name.
    """

    shared: Path
    output: Path
    budget: str

    def folder(self, kind: str, name: str, *contents: object) -> Path:
        """Return the folder for what is made of these contents, and make it."""
        text = json.dumps(to_jsonable_python(contents), sort_keys=True)
        key = hashlib.sha256(text.encode()).hexdigest()[:8]
        path = self.output / kind / f"{name}-{key}"
        path.mkdir(parents=True, exist_ok=True)
        return path


@dataclass(frozen=True)
class MadeParent:
    """A parent that can be fused.

    Attributes:
        declared: What its file says.
        note: What differs from the paper.
        path: The network.
        accuracy: What `graftonnx eval` says of it on its own data; None for one that came pretrained.
    """

    declared: declared.Parent
    note: str
    path: Path
    accuracy: dict[str, Any] | None = None


def make_parent(name: str, place: Place) -> MadeParent:
    """Return a parent: found, or trained."""
    parent = declared.read_parent(name)
    if parent.file is not None:
        cache = place.output / "parents"
        cache.mkdir(parents=True, exist_ok=True)
        return MadeParent(parent, parent.note, pretrained(place.shared, parent.file, cache))
    training = declared.budget_of(parent.budgets, place.budget, name)
    assert parent.data is not None
    data = data_set(place.shared, parent.data)
    recipe = training.model_dump(exclude={"note"})
    folder = place.folder("parents", name, parent.network, recipe, fingerprint(data))
    start, alone, run, final = (folder / n for n in ("start.onnx", "alone.onnx", "run", f"{name}.onnx"))
    accuracy = folder / "accuracy.json"
    if not accuracy.is_file():
        classes = {"classes": len(open_data(data).classes)}
        if not start.is_file():
            call("zoo", "export", parent.network, "-o", start, *options(classes, training.export))
        if not alone.is_file():
            call("fuse", start, "-o", alone, *options(classes, LINEAR))
        train(alone, data, run, training.train)
        write_bytes(final, (run / "model.onnx").read_bytes())
        write_text(accuracy, evaluate(final, data, run / "split.json"))
    note = " ".join(text for text in (parent.note, training.note) if text)
    return MadeParent(parent, note, final, json.loads(accuracy.read_text()))


def train(source: Path, data: Path, run: Path, settings: declared.Options) -> None:
    """Train, or go on with a run that was interrupted."""
    if (run / "model.onnx").is_file():
        return
    if (run / "config.yaml").is_file():
        call("train", "--resume", run)
    else:
        shutil.rmtree(run, ignore_errors=True)  # of a run that was killed before it began
        call("train", source, "--data", data, "-o", run, *options(settings))


def evaluate(network: Path, data: Path, split: Path, *, mirror: bool = False) -> str:
    """Return what `graftonnx eval --json` says: of the test images where there are any, else of the others.

    Confusions are left out.
    """
    part = "test" if open_data(data).test else "val"
    words = ("--data", data, "--split", part, "--split-file", split, "--json", "-q")
    words += ("--mirror",) * mirror
    found = json.loads(call("eval", network, *words))
    return json.dumps({name: found[name] for name in ("split", "images", "top1", "top5", "loss")}) + "\n"


@dataclass(frozen=True)
class Outcome:
    """What a row has to show.

    Attributes:
        row: What its file says.
        budget: Likewise.
        parents: Both.
        comparison: All networks, over all seeds; None where the fused one was trained alone.
        alone: How that one was trained: what it costs, where it ran.
        deployed: The exported fused network of the first seed: what `graftonnx eval` says, and its bytes;
            trained alone, also `mirrored`, the share that is right with `--mirror`.
    """

    row: declared.Row
    budget: declared.Budget
    parents: tuple[MadeParent, MadeParent]
    comparison: Comparison | None
    alone: dict[str, Any] | None
    deployed: dict[str, Any]

    @property
    def verdict(self) -> str:
        """What it comes to, in a sentence."""
        alone = f"The fused network reaches {self.deployed['top1']:.2%}."
        return self.comparison.verdict if self.comparison else alone


def run_row(name: str, place: Place, seeds: int | None) -> Outcome:
    """Run a row, or what is missing of it.

    Args:
        name: Of its file in `rows/`.
        place: Where things are.
        seeds: Runs of each network; None for as many as the budget says.
    """
    row = declared.read_row(name)
    budget = declared.budget_of(row.budgets, place.budget, name)
    data = data_set(place.shared, row.data)
    a, b = make_parent(row.a, place), make_parent(row.b, place)
    recipe = budget.model_dump(exclude={"note", "seeds", "variants", "compared"})
    made_from = [sha256(a.path), sha256(b.path), fingerprint(data)]
    folder = place.folder("rows", f"{name}-{place.budget}", recipe, made_from)
    base = {"classes": len(open_data(data).classes)} | budget.fuse
    if not budget.compared:
        (file,) = fuse(folder, a, b, {"fused": base})
        run = folder / "alone"
        train(file, data, run, with_split(budget.train, data, folder))
        deployed = deploy(folder, run, data) | mirrored(folder, run, data)
        return Outcome(row, budget, (a, b), None, trained(run), deployed)
    variants = {variant: base | changed for variant, changed in budget.variants.items()}
    files = fuse(folder, a, b, {"fused": base, "paper": base | PAPER, **variants})
    count = budget.seeds if seeds is None else seeds
    comparison = compare(files, data, folder / "compared", budget.train | {"seeds": count})
    deployed = deploy(folder, folder / "compared" / "fused" / "seed0", data)
    return Outcome(row, budget, (a, b), comparison, None, deployed)


def trained(run: Path) -> dict[str, Any]:
    """Return how the network of a run was trained."""
    folder = RunFolder(run)
    record, cost = folder.read("describe"), size(folder.model)
    return record.model_dump(mode="json", include={"device", "precision", "layout", "images"}) | {
        "train_seconds": sum(epoch.train_seconds for epoch in read_metrics(folder.metrics)),
        "parameters": cost.parameters,
        "macs": cost.macs,
    }


def fuse(folder: Path, a: MadeParent, b: MadeParent, files: Mapping[str, declared.Options]) -> list[Path]:
    """Fuse two parents in one way or more.

    Args:
        folder: Where to.
        a: The first parent.
        b: The second.
        files: Name of the file, without its suffix, and options of `graftonnx fuse`.

    Returns:
        The files.
    """
    given = {"a": a.declared.preprocess, "b": b.declared.preprocess}
    conventions = [f"{branch}={name}" for branch, name in given.items() if name is not None]
    words = ["--preprocess", *conventions] if conventions else []
    paths = {name: folder / f"{name}.onnx" for name in files}
    for name, path in paths.items():
        if not path.is_file():
            chosen = dict(files[name])
            if "plan" in chosen:
                chosen["plan"] = str(plan(paths["fused"], str(chosen["plan"]), {"a": a.path, "b": b.path}))
                chosen.pop("input-size", None)  # the plan says it
            if "weights" in chosen:
                drawn(paths["fused"], path, str(chosen["weights"]))
                continue
            call("fuse", a.path, b.path, "-o", path, *words, *options(chosen))
    return list(paths.values())


def plan(fused: Path, edit: str, parents: Mapping[str, Path]) -> Path:
    """Write the plan of a fused file with one thing changed.

    Args:
        fused: The file.
        edit: What is changed, as :func:`plans.edited` takes it.
        parents: The files of its parents, by branch letter.
    """
    found = read_metadata(read(fused)[0]).plan
    assert found is not None
    path = fused.with_name(f"{edit}.yaml")
    write_plan(edited(Plan.model_validate_json(found), edit, parents), path, force=True)
    return path


def compare(files: Sequence[Path], data: Path, output: Path, settings: declared.Options) -> Comparison:
    """Compare fused files of the same parents, the first one with its parts as well."""
    words = options(with_split(settings, data, output.parent))
    call("compare", *files, "--data", data, "-o", output, *words)
    for checkpoints in output.glob("*/*/checkpoints"):
        shutil.rmtree(checkpoints)  # they only serve to go on, and take more space than all else
    return Comparison.model_validate_json((output / "compare.json").read_text())


def with_split(settings: declared.Options, data: Path, folder: Path) -> declared.Options:
    """Return the settings with the file that `split-file: fixed` stands for, which is written."""
    if settings.get("split-file") != "fixed":
        return settings
    return settings | {"split-file": str(fixed_split(data, folder))}


def deploy(folder: Path, run: Path, data: Path) -> dict[str, Any]:
    """Export a run, measure the exported file in ONNX Runtime, and return the figures."""
    file, record = folder / "deploy.onnx", folder / "deployed.json"
    if not record.is_file():
        call("export", run, "-o", file, "--force")
        write_text(record, evaluate(file, data, run / "split.json"))
    figures: dict[str, Any] = json.loads(record.read_text())
    return figures | {"bytes": file.stat().st_size}


def mirrored(folder: Path, run: Path, data: Path) -> dict[str, Any]:
    """Measure the exported file with each image and its mirror image."""
    record = folder / "mirrored.json"
    if not record.is_file():
        write_text(record, evaluate(folder / "deploy.onnx", data, run / "split.json", mirror=True))
    return {"mirrored": json.loads(record.read_text())["top1"]}
