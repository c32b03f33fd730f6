"""Each branch is asked for its own answer through the head that joins them."""

from __future__ import annotations

import gc
import linecache
from pathlib import Path

import pytest
import torch
from builders import plain_cnn, residual_cnn
from torch.fx import graph_module
from training.fused import save_images

from graftonnx.conversion import to_torch
from graftonnx.fusion import fuse
from graftonnx.metadata import HeadKind
from graftonnx.model import from_proto, save
from graftonnx.training import TrainConfig, resume, train
from graftonnx.training.branches import alone, answering_alone

SETTINGS = TrainConfig(
    epochs=2, batch_size=8, precision="fp32", layout="contiguous", device="cpu", branch_loss=1.0
)


def fused(path: Path, heads: HeadKind = "concat", hidden: int = 0, branches: int = 2) -> Path:
    """Write a fused file of two or three small networks."""
    parents = [
        from_proto(residual_cnn(), "a.onnx"),
        from_proto(plain_cnn((8, 16), seed=1), "b.onnx"),
        from_proto(plain_cnn((4, 8), seed=2), "c.onnx"),
    ]
    network = fuse(*parents[:branches], classes=2, heads=heads, hidden=hidden)
    save(network, path, force=True)
    return path


@pytest.mark.parametrize("heads", ["concat", "sum"])
@pytest.mark.parametrize("branches", [2, 3])
def test_the_mean_of_the_answers_is_the_answer_of_a_head_without_a_hidden_layer(
    heads: HeadKind, branches: int, tmp_path: Path
) -> None:
    network = to_torch(fused(tmp_path / "f.onnx", heads, branches=branches))
    asked = answering_alone(network)
    assert asked is not None
    images = torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        together, *each = asked.eval()(images).split(4)
        torch.testing.assert_close(together, network(images), rtol=1e-5, atol=1e-5)
    assert len(each) == branches
    torch.testing.assert_close(torch.stack(each).mean(0), together, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(each[0], each[1], atol=1e-3)


def test_an_answer_alone_does_not_hang_on_the_other_branch(tmp_path: Path) -> None:
    network = to_torch(fused(tmp_path / "f.onnx", hidden=8))
    asked = answering_alone(network)
    assert asked is not None
    with torch.no_grad():
        for key, weight in network.named_parameters():
            if key.startswith("skips"):
                weight.zero_()
    images = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    first = asked.eval()(images).split(2)[1]
    first.sum().backward()
    reached = {key.split("/")[0] for key, weight in network.named_parameters() if _moves(weight)}
    assert reached == {"a", "skips", "head"}


def _moves(weight: torch.nn.Parameter) -> bool:
    return weight.grad is not None and bool(weight.grad.abs().max() > 0)


def test_it_has_the_weights_and_statistics_of_the_network_itself(tmp_path: Path) -> None:
    network = to_torch(fused(tmp_path / "f.onnx"))
    asked = answering_alone(network)
    assert asked is not None
    assert {id(weight) for weight in asked.parameters()} == {id(weight) for weight in network.parameters()}
    assert {id(value) for value in asked.buffers()} == {id(value) for value in network.buffers()}


def test_vectors_side_by_side_stand_alone_in_their_own_place() -> None:
    a, b = torch.tensor([[1.0, 2.0]]), torch.tensor([[3.0]])
    rows = alone(torch.cat([a, b], 1), [a, b], side_by_side=True)
    assert rows.tolist() == [[1, 2, 3], [2, 4, 0], [0, 0, 6]]
    assert alone(a + b, [a, b.expand(1, 2)], side_by_side=False).tolist() == [[4, 5], [2, 4], [6, 6]]


@pytest.mark.parametrize(("heads", "branches"), [("attention", 2), ("concat", 1)])
def test_attention_and_a_single_branch_have_no_answers_alone(
    heads: HeadKind, branches: int, tmp_path: Path
) -> None:
    assert answering_alone(to_torch(fused(tmp_path / "f.onnx", heads, 4, branches))) is None


def test_training_teaches_each_branch_and_goes_on_after_an_interruption(tmp_path: Path) -> None:
    source, data = fused(tmp_path / "f.onnx", hidden=8), save_images(tmp_path / "data")
    with_it = train(source, data, tmp_path / "with", SETTINGS)
    without = train(source, data, tmp_path / "without", SETTINGS.model_copy(update={"branch_loss": 0.0}))
    assert with_it.model.read_bytes() != without.model.read_bytes()
    assert resume(tmp_path / "with").model.read_bytes() == with_it.model.read_bytes()


def test_a_training_leaves_no_source_of_generated_code_behind(tmp_path: Path) -> None:
    """Fx keeps the source of every `forward` for tracebacks, some ten kilobytes each."""

    def kept() -> set[str]:
        gc.collect()
        return {*graph_module._loader.eval_cache, *linecache.cache}

    source, data = fused(tmp_path / "f.onnx", hidden=8), save_images(tmp_path / "data")
    train(source, data, tmp_path / "first", SETTINGS)
    before = kept()
    train(source, data, tmp_path / "second", SETTINGS)
    assert not {name for name in kept() - before if name.startswith("<eval_with_key>")}


def test_a_head_that_weighs_branches_is_trained_without_and_says_so(tmp_path: Path) -> None:
    source, data = fused(tmp_path / "f.onnx", "attention", 4), save_images(tmp_path / "data")
    said: list[str] = []
    train(source, data, tmp_path / "run", SETTINGS, note=said.append)
    assert any("this is the 'attention' one; --branch-loss does nothing" in remark for remark in said)
    assert "branch_loss: 0.0" in (tmp_path / "run" / "config.yaml").read_text()
