"""Make a bundle: every file beside its place first, verified, and then renamed."""

from __future__ import annotations

import contextlib
import functools
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from graftonnx.bundling import selfcheck
from graftonnx.bundling.card import Facts, write_card
from graftonnx.bundling.manifest import (
    LABELS,
    MANIFEST,
    WRITTEN,
    Manifest,
    Model,
    inputs_of,
    model_path,
    template,
    unfit,
)
from graftonnx.bundling.measuring import Measured, measure
from graftonnx.bundling.origin import Origin, origin_of
from graftonnx.bundling.sums import SUMS, write_sums
from graftonnx.bundling.triton import write_repository
from graftonnx.bundling.verifying import Verified, verify
from graftonnx.classifier import Classifier, model_file, open_classifier
from graftonnx.errors import DataError, GraftError
from graftonnx.evaluation import Selection, select
from graftonnx.exporting import export
from graftonnx.exporting.form import ElementType
from graftonnx.files import check_text, is_folder, made_folder, replace_folder, sweep
from graftonnx.images import Pixels
from graftonnx.metadata import ImageLayout, Precision, Preprocess

_FIT, _UNFIT = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]*"), re.compile(r"[^A-Za-z0-9_.-]+")


@dataclass(frozen=True)
class Bundle:
    """What was made.

    Attributes:
        path: The folder.
        verified: What verifying it gave.
        models: Its precisions.
        selection: The images that were counted; None if nobody gave any.
    """

    path: Path
    verified: Verified
    models: tuple[Measured, ...]
    selection: Selection | None


def bundle(
    source: str | Path,
    output: str | Path,
    *,
    precisions: Sequence[Precision] = ("fp32",),
    name: str | None = None,
    element: ElementType = "float",
    layout: ImageLayout = "nchw",
    data: str | Path | None = None,
    split_file: str | Path | None = None,
    calibrate: str | Path | None = None,
    accept_loss: bool = False,
    labels: tuple[str, ...] | None = None,
    preprocess: Preprocess | str | None = None,
    licences: Mapping[str, str] | None = None,
    force: bool = False,
    on_step: Callable[[str], object] | None = None,
) -> Bundle:
    """Make a folder with all that it takes to run a network elsewhere.

    Args:
        source: A run folder, or an ONNX file.
        output: The folder to make.
        precisions: Of the networks in it; the first one counts where none is asked for.
        name: Of the network; by default that of the output folder.
        element: As in :func:`graftonnx.export`, like `layout`, `calibrate` and `accept_loss`.
        layout: Likewise.
        data: Labelled images to measure on; by default those that validated or tested the run.
        split_file: The split of the run that trained the network, for `data`.
        calibrate: Likewise.
        accept_loss: Likewise.
        labels: Class names that replace those in the file.
        preprocess: What the input expects, for a file that does not say so itself.
        licences: Of the parents, by branch.
        force: Whether a bundle that is there may be replaced.
        on_step: Called with what is done next, in words.

    Raises:
        GraftError: If the folder cannot be written, or holds something else than a bundle.
        ModelError: If `source` cannot be read or is no image classifier.
        DataError: If the labels or the data do not fit.
        ParityError: If an exported network gives other numbers than `source`.
    """
    source, output = Path(source), Path(output)
    report = on_step or (lambda step: None)
    _check_target(output, force=force)
    name = _name(name, output)
    origin = origin_of(source)
    selection = select(data, None, source=source, split_file=split_file) if data else _selection(origin)
    given = functools.partial(
        export,
        source,
        element=element,
        layout=layout,
        split_file=split_file,
        calibrate=calibrate,
        accept_loss=accept_loss,
        labels=labels,
        preprocess=preprocess,
    )
    with _published(output) as folder:
        exported = {}
        for precision in precisions:
            report(f"exporting {precision}")
            exported[precision] = given(
                model_path(folder, precision), precision=precision, data=_where(selection, precision)
            )
        classifiers = {
            precision: open_classifier(written.path, provider="cpu")
            for precision, written in exported.items()
        }
        first = classifiers[precisions[0]]
        _check_labels(source, first.labels)
        manifest = _manifest(name, classifiers)
        images = _write_contents(folder, manifest, classifiers)
        report("measuring")
        models = measure(exported, classifiers, images, selection)
        write_card(
            folder, manifest, Facts(model_file(source), first, models, selection, origin, licences or {})
        )
        write_sums(folder)
        report("verifying")
        verified = verify(folder)
    return Bundle(output, verified, models, selection)


def _selection(origin: Origin | None) -> Selection | None:
    return origin.selection if origin is not None else None


def _where(selection: Selection | None, precision: Precision) -> str | None:
    """Return the images on which an export is compared with its source; float32 needs none."""
    return selection.data.where if selection is not None and precision != "fp32" else None


def _check_labels(source: Path, labels: Sequence[str]) -> None:
    """Refuse class names that do not fit one line each, all different."""
    why = unfit(labels)
    if why is not None:
        raise DataError(f"cannot bundle '{source}': {why}. Give others with --labels FILE.")


def _name(given: str | None, output: Path) -> str:
    """Return the network's name: what was given, or what the folder's name allows."""
    if given is not None and not _FIT.fullmatch(given):
        raise GraftError(
            f"cannot name the network {given!r}: give letters, digits, '-', '_', and '.' behind the first."
        )
    return given or _UNFIT.sub("-", _place(output).name).strip(".-") or "network"


def _manifest(name: str, classifiers: Mapping[Precision, Classifier]) -> Manifest:
    first = next(iter(classifiers.values()))
    models = {
        precision: Model(triton=name if classifier is first else f"{name}_{precision}")
        for precision, classifier in classifiers.items()
    }
    return Manifest(name=name, size=first.size, inputs=inputs_of(first), models=models)


def _write_contents(folder: Path, manifest: Manifest, classifiers: Mapping[Precision, Classifier]) -> Pixels:
    """Write everything but card and sums; return the images of the selfcheck."""
    first = next(iter(classifiers.values()))
    labels = "".join(f"{label}\n" for label in first.labels)
    (folder / LABELS).write_text(labels, encoding="utf-8")
    (folder / MANIFEST).write_text(f"{manifest.model_dump_json(indent=2)}\n", encoding="utf-8")
    for name in WRITTEN:
        (folder / name).write_bytes(template(name))
    images = selfcheck.draw(first)
    selfcheck.write_inputs(folder, images)
    for precision, classifier in classifiers.items():
        selfcheck.write_outputs(folder, precision, classifier, images)
        write_repository(folder, precision, manifest.models[precision].triton, labels)
    return images


def _check_target(output: Path, *, force: bool) -> None:
    """Refuse a folder that cannot or should not be written, before any work is done."""
    if is_folder(output, "write the bundle to") and any(output.iterdir()):
        if not force:
            raise GraftError(
                f"cannot write the bundle to '{output}': it is not empty. Choose another -o, or pass --force "
                "to replace the bundle in it."
            )
        if not all((output / name).is_file() for name in (MANIFEST, SUMS)):
            raise GraftError(
                f"cannot replace '{output}': it is not empty, and what it holds is no bundle. Choose another "
                "-o."
            )
    check_text(_place(output), "write the bundle to", "Choose another -o.")
    if not _place(output).parent.is_dir():
        raise GraftError(
            f"cannot write the bundle to '{output}': the folder '{output.parent}' does not exist. Create it "
            "first."
        )


def _place(output: Path) -> Path:
    """Return where a folder will be, links followed.

    Raises:
        GraftError: If the current folder was removed.
    """
    try:
        return output.resolve()
    except FileNotFoundError as error:
        raise GraftError(
            f"cannot write the bundle to '{output}': the current folder does not exist any more. Go to "
            "another."
        ) from error


@contextlib.contextmanager
def _published(output: Path) -> Iterator[Path]:
    """Yield a new folder; when the block ends without an error it takes the place of `output`.

    An error in the block names `output` instead of the new folder, which is gone then.
    """
    place = _place(output)
    sweep(place)
    try:
        with made_folder(place) as temporary:
            for name in ("models", "selfcheck"):
                (temporary / name).mkdir()
            with _named(temporary, output):
                yield temporary
            replace_folder(temporary, place)
    except OSError as error:
        raise GraftError(f"cannot write the bundle to '{output}': {error.strerror or error}.") from error


@contextlib.contextmanager
def _named(temporary: Path, output: Path) -> Iterator[None]:
    """Let errors of the block name `output` in the place of what is gone then."""
    try:
        yield
    except GraftError as error:
        error.args = (error.message.replace(str(temporary), str(output)), *error.args[1:])
        raise
