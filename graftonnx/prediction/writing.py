"""From images to a file of answers, which an interrupted command goes on with."""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from graftonnx.classifier import Classifier
from graftonnx.errors import GraftError
from graftonnx.files import atomic, check_writable
from graftonnx.prediction.answers import Answer, predict
from graftonnx.prediction.formats import Format, check_format, write
from graftonnx.prediction.journal import Settings, is_left_over, journal_of, opened, replaceable
from graftonnx.weights import digest

SHOWN = 20
"""Unreadable images of which the errors are kept."""


@dataclass(kw_only=True)
class Tally:
    """What became of images.

    Attributes:
        images: How many there were.
        unreadable: How many of them could not be read.
        errors: What was wrong with the first ones.
    """

    images: int = 0
    unreadable: int = 0
    errors: list[str] = field(default_factory=list)

    def counted(self, answers: Iterable[Answer]) -> Iterator[Answer]:
        """Yield the answers, and count them."""
        for answer in answers:
            self.images += 1
            if answer.error is not None:
                self.unreadable += 1
                if len(self.errors) < SHOWN:
                    self.errors.append(answer.error)
            yield answer


@dataclass(kw_only=True)
class Written(Tally):
    """What is in a file.

    Attributes:
        path: The file.
        resumed: Images that an interrupted command had answered.
    """

    path: Path
    resumed: int


def write_predictions(
    classifier: Classifier,
    images: Iterable[str | Path],
    output: str | Path,
    *,
    style: Format = "csv",
    top: int = 1,
    batch_size: int = 32,
    workers: int = 0,
    force: bool = False,
    on_images: Callable[[int], object] | None = None,
) -> Written:
    """Classify image files in order and write a file with a row for each; memory stays constant.

    Until the file is whole the answers are in `<output>.part`. If that is there, the call goes on behind what
    it holds, and the file becomes, on the CPU, the same to the byte.

    Args:
        classifier: From :func:`graftonnx.open_classifier`.
        images: Names of the files; they may come from a generator.
        output: The file to write.
        style: Its format.
        top: Likeliest classes to give.
        batch_size: Images that go through the network at once.
        workers: Threads that decode; 0 means one per core.
        force: Whether to replace an existing file, and to begin anew.
        on_images: Called with the number of images that were answered since the last call.

    Raises:
        GraftError: If the file cannot be written, or exists and `force` is false.
        DataError: If the answers that are there belong to another network, other settings or other images,
            or the format cannot be written here.
    """
    check_format(style)
    output = Path(output)
    part = _part(output, force=force)
    names = map(Path, images)
    settings = Settings(
        network=digest(classifier.path) if classifier.path is not None else "",
        labels=classifier.labels,
        preprocessing=classifier.preprocess,
        provider=classifier.session.provider,
        top=min(top, classifier.classes),
        batch_size=batch_size,
        use_of_mirror_images=classifier.mirror,
        replaces=replaceable(output),
    )
    report = on_images or (lambda count: None)
    with _explained(part), opened(part, settings) as journal:
        if force:
            journal.begin()
        else:
            journal.go_on(names)
        written = Written(path=output, resumed=journal.answered)
        report(journal.answered)
        answers = predict(classifier, names, top=settings.top, batch_size=batch_size, workers=workers)
        while batch := list(itertools.islice(answers, batch_size)):
            journal.append(batch)
            report(len(batch))
        with atomic(output) as temporary:
            write(written.counted(journal.answers()), temporary, style, settings.top)
        part.unlink(missing_ok=True)
    return written


def _part(output: Path, *, force: bool) -> Path:
    """Return the journal of an output that may be written.

    Where there is one, the command that began it was allowed to replace the output, unless it has done so.
    """
    part = journal_of(output)
    if is_left_over(part, output):
        part.unlink()
    check_writable(output, force=force or os.path.exists(part))
    return part


@contextlib.contextmanager
def _explained(part: Path) -> Iterator[None]:
    """Turn an error of the file system into a sentence."""
    try:
        yield
    except OSError as error:
        raise GraftError(
            f"cannot write '{part}': {error.strerror or error}. What is answered is kept: mend that and give "
            "the same command again."
        ) from error
