"""What a command has answered so far: `out.csv.part` beside `out.csv`, which appears when it is whole.

The first line holds the settings, each other line an answer, as JSON. Whatever kills the command, at most the
end of the file is torn. The same command again keeps the whole batches in front of that and goes on behind
them: every image meets the network in the same batch, and the output becomes the same to the byte.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Literal

from pydantic import ValidationError

from graftonnx import reading
from graftonnx.errors import DataError
from graftonnx.metadata import Preprocess, Record
from graftonnx.prediction.answers import Answer, from_json, spelled, to_record


class Settings(Record):
    """The first line: what decides over the answers, apart from the images.

    Attributes:
        kind: Tells the file from others.
        network: See :func:`graftonnx.weights.digest`; empty for one in memory.
        labels: Class names.
        preprocessing: What the inputs expect.
        provider: Where it runs.
        top: Likeliest classes to give.
        batch_size: Images that go through the network at once.
        use_of_mirror_images: Whether the answers to mirror images are averaged in.
        replaces: Size and time of the output that is to be replaced; it decides over nothing.
    """

    kind: Literal["graftonnx predict"] = "graftonnx predict"
    network: str
    labels: tuple[str, ...]
    preprocessing: Preprocess
    provider: str
    top: int
    batch_size: int
    use_of_mirror_images: bool = False
    replaces: str | None = None


class Journal:
    """An open journal.

    Attributes:
        path: The file.
        answered: Images that it holds.
    """

    def __init__(self, path: Path, file: IO[bytes], settings: Settings) -> None:
        self.path = path
        self.answered = 0
        self._file = file
        self._settings = settings

    def go_on(self, names: Iterator[Path]) -> None:
        """Keep the whole batches.

        Args:
            names: The images of the command; those that are answered are taken from it.

        Raises:
            DataError: If it was begun with other settings or other images.
        """
        self._file.seek(0)
        first = self._file.readline()
        end = 0
        if first:
            self._check_settings(first)
        while batch := self._whole_batch():
            self._check_images(batch, itertools.islice(names, len(batch)))
            self.answered += len(batch)
            end = self._file.tell()
        self._cut(end)

    def begin(self) -> None:
        """Forget everything."""
        self._cut(0)

    def append(self, batch: Iterable[Answer]) -> None:
        """Write the answers of a batch; in front of the first ones the settings."""
        lines = [json.dumps(to_record(answer), ensure_ascii=False) for answer in batch]
        head = [] if self.answered else [self._settings.model_dump_json()]
        self._file.write("".join(f"{line}\n" for line in (*head, *lines)).encode())
        self._file.flush()
        self.answered += len(lines)

    def answers(self) -> Iterator[Answer]:
        """Yield everything that is answered, from the file.

        Raises:
            DataError: If somebody has changed the file.
        """
        self._file.seek(0)
        self._file.readline()
        found = 0
        for found, answer in enumerate(self._parsed(), 1):  # noqa: B007 # the last count is wanted
            yield answer
        if found != self.answered:
            raise DataError(
                f"cannot read '{self.path}': its answer {found + 1} of {self.answered} is damaged. Give the "
                "command again: it goes on in front of that."
            )

    def _parsed(self) -> Iterator[Answer]:
        """Yield answers from here to the end, or to the first line that is torn or damaged."""
        for line in iter(self._file.readline, b""):
            if not line.endswith(b"\n"):
                return
            try:
                answer = from_json(line)
            except ValueError:
                return
            if not self._is_possible(answer):
                return
            yield answer

    def _is_possible(self, answer: Answer) -> bool:
        """Return whether the network could have given an answer."""
        labels = self._settings.labels
        return len(answer.candidates) == (self._settings.top if answer.error is None else 0) and all(
            (c.index < len(labels) and c.label == labels[c.index]) if labels else c.label == str(c.index)
            for c in answer.candidates
        )

    def _cut(self, end: int) -> None:
        self._file.seek(end)
        self._file.truncate()

    def _whole_batch(self) -> list[Answer]:
        """Return the next batch; nothing if it is not whole."""
        batch = list(itertools.islice(self._parsed(), self._settings.batch_size))
        return batch if len(batch) == self._settings.batch_size else []

    def _check_settings(self, line: bytes) -> None:
        try:
            found = Settings.model_validate_json(line)
        except ValidationError as error:
            raise DataError(
                f"cannot go on with '{self.path}': graftonnx predict did not write it, or it is damaged. "
                "Remove it, or choose another -o."
            ) from error
        for name, value in found:
            if name != "replaces" and value != getattr(self._settings, name):
                raise DataError(
                    f"cannot go on with '{self.path}': it was begun with another {name.replace('_', ' ')}. "
                    "Give the same as then, or --force to begin anew."
                )

    def _check_images(self, batch: Iterable[Answer], names: Iterable[Path]) -> None:
        for place, (answer, name) in enumerate(
            itertools.zip_longest(batch, map(spelled, names)), self.answered + 1
        ):
            if answer.image != name:
                now = f"'{name}'" if name is not None else "missing"
                raise DataError(
                    f"cannot go on with '{self.path}': its image {place} is '{answer.image}', "
                    f"now it is {now}. Give the same images in the same order, or --force to begin anew."
                )


def journal_of(output: Path) -> Path:
    """Return the path of an output's journal."""
    return output.with_name(f"{output.name}.part")


def replaceable(output: Path) -> str | None:
    """Return what tells an output from the one that will take its place; None where there is none."""
    try:
        status = output.stat()
    except OSError:
        return None
    return f"{status.st_size} bytes of {status.st_mtime_ns} ns"


def is_left_over(path: Path, output: Path) -> bool:
    """Return whether a command had finished that was killed before it removed its journal.

    Then the output is another one than the command found when it began. No clock is asked.
    """
    found = replaceable(output)
    try:
        with reading.opened(path) as file:
            return found is not None and Settings.model_validate_json(file.readline()).replaces != found
    except (OSError, ValidationError):  # no journal, or one that is refused later
        return False


@contextlib.contextmanager
def opened(path: Path, settings: Settings) -> Iterator[Journal]:
    """Open a journal for the block, or make it; no other process may have it open meanwhile.

    One that holds nothing in the end goes away.

    Raises:
        DataError: If another process has it open, or something else than a file is in its place.
        OSError: If it cannot be made.
    """
    if os.path.lexists(path) and not stat.S_ISREG(path.lstat().st_mode):
        raise DataError(
            f"cannot keep answers in '{path}': it is no regular file. Remove it, or choose another -o."
        )
    with open(path, "a+b", opener=_open_itself) as file:
        _lock(file, path)
        try:
            yield Journal(path, file, settings)
        finally:
            if not os.fstat(file.fileno()).st_size:
                path.unlink(missing_ok=True)


def _open_itself(path: str, flags: int) -> int:
    """Open a file, and not what a link in its place leads to."""
    return os.open(path, flags | getattr(os, "O_NOFOLLOW", 0), 0o666)


def _lock(file: IO[bytes], path: Path) -> None:
    """Lock a file until it is closed, where the system knows how; refuse one that was removed meanwhile."""
    try:
        import fcntl
    except ModuleNotFoundError:  # Windows
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if not os.fstat(file.fileno()).st_nlink:
            raise BlockingIOError
    except BlockingIOError as error:
        raise DataError(
            f"cannot write '{path}': another graftonnx predict is writing it. Wait for it, or choose "
            "another -o."
        ) from error
