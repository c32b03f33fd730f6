"""Whole comparisons on small networks: what is trained, reused, resumed, counted, written and refused."""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from builders import plain_cnn, residual_cnn
from training.fused import save_images, weights_of

from graftonnx import documents, training
from graftonnx.classifier import open_classifier
from graftonnx.comparison import Comparison, compare
from graftonnx.comparison.markdown import markdown
from graftonnx.errors import DataError, GraftError, ModelError
from graftonnx.evaluation import evaluate, select
from graftonnx.fusion import fuse
from graftonnx.model import from_proto, save
from graftonnx.reading import sha256
from graftonnx.training import Interrupted, TrainConfig, TrainResult, finetuner, train
from graftonnx.training.run import RunFolder

CONFIG = TrainConfig(
    epochs=2,
    batch_size=8,
    lr_branches=1e-2,
    lr_skips=1e-2,
    lr_head=1e-2,
    augment="none",
    precision="fp32",
    layout="contiguous",
    device="cpu",
)
NAMES = ("a", "b", "average", "concatenated", "fused")
TRAINED = ("a", "b", "concatenated", "fused")

FIRST, SECOND = (from_proto(model, name) for model, name in (
    (residual_cnn(4, depth=1), "first.onnx"), (plain_cnn((4, 8), seed=1), "second.onnx")
))  # fmt: skip


def settings(**changes: Any) -> TrainConfig:
    return TrainConfig(**{**CONFIG.model_dump(), **changes})


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes of 20 images."""
    return save_images(tmp_path_factory.mktemp("images") / "data")


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("network") / "fused.onnx"
    save(fuse(FIRST, SECOND, classes=2, hidden=6), path)
    return path


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("output") / "compared"


@pytest.fixture(scope="module")
def finished(source: Path, data: Path, output: Path) -> Comparison:
    """A comparison with two seeds, in `output`."""
    return compare(source, data, output, CONFIG, seeds=2)


@pytest.fixture
def copied(finished: Comparison, output: Path, tmp_path: Path) -> Path:
    """A finished comparison to spoil."""
    shutil.copytree(output, tmp_path / "compared")
    return tmp_path / "compared"


def models(folder: Path) -> dict[str, str]:
    """Return the digest of every trained network."""
    return {str(p.relative_to(folder)): sha256(p) for p in sorted(folder.glob("*/*/model.onnx"))}


def sources(folder: Path) -> dict[str, str]:
    return {str(p.relative_to(folder)): sha256(p) for p in sorted(folder.glob("*/*.onnx"))}


def untouched(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the test fail if anything is trained."""

    def fails(*_: object, **__: object) -> TrainResult:
        raise AssertionError("a run was trained")

    monkeypatch.setattr(training, "train", fails)
    monkeypatch.setattr(training, "resume", fails)


class TestAFinishedComparison:
    def test_trains_every_part_with_every_seed_on_the_same_split(
        self, finished: Comparison, output: Path
    ) -> None:
        splits = {
            seed: {(output / name / f"seed{seed}" / "split.json").read_text() for name in TRAINED}
            for seed in (0, 1)
        }
        assert [len(texts) for texts in splits.values()] == [1, 1]
        assert splits[0] != splits[1]
        assert finished.seeds == (0, 1)
        assert (finished.part, finished.images, finished.redrawn) == ("val", (8, 8), True)

    def test_a_branch_alone_is_what_fuse_and_train_make_of_its_parent(
        self, finished: Comparison, output: Path, data: Path, tmp_path: Path
    ) -> None:
        save(fuse(SECOND, classes=2, hidden=6, seed=1), tmp_path / "alone.onnx")
        result = train(tmp_path / "alone.onnx", data, tmp_path / "run", settings(seed=1))
        alone = weights_of(onnx.load(result.model))
        cut = weights_of(onnx.load(output / "b" / "seed1" / "model.onnx"))
        assert len(alone) == len(cut)
        for name, array in alone.items():
            branch = "/".join("b" if part == "a" else part for part in name.split("/"))
            assert np.array_equal(array, cut[branch]), name

    def test_counts_what_eval_counts(self, finished: Comparison, output: Path, data: Path) -> None:
        for name in TRAINED:
            for seed, share in zip(finished.seeds, finished.network(name).accuracies, strict=True):
                run = output / name / f"seed{seed}"
                selection = select(data, None, source=run)
                assert evaluate(open_classifier(run, provider="cpu"), selection).top1 == share

    def test_averages_the_probabilities_of_the_branches(
        self, finished: Comparison, output: Path, data: Path
    ) -> None:
        for seed, share in zip(finished.seeds, finished.network("average").accuracies, strict=True):
            runs = [output / name / f"seed{seed}" for name in "ab"]
            samples = select(data, None, source=runs[0]).samples
            paths = [data / sample.name for sample in samples]
            mean = np.mean(
                [
                    [p.probabilities for p in open_classifier(run, provider="cpu").predict(paths)]
                    for run in runs
                ],
                axis=0,
            )
            assert (mean.argmax(axis=1) == [sample.label for sample in samples]).mean() == share

    def test_says_what_every_network_costs(self, finished: Comparison, output: Path) -> None:
        assert tuple(network.name for network in finished.networks) == NAMES
        a, b, average, concatenated, fused = finished.networks
        for field in ("parameters", "macs", "bytes", "train_seconds"):
            assert getattr(average, field) == pytest.approx(getattr(a, field) + getattr(b, field))
        assert a.parameters < concatenated.parameters < fused.parameters
        assert b.macs < concatenated.macs < fused.macs
        assert fused.bytes == (output / "fused" / "seed0" / "model.onnx").stat().st_size
        assert min(network.latency for network in finished.networks) > 0

    def test_tests_the_fused_network_against_three_others(self, finished: Comparison) -> None:
        assert finished.better_parent in "ab"
        assert [c.rival for c in finished.contests] == [finished.better_parent, "average", "concatenated"]
        fused = finished.network("fused")
        for contest in finished.contests:
            rival = finished.network(contest.rival)
            assert contest.difference.value == pytest.approx(fused.accuracy.value - rival.accuracy.value)
        assert "corrected for splits that overlap" in finished.basis

    def test_writes_itself_down(self, finished: Comparison, output: Path) -> None:
        assert Comparison.model_validate_json((output / "compare.json").read_text()) == finished
        text = (output / "compare.md").read_text()
        assert finished.verdict in text
        assert "| a: first.onnx alone |" in text
        assert f"{finished.network('fused').accuracy.value:.2%}" in text
        assert {p.name for p in output.iterdir()} == {
            *TRAINED, "compare.json", "compare.md", "comparison.yaml"
        }  # fmt: skip


class TestGoingOn:
    def test_the_same_again_trains_nothing(
        self, finished: Comparison, copied: Path, source: Path, data: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        untouched(monkeypatch)
        again = compare(source, data, copied, CONFIG, seeds=2)
        assert [n.accuracies for n in again.networks] == [n.accuracies for n in finished.networks]
        assert again.verdict == finished.verdict

    def test_fewer_seeds_need_no_training_and_one_is_judged_by_its_images(
        self, finished: Comparison, copied: Path, source: Path, data: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        untouched(monkeypatch)
        one = compare(source, data, copied, CONFIG, seeds=1)
        assert one.seeds == (0,)
        assert one.basis.startswith("One seed: 95 % intervals and p are over its images (Wilson;")
        assert not one.redrawn

    def test_an_interruption_changes_nothing_but_the_time(
        self, finished: Comparison, output: Path, source: Path, data: Path, tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:  # fmt: skip
        original, steps = finetuner.augment, iter(range(10**6))

        def augment(*arguments: Any) -> torch.Tensor:
            if next(steps) == 21:  # in the second epoch of the third run of eight steps
                os.kill(os.getpid(), signal.SIGINT)
            return original(*arguments)

        with monkeypatch.context() as patch:
            patch.setattr(finetuner, "augment", augment)
            with pytest.raises(Interrupted) as raised:
                compare(source, data, tmp_path / "compared", CONFIG, seeds=1)
        assert raised.value.run == tmp_path / "compared" / "a" / "seed0"
        compare(source, data, tmp_path / "compared", CONFIG, seeds=1)
        whole = {name: digest for name, digest in models(output).items() if "seed0" in name}
        assert models(tmp_path / "compared") == whole

    def test_runs_that_were_killed_at_any_moment_are_finished(
        self, finished: Comparison, copied: Path, output: Path, source: Path, data: Path
    ) -> None:
        (copied / "fused" / "seed0" / "model.onnx").unlink()  # before the export
        before_its_record = copied / "b" / "seed0"
        for file in ("config.yaml", "model.onnx", "checkpoints/last.ckpt", "checkpoints/best.safetensors"):
            (before_its_record / file).unlink()
        before_its_first_checkpoint = RunFolder(copied / "a" / "seed1")
        for path in (before_its_first_checkpoint.model, before_its_first_checkpoint.last):
            path.unlink()
        shutil.rmtree(copied / "concatenated")  # before it began
        again = compare(source, data, copied, CONFIG, seeds=2)
        assert models(copied) == models(output)
        assert sources(copied) == sources(output)
        assert [n.accuracies for n in again.networks] == [n.accuracies for n in finished.networks]

    def test_other_settings_are_refused_by_name_and_force_starts_again(
        self, finished: Comparison, copied: Path, source: Path, data: Path
    ) -> None:
        before = models(copied)
        changed = settings(epochs=1, lr_head=0.02)
        with pytest.raises(GraftError) as raised:
            compare(source, data, copied, changed)
        assert raised.value.message == (
            f"cannot go on in '{copied}': its runs were made with epochs 2 (now 1), lr_head 0.01 (now 0.02). "
            "Give the same again, choose another -o, or pass --force to replace them."
        )
        assert models(copied) == before
        compare(source, data, copied, changed, seeds=1, force=True)
        assert len(models(copied)) == 4
        assert set(models(copied).values()).isdisjoint(before.values())

    def test_the_network_to_take_apart_is_not_replaced(
        self, finished: Comparison, copied: Path, data: Path
    ) -> None:
        before, source = models(copied), copied / "fused" / "seed0" / "model.onnx"
        with pytest.raises(
            GraftError, match=r"seed0/model\.onnx', which is to be taken apart, is one of its"
        ):
            compare(source, data, copied, CONFIG, seeds=1, force=True)
        assert models(copied) == before

    def test_images_that_changed_between_runs_are_noticed(
        self, source: Path, data: Path, tmp_path: Path
    ) -> None:
        shutil.copytree(data, tmp_path / "data")
        compare(source, tmp_path / "data", tmp_path / "compared", settings(epochs=1), seeds=1)
        for number in range(5):
            shutil.copy(data / "blue" / "0.png", tmp_path / "data" / "blue" / f"more{number}.png")
        shutil.rmtree(tmp_path / "compared" / "b")
        with pytest.raises(DataError, match="has changed between them"):
            compare(source, tmp_path / "data", tmp_path / "compared", settings(epochs=1), seeds=1)


class TestOtherFiles:
    @pytest.fixture
    def paper(self, tmp_path: Path) -> Path:
        save(fuse(FIRST, SECOND, classes=2, hidden=6, skip_init="paper"), tmp_path / "paper.onnx")
        return tmp_path / "paper.onnx"

    def test_are_trained_beside_the_parts_and_judged_against_the_concatenation(
        self, finished: Comparison, copied: Path, output: Path, source: Path, paper: Path, data: Path
    ) -> None:
        found = compare(source, data, copied, CONFIG, others=[paper], seeds=2)
        assert tuple(network.name for network in found.networks) == (*NAMES[:-1], "paper", "fused")
        assert [(c.network, c.rival) for c in found.contests] == [
            ("fused", found.better_parent),
            ("fused", "average"),
            ("fused", "concatenated"),
            ("fused", "paper"),
            ("paper", "concatenated"),
        ]
        last, rival = found.network("paper"), found.network("concatenated")
        difference = last.accuracy.value - rival.accuracy.value
        assert found.contests[-1].difference.value == pytest.approx(difference)
        assert found.verdict == finished.verdict
        assert "| paper: fused as in paper.onnx |" in (copied / "compare.md").read_text()
        strange = found.contests[-1].model_copy(update={"network": "<b>[x](y)"})
        assert r"| &lt;b>\[x\](y) |" in markdown(found.model_copy(update={"contests": (strange,)}))
        new = {name for name in models(copied) if name not in models(output)}
        assert new == {"paper/seed0/model.onnx", "paper/seed1/model.onnx"}

    def test_start_from_their_own_exchanges(
        self, finished: Comparison, copied: Path, source: Path, paper: Path, data: Path
    ) -> None:
        compare(source, data, copied, CONFIG, others=[paper], seeds=1)
        starts = [copied / name / "seed0.onnx" for name in ("paper", "fused")]
        own, plain, zero = (
            {(node.op_type, *node.input) for node in onnx.load(path).graph.node if "skips/" in node.output[0]}
            for path in (paper, *starts)
        )
        assert own == plain
        assert {op for op, *_ in zero} - {op for op, *_ in plain} == {"Conv"}

    def test_stay_known_when_they_are_not_asked_for(
        self, finished: Comparison, copied: Path, source: Path, paper: Path, data: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:  # fmt: skip
        compare(source, data, copied, CONFIG, others=[paper], seeds=1)
        untouched(monkeypatch)
        assert len(compare(source, data, copied, CONFIG, seeds=1).networks) == 5
        assert len(compare(source, data, copied, CONFIG, others=[paper], seeds=1).networks) == 6
        save(fuse(FIRST, SECOND, classes=2, hidden=6, max_skips=1), paper, force=True)
        with pytest.raises(
            GraftError, match=r"its runs of 'paper' were made with a file of sha256 \w{8} \(now"
        ):
            compare(source, data, copied, CONFIG, others=[paper], seeds=1)

    def test_need_the_same_parents_and_head_and_a_name_of_their_own(
        self, source: Path, paper: Path, data: Path, tmp_path: Path
    ) -> None:
        third = from_proto(plain_cnn((4, 8), seed=2), "third.onnx")
        files = {
            "third": (fuse(FIRST, third, classes=2, hidden=6), "parents first.onnx (sha256 "),
            "head": (
                fuse(FIRST, SECOND, classes=2, hidden=7),
                "head concat of penultimate features, normalised, hidden ",
            ),
            "classes": (fuse(FIRST, SECOND, classes=3, hidden=6), "classes 3, not 2. Fuse the same parents"),
            "average": (
                fuse(FIRST, SECOND, classes=2, hidden=6),
                "its results would go by 'average', which is",
            ),
        }
        for name, (network, sentence) in files.items():
            save(network, tmp_path / f"{name}.onnx")
            with pytest.raises(ModelError) as raised:
                compare(source, data, tmp_path / "compared", CONFIG, others=[tmp_path / f"{name}.onnx"])
            assert sentence in raised.value.message
        with pytest.raises(ModelError, match=r"by 'paper', which is the name of '.*paper\.onnx'\. Rename"):
            compare(source, data, tmp_path / "compared", CONFIG, others=[paper, paper])
        assert not (tmp_path / "compared").exists()


def test_all_runs_compute_in_the_mode_that_is_fastest_for_the_fused_network(
    source: Path, data: Path, tmp_path: Path
) -> None:
    config = settings(epochs=1, precision="auto", layout="auto")
    compare(source, data, tmp_path / "compared", config, seeds=1)
    records = [RunFolder(tmp_path / "compared" / name / "seed0").read() for name in TRAINED]
    assert len({(record.precision, record.layout) for record in records}) == 1
    assert [bool(record.measured) for record in records] == [False, False, False, True]


class TestTestImages:
    @pytest.fixture
    def parts(self, data: Path, tmp_path: Path) -> Path:
        """The images in `train/`, `val/` and `test/`."""
        for part, numbers in (("train", range(10)), ("val", range(10, 14)), ("test", range(14, 20))):
            for name in ("blue", "green"):
                (tmp_path / "parts" / part / name).mkdir(parents=True)
                for number in numbers:
                    shutil.copy(data / name / f"{number}.png", tmp_path / "parts" / part / name)
        return tmp_path / "parts"

    def test_are_counted_where_there_are_any(self, source: Path, parts: Path, tmp_path: Path) -> None:
        found = compare(source, parts, tmp_path / "compared", settings(epochs=1), seeds=2)
        assert (found.part, found.images, found.redrawn) == ("test", (12, 12), False)
        assert "given these images" in found.basis

    def test_that_cannot_be_decoded_are_named_before_anything_is_trained(
        self, source: Path, parts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (parts / "test" / "blue" / "14.png").write_bytes(b"none")
        untouched(monkeypatch)
        with pytest.raises(DataError, match=r"cannot decode an image of .*'test/blue/14\.png'"):
            compare(source, parts, tmp_path / "compared", CONFIG)
        assert not (tmp_path / "compared").exists()

    def test_that_cannot_be_decoded_are_left_out_on_demand(
        self, source: Path, parts: Path, tmp_path: Path
    ) -> None:
        (parts / "test" / "blue" / "14.png").write_bytes(b"none")
        config = settings(epochs=1, on_bad_image="skip")
        assert compare(source, parts, tmp_path / "compared", config, seeds=1).images == (11,)


def test_a_trained_file_starts_from_what_its_branches_have_learnt(
    finished: Comparison, output: Path, data: Path, tmp_path: Path
) -> None:
    trained = output / "fused" / "seed0" / "model.onnx"
    compare(trained, data, tmp_path / "compared", settings(epochs=1), seeds=1)
    before = weights_of(onnx.load(trained))
    for name in TRAINED:
        start = weights_of(onnx.load(tmp_path / "compared" / name / "seed0.onnx"))
        own = {key for key in start if not key.startswith("head/")}
        assert {key.split("/")[0] for key in own} - {"skips", "preprocess"} == (
            {name} if name in "ab" else {"a", "b"}
        )
        assert {key for key in own if not np.array_equal(start[key], before[key])} == set()


class TestRefuses:
    def test_a_folder_of_something_else(self, source: Path, data: Path, tmp_path: Path) -> None:
        (tmp_path / "notes.txt").write_text("mine")
        for force in (False, True):
            with pytest.raises(GraftError, match="it is not empty, and its comparison"):
                compare(source, data, tmp_path, CONFIG, force=force)
        assert [p.name for p in tmp_path.iterdir()] == ["notes.txt"]

    def test_a_file_in_the_place_of_the_folder(self, source: Path, data: Path, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("")
        with pytest.raises(GraftError, match="it is a file"):
            compare(source, data, tmp_path / "file", CONFIG)

    def test_a_network_that_cannot_be_taken_apart(self, data: Path, tmp_path: Path) -> None:
        save(fuse(FIRST, classes=2), tmp_path / "alone.onnx")
        with pytest.raises(ModelError, match="it has one branch only"):
            compare(tmp_path / "alone.onnx", data, tmp_path / "compared", CONFIG)
        assert not (tmp_path / "compared").exists()

    def test_images_of_other_classes_and_leaves_earlier_runs_alone(
        self, finished: Comparison, copied: Path, source: Path, tmp_path: Path
    ) -> None:
        three = save_images(tmp_path / "three", classes=3, count=2)
        before = models(copied)
        with pytest.raises(DataError, match="has 2 outputs, the data has 3 classes"):
            compare(source, three, copied, CONFIG, force=True)
        assert models(copied) == before

    def test_images_that_cannot_be_read_and_leaves_nothing(self, source: Path, tmp_path: Path) -> None:
        data = save_images(tmp_path / "data", count=4)
        (data / "blue" / "0.png").write_bytes(b"none")
        with pytest.raises(DataError, match="cannot decode"):
            compare(source, data, tmp_path / "compared", CONFIG)
        assert not (tmp_path / "compared").exists()

    def test_several_processes_and_leaves_nothing(
        self, source: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with pytest.raises(GraftError, match=r"in several processes: its runs train in one\. Leave out"):
            compare(source, data, tmp_path / "out", settings(devices=2))
        monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
        with pytest.raises(GraftError, match="in several processes"):
            compare(source, data, tmp_path / "out", CONFIG)
        assert not (tmp_path / "out").exists()

    def test_no_seeds(self, source: Path, data: Path, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match="seeds"):
            compare(source, data, tmp_path / "compared", CONFIG, seeds=0)

    @pytest.mark.parametrize("place", ["a", "a/seed0"])
    def test_a_link_that_leads_into_another_run(
        self, place: str, finished: Comparison, copied: Path, source: Path, data: Path, tmp_path: Path
    ) -> None:
        (copied / place).rename(tmp_path / "other")
        (copied / place).symlink_to(tmp_path / "other")
        before = {file: file.read_bytes() for file in (tmp_path / "other").rglob("*") if file.is_file()}
        for force in (False, True):
            with pytest.raises(
                GraftError, match=rf"cannot compare in '.*': '.*{place}' is a link, expected a"
            ):
                compare(source, data, copied, settings(epochs=1), force=force)
        assert {
            file: file.read_bytes() for file in (tmp_path / "other").rglob("*") if file.is_file()
        } == before

    @pytest.mark.parametrize(
        "content",
        [b"", b"epoch\n1\n", b"epoch,seconds\n1,x\n", b"\xff\xfe", None],
        ids=["empty", "no seconds", "words", "no text", "gone"],
    )
    def test_epochs_that_no_run_recorded(
        self, content: bytes | None, finished: Comparison, copied: Path, source: Path, data: Path
    ) -> None:
        metrics = copied / "a" / "seed0" / "metrics.csv"
        metrics.unlink()
        if content is not None:
            metrics.write_bytes(content)
        with pytest.raises(GraftError, match=r"cannot read '.*a/seed0/metrics\.csv': .*\. Train again\."):
            compare(source, data, copied, CONFIG, seeds=1)

    def test_a_damaged_record(self, finished: Comparison, copied: Path, source: Path, data: Path) -> None:
        record = documents.load((copied / "comparison.yaml").read_text())
        (copied / "comparison.yaml").write_text(documents.dump({**record, "config": 3}))
        with pytest.raises(GraftError, match=r"its comparison\.yaml is missing or damaged"):
            compare(source, data, copied, CONFIG)
