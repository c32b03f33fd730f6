"""What a network's run folder, and the comparison around it, tell of its making."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from graftonnx.comparison.markdown import COLUMNS, conditions, marked_row, table
from graftonnx.comparison.record import Comparison
from graftonnx.data.catalogue import Part
from graftonnx.data.opening import is_there
from graftonnx.errors import DataError, GraftError
from graftonnx.evaluation import Selection, select
from graftonnx.files import MODEL_FILE
from graftonnx.printable import markdown_code, markdown_text
from graftonnx.reading import read_bytes
from graftonnx.training.run import RunFolder, RunRecord

COMPARISON = "compare.json"


@dataclass(frozen=True)
class Origin:
    """Where a network was trained.

    Attributes:
        run: Its run folder.
        record: What the run was asked to do.
    """

    run: RunFolder
    record: RunRecord

    @property
    def training(self) -> str:
        """How it was trained, in sentences of Markdown."""
        record, config = self.record, self.record.config
        words: dict[Part, str] = {"train": "training", "val": "validation", "test": "test"}
        counts = {word: record.images[part] for part, word in words.items()}
        images = ", ".join(f"{count:,} {word} images" for word, count in counts.items() if count)
        return (
            f"Fine-tuned by graftonnx {markdown_text(record.versions.get('graftonnx', ''))} from "
            f"{markdown_text(record.source.name)} (SHA-256 {markdown_code(record.source_sha256)}) on "
            f"{markdown_text(Path(record.data).name)}: {images}. At most {config.epochs} "
            f"epochs, batch {config.batch_size}, {config.optimizer}, augmentation {config.augment}, seed "
            f"{config.seed}; on {record.device} in {record.precision}."
        )

    @property
    def selection(self) -> Selection | None:
        """The images that validated or test it, if they are still where they were."""
        if not is_there(self.record.data):
            return None
        try:
            return select(self.record.data, None, source=self.run.path)
        except DataError:
            return None

    @property
    def comparison(self) -> str | None:
        """How it compares with its parts, as Markdown, if `graftonnx compare` made the run."""
        file = self.run.path.resolve().parent.parent / COMPARISON
        if not file.is_file():
            return None
        try:
            found = Comparison.model_validate_json(read_bytes(file))
        except (OSError, ValidationError) as error:
            raise GraftError(
                f"cannot read '{file}': it is damaged. Compare again, or move it away."
            ) from error
        rows = (marked_row(standing) for standing in found.networks)
        return "\n".join((*table(COLUMNS, rows), "", markdown_text(found.verdict), "", conditions(found)))


def origin_of(source: Path) -> Origin | None:
    """Return where a network was trained: the run folder that `source` is, or whose network it is."""
    folder = source if source.is_dir() else source.parent
    run = RunFolder(folder)
    if not run.config.is_file() or (source != folder and source.name != MODEL_FILE):
        return None
    return Origin(run, run.read("bundle"))
