"""The runs of a comparison: ordinary run folders, of which finished ones are reused and others resumed.

| in the output folder | what it is |
|---|---|
| `comparison.yaml` | what all runs have in common |
| `fused/seed0.onnx`, `fused/seed0/` | what a run starts from, and the run |
| `concatenated/…`, `a/…`, `b/…` | likewise; and for each other fused file under its name |
| `compare.json`, `compare.md` | the result, once all runs have finished |
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from graftonnx import documents, training
from graftonnx.comparison.record import AVERAGE, CONCATENATED, FUSED, Other, Request
from graftonnx.errors import GraftError
from graftonnx.files import check_writable, is_folder, write_text
from graftonnx.metadata import Parent
from graftonnx.model import save
from graftonnx.network import Network
from graftonnx.reading import read_text
from graftonnx.training.config import TrainConfig
from graftonnx.training.history import read_metrics
from graftonnx.training.run import RunFolder, RunRecord
from graftonnx.variants import variant

HEADER = "# What all runs of this comparison have in common; `graftonnx compare` goes on with them.\n"
REQUEST_FILE = "comparison.yaml"

Note = Callable[[str], object]


@dataclass(frozen=True)
class Part:
    """What is trained beside the others.

    Attributes:
        name: Of its folder, and in the results.
        branches: Letters.
        exchanges: Whether they stay.
        description: In words.
    """

    name: str
    branches: tuple[str, ...]
    exchanges: bool
    description: str


def parts(parents: Sequence[Parent], others: Sequence[Other] = ()) -> tuple[Part, ...]:
    """Return what is trained, the fused network first: the mode that trains it fastest is taken for all."""
    letters = tuple(parent.branch for parent in parents)
    return (
        Part(FUSED, letters, True, "the fused network"),
        *(Part(other.name, letters, True, f"fused as in {other.source.name}") for other in others),
        Part(CONCATENATED, letters, False, "the same features joined, without skips"),
        *(Part(p.branch, (p.branch,), False, f"{p.name} alone") for p in parents),
    )


class Folder:
    """The output folder of a comparison."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.request = path / REQUEST_FILE
        self.json = path / "compare.json"
        self.markdown = path / "compare.md"

    def run(self, name: str, seed: int) -> RunFolder:
        """Return the run folder of a network and a seed."""
        return RunFolder(self.path / name / f"seed{seed}")

    def source(self, name: str, seed: int) -> Path:
        """Return the network that this run starts from."""
        return self.path / name / f"seed{seed}.onnx"

    @contextlib.contextmanager
    def opened(self, request: Request, *, force: bool) -> Iterator[None]:
        """Make the folder for the block, or check that its runs were made for the same request.

        If the block fails before a run has begun, a folder that was not there before goes away.

        Args:
            request: What all runs have in common.
            force: Whether a comparison that is in it may be replaced.

        Raises:
            GraftError: If it is a file, cannot be written, or holds something else.
        """
        fresh = not os.path.lexists(self.path)
        self._prepare(request, force=force)
        try:
            yield
        except BaseException:
            if fresh and not any(self.path.glob("*/*/config.yaml")):
                shutil.rmtree(self.path)
            raise

    def _prepare(self, request: Request, *, force: bool) -> None:
        is_there = is_folder(self.path, "compare in")
        for folder in {place for run in self.path.glob("*/seed*") for place in (run, run.parent)}:
            if folder.is_symlink() and folder.is_dir():
                raise GraftError(
                    f"cannot compare in '{self.path}': '{folder}' is a link, expected a folder. Remove the "
                    "link, or choose another -o."
                )
        if is_there and any(self.path.iterdir()):
            found = self._read()
            if not force and _settings(found) == _settings(request):
                self._add(found, request)
                return
            if not force:
                raise GraftError(
                    f"cannot go on in '{self.path}': its runs were made with {_difference(found, request)}. "
                    "Give the same again, choose another -o, or pass --force to replace them."
                )
        check_writable(self.request if is_there else self.path, force=True)
        self.path.mkdir(exist_ok=True)
        for source in (request.source, *(other.source for other in request.others)):
            if any(source.is_relative_to(folder.resolve()) for folder in self._replaced()):
                raise GraftError(
                    f"cannot replace the comparison in '{self.path}': '{source}', which is to be taken "
                    "apart, is one of its runs. Choose another -o."
                )
        self._clear()
        self._write(request)

    def _add(self, found: Request, request: Request) -> None:
        """Write down which fused files have come in addition; a name stands for one file for good."""
        known = {other.name: other for other in found.others}
        for other in request.others:
            before = known.setdefault(other.name, other)
            if before.source_sha256 != other.source_sha256:
                raise GraftError(
                    f"cannot go on in '{self.path}': its runs of '{other.name}' were made with a file of "
                    f"sha256 {before.source_sha256[:8]} (now {other.source_sha256[:8]}). Give the file "
                    "another name, choose another -o, or pass --force to replace all runs."
                )
        if len(known) > len(found.others):
            self._write(request.model_copy(update={"others": tuple(known.values())}))

    def _write(self, request: Request) -> None:
        write_text(self.request, HEADER + documents.dump(request.model_dump(mode="json")))

    def _clear(self) -> None:
        """Remove the runs of an earlier comparison."""
        for folder in self._replaced():
            shutil.rmtree(folder)
        for file in (self.json, self.markdown):
            file.unlink(missing_ok=True)

    def _replaced(self) -> list[Path]:
        """Return the folders of an earlier comparison's networks."""
        return [f for f in self.path.iterdir() if f.is_dir() and any(f.glob("seed*.onnx"))]

    def _read(self) -> Request:
        try:
            return Request.model_validate(documents.load(read_text(self.request, longest=documents.ENOUGH)))
        except (OSError, documents.YAMLError, ValidationError, UnicodeDecodeError) as error:
            raise GraftError(
                f"cannot compare in '{self.path}': it is not empty, and its {REQUEST_FILE} is missing or "
                "damaged. Choose another -o."
            ) from error


@dataclass(frozen=True)
class Runs:
    """The finished runs of a comparison.

    Attributes:
        folder: Where they are.
        parents: The branches.
        others: Other fused files of them.
        seeds: Of the runs.
        first: The record of the fused network's run with the first seed.
    """

    folder: Folder
    parents: tuple[Parent, ...]
    others: tuple[Other, ...]
    seeds: Sequence[int]
    first: RunRecord

    @property
    def members(self) -> dict[str, list[str]]:
        """Every network that is compared, with what it consists of; the fused one last."""
        alone = [parent.branch for parent in self.parents]
        return {
            **{name: [name] for name in alone},
            AVERAGE: alone,
            CONCATENATED: [CONCATENATED],
            **{other.name: [other.name] for other in self.others},
            FUSED: [FUSED],
        }

    def of(self, name: str, seed: int) -> list[RunFolder]:
        """Return the run of a network and a seed; for the average those of all branches alone."""
        return [self.folder.run(member, seed) for member in self.members[name]]


def train_all(
    folder: Folder,
    request: Request,
    files: Mapping[str, Network],
    seeds: Sequence[int],
    *,
    progress: bool,
    note: Note,
) -> Runs:
    """Train every part with every seed; what can be measured is measured for the fused network alone.

    Args:
        folder: Where to.
        request: What was asked for.
        files: The fused network as `fused`, and the others by their names.
        seeds: Of the runs.
        progress: Whether to show progress bars.
        note: Takes remarks for people.

    Raises:
        GraftError: As :func:`graftonnx.training.train` and :func:`graftonnx.training.resume`.
        Interrupted: On SIGINT or SIGTERM, after everything has been saved.
    """
    config, parents = request.config, files[FUSED].metadata.parents
    todo = [(part, seed) for seed in seeds for part in parts(parents, request.others)]
    for number, (part, seed) in enumerate(todo, 1):
        say = f"[{number}/{len(todo)}] {part.name}, seed {seed}"
        run = folder.run(part.name, seed)
        if run.model.is_file():
            note(f"{say}: finished before")
        elif run.config.is_file():
            note(f"{say}: resumed")
            training.resume(run.path, data=request.data, logger=config.logger, progress=progress, note=note)
        else:
            note(say)
            shutil.rmtree(run.path, ignore_errors=True)  # of a run that was killed before it began
            source = folder.source(part.name, seed)
            source.parent.mkdir(exist_ok=True)
            fused = files.get(part.name, files[FUSED])
            save(variant(fused, part.branches, exchanges=part.exchanges, seed=seed), source, force=True)
            seeded = config.model_copy(update={"seed": seed})
            training.train(source, request.data, run.path, seeded, progress=progress, note=note)
        if number == 1:
            first = run.read()
            config = _settled(config, first)
    return Runs(folder, parents, request.others, seeds, first)


def _settled(config: TrainConfig, first: RunRecord) -> TrainConfig:
    """Return the settings with what the first run has measured, which holds for all others."""
    return config.model_copy(
        update={
            "precision": first.precision,
            "layout": first.layout,
            "compile": "yes" if first.compiled else "no",
            "batch_size": first.config.batch_size,
            "epochs": first.config.epochs,
        }
    )


def seconds(run: RunFolder) -> float:
    """Return the time that the epochs of a finished run took.

    Raises:
        GraftError: If there is no record of them.
    """
    epochs = read_metrics(run.metrics)
    if not epochs:
        raise GraftError(f"cannot read '{run.metrics}': there is no epoch in it. Train again.")
    return sum(row.seconds for row in epochs)


def _settings(request: Request) -> Request:
    """Return the part of a request that must stay as it was."""
    return request.model_copy(update={"others": ()})


def _difference(found: Request, wanted: Request) -> str:
    """Return what two requests disagree on: `epochs 8 (now 4)`."""
    return ", ".join(f"{name} {old} (now {new})" for name, old, new in _pairs(found, wanted) if old != new)


def _pairs(found: Request, wanted: Request) -> Iterator[tuple[str, object, object]]:
    yield "the network", found.source, wanted.source
    if found.source == wanted.source:
        yield "a network of sha256", found.source_sha256[:8], wanted.source_sha256[:8]
    yield "the data", found.data, wanted.data
    for name in TrainConfig.model_fields:
        yield name, getattr(found.config, name), getattr(wanted.config, name)
