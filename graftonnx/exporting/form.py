"""What an exported file shall look like."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from graftonnx.metadata import ImageLayout, Precision

ElementType = Literal["float", "uint8"]
"""Of an image input: float32 in the network's own convention, or 8-bit pixels as they come from a camera."""


@dataclass(frozen=True)
class Form:
    """The choices.

    Attributes:
        precision: Of its numbers.
        element: Of its image inputs.
        layout: Of its image inputs.
        size: Height and width of the images that it takes, in pixels; 0 and 0 for any; None for the network's
            own. Images of another size are reduced or enlarged inside.
        batch: Images at once; None for any number.
        opset: Of its operators; None for the network's own.
        with_softmax: Whether its output is probabilities; otherwise the logits.
    """

    precision: Precision = "fp32"
    element: ElementType = "float"
    layout: ImageLayout = "nchw"
    size: tuple[int, int] | None = None
    batch: int | None = None
    opset: int | None = None
    with_softmax: bool = True
