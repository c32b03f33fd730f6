"""Figures of matplotlib that look the same everywhere, whatever a `matplotlibrc` says."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Literal

from graftonnx.errors import GraftError
from graftonnx.printable import printable

if TYPE_CHECKING:
    from matplotlib.figure import Figure

RC_FILE = "matplotlibrc"


def load() -> None:
    """Import matplotlib; the `matplotlibrc` of the current folder, which may be a stranger's, is not read.

    Raises:
        GraftError: If its settings elsewhere cannot be read.
    """
    elsewhere = contextlib.chdir(os.sep) if os.path.lexists(RC_FILE) else contextlib.nullcontext()
    try:
        with elsewhere:
            import matplotlib as mpl  # noqa: F401  # reads its settings now
    except (ValueError, UnicodeDecodeError) as error:
        raise GraftError(
            f"cannot draw: matplotlib cannot read its own settings: {printable(str(error)).splitlines()[0]}. "
            "Mend the matplotlibrc of your account, or the variables MPLBACKEND and MATPLOTLIBRC."
        ) from error


@contextlib.contextmanager
def figure(
    width: float, height: float, *, dpi: float = 120, layout: Literal["constrained"] | None = "constrained"
) -> Iterator[Figure]:
    """Yield an empty figure, which is drawn and written in the block with matplotlib's own defaults.

    Args:
        width: In inches.
        height: Likewise.
        dpi: Pixels of an inch.
        layout: How its parts find their places.
    """
    load()
    import matplotlib as mpl
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with mpl.rc_context():
        mpl.rcdefaults()
        figure = Figure((width, height), dpi, layout=layout)
        FigureCanvasAgg(figure)
        yield figure
