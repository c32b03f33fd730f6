"""`tools/train_parents`: its data, augmentation, folding, training and command line."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import onnx
import pytest
import torch
from torch import Tensor, nn

from graftonnx.errors import GraftError
from graftonnx.metadata import Preprocess
from graftonnx.models.initialisation import initialise
from graftonnx.models.squeezenet import SqueezeNet


@pytest.fixture
def images() -> Tensor:
    return torch.rand(16, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def test_folding_batch_normalisation_back_changes_nothing(train_parents: ModuleType, images: Tensor) -> None:
    torch.manual_seed(0)
    network = SqueezeNet("1.1", classes=4, width=0.25, stem_stride=1)
    keys = list(network.state_dict())
    initialise(network)
    train_parents.add_batch_norm(network.features)
    assert sum(isinstance(m, nn.BatchNorm2d) for m in network.modules()) == 25
    network.train()(images)
    network.eval()
    with torch.no_grad():
        expected = network(images)
        train_parents.fold_batch_norm(network)
        # folding multiplies the weights before the sum instead of the sum itself
        torch.testing.assert_close(network(images), expected, rtol=1e-4, atol=1e-6)
    assert list(network.state_dict()) == keys


@pytest.mark.parametrize("name", ["warp", "crop_and_flip"])
def test_augmentation_moves_pixels_and_keeps_their_range(
    train_parents: ModuleType, images: Tensor, name: str
) -> None:
    torch.manual_seed(0)
    changed = getattr(train_parents, name)(images)
    assert changed.shape == images.shape
    assert changed.min() >= 0
    assert changed.max() <= images.max()
    assert not torch.equal(changed, images)


def test_cropping_moves_by_at_most_four_pixels(train_parents: ModuleType) -> None:
    torch.manual_seed(0)
    dot = torch.zeros(200, 1, 32, 32)
    dot[:, :, 10, 16] = 1
    rows, columns = train_parents.crop_and_flip(dot).nonzero()[:, 2:].unbind(1)
    assert (rows.min(), rows.max()) == (6, 14)
    assert (columns.min(), columns.max()) == (11, 20)


def test_normalising_is_the_metadatas_formula(train_parents: ModuleType, images: Tensor) -> None:
    preprocess = Preprocess(scale=2.0, mean=(0.1, 0.2, 0.3), std=(1.0, 2.0, 4.0))
    expected = (images[:, 2] * 2.0 - 0.3) / 4.0
    torch.testing.assert_close(train_parents.normalise(images, preprocess)[:, 2], expected)


def test_training_learns_and_the_written_file_is_as_good(train_parents: ModuleType, tmp_path: Path) -> None:
    """Two colours are told apart after a few epochs; the accuracy is measured on the file."""
    torch.manual_seed(0)
    labels = torch.arange(256) % 2
    pixels = torch.randint(0, 100, (256, 32, 32, 3), dtype=torch.uint8)
    pixels[labels == 1, :, :, 0] += 120
    data = train_parents.Split(pixels, labels)
    recipe = train_parents.Recipe(
        file="colours.onnx",
        build=lambda classes: SqueezeNet("1.1", classes=classes, width=0.125, stem_stride=1, dropout=0.0),
        read=lambda folder: (data, data, ("grey", "red")),
        augment=train_parents.crop_and_flip,
        preprocess=Preprocess(mean=(0.5,), std=(0.25,)),
        epochs=4,
        learning_rate=0.05,
        batch_norm=True,
    )
    target = tmp_path / recipe.file
    train_parents.make(recipe, tmp_path, target, train_parents.parse(["--batch", "32", "--precision", "32"]))
    assert train_parents.accuracy(target, data) > 0.95
    assert "BatchNormalization" not in {node.op_type for node in onnx.load(target).graph.node}


def test_an_unknown_file_is_refused(train_parents: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        train_parents.main(["resnet.onnx"])
    assert (
        "there is no recipe for 'resnet.onnx'; choose from custom16-mnist.onnx, " in capsys.readouterr().err
    )


def test_existing_files_are_not_replaced(train_parents: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "squeezenet-cifar100.onnx").write_text("precious")
    with pytest.raises(GraftError, match=r"it exists\. Choose another -o, or pass --force"):
        train_parents.main(["-o", str(tmp_path), "--data", str(tmp_path)])


@pytest.mark.shared
def test_mnist_is_read_whole(train_parents: ModuleType, shared: Path) -> None:
    train, test, names = train_parents.read_mnist(shared / "data")
    assert train.images.shape == (60_000, 32, 32, 3)
    assert test.images.shape == (10_000, 32, 32, 3)
    assert train.labels[:5].tolist() == [5, 0, 4, 1, 9]
    assert torch.bincount(test.labels).tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    assert names == tuple("0123456789")


@pytest.mark.shared
def test_cifar100_is_read_whole(train_parents: ModuleType, shared: Path) -> None:
    train, test, names = train_parents.read_cifar100(shared / "data")
    assert (train.images.shape, test.images.shape) == ((50_000, 32, 32, 3), (10_000, 32, 32, 3))
    assert torch.bincount(train.labels).tolist() == [500] * 100
    assert (names[0], names[99]) == ("apple", "worm")
    mean = train.images.reshape(-1, 3).float().mean(0) / 255
    # the published channel means; float32 sums over 51 million pixels
    torch.testing.assert_close(mean, torch.tensor([0.5071, 0.4865, 0.4409]), rtol=0, atol=2e-3)
