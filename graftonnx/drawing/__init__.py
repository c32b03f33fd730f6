"""Draw networks, plans, fused files and runs: pages to look around in, figures for papers.

file, plan or run -> picture (blocks, skips) -> scene (shapes at their places) -> page | SVG | PNG
"""

from graftonnx.drawing.explanation import explain_plan
from graftonnx.drawing.writing import view

__all__ = ["explain_plan", "view"]
