"""Convolutions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import nn
from torch.nn import functional as F

from graftonnx.conversion import windows
from graftonnx.conversion.builder import Builder
from graftonnx.conversion.registry import op
from graftonnx.conversion.values import Value, Weight
from graftonnx.errors import UnsupportedOpError

_LAYERS: dict[int, Callable[..., nn.Module]] = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
_CALLS = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
_TRANSPOSED_LAYERS: dict[int, Callable[..., nn.Module]] = {
    1: nn.ConvTranspose1d,
    2: nn.ConvTranspose2d,
    3: nn.ConvTranspose3d,
}
_TRANSPOSED_CALLS = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}


@op("Conv", since=1)
def conv(
    g: Builder,
    x: Value,
    w: Value,
    b: Value = None,
    *,
    auto_pad: str = "NOTSET",
    dilations: Sequence[int] | None = None,
    group: int = 1,
    kernel_shape: Sequence[int] | None = None,
    pads: Sequence[int] | None = None,
    strides: Sequence[int] | None = None,
) -> Value:
    """Convolution. x: [N, C, ...], w: [M, C/group, ...], b: [M] -> [N, M, ...]."""
    rank = spatial_rank(g, w)
    kernel = kernel_of(g, w, kernel_shape)
    stride, dilation = tuple(strides or [1] * rank), tuple(dilations or [1] * rank)
    x, padding = padded(g, x, kernel, stride, dilation, auto_pad, pads)
    settings: dict[str, Any] = {
        "stride": stride,
        "padding": padding,
        "dilation": dilation,
        "groups": group,
    }
    own = own_weights(w, b)
    if own is not None:
        m, per_group = own[0].array.shape[:2]
        layer = _LAYERS[rank](per_group * group, m, kernel, **settings, bias=b is not None, device="meta")
        return g.layer(layer, x, weights=own)
    return g.call(_CALLS[rank], g.tensor(x), w, b, **settings)


@op("ConvTranspose", since=1)
def conv_transpose(
    g: Builder,
    x: Value,
    w: Value,
    b: Value = None,
    *,
    auto_pad: str = "NOTSET",
    dilations: Sequence[int] | None = None,
    group: int = 1,
    kernel_shape: Sequence[int] | None = None,
    output_padding: Sequence[int] | None = None,
    output_shape: Sequence[int] | None = None,
    pads: Sequence[int] | None = None,
    strides: Sequence[int] | None = None,
) -> Value:
    """Transposed convolution. x: [N, C, ...], w: [C, M/group, ...], b: [M] -> [N, M, ...]."""
    rank = spatial_rank(g, w)
    kernel = kernel_of(g, w, kernel_shape)
    stride, dilation = tuple(strides or [1] * rank), tuple(dilations or [1] * rank)
    extra = tuple(output_padding or [0] * rank)
    spare = [d * (k - 1) + 1 + e - s for d, k, e, s in zip(dilation, kernel, extra, stride, strict=True)]
    if output_shape is not None:
        extents = (g.shape(x) or (None,) * (rank + 2))[2:]
        if None in extents:
            raise UnsupportedOpError("output_shape needs a fixed input size, found a dynamic one.")
        totals = [
            (extent or 0) * s + more - wanted
            for extent, s, more, wanted in zip(extents, stride, spare, output_shape[-rank:], strict=True)
        ]
        begin, end = _halves(totals, upper=auto_pad == "SAME_UPPER")
    elif auto_pad in ("SAME_UPPER", "SAME_LOWER"):
        begin, end = _halves([max(0, total) for total in spare], upper=auto_pad == "SAME_UPPER")
    else:
        given = [0] * 2 * rank if pads is None or auto_pad == "VALID" else list(pads)
        begin, end = given[:rank], given[rank:]
    # PyTorch takes the same padding off both ends; output_padding adds at the end what was too much.
    grown = [e + first - last for e, first, last in zip(extra, begin, end, strict=True)]
    settings: dict[str, Any] = {"stride": stride, "groups": group, "dilation": dilation}
    if min(begin) < 0 or any(not 0 <= e < max(s, d) for e, s, d in zip(grown, stride, dilation, strict=True)):
        whole = g.call(_TRANSPOSED_CALLS[rank], x, w, None, **settings)
        cut = [v for i in reversed(range(rank)) for v in (-begin[i], extra[i] - end[i])]
        y = g.call(F.pad, whole, cut)
        return y if b is None else g.call(windows.add_channels, y, b)
    settings |= {"padding": tuple(begin), "output_padding": tuple(grown)}
    own = own_weights(w, b)
    if own is None:
        return g.call(_TRANSPOSED_CALLS[rank], x, w, b, **settings)
    c, per_group = own[0].array.shape[:2]
    layer = _TRANSPOSED_LAYERS[rank](
        c, per_group * group, kernel, **settings, bias=b is not None, device="meta"
    )
    return g.layer(layer, x, weights=own)


def _halves(totals: Sequence[int], *, upper: bool) -> tuple[list[int], list[int]]:
    """Split paddings into beginnings and ends; the larger half is at the end if `upper`."""
    small, large = [t // 2 for t in totals], [t - t // 2 for t in totals]
    return (small, large) if upper else (large, small)


def spatial_rank(g: Builder, w: Value) -> int:
    """Return the number of spatial axes of a kernel w: [M, C, ...].

    Raises:
        UnsupportedOpError: If it is not 1, 2 or 3.
    """
    rank = g.rank(w) - 2
    if rank not in _LAYERS:
        raise UnsupportedOpError(f"the kernel has {rank} spatial axes, expected 1, 2 or 3.")
    return rank


def kernel_of(g: Builder, w: Value, kernel_shape: Sequence[int] | None) -> tuple[int, ...]:
    """Return the spatial extents of a kernel w: [M, C, ...].

    Raises:
        UnsupportedOpError: If they are unknown, or contradict `kernel_shape`.
    """
    found = (g.shape(w) or ())[2:]
    if kernel_shape is None and None in found:
        raise UnsupportedOpError("the extents of the kernel are unknown.")
    if kernel_shape is not None and None not in found and tuple(kernel_shape) != tuple(found):
        raise UnsupportedOpError(f"kernel_shape is {list(kernel_shape)}, but W has {list(found)}.")
    return tuple(kernel_shape) if kernel_shape is not None else tuple(e or 0 for e in found)


def padded(
    g: Builder,
    x: Value,
    kernel: Sequence[int],
    strides: Sequence[int],
    dilations: Sequence[int],
    auto_pad: str,
    pads: Sequence[int] | None,
) -> tuple[Value, tuple[int, ...]]:
    """Return x and the padding that a PyTorch convolution takes; x is padded before where that cannot do.

    Raises:
        UnsupportedOpError: If `auto_pad` is unknown.
    """
    rank = len(kernel)
    none = (0,) * rank
    pads = tuple(pads or [0] * 2 * rank)
    if auto_pad == "VALID":
        return x, none
    if auto_pad in ("SAME_UPPER", "SAME_LOWER"):
        lower = auto_pad == "SAME_LOWER"
        totals = [d * (k - 1) for k, d in zip(kernel, dilations, strict=True)]
        if set(strides) != {1}:
            return g.call(windows.pad_same, g.tensor(x), kernel, strides, dilations, lower), none
        halves = [(t - t // 2, t // 2) if lower else (t // 2, t - t // 2) for t in totals]
        pads = tuple(h[0] for h in halves) + tuple(h[1] for h in halves)
    elif auto_pad != "NOTSET":
        raise UnsupportedOpError(
            f"auto_pad is '{auto_pad}', expected NOTSET, VALID, SAME_UPPER or SAME_LOWER."
        )
    if pads[:rank] == pads[rank:] and min(pads) >= 0:
        return x, pads[:rank]
    return g.call(F.pad, g.tensor(x), pad_widths(pads)), none


def pad_widths(pads: Sequence[int]) -> list[int]:
    """Turn ONNX's pads (all beginnings, then all ends) into PyTorch's (pairs, last axis first).

    >>> pad_widths([1, 2, 3, 4])
    [2, 4, 1, 3]
    """
    rank = len(pads) // 2
    return [width for axis in reversed(range(rank)) for width in (pads[axis], pads[axis + rank])]


def own_weights(*weights: Value) -> list[Weight] | None:
    """Return the weights if a layer may own all of them: each is trainable and used once; else None."""
    present = [w for w in weights if w is not None]
    if all(isinstance(w, Weight) and w.trainable and w.uses == 1 for w in present):
        return [w for w in present if isinstance(w, Weight)]
    return None
