"""Is a bundle still what it was, and does it compute here what it computed there?

Nothing in the bundle is executed but its networks, by ONNX Runtime.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import onnx

from graftonnx import limits
from graftonnx.bundling.manifest import (
    CARD,
    EXAMPLE,
    INPUTS,
    LABELS,
    MANIFEST,
    WRITTEN,
    Manifest,
    external_path,
    inputs_of,
    model_path,
    outputs_path,
    read_manifest,
    template,
    triton_path,
    unfit,
)
from graftonnx.bundling.selfcheck import check_outputs
from graftonnx.bundling.sums import SUMS, check_sums
from graftonnx.bundling.triton import check_repository, repository
from graftonnx.classifier import Classifier, open_classifier
from graftonnx.errors import GraftError, ModelError
from graftonnx.files import check_text
from graftonnx.normalise.sizes import check_sizes
from graftonnx.providers import Provider
from graftonnx.reading import read_text, sha256
from graftonnx.weights import read

_COPIES = 3
"""Of a file's bytes, which the checker holds: as it reads them, parsed, and with shapes."""


@dataclass(frozen=True)
class VerifiedModel:
    """A precision that gives what was recorded.

    Attributes:
        precision: Its name.
        difference: Largest difference of a probability.
        tolerance: What that may be at most.
    """

    precision: str
    difference: float
    tolerance: float


@dataclass(frozen=True)
class Verified:
    """A bundle that is what it was.

    Attributes:
        name: Of the bundle.
        files: Number of files.
        foreign: Programs in it, and what they need, that are not as this version of graftonnx writes them.
        provider: Where its networks ran.
        models: Its precisions.
    """

    name: str
    files: int
    foreign: tuple[str, ...]
    provider: str
    models: tuple[VerifiedModel, ...]


def verify(folder: str | Path, *, provider: Provider = "cpu") -> Verified:
    """Check every file of a bundle by its sum, and each network by what it computes.

    Args:
        folder: The bundle.
        provider: Where to run its networks.

    Raises:
        GraftError: If a file was changed, is missing or is too many, or the files do not fit each other.
        ModelError: If a network is not valid ONNX, or ONNX Runtime does not take it.
        ParityError: If a network gives other probabilities than were recorded.
        RuntimeProviderError: If the provider cannot be used here.
    """
    folder = Path(folder)
    check_text(folder, "verify", "Rename it.")
    files = check_sums(folder)
    manifest = read_manifest(folder)
    _check_contents(folder, manifest, files)
    foreign = tuple(
        name for name in WRITTEN if sha256(folder / name) != hashlib.sha256(template(name)).hexdigest()
    )
    return Verified(manifest.name, len(files), foreign, *_checked(folder, manifest, provider))


def _check_contents(folder: Path, manifest: Manifest, files: frozenset[str]) -> None:
    """Refuse files that no bundle has, which Triton may serve and Python import, and a lack of others."""
    required = {SUMS, MANIFEST, CARD, LABELS, INPUTS, EXAMPLE, *WRITTEN}
    allowed: set[str] = set()
    for precision, model in manifest.models.items():
        required |= {path(Path(), precision).as_posix() for path in (model_path, outputs_path)}
        allowed.add(external_path(Path(), precision).as_posix())
        served, more = repository(precision, model.triton)
        required |= served
        allowed |= more
    for what, names in (("no part of a bundle", files - required - allowed), ("missing", required - files)):
        if names:
            listed = ", ".join(f"'{name}'" for name in sorted(names))
            raise GraftError(f"cannot trust '{folder}': {what}: {listed}. Make the bundle anew.")


def _checked(folder: Path, manifest: Manifest, provider: Provider) -> tuple[str, tuple[VerifiedModel, ...]]:
    """Check every precision; return where they ran, and what came out."""
    labels = _labels(folder / LABELS)
    why = unfit(labels)
    if why is not None:
        raise GraftError(f"cannot use '{folder / LABELS}': {why}. Make the bundle anew.")
    found = []
    for precision, model in manifest.models.items():
        path = model_path(folder, precision)
        _check_onnx(path)
        classifier = open_classifier(path, provider=provider)
        _check_manifest(folder, manifest, classifier, labels)
        check_repository(folder, precision, model.triton)
        if _labels(triton_path(folder, model.triton) / LABELS) != labels:
            raise GraftError(
                f"cannot serve '{triton_path(folder, model.triton)}': its {LABELS} are not the bundle's. "
                "Make the bundle anew."
            )
        found.append(VerifiedModel(precision, *check_outputs(folder, precision, classifier)))
    return classifier.session.provider, tuple(found)


def _labels(path: Path) -> tuple[str, ...]:
    try:
        return tuple(read_text(path).splitlines())
    except (OSError, UnicodeDecodeError) as error:
        raise GraftError(f"cannot read '{path}': {error}. Make the bundle anew.") from error


def _check_onnx(path: Path) -> None:
    """Run onnx's checker, once the file is known not to crash it or to fill the memory.

    Raises:
        ModelError: If it is no sound ONNX file, or one of its values would not fit into memory.
        GraftError: If the checker complains.
    """
    skeleton, _ = read(path)
    try:
        check_sizes(skeleton)
        with limits.bounded("onnx's checker", _COPIES * path.stat().st_size):
            onnx.checker.check_model(str(path), full_check=True)
    except ModelError as error:
        raise error.at(f"cannot run '{path}'") from error
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError, OSError) as error:
        raise GraftError(
            f"'{path}' is not valid ONNX: {' '.join(str(error).split())} Make the bundle anew."
        ) from error


def _check_manifest(
    folder: Path, manifest: Manifest, classifier: Classifier, labels: tuple[str, ...]
) -> None:
    """Refuse a bundle whose words about a network are not the network's own."""
    for what, said, own in (
        ("labels", labels, classifier.labels),
        ("image size", manifest.size, classifier.size),
        ("inputs", manifest.inputs, inputs_of(classifier)),
    ):
        if said != own:
            raise GraftError(
                f"'{folder}' contradicts itself: its {what} are not those in '{classifier.session.name}'. "
                "Make it anew."
            )
