"""One folder with all that it takes to run a network elsewhere, and to know that it still is what it was.

| in the bundle | what it is |
|---|---|
| `MODEL_CARD.md` | where the network comes from, how good and how fast it is, what it cannot do |
| `models/<precision>.onnx` | the network |
| `labels.txt` | class names, in the order of the outputs |
| `predict.py`, `requirements.txt` | classifies images with ONNX Runtime, NumPy and Pillow alone |
| `selfcheck/` | images, and the probabilities that each precision must give, with a tolerance |
| `triton/<name>/` | a model repository of the Triton Inference Server |
| `bundle.json` | the input convention, for programs |
| `SHA256SUMS` | of every other file, as `sha256sum --check` reads it |
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from graftonnx.bundling.making import bundle
    from graftonnx.bundling.verifying import verify

__all__ = ["bundle", "verify"]


def __getattr__(name: str) -> Any:
    """Import ONNX Runtime only when something is bundled or verified."""
    if name == "bundle":
        from graftonnx.bundling.making import bundle

        return bundle
    if name == "verify":
        from graftonnx.bundling.verifying import verify

        return verify
    raise AttributeError(f"module 'graftonnx.bundling' has no attribute '{name}'")
