"""The experiments of the paper: what their files say, and one row from tiny data to its result."""

from __future__ import annotations

import contextlib
import gzip
import importlib
import io
import json
import runpy
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from types import ModuleType

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from PIL import Image

from graftonnx import GraftError, Plan, fuse, load, match, save
from graftonnx.comparison import Comparison
from graftonnx.taps import ACTIVATIONS
from graftonnx.training import TrainConfig, starting, trainer
from graftonnx.training.speed import Mode

ROOT = Path(__file__).parent.parent
ROWS = sorted(path.stem for path in (ROOT / "tools" / "paper" / "rows").glob("*.yaml"))
STUDIES = sorted(path.stem for path in (ROOT / "tools" / "paper" / "studies").glob("*.yaml"))
ROW = "mnist-cifar100-natural"
PARENTS = {
    "a": ROOT / "models" / "custom16-mnist.onnx",
    "b": ROOT / "models" / "squeezenet-cifar100.onnx",
}
RANDOM = np.random.default_rng(0)


def pictures(count: int, label: int, size: int) -> np.ndarray:
    """Return noise around a brightness that is the class's own, uint8 [count, size, size, 3]."""
    noise = RANDOM.integers(0, 60, (count, size, size, 3))
    return (noise + 90 * label).astype(np.uint8)


def encoded(image: np.ndarray, kind: str) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, kind, **({"lossless": True} if kind == "WEBP" else {}))
    return buffer.getvalue()


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The three data sets in their real formats, of two classes and a few images."""
    folder = tmp_path_factory.mktemp("shared")
    for name in ("mnist", "cifar100", "natural_images"):
        (folder / "data" / name).mkdir(parents=True)
    for prefix, count in (("train", 80), ("t10k", 10)):
        grey = np.concatenate([pictures(count // 2, label, 28)[..., 0] for label in (0, 1)])
        labels = np.repeat(np.arange(2, dtype=np.uint8), count // 2)
        for kind, array in (("images-idx3", grey), ("labels-idx1", labels)):
            header = bytes([0, 0, 8, array.ndim]) + b"".join(n.to_bytes(4, "big") for n in array.shape)
            content = gzip.compress(header + array.tobytes())
            (folder / "data" / "mnist" / f"{prefix}-{kind}-ubyte.gz").write_bytes(content)
    for part, count in (("train", 60), ("test", 5)):
        with zipfile.ZipFile(folder / "data" / "cifar100" / f"cifar100_{part}.zip", "w") as archive:
            archive.writestr("labels.json", json.dumps({"fine": ["dark", "light"]}))
            for label in (0, 1):
                strip = pictures(count, label, 32).reshape(-1, 32, 3)
                archive.writestr(f"{part}_{label:02d}.webp", encoded(strip, "WEBP"))
    with zipfile.ZipFile(folder / "data" / "natural_images" / "natural.zip", "w") as archive:
        for label, name in enumerate(("cat", "dog")):
            for number, image in enumerate(pictures(20, label, 40)):
                archive.writestr(f"natural/{name}/{number}.png", encoded(image, "PNG"))
    return folder


def tool(name: str, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(ROOT / "tools" / "paper")
    return importlib.import_module(name)


def run_process(*words: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, ROOT / "tools" / "paper" / "run", *words]
    return subprocess.run(command, capture_output=True, text=True)


def run(*words: str | Path) -> str:
    """Run the script in this process, without pictures and measurements, and return what stderr got."""
    script, said = ROOT / "tools" / "paper" / "run", io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stderr(said):
        patch.syspath_prepend(script.parent)
        patch.setattr(sys, "argv", list(map(str, (script, *words))))
        for name in ("write_curves", "write_report"):
            patch.setattr(trainer, name, lambda *_: None)
        patch.setattr(starting, "choose_mode", lambda *_: (Mode("fp32", "contiguous"), {}))
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            runpy.run_path(str(script), run_name="__main__")
        finally:
            torch.set_num_threads(threads)
    return said.getvalue()


@pytest.fixture(scope="module")
def output(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What one row leaves."""
    folder = tmp_path_factory.mktemp("paper") / "out"
    run(ROW, "--seeds", "1", "--shared", shared, "-o", folder)
    return folder


@pytest.mark.slow
class TestARow:
    def test_compares_its_networks_and_exports_the_fused_one(self, output: Path) -> None:
        record = json.loads((output / "results" / f"{ROW}-quick.json").read_text())
        names = [network["name"] for network in record["comparison"]["networks"]]
        assert names == ["a", "b", "average", "concatenated", "paper", "a-to-b", "b-to-a", "fused"]
        assert record["paper"]["hybrid"] == 62.23
        assert record["command"] == f"tools/paper/run {ROW} --budget quick --seeds 1"
        assert [parent["trained_on"] for parent in record["parents"]] == ["mnist", "cifar100"]
        assert [parent["accuracy"]["split"] for parent in record["parents"]] == ["test", "test"]
        fused = record["comparison"]["networks"][-1]
        assert record["deployed"]["top1"] == fused["accuracies"][0]
        assert str(output.parent.parent) not in json.dumps(record)

    def test_is_the_one_that_the_paper_describes(self, output: Path) -> None:
        (folder,) = (output / "rows").iterdir()
        comparison = Comparison.model_validate_json((folder / "compared" / "compare.json").read_text())
        pairs = [(contest.network, contest.rival) for contest in comparison.contests]
        rivals = ("average", "concatenated", "paper", "a-to-b", "b-to-a")
        assert pairs[1:] == [
            *(("fused", rival) for rival in rivals),
            *((variant, "concatenated") for variant in rivals[2:]),
        ]

    def test_goes_on_where_it_was_stopped(self, output: Path, shared: Path) -> None:
        result = output / "results" / f"{ROW}-quick.json"
        before = json.loads(result.read_text())
        (parent,) = (output / "parents").glob("custom16-mnist-*")
        (row,) = (output / "rows").iterdir()
        for path in (parent / "accuracy.json", row / "deployed.json", row / "compared" / "compare.json"):
            path.unlink()
        shutil.rmtree(row / "compared" / "paper" / "seed0")
        said = run(ROW, "--seeds", "1", "--shared", shared, "-o", output)
        words = [line.split()[2] for line in said.splitlines() if line.startswith("$ graftonnx")]
        assert words == ["eval", "compare", "export", "eval"]
        assert said.count("finished before") == 6
        after = json.loads(result.read_text())
        assert before["deployed"] == after["deployed"]
        for network, again in zip(*(r["comparison"]["networks"] for r in (before, after)), strict=True):
            assert network["accuracies"] == again["accuracies"]


@pytest.mark.slow
def test_a_fused_network_can_be_trained_without_rivals(
    shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    experiment, declared = tool("experiment", monkeypatch), tool("declarations", monkeypatch)
    settings = {"epochs": 1, "split-file": "fixed", "precision": "fp32", "layout": "contiguous"}
    budget = declared.Budget(compared=False, fuse={"input-size": 32}, train=settings)
    parent = declared.Parent(title="Shipped", file="none")
    monkeypatch.setattr(declared, "budget_of", lambda *_: budget)
    monkeypatch.setattr(experiment, "make_parent", lambda *_: experiment.MadeParent(parent, "", PARENTS["a"]))
    place = experiment.Place(shared, tmp_path / "out", "all-images")
    outcome = experiment.run_row(ROW, place, None)
    assert outcome.comparison is None
    assert outcome.verdict == f"The fused network reaches {outcome.deployed['top1']:.2%}."
    assert outcome.alone["train_seconds"] > 0
    assert outcome.alone["precision"] == "fp32"
    path = tool("results", monkeypatch).write(outcome, ROW, place, {"commit": "c", "changed": False})
    assert path.name == f"{ROW}-all-images.json"
    record = json.loads(path.read_text())
    assert record["command"] == f"tools/paper/run {ROW} --budget all-images"
    assert str(tmp_path) not in path.read_text()
    pages = tmp_path / "pages"
    pages.mkdir()
    words = [sys.executable, ROOT / "tools" / "paper" / "table", "--results", path.parent, "-o", pages]
    subprocess.run(words, check=True)
    line = f"| {record['title']} (all-images) | 62.23 | {100 * outcome.deployed['top1']:.2f} ["
    assert line in (pages / "RESULTS.md").read_text()
    assert f"] | {100 * record['deployed']['mirrored']:.2f} | " in (pages / "RESULTS.md").read_text()


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["mnist-cifar10-natural"], f"Did you mean '{ROW}'"),
        (
            [ROW, "--budget", "huge"],
            f"Error: '{ROW}' has no budget 'huge'. Choose from quick, all-images, full.\n",
        ),
        ([ROW, "--shared", "nowhere"], "Give another --shared.\n"),
    ],
)
def test_misuse_ends_with_a_sentence(words: list[str], sentence: str, tmp_path: Path) -> None:
    done = run_process(*words, "-o", tmp_path / "out")
    assert (done.returncode, done.stdout) == (1, "")
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr


class TestWhatTheRowsSay:
    @pytest.fixture
    def declared(self, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
        return tool("declarations", monkeypatch)

    def test_all_hybrids_of_both_tables_are_there(self, declared: ModuleType) -> None:
        papers = [declared.read_row(name).paper for name in declared.rows()]
        second = sorted(paper.hybrid for paper in papers if 2 in paper.tables)
        assert second == [43.28, 45.62, 52.18, 60.82, 62.23, 68.48, 73.23, 89.57, 97.21]
        third = sorted((paper.a, paper.b, paper.hybrid) for paper in papers if 3 in paper.tables)
        assert third == [(35.58, 34.29, 38.17), (42.15, 38.46, 68.48), (52.86, 55.15, 62.23)]

    @pytest.mark.parametrize("name", ROWS)
    @pytest.mark.parametrize("budget", ["quick", "full"])
    def test_every_row_and_its_parents_have_both_budgets(
        self, declared: ModuleType, name: str, budget: str
    ) -> None:
        row = declared.read_row(name)
        settings = [row.budgets[budget].train]
        for parent in map(declared.read_parent, (row.a, row.b)):
            settings += [] if parent.file else [parent.budgets[budget].train]
        for options in settings:
            TrainConfig(**{option.replace("-", "_"): value for option, value in options.items()})
            assert "epochs" in options

    @pytest.mark.parametrize("name", STUDIES)
    def test_every_study_can_be_run(self, declared: ModuleType, name: str) -> None:
        study = declared.read_study(name)
        for parent in (study.a, study.b):
            assert declared.read_parent(parent).file or study.budget in declared.read_parent(parent).budgets
        for changed in ({}, *(change.train for change in study.changes.values())):
            options = {**study.train, **changed}
            TrainConfig(**{option.replace("-", "_"): value for option, value in options.items()})


@pytest.fixture(scope="module")
def plan() -> Plan:
    return match(*(load(path, input_size=(32, 32)) for path in PARENTS.values()))


class TestEditedPlans:
    @pytest.fixture
    def plans(self, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
        return tool("plans", monkeypatch)

    def spliced(self, plan: Plan) -> Plan:
        """Fuse what the plan says: raises where it cannot be."""
        fuse(*(load(path, input_size=(32, 32)) for path in PARENTS.values()), plan=plan, prove=False)
        return plan

    @pytest.mark.parametrize(("edit", "source"), [("a-to-b", "a"), ("b-to-a", "b")])
    def test_one_direction_is_half_of_the_skips(
        self, plans: ModuleType, plan: Plan, edit: str, source: str
    ) -> None:
        found = self.spliced(plans.edited(plan, edit, PARENTS))
        assert {skip.source[0] for skip in found.skips} == {source}
        assert 2 * len(found.skips) == len(plan.skips)

    def test_early_and_late_are_the_two_halves_in_the_order_of_the_networks(
        self, plans: ModuleType, plan: Plan
    ) -> None:
        early, late = (self.spliced(plans.edited(plan, edit, PARENTS)).skips for edit in ("early", "late"))
        assert early
        assert early + late == plan.skips
        assert not {frozenset((s.source, s.target)) for s in early} & {
            frozenset((s.source, s.target)) for s in late
        }
        depth = load(PARENTS["a"], input_size=(32, 32)).view.position
        into_a = [[depth[s.target[2:]] for s in half if s.target.startswith("a/")] for half in (early, late)]
        assert max(into_a[0]) < min(into_a[1])

    def test_windows_become_wider_where_nothing_else_resizes(self, plans: ModuleType, plan: Plan) -> None:
        found = self.spliced(plans.edited(plan, "kernel-3", PARENTS))
        kernels = [
            (old.projection.kernel, new.projection.kernel)
            for old, new in zip(plan.skips, found.skips, strict=True)
            if old.projection.kind in ("equal", "conv")
        ]
        assert kernels
        assert all(tuple(extent + 2 for extent in before) == after for before, after in kernels)

    def test_both_ends_move_in_front_of_activations(self, plans: ModuleType, plan: Plan) -> None:
        found = self.spliced(plans.edited(plan, "before-activation", PARENTS))
        views = {letter: load(path, input_size=(32, 32)).view for letter, path in PARENTS.items()}
        for skip in found.skips:
            for tap in (skip.source, skip.target):
                assert views[tap[0]].producer[tap[2:]].op_type not in ACTIVATIONS
        assert found.skips != plan.skips

    def test_another_name_is_refused(self, plans: ModuleType, plan: Plan) -> None:
        with pytest.raises(GraftError, match=r"there is no plan 'a-to-c'\. Did you mean 'a-to-b'"):
            plans.edited(plan, "a-to-c", PARENTS)


class TestFirstWeights:
    @pytest.fixture
    def fused(self, tmp_path: Path, plan: Plan) -> Path:
        path = tmp_path / "fused.onnx"
        save(fuse(*(load(path, input_size=(32, 32)) for path in PARENTS.values()), plan=plan), path)
        return path

    def test_small_ones_replace_zeros_and_nothing_else(
        self, fused: Path, plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        target = tmp_path / "small.onnx"
        tool("beginnings", monkeypatch).drawn(fused, target, "small")
        before, after = (
            {w.name: numpy_helper.to_array(w) for w in onnx.load(path).graph.initializer}
            for path in (fused, target)
        )
        changed = [name for name in before if not np.array_equal(before[name], after[name])]
        assert len(changed) == len(plan.skips) > 0
        for name in changed:
            assert name.startswith("skips/")
            he = (2 / before[name][0].size) ** 0.5
            assert after[name].std() == pytest.approx(0.1 * he, rel=0.2)

    def test_other_ones_are_refused(
        self, fused: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with pytest.raises(GraftError, match="there are no first weights 'large'"):
            tool("beginnings", monkeypatch).drawn(fused, tmp_path / "large.onnx", "large")


def test_the_table_is_that_of_the_results() -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "tools" / "paper" / "table", "--check"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
