"""Kills, signals, full and closed disks, folders that vanish, others that write too: all stays whole."""

from __future__ import annotations

import contextlib
import os
import re
import resource
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest
import torch
from builders import plain_cnn, residual_cnn, saved
from click.testing import CliRunner, Result
from training.fused import save_fused, save_images

from graftonnx import files
from graftonnx.bundling import verify
from graftonnx.classifier import model_file
from graftonnx.cli import graftonnx
from graftonnx.data.opening import open_data
from graftonnx.errors import GraftError
from graftonnx.files import atomic, locked, made_folder, replace_folder, sweep
from graftonnx.prediction.listing import find_images
from graftonnx.training import TrainConfig, train
from graftonnx.training.checkpoints import save_weights
from graftonnx.training.run import RunFolder

ROOT = Path(__file__).parents[1]
PROGRAM = [sys.executable, "-m", "graftonnx"]
QUICK = TrainConfig(epochs=1, batch_size=8, precision="fp32", layout="contiguous", device="cpu")
WRITER = """
import sys, time
from pathlib import Path
from graftonnx.cli.ending import ended_by_signals
from graftonnx.files import atomic
with ended_by_signals(), atomic(Path(sys.argv[1])) as temporary:
    temporary.write_bytes(b"half")
    print("begun", flush=True)
    time.sleep(60)
"""


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(graftonnx, [str(argument) for argument in arguments])


def started(target: Path) -> subprocess.Popen[str]:
    """Start a process that is in the middle of writing a file."""
    process = subprocess.Popen([sys.executable, "-c", WRITER, target], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "begun\n"
    return process


def parts(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.name.endswith(files.PART)]


@pytest.fixture
def parents(tmp_path: Path) -> tuple[Path, Path]:
    """Two networks."""
    return (
        saved(residual_cnn(depth=3), tmp_path / "a.onnx"),
        saved(plain_cnn((8, 16, 32), seed=1), tmp_path / "b.onnx"),
    )


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run; `fused.onnx` and `data` are beside it."""
    folder = tmp_path_factory.mktemp("finished")
    train(save_fused(folder / "fused.onnx"), save_images(folder / "data", count=8), folder / "run", QUICK)
    return folder / "run"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_signal_takes_the_temporary_file_away(number: signal.Signals, tmp_path: Path) -> None:
    target = tmp_path / "x.onnx"
    target.write_bytes(b"old")
    process = started(target)
    assert len(parts(tmp_path)) == 1
    process.send_signal(number)
    process.communicate()
    assert process.returncode in (128 + number, -number)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"x.onnx": b"old"}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_command_that_is_ended_says_so_and_leaves_its_answers(
    number: signal.Signals, run: Path, tmp_path: Path
) -> None:
    images = sorted((run.parent / "data").rglob("*.png"))
    command = [*PROGRAM, "predict", run / "model.onnx", "-", "-o", "x.csv", "--batch-size", "2", "-q"]
    process = subprocess.Popen(
        command, cwd=tmp_path, stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True, bufsize=1
    )
    assert process.stdin is not None
    process.stdin.writelines(f"{image}\n" for image in images * 40)
    process.stdin.flush()
    while not (tmp_path / "x.csv.part").is_file() or not (tmp_path / "x.csv.part").stat().st_size:
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(number)
    words = process.communicate()[1]
    assert process.returncode == 128 + number
    assert words == "Interrupted. What is answered is in x.csv.part; the same command goes on from there.\n"
    assert [path.name for path in tmp_path.iterdir()] == ["x.csv.part"]


def test_what_a_killed_process_left_goes_away_and_what_a_living_one_writes_stays(tmp_path: Path) -> None:
    target = tmp_path / "x.onnx"
    killed = started(target)
    living = started(target)
    killed.kill()
    killed.communicate()
    (tmp_path / ".x.onnx.123.part").write_bytes(b"of an earlier version")
    (tmp_path / ".x.onnx.456.part").mkdir()
    (tmp_path / ".other.onnx.1.part").write_bytes(b"of another file")
    files.write_text(target, "whole")
    left = {path.name for path in parts(tmp_path)}
    assert len(left) == 2
    assert ".other.onnx.1.part" in left
    living.terminate()
    living.communicate()
    assert {path.name for path in parts(tmp_path)} == {".other.onnx.1.part"}
    assert target.read_text() == "whole"


def test_a_temporary_file_follows_no_link_and_has_the_usual_rights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files.secrets, "token_hex", lambda size: "known")
    victim = tmp_path / "victim"
    victim.write_text("mine")
    (tmp_path / ".x.known.part").symlink_to(victim)
    with pytest.raises(GraftError, match="File exists"):
        files.write_text(tmp_path / "x", "theirs")
    assert victim.read_text() == "mine"
    before = os.umask(0o027)
    try:
        files.write_text(tmp_path / "y", "text")
    finally:
        os.umask(before)
    assert (tmp_path / "y").stat().st_mode & 0o777 == 0o640


def pipe(path: Path) -> None:
    os.mkfifo(path)


def device(path: Path) -> None:
    path.symlink_to("/dev/null")


def listener(path: Path) -> None:
    here = os.getcwd()
    os.chdir(path.parent)  # a longer name does not fit
    try:
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind(path.name)
    finally:
        os.chdir(here)


@pytest.mark.parametrize("make", [pipe, device, listener])
def test_what_is_no_file_is_never_replaced(
    make: Callable[[Path], None], parents: tuple[Path, Path], tmp_path: Path
) -> None:
    place = tmp_path / "x.onnx"
    make(place)
    before = place.lstat()
    result = invoke("fuse", *parents, "-o", place, "--classes", "2", "--force")
    assert (result.exit_code, result.stderr) == (
        1,
        f"Error: cannot write '{place}': it is a device, a pipe or a socket, which is never replaced. Choose "
        "another -o.\n",
    )
    with pytest.raises(GraftError, match="which is never replaced"):
        files.write_text(place, "text")
    for command in (["bundle", parents[0]], ["train", parents[0], "--data", tmp_path]):
        assert "it is a file. Choose another -o." in invoke(*command, "-o", place, "--force").stderr
    assert place.lstat() == before


def test_a_link_is_replaced_only_with_force_wherever_it_leads(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("old")
    for target in ("file", "nowhere"):
        link = tmp_path / f"to {target}"
        link.symlink_to(target)
        with pytest.raises(GraftError, match="it exists"):
            files.check_writable(link, force=False)
        files.check_writable(link, force=True)
        files.write_text(link, "new")
        assert (link.is_symlink(), link.read_text()) == (False, "new")
    assert (tmp_path / "file").read_text() == "old"
    assert not (tmp_path / "nowhere").exists()


@pytest.mark.parametrize("name", ["bundle", "train"])
def test_a_folder_is_not_made_where_a_link_leads_nowhere(
    name: str, parents: tuple[Path, Path], tmp_path: Path
) -> None:
    (tmp_path / "x").symlink_to("nowhere")
    data = [] if name == "bundle" else ["--data", save_images(tmp_path / "data", count=8)]
    fused = save_fused(tmp_path / "fused.onnx")
    result = invoke(name, fused, *data, "-o", tmp_path / "x")
    assert (result.exit_code, "it is a link that leads nowhere." in result.stderr) == (1, True), result.stderr


def test_a_run_may_be_in_a_folder_that_a_link_leads_to(run: Path, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "link").symlink_to("run")
    assert train(run.parent / "fused.onnx", run.parent / "data", tmp_path / "link", QUICK).model.is_file()


@pytest.mark.parametrize("make", [pipe, device, listener])
def test_what_is_called_like_a_left_over_and_is_no_file_stays_and_blocks_nothing(
    make: Callable[[Path], None], tmp_path: Path
) -> None:
    make(tmp_path / ".x.aaaa.part")
    writing = threading.Thread(target=files.write_text, args=(tmp_path / "x", "text"), daemon=True)
    writing.start()
    writing.join(60)
    assert not writing.is_alive()
    assert {path.name for path in tmp_path.iterdir()} == {"x", ".x.aaaa.part"}


def test_many_writers_of_one_file_leave_one_whole(tmp_path: Path) -> None:
    contents = [f"{n}" * 100_000 for n in range(8)]
    threads = [threading.Thread(target=files.write_text, args=(tmp_path / "x", text)) for text in contents]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (tmp_path / "x").read_text() in contents
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


def test_a_folder_that_vanishes_gets_a_sentence(tmp_path: Path) -> None:
    folder = tmp_path / "gone"
    folder.mkdir()
    writing = contextlib.ExitStack()
    writing.enter_context(atomic(folder / "x")).write_bytes(b"x")
    shutil.rmtree(folder)
    with pytest.raises(GraftError, match=r"cannot write '.*x': No such file or directory\."):
        writing.close()


def test_a_run_that_vanishes_gets_a_sentence(run: Path, tmp_path: Path) -> None:
    def note(remark: str) -> None:
        if remark.startswith("epoch 1"):
            shutil.rmtree(tmp_path / "run")

    config = QUICK.model_copy(update={"epochs": 2})
    with pytest.raises(GraftError) as caught:
        train(run.parent / "fused.onnx", run.parent / "data", tmp_path / "run", config, note=note)
    assert re.fullmatch(
        r"cannot write '.*': No such file or directory\. .*: train again\.", str(caught.value)
    )


def test_a_clock_that_jumps_changes_nothing(tmp_path: Path) -> None:
    target = tmp_path / "x"
    for moment in (0, 2**31 - 1, 4e9):
        target.write_text("old")
        (tmp_path / ".x.1.part").write_text("left")
        for path in (target, tmp_path / ".x.1.part", tmp_path):
            os.utime(path, (moment, moment))
        files.write_text(target, "new")
        assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"x": "new"}


@pytest.mark.parametrize("exchanged", [True, False], ids=["in one step", "in two steps"])
def test_a_folder_takes_the_place_of_another(
    exchanged: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not exchanged:
        monkeypatch.setattr(files, "_exchanged", lambda one, other: False)
    for name in ("new", "old"):
        (tmp_path / name).mkdir()
        (tmp_path / name / name).touch()
    replace_folder(tmp_path / "new", tmp_path / "old")
    assert {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*")} == {
        "new", "new/old", "old", "old/new",
    }  # fmt: skip
    sweep(tmp_path / "old")
    replace_folder(tmp_path / "old", tmp_path / "elsewhere")
    assert (tmp_path / "elsewhere" / "new").is_file()


def test_two_trainings_cannot_write_one_run(run: Path, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    given = (run.parent / "fused.onnx", run.parent / "data")
    with locked(tmp_path / "run"), pytest.raises(GraftError) as caught:
        train(*given, tmp_path / "run", QUICK)
    assert caught.value.message == (
        f"cannot write the run to '{tmp_path / 'run'}': another graftonnx is writing it. Wait for it, or "
        "choose another -o."
    )
    assert train(*given, tmp_path / "run", QUICK).model.is_file()


def test_two_commands_that_fuse_into_one_file_leave_a_whole_one(
    parents: tuple[Path, Path], tmp_path: Path
) -> None:
    command = [*PROGRAM, "fuse", *parents, "-o", "x.onnx", "--classes", "2", "--force", "-q"]
    both = [subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL) for _ in range(2)]
    assert [process.wait() for process in both] == [0, 0]
    onnx.checker.check_model(tmp_path / "x.onnx", full_check=True)
    assert parts(tmp_path) == []


@pytest.mark.parametrize("name", ["export", "bundle"])
def test_two_commands_that_write_one_target_leave_a_whole_one(name: str, run: Path, tmp_path: Path) -> None:
    command = [*PROGRAM, name, run, "-o", "x.onnx", "--force", "-q"]
    both = [subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL) for _ in range(2)]
    assert [process.wait() for process in both] == [0, 0]
    assert [path.name for path in tmp_path.iterdir()] == ["x.onnx"]
    if name == "bundle":
        verify(tmp_path / "x.onnx")
    else:
        onnx.checker.check_model(tmp_path / "x.onnx", full_check=True)


def removed_while_locking(monkeypatch: pytest.MonkeyPatch, folder: Path) -> list[Path]:
    """Let another process have the first lock that is taken; it removes what it has locked a little later.

    Returns:
        What is to be removed, once it is known.
    """
    swept: list[Path] = []
    lock = files.fcntl.flock  # type: ignore[union-attr]

    def flock(number: int, operation: int) -> None:
        if not swept:
            swept.extend(parts(folder))
            raise BlockingIOError
        lock(number, operation)

    monkeypatch.setattr(files.fcntl, "flock", flock)
    return swept


def test_a_file_that_is_swept_before_it_is_locked_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    swept = removed_while_locking(monkeypatch, tmp_path)
    with atomic(tmp_path / "x") as temporary:
        temporary.write_text("whole")
        (only,) = swept
        only.unlink()
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"x": "whole"}


def test_a_folder_that_is_swept_before_it_is_locked_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    swept = removed_while_locking(monkeypatch, tmp_path)
    with made_folder(tmp_path / "x") as temporary:
        (only,) = swept
        only.rmdir()
        temporary.rename(tmp_path / "x")
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


@pytest.mark.parametrize("make", [Path.touch, Path.mkdir])
def test_what_is_removed_while_it_is_locked_is_busy(
    make: Callable[[Path], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "x"
    make(place)
    monkeypatch.setattr(files.fcntl, "flock", lambda *given: place.rename(tmp_path / "elsewhere"))
    with pytest.raises(files.BusyError), locked(place):
        pass


def fill(ballast: Path) -> None:
    """Fill a disk but for one page."""
    with contextlib.suppress(OSError), ballast.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))
    os.truncate(ballast, ballast.stat().st_size - 4096)


Call = Callable[[tuple[Path, Path], Path, Path], list[object]]
CALLS: dict[str, Call] = {
    "match": lambda parents, run, disk: ["match", *parents, "-o", disk / "plan.yaml"],
    "fuse": lambda parents, run, disk: ["fuse", *parents, "-o", disk / "x.onnx", "--classes", "2"],
    "export": lambda parents, run, disk: ["export", run, "-o", disk / "x.onnx"],
    "view": lambda parents, run, disk: ["view", run, "-o", disk / "x.html"],
    "predict": lambda parents, run, disk: ["predict", run, run.parent / "data", "-o", disk / "x.csv"],
    "bundle": lambda parents, run, disk: ["bundle", run, "-o", disk / "x"],
    "train": lambda parents, run, disk: [
        "train", run.parent / "fused.onnx", "--data", run.parent / "data", "-o", disk / "x", "--epochs", "1",
        "--precision", "fp32", "--layout", "contiguous",
    ],
}  # fmt: skip


@pytest.mark.parametrize("name", CALLS)
def test_a_full_disk_gets_a_sentence_and_nothing_half_written(
    name: str, parents: tuple[Path, Path], run: Path, small_disk: Path
) -> None:
    fill(small_disk / "ballast")
    result = invoke(*CALLS[name](parents, run, small_disk))
    if name != "match":  # a plan may fit
        assert result.exit_code == 1, result.output
        assert re.search(r"Error: cannot [^\n]*(space|make room)", result.stderr), result.stderr
    assert "Traceback" not in result.output
    assert {path.name for path in small_disk.iterdir()} <= {"ballast", "plan.yaml", "x.csv.part"} | (
        {"x"} if name == "train" else set()
    )
    assert not [path for path in parts(small_disk) if path.name != "x.csv.part"]
    assert "/." not in result.stderr  # the name of a temporary file


@pytest.mark.parametrize("first", [True, False])
def test_a_full_disk_in_an_epoch_says_which_checkpoint_is_there(first: bool, small_disk: Path) -> None:
    folder = RunFolder(small_disk / "x")
    folder.last.parent.mkdir(parents=True)
    folder.config.touch()
    if not first:
        folder.last.write_bytes(b"whole")
    fill(small_disk / "ballast")
    with pytest.raises(GraftError) as caught:
        save_weights({"weight": torch.zeros(100_000)}, folder.best)
    kept = (
        "No checkpoint was written yet: make room, then begin again"
        if first
        else "The checkpoint before it is whole: make room, then go on"
    )
    assert caught.value.message.endswith(f" {kept} with --resume {folder.path}.")


@pytest.mark.parametrize("name", CALLS)
def test_a_disk_that_cannot_be_written_is_refused_before_any_work(
    name: str, parents: tuple[Path, Path], run: Path, small_disk: Path
) -> None:
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    result = invoke(*CALLS[name](parents, run, small_disk))
    assert result.exit_code == 1, result.output
    assert re.search(r"Error: cannot [^\n]*Read-only file system", result.stderr), result.stderr
    assert list(small_disk.iterdir()) == []


def test_without_the_right_to_write_a_command_is_refused(parents: tuple[Path, Path], tmp_path: Path) -> None:
    if os.geteuid():
        folder = tmp_path / "closed"
        folder.mkdir(mode=0o555)
        result = invoke("fuse", *parents, "-o", folder / "x.onnx", "--classes", "2")
        assert (result.exit_code, "Permission denied" in result.stderr) == (1, True)
        return
    process = os.fork()
    if not process:  # a child that is nobody; what it needs is imported
        try:
            os.chdir("/")
            os.setuid(65534)
            files.check_writable(Path("/x.onnx"), force=False)
        except GraftError as error:
            os._exit(0 if error.message.startswith("cannot write '/x.onnx': Permission denied in '/'") else 2)
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == 0


LONG = "y" * 300


def renamed(command: list[object], folder: Path, name: str) -> list[object]:
    """Return a command that writes to another name in a folder, with the same suffix."""
    return [
        word.with_name(f"{name}{word.suffix}") if isinstance(word, Path) and word.parent == folder else word
        for word in command
    ]


@pytest.mark.parametrize("name", CALLS)
def test_a_name_that_is_too_long_is_refused_before_any_work(
    name: str, parents: tuple[Path, Path], run: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    command = renamed(CALLS[name](parents, run, folder), folder, LONG)
    result = invoke(*command, "-q")
    assert (result.exit_code, result.stdout) == (1, "")
    assert re.fullmatch(r"Error: cannot write [^\n]*File name too long[^\n]*\n", result.stderr)
    assert list(folder.iterdir()) == []


def test_a_name_to_which_nothing_can_be_added_is_refused_before_any_work(tmp_path: Path) -> None:
    longest = tmp_path / ("y" * (255 - len(files.temporary_name(Path("x")).name) + 1))
    files.check_writable(longest, force=False)
    files.write_text(longest, "text")
    with pytest.raises(GraftError, match="File name too long, with the 15 characters that are added while"):
        files.check_writable(tmp_path / f"{longest.name}y", force=False)


@pytest.mark.parametrize(
    "line",
    [
        f"inspect {LONG}", f"check {LONG}", f"view {LONG} -o x.svg", f"match {LONG} a.onnx",
        f"fuse {LONG} a.onnx -o x.onnx --classes 2", f"fuse a.onnx a.onnx --plan {LONG} -o x.onnx",
        f"train {LONG} --data . -o x", f"train --resume {LONG}",
        f"report {LONG}", f"export {LONG} -o x.onnx", f"bundle {LONG} -o x", f"verify {LONG}",
        f"eval {LONG} --data .", f"eval a.onnx --data {LONG} --preprocess unit", f"predict {LONG} d",
        f"eval a.onnx --data d --preprocess unit --split-file {LONG}", f"predict a.onnx {LONG}",
        f"predict a.onnx d --labels {LONG}", f"match a.onnx a.onnx --calibrate {LONG}",
        f"export a.onnx -o x.onnx --preprocess unit --precision int8 --calibrate {LONG}",
    ],
)  # fmt: skip
def test_a_name_that_no_file_can_have_is_refused(
    line: str, parents: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    save_images(tmp_path / "d", count=1)
    result = invoke(*line.split())
    assert result.exit_code == 1, result.output
    assert re.search(r"^Error: cannot [^\n]*File name too long[^\n]*\n\Z", result.stderr, re.M), result.stderr
    assert {path.name for path in tmp_path.iterdir()} == {"a.onnx", "b.onnx", "d"}


UNSPEAKABLE = os.fsdecode(b"x\xff")


@pytest.mark.parametrize("name", CALLS)
def test_an_output_may_have_a_name_that_is_no_text_or_is_refused_before_any_work(
    name: str, parents: tuple[Path, Path], run: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    command = renamed(CALLS[name](parents, run, folder), folder, UNSPEAKABLE)
    result = invoke(*command, "-q")
    if name not in ("bundle", "train"):
        assert result.exit_code == 0, result.output
        assert [path.stem for path in folder.iterdir()] == [UNSPEAKABLE]
        return
    reason = f"to '{folder}/x\\udcff': its name is not UTF-8 text. Choose another -o.\n"
    assert (result.exit_code, result.stderr.endswith(reason)) == (1, True), result.stderr
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("name", ["predict", "eval", "export", "bench", "verify"])
def test_what_libraries_open_by_its_name_must_be_called_by_a_text(
    name: str, run: Path, tmp_path: Path
) -> None:
    data = run.parent / "data"
    source = tmp_path / UNSPEAKABLE / "model.onnx"
    source.parent.mkdir()
    shutil.copy(run / "model.onnx", source)
    options: dict[str, list[object]] = {
        "predict": [data], "eval": ["--data", data], "export": ["-o", tmp_path / "y.onnx"],
    }  # fmt: skip
    given = source.parent if name == "verify" else source
    result = invoke(name, given, *options.get(name, []))
    assert result.exit_code == 1, result.output
    assert re.search(r"Error: cannot [^\n]*: its name is not UTF-8 text\. [^\n]*ename it\.\n", result.stderr)


def as_nobody(*calls: Callable[[], object]) -> str:
    """Make calls as a user without rights, who is refused each; return the messages, a line each."""
    reading, writing = os.pipe()
    process = os.fork()
    if not process:
        for call in calls:
            try:
                os.setuid(65534)
                call()
            except GraftError as error:
                os.write(writing, f"{error.message}\n".encode())
            except BaseException as error:
                os.write(writing, f"{error!r}\n".encode())
        os._exit(0)
    os.close(writing)
    with open(reading) as file:
        said = file.read()
    os.waitpid(process, 0)
    return said


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_what_is_in_a_folder_of_another_user_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    (tmp_path / "x.png").touch()
    path = tmp_path / "x.png"
    said = as_nobody(
        lambda: files.check_writable(path, force=True),
        lambda: find_images(str(path)),
        lambda: model_file(path),
        lambda: open_data(path),
        lambda: files.is_folder(path, "write the run to"),
    )
    assert said.splitlines() == [
        f"cannot write '{path}': Permission denied in '{tmp_path}'. Choose a folder you can write to.",
        f"cannot classify '{path}': Permission denied.",
        f"cannot read '{path}': Permission denied.",
        f"cannot read images from '{path}': Permission denied.",
        f"cannot write the run to '{path}': Permission denied. Choose another -o.",
    ]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_a_folder_that_may_not_be_listed_has_no_similar_names() -> None:
    folder = Path(tempfile.mkdtemp(dir="/tmp"))
    try:
        folder.chmod(0o711)
        (folder / "x.onnx").touch()
        missing = folder / "y.onnx"
        assert as_nobody(lambda: model_file(missing)) == (
            f"cannot read '{missing}': there is no such file or run folder.\n"
        )
    finally:
        shutil.rmtree(folder)


@pytest.mark.parametrize("name", ["match", "fuse", "export", "bundle", "train", "view"])
def test_a_current_folder_that_was_removed_is_a_sentence(
    name: str, parents: tuple[Path, Path], run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    result = invoke(*CALLS[name](parents, run, Path()))
    assert result.exit_code == 1
    assert re.search(
        r"^Error: cannot [^\n]*(No such file|does not exist any more)[^\n]*\n\Z", result.stderr, re.M
    )


@pytest.mark.parametrize("name", ["fuse", "export", "predict", "train"])
def test_too_little_memory_gets_a_sentence(
    name: str, parents: tuple[Path, Path], run: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    command = [*PROGRAM, *map(str, CALLS[name](parents, run, folder)), "-q"]
    most = 160 << 20
    done = subprocess.run(
        command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"},
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (most, most)),
    )  # fmt: skip
    assert done.returncode == 1, done.stderr
    assert done.stderr.splitlines()[-1] == (
        "Error: memory ran out. Free some, or raise the limit of this process; nothing is half-written."
    )
    assert "Traceback" not in done.stderr
    assert list(folder.iterdir()) == []


PRINTING = ("inspect", "check", "match", "eval", "predict", "zoo", "schema", "completion", "view", "export")


@pytest.mark.parametrize("name", PRINTING)
def test_a_reader_that_leaves_early_ends_any_command_quietly(
    name: str, parents: tuple[Path, Path], run: Path, tmp_path: Path
) -> None:
    calls: dict[str, list[object]] = {
        "inspect": [parents[0]], "check": [parents[0]], "match": [*parents],
        "predict": [run, run.parent / "data"], "eval": [run, "--data", run.parent / "data"],
        "zoo": ["list"], "schema": ["eval"], "completion": ["bash"],
        "view": [run, "-o", tmp_path / "x.html"], "export": [run, "-o", tmp_path / "x.onnx"],
    }  # fmt: skip
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [*PROGRAM, name, *map(str, calls[name])], stdout=writing, stderr=subprocess.PIPE, text=True
    )
    os.close(writing)
    assert done.returncode == 141
    assert not re.search("Traceback|Exception|Error", done.stderr), done.stderr


def test_nothing_is_left_in_the_folder_of_temporary_files_and_nothing_is_reported(tmp_path: Path) -> None:
    code = (
        "import graftonnx.runtime, onnxruntime, os; assert os.environ['ORT_DISABLE_TELEMETRY'] == '1';"
        f"onnxruntime.InferenceSession({str(ROOT / 'models' / 'custom16-mnist.onnx')!r})"
    )
    environment = {k: v for k, v in os.environ.items() if k != "ORT_DISABLE_TELEMETRY"}
    subprocess.run([sys.executable, "-c", code], env={**environment, "TMPDIR": str(tmp_path)}, check=True)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_killed_at_random_moments_every_command_leaves_what_is_whole(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "tools" / "faults", "--kills", "10", "--seed", "1", "-o", tmp_path],
        capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.startswith("10 kills, seed 1, 0 failures")
