"""The run folder: what a run was asked to do, with what, and everything it leaves behind."""

from __future__ import annotations

import contextlib
import os
import platform
import shlex
import shutil
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated, TypeVar, get_args

import onnx
from pydantic import AfterValidator, Field, ValidationError, field_validator

from graftonnx import documents
from graftonnx.data.catalogue import Part
from graftonnx.data.opening import is_remote
from graftonnx.errors import GraftError
from graftonnx.files import MODEL_FILE, SPLIT_FILE, BusyError, check_writable, is_folder, locked, write_text
from graftonnx.metadata import Record, Side
from graftonnx.model import save
from graftonnx.reading import read_text
from graftonnx.training.config import Device, Layout, Logger, Precision, TrainConfig

MOST_IMAGES = (1 << 63) - 1
"""Images that are counted; so many can be told apart in 64 bits."""

Count = Annotated[int, Field(ge=0, le=MOST_IMAGES)]
PathOrName = TypeVar("PathOrName", Path, str)

HEADER = "# How this run was made. `graftonnx train --resume FOLDER` goes on from it.\n"
PACKAGES = ("graftonnx", "torch", "lightning", "onnx", "onnxruntime-gpu", "onnxruntime", "numpy", "pillow")


def _openable(where: PathOrName) -> PathOrName:
    """Refuse what no file can be called.

    Raises:
        ValueError: Then.
    """
    if b"\0" in os.fsencode(where):
        raise ValueError("no file has a NUL character in its name")
    return where


class RunRecord(Record):
    """The content of `config.yaml`.

    Attributes:
        source: The network that is fine-tuned.
        source_sha256: See :func:`graftonnx.weights.digest`.
        data: The labelled images: an absolute path, or a name on the hub.
        labels: Class names in the order of the logits.
        images: Number of images in each part of the split, before bad ones are left out.
        input_size: Height and width of the network's input, in pixels.
        config: The settings.
        device: Where it runs.
        precision: What it runs in.
        layout: Order of a feature map's elements in memory.
        compiled: Whether the network is compiled.
        skip_rates: By what the learning rate of each skip is multiplied (:mod:`graftonnx.training.scales`).
        measured: Seconds per image of each mode and batch size that was tried; empty where none was.
        versions: Of Python and of the packages that compute.
    """

    source: Annotated[Path, AfterValidator(_openable)]
    source_sha256: str
    data: Annotated[str, AfterValidator(_openable)]
    labels: tuple[str, ...]
    images: dict[Part, Count]
    input_size: tuple[Side, Side]
    config: TrainConfig
    device: Device
    precision: Precision
    layout: Layout
    compiled: bool = False
    skip_rates: dict[str, float] = Field(default_factory=dict)
    measured: dict[str, float]
    versions: dict[str, str]

    @field_validator("images")
    @classmethod
    def _are_all_counted(cls, images: dict[Part, int]) -> dict[Part, int]:
        """Refuse a part that is not counted.

        Raises:
            ValueError: Then.
        """
        if len(images) < len(get_args(Part)):
            raise ValueError(f"images must count {', '.join(get_args(Part))}")
        return images

    @field_validator("config")
    @classmethod
    def _is_decided(cls, config: TrainConfig) -> TrainConfig:
        """Refuse settings that leave the size of a batch open.

        Raises:
            ValueError: Then.
        """
        if config.batch_size == "auto":
            raise ValueError("batch_size must be a number, a run has decided it")
        return config


class RunFolder:
    """The paths in a run folder."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.config = path / "config.yaml"
        self.split = path / SPLIT_FILE
        self.data = path / "data.json"
        self.start = path / "start.onnx"
        self.metrics = path / "metrics.csv"
        self.curves = path / "curves.png"
        self.model = path / MODEL_FILE
        self.report = path / "report.html"
        self.findings = path / "validation.json"
        self.confusion = path / "confusion.csv"
        self.classes = path / "classes.csv"
        self.skips = path / "skips.csv"
        self.mistakes = path / "mistakes.png"
        self.events = path / "tensorboard"
        self.last = path / "checkpoints" / "last.ckpt"
        self.best = path / "checkpoints" / "best.safetensors"

    @property
    def resuming(self) -> str:
        """The options that go on with the run, as a shell takes them."""
        try:
            record = self.read()
        except (GraftError, OSError):  # it has not begun
            return to_resume(self.path)
        return to_resume(self.path, record.data, record.config.logger)

    @property
    def files(self) -> tuple[Path, ...]:
        """Every file that a run writes."""
        tables = (self.confusion, self.classes, self.skips)
        pictures = (self.curves, self.mistakes, self.picture(self.confusion), self.picture(self.skips))
        others = (self.config, self.split, self.data, self.start, self.metrics, self.model, self.report)
        return (*others, self.findings, *tables, *pictures, *self.event_files, self.last, self.best)

    @property
    def event_files(self) -> tuple[Path, ...]:
        """TensorBoard's files."""
        return tuple(self.events.glob("events.*"))

    def picture(self, table: Path) -> Path:
        """Return the path of the picture of a table: `skips.png` of `skips.csv`."""
        return table.with_suffix(".png")

    def check(self, source: Path, *, force: bool) -> None:
        """Refuse a folder that cannot or should not be written, before any work is done.

        Args:
            source: The network to train, which may not be among the files to replace.
            force: Whether a run in the folder may be replaced.

        Raises:
            GraftError: If it is a file, holds something and `force` is false, holds something that is no run,
                the source or a link to a folder, or cannot be written.
        """
        is_there = is_folder(self.path, "write the run to")
        is_filled = is_there and any(self.path.iterdir())
        if is_filled and not force:
            hint = f"go on with {self.resuming}, " if self.config.is_file() else ""
            raise GraftError(
                f"cannot write the run to '{self.path}': it is not empty. Choose another -o, {hint}"
                "or pass --force to replace the run in it."
            )
        if is_filled:
            self._check_folders("write the run to")
            self._check_replaceable()
        if source.resolve() in (file.resolve() for file in self.files):
            raise GraftError(
                f"cannot replace the run in '{self.path}': '{source}', which is to be trained, is a part of "
                "it. Choose another -o."
            )
        check_writable(self.config if is_there else self.path, force=True)

    def _check_folders(self, doing: str) -> None:
        """Refuse links in the place of the folders inside: what is written there would go elsewhere.

        Raises:
            GraftError: If one is there.
        """
        for folder in (self.last.parent, self.events, self.path / "wandb"):
            if folder.is_symlink():
                raise GraftError(
                    f"cannot {doing} '{self.path}': its '{folder.name}' is a link, expected a folder. Remove "
                    "the link, or put the folder itself in its place."
                )

    def _check_replaceable(self) -> None:
        """Refuse to put a run over files that are neither one nor the beginning of one."""
        first = {self.split, self.data, self.start}
        files = [file for file in self.path.rglob("*") if not file.is_dir()]
        if all(file in first or file.match(".*.part") for file in files):
            return
        try:
            self.read()
        except GraftError as error:
            raise GraftError(
                f"cannot replace '{self.path}': it is not empty, and what it holds is not a run of "
                "graftonnx. Choose another -o."
            ) from error

    def sweep(self) -> None:
        """Remove what a killed process had begun to write."""
        for folder in (self.path, self.last.parent):
            for file in folder.glob(".*.part"):
                file.unlink(missing_ok=True)
        for folder in self.path.glob(".images.*"):
            shutil.rmtree(folder, ignore_errors=True)

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Keep other processes from writing into the folder during the block.

        Raises:
            GraftError: If another one does.
        """
        try:
            with locked(self.path.resolve()):  # which may be a link to a folder
                yield
        except BusyError:
            raise GraftError(
                f"cannot write the run to '{self.path}': another graftonnx is writing it. Wait for it, or "
                "choose another -o."
            ) from None

    @contextlib.contextmanager
    def reserved(self) -> Iterator[None]:
        """Make the folder for the block; if the block fails, a folder that was not there before goes away.

        Raises:
            GraftError: If another process writes into it.
        """
        fresh = not self.path.is_dir()
        self.path.mkdir(parents=True, exist_ok=True)
        with self.alone():
            try:
                yield
            except BaseException:
                if fresh:
                    with contextlib.suppress(OSError):
                        self.path.rmdir()
                raise

    def create(self, record: RunRecord, split: str, data: str, start: onnx.ModelProto | None = None) -> None:
        """Make the folder, remove an earlier run's files, and write what the run starts from.

        `config.yaml` comes last: where it is, the run can be resumed.

        Args:
            record: The content of `config.yaml`.
            split: The content of `split.json`.
            data: The content of `data.json`.
            start: The network to begin with, where it is not the source itself.

        Raises:
            GraftError: If the file system refuses; nothing of the run is left then.
        """
        self._check_folders("write the run to")
        self.last.parent.mkdir(parents=True, exist_ok=True)
        self.sweep()
        for file in self.files:
            file.unlink(missing_ok=True)
        try:
            write_text(self.split, split)
            write_text(self.data, data)
            if start is not None:
                save(start, self.start)
            write_text(self.config, HEADER + documents.dump(record.model_dump(mode="json")))
        except BaseException:
            self._withdraw()
            raise

    def _withdraw(self) -> None:
        """Remove the files of a run that could not begin, and the folders that are empty then."""
        for file in self.files:
            file.unlink(missing_ok=True)
        for folder in (self.last.parent, self.path):
            with contextlib.suppress(OSError):
                folder.rmdir()

    def read(self, doing: str = "resume") -> RunRecord:
        """Read `config.yaml`.

        Args:
            doing: What for, for the message: `cannot <doing> 'run': ...`.

        Raises:
            GraftError: If the folder holds no run, its record is damaged, or a folder in it is a link.
        """
        if not self.config.is_file():
            raise GraftError(
                f"cannot {doing} '{self.path}': there is no '{self.config.name}' in it. "
                "Give the folder that an earlier `graftonnx train -o` wrote."
            )
        self._check_folders(doing)
        try:
            return RunRecord.model_validate(documents.load(read_text(self.config, longest=documents.ENOUGH)))
        except (OSError, documents.YAMLError, ValidationError, UnicodeDecodeError) as error:
            what = str(error)
            if isinstance(error, ValidationError):
                first = error.errors()[0]
                what = f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
            raise GraftError(
                f"cannot {doing} '{self.path}': its config.yaml is damaged ({' '.join(what.split())}). "
                "Start a new run."
            ) from error


def to_resume(run: Path, data: str | Path = "", logger: Logger = "none") -> str:
    """Return the options that go on with a run, as a shell takes them; connections are asked for anew.

    Args:
        run: The run folder.
        data: The run's data.
        logger: Where it sends its figures.
    """
    options = ["--resume", str(run)]
    if is_remote(data):
        options += ["--data", str(data)]
    if logger != "none":
        options += ["--logger", logger]
    return shlex.join(options)


def check_asked(run: Path, record: RunRecord, data: str | Path | None, logger: Logger | None) -> None:
    """Refuse a run that would open a connection which only its own record asks for.

    Args:
        run: The run folder.
        record: What its `config.yaml` says.
        data: The data that was given, if any.
        logger: The tracker that was given, if any.

    Raises:
        GraftError: With what would be contacted, and what to say if that is wanted.
    """
    contacts = []
    if data is None and is_remote(record.data):
        contacts.append(f"reads '{record.data}' from the Hugging Face hub")
    if logger is None and record.config.logger != "none":
        contacts.append(f"sends its figures to {record.config.logger}")
    if contacts:
        again = to_resume(run, data or record.data, logger or record.config.logger)
        raise GraftError(
            f"cannot resume '{run}': it {' and '.join(contacts)}, and a connection is opened only where the "
            f"command asks for it. If you want that: graftonnx train {again}"
        )


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that compute."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        with contextlib.suppress(PackageNotFoundError):
            found[name] = version(name)
    return found
