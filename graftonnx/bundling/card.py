"""`MODEL_CARD.md`: where a network comes from, how good and how fast it is, and what it cannot do."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import jinja2
import onnx

from graftonnx import costs
from graftonnx.bundling.manifest import CARD, Input, Manifest
from graftonnx.bundling.measuring import Measured, spelled_machine
from graftonnx.bundling.origin import Origin
from graftonnx.classifier import Classifier
from graftonnx.comparison.markdown import table
from graftonnx.evaluation import TOP, Evaluation, Selection
from graftonnx.graph import GraphView
from graftonnx.metadata import Metadata, Preprocess, read_metadata
from graftonnx.plan import from_metadata
from graftonnx.printable import markdown_code, markdown_text
from graftonnx.reading import sha256
from graftonnx.training.run import versions
from graftonnx.weights import read

MOST_NAMES = 30
"""Classes up to which the first sentence names all."""

WORST = 3
"""Classes of lowest recall that are named."""

NOTHING = "-"

UNKNOWN = "unknown"
"""What stands for a licence, or a version, that nobody gave."""

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
        network: The first precision, open.
        models: All precisions, measured.
        selection: The images that were counted.
        origin: The run that trained it.
        licences: Of its parents, by branch, as the user gave them.
    """

    source: Path
    network: Classifier
    models: Sequence[Measured]
    selection: Selection | None
    origin: Origin | None
    licences: Mapping[str, str]


def write_card(folder: Path, manifest: Manifest, facts: Facts) -> None:
    """Write the card of a bundle."""
    skeleton, _ = read(facts.source)
    metadata, view = read_metadata(skeleton), GraphView(skeleton.graph)
    parents = _parents(facts, skeleton, metadata)
    evaluation = facts.models[0].evaluation
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("graftonnx.bundling", "files"),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(cell=cell, code=markdown_code, percent=_percent)
    text = environment.get_template(f"{CARD}.jinja").render(
        name=manifest.name,
        labels=facts.network.labels,
        shown_labels=_listed(facts.network.labels),
        parents=parents,
        exchanges=len(from_metadata(metadata.plan).skips) if metadata.plan else 0,
        head=metadata.head,
        models="\n".join(table(*_models(facts.models))),
        measured=_measured(facts),
        runtime=_runtime(),
        machine=spelled_machine(),
        size=manifest.size,
        inputs=manifest.inputs,
        conventions={
            name: _spelled(facts.network.preprocess, found) for name, found in manifest.inputs.items()
        },
        output=facts.network.session.output_names[0],
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
    """Return text for one line of Markdown; a dash for none."""
    return markdown_text(str(text)) or NOTHING


def _runtime() -> str:
    """Return the version of ONNX Runtime, by either name of its package."""
    found = versions()
    return found.get("onnxruntime-gpu") or found.get("onnxruntime") or UNKNOWN


def _percent(share: float | None) -> str:
    return NOTHING if share is None else f"{share:.2%}"


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(map(cell, names[:MOST_NAMES]))
    return shown + (f" and {len(names) - MOST_NAMES} more" if len(names) > MOST_NAMES else "")


def _models(models: Sequence[Measured]) -> tuple[list[str], list[list[str]]]:
    """Return the header and the rows of the precisions; what was not measured has no column."""
    columns: dict[str, Callable[[Measured], str]] = {
        "precision": lambda model: f"{model.precision}: `models/{model.precision}.onnx`",
        "size": lambda model: f"{model.bytes / 1e6:.1f} MB",
        "one image": lambda model: f"{1e3 * model.seconds:.2f} ms",
        "answers as before": lambda model: _percent(_agreement(model)),
        "top-1": lambda model: _percent(model.evaluation.top1 if model.evaluation else None),
        "top-5": lambda model: _percent(_top5(model.evaluation)),
        "loss": lambda model: f"{model.evaluation.loss:.4f}" if model.evaluation else NOTHING,
    }
    cells = {heading: [give(model) for model in models] for heading, give in columns.items()}
    shown = {heading: column for heading, column in cells.items() if set(column) != {NOTHING}}
    return list(shown), [list(row) for row in zip(*shown.values(), strict=True)]


def _top5(evaluation: Evaluation | None) -> float | None:
    """Return the share of images whose class is among five; None where there are no more than five."""
    return evaluation.top5 if evaluation is not None and len(evaluation.labels) > TOP else None


def _agreement(model: Measured) -> float | None:
    """Return the share of images that get the answer of the network that was exported."""
    found = model.fidelity
    return found.agreement if found is not None and not found.random else None


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
    evaluation = facts.models[0].evaluation
    if facts.selection is None or evaluation is None:
        return None
    where, images = Path(facts.selection.data.where).name, evaluation.images
    return f"{images:,} {PARTS[facts.selection.part]} of {cell(where)}"


def _spelled(convention: Preprocess, found: Input) -> str:
    """Return in words what an input takes."""
    channels, (height, width) = len(found.offset), found.size
    extents = f"{channels}, {height}, {width}" if found.layout == "nchw" else f"{height}, {width}, {channels}"
    return f"{found.type} [batch, {extents}], {_values(convention, found)}"


def _values(convention: Preprocess, found: Input) -> str:
    order = "luma" if len(found.offset) == 1 else convention.order.upper()
    if found.type == "uint8":
        return f"{order} in 0..255"
    plain = Preprocess(order=convention.order)
    if convention == plain:
        return f"{order} in 0..1"
    mean, std = (", ".join(f"{x:g}" for x in numbers) for numbers in (convention.mean, convention.std))
    return f"({order} in 0..1 x {convention.scale:g} - [{mean}]) / [{std}]"


def _limits(facts: Facts, evaluation: Evaluation | None, parents: Sequence[Mapping[str, str]]) -> list[str]:
    """Return a sentence on each thing that a user should not expect."""
    found = [
        f"It names one of its {len(facts.network.labels)} classes whatever an image shows. Its probabilities "
        "are not "
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
