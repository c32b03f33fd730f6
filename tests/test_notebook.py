"""How objects look in a notebook."""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path

import pytest
from builders import plain_cnn, residual_cnn, saved

from graftonnx import load, match, notebook
from graftonnx.comparison.record import AVERAGE, CONCATENATED, FUSED, Comparison, Request, Standing
from graftonnx.comparison.significance import Estimate
from graftonnx.training.config import TrainConfig, TrainResult

EVIL = "<script>alert('&')</script>"


class Cells(HTMLParser):
    """Reads the texts of cells, and names every tag."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.texts: list[str] = []
        self.tags: set[str] = set()
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.tags.add(tag)

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def cells(shown: object) -> list[str]:
    read = Cells(shown._repr_html_())  # type: ignore[attr-defined] # as Jupyter calls it
    assert "script" not in read.tags
    return read.texts


def test_every_cell_is_escaped() -> None:
    read = Cells(notebook.table([(EVIL, 1)], headings=(EVIL, "b"), caption=EVIL))
    assert read.texts == [EVIL, EVIL, "b", EVIL, "1"]
    assert "script" not in read.tags


def test_what_turns_text_around_is_spelt_out() -> None:
    page = notebook.table([("a\u202eb", 1)], headings=("\x1b", "b"), caption="c\udcffd")
    assert Cells(page).texts == [r"c\udcffd", r"\x1b", "b", r"a\u202eb", "1"]
    assert page.encode()


def test_long_tables_are_cut_and_say_so() -> None:
    read = Cells(notebook.table([(n, "x") for n in range(notebook.MOST_ROWS + 7)]))
    assert read.texts[-1] == "… and 7 more"
    assert read.texts.count("x") == notebook.MOST_ROWS


def test_a_network_and_a_plan(tmp_path: Path) -> None:
    name = "<b>&.onnx"
    saved(residual_cnn(depth=3), tmp_path / name)
    saved(plain_cnn((8, 16, 32), seed=1), tmp_path / "b.onnx")
    a, b = load(tmp_path / name), load(tmp_path / "b.onnx")
    shown = cells(b)
    assert shown[0] == "b.onnx"
    assert shown[shown.index("input") + 1].endswith(" [N, 3, 16, 16]")
    assert shown[shown.index("classes") + 1] == "4"
    plan = match(a, b, max_skips=1)
    shown = cells(plan)
    assert shown[0] == f"1 exchanges (a: {name}, b: b.onnx)"
    assert {skip.source for skip in plan.skips} < set(shown)


@pytest.fixture
def result(tmp_path: Path) -> TrainResult:
    return TrainResult(
        run=tmp_path / EVIL.replace("/", ""), model=tmp_path / "model.onnx", labels=("x", "y"), epochs=3,
        best_epoch=2, val_images=10, val_accuracy=0.9, val_accuracy_torch=0.9, val_loss=0.1, seconds=1.0,
        images_per_second=2.0, device="cpu", precision="fp32", layout="contiguous",
    )  # fmt: skip


def test_a_finished_run(result: TrainResult) -> None:
    shown = cells(result)
    assert shown[0] == str(result.run)
    assert shown[shown.index("validation accuracy") + 1] == "90.00% of 10 images (ONNX Runtime)"


def test_a_comparison(tmp_path: Path) -> None:
    estimate = Estimate(value=0.5, low=0.4, high=0.6)
    networks = tuple(
        Standing(
            name=name, description=EVIL, accuracies=(0.5,), accuracy=estimate, parameters=1000, macs=10**6,
            bytes=4000, latency=0.001, train_seconds=1.0,
        )
        for name in ("a", AVERAGE, CONCATENATED, FUSED)
    )  # fmt: skip
    comparison = Comparison(
        request=Request(source=tmp_path / "f.onnx", source_sha256="", data="d", config=TrainConfig()),
        config=TrainConfig(), seeds=(0,), part="val", images=(10,), redrawn=True, basis="", device="cpu",
        precision="fp32", layout="contiguous", networks=networks, better_parent="a", contests=(),
        verdict=f"The skips {EVIL} helped.",
    )  # fmt: skip
    shown = cells(comparison)
    assert shown[0] == comparison.verdict
    assert f"fused: {EVIL}" in shown
    assert "50.00% [40.00, 60.00]" in shown
