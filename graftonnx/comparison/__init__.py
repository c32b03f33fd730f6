"""Did fusion help? A fused network against its parts, on the same images, budget and seeds.

| network | what it is |
|---|---|
| `a`, `b`, … | each parent fine-tuned alone, with a head of the same kind and hidden width |
| `average` | the mean of their probabilities |
| `concatenated` | the fused network without its exchanges |
| `fused` | the fused network |
| by its name | each other file that the same parents were fused to |

Every network starts from the weights that the fused file holds for its branches and exchanges, and from a
head drawn by the seed; see :mod:`graftonnx.variants`. So with a file that `graftonnx fuse` wrote the parents
start as they were pretrained; with the `model.onnx` of a run from what they have learnt together.

A seed stands for the head's first weights, the split, the order of the images, augmentation and dropout.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from graftonnx.comparison.comparing import compare
    from graftonnx.comparison.record import Comparison

__all__ = ["Comparison", "compare"]


def __getattr__(name: str) -> Any:
    """Import SciPy, PyTorch and ONNX Runtime only when something is compared."""
    if name == "compare":
        from graftonnx.comparison.comparing import compare

        return compare
    if name == "Comparison":
        from graftonnx.comparison.record import Comparison

        return Comparison
    raise AttributeError(f"module 'graftonnx.comparison' has no attribute '{name}'")
