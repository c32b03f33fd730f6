"""Write the deployable file of a trained network, proven to compute the same.

Nothing is written before ONNX Runtime has run the new network beside the old one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from graftonnx import files
from graftonnx.classifier import model_file, open_classifier
from graftonnx.errors import DataError, ParityError
from graftonnx.exporting.draft import Draft
from graftonnx.exporting.fidelity import AGREEMENT, RANDOM, Fidelity, compare
from graftonnx.exporting.form import ElementType, Form
from graftonnx.exporting.pictures import for_calibration, labelled, random_pictures
from graftonnx.folding import Folded
from graftonnx.metadata import ImageLayout, Precision, Preprocess, read_metadata


@dataclass(frozen=True)
class Export:
    """What was written.

    Attributes:
        path: The file.
        source: The network that it was made from.
        nodes_before: Nodes in `source`.
        nodes: Nodes in the file.
        bytes_before: Size of `source`.
        bytes: Size of the file, external data included.
        folded: What was taken out.
        output: Name of the output.
        labels: Number of class names inside; 0 if there are none.
        difference: Largest difference between the outputs of `source` and the float32 form of the file, over
            random images, as a share of the largest output.
        tolerance: What `difference` may be at most.
        precision: Of the numbers in the file.
        kept: Nodes that stayed float32 in a file of another precision, since they do harm otherwise.
        fidelity: What its precision does to the answers, or float32 on the images given; None for float32
            without images.
    """

    path: Path
    source: Path
    nodes_before: int
    nodes: int
    bytes_before: int
    bytes: int
    folded: Folded
    output: str
    labels: int
    difference: float
    tolerance: float
    precision: Precision
    kept: tuple[str, ...]
    fidelity: Fidelity | None


def export(
    source: str | Path,
    output: str | Path,
    *,
    precision: Precision = "fp32",
    element: ElementType = "float",
    layout: ImageLayout = "nchw",
    size: tuple[int, int] | None = None,
    batch: int | None = None,
    opset: int | None = None,
    with_softmax: bool = True,
    labels: tuple[str, ...] | None = None,
    preprocess: Preprocess | str | None = None,
    data: str | Path | None = None,
    split_file: str | Path | None = None,
    calibrate: str | Path | None = None,
    accept_loss: bool = False,
    force: bool = False,
) -> Export:
    """Fold a trained network and write it as one deployable file.

    Args:
        source: A run folder, or an ONNX file.
        output: The file to write.
        precision: `fp32`; `fp16`, with float32 inputs and outputs; `bf16`, in which the weights are stored
            and not computed with; `int8`, which needs `calibrate` or `data`.
        element: `uint8` takes 8-bit pixels, and the normalisation goes inside.
        layout: Of the image inputs.
        size: Height and width of the images that the file takes, in pixels, which it resizes inside; (0, 0)
            for any; the network's own when omitted.
        batch: Images at once; any number when omitted.
        opset: Of the operators; the network's own when omitted.
        with_softmax: Whether the output is `probabilities`; otherwise the logits.
        labels: Class names that replace those in the file.
        preprocess: What the input expects, for a file that does not say so itself.
        data: Labelled images on which the file is compared with the network, as `eval` chooses them.
        split_file: The split of the run that trained the network; the one beside it when omitted.
        calibrate: Images that the range of values is taken from; training images of `data` when omitted.
        accept_loss: Whether a file is written whose answers differ more often than its precision explains.
        force: Whether an existing file may be replaced.

    Raises:
        GraftError: If `output` cannot be written.
        ModelError: If `source` cannot be read, is no image classifier, or was exported in another form.
        UnsupportedOpError: If an operator cannot be said in that opset or precision.
        DataError: If the labels do not fit, or the images cannot be read.
        ParityError: If the new network gives other numbers than the old one, or other answers.
    """
    form = Form(precision, element, layout, size, batch, opset, with_softmax)
    if precision == "int8" and calibrate is None and data is None:
        raise DataError("cannot quantise without images: give --calibrate, or --data.")
    output = Path(output)
    files.check_writable(output, force=force)
    path = model_file(source)
    draft = Draft(path, preprocess, form, labels)
    sameness = draft.check_same()
    classifier = open_classifier(path, provider="cpu", preprocess=preprocess, labels=draft.known)
    pictures = labelled(data, None, classifier, path, split_file) if data is not None else None
    kept: tuple[str, ...] = ()
    if precision != "fp32":
        given = calibrate or data
        ranges = for_calibration(given, path, split_file) if given is not None else random_pictures()
        kept = draft.convert(ranges)
        pictures = pictures or ranges
    fidelity = None
    if pictures is not None:
        fidelity = compare(classifier, draft.classifier(classifier.session.sizes), pictures)
    if fidelity is not None and not accept_loss:
        _check_agreement(path, precision, fidelity)
    draft.save(output, force=force)
    return Export(
        path=output,
        source=path,
        nodes_before=draft.nodes_before,
        nodes=len(draft.model.graph.node),
        bytes_before=_size(path),
        bytes=_size(output),
        folded=draft.folded,
        output=draft.model.graph.output[0].name,
        labels=len(read_metadata(draft.model).labels),
        difference=sameness.difference,
        tolerance=sameness.tolerance,
        precision=precision,
        kept=kept,
        fidelity=fidelity,
    )


def _check_agreement(path: Path, precision: Precision, found: Fidelity) -> None:
    """Refuse a file whose precision changes more than it should.

    Raises:
        ParityError: Saying how much.
    """
    if precision == "fp32":
        return
    if found.random:
        most = RANDOM[precision]
        if found.max_difference <= most:
            return
        what = f"probabilities of random images change by up to {found.max_difference:.2g}, expected {most:g}"
    else:
        least = AGREEMENT[precision]
        if found.agreement >= least:
            return
        same, enough = round(found.agreement * found.images), math.ceil(least * found.images)
        answers = f"{same} of {found.images} {found.pictures}"
        what = f"{answers} get the same answer, expected at least {enough} ({least:.1%})"
    raise ParityError(
        f"cannot export '{path}' in {precision}: {what}. Nothing is written. Choose another --precision, "
        f"give {'--data' if found.random else 'other images'}, or pass --accept-loss."
    )


def _size(path: Path) -> int:
    """Return the bytes of a file and of its external data."""
    data = path.with_name(f"{path.name}.data")
    return path.stat().st_size + (data.stat().st_size if data.is_file() else 0)
