"""Small networks of the usual kinds, in plain PyTorch, to be exported and converted."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import onnx
import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Attention(nn.Module):
    """Multi-head self-attention. x: [N, T, C], mask: to [N, heads, T, T] -> [N, T, C]."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.project = nn.Linear(width, width)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        n, t, c = x.shape
        q, k, v = self.qkv(x).reshape(n, t, 3, self.heads, c // self.heads).permute(2, 0, 3, 1, 4).unbind(0)
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        return self.project(y.transpose(1, 2).reshape(n, t, c))


class SpelledAttention(Attention):
    """The same with a matrix product and a softmax, as older code has it."""

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        n, t, c = x.shape
        q, k, v = self.qkv(x).reshape(n, t, 3, self.heads, c // self.heads).permute(2, 0, 3, 1, 4).unbind(0)
        scores = q @ k.transpose(-2, -1) * (c // self.heads) ** -0.5
        if mask is not None:
            scores = scores + mask
        return self.project((scores.softmax(-1) @ v).transpose(1, 2).reshape(n, t, c))


class TransformerBlock(nn.Module):
    """Attention and two layers, each on normalised input and beside an identity. x: [N, T, C]."""

    def __init__(self, width: int, heads: int, attention: type[Attention] = Attention) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attention = attention(width, heads)
        self.norm2 = nn.LayerNorm(width)
        self.expand = nn.Linear(width, 4 * width)
        self.contract = nn.Linear(4 * width, width)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        x = x + self.attention(self.norm1(x), mask)
        return x + self.contract(F.gelu(self.expand(self.norm2(x))))


class ViT(nn.Module):
    """Vision transformer. [N, 3, size, size] -> [N, classes]."""

    def __init__(
        self, *, size: int = 32, patch: int = 8, width: int = 48, depth: int = 2, heads: int = 3,
        classes: int = 10,
    ) -> None:  # fmt: skip
        super().__init__()
        self.embed = nn.Conv2d(3, width, patch, patch)
        self.token = nn.Parameter(torch.randn(1, 1, width) * 0.02)
        self.position = nn.Parameter(torch.randn(1, (size // patch) ** 2 + 1, width) * 0.02)
        self.blocks = nn.ModuleList(TransformerBlock(width, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], 1) + self.position
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x)[:, 0])


class ConvNeXtBlock(nn.Module):
    """Depthwise convolution, norm over channels, two layers with a learned scale. x: [N, C, H, W]."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(width, width, 7, padding=3, groups=width)
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.expand = nn.Linear(width, 4 * width)
        self.contract = nn.Linear(4 * width, width)
        self.scale = nn.Parameter(torch.full((width,), 0.5))

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.depthwise(x).permute(0, 2, 3, 1))
        y = self.scale * self.contract(F.gelu(self.expand(y)))
        return x + y.permute(0, 3, 1, 2)


class ConvNeXt(nn.Module):
    """[N, 3, 32, 32] -> [N, 10]."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 4, 4)
        self.first = ConvNeXtBlock(16)
        self.down = nn.Conv2d(16, 32, 2, 2)
        self.second = ConvNeXtBlock(32)
        self.norm = nn.LayerNorm(32, eps=1e-6)
        self.head = nn.Linear(32, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.second(self.down(self.first(self.stem(x))))
        return self.head(self.norm(x.mean((-2, -1))))


class LSTMClassifier(nn.Module):
    """Two-layer LSTM in both directions over token numbers. [N, T] -> [N, 5]."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(20, 12)
        self.lstm = nn.LSTM(12, 10, num_layers=2, batch_first=True, bidirectional=True)
        self.head = nn.Linear(20, 5)

    def forward(self, tokens: Tensor) -> Tensor:
        y, _ = self.lstm(self.embed(tokens))
        return self.head(y[:, -1])


def _double(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(),
        nn.Conv2d(outputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(),
    )  # fmt: skip


class UNet(nn.Module):
    """One level up by a transposed convolution, one by a resize. [N, 3, 32, 32] -> [N, 2, 32, 32]."""

    def __init__(self) -> None:
        super().__init__()
        self.top, self.middle, self.bottom = _double(3, 8), _double(8, 16), _double(16, 32)
        self.up = nn.ConvTranspose2d(32, 16, 2, 2)
        self.right = _double(32, 16)
        self.left = _double(24, 8)
        self.head = nn.Conv2d(8, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        top = self.top(x)
        middle = self.middle(F.max_pool2d(top, 2))
        bottom = self.bottom(F.max_pool2d(middle, 2))
        right = self.right(torch.cat([self.up(bottom), middle], 1))
        wide = F.interpolate(right, scale_factor=2, mode="bilinear", align_corners=False)
        return self.head(self.left(torch.cat([wide, top], 1)))


class SqueezeExcite(nn.Module):
    """Scale channels by what their means say. x: [N, C, H, W]."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.reduce = nn.Conv2d(width, width // 4, 1)
        self.expand = nn.Conv2d(width // 4, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.reduce(F.adaptive_avg_pool2d(x, 1)))
        return x * F.hardsigmoid(self.expand(y))


class InvertedResidual(nn.Module):
    """Expand, depthwise, squeeze-excite, project, beside an identity. x: [N, C, H, W]."""

    def __init__(self, width: int, wide: int, active: type[nn.Module] = nn.Hardswish) -> None:
        super().__init__()
        self.expand = nn.Sequential(nn.Conv2d(width, wide, 1, bias=False), nn.BatchNorm2d(wide), active())
        self.depthwise = nn.Sequential(
            nn.Conv2d(wide, wide, 3, padding=1, groups=wide, bias=False), nn.BatchNorm2d(wide), active()
        )
        self.excite = SqueezeExcite(wide)
        self.project = nn.Sequential(nn.Conv2d(wide, width, 1, bias=False), nn.BatchNorm2d(width))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.project(self.excite(self.depthwise(self.expand(x))))


class MobileNetV3(nn.Module):
    """[N, 3, 32, 32] -> [N, 10]."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 16, 3, 2, 1, bias=False), nn.BatchNorm2d(16), nn.Hardswish())
        self.blocks = nn.Sequential(InvertedResidual(16, 32), InvertedResidual(16, 64))
        self.head = nn.Sequential(nn.Linear(16, 32), nn.Hardswish(), nn.Dropout(0.2), nn.Linear(32, 10))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.adaptive_avg_pool2d(self.blocks(self.stem(x)), 1).flatten(1))


class EfficientNet(nn.Module):
    """Inverted residuals with SiLU and squeeze-excite, one of them strided. [N, 3, 32, 32] -> [N, 10]."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 16, 3, 2, 1, bias=False), nn.BatchNorm2d(16), nn.SiLU())
        self.first = InvertedResidual(16, 48, nn.SiLU)
        self.down = nn.Sequential(
            nn.Conv2d(16, 16, 5, 2, 2, groups=16, bias=False), nn.BatchNorm2d(16), nn.SiLU(),
            nn.Conv2d(16, 24, 1, bias=False), nn.BatchNorm2d(24),
        )  # fmt: skip
        self.second = InvertedResidual(24, 72, nn.SiLU)
        self.top = nn.Sequential(nn.Conv2d(24, 64, 1, bias=False), nn.BatchNorm2d(64), nn.SiLU())
        self.head = nn.Sequential(nn.Dropout(0.2), nn.Linear(64, 10))

    def forward(self, x: Tensor) -> Tensor:
        x = self.second(self.down(self.first(self.stem(x))))
        return self.head(F.adaptive_avg_pool2d(self.top(x), 1).flatten(1))


class BERT(nn.Module):
    """Encoder with a mask of the tokens that count. tokens, mask: [N, 12] -> [N, 3]."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(30, 32)
        self.position = nn.Embedding(12, 32)
        self.norm = nn.LayerNorm(32)
        self.blocks = nn.ModuleList(TransformerBlock(32, 4, SpelledAttention) for _ in range(2))
        self.pool = nn.Linear(32, 32)
        self.head = nn.Linear(32, 3)

    def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
        hidden = (1.0 - mask[:, None, None, :].float()) * -10000.0
        x = self.norm(self.words(tokens) + self.position(torch.arange(12, device=tokens.device)))
        for block in self.blocks:
            x = block(x, hidden)
        return self.head(torch.tanh(self.pool(x[:, 0])))


@dataclass(frozen=True)
class Case:
    """A network, and how to make its inputs for a batch."""

    network: Callable[[], nn.Module]
    inputs: Callable[[int], tuple[Tensor, ...]]


def _images(batch: int) -> tuple[Tensor, ...]:
    return (torch.randn(batch, 3, 32, 32, generator=torch.Generator().manual_seed(batch)),)


def _tokens(batch: int) -> tuple[Tensor, ...]:
    return (torch.randint(0, 20, (batch, 7), generator=torch.Generator().manual_seed(batch)),)


def _masked_tokens(batch: int) -> tuple[Tensor, ...]:
    tokens = torch.randint(0, 30, (batch, 12), generator=torch.Generator().manual_seed(batch))
    return tokens, (torch.arange(12) < 9).long().expand(batch, 12).contiguous()


CASES = {
    "vit": Case(ViT, _images),
    "convnext": Case(ConvNeXt, _images),
    "lstm": Case(LSTMClassifier, _tokens),
    "unet": Case(UNet, _images),
    "mobilenet_v3": Case(MobileNetV3, _images),
    "efficientnet": Case(EfficientNet, _images),
    "bert": Case(BERT, _masked_tokens),
}
"""Every network, by name."""


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silence the exporters."""
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        yield


def export_network(
    name: str, *, dynamo: bool, trained: bool = True, fold: bool = True
) -> tuple[nn.Module, onnx.ModelProto]:
    """Make the network `name` of CASES and export it; the same one each time.

    Args:
        name: Of the network.
        dynamo: Which of the two exporters writes.
        trained: Give norms the unequal numbers that training gives them, since exporters merge equal
            initializers, and have the TorchScript exporter keep them. Otherwise norms are left as they are.
        fold: Whether the TorchScript exporter computes constants.
    """
    torch.manual_seed(0)
    case = CASES[name]
    network = case.network()
    if trained:
        with torch.no_grad():
            for layer in network.modules():
                if isinstance(layer, (nn.BatchNorm2d, nn.LayerNorm)):
                    layer.weight.uniform_(0.5, 1.5)
                    layer.bias.normal_(0, 0.1)
                if isinstance(layer, nn.BatchNorm2d):
                    layer.running_mean.normal_(0, 0.1)
                    layer.running_var.uniform_(0.5, 1.5)
    kept = torch.onnx.TrainingMode.PRESERVE if trained else torch.onnx.TrainingMode.EVAL
    return network.eval(), export_module(network, case.inputs(2), dynamo=dynamo, mode=kept, fold=fold)


def export_module(
    network: nn.Module, inputs: tuple[Tensor, ...], *, dynamo: bool,
    mode: torch.onnx.TrainingMode = torch.onnx.TrainingMode.PRESERVE, fold: bool = True,
) -> onnx.ModelProto:  # fmt: skip
    """Export a module with a free batch.

    Args:
        network: In evaluation mode.
        inputs: To trace it with; the first axis of each is the batch.
        dynamo: Which of the two exporters writes.
        mode: What the TorchScript exporter does with norms.
        fold: Whether the TorchScript exporter computes constants.
    """
    batch = torch.export.Dim("batch")
    with quiet():
        if dynamo:
            free = tuple({0: batch} for _ in inputs)
            program = torch.onnx.export(network, inputs, dynamo=True, dynamic_shapes=free, verbose=False)
            assert program is not None
            return program.model_proto
        names = [f"input{i}" for i in range(len(inputs))]
        file = io.BytesIO()
        torch.onnx.export(
            network, inputs, file, dynamo=False, opset_version=16, input_names=names,
            dynamic_axes={n: {0: "batch"} for n in names}, training=mode,
            do_constant_folding=fold,
        )  # fmt: skip
        return onnx.load_from_string(file.getvalue())
