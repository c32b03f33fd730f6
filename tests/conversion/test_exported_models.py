"""Networks that PyTorch's own exporters wrote convert, agree, train, come back and leave again."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from conversion.torch_models import CASES, SpelledAttention, export_module, export_network
from torch import Tensor, fx, nn
from torch.nn import functional as F

from graftonnx.conversion import registry, to_torch, write_back
from graftonnx.parity import compare_module
from graftonnx.runtime import open_session

TOLERANCE = {"rtol": 1e-4, "atol": 1e-4}
"""Other kernels sum float32 in another order."""

EXPORTERS = {"dynamo": True, "torchscript": False}


@dataclass(frozen=True)
class Exported:
    """A network, and the file that an exporter made of it."""

    original: nn.Module
    proto: onnx.ModelProto
    name: str

    def inputs(self, batch: int) -> tuple[Tensor, ...]:
        return CASES[self.name].inputs(batch)


@functools.cache
def exported(name: str, exporter: str) -> Exported:
    original, proto = export_network(name, dynamo=EXPORTERS[exporter])
    return Exported(original, proto, name)


@pytest.fixture(params=[f"{name}-{exporter}" for name in CASES for exporter in EXPORTERS])
def file(request: pytest.FixtureRequest) -> Exported:
    name, exporter = request.param.split("-")
    if name == "lstm" and not registry.known("", "LSTM"):
        pytest.skip("LSTM has no converter")
    return exported(name, exporter)


def test_it_equals_onnx_runtime(file: Exported) -> None:
    module = to_torch(file.proto)
    for batch in (1, 4):
        compare_module(file.proto, module, *(x.numpy() for x in file.inputs(batch)))


def test_every_trainable_element_is_a_parameter(file: Exported) -> None:
    """Numbers apart: the exporter keeps each as an initializer of one element."""
    module = to_torch(file.proto)
    expected = sum(p.numel() for p in file.original.parameters())
    if not any(node.op_type == "BatchNormalization" for node in file.proto.graph.node):
        # Folded: one bias of the convolution stands for the scale and the bias.
        norms = (layer for layer in file.original.modules() if isinstance(layer, nn.BatchNorm2d))
        expected -= sum(layer.weight.numel() for layer in norms)
    assert sum(p.numel() for p in module.parameters() if p.numel() > 1) == expected


def step(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
    """Take one step of SGD."""
    logits = module.train()(*inputs).flatten(1)
    loss = F.cross_entropy(logits, torch.arange(len(logits)) % logits.shape[1])
    loss.backward()
    torch.optim.SGD(module.parameters(), lr=1e-2).step()


def test_one_step_trains_everything_and_comes_back(file: Exported) -> None:
    module = to_torch(file.proto)
    assert write_back(module).SerializeToString() == file.proto.SerializeToString()
    step(module, file.inputs(4))
    gradients = [p.grad for p in module.parameters()]
    assert all(g is not None and g.isfinite().all() for g in gradients)
    written = write_back(module)
    compare_module(written, module, *(x.numpy() for x in file.inputs(4)))


def test_dynamo_compiles_it(file: Exported) -> None:
    module = to_torch(file.proto)
    compiled = torch.compile(module, backend="eager", fullgraph=True, dynamic=False)
    inputs = file.inputs(2)
    torch.testing.assert_close(compiled(*inputs), module(*inputs), **TOLERANCE)
    torch._dynamo.reset()


def _program(module: fx.GraphModule, inputs: tuple[Tensor, ...]) -> Any:
    batch = torch.export.Dim("batch")
    return torch.export.export(module, inputs, dynamic_shapes=tuple({0: batch} for _ in inputs))


def test_torch_export_keeps_the_batch_free(file: Exported) -> None:
    module = to_torch(file.proto)
    program = _program(module, file.inputs(2)).module()
    inputs = file.inputs(4)
    torch.testing.assert_close(program(*inputs), module(*inputs), **TOLERANCE)


@pytest.mark.parametrize(
    ("name", "exporter"),
    [("vit", "dynamo"), ("convnext", "torchscript"), ("lstm", "dynamo"), ("unet", "torchscript"),
     ("mobilenet_v3", "dynamo"), ("bert", "torchscript"),
     ("bert", "dynamo")],
)  # fmt: skip
def test_the_onnx_exporter_takes_it_again(name: str, exporter: str, tmp_path: Path) -> None:
    file = exported(name, exporter)
    module = to_torch(file.proto)
    again = tmp_path / "again.onnx"
    onnx.save(export_module(module, file.inputs(2), dynamo=True), again)
    inputs = file.inputs(4)
    (found,) = open_session(again, provider="cpu").run(*(x.numpy() for x in inputs))
    torch.testing.assert_close(torch.from_numpy(found), module(*inputs).detach(), **TOLERANCE)


class LearnedMask(nn.Module):
    """Attention that a learned number keeps from some tokens. x: [N, 12, 32], mask: [N, 12]."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = SpelledAttention(32, 4)
        self.penalty = nn.Parameter(torch.tensor([-3.0]))

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        return self.attention(x, mask[:, None, None] * self.penalty)


def test_the_onnx_exporter_takes_attention_with_a_learned_mask(tmp_path: Path) -> None:
    torch.manual_seed(0)
    inputs = torch.randn(3, 12, 32), torch.rand(3, 12)
    module = to_torch(export_module(LearnedMask().eval(), inputs, dynamo=True))
    module(*inputs).square().sum().backward()
    penalty = module.get_parameter("penalty")
    assert penalty.grad is not None
    assert penalty.grad != 0
    onnx.save(export_module(module, inputs, dynamo=True), tmp_path / "again.onnx")
    (found,) = open_session(tmp_path / "again.onnx", provider="cpu").run(*(x.numpy() for x in inputs))
    torch.testing.assert_close(torch.from_numpy(found), module(*inputs).detach(), **TOLERANCE)


@pytest.mark.parametrize("name", ["unet", "mobilenet_v3"])
def test_an_untrained_network_with_separate_constants_trains(name: str) -> None:
    """Equal statistics are merged behind Identity nodes, and the scales of a resize are a list of two."""
    _, proto = export_network(name, dynamo=False, trained=False, fold=False)
    assert any(node.op_type == "BatchNormalization" for node in proto.graph.node)
    module, inputs = to_torch(proto), CASES[name].inputs(4)
    assert write_back(module).SerializeToString() == proto.SerializeToString()
    compare_module(proto, module, *(x.numpy() for x in inputs))
    step(module, inputs)
    assert all(p.grad is not None and p.grad.isfinite().all() for p in module.parameters())
    compare_module(write_back(module), module, *(x.numpy() for x in inputs))
    program = _program(module, CASES[name].inputs(2)).module()
    torch.testing.assert_close(program(*inputs), module(*inputs), **TOLERANCE)
