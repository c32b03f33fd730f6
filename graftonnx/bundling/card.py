"""`MODEL_CARD.md`: where a network comes from, how good and how fast it is, and what it cannot do."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jinja2
import onnx

from graftonnx import costs
from graftonnx.bundling.manifest import CARD, Input, Manifest, model_path
from graftonnx.bundling.measuring import machine
from graftonnx.bundling.origin import Origin
from graftonnx.evaluation import Evaluation, Selection
from graftonnx.files import sha256
from graftonnx.graph import GraphView
from graftonnx.metadata import Metadata, Preprocess, read_metadata
from graftonnx.plan import from_yaml
from graftonnx.weights import read

MOST_NAMES = 30
"""Classes up to which the first sentence names all."""

WORST = 3
"""Classes of lowest recall that are named."""

UNKNOWN = "unknown"
"""What stands for a licence that nobody gave."""

PARTS = {
    "val": "validation images",
    "test": "test images",
    "train": "training images",
    "all": "images, those that trained it included",
}


@dataclass(frozen=True)
class Facts:
    """What is known about a network.

    Attributes:
        source: The file that was bundled.
        preprocess: What its input expects.
        labels: Class names.
        output: Name of its output.
        seconds: For one image, by precision.
        accuracies: By precision; empty if nothing was measured.
        selection: The images that were counted.
        origin: The run that trained it.
        licences: Of its parents, by branch, as the user gave them.
    """

    source: Path
    preprocess: Preprocess
    labels: tuple[str, ...]
    output: str
    seconds: Mapping[str, float]
    accuracies: Mapping[str, Evaluation]
    selection: Selection | None
    origin: Origin | None
    licences: Mapping[str, str]


def write_card(folder: Path, manifest: Manifest, facts: Facts) -> None:
    """Write the card of a bundle."""
    skeleton, _ = read(facts.source)
    metadata, view = read_metadata(skeleton), GraphView(skeleton.graph)
    parents = _parents(facts, skeleton, metadata)
    evaluation = next(iter(facts.accuracies.values()), None)
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("graftonnx.bundling", "files"),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(cell=cell, percent=_percent)
    text = environment.get_template(f"{CARD}.jinja").render(
        name=manifest.name,
        labels=facts.labels,
        shown_labels=_listed(facts.labels),
        parents=parents,
        exchanges=len(from_yaml(metadata.plan).skips) if metadata.plan else 0,
        head=metadata.head,
        models=_models(folder, facts),
        accuracies=facts.accuracies,
        measured=_measured(facts),
        runtime=version("onnxruntime-gpu"),
        machine=machine(),
        size=manifest.size,
        inputs=manifest.inputs,
        conventions={name: _spelled(facts.preprocess, found) for name, found in manifest.inputs.items()},
        output=facts.output,
        source=facts.source.name,
        source_sha256=sha256(facts.source),
        parameters=f"{costs.parameters(view):,}",
        macs=f"{costs.macs(view) / 1e6:,.0f} M",
        training=facts.origin and facts.origin.training,
        classes=evaluation.scores if evaluation is not None else (),
        comparison=facts.origin and facts.origin.comparison,
        limits=_limits(facts, evaluation, parents),
    )
    (folder / CARD).write_text(text, encoding="utf-8")


def cell(text: object) -> str:
    """Return text that neither ends a cell of a table nor begins a tag."""
    return re.sub(r"\s+", " ", str(text)).replace("|", r"\|").replace("<", "&lt;") or "-"


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{share:.2%}"


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(map(cell, names[:MOST_NAMES]))
    return shown + (f" and {len(names) - MOST_NAMES} more" if len(names) > MOST_NAMES else "")


def _models(folder: Path, facts: Facts) -> list[dict[str, Any]]:
    files = {name: model_path(folder, name) for name in facts.seconds}
    return [
        {
            "precision": name,
            "bytes": sum(part.stat().st_size for part in file.parent.glob(f"{file.name}*")),
            "seconds": facts.seconds[name],
        }
        for name, file in files.items()
    ]


def _parents(facts: Facts, model: onnx.ModelProto, metadata: Metadata) -> list[dict[str, str]]:
    """Return branch, file, hash, licence and maker of each parent; of a network without any its own."""
    props = {prop.key.lower(): prop.value for prop in model.metadata_props}

    def licence(branch: str, prefix: str) -> str:
        said = (props.get(f"{prefix}{name}") for name in ("license", "licence"))
        return facts.licences.get(branch) or next(filter(None, said), UNKNOWN)

    if metadata.parents:
        return [
            {
                "branch": p.branch,
                "name": p.name,
                "sha256": p.sha256,
                "producer": p.producer,
                "licence": licence(p.branch, f"{p.branch}/"),
            }
            for p in metadata.parents
        ]
    own = {"name": facts.source.name, "sha256": sha256(facts.source), "producer": model.producer_name}
    return [{"branch": "a", "licence": licence("a", ""), **own}]


def _measured(facts: Facts) -> str | None:
    """Return in words on which images the accuracies were measured."""
    if facts.selection is None:
        return None
    where = Path(facts.selection.data.where).name
    images = next(iter(facts.accuracies.values())).images
    return f"{images:,} {PARTS[facts.selection.part]} of {cell(where)}"


def _spelled(convention: Preprocess, found: Input) -> str:
    """Return in words what an input takes."""
    grey = len(found.offset) == 1
    if convention == Preprocess():
        return "luma in 0..1" if grey else "RGB in 0..1"
    order = "grey" if grey else convention.order.upper()
    mean, std = (", ".join(f"{x:g}" for x in numbers) for numbers in (convention.mean, convention.std))
    return f"({order} in 0..1 x {convention.scale:g} - [{mean}]) / [{std}]"


def _limits(facts: Facts, evaluation: Evaluation | None, parents: Sequence[Mapping[str, str]]) -> list[str]:
    """Return a sentence on each thing that a user should not expect."""
    found = [
        f"It names one of its {len(facts.labels)} classes whatever an image shows. Its probabilities are not "
        "calibrated: a high one is no proof.",
    ]
    if evaluation is not None and facts.selection is not None:
        if facts.selection.part == "val":
            found.append(
                "The images that were counted also chose the best epoch: expect a little less on new ones."
            )
        elif facts.selection.part in ("train", "all"):
            found.append("Images that trained it were counted: expect less on new ones.")
        seen = sorted((s for s in evaluation.scores if s.recall is not None), key=lambda s: s.recall or 0.0)
        worst = ", ".join(f"{cell(score.name)} {_percent(score.recall)}" for score in seen[:WORST])
        found.append(f"Lowest recall: {worst}.")
    unknown = [cell(parent["name"]) for parent in parents if parent["licence"] == UNKNOWN]
    if unknown:
        found.append(
            f"The licence of {' and '.join(unknown)} is not known here: ask its publisher before you pass "
            "the network on."
        )
    found.append("Times are those of one machine; measure on yours.")
    return found
