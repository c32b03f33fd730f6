"""What a comparison is asked to do, and what came out of it: `comparison.yaml` and `compare.json`."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from graftonnx import notebook
from graftonnx.comparison.significance import Estimate
from graftonnx.metadata import BranchName, Record
from graftonnx.training.config import Device, Layout, Precision, TrainConfig

FUSED, CONCATENATED, AVERAGE = "fused", "concatenated", "average"
"""The networks that are no single branch; a branch alone goes by its letter."""


class Other(Record):
    """The same parents, fused in another way.

    Attributes:
        name: Of the network in the comparison: the file's, without its suffix.
        source: The fused file.
        source_sha256: See :func:`graftonnx.weights.digest`.
    """

    name: str
    source: Path
    source_sha256: str


class Request(Record):
    """The content of `comparison.yaml`: what all runs of a comparison have in common.

    Attributes:
        source: The fused file.
        source_sha256: See :func:`graftonnx.weights.digest`.
        data: The labelled images: an absolute path, or a name on the hub.
        config: The settings of every run; its seed is the first one.
        others: Further fused files of the same parents; more may be added later.
    """

    source: Path
    source_sha256: str
    data: str
    config: TrainConfig
    others: tuple[Other, ...] = ()


class Standing(Record):
    """How one network fares.

    Attributes:
        name: `fused`, `concatenated`, `average`, the letter of a branch alone, or the name of another fused
            file.
        description: In words.
        accuracies: One for each seed, in ONNX Runtime.
        accuracy: Their mean, with its interval; see the comparison's `basis`.
        parameters: Of the network; for the average those of all parents, likewise below.
        macs: Multiply-accumulates for one image.
        bytes: Size of the ONNX file.
        latency: Median seconds for one image in ONNX Runtime, batch 1.
        train_seconds: Mean time of training, validation included.
    """

    name: str
    description: str
    accuracies: tuple[float, ...]
    accuracy: Estimate
    parameters: int
    macs: int
    bytes: int
    latency: float
    train_seconds: float


class ImageTest(Record):
    """McNemar's exact test on the images of one seed.

    Attributes:
        seed: Of both runs.
        images: Number of images.
        fused_only: Images that the contest's network gets right and its rival does not.
        rival_only: The other way round.
        p: Two-sided.
    """

    seed: int
    images: int
    fused_only: int
    rival_only: int
    p: float


class Contest(Record):
    """A fused network against another one.

    Attributes:
        network: Name of the fused network.
        rival: Name of the other network.
        difference: Accuracy of the fused network minus that of the other one.
        p: Two-sided: of the paired t test over seeds, of McNemar's test where there is one seed. None where
            all seeds differ by exactly as much, which leaves no spread to compare with.
        by_images: McNemar's test for each seed.
    """

    network: str = FUSED
    rival: str
    difference: Estimate
    p: float | None
    by_images: tuple[ImageTest, ...]


class Comparison(Record):
    """The content of `compare.json`.

    Attributes:
        request: What was asked for.
        config: What all runs were trained with: all that was left open is decided. Its seed is the first one.
        seeds: Of the runs.
        part: Which images are counted: `test` where the data has test images, else `val`. Validation images
            also choose each run's best epoch, so all accuracies on them are a little too high, unless the
            last one alone validates (`val_every`).
        images: How many, for each seed.
        redrawn: Whether every seed draws images of its own.
        overlap: What variances over seeds are corrected by; see
            :func:`graftonnx.comparison.significance.over_seeds`.
        basis: How intervals and p are made, in words.
        device: Where all runs trained, and where latencies were measured.
        precision: What they trained in.
        layout: Order of a feature map's elements in memory.
        networks: The branches alone, their average, concatenated, other fused files, fused.
        better_parent: The branch that is best alone, chosen by these accuracies, which favours it.
        contests: The fused network against the better parent, the average, the concatenation and every other
            fused file; then each of these against the concatenation.
        verdict: One sentence.
    """

    request: Request
    config: TrainConfig
    seeds: tuple[int, ...]
    part: Literal["val", "test"]
    images: tuple[int, ...]
    redrawn: bool
    overlap: float = 0.0
    basis: str
    device: Device
    precision: Precision
    layout: Layout
    networks: tuple[Standing, ...]
    better_parent: BranchName
    contests: tuple[Contest, ...]
    verdict: str

    def _repr_html_(self) -> str:
        """Return the networks as a table under the verdict, for notebooks."""
        from graftonnx.comparison.markdown import COLUMNS, row

        return notebook.table(map(row, self.networks), headings=COLUMNS, caption=self.verdict)

    def network(self, name: str) -> Standing:
        """Return the network of that name."""
        return next(standing for standing in self.networks if standing.name == name)
