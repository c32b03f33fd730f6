"""Every public function takes the name of a file as text, and data where it needs some."""

from __future__ import annotations

import inspect
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from builders import plain_cnn, residual_cnn, saved
from training.fused import save_images

import graftonnx
from graftonnx.training import TrainConfig

CONFIG = TrainConfig(
    epochs=1, batch_size=8, augment="none", precision="fp32", layout="contiguous", device="cpu", workers=1
)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `a.onnx`, `b.onnx`, `fused.onnx`, `images` and a finished `run`; not to be changed."""
    folder = tmp_path_factory.mktemp("strings")
    saved(residual_cnn(), folder / "a.onnx")
    saved(plain_cnn((8, 16)), folder / "b.onnx")
    save_images(folder / "images")
    a, b = (graftonnx.load(str(folder / name)) for name in ("a.onnx", "b.onnx"))
    graftonnx.save(graftonnx.fuse(a, b, classes=2, prove=False), str(folder / "fused.onnx"))
    graftonnx.train(str(folder / "fused.onnx"), str(folder / "images"), str(folder / "run"), CONFIG)
    return folder


@pytest.fixture
def work(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder: a copy of `made`."""
    shutil.copytree(made, tmp_path / "work")
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path / "work"


def evaluated() -> None:
    result = graftonnx.evaluate(graftonnx.open_classifier("run", provider="cpu"), "images")
    every = sum(1 for _ in Path("images").rglob("*.*"))
    assert 0 < result.images < every  # those that validated


def explained() -> None:
    a, b = graftonnx.load("a.onnx"), graftonnx.load("b.onnx")
    assert graftonnx.explain_plan(graftonnx.match(a, b), a, b) == Path("match.html")


def viewed() -> None:
    assert graftonnx.view("fused.onnx") == Path("fused.html")
    assert graftonnx.view(graftonnx.load("a.onnx")) == Path("a.html")
    a, b = graftonnx.load("a.onnx"), graftonnx.load("b.onnx")
    assert graftonnx.view(graftonnx.match(a, b), "a.onnx", "b.onnx") == Path("plan.html")


def bundled() -> None:
    graftonnx.bundle("run", "bundle", split_file="run/split.json", data="images")
    assert graftonnx.verify("bundle").models


def exported() -> None:
    graftonnx.export("run", "x.onnx", data="images", split_file="run/split.json")
    assert Path("x.onnx").is_file()


def benchmarked() -> None:
    found = graftonnx.benchmark(
        ["run"], against=["fused.onnx"], batches=[1], rounds=1, warm_up=0, data="images", measure_memory=False
    )
    assert found.data == "images"


def written() -> None:
    images = [str(path) for path in Path("images").rglob("*.*")]
    classifier = graftonnx.open_classifier("run", provider="cpu")
    assert graftonnx.write_predictions(classifier, images, "x.csv").images == len(images)
    assert len(list(graftonnx.predict(classifier, images))) == len(images)


def fused_with_a_head() -> None:
    with pytest.raises(graftonnx.ModelError, match="no-head"):
        graftonnx.fuse(graftonnx.load("a.onnx"), graftonnx.load("b.onnx"), head_file="no-head.onnx")


def trained() -> None:
    notes: list[str] = []
    graftonnx.train("fused.onnx", "images", "other", CONFIG, note=notes.append)
    assert any("a step takes less than 0.1 GiB of memory" in note for note in notes)


def compared() -> None:
    graftonnx.compare("fused.onnx", "images", "compared", CONFIG, seeds=1)
    assert "All runs: 1 epoch, batch 8" in Path("compared", "compare.md").read_text(encoding="utf-8")


CALLS: dict[str, Callable[[], object]] = {
    "benchmark": benchmarked,
    "bundle": bundled,
    "compare": compared,
    "evaluate": evaluated,
    "explain_plan": explained,
    "export": exported,
    "fuse": fused_with_a_head,
    "load": lambda: graftonnx.load("a.onnx"),
    "open_classifier": lambda: graftonnx.open_classifier("run", provider="cpu"),
    "predict": written,
    "resume": lambda: graftonnx.resume("run", data="images"),
    "save": lambda: graftonnx.save(graftonnx.load("a.onnx"), "c.onnx"),
    "to_torch": lambda: graftonnx.to_torch("fused.onnx"),
    "train": trained,
    "verify": bundled,
    "view": viewed,
    "write_predictions": written,
}


def takers() -> dict[str, list[str]]:
    """Return the types of the arguments that are paths, by function."""
    found = {}
    for name in graftonnx.__all__:
        member = getattr(graftonnx, name)
        if inspect.isfunction(member):
            kinds = [str(parameter.annotation) for parameter in inspect.signature(member).parameters.values()]
            found[name] = [kind for kind in kinds if "Path" in kind]
    return {name: kinds for name, kinds in found.items() if kinds}


def test_every_function_that_takes_a_path_takes_text() -> None:
    assert takers().keys() == CALLS.keys()
    assert [kinds for kinds in takers().values() if any("str | Path" not in kind for kind in kinds)] == []


@pytest.mark.parametrize("name", CALLS)
def test_a_name_as_text_will_do(work: Path, name: str) -> None:
    CALLS[name]()
