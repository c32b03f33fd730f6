"""The two pretrained files in `models/`: valid, described, small, and as accurate as their README says."""

from __future__ import annotations

import re
from pathlib import Path
from types import ModuleType

import numpy as np
import onnx
import pytest

from graftonnx import runtime
from graftonnx.metadata import read_metadata
from graftonnx.models.custom16 import Custom16
from graftonnx.models.squeezenet import SqueezeNet

FOLDER = Path(__file__).parents[2] / "models"
FILES = ("custom16-mnist.onnx", "squeezenet-cifar100.onnx")

each_file = pytest.mark.parametrize("file", FILES)


def test_together_they_stay_below_six_megabytes() -> None:
    assert sum((FOLDER / file).stat().st_size for file in FILES) < 6e6


@each_file
def test_the_checker_accepts_a_shipped_file(file: str) -> None:
    onnx.checker.check_model(FOLDER / file, full_check=True)


@pytest.mark.parametrize(
    ("file", "labels"), [(FILES[0], ("0", "5", "9")), (FILES[1], ("apple", "lobster", "worm"))]
)
def test_a_shipped_file_describes_its_input_and_its_classes(file: str, labels: tuple[str, ...]) -> None:
    metadata = read_metadata(onnx.load(FOLDER / file))
    assert metadata.input is not None
    assert set(labels) <= set(metadata.labels)
    session = runtime.open_session(FOLDER / file, provider="cpu")
    assert session.input_shape == ("batch", 3, 32, 32)
    (logits,) = session.run(np.zeros((2, 3, 32, 32), np.float32))
    assert logits.shape == (2, len(metadata.labels))


def test_the_weights_are_called_as_in_the_networks() -> None:
    networks = Custom16(width=0.5), SqueezeNet("1.1", classes=100, width=0.75)
    expected = [
        {k: list(v.shape) for k, v in network.state_dict().items() if not k.endswith("num_batches_tracked")}
        for network in networks
    ]
    graphs = [onnx.load(FOLDER / file).graph for file in FILES]
    found = [{t.name: list(t.dims) for t in graph.initializer if t.dims} for graph in graphs]
    assert found == expected


def test_normalisation_and_dropout_stay_in_the_graphs() -> None:
    custom16, squeezenet = ([n.op_type for n in onnx.load(FOLDER / file).graph.node] for file in FILES)
    assert custom16.count("BatchNormalization") == 15
    assert squeezenet.count("Dropout") == 1


@pytest.mark.shared
@pytest.mark.parametrize(("file", "reader"), [(FILES[0], "read_mnist"), (FILES[1], "read_cifar100")])
def test_a_shipped_file_is_as_accurate_as_its_readme_says(
    file: str, reader: str, shared: Path, train_parents: ModuleType
) -> None:
    row = next(
        line for line in (FOLDER / "README.md").read_text().splitlines() if line.startswith(f"| `{file}`")
    )
    claimed = float(re.findall(r"([\d.]+) %", row)[0])
    _, test, _ = getattr(train_parents, reader)(shared / "data")
    # a few of 10,000 images may tip over with another version of ONNX Runtime: 0.05 are five
    assert 100 * train_parents.accuracy(FOLDER / file, test) == pytest.approx(claimed, abs=0.05)
