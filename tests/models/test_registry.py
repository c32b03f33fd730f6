"""The registry: names, published figures, seeded weights, refusals."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from graftonnx.metadata import PRESETS
from graftonnx.models.registry import ENTRIES, Entry, build, find

FOLDER = Path(__file__).parents[2] / "models"

each_entry = pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.name)


@each_entry
def test_a_network_has_the_parameters_it_is_listed_with(entry: Entry) -> None:
    assert sum(p.numel() for p in build(entry.name).parameters()) == entry.parameters


@each_entry
def test_the_smallest_input_is_the_smallest_that_runs(entry: Entry) -> None:
    network, n = build(entry.name, classes=2), entry.smallest_input
    with torch.no_grad():
        assert network(torch.zeros(1, 3, n, n)).shape == (1, 2)
        with pytest.raises(RuntimeError):
            network(torch.zeros(1, 3, n - 1, n - 1))


@each_entry
def test_the_classifier_and_the_input_convention_exist(entry: Entry) -> None:
    weight = build(entry.name, classes=3).get_submodule(entry.classifier).weight
    assert isinstance(weight, torch.Tensor)
    assert weight.shape[0] == 3
    assert entry.preprocess in PRESETS


@each_entry
def test_random_weights_keep_activations_in_range(entry: Entry) -> None:
    """He's initialisation neither lets a signal vanish nor explode on the way through the network."""
    torch.manual_seed(0)
    with torch.no_grad():
        logits = build(entry.name)(torch.randn(2, 3, 96, 96))
    assert torch.isfinite(logits).all()
    assert 1e-4 < logits.abs().max() < 1e3


def test_the_seed_decides_the_weights_and_the_global_state_stays() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    one, again, other = (build("custom16", width=0.25, seed=s).state_dict() for s in (1, 1, 2))
    assert torch.equal(torch.rand(3), expected)
    key = "stages.0.entry.conv.weight"
    assert torch.equal(one[key], again[key])
    assert not torch.equal(one[key], other[key])


@pytest.mark.parametrize("spelling", ["squeezenet1_1", "squeezenet1.1", "SqueezeNet1-1"])
def test_dots_dashes_and_case_do_not_matter(spelling: str) -> None:
    assert find(spelling).name == "squeezenet1_1"


def test_a_misspelt_name_is_answered_with_the_nearest() -> None:
    with pytest.raises(
        ValueError, match=r"^there is no network 'inception_v4'\. Did you mean 'inception_v3'\?$"
    ):
        find("inception_v4")


def test_a_name_like_none_is_answered_with_all() -> None:
    with pytest.raises(
        ValueError, match=r"there is no network 'x'\. Choose from squeezenet1_0, squeezenet1_1, "
    ):
        find("x")


@pytest.mark.parametrize(
    ("name", "options", "sentence"),
    [
        ("custom16", {"classes": 0}, r"cannot build custom16: classes \(=0\) must be at least 1"),
        ("custom16", {"width": 0.0}, r"cannot build custom16: width \(=0\) must be a positive number"),
        (
            "custom16",
            {"width": float("nan")},
            r"cannot build custom16: width \(=nan\) must be a positive number",
        ),
        (
            "inception_v3",
            {"width": 0.5},
            r"inception_v3: it has no width multiplier, width \(=0.5\) must be 1",
        ),
    ],
)
def test_impossible_options_are_refused(name: str, options: dict[str, float], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        build(name, **options)  # type: ignore[arg-type]  # a table of options of both types


def test_looking_a_network_up_does_not_import_pytorch() -> None:
    code = (
        "import sys; from graftonnx.models.registry import find\n"
        "find('custom16'); print('torch' in sys.modules)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "False"


@pytest.mark.parametrize("file", sorted(FOLDER.glob("*.py")), ids=lambda file: file.name)
def test_the_networks_import_nothing_of_graftonnx(file: Path) -> None:
    imports = [
        node
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Import | ast.ImportFrom)
    ]
    absolute = [a.name for node in imports if isinstance(node, ast.Import) for a in node.names] + [
        node.module or "" for node in imports if isinstance(node, ast.ImportFrom) and node.level == 0
    ]
    assert [name for name in absolute if name.split(".")[0] in ("graftonnx", "models", "torchvision")] == []
    assert all(node.level <= 1 for node in imports if isinstance(node, ast.ImportFrom))
