"""What stands in a run folder to be looked at, and how it is written anew."""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from training.report.conftest import CONFIG, ODD

from graftonnx.errors import DataError, GraftError
from graftonnx.pages import breakable, percent, short
from graftonnx.training import train
from graftonnx.training.history import Epoch, write_metrics
from graftonnx.training.report import rewrite_report, writing
from graftonnx.training.report.page import duration, render_page
from graftonnx.training.report.validation import Findings
from graftonnx.training.run import RunFolder


class Page(HTMLParser):
    """The elements of a page, with the text in them."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.texts.append(data.strip())

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def picture(mode: str, width: int, height: int, kind: str = "png") -> bytes:
    """Return an empty image of that size as a file."""
    content = io.BytesIO()
    Image.new(mode, (width, height)).save(content, kind)
    return content.getvalue()


STRANGE_PICTURES = {
    "eps": picture("RGB", 300, 300, "eps"),
    "another format": picture("RGB", 300, 300, "jpeg"),
    "another size": picture("RGB", 300, 300),
    "many pixels": picture("1", 16_000, 11_500),
    "nothing": b"",
}


STRANGE_FINDINGS: dict[str, dict[str, Any]] = {
    "no matrix": {"confusion": [1]},
    "ragged": {"confusion": [[1, 2], [3]]},
    "empty": {"confusion": []},
    "of one class": {"confusion": [[1]]},
    "without images": {"confusion": [[0] * 3] * 3},
    "negative": {"confusion": [[2, 0, 0], [0, -1, 0], [0, 0, 0]]},
    "a huge number": {"confusion": [[1 << 70, 0, 0], [0, 1, 0], [0, 0, 0]]},
    "a huge sum": {"confusion": [[1 << 62] * 3] * 3},
    "a huge number of hits": {"top5_hits": 10**400},
    "other labels": {"labels": ["a", "b", "c"]},
    "many labels": {"labels": ["a"] * 1000},
}


def page_of(run: RunFolder) -> Page:
    return Page(run.report.read_text(encoding="utf-8"))


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def copy(finished: RunFolder, tmp_path: Path) -> RunFolder:
    """The same run, to be changed."""
    return RunFolder(Path(shutil.copytree(finished.path, tmp_path / "run")))


class TestTheFolder:
    def test_holds_tables_of_what_was_found(self, finished: RunFolder) -> None:
        found = Findings.model_validate_json(finished.findings.read_text(encoding="utf-8"))
        confusion = rows_of(finished.confusion)
        assert [row["true"] for row in confusion] == list(found.labels)
        assert [[int(row[name]) for name in found.labels] for row in confusion] == [
            list(row) for row in found.confusion
        ]
        for row, score in zip(rows_of(finished.classes), found.evaluation.scores, strict=True):
            assert (row["class"], int(row["images"])) == (score.name, score.images)
            assert float(row["recall"]) == pytest.approx(score.recall, rel=1e-5)  # six digits
        for row, skip in zip(rows_of(finished.skips), found.strengths, strict=True):
            assert (row["source"], row["target"]) == (skip.source, skip.target)
            assert float(row["share"]) == pytest.approx(skip.share, rel=1e-5)  # likewise

    def test_holds_pictures(self, finished: RunFolder) -> None:
        for name in ("curves.png", "confusion.png", "skips.png", "mistakes.png"):
            with Image.open(finished.path / name) as picture:
                assert np.asarray(picture.convert("L")).std() > 1  # not blank

    def test_shows_each_mistake_in_its_place_of_the_grid(self, finished: RunFolder) -> None:
        found = Findings.model_validate_json(finished.findings.read_text(encoding="utf-8"))
        with (
            Image.open(finished.mistakes) as sheet,
            Image.open(Path(finished.read().data) / found.mistakes[0].image) as original,
        ):
            shown = np.asarray(sheet.crop((16, 16, 16 + 128, 16 + 128))).mean((0, 1))
            assert shown == pytest.approx(np.asarray(original).mean((0, 1)), abs=4)


class TestThePage:
    def test_loads_nothing_and_runs_nothing(self, finished: RunFolder) -> None:
        page = page_of(finished)
        assert page.all("script") == []
        addresses = [a[key] for _, a in page.tags for key in ("src", "href", "srcset", "data") if a.get(key)]
        assert [a for a in addresses if not (a or "").startswith(("data:", "#"))] == []
        style = re.search(r"<style>(.*?)</style>", finished.report.read_text(encoding="utf-8"), re.DOTALL)
        assert style is not None
        assert "url(" not in style[1]
        assert "@import" not in style[1]
        assert [a["content"] for a in page.all("meta") if a.get("http-equiv")] == [
            "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
        ]

    def test_is_small(self, finished: RunFolder) -> None:
        assert finished.report.stat().st_size < 2_000_000

    def test_shows_names_as_text(self, finished: RunFolder) -> None:
        page = page_of(finished)
        assert ODD in page.texts
        assert {a.get("onerror") for a in page.all("img")} == {None}

    def test_shows_the_accuracy_that_onnx_runtime_confirmed(self, finished: RunFolder) -> None:
        found = Findings.model_validate_json(finished.findings.read_text(encoding="utf-8"))
        assert f"{found.evaluation.top1:.2%}" in page_of(finished).texts

    def test_shows_every_setting_and_version(self, finished: RunFolder) -> None:
        texts, record = page_of(finished).texts, finished.read()
        assert set(record.config.model_dump()) - set(texts) == set()
        assert set(record.versions.values()) - set(texts) == set()
        assert str(record.data) in texts
        assert record.source_sha256 in texts

    def test_names_tables_and_pictures_for_those_who_do_not_see_them(self, finished: RunFolder) -> None:
        page = page_of(finished)
        assert len(page.all("caption")) == len(page.all("table")) >= 8
        assert [a for a in page.all("img") if not a.get("alt")] == []
        assert [a for a in page.all("svg") if not a.get("aria-label")] == []
        assert [a for a in page.all("th") if a.get("scope") not in ("row", "col")] == []

    def test_has_a_picture_of_each_mistake_and_a_row_for_each_skip(self, finished: RunFolder) -> None:
        found = Findings.model_validate_json(finished.findings.read_text(encoding="utf-8"))
        page = page_of(finished)
        assert len(page.all("img")) == len(found.mistakes)
        assert {str(breakable(skip.target)).count("<wbr>") for skip in found.strengths} == {1}
        assert f"{found.strengths[0].share:.1%}" in page.texts

    def test_of_many_classes_shows_a_picture_and_the_worst_pairs(self, copy: RunFolder) -> None:
        names = tuple(f"class {i}" for i in range(120))
        matrix = 5 * np.eye(120, dtype=int)
        matrix[3, 7] = 4
        found = Findings(
            labels=names,
            confusion=tuple(map(tuple, matrix.tolist())),
            top5_hits=600,
            loss=0.1,
            provider="cpu",
        )
        copy.findings.write_text(found.model_dump_json(), encoding="utf-8")
        html = render_page(copy, copy.read().model_copy(update={"labels": names}))
        page = Page(html)
        (heatmap,) = (a for a in page.all("img") if a.get("class") == "heatmap")
        assert (heatmap["src"] or "").startswith("data:image/png;base64,")
        place = page.texts.index("Taken for")
        assert [text for text in page.texts[place + 1 :] if text][1:4] == ["class 3", "class 7", "4"]
        assert "The other 95 classes" in page.texts
        assert len(html) < 2_000_000

    def test_of_a_hundred_epochs_names_the_best(self, copy: RunFolder) -> None:
        row = dict.fromkeys(Epoch.model_fields, 0.5)
        epochs = [Epoch(**{**row, "epoch": i, "val_accuracy": (i == 42) / 2}) for i in range(1, 101)]
        write_metrics(copy.metrics, epochs)
        texts = Page(render_page(copy, copy.read())).texts
        assert "42 (best)" in texts
        assert "of 100 run, 2 planned" in texts


class TestWritingItAnew:
    def test_gives_the_same_files(self, copy: RunFolder) -> None:
        before = {p.name: p.read_bytes() for p in copy.path.iterdir() if p.is_file()}
        for path in (copy.report, copy.findings, copy.mistakes, copy.confusion):
            path.unlink()
        assert rewrite_report(copy.path) == copy.report
        assert {p.name: p.read_bytes() for p in copy.path.iterdir() if p.is_file()} == before

    def test_of_data_that_has_moved_needs_to_know_where(
        self, copy: RunFolder, images: Path, tmp_path: Path
    ) -> None:
        text = copy.config.read_text(encoding="utf-8").replace(str(images), str(tmp_path / "gone"))
        copy.config.write_text(text, encoding="utf-8")
        notes: list[str] = []
        rewrite_report(copy.path, note=notes.append)
        assert notes == [
            f"Note: the data '{tmp_path / 'gone'}' is gone: what the network does is shown as it was "
            "measured earlier. Say where it is with --data."
        ]
        assert notes[0].removeprefix("Note: ") in page_of(copy).texts
        before = copy.report.read_bytes()
        with pytest.raises(DataError, match=r"cannot report on '.*run': there is no data at '.*nowhere'\."):
            rewrite_report(copy.path, data=tmp_path / "nowhere")
        assert copy.report.read_bytes() == before
        rewrite_report(copy.path, data=images, note=notes.append)
        assert len(notes) == 1
        assert page_of(copy).all("p")[1].get("class") != "note"
        copy.findings.unlink()
        with pytest.raises(DataError, match=r"cannot report on '.*run': the data '.*gone' is gone\. Say"):
            rewrite_report(copy.path)

    def test_of_a_run_that_is_not_finished_shows_what_there_is(self, copy: RunFolder) -> None:
        for path in (copy.model, copy.findings):
            path.unlink()
        notes: list[str] = []
        rewrite_report(copy.path, note=notes.append)
        assert notes == [
            "Note: the run is not finished: there is no trained network to examine. "
            f"Go on with graftonnx train --resume {copy.path}."
        ]
        headings = [a.get("id") for a in page_of(copy).all("section")]
        assert headings == ["curves", "data", "settings"]

    def test_before_the_first_epoch_works_too(self, copy: RunFolder) -> None:
        for path in (copy.model, copy.findings, copy.metrics):
            path.unlink()
        rewrite_report(copy.path)
        assert [a.get("id") for a in page_of(copy).all("section")] == ["data", "settings"]

    def test_removes_the_pictures_of_mistakes_that_are_no_more(
        self, copy: RunFolder, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def flawless(*arguments: Any) -> tuple[Findings, list[Any]]:
            found, _ = original(*arguments)
            right = tuple(tuple(5 * (i == j) for i in range(3)) for j in range(3))
            return found.model_copy(update={"mistakes": (), "confusion": right}), []

        original = writing.examine
        monkeypatch.setattr(writing, "examine", flawless)
        rewrite_report(copy.path)
        assert not copy.mistakes.exists()
        assert "None: every validation image is right." in page_of(copy).texts

    def test_refuses_a_folder_that_is_no_run(self, tmp_path: Path) -> None:
        with pytest.raises(GraftError, match=r"cannot report on '.*': there is no 'config\.yaml' in it\."):
            rewrite_report(tmp_path)

    @pytest.mark.parametrize("name", ["validation.json", "split.json"])
    @pytest.mark.parametrize("content", ["{", "[]", '{"train": 3}'])
    def test_refuses_files_that_are_damaged(self, copy: RunFolder, name: str, content: str) -> None:
        (copy.path / name).write_text(content)
        with pytest.raises(GraftError, match=rf"cannot read '.*{name}': it is "):
            render_page(copy, copy.read())

    @pytest.mark.parametrize("fields", STRANGE_FINDINGS.values(), ids=STRANGE_FINDINGS)
    def test_refuses_findings_that_no_images_give(self, copy: RunFolder, fields: dict[str, Any]) -> None:
        found = json.loads(copy.findings.read_text(encoding="utf-8"))
        copy.findings.write_text(json.dumps({**found, **fields}), encoding="utf-8")
        with pytest.raises(GraftError, match=r"cannot read '.*validation\.json': it is damaged\. Remove it"):
            render_page(copy, copy.read())

    @pytest.mark.parametrize("content", STRANGE_PICTURES.values(), ids=STRANGE_PICTURES)
    def test_refuses_a_grid_of_mistakes_that_it_did_not_draw(self, copy: RunFolder, content: bytes) -> None:
        copy.mistakes.write_bytes(content)
        with pytest.raises(GraftError, match=r"cannot read '.*mistakes\.png': it is damaged\. Remove it"):
            render_page(copy, copy.read())

    def test_takes_a_grid_of_mistakes_of_another_colour_mode(self, copy: RunFolder) -> None:
        with Image.open(copy.mistakes) as sheet:
            sheet.convert("RGBA").save(copy.mistakes)
        assert len(Page(render_page(copy, copy.read())).all("img")) > 0

    def test_refuses_metrics_that_are_none(self, copy: RunFolder) -> None:
        copy.metrics.write_text("epoch,loss\n1,much\n")
        with pytest.raises(GraftError, match=r"cannot read '.*metrics\.csv': it is not a record of epochs\."):
            rewrite_report(copy.path)


def test_a_report_that_fails_loses_no_network(
    images: Path, finished: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*arguments: Any) -> Iterator[None]:
        raise OSError("no space left")

    notes: list[str] = []
    monkeypatch.setattr(writing, "draw_confusion", full)
    source = finished.path.parent / "fused.onnx"
    config = CONFIG.model_copy(update={"epochs": 1})
    result = train(source, images, tmp_path / "run", config, note=notes.append)
    assert result.model.is_file()
    assert notes[-1] == (
        "Note: the network is written, its report is not complete (OSError: no space left). "
        f"Try `graftonnx report {tmp_path / 'run'}`."
    )


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0 s"), (59.4, "59 s"), (61, "1 min 1 s"), (3600, "1 h 0 min"), (9000, "2 h 30 min")],
)
def test_durations_have_two_units(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("value", "text"), [(12, "12"), (779825, "780 k"), (23.42e6, "23.4 M"), (5.7e9, "5.7 G")]
)
def test_large_numbers_are_shortened(value: float, text: str) -> None:
    assert short(value) == text


def test_shares_are_percent_and_a_dash_where_there_is_none() -> None:
    assert percent(0.98765) == "98.77%"
    assert percent(0.98765, 1) == "98.8%"
    assert percent(None) == "\u2013"
