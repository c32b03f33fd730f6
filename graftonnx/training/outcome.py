"""From the best epoch to `model.onnx`: written only after ONNX Runtime has confirmed every number in it."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import onnx
import torch
from torch.fx import GraphModule

from graftonnx.classifier import same_picture
from graftonnx.conversion import write_back
from graftonnx.data.cache import Images
from graftonnx.errors import ParityError
from graftonnx.images import to_input
from graftonnx.metadata import read_metadata, write_metadata
from graftonnx.runtime import open_session
from graftonnx.training.config import Device, TrainConfig
from graftonnx.training.finetuner import planes

TOLERANCE: dict[Device, float] = {"cpu": 1e-3, "cuda": 1e-2}
"""Largest difference of a logit between PyTorch and ONNX Runtime, relative to the largest logit of all.

Both compute in float32, in different orders: networks of a hundred layers differ by some 1e-5. On a GPU both
multiply in TF32, which has 10 bits: 1e-3 and more.
"""

ACCURACY = 1e-3
"""Largest difference of the two validation accuracies; one image on the border may always differ."""

LEARNT = 0.05
"""Of the way from always naming the most frequent class to no mistakes: less is hardly anything learnt."""

Logits = npt.NDArray[np.float32]


class Outcome(NamedTuple):
    """The trained model, and the share of validation images that each side gets right."""

    model: onnx.ModelProto
    accuracy: float
    accuracy_torch: float


def export(
    network: GraphModule, labels: tuple[str, ...], val: Images, batch_size: int, device: Device
) -> Outcome:
    """Write the network back into its graph, and compare both on all validation images.

    Args:
        network: What :func:`graftonnx.to_torch` made, with trained weights, on `device`.
        labels: Class names in the order of the logits.
        val: The validation images.
        batch_size: Images per run.
        device: Where both run.

    Raises:
        ParityError: If logits or accuracies differ by more than rounding.
    """
    model = write_back(network.cpu())
    write_metadata(model, read_metadata(model).model_copy(update={"labels": labels}))
    session = open_session(model, provider=device)
    network.to(device, memory_format=torch.contiguous_format).eval()  # type: ignore[call-overload]

    def in_torch(pixels: npt.NDArray[np.uint8]) -> Logits:
        with torch.inference_mode():
            logits: torch.Tensor = network(planes(torch.from_numpy(pixels).to(device)).contiguous())
        return logits.float().cpu().numpy()

    def in_runtime(pixels: npt.NDArray[np.uint8]) -> Logits:
        logits: Logits = session.run(*same_picture(session, to_input(pixels)))[0]
        return logits

    ours = _logits(in_torch, val, batch_size)
    theirs = _logits(in_runtime, val, batch_size)
    accuracy_torch = float((ours.argmax(1) == val.labels).mean())
    accuracy = float((theirs.argmax(1) == val.labels).mean())
    _compare(ours, theirs, accuracy_torch, accuracy, TOLERANCE[device])
    return Outcome(model, accuracy, accuracy_torch)


def learnt_nothing(accuracy: float, truth: npt.NDArray[np.int64], config: TrainConfig) -> str | None:
    """Return a sentence if a trained network is hardly better than one that always names the same class.

    Args:
        accuracy: Its share of right answers on the validation images.
        truth: Their classes, [N].
        config: How it was trained.
    """
    commonest = float(np.bincount(truth).max() / len(truth))
    if commonest == 1 or accuracy > commonest + LEARNT * (1 - commonest):
        return None
    advice = "train for more --epochs"
    if config.lr_branches and config.freeze != "branches":
        advice += (
            ", or, if the parents lost what they knew because they were trained too fast, with --lr-branches "
            f"{config.lr_branches / 10:g} instead of {config.lr_branches:g}"
        )
    return (
        f"note: the network has learnt next to nothing: {accuracy:.1%} of the validation images are right, "
        f"and always naming the most frequent class makes {commonest:.1%}; {advice}"
    )


def _logits(run: Callable[[npt.NDArray[np.uint8]], Logits], images: Images, batch_size: int) -> Logits:
    """Return the logits [N, K] of all images."""
    starts = range(0, len(images.labels), batch_size)
    return np.concatenate([run(images.pixels[start : start + batch_size]) for start in starts])


def _compare(ours: Logits, theirs: Logits, accuracy_torch: float, accuracy: float, tolerance: float) -> None:
    """Raise if the two sides differ by more than rounding."""
    scale = float(np.abs(ours).max()) or 1.0
    difference = float(np.abs(ours - theirs).max()) / scale
    allowed = max(ACCURACY, 1.5 / len(ours))
    if not difference <= tolerance or abs(accuracy - accuracy_torch) > allowed:
        raise ParityError(
            "cannot write the trained model: ONNX Runtime and PyTorch differ on the validation images: "
            f"accuracy {accuracy:.4f} against {accuracy_torch:.4f}, logits by {difference:.1e} of the "
            f"largest (allowed: {tolerance:.0e}). The best weights are kept in the run's checkpoints."
        )
