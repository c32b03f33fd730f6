"""Recurrent operators give ONNX Runtime's numbers in every mode, train, and come back."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from conversion.small_models import model, random
from numpy.typing import NDArray
from torch import nn

from graftonnx.conversion import onnx_name, to_torch, write_back
from graftonnx.errors import UnsupportedOpError
from graftonnx.parity import compare_module

GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
STEPS, BATCH, FEATURES, HIDDEN = 5, 3, 4, 6


def recurrent(
    op: str, attributes: str = "", operands: str = "", *, directions: int = 1, biased: bool = True
) -> onnx.ModelProto:
    """A network of one recurrent node.

    Args:
        op: LSTM, GRU or RNN.
        attributes: As ONNX text.
        operands: What follows B, as ONNX text.
        directions: 1 or 2.
        biased: Whether it has a B.
    """
    gates = GATES[op] * HIDDEN
    weights: dict[str, NDArray[np.float32]] = {
        "w": random(directions, gates, FEATURES, seed=1) / 2,
        "r": random(directions, gates, HIDDEN, seed=2) / 2,
        "b": random(directions, 2 * gates, seed=3) / 2,
        "h": random(directions, BATCH, HIDDEN, seed=4),
        "c": random(directions, BATCH, HIDDEN, seed=5),
        "p": random(directions, 3 * HIDDEN, seed=6),
        "ht": random(directions, BATCH, HIDDEN, seed=4).transpose(1, 0, 2),
        "ct": random(directions, BATCH, HIDDEN, seed=5).transpose(1, 0, 2),
    }
    outputs = "y y_h y_c" if op == "LSTM" else "y y_h"
    text = f"{outputs.replace(' ', ', ')} = {op}<hidden_size={HIDDEN}{attributes}>"
    bias = ", b" if biased else ", "
    used = {part.strip() for part in f"w, r{bias}, {operands}".split(",")}
    return model(
        f"{text}(x, w, r{bias}{operands and ', ' + operands})",
        {name: array for name, array in weights.items() if name in used},
        inputs="float[A, B, 4] x" + (", int32[B] lengths" if "lengths" in used else ""),
        outputs=outputs,
    )


def directed(attributes: str) -> int:
    return 2 if "bidirectional" in attributes else 1


FORWARD, REVERSE, BOTH = "", ', direction="reverse"', ', direction="bidirectional"'


@pytest.mark.parametrize("attributes", [FORWARD, REVERSE, BOTH])
@pytest.mark.parametrize("operands", ["", ", h"])
@pytest.mark.parametrize("biased", [True, False])
@pytest.mark.parametrize("op", GATES)
def test_a_direction(op: str, attributes: str, operands: str, biased: bool) -> None:
    if op == "LSTM" and operands:
        operands += ", c"
    proto = recurrent(op, attributes, operands, directions=directed(attributes), biased=biased)
    compare_module(proto, to_torch(proto), random(STEPS, BATCH, FEATURES))


@pytest.mark.parametrize("attributes", [FORWARD, REVERSE, BOTH])
@pytest.mark.parametrize("op", GATES)
def test_sequences_end_at_their_lengths(op: str, attributes: str) -> None:
    operands = "lengths, h, c" if op == "LSTM" else "lengths, h"
    proto = recurrent(op, attributes, operands, directions=directed(attributes))
    lengths = np.array([5, 2, 1], np.int32)
    compare_module(proto, to_torch(proto), random(STEPS, BATCH, FEATURES), lengths)


@pytest.mark.parametrize("attributes", [FORWARD, REVERSE, BOTH])
def test_a_gru_that_resets_after_the_product(attributes: str) -> None:
    proto = recurrent("GRU", attributes + ", linear_before_reset=1", ", h", directions=directed(attributes))
    module = to_torch(proto)
    assert "recurrent_gru(" in module.code  # PyTorch's own kernel
    compare_module(proto, module, random(STEPS, BATCH, FEATURES))


ACTIVATIONS = [
    ("LSTM", ', activations=["Sigmoid", "Relu", "Softsign"]'),
    ("LSTM", ', activations=["HardSigmoid", "LeakyRelu", "Elu"], activation_alpha=[0.3, 0.1, 0.7]'
             ", activation_beta=[0.4]"),
    ("LSTM", ', activations=["Sigmoid", "ScaledTanh", "Affine"], activation_alpha=[0.9, 0.6]'
             ", activation_beta=[0.5, 0.1]"),
    ("GRU", ', activations=["HardSigmoid", "Softplus"]'),
    ("GRU", ', activations=["Sigmoid", "ThresholdedRelu"], activation_alpha=[0.2], linear_before_reset=1'),
    ("RNN", ', activations=["Relu"]'),
    ("RNN", ', activations=["Elu"]'),
    ("RNN", ', direction="bidirectional", activations=["Tanh", "Relu"]'),
    ("RNN", ", clip=0.4"),
    ("GRU", ", clip=0.4"),
    ("LSTM", ", clip=0.4"),
    ("LSTM", ", input_forget=1"),
]  # fmt: skip


@pytest.mark.parametrize(("op", "attributes"), ACTIVATIONS)
def test_what_pytorch_has_no_kernel_for(op: str, attributes: str) -> None:
    proto = recurrent(op, attributes, directions=directed(attributes))
    compare_module(proto, to_torch(proto), random(STEPS, BATCH, FEATURES))


def test_peepholes() -> None:
    proto = recurrent("LSTM", BOTH, ", h, c, p", directions=2)
    compare_module(proto, to_torch(proto), random(STEPS, BATCH, FEATURES))


@pytest.mark.parametrize("op", GATES)
def test_an_empty_sequence(op: str) -> None:
    proto = recurrent(op, REVERSE, "lengths, h, c" if op == "LSTM" else "lengths, h")
    compare_module(proto, to_torch(proto), random(STEPS, BATCH, FEATURES), np.array([5, 0, 1], np.int32))


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        (', activations=["Sigmoid", "Tanh"]', r"LSTM, opset 18\): it has 2 activations, expected 3\."),
        (', activations=["Sigmoid", "Tanh", "Gelu"]', r"the activation 'gelu' is unknown\. Known: affine,"),
        (
            ', activations=["Sigmoid", "Tanh", "Affine"]',
            r"the activation 'affine' needs its alpha and beta\.",
        ),
        (', direction="up"', r"direction is 'up', expected forward, reverse or bidirectional\."),
    ],
)
def test_what_is_not_exact_is_refused(attributes: str, message: str) -> None:
    with pytest.raises(UnsupportedOpError, match=message):
        to_torch(recurrent("LSTM", attributes))


@pytest.mark.parametrize("lengths", [False, True])
@pytest.mark.parametrize("op", GATES)
def test_both_ways_to_run_agree_with_the_batch_first(op: str, lengths: bool) -> None:
    """ONNX Runtime has no layout=1, so the same network with layout=0 is the oracle."""
    names = ("ht", "ct") if op == "LSTM" else ("ht",)
    start = "lengths" if lengths else ""
    first = to_torch(recurrent(op, BOTH + ", layout=1", f"{start}, {', '.join(names)}", directions=2))
    operands = f"{start}, {', '.join(name[0] for name in names)}"
    second = to_torch(recurrent(op, BOTH, operands, directions=2))
    x = torch.from_numpy(random(STEPS, BATCH, FEATURES))
    more = (torch.tensor([5, 2, 1], dtype=torch.int32),) if lengths else ()
    found, expected = first(x.transpose(0, 1), *more), second(x, *more)
    torch.testing.assert_close(found[0], expected[0].permute(2, 0, 1, 3))
    torch.testing.assert_close(found[1:], tuple(state.transpose(0, 1) for state in expected[1:]))


@pytest.mark.parametrize("attributes", [FORWARD, REVERSE, BOTH])
@pytest.mark.parametrize("op", GATES)
def test_gradients_of_both_ways_to_run_agree(op: str, attributes: str) -> None:
    plain = recurrent(op, attributes + ("" if op != "GRU" else ", linear_before_reset=1"),
                      directions=directed(attributes))  # fmt: skip
    stepped = onnx.ModelProto.FromString(plain.SerializeToString())
    stepped.graph.node[0].attribute.append(onnx.helper.make_attribute("clip", 1e6))
    x = torch.from_numpy(random(STEPS, BATCH, FEATURES))
    modules = [to_torch(proto).double() for proto in (plain, stepped)]
    for module in modules:
        torch.stack([part.square().sum() for part in module(x.double())]).sum().backward()
    gradients = [{name: p.grad for name, p in module.named_parameters()} for module in modules]
    assert gradients[0].keys() == {"w", "r", "b"}
    torch.testing.assert_close(gradients[0], gradients[1])


class Classifier(nn.Module):
    """Two bidirectional LSTMs over a sequence, and a linear layer on the last step."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(4, 8, num_layers=2, bidirectional=True, batch_first=True)
        self.head = nn.Linear(16, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Classify x: [N, T, 4] -> [N, 3]."""
        y, _ = self.lstm(x)
        logits: torch.Tensor = self.head(y[:, -1])
        return logits


@pytest.mark.parametrize("dynamo", [False, pytest.param(True, marks=pytest.mark.slow)])
@pytest.mark.filterwarnings("ignore")  # the exporters' own
def test_a_classifier_that_pytorch_exported(dynamo: bool, tmp_path: Path) -> None:
    torch.manual_seed(0)
    original, path = Classifier().eval(), tmp_path / "classifier.onnx"
    x = torch.from_numpy(random(2, STEPS, FEATURES))
    free = {"dynamic_shapes": ({0: torch.export.Dim("n")},)} if dynamo else {"dynamic_axes": {"x": {0: "n"}}}
    torch.onnx.export(original, (x,), path, dynamo=dynamo, input_names=["x"], verbose=False, **free)
    proto = onnx.load(path)
    module = to_torch(proto)
    compare_module(proto, module, random(1, STEPS, FEATURES))
    compare_module(proto, module, random(4, STEPS, FEATURES))
    assert sum(p.numel() for p in module.parameters()) >= sum(p.numel() for p in original.parameters())
    assert write_back(module).SerializeToString() == proto.SerializeToString()
    module.train()(x).square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in module.parameters())
    torch.optim.SGD(module.parameters(), lr=0.1).step()
    compare_module(write_back(module), module, random(4, STEPS, FEATURES))


def test_torch_export_takes_pytorchs_own_kernels() -> None:
    module = to_torch(recurrent("LSTM", BOTH, directions=2))
    x = torch.from_numpy(random(STEPS, 4, FEATURES))
    program = torch.export.export(
        module, (x[:, :2].contiguous(),), dynamic_shapes=({1: torch.export.Dim("n")},)
    )
    torch.testing.assert_close(program.module()(x), module(x))
    assert {onnx_name(key) for key in module.state_dict()} == {"w", "r", "b"}


STEPPED = {
    "LSTM": ("lengths, h, c, p", ", clip=2.0"),
    "GRU": ("lengths, h", ', activations=["HardSigmoid", "Softsign"]'),
    "RNN": ("lengths, h", ', activations=["Softplus"]'),
}


@pytest.mark.parametrize("op", GATES)
def test_finite_differences_agree_with_the_gradients(op: str) -> None:
    operands, attributes = STEPPED[op]
    module = to_torch(recurrent(op, attributes, operands)).double()
    lengths = torch.tensor([2, 1, 0], dtype=torch.int32)
    keys = list(dict(module.named_parameters()))

    def run(x: torch.Tensor, *weights: torch.Tensor) -> torch.Tensor:
        results = torch.func.functional_call(module, dict(zip(keys, weights, strict=True)), (x, lengths))
        return torch.cat([part.flatten() for part in results])

    x = torch.from_numpy(random(2, BATCH, FEATURES)).double().requires_grad_()
    assert torch.autograd.gradcheck(run, (x, *module.parameters()), fast_mode=True)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no usable CUDA device")
@pytest.mark.parametrize("op", GATES)
def test_a_gpu_gives_the_same_numbers(op: str) -> None:
    attributes = BOTH + (", linear_before_reset=1" if op == "GRU" else "")
    module = to_torch(recurrent(op, attributes, directions=2))
    x = torch.from_numpy(random(STEPS, BATCH, FEATURES))
    expected = module(x)
    found = module.cuda()(x.cuda())
    # cuDNN may round its products to the ten bits of TF32.
    torch.testing.assert_close([part.cpu() for part in found], list(expected), rtol=1e-2, atol=1e-2)
