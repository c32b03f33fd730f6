"""Pictures look the same in every folder."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path

import matplotlib as mpl
import pytest
from PIL import Image

from graftonnx import plotting

RC_FILES = {
    "another program and much memory": b"text.usetex: True\nsavefig.dpi: 1000000\n",
    "words that are no settings": b"nothing\nof: this\n",
    "no text": b"\xff\xfe",
}

DRAWINGS = {
    "the curves": (
        "from graftonnx.training.history import Epoch, write_curves\n"
        "row = Epoch(**{**dict.fromkeys(Epoch.model_fields, 0.5), 'epoch': 1})\n"
        "write_curves(folder / 'drawn.png', [row])"
    ),
    "the confusion": (
        "import numpy as np\n"
        "from graftonnx.evaluation import Evaluation\n"
        "from graftonnx.training.report.pictures import draw_confusion\n"
        "draw_confusion(folder / 'drawn.png', Evaluation(('a', 'b'), np.eye(2, dtype=int), 2, 0.5, 'cpu'))"
    ),
    "a font": "from graftonnx.training.report.pictures import _font; _font()",
    "a chart": "from graftonnx.training.report.charts import _ticks; _ticks(0, 1)",
    "a training": "from graftonnx.training import train",
}


@pytest.mark.parametrize(
    ("content", "drawing"),
    [
        *((content, DRAWINGS["the curves"]) for content in RC_FILES.values()),
        *((RC_FILES["no text"], drawing) for drawing in list(DRAWINGS.values())[1:]),
    ],
    ids=[*RC_FILES, *list(DRAWINGS)[1:]],
)
def test_settings_in_the_current_folder_are_not_read(content: bytes, drawing: str, tmp_path: Path) -> None:
    (tmp_path / plotting.RC_FILE).write_bytes(content)
    program = (
        f"from pathlib import Path\nfolder = Path()\n{drawing}\nassert Path.cwd() == Path({str(tmp_path)!r})"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert (done.returncode, done.stderr) == (0, "")
    for picture in tmp_path.glob("*.png"):
        with Image.open(picture) as image:
            assert max(image.size) < 2000


@pytest.mark.parametrize("variable", ["MPLBACKEND", "MATPLOTLIBRC"])
def test_settings_that_cannot_be_read_get_a_sentence(variable: str, tmp_path: Path) -> None:
    (tmp_path / "settings").write_bytes(b"\xff\xfe")
    values = {"MPLBACKEND": "none\x1b", "MATPLOTLIBRC": str(tmp_path / "settings")}
    program = (
        "from graftonnx import errors, plotting\n"
        "try: plotting.load()\n"
        "except errors.GraftError as error: print(error)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, variable: values[variable]},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.stdout.startswith("cannot draw: matplotlib cannot read its own settings: ")
    assert done.stdout.endswith("or the variables MPLBACKEND and MATPLOTLIBRC.\n")
    assert "\x1b" not in done.stdout


def test_settings_of_the_process_change_no_figure_and_stay() -> None:
    settings = {"savefig.dpi": 300, "text.usetex": True}
    with mpl.rc_context(settings):
        with plotting.figure(2, 1) as figure:
            figure.text(0.5, 0.5, "a word")
            content = io.BytesIO()
            figure.savefig(content)
        assert {name: mpl.rcParams[name] for name in settings} == settings
    with Image.open(content) as image:
        assert image.size == (240, 120)
