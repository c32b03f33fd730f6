"""Take out of a trained network what inference does not need, without changing what it computes."""

from graftonnx.folding.operators import Folded, fold_operators, fold_skeleton

__all__ = ["Folded", "fold_operators", "fold_skeleton"]
