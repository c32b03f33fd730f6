"""Whole runs on a small network: what they learn, write, refuse, and how they go on."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from data.pictures import write_tar, write_zip
from training.fused import TRAINABLE, save_fused, save_images, weights_of

from graftonnx import documents
from graftonnx.conversion import to_torch
from graftonnx.data.cache import Images
from graftonnx.data.opening import open_data
from graftonnx.data.splits import read_split
from graftonnx.data.splits import split as split_data
from graftonnx.errors import DataError, GraftError, ModelError, ParityError
from graftonnx.images import decode_many, to_input
from graftonnx.metadata import read_metadata
from graftonnx.renormalisation import restore_norms
from graftonnx.runtime import open_session
from graftonnx.training import Interrupted, TrainConfig, TrainResult, finetuner, resume, run, starting, train
from graftonnx.training.outcome import export, learnt_nothing

CONFIG = TrainConfig(
    epochs=3,
    batch_size=8,
    lr_branches=1e-2,
    lr_skips=1e-2,
    lr_head=1e-2,
    precision="fp32",
    layout="contiguous",
    device="cpu",
)


def settings(**changes: Any) -> TrainConfig:
    return TrainConfig(**{**CONFIG.model_dump(), **changes})


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes of 20 images."""
    return save_images(tmp_path_factory.mktemp("images") / "data")


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_fused(tmp_path_factory.mktemp("network") / "fused.onnx")


@pytest.fixture(scope="module")
def finished(source: Path, data: Path, tmp_path_factory: pytest.TempPathFactory) -> TrainResult:
    """A run of three epochs."""
    return train(source, data, tmp_path_factory.mktemp("runs") / "run", CONFIG)


def trained(result: TrainResult) -> dict[str, np.ndarray]:
    return weights_of(onnx.load(result.model))


def metrics_of(result: TrainResult) -> list[dict[str, str]]:
    return list(csv.DictReader((result.run / "metrics.csv").read_text().splitlines()))


def assert_same_weights(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> None:
    assert {k for k in one if not np.array_equal(one[k], other[k])} == set()


def interrupt_at(monkeypatch: pytest.MonkeyPatch, step: int, number: int = signal.SIGINT) -> None:
    """Send ourselves a signal in the middle of the given step."""
    original, steps = finetuner.augment, iter(range(10**6))

    def augment(*arguments: Any) -> torch.Tensor:
        if next(steps) == step:
            os.kill(os.getpid(), number)
        return original(*arguments)

    monkeypatch.setattr(finetuner, "augment", augment)


def test_few_images_are_passed_over_more_often(source: Path, data: Path, tmp_path: Path) -> None:
    given = CONFIG.model_dump(exclude={"epochs", "min_steps"})
    config = TrainConfig(**{**given, "recipe": "quick", "min_steps": 17})
    notes: list[str] = []
    few = train(source, data, tmp_path / "few", config, note=notes.append)
    assert (len(metrics_of(few)), run.RunFolder(few.run).read().config.epochs) == (5, 5)  # of 4 steps each
    assert any(note.startswith("32 images are few: 5 epochs instead of 3") for note in notes)
    enough = train(source, data, tmp_path / "enough", config.model_copy(update={"min_steps": 12}))
    assert len(metrics_of(enough)) == 3


@pytest.mark.parametrize(
    ("frozen", "advice"),
    [("none", "with --lr-branches 0.001 instead of 0.01"), ("branches", "train for more --epochs")],
)
def test_a_network_that_has_learnt_nothing_is_told(
    frozen: str, advice: str, source: Path, data: Path, tmp_path: Path
) -> None:
    image = next(data.rglob("*.png")).read_bytes()
    for name in ("one", "two"):
        (tmp_path / "alike" / name).mkdir(parents=True)
        for number in range(10):
            (tmp_path / "alike" / name / f"{number}.png").write_bytes(image)
    notes: list[str] = []
    train(source, tmp_path / "alike", tmp_path / "run", settings(freeze=frozen), note=notes.append)
    (remark,) = (note for note in notes if "learnt next to nothing: 50.0% of" in note)
    assert "always naming the most frequent class makes 50.0%" in remark
    assert remark.endswith(advice)


def test_a_network_that_has_learnt_is_not(source: Path, data: Path, tmp_path: Path) -> None:
    notes: list[str] = []
    train(source, data, tmp_path / "run", CONFIG, note=notes.append)
    assert not any("learnt" in note for note in notes)


def test_what_little_counts_as_learnt() -> None:
    truth = np.repeat(np.arange(100), 10)
    assert learnt_nothing(0.06, truth, CONFIG) is None
    assert learnt_nothing(0.059, truth, CONFIG) is not None
    assert learnt_nothing(0.1, np.zeros(4, np.int64), CONFIG) is None  # one class only: nothing to learn


class TestAFinishedRun:
    def test_learns_to_tell_two_colours_apart(self, finished: TrainResult) -> None:
        assert finished.val_accuracy >= 0.9  # chance is 0.5
        assert finished.epochs == 3

    def test_writes_every_file_and_no_other(self, finished: TrainResult) -> None:
        files = {p.relative_to(finished.run).as_posix() for p in finished.run.rglob("*") if p.is_file()}
        (events,) = (name for name in files if name.startswith("tensorboard/events."))
        assert files == {
            "config.yaml",
            "split.json",
            "data.json",
            "metrics.csv",
            "curves.png",
            "model.onnx",
            "report.html",
            "validation.json",
            "confusion.csv",
            "confusion.png",
            "classes.csv",
            "checkpoints/last.ckpt",
            "checkpoints/best.safetensors",
            events,
        }

    def test_moves_every_trainable_weight_and_the_statistics_and_nothing_else(
        self, finished: TrainResult, source: Path
    ) -> None:
        before, after = weights_of(onnx.load(source)), trained(finished)
        changed = {name for name in before if not np.array_equal(before[name], after[name])}
        assert changed == TRAINABLE | {"a/bn1.running_mean", "a/bn1.running_var"}

    def test_keeps_the_graph(self, finished: TrainResult, source: Path) -> None:
        before, after = onnx.load(source), onnx.load(finished.model)
        assert list(after.graph.node) == list(before.graph.node)
        assert list(after.opset_import) == list(before.opset_import)

    def test_puts_the_folder_names_into_the_labels(self, finished: TrainResult) -> None:
        assert read_metadata(onnx.load(finished.model)).labels == ("blue", "green")
        assert finished.labels == ("blue", "green")

    def test_gives_the_same_accuracy_in_onnx_runtime_as_its_result_says(
        self, finished: TrainResult, data: Path
    ) -> None:
        val = read_split(finished.run / "split.json", open_data(data)).val
        pixels = decode_many([data / s.name for s in val], (16, 16))
        (logits,) = open_session(finished.model, provider="cpu").run(to_input(pixels))
        assert np.mean(logits.argmax(1) == [s.label for s in val]) == finished.val_accuracy
        module = to_torch(finished.model).eval()
        with torch.inference_mode():
            ours = module(torch.from_numpy(to_input(pixels))).numpy()
        # float32 in another order of summation
        np.testing.assert_allclose(ours, logits, rtol=1e-4, atol=1e-5)

    def test_records_each_epoch(self, finished: TrainResult) -> None:
        rows = metrics_of(finished)
        assert [row["epoch"] for row in rows] == ["1", "2", "3"]
        assert float(rows[-1]["train_loss"]) < float(rows[0]["train_loss"])
        best = rows[finished.best_epoch - 1]
        assert float(best["val_accuracy"]) == max(float(row["val_accuracy"]) for row in rows)
        # six significant digits in the file
        assert float(best["val_loss"]) == pytest.approx(finished.val_loss, rel=1e-5)
        assert float(best["val_accuracy"]) == pytest.approx(finished.val_accuracy, rel=1e-5)

    def test_records_the_rate_of_the_last_layers_where_rates_decay(
        self, finished: TrainResult, source: Path, data: Path, tmp_path: Path
    ) -> None:
        result = train(
            source, data, tmp_path / "run", settings(epochs=1, schedule="constant", layer_decay=0.5)
        )
        assert metrics_of(result)[0]["lr_branches"] == "0.01"

    def test_records_every_setting_and_version(self, finished: TrainResult, source: Path) -> None:
        record = documents.load((finished.run / "config.yaml").read_text())
        assert record["config"] == CONFIG.model_dump(mode="json")
        assert Path(record["source"]) == source
        assert record["images"] == {"train": 32, "val": 8, "test": 0}
        assert record["versions"]["torch"] == torch.__version__
        assert (record["device"], record["precision"], record["layout"]) == ("cpu", "fp32", "contiguous")

    def test_draws_the_curves(self, finished: TrainResult) -> None:
        assert (finished.run / "curves.png").read_bytes().startswith(b"\x89PNG")

    def test_can_be_resumed_to_write_the_model_again(self, finished: TrainResult) -> None:
        before = finished.model.read_bytes()
        finished.model.unlink()
        assert resume(finished.run) == finished
        assert finished.model.read_bytes() == before

    def test_leaves_the_random_state_of_the_caller_alone(
        self, source: Path, data: Path, tmp_path: Path
    ) -> None:
        torch.manual_seed(5)
        before = torch.get_rng_state()
        train(source, data, tmp_path / "run", settings(epochs=1))
        assert torch.equal(torch.get_rng_state(), before)


class TestSeeds:
    def test_the_same_seed_gives_the_same_weights(
        self, finished: TrainResult, source: Path, data: Path, tmp_path: Path
    ) -> None:
        assert_same_weights(trained(train(source, data, tmp_path / "run", CONFIG)), trained(finished))

    def test_another_seed_gives_another_split_and_other_weights(
        self, finished: TrainResult, source: Path, data: Path, tmp_path: Path
    ) -> None:
        other = train(source, data, tmp_path / "run", settings(seed=1))
        assert (other.run / "split.json").read_text() != (finished.run / "split.json").read_text()
        assert not np.array_equal(
            trained(other)["head/logits/weight"], trained(finished)["head/logits/weight"]
        )


class TestResume:
    # An epoch has 4 steps; steps are counted from 0.
    @pytest.mark.parametrize("step", [0, 3, 4, 6, 10, 11])
    def test_gives_the_weights_of_a_run_that_was_not_interrupted(
        self,
        step: int,
        finished: TrainResult,
        source: Path,
        data: Path,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        with monkeypatch.context() as patch:
            interrupt_at(patch, step)
            with pytest.raises(Interrupted) as caught:
                train(source, data, tmp_path / "run", CONFIG)
        assert caught.value.epoch == step // 4 + 1
        result = resume(tmp_path / "run")
        assert_same_weights(trained(result), trained(finished))
        timed = {"seconds", "images_per_second", "run", "model"}
        assert result.model_dump(exclude=timed) == finished.model_dump(exclude=timed)
        ours = metrics_of(result)
        theirs = metrics_of(finished)
        columns = ("epoch", "train_loss", "train_accuracy", "val_loss", "val_accuracy", "lr_branches")
        assert [[row[c] for c in columns] for row in ours] == [[row[c] for c in columns] for row in theirs]

    def test_starts_over_where_nothing_was_saved_yet(
        self, finished: TrainResult, source: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with monkeypatch.context() as patch:
            interrupt_at(patch, 2)
            with pytest.raises(Interrupted):
                train(source, data, tmp_path / "run", CONFIG)
        (tmp_path / "run" / "checkpoints" / "last.ckpt").unlink()
        assert_same_weights(trained(resume(tmp_path / "run")), trained(finished))

    def test_goes_on_from_a_save_in_the_middle_of_an_epoch_after_a_crash(
        self, finished: TrainResult, source: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """As after a kill or a power cut: the checkpoint of the step before is all there is."""
        with monkeypatch.context() as patch:
            original, steps = finetuner.augment, iter(range(100))

            def augment(*arguments: Any) -> torch.Tensor:
                if next(steps) == 6:
                    raise SystemError("power cut")
                return original(*arguments)

            patch.setattr(finetuner, "augment", augment)
            with pytest.raises(SystemError):
                train(source, data, tmp_path / "run", settings(save_every=0.0))
        assert_same_weights(trained(resume(tmp_path / "run")), trained(finished))

    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
    def test_an_interruption_knows_its_signal_and_restores_the_handlers(
        self, number: int, source: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
        interrupt_at(monkeypatch, 1, number)
        with pytest.raises(Interrupted) as caught:
            train(source, data, tmp_path / "run", CONFIG)
        assert caught.value.signal == number
        assert caught.value.run == tmp_path / "run"
        assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before

    def test_follows_data_that_has_moved(self, source: Path, tmp_path: Path) -> None:
        data = save_images(tmp_path / "data")
        result = train(source, data, tmp_path / "run", settings(epochs=1))
        data.rename(tmp_path / "moved")
        with pytest.raises(DataError, match=r"its data '.*data' is gone\. Say where it is with --data\."):
            resume(tmp_path / "run")
        assert resume(tmp_path / "run", data=tmp_path / "moved") == result

    def test_refuses_a_folder_without_a_run(self, tmp_path: Path) -> None:
        with pytest.raises(GraftError, match=r"there is no 'config.yaml' in it\. Give the folder"):
            resume(tmp_path)

    def test_refuses_a_source_that_has_changed(self, data: Path, tmp_path: Path) -> None:
        source = save_fused(tmp_path / "fused.onnx")
        train(source, data, tmp_path / "run", settings(epochs=1))
        save_fused(source, seed=1)
        with pytest.raises(
            GraftError, match=r"'.*fused.onnx' has changed since the run began\. Bring the file"
        ):
            resume(tmp_path / "run")

    @pytest.mark.parametrize(
        ("old", "new", "what"),
        [
            ("epochs: 3", "epochs: none", "config.epochs: Input should be a valid integer"),
            ("device: cpu", "device: [", r"line \d+: .*while parsing a flow"),
        ],
    )
    def test_refuses_a_damaged_record(
        self, old: str, new: str, what: str, finished: TrainResult, tmp_path: Path
    ) -> None:
        text = (finished.run / "config.yaml").read_text()
        (tmp_path / "config.yaml").write_text(text.replace(old, new))
        with pytest.raises(GraftError, match=rf"its config.yaml is damaged \({what}.*\)\. Start a new run\."):
            resume(tmp_path)


class TestData:
    """What comes out does not depend on how the images are packed."""

    @pytest.fixture
    def packed(self, data: Path, tmp_path: Path) -> dict[str, Path]:
        files = {path.relative_to(data).as_posix(): path.read_bytes() for path in sorted(data.rglob("*.png"))}
        rows = [f"{data / name},{name.partition('/')[0]}" for name in files]
        (tmp_path / "a.csv").write_text("\n".join(["path,label", *rows]))
        return {
            "zip": write_zip(tmp_path / "a.zip", files),
            "tar.gz": write_tar(tmp_path / "a.tar.gz", files),
            "csv": tmp_path / "a.csv",
        }

    @pytest.mark.parametrize("kind", ["zip", "tar.gz"])
    def test_an_archive_gives_the_weights_of_the_folder(
        self, kind: str, packed: dict[str, Path], finished: TrainResult, source: Path, tmp_path: Path
    ) -> None:
        result = train(source, packed[kind], tmp_path / "run", CONFIG)
        assert_same_weights(trained(result), trained(finished))
        assert (result.run / "split.json").read_text() == (finished.run / "split.json").read_text()

    @pytest.mark.parametrize("kind", ["zip", "csv"])
    def test_a_run_on_it_is_resumed(
        self,
        kind: str,
        packed: dict[str, Path],
        source: Path,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        whole = train(source, packed[kind], tmp_path / "whole", CONFIG)
        with monkeypatch.context() as patch:
            interrupt_at(patch, 5)
            with pytest.raises(Interrupted):
                train(source, packed[kind], tmp_path / "run", CONFIG)
        assert_same_weights(trained(resume(tmp_path / "run")), trained(whole))

    def test_labels_in_another_order_do_not_change_what_a_resumed_run_sees(
        self, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        source = save_fused(tmp_path / "fused.onnx", labels=("green", "blue"))
        whole = train(source, data, tmp_path / "whole", CONFIG)
        with monkeypatch.context() as patch:
            interrupt_at(patch, 5)
            with pytest.raises(Interrupted):
                train(source, data, tmp_path / "run", CONFIG)
        assert_same_weights(trained(resume(tmp_path / "run")), trained(whole))

    def test_bad_images_may_be_left_out_and_stay_out(
        self, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        data = save_images(tmp_path / "data")
        for name in ("blue/3.png", "green/7.png"):
            (data / name).write_bytes(b"no image")
        notes: list[str] = []
        config = settings(on_bad_image="skip")
        whole = train(source, data, tmp_path / "whole", config, note=notes.append)
        assert any(note.startswith("note: 2 of 40 images cannot be decoded, left out: ") for note in notes)
        record = json.loads((tmp_path / "whole" / "data.json").read_text())
        assert {image["name"] for image in record["bad_images"]} == {"blue/3.png", "green/7.png"}
        split = (tmp_path / "whole" / "split.json").read_text()
        assert "blue/3.png" not in split
        assert "blue/4.png" in split
        with monkeypatch.context() as patch:
            interrupt_at(patch, 5)
            with pytest.raises(Interrupted):
                train(source, data, tmp_path / "run", config)
        assert_same_weights(trained(resume(tmp_path / "run")), trained(whole))

    def test_a_split_can_be_used_again(
        self, finished: TrainResult, source: Path, data: Path, tmp_path: Path
    ) -> None:
        config = settings(seed=9, split_file=finished.run / "split.json", epochs=1)
        result = train(source, data, tmp_path / "run", config)
        assert (result.run / "split.json").read_text() == (finished.run / "split.json").read_text()

    def test_few_shots_train_and_all_else_validates_as_before(
        self, finished: TrainResult, source: Path, data: Path, tmp_path: Path
    ) -> None:
        train(source, data, tmp_path / "run", settings(shots=3, epochs=1))
        few, all_ = (
            read_split(run / "split.json", open_data(data)) for run in (tmp_path / "run", finished.run)
        )
        assert (len(few.train), few.val) == (6, all_.val)

    def test_more_decoded_pixels_than_allowed_are_refused(
        self, source: Path, data: Path, tmp_path: Path
    ) -> None:
        with pytest.raises(DataError, match=r"--cache-limit is 1e-06\. Raise it, or train on less"):
            train(source, data, tmp_path / "run", settings(cache_limit=1e-6))
        assert not (tmp_path / "run").exists()


class TestRestoredNorms:
    def test_are_measured_on_images_of_all_classes(
        self, source: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Also where the data has less than twice as many images as are measured."""
        measured: list[np.ndarray] = []

        def restore(model: onnx.ModelProto, pixels: np.ndarray) -> tuple[onnx.ModelProto, int]:
            measured.append(pixels)
            return restore_norms(model, pixels)

        monkeypatch.setattr(starting, "restore_norms", restore)
        monkeypatch.setattr(starting, "NORM_IMAGES", 20)
        train(source, data, tmp_path / "run", settings(epochs=1, restore_norm=True))
        bluer = [image[..., 2].mean() > image[..., 1].mean() for image in measured[0]]
        assert (len(bluer), sum(bluer)) == (20, 10)

    def test_do_without_images_that_cannot_be_decoded(self, source: Path, data: Path, tmp_path: Path) -> None:
        shutil.copytree(data, tmp_path / "data")
        first = split_data(open_data(data), CONFIG.val_fraction, CONFIG.seed).train[0]
        (tmp_path / "data" / first.name).write_bytes(b"no image")
        notes: list[str] = []
        config = settings(epochs=1, restore_norm=True, on_bad_image="skip")
        train(source, tmp_path / "data", tmp_path / "run", config, note=notes.append)
        assert "batch norms put back: 1, by the statistics of 31 training images" in notes


class TestTheOutputFolder:
    def test_is_not_overwritten(self, finished: TrainResult, source: Path, data: Path) -> None:
        with pytest.raises(
            GraftError, match=r"it is not empty\. Choose another -o, go on with --resume .*--force"
        ):
            train(source, data, finished.run, CONFIG)

    def test_is_replaced_with_force_but_foreign_files_stay(
        self, source: Path, data: Path, tmp_path: Path
    ) -> None:
        train(source, data, tmp_path / "run", settings(epochs=2))
        (tmp_path / "run" / "notes.txt").write_text("mine")
        result = train(source, data, tmp_path / "run", settings(epochs=1), force=True)
        assert (result.epochs, (tmp_path / "run" / "notes.txt").read_text()) == (1, "mine")

    def test_that_is_no_run_is_not_replaced_even_with_force(
        self, source: Path, data: Path, tmp_path: Path
    ) -> None:
        (tmp_path / "model.onnx").write_text("precious")
        with pytest.raises(
            GraftError, match=r"cannot replace '.*': it is not empty, and what it holds is not a run"
        ):
            train(source, data, tmp_path, CONFIG, force=True)
        assert (tmp_path / "model.onnx").read_text() == "precious"

    def test_keeps_the_earlier_run_when_the_new_one_cannot_start(
        self, source: Path, data: Path, tmp_path: Path
    ) -> None:
        broken = tmp_path / "broken"
        shutil.copytree(data, broken)
        next(broken.rglob("*.png")).write_bytes(b"no image")
        train(source, data, tmp_path / "run", settings(epochs=1))
        before = {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}
        with pytest.raises(DataError):
            train(source, broken, tmp_path / "run", CONFIG, force=True)
        assert {path: path.read_bytes() for path in before} == before
        with pytest.raises(DataError):
            train(source, broken, tmp_path / "new", CONFIG)
        assert not (tmp_path / "new").exists()

    @pytest.mark.parametrize("name", ["data.json", "config.yaml"])
    def test_is_gone_again_where_the_disk_is_full(
        self, name: str, source: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def write(path: Path, text: str) -> None:
            if path.name == name:
                raise GraftError("no space left")
            path.write_text(text)

        monkeypatch.setattr(run, "write_text", write)
        with pytest.raises(GraftError, match="no space left"):
            train(source, data, tmp_path / "run", CONFIG)
        assert not (tmp_path / "run").exists()

    def test_of_a_process_that_was_killed_before_the_first_step_is_replaced_with_force(
        self, source: Path, data: Path, tmp_path: Path
    ) -> None:
        (tmp_path / "run" / "checkpoints").mkdir(parents=True)
        for name in ("split.json", "data.json", ".start.onnx.part"):
            (tmp_path / "run" / name).write_text("{}")
        assert train(source, data, tmp_path / "run", settings(epochs=1), force=True).epochs == 1
        assert not list((tmp_path / "run").glob(".*"))

    def test_that_holds_the_network_to_train_is_not_replaced(
        self, source: Path, data: Path, tmp_path: Path
    ) -> None:
        first = train(source, data, tmp_path / "run", settings(epochs=1))
        before = first.model.read_bytes()
        with pytest.raises(GraftError, match=r"run/model\.onnx', which is to be trained, is a part of it\."):
            train(first.model, data, tmp_path / "run", CONFIG, force=True)
        assert first.model.read_bytes() == before

    def test_may_exist_if_it_is_empty(self, source: Path, data: Path, tmp_path: Path) -> None:
        (tmp_path / "run").mkdir()
        assert train(source, data, tmp_path / "run", settings(epochs=1)).epochs == 1

    def test_may_not_be_a_file(self, source: Path, data: Path, tmp_path: Path) -> None:
        (tmp_path / "run").write_text("")
        with pytest.raises(GraftError, match=r"'.*run': it is a file\. Choose another -o\."):
            train(source, data, tmp_path / "run", CONFIG, force=True)

    def test_needs_a_parent_folder(self, source: Path, data: Path, tmp_path: Path) -> None:
        with pytest.raises(GraftError, match=r"the folder '.*absent' does not exist\. Create it first\."):
            train(source, data, tmp_path / "absent" / "run", CONFIG)


class TestLabels:
    def test_of_the_file_fix_the_order(self, data: Path, tmp_path: Path) -> None:
        source = save_fused(tmp_path / "fused.onnx", labels=("green", "blue"))
        result = train(source, data, tmp_path / "run", CONFIG)
        assert result.labels == ("green", "blue")
        assert result.val_accuracy >= 0.9
        val = read_split(result.run / "split.json", open_data(data)).val
        assert {s.name.split("/")[0]: s.label for s in val} == {"green": 0, "blue": 1}

    def test_of_the_file_must_be_the_folders(self, data: Path, tmp_path: Path) -> None:
        source = save_fused(tmp_path / "fused.onnx", labels=("green", "pink"))
        with pytest.raises(
            DataError,
            match=r"labels are 'green', 'pink'; the data lacks 'pink' and has 'blue' instead\. Rename",
        ):
            train(source, data, tmp_path / "run", CONFIG)
        assert not (tmp_path / "run").exists()

    def test_must_be_as_many_as_the_outputs(self, data: Path, tmp_path: Path) -> None:
        source = save_fused(tmp_path / "fused.onnx", classes=3)
        with pytest.raises(
            DataError,
            match=r"has 3 outputs, the data has 2 classes \('blue', 'green'\)\. Fuse .* --classes 2\.",
        ):
            train(source, data, tmp_path / "run", CONFIG)
        assert not (tmp_path / "run").exists()


class TestSettings:
    @pytest.mark.parametrize(
        ("group", "prefixes"),
        [("lr_branches", ("a/", "b/")), ("lr_skips", ("skips/",)), ("lr_head", ("head/",))],
    )
    def test_a_rate_of_zero_stops_its_group_alone(
        self, group: str, prefixes: tuple[str, ...], source: Path, data: Path, tmp_path: Path
    ) -> None:
        after = trained(train(source, data, tmp_path / "run", settings(epochs=1, **{group: 0.0})))
        before = weights_of(onnx.load(source))
        still = {name for name in TRAINABLE if np.array_equal(before[name], after[name])}
        assert still == {name for name in TRAINABLE if name.startswith(prefixes)}

    def test_freeze_keeps_the_branches_and_their_statistics(
        self, source: Path, data: Path, tmp_path: Path
    ) -> None:
        after = trained(train(source, data, tmp_path / "run", settings(freeze="branches")))
        before = weights_of(onnx.load(source))
        changed = {name for name in before if not np.array_equal(before[name], after[name])}
        assert changed == {name for name in TRAINABLE if name.startswith(("skips/", "head/"))}

    @pytest.mark.parametrize(
        "change",
        [
            pytest.param({"weight_decay": 5.0}, id="weight decay"),
            pytest.param({"label_smoothing": 0.3}, id="label smoothing"),
            pytest.param({"augment": "none"}, id="no augmentation"),
            pytest.param({"augment": "flip"}, id="flips alone"),
            pytest.param({"batch_size": 4}, id="batch size"),
            pytest.param({"val_fraction": 0.5}, id="validation share"),
            pytest.param({"warmup": 0.5}, id="warm-up"),
            pytest.param({"clip": 1e-3}, id="clipping"),
            pytest.param({"precision": "bf16"}, id="bf16"),
        ],
    )
    def test_each_setting_changes_the_weights(
        self, change: dict[str, Any], finished: TrainResult, source: Path, data: Path, tmp_path: Path
    ) -> None:
        after = trained(train(source, data, tmp_path / "run", settings(**change)))
        assert not np.array_equal(after["head/logits/weight"], trained(finished)["head/logits/weight"])

    @pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
    def test_bf16_learns_and_is_confirmed_in_float32(
        self, layout: str, source: Path, data: Path, tmp_path: Path
    ) -> None:
        result = train(source, data, tmp_path / "run", settings(precision="bf16", layout=layout, epochs=4))
        assert (result.precision, result.layout) == ("bf16", layout)
        assert result.val_accuracy >= 0.9
        assert result.val_accuracy == result.val_accuracy_torch

    def test_a_batch_counts_no_more_images_than_there_are(
        self, source: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("graftonnx.training.memory.free_bytes", lambda device: 2**30)
        result = train(source, data, tmp_path / "run", settings(epochs=1, batch_size=10**6))
        assert result.epochs == 1

    def test_auto_measures_four_modes_and_says_so(self, source: Path, data: Path, tmp_path: Path) -> None:
        notes: list[str] = []
        auto = settings(precision="auto", layout="auto", epochs=1)
        result = train(source, data, tmp_path / "run", auto, note=notes.append)
        measured = documents.load((tmp_path / "run" / "config.yaml").read_text())["measured"]
        assert set(measured) == {
            f"{precision} {layout}"
            for precision in ("fp32", "bf16")
            for layout in ("contiguous", "channels_last")
        }
        assert min(measured, key=measured.__getitem__) == f"{result.precision} {result.layout}"
        assert "32 images to train, 8 to validate, 2 classes; cpu, " in notes[0]
        assert "measured, ms per image: fp32 contiguous" in notes[0]
        assert notes[1].startswith("epoch 1: train loss ")


class TestRefusals:
    @pytest.mark.parametrize("rate", ["lr_branches", "lr_head"])
    def test_a_loss_that_is_no_number(self, rate: str, source: Path, data: Path, tmp_path: Path) -> None:
        config = settings(**{rate: 1e30}, clip=1e30, epochs=12)
        with pytest.raises(GraftError, match=r"training stopped: .*(nan|inf|finite).*\. Lower --lr-branches"):
            train(source, data, tmp_path / "run", config)
        assert not (tmp_path / "run" / "model.onnx").exists()

    def test_a_network_that_cannot_be_compiled(
        self, source: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def broken(*_: Any) -> None:
            raise OSError("no compiler here")

        compiled = torch.compile
        monkeypatch.setattr(torch, "compile", lambda network: compiled(network, backend=broken))
        with pytest.raises(GraftError, match=r"cannot compile the network: .*no compiler here\. Start again"):
            train(source, data, tmp_path / "run", settings(compile="yes"))

    def test_a_broken_image(self, source: Path, tmp_path: Path) -> None:
        data = save_images(tmp_path / "data")
        (data / "blue" / "7.png").write_bytes(b"no image")
        with pytest.raises(DataError, match=r"cannot decode an image of '.*data': 'blue/7.png' \(it is not"):
            train(source, data, tmp_path / "run", CONFIG)

    def test_a_network_that_was_not_fused(self, data: Path, tmp_path: Path) -> None:
        model = onnx.load(save_fused(tmp_path / "plain.onnx"))
        del model.metadata_props[:]
        onnx.save(model, tmp_path / "plain.onnx")
        with pytest.raises(
            ModelError,
            match=r"cannot train '.*plain.onnx': it does not say what its input expects; .*Fuse it",
        ):
            train(tmp_path / "plain.onnx", data, tmp_path / "run", CONFIG)

    def test_a_missing_network(self, data: Path, tmp_path: Path) -> None:
        with pytest.raises(ModelError, match=r"cannot read '.*absent.onnx': there is no such file\."):
            train(tmp_path / "absent.onnx", data, tmp_path / "run", CONFIG)

    @pytest.mark.parametrize(
        ("side", "dims", "sentence"),
        [
            (
                "input",
                ["batch", 1, 16, 16],
                r"shape \['batch', 1, 16, 16\], expected float32 \[batch, 3, H, W\]",
            ),
            (
                "input",
                ["batch", 3, "H", "W"],
                r"height and width must be numbers\. Fuse again with --input-size",
            ),
            ("output", ["batch", 2, 1, 1], r"output 'logits' has shape \['batch', 2, 1, 1\], expected"),
        ],
    )
    def test_a_network_of_another_shape(
        self, side: str, dims: list[Any], sentence: str, data: Path, tmp_path: Path
    ) -> None:
        model = onnx.load(save_fused(tmp_path / "fused.onnx"))
        value = getattr(model.graph, side)[0]
        value.CopyFrom(onnx.helper.make_tensor_value_info(value.name, onnx.TensorProto.FLOAT, dims))
        onnx.save(model, tmp_path / "fused.onnx")
        with pytest.raises(ModelError, match=sentence):
            train(tmp_path / "fused.onnx", data, tmp_path / "run", CONFIG)

    def test_inputs_that_no_branch_has(self, data: Path, tmp_path: Path) -> None:
        model = onnx.load(save_fused(tmp_path / "fused.onnx"))
        other = onnx.helper.make_tensor_value_info("other", onnx.TensorProto.FLOAT, ["batch", 3, 16, 16])
        model.graph.input.append(other)
        onnx.save(model, tmp_path / "fused.onnx")
        with pytest.raises(ModelError, match=r"it has 2 inputs and 1 outputs, expected one"):
            train(tmp_path / "fused.onnx", data, tmp_path / "run", CONFIG)
        del model.graph.input[:]
        onnx.save(model, tmp_path / "fused.onnx")
        with pytest.raises(
            ModelError, match=r"its node 'centred' \(Sub\) reads 'input', which nothing makes"
        ):
            train(tmp_path / "fused.onnx", data, tmp_path / "run", CONFIG)

    def test_a_network_of_two_outputs(self, data: Path, tmp_path: Path) -> None:
        model = onnx.load(save_fused(tmp_path / "fused.onnx"))
        model.graph.output.append(onnx.ValueInfoProto(name="features"))
        onnx.save(model, tmp_path / "fused.onnx")
        with pytest.raises(
            ModelError, match=r"it has 1 inputs and 2 outputs, expected one image and its logits"
        ):
            train(tmp_path / "fused.onnx", data, tmp_path / "run", CONFIG)

    def test_a_module_that_does_not_compute_its_graph(self, source: Path) -> None:
        """Stands for any conversion error: the trained model is compared before it is written."""
        network = to_torch(source)
        network.register_forward_hook(lambda module, inputs, logits: logits + 0.1)
        images = Images(np.zeros((4, 16, 16, 3), np.uint8), np.zeros(4, np.int64))
        with pytest.raises(
            ParityError, match=r"ONNX Runtime and PyTorch differ .* accuracy .* against .*, logits by \d"
        ):
            export(network, ("blue", "green"), images, batch_size=4, device="cpu")
