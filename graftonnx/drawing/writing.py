"""Write a picture as a page or as a figure."""

from __future__ import annotations

from pathlib import Path

from graftonnx import files
from graftonnx.drawing.figure import png, svg
from graftonnx.drawing.layout import lay_out
from graftonnx.drawing.page import render_page
from graftonnx.drawing.picture import open_picture
from graftonnx.errors import GraftError
from graftonnx.network import Network
from graftonnx.plan import Plan

SUFFIXES = (".html", ".svg", ".png")


def check_output(path: Path, *, force: bool) -> None:
    """Refuse a target of a picture that cannot or should not be written.

    Raises:
        GraftError: If its suffix says neither page, SVG nor PNG, it exists and `force` is false, or its
            folder cannot be written.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise GraftError(
            f"cannot draw to '{path}': its name ends with '{path.suffix}'; expected {', '.join(SUFFIXES)}."
        )
    files.check_writable(path, force=force)


def view(
    source: str | Path | Network | Plan,
    *parents: str | Path | Network,
    output: str | Path | None = None,
    force: bool = False,
    dequantize: bool = False,
) -> Path:
    """Draw a network, a plan, a fused file or a run.

    Args:
        source: An ONNX file, fused or not; a plan file; a run folder; or the first two in memory.
        *parents: Of a plan, in the order of its branches.
        output: `.html` for a page, which needs nothing but a browser; `.svg` or `.png` for a figure. By
            default a page in the current folder, called like the source.
        force: Whether an existing file may be replaced.
        dequantize: Whether quantised networks are drawn as ones of floats; otherwise they are refused.

    Returns:
        The written file.

    Raises:
        GraftError: If the source cannot be read, the parents are not those of the plan, or the target exists
            and `force` is false, or cannot be written.
    """
    output = Path(f"{_stem(source)}.html" if output is None else output)
    check_output(output, force=force)
    picture = open_picture(source, parents, dequantize=dequantize)
    scene = lay_out(picture)
    suffix = output.suffix.lower()
    if suffix == ".png":
        files.write_bytes(output, png(scene))
    else:
        files.write_text(output, svg(scene) if suffix == ".svg" else render_page(picture, scene))
    return output


def _stem(source: str | Path | Network | Plan) -> str:
    """Return what the page of a source is called, without its suffix."""
    if isinstance(source, Plan):
        return "plan"
    return Path(source.name).stem if isinstance(source, Network) else Path(source).resolve().stem
